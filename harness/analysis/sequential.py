"""Adding seeds until every comparison is decided: which settings still need more."""

from __future__ import annotations

from dataclasses import replace

from harness.analysis.cells import Analysis
from harness.analysis.frames import column
from harness.records.study import StudyData


def open_settings(study: StudyData) -> set[str]:
    """Return the settings (their hashes) of losses whose comparison with the baseline is still open.

    A comparison is open where its interval, which holds at every number of seeds at once, shows neither a difference
    nor equivalence. What a gate withholds is not open: more seeds cannot mend it. Losses that lost every run are not
    open either.
    """
    analysis = Analysis(replace(study, spec={**study.spec, "until": "decided"}))
    found: set[str] = set()
    for (cell, label), compared in analysis.comparisons.items():
        outcome = analysis.outcomes[cell, label]
        lost = outcome.diverged + outcome.unlearnt
        if compared.verdict == "not decidable" and (lost < outcome.planned or not outcome.planned):
            found.update(str(setting) for setting in column(analysis.planned[cell, label], "setting"))
    return found
