"""What records show about a claim: a sample of effects in every place that it speaks of, and what stands in the way.

Nothing is pooled over places, no member of a list is dropped in silence, and rows of searches and controls never enter.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd

from harness.analysis import gates, learning, reasons
from harness.analysis.cells import Analysis, Cell, cell_columns, largest_group
from harness.analysis.claims import Claim, Values
from harness.analysis.estimates import Items
from harness.analysis.frames import column, numbers, records, rows, where
from harness.analysis.reasons import Reason
from harness.analysis.samples import UNBOUNDED, Differences, Ends, Measures, Rates, Sample
from harness.metrics.declared import Metric, metric_of
from harness.paths import MEASURED
from harness.text import axis_title, count, joined, number, plain

At = tuple[tuple[str, str], ...]
Gate = Callable[[Analysis, Cell, str], tuple[Reason, ...]]
"""Reasons why the runs of a loss (by label) in a cell cannot be used; none where they can."""
BARE = ("loss", "label", "model", "dataset")  # whose values need no name beside them
MEASURED_AS = {"time": ("eager_ms", "copies"), "memory": ("extra_memory",), "operations": ("operations",)}
"""Cost -> its columns in loss_costs.csv: milliseconds of forward and backward, the same in copies of the data that
were timed in turn with it, tensor operations."""


@dataclass(frozen=True)
class Place:
    """One place that a claim speaks of.

    Attributes:
        at: its axes and members with their values.
        sample: what was compared there.
        keys: the runs behind it.
        withheld: why its answer is withheld; empty: it is not.
        notes: what a reader has to know beside its answer, such as runs that diverged.
    """

    at: At
    sample: Sample
    keys: tuple[str, ...] = ()
    withheld: tuple[Reason, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def headings(self) -> tuple[str, ...]:
        """The kinds of reasons for which its answer is withheld, each once."""
        return tuple(dict.fromkeys(reason.kind.heading for reason in self.withheld))

    @property
    def title(self) -> str:
        """Its values as one text."""
        return ", ".join(_worded(name, value) for name, value in self.at)


@dataclass(frozen=True)
class Evidence:
    """What records show about a claim in each place.

    Attributes:
        claim: the claim.
        places: all places that it speaks of.
        missing: why there is no place at all.
        metric: the unit of effects; None where they are logarithms of ratios, or shares of runs.
        started: when the earliest run behind it started (ISO 8601).
        reconstruction: whether a loss in it is our reading of an incomplete source.
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


