"""python -m scripts.campaign_kills [--kills N] [--cold] [PART ...]: kill -9 at random moments, and what is lost by it.

Parts: run, sweep, search, mirror, report, publication. Each command is killed again and again, at moments drawn from
the time that it takes undisturbed, until it comes to its end; then it begins anew, until it was killed N times.

A victim is forked from a server that has imported everything, as are the workers of its sweep: most of a command's
seconds are the start of Python, in which there is nothing to lose. With --cold each is a new process.

lost: what is missing at the end. repeated: records written twice. wrong: numbers or files that differ from undisturbed
ones. tracebacks: of commands that were let to their end. Exit code: 1 if there is any of them.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import multiprocessing
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.paths import ROOT
from scripts.campaign_files import numbers, stamps

STUDY = ("harness", "study=smoke", "name=tried", "tracking.enabled=false", "base.trainer.epochs=3")
TUNED = (*STUDY, "track=lr", "search.seeds=[7001]", "search.most_seeds=1", "search.most=1")
RUN = ("harness.run", "trainer.epochs=6")
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "run": RUN,
    "sweep": STUDY,
    "search": TUNED,
    "mirror": ("harness.tracking", "tried"),
    "report": ("harness.report", "build", "tried"),
    "publication": ("harness.records", "publish", "tried"),
}
TRAINED = ("run", "sweep", "search")
WARM = (
    "harness.__main__",
    "harness.run",
    "harness.studies.sweep",
    "harness.training.loop",
    "harness.training.isolation",
    "harness.tasks.classification",
    "harness.report",
    "harness.report.__main__",
    "harness.records.__main__",
    "harness.records.publish",
    "harness.tracking.__main__",
    "alembic.command",
    "mlflow.tracking",
    "pyarrow.feather",
    "statsmodels.stats.multitest",
)
"""What the server imports before it forks a victim."""
ALONE = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""Settings by which these imports start no thread that computes: a process that has some is not safe to fork."""
HEAD = ("", "kills", "ends", "lost", "repeated", "wrong", "tracebacks", "seconds")
ENOUGH = 8
"""Kills after which a command is let to its end: else a slow machine would never see one."""


@dataclass
class Counts:
    """What became of a command that was killed; see the module's text."""

    kills: int = 0
    ends: int = 0
    lost: int = 0
    repeated: int = 0
    wrong: int = 0
    tracebacks: int = 0
    seconds: float = 0.0
    stamps: dict[str, tuple[int, int]] = field(default_factory=dict)


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out the campaign and print its table; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.campaign_kills", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("part", nargs="*", choices=[*COMMANDS, []], default=list(COMMANDS))
    parser.add_argument("--kills", type=int, default=20, help="of every part (default: 20; 170 make a thousand in all)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--cold", action="store_true", help="start a new Python for every victim")
    given = parser.parse_args(arguments)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        os.environ |= {"LOSSBENCH_RESULTS": str(Path(folder) / "tried"), "OMP_WAIT_POLICY": "PASSIVE", **ALONE}
        for part in given.part or COMMANDS:
            found[part] = campaign(
                part, given.kills, Path(folder), random.Random(f"{given.seed} {part}"), cold=given.cold
            )
    rows = [HEAD, *(_row(part, counts) for part, counts in found.items())]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD))]
    for row in rows:
        print(
            "  ".join(
                text.ljust(w) if i == 0 else text.rjust(w) for i, (text, w) in enumerate(zip(row, widths, strict=True))
            )
        )
    return int(any(c.lost or c.repeated or c.wrong or c.tracebacks for c in found.values()))


def _row(part: str, c: Counts) -> tuple[str, ...]:
    return (part, *map(str, (c.kills, c.ends, c.lost, c.repeated, c.wrong, c.tracebacks, round(c.seconds))))


def campaign(part: str, kills: int, folder: Path, moments: random.Random, cold: bool = False) -> Counts:
    """Kill the command of a part so many times, and return what came of it.

    It works in the subfolder ``tried``, which is the folder of results of all commands.
    """
    began, counts, results = time.monotonic(), Counts(), folder / "tried"
    seconds = _undisturbed(part, folder, cold)
    while counts.kills < kills:
        shutil.rmtree(results, ignore_errors=True)
        if part not in TRAINED:
            shutil.copytree(folder / "base", results)
        counts.stamps = stamps(results)
        for attempt in range(ENOUGH + 1):
            limit = None if attempt == ENOUGH or counts.kills >= kills else moments.uniform(0, 1.1 * seconds)
            start = time.monotonic()
            said = _killed(results, COMMANDS[part], limit, cold)
            taken = time.monotonic() - start
            _check_records(results, counts)
            if said is not None:
                seconds = max(taken, seconds if attempt else 0)  # what it takes changes with what else runs
                counts.ends += 1
                counts.tracebacks += said[0] != 0 or "Traceback (most recent call last)" in said[1]
                break
            counts.kills += 1
        _compare(part, folder / "clean", results, counts)
        counts.seconds = time.monotonic() - began
        print(f"{part}: {_row(part, counts)[1:]}", file=sys.stderr, flush=True)
    return counts


