"""The published searches for losses: a report of each, and what the site's own pages say of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.evolution import report
from harness.evolution.kept import Kept
from harness.report import writing


@dataclass(frozen=True)
class SearchFacts:
    """A search as the site lists it: its name, the question, the answer, its runs, and the day of the last one."""

    name: str
    question: str
    answer: str
    runs: int
    finished: str


def write(folder: Path, kept: Kept) -> tuple[SearchFacts, Path]:
    """Write the report of a search into the site's folder; return what is listed, and the page."""
    made = report.compose(kept)
    page = writing.save(made, folder / "report" / made.name)
    return SearchFacts(made.name, made.title, made.answer, kept.found.searched.trained, kept.made["finished"]), page
