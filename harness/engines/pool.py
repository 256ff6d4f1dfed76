"""Warm workers to whom jobs are given one by one: queue, retries and silence, whatever the workers are."""

from __future__ import annotations

import itertools
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Self, TypeVar

from harness.engines.engine import ENDS, Event, Silences
from harness.errors import UsageError
from harness.training.job import Job

STOP_SECONDS = 4.0
"""How long workers may take to write a checkpoint after Ctrl-C."""
LOOK_SECONDS = 1.0
"""How often the parent looks for workers that are silent."""
LOSSES = 5
"""How often a job is tried again whose worker was lost by no doing of its own, as when a node goes."""


@dataclass
class Worker:
    """What a pool knows of one of its workers.

    Attributes:
        index: its number.
        job: what it carries out; None: it is idle.
        began: when it began with that, by `time.monotonic`.
        heard: when it was last heard of.
        silence: the longest that it was silent during this job, in seconds.
        epoch: the last that it finished, in words; empty: none.
        ready: whether jobs can be given to it.
    """

    index: int
    job: Job | None = None
    began: float = 0.0
    heard: float = 0.0
    silence: float = 0.0
    epoch: str = ""
    ready: bool = True

    def hears(self) -> None:
        """Count the silence up to now."""
        now = time.monotonic()
        self.silence, self.heard = max(self.silence, now - self.heard), now

    def takes(self, job: Job | None) -> None:
        """Begin with a job, or be idle."""
        self.job, self.began, self.silence, self.epoch = job, time.monotonic(), 0.0, ""
        self.heard = self.began


W = TypeVar("W", bound=Worker)


class Pool(ABC, Generic[W]):
    """An engine whose workers are given their jobs; use as a context manager.

    Args:
        size: number of workers; they start with the first jobs.
        retries: how often a job is tried again whose worker died.
        timeout: see `Silences`.
    """

    def __init__(self, size: int, retries: int, timeout: float | None) -> None:
        self.size, self.retries, self.silences = size, retries, Silences(timeout)
        self.workers: list[W] = []
        self._looked = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def run(self, jobs: Sequence[Job]) -> Iterator[Event]:
        """Carry out ``jobs`` in order of the queue and yield what happens, until all have ended."""
        waiting, tries, losses = deque(jobs), Counter[int](), Counter[int]()
        while len(self.workers) < min(self.size, len(jobs)):
            self.workers.append(self._start(len(self.workers)))
        unfinished = len(jobs)
        while unfinished:
            for worker in self.workers if waiting else ():
                if worker.ready and worker.job is None and waiting:
                    yield from self._give(worker, waiting.popleft())
            for event in itertools.chain(self._heard(LOOK_SECONDS), self._overdue()):
                if event.kind == "died":
                    count, most = (losses, LOSSES) if event.content.get("lost") else (tries, self.retries)
                    count[id(event.job)] += 1
                    again = count[id(event.job)] <= most
                    event = replace(event, content={**event.content, "again": again})
                    if again:
                        waiting.appendleft(event.job)
                unfinished -= event.kind in ENDS and not event.content.get("again")
                yield event

    def _give(self, worker: W, job: Job) -> Iterator[Event]:
        worker.takes(job)
        if self._send(worker, job):
            yield Event("started", job, worker.index)

    def _said(self, worker: W, kind: str, content: Mapping[str, Any]) -> Event:
        """Return the event of what a worker says of its job, and count it."""
        job = worker.job
        assert job is not None
        if kind == "epoch":
            worker.epoch = f"epoch {content['epoch']} of {content['epochs']}"
        else:
            if kind == "finished" and content.get("status") == "done":
                self.silences.finished(worker.silence)
            worker.takes(None)
        return Event(kind, job, worker.index, content)

    def _overdue(self) -> Iterator[Event]:
        """End runs that are silent for too long; yield this, and every so often that others go on."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        for worker in list(self.workers):
            job = worker.job
            if job is None:
                continue
            limit = self.silences.limit(job)
            if now - worker.heard > limit + self._grace:
                self._replace(worker)
                yield Event("timeout", job, worker.index, {"seconds": limit, "epoch": worker.epoch})
            else:
                yield Event("waiting", job, worker.index, {"seconds": now - worker.began, "epoch": worker.epoch})

    _grace = 0.0
    """Seconds that a silent worker has beyond the limit to be ended by whoever is closer to it."""

    @abstractmethod
    def _start(self, index: int) -> W:
        """Return a new worker."""

    @abstractmethod
    def _send(self, worker: W, job: Job) -> bool:
        """Give a worker a job; return whether it has it. A worker that is dead says so in `_heard`."""

    @abstractmethod
    def _heard(self, seconds: float) -> Iterator[Event]:
        """Yield what workers say, after waiting for so long at most; one that is dead is replaced."""

    @abstractmethod
    def _replace(self, worker: W) -> Any:
        """End a worker, with whatever its runs have left, and start another in its place."""

    @abstractmethod
    def stop(self) -> None:
        """End all workers: idle ones at once, busy ones after they wrote a checkpoint or after a few seconds."""


def size_of(workers: int | None, per_device: int, fitting: int) -> int:
    """Return the number of workers: as many as were asked for, else as are fitting.

    Raises:
        UsageError: it is none, or less than one shares a GPU.
    """
    size = fitting if workers is None else workers
    if size < 1 or per_device < 1:
        raise UsageError(f"engine.workers={workers} and engine.per_device={per_device}: use whole numbers from 1 on.")
    return size
