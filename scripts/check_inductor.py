"""python -m scripts.check_inductor [LOSS ...]: what Inductor, torch's compiler, makes of every loss.

Each loss is compiled for float32 and for bfloat16, on small data, some of them masked; value and gradients are compared
with those of float64 on the same numbers. Prints what is wrong with which, and ends with exit code 1 if anything is.
Needs a C++ compiler; the whole registry takes minutes, so that the suite checks a sample of every family (`SAMPLE`).
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
    "log_cosh", "ciou", "hinge_cs", "focal", "ghm_c_ovr", "dice", "triplet", "arcface", "gan_discriminator", "style",
)  # fmt: skip
"""A loss or two of every family, those with gradients by hand, or with a form of their own for compilers, first."""
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2}
"""Difference that the rounding of a dtype explains: of values over 1 + value, of gradients over the largest."""
TOGETHER = 8
"""How many losses are compiled at once: a compiler takes longest to start."""
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


def step(losses: Sequence[Loss | Sum], all_pairs: Sequence[Pairs], *, compiled: bool) -> list[list[Tensor]]:
    """Return of every loss its value on its pairs, of which some are masked, and the gradients of its predictions."""

    def values(pairs: Sequence[Pairs]) -> list[Tensor]:
        return [loss(halves(each)) for loss, each in zip(losses, pairs, strict=True)]

    found = (torch.compile(values, dynamic=False, fullgraph=True) if compiled else values)(all_pairs)
    leaves = [predictions(pairs) for pairs in all_pairs]
    gradients = iter(torch.autograd.grad(torch.stack(found).sum(), list(itertools.chain(*leaves))))
    return [[value.detach(), *itertools.islice(gradients, len(own))] for value, own in zip(found, leaves, strict=True)]


def wrong(names: Sequence[str], dtype: torch.dtype, device: str = "cpu") -> dict[str, str]:
    """Return what is wrong with losses that are compiled together, by name; a loss that is right is not in it.

    Those that cannot be compiled together are compiled one by one.
    """
    torch.compiler.reset()
    losses = [[_built(name, device) for name in names] for _ in range(2)]
    all_pairs = [
        batch(kinds, size_of(kinds), device, dtype, factor=1 if {"images", "attention"} & set(kinds) else 2)
        for kinds in (loss.about.kinds for loss in losses[0])
    ]
    exact = step([loss.double() for loss in losses[0]], [widened(pairs) for pairs in all_pairs], compiled=False)
    try:
        found = step(losses[1], all_pairs, compiled=True)
    except Exception as error:
        if len(names) == 1:
            return {names[0]: f"does not compile: {' '.join(str(error).split())[:200]}"}
        return {key: told for name in names for key, told in wrong([name], dtype, device).items()}
    told = {}
    for name, parts, true in zip(names, found, exact, strict=True):
        for part, its in zip(parts, true, strict=True):
            scale = 1 + float(its.abs()) if not its.ndim else float(its.abs().max())
            gap = float((part.double() - its).abs().max())
            if not gap <= TOLERANCE[dtype] * scale:
                told[name] = f"the {'gradient' if its.ndim else 'value'} is off by {gap:.3g}, of {scale:.3g}"
    return told


def _built(name: str, device: str) -> Loss | Sum:
    kinds = built(name, Size("none", (1,), 5, 6), device).about.kinds
    return built(name, size_of(kinds), device, **SETTINGS.get(name, {}))


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the losses that are named, or all; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m scripts.check_inductor", description=__doc__)
    parser.add_argument("losses", nargs="*", metavar="LOSS", help="default: all")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    given = parser.parse_args(arguments)
    names = given.losses or compose.options("loss")
    warnings.simplefilter("ignore")
    failed: set[str] = set()
    for group in (names[first : first + TOGETHER] for first in range(0, len(names), TOGETHER)):
        started = time.perf_counter()
        for dtype in TOLERANCE:
            told = wrong(group, dtype, given.device)
            failed |= told.keys()
            for name, what in told.items():
                print(f"{name} {dtype}: {what}")
        print(f"{' '.join(group)}: {time.perf_counter() - started:.0f} s", flush=True)
    print(f"{len(names)} losses, {len(failed)} wrong")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
