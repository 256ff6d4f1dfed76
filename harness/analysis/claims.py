"""Claims: comparative sentences of publications as tests on records, written in ``conf/claims/<document>.yaml``.

A claim::

    id: dice_suits_imbalance
    source: table 9, line 433               # where the document says it
    words: well-suited for imbalanced datasets   # its decisive words, twelve at most
    says: Dice suits imbalanced data ...    # what it says, in our words and with its restrictions
    tests: Dice over the batch ...          # what is compared here, where that is narrower
    written: 2026-11-21T15:47Z              # when this test was written down, and the hash of the test: --stamp of
    definition: 0123456789ab                # python -m harness.report claims renews both; a draft has neither
    study: imbalance                        # whose records decide
    compare: {loss: dice}                   # these runs ...
    against: {loss: cross_entropy}          # ... beside these, seed by seed
    where: {stress.ratio: [10, 50]}         # both under these conditions, in each of those listed
    beyond: {stress.ratio: 1}               # less the same difference under these (an interaction; optional)
    metric: test.gmean
    expect: more                            # more | less | at least | at most | different
    margin: 0.01                            # what is too small to matter, in the metric's unit, named before the runs

It is tested in every *place* that it speaks of: each data set, model and value of a further axis that compare, against
and beyond leave open. ``members`` says what a list of losses means: ``mean`` (their mean), ``each`` (every one of
compare beside every one of against, a place of its own), ``paired`` (the lists side by side), ``any`` (as each, but a
place answers yes if one of them does, whichever it is, and no if none does; corrected for how many there are).

``test`` is the kind of comparison: ``difference`` (of the metric, unless said otherwise), ``sign`` (of the metric
itself, beside 0; no ``against``), ``steps`` (until a validation metric passes ``share`` of what the other side ends
with, as a ratio), ``roughness`` (of the validation curve), ``rate`` (share of runs that diverged or did not learn),
``cost`` (metric time, memory or operations, from measurements of the losses alone).

Further: ``relative: true`` (differences of logarithms, margin as a share), ``pair: loss`` (a loss is one observation,
not a seed), ``spread: true`` (greatest less least value of an observation's runs), ``role: search`` (learning-rate
trials). In place of a test stand ``needs`` (what a test would take), ``same_as`` (the claim that tests the same
functions already) or ``retired`` (why it is no longer tested).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.compose import options
from harness.errors import UsageError, unknown
from harness.paths import CONF

FOLDER = CONF / "claims"
Values = dict[str, Any]
EXPECTATIONS = ("more", "less", "at least", "at most", "different")
KINDS = ("difference", "sign", "steps", "roughness", "rate", "cost")
MEMBERS = ("mean", "each", "paired", "any")
COSTS = ("time", "memory", "operations")
RATIOS = ("steps", "cost")
"""Kinds of test that compare by ratio whatever the claim says."""
MOST_WORDS = 12  # of a document that may be quoted
INSTEAD = ("needs", "same_as", "retired")  # of a test


@dataclass(frozen=True)
class Claim:
    """One sentence of a document as a test; see the module's text for the fields."""

    id: str
    document: str
    short: str
    source: str
    says: str
    words: str = ""
    tests: str = ""
    written: str = ""
    definition: str = ""
    study: str = ""
    test: str = "difference"
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
    members: str = "mean"
    share: float = 0.9
    needs: str = ""
    same_as: str = ""
    retired: str = ""

    @property
    def tested(self) -> bool:
        """Whether it has a test of its own."""
        return not (self.needs or self.same_as or self.retired)

    @property
    def ratio(self) -> bool:
        """Whether effects are logarithms of ratios, and the margin a share."""
        return self.relative or self.test in RATIOS

    @property
    def by_chance(self) -> bool:
        """Whether chance plays a part in its verdict, so that it counts in the family of its document."""
        return self.tested and self.test != "cost"

    def current_definition(self) -> str:
        """Return 12 hex digits over everything that decides the test; fields left at their default do not count."""
        own = {part.name: getattr(self, part.name) for part in fields(self) if part.name not in _DESCRIBING}
        given = {name: value for name, value in own.items() if value != _DEFAULTS[name]}
        return hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()[:12]

    def is_younger_than(self, runs: str) -> bool:
        """Return whether the test was written after a moment (ISO 8601); a day without a time counts to its end, and a
        draft without a date is always younger.
        """
        if not self.written:
            return True
        own = self.written if "T" in self.written else f"{self.written}T23:59:59"
        return _moment(own) > _moment(runs)


_DESCRIBING = {"id", "document", "short", "source", "says", "words", "tests", "written", "definition", *INSTEAD}
_DEFAULTS = {
    part.name: part.default if part.default_factory is MISSING else part.default_factory()
    for part in fields(Claim)
    if part.name not in _DESCRIBING
}


