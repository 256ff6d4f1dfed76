"""What records show about a claim: a sample of effects in every place that it speaks of, and what stands in the way.

Nothing is pooled over places, no member of a list is dropped in silence, and rows of searches and controls never enter.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import confint_proportions_2indep

from harness.analysis import stats
from harness.analysis.cells import Analysis, Cell, cell_columns, largest_group
from harness.analysis.claims import Claim, Values
from harness.analysis.frames import column, numbers, records, rows, where
from harness.metrics.declared import Metric, metric_of
from harness.paths import MEASURED
from harness.text import axis_title, joined, plain

At = tuple[tuple[str, str], ...]
Gate = Callable[[Analysis, Cell, str], tuple[str, ...]]
"""Reasons why the outcome of a loss (by label) in a cell cannot be used; none where it can."""
UNLEARNT = ("diverged", "did_not_learn")
CLOCKS = {"time": ("eager_ms", "copies"), "operations": ("operations",)}
"""Cost -> its columns in loss_costs.csv: milliseconds of forward and backward, the same in copies of the data that
were timed in turn with it, tensor operations."""


# ---------------------------------------------------------------- samples


@dataclass(frozen=True)
class Differences:
    """A sample of paired differences (or of values beside 0), one for each seed."""

    values: tuple[float, ...]

    @property
    def n(self) -> int:
        """How many there are."""
        return len(self.values)

    @property
    def sd(self) -> float:
        """Their standard deviation; nan for fewer than two."""
        return float(np.std(self.values, ddof=1)) if self.n > 1 else math.nan

    @property
    def estimate(self) -> float:
        """Their mean."""
        return float(np.mean(self.values)) if self.values else math.nan

    def interval(self, level: float) -> tuple[float, float]:
        """Return the t interval of the mean at ``level``; unbounded where all are equal and too few for a sign test."""
        if self.n < 2:
            return -math.inf, math.inf
        tests = stats.paired_tests(self.values, 0.0, level)
        if tests.low == tests.high and stats.least_sign_flip_p(self.n) > 1 - level:
            return -math.inf, math.inf
        return float(tests.low), float(tests.high)


@dataclass(frozen=True)
class Rates:
    """Two samples of runs, of which ``bad`` of ``total`` on each side diverged or did not learn."""

    bad: tuple[int, int]
    total: tuple[int, int]
    sd: float = math.nan

    @property
    def n(self) -> int:
        """Runs on the smaller side."""
        return min(self.total)

    @property
    def estimate(self) -> float:
        """Difference of the shares, compare less against."""
        (a, b), (n, m) = self.bad, self.total
        return a / n - b / m

    def interval(self, level: float) -> tuple[float, float]:
        """Return Newcombe's interval of the difference at ``level``."""
        (a, b), (n, m) = self.bad, self.total
        low, high = confint_proportions_2indep(a, n, b, m, method="newcomb", compare="diff", alpha=1 - level)
        return float(low), float(high)


@dataclass(frozen=True)
class Clocks:
    """Logarithms of a ratio by several measures of one thing: the interval is their range, at every level."""

    values: tuple[float, ...]
    sd: float = math.nan

    @property
    def n(self) -> int:
        """How many measures."""
        return len(self.values)

    @property
    def estimate(self) -> float:
        """Their mean."""
        return float(np.mean(self.values))

    def interval(self, level: float) -> tuple[float, float]:
        """Return their range; ``level`` plays no part."""
        return min(self.values), max(self.values)


Sample = Differences | Rates | Clocks


@dataclass(frozen=True)
class Place:
    """One place that a claim speaks of: its axes and members with their values, the sample, the runs behind it, and
    why its outcome is withheld, if it is.
    """

    at: At
    sample: Sample
    keys: tuple[str, ...] = ()
    diverged: int = 0
    withheld: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Its values as one text."""
        return ", ".join(value if name in ("dataset", "model", "loss") else f"{axis_title(name)} {value}"
                         for name, value in self.at)  # fmt: skip


@dataclass(frozen=True)
class Evidence:
    """What records show about a claim in each place; effects are in the unit of ``metric`` (None: logarithm of a ratio,
    or share of runs).

    ``missing`` says why there is no place at all; ``started`` is when the earliest run behind it started (ISO 8601);
    ``reconstruction`` whether a loss in it is our reading of an incomplete source.
    """

    claim: Claim
    places: tuple[Place, ...] = ()
    missing: str = ""
    metric: Metric | None = None
    started: str = ""
    reconstruction: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the runs behind it."""
        return tuple(dict.fromkeys(key for place in self.places for key in place.keys))

    @property
    def n(self) -> int:
        """Observations in the place that has fewest of them; 0 without places."""
        return min((place.sample.n for place in self.places), default=0)

    @property
    def diverged(self) -> int:
        """Runs that diverged on either side, over all places."""
        return sum(place.diverged for place in self.places)

    @property
    def sampled(self) -> bool:
        """Whether chance plays a part in its verdict, so that it counts in the family of its document."""
        return any(place.sample.n >= 2 and not isinstance(place.sample, Clocks) for place in self.places)


