"""How often a race drops the best loss, and what it costs, by simulation.

``python -m scripts.simulate_race`` prints a table and writes results/measured/race_simulations.csv: for every number of
losses and shape of scores, how often the truly best loss was dropped at any look (0.05 at most is claimed), how many
losses were left, and how many runs that took beside a study that runs all losses on equally many seeds. About five
minutes on one core.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.analysis.race import FIRST, Standing, standings
from harness.paths import MEASURED
from harness.records.store import write_text

FILE = MEASURED / "race_simulations.csv"
MOST = 20
"""Seeds of the last look."""
SHAPES = ("normal", "coarse grain", "heavy tails", "skewed", "unequal spreads", "the best spreads most", "bad seeds")
GAPS = ("equal", "close", "spread out")
Array = NDArray[np.float64]


def levels(losses: int, gaps: str) -> Array:
    """Return the true means of losses (k,), the best first, in standard deviations of a score."""
    if gaps == "equal":  # the hardest: the first is the best by nothing that can be seen
        return np.zeros(losses)
    ranks = np.arange(losses) / max(1, losses - 1)
    return -2.0 * ranks if gaps == "close" else -20.0 * ranks


def drawn(rng: np.random.Generator, mean: Array, seeds: int, shape: str) -> Array:
    """Return scores (k, seeds) with these means; every seed shifts all losses alike."""
    size = (len(mean), seeds)
    noise, spread = rng.normal(size=size), np.ones((len(mean), 1))
    if shape == "heavy tails":
        noise = rng.standard_t(3, size=size) / math.sqrt(3)
    elif shape == "skewed":
        noise = 1 - rng.exponential(size=size)
    elif shape == "unequal spreads":
        spread = np.exp(rng.normal(size=(len(mean), 1)))
    elif shape == "the best spreads most":
        spread[0] = 4.0
    elif shape == "bad seeds":  # every loss has a run that goes wrong by ten deviations now and then
        noise = noise - 10 * ((rng.random(size) < 0.05) - 0.05)
    scores = mean[:, None] + spread * noise + rng.normal(size=(1, seeds))
    return np.round(scores) if shape == "coarse grain" else scores


def race(scores: Array, grain: float, first: int = FIRST) -> tuple[list[Standing], int]:
    """Return how the losses of a table (k, seeds) stand at the end of their race, and how many runs that took."""
    seen: dict[str, dict[int, float]] = {str(i): {} for i in range(len(scores))}
    going, runs, found = list(seen), 0, []
    for seed in range(scores.shape[1]):
        for name in going:
            seen[name][seed] = float(scores[int(name), seed])
        runs += len(going)
        if seed + 1 >= first:
            found = standings(seen, grain=grain)
            going = [each.label for each in found if each.open and each.label in going]
        if len(going) == 1:
            break
    return [each for each in found if each.label in going], runs


def simulate(repetitions: int, losses: Sequence[int]) -> pd.DataFrame:
    """Return a row for every number of losses, gaps and shape."""
    rows = []
    for k in losses:
        count = max(50, repetitions * 5 // max(k, 5))
        for gaps in GAPS:
            for number, shape in enumerate(SHAPES):
                rng = np.random.default_rng([18, k, number, GAPS.index(gaps)])
                lost, left, runs = [], [], []
                for _ in range(count):
                    ended, made = race(drawn(rng, levels(k, gaps), MOST, shape), float(shape == "coarse grain"))
                    lost.append("0" not in {each.label for each in ended})
                    left.append(len(ended))
                    runs.append(made / (k * MOST))
                rate = float(np.mean(lost))
                error = math.sqrt(rate * (1 - rate) / count)
                rows.append((k, gaps, shape, rate, error, float(np.mean(left)), float(np.mean(runs)), count))
    names = ["losses", "gaps", "shape", "best_dropped", "standard_error", "left", "share_of_runs", "repetitions"]
    return pd.DataFrame(rows, columns=names)


def main() -> None:
    """Simulate, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=1000, help="with five losses; fewer with more")
    parser.add_argument("--losses", type=int, nargs="+", default=[2, 5, 20, 55], help="how many race")
    parser.add_argument("--out", type=Path, default=FILE, help="CSV to write")
    given = parser.parse_args()
    table = simulate(given.repetitions, given.losses)
    write_text(given.out, table.to_csv(index=False, float_format="%.4f"))
    print(table.to_string(index=False, float_format=lambda value: f"{value:.3f}"))


if __name__ == "__main__":
    main()
