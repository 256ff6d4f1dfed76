"""The difference between two losses, and how far it can be trusted: over seeds, and over seeds and new test items.

A run's score varies with its seed (initial weights, order, perhaps the split) and with the items that it is tested on.
Over seeds alone, the paired differences by seed are a sample (Student's t). Over seeds and items, the difference on an
item is its mean + a part of the seed + a part of the item + the rest: crossed random effects, whose variances follow
from three sums of squares (Henderson, Biometrics 1953, method I, exact for any pattern of who was tested on what), with
Satterthwaite's degrees of freedom. ``python -m scripts.simulate_verdicts`` shows the coverage.

Every interval is mean ± critical value x standard error, at the level 1 - alpha; a family of m comparisons takes
alpha = 0.05 / m (Bonferroni), so that all of its intervals hold together, and a verdict is read off its interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

ALPHA = 0.05
ROUNDING = 1 / math.sqrt(6)
"""Standard deviation of the difference of two values that are rounded to steps of 1."""
PRIOR = 4.0
"""Variance of the standardised effect that an e-value has in mind. It says how soon one can decide, not how surely:
effects of one to three deviations, which studies of losses can afford to find, are found soonest."""
LEAST = 1e-12
"""Relative width of the narrowest interval: differences that are equal to the last bit still have rounding."""

Scope = Literal["new items", "seeds"]
Items = Sequence[tuple[NDArray[np.integer], NDArray[np.float64]]]
"""Of every seed: ids of test items (k,), and differences of item scores on them (k,)."""


@dataclass(frozen=True)
class Estimate:
    """A mean difference with its standard errors, all in the metric's unit.

    Attributes:
        n: number of pairs (seeds).
        mean: their mean difference; nan where n = 0.
        sd: standard deviation of the differences by seed, at least that of rounding to the metric's grain.
        error: standard error over seeds, sd / sqrt(n).
        error_new: standard error over seeds and new test items; nan where no item scores are known.
        freedom_new: its degrees of freedom.
        fixed_new: the part of ``error_new`` that more seeds do not shrink.
    """

    n: int
    mean: float
    sd: float
    error: float
    error_new: float = math.nan
    freedom_new: float = math.nan
    fixed_new: float = 0.0

    @property
    def scope(self) -> Scope:
        """What the widest interval known speaks of."""
        return "new items" if math.isfinite(self.error_new) else "seeds"

    def standard_errors(self, scope: Scope) -> list[tuple[float, float]]:
        """Return standard error and degrees of freedom over seeds, and over seeds and new items if that is the scope.

        What holds for new items, too, cannot be surer than what holds for these: the widest of them counts.
        """
        found = [(self.error, self.n - 1.0)]
        return found if scope == "seeds" else [*found, (self.error_new, self.freedom_new)]

    def interval(
        self, scope: Scope, alpha: float = ALPHA, *, sequential: bool = False, low: float = -math.inf,
        high: float = math.inf,
    ) -> tuple[float, float]:  # fmt: skip
        """Return the interval at level 1 - ``alpha``, cut off at the least and greatest difference there can be.

        Args:
            scope: over seeds, or over seeds and new items.
            alpha: probability that it misses, over this comparison alone.
            sequential: it holds at every number of seeds at once, however often one looks.
            low, high: bounds of the metric's differences.
        """
        found = self.standard_errors(scope)
        if self.n < 2 or not all(math.isfinite(error) for error, _ in found):
            return math.nan, math.nan
        pairs = self.n if sequential else None
        half = max(critical(freedom, alpha, sequential_pairs=pairs) * error for error, freedom in found)
        return max(low, self.mean - half), min(high, self.mean + half)

    def p(self, scope: Scope, *, sequential: bool = False) -> float:
        """Return the two-sided p value that the mean is 0; with ``sequential`` one that holds under looking after
        every seed.
        """
        found = self.standard_errors(scope)
        if self.n < 2 or not all(math.isfinite(error) for error, _ in found):
            return math.nan
        if sequential:
            return min(1.0, max(1 / e_value(abs(self.mean) / error, self.n) for error, _ in found))
        return max(float(2 * special.stdtr(freedom, -abs(self.mean) / error)) for error, freedom in found)


def estimate(differences: ArrayLike, items: Items | None = None, grain: float = 0.0) -> Estimate:
    """Return the mean of paired differences with its standard errors.

    Args:
        differences: loss minus baseline by seed, (n,).
        items: the same differences on every test item, seed by seed; None: not known.
        grain: the smallest step of the metric (1 / test items for an accuracy); 0: it has none.

    >>> found = estimate([1.0, 2.0, 3.0])
    >>> [round(x, 3) for x in found.interval("seeds")]
    [-0.484, 4.484]
    """
    d = np.asarray(differences, dtype=float)
    if d.size < 2:
        return Estimate(d.size, float(d.mean()) if d.size else math.nan, math.nan, math.nan)
    mean = float(d.mean())
    least = max(grain * ROUNDING, LEAST * max(1.0, float(np.abs(d).max())))
    sd = max(float(d.std(ddof=1)), least)
    error = sd / math.sqrt(d.size)
    if items is None:
        return Estimate(d.size, mean, sd, error)
    new, freedom, fixed = crossed(items)
    return Estimate(d.size, mean, sd, error, max(new, least / math.sqrt(d.size)), freedom, fixed)


def crossed(items: Items) -> tuple[float, float, float]:
    """Return the standard error of a mean over seeds and items, its degrees of freedom, and the items' part of it.

    Args:
        items: ids and differences of every seed, two seeds or more.
    """
    ids = np.concatenate([each for each, _ in items])
    item = np.unique(ids, return_inverse=True)[1]
    seed = np.repeat(np.arange(len(items)), [len(each) for each, _ in items])
    d = np.concatenate([values for _, values in items]).astype(float)
    total, rest = d.size, d - d.mean()
    of_seed, of_item = (np.bincount(codes).astype(float) for codes in (seed, item))
    squares = np.array([(np.bincount(seed, rest) ** 2).sum(), (np.bincount(item, rest) ** 2).sum(), (rest**2).sum()])
    sums = np.array([(of_seed**2).sum(), (of_item**2).sum(), total])
    variances = np.linalg.lstsq(_expected(seed, item, of_seed, of_item, sums), squares, rcond=None)[0]
    residual = max(float(variances[2]), 0.0) / total
    # what each factor adds to the variance of the mean; the least squares may be negative where there is nothing
    seeds, units = (float(variances[i] * sums[i]) / total**2 for i in (0, 1))
    variance = max(seeds, 0.0) + max(units, 0.0) + residual
    if variance <= 0:
        return 0.0, float(len(of_seed) - 1), 0.0
    parts = max(seeds + residual, 0.0) ** 2 / (len(of_seed) - 1) + max(units + residual, 0.0) ** 2 / max(
        len(of_item) - 1, 1
    )
    redrawn = len(of_item) > of_seed.max()  # then every further seed brings further items
    fixed = 0.0 if redrawn else math.sqrt(max(units, 0.0))
    return math.sqrt(variance), variance**2 / max(parts, 1e-300), fixed


def _expected(
    seed: NDArray[np.integer],
    item: NDArray[np.integer],
    of_seed: NDArray[np.float64],
    of_item: NDArray[np.float64],
    sums: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return what a variance of 1 of seeds, items and rest adds to each sum of squares, taken about the common mean."""
    total = sums[2]
    both = float((of_seed[seed] * of_item[item]).sum())
    plain = np.array([[sums[0], total, total], [total, sums[1], total], [total, total, total]])
    once = np.array(
        [
            [(of_seed**3).sum(), both, sums[0]],
            [both, (of_item**3).sum(), sums[1]],
            [sums[0], sums[1], total],
        ]
    )
    return plain - 2 * once / total + np.outer(sums, sums) / total**2


