"""The claims ledger: comparative sentences of the documents as tests on records, each with a verdict.

A claim of ``conf/claims/<document>.yaml``::

    id: dice_suits_imbalance
    source: table 9                         # where the document says it
    says: Dice suits imbalanced data ...    # in our words
    study: imbalance                        # whose records decide
    compare: {loss: dice}                   # these runs ...
    against: {loss: cross_entropy}          # ... beside these, seed by seed
    where: {stress.ratio: 50}               # both under these conditions
    beyond: {stress.ratio: 1}               # less the same difference under these (optional)
    metric: test.gmean
    expect: more                            # more | less | at least | at most | different
    margin: 0.01                            # what is too small to matter, in the metric's unit, named before the runs

Further: ``relative: true`` (differences of logarithms, margin as a share), ``pair: loss`` (a loss is one observation,
not a seed), ``spread: true`` (greatest less least value of an observation's runs), ``role: search`` (learning-rate
trials). A claim that no study can decide has ``needs`` instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from harness.analysis import stats
from harness.analysis.cells import cell_columns, largest_group
from harness.analysis.frames import column, numbers, rows, where
from harness.compose import options
from harness.errors import UsageError, unknown
from harness.metrics.declared import Metric, metric_of
from harness.paths import CONF

if TYPE_CHECKING:
    from harness.records.study import StudyData

FOLDER = CONF / "claims"
Verdict = Literal["supported", "contradicted", "not decidable"]
Values = dict[str, Any]
EXPECTATIONS = ("more", "less", "at least", "at most", "different")


@dataclass(frozen=True)
class Claim:
    """One sentence of a document as a test; see the module's text for the fields."""

    id: str
    document: str
    short: str
    source: str
    says: str
    study: str = ""
    compare: Values = field(default_factory=dict)
    against: Values = field(default_factory=dict)
    where: Values = field(default_factory=dict)
    beyond: Values = field(default_factory=dict)
    metric: str = "test.top1"
    expect: str = "more"
    margin: float = 0.0
    relative: bool = False
    pair: str = "seed"
    spread: bool = False
    role: str = "run"
    needs: str = ""


@dataclass(frozen=True)
class Evidence:
    """What records show about a claim: the estimate over ``n`` observations in the unit of ``metric`` (where that is
    None, as the logarithm of a ratio), its 95 % t interval, p values, and the runs behind it; ``missing`` names what
    would be needed to test it.
    """

    claim: Claim
    n: int = 0
    estimate: float = math.nan
    low: float = math.nan
    high: float = math.nan
    sd: float = math.nan
    p_for: float = math.nan
    p_against: float = math.nan
    keys: tuple[str, ...] = ()
    diverged: int = 0
    missing: str = ""
    metric: Metric | None = None


@dataclass(frozen=True)
class Decision:
    """A claim with its evidence and verdict; p values are corrected over the claims of its document (Holm)."""

    claim: Claim
    evidence: Evidence
    verdict: Verdict
    p_for: float
    p_against: float
    family: int

    @property
    def seeds_needed(self) -> int | None:
        """How many observations would decide it, at the difference and spread found; None if it is decided, was not
        tested, or would need more than `stats.MOST_SEEDS`.
        """
        found = self.evidence
        if self.verdict != "not decidable" or found.n < 2:
            return None
        needed = stats.seeds_needed(found.estimate, found.sd, _margin(self.claim), self.family)
        return None if needed is None else max(needed, found.n + 1)


# ---------------------------------------------------------------- reading


def read_claims(folder: Path = FOLDER) -> list[Claim]:
    """Return all claims, document by document.

    Raises:
        UsageError: a file or claim that cannot be understood; the sentence names it.
    """
    import yaml

    found: list[Claim] = []
    for path in sorted(folder.glob("*.yaml")):
        # plain YAML, read five times as fast as through OmegaConf
        content: Any = yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        for entry in content["claims"]:
            found.append(_claim(path, {"document": content["document"], "short": content["short"]} | entry))
    names = [claim.id for claim in found]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"the claim {name} is in {folder} twice: give each an id of its own.")
    return found


