"""Losses in two seats at once: whether what each does by itself adds up."""

from __future__ import annotations

import math

from harness.analysis import seats, stats
from harness.analysis.cells import Analysis, Cell
from harness.report.items import Column, Entry, Item, Prose, Row, Section, Table
from harness.report.sections.common import TONES, dash
from harness.text import count, joined, slug

WORDS = {"equivalent": "adds up", "better": "more than the sum", "worse": "less than the sum"}
"""What an interaction means, by the verdict on it."""


def section(a: Analysis) -> Section:
    """Return for each cell a table of the losses of one seat by those of the other, and what both together do beyond
    what each does alone.
    """
    title = "Losses of two seats, crossed"
    if len(a.varied_seats) < 2:
        text = f"Losses vary in {joined(a.varied_seats) or 'no seat'} alone, so there is nothing to cross."
        return Section("exhibit-seats", title, (Prose((text,)),))
    both = [label for label in a.seats if len(_own(a, label)) > 1]
    first, second = a.varied_seats[:2]
    if not both:
        text = (
            "Every loss was changed in one seat at a time, so nothing is known of pairs: the best loss of each seat "
            "need not make the best pair. One is tried with, for example, "
            f"'include=[{{loss.{first}: A, loss.{second}: B}}]'."
        )
        return Section("exhibit-seats", title, (Prose((text,)),))
    intro = (
        f"Mean {a.metric.title} by the loss of {first} (rows) and of {second} (columns), of the losses that were tried "
        f"in pairs. Where a pair differs from {a.reference} in both seats, its entry says in brackets what the two do "
        "together beyond what each does alone, seed by seed (the interaction), and whether the two add up: that is, "
        "whether the interaction lies within the margin.",
    )
    items: list[Item] = [Prose(intro), *(_table(a, cell, first, second, both) for cell in a.cells)]
    return Section("exhibit-seats", title, tuple(items))


def _own(a: Analysis, label: str) -> seats.Seated:
    """Return the seats of a label that differ from the baseline's; nothing of one that has settings besides."""
    if seats.settings(label, list(a.seats[label])):
        return {}
    return seats.changed(a.seats[label], a.seats[a.baseline])


def _placed(a: Analysis, first: str, second: str) -> dict[tuple[str, str], str]:
    """Return the labels by their losses in two seats."""
    plain = [label for label in a.seats if not seats.settings(label, list(a.seats[label]))]
    return {(a.seats[label][first], a.seats[label][second]): label for label in plain}


def _table(a: Analysis, cell: Cell, first: str, second: str, both: list[str]) -> Table:
    placed, base, family = _placed(a, first, second), a.seats[a.baseline], len(both)
    order = {
        seat: list(dict.fromkeys([base[seat], *(a.seats[label][seat] for label in both)])) for seat in (first, second)
    }
    columns = [Column("first", first), *(Column(name, name, "number") for name in order[second])]
    rows = []
    for row in order[first]:
        entries = [_entry(a, cell, placed, (row, name), (base[first], base[second]), family) for name in order[second]]
        rows.append(Row((Entry(row), *entries), reference=row == base[first]))
    caption = f"Mean {a.metric.title} ({a.metric.unit or 'its unit'}) on {cell.title}, over completed runs."
    if family > 1:
        caption += f" The intervals of the {count(family, 'interaction')} hold together at 95 %."
    return Table(
        f"seats-{slug(cell.title)}", f"{first} by {second}, {cell.short}", tuple(columns), tuple(rows), caption
    )


def _entry(
    a: Analysis, cell: Cell, placed: dict[tuple[str, str], str], at: tuple[str, str], base: tuple[str, str], family: int
) -> Entry:
    label = placed.get(at, "")
    outcome = a.outcomes.get((cell, label))
    if outcome is None or not outcome.values.n:
        return dash("this pair has no completed run here")
    text = a.metric.number(outcome.values.mean)
    if at[0] == base[0] or at[1] == base[1]:
        return Entry(text, outcome.values.mean, runs=outcome.keys, note="baseline" if at == base else "")
    alone = [placed.get((at[0], base[1]), ""), placed.get((base[0], at[1]), "")]
    values = [_by_seed(a, cell, each) for each in (label, *alone, a.baseline)]
    shared = sorted(set.intersection(*map(set, values)))
    if len(shared) < 2:
        return Entry(
            text, outcome.values.mean, runs=outcome.keys, note="fewer than two seeds of this pair and of each alone"
        )
    pair, one, other, neither = ([value[seed] for seed in shared] for value in values)
    beyond = [p - x - y + n for p, x, y, n in zip(pair, one, other, neither, strict=True)]
    found = stats.compare(beyond, a.scale(cell), family=max(1, family))
    word = WORDS.get(found.verdict, found.verdict)
    low, high = (found.low, found.high) if math.isfinite(found.low) else (None, None)
    said = f"{text} ({a.metric.difference(found)}, {word})"
    return Entry(said, outcome.values.mean, low, high, outcome.keys, tone=TONES.get(found.verdict, ""))


def _by_seed(a: Analysis, cell: Cell, label: str) -> dict[int, float]:
    """Return the study's metric of the completed runs of a loss in a cell, by seed; nothing where there are none."""
    if (cell, label) not in a.done:
        return {}
    return {int(seed): float(value) for _, seed, value in a.done[cell, label].itertuples(index=False)}
