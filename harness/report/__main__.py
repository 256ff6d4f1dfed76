"""python -m harness.report build NAME | claims: a study's report, or the claims ledger, rebuilt from records."""

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
    ledger = commands.add_parser("claims", help="decide the claims of conf/claims on all records, and write the ledger")
    ledger.add_argument("--out", type=Path, help="folder of the ledger (default: results/claims)")
    given = parser.parse_args(arguments)
    from harness import records, report  # here, so that --help answers at once
    from harness.errors import UsageError

    try:
        if given.command == "claims":
            return _claims(given.out or records.RESULTS / "claims")
        study = records.load_study(given.study)
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    page = report.build(study, given.out or records.RESULTS / given.study / "report", given.mix)
    print(report.summary(study, given.mix))
    print(f"\nReport: {os.path.relpath(page)}")
    return 0


def _claims(folder: Path) -> int:
    from harness.report import ledger
    from harness.report.sections.claims import told

    page, decisions = ledger.write(folder)
    for decision in decisions:
        if decision.verdict != "not decidable":
            print(f"{decision.verdict:<13} {decision.claim.short}: {decision.claim.says}")
    print(f"\n{told(decisions)}\nLedger: {os.path.relpath(page)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
