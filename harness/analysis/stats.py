"""Inference on paired differences: intervals, tests, equivalence, verdicts, and how many seeds would decide.

Decided before the data: within a cell a paired t test by seed; across cells sign flips of whole seeds; Holm over the
family "every loss against the baseline"; two one-sided tests against a declared margin.
Arrays carry the pairs in their last axis, so that thousands of simulated studies are one call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import special
from scipy import stats as scipy_stats
from statsmodels.stats.power import TTestPower
from statsmodels.stats.proportion import proportion_confint

ALPHA = 0.05
POWER = 0.8
MOST_SEEDS = 10_000  # beyond this a study "would need more than"
LEAST_DATA_SETS = 8  # for ranks over data sets: with fewer their tests have hardly any power
EXACT_FLIPS_UP_TO = 14  # seeds: 2^14 flips are enumerated; more are sampled

Verdict = Literal["better", "worse", "equivalent", "not decidable"]
Test = Literal["paired t", "sign flip"]
Values = NDArray[np.float64]


class PairedTests(NamedTuple):
    """Results of :func:`paired_tests`, each of the shape of its input without the last axis."""

    mean: Values
    sd: Values
    low: Values
    high: Values
    p: Values
    p_equivalent: Values


@dataclass(frozen=True)
class Interval:
    """A mean with its t interval; ``low``, ``high`` and ``sd`` are nan where n < 2."""

    mean: float
    low: float
    high: float
    sd: float
    n: int


@dataclass(frozen=True)
class Comparison:
    """One loss against the baseline on ``n`` pairs: differences are loss minus baseline, in the metric's unit.

    ``effect`` is the difference in standard deviations of the differences (Cohen's d of pairs), ``improved`` the share
    of pairs in which the loss did better, ties counting half, with ``improved_low`` and ``improved_high``, its Wilson
    interval; ``p_holm`` and ``p_equivalent_holm`` are adjusted over the family; ``seeds_needed`` is None where it is
    decided, where nothing can be estimated (n < 2), and where more than :data:`MOST_SEEDS` would be needed.
    """

    n: int
    difference: float
    low: float
    high: float
    sd: float
    p: float
    p_holm: float
    p_equivalent: float
    p_equivalent_holm: float
    verdict: Verdict
    seeds_needed: int | None
    test: Test
    effect: float = math.nan
    improved: float = math.nan
    improved_low: float = math.nan
    improved_high: float = math.nan


def mean_interval(values: ArrayLike, level: float = 1 - ALPHA) -> Interval:
    """Return the mean of ``values`` (n,) with its t interval at ``level``; not-a-numbers are left out.

    >>> mean_interval([1.0, 2.0, 3.0]).low.__round__(3)
    -0.484
    """
    found = np.asarray(values, dtype=float)
    found = found[np.isfinite(found)]
    if found.size == 0:
        return Interval(math.nan, math.nan, math.nan, math.nan, 0)
    tests = paired_tests(found, margin=0.0, level=level)
    return Interval(*(float(value) for value in (tests.mean, tests.low, tests.high, tests.sd)), n=found.size)


def paired_tests(differences: ArrayLike, margin: float, level: float = 1 - ALPHA) -> PairedTests:
    """Test paired differences (..., n) against zero and, two one-sided tests, for lying inside ±``margin``.

    Student's t on n - 1 degrees of freedom, written out because scipy's own functions take milliseconds a call. Where
    all n differences are equal there is no spread to estimate (a coarse metric, or truly the same function): then the
    exact sign test stands in, so two lucky pairs decide nothing.
    Where n < 2, everything but the mean is nan. A margin of 0 declares no equivalence: ``p_equivalent`` is 1.
    """
    d = np.asarray(differences, dtype=float)
    n = d.shape[-1]
    mean = d.mean(axis=-1)
    if n < 2:
        nan = np.full(mean.shape, math.nan)
        return PairedTests(mean, nan, nan, nan, nan, nan)
    sd = d.std(axis=-1, ddof=1)
    flat = np.ptp(d, axis=-1) <= 1e-9 * np.abs(mean) + 1e-12  # rounding is no spread
    error = np.sqrt(np.mean((d - mean[..., None]) ** 2, axis=-1) * (n / (n - 1)) / n)
    with np.errstate(divide="ignore", invalid="ignore"):  # rows without spread, which are replaced below
        p = 2 * special.stdtr(n - 1, -np.abs(mean / error))
        above = special.stdtr(n - 1, -(mean + margin) / error)
        below = special.stdtr(n - 1, (mean - margin) / error)
    tail = (1 - level) / 2
    low, high = (special.stdtrit(n - 1, side) * error + mean for side in (tail, 1 - tail))
    sign_p = np.where(np.abs(mean) <= 1e-12, 1.0, least_sign_flip_p(n))
    sign_equivalent = np.where(np.abs(mean) < margin, 2.0**-n, 1.0)
    equivalent = np.where(flat, sign_equivalent, np.maximum(above, below)) if margin > 0 else np.ones(mean.shape)
    return PairedTests(
        mean,
        sd,
        np.where(flat, mean, low),
        np.where(flat, mean, high),
        np.where(flat, sign_p, p),
        equivalent,
    )


def non_inferior(differences: ArrayLike, margin: float) -> tuple[float, float]:
    """Return the one-sided p values that the mean of differences (n,) is above -``margin``, and that it is below it.

    Student's t; where all differences are equal the exact sign test, as in :func:`paired_tests`.

    >>> [round(p, 3) for p in non_inferior([0.0, 1.0, 2.0], margin=1.0)]
    [0.037, 0.5]
    """
    d = np.asarray(differences, dtype=float)
    if d.size < 2:
        return math.nan, math.nan
    if np.ptp(d) <= 1e-9 * abs(d.mean()) + 1e-12:
        least = 2.0**-d.size
        return (least if d.mean() > -margin else 1.0), (least if d.mean() < margin else 1.0)
    mean, error = float(d.mean()), float(d.std(ddof=1)) / math.sqrt(d.size)
    above, below = (float(special.stdtr(d.size - 1, t / error)) for t in (-mean - margin, mean - margin))
    return above, below


def welch_tests(first: ArrayLike, second: ArrayLike, margin: float, level: float = 1 - ALPHA) -> PairedTests:
    """Test second (m,) minus first (n,), two samples without pairs, as :func:`paired_tests` does differences.

    Welch's t: the spreads need not be equal. Where neither side has any spread the exact permutation test stands in,
    whose least p value is 2 in as many as there are ways to deal the values. ``sd`` is that of the difference of means.
    Where a side has fewer than two values, everything but the mean is nan.
    """
    sides = [np.asarray(side, dtype=float) for side in (first, second)]
    n, m = (side.size for side in sides)
    mean = float(sides[1].mean() - sides[0].mean()) if n and m else math.nan
    if min(n, m) < 2:
        return PairedTests(*(np.asarray(value) for value in (mean, *[math.nan] * 5)))
    parts = [side.var(ddof=1) / side.size for side in sides]
    error = math.sqrt(sum(parts))
    if error <= 1e-9 * abs(mean) + 1e-12:
        least = 1 / math.comb(n + m, n)
        p = 1.0 if abs(mean) <= 1e-12 else min(1.0, 2 * least)
        return PairedTests(*map(np.asarray, (mean, 0.0, mean, mean, p, least if abs(mean) < margin else 1.0)))
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / (n - 1) + parts[1] ** 2 / (m - 1))
    p, above, below = (
        special.stdtr(freedom, t) for t in (-abs(mean / error), -(mean + margin) / error, (mean - margin) / error)
    )
    half = special.stdtrit(freedom, 1 - (1 - level) / 2) * error
    equivalent = max(above, below) if margin > 0 else 1.0
    return PairedTests(*map(np.asarray, (mean, error, mean - half, mean + half, 2 * p, equivalent)))


def holm(p: ArrayLike) -> Values:
    """Return the p values (..., k) of families of k, adjusted by Holm's step-down method.

    A p value that is nan (not tested) stays nan, but still counts in its family. Written here because statsmodels'
    multipletests takes one family at a time and collects garbage in every call; a test holds the two together.

    >>> holm([0.01, 0.04, 0.03]).round(3).tolist()
    [0.03, 0.06, 0.06]
    """
    given = np.asarray(p, dtype=float)
    order = np.argsort(given, axis=-1)  # nan goes last
    steps = np.take_along_axis(given, order, axis=-1) * np.arange(given.shape[-1], 0, -1)
    adjusted = np.empty_like(given)
    np.put_along_axis(adjusted, order, np.minimum(np.maximum.accumulate(steps, axis=-1), 1.0), axis=-1)
    return adjusted


def least_sign_flip_p(n: int) -> float:
    """Return the least two-sided p value that a sign-flip test over ``n`` seeds can give.

    >>> least_sign_flip_p(5)
    0.0625
    """
    return min(1.0, 2.0 / 2**n)


def sign_flip(blocks: ArrayLike) -> float:
    """Return the two-sided p value that the mean over seeds is zero, by flipping the sign of whole seeds.

    Args:
        blocks: (n,) one value per seed: its mean difference over all cells, so that the cells of a seed, which share
            initial weights and batches, flip together.

    Every one of the 2^n flips is enumerated up to :data:`EXACT_FLIPS_UP_TO` seeds, beyond that they are sampled.
    """
    given = np.asarray(blocks, dtype=float)
    if given.size < 2:
        return math.nan
    exact = given.size <= EXACT_FLIPS_UP_TO
    result = scipy_stats.permutation_test(
        (given,),
        lambda x, axis: np.mean(x, axis=axis),
        permutation_type="samples",
        n_resamples=2**given.size if exact else 2**EXACT_FLIPS_UP_TO - 1,
        vectorized=True,
        rng=np.random.default_rng(0),
    )
    return float(result.pvalue)


def seeds_needed(difference: float, sd: float, margin: float, comparisons: int, test: Test = "paired t") -> int | None:
    """Return how many seeds would decide with 80 % power, if difference and spread were as observed.

    The fewer of: enough to show the difference, enough to show that it lies inside ±``margin``; each at the level
    :data:`ALPHA` / ``comparisons``, at which Holm starts. None if that is more than :data:`MOST_SEEDS`.
    """
    if not (math.isfinite(difference) and sd > 0):
        return None
    power, alpha = TTestPower(), ALPHA / max(1, comparisons)

    def differs(n: int) -> float:
        # an effect of 20 standard deviations needs the fewest seeds there are; more makes the noncentral t overflow
        return float(power.power(min(abs(difference) / sd, 20.0), n, alpha))

    def is_equivalent(n: int) -> float:
        near, far = ((margin - sign * abs(difference)) / sd for sign in (1, -1))
        sides = (power.power(min(side, 20.0), n, alpha, alternative="larger") for side in (near, far))
        return float(sum(sides)) - 1

    found = [_least(differs)]
    if abs(difference) < margin:
        found.append(_least(is_equivalent))
    fewest = min((n for n in found if n is not None), default=None)
    if fewest is not None and test == "sign flip":
        fewest = max(fewest, math.ceil(math.log2(2 / alpha)))
    return fewest


def _least(power_at: Callable[[int], float]) -> int | None:
    low, high = 1, 2
    while power_at(high) < POWER:
        low, high = high, 2 * high
        if low > MOST_SEEDS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power_at(middle) >= POWER else (middle, high)
    return high if high <= MOST_SEEDS else None


def verdict(difference: float, p_holm: float, p_equivalent_holm: float, *, higher_is_better: bool) -> Verdict:
    """Return the verdict of one comparison from its adjusted p values.

    Equivalence goes first: a difference shown to be smaller than the margin is too small to matter, also when it is
    shown not to be zero.
    """
    if p_equivalent_holm < ALPHA:
        return "equivalent"
    if p_holm < ALPHA:
        return "better" if (difference > 0) == higher_is_better else "worse"
    return "not decidable"


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


def _improvement(differences: Values, higher_is_better: bool) -> dict[str, float]:
    found = improvement(differences, higher_is_better=higher_is_better)
    return dict(zip(("improved", "improved_low", "improved_high"), found, strict=True))


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


def compare_family(
    differences: Mapping[str, ArrayLike], *, margin: float, higher_is_better: bool, test: Test = "paired t"
) -> dict[str, Comparison]:
    """Compare every member of a family with its baseline.

    Args:
        differences: by name, (n,) differences of the pairs, or with ``test="sign flip"`` of the seeds (their means over
            cells). Members with too few pairs stay in the family: they count in Holm's correction.
        margin: half-width of the interval in which a difference does not matter, in the metric's unit; 0 for none.
        higher_is_better: whether a positive difference is an improvement.
        test: how p values of the difference arise; intervals and equivalence are Student's in both cases.
    """
    names = list(differences)
    pairs = {name: np.asarray(values, dtype=float) for name, values in differences.items()}
    nan = np.asarray(math.nan)
    tests = {
        name: paired_tests(d, margin) if d.size else PairedTests(nan, nan, nan, nan, nan, nan)
        for name, d in pairs.items()
    }
    p = [sign_flip(pairs[name]) if test == "sign flip" else float(tests[name].p) for name in names]
    p_holm = holm(p)
    p_equivalent_holm = holm([float(tests[name].p_equivalent) for name in names])
    compared = {}
    for i, name in enumerate(names):
        t = tests[name]
        mean, sd = float(t.mean), float(t.sd)
        decided = verdict(mean, p_holm[i], p_equivalent_holm[i], higher_is_better=higher_is_better)
        open_ = decided == "not decidable" and pairs[name].size >= 2
        needed = seeds_needed(mean, sd, margin, len(names), test) if open_ else None
        compared[name] = Comparison(
            n=pairs[name].size,
            difference=mean,
            low=float(t.low),
            high=float(t.high),
            sd=sd,
            p=p[i],
            p_holm=float(p_holm[i]),
            p_equivalent=float(t.p_equivalent),
            p_equivalent_holm=float(p_equivalent_holm[i]),
            verdict=decided,
            seeds_needed=needed if needed is None else max(needed, pairs[name].size + 1),
            test=test,
            effect=mean / sd if sd > 0 else math.nan,
            **_improvement(pairs[name], higher_is_better),
        )
    return compared
