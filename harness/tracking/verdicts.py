"""What the analysis says of the settings and runs of a study, as tags and metrics for MLflow."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from harness.analysis.cells import Analysis
from harness.analysis.stats import Comparison
from harness.tracking.runs import Verdict

if TYPE_CHECKING:
    from harness.records.study import StudyData


def verdicts(study: StudyData) -> dict[str, Verdict]:
    """Return what is said of every setting whose runs are compared, by the setting's hash."""
    a = Analysis(study)
    found = {}
    for (cell, label), planned in a.planned.items():
        lost = frozenset(map(str, set(a.done[cell, label]["key"]) - set(a.learnt(cell, label)["key"])))
        compared = a.comparisons.get((cell, label)) if (cell, a.baseline) in a.planned else None
        said = Verdict(unlearnt=lost) if compared is None else _said(compared, lost)
        found |= {str(setting): said for setting in planned["setting"].unique()}
    return found


def _said(found: Comparison, lost: frozenset[str]) -> Verdict:
    tags = {"verdict": found.verdict, "because": "; ".join(found.because), "scope": found.scope}
    numbers = {
        "": found.difference,
        ".low": found.low,
        ".high": found.high,
        ".seeds_low": found.seeds_low,
        ".seeds_high": found.seeds_high,
        ".p": found.p,
        ".n": float(found.n),
        ".family": float(found.family),
    }
    # counts in reasons change with every run; the tags of all seeds are not to be written as often
    kinds = "; ".join(dict.fromkeys(reason.kind.what for reason in found.because))
    return Verdict(
        {f"lossbench.{name}": text for name, text in tags.items() if text},
        {f"difference{name}": float(f"{value:.6g}") for name, value in numbers.items() if math.isfinite(value)},
        {f"lossbench.{name}": text for name, text in (("verdict", found.verdict), ("because", kinds)) if text},
        lost,
    )
