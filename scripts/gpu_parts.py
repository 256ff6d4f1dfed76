"""python -m scripts.gpu_parts PART FOLDER DEVICE: one part of `scripts.gpu_check`, in a process of its own.

A part yields findings, and records of runs, which are written to FOLDER/parts/PART.jsonl as they come, so that a part
that runs out of time keeps what it has found. DEVICE is cuda, or cpu for a rehearsal, in which sizes are tiny.
"""

from __future__ import annotations

import ast
import itertools
import json
import math
import operator
import os
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.paths import ROOT
from harness.text import count

if TYPE_CHECKING:
    from harness.engines.local import Event
    from harness.training.job import Job
    from harness.training.loop import Loop
    from scripts.bench_harness import Row

Record = dict[str, Any]
COMPARE = {"<=": operator.le, ">=": operator.ge}
TIMES = ("step_ms", "peak_memory_mb")
"""Columns of a history that differ between equal runs."""
NEEDS_GPU = "cuda.is_available()"
"""How the condition of a test reads that is skipped for want of a GPU."""
SHOWN_FAILURES = 20


@dataclass(frozen=True)
class Finding:
    """One thing that a part has found.

    Attributes:
        what: what was looked at.
        value: a number, or words.
        unit: of the number.
        goal: what the number should be, such as ``<= 1.03``; empty: nothing is asked of it.
    """

    what: str
    value: float | str
    unit: str = ""
    goal: str = ""

    @property
    def held(self) -> bool | None:
        """Whether the goal is met; None if there is none."""
        if not self.goal:
            return None
        sign, _, limit = self.goal.partition(" ")
        return bool(COMPARE[sign](float(self.value), float(limit)))


@dataclass(frozen=True)
class Place:
    """Where a part is carried out: ``device`` is cuda, or cpu in a rehearsal; ``folder`` takes its files."""

    device: str
    folder: Path

    def size(self, full: Any, tiny: Any) -> Any:
        """Return what is wanted on a GPU, or what stands for it in a rehearsal."""
        return full if self.device == "cuda" else tiny


class Left(Exception):
    """A part cannot be carried out here, for the reason given; that is no failure."""


# ---------------------------------------------------------------- runs


def job_of(place: Place, results: Path, *overrides: str, seed: int = 1, saved: float = 30) -> Job:
    """Return the job of one run: ``python -m harness.run OVERRIDES`` on the device of a place.

    Args:
        place: has the device.
        results: folder below which the run's own folder lies.
        overrides: as on the command line.
        seed: of the run.
        saved: seconds between checkpoints.
    """
    from harness import address, compose
    from harness.plan import Run, Setting
    from harness.studies import sweep

    composed = compose.compose_run([*overrides, f"device={place.device}", f"engine.checkpoint_seconds={saved}"])
    spec, addresses = address.spec_of(composed.config), address.Addresses(_root(composed.config), results)
    choices = composed.choices
    setting = Setting(choices, choices["loss"], {}, "run", spec, address.setting_hash(spec))
    run = Run(addresses.keys(spec, [seed])[0], setting, seed, seed)
    return sweep.job_of(run, composed.config, results, addresses)


def _root(config: Mapping[str, Any]) -> Path:
    return Path(config["data"]["root"])


def carried_out(
    place: Place, jobs: Sequence[Job], workers: int = 1, told: Callable[[Event, Any], None] = lambda event, pool: None
) -> list[Record]:
    """Carry out jobs on so many workers that share the device; return their records, or failures, in order.

    told: called with everything that happens, and the engine.
    """
    from harness import records
    from harness.engines.local import LocalEngine

    with LocalEngine(place.device, workers=workers, per_device=workers) as pool:
        for event in pool.run(jobs):
            told(event, pool)
    found = [records.read_folder(Path(job.folder), job.key) for job in jobs]
    return [record or {"status": "lost", "error": "it has left no record"} for record in found]


