"""A run as a worker gets it: described by plain data, checked before anything is trained, carried out to a record."""

from __future__ import annotations

import errno
import functools
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.address import Addresses, RunSpec
from harness.behaviour import Behaviours, Part
from harness.errors import UsageError
from harness.metrics.declared import check_metric
from harness.text import visible

LONGEST, LONGEST_TRACE = 500, 20_000
"""Characters of a message that are kept: a loss may raise millions."""
Report = Callable[[int, int, Mapping[str, Any]], None]


ELSEWHERE = "elsewhere"
"""Status of a run that another process has a lease of."""


class Stopped(Exception):
    """The run was asked to stop and has left a checkpoint."""


@dataclass(frozen=True)
class Job:
    """One run, or the check of one.

    Attributes:
        key: its address.
        choices: chosen option of every config group.
        label: what the study calls its loss.
        role: its part in the study.
        spec: everything that decides its numbers but the seed.
        seed: the seed.
        data: ``root`` and ``download``.
        feed: config of the feed, which moves no number.
        folder: where its record goes.
        checkpoint_seconds: how often it is saved.
        environment: commit and state of the checkout.
        identity: what the key covers beyond the spec: content of the data and behaviour of the code.
        parts: the components of its code.
        metric: what the study compares, such as ``test.top1``; empty: nothing.
        only_check: build and try it, train nothing.
    """

    key: str
    choices: Mapping[str, str]
    label: str
    role: str
    spec: RunSpec
    seed: int
    data: Mapping[str, Any]
    feed: Mapping[str, Any]
    folder: str
    checkpoint_seconds: float
    environment: Mapping[str, Any]
    identity: Mapping[str, Any]
    parts: Sequence[Part] = ()
    metric: str = ""
    only_check: bool = False


def check(job: Job, say: Callable[[str], Any] = lambda note: None) -> str | None:
    """Build and try out a job without training; return the one sentence that says why it cannot run, or None.

    Args:
        job: the run.
        say: called with every note of its data, where they were read just now, and of its model: a line each.
    """
    from harness import feeds

    problem = _problem(job, say)
    for note in feeds.notes():
        say(f"data: {visible(note)}")
    return problem


def _problem(job: Job, say: Callable[[str], Any]) -> str | None:
    from datasets.splits import MissingData
    from harness.training import build

    try:
        learner = build.learner(job)
        learner.try_out()
        if job.metric:
            check_metric(job.metric, [metric.key for metric in learner.task.metrics], job.spec.shift or {})
        for note in notes(learner):
            say(f"model: {visible(note)}")
    except (UsageError, MissingData, ValueError) as error:
        return str(error)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a setting of the wrong type, as a rule; or a loss that ends the program
        return _in_short(error)
    return None


def notes(learner: Any) -> list[str]:
    """Return what the model of a learner has to say of itself to readers of its results, a sentence each."""
    return list(getattr(getattr(getattr(learner, "model", None), "body", None), "notes", ()))


def _in_short(error: BaseException) -> str:
    """Return what was raised in one line, the first, of bounded length."""
    line = f"{type(error).__name__}: {str(error)[:LONGEST]}".strip().removesuffix(":").splitlines()[0]
    return visible(line if len(str(error)) <= LONGEST else f"{line} ...")


def carry_out(job: Job, stop: Callable[[], bool], report: Report) -> dict[str, Any]:
    """Carry out one run; whatever it raises becomes a recorded failure. Return ``status`` and, if failed, ``error``.

    Args:
        job: the run.
        stop: asked after every step.
        report: called after every epoch with epoch, epochs and the history row.

    A run that another process trains at this moment, or has taken over since it was begun here, is left alone: its
    ``status`` is `ELSEWHERE`, with ``owner``. One
    that has been finished since it was planned keeps its record. Where results cannot be written, nothing is recorded,
    and ``no_room`` says so.

    Raises:
        Stopped: ``stop`` returned True; a checkpoint is written.
    """
    from harness.records import lease, store

    folder = Path(job.folder)
    try:
        with lease.held(folder) as mine:
            if not mine:
                return {"status": ELSEWHERE, "owner": mine.owner}
            record = store.read_folder(folder, job.key)
            if record and record["status"] in store.STATUSES:
                return {"status": record["status"]}

            def stopped() -> bool:
                mine.check()
                return stop()

            return _trained(job, folder, stopped, report, lambda: mine.check(look=True))
    except lease.Lost:
        return {"status": ELSEWHERE, "owner": "another process"}
    except OSError as error:
        problem = store.no_room(error, folder) or _in_short(error)
        # open files may be the run's own doing, so that others go on
        return {"status": "failed", "error": problem, "no_room": error.errno not in (errno.EMFILE, errno.ENFILE)}


