"""Workers on the nodes of a Slurm cluster: the tasks of an array, each a local engine that takes runs from a queue.

The sweep is the driver: it writes runs into a queue in the results folder, which every node must see, submits the array
through submitit, and reads what happens. A worker stays warm and takes run after run until none is left. Near the end
of its time, or where Slurm takes its node away, its runs write checkpoints and go back into the queue, and it is queued
again. A run whose worker vanished is given to another as soon as its lease is over, and goes on from its checkpoint.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import secrets
import shlex
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.engines.engine import ENDS, Event
from harness.engines.pool import LOSSES
from harness.engines.queue import Queue
from harness.engines.slurm_worker import UNFIT, Worker
from harness.engines.worker import checkout
from harness.errors import UsageError
from harness.records import lease
from harness.text import count
from harness.training.job import Job

FOLDER = "slurm"
"""Where queues are, in the results folder."""
LOOK_S = 1.0
"""How often the driver reads events."""
ASK_S = 5.0
"""How often Slurm is asked how its workers are."""
NOTICE_S = 90
"""How long before the end of its time a worker is told."""
REQUEUES = 10_000
"""How often a worker may be queued again at the end of its time."""
BARREN = 2
"""How often an array may end without a sign of life."""
STOP_S = 15.0
"""How long the driver waits for its workers to leave."""
LOST = "its node or its process in the Slurm cluster is gone"
OVER = ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT")
"""States of workers that Slurm does not start again."""


@dataclass
class _Running:
    """A job on its way: by which worker, since when, and how far."""

    worker: str
    slot: int
    began: float = field(default_factory=time.monotonic)
    epoch: str = ""


class SlurmEngine:
    """Workers of a Slurm cluster; use as a context manager.

    Args:
        device: ``cpu`` or ``cuda``.
        threads: CPU threads of a run.
        workers: how many, each a task of a Slurm array.
        partition: where they run; None: Slurm's default.
        time: minutes after which a worker is queued again.
        gpus: GPUs of a worker; None: one where the device is ``cuda``, else none.
        per_device: runs that share one GPU.
        cores: CPU cores of a worker; None: ``threads``.
        setup: shell commands that a worker carries out before it starts, such as ``module load cuda``.
        options: further options of sbatch, such as ``{account: vision, mem: 8G}``.
        retries: how often a job is tried again whose worker died; that a node is lost does not count.
        timeout: seconds without an epoch after which a run is ended; see `LocalEngine`.

    Raises:
        UsageError: submitit or Slurm's commands are missing, or GPUs do not suit the device.
    """

    def __init__(
        self,
        device: str,
        threads: int = 1,
        workers: int = 4,
        partition: str | None = None,
        time: int = 60,
        gpus: int | None = None,
        per_device: int = 1,
        cores: int | None = None,
        setup: Sequence[str] = (),
        options: Mapping[str, Any] | None = None,
        retries: int = 1,
        timeout: float | None = None,
    ) -> None:
        _refuse_without_slurm()
        self.gpus = int(device == "cuda") if gpus is None else gpus
        if (device == "cuda") != (self.gpus > 0):
            raise UsageError(f"engine.gpus={self.gpus} does not suit device={device}: give both, or leave both out.")
        self.each = self.gpus * per_device if device == "cuda" else 1
        self.workers, self.size = workers, workers * self.each
        self.sbatch = {
            "time": time,
            "partition": partition,
            "gpus_per_node": self.gpus or None,
            "cpus_per_task": cores or threads * self.each,
            "setup": [_same_modules(), *setup],
            "use_srun": False,
            # the notice goes to the batch script, whose place the worker has taken
            "additional_parameters": {"signal": f"B:USR2@{NOTICE_S}", "requeue": True, **(options or {})},
        }
        self.worker = {"device": device, "threads": threads, "workers": self.each, "retries": retries}
        self.worker |= {"per_device": per_device, "timeout": timeout}
        self.numbers = itertools.count(1)
        self.tries: Counter[int] = Counter()
        self.running: dict[int, _Running] = {}
        self.queue: Queue | None = None
        self.held = ExitStack()
        self.asked, self.barren, self.said = 0.0, 0, ""

    def __enter__(self) -> SlurmEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def run(self, jobs: Sequence[Job]) -> Iterator[Event]:
        """Carry out ``jobs`` in order of the queue and yield what happens, until all have ended."""
        if not jobs:
            return
        queue = self.queue = self.queue or self._queue(Path(jobs[0].folder).parents[1])
        left = {next(self.numbers): job for job in jobs}
        for number, job in left.items():
            queue.put(number, job)
        while left:
            if time.monotonic() - self.asked > ASK_S:
                yield from self._missed(queue, left)
                self._keep_up(queue, len(left))
                self.asked = time.monotonic()
            yield from self._heard(queue, left)
            yield from self._going_on(left)
            if left:
                time.sleep(LOOK_S)

    def _queue(self, results: Path) -> Queue:
        """Make the queue of this driver, and let go what others have left whose driver is dead."""
        folder = results / FOLDER
        for name in sorted(os.listdir(folder)) if folder.is_dir() else ():
            if not (old := Queue(folder / name)).driven():
                old.clear()
                _command("scancel", f"--name={_name(old)}", "--state=PENDING")
                if not old.workers():
                    old.remove()
        queue = Queue(folder / secrets.token_hex(6))
        queue.make()
        self.held.enter_context(lease.held(queue.folder))
        return queue

    def _heard(self, queue: Queue, left: dict[int, Job]) -> Iterator[Event]:
        """Yield what the workers have said of jobs that are ``left``, and take out those that ended."""
        for said in queue.heard():
            self.barren = 0
            if said.kind == UNFIT:
                raise UsageError(str(said.content["problem"]))
            if (job := left.get(said.number)) is None:
                continue
            if said.kind == "started":
                self._start(said.number, said.worker)
            running = self.running.get(said.number)
            if running is None or running.worker != said.worker:  # it was silent, and another gets the run
                continue
            if said.kind == "epoch":
                running.epoch = f"epoch {said.content['epoch']} of {said.content['epochs']}"
            if said.kind in ENDS and not said.content.get("again"):
                del left[said.number], self.running[said.number]
                queue.end(said.number, said.worker)
            yield Event(said.kind, job, running.slot, said.content)

    def _start(self, number: int, worker: str) -> None:
        others = {running.slot for at, running in self.running.items() if at != number}
        slot = next((slot for slot in range(self.size) if slot not in others), 0)
        self.running[number] = _Running(worker, slot)

    def _missed(self, queue: Queue, left: dict[int, Job]) -> Iterator[Event]:
        """Put jobs back whose worker is dead, or end them if that happened too often."""
        for number, worker in queue.taken().items():
            if number not in left or not queue.lost(worker, left[number]):
                continue
            job, self.tries[number] = left[number], self.tries[number] + 1
            again = self.tries[number] <= LOSSES
            if number not in self.running:
                self._start(number, worker)
            slot = self.running.pop(number).slot
            if again:
                queue.give_back(number, worker)
            else:
                del left[number]
                queue.end(number, worker)
            yield Event("died", job, slot, {"why": LOST, "lost": True, "again": again})

    def _going_on(self, left: Mapping[int, Job]) -> Iterator[Event]:
        now = time.monotonic()
        for number, running in self.running.items():
            yield Event("waiting", left[number], running.slot, {"seconds": now - running.began, "epoch": running.epoch})

    # ------------------------------------------------------------ Slurm

    def _keep_up(self, queue: Queue, left: int) -> None:
        """See that there are enough workers, and say how they are when that has changed.

        Raises:
            UsageError: Slurm takes no workers, or they end without a sign of life.
        """
        states = _states(queue)
        if states is not None:
            there = sum(number for (state, reason), number in states.items() if not reason and state not in OVER)
            if (more := min(self.workers, -(-left // self.each)) - there) > 0:
                if self.barren >= BARREN:
                    raise UsageError(_no_sign_of_life(queue))
                self.barren += 1
                self._submit(queue, more)
                states = _states(queue)
        now = "it does not answer; asking again" if states is None else _in_words(states)
        if now != self.said:
            self.said = now
            print(f"Slurm: {now}", flush=True)

    def _submit(self, queue: Queue, workers: int) -> None:
        import submitit
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        python = f"exec {shlex.quote(sys.executable)}"
        executor = submitit.SlurmExecutor(queue.folder / "logs", max_num_timeout=REQUEUES, python=python)
        given = {name: value for name, value in self.sbatch.items() if value is not None}
        executor.update_parameters(job_name=_name(queue), array_parallelism=workers, **given)
        try:
            executor.map_array(Worker(str(queue.folder), self.worker, checkout()), range(workers))
        except (FailedJobError, FailedSubmissionError) as error:
            reason = str(error).strip().splitlines() or ["it gave no reason"]
            raise UsageError(
                f"Slurm takes no workers: {reason[0]} (engine.partition, .time, .gpus, .options)."
            ) from None

    def stop(self) -> None:
        """End all workers, after their runs wrote checkpoints; those that Slurm has not started never start."""
        if (queue := self.queue) is None:
            return
        queue.clear()
        self.held.close()
        _command("scancel", f"--name={_name(queue)}")
        deadline = time.monotonic() + STOP_S
        while queue.workers() and time.monotonic() < deadline:
            time.sleep(LOOK_S / 4)
        queue.remove()
        self.queue = None
        self.running.clear()


def _refuse_without_slurm() -> None:
    """Raise a UsageError where runs cannot be given to Slurm."""
    if importlib.util.find_spec("submitit") is None:
        raise UsageError("engine=slurm needs submitit: pip install 'submitit>=1.5'.")
    if absent := [name for name in ("sbatch", "squeue", "scancel", "srun") if shutil.which(name) is None]:
        raise UsageError(
            f"engine=slurm needs Slurm's commands on this machine, and {', '.join(absent)} cannot be found: start on a "
            "login node of the cluster, or use engine=local."
        )


def _same_modules() -> str:
    """Return the shell command by which workers import what the driver does, whatever their working directory."""
    places = os.pathsep.join(dict.fromkeys(os.path.abspath(place) for place in sys.path))
    return f"export PYTHONPATH={shlex.quote(places)}"


def _name(queue: Queue) -> str:
    """Return what Slurm calls the workers of a queue."""
    return f"lossbench-{queue.folder.name}"


def _command(*command: str) -> str | None:
    """Return what a command of Slurm prints; None where it fails, as it does now and then on a busy cluster."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else None


