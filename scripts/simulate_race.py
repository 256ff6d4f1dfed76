"""How often a race drops the best loss, and what it costs, by simulation.

``python -m scripts.simulate_race`` prints a table and writes results/measured/race_simulations.csv: for every number of
losses and shape of scores, how often the truly best loss was dropped at any look (0.05 is nominal), how many
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

from harness.analysis.race import FIRST, Standing, item_noise, standings
from harness.paths import MEASURED
from harness.records.store import write_text

FILE = MEASURED / "race_simulations.csv"
MOST = 20
"""Seeds of the last look."""
SHAPES = ("normal", "coarse grain", "heavy tails", "skewed", "unequal spreads", "the best spreads most", "bad seeds")
TESTED = 300
OF_ITEMS = ("test items", "test items, unequal spreads", "test items, the best spreads most")
"""Shapes of accuracies on so many test items, drawn anew for every seed; what each item scores is known."""
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


def tested(rng: np.random.Generator, mean: Array, seeds: int, shape: str) -> tuple[Array, Array]:
    """Return accuracies (k, seeds) and what test items alone make of their spreads (k, k).

    A level of 0 is right on nineteen items in twenty, and one deviation is about what 300 items make.
    """
    k = len(mean)
    luck = 0.1 * np.exp(rng.normal(size=k)) if shape.endswith("unequal spreads") else np.full(k, 0.1)
    if shape.endswith("the best spreads most"):
        luck[0] = 0.4
    items: dict[str, dict[int, Array]] = {str(i): {} for i in range(k)}
    for seed in range(seeds):
        hardness = 2 * rng.normal(size=TESTED)
        drive = 1.645 * math.sqrt(5) + 0.12 * mean[:, None] + luck[:, None] * rng.normal(size=(k, 1)) + hardness
        for i, right in enumerate(drive + rng.normal(size=(k, TESTED)) > 0):
            items[str(i)][seed] = right.astype(float)
    noise = item_noise(items)
    assert noise is not None
    return np.array([[each[seed].mean() for seed in range(seeds)] for each in items.values()]), noise


def race(scores: Array, grain: float, noise: Array | None = None) -> tuple[list[Standing], int]:
    """Return how the losses of a table (k, seeds) stand at the end of their race, and how many runs that took."""
    seen: dict[str, dict[int, float]] = {str(i): {} for i in range(len(scores))}
    going, runs, found = list(seen), 0, []
    for seed in range(scores.shape[1]):
        for name in going:
            seen[name][seed] = float(scores[int(name), seed])
        runs += len(going)
        if seed + 1 >= FIRST:
            found = standings(seen, grain=grain, noise=noise)
            going = [each.label for each in found if each.open and each.label in going]
        if len(going) == 1:
            break
    return [each for each in found if each.label in going], runs


def _once(rng: np.random.Generator, mean: Array, shape: str) -> tuple[float, float, float]:
    """Return of one race whether the best was lost, how many losses were left, and the share of all runs."""
    if shape in OF_ITEMS:
        scores, noise = tested(rng, mean, MOST, shape)
        ended, made = race(scores, 1 / TESTED, noise)
    else:
        ended, made = race(drawn(rng, mean, MOST, shape), float(shape == "coarse grain"))
    return float("0" not in {each.label for each in ended}), float(len(ended)), made / (len(mean) * MOST)


def simulate(repetitions: int, losses: Sequence[int]) -> pd.DataFrame:
    """Return a row for every number of losses, gaps and shape."""
    rows = []
    for k in losses:
        count = max(50, repetitions * 5 // max(k, 5))
        for gaps in GAPS:
            for number, shape in enumerate((*SHAPES, *OF_ITEMS)):
                # other numbers than those ([18, ...]) by which the bounds on borrowed freedom were chosen
                rng = np.random.default_rng([19, k, number, GAPS.index(gaps)])
                found = pd.DataFrame([_once(rng, levels(k, gaps), shape) for _ in range(count)])
                lost, left, share = (float(each) for each in found.mean())
                rows.append((k, gaps, shape, lost, math.sqrt(lost * (1 - lost) / count), left, share, count))
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
