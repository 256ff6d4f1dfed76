"""python -m scripts.bench_losses [LOSS ...]: time and memory of every loss, beside those of other libraries.

A step is forward and backward. Every contender of one comparison (ours and the peers', eager and compiled) runs in turn
in every round, beside a copy of the data, the least that has to move. Ratios are medians over rounds of (our best / the
peer's best), with an interval of the median; memory is the peak above the start of a step, the gradient itself not
counted. Writes results/bench/loss_benchmark.csv, one row per contender, and loss_costs.csv, one row per loss,
which the catalogue shows; rows of losses that are not measured this time stay.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import math
import os
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from harness import compose, hardware, paths, records
from harness.catalogue import entries
from losses.checks import labels_trusted
from losses.compound import Sum
from losses.kinds import KINDS, Draw, Pair, Pairs, example
from losses.loss import Loss
from scripts.peers import peers

Step = Callable[[], object]
REGION_AND_FOCAL = {"focal", "binary_focal", "dice", "jaccard", "tversky", "generalized_dice", "cross_entropy_dice"}
STRESS = (1e-4, 1.0, 1e2, 1e4)
"""Factors on ordinary data under which gradients should stay finite."""


# ---------------------------------------------------------------- data


@dataclass(frozen=True)
class Size:
    """A size to measure at: the shape of the data, and how many classes and features a loss with weights has."""

    name: str
    shape: tuple[int, ...]
    classes: int = 10
    features: int = 512


def sizes(loss: Loss | Sum, device: str) -> list[Size]:
    """Return the sizes at which a loss is measured on this kind of device, by its kinds."""
    kinds = set(loss.about.kinds)
    gpu = device == "cuda"
    dense = Size("16x21x512x512", (16, 21, 512, 512), 21) if gpu else Size("8x21x128x128", (8, 21, 128, 128), 21)
    flat = [Size("128x10", (128, 10)), Size("512x1000", (512, 1000), 1000)]
    if kinds == {"features"} and loss.is_head:
        return [Size("4096x100000", (4096, 512), 100_000) if gpu else Size("512x10000", (512, 512), 10_000)]
    if kinds & {"features", "embeddings"}:
        return [Size("256x128", (256, 128), features=128), Size("1024x512", (1024, 512))]
    if kinds & {"class_logits", "class_probabilities"}:
        return [dense] if loss.about.per_image else [*flat, dense]
    if kinds & {"boxes", "rotated_boxes"}:
        count = 100 if loss.about.name == "PIoU" else 100_000  # PIoU looks at every pixel for every pair
        return [Size(f"{count} pairs", (count,))]
    if kinds & {"images"}:
        return [Size("8x3x192x192", (8, 3, 192, 192))]
    if kinds & {"feature_maps", "flows"}:
        return [Size("8x2x32x32", (8, 2, 32, 32))]
    if kinds & {"attention"}:
        return [Size("128x197x197", (128, 197, 197))]
    if kinds & {"latents", "critic_slopes"}:
        return [Size("512x512", (512, 512))]
    return [*flat, dense]


def batch(
    kinds: Sequence[str], size: Size, device: str, dtype: torch.dtype = torch.float32, factor: float = 1
) -> Pairs:
    """Return an example of every kind at a size, predictions as leaves that require gradients.

    dtype: of all that is not a class. factor: on the predictions.
    """
    count, *rest = size.shape
    if "score_pairs" in kinds:  # as many scores as the size has numbers
        count = math.prod(size.shape) // 2
    shapes = {kind: tuple(rest) for kind in KINDS} | {
        "class_logits": (size.classes, *rest[1:]),
        "features": (size.features,),
        "latents": (2, 64),
        "distributions": (2, *rest),
        "score_pairs": (2,),
    }
    found = example(kinds, Draw(count, size.classes, seed=0, spread=1.0), shapes)

    def cast(data: Tensor) -> Tensor:
        return data.to(device, dtype) if data.is_floating_point() else data.to(device)

    return {
        kind: Pair(cast(factor * prediction).requires_grad_(), cast(target))
        for kind, (prediction, target, _) in found.items()
    }


def predictions(pairs: Pairs) -> list[Tensor]:
    """Return the predictions of all pairs."""
    return [pair.prediction for pair in pairs.values()]


# ---------------------------------------------------------------- measuring


def step_of(function: Callable[[], Tensor], leaves: Sequence[Tensor]) -> Step:
    """Return one forward and backward pass; gradients are returned and dropped."""
    return lambda: torch.autograd.grad(function(), leaves, allow_unused=True)


def timer(device: str, step: Step, inner: int) -> float:
    """Return the seconds of one step, averaged over ``inner`` in a row."""
    if device == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(inner):
        step()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - started) / inner


def interleaved(device: str, steps: Mapping[str, Step], rounds: int, least: float) -> dict[str, list[float]]:
    """Time all steps in turn; each measurement repeats its step until ``least`` seconds are over."""
    inner = {}
    for name, step in steps.items():
        timer(device, step, 2)
        inner[name] = max(1, math.ceil(least / timer(device, step, 1)))
    times: dict[str, list[float]] = {name: [] for name in steps}
    order = list(steps)
    for index in range(rounds):
        for name in order if index % 2 else reversed(order):
            times[name].append(timer(device, steps[name], inner[name]))
    return times


def peak_memory(device: str, step: Step, gradients: Sequence[int]) -> int:
    """Return the most bytes that a step holds above what was held before it, its gradients not counted.

    gradients: the bytes of each gradient, which the step returns.
    """
    if device == "cuda":  # the gradients are the last that a step allocates, so they are there at its peak
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return max(0, torch.cuda.max_memory_allocated() - before - sum(gradients))
    from torch.profiler import ProfilerActivity, profile

    with _silent(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        kept = step()
    found = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]  # pyright: ignore[reportOptionalMemberAccess]
    moved = [event.nbytes() for event in sorted(found, key=lambda e: e.start_ns())]  # pyright: ignore[reportAttributeAccessIssue]
    del kept
    for size in gradients:  # what was allocated last in the size of a gradient, and not given back, is the gradient
        place = max((i for i, n in enumerate(moved) if n == size), default=None)
        if place is not None:
            moved[place] = 0
    return max(0, *itertools.accumulate(moved, initial=0))


@contextmanager
def _silent() -> Iterator[None]:
    """Drop what native code writes to standard error: the profiler says when it starts and when it stops."""
    with open(os.devnull, "w") as nowhere:
        kept = os.dup(2)
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


class _Counter(TorchDispatchMode):
    """Counts tensor operations; views cost nothing and are left out."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def operations(step: Step) -> int:
    """Return how many tensor operations a step takes."""
    with _Counter() as counter:
        step()
    return counter.count


