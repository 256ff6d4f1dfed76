"""The local engine: warm workers on this machine's cores or GPUs.

A forkserver that has imported everything gives a worker in a hundredth of a second. Each worker has one pipe: the
parent waits on all of them, end of file means that the worker died (its run goes to a new one, once), and a worker
that reads end of file knows that the parent died and leaves.

A run is anybody's code. After each the worker is as before (`harness.training.isolation`), or is replaced; one that is
silent for too long is ended, with every process that it started; what it prints is shown up to a bound.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from harness import hardware
from harness.engines.engine import Event
from harness.engines.pool import STOP_SECONDS, Pool, Worker, size_of
from harness.engines.worker import Output, carried_out
from harness.training.job import Job, Stopped


@dataclass
class _Process(Worker):
    process: Any = None
    pipe: Any = None


class LocalEngine(Pool[_Process]):
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
        super().__init__(size_of(workers, per_device, fitting), retries, timeout)
        self.gpus = gpus
        # two threads that spin make each other up to sixty times slower; OpenMP reads this when torch is imported
        os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        methods = multiprocessing.get_all_start_methods()
        self.context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        if "forkserver" in methods:
            self.context.set_forkserver_preload(
                ["harness.training.loop", "harness.training.isolation", "harness.tasks.classification"]
            )

    def _heard(self, seconds: float) -> Iterator[Event]:
        ready = wait([worker.pipe for worker in self.workers], seconds)
        for worker in [worker for worker in self.workers if worker.pipe in ready]:
            job = worker.job
            try:
                kind, content = worker.pipe.recv()
                worker.hears()
            except (EOFError, OSError, pickle.UnpicklingError, ValueError, TypeError):  # it is dead, or makes no sense
                worker.process.join(1.0)  # it may be about to say why
                code = self._replace(worker)
                if job is not None:
                    yield Event("died", job, worker.index, {"why": f"exit code {code}"})
                continue
            if job is None:  # a copy of a worker that a loss has forked speaks on
                self._replace(worker)
                continue
            event = self._said(worker, kind, content)
            if content.get("leftover"):
                self._replace(worker)
            yield event

    def _send(self, worker: _Process, job: Job) -> bool:
        try:
            worker.pipe.send(job)
        except (BrokenPipeError, ConnectionResetError):
            return False  # its pipe is at end of file, which the next wait sees
        return True

    def _start(self, index: int) -> _Process:
        ours, theirs = self.context.Pipe()
        gpu = self.gpus[index % len(self.gpus)]
        process = self.context.Process(target=_work, args=(theirs, gpu), name=f"worker {index}", daemon=True)
        process.start()
        theirs.close()
        return _Process(index, process=process, pipe=ours)

    def _replace(self, worker: _Process) -> int | None:
        _kill(worker)
        worker.process.join()
        worker.pipe.close()
        self.workers[worker.index] = self._start(worker.index)
        return worker.process.exitcode

    def stop(self) -> None:
        """End all workers; what their runs have started goes with them."""
        for worker in self.workers:
            worker.process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for worker in self.workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            _kill(worker)
            worker.process.join()
            worker.pipe.close()
        self.workers = []


def _kill(worker: _Process) -> None:
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
