"""A queue of runs in a folder that a driver shares with workers on other machines.

A worker takes a job by renaming its file, which only one can, and writes what happens into a file of its own. Leases
tell who is alive: a job that a dead worker had is put back, and workers whose driver is dead empty the queue and leave.

    jobs/<number>                waiting, in the order of their numbers
    taken/<number>@<worker>      being carried out
    workers/<worker>/            its events and its lease
    lease.json                   of the driver
    token                        the name of the queue
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.records import lease
from harness.training.job import Job

EVENTS = "events.jsonl"


@dataclass(frozen=True)
class Said:
    """What a worker says of the job of a ``number``: an event of its local engine."""

    worker: str
    number: int
    kind: str
    content: Mapping[str, Any]


@dataclass
class Queue:
    """One queue, as its driver or a worker sees it.

    Attributes:
        folder: where it lies. Jobs are pickled, so only its owner may write there.
    """

    folder: Path
    _read: dict[str, int] = field(default_factory=dict)

    def make(self) -> None:
        """Make the folder, which must be new.

        Raises:
            OSError: it cannot be made, or is there.
        """
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self.folder.mkdir(mode=0o700)
        for part in ("jobs", "taken", "workers"):
            (self.folder / part).mkdir()
        self.token.write_text(self.folder.name)

    @property
    def token(self) -> Path:
        """Return the file that holds the name of the queue, by which a worker knows that it sees this one."""
        return self.folder / "token"

    def put(self, number: int, job: Job) -> None:
        """Add a job."""
        part = self.folder / f".{secrets.token_hex(8)}.part"
        part.write_bytes(pickle.dumps(job))
        part.rename(self.folder / "jobs" / f"{number:07}")

    def clear(self) -> None:
        """Remove all jobs that nobody has taken."""
        for entry in _names(self.folder / "jobs"):
            (self.folder / "jobs" / entry).unlink(missing_ok=True)

    def waiting(self) -> int:
        """Return how many jobs nobody has taken."""
        return len(_names(self.folder / "jobs"))

    def taken(self) -> dict[int, str]:
        """Return the worker of every job that is being carried out, by the number of the job."""
        pairs = (entry.split("@", 1) for entry in _names(self.folder / "taken"))
        return {int(number): worker for number, worker in pairs}

    def take(self, worker: str) -> tuple[int, Job] | None:
        """Return the next job with its number, None if none is waiting."""
        for entry in _names(self.folder / "jobs"):
            mine = self.folder / "taken" / f"{entry}@{worker}"
            with contextlib.suppress(FileNotFoundError):
                (self.folder / "jobs" / entry).rename(mine)
            # a network file system may say of what it has done that it could not be done
            with contextlib.suppress(FileNotFoundError):  # another worker was quicker
                return int(entry), pickle.loads(mine.read_bytes())
        return None

    def give_back(self, number: int, worker: str) -> None:
        """Let others have a job that a worker has taken and not ended."""
        with contextlib.suppress(FileNotFoundError):
            (self.folder / "taken" / f"{number:07}@{worker}").rename(self.folder / "jobs" / f"{number:07}")

    def end(self, number: int, worker: str) -> None:
        """Remove a job that a worker has ended."""
        (self.folder / "taken" / f"{number:07}@{worker}").unlink(missing_ok=True)

    def place(self, worker: str) -> Path:
        """Return the folder of a worker."""
        return self.folder / "workers" / worker

    def say(self, worker: str, number: int, kind: str, content: Mapping[str, Any]) -> None:
        """Write down an event of a job; its content is what JSON has, and other numbers."""
        line = json.dumps({"number": number, "kind": kind, "content": dict(content)}, default=float)
        with (self.place(worker) / EVENTS).open("a") as file:
            file.write(line + "\n")

    def heard(self) -> Iterator[Said]:
        """Yield what workers have said since this was asked last."""
        for worker in _names(self.folder / "workers"):
            begin = self._read.get(worker, 0)
            try:
                with (self.place(worker) / EVENTS).open("rb") as file:
                    file.seek(begin)
                    text = file.read()
            except FileNotFoundError:  # it has said nothing yet
                continue
            whole = text[: text.rfind(b"\n") + 1]
            self._read[worker] = begin + len(whole)
            for line in whole.splitlines():
                yield Said(worker, **json.loads(line))

    def lost(self, worker: str, job: Job) -> bool:
        """Return whether a job must be put back: its worker is dead, and so is the process that trained the run."""
        # both are watched from the first time on: each is believed dead after a minute of silence
        return all([lease.free(self.place(worker)), lease.free(Path(job.folder))])

    def workers(self) -> int:
        """Return how many workers are alive."""
        return sum(not lease.free(self.place(worker)) for worker in _names(self.folder / "workers"))

    def driven(self) -> bool:
        """Return whether a driver is there that may add jobs."""
        return self.folder.is_dir() and not lease.free(self.folder)

    def remove(self) -> None:
        """Remove the queue; workers that still have a run end it, and leave."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _names(folder: Path) -> list[str]:
    """Return the names in a folder, sorted; none if it is gone."""
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