# ---------------------------------------------------------------- weighing


def weigh(claim: Claim, analysis: Analysis | None, gate: Gate = lambda *_: ()) -> Evidence:
    """Return what the records of the claim's study show about it.

    Args:
        claim: the claim.
        analysis: of its study's records; None: there are none.
        gate: says why outcomes cannot be used.

    Raises:
        UsageError: the study's records have the claim's metric, but nobody declared it.
    """
    if not claim.tested:
        return Evidence(claim, missing=claim.needs or claim.same_as or claim.retired)
    if claim.test == "cost":
        return _costs(claim)
    if analysis is None:
        return Evidence(claim, missing=f"no runs of the study {claim.study}: python -m harness study={claim.study}")
    return _Weighing(claim, analysis, gate).evidence()


@dataclass(frozen=True)
class _Side:
    """One side of a comparison in one place: its runs, those that finished, one value for each pair."""

    name: str
    runs: pd.DataFrame
    values: dict[Any, float]
    keys: dict[Any, tuple[str, ...]]


class _Weighing:
    """The work on one claim; see :func:`weigh`."""

    def __init__(self, claim: Claim, analysis: Analysis, gate: Gate) -> None:
        self.claim, self.analysis, self.gate = claim, analysis, gate
        own = rows(analysis.all, largest_group(analysis.all))
        own = where(own, role=claim.role)
        own = rows(own, column(own, "label").isin([str(label) for label in analysis.main["label"]]))
        history = claim.metric if claim.test in ("steps", "roughness") else ""
        self.curves = _curves(analysis.study.history, history) if history else {}
        sided = {*claim.compare, *claim.against, *claim.beyond}  # which say otherwise where they name the same
        self.runs = self._conditioned(own, {key: value for key, value in claim.where.items() if key not in sided})
        self.axes = self._axes(own)

    def evidence(self) -> Evidence:
        claim, analysis = self.claim, self.analysis
        if not self._recorded():
            return Evidence(claim, missing=f"no run of the study {claim.study} records {claim.metric}")
        metric = None if claim.ratio or claim.test == "rate" else metric_of(claim.metric, analysis.study.metrics)
        found = [self._place(dict(at), sides) for at, sides in self._sides()]
        if not found:
            return Evidence(claim, missing=f"no runs of {_named(claim.where | claim.compare)} in {claim.study}")
        used = rows(analysis.all, column(analysis.all, "key").isin([key for place in found for key in place.keys]))
        starts = [str(start) for start in column(used, "started").dropna()] if "started" in used else []
        evidence = set(column(used, "loss_evidence").dropna()) if "loss_evidence" in used else set()
        return Evidence(claim, tuple(found), "", metric, min(starts, default=""), "R" in evidence)

    def _recorded(self) -> bool:
        if self.claim.test == "rate":
            return True
        if self.claim.test in ("steps", "roughness"):
            return bool(self.curves)
        return self.claim.metric in self.runs and bool(numbers(self.runs, self.claim.metric).notna().any())

    # ------------------------------------------------------------------ places

    def _axes(self, runs: pd.DataFrame) -> list[str]:
        """Return the columns that tell places apart: what neither side names."""
        claim = self.claim
        sided = {_column_of(runs, key) for key in (*claim.compare, *claim.against, *claim.beyond)}
        listed = [_column_of(runs, key) for key, value in claim.where.items() if isinstance(value, list)]
        open_ = [*cell_columns(runs), *listed]
        if claim.members == "each" and not sided & {"loss", "label"}:
            open_.append("label")
        return [name for name in dict.fromkeys(open_) if name not in sided and name in runs]

    def _conditioned(self, runs: pd.DataFrame, wanted: Values) -> pd.DataFrame:
        for key, value in wanted.items():
            runs = rows(runs, _matches(runs, key, value))
        return runs

    def _sides(self) -> Iterable[tuple[At, list[tuple[str, pd.DataFrame]]]]:
        """Return every place with the runs of each of its sides, also where a side has none."""
        for names, wanted in self._members():
            sides = [(_named(side), self._conditioned(self.runs, side)) for side in wanted]
            groups = [dict(iter(_grouped(runs, self.axes))) for _, runs in sides]
            for values in dict.fromkeys(itertools.chain(*groups)):
                at = tuple((name, value) for name, value in zip(self.axes, values, strict=True) if self._varies(name))
                own = [group.get(values, runs.iloc[:0]) for (_, runs), group in zip(sides, groups, strict=True)]
                yield (*at, *names), list(zip((name for name, _ in sides), own, strict=True))

    @functools.cache  # noqa: B019 - lives as long as the work on one claim
    def _varies(self, name: str) -> bool:
        return name in ("dataset", "model") or len(set(column(self.runs, name).map(plain))) > 1

    def _members(self) -> list[tuple[At, list[Values]]]:
        """Return what each side asks for, once for every combination of members; conditions of beyond come last."""
        claim = self.claim
        sides = [claim.compare] if claim.test == "sign" else [claim.compare, claim.against]
        lists = [{key: value for key, value in side.items() if isinstance(value, list)} for side in sides]
        if claim.members == "mean" or not any(lists):
            choices = [((), sides)]
        else:
            alike = all(lists) and claim.members == "paired"
            expanded = [list(map(dict, itertools.product(*([(k, v) for v in own[k]] for k in own)))) for own in lists]
            combined = zip(*expanded, strict=True) if alike else itertools.product(*expanded)
            choices = [
                (self._member_names(chosen), [side | one for side, one in zip(sides, chosen, strict=True)])
                for chosen in combined
            ]
        sided = {*claim.compare, *claim.against, *claim.beyond}
        conditions = {key: value for key, value in claim.where.items() if key in sided}
        return [
            (
                at,
                [
                    *(conditions | side for side in own),
                    *(conditions | side | claim.beyond for side in own if claim.beyond),
                ],
            )
            for at, own in choices
        ]

    def _member_names(self, chosen: Sequence[Values]) -> At:
        names = [_named(one, bare=True) for one in chosen if one]
        keys = {key for one in chosen for key in one}
        return ((_column_of(self.runs, keys.pop()) if len(keys) == 1 else "loss", " beside ".join(names)),)

    # ------------------------------------------------------------------ one place

    def _place(self, at: dict[str, str], parts: list[tuple[str, pd.DataFrame]]) -> Place:
        claim, own = self.claim, tuple(at.items())
        absent = [f"no runs of {name}" for name, runs in parts if not len(runs)]
        absent += [f"no runs of {name}" for name in self._absent_members(parts)]
        if absent:
            return Place(own, Differences(()), withheld=tuple(dict.fromkeys(absent)))
        diverged = sum(len(where(runs, status="diverged")) for _, runs in parts)
        reasons = self._gates(parts)
        if claim.test == "rate":
            totals = [runs[column(runs, "status").isin(["done", *UNLEARNT])] for _, runs in parts]
            if not all(map(len, totals)):
                return Place(own, Differences(()), withheld=("no run has ended on one side",))
            bad = [int(column(runs, "status").isin(UNLEARNT).sum()) for runs in totals]
            keys = tuple(key for runs in totals for key in column(runs, "key"))
            sample = Rates((bad[0], bad[1]), (len(totals[0]), len(totals[1])))
            return Place(own, sample, keys, diverged, reasons)
        passed = self._threshold(parts[1][1]) if claim.test == "steps" else math.nan
        sides = [self._side(name, runs, passed) for name, runs in parts]
        shared = sorted(set.intersection(*(set(side.values) for side in sides)), key=str)
        keys = tuple(dict.fromkeys(key for side in sides for name in shared for key in side.keys[name]))
        signs = (1, -1, -1, 1)
        differences = tuple(
            sum(sign * side.values[name] for sign, side in zip(signs, sides, strict=False)) for name in shared
        )
        what = "losses" if claim.pair == "loss" else "seeds"
        if len(shared) < 2:
            reasons += (f"{len(shared)} {what} complete on both sides",)
        elif len(alike := {side.values[name] for side in sides for name in shared}) == 1:  # the end of its range, say
            reasons += (f"{claim.metric} does not tell runs apart: {alike.pop():g} in all of them",)
        return Place(own, Differences(differences), keys, diverged, reasons)

    def _absent_members(self, parts: Sequence[tuple[str, pd.DataFrame]]) -> list[str]:
        """Return the members of a list that have no run here, or runs on one side only."""
        claim = self.claim
        absent = []
        for wanted, (_, runs) in zip((claim.compare, claim.against) * 2, parts, strict=False):
            for key, value in wanted.items():
                if isinstance(value, list) and claim.members == "mean":
                    absent += [f"{plain(one)}" for one in value if not _matches(runs, key, one).any()]
        named = {_column_of(self.runs, key) for key in (*claim.compare, *claim.against, *claim.where)}
        if not named & {"loss", "label"} and claim.pair != "loss":
            labels = [set(column(runs, "label").map(str)) for _, runs in parts]
            absent += sorted(set.union(*labels) - set.intersection(*labels))
        return absent

    def _gates(self, parts: Sequence[tuple[str, pd.DataFrame]]) -> tuple[str, ...]:
        if self.claim.role != "run":
            return ()
        cells = {cell.values: cell for cell in self.analysis.cells}
        asked = dict.fromkeys(pair for _, runs in parts for pair in zip(runs["cell"], runs["label"], strict=True))
        found = [
            f"{label}: {reason}" for values, label in asked if values in cells
            for reason in self.gate(self.analysis, cells[values], str(label))
        ]  # fmt: skip
        return tuple(dict.fromkeys(found))

    def _side(self, name: str, runs: pd.DataFrame, passed: float) -> _Side:
        claim = self.claim
        needed = 2 if claim.spread else len(set(_identities(runs, claim.pair)))
        values: dict[Any, float] = {}
        keys: dict[Any, tuple[str, ...]] = {}
        for observation, group in runs.groupby(claim.pair):
            done = self._values(where(group, status="done"), passed).dropna()
            if claim.spread:
                complete, value = len(done) >= needed, done.max() - done.min()
            else:
                complete, value = len(done) == len(group) == needed, done.mean()
            if complete:
                values[observation] = float(value)
                keys[observation] = tuple(column(group, "key").loc[done.index])
        return _Side(name, runs, values, keys)

    # ------------------------------------------------------------------ values

    def _values(self, runs: pd.DataFrame, passed: float) -> pd.Series:
        """Return what is compared, one value for each run; nan where it has none."""
        if self.claim.test in ("steps", "roughness"):
            reads = [self.curves.get(key) for key in column(runs, "key")]
            found = [math.nan if curve is None else self._read(curve, passed) for curve in reads]
            values = pd.Series(found, index=runs.index, dtype=float)
        else:
            values = numbers(runs, self.claim.metric)
        return values.where(values > 0).map(math.log) if self.claim.ratio else values

    def _read(self, curve: tuple[np.ndarray, np.ndarray], passed: float) -> float:
        return roughness(*curve) if self.claim.test == "roughness" else first_passing(*curve, passed)

    def _threshold(self, runs: pd.DataFrame) -> float:
        """Return the score to pass: a share of the mean score that the runs of the other side end with."""
        ends = [self.curves[key][1][-1] for key in column(where(runs, status="done"), "key") if key in self.curves]
        return self.claim.share * float(np.mean(ends)) if ends else math.nan


