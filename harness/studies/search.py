"""What every loss gets before it is compared: trials by one rule, on validation, on seeds outside the study.

A search goes in rounds, for all contenders (a loss in a cell; the repeated baseline is one of its own) at once: it asks
for values, their trials run, it is told how they did. Track ``fixed`` asks for nothing, track ``lr`` for a grid of
learning rates, track ``tuned`` lets Optuna ask for the learning rate and the loss's own settings, within conf/search/.

The budget is the same rule for all: the grid, or ``search.trials``; then, as long as the best rate is the least or the
greatest tried, further trials beyond it (a rate of a grid, a batch of Optuna's), at most ``search.most`` times on each
side. So every contender ends with its best rate between two that were tried, or at the bound, which the report says.
When no further trial is asked for, those that may be better than the best by more than the study's margin get further
seeds, and so does the best, up to ``search.most_seeds``; what still contends then is in the report, too.

Every trial is an ordinary run, and equal answers lead to equal questions: a search that was stopped asks again, finds
its finished runs and goes on, so nothing of Optuna is stored. Rounds do not depend on how many workers there are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from harness import compose, records
from harness.address import Addresses
from harness.errors import UsageError
from harness.metrics.declared import Metric, from_dict
from harness.plan import REPEAT_SEEDS_FROM, Contender, Run, Setting, Study, Values
from harness.selection import Choice, Tried, choose, contending, ranks

RATE = "optimizer.lr"
LEAST_STARTUP = 4  # trials of the first round, before Optuna has anything to learn from; half of all, if that is more
BATCH = 3  # trials of every later round
TRIES = 100  # to find values that were not tried yet
STEP = math.sqrt(10)  # how much further out track tuned looks where its best learning rate is the outermost tried
WIDER = 10.0  # by how much its range grows where that leads out of it
Space = dict[str, dict[str, Any]]


class Method(Protocol):
    """How values are proposed for one contender."""

    @property
    def left(self) -> int:
        """How many trials it is sure to ask for yet."""
        ...

    def ask(self) -> list[Values]:
        """Return the values of the next round of trials, none if there is to be no further one."""
        ...

    def tell(self, best: Values, ranks: Sequence[int]) -> None:
        """Take what came of all trials so far: the values of the best, and the rank of each (higher is better)."""
        ...


class Growth:
    """How often a search may go on beyond the outermost rates: ``most`` times on each side."""

    def __init__(self, most: int) -> None:
        self.left = {"below": most, "above": most}

    def side(self, best: float, tried: Iterable[float]) -> str:
        """Return the side on which to look further, ``below`` or ``above`` the best rate, and count it; else nothing.

        A search that tried one rate only was not to move it.
        """
        low, high = min(rates := list(tried)), max(rates)
        side = "" if low == high else "below" if best == low else "above" if best == high else ""
        if not side or not self.left[side]:
            return ""
        self.left[side] -= 1
        return side


class Grid:
    """Given learning rates in one round, the middle of the grid first; then one rate more as long as the best is at an
    end, as far from it as its neighbour. Without rates there is no round.
    """

    def __init__(self, rates: Iterable[float], most: int) -> None:
        self.tried = sorted(set(rates))
        middle = sum(map(math.log, self.tried)) / max(1, len(self.tried))
        self.next = sorted(self.tried, key=lambda rate: abs(math.log(rate) - middle))
        self.growth = Growth(most)

    @property
    def left(self) -> int:
        """How many rates it is sure to ask for yet."""
        return len(self.next)

    def ask(self) -> list[Values]:
        """Return the rates of the next round."""
        rates, self.next = self.next, []
        return [{RATE: rate} for rate in rates]

    def tell(self, best: Values, ranks: Sequence[int]) -> None:
        """Take the best rate; where it is at an end of the grid, the next round has a rate beyond it."""
        side = self.growth.side(best[RATE], self.tried)
        if side:
            end, neighbour = self.tried[:2] if side == "below" else self.tried[:-3:-1]
            self.next = [_rounded(end * end / neighbour)]
            self.tried = sorted([*self.tried, *self.next])


class Tpe:
    """Optuna's tree-structured Parzen estimator; it tries the defaults first, then what it draws, then what it learns.

    Where the best learning rate of the budget is the least or greatest tried, a further batch begins with the best
    values at a rate further out, and the range grows where it does not hold that.

    Args:
        space: what is searched; see :func:`space_of`.
        defaults: the value of each setting where nothing is searched.
        trials: how many to ask for in all, before it looks further.
        seed: of the sampler; equal seeds and ranks give equal trials.
        most: how often it looks further, on each side.
    """

    def __init__(self, space: Space, defaults: Values, trials: int, seed: int, most: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space = {name: _distribution(given) for name, given in space.items()}
        self.first, self.left, self.seed = defaults, trials, seed
        self.defaults, self.startup = defaults, min(trials, max(LEAST_STARTUP, math.ceil(trials / 2)))
        self.growth = Growth(most)
        self.tried: list[Values] = []
        self.ranks: Sequence[int] = ()

    def ask(self) -> list[Values]:
        """Return values not tried yet, rounded to three significant digits; none if the budget is spent."""
        count = min(self.left, BATCH if self.tried else self.startup)
        self.left -= count
        if not count:
            return []
        study, known = self._study(), len(self.tried)
        for _ in range(count):
            self._draw(study)
        return self.tried[known:]

    def _study(self) -> Any:
        """Return a study that knows the trials so far by their ranks, which is all that the estimator uses."""
        import optuna

        sampler = optuna.samplers.TPESampler(
            n_startup_trials=self.startup, seed=(self.seed + len(self.tried)) % 2**32, constant_liar=True
        )
        study = optuna.create_study(direction="maximize", sampler=sampler)
        for values, rank in zip(self.tried, self.ranks, strict=True):
            study.add_trial(optuna.trial.create_trial(params=values, distributions=self.space, value=rank))
        if self.first not in self.tried:
            study.enqueue_trial(self.first)
        return study

    def _draw(self, study: Any) -> None:
        from optuna.trial import TrialState

        for _ in range(TRIES):
            trial = study.ask(self.space)
            values = {name: v if v == self.first[name] else _rounded(v) for name, v in trial.params.items()}
            if values not in self.tried:
                self.tried.append(values)
                return
            study.tell(trial, state=TrialState.FAIL)
        raise UsageError(
            f"no more than {len(self.tried)} different trials were found: give search.range more room or search.trials "
            "a smaller number."
        )

    def tell(self, best: Values, ranks: Sequence[int]) -> None:
        """Take the ranks; where the budget is spent and the best rate is the outermost, look further."""
        self.ranks = ranks
        side = "" if self.left else self.growth.side(best[RATE], (values[RATE] for values in self.tried))
        if side:
            rate, old = _rounded(best[RATE] * (STEP if side == "above" else 1 / STEP)), self.space[RATE]
            low = old.low if rate >= old.low else _rounded(old.low / WIDER)
            high = old.high if rate <= old.high else _rounded(old.high * WIDER)
            self.space[RATE] = type(old)(low, high, log=True)
            self.first, self.left = best | {RATE: rate}, BATCH


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
    most = study.search["most"]
    if study.track == "tuned":
        space = space_of(setting, study)
        defaults = {path: setting.spec.value(path) for path in space}
        seed = int(setting.hash[:8], 16) + _seeds_from(setting)
        return Tpe(space, defaults, study.search["trials"], seed, most)
    factors = study.search["factors"] if study.track == "lr" else []
    return Grid((_rounded(setting.spec.optimizer["lr"] * factor) for factor in factors), most)


def _seeds_from(setting: Setting) -> int:
    """Return what the seeds of a contender's search begin at: the repeated baseline has others than the baseline."""
    return REPEAT_SEEDS_FROM if setting.role == "baseline_repeat" else 0


