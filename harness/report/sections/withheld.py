"""What withholds verdicts: reasons that more seeds cannot mend, counted, and what mends them."""

from __future__ import annotations

from harness.analysis.cells import Analysis, Cell
from harness.analysis.reasons import CONTROL, Kind
from harness.report.items import Column, Entry, Prose, Row, Section, Table
from harness.report.sections.common import cell_filters, loss_entry, loss_filters
from harness.text import count, joined


def section(a: Analysis) -> Section:
    """Return the reasons with their counts and every withheld verdict; empty where none is withheld."""
    held = {at: found for at, found in a.comparisons.items() if found.because}
    if not held:
        return Section("withheld", "What withholds verdicts", ())
    counts: dict[tuple[Kind, bool], set[tuple[Cell, str]]] = {}
    for at, found in held.items():
        for reason in found.because:
            of_base = reason.whose == a.baseline
            counts.setdefault((reason.kind, of_base), set()).add(at)
    seeds = "More seeds mend none of it"
    if any(kind is CONTROL for kind, _ in counts):
        seeds += ", unless a control has too few of them"
    text = (
        f"{len(held)} of {count(len(a.comparisons), 'verdict')} are withheld. Differences and intervals stand as "
        f"measured; they are not read as a verdict on the losses, because of what follows. {seeds}."
    )
    return Section("withheld", "What withholds verdicts", (Prose((text,)), _kinds(a, counts), _verdicts(a)))


def _kinds(a: Analysis, counts: dict[tuple[Kind, bool], set[tuple[Cell, str]]]) -> Table:
    columns = (
        Column("reason", "reason"),
        Column("whose", "whose"),
        Column("verdicts", "verdicts withheld", "number"),
        Column("cells", "cells", "number"),
        Column("losses", "losses"),
        Column("remedy", "what mends it"),
    )
    rows = []
    for (kind, of_base), where in sorted(counts.items(), key=lambda each: -len(each[1])):
        labels = [label for label in a.labels if any(own == label for _, own in where)]
        names = "all" if len(labels) == len(a.challengers) else joined(map(a.display, labels))
        cells = {cell for cell, _ in where}
        whose = f"{a.reference}, the baseline" if of_base else "the loss or the cell"
        rows.append(
            Row((Entry(kind.what), Entry(whose), Entry(str(len(where)), len(where)), Entry(str(len(cells)), len(cells)),
                 Entry(names), Entry(kind.remedy)))
        )  # fmt: skip
    caption = "A verdict with several reasons counts under each of them."
    return Table("withheld", "Reasons", columns, tuple(rows), caption)


def _verdicts(a: Analysis) -> Table:
    columns = (Column("cell", "cell"), Column("loss", "loss"), Column("because", "withheld, because"))
    rows = tuple(
        Row(
            (Entry(cell.short, note=cell.title), loss_entry(a, label), Entry("; ".join(found.because))),
            filters=(*cell_filters(a, cell.values), *loss_filters(a, label)),
        )
        for (cell, label), found in a.comparisons.items()
        if found.because
    )
    return Table("withheld-verdicts", "Every verdict withheld, and why", columns, rows, folded=True)