def weigh(claim: Claim, analysis: Analysis | None, gate: Gate = gates.of_runs) -> Evidence:
    """Return what the records of the claim's study show about it.

    Args:
        claim: the claim.
        analysis: of its study's records; None: there are none.
        gate: says why runs cannot be used.

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
    """One side of a comparison in one place: its runs, and value and keys of the runs of each complete observation."""

    name: str
    runs: pd.DataFrame
    values: dict[Any, float]
    keys: dict[Any, tuple[str, ...]]


class _Weighing:
    """The work on one claim; see :func:`weigh`."""

    def __init__(self, claim: Claim, analysis: Analysis, gate: Gate) -> None:
        self.claim, self.analysis, self.gate = claim, analysis, gate
        own = where(rows(_narrowed(analysis.all, claim), largest_group(analysis.all)), role=claim.role)
        own = rows(own, column(own, "label").isin([str(label) for label in analysis.main["label"]]))
        sided = {*claim.compare, *claim.against, *claim.beyond}  # which say otherwise where they name the same
        self.runs = _conditioned(own, {key: value for key, value in claim.where.items() if key not in sided})
        self.axes = self._axes(own)
        self.unlearnt = self._unlearnt()
        self.curves = self._curves()

    def evidence(self) -> Evidence:
        claim, analysis = self.claim, self.analysis
        if not self._recorded():
            return Evidence(claim, missing=f"no run of the study {claim.study} records {claim.metric}")
        found = [self._place(at, sides) for at, sides in self._sides()]
        if not found:
            return Evidence(claim, missing=f"no runs of {_named(claim.where | claim.compare)} in {claim.study}")
        used = rows(analysis.all, column(analysis.all, "key").isin([key for place in found for key in place.keys]))
        starts = [str(start) for start in column(used, "started").dropna()] if "started" in used else []
        evidence = set(column(used, "loss_evidence").dropna()) if "loss_evidence" in used else set()
        unit = None if claim.ratio or claim.test == "rate" else self.metric
        return Evidence(claim, tuple(found), "", unit, min(starts, default=""), "R" in evidence)

    @functools.cached_property
    def metric(self) -> Metric:
        return metric_of(self.claim.metric, self.analysis.study.metrics)

    def _recorded(self) -> bool:
        if self.claim.test == "rate":
            return True
        if self.claim.test in ("steps", "roughness"):
            return bool(self.curves)
        return self.claim.metric in self.runs and bool(numbers(self.runs, self.claim.metric).notna().any())

    def _curves(self) -> dict[str, pd.DataFrame]:
        """Return the epochs of every run in the claim's metric, where the claim is of curves."""
        history, metric = self.analysis.study.history, self.claim.metric
        if self.claim.test not in ("steps", "roughness") or metric not in history or "step" not in history:
            return {}
        known = history.loc[history[metric].notna(), ["key", "step", metric]]
        return {str(key): group for key, group in known.groupby("key")}

    def _unlearnt(self) -> frozenset[str]:
        """Return the keys of completed runs that did not learn."""
        done = [key for frame in self.analysis.done.values() for key in frame["key"]]
        learnt = {key for planned in self.analysis.done for key in self.analysis.learnt(*planned)["key"]}
        return frozenset(map(str, done)) - learnt

    # ------------------------------------------------------------------ places

    def _axes(self, runs: pd.DataFrame) -> list[str]:
        """Return the columns that tell places apart: what neither side names."""
        claim = self.claim
        sided = {_column_of(runs, key) for key in (*claim.compare, *claim.against, *claim.beyond)}
        listed = [_column_of(runs, key) for key, value in claim.where.items() if isinstance(value, list)]
        open_ = [*cell_columns(runs), *listed]
        if claim.members in ("each", "any") and not _name_losses((*claim.compare, *claim.against, *claim.beyond)):
            open_.append("label")
        return [name for name in dict.fromkeys(open_) if name not in sided and name in runs]

    def _sides(self) -> Iterable[tuple[At, list[tuple[str, pd.DataFrame]]]]:
        """Return every place with the runs of each of its sides, also where a side has none."""
        for members, wanted in self._members():
            sides = [(_named(side), _conditioned(self.runs, side)) for side in wanted]
            groups = [dict(_grouped(runs, self.axes)) for _, runs in sides]
            for values in dict.fromkeys(itertools.chain(*groups)):
                at = [(name, value) for name, value in zip(self.axes, values, strict=True) if name in self.varying]
                own = [group.get(values, runs.iloc[:0]) for (_, runs), group in zip(sides, groups, strict=True)]
                yield (*at, *members), list(zip((name for name, _ in sides), own, strict=True))

    @functools.cached_property
    def varying(self) -> set[str]:
        """The axes that a reader has to be told: data set and model, and those of several values."""
        several = {name for name in self.axes if len(set(column(self.runs, name).map(plain))) > 1}
        return several | {"dataset", "model"}

    def _members(self) -> list[tuple[At, list[Values]]]:
        """Return what each side asks for, once for every combination of members; conditions of beyond come last."""
        claim = self.claim
        sides = [claim.compare] if claim.test == "sign" else [claim.compare, claim.against]
        lists = [{key: value for key, value in side.items() if isinstance(value, list)} for side in sides]
        if claim.members == "mean" or not any(lists):
            choices: list[tuple[At, list[Values]]] = [((), sides)]
        else:
            chosen = [list(map(dict, itertools.product(*([(k, v) for v in own[k]] for k in own)))) for own in lists]
            paired = all(lists) and claim.members == "paired"
            choices = [
                (self._member_names(one), [side | own for side, own in zip(sides, one, strict=True)])
                for one in (zip(*chosen, strict=True) if paired else itertools.product(*chosen))
            ]
        sided = {*claim.compare, *claim.against, *claim.beyond}
        common = {key: value for key, value in claim.where.items() if key in sided}
        return [
            (at, [*(common | side for side in own), *(common | side | claim.beyond for side in own if claim.beyond)])
            for at, own in choices
        ]

    def _member_names(self, chosen: Sequence[Values]) -> At:
        names = [_named(one, bare=True) for one in chosen if one]
        keys = {key for one in chosen for key in one}
        return ((_column_of(self.runs, keys.pop()) if len(keys) == 1 else "loss", " beside ".join(names)),)

    # ------------------------------------------------------------------ one place

    def _place(self, at: At, parts: list[tuple[str, pd.DataFrame]]) -> Place:
        absent = [name for name, runs in parts if not len(runs)]
        if absent := dict.fromkeys([*absent, *self._absent_members(parts)]):
            why = tuple(Reason(f"no runs of {name}", reasons.NONE) for name in absent)
            return Place(at, Differences(()), withheld=why)
        if self.claim.test == "rate":
            return self._rates(at, parts)
        sides = self._read(parts)
        shared = sorted(set.intersection(*(set(side.values) for side in sides)), key=str)
        keys = [tuple(side.keys[name] for side in sides) for name in shared]
        signs = (1, -1, -1, 1)
        differences = [
            sum(sign * side.values[name] for sign, side in zip(signs, sides, strict=False)) for name in shared
        ]
        grain = self._grain(parts)
        sample = Differences(
            tuple(differences), self._items(keys, signs), grain, self._ends(len(sides)), self.analysis.sequential
        )
        flat = tuple(dict.fromkeys(key for own in keys for side in own for key in side))
        why = [*self._gates(parts), *self._obstacles(sides, shared, grain)]
        return Place(at, sample, flat, tuple(dict.fromkeys(why)), self._notes(parts))

    def _rates(self, at: At, parts: list[tuple[str, pd.DataFrame]]) -> Place:
        ended = [rows(runs, column(runs, "status").isin(["done", "diverged"])) for _, runs in parts]
        if not all(map(len, ended)):
            return Place(at, Differences(()), withheld=(Reason("no run has ended on one side", reasons.NONE),))
        failed = [
            int(((column(runs, "status") == "diverged") | column(runs, "key").isin(self.unlearnt)).sum())
            for runs in ended
        ]
        keys = tuple(str(key) for runs in ended for key in column(runs, "key"))
        sample = Rates((failed[0], failed[1]), (len(ended[0]), len(ended[1])))
        return Place(at, sample, keys, self._gates(parts))

    def _obstacles(self, sides: Sequence[_Side], shared: Sequence[Any], grain: float) -> list[Reason]:
        claim, found = self.claim, []
        what = "losses" if claim.pair == "loss" else "seeds"
        if len(shared) < 2:
            found.append(Reason(f"{len(shared)} complete {what}: a comparison takes two", reasons.MISSING))
        elif len(alike := {side.values[name] for side in sides for name in shared}) == 1:  # the end of its range, say
            text = f"{claim.metric} does not tell runs apart: {alike.pop():g} in all of them"
            found.append(Reason(text, reasons.ALIKE))
        if grain > claim.margin:
            text = f"the margin is finer than one test item ({number(100 * grain, 2)} %)"
            found.append(Reason(text, reasons.GRAIN))
        return found

    def _notes(self, parts: Sequence[tuple[str, pd.DataFrame]]) -> tuple[str, ...]:
        """Return how many runs failed, and whether they are left out: what is left may be the lucky ones."""
        diverged = sum(len(where(runs, status="diverged")) for _, runs in parts)
        left = sum(len(runs) - len(self._learning(runs)) for _, runs in parts)
        kept = sum(int(column(self._learning(runs), "key").isin(self.unlearnt).sum()) for _, runs in parts)
        told = (
            (diverged, "diverged, left out"),
            (left, "did not learn, left out"),
            (kept, "did not learn, most of its runs"),
        )
        return tuple(f"{count(n, 'run')} {what}" for n, what in told if n)

    def _absent_members(self, parts: Sequence[tuple[str, pd.DataFrame]]) -> list[str]:
        """Return the members of a list that have no run here, and losses with runs on one side only."""
        claim, absent = self.claim, []
        for wanted, (_, runs) in zip((claim.compare, claim.against) * 2, parts, strict=False):
            for key, value in wanted.items():
                if isinstance(value, list) and claim.members == "mean":
                    absent += [plain(one) for one in value if not _matches(runs, key, one).any()]
        if not _name_losses((*claim.compare, *claim.against, *claim.where)) and claim.pair != "loss":
            labels = [set(column(runs, "label").map(str)) for _, runs in parts]
            absent += sorted(set.union(*labels) - set.intersection(*labels))
        return absent

    def _gates(self, parts: Sequence[tuple[str, pd.DataFrame]]) -> tuple[Reason, ...]:
        if self.claim.role != "run":
            return ()
        cells = {cell.values: cell for cell in self.analysis.cells}
        asked = dict.fromkeys(pair for _, runs in parts for pair in zip(runs["cell"], runs["label"], strict=True))
        found = [
            reason.of(str(label))
            for values, label in asked
            if values in cells
            for reason in self.gate(self.analysis, cells[values], str(label))
        ]
        return tuple(dict.fromkeys(found))

    # ------------------------------------------------------------------ values

    def _read(self, parts: Sequence[tuple[str, pd.DataFrame]]) -> list[_Side]:
        threshold = self._threshold(parts[1][1]) if self.claim.test == "steps" else math.nan
        return [self._side(name, self._learning(runs), threshold) for name, runs in parts]

    def _learning(self, runs: pd.DataFrame) -> pd.DataFrame:
        """Return the runs without the few that did not learn; all of a loss of which most did not, which is its way."""
        if self.claim.role != "run":
            return runs
        out = column(runs, "key").isin(self.unlearnt)
        usual = out.groupby([runs["cell"], runs["label"]]).transform("mean") > 0.5
        return rows(runs, ~out | usual)

    def _side(self, name: str, runs: pd.DataFrame, threshold: float) -> _Side:
        claim = self.claim
        needed = 2 if claim.spread else len(set(_identities(runs, claim.pair)))
        values: dict[Any, float] = {}
        keys: dict[Any, tuple[str, ...]] = {}
        for observation, group in runs.groupby(claim.pair):
            done = self._values(where(group, status="done"), threshold).dropna()
            if claim.spread:
                complete, value = len(done) >= needed, done.max() - done.min()
            else:
                complete, value = len(done) == len(group) == needed, done.mean()
            if complete:
                values[observation] = float(value)
                keys[observation] = tuple(column(group, "key").loc[done.index])
        return _Side(name, runs, values, keys)

    def _values(self, runs: pd.DataFrame, threshold: float) -> pd.Series:
        """Return what is compared, one value for each run; nan where it has none."""
        if self.claim.test in ("steps", "roughness"):
            found = [self._of_curve(self.curves.get(str(key)), threshold) for key in column(runs, "key")]
            values = pd.Series(found, index=runs.index, dtype=float)
        else:
            values = numbers(runs, self.claim.metric)
        return values.where(values > 0).map(math.log) if self.claim.ratio else values

    def _of_curve(self, curve: pd.DataFrame | None, threshold: float) -> float:
        if curve is None:
            return math.nan
        if self.claim.test == "roughness":
            return learning.roughness(curve, self.claim.metric)
        up = self.metric.higher_is_better
        return learning.crossing(curve, self.claim.metric, threshold, higher_is_better=up)

    def _threshold(self, runs: pd.DataFrame) -> float:
        """Return the score to pass: a share of the way from chance to what the runs of the other side end with."""
        metric = self.claim.metric
        keys = [str(key) for key in column(where(runs, status="done"), "key")]
        ends = [float(self.curves[key].sort_values("step")[metric].iloc[-1]) for key in keys if key in self.curves]
        cells = [cell for cell in self.analysis.cells if cell.values in set(runs["cell"])]
        same = metric.rpartition(".")[2] == self.analysis.metric.key.rpartition(".")[2]
        chance = self.analysis.chance(cells[0])[0] if same and cells else math.nan
        final = float(np.mean(ends)) if ends else math.nan
        return learning.thresholds(chance, final, (self.claim.share,))[0]

    @property
    def _plain_difference(self) -> bool:
        """Whether effects are differences of a metric of test items, run by run."""
        claim = self.claim
        return claim.test in ("difference", "sign") and not (claim.ratio or claim.spread) and claim.pair == "seed"

    def _grain(self, parts: Sequence[tuple[str, pd.DataFrame]]) -> float:
        """Return the smallest step of the metric: one test item where it counts items, else 0."""
        if not self._plain_difference or self.metric.grain != "item":
            return 0.0
        sizes = [size for _, runs in parts for size in numbers(runs, "data.test").dropna() if size > 0]
        return 1 / min(sizes) if sizes else 0.0

    def _ends(self, sides: int) -> Ends:
        """Return the least and greatest effect that there can be."""
        if not self._plain_difference or self.metric.low is None or self.metric.high is None:
            return UNBOUNDED
        if sides == 1:
            return self.metric.low, self.metric.high
        span = (self.metric.high - self.metric.low) * sides / 2
        return -span, span

    def _items(self, keys: Sequence[tuple[tuple[str, ...], ...]], signs: Sequence[int]) -> Items | None:
        """Return the effects on every test item, seed by seed; None where some run did not keep them."""
        if not self._plain_difference or len(keys) < 2:
            return None
        found = []
        for sides in keys:
            scores = [[self.analysis.study.item_scores(key, self.claim.metric) for key in side] for side in sides]
            known = [own for side in scores for own in side if own is not None]
            if len(known) < sum(map(len, sides)) or any(not np.array_equal(known[0][0], own[0]) for own in known):
                return None
            means = [np.mean([own[1] for own in side if own is not None], axis=0) for side in scores]
            effect = sum(sign * mean for sign, mean in zip(signs, means, strict=False))
            found.append((known[0][0], np.asarray(effect, dtype=float)))
        return found


