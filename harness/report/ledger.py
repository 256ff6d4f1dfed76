"""The claims ledger as a report of its own, over all studies: ``python -m harness.report claims``."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harness.analysis import deciding
from harness.analysis.deciding import Decision
from harness.paths import ROOT
from harness.report import writing
from harness.report.items import Column, Entry, Item, Prose, Report, Row, Section, Table
from harness.report.sections.claims import TONES, effect, overview, summary, verdict_text
from harness.report.sections.common import dash

PROPERTIES = ROOT / "results" / "published" / "review_properties.csv"


def write(folder: Path) -> tuple[Path, list[Decision]]:
    """Decide all claims on all records, local and published; write the ledger, return its page and the decisions.

    Args:
        folder: gets index.html, report.md, report.tex and tables/*.{csv,tex}.
    """
    decisions = deciding.ledger(deciding.recorded)
    return writing.save(compose(decisions), folder), decisions


def compose(decisions: Sequence[Decision]) -> Report:
    """Return what the ledger says, in no format yet."""
    studies = dict.fromkeys(d.claim.study for d in decisions if d.claim.study and d.evidence.keys)
    facts = (summary(decisions), *([f"Tested on the studies {', '.join(studies)}."] if studies else []))
    items = tuple(_for_all_studies(item) for item in overview(decisions))
    title = "What five publications claim about loss functions, and what our records show"
    return Report("claims", title, facts, (Section("claims", "The ledger", items), _properties(decisions)))


def _properties(decisions: Sequence[Decision]) -> Section:
    """Return the review's advantages and disadvantages of losses as measured properties."""
    by_id = {decision.claim.id: decision for decision in decisions}
    columns = (
        Column("loss", "loss"),
        Column("side", "listed as"),
        Column("property", "what the review says"),
        Column("verdicts", "measured", note="verdicts of the claims that stand for it, with effect and study"),
    )
    rows = []
    with PROPERTIES.open(newline="") as file:
        for line in csv.DictReader(file):
            found = [by_id[name] for name in line["claims"].split() if name in by_id]
            words = "; ".join(_measured(decision) for decision in found)
            verdicts = {decision.verdict for decision in found}
            tone = TONES[verdicts.pop()] if len(verdicts) == 1 else ""
            measured = Entry(words, tone=tone) if found else dash("no claim stands for it")
            rows.append(Row((Entry(line["loss"]), Entry(line["side"]), Entry(line["property"]), measured)))
    intro = (
        "Table 9 of the review of Elharrouss et al. (2025) lists advantages and disadvantages of losses in words. "
        "Each that can be measured stands here with the verdicts of its claims; ease of implementation and of "
        "interpretation are not measured.",
    )
    table = Table("properties", "Table 9, measured", columns, tuple(rows))
    return Section("properties", "Advantages and disadvantages, measured", (Prose(intro), table))


def _measured(decision: Decision) -> str:
    shown = f": {effect(decision)}" if decision.decided else ""
    because = f" ({decision.because})" if decision.because else ""
    return f"{verdict_text(decision)}{shown}{because}"


def _for_all_studies(item: Item) -> Item:
    """Return a table that can be filtered by verdict and study, without links to runs: their studies' reports have
    those.
    """
    if not isinstance(item, Table):
        return item
    keys = [column.key for column in item.columns]
    rows = []
    for row in item.rows:
        at = dict(zip(keys, row.entries, strict=True))
        verdict, study = (at[name].text if name in at else "" for name in ("verdict", "study"))
        filters = (("verdict", verdict.partition(" (")[0]), ("study", study or "none yet")) if verdict else ()
        rows.append(Row(tuple(replace(entry, runs=()) for entry in row.entries), filters=filters))
    return replace(item, rows=tuple(rows))
