"""python -m harness.catalogue: print which loss is for which task, and the table of losses; write their page."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m harness.catalogue",
        description="Which loss for which task, and what is known about every loss: tables here, and an HTML page.",
    )
    parser.add_argument("--csv", action="store_true", help="print the table as CSV, all columns in full")
    parser.add_argument("--out", type=Path, help="the page (default: results/catalogue.html)")
    given = parser.parse_args(arguments)
    from harness.analysis import found  # here, so that --help answers at once
    from harness.catalogue import entries, page, tasks
    from harness.paths import RESULTS

    losses = entries.entries()
    table = entries.table(losses)
    if given.csv:
        print(table.to_csv(index=False), end="")
        return 0
    from rich.console import Console
    from rich.table import Table

    from harness.text import count

    console = Console(width=None if sys.stdout.isatty() else 160)
    for task in tasks.tasks(losses, found.published()):
        fitting = count(len(task.fits), "loss fits", "losses fit")
        console.print(
            f"[bold]{task.task}[/bold]: {fitting}. {' '.join(task.advice()).replace('`', '')}", highlight=False
        )
    console.print()
    shown = Table(box=None, header_style="bold")
    for name in ("loss", "family", "input kind", "tasks", "settings", "paper", "evidence", "documents"):
        shown.add_column(name, no_wrap=name == "loss", overflow="ellipsis")
    for row in table.to_dict("records"):
        shown.add_row(*(str(row[str(column.header)]) for column in shown.columns))
    console.print(shown)
    path = page.write(given.out or RESULTS / "catalogue.html")
    print(f"\n{len(table)} losses. Page: {os.path.relpath(path)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
