"""Controls: the baseline against itself must not differ, a planted worse loss must be found, learning must happen."""

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
from harness.report.sections.common import FEW_SEEDS, about_cells, cell_entry, dash
from harness.text import count, p_value

Outcome = Literal["as it must be", "ALARM", "cannot tell", "not run"]
TONES: dict[Outcome, Tone] = {
    "as it must be": "good",
    "ALARM": "alarm",
    "cannot tell": "undecided",
    "not run": "undecided",
}


@dataclass(frozen=True)
class Control:
    """One control in one cell: what was expected and what came out."""

    cell: Cell
    name: str
    expected: str
    outcome: Outcome
    detail: str
    found: Comparison | Interval | None
    p: float
    keys: tuple[str, ...]


def section(a: Analysis) -> Section:
    """Return the table of controls, with a loud word on every one that misbehaves."""
    found = controls(a)
    items = [Notice(text, "alarm") for text in alarms(a)]
    table = Table(
        "controls",
        "Controls",
        (
            Column("cell", "cell"),
            Column("control", "control"),
            Column("expected", "must be"),
            Column("outcome", "outcome"),
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
        "Controls are judged at 5 % per kind of control, over all cells: one in twenty sound studies raises an alarm.",
    )
    return Section("controls", "Controls", (*items, table))


def controls(a: Analysis) -> list[Control]:
    """Return all controls of all cells."""
    return list(_controls(a))


@functools.lru_cache(maxsize=1)  # several sections ask
def _controls(a: Analysis) -> tuple[Control, ...]:
    return (*_against_itself(a), *_planted(a), *_above_chance(a))


def alarms(a: Analysis) -> list[str]:
    """Return a sentence for every control that misbehaves."""
    return [
        f"Control failed on {control.cell.title}: {control.name} {control.detail}. "
        "Do not trust the verdicts of this cell."
        for control in controls(a)
        if control.outcome == "ALARM"
    ]


def _row(a: Analysis, control: Control) -> Row:
    head = (cell_entry(control.cell), Entry(control.name), Entry(control.expected))
    outcome = Entry(control.outcome, tone=TONES[control.outcome])
    found = control.found
    if found is None or not math.isfinite(value := found.difference if isinstance(found, Comparison) else found.mean):
        difference, n = dash(control.detail), Entry("0", 0)
    else:
        text = a.metric.difference(found) if isinstance(found, Comparison) else a.metric.interval(found)
        low, high = (found.low, found.high) if math.isfinite(found.low) else (None, None)
        difference, n = Entry(text, value, low, high, control.keys), Entry(str(found.n), found.n, runs=control.keys)
    p = Entry(p_value(control.p), control.p if math.isfinite(control.p) else None)
    about = about_cells(a, control.cell.values)
    return Row((*head, outcome, difference, n, p, Entry(control.detail)), about=about)


def _pairs(a: Analysis, cell: Cell, role: str, on: str) -> tuple[list[float], tuple[str, ...], int, int]:
    """Return differences to the baseline of the control runs of a cell, keys, number planned and number diverged."""
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


def _against_itself(a: Analysis) -> list[Control]:
    pairs = {cell: _pairs(a, cell, "self", "pair_seed") for cell in a.cells}
    compared = a.family({cell.title: pairs[cell][0] for cell in a.cells})
    found = []
    for cell, (_, keys, planned, _) in pairs.items():
        c = compared[cell.title]
        outcome: Outcome
        if not planned:
            outcome, detail = "not run", "this study did not run it"
        elif c.n < 2:
            outcome, detail = "cannot tell", f"{count(c.n, 'pair')} cannot show anything"
        elif c.p_holm < stats.ALPHA:
            outcome, detail = "ALARM", "differs from itself: something other than the loss moves the metric"
        else:
            outcome, detail = "as it must be", "no difference found"
        name = f"{a.baseline} against itself, other seeds"
        found.append(Control(cell, name, "no difference", outcome, detail, c, c.p_holm, keys))
    return found


def _planted(a: Analysis) -> list[Control]:
    pairs = {cell: _pairs(a, cell, "planted", "seed") for cell in a.cells}
    compared = a.family({cell.title: pairs[cell][0] for cell in a.cells})
    labels = where(a.runs, role="planted")["label"].unique()
    name = f"planted worse loss ({', '.join(map(str, labels))})" if len(labels) else "planted worse loss"
    found = []
    for cell, (_, keys, planned, diverged) in pairs.items():
        c = compared[cell.title]
        worse = (c.difference < 0) == a.metric.higher_is_better
        outcome: Outcome
        if not planned:
            outcome, detail = "not run", "this study did not run it"
        elif diverged == planned:
            outcome, detail = "as it must be", "found: every run diverged"
        elif c.n < 2:
            outcome, detail = "cannot tell", f"{count(c.n, 'pair')} cannot show anything"
        elif c.p_holm < stats.ALPHA and worse:
            outcome, detail = "as it must be", "found"
        elif c.p_holm < stats.ALPHA:
            outcome, detail = "ALARM", "came out better than the baseline"
        elif c.n < FEW_SEEDS and worse:
            outcome, detail = "cannot tell", "points the right way, but with so few seeds it cannot be shown"
        else:
            outcome, detail = "ALARM", "was not found: this cell would miss real differences too"
        found.append(Control(cell, name, "worse", outcome, detail, c, c.p_holm, keys))
    return found


def _above_chance(a: Analysis) -> list[Control]:
    """Compare the baseline with a prediction that looks at no image, where it is known what that scores."""
    found, ps = [], []
    for cell in a.cells:
        runs = where(a.planned[cell, a.baseline], status="done") if (cell, a.baseline) in a.planned else a.main.iloc[:0]
        chance, what = _chance(a.metric.key, runs)
        if chance is None:
            continue
        values = numbers(runs, a.metric.key).dropna().to_numpy()
        above = stats.mean_interval(values - chance)
        spread = len(values) > 1 and values.std() > 0
        test: Any = scipy_stats.ttest_1samp(values, chance, alternative="greater") if spread else None
        found.append((cell, what, above, tuple(column(runs, "key"))))
        ps.append(math.nan if test is None else float(test.pvalue))
    return [
        Control(cell, f"{a.baseline} minus {what}", "above 0", *_learnt(above, p), above, float(p), keys)
        for (cell, what, above, keys), p in zip(found, stats.holm(ps), strict=True)
    ]


def _chance(metric: str, runs: pd.DataFrame) -> tuple[float | None, str]:
    """Return what is scored without a look at the image, and by what: guessing, or the most frequent class."""
    name = metric.rpartition(".")[2]
    if name == "top1":
        classes = next((c for value in column(runs, "data.classes") if (c := class_count(value))), None)
        return (None if classes is None else 1 / classes), f"guessing (1 in {classes})"
    known = numbers(runs, f"data.trivial.{name}").dropna()
    return (float(known.iloc[0]) if len(known) else None), "the most frequent class everywhere"


def _learnt(above: Interval, p: float) -> tuple[Outcome, str]:
    if p < stats.ALPHA or (above.n > 1 and above.sd == 0 and above.mean > 0):
        return "as it must be", "clearly above guessing"
    if above.n < FEW_SEEDS and above.mean > 0:
        return "cannot tell", "above guessing, but with so few seeds it cannot be shown"
    return "ALARM", "does not beat guessing: nothing was learnt that losses could differ in"
