"""python -m harness.report build NAME: rebuild a study's report from its records."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m harness.report", description="Reports of studies, rebuilt from their records alone."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("build", help="write HTML, Markdown, LaTeX, CSV and figures of a study")
    command.add_argument("study", help="name of a study that was run here or published in results/measured/")
    command.add_argument("--out", type=Path, help="folder of the report (default: results/STUDY/report)")
    command.add_argument(
        "--mix", action="store_true", help="compare runs of different device types and major versions of torch"
    )
    given = parser.parse_args(arguments)
    from harness import records, report  # here, so that --help answers at once
    from harness.errors import UsageError

    try:
        study = records.load_study(given.study)
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    page = report.build(study, given.out or records.RESULTS / given.study / "report", given.mix)
    print(report.summary(study, given.mix))
    print(f"\nReport: {os.path.relpath(page)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
