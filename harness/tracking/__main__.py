"""python -m harness.tracking: mirror a study now (NAME) to MLflow or others, or open MLflow's dashboard (ui)."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.errors import UsageError
from harness.paths import RESULTS
from harness.tracking.dashboard import PORT, serve
from harness.tracking.live import FIRST_S, MIRRORS, MLFLOW, Rounds, follow
from harness.tracking.store import default_uri


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m harness.tracking", description="Mirror a study's records, or open MLflow's dashboard."
    )
    parser.add_argument("study", help="name of a study with records, or the word ui: open the dashboard")
    parser.add_argument(
        "--uri", help="tracking URI (default: MLFLOW_TRACKING_URI, else the project's results/mlflow.db)"
    )
    parser.add_argument(
        "--to", action="append", choices=MIRRORS, help="a mirror; may be given several times (default: mlflow)"
    )
    parser.add_argument("--port", type=int, default=PORT, help="port of the dashboard (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the records (default: the project's)")
    parser.add_argument("--follow", action="store_true", help="mirror again and again until standard input ends")
    parser.add_argument(
        "--first",
        type=float,
        default=FIRST_S,
        help="seconds before --follow looks for the first time (default: %(default)g)",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; return the exit code: 1 if the store could not be written, 2 for a request that cannot be met."""
    given = (parser := _parser()).parse_args(arguments)
    if not 0 < given.port < 1 << 16:
        parser.error(f"--port {given.port}: use a whole number from 1 to 65535.")
    uri = given.uri or default_uri(given.results)
    try:
        if given.study == "ui":
            return serve(uri, given.port, given.results)
        if given.follow:
            os.nice(19)
            print(follow(given.study, uri, given.results, given.first, given.to or (MLFLOW,)), flush=True)
            return 0
        done, reasons, failed = Rounds(given.study, given.to or (MLFLOW,), uri, given.results).write()
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join(done))
    for reason in reasons:
        print(reason, file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
