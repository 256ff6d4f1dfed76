"""Controls of a study: the repeated baseline must not differ, the negative control must be found worse, learning must
happen, and the study should be able to see a difference of one margin.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats as scipy_stats

from harness.analysis import stats
from harness.analysis.estimates import ALPHA
from harness.analysis.frames import column, numbers, where
from harness.analysis.stats import Comparison, Interval
from harness.text import count

if TYPE_CHECKING:
    from harness.analysis.cells import Analysis, Cell

ControlStatus = Literal["passed", "failed", "undecided", "not run"]
ControlKind = Literal["repeat", "sensitivity", "negative", "chance"]
FEW_SEEDS = 5  # with fewer, only large differences can be shown


@dataclass(frozen=True)
class Control:
    """One control in one cell: what was expected and what was found.

    ``p`` is corrected over the cells of its kind.
    """

    cell: Cell
    name: str
    expected: str
    status: ControlStatus
    detail: str
    found: Comparison | Interval | None
    p: float
    keys: tuple[str, ...]
    kind: ControlKind = "chance"

    @property
    def gates(self) -> bool:
        """Whether its failure withholds the verdicts of its cell."""
        return self.kind != "sensitivity"


@dataclass(frozen=True)
class _Pairs:
    """Control runs of a cell beside the baseline's: differences, keys, and how many were planned and diverged."""

    differences: list[float]
    keys: tuple[str, ...]
    planned: int
    diverged: int


def controls(a: Analysis) -> tuple[Control, ...]:
    """Return all controls of all cells."""
    return (*_baseline_repeat(a), *_sensitivity(a), *_negative_control(a), *_above_chance(a))


def false_discoveries(ps: ArrayLike) -> NDArray[np.bool_]:
    """Return which of many p values (n,) are beyond chance at a false discovery rate of 5 % (Benjamini and Hochberg,
    1995); not-a-numbers are none.

    >>> false_discoveries([0.001, 0.04, 0.9, float("nan")]).tolist()
    [True, False, False, False]
    """
    p = np.asarray(ps, dtype=float)
    known, found = np.isfinite(p), np.zeros(p.shape, dtype=bool)
    if known.any():
        found[known] = scipy_stats.false_discovery_control(p[known]) < ALPHA
    return found


def _pairs(a: Analysis, cell: Cell, role: str, on: str) -> _Pairs:
    planned = where(a.runs, role=role, cell=cell.values)
    done = a.completed(planned)
    seeds = dict(zip(column(planned, "key"), column(planned, on), strict=True))
    base: dict[int, tuple[float, str]] = {}
    if (cell, a.baseline) in a.planned:
        known = a.compared(cell, a.baseline)
        base = {int(s): (float(value), str(key)) for key, s, value in known.itertuples(index=False, name=None)}
    differences, keys = [], []
    for key, _, value in done.itertuples(index=False, name=None):
        if (partner := base.get(int(seeds[key]))) is not None:
            differences.append(float(value) - partner[0])
            keys += [str(key), partner[1]]
    return _Pairs(differences, tuple(keys), len(planned), list(planned["status"]).count("diverged"))


def _baseline_repeat(a: Analysis) -> list[Control]:
    """Compare the baseline with itself: other seeds, and a search of its own.

    It fails beyond the margin alone: a difference that is shown but too small to matter harms no verdict.
    """
    pairs = {cell: _pairs(a, cell, "baseline_repeat", "pair_seed") for cell in a.cells}
    compared = a.family({cell: pairs[cell].differences for cell in a.cells})
    found = []
    for cell, side in pairs.items():
        c = compared[cell]
        status: ControlStatus
        if not side.planned:
            status, detail = "not run", "this study did not run it"
        elif c.n < 2:
            status, detail = "undecided", f"{count(c.n, 'pair')} of runs cannot show anything"
        elif not c.low <= 0 <= c.high and abs(c.difference) > a.margin:
            status, detail = "failed", "it differs from itself: something other than the loss moves the metric"
        elif not c.low <= 0 <= c.high:
            status, detail = "passed", "it differs from itself by less than the margin"
        else:
            status, detail = "passed", "no difference found"
        name = f"{a.name(a.baseline)} repeated with other seeds"
        found.append(Control(cell, name, "no difference", status, detail, c, c.p, side.keys, "repeat"))
    return found


