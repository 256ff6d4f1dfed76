"""python -m harness.records publish STUDY | confirm STUDY | import FILE... | merge FOLDER...: evidence, to pass on."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.command import ended
from harness.records.publish import import_files, merge, publish
from harness.records.store import damaged


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m harness.records", description=(__doc__ or "").split("\n\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("publish", help="write a study's finished runs to results/measured/").add_argument("study")
    commands.add_parser("import", help="add files that another machine published").add_argument(
        "file", type=Path, nargs="+"
    )
    commands.add_parser("merge", help="copy the runs of other results folders into this one").add_argument(
        "folder", type=Path, nargs="+"
    )
    command = commands.add_parser(
        "confirm", help="repeat a few published runs under today's code; if they agree, it has the evidence of all"
    )
    command.add_argument("study")
    command.add_argument("--runs", type=int, default=6, help="at most so many (default: 6)")
    command.add_argument("options", nargs="*", metavar="KEY=VALUE", help="of a run, such as data.root=DIR")
    given = parser.parse_args(arguments)
    if given.command == "confirm" and given.runs < 1:
        parser.error(f"--runs {given.runs}: use a whole number from 1 on.")
    return ended(lambda: _carried_out(given))


def _carried_out(given: argparse.Namespace) -> int:
    if given.command == "publish":
        print(publish(given.study))
    elif given.command == "confirm":
        from harness.studies.confirm import confirm

        found = confirm(given.study, given.runs, given.options)
        print(found)
        return 1 if found.differences else 0
    elif given.command == "import":
        for study, count in import_files(given.file).items():
            print(f"{study}: {count} new runs")
    else:
        print(", ".join(f"{count} {what}" for what, count in merge(given.folder).items()))
    for sentence in damaged:
        print(sentence, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
