"""Three of the five publications part by part, in their order, each with what is known of it here.

``conf/papers/<document>.yaml`` lists the parts. One says where it stands (``at``), its ``kind``, what it ``says`` in
our words, and at least one of:

- ``claims``: claims of ``conf/claims/`` that test it;
- ``shown``: studies, or searches for a loss, whose reports show it, each with the anchor there (``{study: survey, at:
  exhibit-ngl}``);
- ``quoted``: what there is to say of it without a measurement of ours;
- ``table``: a file of ``results/published/`` with the numbers printed;
- ``run``: a command that measures it, for which the machine, the data or the time was missing here;
- ``because``: why it cannot be measured, or not as printed.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from harness.errors import UsageError, unknown
from harness.paths import CONF, ROOT
from harness.site.claims import ClaimFacts

FOLDER = CONF / "papers"
PUBLISHED = ROOT / "results" / "published"
KINDS = ("sentence", "number", "table", "figure", "equation", "algorithm", "method")
STATES = ("measured", "shown", "quoted", "not run here", "not possible")
UNTESTED = ("cannot be tested", "retired")
"""Verdicts of the ledger on what no run decides."""


@dataclass(frozen=True)
class Part:
    """A sentence, number, table, figure, equation or method of a publication; see the module's text for the fields.

    Of the studies that show it, ``unpublished`` names those without a report.
    """

    at: str
    kind: str
    says: str
    claims: tuple[ClaimFacts, ...] = ()
    shown: tuple[Mapping[str, str], ...] = ()
    unpublished: tuple[str, ...] = ()
    quoted: str = ""
    table: tuple[tuple[str, ...], ...] = ()
    run: str = ""
    because: str = ""

    @property
    def state(self) -> str:
        """Which of STATES it is in: what is known best."""
        if any(claim.effect for claim in self.claims):
            return "measured"
        if self.shown:
            return "shown"
        if self.quoted or self.table:
            return "quoted"
        waiting = self.run or self.unpublished or any(claim.verdict not in UNTESTED for claim in self.claims)
        return "not run here" if waiting else "not possible"


@dataclass(frozen=True)
class Paper:
    """A publication with its parts in their order.

    Attributes:
        id: name of its file, and of its page.
        document, short: its title with authors and year, and what it is called.
        parts: what it consists of.
    """

    id: str
    document: str
    short: str
    parts: tuple[Part, ...] = field(default=(), repr=False)

    def counts(self) -> dict[str, int]:
        """Return how many parts are in each state, those without any left out."""
        states = [part.state for part in self.parts]
        return {state: states.count(state) for state in STATES if state in states}


def papers(claims: Sequence[ClaimFacts], studies: Sequence[str], folder: Path = FOLDER) -> list[Paper]:
    """Return every publication of the folder.

    Args:
        claims: what the ledger decided.
        studies: names of those with a report, to which parts may lead; searches among them.
        folder: of the yaml files.

    Raises:
        UsageError: a file that cannot be understood; the sentence names it and the part.
    """
    import yaml

    known = {claim.id: claim for claim in claims}
    found = []
    for path in sorted(folder.glob("*.yaml")):
        content: Any = yaml.safe_load(path.read_text())
        parts = tuple(_part(path.name, entry, known, studies) for entry in content["parts"])
        found.append(Paper(path.stem, content["document"], content["short"], parts))
    return found


def _part(file: str, entry: dict[str, Any], known: Mapping[str, ClaimFacts], studies: Sequence[str]) -> Part:
    names = [each.name for each in fields(Part) if each.name != "unpublished"]
    where = f"the part of {file} at {entry.get('at')}"
    for name in entry:
        if name not in names:
            raise unknown(f"field of {where}", name, names)
    if missing := [name for name in ("at", "kind", "says") if not entry.get(name)]:
        raise UsageError(f"{where} has no {missing[0]}: write one.")
    if entry["kind"] not in KINDS:
        raise unknown(f"kind of {where}", entry["kind"], KINDS)
    if not set(entry) - {"at", "kind", "says"}:
        raise UsageError(
            f"{where} does not say what is known of it: give it claims, shown, quoted, table, run or because."
        )
    for name in entry.get("claims", ()):
        if name not in known:
            raise unknown(f"claim of {where}", name, list(known))
    shown = entry.get("shown", ())
    return Part(
        **{
            **entry,
            "claims": tuple(known[name] for name in entry.get("claims", ())),
            "shown": tuple(each for each in shown if each["study"] in studies),
            "unpublished": tuple(dict.fromkeys(each["study"] for each in shown if each["study"] not in studies)),
            "table": _table(entry["table"]) if "table" in entry else (),
        }
    )


def _table(name: str) -> tuple[tuple[str, ...], ...]:
    """Return the printed numbers of a file of published values, its head first, as they are printed: one row for each
    loss; a file of values by data set gets a column for each.
    """
    with (PUBLISHED / name).open(newline="") as file:
        lines = list(csv.DictReader(file))
    if "dataset" not in lines[0]:
        columns = [column for column in lines[0] if column not in ("document", "place")]
        return (tuple(columns), *(tuple(line[column] for column in columns) for line in lines))
    data = list(dict.fromkeys(line["dataset"] for line in lines))
    values = {(line["printed"], line["dataset"]): line["value"] for line in lines}
    losses = dict.fromkeys(line["printed"] for line in lines)
    return (("loss", *data), *((loss, *(values[loss, each] for each in data)) for loss in losses))