def _sensitivity(a: Analysis) -> list[Control]:
    """Ask whether a loss one margin worse than the baseline would be found: the repeated baseline less one margin.

    Its failure withholds nothing that was shown; it says what "not decidable" is worth.
    """
    if not a.margin:
        return []
    worse = -a.margin if a.metric.higher_is_better else a.margin
    pairs = {cell: _pairs(a, cell, "baseline_repeat", "pair_seed") for cell in a.cells}
    moved = {cell: [d + worse for d in side.differences] for cell, side in pairs.items()}
    compared = a.family(moved, margin=0.0)
    found = []
    for cell, side in pairs.items():
        c = compared[cell]
        if c.n < 2:
            continue
        seen = c.verdict == "worse"
        status: ControlStatus = "passed" if seen else "undecided"
        detail = "found to be worse" if seen else "this cell cannot see a difference of one margin"
        name = f"{a.name(a.baseline)} repeated, less one margin"
        found.append(Control(cell, name, "worse", status, detail, c, c.p, side.keys, "sensitivity"))
    return found


def _negative_control(a: Analysis) -> list[Control]:
    pairs = {cell: _pairs(a, cell, "negative_control", "seed") for cell in a.cells}
    compared = a.family({cell: pairs[cell].differences for cell in a.cells}, margin=0.0)
    labels = where(a.runs, role="negative_control")["label"].unique()
    which = ", ".join(str(label).removeprefix("negative_control_") for label in labels)
    name = which if which.startswith("negative control") else f"negative control ({which})".removesuffix(" ()")
    found = []
    for cell, side in pairs.items():
        c = compared[cell]
        worse = (c.difference < 0) == a.metric.higher_is_better
        status: ControlStatus
        if not side.planned:
            status, detail = "not run", "this study did not run it"
        elif side.diverged == side.planned:
            status, detail = "passed", "found to be worse: every run diverged"
        elif c.n < 2:
            status, detail = "undecided", f"{count(c.n, 'pair')} of runs cannot show anything"
        elif c.verdict == "worse":
            status, detail = "passed", "found to be worse"
        elif c.verdict == "better":
            status, detail = "failed", "it came out better than the baseline"
        elif c.n < FEW_SEEDS and worse:
            status, detail = "undecided", "worse on average, but with so few seeds this cannot be shown"
        else:
            status, detail = "failed", "it was not found to be worse, so this cell would miss real differences too"
        found.append(Control(cell, name, "worse", status, detail, c, c.p, side.keys, "negative"))
    return found


def _above_chance(a: Analysis) -> list[Control]:
    """Compare the baseline with a prediction made without the input, where the score of that is known."""
    found, ps, up = [], [], a.metric.higher_is_better
    family = max(1, sum(math.isfinite(a.chance(cell)[0]) for cell in a.cells))
    for cell in a.cells:
        runs = where(a.planned[cell, a.baseline], status="done") if (cell, a.baseline) in a.planned else a.main.iloc[:0]
        chance, what = a.chance(cell)
        if not math.isfinite(chance):
            continue
        values = numbers(runs, a.metric.key).dropna().to_numpy()
        difference = stats.mean_interval(values - chance, 1 - ALPHA / family)
        spread = len(values) > 1 and float(np.ptp(values)) > 1e-12  # equal values differ by rounding
        test: Any = scipy_stats.ttest_1samp(values, chance, alternative="greater" if up else "less") if spread else None
        found.append((cell, what, difference, tuple(column(runs, "key"))))
        ps.append(math.nan if test is None else float(test.pvalue))
    return [
        Control(
            cell,
            f"{a.name(a.baseline)} minus {what}",
            "above 0" if up else "below 0",
            *_beats(difference, min(1.0, p * family), up),
            difference,
            min(1.0, p * family) if math.isfinite(p) else math.nan,
            keys,
        )
        for (cell, what, difference, keys), p in zip(found, ps, strict=True)
    ]


def _beats(difference: Interval, p: float, up: bool) -> tuple[ControlStatus, str]:
    """Return what a difference from chance shows; ``up``: more is better."""
    better = (difference.mean > 0) if up else (difference.mean < 0)
    if p < ALPHA or (difference.n > 1 and difference.sd == 0 and better):
        return "passed", "clearly better than chance"
    if difference.n < FEW_SEEDS and better:
        return "undecided", "better than chance on average, but with so few seeds this cannot be shown"
    return "failed", "it does not beat chance: nothing was learnt in which losses could differ"


def chance_of(metric: str, runs: pd.DataFrame, classes: Sequence[int | None]) -> tuple[float, str]:
    """Return the score of a prediction made without the input (nan: not known), and what predicts so.

    Args:
        metric: a column of records.
        runs: runs on one data set.
        classes: numbers of classes that their records name.
    """
    name = metric.rpartition(".")[2]
    known = numbers(runs, f"data.trivial.{name}").dropna()
    named = next((str(what) for what in column(runs, "data.trivial_name") if isinstance(what, str)), None)
    if len(known):
        return float(known.iloc[0]), named or "the most frequent class everywhere"
    number = next((c for c in classes if c), None)
    if name == "top1" and number:
        return 1 / number, f"chance (1 in {number})"
    return math.nan, ""
