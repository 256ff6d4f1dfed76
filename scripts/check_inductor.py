"""python -m scripts.check_inductor [LOSS ...]: what Inductor, torch's compiler, makes of every loss.

Each loss is compiled once for float32 and once for bfloat16, on small data, some of them masked; value and gradients
are compared with those of float64 on the same numbers. Prints a line for each loss and what is wrong with it, and ends
with exit code 1 if anything is. Needs a C++ compiler; the whole registry takes minutes, so that the suite checks a
sample of every family (`SAMPLE`).
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from harness import compose
from losses.compound import Sum
from losses.kinds import Pair, Pairs
from losses.loss import Loss
from scripts.bench_losses import Size, batch, built, predictions

SAMPLE = (
    "log_cosh", "rmsle", "ciou", "gwd", "hinge_cs", "hinge_ww", "cross_entropy", "focal", "ghm_c_ovr", "dice",
    "generalized_dice", "triplet", "clip_contrastive", "arcface", "curricularface", "gan_discriminator", "style",
    "center_cross_entropy",
)  # fmt: skip
"""One or two losses of every family, those with gradients by hand, memory or a form of their own for compilers."""
TOLERANCE = {torch.float32: (1e-4, 1e-5), torch.bfloat16: (4e-2, 2e-2)}
"""Relative and absolute difference that the rounding of a dtype explains; of gradients relative to the largest."""
SETTINGS = {"ms_ssim": {"weights": [0.4, 0.6], "window": 5}}
"""Settings in place of those that need large data."""


def size_of(kinds: Sequence[str]) -> Size:
    """Return the size at which losses of these kinds are checked: two or more of everything."""
    shapes = {
        "images": (4, 3, 16, 16), "noise": (4, 3, 16, 16), "feature_maps": (4, 4, 3, 3), "flows": (4, 2, 3, 3),
        "attention": (4, 3, 4), "critic_slopes": (4, 2, 3), "class_logits": (12, 5), "class_probabilities": (12, 5),
        "embeddings": (12, 6),
    }  # fmt: skip
    shape = next((shapes[kind] for kind in kinds if kind in shapes), (12,))
    return Size("small", shape, classes=5, features=6)


def halves(pairs: Pairs) -> Pairs:
    """Return the pairs with every third item masked."""
    return {
        kind: Pair(prediction, target, torch.arange(len(target), device=target.device) % 3 != 1)
        for kind, (prediction, target, _) in pairs.items()
    }


def widened(pairs: Pairs) -> Pairs:
    """Return the same numbers as float64, predictions as leaves that require gradients."""
    return {
        kind: Pair(
            prediction.detach().double().requires_grad_(), target.double() if target.is_floating_point() else target
        )
        for kind, (prediction, target, _) in pairs.items()
    }


def step(loss: Loss | Sum, pairs: Pairs) -> list[Tensor]:
    """Return the value of a loss on pairs of which some are masked, and the gradients of the predictions."""
    value = loss(halves(pairs))
    return [value.detach(), *torch.autograd.grad(value, predictions(pairs))]


def wrong(name: str, device: str = "cpu") -> list[str]:
    """Return what is wrong with a compiled loss, a sentence for each dtype in which something is."""
    found = []
    settings = SETTINGS.get(name, {})
    kinds = built(name, Size("none", (1,), 5, 6), device, **settings).about.kinds
    size = size_of(kinds)
    for dtype, (relative, absolute) in TOLERANCE.items():
        torch.compiler.reset()
        pairs = batch(kinds, size, device, dtype, factor=1 if set(kinds) & {"images", "attention"} else 2)
        exact = step(built(name, size, device, **settings).double(), widened(pairs))
        try:
            compiled = torch.compile(built(name, size, device, **settings), dynamic=False, fullgraph=True)
            parts = step(compiled, pairs)  # pyright: ignore[reportArgumentType]
        except Exception as error:
            told = " ".join(str(error).split())[:200]
            found.append(f"{name} {dtype}: does not compile: {told}")
            continue
        for what, part, true in zip(
            itertools.chain(["value"], itertools.repeat("gradient")), parts, exact, strict=False
        ):
            scale = float(true.abs().max()) if what == "gradient" and true.numel() else 0.0
            gap = (part.double() - true).abs()
            allowed = relative * (true.abs() if what == "value" else scale) + absolute * (
                1 if what == "value" else scale
            )
            if not bool((gap <= allowed).all()):
                found.append(
                    f"{name} {dtype}: the {what} is off by {float(gap.max()):.3g} of {float(true.abs().max()):.3g}"
                )
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the losses that are named, or all; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m scripts.check_inductor", description=__doc__)
    parser.add_argument("losses", nargs="*", metavar="LOSS", help="default: all")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    given = parser.parse_args(arguments)
    names = given.losses or compose.options("loss")
    warnings.simplefilter("ignore")
    failed = 0
    for name in names:
        started = time.perf_counter()
        found = wrong(name, given.device)
        failed += bool(found)
        print(f"{name:32} {time.perf_counter() - started:5.1f} s  {'; '.join(found) or 'right'}", flush=True)
    print(f"{len(names)} losses, {failed} wrong")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
