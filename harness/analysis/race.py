"""Which losses are out of a race: bounds that hold at every look, over all losses, from two or three seeds on.

Losses run seed by seed, and one is out when another is shown to be better. With two or three seeds the spread of one
comparison is hardly known, but many comparisons together say how large spreads are and how much they differ. So every
spread is drawn towards the common one by as much as they are alike (Smyth 2004, Statistical Applications in Genetics
and Molecular Biology 3(1), for genes): a spread of v degrees of freedom borrows d more from the others, none where
spreads differ widely or losses are few. Where scores of test items are known, spreads are compared with what drawing
items alone would give, which explains most of how they differ.

A loss is out if the bound of any other against it lies above 0 at the one-sided level alpha / (k - 1), for k losses
at the start. The best is out wrongly only if one of its own k - 1 comparisons fails, at whatever look; the bound of
each holds at all looks at once (`estimates.e_value`). ``python -m scripts.simulate_race`` measures the error.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from harness.analysis.estimates import ALPHA, LEAST, ROUNDING, critical

if TYPE_CHECKING:
    from harness.analysis.cells import Analysis, Cell

Scores = Mapping[str, Mapping[int, float]]
"""Of every loss, its score by seed; the higher, the better."""
Array = NDArray[np.float64]
MOST = 4.0
"""Degrees of freedom that a spread borrows at most: with more, a best loss that spreads several times more than the
others is dropped too often (``scripts.simulate_race``)."""
MOST_OF_ITEMS = 8.0
"""The same where scores of test items are known, which foretell spreads well: in the published studies what is left to
explain is worth more than twenty degrees of freedom among the better losses (``scripts.replay_race``)."""
UNUSUAL = 0.05
"""A loss keeps to its own spread where so large a one would be so improbable among the others."""
POOLED = 5  # losses whose spreads are looked at, at least; else the better half
PRIOR = 25.0
"""Variance of the standardised effect that the bound has in mind: differences of five deviations are found soonest,
those of one later by a tenth than with `estimates.PRIOR`."""
FIRST = 2
"""Seeds before the first look."""
KNOWN = 1e6  # degrees of freedom of a variance that is as good as known


@dataclass(frozen=True)
class Standing:
    """How one loss stands in a race; differences are in the metric's unit.

    Attributes:
        label: the loss.
        n: seeds with a score.
        mean: its mean score.
        behind: by how much it is worse than the leader, on the seeds that both have; 0 for the leader.
        beaten_by: the loss that beats it by the widest bound; empty: it is in the race.
        by: the least by which it is beaten.
        trails: the most by which it may be worse than any loss in the race; infinite while nothing is known.
    """

    label: str
    n: int
    mean: float
    behind: float
    beaten_by: str
    by: float
    trails: float

    @property
    def open(self) -> bool:
        """Whether it may be the best."""
        return not self.beaten_by


@dataclass(frozen=True)
class Shared:
    """What variances of many comparisons have in common: their typical value, and how many degrees of freedom that is
    worth to each of them (0: they have nothing in common; infinite: they are one).
    """

    variance: float
    freedom: float


def shared(variances: Array, freedoms: Array) -> Shared:
    """Return what sample variances have in common, by the moments of their logarithms.

    Args:
        variances: (m,), above 0.
        freedoms: degrees of freedom of each, (m,).

    >>> found = shared(np.array([1.0, 1.1, 0.9, 1.0]), np.full(4, 2.0))
    >>> found.freedom
    inf
    """
    if variances.size < 2:
        return Shared(1.0, 0.0)
    logs = np.log(variances) - special.digamma(freedoms / 2) + np.log(freedoms / 2)
    mean = float(logs.mean())
    excess = float(logs.var(ddof=1) - special.polygamma(1, freedoms / 2).mean())
    half = _inverse_trigamma(excess) if excess > 0 else math.inf
    if not math.isfinite(half):
        return Shared(math.exp(mean), math.inf)
    return Shared(math.exp(mean + float(special.digamma(half)) - math.log(half)), 2 * half)


def _inverse_trigamma(value: float) -> float:
    """Return x with trigamma(x) = ``value``; infinity below what matters."""
    if value < 1 / KNOWN:
        return math.inf
    return float(optimize.brentq(lambda x: special.polygamma(1, x) - value, 1e-4, 2 * KNOWN))


def standings(
    scores: Scores, *, alpha: float = ALPHA, grain: float = 0.0, noise: Array | None = None
) -> list[Standing]:
    """Return how all losses of a race stand, the best mean first.

    Args:
        scores: of all losses that began, those that are out included, at least two.
        alpha: probability that the best is out, at any look.
        grain: the smallest step of a score; 0: it has none.
        noise: how large a variance of each difference the test items alone would give, (k, k), in the order of
            ``scores`` (:func:`item_noise`); None: not known.
    """
    labels, table = _table(scores)
    bounds = _Bounds(table, alpha, grain, noise)
    lows = np.where(np.isfinite(bounds.low), bounds.low, -math.inf)  # of row over column
    winners = lows.argmax(axis=0)
    beaten = lows.max(axis=0) > 0
    means = np.array([np.nanmean(row) if np.isfinite(row).any() else -math.inf for row in table])
    still = np.flatnonzero(~beaten)
    leader = int(still[means[still].argmax()])
    found = [
        Standing(
            label,
            int(np.isfinite(table[i]).sum()),
            float(means[i]),
            _difference(table[leader], table[i]),
            labels[int(winners[i])] if beaten[i] else "",
            float(lows[winners[i], i]) if beaten[i] else 0.0,
            float(max((bounds.high[j, i] for j in still if j != i), default=0.0)),
        )
        for i, label in enumerate(labels)
    ]
    return sorted(found, key=lambda each: -each.mean)


def equivalent(found: Sequence[Standing], margin: float) -> bool:
    """Return whether every loss in the race is within the margin of the best, with the certainty of the race."""
    return margin > 0 and all(each.trails < margin for each in found if each.open)


def scores_of(a: Analysis, cell: Cell) -> dict[str, dict[int, float]]:
    """Return the score of every loss in a cell by seed, the higher the better, of the runs that a report compares."""
    sign = 1 if a.metric.higher_is_better else -1
    found: dict[str, dict[int, float]] = {}
    for label in a.labels:
        runs = a.compared(cell, label) if (cell, label) in a.done else None
        if runs is not None and len(runs):
            found[label] = {int(s): sign * float(v) for s, v in zip(runs["seed"], runs["value"], strict=True)}
    return found


def noise_of(a: Analysis, cell: Cell, labels: Iterable[str]) -> Array | None:
    """Return what test items alone make of the spreads of differences (:func:`item_noise`), in the order of labels."""
    found: dict[str, dict[int, Array]] = {}
    for label in labels:
        runs, found[label] = a.compared(cell, label), {}
        for key, seed in zip(runs["key"], runs["seed"], strict=True):
            if (scores := a.study.item_scores(str(key), a.metric.key)) is None:
                return None
            found[label][int(seed)] = scores[1]
    return item_noise(found)


def of_cell(a: Analysis, cell: Cell) -> list[Standing]:
    """Return how the losses of a cell stand, the best mean first; none where fewer than two have a score."""
    scores = scores_of(a, cell)
    return standings(scores, grain=a.grain(cell), noise=noise_of(a, cell, scores)) if len(scores) > 1 else []


def _table(scores: Scores) -> tuple[list[str], Array]:
    """Return the losses and their scores, (k, seeds); nan where there is none."""
    seeds = sorted({seed for each in scores.values() for seed in each})
    return list(scores), np.array([[each.get(seed, math.nan) for seed in seeds] for each in scores.values()])


def _difference(first: Array, second: Array) -> float:
    both = np.isfinite(first) & np.isfinite(second)
    return float((first[both] - second[both]).mean()) if both.any() else math.nan


class _Bounds:
    """Intervals of the improvement of every loss (row) over every other (column), ``low`` and ``high``, (k, k)."""

    def __init__(self, table: Array, alpha: float, grain: float, noise: Array | None) -> None:
        k = len(table)
        self.low, self.high = np.full((k, k), -math.inf), np.full((k, k), math.inf)
        mean, variance, n = _pairs(table)
        least = max(grain * ROUNDING, LEAST * max(1.0, float(np.nanmax(np.abs(table), initial=0.0)))) ** 2
        variance = np.maximum(variance, least)
        known = (n >= 2) & ~np.eye(k, dtype=bool)
        expected = np.ones((k, k)) if noise is None else np.maximum(noise, least)
        most = MOST if noise is None else MOST_OF_ITEMS
        better = _better(mean, known)
        pooled = known & np.triu(better[:, None] & better[None, :])
        common = shared((variance / expected)[pooled], n[pooled] - 1.0)
        usual = common.variance * expected
        counts = np.isfinite(table).sum(axis=1)[better]
        independent = float(np.maximum(counts - 1, 0).sum() - max(counts.max(initial=1) - 1, 0))
        odd = _unusual(np.where(known & better[None, :], variance / usual, math.nan), n.max(axis=1), common.freedom)
        level = min(1.0, 2 * alpha / max(1, k - 1))
        for pairs in np.unique(n[known]).tolist():
            borrowed = max(0.0, min(common.freedom, most, independent - (pairs - 1)))
            for here, more, typical in ((known & ~odd, borrowed, usual), (known & odd, min(borrowed, MOST), variance)):
                at = here & (n == pairs)
                own = (pairs - 1) * variance[at] + more * typical[at]
                error = np.sqrt(np.maximum(own / (pairs - 1 + more), least) / pairs)
                half = critical(pairs - 1, level, sequential_pairs=pairs, borrowed=more, prior=PRIOR) * error
                self.low[at], self.high[at] = mean[at] - half, mean[at] + half


def _better(mean: Array, known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which losses are the better half, (k,), by their mean improvement over all that they share seeds with."""
    k = len(mean)
    rank = np.where(known, mean, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    found = np.zeros(k, dtype=bool)
    found[np.argsort(-rank)[: max(POOLED, (k + 1) // 2)]] = True
    return found


def _unusual(ratios: Array, n: NDArray[np.int64], freedom: float) -> NDArray[np.bool_]:
    """Return which pairs, (k, k), have a loss whose spread beside the usual one is larger than chance explains."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a loss without any pair
        typical = np.nanmedian(ratios, axis=1)
    limit = special.fdtri(np.maximum(n - 1.0, 1.0), max(min(freedom, KNOWN), 1e-3), 1 - UNUSUAL)
    odd = np.nan_to_num(typical) > limit
    return odd[:, None] | odd[None, :]


def item_noise(items: Mapping[str, Mapping[int, Array]]) -> Array | None:
    """Return how large a variance of the difference of every two losses the test items alone would give, (k, k), the
    mean over the seeds that both have; None where scores of items are unknown, or not of the same items.

    Args:
        items: of every loss, by seed, its scores on the test items of that seed.
    """
    k = len(items)
    total, n = np.zeros((k, k)), np.zeros((k, k))
    for seed in sorted({seed for each in items.values() for seed in each}):
        having = [(i, each[seed]) for i, each in enumerate(items.values()) if seed in each]
        if len({len(scores) for _, scores in having}) > 1:
            return None
        at = np.ix_([i for i, _ in having], [i for i, _ in having])
        centred = np.array([scores - scores.mean() for _, scores in having])
        products = centred @ centred.T / centred.shape[1] ** 2
        own = np.diag(products)
        total[at] += own[:, None] + own[None, :] - 2 * products
        n[at] += 1
    return total / np.maximum(n, 1) if n.size and n.min() > 0 else None


def _pairs(table: Array) -> tuple[Array, Array, NDArray[np.int64]]:
    """Return mean, variance (nan below two) and number of the differences of every two rows, each (k, k)."""
    present = np.isfinite(table)
    both = (present[:, None, :] & present[None, :, :]).astype(float)
    d = np.where(both > 0, np.nan_to_num(table)[:, None, :] - np.nan_to_num(table)[None, :, :], 0.0)
    n = both.sum(axis=2)
    mean = d.sum(axis=2) / np.maximum(n, 1)
    squares = (both * (d - mean[:, :, None]) ** 2).sum(axis=2)
    return mean, np.where(n >= 2, squares / np.maximum(n - 1, 1), math.nan), n.astype(np.int64)
