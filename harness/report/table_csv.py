"""Tables as CSV: unrounded values in the metric's own unit, intervals in columns of their own, and run keys."""

from __future__ import annotations

import csv
import io

from harness.report.items import Table
from harness.text import csv_text


def text(item: Table) -> str:
    """Return a table; a column with intervals is followed by its ends, a table made from runs ends with their keys."""
    spread = [any(row.entries[i].low is not None for row in item.rows) for i in range(len(item.columns))]
    with_runs = any(entry.runs for row in item.rows for entry in row.entries)
    header = [
        name
        for column, has_interval in zip(item.columns, spread, strict=True)
        for name in ([column.key, f"{column.key}_low", f"{column.key}_high"] if has_interval else [column.key])
    ]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*map(csv_text, header), *(["runs"] if with_runs else [])])
    for row in item.rows:
        values: list[object] = []
        for column, entry, has_interval in zip(item.columns, row.entries, spread, strict=True):
            values.append(_exact(entry.value) if column.kind == "number" else csv_text(entry.text))
            if has_interval:
                values += [_exact(entry.low), _exact(entry.high)]
        if with_runs:
            values.append(" ".join(dict.fromkeys(key for entry in row.entries for key in entry.runs)))
        writer.writerow(values)
    return out.getvalue()


def _exact(value: float | None) -> str:
    """Return a number so that it is read back to the last bit; whole ones without a point."""
    return "" if value is None else repr(float(value)).removesuffix(".0")
