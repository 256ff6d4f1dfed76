"""The local engine: warm workers on this machine's cores or GPUs.

A forkserver that has imported everything gives a worker in a hundredth of a second. Each worker has one pipe: the
parent waits on all of them, end of file means that the worker died (its run goes to a new one, once), and a worker
that reads end of file knows that the parent died and leaves.

A run is anybody's code. After each the worker is as before (`harness.training.isolation`), or is replaced; one that is
silent for too long is ended, with every process that it started; what it prints is shown up to a bound.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from typing import Any

from harness import hardware
from harness.engines.engine import ENDS, Event, Silences
from harness.engines.worker import Output, carried_out
from harness.errors import UsageError
from harness.training.job import Job, Stopped

STOP_SECONDS = 4.0  # how long workers may take to write a checkpoint after Ctrl-C
LOOK_SECONDS = 1.0  # how often the parent looks for workers that are silent


@dataclass
class _Worker:
    index: int
    process: Any
    pipe: Connection
    job: Job | None = None
    began: float = 0.0
    heard: float = 0.0
    silence: float = 0.0
    epoch: str = ""

    def hears(self) -> None:
        """Count the silence up to now."""
        now = time.monotonic()
        self.silence, self.heard = max(self.silence, now - self.heard), now

    def takes(self, job: Job | None) -> None:
        """Begin with a job, or be idle."""
        self.job, self.began, self.silence, self.epoch = job, time.monotonic(), 0.0, ""
        self.heard = self.began


class LocalEngine:
    """Worker processes on this machine; use as a context manager.

    Args:
        device: ``cpu`` (one worker per ``threads`` cores) or ``cuda`` (``per_device`` workers on each GPU).
        threads: CPU threads per worker.
        workers: number of workers; None for as many as the hardware suits.
        per_device: workers that share one GPU.
        retries: how often a job is tried again whose worker died.
        timeout: seconds without an epoch after which a run is ended; None: 20 times the longest that a finished run of
            this engine took for an epoch, 300 at least.
    """

    def __init__(
        self,
        device: str,
        threads: int = 1,
        workers: int | None = None,
        per_device: int = 1,
        retries: int = 1,
        timeout: float | None = None,
    ) -> None:
        gpus = hardware.gpus() if device == "cuda" else [None]
        fitting = len(gpus) * per_device if device == "cuda" else max(1, hardware.cores() // threads)
        self.size = fitting if workers is None else workers
        if self.size < 1 or per_device < 1:
            raise UsageError(
                f"engine.workers={workers} and engine.per_device={per_device}: use whole numbers from 1 on."
            )
        self.gpus, self.retries, self.silences = gpus, retries, Silences(timeout)
        # two threads that spin make each other up to sixty times slower; OpenMP reads this when torch is imported
        os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        methods = multiprocessing.get_all_start_methods()
        self.context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        if "forkserver" in methods:
            self.context.set_forkserver_preload(
                ["harness.training.loop", "harness.training.isolation", "harness.tasks.classification"]
            )
        self.workers: list[_Worker] = []

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def run(self, jobs: Sequence[Job]) -> Iterator[Event]:
        """Carry out ``jobs`` in order of the queue and yield what happens, until all have ended."""
        waiting, tries = deque(jobs), {id(job): 0 for job in jobs}
        while len(self.workers) < min(self.size, len(jobs)):
            self.workers.append(self._start(len(self.workers)))
        unfinished = len(jobs)
        while unfinished:
            for worker in self.workers:
                if worker.job is None and waiting:
                    yield from self._give(worker, waiting.popleft())
            ready = wait([worker.pipe for worker in self.workers], LOOK_SECONDS)
            for event in itertools.chain(self._heard(ready), self._overdue()):
                if event.kind == "died":
                    tries[id(event.job)] += 1
                    again = tries[id(event.job)] <= self.retries
                    event = replace(event, content={**event.content, "again": again})
                    if again:
                        waiting.appendleft(event.job)
                unfinished -= event.kind in ENDS and not event.content.get("again")
                yield event

    def _heard(self, ready: Sequence[Any]) -> Iterator[Event]:
        """Yield what workers say; one that is dead, or makes no sense, is replaced."""
        for index, worker in [(i, worker) for i, worker in enumerate(self.workers) if worker.pipe in ready]:
            job = worker.job
            try:
                kind, content = worker.pipe.recv()
                worker.hears()
            except (EOFError, OSError, pickle.UnpicklingError, ValueError, TypeError):
                worker.process.join(1.0)  # it may be about to say why
                code = self._replace(index)
                if job is not None:
                    yield Event("died", job, worker.index, {"why": f"exit code {code}"})
                continue
            if job is None:  # a copy of a worker that a loss has forked speaks on
                self._replace(index)
                continue
            if kind == "epoch":
                worker.epoch = f"epoch {content['epoch']} of {content['epochs']}"
            else:
                self._ended(index, kind, content)
            yield Event(kind, job, worker.index, content)

    def _ended(self, index: int, kind: str, content: Mapping[str, Any]) -> None:
        worker = self.workers[index]
        if kind == "finished" and content.get("status") == "done":
            self.silences.finished(worker.silence)
        worker.takes(None)
        if content.get("leftover"):
            self._replace(index)

    def _overdue(self) -> Iterator[Event]:
        """End runs that are silent for too long; yield this, and every so often that others go on."""
        now = time.monotonic()
        for index, worker in enumerate(self.workers):
            job = worker.job
            if job is None:
                continue
            limit = self.silences.limit(job)
            if now - worker.heard > limit:
                self._replace(index)
                yield Event("timeout", job, worker.index, {"seconds": limit, "epoch": worker.epoch})
            else:
                yield Event("waiting", job, worker.index, {"seconds": now - worker.began, "epoch": worker.epoch})

    def _give(self, worker: _Worker, job: Job) -> Iterator[Event]:
        worker.takes(job)
        try:
            worker.pipe.send(job)
        except (BrokenPipeError, ConnectionResetError):
            return  # the worker is dead: its pipe is at end of file, which the next wait sees
        yield Event("started", job, worker.index)

    def _start(self, index: int) -> _Worker:
        ours, theirs = self.context.Pipe()
        gpu = self.gpus[index % len(self.gpus)]
        process = self.context.Process(target=_work, args=(theirs, gpu), name=f"worker {index}", daemon=True)
        process.start()
        theirs.close()
        return _Worker(index, process, ours)

    def _replace(self, index: int) -> int | None:
        """End a worker and all processes that its runs have left, start another, and return its exit code."""
        worker = self.workers[index]
        _kill(worker)
        worker.process.join()
        worker.pipe.close()
        self.workers[index] = self._start(worker.index)
        return worker.process.exitcode

    def stop(self) -> None:
        """End all workers: idle ones at once, busy ones after they wrote a checkpoint or after a few seconds."""
        for worker in self.workers:
            worker.process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for worker in self.workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            _kill(worker)
            worker.process.join()
            worker.pipe.close()
        self.workers = []


def _kill(worker: _Worker) -> None:
    """Kill a worker with its group: whatever its runs have started and left."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(worker.process.pid, signal.SIGKILL)
    worker.process.kill()


def _work(pipe: Connection, gpu: str | None) -> None:
    """Carry out jobs from the pipe until told to stop or until the parent is gone."""
    from harness.training.isolation import Isolation

    os.setpgid(0, 0)  # a group of its own, by which everything that its runs start can be ended
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("500")  # where memory ends, a worker is to go, not the sweep
    output = Output(os.dup(2))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    stopping = threading.Event()
    jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
    signal.signal(signal.SIGTERM, lambda *_: (stopping.set(), jobs.put(None)))
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu

    def read() -> None:
        while True:
            try:
                jobs.put(pipe.recv())
            except (EOFError, OSError):
                os._exit(1)  # the parent is gone: nobody waits for this run, and its last checkpoint is safe

    threading.Thread(target=read, daemon=True).start()
    isolation = Isolation()
    while (job := jobs.get()) is not None and not stopping.is_set():
        output.begin()
        try:
            kind, content = carried_out(job, lambda row: pipe.send(("epoch", row)), stopping)
        except Stopped:
            sys.exit(0)
        pipe.send((kind, content | {"leftover": isolation.restore()}))
    os._exit(0)  # leave without waiting for the reading thread
