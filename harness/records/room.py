"""Whether results can be written, found out before anything is trained; and what killed processes left, cleared away.

Leftovers go by one rule, whenever a sweep begins to train: a file that was being written (``.*.part``) after an hour
without change, a lease when its owner is dead or its run is finished, what was set aside (``*.damaged``) when its run
is finished, or after a month.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from harness.errors import UsageError
from harness.records import lease
from harness.records.store import NO_ROOM, finished, no_room

RUN_BYTES, RUN_FILES = 1 << 18, 8
"""What a run is taken to write where none has been finished yet; its files and folders."""
CHECKPOINT_BYTES = 8 << 20
"""What the checkpoints of one worker are taken to need."""
FILES, FILES_OF_WORKER = 96, 16
"""Open files that a sweep needs, and that each of its workers adds."""
PART_S, DAMAGED_S, LEASE_S = 3600.0, 30 * 86400.0, 86400.0
"""Ages at which leftovers go."""


def check(results: Path, runs: int, workers: int = 1) -> None:
    """Check that the records of so many runs can be written.

    Args:
        results: where they go.
        runs: how many.
        workers: how many are trained at once.

    Raises:
        UsageError: the folder cannot be written, or its disk has too few bytes or inodes left, or this process may open
            too few files.
    """
    probe = results / f".probe.{secrets.token_hex(4)}.part"
    try:
        results.mkdir(parents=True, exist_ok=True)
        try:
            with probe.open("xb") as file:
                file.write(bytes(4096))
                file.flush()
                os.fsync(file.fileno())
        finally:
            probe.unlink(missing_ok=True)
        left = os.statvfs(results)
    except OSError as error:
        known = error if error.errno in NO_ROOM else OSError(errno.EIO, "")
        if isinstance(error, FileExistsError | NotADirectoryError):
            raise UsageError(f"{results} is no folder: name another in LOSSBENCH_RESULTS.") from error
        raise UsageError(str(no_room(known, results))) from error
    need = runs * _bytes_of_a_run(results) + workers * CHECKPOINT_BYTES
    free = left.f_bavail * left.f_frsize
    if free < need:
        raise UsageError(
            f"{results} has {free >> 20} MiB left, and {runs} runs need about {need >> 20} MiB: make room, or name "
            "another folder in LOSSBENCH_RESULTS."
        )
    if left.f_files and left.f_favail < runs * RUN_FILES:
        raise UsageError(
            f"{results} has {left.f_favail} inodes left, and {runs} runs need about {runs * RUN_FILES}: remove files, "
            "or name another folder in LOSSBENCH_RESULTS."
        )
    _check_files(FILES + FILES_OF_WORKER * workers)


def _bytes_of_a_run(results: Path, sample: int = 20) -> int:
    """Return what a run writes, on the average of some finished ones."""
    sizes = []
    for key in itertools.islice(sorted(finished(results)), sample):
        with contextlib.suppress(OSError), os.scandir(results / "runs" / key) as files:
            sizes.append(sum(-(-file.stat(follow_symlinks=False).st_size // 4096) * 4096 for file in files))
    return sum(sizes) // len(sizes) if sizes else RUN_BYTES


def _check_files(need: int) -> None:
    """Raise the limit of open files where that is allowed, and a UsageError where it stays too low."""
    try:
        import resource
    except ImportError:  # another system has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= need:
        return
    if hard == resource.RLIM_INFINITY or hard >= need:
        resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))
        return
    raise UsageError(
        f"a process may open {hard} files here, and this sweep needs about {need}: raise the limit (ulimit -n), or use "
        "fewer workers (engine.workers)."
    )


def tidy(results: Path) -> int:
    """Remove what processes that were killed have left in a results folder; return how much that was."""
    removed, done, now = 0, finished(results), _now(results)
    for path in _leftovers(results):
        run = path.parent.name if path.parent.parent == results / "runs" else ""
        with contextlib.suppress(OSError):
            age = now - path.lstat().st_mtime
            if path.name == lease.NAME:
                old = (run in done and age > lease.EXPIRY_S) or age > LEASE_S
                if not old and (lease.free(path.parent)):
                    removed += 1
                    continue
            elif path.suffix == ".damaged":
                old = run in done or age > DAMAGED_S
            else:
                old = age > PART_S
            if old:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
                removed += 1
    return removed


def _now(results: Path) -> float:
    """Return the time of the file system, by which files have theirs: that of another host may be an hour off ours."""
    probe = results / f".probe.{secrets.token_hex(4)}.part"
    try:
        probe.touch(exist_ok=False)
        return probe.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)


def _leftovers(results: Path) -> Iterator[Path]:
    """Yield what may be left over, one folder deep, and two below ``runs``."""
    folders = [results, results / "runs"]
    for parent in list(folders):
        with contextlib.suppress(OSError), os.scandir(parent) as found:
            folders += [Path(entry.path) for entry in found if entry.is_dir(follow_symlinks=False)]
    for folder in dict.fromkeys(folders):
        with contextlib.suppress(OSError), os.scandir(folder) as found:
            for entry in found:
                part = entry.name.startswith(".") and entry.name.endswith(".part")
                if part or entry.name.endswith(".damaged") or entry.name == lease.NAME:
                    yield Path(entry.path)
