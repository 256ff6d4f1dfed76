"""What a task of engine=slurm carries out on its node: a local engine that takes runs from the queue of a sweep."""

from __future__ import annotations

import os
import secrets
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.engines.engine import ENDS
from harness.engines.local import LocalEngine
from harness.engines.queue import Queue
from harness.engines.worker import unfit
from harness.records import lease
from harness.training.job import Job

LOOK_S = 1.0
"""How often a worker without a run looks for one."""
IDLE_S = 300.0
"""After so long without a run a worker leaves."""
UNFIT = "unfit"
"""Kind of what a worker says that cannot carry out runs of its sweep."""


@dataclass
class Worker:
    """What a task of the array carries out: runs of a queue, on a local engine.

    Attributes:
        folder: of the queue.
        engine: arguments of the local engine.
        wanted: the `checkout` of the sweep.
    """

    folder: str
    engine: Mapping[str, Any]
    wanted: tuple[str, str]
    _queue: Queue = field(init=False)
    _pool: LocalEngine | None = None
    _name: str = ""
    _mine: dict[int, Job] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._queue = Queue(Path(self.folder))

    def __call__(self, index: int) -> None:
        """Take runs until none is left that a driver could add to, and none has come for a while."""
        signal.signal(signal.SIGTERM, self._leave)  # Slurm takes the node away: a preemption, or the end of the sweep
        self._name = f"{os.environ.get('SLURM_JOB_ID', index)}-{secrets.token_hex(4)}"
        self._queue.place(self._name).mkdir()
        if problem := unfit(str(self._queue.token), self._queue.folder.name, self.wanted):
            self._queue.say(self._name, 0, UNFIT, {"problem": problem})
            return
        try:
            with lease.held(self._queue.place(self._name)), LocalEngine(**self.engine) as self._pool:
                self._carry_out(self._pool)
        finally:
            self._give_back()

    def checkpoint(self, index: int) -> Any:
        """Stop, near the end of the time, and return what is to be carried out when this task is started again."""
        from submitit.helpers import DelayedSubmission

        self._give_back()
        return DelayedSubmission(Worker(self.folder, self.engine, self.wanted), index)

    def _carry_out(self, pool: LocalEngine) -> None:
        worked = time.monotonic()
        while True:
            taken = [found for _ in range(pool.size) if (found := self._queue.take(self._name))]
            if not taken:
                if time.monotonic() - worked > IDLE_S or not self._queue.driven():
                    return
                time.sleep(LOOK_S)
                continue
            self._mine = dict(taken)
            numbers = {id(job): number for number, job in taken}
            for event in pool.run([job for _, job in taken]):
                if event.kind == "waiting":
                    continue
                number = numbers[id(event.job)]
                self._queue.say(self._name, number, event.kind, event.content)
                if event.kind in ENDS and not event.content.get("again"):
                    self._queue.end(number, self._name)
                    del self._mine[number]
            worked = time.monotonic()

    def _leave(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: checkpoints are being written
        raise SystemExit(0)

    def _give_back(self) -> None:
        if self._pool is not None:
            self._pool.stop()
        while self._mine:
            self._queue.give_back(self._mine.popitem()[0], self._name)
