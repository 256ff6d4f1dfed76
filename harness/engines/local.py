"""Engines: warm workers that pull runs. The pool of this machine's cores or GPUs is the first.

A forkserver that has imported everything gives a worker in a hundredth of a second. Each worker has one pipe: the
parent waits on all of them, end of file means that the worker died (its run goes to a new one, once), and a worker
that reads end of file knows that the parent died and leaves.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

from harness import hardware
from harness.errors import UsageError
from harness.training.job import Job

STOP_SECONDS = 4.0  # how long workers may take to write a checkpoint after Ctrl-C


@dataclass(frozen=True)
class Event:
    """What a worker reports: ``kind`` is started, epoch, finished, checked or died; ``content`` depends on it."""

    kind: str
    job: Job
    worker: int
    content: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class _Worker:
    index: int
    process: Any
    pipe: Connection
    job: Job | None = None


class LocalEngine:
    """Worker processes on this machine; use as a context manager.

    Args:
        device: ``cpu`` (one worker per ``threads`` cores) or ``cuda`` (``per_device`` workers on each GPU).
        threads: CPU threads per worker.
        workers: number of workers; None for as many as the hardware suits.
        per_device: workers that share one GPU.
        retries: how often a job is tried again whose worker died.
    """

    def __init__(
        self, device: str, threads: int = 1, workers: int | None = None, per_device: int = 1, retries: int = 1
    ) -> None:
        gpus = hardware.gpus() if device == "cuda" else [None]
        fitting = len(gpus) * per_device if device == "cuda" else max(1, hardware.cores() // threads)
        self.size = fitting if workers is None else workers
        if self.size < 1 or per_device < 1:
            raise UsageError(
                f"engine.workers={workers} and engine.per_device={per_device}: use whole numbers from 1 on."
            )
        self.gpus, self.retries = gpus, retries
        # two threads that spin make each other up to sixty times slower; OpenMP reads this when torch is imported
        os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        methods = multiprocessing.get_all_start_methods()
        self.context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        if "forkserver" in methods:
            self.context.set_forkserver_preload(["harness.training.loop", "harness.tasks.classification"])
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
            for pipe in wait([worker.pipe for worker in self.workers]):
                index = next(i for i, worker in enumerate(self.workers) if worker.pipe is pipe)
                worker = self.workers[index]
                try:
                    kind, content = worker.pipe.recv()
                except (EOFError, ConnectionResetError):
                    job = worker.job
                    self.workers[index] = self._start(worker.index)
                    if job is None:
                        continue
                    worker.process.join()
                    tries[id(job)] += 1
                    again = tries[id(job)] <= self.retries
                    yield Event("died", job, worker.index, {"exitcode": worker.process.exitcode, "again": again})
                    if again:
                        waiting.appendleft(job)
                    else:
                        unfinished -= 1
                    continue
                job = worker.job
                assert job is not None
                if kind in ("finished", "checked"):
                    worker.job = None
                    unfinished -= 1
                yield Event(kind, job, worker.index, content)

    def _give(self, worker: _Worker, job: Job) -> Iterator[Event]:
        worker.job = job
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

    def stop(self) -> None:
        """End all workers: idle ones at once, busy ones after they wrote a checkpoint or after a few seconds."""
        for worker in self.workers:
            worker.process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for worker in self.workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.pipe.close()
        self.workers = []


def _work(pipe: Connection, gpu: str | None) -> None:
    """Carry out jobs from the pipe until told to stop or until the parent is gone."""
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
    while (job := jobs.get()) is not None and not stopping.is_set():
        pipe.send(_carry_out(job, pipe, stopping))
    os._exit(0)  # leave without waiting for the reading thread


def _carry_out(job: Job, pipe: Connection, stopping: threading.Event) -> tuple[str, dict[str, Any]]:
    from harness.training.job import Stopped, carry_out, check

    if job.only_check:
        return "checked", {"problem": check(job)}

    def report(epoch: int, epochs: int, row: Mapping[str, Any]) -> None:
        pipe.send(("epoch", {"epoch": epoch, "epochs": epochs, **row}))

    try:
        return "finished", carry_out(job, stopping.is_set, report)
    except Stopped:
        sys.exit(0)