@dataclass
class Trial:
    """Values tried for a contender: one run for each of the search's seeds, and how they did on validation."""

    values: Values
    runs: list[Run]
    found: list[Tried] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The hash of its setting."""
        return self.runs[0].setting.hash


class Search:
    """The search of a study over all its contenders, round by round.

    Args:
        settings: all settings of the study.
        study: what is asked.
        addresses: names the runs of trials.
    """

    def __init__(self, settings: Iterable[Setting], study: Study, addresses: Addresses) -> None:
        self.study, self.addresses = study, addresses
        self.settings = {setting.contender: setting for setting in settings}
        self.methods = {contender: _method(setting, study) for contender, setting in self.settings.items()}
        self.trials: dict[Contender, list[Trial]] = {contender: [] for contender in self.settings}
        self.seeds = {contender: list(study.search["seeds"]) for contender in self.settings}
        self.round: dict[Contender, list[Trial]] = {}
        self.choices: dict[Contender, Choice] = {}
        self.declared: dict[str, Metric] = {}

    def ask(self) -> list[Run]:
        """Return the runs of the next round, none if all trials were asked for."""
        asked: list[Run] = []
        for contender, method in self.methods.items():
            setting = self.settings[contender]
            trials = [Trial(values, self._runs(setting, values, self.seeds[contender])) for values in method.ask()]
            self.trials[contender] += trials
            asked += [run for trial in trials for run in trial.runs]
            if not trials:
                trials = self._in_contest(contender)
                further = self._further_seed(contender) if trials else []
                for trial in trials if further else ():
                    more = self._runs(setting, trial.values, further)
                    trial.runs += more
                    asked += more
                trials = trials if further else []
            self.round[contender] = trials
        return asked

    def _in_contest(self, contender: Contender) -> list[Trial]:
        """Return the chosen trial and those that may yet be better by more than the margin; none if there are none."""
        known = self.trials[contender]
        if not known or contender not in self.choices:
            return []
        found, chosen = [run for trial in known for run in trial.found], self.choices[contender].trial
        others = contending(found, chosen, self.study.metric, list(self.declared.values()), self.study.margin)
        return [trial for trial in known if trial.name in (chosen, *others)] if others else []

    def _further_seed(self, contender: Contender) -> list[int]:
        """Return the next seed of a contender's search and count it; none is left after `search.most_seeds`."""
        seeds = self.seeds[contender]
        if len(seeds) >= self.study.search["most_seeds"]:
            return []
        seeds.append(max(seeds) + 1)
        return seeds[-1:]

    def _runs(self, setting: Setting, values: Values, given: Sequence[int]) -> list[Run]:
        role = "search_repeat" if setting.role == "baseline_repeat" else "search"
        at = replace(setting.at(values), role=role)
        seeds = [seed + _seeds_from(setting) for seed in given]
        named = zip(self.addresses.keys(at.spec, seeds), seeds, given, strict=True)
        return [Run(key, at, seed, pair) for key, seed, pair in named]

    def tell(self, results: Path) -> None:
        """Read how the runs of the last round did, and choose among all trials so far.

        Raises:
            UsageError: the study's metric is not recorded on validation data.
        """
        for contender, trials in self.round.items():
            if not trials:
                continue
            for trial in trials:
                trial.found = [self._found(trial, run, results) for run in trial.runs]
            known, declared = self.trials[contender], list(self.declared.values())
            found = [run for trial in known for run in trial.found]
            order = ranks(found, self.study.metric, declared)
            self.choices[contender] = choose(found, self.study.metric, declared, self.study.margin)
            self.methods[contender].tell(self._best(contender), [order[trial.name] for trial in known])

    def _found(self, trial: Trial, run: Run, results: Path) -> Tried:
        record = records.read(run.key, results)
        status, valid = (record["status"], record.get("valid", {})) if record else ("missing", {})
        name = self.study.metric.rpartition(".")[2]
        if record and status == "done":
            self.declared |= {metric.key: metric for metric in map(from_dict, record["metrics"])}
            if name not in valid:
                known = ", ".join(sorted(valid))
                raise UsageError(f"metric={self.study.metric} is not recorded: {known} are.")
        return Tried(trial.name, run.setting.spec.optimizer["lr"], run.seed, status, valid)

    def _best(self, contender: Contender) -> Values:
        chosen = self.choices[contender].trial
        return next(trial.values for trial in self.trials[contender] if trial.name == chosen)

    @property
    def budget(self) -> int:
        """How many trials every loss is sure to have in each cell, asked for or not."""
        return min((len(self.trials[contender]) + method.left for contender, method in self.methods.items()), default=0)

    @property
    def runs(self) -> list[Run]:
        """All runs asked for so far, contender by contender."""
        return [run for trials in self.trials.values() for trial in trials for run in trial.runs]

    @property
    def ahead(self) -> list[Setting]:
        """The settings of the runs sure to be asked for yet, as they are before the search has moved them."""
        seeds = len(self.study.search["seeds"])
        return [
            self.settings[contender] for contender, method in self.methods.items() for _ in range(method.left * seeds)
        ]

    def chosen(self) -> dict[Contender, Values]:
        """Return the values of every contender's best trial; nothing on track ``fixed``."""
        return {contender: self._best(contender) for contender in self.choices}
