"""The store that MLflow writes to: its address, one writer at a time, and what it and its errors may say aloud."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import logging
import os
import re
import resource
import secrets
import signal
import sqlite3
import stat
import sys
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
PACE_S = 3.0
"""How long it may take for an answer in the long run."""
LOOK_S = 0.5
"""How often an answer that is awaited is looked at."""
ANSWER_BYTES = 1 << 30
"""How much memory reading it may take."""
OPEN_S = 300.0
"""How long a database server may take until it is open, with MLflow's tables made in it: not to be cut off early."""
PORT = 5000
SERVER = "mlflow_server.txt"
"""Beside the records of a study: its address in the dashboard of the server to which it was mirrored."""
SERVED = re.compile(r"https?://[^\s\"'<>\x00-\x20\x7f]{1,500}")
FILTERED = "/runs?workflowType=machine_learning&searchFilter="
HELD = {"runs": "", "experiments": "WHERE experiment_id != 0", "trace_info": "", "registered_models": ""}
"""Tables of MLflow that hold what people put there, and which rows do: experiment 0 is made with the tables."""
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


def remember(study: str, uri: str, experiment: str, results: Path = RESULTS) -> None:
    """Note, beside the records of a study, where a tracking server lists its runs, for reports to link to.

    Args:
        study: its name.
        uri: of the store that was written last; where it is no server, nothing is noted, and an older note goes.
        experiment: its number there; empty if it is not known.
        results: the folder of the records.
    """
    note = results / study / SERVER
    with contextlib.suppress(OSError):  # a report without links says how to find a run
        if not SERVED.fullmatch(printable(uri)):
            note.unlink(missing_ok=True)
        elif experiment:
            note.write_text(f"{printable(uri).rstrip('/')}/#/experiments/{experiment}\n", encoding="utf-8")


def runs_address(study: str, uri: str | None = None, results: Path = RESULTS) -> str:
    """Return where the dashboard lists the runs of a study that a filter, appended to it, finds.

    That of the tracking server to which the study was mirrored last, else that of `make ui`. Empty where neither is
    known to have the study: a report is written without asking a server.
    """
    with contextlib.suppress(OSError, ValueError):
        if SERVED.fullmatch(found := (results / study / SERVER).read_text(encoding="utf-8").strip()):
            return f"{found}{FILTERED}"
    database = database_of(uri or default_uri())
    if database is None or not database.exists():
        return ""
    with contextlib.suppress(sqlite3.Error):  # another version of MLflow may keep its experiments otherwise
        with contextlib.closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            asked = "SELECT experiment_id FROM experiments WHERE name = ? AND lifecycle_stage = 'active'"
            found = connection.execute(asked, (study,)).fetchone()
        if found:
            return f"http://127.0.0.1:{PORT}/#/experiments/{found[0]}{FILTERED}"
    return ""


def sentence(error: BaseException) -> str:
    """Return the essence of an error in one line of visible characters, without credentials.

    Of an absent server it is what the net says. A server may send anything, escapes of the terminal too.
    """
    cause = error
    while inner := cause.__cause__ or cause.__context__:
        cause = inner
    lines = str(cause if isinstance(cause, OSError) else error).strip().splitlines() or [type(error).__name__]
    seen = "".join(letter if letter.isprintable() else " " for letter in lines[0])
    return printable(seen.rstrip("."))[:300]


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
        advice = ": remove it" if os.path.lexists(path) else ""
        raise UsageError(f"the lock {path} cannot be opened ({error.strerror}){advice}.") from error
    about = os.fstat(file)
    if not stat.S_ISREG(about.st_mode) or about.st_nlink != 1:
        os.close(file)
        raise UsageError(f"the lock {path} is a link or no file: remove it.")
    return os.fdopen(file, "r+")


