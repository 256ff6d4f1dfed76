"""What a comparison in one place of a claim is made of: paired differences, rates of failure, or measures of a cost."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from statsmodels.stats.proportion import confint_proportions_2indep

from harness.analysis import stats
from harness.analysis.estimates import Estimate, Items, estimate
from harness.analysis.stats import Scale

Ends = tuple[float, float]
UNBOUNDED: Ends = (-math.inf, math.inf)


@dataclass(frozen=True, eq=False)
class Differences:
    """A sample of paired differences (or of values beside 0), one for each seed.

    Attributes:
        values: the differences.
        items: the same on every test item, seed by seed; None: not known.
        grain: the smallest step of the metric; 0: it has none.
        ends: the least and greatest difference that there can be.
        sequential: whether intervals hold at every number of seeds at once.
    """

    values: tuple[float, ...]
    items: Items | None = None
    grain: float = 0.0
    ends: Ends = UNBOUNDED
    sequential: bool = False

    @functools.cached_property
    def _found(self) -> Estimate:
        return estimate(self.values, self.items, self.grain)

    @property
    def n(self) -> int:
        """How many there are."""
        return len(self.values)

    @property
    def estimate(self) -> float:
        """Their mean; nan where there are none."""
        return self._found.mean

    @property
    def scope(self) -> str:
        """What the interval speaks of: new items, or seeds alone."""
        return self._found.scope

    def interval(self, level: float) -> Ends:
        """Return the interval of the mean at ``level``, unbounded for fewer than two."""
        if self.n < 2:
            return UNBOUNDED
        low, high = self.ends
        given = self._found.interval(self._found.scope, 1 - level, sequential=self.sequential, low=low, high=high)
        return given if all(map(math.isfinite, given)) else UNBOUNDED

    def seeds_needed(self, level: float, margin: float) -> int | None:
        """Return how many would decide with 80 % power, at what was found; None: more than `stats.MOST_SEEDS`."""
        return stats.seeds_needed(self._found, Scale(margin=margin), 1 - level, sequential=self.sequential)


@dataclass(frozen=True)
class Rates:
    """Two samples of runs, of which ``failed`` of ``runs`` on each side diverged or did not learn; no side is empty."""

    failed: tuple[int, int]
    runs: tuple[int, int]
    scope: str = "seeds"

    @property
    def n(self) -> int:
        """Runs on the smaller side."""
        return min(self.runs)

    @property
    def estimate(self) -> float:
        """Difference of the shares, the first less the second."""
        return self.failed[0] / self.runs[0] - self.failed[1] / self.runs[1]

    def interval(self, level: float) -> Ends:
        """Return Newcombe's interval of the difference at ``level``."""
        counts = (self.failed[0], self.runs[0], self.failed[1], self.runs[1])
        low, high = confint_proportions_2indep(*counts, method="newcomb", compare="diff", alpha=1 - level)
        return float(low), float(high)


@dataclass(frozen=True)
class Measures:
    """Logarithms of a ratio of costs by several measures of one thing: the interval is their range, at every level."""

    values: tuple[float, ...]
    scope: str = "measures"

    @property
    def n(self) -> int:
        """How many measures."""
        return len(self.values)

    @property
    def estimate(self) -> float:
        """Their mean."""
        return float(np.mean(self.values))

    def interval(self, level: float) -> Ends:
        """Return their range; ``level`` plays no part."""
        return min(self.values), max(self.values)


Sample = Differences | Rates | Measures
