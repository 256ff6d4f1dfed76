"""What every loss gets before it is compared: equally many trials, on validation, on seeds outside the study.

A search goes in rounds, for all contenders (a loss in a cell) at once: it asks for values, their trials run, it is told
how they did. Track ``fixed`` asks for nothing, track ``lr`` once for a grid of learning rates, track ``tuned`` lets
Optuna ask for the learning rate and the loss's own settings, within conf/search/. Every trial is an ordinary run, and
equal answers lead to equal questions: a search that was stopped asks again, finds its finished runs and goes on, so
nothing of Optuna is stored. Rounds do not depend on how many workers there are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from harness import compose, records
from harness.address import Addresses
from harness.errors import UsageError
from harness.metrics.declared import from_dict, metric_of
from harness.plan import Contender, Run, Setting, Study, Values

RATE = "optimizer.lr"
LEAST_STARTUP = 4  # trials of the first round, before Optuna has anything to learn from; half of all, if that is more
BATCH = 3  # trials of every later round
TRIES = 100  # to find values that were not tried yet
Space = dict[str, dict[str, Any]]


class Method(Protocol):
    """How values are proposed for one contender; ``left`` is how many trials it has not asked for yet."""

    left: int

    def ask(self) -> list[Values]:
        """Return the values of the next round of trials, none if the budget is spent."""
        ...

    def tell(self, scores: Sequence[float]) -> None:
        """Take the scores of the trials last asked for: higher is better, minus infinity the worst."""
        ...


class Grid:
    """Given learning rates, all in one round, the middle of the grid first; without rates there is no round."""

    def __init__(self, rates: Iterable[float]) -> None:
        found = sorted(set(rates))
        middle = sum(map(math.log, found)) / max(1, len(found))
        self.rates = sorted(found, key=lambda rate: abs(math.log(rate) - middle))
        self.left = len(found)

    def ask(self) -> list[Values]:
        """Return all rates, the first time."""
        rates, self.rates, self.left = self.rates, [], 0
        return [{RATE: rate} for rate in rates]

    def tell(self, scores: Sequence[float]) -> None:
        """Take the scores, from which nothing follows."""


class Tpe:
    """Optuna's tree-structured Parzen estimator; it tries the defaults first, then what it draws, then what it learns.

    Args:
        space: what is searched; see :func:`space_of`.
        defaults: the value of each setting where nothing is searched.
        trials: how many to ask for in all.
        seed: of the sampler; equal seeds and scores give equal trials.
    """

    def __init__(self, space: Space, defaults: Values, trials: int, seed: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space = {name: _distribution(given) for name, given in space.items()}
        self.defaults, self.left = defaults, trials
        self.next = min(trials, max(LEAST_STARTUP, math.ceil(trials / 2)))
        sampler = optuna.samplers.TPESampler(n_startup_trials=self.next, seed=seed, constant_liar=True)
        self.study = optuna.create_study(direction="maximize", sampler=sampler)
        self.study.enqueue_trial(defaults)
        self.tried: list[Values] = []
        self.asked: list[Any] = []

    def ask(self) -> list[Values]:
        """Return values not tried yet, rounded to three significant digits; none if the budget is spent."""
        found = [self._draw() for _ in range(self.next)]
        self.asked = [trial for trial, _ in found]
        self.left -= self.next
        self.next = min(self.left, BATCH)
        return [values for _, values in found]

    def _draw(self) -> tuple[Any, Values]:
        from optuna.trial import TrialState

        for _ in range(TRIES):
            trial = self.study.ask(self.space)
            values = {name: v if v == self.defaults[name] else _rounded(v) for name, v in trial.params.items()}
            if values not in self.tried:
                self.tried.append(values)
                return trial, values
            self.study.tell(trial, state=TrialState.FAIL)
        raise UsageError(
            f"no more than {len(self.tried)} different trials were found: give search.range more room or search.trials "
            "a smaller number."
        )

    def tell(self, scores: Sequence[float]) -> None:
        """Take the scores of the trials last asked for."""
        for trial, score in zip(self.asked, scores, strict=True):
            self.study.tell(trial, score)


def _distribution(given: Mapping[str, Any]) -> Any:
    """Return what Optuna calls a range or a choice; between whole numbers there are whole numbers."""
    from optuna import distributions as kinds

    if "choices" in given:
        return kinds.CategoricalDistribution(given["choices"])
    kind = kinds.IntDistribution if all(type(given[end]) is int for end in ("low", "high")) else kinds.FloatDistribution
    return kind(given["low"], given["high"], log=given.get("log", False))


def _rounded(value: Any) -> Any:
    return float(f"{value:.3g}") if type(value) is float else value


def space_of(setting: Setting, study: Study) -> Space:
    """Return what track ``tuned`` searches: the learning rate around the model's own, and what conf/search/ says of the
    loss, apart from settings that the study itself gives.

    Raises:
        UsageError: the file names a setting that the loss does not have, or describes it in other words.
    """
    rate = setting.spec.optimizer["lr"]
    ends = [_rounded(rate * factor) for factor in study.search["range"]]
    space: Space = {RATE: {"low": ends[0], "high": ends[1], "log": True}}
    name = setting.choices["loss"]
    for path, given in (compose.option("search", name) if name in compose.options("search") else {}).items():
        compose.require_path(setting.spec.loss, path)
        words = set(given) if isinstance(given, dict) else set()
        if words != {"choices"} and words - {"log"} != {"low", "high"}:
            raise UsageError(f"conf/search/{name}.yaml: {path} needs low and high (and log: true), or choices.")
        full = f"loss.{path}"
        if not any(full == pinned or full.startswith(f"{pinned}.") for pinned in setting.pinned):
            space[full] = given
    return space


def _method(setting: Setting, study: Study) -> Method:
    if study.track == "tuned":
        space = space_of(setting, study)
        defaults = {path: setting.spec.value(path) for path in space}
        return Tpe(space, defaults, study.search["trials"], seed=int(setting.hash[:8], 16))
    factors = study.search["factors"] if study.track == "lr" else []
    return Grid(_rounded(setting.spec.optimizer["lr"] * factor) for factor in factors)


@dataclass
class Trial:
    """Values tried for a contender: one run for each of the search's seeds, and how they did on validation."""

    values: Values
    runs: list[Run]
    score: float = -math.inf


