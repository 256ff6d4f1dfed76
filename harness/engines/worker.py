"""What the worker processes of every engine share: one job carried out and reported, its output bounded."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import os
import platform
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from harness.paths import ROOT
from harness.text import visible
from harness.training.job import Job, carry_out, check, failed

SHOWN_CHARACTERS = 2000
"""What a run prints is shown up to this length."""
ROOMS = ("harness", "losses", "datasets")
Report = Callable[[Mapping[str, Any]], object]


class Output:
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


def carried_out(job: Job, report: Report, stopping: threading.Event) -> tuple[str, dict[str, Any]]:
    """Carry out a job, or check it; return kind and content of the event that ends it.

    Args:
        job: the job.
        report: called with the content of an epoch's event.
        stopping: once it is set, the run leaves a checkpoint and `Stopped` is raised.

    Raises:
        Stopped: the run was stopped.
    """
    owner = os.getpid()

    def stop() -> bool:
        _leave_copies(owner)
        return stopping.is_set()

    def epoch(number: int, epochs: int, row: Mapping[str, Any]) -> None:
        _leave_copies(owner)
        report({"epoch": number, "epochs": epochs, **row})

    try:
        if job.only_check:
            notes: list[str] = []
            return "checked", {"problem": check(job, notes.append), "notes": notes}
        return "finished", carry_out(job, stop, epoch)
    except KeyboardInterrupt as error:  # workers are deaf to Ctrl-C, so that the run itself has raised it
        return (
            ("checked", {"problem": "it raised KeyboardInterrupt"})
            if job.only_check
            else ("finished", failed(job, error))
        )
    finally:
        _leave_copies(owner)


@functools.cache
def checkout() -> tuple[str, str]:
    """Return what must be the same wherever a study's workers are: PyTorch's version, and a digest of our code."""
    digest = hashlib.sha256()
    for path in sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py")):
        digest.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return importlib.metadata.version("torch"), digest.hexdigest()


def unfit(path: str, token: str, wanted: tuple[str, str]) -> str | None:
    """Return why runs of a study cannot be carried out on this machine, in a sentence, or None.

    Args:
        path: of a file that the sweep has written below its results.
        token: what is in it.
        wanted: the sweep's `checkout`.
    """
    node, (version, code) = visible(platform.node()), checkout()
    try:
        shared = Path(path).read_text() == token
    except OSError:
        shared = False
    if not shared:
        runs = Path(path).parent
        return f"{node} does not share {runs}: put the results on a file system of all machines (LOSSBENCH_RESULTS)."
    if version != wanted[0]:
        return f"{node} has PyTorch {version}, the sweep {wanted[0]}: install the same, or numbers differ."
    if code != wanted[1]:
        return f"{node} has other code of lossbench in {ROOT} than the sweep: use the same checkout on all machines."
    return None


def _leave_copies(owner: int) -> None:
    """End this process if a run has made it by forking: two of it would both train, report and write."""
    if os.getpid() != owner:
        os._exit(1)
