"""Every run that did not finish, and how to run it again."""

from __future__ import annotations

from typing import Any

import pandas as pd

from harness.analysis.cells import Analysis
from harness.analysis.frames import column, records, rows
from harness.report.items import Code, Column, Entry, Item, Prose, Row, Section, Table
from harness.report.sections.common import cell_filters, loss_filters
from harness.report.sections.reproduce import command
from harness.text import plain, significant

STATUS = ("diverged", "failed", "missing")


def section(a: Analysis) -> Section:
    """Return the table of runs that diverged, failed or are missing."""
    runs = rows(a.all, column(a.all, "status").isin(STATUS))
    if runs.empty:
        return Section("failures", "Failures", (Prose(("Every planned run finished.",)),))
    runs = runs.assign(order=[STATUS.index(status) for status in runs["status"]]).sort_values("order", kind="stable")
    prose = (
        "A diverged run is a result and is not repeated: a loss or its gradient became infinite or not a number at the "
        "step given."
    )
    items: list[Item] = [Prose((prose,)), _table(a, runs)]
    if set(runs["status"]) & {"failed", "missing"}:
        items.append(Code(command(a.study), "Runs whatever failed or is missing, and nothing else"))
    return Section("failures", "Failures", (*items, *_tracebacks(runs)))


def _table(a: Analysis, runs: pd.DataFrame) -> Table:
    columns = (
        Column("status", "status"),
        Column("loss", "loss"),
        Column("cell", "cell"),
        Column("role", "role"),
        Column("seed", "seed", "number"),
        Column("what", "what happened"),
        Column("key", "run", "code"),
    )
    return Table("failures", "Runs that did not finish", columns, tuple(_row(a, run) for run in records(runs)))


def _row(a: Analysis, run: dict[str, Any]) -> Row:
    if run["status"] == "diverged":
        what = f"at step {plain(run.get('diverged_step'))}"
        if (last := run.get("last_finite_loss")) is not None:
            what += f"; last finite loss {significant(float(last))}"
    elif run["status"] == "failed":
        what = plain(run.get("error"))
    else:
        what = "never ran to its end"
    key = str(run["key"])
    return Row(
        (
            Entry(str(run["status"]), tone="undecided" if run["status"] == "missing" else "worse"),
            Entry(str(run["label"])),
            Entry(" · ".join(part for part in run["cell"] if part != plain(None))),
            Entry(str(run["role"])),
            Entry(plain(run["seed"]), float(run["seed"])),
            Entry(what),
            Entry(key, runs=(key,)),
        ),
        filters=(*cell_filters(a, run["cell"]), *loss_filters(a, str(run["label"]))),
    )


def _tracebacks(runs: pd.DataFrame) -> list[Code]:
    """Return each distinct traceback once, with the runs it ended."""
    found: dict[str, list[str]] = {}
    for key, text in zip(column(runs, "key"), column(runs, "traceback"), strict=True):
        if isinstance(text, str) and text.strip():
            found.setdefault(text.strip(), []).append(str(key))
    return [Code(text, f"Traceback of {', '.join(keys)}", folded=True) for text, keys in found.items()]
