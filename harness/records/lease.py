"""Leases: a run is trained by one process at a time, whatever sweeps and hosts share a results folder.

results/runs/<key>/lease.json holds who trains the run. Its owner touches it every few seconds. Another process takes
it over when the owner is dead, which it knows at once of a process beside it, or when it has watched the file for a
minute and nothing has touched it. Only the watcher's own clock counts, so the clocks of hosts need not agree.

On a network file system, too: exclusive creation and renaming are atomic there, and a lease is opened before its times
are read, which makes the client ask the server for them.

A lease saves work and decides nothing: should two processes train one run after all (one was stopped for minutes and
went on), they write the same numbers, each in files of its own that are renamed in one step. The one whose lease was
taken over sees it with its next heartbeat, or before it writes its record, and leaves the run to the other.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import platform
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAME = "lease.json"
HEARTBEAT_S = 5.0
"""How often an owner touches its lease."""
EXPIRY_S = 60.0
"""How long a lease may stay untouched."""
_seen: dict[Path, tuple[tuple[int, int], float]] = {}
"""State of leases of others and when, on this process's clock, each was first seen so."""


class Lost(Exception):
    """The lease of a run was taken over by another process, which trains it now."""


@dataclass
class Lease:
    """What `take` found.

    Attributes:
        path: of the lease.
        token: ours, empty if another process has the run.
        owner: who has it, for people.
    """

    path: Path
    token: str = ""
    owner: str = ""
    _pid: int = field(default_factory=os.getpid)
    _ended: threading.Event = field(default_factory=threading.Event)
    _lost: threading.Event = field(default_factory=threading.Event)

    def __bool__(self) -> bool:
        return bool(self.token)

    def keep(self) -> None:
        """Touch the lease in a thread of its own until it is released, or is no longer ours."""
        threading.Thread(target=self._beat, name="lease", daemon=True).start()

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT_S):
            with contextlib.suppress(OSError):
                if self._taken():
                    self._lost.set()
                    return
                os.utime(self.path)

    def check(self, look: bool = False) -> None:
        """Raise `Lost` where another process has taken the run over.

        Args:
            look: read the lease now; otherwise what the last heartbeat saw counts, which costs nothing.
        """
        if look and self._taken():
            self._lost.set()
        if self._lost.is_set():
            raise Lost

    def _taken(self) -> bool:
        """Return whether another process has the lease, or it is gone; one that cannot be read may be ours yet."""
        token = _content(self.path).get("token")
        return token != self.token and (token is not None or not os.path.lexists(self.path))

    def release(self) -> None:
        """Give the run back; a lease that was taken over meanwhile stays, and a fork of its owner owns nothing."""
        self._ended.set()
        if self._pid == os.getpid() and self.token and _content(self.path).get("token") == self.token:
            with contextlib.suppress(OSError):
                self.path.unlink()


@contextlib.contextmanager
def held(folder: Path) -> Iterator[Lease]:
    """Have the run of a folder for as long as the block takes; the lease is false where another process has it.

    Raises:
        OSError: the folder cannot be written.
    """
    lease = take(folder)
    if lease:
        lease.keep()
    try:
        yield lease
    finally:
        if lease:
            lease.release()


def take(folder: Path) -> Lease:
    """Return the lease of the run of a folder: ours, or that of the process that has it.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, token = folder / NAME, secrets.token_hex(8)
    while True:
        try:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
        except FileExistsError:
            owner = _content(path)
            if not _is_over(path, owner):
                return Lease(path, owner=_named(owner))
            _remove(path, owner)
            continue
        try:
            os.write(file, json.dumps({"token": token, **_me()}).encode())
        except OSError:
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(file)
        return Lease(path, token)


def free(folder: Path) -> bool:
    """Return whether nobody has the run of a folder; the lease of an owner that is dead or silent is removed."""
    path = folder / NAME
    owner = _content(path)
    if os.path.lexists(path) and _is_over(path, owner):
        _remove(path, owner)
    return not os.path.lexists(path)


def _is_over(path: Path, owner: dict[str, Any]) -> bool:
    """Return whether the owner of a lease is dead, or has not touched it for as long as we have watched."""
    me = _me()
    beside = all(owner.get(name) == me[name] for name in ("host", "place")) and isinstance(owner.get("pid"), int)
    if beside and _started(owner["pid"]) != owner.get("started"):
        return True
    try:
        about = os.lstat(path)
    except OSError:
        return True
    state, now = (about.st_mtime_ns, about.st_ino), time.monotonic()
    before, since = _seen.get(path, (None, now))
    if state != before:
        _seen[path] = (state, now)
        return False
    return now - since > EXPIRY_S


def _remove(path: Path, owner: dict[str, Any]) -> None:
    """Remove the lease of an owner; should another have taken it over at this moment, it gets its lease back."""
    away = path.with_name(f".{NAME}.{secrets.token_hex(4)}.part")
    try:
        path.rename(away)
    except OSError:
        return
    if _content(away) != owner:
        with contextlib.suppress(OSError):
            os.link(away, path)
    with contextlib.suppress(OSError):
        away.unlink()
    _seen.pop(path, None)


def _content(path: Path) -> dict[str, Any]:
    """Return what a lease says; nothing if it is not there, just being written, a link, or damaged."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            found = json.loads(os.read(file, 4096))
        finally:
            os.close(file)
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


@functools.cache
def _place() -> tuple[str, str]:
    """Return this host's name, and what tells its boots and the process ids of its containers apart."""
    parts = []
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return platform.node(), " ".join(parts)


def _me() -> dict[str, Any]:
    host, place = _place()
    return {"host": host, "place": place, "pid": os.getpid(), "started": _started(os.getpid())}


def _started(pid: int) -> str | None:
    """Return when a process of this host started, in its kernel's own words; None if it is dead.

    Where the system does not tell, "alive" stands for any time.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    except OSError:
        if os.path.isdir("/proc/self"):
            return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass
    return "alive"


def _named(owner: dict[str, Any]) -> str:
    pid, host = owner.get("pid"), str(owner.get("host", ""))
    known = isinstance(pid, int) and host.isprintable()
    return f"process {pid} on {host}" if known else "another process"
