"""One effect or several: whether what a loss does is the same in every cell, and on what it depends if not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from harness.analysis.estimates import ALPHA
from harness.analysis.stats import Comparison, Verdict

SIGNS = {"better": 1, "worse": -1, "equivalent": 0}


@dataclass(frozen=True)
class Heterogeneity:
    """Welch's test that the differences of all cells have one mean.

    Attributes:
        p: nan where less than two cells have two seeds.
        least, greatest: the least and the greatest difference of a cell.
    """

    p: float
    least: float
    greatest: float

    @property
    def shown(self) -> bool:
        """Whether cells differ beyond chance."""
        return self.p < ALPHA


def heterogeneity(compared: Sequence[Comparison]) -> Heterogeneity:
    """Test whether the differences of several cells are one (Welch, Biometrika 1951: spreads need not be equal).

    >>> from harness.analysis.stats import Scale, compare
    >>> heterogeneity([compare([1.0, 1.1, 0.9], Scale()), compare([-1.0, -1.1, -0.9], Scale())]).p < 0.001
    True
    """
    known = [c for c in compared if c.n > 1 and c.sd > 0]
    means = np.array([c.difference for c in known])
    ends = (float(means.min()), float(means.max())) if known else (math.nan, math.nan)
    k = len(known)
    if k < 2:
        return Heterogeneity(math.nan, *ends)
    n = np.array([c.n for c in known], dtype=float)
    weights = n / np.array([c.sd for c in known]) ** 2
    share = weights / weights.sum()
    centre = float((share * means).sum())
    between = float((weights * (means - centre) ** 2).sum()) / (k - 1)
    spread = float(((1 - share) ** 2 / (n - 1)).sum())
    f = between / (1 + 2 * (k - 2) / (k * k - 1) * spread)
    return Heterogeneity(float(special.fdtrc(k - 1, (k * k - 1) / (3 * spread), f)), *ends)


def verdict_over(compared: Sequence[Comparison], mixed: bool) -> Verdict | str:
    """Return the verdict on a loss over several cells.

    It is that of every cell, where all agree; ``depends`` where cells contradict each other (better in one, and worse
    in another or, with ``mixed``, shown to be too small to matter); else not decidable, or withheld where a cell's is.
    The error rate is that of a single cell, since every one of them has to be decided.

    Args:
        compared: the loss against the baseline, a comparison for each cell.
        mixed: whether heterogeneity was shown.
    """
    words = {c.verdict for c in compared}
    if len(words) == 1:
        return next(iter(words))
    if {"better", "worse"} <= words or (mixed and "equivalent" in words and words & {"better", "worse"}):
        return "depends"
    return "withheld" if "withheld" in words else "not decidable"


def depends_on(columns: Sequence[str], signs: Mapping[tuple[str, ...], int]) -> tuple[str, ...]:
    """Return the columns of a cell of which any alone separates cells of different sign; empty: only together.

    Args:
        columns: names of the parts of a cell.
        signs: 1, 0 or -1 for the values of every decided cell.

    >>> depends_on(["model", "rate"], {("cnn", "0"): 1, ("vit", "0"): 1, ("cnn", "0.4"): -1})
    ('rate',)
    """
    found = []
    for i, name in enumerate(columns):
        by_value: dict[str, set[int]] = {}
        for values, sign in signs.items():
            by_value.setdefault(values[i], set()).add(sign)
        if len(by_value) > 1 and all(len(each) == 1 for each in by_value.values()):
            found.append(name)
    return tuple(found)
