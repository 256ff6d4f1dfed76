"""Runs on the device: resumed, of every task, at full size, and several at once."""

from __future__ import annotations

import itertools
import math
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.text import count
from scripts.gpu.finding import Finding, Left, Place, Record

if TYPE_CHECKING:
    from harness.engines.local import Event, LocalEngine
    from harness.training.job import Job

TIMES = ("step_ms", "peak_memory_mb")
"""Columns of a history that differ between equal runs."""


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


def engine(place: Place, workers: int = 1) -> LocalEngine:
    """Return an engine of so many workers that share the device; to be used as a context manager."""
    from harness.engines.local import LocalEngine

    return LocalEngine(place.device, workers=workers, per_device=workers)


def ended(
    pool: LocalEngine, jobs: Sequence[Job], told: Callable[[Event], object] = lambda event: None
) -> Iterator[tuple[Job, Record]]:
    """Carry out jobs; yield each with its record, or the record of its failure, as it ends.

    told: called with everything that happens.
    """
    from harness import records
    from harness.engines.engine import ENDS

    for event in pool.run(jobs):
        told(event)
        if event.kind in ENDS and not event.content.get("again"):
            record = records.read_folder(Path(event.job.folder), event.job.key)
            yield event.job, record or {"status": "failed", "error": f"its worker {event.kind}"}


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


def resume(place: Place) -> Iterator[Finding | Record]:
    """Train a run twice, and once with its worker killed in mid-training, which another goes on with; yield how far
    their epochs are apart.
    """
    setup = place.size(
        ("model=resnet_small", "trainer.epochs=20"), ("model=mlp", "trainer.epochs=20", "trainer.batch_size=256")
    )
    often = place.size(0.05, 0.001)
    with tempfile.TemporaryDirectory() as folder:
        saved = {"one": 30, "again": 30, "killed": often}
        jobs = [job_of(place, Path(folder) / name, *setup, saved=seconds) for name, seconds in saved.items()]
        unhurt, again, killed = (Path(job.folder) for job in jobs)
        kills: list[str] = []
        with engine(place) as pool:

            def told(event: Event) -> None:
                if event.job is jobs[2] and event.kind == "epoch" and not kills and (killed / "checkpoint.pt").exists():
                    kills.append(f"epoch {event.content['epoch']} of {event.content['epochs']}")
                    os.kill(pool.workers[event.worker].process.pid, signal.SIGKILL)

            found = [succeeded(record) for _, record in ended(pool, jobs, told)]
        if not kills:
            raise RuntimeError("the run was over before its worker could be killed")
        yield Finding("worker killed after", kills[0])
        repeated = difference(unhurt, again)
        yield Finding("the same run twice: largest difference of a loss, norm or score", repeated)
        resumed = difference(unhurt, killed)
        goal = "<= 0" if repeated == 0 else f"<= {10 * repeated:.3g}"
        yield Finding("killed and resumed, against unhurt: largest difference", resumed, "", goal)
        yield Finding("two runs of one key are", "bit for bit equal" if repeated == 0 else "equal to rounding only")
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
        with engine(place) as pool:
            ((_, record),) = ended(pool, [job])
        yield from findings_of(what, succeeded(record))
        yield record


def tasks(place: Place) -> Iterator[Finding | Record]:
    """Train and test every task for an epoch, several at once; yield how each run ended."""
    from harness import compose, hardware

    names = place.size(compose.options("task"), ["regression"])
    failed = 0
    with tempfile.TemporaryDirectory() as folder, engine(place, place.size(min(6, hardware.cores()), 1)) as pool:
        jobs = {name: job_of(place, Path(folder), f"task={name}", "trainer.epochs=1") for name in names}
        called = {job.key: name for name, job in jobs.items()}
        for job, record in ended(pool, list(jobs.values())):
            if record["status"] == "done":
                yield from itertools.islice(findings_of(called[job.key], record), 1)
                yield record
            else:
                failed += 1
                yield Finding(f"{called[job.key]}: {record['status']}", str(record.get("error", "")))
    yield Finding("tasks that could not be trained", failed, "", "<= 0")


def cifar10(place: Place) -> Iterator[Finding | Record]:
    """Train ResNet-18 on CIFAR-10 by the recipe of ``study=cifar10_gpu``, one seed of each of its losses.

    Raises:
        Left: the data are not here.
    """
    from harness import address, compose, plan
    from harness.studies import sweep

    tiny = ("base.dataset=digits", "base.model=cnn_micro", "base.trainer.epochs=1")
    alone = ("axes.seed=[1]", "controls.baseline_repeat=false", "controls.negative_control=null")
    study = plan.read_study("cifar10_gpu", [*alone, f"base.device={place.device}", *place.size((), tiny)])
    options = compose.compose_run([]).config
    with tempfile.TemporaryDirectory() as folder:
        addresses = address.Addresses(_root(options), Path(folder))
        runs = plan.runs(plan.settings(study), study, addresses)
        jobs = [sweep.job_of(run, options, Path(folder), addresses, study.metric) for run in runs]
        with engine(place) as pool:
            (checked,) = (e for e in pool.run([replace(jobs[0], only_check=True)]) if e.kind == "checked")
            if problem := checked.content["problem"]:
                raise (Left if "CIFAR-10" in problem else RuntimeError)(problem)
            for job, record in ended(pool, jobs):
                yield from findings_of(job.label, succeeded(record), place.size(">= 0.94", ""))
                yield record


def workers(place: Place) -> Iterator[Finding]:
    """Carry out the same short runs on one worker and on several that share the device; yield what that brings."""
    many, several = place.size((12, 4), (2, 2))
    setup = place.size(("model=resnet_small", "trainer.epochs=6"), ("model=mlp", "trainer.epochs=1"))
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
    with engine(place, size) as pool:
        for _ in pool.run([replace(job, only_check=True) for job in jobs[:size]]):
            pass
        started = time.perf_counter()
        for _, record in ended(pool, jobs):
            succeeded(record)
        return time.perf_counter() - started
