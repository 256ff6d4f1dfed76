"""The store that MLflow writes to: its address, one writer at a time, and what it and its errors may say aloud."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import logging
import os
import re
import secrets
import signal
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from harness.errors import UsageError
from harness.paths import RESULTS

LOCK_WAIT_S = 60.0
ANSWER_S = 30.0
"""How long a tracking server may take for the whole of an answer."""
PORT = 5000
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # By default MLflow tries again for minutes; a mirror that fails is simply repeated later.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    # Eight further processes of the dashboard, for features that comparing runs does not use.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}


def default_uri(results: Path = RESULTS) -> str:
    """Return MLFLOW_TRACKING_URI, else the project's own store, mlflow.db beside the records."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{results / 'mlflow.db'}"


def database_of(uri: str) -> Path | None:
    """Return the file of a store that is a SQLite database, None for any other."""
    return Path(uri.removeprefix("sqlite:///").partition("?")[0]) if uri.startswith("sqlite:///") else None


def runs_address(study: str, uri: str | None = None) -> str:
    """Return where the dashboard (make ui) lists the runs of a study that a filter, appended to it, finds.

    Empty where the store is no SQLite database of this machine, or has no such study: a report is written without
    asking a server.
    """
    database = database_of(uri or default_uri())
    if database is None or not database.exists():
        return ""
    with contextlib.suppress(sqlite3.Error):  # another version of MLflow may keep its experiments otherwise
        with contextlib.closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            asked = "SELECT experiment_id FROM experiments WHERE name = ? AND lifecycle_stage = 'active'"
            found = connection.execute(asked, (study,)).fetchone()
        if found:
            return f"http://127.0.0.1:{PORT}/#/experiments/{found[0]}/runs?workflowType=machine_learning&searchFilter="
    return ""


def sentence(error: BaseException) -> str:
    """Return the essence of an error in one line, without credentials; of an absent server what the net says."""
    cause = error
    while inner := cause.__cause__ or cause.__context__:
        cause = inner
    lines = str(cause if isinstance(cause, OSError) else error).strip().splitlines() or [type(error).__name__]
    return printable(lines[0].rstrip("."))[:300]


def printable(uri: str) -> str:
    """Return a URI, or words with one in them, without credentials."""
    return re.sub(r"//[^/@\s]*@", "//", uri)


def quiet() -> None:
    """Keep MLflow's log lines off the terminal and its telemetry off the network, unless the user asked for them."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    logging.getLogger("alembic").setLevel(logging.ERROR)


@contextlib.contextmanager
def alone(uri: str, token: str) -> Iterator[bool]:
    """Be the only mirror of this machine to write a store: two at once would create its tables, or its runs, twice.

    Yields whether the one that wrote last went by the same ``token``, so that what it knows of the store still holds.

    Raises:
        UsageError: another mirror holds it for too long, or it is a database file that cannot be written.
    """
    database = database_of(uri)
    if database is None:
        path = RESULTS / "locks" / f"{hashlib.sha256(uri.encode()).hexdigest()[:16]}.lock"
    else:
        path = database.with_name(f".{database.name}.lock")
    with _opened(path) as lock:
        end = time.monotonic() + LOCK_WAIT_S
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            if time.monotonic() > end:
                raise UsageError(f"another mirror has been writing for {LOCK_WAIT_S:.0f} s")
            time.sleep(0.1)
        if database is not None:
            make(database)
            check_writable(database)
        lock.seek(0)
        undisturbed = lock.read() == token
        lock.truncate(0)
        lock.write(token)
        lock.flush()
        yield undisturbed


def _opened(path: Path) -> IO[str]:
    """Open a lock, made where there is none, and never another file through a link.

    Raises:
        UsageError: something else has its name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except OSError as error:
        raise UsageError(f"the lock {path} cannot be opened ({error.strerror}): remove it.") from error
    about = os.fstat(file)
    if not stat.S_ISREG(about.st_mode) or about.st_nlink != 1:
        os.close(file)
        raise UsageError(f"the lock {path} is a link or no file: remove it.")
    return os.fdopen(file, "r+")


def make(database: Path) -> None:
    """Make MLflow's tables where there are none yet: beside, in one step put in place, so that no kill leaves a half.

    A half that an earlier version left, with tables but no run, is set aside: a mirror can always be made anew.
    """
    if database.exists() and database.stat().st_size:
        if not _is_half(database):
            return
        database.replace(database.with_name(f"{database.name}.damaged"))
    # a name of its own each time, because MLflow remembers the stores that it has opened
    fresh = database.with_name(f".{database.name}.{secrets.token_hex(4)}.part")
    for left in database.parent.glob(f".{database.name}.*.part*"):  # of one that was killed; we alone are at work
        left.unlink(missing_ok=True)
    quiet()
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{fresh}", f"sqlite:///{fresh}")
    client.search_experiments(max_results=1)
    with contextlib.closing(sqlite3.connect(fresh)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    fresh.replace(database)


def _is_half(database: Path) -> bool:
    """Return whether a database was left while MLflow was making its tables, before any run was in it."""
    with contextlib.closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        try:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            cut = any(name.startswith("_alembic_tmp_") for name in tables) or "alembic_version" not in tables
            return cut and ("runs" not in tables or not connection.execute("SELECT 1 FROM runs LIMIT 1").fetchone())
        except sqlite3.Error:  # no database, or in use: whoever opens it says so
            return False


class Bounded:
    """A client each of whose calls ends in time: a server may also answer for ever, a byte now and then.

    Args:
        client: of MLflow.
        seconds: how long a call may take. It is cut off by an alarm, so only in the main thread.
    """

    def __init__(self, client: Any, seconds: float = ANSWER_S) -> None:
        self._client, self._seconds = client, seconds

    def __getattr__(self, name: str) -> Any:
        """Return the method ``name`` of the client, bounded."""
        call, seconds = getattr(self._client, name), self._seconds
        if threading.current_thread() is not threading.main_thread():
            return call

        @functools.wraps(call)
        def bounded(*arguments: Any, **more: Any) -> Any:
            def stop(*_: object) -> None:
                raise TimeoutError(f"no whole answer within {seconds:g} s")

            before = signal.signal(signal.SIGALRM, stop)
            signal.setitimer(signal.ITIMER_REAL, seconds)
            try:
                return call(*arguments, **more)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.signal(signal.SIGALRM, before)

        return bounded


def check_writable(database: Path) -> None:
    """Raise what SQLite says at once; MLflow would try for two minutes to open what is no database or is locked."""
    with contextlib.closing(sqlite3.connect(database, timeout=5)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.rollback()
