"""All runs, so that every number can be traced to its origin."""

from __future__ import annotations

import math
from typing import Any

from harness.analysis.cells import Analysis
from harness.analysis.frames import column, numbers, records, rows
from harness.report.items import Column, Entry, Filters, Prose, Row, Section, Table
from harness.report.sections.common import cell_filters, loss_filters
from harness.text import DASH, count, plain

MOST = 2000  # a page with more rows takes longer to open than anyone waits
SHOWN = ("key", "role", "label", "cell", "seed", "status", "selected_epoch", "source", "old")


def section(a: Analysis) -> Section:
    """Return the table of all runs; each row is the target of the numbers it contributes to."""
    unit = f" ({a.metric.unit})" if a.metric.unit else ""
    columns = (
        Column("key", "run", "code"),
        Column("role", "role"),
        Column("loss", "loss"),
        Column("cell", "cell"),
        Column("seed", "seed", "number"),
        Column("status", "status"),
        Column("value", f"{a.metric.title}{unit}", "number"),
        Column("epoch", "epoch selected", "number"),
        Column("lr", "learning rate", "number"),
        Column("source", "source"),
    )
    lr = numbers(a.all, "config.optimizer.lr").fillna(numbers(a.all, "lr"))
    values = numbers(a.all, a.metric.key)
    found = zip(
        records(a.all.reindex(columns=list(SHOWN))), values, lr, ~column(a.all, "key").duplicated(), strict=True
    )
    cells = {cell: cell_filters(a, cell) for cell in dict.fromkeys(a.all["cell"])}
    table_rows = tuple(_row(a, run, float(value), float(rate), new, cells) for run, value, rate, new in found)
    caption = "results/runs/RUN/record.json holds everything about a run, history.csv its epochs."
    present = rows(a.all, column(a.all, "status") != "missing")
    example = str(column(present, "key").iloc[0]) if len(present) else "RUN"
    prose = (
        "Every number above links to its runs here. Where this study was mirrored to MLflow (make ui), its experiment "
        f"is called {a.study.name}, and the filter tags.`lossbench.key` = '{example}' finds this run below its "
        "setting, as it finds any other by its key. Keys that are links lead there; a report written before its study "
        f"was mirrored gets these links from python -m harness.report build {a.study.name}."
    )
    long = len(table_rows) > MOST
    if long:
        caption = f"{count(len(table_rows), 'run')}, too many for a page: tables/runs.csv lists them. {caption}"
    table = Table("runs", "All runs", columns, table_rows, caption, folded=True, in_csv_only=long)
    return Section("runs", "Runs", (Prose((prose,)), table))


def _row(a: Analysis, run: dict[str, Any], value: float, rate: float, first: bool, cells: dict[Any, Filters]) -> Row:
    epoch = run.get("selected_epoch")
    source = plain(run.get("source")) + (", older code" if run["old"] else "")
    return Row(
        (
            Entry(str(run["key"])),
            Entry(str(run["role"])),
            Entry(str(run["label"])),
            Entry(" · ".join(part for part in run["cell"] if part != DASH)),
            Entry(plain(run["seed"]), float(run["seed"])),
            Entry(str(run["status"])),
            Entry(a.metric.number(value), None if math.isnan(value) else value),
            Entry(plain(epoch), None if epoch is None else float(epoch)),
            Entry(plain(rate), None if math.isnan(rate) else rate),
            Entry(source),
        ),
        anchor=f"run-{run['key']}" if first else "",  # a run may serve in two roles
        filters=(*cells[run["cell"]], *loss_filters(a, str(run["label"]))),
    )
