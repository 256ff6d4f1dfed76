"""Was a race right? The losses that it left, and five that it dropped, again on seeds that it never saw.

``python -m scripts.check_race NAME [--seeds 10] [--dropped 5]`` takes results/NAME, which ``python -m harness choose``
wrote. Of the losses that were dropped it takes those that came nearest, which are the likeliest to have been dropped
wrongly. All are trained at the learning rates that the race chose. It prints the mean of every loss on the new seeds,
with its difference from the best, and adds a row to results/measured/race_checks.csv. The runs are a sweep of their
own, results/NAME-check; the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from harness import compose, records
from harness.analysis.cells import Analysis
from harness.analysis.race import Scores, of_cell
from harness.paths import MEASURED, RESULTS
from harness.plan import Study
from harness.records.store import write_text
from harness.studies import sweep

FILE = MEASURED / "race_checks.csv"
FIRST_SEED = 1001
"""Of the new seeds; a race counts from 1, its search from 7001."""


@dataclass(frozen=True)
class Check:
    """What the check of one race came to; differences in the unit of the metric, the better loss first.

    Attributes:
        race: its name.
        losses, runs, minutes: how many raced, and what that cost; minutes of training, summed over the runs.
        left: losses that it left.
        leader: the loss that led it.
        checked: losses that were trained again, and on how many new ``seeds``.
        best: the loss with the best mean on the new seeds.
        held: whether the race had left it in.
        leader_behind, low, high: by how much the leader is behind that loss, with a 95 % interval (paired t).
        best_dropped: the best of those that were dropped.
        ahead, ahead_low, ahead_high: by how much the best of those left is ahead of it, with the interval.
    """

    race: str
    metric: str
    losses: int
    runs: int
    minutes: float
    left: int
    leader: str
    checked: int
    seeds: int
    best: str
    held: bool
    leader_behind: float
    low: float
    high: float
    best_dropped: str
    ahead: float
    ahead_low: float
    ahead_high: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Check the race that is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("race", help="name of a folder in results/")
    parser.add_argument("--seeds", type=int, default=10, help="new seeds for each loss")
    parser.add_argument("--dropped", type=int, default=5, help="of the losses that were dropped, how many to train")
    parser.add_argument("--out", type=Path, default=FILE, help="CSV to add a row to")
    given = parser.parse_args(arguments)
    found, lines = check(given.race, given.seeds, given.dropped)
    print("\n".join(lines))
    rows = pd.read_csv(given.out).to_dict("records") if given.out.exists() else []
    rows = [*(row for row in rows if row["race"] != given.race), asdict(found)]
    write_text(given.out, pd.DataFrame(rows).to_csv(index=False))


def check(race: str, seeds: int, most_dropped: int, results: Path = RESULTS) -> tuple[Check, list[str]]:
    """Train what a race left and some of what it dropped; return what came of it, and lines that say so."""
    raced = Analysis(records.load_study(race, results))
    standings = of_cell(raced, raced.cells[0])
    left = [each.label for each in standings if each.open]
    dropped = [each.label for each in standings if not each.open][:most_dropped]
    study = _study(raced, [*left, *dropped], range(FIRST_SEED, FIRST_SEED + seeds))
    sweep.sweep(study, compose.compose_run([]).config, results=results)
    again = Analysis(records.load_study(study.name, results))
    scores = _scores(again)
    ranked = sorted(scores, key=lambda label: -float(np.mean(list(scores[label].values()))))
    best = ranked[0]
    best_left = next(label for label in ranked if label in left)
    best_dropped = next((label for label in ranked if label in dropped), "")
    minutes = float(pd.to_numeric(raced.all["cost.wall_s"], errors="coerce").sum()) / 60
    found = Check(
        race, raced.metric.key, len(standings), len(raced.all), round(minutes, 1), len(left), left[0], len(scores),
        seeds, best, best in left, *paired(scores, best, left[0]),
        best_dropped, *(paired(scores, best_left, best_dropped) if best_dropped else [math.nan] * 3),
    )  # fmt: skip
    return found, [*_told(scores, ranked, left), f"The race had {'left' if found.held else 'DROPPED'} {best}."]


def _scores(a: Analysis) -> dict[str, dict[int, float]]:
    """Return the score of every loss by seed, the higher the better, of all runs that completed: also of those that did
    not learn, which a choice has to bear.
    """
    sign, found = (1 if a.metric.higher_is_better else -1), {}
    for label in a.labels:
        if (runs := a.done.get((a.cells[0], label))) is not None and len(runs):
            found[label] = {int(s): sign * float(v) for s, v in zip(runs["seed"], runs["value"], strict=True)}
    return found


def _told(scores: Scores, ranked: Sequence[str], left: Sequence[str]) -> Iterator[str]:
    for label in ranked:
        mean = float(np.mean(list(scores[label].values())))
        behind, low, high = paired(scores, ranked[0], label)
        told = "" if label == ranked[0] else f", {behind:.4g} [{low:.4g}, {high:.4g}] behind"
        yield f"{'left' if label in left else 'dropped':8}{label}: {mean:.4g}{told}"


def _study(raced: Analysis, losses: Sequence[str], seeds: Sequence[int]) -> Study:
    """Return the study that trains losses again, each at the rate of the race."""
    asked = raced.study.spec
    rates = {label: raced.measured(raced.outcomes[raced.cells[0], label], "lr").dropna() for label in losses}
    return Study(
        name=f"{raced.study.name}-check",
        question=f"Was the race {raced.study.name} right?",
        axes={"loss": list(losses), "seed": list(seeds)},
        baseline=losses[0],
        metric=asked["metric"],
        margin=asked["margin"],
        base=asked["base"],
        recipes=[{"when": {"loss": label}, "set": {"optimizer.lr": float(rates[label].iloc[-1])}} for label in losses],
        controls=asked["controls"],
        study="choose",
    )


def paired(scores: Scores, one: str, other: str) -> tuple[float, float, float]:
    """Return the mean difference of one loss from another, and its 95 % interval by the paired t test.

    >>> [round(value, 3) for value in paired({"a": {1: 2.0, 2: 3.0, 3: 3.0}, "b": {1: 1.0, 2: 2.5, 3: 2.0}}, "a", "b")]
    [0.833, 0.116, 1.55]
    """
    if one == other:
        return 0.0, 0.0, 0.0
    both = sorted(scores[one].keys() & scores[other].keys())
    gaps = np.array([scores[one][seed] - scores[other][seed] for seed in both])
    half = float(stats.t.ppf(0.975, len(gaps) - 1) * gaps.std(ddof=1) / math.sqrt(len(gaps)))
    return float(gaps.mean()), float(gaps.mean()) - half, float(gaps.mean()) + half


if __name__ == "__main__":
    main()