def succeeded(record: Record) -> Record:
    """Return a record that is one of a finished run.

    Raises:
        RuntimeError: it is that of a failure, with its reason.
    """
    if record["status"] != "done":
        raise RuntimeError(f"the run is {record['status']}: {record.get('error', 'it diverged')}")
    return record


def findings_of(what: str, record: Record, goal: str = "") -> Iterator[Finding]:
    """Yield what the record of a run says: its first metric on the test items, and what it cost."""
    metric, cost = record["metrics"][0], record["cost"]
    yield Finding(f"{what}: {metric['title']}", record["test"][metric["key"]], "", goal)
    yield Finding(f"{what}: whole run, {count(record['epochs_trained'], 'epoch')}", cost["wall_s"], "s")
    yield Finding(f"{what}: a step", cost["step_ms"], "ms")
    yield Finding(f"{what}: peak memory", cost["peak_memory_mb"], "MB")


def difference(one: Path, other: Path) -> float:
    """Return the largest difference between any loss, score or norm of two runs' epochs; infinite if they do not have
    the same epochs and the same numbers there.
    """
    import numpy as np
    import pandas as pd

    tables = [pd.read_csv(folder / "history.csv").drop(columns=list(TIMES)) for folder in (one, other)]
    if any(tables[0].shape != table.shape or list(tables[0]) != list(table) for table in tables):
        return math.inf
    mine, theirs = (table.select_dtypes("number").to_numpy(float) for table in tables)
    if (np.isfinite(mine) != np.isfinite(theirs)).any():
        return math.inf
    return float(np.abs(np.nan_to_num(mine) - np.nan_to_num(theirs)).max(initial=0.0))


# ---------------------------------------------------------------- the device, and the tests that want one


def device(place: Place) -> Iterator[Finding]:
    """Yield what machine and software this is, how PyTorch is set, and what the device can do at best."""
    import torch

    from harness import hardware
    from harness.training import build

    if place.device == "cuda":
        about = torch.cuda.get_device_properties(0)
        yield Finding("card", about.name)
        yield Finding("compute capability", f"{about.major}.{about.minor}")
        yield Finding("memory of the card", about.total_memory / 2**30, "GiB")
        yield Finding("CUDA, cuDNN", f"{torch.version.cuda}, {torch.backends.cudnn.version()}")
        yield Finding("bf16", "yes" if torch.cuda.is_bf16_supported() else "no")
    yield Finding("processor", f"{hardware.cpu_name()}, {hardware.cores()} cores")
    for name, version in build.versions().items():
        yield Finding(name, str(version))
    yield Finding("commit", str(hardware.commit()[0]))
    settings = {
        "TF32 in products": torch.backends.cuda.matmul.allow_tf32,
        "TF32 in convolutions": torch.backends.cudnn.allow_tf32,
        "cuDNN deterministic": torch.backends.cudnn.deterministic,
        "cuDNN benchmark": torch.backends.cudnn.benchmark,
    }
    for name, value in settings.items():
        yield Finding(name, "yes" if value else "no")
    yield from _speeds(place)


def _speeds(place: Place) -> Iterator[Finding]:
    """Yield how fast the device multiplies matrices and copies memory."""
    import torch

    from scripts.bench_losses import timer

    side = place.size(8192, 128)
    one, other = torch.randn(2, side, side, device=place.device, dtype=torch.bfloat16)
    data = torch.empty(place.size(2**30, 2**20), dtype=torch.uint8, device=place.device)
    target = torch.empty_like(data)
    for step in (lambda: one @ other, lambda: target.copy_(data)):
        timer(place.device, step, 2)
    flops = 2 * side**3 / timer(place.device, lambda: one @ other, 10)
    yield Finding("product of bf16 matrices", flops / 1e12, "TFLOP/s")
    moved = 2 * data.numel() / timer(place.device, lambda: target.copy_(data), 10)
    yield Finding("copy in memory, read and written", moved / 1e9, "GB/s")


