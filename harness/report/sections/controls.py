"""Controls: the repeated baseline must not differ, the negative control must be found worse, learning must happen."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
from scipy import stats as scipy_stats

from harness.analysis import stats
from harness.analysis.cells import Analysis, Cell, class_count
from harness.analysis.frames import column, numbers, where
from harness.analysis.stats import Comparison, Interval
from harness.report.items import Column, Entry, Notice, Row, Section, Table, Tone
from harness.report.sections.common import FEW_SEEDS, cell_entry, cell_filters, dash
from harness.text import count, p_value

ControlStatus = Literal["passed", "failed", "undecided", "not run"]
TONES: dict[ControlStatus, Tone] = {
    "passed": "good",
    "failed": "alarm",
    "undecided": "undecided",
    "not run": "undecided",
}


@dataclass(frozen=True)
class Control:
    """One control in one cell: what was expected and what was found."""

    cell: Cell
    name: str
    expected: str
    status: ControlStatus
    detail: str
    found: Comparison | Interval | None
    p: float
    keys: tuple[str, ...]


def section(a: Analysis) -> Section:
    """Return the table of controls, with a notice for each that failed."""
    found = controls(a)
    items = [Notice(text, "alarm") for text in alarms(a)]
    table = Table(
        "controls",
        "Controls",
        (
            Column("cell", "cell"),
            Column("control", "control"),
            Column("expected", "expected"),
            Column("status", "result"),
            Column(
                "difference",
                f"difference ({a.metric.difference_unit or a.metric.title})",
                "number",
                "with 95 % t interval",
            ),
            Column("n", "n", "number"),
            Column("p", "p (Holm)", "number", "corrected over the cells of the control"),
            Column("detail", "remarks"),
        ),
        tuple(_row(a, control) for control in found),
        "Each kind of control is tested at 5 % over all cells together: one sound study in twenty fails by chance.",
    )
    return Section("controls", "Controls", (*items, table))


def controls(a: Analysis) -> list[Control]:
    """Return all controls of all cells."""
    return list(_controls(a))


@functools.lru_cache(maxsize=1)  # several sections ask
def _controls(a: Analysis) -> tuple[Control, ...]:
    return (*_baseline_repeat(a), *_negative_control(a), *_above_chance(a))


def alarms(a: Analysis) -> list[str]:
    """Return a sentence for every control that failed."""
    return [
        f"Control failed on {control.cell.title}: {control.name}: {control.detail}. "
        "Do not trust the verdicts in this cell."
        for control in controls(a)
        if control.status == "failed"
    ]


def _row(a: Analysis, control: Control) -> Row:
    head = (cell_entry(control.cell), Entry(control.name), Entry(control.expected))
    status = Entry(control.status, tone=TONES[control.status])
    found = control.found
    if found is None or not math.isfinite(value := found.difference if isinstance(found, Comparison) else found.mean):
        difference, n = dash(control.detail), Entry("0", 0)
    else:
        text = a.metric.difference(found) if isinstance(found, Comparison) else a.metric.interval(found)
        low, high = (found.low, found.high) if math.isfinite(found.low) else (None, None)
        difference, n = Entry(text, value, low, high, control.keys), Entry(str(found.n), found.n, runs=control.keys)
    p = Entry(p_value(control.p), control.p if math.isfinite(control.p) else None)
    filters = cell_filters(a, control.cell.values)
    return Row((*head, status, difference, n, p, Entry(control.detail)), filters=filters)


def _pairs(a: Analysis, cell: Cell, role: str, on: str) -> tuple[list[float], tuple[str, ...], int, int]:
    """Return differences from the baseline of the control runs of a cell, keys, number planned and number diverged."""
    planned = where(a.runs, role=role, cell=cell.values)
    done = a.completed(planned)
    seeds = dict(zip(column(planned, "key"), column(planned, on), strict=True))
    base = {} if (cell, a.baseline) not in a.planned else {
        int(seed): (float(value), str(key))
        for key, seed, value in a.completed(a.planned[cell, a.baseline]).itertuples(index=False, name=None)
    }  # fmt: skip
    differences, keys = [], []
    for key, _, value in done.itertuples(index=False, name=None):
        if (partner := base.get(int(seeds[key]))) is not None:
            differences.append(float(value) - partner[0])
            keys += [str(key), partner[1]]
    return differences, tuple(keys), len(planned), int(list(planned["status"]).count("diverged"))


def _baseline_repeat(a: Analysis) -> list[Control]:
    pairs = {cell: _pairs(a, cell, "baseline_repeat", "pair_seed") for cell in a.cells}
    compared = a.family({cell.title: pairs[cell][0] for cell in a.cells})
    found = []
    for cell, (_, keys, planned, _) in pairs.items():
        c = compared[cell.title]
        status: ControlStatus
        if not planned:
            status, detail = "not run", "this study did not run it"
        elif c.n < 2:
            status, detail = "undecided", f"{count(c.n, 'pair')} of runs cannot show anything"
        elif c.p_holm < stats.ALPHA:
            status, detail = "failed", "it differs from itself: something other than the loss moves the metric"
        else:
            status, detail = "passed", "no difference found"
        name = f"{a.baseline} repeated with other seeds"
        found.append(Control(cell, name, "no difference", status, detail, c, c.p_holm, keys))
    return found


def _negative_control(a: Analysis) -> list[Control]:
    pairs = {cell: _pairs(a, cell, "negative_control", "seed") for cell in a.cells}
    compared = a.family({cell.title: pairs[cell][0] for cell in a.cells})
    labels = where(a.runs, role="negative_control")["label"].unique()
    name = f"negative control ({', '.join(map(str, labels))})" if len(labels) else "negative control"
    found = []
    for cell, (_, keys, planned, diverged) in pairs.items():
        c = compared[cell.title]
        worse = (c.difference < 0) == a.metric.higher_is_better
        status: ControlStatus
        if not planned:
            status, detail = "not run", "this study did not run it"
        elif diverged == planned:
            status, detail = "passed", "found to be worse: every run diverged"
        elif c.n < 2:
            status, detail = "undecided", f"{count(c.n, 'pair')} of runs cannot show anything"
        elif c.p_holm < stats.ALPHA and worse:
            status, detail = "passed", "found to be worse"
        elif c.p_holm < stats.ALPHA:
            status, detail = "failed", "it came out better than the baseline"
        elif c.n < FEW_SEEDS and worse:
            status, detail = "undecided", "worse on average, but with so few seeds this cannot be shown"
        else:
            status, detail = "failed", "it was not found to be worse, so this cell would miss real differences too"
        found.append(Control(cell, name, "worse", status, detail, c, c.p_holm, keys))
    return found


def _above_chance(a: Analysis) -> list[Control]:
    """Compare the baseline with a prediction made without the input, where the score of that is known."""
    found, ps, up = [], [], a.metric.higher_is_better
    for cell in a.cells:
        runs = where(a.planned[cell, a.baseline], status="done") if (cell, a.baseline) in a.planned else a.main.iloc[:0]
        chance, what = _chance(a.metric.key, runs)
        if chance is None:
            continue
        values = numbers(runs, a.metric.key).dropna().to_numpy()
        difference = stats.mean_interval(values - chance)
        spread = len(values) > 1 and values.std() > 0
        test: Any = scipy_stats.ttest_1samp(values, chance, alternative="greater" if up else "less") if spread else None
        found.append((cell, what, difference, tuple(column(runs, "key"))))
        ps.append(math.nan if test is None else float(test.pvalue))
    return [
        Control(
            cell,
            f"{a.baseline} minus {what}",
            "above 0" if up else "below 0",
            *_learnt(difference, p, up),
            difference,
            float(p),
            keys,
        )
        for (cell, what, difference, keys), p in zip(found, stats.holm(ps), strict=True)
    ]


def _chance(metric: str, runs: pd.DataFrame) -> tuple[float | None, str]:
    """Return the score of a prediction made without the input, and what predicts so: chance, or what the task names."""
    name = metric.rpartition(".")[2]
    if name == "top1":
        classes = next((c for value in column(runs, "data.classes") if (c := class_count(value))), None)
        return (None if classes is None else 1 / classes), f"chance (1 in {classes})"
    known = numbers(runs, f"data.trivial.{name}").dropna()
    named = next((str(what) for what in column(runs, "data.trivial_name") if isinstance(what, str)), None)
    return (float(known.iloc[0]) if len(known) else None), named or "the most frequent class everywhere"


def _learnt(difference: Interval, p: float, up: bool) -> tuple[ControlStatus, str]:
    """Return what a difference from chance shows; ``up``: more is better."""
    better = (difference.mean > 0) if up else (difference.mean < 0)
    if p < stats.ALPHA or (difference.n > 1 and difference.sd == 0 and better):
        return "passed", "clearly better than chance"
    if difference.n < FEW_SEEDS and better:
        return "undecided", "better than chance on average, but with so few seeds this cannot be shown"
    return "failed", "it does not beat chance: nothing was learnt in which losses could differ"
