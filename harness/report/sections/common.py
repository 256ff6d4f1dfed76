"""What several sections write in the same way."""

from __future__ import annotations

from harness.report.analysis import Analysis, Cell, Outcome
from harness.report.items import Entry, Tone
from harness.report.text import DASH, count, number
from harness.stats import Comparison

FEW_SEEDS = 5  # with fewer, only large differences can be told
TONES: dict[str, Tone] = {
    "better": "better",
    "worse": "worse",
    "equivalent": "equivalent",
    "not decidable": "undecided",
}


def loss_entry(a: Analysis, label: str) -> Entry:
    """Return the first entry of a row about a loss."""
    about = a.about[label]
    known = " · ".join(part for part in (about.name, about.paper) if part)
    return Entry(a.display(label), note=known)


def cell_entry(cell: Cell) -> Entry:
    """Return the entry that names a cell."""
    return Entry(cell.short, note=cell.title)


def dash(reason: str) -> Entry:
    """Return an empty entry and why it is empty."""
    return Entry(DASH, note=reason)


def number_entry(value: float | None, digits: int, runs: tuple[str, ...] = ()) -> Entry:
    """Return a number as an entry."""
    return Entry(number(value, digits), value, runs=runs)


def remarks(outcome: Outcome) -> list[str]:
    """Return what else must be known of a loss in a cell, in a few words each."""
    parts = [
        f"{n} of {outcome.planned} {what}"
        for what, n in (
            ("diverged", outcome.diverged),
            ("failed", outcome.failed),
            ("missing", outcome.missing),
            ("by older numerics", outcome.old),
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
        return "one pair has no spread to judge it by: run at least 2 seeds"
    if found.sd == 0:
        return f"{found.n} equal differences have no spread to test against"
    if found.seeds_needed is None:
        return "more than 10,000 seeds would be needed"
    return f"about {found.seeds_needed:,} seeds would decide"