def finite_share(name: str, size: Size, device: str) -> float:
    """Return the share of finite gradients over data from tiny to huge, in float32, float16 and bfloat16."""
    # numbers, not speed: half precision is slow on CPUs
    few = replace(size, shape=(min(size.shape[0], 64), *size.shape[1:]), classes=min(size.classes, 100), features=64)
    loss = built(name, few, device)
    finite = total = 0
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for factor in STRESS:
            stressed = batch(loss.about.kinds, few, device, dtype, factor)
            value = loss.to(dtype)(stressed)
            for gradient in torch.autograd.grad(value, predictions(stressed), allow_unused=True):
                if gradient is not None:
                    finite += int(gradient.isfinite().sum())
                    total += gradient.numel()
    return finite / max(total, 1)


# ---------------------------------------------------------------- one loss at one size


@dataclass(frozen=True)
class Contender:
    """One implementation, eager or compiled, at one size."""

    loss: str
    size: str
    by: str
    mode: str
    milliseconds: float
    copies: float
    extra_memory: float
    ratio: float = math.nan
    low: float = math.nan
    high: float = math.nan

    @property
    def ours(self) -> bool:
        """Whether it is an implementation of ours, with whatever settings."""
        return self.by.startswith("lossbench")


def built(name: str, size: Size, device: str, **settings: Any) -> Loss | Sum:
    """Return a loss of the registry for the classes and features of a size, with settings beside its defaults."""
    from hydra.utils import instantiate

    from losses.loss import instantiate_with_sizes

    config = {**compose.option("loss", name), **settings}
    if "terms" in config:
        given = config.get("parts", {})
        terms = {term: built(term, size, device, **given.get(term, {})) for term in config["terms"]}
        return Sum(terms, config["terms"])
    torch.manual_seed(0)
    return Loss(instantiate_with_sizes(instantiate(config), num_classes=size.classes, num_features=size.features)).to(
        device
    )