def first_passing(steps: np.ndarray, scores: np.ndarray, passed: float) -> float:
    """Return at which step a curve first reached ``passed``, linear between evaluations; nan if it never did.

    >>> first_passing(np.array([10.0, 20.0]), np.array([0.5, 0.9]), 0.7)
    15.0
    """
    above = np.flatnonzero(scores >= passed)
    if not above.size:
        return math.nan
    i = int(above[0])
    if i == 0:
        return float(steps[0])
    share = (passed - scores[i - 1]) / (scores[i] - scores[i - 1])
    return float(steps[i - 1] + share * (steps[i] - steps[i - 1]))


def roughness(steps: np.ndarray, scores: np.ndarray) -> float:
    """Return how far the points of a curve lie, on average, from the line between their neighbours, times two: where
    steps are even, the mean absolute second difference. Nan for fewer than three points.

    >>> roughness(np.array([1.0, 2.0, 3.0]), np.array([0.0, 1.0, 0.0]))
    2.0
    """
    if len(steps) < 3:
        return math.nan
    share = (steps[1:-1] - steps[:-2]) / (steps[2:] - steps[:-2])
    line = scores[:-2] + share * (scores[2:] - scores[:-2])
    return float(2 * np.mean(np.abs(scores[1:-1] - line)))


