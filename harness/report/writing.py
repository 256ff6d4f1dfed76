"""From records to a folder of files: composes the report once, then has every writer write it."""

from __future__ import annotations

from pathlib import Path

from harness.analysis.cells import Analysis
from harness.analysis.frames import column
from harness.records.store import write_text
from harness.records.study import StudyData
from harness.report import exhibits, figures, html, latex, markdown, names, table_csv
from harness.report.items import Report
from harness.report.sections import (
    answer,
    best,
    claims,
    classes,
    controls,
    cost,
    curves,
    differences,
    examples,
    failures,
    race,
    ranks,
    reproduce,
    results,
    runs,
    setting,
    verdicts,
    withheld,
)
from harness.report.sections.reproduce import asked
from harness.text import count
from harness.tracking.store import runs_address

SECTIONS = (
    answer, best, verdicts, withheld, claims, results, differences, ranks, classes, examples, curves, cost, controls,
    failures, setting, reproduce, runs,
)  # fmt: skip
OF_RACE = (race, classes, examples, curves, cost, failures, setting, reproduce, runs)
"""A race has no verdicts against a baseline, and no controls."""


def write(study: StudyData, folder: Path, mix: bool = False) -> Path:
    """Write the report of ``study`` into ``folder`` and return the page.

    Args:
        study: the records.
        folder: gets index.html, report.md, report.tex, tables/*.{csv,tex} and figures/*.{svg,png}.
        mix: compare runs of different device types and major versions of torch with each other.
    """
    return save(compose(study, mix), folder)


def save(report: Report, folder: Path) -> Path:
    """Have every writer write ``report`` into ``folder``, and return the page."""
    found = list(report.figures())
    figures.save_all({item.id: item.draw for item in found}, folder / "figures")
    drawings = {
        item.id: figures.inline((folder / "figures" / f"{item.id}.svg").read_text(), item.alt) for item in found
    }
    for table in report.tables():
        write_text(folder / "tables" / f"{table.id}.csv", table_csv.text(table))
        write_text(folder / "tables" / f"{table.id}.tex", latex.table(table))
    write_text(folder / "report.md", markdown.text(report))
    write_text(folder / "report.tex", latex.document(report))
    write_text(folder / "index.html", html.page(report, drawings))
    return folder / "index.html"


def compose(study: StudyData, mix: bool = False) -> Report:
    """Return what the report of ``study`` says, in no format yet."""
    a = Analysis(study, mix)
    done = sum(outcome.values.n for outcome in a.outcomes.values())
    finished = sorted(str(value)[:10] for value in column(a.all, "finished") if isinstance(value, str))
    changed = asked(study)
    facts = [
        *([changed] if changed else []),
        count(len(a.labels), "loss", "losses"),
        count(len(a.cells), "cell"),
        count(len(a.seeds), "seed"),
        f"{done:,} of {count(len(a.main), 'run')} completed",
        *([finished[0] if finished[0] == finished[-1] else f"{finished[0]} to {finished[-1]}"] if finished else []),
    ]
    title = str(study.spec.get("question") or f"Study {study.name}")
    if changed and not race.is_race(a) and not any(each.startswith("question=") for each in study.spec["overrides"]):
        title = study.name  # the question in the file is that of another study
    sections = [part.section(a) for part in (OF_RACE if race.is_race(a) else SECTIONS)]
    sections = [section for section in sections if section.items]
    after = 1 + max(
        (i for i, section in enumerate(sections) if section.id in ("verdicts", "withheld", "claims")), default=0
    )
    sections[after:after] = exhibits.sections(a)
    told = race.sentence(a) if race.is_race(a) else answer.sentence(a)
    return Report(study.name, title, tuple(facts), names.with_names(a, sections), runs_address(study.name), told)