@dataclass(frozen=True)
class _Entrant:
    """What takes part in a comparison, what it is called with and differentiated by.

    Attributes:
        like: of a peer, which of ours computes the same.
    """

    function: Callable[..., Tensor]
    arguments: tuple[Any, ...]
    leaves: list[Tensor]
    like: str = ""


def _entrants(name: str, size: Size, device: str, loss: Loss | Sum, pairs: Any) -> dict[str, _Entrant]:
    """Return ours and the peers, by name. A peer that computes what ours does under other settings than its defaults
    has ours under these beside it, ``lossbench as LIBRARY``.
    """
    data, target, _ = next(iter(pairs.values()))

    def ours(built: Loss | Sum) -> _Entrant:
        return _Entrant(built, (pairs,), [*predictions(pairs), *(p for p in built.parameters() if p.requires_grad)])

    found = {"lossbench": ours(loss)}
    known: list[tuple[dict[str, Any], str]] = [({}, "lossbench")]
    for peer in peers(name):
        if peer.dense is not None and peer.dense != (data.ndim > 2):
            continue
        library = peer.library.partition(".")[0]
        alike = built(name, size, device, **peer.settings)
        by = next((by for settings, by in known if settings == peer.settings), f"lossbench as {library}")
        if by not in found:
            known.append((peer.settings, by))
            found[by] = ours(alike)
        function = peer.build(alike)
        weights = list(function.parameters()) if isinstance(function, torch.nn.Module) else []
        found[library] = _Entrant(function, (data, target), [data, *(w for w in weights if w.requires_grad)], by)
    return found


def _steps(entrants: Mapping[str, _Entrant], compiled: bool, what: str) -> dict[str, Step]:
    """Return a step of each, eager and perhaps compiled; one that cannot be taken is printed and left out."""
    steps: dict[str, Step] = {}
    for by, each in entrants.items():
        for mode in ("eager", "compiled") if compiled else ("eager",):
            called = torch.compile(each.function, dynamic=False) if mode == "compiled" else each.function
            step = step_of(lambda called=called, each=each: called(*each.arguments), each.leaves)
            try:
                step()
            except Exception as error:
                print(f"  {what} {by} {mode}: {type(error).__name__}: {str(error).splitlines()[0][:90]}")
                continue
            steps[f"{by} {mode}"] = step
    return steps


def _ratios(times: Mapping[str, list[float]], entrants: Mapping[str, _Entrant]) -> dict[str, dict[str, float]]:
    """Return the ratio of our best to the best peer that computes the same, with its interval, by the former's name."""
    found: dict[str, dict[str, float]] = {}
    for by in [name for name, each in entrants.items() if not each.like]:
        rivals = [name for name, each in entrants.items() if each.like == by]
        both = [[key for key in times if key.rsplit(" ", 1)[0] in names] for names in ([by], rivals)]
        if all(both):
            mine, theirs = (min(keys, key=lambda key: statistics.median(times[key])) for keys in both)
            ratio, low, high = interval([a / b for a, b in zip(times[mine], times[theirs], strict=True)])
            found[mine] = {"ratio": ratio, "low": low, "high": high}
    return found