class Search:
    """The search of a study over all its contenders, round by round.

    Args:
        settings: all settings of the study; the repeated baseline takes what the baseline chooses.
        study: what is asked.
        addresses: names the runs of trials.
    """

    def __init__(self, settings: Iterable[Setting], study: Study, addresses: Addresses) -> None:
        self.study, self.addresses = study, addresses
        self.settings = {setting.contender: setting for setting in settings if setting.role != "baseline_repeat"}
        self.methods = {contender: _method(setting, study) for contender, setting in self.settings.items()}
        self.trials: dict[Contender, list[Trial]] = {contender: [] for contender in self.settings}
        self.round: dict[Contender, list[Trial]] = {}

    def ask(self) -> list[Run]:
        """Return the runs of the next round, none if all trials were asked for."""
        self.round = {
            contender: [self._trial(self.settings[contender], values) for values in method.ask()]
            for contender, method in self.methods.items()
        }
        for contender, trials in self.round.items():
            self.trials[contender] += trials
        return [run for trials in self.round.values() for trial in trials for run in trial.runs]

    def _trial(self, setting: Setting, values: Values) -> Trial:
        at, seeds = replace(setting.at(values), role="search"), self.study.search["seeds"]
        keys = self.addresses.keys(at.spec, seeds)
        return Trial(values, [Run(key, at, seed, seed) for key, seed in zip(keys, seeds, strict=True)])

    def tell(self, results: Path) -> None:
        """Read how the runs of the last round did."""
        for contender, trials in self.round.items():
            for trial in trials:
                trial.score = self._score(trial, results)
            self.methods[contender].tell([trial.score for trial in trials])

    def _score(self, trial: Trial, results: Path) -> float:
        """Return the mean validation metric, so that higher is better; one run that diverged or failed is the worst."""
        metric, scores = self.study.metric, []
        name = metric.rpartition(".")[2]  # of shifted test data, too, the search knows the validation data alone
        for run in trial.runs:
            record = records.read(run.key, results)
            if not record or record["status"] != "done":
                return -math.inf
            if name not in record["valid"]:
                raise UsageError(f"metric={metric} is not recorded: {', '.join(sorted(record['valid']))} are.")
            value, direction = record["valid"][name], metric_of(metric, map(from_dict, record["metrics"]))
            scores.append(-math.inf if value is None else value if direction.higher_is_better else -value)
        return sum(scores) / len(scores)

    @property
    def budget(self) -> int:
        """How many trials each loss has in each cell, asked for or not."""
        return max((len(self.trials[contender]) + method.left for contender, method in self.methods.items()), default=0)

    @property
    def runs(self) -> list[Run]:
        """All runs asked for so far, contender by contender."""
        return [run for trials in self.trials.values() for trial in trials for run in trial.runs]

    @property
    def ahead(self) -> list[Setting]:
        """The settings of the runs not asked for yet, as they are before the search has moved them."""
        seeds = len(self.study.search["seeds"])
        return [
            self.settings[contender] for contender, method in self.methods.items() for _ in range(method.left * seeds)
        ]

    def chosen(self) -> dict[Contender, Values]:
        """Return the values of every contender's best trial, the earliest of equals; nothing on track ``fixed``."""
        searched = {contender: trials for contender, trials in self.trials.items() if trials}
        return {one: max(trials, key=lambda trial: trial.score).values for one, trials in searched.items()}
