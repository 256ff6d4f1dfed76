"""Mirroring while a sweep runs, in a process of its own."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import threading
import time
from pathlib import Path

from harness.errors import UsageError
from harness.paths import RESULTS, ROOT
from harness.tracking.mirroring import Mirror, Mirrored, attempt

FIRST_S = 120.0  # until a live mirror looks for the first time: importing MLflow takes five seconds of a processor
EVERY_S = 5.0  # how often it looks for new records after that
RETRY_S = 300.0  # the longest pause after failures, each of which doubles it
SHARE = 0.03  # of one processor, at most, that it takes


class LiveMirror:
    """Mirrors a study while its sweep runs, in a process of the lowest priority that the sweep never waits for.

    The process reads the records from disk now and then. The end of its input asks it to finish, so it does
    so too if the sweep is killed. ``close`` waits a bounded time for the last round, which otherwise goes on alone::

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
        try:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("wb") as log:
                # A process group of its own, so that Ctrl-C stops the sweep and lets the mirror note what was finished;
                # no session of its own, because Linux would then share the processor evenly between the two.
                self.process = subprocess.Popen(
                    command, cwd=ROOT, stdin=subprocess.PIPE, stdout=log, stderr=log, process_group=0
                )
        except OSError as error:
            self.outcome = f"MLflow was not written ({error}); python -m harness.tracking {study} does it later."

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
            self.outcome = lines[-1] if lines else f"MLflow was not written: see {self.log}."
            return self.outcome
        threading.Thread(target=self.process.wait, daemon=True).start()  # or it would stay behind as a zombie
        earlier = f" Before that: {lines[-1]}" if lines else ""
        log = os.path.relpath(self.log)
        self.outcome = f"MLflow is still being written in the background; {log} will say how it went.{earlier}"
        return self.outcome


def follow(name: str, uri: str, results: Path = RESULTS, first_s: float = FIRST_S) -> str:
    """Mirror a study again and again until standard input ends, then once more; return what the last round did.

    Rounds take at most ``SHARE`` of one processor, and are left out if nothing new was finished. Failures are printed
    where they change, and followed by pauses that grow.
    """
    from harness import records

    known: Mirror | None = None
    seen: object = None
    reason, wait_s = "", EVERY_S
    pause_s = first_s
    while True:
        ended = bool(select.select([sys.stdin], [], [], pause_s)[0])
        started = time.process_time()  # not wall time, which is long where runs leave it no processor
        here = records.finished(results)
        if ended or here != seen:
            try:
                page = results / name / "report" / "index.html" if ended else None
                done, known = attempt(records.load_study(name, results), uri, known, page)
            except UsageError as error:
                done = Mirrored(reason=str(error))
            if ended:
                return done.reason or f"MLflow has the study {name}: {done}."
            if done.reason and done.reason != reason:
                print(done.reason, flush=True)
            reason = done.reason
            seen = here if known else None
            wait_s = EVERY_S if known else min(2 * wait_s, RETRY_S)
        pause_s = max(wait_s, (time.process_time() - started) / SHARE)