@labels_trusted()  # as in training, where loaders have looked at them
def contest(name: str, size: Size, device: str, rounds: int, least: float, compiled: bool) -> list[Contender]:
    """Measure a loss and its peers at one size; the row of our best holds the ratio to the best peer."""
    loss = built(name, size, device)
    pairs = batch(loss.about.kinds, size, device)
    entrants = _entrants(name, size, device, loss, pairs)
    steps = _steps(entrants, compiled, f"{name} {size.name}")
    memory = {
        key: peak_memory(device, step, [x.numel() * x.element_size() for x in entrants[key.rsplit(" ", 1)[0]].leaves])
        for key, step in steps.items()
    }
    # heads: what moves are the scores, which are many times larger than the features
    largest = max(predictions(pairs), key=torch.numel).detach()
    moved = largest.new_zeros(len(largest), size.classes) if getattr(loss, "is_head", False) else largest
    space = torch.empty_like(moved)
    steps["copy"] = lambda: space.copy_(moved)
    times = interleaved(device, steps, rounds, least)
    floor = statistics.median(times.pop("copy"))
    ratios = _ratios(times, entrants)
    rows = []
    for key, found in times.items():
        by, mode = key.rsplit(" ", 1)
        seconds, extra = statistics.median(found), memory[key] / (moved.numel() * moved.element_size())
        rows.append(Contender(name, size.name, by, mode, 1e3 * seconds, seconds / floor, extra, **ratios.get(key, {})))
    torch.compiler.reset()
    return rows


def interval(ratios: Sequence[float]) -> tuple[float, float, float]:
    """Return the median and its 95 % interval from order statistics."""
    from scipy.stats import binom

    rank = int(binom.ppf(0.025, len(ratios), 0.5))
    ordered = sorted(ratios)
    return statistics.median(ordered), ordered[max(rank - 1, 0)], ordered[min(len(ordered) - rank, len(ordered) - 1)]


# ---------------------------------------------------------------- all of them


def measure(name: str, device: str, given: argparse.Namespace) -> list[Contender]:
    """Measure a loss at all its sizes, and print a line for each."""
    compiled = given.compile == "all" or (given.compile == "peers" and bool(peers(name)))
    found: list[Contender] = []
    for size in sizes(entries.build(name), device):
        if given.size and size.name not in given.size:
            continue
        try:
            rows = contest(name, size, device, given.rounds, given.least, compiled)
        except (ValueError, RuntimeError, TypeError) as error:
            print(f"{name:26} {size.name:14} not measured: {str(error).splitlines()[0][:120]}", flush=True)
            continue
        for line in lines(rows):
            print(line, flush=True)
        found += rows
    return found


def lines(rows: Sequence[Contender]) -> Iterator[str]:
    """Yield what is printed of one loss at one size: ours, and ours under the settings of peers, beside the best."""
    best = min((row for row in rows if row.ours), key=lambda row: (row.by != "lossbench", row.milliseconds))
    for row in [best, *(row for row in rows if row is not best and not math.isnan(row.ratio))]:
        text = f"{row.loss:26} {row.size:14} {row.milliseconds:8.3f}m {row.copies:7.1f} {row.extra_memory:7.2f}"
        if not math.isnan(row.ratio):
            text += f"  {row.ratio:.2f} ({row.low:.2f}-{row.high:.2f})"
        yield text + ("" if row.by == "lossbench" else f", {row.by.removeprefix('lossbench ')}")


def goals(rows: Sequence[Contender]) -> list[str]:
    """Return what was asked of the whole, and what was found."""
    found = [row for row in rows if not math.isnan(row.ratio)]
    if not found:
        return ["no peer is installed: there is nothing to compare with"]
    mean = math.exp(statistics.fmean(math.log(row.ratio) for row in found))
    slower = [f"{row.loss} {row.size}" for row in found if row.low > 1.05]
    lines = [
        f"geometric mean of our best / the peer's best: {mean:.2f} over {len(found)} comparisons (goal 0.8)",
        f"slower beyond doubt (interval above 1.05): {', '.join(slower) or 'none'} (goal: none)",
    ]
    for row in found:
        eager = [r.milliseconds for r in rows if (r.loss, r.size, r.mode) == (row.loss, row.size, "eager")
                 and not r.ours]  # fmt: skip
        if row.loss in REGION_AND_FOCAL and eager:
            lines.append(
                f"{row.loss} {row.size}: {row.milliseconds / min(eager):.2f} of the best eager peer (goal 0.5)"
            )
    for row in found:
        least = min(r.extra_memory for r in rows if (r.loss, r.size) == (row.loss, row.size) and not r.ours)
        ours = min(r.extra_memory for r in rows if (r.loss, r.size, r.by) == (row.loss, row.size, row.by))
        if least <= 2 < ours:
            lines.append(f"{row.loss} {row.size}: extra memory {ours:.1f} times the data, a peer needs {least:.1f}")
    return lines


