"""Learning curves, where the records have a history: validation metric and training loss, epoch by epoch."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable

import numpy as np
import pandas as pd

from harness.analysis import learning
from harness.analysis.cells import Analysis, Cell
from harness.analysis.frames import column, numbers
from harness.report import multiples
from harness.report.items import Column, Entry, Figure, Item, Prose, Row, Section, Table
from harness.report.multiples import Curve
from harness.report.sections.common import cell_entry, cell_filters, dash, interval_entry, loss_entry, loss_filters
from harness.text import joined, slug

SHARES = (0.9, 0.99)
"""Of the way from chance to the baseline's final validation score, at which the step is noted."""


def section(a: Analysis) -> Section:
    """Return figures per cell as small multiples: of the metric, and of the loss of every objective."""
    history = a.study.history
    items: list[Item] = []
    valid = f"valid.{a.metric.key.rpartition('.')[2]}"
    if (table := speed(a, valid)) is not None:
        items.append(table)
    found = {name: Epochs(history, name) for name in history.columns if name == valid or name.startswith("train.loss")}
    for cell in a.cells:
        if valid in found and (panels := _panels(a, cell, found[valid])):
            items.append(_valid(a, cell, panels, valid))
        for name, epochs in found.items():
            if name != valid and (panels := _panels(a, cell, epochs)):
                items.append(_train(a, cell, panels, name.removeprefix("train.loss").lstrip(".")))
    return Section("curves", "Learning curves", tuple(items or [Prose(("These records have no history of epochs.",))]))


def speed(a: Analysis, valid: str) -> Table | None:
    """Return at which step each loss passed 90 and 99 % of the baseline's final validation score; None where the
    records do not say.

    Args:
        a: the records.
        valid: the validation metric, such as ``valid.top1``.
    """
    if not {valid, "step", "key"} <= set(a.study.history.columns):
        return None
    made = [row for cell in a.cells for row in _speed_rows(a, cell, valid)]
    columns = [
        Column("cell", "cell"),
        Column("loss", "loss"),
        Column("difference", f"difference ({a.metric.difference_unit or a.metric.title})", "number", "as in Results"),
    ]
    for share in SHARES:
        columns += [
            Column(f"step_{share:.0%}".strip("%"), f"step of {share:.0%}", "number", "median over seeds"),
            Column(f"seeds_{share:.0%}".strip("%"), "seeds", note="that got there"),
        ]
    caption = (
        f"Quality beside speed: the step at which validation first passed {joined(f'{s:.0%}' for s in SHARES)} of the "
        f"way from chance to the final validation score of {a.reference} (its mean over seeds), as the median over "
        "seeds; seeds that never got there count as later than all others. Between epochs a straight line is drawn."
    )
    return Table("speed", "When each loss got there", tuple(columns), tuple(made), caption) if made else None


def _speed_rows(a: Analysis, cell: Cell, valid: str) -> list[Row]:
    base, up = a.outcomes.get((cell, a.baseline)), a.metric.higher_is_better
    chance, _ = a.chance(cell)
    if base is None or not base.keys or not (up or math.isfinite(chance)):
        return []
    final = float(a.measured(base, valid).mean())
    if not math.isfinite(final):
        return []
    found = []
    for label in a.labels:
        if (outcome := a.outcomes.get((cell, label))) is None or not outcome.keys:
            continue
        runs = a.each_history(outcome).values()
        entries = [cell_entry(cell), loss_entry(a, label)]
        compared = a.comparisons.get((cell, label))
        entries.append(dash("the baseline") if compared is None else interval_entry(a, compared, outcome.paired_keys))
        for goal in learning.thresholds(chance, final, SHARES):
            steps = [learning.crossing(epochs, valid, goal, higher_is_better=up) for epochs in runs]
            there = sum(map(math.isfinite, steps))
            middle = float(np.median(np.nan_to_num(steps, nan=math.inf))) if steps else math.inf
            step = Entry(f"{middle:,.0f}", middle) if math.isfinite(middle) else dash("half of the seeds never did")
            entries += [step, Entry(f"{there} of {len(steps)}")]
        filters = (*cell_filters(a, cell.values), *loss_filters(a, label))
        found.append(Row(tuple(entries), reference=label == a.baseline, filters=filters))
    return found


