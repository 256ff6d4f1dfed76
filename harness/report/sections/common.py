"""What several sections write in the same way."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence

from harness.analysis.cells import Analysis, Cell, Outcome
from harness.analysis.frames import column, numbers
from harness.analysis.stats import Comparison
from harness.report.items import Entry, Filters, Tone
from harness.text import DASH, axis_title, count, joined, number, plain

TONES: dict[str, Tone] = {
    "better": "better",
    "worse": "worse",
    "equivalent": "equivalent",
    "not decidable": "undecided",
    "withheld": "withheld",
}
SCOPES = {"new items": "seeds and new test items", "seeds": "seeds, on these test items"}
"""What an interval speaks of, by `Comparison.scope`."""


def simultaneous(n: int, what: str = "losses of a cell") -> str:
    """Return how the intervals of a family are called.

    >>> simultaneous(15), simultaneous(1)
    ('simultaneous 95 % intervals over the 15 losses of a cell', '95 % intervals')
    """
    return f"simultaneous 95 % intervals over the {n:,} {what}" if n > 1 else "95 % intervals"


def scopes(compared: Iterable[Comparison]) -> str:
    """Return over what the intervals of some comparisons are, in words."""
    known = dict.fromkeys(SCOPES[c.scope] for c in compared if c.n > 1)
    return " or, where the scores on test items are not known, ".join(sorted(known, reverse=True)) or "seeds"


def loss_entry(a: Analysis, label: str) -> Entry:
    """Return the first entry of a row about a loss."""
    facts = a.loss_facts[label]
    name = " + ".join(a.names_in_seats(label).values()) or facts.name
    known = " · ".join(part for part in (label, "" if name == a.name(label) else name, facts.paper) if part)
    return Entry(a.display(label), note=known)


def where_words(a: Analysis, cells: Sequence[Cell]) -> str:
    """Return where something holds, as words that follow it; empty where it holds in every cell."""
    if len(cells) == len(a.cells):
        return ""
    shared = len({cell.values[:2] for cell in a.cells}) == 1  # only what makes training harder differs
    return f" {'with' if shared else 'on'} {joined(cell.short for cell in cells)}"


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


def step_ratios(a: Analysis, own: Outcome, base: Outcome) -> list[float]:
    """Return the step times of a loss over those of another, seed by seed, where one kind of processor took both."""

    def times(outcome: Outcome) -> dict[tuple[int, str], float]:
        runs = a.records(outcome)
        values = zip(column(runs, "seed"), column(runs, "env.device_name"), numbers(runs, "cost.step_ms"), strict=True)
        return {(int(seed), plain(processor)): float(value) for seed, processor, value in values if value > 0}

    first, second = times(own), times(base)
    return [first[pair] / second[pair] for pair in first if pair in second]


def number_entry(value: float | None, digits: int, runs: tuple[str, ...] = ()) -> Entry:
    """Return a number as an entry."""
    return Entry(number(value, digits), value, runs=runs)


def remarks(outcome: Outcome) -> list[str]:
    """Return what else the reader must know about a loss in a cell, in a few words each."""
    parts = [
        f"{n} of {outcome.planned} {what}"
        for what, n in (
            ("did not learn", outcome.unlearnt),
            ("diverged", outcome.diverged),
            ("failed", outcome.failed),
            ("missing", outcome.missing),
            ("by older code", outcome.old),
        )
        if n
    ]
    if (outcome.diverged or outcome.unlearnt) and outcome.seeds:
        parts.append(f"{count(len(outcome.seeds), 'pair')} compared")
    return parts


def interval_entry(a: Analysis, found: Comparison, runs: tuple[str, ...] = (), text: str = "") -> Entry:
    """Return a difference with its interval; the note says of what it speaks, and names the family."""
    if not found.n:
        return dash("no pair of runs that learnt")
    low, high = (found.low, found.high) if math.isfinite(found.low) else (None, None)
    parts = [found.verdict, reason(found)] if found.verdict == "not decidable" else [reason(found) or found.verdict]
    if low is not None:
        parts.append(
            f"{100 * found.level:.4g} % interval over {SCOPES[found.scope]}; 95 % over all {found.family:,} together"
            if found.family > 1
            else f"95 % interval over {SCOPES[found.scope]}"
        )
    words = text or a.metric.difference(found)
    return Entry(words, found.difference, low, high, runs, "; ".join(filter(None, parts)), TONES[found.verdict])


def verdict_entry(found: Comparison) -> Entry:
    """Return the verdict as an entry."""
    return Entry(found.verdict, note=reason(found), tone=TONES[found.verdict])


def reason(found: Comparison) -> str:
    """Return why there is no verdict, and what would bring one; empty if there is one."""
    if found.verdict == "withheld":
        return f"withheld: because {'; '.join(found.because)}"
    if found.verdict != "not decidable":
        return ""
    if found.n == 0:
        return "no pair of runs that learnt"
    if found.n == 1:
        return "one pair has no spread: run at least 2 seeds"
    if found.seeds_needed is None:
        return "more than 10,000 seeds would be needed"
    return f"about {found.seeds_needed:,} seeds would decide"


def starts(failed: int, runs: int) -> str:
    """Return a rate as one would say it.

    >>> starts(1, 8), starts(3, 12)
    ('1 start of 8', '3 starts of 12')
    """
    return f"{count(failed, 'start')} of {runs}"


def looking(a: Analysis) -> str:
    """Return what may be said about looking while seeds are added; empty where their number was fixed."""
    if not a.sequential:
        return ""
    text = "Intervals hold at every number of seeds at once (anytime-valid): looking after each seed does no harm. "
    if looks := a.study.spec.get("looks"):
        text += f"Seeds were added after a first report, at {joined(map(str, looks))} seeds. "
    return text