# ---------------------------------------------------------------- runs by condition


def _narrowed(runs: pd.DataFrame, claim: Claim) -> pd.DataFrame:
    """Return the columns that a claim looks at: choosing rows of all of them takes fifty times as long."""
    asked = {*claim.where, *claim.compare, *claim.against, *claim.beyond}
    known = {
        "key",
        "role",
        "label",
        "loss",
        "cell",
        "status",
        "seed",
        "started",
        "data.test",
        "env.device",
        "env.torch",
    }
    known |= {claim.metric, claim.pair, *cell_columns(runs)}
    named = known | asked | {f"{group}.{key}" for key in asked for group in ("axis", "config")}
    kept = [name for name in runs if name in named]
    return cast(pd.DataFrame, runs[kept])


def _grouped(runs: pd.DataFrame, axes: Sequence[str]) -> Iterable[tuple[tuple[str, ...], pd.DataFrame]]:
    texts = list(zip(*([plain(value) for value in column(runs, name)] for name in axes), strict=True))
    for values in dict.fromkeys(texts):
        yield values, runs[[text == values for text in texts]]


def _conditioned(runs: pd.DataFrame, wanted: Values) -> pd.DataFrame:
    for key, value in wanted.items():
        runs = rows(runs, _matches(runs, key, value))
    return runs


