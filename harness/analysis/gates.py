"""What stands between evidence and verdict: when the outcome of a loss in a cell is withheld.

Every reason travels with the verdict wherever it is shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.analysis import reasons
from harness.analysis.frames import column, numbers
from harness.analysis.learning import last_rise
from harness.analysis.reasons import Reason
from harness.text import count, number

if TYPE_CHECKING:
    from harness.analysis.cells import Analysis, Cell, Outcome


def gates(a: Analysis, cell: Cell, label: str) -> tuple[Reason, ...]:
    """Return why the verdict on a loss in a cell is withheld; empty: nothing stands in its way.

    Reasons of the loss come first, then the baseline's, then the cell's.
    """
    if label == a.baseline:
        return of_runs(a, cell, label)
    base = [reason.of(a.baseline) for reason in a.reasons(cell, a.baseline)]
    return (*a.reasons(cell, label), *base, *_together(a, cell, label), *_of_cell(a, cell))


def of_runs(a: Analysis, cell: Cell, label: str) -> tuple[Reason, ...]:
    """Return why the runs of a loss in a cell cannot be used, whatever they are compared with and in which metric."""
    return (*a.reasons(cell, label), *_of_cell(a, cell))


def of_loss(a: Analysis, cell: Cell, label: str) -> tuple[Reason, ...]:
    """Return why the runs of a loss in a cell cannot be used, by themselves (`Analysis.reasons` remembers it)."""
    outcome = a.outcomes.get((cell, label))
    if outcome is None:
        return (Reason(f"no run of {label} is planned here", reasons.NONE),)
    found = [
        Reason(f"{n} of {outcome.planned} runs {what}", kind)
        for n, what, kind in (
            (outcome.missing, "are missing", reasons.MISSING),
            (outcome.failed, "failed", reasons.FAILED),
        )
        if n
    ]
    found += _search(a, cell, label)
    if (rising := _still_rising(a, outcome)) is not None:
        found.append(rising)
    if outcome.old:
        found.append(Reason(f"{outcome.old} of {outcome.planned} runs were made by older code", reasons.OLD))
    return tuple(found)


def _search(a: Analysis, cell: Cell, label: str) -> list[Reason]:
    choice = a.choices.get((cell.values, label))
    if choice is None:
        fixed = a.study.spec.get("track", "fixed") == "fixed"
        return [] if fixed else [Reason("the trials of its search are not recorded", reasons.NO_TRIALS)]
    found = []
    if choice.edge:
        text = f"its search ended at the edge of the learning rates tried ({choice.rate:g})"
        found.append(Reason(text, reasons.EDGE))
    if choice.tied:
        text = f"its search could not tell the learning rate {choice.rate:g} from {_either(choice.tied)}"
        found.append(Reason(text, reasons.TIED))
    if choice.contending and choice.seeds > 1:
        rates = _either(choice.contending)
        text = f"its search could not rule out that the learning rate {rates} is better by more than the margin"
        found.append(Reason(text, reasons.CONTENDING))
    elif choice.contending:
        found.append(Reason("its search had one seed, which cannot tell learning rates apart", reasons.ONE_SEARCH_SEED))
    return found


def _either(rates: Sequence[float]) -> str:
    return " or ".join(f"{rate:g}" for rate in rates)


def _still_rising(a: Analysis, outcome: Outcome) -> Reason | None:
    """Return that training was too short: it ran into its limit, or its last epochs were the best by over a margin.

    A run that trains to the plateau says itself whether it got there. Under a schedule that fades to 0, more than half
    of the runs have to have their best epoch at the very end, after a rise of more than the margin in the last quarter.
    """
    runs = a.records(outcome)
    stopped = column(runs, "stopped")
    if len(runs) and "config.trainer.schedule" in runs and (runs["config.trainer.schedule"] == "plateau").all():
        ended = int((stopped == "limit").sum())
        text = f"{ended} of {len(runs)} runs had not reached a plateau at the limit"
        return Reason(text, reasons.NO_PLATEAU) if 2 * ended > len(runs) else None
    histories = a.each_history(outcome)
    name = f"valid.{a.metric.key.rpartition('.')[2]}"
    if name not in a.study.history:
        return None
    selected = dict(zip(column(runs, "key"), numbers(runs, "selected_epoch"), strict=True))
    at_end = [selected.get(key, math.nan) >= 0.95 * each["epoch"].max() for key, each in histories.items()]
    if not at_end or 2 * sum(at_end) <= len(at_end):
        return None
    up = a.metric.higher_is_better
    rises = [last_rise(each, name, higher_is_better=up) for each in histories.values()]
    known = [rise for rise in rises if math.isfinite(rise)]
    mean = sum(known) / len(known) if known else 0.0
    if mean <= a.margin or mean == 0:
        return None
    text = f"validation still rose by {a.metric.with_unit(mean)} over the last quarter of training"
    return Reason(text, reasons.RISING)


def _together(a: Analysis, cell: Cell, label: str) -> list[Reason]:
    """Return what ails the metric itself, where a loss and its baseline are compared in it."""
    metric, found = a.metric, []
    ends = [
        (what, end, kind)
        for what, end, kind in (("floor", metric.low, reasons.FLOOR), ("ceiling", metric.high, reasons.CEILING))
        if end is not None and (what == "ceiling" or metric.higher_is_better)
    ]
    values = [a.done[cell, name]["value"] for name in (label, a.baseline) if (cell, name) in a.done]
    for what, end, kind in ends:
        shares = [float((abs(each - end) <= 1e-12).mean()) if len(each) else 0.0 for each in values]
        if len(shares) == 2 and min(shares) > 0.5:
            text = f"{metric.title} is at its {what} ({metric.number(end)}) in most runs of both"
            found.append(Reason(text, kind))
    if a.margin and (grain := a.grain(cell)) > a.margin:
        item = number(grain * metric.scale, metric.digits)
        text = f"the margin ({metric.with_unit(a.margin)}) is finer than one test item ({item})"
        found.append(Reason(text, reasons.GRAIN))
    return found


def _of_cell(a: Analysis, cell: Cell) -> list[Reason]:
    return [
        Reason(f"a control failed here ({control.name}: {control.detail})", reasons.CONTROL)
        for control in a.controls
        if control.cell == cell and control.status == "failed" and control.gates
    ]


def blind(a: Analysis, cell: Cell) -> bool:
    """Return whether it is open if a cell can show a difference at all: with few seeds a control may have no result.

    Losses that nobody trained long enough to differ are alike; that is no equivalence.
    """
    return any(control.cell == cell and control.status == "undecided" and control.gates for control in a.controls)


def summary(texts: Sequence[str]) -> str:
    """Return reasons as one text: the first, and how many more there are.

    >>> summary(("a", "b", "c"))
    'a, and 2 further reasons'
    """
    if len(texts) <= 1:
        return "".join(texts)
    return f"{texts[0]}, and {count(len(texts) - 1, 'further reason')}"
