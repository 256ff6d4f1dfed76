"""Comparisons of losses with a baseline: intervals, verdicts, rates of failure, and how many seeds would decide.

Decided before the data: within a cell, paired differences by seed (`harness.analysis.estimates`); intervals that hold
together over the family "every loss against the baseline" (Bonferroni); a verdict is read off its interval, beside a
margin that was declared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import special
from scipy import stats as scipy_stats
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from harness.analysis.estimates import ALPHA, Estimate, Items, Scope, critical, estimate
from harness.analysis.reasons import Reason

if TYPE_CHECKING:
    from harness.metrics.declared import Metric

POWER = 0.8
MOST_SEEDS = 10_000  # beyond this a study "would need more than"
LEAST_DATA_SETS = 8  # for ranks over data sets: with fewer their tests have hardly any power

Verdict = Literal["better", "worse", "equivalent", "not decidable", "withheld"]


@dataclass(frozen=True)
class Interval:
    """A mean with its t interval; ``low``, ``high`` and ``sd`` are nan where n < 2."""

    mean: float
    low: float
    high: float
    sd: float
    n: int


@dataclass(frozen=True)
class Scale:
    """What differences of a metric can be.

    Attributes:
        higher_is_better: whether a positive difference is an improvement.
        margin: half-width of the interval in which a difference does not matter; 0: none is declared.
        low, high: the least and greatest difference that there can be.
        grain: the smallest step of a value; 0: it has none.
    """

    higher_is_better: bool = True
    margin: float = 0.0
    low: float = -math.inf
    high: float = math.inf
    grain: float = 0.0


@dataclass(frozen=True)
class Comparison:
    """One loss against the baseline on ``n`` pairs: differences are loss minus baseline, in the metric's unit.

    Attributes:
        n: pairs (seeds) that both completed, and learnt.
        difference: their mean.
        low, high: its interval over ``scope``, at level 1 - 0.05 / ``family``.
        seeds_low, seeds_high: its interval over seeds on these test items alone, at the same level.
        sd: standard deviation over seeds.
        p: two-sided p value of no difference, over ``scope``, times ``family`` (1 at most).
        verdict: read off the interval; withheld where a gate says why (``because``).
        scope: "new items" where item scores are known, else "seeds".
        family: number of comparisons that the intervals hold for together.
        sequential: whether they hold at every number of seeds at once.
        seeds_needed: how many seeds would decide, with 80 % power, at what was found; None where it is decided, where
            nothing can be estimated (n < 2), and where more than :data:`MOST_SEEDS` would be needed.
        effect: the difference in standard deviations over seeds (Cohen's d of pairs).
        improved, improved_low, improved_high: share of pairs in which the loss did better, ties counting half, with its
            Wilson interval.
        because: why the verdict is withheld.
    """

    n: int
    difference: float
    low: float
    high: float
    seeds_low: float
    seeds_high: float
    sd: float
    p: float
    verdict: Verdict
    scope: Scope
    family: int
    sequential: bool = False
    seeds_needed: int | None = None
    effect: float = math.nan
    improved: float = math.nan
    improved_low: float = math.nan
    improved_high: float = math.nan
    because: tuple[Reason, ...] = ()

    def withheld(self, because: Sequence[Reason]) -> Comparison:
        """Return the same comparison with its verdict withheld for these reasons; itself where there is none."""
        if not because:
            return self
        return replace(self, verdict="withheld", because=tuple(because), seeds_needed=None)

    @property
    def level(self) -> float:
        """The level of its interval over this comparison alone, 1 - 0.05 / family."""
        return 1 - ALPHA / max(1, self.family)


def mean_interval(
    values: ArrayLike, level: float = 1 - ALPHA, low: float = -math.inf, high: float = math.inf
) -> Interval:
    """Return the mean of ``values`` (n,) with its t interval at ``level``, cut off at ``low`` and ``high``;
    not-a-numbers are left out.

    >>> mean_interval([1.0, 2.0, 3.0]).low.__round__(3)
    -0.484
    """
    found = np.asarray(values, dtype=float)
    found = found[np.isfinite(found)]
    if found.size == 0:
        return Interval(math.nan, math.nan, math.nan, math.nan, 0)
    given = estimate(found)
    sd = float(found.std(ddof=1)) if found.size > 1 else math.nan
    return Interval(given.mean, *given.interval("seeds", 1 - level, low=low, high=high), sd, n=found.size)


def metric_interval(values: ArrayLike, metric: Metric) -> Interval:
    """Return the mean of values of a metric (n,) with its t interval, cut off at the metric's bounds.

    >>> from harness.metrics.declared import share
    >>> metric_interval([0.9, 1.0], share("top1", "accuracy")).high
    1.0
    """
    low = -math.inf if metric.low is None else metric.low
    return mean_interval(values, low=low, high=math.inf if metric.high is None else metric.high)


def verdict(low: float, high: float, scale: Scale) -> Verdict:
    """Return the verdict that an interval carries: equivalent inside the margin, better or worse on one side of 0.

    Equivalence goes first: a difference that is shown to be smaller than the margin is too small to matter, also where
    it is shown not to be zero.

    >>> [verdict(*ends, Scale(margin=1.0)) for ends in ((0.2, 0.8), (0.2, 1.5), (-2.0, -1.0), (-2.0, 2.0))]
    ['equivalent', 'better', 'worse', 'not decidable']
    """
    if -scale.margin < low and high < scale.margin:
        return "equivalent"
    if low > 0 or high < 0:
        return "better" if (low > 0) == scale.higher_is_better else "worse"
    return "not decidable"


def compare(
    differences: ArrayLike, scale: Scale, *, family: int = 1, items: Items | None = None, sequential: bool = False
) -> Comparison:
    """Compare a loss with its baseline.

    Args:
        differences: loss minus baseline by seed, (n,).
        scale: what differences of the metric can be.
        family: number of comparisons whose intervals are to hold together.
        items: differences on every test item, seed by seed.
        sequential: intervals hold at every number of seeds at once.
    """
    d = np.asarray(differences, dtype=float)
    found, alpha = estimate(d, items, scale.grain), ALPHA / max(1, family)
    ends = {
        scope: found.interval(scope, alpha, sequential=sequential, low=scale.low, high=scale.high)
        for scope in ("seeds", found.scope)
    }
    low, high = ends[found.scope]
    decided = verdict(low, high, scale)
    share = improvement(d, higher_is_better=scale.higher_is_better)
    return Comparison(
        n=d.size,
        difference=found.mean,
        low=low,
        high=high,
        seeds_low=ends["seeds"][0],
        seeds_high=ends["seeds"][1],
        sd=found.sd,
        p=min(1.0, family * found.p(found.scope, sequential=sequential)) if d.size > 1 else math.nan,
        verdict=decided,
        scope=found.scope,
        family=family,
        sequential=sequential,
        seeds_needed=seeds_needed(found, scale, alpha, sequential=sequential) if decided == "not decidable" else None,
        effect=found.mean / found.sd if d.size > 1 else math.nan,
        **dict(zip(("improved", "improved_low", "improved_high"), share, strict=True)),
    )


def compare_family(
    differences: Mapping[str, ArrayLike],
    scale: Scale,
    *,
    items: Mapping[str, Items] | None = None,
    sequential: bool = False,
) -> dict[str, Comparison]:
    """Compare every member of a family with its baseline; members with too few pairs count in the family too.

    Args:
        differences: by name, (n,) differences by seed.
        scale: what differences of the metric can be.
        items: by name, differences on every test item, seed by seed, where they are known.
        sequential: intervals hold at every number of seeds at once.
    """
    known = items or {}
    return {
        name: compare(d, scale, family=len(differences), items=known.get(name), sequential=sequential)
        for name, d in differences.items()
    }


def seeds_needed(found: Estimate, scale: Scale, alpha: float, *, sequential: bool = False) -> int | None:
    """Return how many seeds would decide with 80 % power, if difference and spread were as observed.

    The fewer of: enough to show the difference, enough to show that it lies inside the margin. What test items
    contribute does not shrink with seeds where every seed is tested on the same ones.

    Returns:
        A number above that of the seeds there are; None if it is more than :data:`MOST_SEEDS`, or nothing is known.
    """
    if found.n < 2:
        return None

    def decides(n: int) -> bool:
        return _decides(found, scale, alpha, n, POWER, sequential=sequential)

    low, high = found.n, 2 * found.n
    while not decides(high):
        low, high = high, 2 * high
        if low > MOST_SEEDS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decides(middle) else (middle, high)
    return high if high <= MOST_SEEDS else None


def within_reach(found: Estimate, scale: Scale, alpha: float, most: int) -> bool:
    """Return whether ``most`` seeds, looked at one after the other, may still decide a comparison.

    It is given up only where its interval would be too wide at that number even if the true difference lay one standard
    error nearer to a decision than the observed one. Giving up makes no verdict, so it adds no false one.
    """
    if found.n < 2:
        return True
    return _decides(found, scale, alpha, most, 0.5, sequential=True, slack=_error(found))


def _decides(
    found: Estimate, scale: Scale, alpha: float, n: int, power: float, *, sequential: bool, slack: float = 0.0
) -> bool:
    """Return whether n seeds decide with this power, either way; ``slack`` moves the difference in favour of it."""
    size = abs(found.mean)
    if _half_width(found, alpha, n, power, sequential=sequential) <= size + slack:
        return True
    # both ends of the interval have to lie inside the margin
    within = _half_width(found, alpha, n, (1 + power) / 2, sequential=sequential)
    return within <= scale.margin - max(size - slack, 0.0)


def _error(found: Estimate) -> float:
    return max(error for error, _ in found.standard_errors(found.scope))


def _half_width(found: Estimate, alpha: float, n: int, power: float, *, sequential: bool) -> float:
    """Return how wide half an interval of n seeds would be, with what chance adds to it at this power."""
    fixed = found.fixed_new**2 if found.scope == "new items" else 0.0
    moving = max(_error(found) ** 2 - fixed, 0.0) * found.n
    needed = critical(n - 1, alpha, sequential_pairs=n if sequential else None)
    return (needed + float(special.stdtrit(n - 1, power))) * math.sqrt(moving / n + fixed)


def welch(first: ArrayLike, second: ArrayLike, alpha: float = ALPHA) -> tuple[float, float, float, float]:
    """Return second (m,) minus first (n,), its interval at level 1 - ``alpha`` and the p value of no difference: two
    samples without pairs, whose spreads need not be equal (Welch's t). All but the difference are nan where a side has
    fewer than two values.

    >>> [round(x, 2) for x in welch([1.0, 2.0, 3.0], [3.0, 4.0, 5.0])]
    [2.0, -0.27, 4.27, 0.07]
    """
    a, b = (np.asarray(side, dtype=float) for side in (first, second))
    mean = float(b.mean() - a.mean()) if a.size and b.size else math.nan
    if min(a.size, b.size) < 2:
        return mean, math.nan, math.nan, math.nan
    parts = [max(side.var(ddof=1), 1e-24 * max(1.0, float(np.abs(side).max())) ** 2) / side.size for side in (a, b)]
    error = math.sqrt(sum(parts))
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / (a.size - 1) + parts[1] ** 2 / (b.size - 1))
    half = critical(freedom, alpha) * error
    return mean, mean - half, mean + half, float(2 * special.stdtr(freedom, -abs(mean / error)))


def improvement(differences: ArrayLike, *, higher_is_better: bool = True) -> tuple[float, float, float]:
    """Return the probability of improvement and its 95 % Wilson interval: the share of pairs (n,) in which the loss
    did better, ties counting half. All nan where n = 0.

    >>> [round(p, 2) for p in improvement([1.0, 2.0, -1.0, 0.0])]
    [0.62, 0.22, 0.91]
    """
    d = np.asarray(differences, dtype=float) * (1 if higher_is_better else -1)
    if not d.size:
        return math.nan, math.nan, math.nan
    wins = float((d > 0).sum() + 0.5 * (d == 0).sum())
    interval: Any = proportion_confint(wins, d.size, ALPHA, method="wilson")
    return wins / d.size, float(interval[0]), float(interval[1])


@dataclass(frozen=True)
class Rate:
    """How many of some runs failed, with the 95 % Wilson interval of the rate."""

    failed: int
    runs: int
    low: float
    high: float


def rate(failed: int, runs: int) -> Rate:
    """Return the rate at which runs fail; the interval is [0, 1] where there are none.

    >>> found = rate(1, 8)
    >>> round(found.low, 3), round(found.high, 3)
    (0.022, 0.471)
    """
    if not runs:
        return Rate(failed, runs, 0.0, 1.0)
    ends: Any = proportion_confint(failed, runs, ALPHA, method="wilson")
    return Rate(failed, runs, float(ends[0]), float(ends[1]))


class RateDifference(NamedTuple):
    """A difference of two rates with its interval (Newcombe) and the two-sided p value of Fisher's exact test, both
    corrected over a family.
    """

    difference: float
    low: float
    high: float
    p: float


def rate_difference(first: Rate, second: Rate, family: int = 1) -> RateDifference:
    """Return how much more often the runs of ``second`` fail than those of ``first``; ``family``: number of rates whose
    intervals hold together.

    >>> round(rate_difference(rate(0, 8), rate(8, 8)).p, 5)
    0.00016
    """
    if not (first.runs and second.runs):
        return RateDifference(math.nan, math.nan, math.nan, math.nan)
    counts = second.failed, second.runs, first.failed, first.runs
    low, high = confint_proportions_2indep(*counts, method="newcomb", compare="diff", alpha=ALPHA / family)
    table = [[each.failed, each.runs - each.failed] for each in (first, second)]
    p: Any = scipy_stats.fisher_exact(table)
    difference = second.failed / second.runs - first.failed / first.runs
    return RateDifference(difference, float(low), float(high), min(1.0, family * float(p[1])))


class Ranks(NamedTuple):
    """Results of :func:`ranks`: mean rank by method (1 is best), p of Friedman's test that all methods are alike, and
    the p values of Nemenyi's test for every two of them.
    """

    mean: pd.Series
    p: float
    pairs: pd.DataFrame


def ranks(scores: pd.DataFrame, *, higher_is_better: bool) -> Ranks:
    """Compare methods over data sets (Demsar, JMLR 2006): Friedman's test, then Nemenyi's for every pair.

    Args:
        scores: a row for each data set, a column for each of three methods or more; no value missing.
        higher_is_better: whether the greatest score of a row has rank 1.

    Raises:
        ValueError: fewer than three methods, or fewer data sets than :data:`LEAST_DATA_SETS`.
    """
    import scikit_posthocs

    if scores.shape[1] < 3 or len(scores) < LEAST_DATA_SETS:
        raise ValueError(
            f"{scores.shape[1]} methods on {len(scores)} data sets cannot be ranked: it takes 3 methods and "
            f"{LEAST_DATA_SETS} data sets or more."
        )
    mean = scores.rank(axis=1, ascending=not higher_is_better).mean()
    p = scipy_stats.friedmanchisquare(*(scores[name] for name in scores)).pvalue
    return Ranks(mean, float(p), scikit_posthocs.posthoc_nemenyi_friedman(scores))