def _trained(
    job: Job, folder: Path, stop: Callable[[], bool], report: Report, ours: Callable[[], None]
) -> dict[str, Any]:
    """Train a run and write its record, or its failure, where it is still ``ours``; see `carry_out`.

    Raises:
        Lost: another process trains the run by now.
        OSError: results cannot be written.
    """
    from harness.records import lease, store

    started = datetime.now(UTC)
    try:
        behaviour = _behaviour(job)
        _check_content(job)
        record, history, examples, items = _run(job, folder, stop, report)
        ours()
        store.save(folder, _about_run(job, started) | behaviour | record, history, examples, items)
        return {"status": record["status"]}
    except (Stopped, KeyboardInterrupt, lease.Lost):
        raise
    except BaseException as error:  # a loss may end the program too: sys.exit is its failure, not the worker's end
        if store.no_room(error, folder) and not store.writable(folder):
            raise
        ours()
        return failed(job, error, started)


def failed(job: Job, error: BaseException, started: datetime | None = None) -> dict[str, Any]:
    """Record that a run raised ``error``; return ``status`` and ``error``."""
    from harness.records import store

    last = _in_short(error)
    trouble = {"error": last, "traceback": "".join(traceback.format_exception(error))[-LONGEST_TRACE:]}
    store.save_failure(Path(job.folder), _about_run(job, started or datetime.now(UTC)) | trouble)
    return {"status": "failed", "error": last}


def _run(job: Job, folder: Path, stop: Callable[[], bool], report: Report) -> Any:
    """Train from the checkpoint, or anew where that is damaged, and return what `Loop.run` does; the model's ``notes``
    become part of the record.
    """
    from harness.training import build, checkpoint

    learner = build.learner(job)
    try:
        record, *rest = learner.run(folder, stop, report)
    except checkpoint.Damaged as damaged:
        print(damaged, file=sys.stderr, flush=True)
        learner = build.learner(job)
        record, *rest = learner.run(folder, stop, report)
    return record | ({"notes": said} if (said := notes(learner)) else {}), *rest


def _check_content(job: Job) -> None:
    """Raise a UsageError unless the files of the data set are still those that the key covers."""
    planned = job.identity.get("data")
    if planned and Addresses(Path(job.data["root"]), Path(job.folder).parents[1]).content(job.spec) != planned:
        raise UsageError("the files of the data set have changed since this run was planned: give the command again.")


def _behaviour(job: Job) -> dict[str, Any]:
    """Return what the record keeps of the code: the syntax tree of every component, and what some of them do."""
    if not job.parts:
        return {}
    behaviours = _behaviours(Path(job.folder).parents[1])
    return {"behaviour": [behaviours.observe(part, job.data) for part in job.parts]}


@functools.cache
def _behaviours(results: Path) -> Behaviours:
    return Behaviours(results)


def _about_run(job: Job, started: datetime) -> dict[str, Any]:
    """Return the part of a record that does not depend on how the run ended."""
    from harness import hardware
    from harness.training import build

    config = {name: value for name, value in asdict(job.spec).items() if value not in (None, {})}
    device, threads = job.spec.device, config.pop("threads", None)
    config.pop("device")
    return {
        "key": job.key,
        "choices": dict(job.choices),
        "seed": job.seed,
        "config": config,
        "identity": dict(job.identity),
        "env": {
            **job.environment,
            **build.versions(),
            "device": device,
            "threads": threads,
            **hardware.about_device(device),
        },
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
