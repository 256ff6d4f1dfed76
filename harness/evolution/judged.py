"""Choice and test: one half of the test items chooses among the finalists of a search, the other half tests the choice.

The search itself saw validation data alone. The halves are every second test item, in the order of the official file;
seeds are those of the test, which no candidate was trained with. So what the search, the choice and the test look at is
disjoint, and the fall from one to the next (the winner's curse) is seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from harness import records
from harness.analysis.stats import Comparison, Scale, compare_family
from harness.errors import UsageError
from harness.evolution.methods import METHODS
from harness.evolution.search import REFERENCES, Searched
from harness.metrics.items import scores
from harness.paths import RESULTS
from harness.plan import Run
from harness.records import items
from harness.text import count

BASELINE = "cross_entropy"
Scored = dict[int, tuple[np.ndarray, np.ndarray]]
"""By seed: positions of test items, and what the run scores on each."""


@dataclass(frozen=True)
class Final:
    """A loss that was chosen among, or that stands beside, with its scores in the metric's own unit.

    Attributes:
        name: of a reference, else the formula.
        method: of a reference empty.
        formula: the loss.
        searched: validation score on the seeds of the search, all of them or as many as it got.
        chosen_by: score on the half of the test items that chooses, mean over the test seeds.
        tested: score on the other half.
        against: `tested` against cross-entropy; None for cross-entropy itself.
        winner: whether it is the choice of its method.
        runs: keys of the runs on the test seeds.
    """

    name: str
    method: str
    formula: str
    searched: float
    chosen_by: float
    tested: float
    against: Comparison | None
    winner: bool
    runs: tuple[str, ...]


@dataclass(frozen=True)
class Judged:
    """A search with its finals: references first, then the finalists of every method, the best by choice first."""

    searched: Searched
    finals: list[Final]

    def winner(self, method: str) -> Final | None:
        """Return the choice of a method."""
        return next((each for each in self.finals if each.method == method and each.winner), None)

    @property
    def best(self) -> Final | None:
        """The choice of the first method that searched formulas."""
        return next((each for each in self.finals if each.winner), None)


def judge(searched: Searched, finals: Mapping[str, list[Run]], results: Path = RESULTS) -> Judged:
    """Choose among the finalists, and test.

    Args:
        searched: the search.
        finals: runs on the test seeds, by formula or name of a reference.
        results: where records are.

    Raises:
        UsageError: the metric is kept of whole test sets alone, so that they cannot be halved.
    """
    metric = searched.metric
    sign = 1 if metric.higher_is_better else -1
    halves = {
        name: [_half(_scored(runs, metric.key, results), half) for half in (0, 1)] for name, runs in finals.items()
    }
    means = {name: [_mean(half) for half in both] for name, both in halves.items()}
    found = {name: _against(halves, name) for name in finals if name != BASELINE}
    pairs = {name: [float(d.mean()) for _, d in each] for name, each in found.items()}
    span = math.inf if metric.low is None or metric.high is None else metric.high - metric.low
    grain = 1 / max(1, _items(halves[BASELINE][1])) if metric.grain else 0.0
    scale = Scale(metric.higher_is_better, searched.asked.margin, -span, span, grain)
    compared = compare_family(pairs, scale, items=found)
    listed: list[Final] = []
    for name, method, formula, score in _listed(searched, finals):
        chosen, tested = means[name]
        keys = tuple(run.key for run in finals[name])
        listed.append(Final(name, method, formula, sign * score, chosen, tested, compared.get(name), False, keys))
    return Judged(searched, _with_winners(listed, sign))


def _listed(searched: Searched, finals: Mapping[str, list[Run]]) -> list[tuple[str, str, str, float]]:
    """Return name, method, formula and fitness of everything in the finals."""
    rows = [(name, "", text, searched.references[name].scores[-1]) for name, text in REFERENCES.items()]
    for method in searched.generations:
        if not METHODS[method].fixed:
            for each in searched.finalists(method):
                rows.append((each.formula, method, each.formula, each.fitness[1]))
    return [row for row in rows if row[0] in finals]


def _with_winners(listed: list[Final], sign: int) -> list[Final]:
    """Return the finals ordered by choice within their method, the first of each method marked."""
    order = {method: place for place, method in enumerate(dict.fromkeys(each.method for each in listed))}

    def place(each: Final) -> tuple[int, float]:
        return order[each.method], -sign * each.chosen_by if each.method else 0.0

    seen: set[str] = {""}
    found = []
    for each in sorted(listed, key=place):
        found.append(replace(each, winner=each.method not in seen and math.isfinite(each.chosen_by)))
        seen.add(each.method)
    return found


def _scored(runs: list[Run], metric: str, results: Path) -> Scored:
    """Return what runs score on every test item, by seed; those that did not complete are left out.

    Raises:
        UsageError: the metric is kept of the whole test set alone.
    """
    found: Scored = {}
    for run in runs:
        record = records.read(run.key, results)
        if not record or record["status"] != "done":
            continue
        kept = items.of_test_set(items.load(records.run_folder(run.key, results)) or {}, "test")
        each = scores(metric, kept) if kept else None
        if each is None:
            raise UsageError(f"metric={metric} is not kept item by item, so that no half of the test set can choose.")
        found[run.seed] = (kept["item"], each)
    return found


def _half(scored: Scored, half: int) -> Scored:
    """Return every second test item."""
    found: Scored = {}
    for seed, (positions, each) in scored.items():
        order = np.argsort(positions, kind="stable")[half::2]
        found[seed] = (positions[order], each[order])
    return found


def _mean(scored: Scored) -> float:
    return float(np.mean([each.mean() for _, each in scored.values()])) if scored else float("nan")


def _items(scored: Scored) -> int:
    return max((len(each) for _, each in scored.values()), default=0)


def _against(halves: Mapping[str, list[Scored]], name: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the test items of each seed, and the differences from cross-entropy on them."""
    mine, theirs = halves[name][1], halves[BASELINE][1]
    return [(mine[seed][0], mine[seed][1] - theirs[seed][1]) for seed in mine if seed in theirs]


def told(found: Judged) -> list[str]:
    """Return the outcome as lines."""
    metric, searched = found.searched.metric, found.searched
    lines = ["", f"{metric.title} on validation (search), on the choosing and on the testing half of the test items; "
             f"{count(searched.trained, 'run')}"]  # fmt: skip
    for each in found.finals:
        numbers = " -> ".join(metric.number(value) for value in (each.searched, each.chosen_by, each.tested))
        against = f", {metric.difference(each.against)} {each.against.verdict}" if each.against else ""
        lines.append(f"  {'*' if each.winner else ' '} {each.method or 'reference':<9} {numbers}{against}  {each.name}")
    for method in (name for name in searched.generations if METHODS[name].fixed):
        best = searched.value(searched.members(method)[0].fitness[1])
        baseline = next(each for each in found.finals if each.name == BASELINE)
        lines.append(f"    {method:<9} {metric.number(best)} -> {metric.number(baseline.chosen_by)} -> "
                     f"{metric.number(baseline.tested)}  the best of as many seeds of cross-entropy")  # fmt: skip
    return lines
