"""Mirroring while a sweep runs, in a process of its own."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from harness.errors import UsageError
from harness.paths import RESULTS, ROOT
from harness.tracking import copies
from harness.tracking.mirroring import Mirror, attempt
from harness.tracking.store import remember

MLFLOW = "mlflow"
MIRRORS = (MLFLOW, *copies.KINDS)
"""What the setting ``tracking.mirrors`` may name."""
FIRST_S = 120.0  # until a live mirror looks for the first time: importing MLflow takes five seconds of a processor
EVERY_S = 5.0  # how often it looks for new records after that
RETRY_S = 300.0  # the longest pause after failures, each of which doubles it
SHARE = 0.03  # of one processor, at most, that it takes


class LiveMirror:
    """Mirrors a study to some of ``MIRRORS`` while its sweep runs, in a process that the sweep never waits for.

    The process has the lowest priority and reads the records from disk now and then. The end of its input asks it to
    finish, so it does so too if the sweep is killed. ``close`` waits a bounded time for the last round, which otherwise
    goes on alone::

        with LiveMirror("demo", uri) as live:
            ...  # the sweep
            live.finish()
            ...  # the report, say, while the mirror does the rest
        print(live.outcome)
    """

    def __init__(
        self,
        study: str,
        uri: str | None = None,
        mirrors: Sequence[str] = (MLFLOW,),
        *,
        results: Path = RESULTS,
        wait_s: float = 0.5,
        first_s: float = FIRST_S,
    ) -> None:
        self.wait_s = wait_s
        self.log = results / study / "mirror.log"
        self.outcome = ""
        self.process: subprocess.Popen[bytes] | None = None
        command = [sys.executable, "-m", "harness.tracking", study, "--follow", "--results", str(results.resolve())]
        command += ["--first", str(first_s)]
        command += ["--uri", uri] if uri else []
        command += [word for name in mirrors for word in ("--to", name)]
        try:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("wb") as log:
                # A process group of its own, so that Ctrl-C stops the sweep and lets the mirror note what was finished;
                # no session of its own, because Linux would then share the processor evenly between the two.
                self.process = subprocess.Popen(
                    command, cwd=ROOT, stdin=subprocess.PIPE, stdout=log, stderr=log, process_group=0
                )
        except OSError as error:
            self.outcome = f"No mirror was written ({error}); python -m harness.tracking {study} does it later."

    def __enter__(self) -> LiveMirror:
        """Return the mirror, already at work."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the mirror, whatever ended the sweep."""
        self.close()

    def finish(self) -> None:
        """Ask for the last round, without waiting for it."""
        if self.process and self.process.stdin and not self.process.stdin.closed:
            self.process.stdin.close()

    def close(self) -> str:
        """Ask for the last round, wait at most ``wait_s`` seconds for it, and return what came of it."""
        self.finish()
        if self.process is None or self.outcome:
            return self.outcome
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(self.wait_s)
        lines = self.log.read_text(errors="replace").strip().splitlines()
        if self.process.returncode is not None:
            self.outcome = lines[-1] if lines else f"No mirror was written: see {self.log}."
            return self.outcome
        threading.Thread(target=self.process.wait, daemon=True).start()  # or it would stay behind as a zombie
        earlier = f" Before that: {lines[-1]}" if lines else ""
        log = os.path.relpath(self.log)
        self.outcome = f"Mirrors are still being written in the background; {log} will say how it went.{earlier}"
        return self.outcome


class Round(NamedTuple):
    """What a round did: sentences on what was ``done`` and on what was not, for ``reasons``; ``failed``: one mirror at
    least, altogether.
    """

    done: list[str]
    reasons: list[str]
    failed: bool


class Rounds:
    """Mirrors of one study, written again and again; knows what MLflow holds after the first time.

    Args:
        study: its name.
        mirrors: some of ``MIRRORS``.
        uri: of MLflow's store.
        results: the folder of the records.
    """

    def __init__(self, study: str, mirrors: Sequence[str], uri: str, results: Path) -> None:
        self.study, self.mirrors, self.uri, self.results = study, mirrors, uri, results
        self.known: Mirror | None = None

    def write(self, last: bool = True) -> Round:
        """Write all mirrors once; never raises for what is wrong with one of them.

        Args:
            last: whether the sweep has ended: the report goes along, and what other mirrors sum up.

        Raises:
            UsageError: there are no such records.
        """
        from harness import records

        study = records.load_study(self.study, self.results)
        done, reasons, failed = list[str](), list[str](), False
        for name in self.mirrors:
            if name == MLFLOW:
                page = self.results / self.study / "report" / "index.html" if last else None
                found, self.known = attempt(study, self.uri, self.known, page)
                remember(self.study, self.uri, self.known.experiment if self.known else "", self.results)
                words, lost = f"MLflow has the study {self.study}: {found}.", self.known is None
            else:
                found = copies.copy(name, study, self.results, last)
                words, lost = copies.told(name, self.study, self.results, found), bool(found.reason)
            failed |= lost
            if not lost:
                done.append(words)
            if found.reason:
                reasons.append(found.reason)
        return Round(done, reasons, failed)


def follow(
    name: str, uri: str, results: Path = RESULTS, first_s: float = FIRST_S, mirrors: Sequence[str] = (MLFLOW,)
) -> str:
    """Mirror a study again and again until standard input ends, then once more; return what the last round did.

    Rounds take at most ``SHARE`` of one processor, and are left out if nothing new was finished. Failures are printed
    where they change, and followed by pauses that grow.
    """
    from harness import records

    rounds = Rounds(name, mirrors, uri, results)
    seen: object = None
    said, wait_s = "", EVERY_S
    pause_s = first_s
    while True:
        ended = bool(select.select([sys.stdin], [], [], pause_s)[0])
        started = time.process_time()  # not wall time, which is long where runs leave it no processor
        here = records.finished(results)
        if ended or here != seen:
            try:
                done, reasons, failed = rounds.write(ended)
            except UsageError as error:
                done, reasons, failed = [], [str(error)], True
            reason = " ".join(reasons)
            if ended:
                return " ".join([*done, *reasons])
            if reason and reason != said:
                print(reason, flush=True)
            said = reason
            seen = None if failed else here
            wait_s = min(2 * wait_s, RETRY_S) if failed else EVERY_S
        pause_s = max(wait_s, (time.process_time() - started) / SHARE)
