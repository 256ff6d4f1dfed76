"""*A Comprehensive Review* (Elharrouss et al., 2025), tables of methods: the losses they are trained with, beside what
those losses did in this study.
"""

from __future__ import annotations

import csv
import itertools

from harness.analysis.cells import Analysis, Cell
from harness.analysis.frames import column, where
from harness.compose import option, options
from harness.paths import ROOT
from harness.report.exhibits.taxonomy import labels_of
from harness.report.items import Column, Entry, Prose, Row, Section, Table
from harness.report.sections.common import TONES, dash
from harness.text import joined

PRINTED = ROOT / "results" / "published" / "review_methods.csv"
TASKS = {
    "classification": "image classification",
    "segmentation": "semantic segmentation",
    "segmentation_windows": "semantic segmentation",
    "regression": "tabular data prediction",
    "localisation": "object detection",
}
"""Option of conf/task -> the review's word."""


def section(a: Analysis) -> Section:
    """Return the review's rows of this study's task, each with the measured differences of its losses."""
    task = next((TASKS[name] for name in column(a.all, "task").dropna() if name in TASKS), "")
    with PRINTED.open(newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["task"] == task]
    if not lines:
        return Section(
            "exhibit-methods", "Methods and their losses", (Prose(("The review lists none of this task.",)),)
        )
    intro = (
        f"For {task} the review of Elharrouss et al. (2025) lists {len(lines)} methods with the losses they are "
        "trained with, without a comparison of losses on one method. Beside each stands what its losses did here "
        f"against {a.baseline}, on models of the same kind but far smaller than the methods named: it says whether "
        "the loss could matter, not how the method does.",
    )
    table = _table(a, lines)
    return Section("exhibit-methods", f"The review: methods of {task} and their losses", (Prose(intro), table))


def is_transformer(a: Analysis, cell: Cell) -> bool:
    """Return whether the network of a cell is a transformer: as its runs recorded it, else as conf/model has it."""
    recorded = column(where(a.main, cell=cell.values), "config.model.network").dropna()
    if len(recorded):
        return bool(recorded.iloc[0] == "transformer")
    return cell.model in options("model") and option("model", cell.model)["network"] == "transformer"


def _table(a: Analysis, lines: list[dict[str, str]]) -> Table:
    columns = (
        Column("method", "method"),
        Column("technique", "kind"),
        Column("printed", "trained with, in the review"),
        *(Column(f"cell_{i + 1}", cell.short, note=cell.title) for i, cell in enumerate(a.cells)),
    )
    rows = tuple(
        Row((Entry(line["method"]), Entry(line["technique"]), Entry(line["printed"]),
             *(_entry(a, cell, line) for cell in a.cells)))
        for line in lines
    )  # fmt: skip
    unit = a.metric.difference_unit or a.metric.title
    caption = f"Mean difference from {a.baseline} ({unit}) and verdict; a dash says on hover why there is none."
    return Table("methods", "Methods and measured losses", columns, rows, caption)


def _entry(a: Analysis, cell: Cell, line: dict[str, str]) -> Entry:
    kind = "ViT" if is_transformer(a, cell) else "CNN"
    if any(word in line["technique"] for word in ("CNN", "ViT")) and kind not in line["technique"]:
        return dash(f"the method is no {kind}")
    names = line["losses"].split()
    sums = ["_".join(pair) for pair in itertools.permutations(names, 2)]
    labels = [label for label in sums if label in a.labels] or labels_of(a, names)
    others = [label for label in labels if label != a.baseline and (cell, label) in a.comparisons]
    others = [label for label in others if a.comparisons[cell, label].n]
    if not others:
        return Entry("baseline") if names == [a.baseline] else dash("this study lacks what it is trained with")
    compared = [(label, a.comparisons[cell, label]) for label in others]
    text = joined(
        f"{a.display(label)} {a.metric.number(c.difference, sign=True)}, {c.verdict}" for label, c in compared
    )
    keys = tuple(key for label in others for key in a.outcomes[cell, label].paired_keys)
    return Entry(text, runs=keys, tone=TONES[compared[0][1].verdict] if len(compared) == 1 else "")
