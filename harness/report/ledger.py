"""The claims ledger as a report of its own, over all studies: ``python -m harness.report claims``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harness.report import claims, writing
from harness.report.claims import Decision
from harness.report.items import Item, Report, Row, Section, Table
from harness.report.sections import claims as told


def write(folder: Path) -> tuple[Path, list[Decision]]:
    """Decide all claims on all records, local and published; write the ledger, return its page and the decisions.

    Args:
        folder: gets index.html, report.md, report.tex and tables/*.{csv,tex}.
    """
    decisions = claims.ledger(claims.recorded)
    return writing.save(compose(decisions), folder), decisions


def compose(decisions: Sequence[Decision]) -> Report:
    """Return what the ledger says, in no format yet."""
    studies = dict.fromkeys(decision.claim.study for decision in decisions if decision.evidence.n >= 2)
    facts = (
        (told.told(decisions), f"Decided on the studies {', '.join(studies)}.") if studies else (told.told(decisions),)
    )
    items = tuple(_without_links(item) for item in told.overview(decisions))
    title = "What five documents claim about loss functions, and what our records say of it"
    return Report("claims", title, facts, (Section("claims", "The ledger", items),))


def _without_links(item: Item) -> Item:
    """Return the item without references to runs, which are listed in the reports of their studies."""
    if not isinstance(item, Table):
        return item
    rows = (Row(tuple(replace(entry, runs=()) for entry in row.entries)) for row in item.rows)
    return replace(item, rows=tuple(rows))
