"""A search, generation by generation: proposals, the sieve, training in stages, and at last the choice and the test.

Every run is an ordinary run with a record; nothing else is needed to go on. Draws depend on their place alone, and
equal records lead to equal proposals, so that a search that was stopped asks again, finds its runs and goes on.
What was made and what became of it is kept in results/NAME/METHOD/generation-NNN.json, one file a generation.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness import records
from harness.address import Addresses
from harness.errors import UsageError
from harness.evolution import trees
from harness.evolution.asked import NULL_SEEDS_FROM, Asked
from harness.evolution.methods import METHODS, Candidate, Proposal, RandomSearch, ranked
from harness.evolution.sieve import Sieve
from harness.metrics.declared import Metric, from_dict
from harness.paths import RESULTS
from harness.plan import Run, Setting, Study
from harness.studies.sweep import Work
from losses.formulas import Node, parse

KEPT = 3
"""One in so many candidates goes on from each stage of training to the next, two at least."""
MOST_ATTEMPTS = 500
"""Proposals for one place in a generation, before it stays empty."""
NGL = "exp(2.4092 - p * (1 + y)) - cos(cos(sin(p)))"
REFERENCES = {"cross_entropy": "-y * log(p)", "ngl": NGL}
"""Losses that are trained beside the candidates, and what they are as formulas."""


@dataclass
class Generation:
    """A generation of a method, trained.

    Attributes:
        number: from 0 on.
        members: elites first.
        refused: proposals that the sieve refused, by the stage at which it did.
    """

    number: int
    members: list[Candidate]
    refused: Counter[str]


@dataclass
class Searched:
    """What a search has come to.

    Attributes:
        asked: what it was asked for.
        generations: by method.
        references: the losses that were trained beside, as candidates, by name.
        metric: what fitness is, as records declare it.
        failed: runs that failed, as (description, reason).
        trained: how many runs there are.
    """

    asked: Asked
    generations: dict[str, list[Generation]] = field(default_factory=dict)
    references: dict[str, Candidate] = field(default_factory=dict)
    metric: Metric = field(default_factory=lambda: Metric("", ""))
    failed: list[tuple[str, str]] = field(default_factory=list)
    trained: int = 0

    def value(self, score: float) -> float:
        """Return a fitness, of which more is always better, in the metric's own unit."""
        return score if self.metric.higher_is_better else -score

    def members(self, method: str) -> list[Candidate]:
        """Return all candidates of a method that were trained, each once, the best first."""
        found = {each.name: each for generation in self.generations[method] for each in generation.members}
        return ranked(found.values())

    def finalists(self, method: str) -> list[Candidate]:
        """Return the best of a method that differ in more than their numbers.

        Else all that breeding brings would be one formula with its numbers moved, where random search brings several.
        """
        found: dict[Node, Candidate] = {}
        for each in self.members(method):
            found.setdefault(trees.shape(parse(each.formula)), each)
        return list(found.values())[: self.asked.finalists]


class Trainer:
    """Trains what is asked as ordinary runs, and reads how it did on validation data."""

    def __init__(self, asked: Asked, work: Work, addresses: Addresses, results: Path) -> None:
        self.asked, self.work, self.addresses, self.results = asked, work, addresses, results
        self.metric: Metric | None = None
        self.keys: set[str] = set()

    def runs(self, setting: Setting, seeds: Sequence[int]) -> list[Run]:
        """Return the runs of a setting."""
        keys = self.addresses.keys(setting.spec, seeds)
        return [Run(key, setting, seed, seed) for key, seed in zip(keys, seeds, strict=True)]

    def carry_out(self, runs: Sequence[Run]) -> None:
        """Train what is missing."""
        missing = self.work.missing(runs)
        self.work.check(missing[:1])  # it stands for all: they differ in their formula, which the sieve has tried
        self.work.carry_out(runs)
        self.keys |= {run.key for run in runs}

    def score(self, runs: Iterable[Run]) -> float:
        """Return the mean validation score of runs, higher is better; -inf if one did not complete."""
        found = []
        for run in runs:
            record = records.read(run.key, self.results)
            if not record or record["status"] != "done":
                return -math.inf
            self.metric = self.metric or self._declared(record)
            found.append(float(record["valid"][self.asked.metric]))
        return (1 if self.metric is None or self.metric.higher_is_better else -1) * sum(found) / len(found)

    def _declared(self, record: dict[str, Any]) -> Metric:
        return next(each for each in map(from_dict, record["metrics"]) if each.key == self.asked.metric)

    def halve(self, members: Sequence[Candidate], setting: Callable[[Candidate, int], Setting], shift: int = 0) -> None:
        """Train candidates stage by stage, the best of each going on to the next; note their scores.

        Args:
            members: those that were not trained yet.
            setting: what a candidate is with so many epochs.
            shift: if not 0, each candidate has seeds of its own, this far apart.
        """
        going = list(members)
        for number, (epochs, seeds) in enumerate(self.asked.stages):
            if number:
                going = ranked(going)[: max(2, math.ceil(len(members) / KEPT**number))]
                going = [each for each in going if each.scores]
            runs = {
                each.name: self.runs(setting(each, epochs), [seed + _place(each, shift) for seed in seeds])
                for each in going
            }
            self.carry_out([run for found in runs.values() for run in found])
            for each in going:
                score = self.score(runs[each.name])
                each.runs += [run.key for run in runs[each.name] if run.key not in each.runs]
                if math.isfinite(score):
                    each.scores.append(score)


