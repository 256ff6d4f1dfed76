"""The report of a study, from its records alone: one HTML page, Markdown, LaTeX, CSV, and figures as SVG and PNG.

``python -m harness.report build NAME``. Its content is composed once, as sections of tables, figures and sentences
(:mod:`harness.report.items`); the writers only give it a format. Models and torch are never imported.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.records.study import StudyData


def build(study: StudyData, folder: Path, mix: bool = False) -> Path:
    """Write the report of ``study`` into ``folder`` and return the page.

    Args:
        study: the records.
        folder: gets index.html, report.md, report.tex, tables/*.{csv,tex} and figures/*.{svg,png}.
        mix: compare runs of different device types and major versions of torch with each other.
    """
    from harness.report import writing  # here, so that `python -m harness.report --help` answers at once

    return writing.write(study, folder, mix)


def summary(study: StudyData, mix: bool = False) -> str:
    """Return the results as plain text that fits the terminal."""
    from harness.analysis.cells import Analysis
    from harness.report.terminal import summary_of

    return summary_of(Analysis(study, mix))
