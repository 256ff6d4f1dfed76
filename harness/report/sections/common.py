"""What several sections write in the same way."""

from __future__ import annotations

import functools

from harness.analysis.cells import Analysis, Cell, Outcome
from harness.analysis.frames import column
from harness.analysis.stats import Comparison
from harness.report.items import Entry, Filters, Tone
from harness.text import DASH, axis_title, count, number, plain

FEW_SEEDS = 5  # with fewer, only large differences can be shown
TONES: dict[str, Tone] = {
    "better": "better",
    "worse": "worse",
    "equivalent": "equivalent",
    "not decidable": "undecided",
}


def loss_entry(a: Analysis, label: str) -> Entry:
    """Return the first entry of a row about a loss."""
    facts = a.loss_facts[label]
    known = " · ".join(part for part in (facts.name, facts.paper) if part)
    return Entry(a.display(label), note=known)


def cell_entry(cell: Cell) -> Entry:
    """Return the entry that names a cell."""
    return Entry(cell.short, note=cell.title)


def cell_filters(a: Analysis, *cells: tuple[str, ...]) -> Filters:
    """Return what filters find these cells by: data, model, further axes, and task and track of their runs."""
    kinds = ["data", "model", *(axis_title(name) for name in a.cell_columns[2:])]
    pairs = [pair for values in cells for pair in zip(kinds, values, strict=True) if pair[1] != DASH]
    more = _tasks_and_tracks(a)
    return tuple(dict.fromkeys([*pairs, *(pair for values in cells for pair in more.get(values, ()))]))


@functools.lru_cache(maxsize=1)
def _tasks_and_tracks(a: Analysis) -> dict[tuple[str, ...], Filters]:
    found: dict[tuple[str, ...], dict[tuple[str, str], None]] = {}
    for kind in ("task", "track"):
        for cell, value in zip(a.main["cell"], map(plain, column(a.main, kind)), strict=True):
            if value != DASH:
                found.setdefault(cell, {})[kind, value] = None
    return {cell: tuple(pairs) for cell, pairs in found.items()}


def loss_filters(a: Analysis, label: str) -> Filters:
    """Return what filters find a loss by: its family and itself."""
    return (("family", a.loss_facts[label].family or "unknown"), ("loss", a.display(label)))


def dash(reason: str) -> Entry:
    """Return an empty entry and why it is empty."""
    return Entry(DASH, note=reason)


def number_entry(value: float | None, digits: int, runs: tuple[str, ...] = ()) -> Entry:
    """Return a number as an entry."""
    return Entry(number(value, digits), value, runs=runs)


def remarks(outcome: Outcome) -> list[str]:
    """Return what else the reader must know about a loss in a cell, in a few words each."""
    parts = [
        f"{n} of {outcome.planned} {what}"
        for what, n in (
            ("diverged", outcome.diverged),
            ("failed", outcome.failed),
            ("missing", outcome.missing),
            ("by older code", outcome.old),
        )
        if n
    ]
    if outcome.diverged and outcome.seeds:
        parts.append(f"{count(len(outcome.seeds), 'completed pair')} compared")
    return parts


def verdict_entry(found: Comparison) -> Entry:
    """Return the verdict as an entry."""
    return Entry(found.verdict, note=reason(found), tone=TONES[found.verdict])


def reason(found: Comparison) -> str:
    """Return why a comparison could not be decided, and what would decide it; empty if it is decided."""
    if found.verdict != "not decidable":
        return ""
    if found.n == 0:
        return "no pair of completed runs"
    if found.n == 1:
        return "one pair has no spread to test against: run at least 2 seeds"
    if found.sd == 0:
        return f"{found.n} equal differences have no spread to test against"
    if found.seeds_needed is None:
        return "more than 10,000 seeds would be needed"
    return f"about {found.seeds_needed:,} seeds would decide"
