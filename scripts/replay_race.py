"""What a race would have chosen in studies that are recorded in full, and how many of their runs it would have made.

``python -m scripts.replay_race [STUDY ...]`` replays every cell of the published studies and writes
results/measured/race_replays.csv. A race is given the recorded scores seed by seed: every loss its learning rates on
one search seed and then two seeds; from there on the losses that are not out, whose two best rates get two further
search seeds (once). It ends when one loss is left, when all that are left are equivalent within the study's margin, or
when the recorded seeds are spent, and is looked at a second time where it had spent a fifth of the recorded runs.

A recorded study is counted with all its runs (its search, its comparisons, and its controls). What cannot be replayed
is which rate another search would have chosen: scores are those at the recorded choice.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from harness import records
from harness.analysis.cells import Analysis, Cell
from harness.analysis.race import FIRST, Scores, Standing, equivalent, noise_of, scores_of, standings
from harness.paths import MEASURED
from harness.records.store import write_text

FILE = MEASURED / "race_replays.csv"
DEEPENED = 4
"""Runs by which the search of a loss goes on that is not out after the first look: two rates on two further seeds."""
SHARE = 0.2


@dataclass(frozen=True)
class Replay:
    """What one cell's race came to.

    Attributes:
        study, cell: where.
        losses: how many raced.
        best: the loss with the best mean difference from the baseline over all recorded seeds.
        recorded: runs of the cell, all roles.
        least: runs without which no race can begin: the rates and the first seeds of every loss.
        runs: that the race made.
        left: losses left at its end.
        left_by_study: losses that the study itself cannot tell from the best, by its own bounds.
        runs_to_that: after how many runs the race had left no more than that; all of the race's where it never had.
        held: whether the best is among them.
        ended: why it ended.
        left_at_fifth, held_at_fifth: the same when a fifth of the recorded runs was spent.
    """

    study: str
    cell: str
    losses: int
    best: str
    recorded: int
    least: int
    runs: int
    left: int
    left_by_study: int
    runs_to_that: int
    held: bool
    ended: str
    left_at_fifth: int
    held_at_fifth: bool


def best_of(scores: Scores, baseline: str) -> str:
    """Return the loss with the best mean difference from the baseline, seed by seed."""
    base = scores[baseline]

    def ahead(label: str) -> float:
        both = [seed for seed in scores[label] if seed in base]
        return sum(scores[label][seed] - base[seed] for seed in both) / max(1, len(both))

    return max(scores, key=ahead)


def rates_of(a: Analysis, cell: Cell, label: str) -> int:
    """Return how many learning rates were tried for a loss; 0 where none was searched."""
    tried = a.all[(a.all["role"] == "search") & (a.all["cell"] == cell.values) & (a.all["label"] == label)]
    return tried["setting"].nunique()


def replay(a: Analysis, cell: Cell, study: str) -> Replay | None:
    """Return what a race would have come to in a cell; None where it has no two losses, or no baseline."""
    scores = {label: each for label, each in scores_of(a, cell).items() if len(each) > 1}
    if len(scores) < 2 or a.baseline not in scores:
        return None
    rates = {label: rates_of(a, cell, label) for label in scores}
    seeds = sorted({seed for each in scores.values() for seed in each})
    best, grain, noise = best_of(scores, a.baseline), a.grain(cell), noise_of(a, cell, list(scores))
    recorded = int((a.all["cell"] == cell.values).sum())
    seen: dict[str, dict[int, float]] = {label: {} for label in scores}
    going, runs, ended = list(scores), sum(rates.values()), "seeds spent"
    least = runs + FIRST * len(scores)
    unbeaten = sum(not each.beaten_by for each in a.best[cell])
    to_that = 0
    found: list[Standing] = []
    fifth: list[str] | None = None
    for number, seed in enumerate(seeds, 1):
        for label in going:
            if seed in scores[label]:
                seen[label][seed] = scores[label][seed]
                runs += 1
        if number < FIRST:
            continue
        found = standings(seen, grain=grain, noise=noise)
        if fifth is None and runs > SHARE * recorded:
            fifth = going if number > FIRST else [each.label for each in found if each.open]
        going = [each.label for each in found if each.open and each.label in going]
        to_that = to_that or (runs if len(going) <= unbeaten else 0)
        if number == FIRST:
            runs += sum(min(DEEPENED, 2 * (rates[label] > 1) * 2) for label in going) if len(going) > 1 else 0
        if len(going) == 1 or equivalent(found, a.margin):
            ended = "one left" if len(going) == 1 else "equivalent"
            break
    at_fifth = going if fifth is None else fifth
    return Replay(
        study, cell.short, len(scores), best, recorded, least, runs, len(going), unbeaten, to_that or runs,
        best in going, ended, len(at_fifth), best in at_fifth,
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Replay the given studies, by default all that are published."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="*", help="names of published studies")
    parser.add_argument("--out", type=Path, default=FILE, help="CSV to write")
    given = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    found = []
    for name in given.studies or sorted(path.stem for path in MEASURED.glob("*.json")):
        a = Analysis(records.load_study(name))
        found += [each for cell in a.cells if (each := replay(a, cell, name)) is not None]
    table = pd.DataFrame([asdict(each) for each in found])
    write_text(given.out, table.to_csv(index=False))
    print(table.drop(columns=["ended"]).to_string(index=False))
    totals = table.groupby("study", sort=False)[["recorded", "least", "runs_to_that", "runs"]].sum()
    shares = totals.div(totals["recorded"], axis=0)
    print(shares.to_string(float_format=lambda value: f"{value:.0%}"))
    print(
        f"{len(table)} cells of {len(totals)} studies: the best loss is left in {table['held'].mean():.1%}, "
        f"at a fifth of the runs in {table['held_at_fifth'].mean():.1%}; runs, median over studies: "
        f"{shares['runs'].median():.0%}, {shares['runs_to_that'].median():.0%} for a set no larger than the study's "
        f"own ({shares['least'].median():.0%} before the first look)"
    )


if __name__ == "__main__":
    main()