def _claim(path: Path, entry: Mapping[str, Any]) -> Claim:
    known = [part.name for part in fields(Claim)]
    for name in entry:
        if name not in known:
            raise unknown(f"field of the claim {entry.get('id')} in {path.name}", name, known)
    if missing := [name for name in ("id", "source", "says") if not entry.get(name)]:
        raise UsageError(f"a claim in {path.name} ({entry.get('id')}) has no {missing[0]}: write one.")
    claim = Claim(**entry)
    if claim.needs:
        return claim
    if claim.study not in options("study"):
        raise unknown(f"study of the claim {claim.id}", claim.study, options("study"))
    if claim.expect not in EXPECTATIONS:
        raise unknown(f"expectation of the claim {claim.id}", claim.expect, EXPECTATIONS)
    if claim.margin <= 0 or not claim.compare or not claim.against:
        raise UsageError(f"the claim {claim.id} needs compare, against, and a margin above 0, named before the runs.")
    return claim


# ---------------------------------------------------------------- weighing


def weigh(claim: Claim, study: StudyData | None) -> Evidence:
    """Return what the records of the claim's study show about it.

    Raises:
        UsageError: the study's records do not declare the claim's metric; the sentence names the nearest.
    """
    if claim.needs:
        return Evidence(claim, missing=claim.needs)
    if study is None:
        return Evidence(claim, missing=f"python -m harness study={claim.study}")
    metric = None if claim.relative else metric_of(claim.metric, study.metrics)
    chosen = where(rows(study.runs, largest_group(study.runs)), role=claim.role)
    sides = [_Side(chosen, claim, claim.where | claim.compare), _Side(chosen, claim, claim.where | claim.against)]
    signs = [1, -1]
    if claim.beyond:
        sides += [_Side(chosen, claim, side | claim.where | claim.beyond) for side in (claim.compare, claim.against)]
        signs += [-1, 1]
    for side in sides:
        if not side.planned:
            named = ", ".join(f"{key} {value}" for key, value in side.wanted.items())
            return Evidence(claim, missing=f"runs of {named} in the study {claim.study}")
    shared = sorted(set.intersection(*(set(side.values) for side in sides)), key=str)
    keys = tuple(dict.fromkeys(key for side in sides for name in shared for key in side.keys[name]))
    diverged = sum(side.diverged for side in sides)
    if len(shared) < 2:
        missing = f"python -m harness study={claim.study}"
        return Evidence(claim, n=len(shared), keys=keys, diverged=diverged, missing=missing)
    if len(alike := {side.values[name] for side in sides for name in shared}) == 1:  # at the end of its range, say
        missing = f"a metric that tells runs apart: {claim.metric} is {alike.pop():g} in all of them"
        return Evidence(claim, keys=keys, diverged=diverged, missing=missing)
    differences = [sum(sign * side.values[name] for sign, side in zip(signs, sides, strict=True)) for name in shared]
    return _tested(claim, metric, differences, keys, diverged)


class _Side:
    """The runs that a claim names on one side, as one value per observation (seed, or loss)."""

    def __init__(self, runs: pd.DataFrame, claim: Claim, wanted: Values) -> None:
        self.wanted = wanted
        for key, value in wanted.items():
            runs = rows(runs, _matches(runs, key, value))
        self.planned = len(runs)
        self.diverged = len(where(runs, status="diverged"))
        self.values: dict[Any, float] = {}
        self.keys: dict[Any, tuple[str, ...]] = {}
        needed = 2 if claim.spread else len(set(_identities(runs, claim.pair)))
        for name, group in runs.groupby(claim.pair):
            done = _values(where(group, status="done"), claim).dropna()
            if claim.spread:
                complete, value = len(done) >= needed, done.max() - done.min()
            else:
                complete, value = len(done) == len(group) == needed, done.mean()
            if complete:
                self.values[name] = float(value)
                self.keys[name] = tuple(column(group, "key").loc[done.index])


def _matches(runs: pd.DataFrame, key: str, value: Any) -> pd.Series:
    wanted = {_plain(part) for part in (value if isinstance(value, list | tuple) else [value])}
    name = next((name for name in (f"axis.{key}", f"config.{key}") if name in runs), key)
    return column(runs, name).map(_plain).isin(wanted)