def wanting_a_gpu(root: Path = ROOT) -> list[str]:
    """Return the tests that are skipped where there is no GPU, as pytest calls them."""
    found = []
    for path in sorted((root / "tests").rglob("test_*.py")):
        text = path.read_text()
        if NEEDS_GPU not in text:
            continue
        tree, name = ast.parse(text), path.relative_to(root).as_posix()
        marks = {
            target.id
            for node in tree.body
            if isinstance(node, ast.Assign) and NEEDS_GPU in ast.unparse(node.value)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        if "pytestmark" in marks:
            found.append(name)
            continue
        for node in tree.body:
            if isinstance(node, ast.FunctionDef):
                decorators = [ast.unparse(each) for each in node.decorator_list]
                if any(NEEDS_GPU in each or each in marks for each in decorators):
                    found.append(f"{name}::{node.name}")
    return found


def tests(place: Place) -> Iterator[Finding]:
    """Carry out the tests that are skipped without a GPU; yield how many pass, and which do not."""
    report = place.folder / "tests.xml"
    nodes = wanting_a_gpu()
    chosen = place.size(nodes, nodes[-1:])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *chosen]
    ended = subprocess.run(command, cwd=ROOT, check=False)
    if not report.exists():
        raise RuntimeError(f"pytest ended with exit code {ended.returncode} before it had a result")
    suite = next(ElementTree.parse(report).iter("testsuite"))
    counts = {name: int(suite.attrib[name]) for name in ("tests", "failures", "errors", "skipped")}
    bad = counts["failures"] + counts["errors"]
    passed = counts["tests"] - bad - counts["skipped"]
    yield Finding("tests that pass", passed, "", place.size(">= 1", ""))
    yield Finding("tests that fail", bad, "", "<= 0")
    yield Finding("tests that are skipped", counts["skipped"], "", place.size("<= 0", ""))
    failures = (case for case in suite.iter("testcase") if {part.tag for part in case} & {"failure", "error"})
    for case in itertools.islice(failures, SHOWN_FAILURES):
        yield Finding(f"{case.attrib['classname']}::{case.attrib['name']}", str(case[0].attrib.get("message"))[:200])


# ---------------------------------------------------------------- runs on the device


def resume(place: Place) -> Iterator[Finding | Record]:
    """Train a run twice, and once with its worker killed in mid-training, which another goes on with; yield how far
    their epochs are apart.
    """
    setup = place.size(
        ("model=resnet_small", "trainer.epochs=20"),
        ("model=mlp", "trainer.epochs=12", "dataset.augment.shift=0"),
    )
    with tempfile.TemporaryDirectory() as folder:
        jobs = [job_of(place, Path(folder) / name, *setup, saved=0.05) for name in ("one", "again", "killed")]
        unhurt, again, killed = (Path(job.folder) for job in jobs)
        kills: list[str] = []

        def told(event: Event, pool: Any) -> None:
            saved = (killed / "checkpoint.pt").exists()
            if event.kind == "epoch" and Path(event.job.folder) == killed and saved and not kills:
                kills.append(f"epoch {event.content['epoch']} of {event.content['epochs']}")
                os.kill(pool.workers[event.worker].process.pid, signal.SIGKILL)

        found = [succeeded(record) for record in carried_out(place, jobs, told=told)]
        if not kills:
            raise RuntimeError("the run was over before its worker could be killed")
        yield Finding("worker killed after", kills[0])
        repeated = difference(unhurt, again)
        yield Finding("the same run twice: largest difference of a loss, norm or score", repeated)
        resumed = difference(unhurt, killed)
        goal = "<= 0" if repeated == 0 else f"<= {10 * repeated:.3g}"
        yield Finding("killed and resumed, against unhurt: largest difference", resumed, "", goal)
        kind = (
            "bit for bit equal" if repeated == 0 else "not repeatable to the bit on this device; the goal is ten times"
        )
        yield Finding("two runs of one key are", kind)
        yield from found


