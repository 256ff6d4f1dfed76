"""Published differences between losses of boxes on COCO, beside what seeds alone do in this study."""

from __future__ import annotations

import csv
import math

from scipy import stats as scipy_stats

from harness.analysis.cells import Analysis, Cell
from harness.paths import ROOT
from harness.report.exhibits.boxes import label_in_seat
from harness.report.items import Column, Entry, Prose, Row, Section, Table
from harness.report.sections.common import dash, interval_entry
from harness.text import number

PRINTED = ROOT / "results" / "published" / "coco_box_losses.csv"
REFERENCE = "giou"
POWER = 0.8
MOST = 10_000
"""Seeds beyond which a difference is called out of reach."""


def section(a: Analysis) -> Section:
    """Return the published values with ours, and how large a difference seeds alone make."""
    with PRINTED.open(newline="") as file:
        lines = list(csv.DictReader(file))
    values = {line["losses"]: float(line["ap"]) for line in lines}
    apart = max(values.values()) - min(values.values())
    first = lines[0]
    intro = (
        f"{first['document']} ({first['place']}) gives the average precision of {first['model']} on {first['data']} "
        f"for four losses of boxes. They differ by at most {apart:.1f} points; each is that of one trained model. Is "
        "that more than seeds do? The first table has these values beside our differences, the second what the seeds "
        "of this study do.",
        f"The scales differ: {first['data']} has 118,287 training images and 80 classes, and that detector is far "
        "larger than ours, so its seeds may do less. What carries over is the question, not the number: without the "
        f"spread over seeds of that detector nobody can tell whether {apart:.1f} points between two single models are "
        "more than chance.",
    )
    return Section("exhibit-coco", "Published differences of losses of boxes, and what seeds do",
                   (Prose(intro), _values(a, lines, values), _spread(a, apart)))  # fmt: skip


def _values(a: Analysis, lines: list[dict[str, str]], values: dict[str, float]) -> Table:
    columns = (
        Column("printed", "loss, as printed"),
        Column("published", "published AP on COCO (%)", "number"),
        Column("published_difference", "from GIoU, published (points)", "number", "of single models"),
        *(
            Column(f"cell_{i + 1}", f"here, {cell.short} (points)", "number", cell.title)
            for i, cell in enumerate(a.cells)
        ),
    )  # fmt: skip
    rows = []
    for line in lines:
        ap, base = float(line["ap"]), values[REFERENCE]
        label = label_in_seat(a, line["losses"]) if line["losses"] else ""
        entries = [_here(a, cell, label) for cell in a.cells]
        apart = Entry(number(ap - base, 1, sign=True), ap - base) if line["losses"] != REFERENCE else Entry("reference")
        rows.append(
            Row((Entry(line["printed"]), Entry(number(ap, 1), ap), apart, *entries), reference=label == a.baseline)
        )
    caption = (
        f"Ours: difference in {a.metric.title} from {a.reference}, as in Results. Values are not comparable across "
        "columns: other data, other models, other sizes."
    )
    return Table("coco", "Published values, and ours", columns, tuple(rows), caption)


def _here(a: Analysis, cell: Cell, label: str) -> Entry:
    if not label:
        return dash("not in this study")
    if label == a.baseline:
        return Entry("baseline")
    found = a.comparisons.get((cell, label))
    if found is None or not found.n:
        return dash("no pair of completed runs here")
    return interval_entry(a, found, a.outcomes[cell, label].paired_keys)


# ---------------------------------------------------------------- what seeds do


def _spread(a: Analysis, apart: float) -> Table:
    power = f"at 95 % with a power of {POWER:.0%}, one comparison"
    columns = (
        Column("cell", "cell"),
        Column(
            "sd", "a run varies by (points)", "number", "standard deviation of the baseline, with its 95 % interval"
        ),
        Column("chance", f"two runs differ by {apart:.1f} or more", "number", "of the same loss, by two seeds"),
        Column("paired", "a difference varies by (points)", "number", "of a pair of runs; median over losses"),
        Column("least", "these seeds show (points)", "number", f"the least true difference, {power}"),
        Column("needed", f"seeds to show {apart:.1f} points", "number", power),
    )
    rows = tuple(Row((Entry(cell.short, note=cell.title), *_of_cell(a, cell, apart))) for cell in a.cells)
    caption = (
        f"What seeds alone do to {a.metric.title} here. Of single runs the spread of a run counts; runs of equal seeds "
        "share initial weights and batches, so their differences may vary less. Normal distributions are assumed, and "
        "one comparison: more losses need more seeds."
    )
    return Table("coco-seeds", "What seeds do", columns, rows, caption)


def _of_cell(a: Analysis, cell: Cell, apart: float) -> list[Entry]:
    base = a.outcomes.get((cell, a.baseline))
    if base is None or base.values.n < 2:
        return [dash("it takes two completed runs of the baseline")] * 5
    scale, n = a.metric.scale, base.values.n
    sd = scale * base.values.sd
    low, high = (sd * math.sqrt((n - 1) / float(scipy_stats.chi2.ppf(q, n - 1))) for q in (0.975, 0.025))
    chance = 2 * float(scipy_stats.norm.sf(apart / (math.sqrt(2) * sd))) if sd else 0.0
    known = sorted(c.sd * scale for label in a.challengers if (c := a.comparisons.get((cell, label))) and c.n > 1)
    entries = [
        Entry(f"{number(sd, 2)} [{number(low, 2)}, {number(high, 2)}]", sd, low, high, base.keys),
        Entry(f"{100 * chance:.0f} %", chance),
    ]
    if not known:
        return [*entries, *[dash("no loss has two pairs of completed runs")] * 3]
    paired = known[len(known) // 2]
    needed = seeds_for(apart, paired)
    return [
        *entries,
        Entry(number(paired, 2), paired),
        Entry(number(resolved(n, paired), 2), resolved(n, paired)),
        Entry(f"{needed:,}", needed) if needed else dash(f"more than {MOST:,}"),
    ]


def resolved(n: int, sd: float) -> float:
    """Return the least true difference that n pairs (two or more) show at 95 % with the power `POWER`, in the unit of
    the standard deviation of their differences.

    >>> round(resolved(16, 1.0), 2)
    0.75
    """
    return float(scipy_stats.t.ppf(0.975, n - 1) + scipy_stats.t.ppf(POWER, n - 1)) * sd / math.sqrt(n)


def seeds_for(difference: float, sd: float) -> int | None:
    """Return how many pairs show a true difference, or None where more than `MOST` would be needed.

    >>> seeds_for(0.5, 1.0), seeds_for(0.001, 1.0)
    (34, None)
    """
    if resolved(MOST, sd) > difference:
        return None
    low, high = 1, MOST
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if resolved(middle, sd) <= difference else (middle, high)
    return high
