"""What stands between evidence and verdict: reasons for which the outcome of a loss in a cell is withheld.

Every reason travels with the verdict wherever it is shown. None of them can be mended by more seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.analysis.frames import column, numbers
from harness.analysis.learning import last_rise
from harness.text import count, number

if TYPE_CHECKING:
    from harness.analysis.cells import Analysis, Cell, Outcome


KINDS = {
    "at the edge of": (
        "the search ended at the edge of the learning rates tried",
        "a search that grows further: search.most, or more factors",
    ),
    "could not tell": ("the search could not tell learning rates apart", "more search.seeds, more validation data"),
    "could not rule out": (
        "the search could not rule out that another rate is better by more than the margin",
        "more search.seeds, or rates closer to each other",
    ),
    "search had one seed": ("the search had one seed, which cannot tell rates apart", "more search.seeds"),
    "trials of its search": ("the trials of the search are not recorded", "run the study again"),
    "are missing": ("runs are missing", "run the study again"),
    "runs failed": ("runs failed", "see Failures; run the study again"),
    "by older code": ("runs were made by older code", "run the study again"),
    "no run of": ("a loss has no runs here", "run the study again"),
    "reached a plateau": ("training ended at its limit, before a plateau", "a greater limit: trainer.epochs"),
    "still rose": ("validation still rose when training ended", "trainer.schedule=plateau, or more trainer.epochs"),
    "at its floor": ("the metric is at its floor in most runs of both sides", "another metric, or an easier setting"),
    "at its ceiling": ("the metric is at its ceiling in most runs of both sides", "another metric, or harder data"),
    "is finer than": ("the margin is finer than one test item", "more test items, or a greater margin"),
    "a control failed": ("a control failed in the cell", "see Controls"),
}
"""By what a reason says: its kind, and what mends it."""


def kind(reason: str) -> tuple[str, str]:
    """Return what kind of reason it is, and what mends it.

    >>> kind("cross_entropy: 2 of 12 runs are missing")
    ('runs are missing', 'run the study again')
    """
    return next(found for words, found in KINDS.items() if words in reason)


def gates(a: Analysis, cell: Cell, label: str) -> tuple[str, ...]:
    """Return why the verdict on a loss in a cell is withheld; empty: nothing stands in its way.

    Reasons of the loss come first, then the baseline's, then the cell's.
    """
    if label == a.baseline:
        return of_runs(a, cell, label)
    base = [f"{a.baseline}: {reason}" for reason in _of_loss(a, cell, a.baseline)]
    return (*_of_loss(a, cell, label), *base, *_together(a, cell, label), *_of_cell(a, cell))


def of_runs(a: Analysis, cell: Cell, label: str) -> tuple[str, ...]:
    """Return why the runs of a loss in a cell cannot be used, whatever they are compared with and in which metric."""
    return (*_of_loss(a, cell, label), *_of_cell(a, cell))


def _of_loss(a: Analysis, cell: Cell, label: str) -> tuple[str, ...]:
    if (cell, label) not in a.own_reasons:
        a.own_reasons[cell, label] = _reasons(a, cell, label)
    return a.own_reasons[cell, label]


def _reasons(a: Analysis, cell: Cell, label: str) -> tuple[str, ...]:
    outcome = a.outcomes.get((cell, label))
    if outcome is None:
        return (f"no run of {label} is planned here",)
    found = [
        f"{n} of {outcome.planned} runs {what}"
        for n, what in (
            (outcome.missing, "are missing"),
            (outcome.failed, "failed"),
        )
        if n
    ]
    found += _search(a, cell, label)
    if (rising := _still_rising(a, outcome)) is not None:
        found.append(rising)
    if outcome.old:
        found.append(f"{outcome.old} of {outcome.planned} runs were made by older code")
    return tuple(found)


def _search(a: Analysis, cell: Cell, label: str) -> list[str]:
    choice = a.choices.get((cell.values, label))
    if choice is None:
        return [] if a.study.spec.get("track", "fixed") == "fixed" else ["the trials of its search are not recorded"]
    found = []
    if choice.edge:
        found.append(f"its search ended at the edge of the learning rates tried ({choice.rate:g})")
    if choice.tied:
        found.append(f"its search could not tell the learning rate {choice.rate:g} from {_either(choice.tied)}")
    if choice.contending:
        found.append(
            f"its search could not rule out that the learning rate {_either(choice.contending)} is better by more than "
            "the margin"
            if choice.seeds > 1
            else "its search had one seed, which cannot tell learning rates apart"
        )
    return found


def _either(rates: Sequence[float]) -> str:
    return " or ".join(f"{rate:g}" for rate in rates)


def _still_rising(a: Analysis, outcome: Outcome) -> str | None:
    """Return that training was too short: it ran into its limit, or its last epochs were the best by over a margin.

    A run that trains to the plateau says itself whether it got there. Under a schedule that fades to 0, more than half
    of the runs have to have their best epoch at the very end, after a rise of more than the margin in the last quarter.
    """
    runs = a.records(outcome)
    stopped = column(runs, "stopped")
    if len(runs) and "config.trainer.schedule" in runs and (runs["config.trainer.schedule"] == "plateau").all():
        ended = int((stopped == "limit").sum())
        return f"{ended} of {len(runs)} runs had not reached a plateau at the limit" if 2 * ended > len(runs) else None
    history = a.histories(outcome)
    name = f"valid.{a.metric.key.rpartition('.')[2]}"
    if history.empty or name not in history:
        return None
    last = history.groupby("key")["epoch"].max()
    selected = dict(zip(column(runs, "key"), numbers(runs, "selected_epoch"), strict=True))
    at_end = [selected.get(key, math.nan) >= 0.95 * epoch for key, epoch in last.items()]
    if not at_end or 2 * sum(at_end) <= len(at_end):
        return None
    up = a.metric.higher_is_better
    rises = [last_rise(each, name, higher_is_better=up) for _, each in history.groupby("key")]
    known = [rise for rise in rises if math.isfinite(rise)]
    mean = sum(known) / len(known) if known else 0.0
    if mean <= a.margin or mean == 0:
        return None
    return f"validation still rose by {a.metric.with_unit(mean)} over the last quarter of training"


def _together(a: Analysis, cell: Cell, label: str) -> list[str]:
    """Return what ails the metric itself, where a loss and its baseline are compared in it."""
    metric, found = a.metric, []
    ends = [
        (what, end)
        for what, end in (("floor", metric.low), ("ceiling", metric.high))
        if end is not None and (what == "ceiling" or metric.higher_is_better)
    ]
    values = [a.done[cell, name]["value"] for name in (label, a.baseline) if (cell, name) in a.done]
    for what, end in ends:
        shares = [float((abs(each - end) <= 1e-12).mean()) if len(each) else 0.0 for each in values]
        if len(shares) == 2 and min(shares) > 0.5:
            found.append(f"{metric.title} is at its {what} ({metric.number(end)}) in most runs of both")
    if a.margin and (grain := a.grain(cell)) > a.margin:
        found.append(
            f"the margin ({metric.with_unit(a.margin)}) is finer than one test item "
            f"({number(grain * metric.scale, metric.digits)})"
        )
    return found


def _of_cell(a: Analysis, cell: Cell) -> list[str]:
    return [
        f"a control failed here ({control.name}: {control.detail})"
        for control in a.controls
        if control.cell == cell and control.status == "failed" and control.gates
    ]


def summary(reasons: tuple[str, ...]) -> str:
    """Return reasons as one text: the first, and how many more there are.

    >>> summary(("a", "b", "c"))
    'a, and 2 further reasons'
    """
    if len(reasons) <= 1:
        return "".join(reasons)
    return f"{reasons[0]}, and {count(len(reasons) - 1, 'further reason')}"
