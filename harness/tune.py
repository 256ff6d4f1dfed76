"""Learning rates, chosen fairly: equally many trials for every loss, on validation, on seeds outside the study."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from harness import records
from harness.plan import Place, Run, Study


def choose(trials: Sequence[Run], study: Study, results: Path) -> dict[Place, float]:
    """Return the learning rate of every (cell, label): the one with the best mean validation metric over its trials.

    A trial that diverged or failed counts as the worst possible. Equal means go to the rate nearest the middle of
    the grid on a logarithmic scale.
    """
    metric = study.metric.removeprefix("test.")
    scores: dict[Place, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run in trials:
        record = records.read(run.key, results)
        lr = run.setting.described["optimizer"]["lr"]
        scores[run.setting.cell, run.setting.label][lr].append(
            record["valid"][metric] if record and record["status"] == "done" else -math.inf
        )
    return {place: _best(by_rate) for place, by_rate in scores.items()}


def _best(by_rate: dict[float, list[float]]) -> float:
    rates = sorted(by_rate)
    middle = sum(math.log(rate) for rate in rates) / len(rates)
    return max(rates, key=lambda rate: (sum(by_rate[rate]) / len(by_rate[rate]), -abs(math.log(rate) - middle)))