def _undisturbed(part: str, folder: Path, cold: bool) -> float:
    """Carry out a part's command and leave what comes of it in the folder ``clean``; return the seconds it takes.

    What the command needs before it stands in the folder ``base``. The first time does not count: it reads files that
    no one has read before.
    """
    results, clean, base = folder / "tried", folder / "clean", folder / "base"
    for each in (results, clean, base):
        shutil.rmtree(each, ignore_errors=True)
    if part not in TRAINED:
        _killed(results, STUDY, None, cold)
        shutil.copytree(results, base)
    seconds = 0.0
    for _ in range(2):
        shutil.rmtree(results, ignore_errors=True)
        if part not in TRAINED:
            shutil.copytree(base, results)
        began = time.monotonic()
        said = _killed(results, COMMANDS[part], None, cold)
        seconds = time.monotonic() - began
        if said is None or said[0]:
            raise SystemExit(f"{part} does not come to its end undisturbed: {said}")
    shutil.move(results, clean)
    return seconds


def _killed(results: Path, command: Sequence[str], limit: float | None, cold: bool) -> tuple[int, str] | None:
    """Run a command and kill it, with nothing else, after ``limit`` seconds; wait until its workers have noticed.

    Return its exit code and what it said; None if it was killed.
    """
    output = results.parent / "said"
    output.write_bytes(b"")
    victim = (_Cold if cold else _Warm)(command, output)
    code = victim.ended(limit)
    if code is not None:
        return code, output.read_text(errors="replace")
    children = victim.workers()
    os.kill(victim.pid, signal.SIGKILL)
    victim.ended(None)
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in children):
        if time.monotonic() > deadline:
            raise SystemExit(f"{' '.join(command)}: processes outlive it by a minute")
        time.sleep(0.02)
    return None


class _Cold:
    """A command as a new process.

    Args:
        command: module and arguments.
        output: file for what it prints.
    """

    def __init__(self, command: Sequence[str], output: Path) -> None:
        with output.open("wb") as file:
            self.process = subprocess.Popen([sys.executable, "-m", *command], cwd=ROOT, stdout=file, stderr=file)
        self.pid = self.process.pid

    def ended(self, limit: float | None) -> int | None:
        """Return the exit code of the process once it ends; None if it has not within ``limit`` seconds."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.process.wait(limit)
        return None

    def workers(self) -> list[int]:
        """Return the processes that it has started."""
        return _descendants(self.pid)


class _Warm:
    """A command as a process forked from the server; arguments as those of `_Cold`."""

    def __init__(self, command: Sequence[str], output: Path) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(WARM))
        self.process = context.Process(target=_carry_out, args=(tuple(command), str(output)))
        self.process.start()
        self.pid = self.process.pid

    def ended(self, limit: float | None) -> int | None:
        """Return the exit code of the process once it ends; None if it has not within ``limit`` seconds."""
        self.process.join(limit)
        return self.process.exitcode

    def workers(self) -> list[int]:
        """Return the processes that it has started, or has asked the server for: all that the server has."""
        return [pid for child in _descendants(os.getpid()) for pid in _descendants(child)]


def _carry_out(command: Sequence[str], output: str) -> None:
    """Be a command: call its module's main, with what it prints going to a file."""
    with open(output, "ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    name, *arguments = command
    sys.argv = [name, *arguments]
    if importlib.util.find_spec(name).submodule_search_locations:
        name += ".__main__"
    sys.exit(importlib.import_module(name).main(arguments))


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            found += [int(child), *_descendants(int(child))]
    return found


def _check_records(results: Path, counts: Counts) -> None:
    """Count finished runs that are gone or were written again since they were last seen."""
    now = stamps(results)
    counts.lost += len(counts.stamps.keys() - now.keys())
    counts.repeated += sum(now[key] != stamp for key, stamp in counts.stamps.items() if key in now)
    counts.stamps = now


def _compare(part: str, clean: Path, results: Path, counts: Counts) -> None:
    """Count what differs at the end from what came of the undisturbed command."""
    expected, found = OF_PART[part](clean), OF_PART[part](results)
    counts.lost += len(expected.keys() - found.keys())
    counts.wrong += sum(found[name] != value for name, value in expected.items() if name in found)
    counts.wrong += len(found.keys() - expected.keys())


def _mirrored(results: Path) -> dict[str, Any]:
    """Return what MLflow holds of every run: its state and metrics, by name."""
    with contextlib.closing(sqlite3.connect(results / "mlflow.db")) as store:
        asked = (
            "SELECT t.value || '/' || r.value, runs.status, (SELECT group_concat(key || value) FROM (SELECT key, value "
            "FROM latest_metrics m WHERE m.run_uuid = runs.run_uuid AND key LIKE 'test.%' ORDER BY key)) FROM runs "
            "JOIN tags t ON t.run_uuid = runs.run_uuid AND t.key = 'lossbench.key' "
            "JOIN tags r ON r.run_uuid = runs.run_uuid AND r.key = 'lossbench.role' "
            "WHERE runs.lifecycle_stage = 'active'"
        )
        rows = store.execute(asked).fetchall()
    twice = {
        f"{name} again": status for i, (name, status, _) in enumerate(rows) if name in [row[0] for row in rows[:i]]
    }
    return {name: (status, metrics) for name, status, metrics in rows} | twice


def _files(folder: str) -> Callable[[Path], dict[str, bytes]]:
    """Return a function that reads the files below a folder of results, as far as they are text or tables."""

    def read(results: Path) -> dict[str, bytes]:
        paths = [
            path for path in (results / folder).rglob("*") if path.is_file() and path.suffix in (".csv", ".md", ".gz")
        ]
        return {str(path.relative_to(results)): path.read_bytes() for path in paths}

    return read


OF_PART: Mapping[str, Callable[[Path], Mapping[str, Any]]] = {
    "run": numbers,
    "sweep": numbers,
    "search": numbers,
    "mirror": _mirrored,
    "report": _files("tried/report/tables"),
    "publication": _files("measured"),
}


if __name__ == "__main__":
    sys.exit(main())