class Epochs:
    """The finite values of one column of the history, to be looked up by run."""

    def __init__(self, history: pd.DataFrame, name: str) -> None:
        values = numbers(history, name).replace([float("inf"), float("-inf")], float("nan"))
        self._points = pd.DataFrame({"key": history["key"], "epoch": numbers(history, "epoch"), "value": values})
        self._rows = history.groupby("key").indices if len(history) else {}

    def of(self, keys: Iterable[str]) -> pd.DataFrame:
        """Return key, epoch and value of the runs ``keys``, in the order of the history."""
        found = [self._rows[key] for key in keys if key in self._rows]
        return self._points.iloc[np.unique(np.concatenate(found)) if found else []].dropna()


def _panels(a: Analysis, cell: Cell, epochs: Epochs) -> dict[str, Curve]:
    runs = [
        (label, key, status)
        for label in a.labels
        if (planned := a.planned.get((cell, label))) is not None
        for key, status in zip(planned["key"], planned["status"], strict=True)
    ]
    label_of = {key: label for label, key, status in runs if status == "done"}
    points = epochs.of(label_of)
    grouped = points.groupby([points["key"].map(label_of), "epoch"])["value"]
    every = grouped.agg(mean="mean", low="min", high="max")
    panels = {}
    for label in dict.fromkeys(label for label, *_ in runs):
        over = pd.DataFrame(every.loc[label] if label in every.index else every.iloc[:0].droplevel(0))
        diverged = [key for own, key, status in runs if own == label and status == "diverged"]
        broken = (column(epochs.of([key]).set_index("epoch"), "value") for key in diverged)
        curve = Curve(over, tuple(run for run in broken if len(run)))
        if len(over) or curve.broken:
            panels[a.name(label)] = curve
    return panels


def _valid(a: Analysis, cell: Cell, panels: dict[str, Curve], name: str) -> Figure:
    metric = a.metric_of(name)
    axis = f"{metric.title} ({metric.unit})" if metric.unit else metric.title
    last = {label: curve.over["mean"].iloc[-1] for label, curve in panels.items() if len(curve.over)}
    ends = "; ".join(f"{label} ends at {metric.number(value)}" for label, value in last.items())
    caption = (
        f"{cell.title}: {metric.title} by epoch, mean over seeds (line) and range (band); "
        f"dashed: {a.reference}; crossed out: a diverged run. The axis shows where curves end; the first epochs may "
        "lie below it."
    )
    draw = functools.partial(multiples.curves, panels, a.name(a.baseline), axis, metric.scale, True)
    return Figure(
        f"curves-valid-{slug(cell.title)}", f"{cell.title}: {metric.title}", caption, f"{caption} {ends}.", draw, True,
        cell_filters(a, cell.values),
    )  # fmt: skip


def _train(a: Analysis, cell: Cell, panels: dict[str, Curve], objective: str) -> Figure:
    what = f"training loss of the {objective}" if objective else "training loss"
    caption = (
        f"{cell.title}: {what} by epoch, mean over seeds (line) and range (band); crossed out: a diverged run. Every "
        "loss has its own unit, so every panel has its own axis."
    )
    draw = functools.partial(multiples.curves, panels, a.name(a.baseline), what, 1.0, False)
    identity = "-".join(["curves-train", *([slug(objective)] if objective else []), slug(cell.title)])
    return Figure(
        identity, f"{cell.title}: {what}", caption, caption, draw, True,
        cell_filters(a, cell.values),
    )  # fmt: skip
