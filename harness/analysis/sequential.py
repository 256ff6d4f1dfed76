"""Adding seeds until every comparison is decided: which settings still need more."""

from __future__ import annotations

from dataclasses import replace

from harness.analysis import stats
from harness.analysis.cells import Analysis
from harness.analysis.estimates import ALPHA
from harness.analysis.frames import column
from harness.records.study import StudyData


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