def _states(queue: Queue) -> Counter[tuple[str, str]] | None:
    """Count the workers of a queue by state, and once more with Slurm's reason where they are pending; None where
    Slurm does not answer.
    """
    told = _command("squeue", "--noheader", "--array", f"--name={_name(queue)}", "--format=%T|%r")
    if told is None:
        return None
    found: Counter[tuple[str, str]] = Counter()
    for line in told.splitlines():
        state, _, reason = line.partition("|")
        found[state, ""] += 1
        if state == "PENDING" and reason not in ("", "None"):
            found[state, reason] += 1
    return found


def _in_words(states: Mapping[tuple[str, str], int]) -> str:
    """Return how the workers are."""
    running, pending = states.get(("RUNNING", ""), 0), states.get(("PENDING", ""), 0)
    reasons = sorted({reason for _, reason in states if reason})
    return f"{count(running, 'worker')} running, {pending} pending" + (f" ({', '.join(reasons)})" if reasons else "")


def _no_sign_of_life(queue: Queue) -> str:
    logs = sorted((queue.folder / "logs").glob("*.err"), key=lambda path: path.stat().st_mtime)
    lines = [line for path in logs[-1:] for line in path.read_text(errors="replace").splitlines() if line.strip()]
    last = f"the last line of its log: {lines[-1]}" if lines else "it left no log, so its node may not see this folder"
    return f"Slurm's workers end before they take a run of {queue.folder}; {last}."
