"""Adding seeds until every comparison is decided: which settings still need more."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

from harness.analysis import stats
from harness.analysis.cells import Analysis
from harness.analysis.estimates import ALPHA, critical
from harness.analysis.frames import column
from harness.records.study import StudyData
from harness.text import count

WIDE = 10.0
"""Standard errors to either side beyond which an interval says next to nothing."""


def open_settings(study: StudyData) -> set[str]:
    """Return the settings (their hashes) of losses whose comparison with the baseline is still open.

    A comparison is open where its interval, which holds at every number of seeds at once, shows neither a difference
    nor equivalence. It is closed, undecided, where the greatest number of seeds is out of reach
    (`stats.within_reach`), where a gate withholds its verdict, which more seeds cannot mend, and where no run learns.

    Args:
        study: its records so far, with the greatest number of seeds that may be run as ``max_seeds``.
    """
    analysis = Analysis(replace(study, spec={**study.spec, "until": "decided"}))
    most = int(study.spec.get("max_seeds") or len(analysis.seeds))
    found: set[str] = set()
    for (cell, label), compared in analysis.comparisons.items():
        outcome, scale = analysis.outcomes[cell, label], analysis.scale(cell)
        reachable = stats.within_reach(analysis.estimate_of(outcome), scale, ALPHA / compared.family, most)
        lost = outcome.failures.runs and outcome.failures.failed == outcome.failures.runs
        # of losses that are alike but for controls with few seeds, which keep to the seeds that are given, none is open
        alike = analysis.estimated[cell, label].verdict == "equivalent"
        if compared.verdict == "not decidable" and reachable and not lost and not alike:
            found.update(str(setting) for setting in column(analysis.planned[cell, label], "setting"))
    return found


def first_look(compared: int, seeds: Sequence[int], unused: Sequence[int]) -> str:
    """Return by how many seeds a study should begin, in a sentence; nothing where its own number will do.

    A comparison that is out of reach gets no further seeds, and keeps the interval of those that it has.

    Args:
        compared: losses beside the baseline in a cell, one or more.
        seeds: those that every loss begins with, one or more.
        unused: those that would follow, in this order.

    >>> first_look(3, [1, 2, 3, 4, 5, 6], [7, 8])
    ''
    """

    def reach(n: int) -> float:
        return critical(n - 1, ALPHA / compared, sequential_pairs=n)

    begun = len(seeds)
    if reach(begun) <= WIDE:
        return ""
    enough = next(n for n in itertools.count(begun + 1) if reach(n) <= WIDE)
    first = "has no ends" if reach(begun) == math.inf else f"reaches {reach(begun):.0f} standard errors to either side"
    listed = ",".join(map(str, [*seeds, *unused][:enough]))
    return (
        f"With {count(begun, 'seed')} an interval {first}, as it holds for {count(compared, 'loss', 'losses')} and at "
        f"every look; with {enough} it reaches {reach(enough):.0f}: begin with axes.seed=[{listed}]."
    )