def _curves(history: pd.DataFrame, metric: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return steps and values of a metric by the key of the run; empty where no run records it."""
    if metric not in history or "step" not in history:
        return {}
    known = pd.DataFrame({name: history[name] for name in ("key", "step", metric)}).dropna().sort_values("step")
    return {
        str(key): (group["step"].to_numpy(float), group[metric].to_numpy(float)) for key, group in known.groupby("key")
    }


def _grouped(runs: pd.DataFrame, axes: Sequence[str]) -> Iterable[tuple[tuple[str, ...], pd.DataFrame]]:
    texts = list(zip(*([plain(value) for value in column(runs, name)] for name in axes), strict=True))
    for values in dict.fromkeys(texts):
        yield values, runs[[text == values for text in texts]]


def _column_of(runs: pd.DataFrame, key: str) -> str:
    return next((name for name in (f"axis.{key}", f"config.{key}") if name in runs), key)


def _matches(runs: pd.DataFrame, key: str, value: Any) -> pd.Series:
    wanted = {_plain(part) for part in (value if isinstance(value, list | tuple) else [value])}
    return column(runs, _column_of(runs, key)).map(_plain).isin(wanted)


def _plain(value: Any) -> str:
    try:
        return f"{float(value):g}"
    except (TypeError, ValueError):
        return str(value)


def _named(wanted: Mapping[str, Any], *, bare: bool = False) -> str:
    """Return conditions as words: ``dice, imbalance ratio 50``."""
    parts = []
    for key, value in wanted.items():
        text = joined(map(plain, value), "or") if isinstance(value, list) else plain(value)
        named = bare or key in ("loss", "label", "model", "dataset")
        parts.append(text if named else f"{axis_title(f'axis.{key}')} {text}")
    return ", ".join(parts)


def _identities(runs: pd.DataFrame, pair: str) -> list[tuple[str, ...]]:
    """Return what tells the runs of one observation apart: loss, data, model, further axes."""
    columns = [name for name in ("label", *cell_columns(runs)) if name != pair]
    return list(zip(*(column(runs, name).map(str) for name in columns), strict=True))


# ---------------------------------------------------------------- costs of losses alone


def _costs(claim: Claim) -> Evidence:
    """Compare measurements of losses alone (python -m scripts.bench_losses), never steps of runs."""
    measured = costs()
    members = [(one, other) for one in _listed(claim.compare) for other in _listed(claim.against)]
    places = []
    for one, other in members:
        at = (("loss", f"{one} beside {other}"),)
        sizes = [_sizes(measured, name) for name in (one, other)]
        absent = [name for name, own in zip((one, other), sizes, strict=True) if not own]
        shared = [(size, size) for size in sizes[0] if size in sizes[1]]
        if claim.metric == "operations" and all(sizes):
            shared = [(next(iter(sizes[0])), next(iter(sizes[1])))]  # which the size of the data does not change
        if not shared:
            apart = f"{one} and {other} were measured at different sizes"
            reason = f"no measured cost of {joined(absent)}" if absent else apart
            places.append(Place(at, Differences(()), withheld=(reason,)))
        for size, other_size in shared:
            mine, theirs = sizes[0][size], sizes[1][other_size]
            ratios = tuple(math.log(mine[name] / theirs[name]) for name in CLOCKS[claim.metric])
            places.append(Place((*at, ("size", size)), Clocks(ratios)))
    return Evidence(claim, tuple(places))


def _sizes(measured: pd.DataFrame, loss: str) -> dict[str, dict[str, Any]]:
    """Return what was measured of a loss, by size."""
    return {str(row["size"]): row for row in records(where(measured, loss=loss))}


def _listed(side: Values) -> list[str]:
    value = side.get("loss", "")
    return [str(one) for one in (value if isinstance(value, list) else [value])]


@functools.cache
def costs() -> pd.DataFrame:
    """Return the published costs of losses, a row for each loss and size: time of forward and backward in milliseconds
    (eager_ms) and in copies of the data (copies), and tensor operations.
    """
    return pd.read_csv(MEASURED / "loss_costs.csv")