def _column_of(runs: pd.DataFrame, key: str) -> str:
    return next((name for name in (f"axis.{key}", key, f"config.{key}") if name in runs), key)


def _name_losses(keys: Iterable[str]) -> bool:
    """Return whether conditions say which losses they speak of: ``loss``, ``label``, ``loss.reconstruction``."""
    return any(key == "label" or key.partition(".")[0] == "loss" for key in keys)


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
    texts = {key: joined(map(plain, v), "or") if isinstance(v, list) else plain(v) for key, v in wanted.items()}
    return ", ".join(text if bare else _worded(f"axis.{key}" if key not in BARE else key, text)
                     for key, text in texts.items())  # fmt: skip


def _worded(name: str, value: str) -> str:
    return value if name in BARE else f"{axis_title(name)} {value}"


def _identities(runs: pd.DataFrame, pair: str) -> list[tuple[str, ...]]:
    """Return what tells the runs of one observation apart: loss, data, model, further axes."""
    columns = [name for name in ("label", *cell_columns(runs)) if name != pair]
    return list(zip(*(column(runs, name).map(str) for name in columns), strict=True))


# ---------------------------------------------------------------- costs of losses alone


def _costs(claim: Claim) -> Evidence:
    """Compare measurements of losses alone (python -m scripts.bench_losses), never steps of runs."""
    pairs = [(one, other) for one in _losses(claim.compare) for other in _losses(claim.against)]
    return Evidence(claim, tuple(place for pair in pairs for place in _cost(claim.metric, *pair)))


