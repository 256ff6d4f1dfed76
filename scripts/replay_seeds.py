"""What ``until=decided`` would have run of a study that is recorded with many seeds for all: a replay.

``python -m scripts.replay_seeds [STUDY ...]`` looks at the recorded seeds one after the other, from the first three on,
as a sweep with ``until=decided max_seeds=<all of them>`` would have done, and prints how many of the recorded runs it
would have made, and what verdicts it would have reached. Numbers alone decide here: gates are left out, since they
close comparisons for reasons that have nothing to do with seeds.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from harness import records
from harness.analysis import stats
from harness.analysis.cells import Analysis, Cell, Outcome
from harness.analysis.estimates import ALPHA, estimate
from harness.paths import MEASURED

FIRST = 3  # seeds that every comparison starts with


@dataclass(frozen=True)
class Replay:
    """What the replay of a study found: recorded runs, runs that would have been made, verdicts by name."""

    study: str
    recorded: int
    made: int
    verdicts: Counter[str]

    @property
    def share(self) -> float:
        """The part of the recorded runs that would have been made."""
        return self.made / self.recorded


def replay(name: str) -> Replay:
    """Return what ``until=decided`` would have run of a recorded study."""
    a = Analysis(records.load_study(name))
    recorded = made = 0
    verdicts: Counter[str] = Counter()
    for cell in a.cells:
        outcomes = [a.outcomes[cell, label] for label in a.challengers if (cell, label) in a.outcomes]
        taken = [_one(a, cell, outcome, len(outcomes), verdicts) for outcome in outcomes]
        recorded += sum(len(outcome.seeds) for outcome in outcomes) + max(len(o.seeds) for o in outcomes)
        made += sum(taken) + max(taken)  # the baseline runs as long as any comparison of its cell is open
    return Replay(name, recorded, made, verdicts)


def _one(a: Analysis, cell: Cell, outcome: Outcome, family: int, verdicts: Counter[str]) -> int:
    """Return how many seeds one comparison would have taken, and count its verdict."""
    most, scale = len(outcome.seeds), a.scale(cell)
    items = a.item_differences(outcome)
    n = min(FIRST, most)
    while True:
        known = None if items is None else items[:n]
        found = stats.compare(outcome.differences[:n], scale, family=family, items=known, sequential=True)
        reach = stats.within_reach(estimate(outcome.differences[:n], known, scale.grain), scale, ALPHA / family, most)
        if n == most or found.verdict != "not decidable" or not reach:
            verdicts[found.verdict] += 1
            return n
        n += 1


def main(arguments: Sequence[str] | None = None) -> None:
    """Replay the given studies, by default all that are published."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="*", help="names of published studies")
    names = parser.parse_args(arguments).studies or sorted(path.stem for path in MEASURED.glob("*.json"))
    found = [replay(name) for name in names]
    for each in found:
        print(f"{each.study:20} {each.made:5} of {each.recorded:5} runs ({each.share:.0%})  {dict(each.verdicts)}")
    total = sum(each.made for each in found) / sum(each.recorded for each in found)
    print(f"{'all':20} {total:.0%}")


if __name__ == "__main__":
    main()