def cost(rows: Sequence[Contender], device: str) -> dict[str, object]:
    """Return what the catalogue shows of a loss, at the largest size at which it was measured."""
    own = [row for row in rows if row.by == "lossbench"]
    known = sizes(entries.build(own[-1].loss), device)
    size = next(size for size in known if size.name == own[-1].size)
    loss = built(own[-1].loss, size, device)
    pairs = batch(loss.about.kinds, size, device)
    last = {row.mode: row for row in own if row.size == size.name}
    return {
        "loss": own[-1].loss,
        "size": size.name,
        "eager_ms": last["eager"].milliseconds,
        "compiled_ms": last["compiled"].milliseconds if "compiled" in last else math.nan,
        "copies": min(row.copies for row in last.values()),
        "extra_memory": min(row.extra_memory for row in last.values()),
        "operations": operations(step_of(lambda: loss(pairs), predictions(pairs))),
        "finite": finite_share(own[-1].loss, known[0], device),
    }


def store(path: Path, found: Sequence[Mapping[str, object]]) -> pd.DataFrame:
    """Put rows into a CSV in place of those of the same losses, and return the whole table."""
    frame = pd.DataFrame(found)
    if path.exists():
        old = pd.read_csv(path)
        frame = pd.concat([old[~old["loss"].isin(frame["loss"])], frame])
    records.write_text(path, frame.to_csv(index=False, float_format="%.5g"))
    return frame


def main() -> None:
    """Measure the losses named on the command line, or all that can be trained; print tables, write the CSVs."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.bench_losses", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("loss", nargs="*", help="losses to measure (default: all)")
    parser.add_argument("--size", nargs="*", help="only these sizes, such as 128x10")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--least", type=float, default=0.005, help="seconds of one measurement at least")
    parser.add_argument("--peers", action="store_true", help="only losses that another library has too")
    parser.add_argument(
        "--compile",
        choices=("all", "peers", "none"),
        default="peers",
        help="which losses are compiled too (default: those that another library has; a minute each)",
    )
    parser.add_argument("--publish", action="store_true", help="write to results/measured instead of results/bench")
    given = parser.parse_args()
    folder = paths.ROOT / "results" / "measured" if given.publish else records.RESULTS / "bench"
    device = hardware.device_type("auto")
    warnings.simplefilter("ignore")  # compilers tell at length where peers break their graphs
    logging.getLogger("torch").setLevel(logging.CRITICAL)
    known = compose.options("loss")
    if unknown := set(given.loss) - set(known):
        parser.error(f"unknown loss {', '.join(sorted(unknown))}: python -m harness.catalogue lists them")
    names = [name for name in given.loss or known if not entries.build(name).about.untrainable]
    names = [name for name in names if peers(name)] if given.peers else names
    machine = {"machine": hardware.about_device(device)["device_name"], "device": device, "torch": torch.__version__}
    print(f"{machine['machine']}, {hardware.cores()} cores, {device}, torch {machine['torch']}, {given.rounds} rounds")
    head = f"{'loss':26} {'size':14} {'ours':>9} {'copies':>7} {'memory':>7}  ratio to the best peer (interval)"
    print(head + "\n" + "-" * len(head))
    every: list[Contender] = []
    for name in names:
        if rows := measure(name, device, given):
            every += rows
            store(folder / "loss_benchmark.csv", [vars(row) | machine for row in rows])
            store(folder / "loss_costs.csv", [cost(rows, device) | machine])
    print("\n".join(["", *goals(every)]))
    print(f"{os.path.relpath(folder)}/loss_benchmark.csv and loss_costs.csv have it, beside what was measured before.")


if __name__ == "__main__":
    main()
