"""Controls: the repeated baseline must not differ, the negative control must be found worse, learning must happen."""

from __future__ import annotations

import math

from harness.analysis.cells import Analysis
from harness.analysis.controls import Control, ControlStatus
from harness.analysis.stats import Comparison
from harness.report.items import Column, Entry, Notice, Row, Section, Table, Tone
from harness.report.sections.common import cell_entry, cell_filters, dash
from harness.text import p_value

TONES: dict[ControlStatus, Tone] = {
    "passed": "good",
    "failed": "alarm",
    "undecided": "undecided",
    "not run": "undecided",
}


def section(a: Analysis) -> Section:
    """Return the table of controls, with a notice for each that failed."""
    items = [Notice(text, "alarm") for text in alarms(a)]
    unit = a.metric.difference_unit or a.metric.title
    table = Table(
        "controls",
        "Controls",
        (
            Column("cell", "cell"),
            Column("control", "control"),
            Column("expected", "expected"),
            Column("status", "result"),
            Column("difference", f"difference ({unit})", "number", "with its interval over seeds"),
            Column("n", "n", "number"),
            Column("p", "p", "number", "times the number of cells"),
            Column("withholds", "withholds verdicts"),
            Column("detail", "remarks"),
        ),
        tuple(_row(a, control) for control in a.controls),
        "Cells are corrected for each other within each kind of control: simultaneous 95 % intervals, p times their "
        "number. The repeated baseline fails only if it differs by more than the margin. A failed control withholds "
        "the verdicts of its cell; the baseline less one margin withholds nothing: it shows whether a difference of "
        "one margin could be detected.",
    )
    return Section("controls", "Controls", (*items, table))


def alarms(a: Analysis) -> list[str]:
    """Return a sentence for every control that failed."""
    return [
        f"Control failed on {control.cell.title}: {control.name}: {control.detail}. "
        "The verdicts of this cell are withheld."
        for control in a.controls
        if control.status == "failed" and control.gates
    ]


def _row(a: Analysis, control: Control) -> Row:
    head = (cell_entry(control.cell), Entry(control.name), Entry(control.expected))
    status = Entry(control.status, tone=TONES[control.status])
    found = control.found
    if found is None or not math.isfinite(value := found.difference if isinstance(found, Comparison) else found.mean):
        difference, n = dash(control.detail), Entry("0", 0)
    else:
        text = a.metric.difference(found) if isinstance(found, Comparison) else a.metric.interval(found)
        low, high = (found.low, found.high) if math.isfinite(found.low) else (None, None)
        difference, n = Entry(text, value, low, high, control.keys), Entry(str(found.n), found.n, runs=control.keys)
    p = Entry(p_value(control.p), control.p if math.isfinite(control.p) else None)
    filters = cell_filters(a, control.cell.values)
    held = Entry("yes" if control.status == "failed" and control.gates else "no" if control.gates else "never")
    return Row((*head, status, difference, n, p, held, Entry(control.detail)), filters=filters)
