"""Engines: warm workers that pull runs. The pool of this machine's cores or GPUs is the first.

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
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from typing import Any

from harness import hardware
from harness.errors import UsageError
from harness.training.job import Job

STOP_SECONDS = 4.0  # how long workers may take to write a checkpoint after Ctrl-C
LOOK_SECONDS = 1.0  # how often the parent looks for workers that are silent
LEAST_SECONDS = 300.0
"""No run is ended for less silence than this, unless `engine.timeout` says so."""
FIRST_SECONDS = 3600.0
"""How long a run may be silent while none has finished that it could be measured by, and a check of one."""
SILENCES = 20
"""A run is ended after so many times the longest silence of any run that finished."""
SHOWN_CHARACTERS = 2000
"""What a run prints is shown up to this length."""

ENDS = ("finished", "checked", "died", "timeout")


@dataclass(frozen=True)
class Event:
    """What a worker reports, or what becomes of it: ``content`` depends on ``kind``.

    Kinds: started, epoch, finished, checked, died, timeout (with the ``seconds`` of silence after which it was ended),
    and waiting (nothing happened; with the ``seconds`` that the job runs already and the ``epoch`` it has reached).
    """

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
        self.gpus, self.retries, self.timeout = gpus, retries, timeout
        self.longest: float | None = None
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
                    yield Event("died", job, worker.index, {"exitcode": code})
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
            self.longest = max(self.longest or 0.0, worker.silence)
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
            limit = self._limit(job)
            if now - worker.heard > limit:
                self._replace(index)
                yield Event("timeout", job, worker.index, {"seconds": limit, "epoch": worker.epoch})
            else:
                yield Event("waiting", job, worker.index, {"seconds": now - worker.began, "epoch": worker.epoch})

    def _limit(self, job: Job) -> float:
        if self.timeout is not None:
            return self.timeout
        if job.only_check or self.longest is None:
            return FIRST_SECONDS
        return max(LEAST_SECONDS, SILENCES * self.longest)

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


class _Output:
    """What a worker prints, on either stream and at whatever speed: shown up to a bound for each run.

    Args:
        shown: file descriptor of where it is shown.
    """

    def __init__(self, shown: int) -> None:
        self.shown, self.left = shown, SHOWN_CHARACTERS
        self.read, write = os.pipe()
        for stream in (1, 2):
            os.dup2(write, stream)
        os.close(write)
        threading.Thread(target=self._pass_on, name="output", daemon=True).start()

    def begin(self) -> None:
        """A further run begins."""
        self.left = SHOWN_CHARACTERS

    def _pass_on(self) -> None:
        while text := os.read(self.read, 1 << 16):
            if self.left > 0:
                more = b"" if len(text) <= self.left else b"... (more of it is not shown)\n"
                with contextlib.suppress(OSError):
                    os.write(self.shown, text[: self.left] + more)
            self.left -= len(text)


def _work(pipe: Connection, gpu: str | None) -> None:
    """Carry out jobs from the pipe until told to stop or until the parent is gone."""
    from harness.training.isolation import Isolation

    os.setpgid(0, 0)  # a group of its own, by which everything that its runs start can be ended
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("500")  # where memory ends, a worker is to go, not the sweep
    output = _Output(os.dup(2))
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
        kind, content = _carry_out(job, pipe, stopping)
        pipe.send((kind, content | {"leftover": isolation.restore()}))
    os._exit(0)  # leave without waiting for the reading thread


def _carry_out(job: Job, pipe: Connection, stopping: threading.Event) -> tuple[str, dict[str, Any]]:
    from harness.training.job import Stopped, carry_out, check, failed

    owner = os.getpid()

    def stop() -> bool:
        _leave_copies(owner)
        return stopping.is_set()

    def report(epoch: int, epochs: int, row: Mapping[str, Any]) -> None:
        _leave_copies(owner)
        pipe.send(("epoch", {"epoch": epoch, "epochs": epochs, **row}))

    try:
        if job.only_check:
            notes: list[str] = []
            return "checked", {"problem": check(job, notes.append), "notes": notes}
        return "finished", carry_out(job, stop, report)
    except Stopped:
        sys.exit(0)
    except KeyboardInterrupt as error:  # workers are deaf to Ctrl-C, so that the run itself has raised it
        return (
            ("checked", {"problem": "it raised KeyboardInterrupt"})
            if job.only_check
            else ("finished", failed(job, error))
        )
    finally:
        _leave_copies(owner)


def _leave_copies(owner: int) -> None:
    """End this process if a run has made it by forking: two of it would both train, report and write."""
    if os.getpid() != owner:
        os._exit(1)