def make(database: Path) -> None:
    """Make MLflow's tables where there are none yet: beside, in one step put in place, so that no kill leaves a half.

    A half that MLflow itself left, made by an earlier version of ours or by a server, is set aside if it holds nothing.
    """
    quiet()
    if database.exists() and database.stat().st_size:
        if not _is_half(database):
            return
        database.replace(database.with_name(f"{database.name}.damaged"))
    # a name of its own each time, because MLflow remembers the stores that it has opened
    fresh = database.with_name(f".{database.name}.{secrets.token_hex(4)}.part")
    for left in database.parent.glob(f".{database.name}.*.part*"):  # of one that was killed; we alone are at work
        left.unlink(missing_ok=True)
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{fresh}", f"sqlite:///{fresh}")
    client.search_experiments(max_results=1)
    with contextlib.closing(sqlite3.connect(fresh)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for kind in ("journal", "wal", "shm"):  # SQLite would undo the new file with what a killed writer noted of the old
        database.with_name(f"{database.name}-{kind}").unlink(missing_ok=True)
    fresh.replace(database)


def _is_half(database: Path) -> bool:
    """Return whether MLflow was killed while it made the tables of a database, before anything was put in them.

    Its steps are not transactions: tables of the next version may be there, and are then in the way for ever, while the
    number of the version is still the last one's.
    """
    with contextlib.closing(sqlite3.connect(database, timeout=5)) as connection:
        try:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            for name, which in HELD.items():
                if name in tables and connection.execute(f"SELECT 1 FROM {name} {which} LIMIT 1").fetchone():
                    return False
            found = connection.execute("SELECT version_num FROM alembic_version") if "alembic_version" in tables else ()
            versions = {version for (version,) in found}
        except sqlite3.Error:  # no database, or in use: whoever opens it says so
            return False
    from mlflow.store.db.utils import _get_latest_schema_revision  # MLflow says it nowhere else

    return versions != {_get_latest_schema_revision()}


@contextlib.contextmanager
def cut_off(seconds: float, words: str = "no whole answer within {:g} s") -> Iterator[None]:
    """Raise TimeoutError in what takes longer, again and again until it gives way: libraries may swallow errors.

    So does what takes more than ``ANSWER_BYTES`` of memory: an answer without end may also come fast.

    Args:
        seconds: how long it may take. Alarms ring meanwhile, so this holds in the main thread only.
        words: of the error, with a place for the seconds.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    end, most = time.monotonic() + seconds, _peak_bytes() + ANSWER_BYTES

    def look(*_: object) -> None:
        if _peak_bytes() > most:
            raise TimeoutError("its answer does not end")
        if time.monotonic() >= end:
            raise TimeoutError(words.format(seconds))

    before = signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, min(seconds, LOOK_S), LOOK_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _peak_bytes() -> int:
    """Return the most memory that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class Bounded:
    """A client whose calls end in time, whatever the server does: wait, or answer for ever, a byte now and then.

    A call may take what is left of ``seconds``. Calls use them up, and every call adds ``pace`` of them, so a server
    that answers, but slowly, is given up too, and not borne with once for each of thousands of calls.

    Args:
        client: of MLflow.
        seconds: what a call may take at most, beginning with the first.
        pace: seconds that a server may take for a call in the long run.
    """

    def __init__(self, client: Any, seconds: float = ANSWER_S, pace: float = PACE_S) -> None:
        self._client, self._seconds, self._pace = client, seconds, pace
        self._left = seconds

    def __getattr__(self, name: str) -> Any:
        """Return the method ``name`` of the client, bounded."""
        call = getattr(self._client, name)

        @functools.wraps(call)
        def bounded(*arguments: Any, **more: Any) -> Any:
            words = "no whole answer within {:g} s"
            if self._left < self._seconds - self._pace:
                words = f"it takes more than {self._pace:g} s an answer"
            started = time.monotonic()
            try:
                with cut_off(self._left, words):
                    return call(*arguments, **more)
            finally:
                left = self._left - (time.monotonic() - started) + self._pace
                self._left = min(max(left, self._pace), self._seconds)

        return bounded


def check_writable(database: Path) -> None:
    """Raise what SQLite says at once; MLflow would try for two minutes to open what is no database or is locked."""
    with contextlib.closing(sqlite3.connect(database, timeout=5)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.rollback()
