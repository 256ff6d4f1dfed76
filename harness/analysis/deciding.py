"""Verdicts on claims: read off simultaneous intervals, in every place that a claim speaks of.

The intervals of all tested claims of one document hold together (Bonferroni: 1 - 0.05 / m for m claims). A claim is
supported if it holds in every place, contradicted if it is contradicted in every place: every single place has to be
decided, so these need no further correction. It *depends* where some places support and others contradict it, at
intervals that hold over all places of the claim. The probability of any false verdict in a document is 5 % at most.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from harness.analysis import gates, stats
from harness.analysis.cells import Analysis
from harness.analysis.claims import Claim, read_claims
from harness.analysis.estimates import ALPHA
from harness.analysis.samples import Differences, Measures
from harness.analysis.weighing import At, Evidence, Gate, Place, weigh
from harness.text import axis_title, joined

Verdict = Literal["supported", "contradicted", "depends on", "not decidable", "withheld", "cannot be tested", "retired"]
Answer = Literal["yes", "no", "open"]
MOST_REASONS = 3  # that are written out


@dataclass(frozen=True)
class Decision:
    """A claim with its evidence and verdict.

    ``because`` says why, in words; ``family`` is the number of tested claims of its document, ``level`` that of the
    intervals in ``evidence``. ``exploratory``: the test was written after the first of its runs had started.
    ``same_as``: the claim whose verdict this is, since both test the same functions; it is not counted again.
    """

    claim: Claim
    evidence: Evidence
    verdict: Verdict
    because: str = ""
    family: int = 0
    exploratory: bool = False
    same_as: str = ""

    @property
    def level(self) -> float:
        """The level of each interval, such that those of the family hold together."""
        return 1 - ALPHA / max(1, self.family)

    @property
    def counted(self) -> bool:
        """Whether it counts beside others: it is neither retired nor another claim once more."""
        return self.verdict != "retired" and not self.same_as

    @property
    def decided(self) -> bool:
        """Whether the records answer it."""
        return self.verdict in ("supported", "contradicted", "depends on")

    def interval(self, place: Place) -> tuple[float, float]:
        """Return the interval of a place from which the verdict is read."""
        return place.sample.interval(self.level)

    def answer(self, place: Place) -> Answer:
        """Return what one place says by that interval."""
        return "open" if place.withheld else answer(self.claim, *self.interval(place))


def answer(claim: Claim, low: float, high: float) -> Answer:
    """Return whether an interval says that a claim holds (yes), that it does not (no), or neither (open).

    ``more`` (``less``) holds by an interval above (below) 0 that is not inside the margin; it does not by one on the
    other side of 0 or inside the margin. ``at least`` (``at most``) holds by an interval that does not reach a margin
    below (above) 0; it does not by one below (above) 0 that does. ``different`` holds by an interval on either side of
    0, and does not by one inside the margin.
    """
    margin = margin_of(claim)
    inside = -margin < low and high < margin
    yes, no = {
        "more": (low > 0 and not inside, high < 0 or inside),
        "less": (high < 0 and not inside, low > 0 or inside),
        "at least": (low > -margin, high < 0 and low <= -margin),
        "at most": (high < margin, low > 0 and high >= margin),
        "different": ((low > 0 or high < 0) and not inside, inside),
    }[claim.expect]
    return "yes" if yes else "no" if no else "open"


def margin_of(claim: Claim) -> float:
    """Return the margin in the unit of effects: of a ratio, its logarithm."""
    return math.log1p(claim.margin) if claim.ratio else claim.margin


# ---------------------------------------------------------------- deciding


def families(claims: Iterable[Claim]) -> dict[str, int]:
    """Return how many claims of each document (by its short name, over all of its files) are tested on samples: the
    family whose intervals hold together, whatever has been run.
    """
    return dict(Counter(claim.short for claim in claims if claim.by_chance))


def decide(evidence: Iterable[Evidence], sizes: Mapping[str, int] | None = None) -> list[Decision]:
    """Return a verdict on every claim.

    Args:
        evidence: on claims, of one document or several.
        sizes: of their families; None: that they are all the claims there are.
    """
    found = list(evidence)
    known = families(each.claim for each in found) if sizes is None else sizes
    decisions = {each.claim.id: _decision(each, known.get(each.claim.short, 0)) for each in found}
    for each in found:
        if each.claim.same_as and (other := decisions.get(each.claim.same_as)):
            because = f"the same functions as {other.claim.id}, counted once"
            decisions[each.claim.id] = Decision(
                each.claim, other.evidence, other.verdict, because, other.family, other.exploratory, other.claim.id
            )
    return list(decisions.values())


def _decision(evidence: Evidence, family: int) -> Decision:
    claim = evidence.claim
    if claim.retired:
        return Decision(claim, evidence, "retired", claim.retired)
    if claim.needs:
        return Decision(claim, evidence, "cannot be tested", f"needs {claim.needs}")
    if evidence.missing:
        return Decision(claim, evidence, "withheld", evidence.missing)
    level = 1 - ALPHA / max(1, family)
    within = 1 - (1 - level) / len(evidence.places)
    answers: list[Answer] = [_answer(claim, place, level) for place in evidence.places]
    strict: list[Answer] = [_answer(claim, place, within) for place in evidence.places]
    verdict, because = _verdict(evidence, answers, strict, level)
    notes = dict.fromkeys(note for place in evidence.places for note in place.notes)
    told = because if verdict == "withheld" else "; ".join(filter(None, [because, *notes]))
    younger = bool(evidence.started) and claim.is_younger_than(evidence.started)
    return Decision(claim, evidence, verdict, told, family if claim.by_chance else 0, younger)


def _answer(claim: Claim, place: Place, level: float) -> Answer:
    return "open" if place.withheld else answer(claim, *place.sample.interval(level))


def _verdict(
    evidence: Evidence, answers: Sequence[Answer], strict: Sequence[Answer], level: float
) -> tuple[Verdict, str]:
    holding: list[str] = []
    if evidence.claim.members == "any":
        holding = [place.at[-1][1] for place, said in zip(evidence.places, strict, strict=True) if said == "yes"]
        evidence, answers = _any_member(evidence, strict)
        strict = answers
    places = evidence.places
    if {"yes", "no"} <= set(strict):
        return "depends on", depends_on(places, strict)
    if any(place.withheld for place in places):
        return "withheld", _reasons(places)
    everywhere = "" if len(places) == 1 else f"in each of {len(places)} cases"
    if set(answers) == {"yes"}:
        by = f"by {joined(dict.fromkeys(holding))}" if holding else ""
        return "supported", ", ".join(filter(None, [by, everywhere]))
    if set(answers) == {"no"}:
        return "contradicted", everywhere
    return "not decidable", _open(evidence, answers, level)


def _any_member(evidence: Evidence, strict: Sequence[Answer]) -> tuple[Evidence, list[Answer]]:
    """Return the evidence with one place for all members of each: the one that says most for the claim, which is yes
    before withheld before open before no; and what it says.
    """
    said: dict[At, list[tuple[int, Place, Answer]]] = {}
    for place, own in zip(evidence.places, strict, strict=True):
        rank = ("yes", "withheld", "open", "no").index("withheld" if place.withheld else own)
        said.setdefault(place.at[:-1], []).append((rank, place, own))
    chosen = [min(own, key=lambda each: each[0]) for own in said.values()]
    places = tuple(replace(place, at=place.at[:-1]) for _, place, _ in chosen)
    return replace(evidence, places=places), [own for _, _, own in chosen]


def depends_on(places: Sequence[Place], answers: Sequence[Answer]) -> str:
    """Return what separates the places that support a claim from those that contradict it, and which they are."""
    decided = [(dict(place.at), said) for place, said in zip(places, answers, strict=True) if said != "open"]
    names = [name for name in dict(places[0].at) if len({at[name] for at, _ in decided}) > 1]
    separating = names
    for size in range(1, len(names)):
        clean = [chosen for chosen in itertools.combinations(names, size) if _separates(chosen, decided)]
        if clean:
            separating = list(clean[0])
            break
    sides = []
    for said, word in (("yes", "holds at"), ("no", "not at")):
        values = dict.fromkeys(" ".join(at[name] for name in separating) for at, own in decided if own == said)
        sides.append(f"{word} {joined(values)}")
    return f"{joined(axis_title(name) for name in separating)}: {', '.join(sides)}"


def _separates(names: Sequence[str], decided: Sequence[tuple[dict[str, str], str]]) -> bool:
    said: dict[tuple[str, ...], set[str]] = {}
    for at, own in decided:
        said.setdefault(tuple(at[name] for name in names), set()).add(own)
    return all(len(each) == 1 for each in said.values())


def _reasons(places: Sequence[Place]) -> str:
    """Return why places are withheld: what concerns most of them first, with where, unless it is everywhere."""
    found: dict[str, list[Place]] = {}
    for place in places:
        for reason in place.withheld:
            found.setdefault(reason, []).append(place)
    ranked = sorted(found.items(), key=lambda item: -len(item[1]))
    texts = [
        reason if len(own) == len(places) else f"{reason} ({joined(_where(place, places) for place in own)})"
        for reason, own in ranked
    ]
    more = [f"{len(texts) - MOST_REASONS} more"] if len(texts) > MOST_REASONS else []
    return "; ".join([*texts[:MOST_REASONS], *more])


def _where(place: Place, places: Sequence[Place]) -> str:
    """Return the values of a place that not all places have."""
    several = [name for name in dict(place.at) if len({dict(other.at).get(name) for other in places}) > 1]
    return " ".join(dict(place.at)[name] for name in several)


def _open(evidence: Evidence, answers: Sequence[Answer], level: float) -> str:
    """Return how many observations would decide, at the effects and spreads found; or which places disagree."""
    claim, places = evidence.claim, evidence.places
    undecided = [place for place, said in zip(places, answers, strict=True) if said == "open"]
    if not undecided:
        return "cases disagree, but not beyond doubt over all of them"
    if any(isinstance(place.sample, Measures) for place in undecided):
        return "the measures of its cost disagree"
    texts = [f"open in {len(undecided)} of {len(places)} cases"] if len(places) > 1 else []
    samples = [place.sample for place in undecided if isinstance(place.sample, Differences)]
    needed = [sample.seeds_needed(level, margin_of(claim)) for sample in samples]
    if needed:
        what = "losses" if claim.pair == "loss" else "seeds"
        known = [n for n in needed if n is not None]
        most = f"about {max(known):,}" if len(known) == len(needed) else f"more than {stats.MOST_SEEDS:,}"
        texts.append(f"{most} {what} would decide")
    return "; ".join(texts)


# ---------------------------------------------------------------- all claims


def ledger(
    studies: Callable[[str], Analysis | None],
    claims: Sequence[Claim] | None = None,
    gate: Gate = gates.of_runs,
    only: str = "",
) -> list[Decision]:
    """Return the decisions on all claims.

    Args:
        studies: gives the records of a study by its name, or None.
        claims: None: those of conf/claims.
        gate: says why runs cannot be used.
        only: decide those of this study alone; their families are those of all claims.
    """
    every = read_claims() if claims is None else claims
    found = [claim for claim in every if not only or (claim.tested and claim.study == only)]
    records = {name: studies(name) for name in dict.fromkeys(claim.study for claim in found if claim.tested) if name}
    return decide((weigh(claim, records.get(claim.study), gate) for claim in found), families(every))


def recorded(name: str) -> Analysis | None:
    """Return the records of a study, local and published, or None if there are none."""
    from harness import records

    try:
        return Analysis(records.load_study(name))
    except records.NoRecords:
        return None