def _place(candidate: Candidate, shift: int) -> int:
    """Return how far the seeds of a candidate are moved: by ``shift`` for every one of the search before it."""
    generation, index = map(int, candidate.name.split("."))
    return NULL_SEEDS_FROM * (1 + shift * generation + index) if shift else 0


def search(
    asked: Asked, classes: int, say: Callable[[str], None], results: Path = RESULTS
) -> tuple[Searched, dict[str, list[Run]]]:
    """Carry out a search, or what is missing of it.

    Args:
        asked: the search.
        classes: how many classes the task has.
        say: takes a line on how it goes after every generation.
        results: where records go.

    Returns:
        What was searched, and the runs of the finalists and of the references on the test seeds, by formula or name.

    Raises:
        UsageError: the run cannot be built, or results cannot be written.
    """
    addresses = Addresses(Path(asked.options["data"]["root"]), results, download=asked.options["data"]["download"])
    question = f"Which formula trains best on {asked.base.choices['dataset']}?"
    study = Study(asked.name, question, {"seed": asked.seeds}, metric=f"test.{asked.metric}", margin=asked.margin)
    searched = Searched(asked)
    with Work(asked.options, lambda: None, results, addresses, study) as work:
        trainer = Trainer(asked, work, addresses, results)
        searched.references = _references(asked, trainer)
        if trainer.metric is None:
            raise UsageError("cross-entropy itself could not be trained here: see the failure above.")
        searched.metric = trainer.metric
        for name in asked.methods:
            searched.generations[name] = []
            for generation in _generations(asked, name, classes, trainer):
                searched.generations[name].append(generation)
                _keep(generation, results / asked.name / name)
                say(_told(name, generation, searched))
        finals = _finals(asked, searched, trainer)
        searched.failed, searched.trained = work.failed, len(trainer.keys)
    return searched, finals


def _references(asked: Asked, trainer: Trainer) -> dict[str, Candidate]:
    """Train the references for all stages."""
    found = {name: Candidate("0.0", Proposal(text, "reference")) for name, text in REFERENCES.items()}
    for name, each in found.items():
        for epochs, seeds in asked.stages:
            runs = trainer.runs(asked.setting(name, epochs=epochs), seeds)
            trainer.carry_out(runs)
            each.scores.append(trainer.score(runs))
            each.runs += [run.key for run in runs if run.key not in each.runs]
    return found


def _generations(asked: Asked, name: str, classes: int, trainer: Trainer) -> Iterator[Generation]:
    """Yield the generations of a method, each trained before the next is proposed."""
    method = METHODS[name](asked.seed, asked.generations, asked.population)
    sieve = Sieve(classes, asked.over_classes)
    shift = asked.population if method.fixed else 0

    def setting(candidate: Candidate, epochs: int) -> Setting:
        return asked.setting(*(("cross_entropy",) if method.fixed else ("symbolic", candidate.formula)), epochs=epochs)

    for number in range(asked.generations + asked.moved):
        members, refused = propose(method, sieve, number, asked.population)
        new = [each for each in members if not each.scores]
        trainer.halve(new, setting, shift)
        method.tell(members)
        yield Generation(number, members, refused)


def propose(method: RandomSearch, sieve: Sieve, number: int, population: int) -> tuple[list[Candidate], Counter[str]]:
    """Return the members of a generation: the elites, and for every other place the first proposal that the sieve lets
    through; and how many it refused, by stage.
    """
    members, refused = method.elites(), Counter[str]()
    for index in range(len(members), population):
        for attempt in range(MOST_ATTEMPTS):
            proposal, name = method.propose(number, index, attempt), f"{number}.{index}"
            if method.fixed or not (why := sieve.refuses(proposal.formula, name)):
                members.append(Candidate(name, proposal))
                break
            refused[why.partition(":")[0]] += 1
    return members, refused


def _keep(generation: Generation, folder: Path) -> None:
    content = {
        "generation": generation.number,
        "members": [asdict(each) for each in generation.members],
        "refused": dict(generation.refused),
    }
    records.write_json(folder / f"generation-{generation.number:03}.json", content)


def _told(name: str, generation: Generation, searched: Searched) -> str:
    best = ranked(generation.members)[0] if generation.members else None
    if best is None or not best.scores:
        return f"{name}, generation {generation.number}: nothing was trained to the end"
    tried = generation.refused.total() + len(generation.members)
    return (
        f"{name}, generation {generation.number}: {searched.metric.number(searched.value(best.fitness[1]))} on "
        f"validation, {best.formula} ({len(generation.members)} of {tried} proposals went through the sieve)"
    )


def _finals(asked: Asked, searched: Searched, trainer: Trainer) -> dict[str, list[Run]]:
    """Train the references and the best of every method on the test seeds."""
    runs = {name: trainer.runs(asked.setting(name), asked.test_seeds) for name in REFERENCES}
    for name in searched.generations:
        if not METHODS[name].fixed:
            for each in searched.finalists(name):
                runs[each.formula] = trainer.runs(asked.setting("symbolic", each.formula), asked.test_seeds)
    trainer.carry_out([run for found in runs.values() for run in found])
    return runs
