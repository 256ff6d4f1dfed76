"""How often verdicts are wrong, and how often intervals hold what they should, by simulation.

``python -m scripts.simulate_verdicts`` prints a table and writes results/measured/verdict_simulations.csv: for every
setting the rate that was found, its nominal value, and the number of repetitions. About eight minutes on one core.

A run is simulated as its score on every test item: an item is right if the loss's level + the item's difficulty (alike
for all losses) + what the item is for this loss + the seed's luck + noise is above 0. The truth is known exactly, since
all parts are normal.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from harness import selection
from harness.analysis import learning, stats
from harness.analysis.best import confidence_set
from harness.analysis.estimates import ALPHA, Items, estimate
from harness.analysis.stats import Scale, compare, compare_family
from harness.paths import MEASURED
from harness.records.store import write_text

FILE = MEASURED / "verdict_simulations.csv"
DIFFICULTY, TASTE, LUCK = 2.0, 0.5, 0.15
"""Standard deviations: of items for all losses, of items for one loss, and of seeds; noise has 1."""
SPREAD = math.sqrt(1 + DIFFICULTY**2 + TASTE**2 + LUCK**2)
FIRST_SEEDS, MOST_SEEDS = 3, 8  # of a search, by default
Rates = dict[str, float]


class World:
    """Losses of known accuracy on items of known difficulty.

    Args:
        rng: the only source of randomness.
        accuracies: of every loss, in the population of items and seeds; the first is the baseline.
        pool: items that there are.
        tested: items of each test set.
        by_seed: every seed draws its test items from the pool; else all seeds have the first ones.
    """

    def __init__(
        self, rng: np.random.Generator, accuracies: Sequence[float], pool: int, tested: int, *, by_seed: bool
    ) -> None:
        self.rng, self.tested, self.by_seed = rng, tested, by_seed
        self.levels = special.ndtri(np.asarray(accuracies)) * SPREAD
        self.difficulty = rng.normal(size=pool) * DIFFICULTY
        self.taste = rng.normal(size=(len(self.levels), pool)) * TASTE

    def seed(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the ids (n,) of the test items of a new seed and the scores (losses, n) of all losses on them."""
        items = np.arange(self.tested)
        if self.by_seed:
            items = self.rng.permutation(len(self.difficulty))[: self.tested]
        shape = (len(self.levels), self.tested)
        luck = self.rng.normal(size=(shape[0], 1)) * LUCK
        drive = (
            self.levels[:, None] + self.difficulty[items] + self.taste[:, items] + luck + self.rng.normal(size=shape)
        )
        return items, (drive > 0).astype(float)


def differences(seeds: Sequence[tuple[NDArray[np.int64], NDArray[np.float64]]], a: int, b: int = 0) -> Items:
    """Return the differences of two losses on every item, seed by seed."""
    return [(ids, scores[a] - scores[b]) for ids, scores in seeds]


def by_seed(items: Items) -> list[float]:
    """Return the differences of accuracy by seed."""
    return [float(each.mean()) for _, each in items]


# ---------------------------------------------------------------------------- what is simulated


def coverage(rng: np.random.Generator, seeds: int, tested: int, *, redrawn: bool, gap: float) -> Rates:
    """Return how often intervals over seeds and new items, and over seeds alone, hold the true difference."""
    accuracies = (0.97, 0.97 + gap)
    world = World(rng, accuracies, 5 * tested, tested, by_seed=redrawn)
    items = differences([world.seed() for _ in range(seeds)], 1)
    found = estimate(by_seed(items), items, 1 / tested)
    held = {}
    for name, scope in (("new items", "new items"), ("seeds alone", "seeds")):
        low, high = found.interval(scope, low=-1.0, high=1.0)  # pyright: ignore[reportArgumentType]
        held[f"coverage, {name}"] = float(low <= gap <= high)
    return held


def false_verdict(rng: np.random.Generator, seeds: int, losses: int, *, redrawn: bool) -> Rates:
    """Return whether a family of losses that equal the baseline has a wrong verdict, and whether the set holds it."""
    world = World(rng, [0.97] * losses, 1800, 360, by_seed=redrawn)
    drawn = [world.seed() for _ in range(seeds)]
    items = {str(i): differences(drawn, i) for i in range(1, losses)}
    scale = Scale(margin=0.005, low=-1.0, high=1.0, grain=1 / 360)
    compared = compare_family({name: by_seed(each) for name, each in items.items()}, scale, items=items)
    return {"false better or worse": float(any(c.verdict in ("better", "worse") for c in compared.values()))}