def _moment(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


# ---------------------------------------------------------------- reading


def read_claims(folder: Path = FOLDER, *, stamped: bool = True) -> list[Claim]:
    """Return all claims, document by document.

    Args:
        folder: of the yaml files.
        stamped: whether each test that has a date must be the one that the date belongs to.

    Raises:
        UsageError: a file or claim that cannot be understood; the sentence names it.
    """
    import yaml

    found: list[Claim] = []
    for path in sorted(folder.glob("*.yaml")):
        # plain YAML, read five times as fast as through OmegaConf
        content: Any = yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        for entry in content["claims"]:
            shared = {"document": content["document"], "short": content["short"]}
            found.append(read_claim(path, shared | entry, stamped=stamped))
    names = [claim.id for claim in found]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"the claim {name} is in {folder} twice: give each an id of its own.")
    tested = {claim.id: claim.document for claim in found if claim.tested}
    for claim in found:
        if claim.same_as and tested.get(claim.same_as) != claim.document:
            raise unknown(f"claim of {claim.short} that {claim.id} is the same as", claim.same_as, list(tested))
    return found


def read_claim(path: Path, entry: Mapping[str, Any], *, stamped: bool = True) -> Claim:
    """Return one claim of a file.

    Args:
        path: the file, for messages.
        entry: its fields by name.
        stamped: whether a test that has a date must be the one that the date belongs to.

    Raises:
        UsageError: a field that is unknown, missing or wrong.
    """
    known = [part.name for part in fields(Claim)]
    for name in entry:
        if name not in known:
            raise unknown(f"field of the claim {entry.get('id')} in {path.name}", name, known)
    if missing := [name for name in ("id", "source", "says") if not entry.get(name)]:
        raise UsageError(f"a claim in {path.name} ({entry.get('id')}) has no {missing[0]}: write one.")
    claim = Claim(**{**entry, "written": _text_of(entry.get("written", ""))})
    if len(claim.words.split()) > MOST_WORDS:
        raise UsageError(f"the claim {claim.id} quotes more than {MOST_WORDS} words: keep the decisive ones.")
    if claim.tested:
        _check_test(claim)
        if stamped:
            _check_stamp(claim)
    return claim


def _text_of(written: Any) -> str:
    return written.isoformat() if hasattr(written, "isoformat") else str(written)  # YAML reads days as dates


def _check_test(claim: Claim) -> None:
    metrics = COSTS if claim.test == "cost" else (claim.metric,)
    for what, value, known in (
        ("kind of test", claim.test, KINDS),
        ("expectation", claim.expect, EXPECTATIONS),
        ("meaning of a list", claim.members, MEMBERS),
        ("cost", claim.metric, metrics),
    ):
        if value not in known:
            raise unknown(f"{what} of the claim {claim.id}", value, known)
    if claim.test != "cost" and claim.study not in options("study"):
        raise unknown(f"study of the claim {claim.id}", claim.study, options("study"))
    sided = bool(claim.against) != (claim.test == "sign")
    if claim.margin <= 0 or not claim.compare or not sided:
        raise UsageError(
            f"the claim {claim.id} needs compare, against (unless it is of a sign), and a margin above 0, named before "
            "the runs."
        )
    lists = [value for side in (claim.compare, claim.against) for value in side.values() if isinstance(value, list)]
    if claim.members in ("paired", "any") and not lists:
        raise UsageError(f"the claim {claim.id} has members {claim.members}, but no list: give compare one.")


def _check_stamp(claim: Claim) -> None:
    if not claim.written and not claim.definition:
        return  # a draft
    try:
        _moment(claim.written)
    except ValueError:
        found = f"was written '{claim.written}', which is no date"
    else:
        if claim.definition == claim.current_definition():
            return
        found = f"is not the one that was written {claim.written}"
    raise UsageError(
        f"the test of the claim {claim.id} {found}: python -m harness.report claims --stamp gives it today's date."
    )


def stamp(folder: Path = FOLDER, now: datetime | None = None) -> list[str]:
    """Give every claim whose test changed the hash of the test and today's date; return their ids.

    Args:
        folder: of the yaml files, which are edited in place.
        now: the moment that is written down; None: this one.

    Raises:
        UsageError: a file or claim that cannot be understood.
    """
    moment = (now or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%MZ")
    changed = {
        claim.id: claim.current_definition()
        for claim in read_claims(folder, stamped=False)
        if claim.tested and (claim.definition != claim.current_definition() or not claim.written)
    }
    for path in folder.glob("*.yaml"):
        kept, inside = [], False
        for line in path.read_text().splitlines():
            start = re.match(r"  - id: (\S+)", line)
            inside = start[1] in changed if start else inside
            if inside and re.match(r"    (written|definition):", line):
                continue
            kept.append(line)
            if start and inside:
                given = changed[start[1]]
                quote = '"' if given.isdecimal() else ""  # else YAML reads a number
                kept += [f"    written: {moment}", f"    definition: {quote}{given}{quote}"]
        text = "\n".join(kept) + "\n"
        if text != path.read_text():
            path.write_text(text)
    return list(changed)