def segmentation(place: Place) -> Iterator[Finding | Record]:
    """Train and test one run of segmentation."""
    model = place.size("unet_small", "unet_micro")
    yield from _one_run(place, f"{model} on scenes", "task=segmentation", f"model={model}")


def detection(place: Place) -> Iterator[Finding | Record]:
    """Train and test one run of detection."""
    yield from _one_run(place, "detector_micro on crowded_scenes", "task=detection", "trainer.epochs=5")


def _one_run(place: Place, what: str, *overrides: str) -> Iterator[Finding | Record]:
    tiny = ("dataset.train_size=16", "dataset.valid_size=8", "dataset.test_size=8", "trainer.epochs=1")
    with tempfile.TemporaryDirectory() as folder:
        job = job_of(place, Path(folder), *overrides, *place.size((), tiny))
        record = succeeded(*carried_out(place, [job]))
        yield from findings_of(what, record)
        yield record


def tasks(place: Place) -> Iterator[Finding | Record]:
    """Train and test every task for an epoch, several at once; yield how each run ended."""
    from harness import compose, hardware

    names = place.size(compose.options("task"), ["regression"])
    with tempfile.TemporaryDirectory() as folder:
        jobs = [job_of(place, Path(folder), f"task={name}", "trainer.epochs=1") for name in names]
        found = carried_out(place, jobs, place.size(min(6, hardware.cores()), 1))
    for name, record in zip(names, found, strict=True):
        if record["status"] == "done":
            yield from itertools.islice(findings_of(name, record), 1)
            yield record
        else:
            yield Finding(f"{name}: {record['status']}", str(record.get("error", "")))
    yield Finding("tasks that could not be trained", sum(record["status"] != "done" for record in found), "", "<= 0")


def cifar10(place: Place) -> Iterator[Finding | Record]:
    """Train ResNet-18 on CIFAR-10 by the recipe of ``study=cifar10_gpu``, one seed of each of its losses.

    Raises:
        Left: the data are not here.
    """
    from harness import address, compose, plan
    from harness.studies import sweep
    from harness.training.job import check

    tiny = ("base.dataset=digits", "base.model=cnn_micro", "base.trainer.epochs=1")
    alone = ("axes.seed=[1]", "controls.baseline_repeat=false", "controls.negative_control=null")
    study = plan.read_study("cifar10_gpu", [*alone, f"base.device={place.device}", *place.size((), tiny)])
    options = compose.compose_run([]).config
    with tempfile.TemporaryDirectory() as folder:
        addresses = address.Addresses(_root(options), Path(folder))
        runs = plan.runs(plan.settings(study), study, addresses)
        jobs = [sweep.job_of(run, options, Path(folder), addresses, study.metric) for run in runs]
        if problem := check(jobs[0]):
            raise Left(problem)
        for job in jobs:  # one after the other, so that what is finished is kept where time runs out
            record = succeeded(*carried_out(place, [job]))
            yield from findings_of(job.label, record, place.size(">= 0.94", ""))
            yield record


def workers(place: Place) -> Iterator[Finding]:
    """Carry out the same short runs on one worker and on several that share the device; yield what that brings."""
    many, several = place.size((16, 4), (2, 2))
    setup = place.size(("model=resnet_small", "trainer.epochs=10"), ("model=mlp", "trainer.epochs=1"))
    seconds: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        jobs = {
            size: [job_of(place, Path(folder) / str(size), *setup, seed=seed) for seed in range(1, many + 1)]
            for size in (1, several)
        }
        for size, chosen in jobs.items():
            seconds[size] = _warm_seconds(place, chosen, size)
            yield Finding(f"{many} runs on {count(size, 'worker')}, started before", seconds[size], "s")
        yield Finding("one worker / several", seconds[1] / seconds[several], "", place.size(">= 1", ""))
        apart = max(difference(Path(a.folder), Path(b.folder)) for a, b in zip(*jobs.values(), strict=True))
        yield Finding("largest difference of a loss, norm or score between the two", apart)


