"""Who proposes candidates: genetic programming, random search, and the null search; each is asked and told.

A proposal depends on (seed, generation, index, attempt) and on what was told of the generations before, and on nothing
else: equal answers lead to equal questions, so that a search that was stopped asks again and goes on.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from harness.evolution import trees
from losses.formulas import Node, height, parse

CROSSOVER, MUTATION, ELITES = 0.70, 0.25, 0.05
"""Shares of a generation: children of two, of one, and the best of the last one as they are."""
TOURNAMENT = 4
LEAST_HEIGHT, MOST_HEIGHT, TALLEST = 2, 4, 7
"""Heights of first trees, and of children at most."""
PARENTS = 3
"""Of how many of the best the numbers are moved in the end."""
PATIENCE = 10
"""Attempts at moving the numbers of one formula, before another's are moved."""
WIDTH = 0.2
"""How far numbers are moved in the first such round, relative to their size; half as far in the next."""
Fitness = tuple[int, float]
"""The stage of training that was reached, and the score there: one that got further is better."""


@dataclass(frozen=True)
class Proposal:
    """What may become a candidate: its formula, how it came about, and the names of its parents."""

    formula: str
    how: str
    parents: tuple[str, ...] = ()


@dataclass
class Candidate:
    """A member of a generation.

    Attributes:
        name: ``generation.index``; an elite keeps the name that it was born with.
        proposal: what it is.
        scores: validation scores of the stages of training that it reached, as trained on their seeds.
        runs: keys of its runs.
    """

    name: str
    proposal: Proposal
    scores: list[float] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)

    @property
    def formula(self) -> str:
        """Its formula."""
        return self.proposal.formula

    @property
    def fitness(self) -> Fitness:
        """How far it got, and its score there; (0, -inf) if it failed at once."""
        return (len(self.scores), self.scores[-1]) if self.scores else (0, float("-inf"))


class RandomSearch:
    """Random trees, whatever came of those before: the control of equal budget.

    Args:
        seed: of all draws.
        generations: before the numbers of the best are moved, where a method does that.
        population: members of a generation.
    """

    name, fixed = "random", False
    """Its name, and whether all candidates are one loss, with seeds of their own."""

    def __init__(self, seed: int, generations: int, population: int) -> None:
        self.seed, self.generations, self.population = seed, generations, population

    def elites(self) -> list[Candidate]:
        """Return none."""
        return []

    def propose(self, generation: int, index: int, attempt: int) -> Proposal:
        """Return a random tree."""
        draw = trees.stream(self.name, self.seed, generation, index, attempt)
        return Proposal(str(trees.ramped(draw, LEAST_HEIGHT, MOST_HEIGHT)), "drawn")

    def tell(self, members: Sequence[Candidate]) -> None:
        """Take a generation, and learn nothing."""


class NullSearch(RandomSearch):
    """Cross-entropy over and over, each time with other seeds: how good the best of so many seems by chance alone."""

    name, fixed = "chance", True
    formula = "-y * log(p)"

    def propose(self, generation: int, index: int, attempt: int) -> Proposal:
        """Return cross-entropy."""
        return Proposal(self.formula, "other seeds")


class Genetic(RandomSearch):
    """Genetic programming: tournaments choose parents, whose children are crossed or mutated; the best stay.

    Args:
        seed: of all draws.
        generations: of crossing and mutation; in those that follow, the numbers of the best trees so far are moved, a
            (1+lambda) evolution strategy on each.
        population: members of a generation.
    """

    name = "genetic"

    def __init__(self, seed: int, generations: int, population: int) -> None:
        super().__init__(seed, generations, population)
        self.members: list[Candidate] = []
        self.best: dict[str, Candidate] = {}

    def elites(self) -> list[Candidate]:
        """Return the best of the last generation."""
        count = max(1, round(ELITES * self.population))
        return ranked(self.members)[:count]

    def tell(self, members: Sequence[Candidate]) -> None:
        """Take a generation."""
        self.members = list(members)
        self.best |= {member.name: member for member in members}

    def propose(self, generation: int, index: int, attempt: int) -> Proposal:
        """Return a random tree at first, later a child of the last generation, at the end one with numbers moved."""
        draw = trees.stream(self.name, self.seed, generation, index, attempt)
        if not self.members:
            return Proposal(str(trees.ramped(draw, LEAST_HEIGHT, MOST_HEIGHT)), "drawn")
        if generation >= self.generations:
            return self._moved(draw, generation, index, attempt)
        mother = self._chosen(draw)
        if draw.random() < CROSSOVER / (CROSSOVER + MUTATION):
            father = self._chosen(draw)
            child = trees.crossed(draw, parse(mother.formula), parse(father.formula))
            made = Proposal(str(child), "crossed", (mother.name, father.name))
        else:
            child = trees.mutated(draw, parse(mother.formula))
            made = Proposal(str(child), "mutated", (mother.name,))
        return made if height(child) <= TALLEST else Proposal(mother.formula, "too tall", (mother.name,))

    def _chosen(self, draw: random.Random) -> Candidate:
        return ranked(draw.choices(self.members, k=TOURNAMENT))[0]

    def _moved(self, draw: random.Random, generation: int, index: int, attempt: int) -> Proposal:
        with_numbers = [each for each in ranked(self.best.values()) if _numbers(parse(each.formula))]
        if not with_numbers:
            return Proposal(ranked(self.best.values())[0].formula, "numbers moved")
        # numbers may make no difference (one that is added to all does not): then it is the turn of the next best
        place = index % PARENTS + PARENTS * (attempt // PATIENCE)
        parent = with_numbers[place % len(with_numbers)]
        width = WIDTH * 0.5 ** (generation - self.generations)
        child = trees.moved(draw, parse(parent.formula), width)
        return Proposal(str(child), "numbers moved", (parent.name,))


def _numbers(tree: Node) -> int:
    return sum(trees.part(tree, path).op == "number" for path in trees.paths(tree))


def ranked(members: Iterable[Candidate]) -> list[Candidate]:
    """Return candidates, the best first; of equals that is the one with the shorter formula, then the older one."""
    return sorted(members, key=lambda each: (*(-part for part in each.fitness), len(each.formula), _born(each)))


def _born(candidate: Candidate) -> tuple[int, ...]:
    return tuple(map(int, candidate.name.split(".")))


METHODS: dict[str, type[RandomSearch]] = {method.name: method for method in (Genetic, RandomSearch, NullSearch)}
