"""The claims ledger as a report of its own, over all studies: ``python -m harness.report claims``."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from harness.analysis import deciding
from harness.analysis.cells import Analysis
from harness.analysis.controls import false_discoveries
from harness.analysis.deciding import Decision
from harness.analysis.stats import Comparison
from harness.paths import ROOT
from harness.report import writing
from harness.report.items import Column, Entry, Item, Prose, Report, Row, Section, Table
from harness.report.sections.claims import TONES, effect, overview, summary, verdict_text
from harness.report.sections.common import dash
from harness.text import count, p_value

PROPERTIES = ROOT / "results" / "published" / "review_properties.csv"


def write(folder: Path) -> tuple[Path, list[Decision]]:
    """Decide all claims on all records, local and published; write the ledger, return its page and the decisions.

    Args:
        folder: gets index.html, report.md, report.tex and tables/*.{csv,tex}.
    """
    seen: dict[str, Analysis] = {}

    def recorded(name: str) -> Analysis | None:
        found = deciding.recorded(name)
        if found is not None:
            seen[name] = found
        return found

    decisions = deciding.ledger(recorded)
    return writing.save(compose(decisions, seen), folder), decisions


def compose(decisions: Sequence[Decision], studies_seen: Mapping[str, Analysis] | None = None) -> Report:
    """Return what the ledger says, in no format yet.

    Args:
        decisions: on all claims.
        studies_seen: the studies that they were decided on, whose repeated baselines are looked at together.
    """
    studies = dict.fromkeys(d.claim.study for d in decisions if d.claim.study and d.evidence.keys)
    facts = (summary(decisions), *([f"Tested on the studies {', '.join(studies)}."] if studies else []))
    items = tuple(_for_all_studies(item) for item in overview(decisions))
    title = "What five publications claim about loss functions, and what our records show"
    sections = [Section("claims", "The ledger", items), _properties(decisions)]
    if studies_seen:
        sections.append(_repeats(studies_seen))
    return Report("claims", title, facts, tuple(sections), kind="")


def _repeats(studies: Mapping[str, Analysis]) -> Section:
    """Return the baselines that were repeated, over all studies: how many differ from themselves beyond chance."""
    found = [
        (name, control.cell.title, control.found, a)
        for name, a in studies.items()
        for control in a.controls
        if control.kind == "repeat" and isinstance(control.found, Comparison) and control.found.n > 1
    ]
    # p values of comparisons are corrected over the cells of their study; here the false discovery rate is bounded
    ps = [c.p / c.family if c.p < 1 else 1.0 for _, _, c, _ in found]
    beyond = false_discoveries(ps)
    columns = (
        Column("study", "study"),
        Column("cell", "cell"),
        Column("difference", "difference from itself", note="simultaneous 95 % interval over the cells of its study"),
        Column("p", "p", "number", "of this comparison alone"),
        Column("beyond", "beyond chance", note="at a false discovery rate of 5 % over all studies"),
        Column("margin", "beyond the margin"),
    )
    rows = tuple(
        Row(
            (
                Entry(name),
                Entry(cell),
                Entry(f"{a.metric.difference(c)} {a.metric.difference_unit}".strip(), c.difference, c.low, c.high),
                Entry(p_value(p), p),
                Entry("yes" if far else "no", tone="alarm" if far else ""),
                Entry("yes" if abs(c.difference) > a.margin and not c.low <= 0 <= c.high else "no"),
            )
        )
        for (name, cell, c, a), p, far in zip(found, ps, beyond, strict=True)
    )
    far = int(beyond.sum())
    where = f"{count(len(found), 'cell')} of {count(len(studies), 'study', 'studies')}"
    lead = (
        f"In {where} the baseline was trained again under other seeds, with a search of its own where there is one. It "
        f"differs from itself beyond chance in {far} of them, at a false discovery rate of 5 % over all studies.",
    )
    table = Table("repeats", "The baseline beside itself, over all studies", columns, rows)
    return Section("repeats", "The baseline beside itself", (Prose(lead), table))


def _properties(decisions: Sequence[Decision]) -> Section:
    """Return the review's advantages and disadvantages of losses as measured properties."""
    by_id = {decision.claim.id: decision for decision in decisions}
    columns = (
        Column("loss", "loss"),
        Column("side", "listed as"),
        Column("property", "what it is said to be"),
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
        entries = tuple(replace(entry, runs=()) for entry in row.entries)
        rows.append(Row(entries, at["id"].text if verdict else "", filters=filters))
    return replace(item, rows=tuple(rows))