def critical(
    freedom: float, alpha: float, *, sequential_pairs: int | None = None, borrowed: float = 0.0, prior: float = PRIOR
) -> float:
    """Return the number of standard errors of an interval at level 1 - ``alpha``.

    Args:
        freedom: degrees of freedom of the standard error.
        alpha: two-sided.
        sequential_pairs: None: Student's t for a number of seeds fixed before. A number n: the interval holds at every
            number of seeds at once (:func:`e_value`); infinite while n is too small for this level.
        borrowed: degrees of freedom that the variance has beside those of its n pairs, from like comparisons; only
            with ``sequential_pairs``.
        prior: variance of the standardised effect that a sequential interval has in mind (see :data:`PRIOR`).
    """
    if sequential_pairs is None:
        return float(special.stdtrit(freedom, 1 - alpha / 2))
    n, v = sequential_pairs, sequential_pairs - 1 + borrowed
    wide = 1 + prior * n
    growth = (math.sqrt(wide) / alpha) ** (2 / (v + 1))
    return math.sqrt(v * (growth - 1) / (1 - growth / wide)) if growth < wide else math.inf


def e_value(t: float, n: int) -> float:
    """Return the e-value of a t statistic of n pairs against a mean of 0.

    It is the likelihood ratio of t between a standardised effect drawn from a normal distribution of variance
    :data:`PRIOR` and no effect. Over growing n it is a martingale where there is no effect, so it exceeds 1 / alpha at
    any time with probability alpha at most (Ville): one may look after every seed.

    >>> round(e_value(0.0, 8), 3), e_value(10.0, 8) > 100
    (0.174, True)
    """
    v = n - 1
    wide = 1 + PRIOR * n
    ratio = (1 + t * t / v) / (1 + t * t / (v * wide))
    return float(math.exp(-0.5 * math.log(wide) + (v + 1) / 2 * math.log(ratio)))
