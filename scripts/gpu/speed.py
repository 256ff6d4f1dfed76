"""What costs time and memory on the device: waiting for data, the harness, the losses."""

from __future__ import annotations

import itertools
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.gpu.finding import Finding, Place
from scripts.gpu.runs import job_of

if TYPE_CHECKING:
    from harness.training.loop import Loop
    from scripts.bench_harness import Row


def waiting(place: Place) -> Iterator[Finding]:
    """Yield which share of its time training waits for data, and the device for anything, with either feed."""
    from harness import address, compose
    from harness.training.loop import Loop
    from scripts.bench_harness import NOISE, loop_of

    model, batch, side, many = place.size(("resnet18", 128, 64, 2048), ("mlp", 16, 16, 96))
    setup = (f"model={model}", "trainer=long", f"trainer.batch_size={batch}", f"device={place.device}")
    spec = address.spec_of(compose.compose_run(setup).config)
    held = loop_of(replace(spec, dataset={**NOISE, "count": place.size(16384, 128)}))
    yield from _waits(f"{model}, batch {batch}, data held on the device", held)
    with tempfile.TemporaryDirectory() as folder:
        write_photographs(Path(folder) / "photographs", many, side)
        own = ("dataset=images", f"dataset.path={folder}/photographs", "feed=streaming", "feed.workers=8")
        read = Loop(job_of(place, Path(folder), *setup[:-1], *own))
        yield from _waits(f"{model}, batch {batch}, JPEG files of {side}x{side} read as needed", read)


def write_photographs(folder: Path, many: int, side: int) -> None:
    """Write ``many`` JPEG files of noise of two classes, ``side`` pixels high and wide, into ``train/CLASS/``, and a
    fourth as many into ``valid`` and ``test``.
    """
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    for part, size in {"train": many, "valid": many // 4, "test": many // 4}.items():
        for index in range(size):
            path = folder / part / "ab"[index % 2] / f"{index}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(path)


def _waits(what: str, loop: Loop) -> Iterator[Finding]:
    """Yield the share of its time that a loop waits for data: how much quicker its steps are on one batch that is there
    already; and, on a GPU, the share of the time that the device computes.
    """
    from harness.tasks import Seeds

    loop._mode(train=True)
    steps = loop.task.steps_per_epoch - 1
    batches = loop.task.epoch(Seeds(0, 0))
    batch = next(batches)
    loop.step(batch)
    started = loop._clock()
    for batch in batches:
        loop.step(batch)
    with_data = loop._clock() - started
    started = loop._clock()
    for _ in range(steps):
        loop.step(batch)
    without = loop._clock() - started
    yield Finding(f"{what}: a step", 1000 * with_data / steps, "ms")
    yield Finding(f"{what}: share of the time spent waiting for data", max(0.0, 1 - without / with_data), "")
    if loop.device.type == "cuda":
        yield Finding(f"{what}: share of the time that the device computes", _busy(loop), "")


def _busy(loop: Loop) -> float:
    """Return the share of an epoch's time in which the device carries out at least one kernel or copy."""
    from torch._C._autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    from harness.tasks import Seeds

    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        started = loop._clock()
        for batch in itertools.islice(loop.task.epoch(Seeds(1, 1)), 20):
            loop.step(batch)
        wall = loop._clock() - started
    events = [e for e in seen.profiler.kineto_results.events() if e.device_type() == DeviceType.CUDA]  # pyright: ignore[reportOptionalMemberAccess]
    spans = [(e.start_ns(), e.start_ns() + e.duration_ns()) for e in events]
    return united(spans) / 1e9 / wall


def united(spans: Sequence[tuple[float, float]]) -> float:
    """Return the length of the union of intervals.

    >>> united([(0, 2), (1, 3), (5, 6)])
    4.0
    """
    total, end = 0.0, -math.inf
    for begin, stop in sorted(spans):
        total += max(0.0, stop - max(begin, end))
        end = max(end, stop)
    return total


def harness(place: Place) -> Iterator[Finding]:
    """Yield what a step through the harness costs beside the same written by hand, for four kinds of step."""
    import pandas as pd

    from scripts import bench_harness as bench

    rows = itertools.chain(bench.bench_step(1), bench.bench_segmentation(5), bench.bench_players(1), _detection_steps())
    found: list[Row] = []
    for row in place.size(rows, itertools.islice(bench.bench_segmentation(1), 1)):
        found.append(row)
        pd.DataFrame(map(asdict, found)).to_csv(place.folder / "harness.csv", index=False)
        yield Finding(
            f"{row.what} ({row.ours:.3g} / {row.other:.3g} {row.unit})", row.ratio, "", place.size(row.goal, "")
        )


def _detection_steps() -> Iterator[Row]:
    from harness import address, compose
    from scripts import bench_detection
    from scripts.bench_harness import loop_of, paired, row

    for model in bench_detection.MODELS:
        spec = address.spec_of(compose.compose_run(["task=detection", f"model={model}"]).config)
        times = paired(*bench_detection.turns(loop_of(spec), loop_of(spec)), bench_detection.PAIRS)
        mine, theirs = ([1000 * seconds for seconds in side] for side in times)
        what = f"step of {model}, batch {spec.trainer['batch_size']}, {spec.device}: harness / by hand"
        yield row("detection", what, mine, theirs, "ms", "<= 1.03")


def losses(place: Place) -> Iterator[Finding]:
    """Yield time and peak memory of the losses that other libraries have too, and of ArcFace with 100,000 classes."""
    import argparse
    import logging
    import warnings

    from harness import compose
    from scripts import bench_losses as bench
    from scripts.peers import peers

    warnings.simplefilter("ignore")  # peers that cannot be measured warn at length
    logging.getLogger("torch").setLevel(logging.CRITICAL)
    named = ["arcface", *(name for name in compose.options("loss") if peers(name))]
    settings = argparse.Namespace(
        compile="none", rounds=place.size(7, 3), least=place.size(0.002, 0.0), size=place.size(None, ["128x10"])
    )
    every: list[bench.Contender] = []
    for name in place.size(named, ["cross_entropy"]):
        rows = bench.measure(name, place.device, settings)
        every += rows
        if rows:
            bench.store(place.folder / "loss_benchmark.csv", [asdict(row) for row in rows])
        for row in (row for row in rows if row.ours):
            what = f"{name}, {row.size}{row.by.removeprefix('lossbench')}"
            yield Finding(f"{what}: forward and backward", row.milliseconds, "ms")
            yield Finding(f"{what}: peak memory beside the gradient, in sizes of the data", row.extra_memory)
            if row.ratio == row.ratio:
                yield Finding(f"{what}: ours / the quickest peer's", row.ratio)
    for line in bench.goals(every):
        yield Finding(line, "")
