"""The dashboard: MLflow's own server for a local store, on loopback."""

from __future__ import annotations

import contextlib
import itertools
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from harness.errors import UsageError
from harness.paths import RESULTS
from harness.tracking.mirroring import VIEW
from harness.tracking.store import (
    ANSWER_S,
    PORT,
    check_writable,
    cut_off,
    database_of,
    default_uri,
    printable,
    quiet,
    sentence,
)

START_S = 120.0  # what a dashboard may take to start on a slow machine


def ui_command(uri: str | None = None, port: int = PORT) -> list[str]:
    """Return the command that serves the dashboard of a local store on loopback.

    Raises:
        UsageError: the store is a server with a dashboard of its own, is empty, or the port is taken.
    """
    store = uri or default_uri()
    if store.startswith(("http://", "https://")):
        raise UsageError(f"the tracking server has its own dashboard: open {printable(store)}.")
    database = database_of(store)
    if database is not None and not (database.exists() and database.stat().st_size):
        raise UsageError("no study has been mirrored yet: run make demo, or python -m harness.tracking STUDY.")
    try:
        if database is not None:
            check_writable(database)
    except sqlite3.Error as error:
        raise UsageError(
            f"{database} is not usable ({error}): end what uses it, or delete it (the records stay)."
        ) from error
    if not 0 < port < 1 << 16:
        raise UsageError(f"--port {port} is no port: choose one from 1024 to 65535.")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise UsageError(
                f"port {port} is taken ({error.strerror}), perhaps by a dashboard at http://127.0.0.1:{port}: "
                f"open that, or choose another port with --port {port + 1}."
            ) from error
    options = {"--backend-store-uri": store, "--registry-store-uri": store, "--host": "127.0.0.1", "--port": str(port)}
    options |= {"--workers": "1", "--uvicorn-opts": "--log-level warning"}
    if database is not None:
        options["--artifacts-destination"] = str(database.resolve().parent / "mlartifacts")
    return [sys.executable, "-m", "mlflow", "server", *itertools.chain.from_iterable(options.items())]


def serve(uri: str, port: int, results: Path = RESULTS) -> int:
    """Serve the dashboard until Ctrl-C, and say where each study is; return the exit code.

    Raises:
        UsageError: as ``ui_command``, or the server did not start.
    """
    command = ui_command(uri, port)
    quiet()
    results.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print("the dashboard takes a few seconds to start ...", flush=True)
    with (results / "dashboard.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        links = _links(uri, port)
        _wait_until_up(server, port, log.name)
        print("\n".join(["dashboard, until Ctrl-C:", *links]), flush=True)
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()


def _links(uri: str, port: int) -> list[str]:
    """Return the address of each study's table in the dashboard."""
    from mlflow.tracking import MlflowClient

    base, view = f"http://127.0.0.1:{port}/#/experiments", f"workflowType=machine_learning&viewStateShareKey={VIEW}"
    try:
        with cut_off(ANSWER_S):
            found = MlflowClient(uri, uri).search_experiments(order_by=["name ASC"])
    except Exception as error:  # SQL or whatever else the store's libraries raise
        raise UsageError(f"the MLflow store {printable(uri)} cannot be read ({sentence(error)}).") from error
    studies = [one for one in found if f"mlflow.sharedViewState.{VIEW}" in one.tags]
    width = max((len(one.name) for one in studies), default=0)
    return [f"  {one.name:{width}}  {base}/{one.experiment_id}/runs?{view}" for one in studies] or [f"  {base}"]


def _wait_until_up(server: subprocess.Popen[bytes], port: int, log: str) -> None:
    import urllib.request

    end = time.monotonic() + START_S
    while time.monotonic() < end and server.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
            return
        time.sleep(0.2)
    raise UsageError(f"the dashboard did not start: {log} says why.")