def _plain(value: Any) -> str:
    try:
        return f"{float(value):g}"
    except (TypeError, ValueError):
        return str(value)


def _identities(runs: pd.DataFrame, pair: str) -> list[tuple[str, ...]]:
    """Return what tells the runs of one observation apart: loss, data, model, further axes."""
    columns = [name for name in ("label", *cell_columns(runs)) if name != pair]
    return list(zip(*(column(runs, name).map(str) for name in columns), strict=True))


def _values(runs: pd.DataFrame, claim: Claim) -> pd.Series:
    values = numbers(runs, claim.metric)
    return values.where(values > 0).map(math.log) if claim.relative else values


def _margin(claim: Claim) -> float:
    return math.log1p(claim.margin) if claim.relative else claim.margin


def _tested(
    claim: Claim, metric: Metric | None, differences: Sequence[float], keys: tuple[str, ...], diverged: int
) -> Evidence:
    margin = _margin(claim)
    tests = stats.paired_tests(differences, margin)
    mean = float(tests.mean)
    p, same = float(tests.p), float(tests.p_equivalent)
    not_below, not_above = (float(x) for x in stats.non_inferior(differences, margin))
    rising, falling = (p if mean > 0 else 1.0), (p if mean < 0 else 1.0)
    p_for, p_against = {
        "more": (rising, min(falling, same)),
        "less": (falling, min(rising, same)),
        "at least": (not_below, falling),
        "at most": (not_above, rising),
        "different": (p, same),
    }[claim.expect]
    return Evidence(
        claim, len(differences), mean, float(tests.low), float(tests.high), float(tests.sd), p_for, p_against, keys,
        diverged, metric=metric,
    )  # fmt: skip


# ---------------------------------------------------------------- deciding


def decide(evidence: Iterable[Evidence]) -> list[Decision]:
    """Return a verdict on every claim, with Holm's correction over the tested claims of each document.

    A claim of ``more`` (``less``) is supported by a difference in its direction that is not shown to be too small to
    matter, and contradicted by one in the other direction or by equivalence within the margin; ``at least`` (``at
    most``) is supported where the difference is shown not to fall short by more than the margin, and contradicted by
    one in the other direction that is not; ``different`` is contradicted by equivalence.
    """
    found = list(evidence)
    decisions: dict[int, Decision] = {}
    for document in dict.fromkeys(each.claim.document for each in found):
        family = [i for i, each in enumerate(found) if each.claim.document == document and each.n >= 2]
        supported = stats.holm([found[i].p_for for i in family])
        opposed = stats.holm([found[i].p_against for i in family])
        for i, p_for, p_against in zip(family, supported, opposed, strict=True):
            decisions[i] = _decision(found[i], float(p_for), float(p_against), len(family))
    untested = ("not decidable", math.nan, math.nan, 0)
    return [decisions.get(i) or Decision(x.claim, x, *untested) for i, x in enumerate(found)]


def _decision(evidence: Evidence, p_for: float, p_against: float, family: int) -> Decision:
    claim = evidence.claim
    yes, no = p_for < stats.ALPHA, p_against < stats.ALPHA
    # shown both to be there and to be too small to matter: for claims of a difference the second counts, for claims of
    # "no worse" the first
    tolerant = claim.expect in ("at least", "at most")
    verdict: Verdict = "supported" if yes and (tolerant or not no) else "contradicted" if no else "not decidable"
    return Decision(claim, evidence, verdict, p_for, p_against, family)


def ledger(studies: Callable[[str], StudyData | None], claims: Sequence[Claim] | None = None) -> list[Decision]:
    """Return the decisions on all claims; ``studies`` gives the records of a study by its name, or None."""
    found = read_claims() if claims is None else claims
    records = {name: studies(name) for name in dict.fromkeys(claim.study for claim in found) if name}
    return decide(weigh(claim, records.get(claim.study)) for claim in found)


def recorded(name: str) -> StudyData | None:
    """Return the records of a study, local and published, or None if there are none."""
    from harness import records

    try:
        return records.load_study(name)
    except records.NoRecords:
        return None
