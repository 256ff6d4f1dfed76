"""python -m harness.report build NAME | claims | compare A B | site: all that is written from records alone."""

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
    ledger.add_argument(
        "--stamp", action="store_true", help="first give every claim whose test changed its hash and today's date"
    )
    command = commands.add_parser("compare", help="what changed from one study to another, and whether beyond noise")
    what = "a study by name, a published CSV, or a folder of results or of a study elsewhere"
    command.add_argument("a", metavar="A", help=what)
    command.add_argument("b", metavar="B", help="the other, likewise")
    command.add_argument("--out", type=Path, help="folder of the comparison (default: results/compare/A_B)")
    command = commands.add_parser("site", help="write a static site of all published evidence")
    command.add_argument("--out", type=Path, help="folder of the site (default: results/site)")
    given = parser.parse_args(arguments)
    from harness.command import ended

    return ended(lambda: _written(given))


def _written(given: argparse.Namespace) -> int:
    from harness import records

    page = {"build": _build, "compare": _compare, "claims": _claims, "site": _site}[given.command](given)
    for sentence in records.damaged:
        print(sentence, file=sys.stderr)
    print(f"\n{'Site' if given.command == 'site' else 'Report'}: {os.path.relpath(page)}")
    return 0


def _claims(given: argparse.Namespace) -> Path:
    from harness import records
    from harness.analysis import claims
    from harness.report import ledger
    from harness.report.sections.claims import summary, verdict_text

    if given.stamp and (changed := claims.stamp()):
        print(f"Dated anew: {', '.join(changed)}\n")
    page, decisions = ledger.write(given.out or records.RESULTS / "claims")
    for decision in decisions:
        if decision.decided or decision.verdict == "withheld":
            because = f" Because: {decision.because}." if decision.because else ""
            print(f"{verdict_text(decision)} - {decision.claim.short}: {decision.claim.says}{because}")
    print(f"\n{summary(decisions)}")
    return page


def _build(given: argparse.Namespace) -> Path:
    from harness import records, report

    study = records.load_study(given.study, mix=given.mix)
    page = report.build(study, given.out or records.RESULTS / given.study / "report", given.mix)
    print(report.summary(study, given.mix))
    return page


def _site(given: argparse.Namespace) -> Path:
    from harness import records
    from harness.site import build

    return build.write(given.out or records.RESULTS / "site")


def _compare(given: argparse.Namespace) -> Path:
    from harness import records
    from harness.report import compare
    from harness.text import slug

    studies = compare.read_side(given.a, given.b), compare.read_side(given.b, given.a)
    found = compare.difference(*studies, names=compare.short_names(given.a, given.b))
    page = compare.write(found, given.out or records.RESULTS / "compare" / f"{slug(given.a)}_{slug(given.b)}")
    print(compare.summary(found))
    return page


if __name__ == "__main__":
    sys.exit(main())