def _cost(cost: str, one: str, other: str) -> list[Place]:
    at = (("loss", f"{one} beside {other}"),)
    mine, theirs = ({str(row["size"]): row for row in records(where(costs(), loss=name))} for name in (one, other))
    if absent := [name for name, own in ((one, mine), (other, theirs)) if not own]:
        why = Reason(f"no measured cost of {joined(absent)}", reasons.UNMEASURED)
        return [Place(at, Differences(()), withheld=(why,))]
    shared = [(size, size) for size in mine if size in theirs]
    if cost == "operations":  # which the size of the data does not change
        shared = shared[:1] or [(next(iter(mine)), next(iter(theirs)))]
    if not shared:
        why = Reason(f"{one} and {other} were measured at different sizes", reasons.UNMEASURED)
        return [Place(at, Differences(()), withheld=(why,))]
    found = []
    for size, other_size in shared:
        ratios = tuple(math.log(mine[size][name] / theirs[other_size][name]) for name in MEASURED_AS[cost])
        found.append(Place((*at, ("size", size)) if len(shared) > 1 else at, Measures(ratios)))
    return found


def _losses(side: Values) -> list[str]:
    value = side.get("loss", "")
    return [str(one) for one in (value if isinstance(value, list) else [value])]


@functools.cache
def costs() -> pd.DataFrame:
    """Return the published costs of losses, a row for each loss and size: time of forward and backward in milliseconds
    (eager_ms) and in copies of the data (copies), memory beside the data (extra_memory, as a multiple of them), and
    tensor operations.
    """
    file = MEASURED / "loss_costs.csv"
    return pd.read_csv(file) if file.exists() else pd.DataFrame({"loss": [], "size": []})