def set_holds_best(rng: np.random.Generator, seeds: int, losses: int) -> Rates:
    """Return whether the confidence set holds the best loss, where all lie close together."""
    accuracies = [0.97 - 0.002 * (i > 0) * i / losses for i in range(losses)]
    world = World(rng, accuracies, 1800, 360, by_seed=True)
    drawn = [world.seed() for _ in range(seeds)]

    def difference(first: str, second: str) -> object:
        items = differences(drawn, int(first), int(second))
        return estimate(by_seed(items), items, 1 / 360)

    found = confidence_set([str(i) for i in range(losses)], difference)  # pyright: ignore[reportArgumentType]
    return {"set holds the best": float(found[0].may_be_best)}


def shaped(rng: np.random.Generator, n: int, shape: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return scores (n,) of baseline and loss with equal means, in units of their spread, of a given shape."""
    base, own = rng.normal(size=n), rng.normal(size=n)
    if shape == "coarse grain":
        return np.round(base * 0.7), np.round(own * 0.7)
    if shape == "unequal spreads":
        return 0.1 * base, own
    if shape == "heavy tails on one side":  # of both: losses without effect
        return -rng.exponential(size=n), -rng.exponential(size=n)
    if shape == "collapse of one in ten":  # of the loss alone; runs that learn are equal
        return base, np.where(rng.random(n) < 0.1, own - 60.0, own)
    return base, own


def false_of_shape(rng: np.random.Generator, n: int, shape: str, losses: int = 13) -> Rates:
    """Return whether a family of equal losses whose scores have a given shape has a wrong verdict.

    Runs that did not learn are taken out first, as reports do: chance is 100 spreads below the typical run.
    """
    compared = {}
    for i in range(losses):
        base, own = shaped(rng, n, shape)
        keep = learning.learnt(own, -100.0, 0.0) & learning.learnt(base, -100.0, 0.0)
        compared[str(i)] = (own - base)[keep]
    grain = 1.0 if shape == "coarse grain" else 0.0
    found = compare_family(compared, Scale(grain=grain))
    return {"false better or worse": float(any(c.verdict != "not decidable" for c in found.values()))}


def looking(rng: np.random.Generator, losses: int, most: int = 40, effect: float = 0.0) -> Rates:
    """Return whether a family is decided wrongly at any of the looks after every seed, fixed and anytime-valid."""
    d = rng.normal(size=(losses, most)) + effect
    scale, wrong = Scale(), {False: 0.0, True: 0.0}
    for n in range(2, most + 1):
        for sequential in wrong:
            for i in range(losses):
                if wrong[sequential]:
                    break
                c = compare(d[i, :n], scale, family=losses, sequential=sequential)
                wrong[sequential] = float(c.verdict != "not decidable")
    return {"false, fixed design looked at after every seed": wrong[False], "false, until=decided": wrong[True]}


def needed(rng: np.random.Generator, effect: float, losses: int = 13, most: int = 200) -> float:
    """Return after how many seeds ``until=decided`` shows an effect (in standard deviations) in a family."""
    d = rng.normal(size=most) + effect
    for n in range(2, most + 1):
        if compare(d[:n], Scale(), family=losses, sequential=True).verdict != "not decidable":
            return n
    return most


def fixed_design(effect: float, losses: int = 13) -> int:
    """Return the least number of seeds, fixed before, that shows a known effect in a family with 80 % power."""
    from statsmodels.stats.power import TTestPower

    return next(n for n in range(2, 10_000) if TTestPower().power(effect, n, ALPHA / losses) >= stats.POWER)


def searched(rng: np.random.Generator, truth: Sequence[float], images: int, margin: float) -> tuple[int, bool]:
    """Return the rate (its position) that the harness's search takes, and whether another still contends.

    All rates are validated on the same images, other ones for every seed: three seeds, then up to eight for what may
    be better than the best by more than the margin.
    """
    world = World(rng, truth, 5 * images, images, by_seed=True)
    scores = [world.seed()[1].mean(1) for _ in range(MOST_SEEDS)]
    seeds = dict.fromkeys(range(len(truth)), FIRST_SEEDS)
    while True:
        runs = [
            selection.Tried(str(i), float(i + 1), seed, "done", {"top1": float(scores[seed][i])})
            for i, count in seeds.items()
            for seed in range(count)
        ]
        choice = selection.choose(runs, "test.top1", margin=margin)
        chosen, most = int(choice.trial), max(seeds.values())
        if not choice.contending or most == MOST_SEEDS:
            return chosen, bool(choice.contending)
        for i in (chosen, *(int(rate) - 1 for rate in choice.contending)):
            seeds[i] = most + 1


def search_on_few_images(rng: np.random.Generator, seeds: int, images: int, losses: int) -> Rates:
    """Return whether equal losses, each with a rate searched on few images, have a wrong verdict.

    Every loss has five rates, of which two are equally good and the others a point and more worse; the rate that its
    search takes decides what its runs score. A verdict is wrong that finds a difference between losses that are equal
    at their best rates, unless it is withheld because a rate still contends.
    """
    truth, margin = [0.945, 0.96, 0.96, 0.945, 0.93], 0.005
    taken, contending = zip(*(searched(rng, truth, images, margin) for _ in range(losses)), strict=True)
    world = World(rng, [truth[i] for i in taken], 1800, 360, by_seed=True)
    drawn = [world.seed() for _ in range(seeds)]
    items = {str(i): differences(drawn, i) for i in range(1, losses)}
    scale = Scale(margin=margin, low=-1.0, high=1.0, grain=1 / 360)
    compared = compare_family({name: by_seed(each) for name, each in items.items()}, scale, items=items)
    wrong = [name for name, c in compared.items() if c.verdict in ("better", "worse")]
    carried = [name for name in wrong if not (contending[0] or contending[int(name)])]
    return {"false better or worse": float(bool(carried)), "withheld for the search": float(np.mean(contending))}


def settings() -> Iterator[tuple[str, float, int, Callable[[np.random.Generator], Rates]]]:
    """Yield every setting: its name, the nominal rate, the share of repetitions it takes, and one repetition."""
    for n, tested in ((5, 360), (12, 360), (40, 360), (5, 1000)):
        for redrawn in (False, True):
            for gap in (0.0, -0.02):
                how = "split by seed" if redrawn else "fixed split"
                name = f"{n} seeds, {tested} items, {how}, true difference {100 * gap:g} points"
                yield name, 0.95, 1, lambda rng, n=n, t=tested, r=redrawn, g=gap: coverage(rng, n, t, redrawn=r, gap=g)
    for n in (5, 12):
        for redrawn in (False, True):
            how = "split by seed" if redrawn else "fixed split"
            name = f"{n} seeds, 12 losses equal to the baseline, {how}"
            yield name, 0.05, 2, lambda rng, n=n, r=redrawn: false_verdict(rng, n, 13, redrawn=r)
        yield f"{n} seeds, 10 losses within 0.2 points", 0.95, 2, lambda rng, n=n: set_holds_best(rng, n, 10)
    for shape in ("normal", "coarse grain", "unequal spreads", "heavy tails on one side", "collapse of one in ten"):
        for n in (5, 12):
            yield f"{n} seeds, 13 losses, {shape}", 0.05, 1, lambda rng, n=n, s=shape: false_of_shape(rng, n, s)
    for images in (237, 480):
        name = f"12 seeds, 8 losses searched on {images} images"
        yield name, 0.05, 2, lambda rng, n=images: search_on_few_images(rng, 12, n, 8)
    for losses in (1, 13):
        yield f"{losses} losses looked at from 2 to 40 seeds", 0.05, 2, lambda rng, k=losses: looking(rng, k)


def simulate(repetitions: int) -> pd.DataFrame:
    """Return the rates of all settings: setting, what was counted, rate, nominal, standard error, repetitions."""
    rows = []
    for number, (name, nominal, share, once) in enumerate(settings()):
        count = max(2, repetitions // share)
        rng = np.random.default_rng([16, number])
        found = pd.DataFrame([once(rng) for _ in range(count)])
        for what, rate in found.mean().items():
            error = math.sqrt(rate * (1 - rate) / count)
            rows.append((name, what, float(rate), nominal, error, count))
    for effect in (0.5, 1.0, 1.5, 2.0, 3.0):
        rng, count = np.random.default_rng([17, int(10 * effect)]), max(2, repetitions // 4)
        seeds, fixed = np.array([needed(rng, effect) for _ in range(count)]), fixed_design(effect)
        name = f"effect of {effect:g} deviations among 13 losses, over a fixed design that knew it ({fixed} seeds)"
        error = float(seeds.std(ddof=1)) / math.sqrt(count) / fixed
        rows.append((name, "seeds of until=decided, mean", float(seeds.mean()) / fixed, 1.5, error, count))
        most = float(np.quantile(seeds, stats.POWER, method="higher")) / fixed
        rows.append((name, "seeds of until=decided, 80 % of cases", most, 1.5, math.nan, count))
    return pd.DataFrame(rows, columns=["setting", "counted", "found", "nominal", "standard_error", "repetitions"])


def main() -> None:
    """Simulate, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=4000, help="of the cheapest settings (default 4000)")
    parser.add_argument("--out", type=Path, default=FILE, help="CSV to write")
    given = parser.parse_args()
    table = simulate(given.repetitions)
    write_text(given.out, table.to_csv(index=False))
    print(table.to_string(index=False, float_format=lambda value: f"{value:.3f}"))


if __name__ == "__main__":
    main()
