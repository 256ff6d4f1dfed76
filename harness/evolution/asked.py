"""What a search is asked for: a command line, read and checked before anything starts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness import address, compose, plan
from harness.errors import UsageError, unknown
from harness.evolution.methods import METHODS, NullSearch
from harness.plan import Setting

OF_SWEEP = ("data.", "feed", "engine", "tracking", "device=", "threads=")
DEFAULTS: Mapping[str, Any] = {
    "population": 25,
    "generations": 10,
    "moved": 2,
    "methods": ["genetic", "random", "chance"],
    "seed": 1,
    "seeds": [1, 2],
    "test_seeds": [101, 102, 103, 104, 105, 106],
    "finalists": 4,
    "short": 0.25,
    "metric": "",
    "margin": 0.005,
    "over_classes": "mean",
    "name": "",
}
"""Settings of a search, which are no settings of its runs."""
NULL_SEEDS_FROM = 10_000
"""What the seeds of the null search begin at: each of its candidates has others."""


@dataclass(frozen=True)
class Asked:
    """A search.

    Attributes:
        name: folder of its results.
        base: the run that every candidate is put into, as composed.
        options: ``data``, ``engine``, ``device`` and ``threads``, as composed.
        metric: what fitness is, a metric of the task, without the test set.
        population, generations: members of a generation, and how many there are before numbers are moved.
        moved: generations in which the numbers of the best trees are moved.
        methods: names in `harness.evolution.methods.METHODS`.
        seed: of all draws.
        seeds: on which candidates are trained; the first for all, all of them for the best.
        test_seeds: on which finalists are chosen and tested.
        finalists: how many of each method: its best that differ in more than their numbers.
        short: share of the epochs that every candidate is trained for first.
        margin: what is too small a difference to matter, in the metric's unit.
        over_classes: whether a formula is summed over the classes, or its mean.
    """

    name: str
    base: compose.Composed
    options: dict[str, Any]
    metric: str
    population: int
    generations: int
    moved: int
    methods: list[str]
    seed: int
    seeds: list[int]
    test_seeds: list[int]
    finalists: int
    short: float
    margin: float
    over_classes: str

    @property
    def epochs(self) -> int:
        """Epochs of a full training."""
        return int(self.base.config["trainer"]["epochs"])

    @property
    def stages(self) -> list[tuple[int, list[int]]]:
        """Epochs and seeds of the stages of training, each for fewer candidates than the one before."""
        short = max(1, round(self.short * self.epochs))
        first = [(short, self.seeds[:1])] if short < self.epochs else []
        further = [(self.epochs, self.seeds)] if len(self.seeds) > 1 else []
        return [*first, (self.epochs, self.seeds[:1]), *further]

    def setting(self, loss: str, formula: str = "", epochs: int = 0) -> Setting:
        """Return what is trained: a loss, or with ``symbolic`` a formula, for so many epochs (0: all)."""
        values = {"loss": loss, "trainer.epochs": epochs or self.epochs}
        if formula:
            values |= {"loss.formula": formula, "loss.over_classes": self.over_classes}
        composed = compose.swapped(self.base, values)
        spec = address.spec_of(composed.config)
        choices = compose.with_model_called(composed.choices, composed.config)
        return Setting(choices, formula or loss, {}, "search", spec, address.setting_hash(spec))


def read(given: Sequence[str]) -> Asked:
    """Read the command line of a search.

    Raises:
        UsageError: something in it does not exist, or has a value that it cannot have.
    """
    from hydra.utils import get_class

    pairs = [(entry, *plan.parsed(entry)) for entry in given]
    own = {key: value for _, key, value in pairs if key in DEFAULTS}
    base = compose.compose_run([entry for entry, key, _ in pairs if key not in DEFAULTS])
    if "loss" not in base.choices or any(key.startswith("loss.") for key in base.choices):
        raise UsageError(f"task={base.choices['task']} adds up several losses: a search needs a task with one.")
    if base.config["dataset"].get("split") == "by_seed":
        raise UsageError(
            "dataset.split=by_seed draws test items of one seed for the training of another: a search needs "
            "dataset.split=fixed, so that search, choice and test are on disjoint parts."
        )
    known = [metric.key for metric in get_class(base.config["task"]["_target_"]).metrics]
    values = {**DEFAULTS, **own}
    values["metric"] = str(values["metric"] or known[0]).removeprefix("valid.").removeprefix("test.")
    if values["metric"] not in known:
        raise unknown("metric", values["metric"], known)
    _check(values)
    asked = sorted(entry for entry, key, _ in pairs if key != "name" and not entry.startswith(OF_SWEEP))
    digest = hashlib.sha256("\n".join(asked).encode()).hexdigest()[:6]
    name = plan.checked_name(str(own.get("name") or f"search-{base.choices['dataset']}-{digest}"))
    found = Asked(**{**values, "name": name}, base=base, options=base.config)
    found.setting("symbolic", NullSearch.formula)
    return found


def _check(values: Mapping[str, Any]) -> None:
    """Raise a UsageError unless every setting of a search is what it may be."""
    least = {"population": 2, "generations": 1, "moved": 0, "seed": 0, "finalists": 1}
    for name, low in least.items():
        if type(values[name]) is not int or values[name] < low:
            raise UsageError(f"{name}={values[name]}: use a whole number from {low} on.")
    for name in ("seeds", "test_seeds"):
        found = values[name]
        if not isinstance(found, list) or not found or any(type(seed) is not int or seed < 0 for seed in found):
            raise UsageError(f"{name}={found}: use a list of different whole numbers, such as [1,2].")
        if len(set(found)) < len(found) or max(found) >= NULL_SEEDS_FROM:
            raise UsageError(f"{name}={found}: use different whole numbers below {NULL_SEEDS_FROM:,}.")
    if shared := set(values["seeds"]) & set(values["test_seeds"]):
        raise UsageError(f"seeds and test_seeds share {min(shared)}: what is found is tested on seeds of its own.")
    methods = values["methods"]
    if not isinstance(methods, list) or not methods:
        raise UsageError(f"methods={methods}: use a list of {', '.join(METHODS)}.")
    for name in methods:
        if name not in METHODS:
            raise unknown("method", name, METHODS)
    if not isinstance(values["short"], int | float) or not 0 < values["short"] <= 1:
        raise UsageError(f"short={values['short']}: use a share of the epochs above 0, at most 1.")
    if not isinstance(values["margin"], int | float) or values["margin"] < 0:
        raise UsageError(f"margin={values['margin']}: use a number from 0 on.")
    if values["over_classes"] not in ("sum", "mean"):
        raise unknown("over_classes", values["over_classes"], ["sum", "mean"])