def _warm_seconds(place: Place, jobs: Sequence[Job], size: int) -> float:
    """Return how long workers take for jobs, from when each has built a run.

    Raises:
        RuntimeError: a run failed.
    """
    from harness.engines.local import LocalEngine

    with LocalEngine(place.device, workers=size, per_device=size) as pool:
        for _ in pool.run([replace(job, only_check=True) for job in jobs[:size]]):
            pass
        started = time.perf_counter()
        for event in pool.run(jobs):
            if event.kind in ("died", "timeout") or event.content.get("status", "done") != "done":
                raise RuntimeError(f"a run ended so: {event.kind} {event.content.get('error', '')}")
        return time.perf_counter() - started


# ---------------------------------------------------------------- what the device waits for


def waiting(place: Place) -> Iterator[Finding]:
    """Yield which share of its time training waits for data, and the device for anything, with either feed."""
    from harness import address, compose
    from harness.training.loop import Loop
    from scripts.bench_harness import NOISE, loop_of

    model, batch, side, many = place.size(("resnet18", 256, 128, 2048), ("mlp", 16, 16, 96))
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
    from torch.autograd import DeviceType
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


# ---------------------------------------------------------------- benchmarks


def harness(place: Place) -> Iterator[Finding]:
    """Yield what a step through the harness costs beside the same written by hand, for four kinds of step."""
    import pandas as pd

    from scripts import bench_harness as bench

    rows = itertools.chain(bench.bench_step(1), bench.bench_segmentation(1), bench.bench_players(1), _detection_steps())
    found: list[Row] = []
    for row in place.size(rows, itertools.islice(bench.bench_segmentation(1), 1)):
        found.append(row)
        pd.DataFrame(map(asdict, found)).to_csv(place.folder / "harness.csv", index=False)
        yield Finding(f"{row.what} ({row.ours:.3g} / {row.other:.3g} {row.unit})", row.ratio, "", row.goal)


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
        for row in (row for row in rows if row.by == "lossbench"):
            what = f"{name}, {row.size}"
            yield Finding(f"{what}: forward and backward", row.milliseconds, "ms")
            yield Finding(f"{what}: peak memory beside the gradient, in sizes of the data", row.extra_memory)
            if row.ratio == row.ratio:
                yield Finding(f"{what}: ours / the quickest peer's", row.ratio)
    for line in bench.goals(every):
        yield Finding(line, "")


PARTS: Mapping[str, Callable[[Place], Iterator[Finding | Record]]] = {
    "device": device,
    "tests": tests,
    "resume": resume,
    "segmentation": segmentation,
    "detection": detection,
    "tasks": tasks,
    "cifar10": cifar10,
    "workers": workers,
    "waiting": waiting,
    "harness": harness,
    "losses": losses,
}


def carry_out(name: str, place: Place) -> int:
    """Carry out a part and write what it finds, line by line; return the exit code."""
    from harness.records import store

    path = place.folder / "parts" / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:

        def say(kind: str, content: Any) -> None:
            print(json.dumps(store.finite({kind: content})), file=file, flush=True)

        try:
            for found in PARTS[name](place):
                if isinstance(found, Finding):
                    say("finding", asdict(found) | {"held": found.held})
                else:
                    say("record", store.flat(found))
        except Left as reason:
            say("left", str(reason))
        except Exception as error:
            say("error", f"{type(error).__name__}: {str(error)[:500]}")
            raise
    return 0


if __name__ == "__main__":
    sys.exit(carry_out(sys.argv[1], Place(sys.argv[3], Path(sys.argv[2]))))
