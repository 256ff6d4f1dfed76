"""A race: every loss gets a little, those that are shown to be worse are dropped, and the rest shares the budget.

1. The first trials tell what a run costs. Where the budget is too small to judge all losses, the first ones race.
   Every loss tries a few learning rates on one search seed, and further ones while the best is the outermost.
2. All run on the first seeds of the study at the rate that validation chose, and are judged.
3. Losses that are left, and whose rates are not told apart, get further search seeds: the two best rates of each one
   more, then what may yet be better by more than the margin. A loss whose choice changes begins its comparison again.
4. One seed follows after the other for what is left, with a judgement after each, until one loss is left, all that are
   left are equivalent, the seeds are used up, or the budget is spent.

Every run is an ordinary run and nothing else is stored: equal records lead to equal questions, so that a race that was
stopped asks again, finds its finished runs and goes on. The judge is given (`harness.analysis.race`): this module
plans and carries out.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness import plan, records
from harness.address import Addresses
from harness.errors import UsageError
from harness.paths import RESULTS
from harness.plan import Contender, Run, Setting, Study, Values
from harness.records.study import StudyData
from harness.selection import ranks
from harness.studies.search import Search, Trial
from harness.studies.sweep import Work, believe_in_gpus, workers_of
from harness.text import count, duration, joined

FIRST = 2
"""Seeds on which all losses are compared before the first is dropped."""
CHUNK = 0.1
"""Part of the budget that may be spent before it is looked at again."""
LEAST_RUNS = 6
"""About how many runs of a loss it takes to judge it: three rates, one beyond them, and two seeds."""
FIRST_PART = 0.5
"""Part of the budget for the first judgement; the rest is for the losses that it leaves."""
Config = Mapping[str, Any]


@dataclass(frozen=True)
class Judgement:
    """What a judge makes of the records so far.

    Attributes:
        left: labels of the losses that may be the best.
        settled: whether more seeds would change nothing that matters: one is left, or all that are left are equivalent.
        told: the same in a few words, for the progress line.
    """

    left: frozenset[str]
    settled: bool
    told: str


Judge = Callable[[StudyData], Judgement]


@dataclass(frozen=True)
class Budget:
    """What a race may cost: seconds of this machine, or runs; what is not given does not count."""

    seconds: float = math.inf
    runs: float = math.inf


@dataclass
class Ended:
    """How a race ended.

    Attributes:
        why: ``decided``, ``budget`` or ``seeds``.
        runs: how many of its runs there are now, trials included.
        seconds: how long they took in all, divided by the workers.
        refused: losses that could not be built, with the reason.
        same: losses that on these data are another one, and which.
        waiting: losses that did not race, because the budget does not hold so many.
        failed: runs that failed, as (description, reason).
        study: of the losses that raced, on the seeds that were compared.
        judgement: the last one; None where the budget was spent before the first.
    """

    why: str = "seeds"
    runs: int = 0
    seconds: float = 0.0
    refused: dict[str, str] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)
    same: dict[str, str] = field(default_factory=dict)
    failed: list[tuple[str, str]] = field(default_factory=list)
    study: Study | None = None
    judgement: Judgement | None = None


class Rates(Search):
    """The search of a race: one seed for all losses, further ones only for those in ``deepened``."""

    deepened: frozenset[str] = frozenset()
    """Labels of losses whose best rates get further seeds."""

    def _in_contest(self, contender: Contender) -> list[Trial]:
        if contender[1] not in self.deepened:
            return []
        found = super()._in_contest(contender)
        if not found or len(self.seeds[contender]) > len(self.study.search["seeds"]):
            return found
        order = ranks([run for trial in found for run in trial.found], self.study.metric, list(self.declared.values()))
        return sorted(found, key=lambda trial: -order[trial.name])[:2]  # halve what one seed cannot tell apart


class Race:
    """The runs of a race, asked for round by round.

    Args:
        study: its losses, and all seeds that there may be.
        settings: of the losses that can be trained.
        addresses: names runs.
    """

    def __init__(self, study: Study, settings: Sequence[Setting], addresses: Addresses) -> None:
        self.all_seeds, self.study = study.seeds, study.on(study.seeds[:FIRST])
        self.settings, self.addresses = list(settings), addresses
        self.search = Rates(settings, study, addresses)
        self.chosen: dict[Contender, Values] = {}
        self.compared: dict[str, list[Run]] = {}
        self.left = frozenset(setting.label for setting in settings)

    @property
    def runs(self) -> list[Run]:
        """All runs that count: trials, and comparisons at the chosen rates."""
        return [*self.search.runs, *(run for runs in self.compared.values() for run in runs)]

    def round(self) -> list[Run]:
        """Return the runs of all losses that are left on all seeds so far, at the rates chosen by now."""
        self.chosen = self.search.chosen()
        going = [setting for setting in self.settings if setting.label in self.left]
        runs = plan.runs(going, self.study, self.addresses, self.chosen)
        for setting in going:
            self.compared[setting.label] = [run for run in runs if run.setting.label == setting.label]
        return runs

    def without(self, labels: Collection[str]) -> Race:
        """Return the race of the other losses, from its start."""
        axes = {name: [v for v in values if v not in labels] for name, values in self.study.axes.items()}
        kept = [setting for setting in self.settings if setting.label not in labels]
        return Race(replace(self.study, axes=axes | {"seed": self.all_seeds}), kept, self.addresses)

    def further(self) -> bool:
        """Add a seed; return whether there was one left."""
        seeds = len(self.study.seeds)
        self.study = self.study.on(self.all_seeds[: seeds + 1])
        return len(self.study.seeds) > seeds


def conduct(
    study: Study,
    options: Config,
    budget: Budget,
    judge: Judge,
    say: Callable[[str], None],
    started: Callable[[], None] = lambda: None,
    results: Path = RESULTS,
) -> Ended:
    """Run a race until it is decided or its budget is spent, and write its list of runs after every round.

    Args:
        study: its losses (the axis ``loss``), its search and all seeds that there may be.
        options: ``data``, ``engine``, ``device`` and ``threads`` as composed from conf/run.yaml.
        budget: what it may cost, what its runs cost before included.
        judge: says from the records which losses are left.
        say: takes a line on how it goes after every round.
        started: called once, when training begins.
        results: where records go.

    Raises:
        UsageError: no loss, or only one, can be built; data are missing; results cannot be written.
    """
    believe_in_gpus(options)
    settings = plan.settings(study)
    addresses = Addresses(Path(options["data"]["root"]), results, download=options["data"]["download"])
    ended = Ended(study=study)
    with Work(options, started, results, addresses, study) as work:
        purse = _Purse(budget, work, workers_of(options, settings[0].spec.device), results)
        kept = _buildable(work, settings, study, addresses, ended)
        race = _within_budget(Race(study, kept, addresses), purse, say, ended)
        race = _of_distinct(race, purse, say, ended, results)
        ended.why = _rounds(race, purse, judge, say, ended, results)
        finished = [run for run in race.runs if run.key in purse.known]  # a budget may end within a round
        records.write_study(race.study, finished, results)
        ended.runs, ended.seconds = purse.runs, purse.seconds
        ended.failed, ended.study = work.failed, race.study
    return ended


def _rounds(race: Race, purse: _Purse, judge: Judge, say: Callable[[str], None], ended: Ended, results: Path) -> str:
    """Carry out round after round; return why it ended."""
    if not _searched(race, purse, results):
        return "budget"
    deepened = False
    while True:
        runs = race.round()
        records.write_study(race.study, race.runs, results)
        if not purse.carry_out(runs):
            return "budget"
        ended.judgement = judge(_records_of(race, results))
        race.left = ended.judgement.left & race.left or race.left
        say(f"seed {len(race.study.seeds)}: {ended.judgement.told}; {purse.told}")
        if not deepened:
            deepened, race.search.deepened = True, race.left
            if not _searched(race, purse, results):
                return "budget"
            if race.search.chosen() != race.chosen:
                continue  # some losses begin again, at another rate
        if ended.judgement.settled:
            return "decided"
        if not race.further():
            return "seeds"


def _searched(race: Race, purse: _Purse, results: Path) -> bool:
    """Carry out the search as far as it asks; return whether the budget sufficed."""
    while trials := race.search.ask():
        records.write_study(race.study, race.runs, results)
        if not purse.carry_out(trials):
            return False
        race.search.tell(results)
    return True


def _buildable(
    work: Work, settings: Sequence[Setting], study: Study, addresses: Addresses, ended: Ended
) -> list[Setting]:
    """Return the settings whose loss can be built and tried; note why the others cannot."""
    first = {setting.label: plan.runs([setting], study.on(study.seeds[:1]), addresses) for setting in settings}
    missing = {run.setting.label: run for runs in first.values() for run in work.missing(runs)}
    ended.refused = work.refused(list(missing.values())) if missing else {}
    kept = [setting for setting in settings if setting.label not in ended.refused]
    if len(kept) < 2:
        raise UsageError(next(iter(ended.refused.values()), "a race needs two losses or more: give losses=[...]."))
    return kept


def _within_budget(race: Race, purse: _Purse, say: Callable[[str], None], ended: Ended) -> Race:
    """Return the race of as many losses as the budget can judge, the first ones; of two at least.

    What a run costs is measured on the first trials of the first loss, which are part of every race. No other result is
    known by then, so that leaving losses out prefers none.
    """
    first = Race(race.study, race.settings[:1], race.addresses).search.ask()[: purse.workers]
    purse.carry_out(first)
    held, of = purse.holds(first), len(race.settings)
    most = max(2, int(held * FIRST_PART / LEAST_RUNS)) if math.isfinite(held) else of
    if most >= of and held >= 2 * LEAST_RUNS:
        return race
    ended.waiting = [setting.label for setting in race.settings[most:]]
    told, kept = purse.told_of(held, first), race.settings[:most]
    if held < 2 * LEAST_RUNS:
        enough = purse.asked(math.ceil(2 * LEAST_RUNS / FIRST_PART), first)
        say(f"{told}. That is too few to judge even two losses, which takes {enough}.")
    elif ended.waiting:
        enough = purse.asked(math.ceil(of * LEAST_RUNS / FIRST_PART), first)
        say(
            f"{told}, enough to judge {most} of {of} losses: {joined(setting.label for setting in kept)} race. "
            f"For all, give {enough}; for others, losses=[...]. Smaller images, a smaller model or fewer "
            "trainer.epochs make a run cheaper."
        )
    return race.without(ended.waiting)


def _of_distinct(race: Race, purse: _Purse, say: Callable[[str], None], ended: Ended, results: Path) -> Race:
    """Return the race without losses that on these data are another one: all their trials went alike to the last digit,
    as those of class weights do where all classes are as frequent.
    """
    if not _searched(race, purse, results):
        return race
    first: dict[Any, str] = {}
    curves = _curves(_records_of(race, results))
    for setting in race.settings:
        runs = [run for trial in race.search.trials[setting.contender] for run in trial.runs]
        went = tuple((run.seed, run.setting.spec.optimizer["lr"], curves.get(run.key)) for run in runs)
        if went and all(curve for _, _, curve in went):
            other = first.setdefault(went, setting.label)
            ended.same |= {} if other == setting.label else {setting.label: other}
    if not ended.same or len(race.settings) - len(ended.same) < 2:
        return race
    pairs = joined(f"{label} is {other}" for label, other in ended.same.items())
    say(f"On these data {pairs}: all their trials went alike to the last digit, and one of them races on.")
    return race.without(ended.same)


def _curves(data: StudyData) -> dict[str, tuple[float, ...]]:
    """Return the loss and the length of the gradient in every epoch of a run, by its key, where they were kept."""
    columns = ["train.loss", "grad_norm"]
    if not {"key", *columns} <= set(data.history.columns):
        return {}
    return {str(key): tuple(rows[columns].to_numpy().ravel()) for key, rows in data.history.groupby("key", sort=False)}


def _records_of(race: Race, results: Path) -> StudyData:
    """Return the records of the runs of a race alone."""
    data = records.load_study(race.study.name, results)
    listed = data.runs["key"].isin({run.key for run in race.runs})
    return replace(data, runs=data.runs[listed].reset_index(drop=True))


class _Purse:
    """Carries out runs as long as the budget lasts, and counts what they cost, those finished before included."""

    def __init__(self, budget: Budget, work: Work, workers: int, results: Path) -> None:
        self.budget, self.work, self.workers, self.results = budget, work, workers, results
        self.known: dict[str, float] = {}
        self.before = 0.0
        self.began = time.monotonic()

    @property
    def runs(self) -> int:
        """How many runs were asked for and are finished."""
        return len(self.known)

    @property
    def seconds(self) -> float:
        """What they took: those of earlier calls by their records, and the time of this call."""
        return self.before + time.monotonic() - self.began

    @property
    def told(self) -> str:
        """What is spent, in a few words."""
        if math.isfinite(self.budget.runs):
            return f"{self.runs} of {self.budget.runs:.0f} runs spent"
        return f"{self.runs} runs, {self.seconds:.0f} of {self.budget.seconds:.0f} s spent"

    def holds(self, like: Sequence[Run]) -> float:
        """Return how many runs that cost what these did the whole budget pays for."""
        each = self._seconds_each(like)
        return min(self.budget.runs, self.budget.seconds / each if each else math.inf)

    def told_of(self, held: float, like: Sequence[Run]) -> str:
        """Say how many runs the budget pays for."""
        if held == self.budget.runs:
            return f"The budget is {count(int(held), 'run')}"
        each = self._seconds_each(like) * self.workers
        return f"A run takes about {duration(each)}, so the budget holds about {count(int(held), 'run')}"

    def asked(self, runs: int, like: Sequence[Run]) -> str:
        """Return how one asks for a budget of so many runs."""
        if math.isinf(self.budget.seconds):
            return f"runs={runs}"
        minutes = runs * self._seconds_each(like) / 60
        return f"budget={math.ceil(minutes)}m" if minutes < 120 else f"budget={math.ceil(minutes / 60)}h"

    def _seconds_each(self, runs: Sequence[Run]) -> float:
        return sum(self.known.get(run.key, 0.0) for run in runs) / max(1, len(runs)) / self.workers

    def carry_out(self, runs: Iterable[Run]) -> bool:
        """Run what is missing, some at a time; return whether the budget sufficed for all."""
        distinct = {run.key: run for run in runs}
        missing = self.work.missing(list(distinct.values()))
        asked = {run.key for run in missing}
        self._count((key for key in distinct if key not in asked), earlier=True)
        while missing:
            most = self._affordable()
            if most < 1:
                return False
            now, missing = missing[:most], missing[most:]
            self.work.carry_out(now)
            self._count((run.key for run in now), earlier=False)
        return True

    def _affordable(self) -> int:
        """Return how many runs may be made before the budget is looked at again."""
        left = self.budget.seconds - self.seconds
        if left <= 0 or self.runs >= self.budget.runs:
            return 0
        most = self.workers
        if self.known and math.isfinite(self.budget.seconds):
            each = max(1e-3, sum(self.known.values()) / len(self.known) / self.workers)
            if each > left:
                return 0
            most = int(min(left, max(CHUNK * self.budget.seconds, self.workers * each)) / each)
        elif math.isinf(self.budget.seconds):
            most = len(self.known) + self.workers
        return int(max(1, min(most, self.budget.runs - self.runs)))

    def _count(self, keys: Iterable[str], *, earlier: bool) -> None:
        for key in keys:
            if key in self.known:
                continue
            record = records.read(key, self.results)
            self.known[key] = float(((record or {}).get("cost") or {}).get("wall_s") or 0.0)
            self.before += self.known[key] / self.workers if earlier else 0.0
