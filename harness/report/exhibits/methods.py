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
from harness.report.exhibits.boxes import SEATED, label_in_seat
from harness.report.exhibits.taxonomy import labels_of, lifted
from harness.report.items import Column, Entry, Prose, Row, Section, Table
from harness.report.sections.common import TONES, dash
from harness.text import joined

PRINTED = ROOT / "results" / "published" / "review_methods.csv"
TASKS = {
    "classification": "image classification",
    "segmentation": "semantic segmentation",
    "segmentation_windows": "semantic segmentation",
    "regression": "tabular regression",
    "table_classification": "tabular classification",
    "localisation": "object detection",
    "detection": "object detection",
    "rotated_detection": "object detection",
}
"""Option of conf/task -> the review's word; of tables, with what its table 7 says of the method: Class, Reg or both."""
OTHERWISE = {"euclidean": "brier"}
"""The review's Euclidean loss, "the squared distance between predicted and true output vectors", of a classifier."""
TRANSFORMERS, OTHERS = ("ViT", "Transformer"), ("CNN", "DNN", "ANN", "ResNet")
TREES = ("Gradient Boosting", "Decision Tree")


def section(a: Analysis) -> Section:
    """Return the review's rows of this study's task, each with the measured differences of its losses."""
    task = next((TASKS[name] for name in column(a.all, "task").dropna() if name in TASKS), "")
    with PRINTED.open(newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["task"] == task]
    if not lines:
        return Section("exhibit-methods", "Methods and their losses", (Prose(("It lists none of this task.",)),))
    intro = (
        f"For {task} the review of Elharrouss et al. (2025) lists {len(lines)} methods with the losses they are "
        "trained with, without a comparison of losses on one method. Beside each stands what its losses did here "
        f"against {a.reference}, on models of the same kind but far smaller than the methods named: it says whether "
        "the loss could matter, not how the method does.",
    )
    table = _table(a, lines)
    return Section(
        "exhibit-methods", f"Elharrouss et al. (2025): methods of {task} and their losses", (Prose(intro), table)
    )


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
        Column("printed", "trained with, as printed"),
        *(Column(f"cell_{i + 1}", cell.short, note=cell.title) for i, cell in enumerate(a.cells)),
    )
    rows = tuple(
        Row((Entry(line["method"], note=line["remark"]), Entry(line["technique"]), Entry(line["printed"]),
             *(_entry(a, cell, line) for cell in a.cells)))
        for line in lines
    )  # fmt: skip
    unit = a.metric.difference_unit or a.metric.title
    caption = (
        f"Mean difference from {a.reference} ({unit}) and verdict; a dash says on hover why there is none. Where a "
        "method is trained with several losses together and this study has not their sum, each is shown alone, "
        'which hovering says; losses printed with "or" are alternatives. Remarks on a method stand on hover, too.'
    )
    return Table("methods", "Methods and measured losses", columns, rows, caption)


def _entry(a: Analysis, cell: Cell, line: dict[str, str]) -> Entry:
    if reason := _other_kind(a, cell, line["technique"]):
        return dash(reason)
    names = line["losses"].split()
    labels, together = labels_for(a, line)
    found = [label for label in labels if label != a.baseline and (cell, label) in a.comparisons]
    found = [label for label in found if a.comparisons[cell, label].n]
    if not found:
        baseline = names == [a.baseline] or (together and labels == [a.baseline])
        return Entry("baseline") if baseline else dash("this study lacks what it is trained with")
    compared = [(label, a.comparisons[cell, label]) for label in found]
    text = joined(f"{a.called(label)} {a.metric.number(c.difference, sign=True)}, {c.verdict}" for label, c in compared)
    keys = tuple(key for label in found for key in a.outcomes[cell, label].paired_keys)
    note = "" if together else "each loss alone: together they were not trained here"
    tone = TONES[compared[0][1].verdict] if len(compared) == 1 else ""
    return Entry(text, runs=keys, note=note, tone=tone)


def labels_for(a: Analysis, line: dict[str, str]) -> tuple[list[str], bool]:
    """Return the labels of this study that stand for what a method is trained with, and whether they do as a whole.

    Losses printed with "or" are alternatives, so each stands for itself; others are trained together: a loss of this
    study that is the sum of just these stands for them, and where there is none each of them alone, which is a part.
    """
    if a.seats:
        return _seated(a, line["losses"].split())
    names = [OTHERWISE.get(name, name) if name not in a.labels else name for name in line["losses"].split()]
    alone = labels_of(a, names)
    if len(names) < 2 or " or " in line["printed"].lower():
        return alone, True
    sums = [label for label in a.labels if _is_sum(label, names)]
    return (sums, True) if sums else (alone, False)


def _seated(a: Analysis, names: list[str]) -> tuple[list[str], bool]:
    """Return the same of a task with seats: the label that has just these losses in them, or one for each of them."""
    wanted = {SEATED.get(name, name) for name in names}
    if whole := [label for label, seated in a.seats.items() if set(seated.values()) == wanted]:
        return whole, True
    alone = dict.fromkeys(label for name in names if (label := label_in_seat(a, name)))
    return list(alone), len(wanted) == 1


def _is_sum(label: str, names: list[str]) -> bool:
    """Return whether an option of conf/loss is the sum of these losses, each perhaps lifted to classifiers."""
    terms = option("loss", label).get("terms", {}) if label in options("loss") else {}
    wanted = [set(lifted(name)) for name in names]
    orders = itertools.permutations(terms) if len(terms) == len(names) else ()
    return any(all(term in stems for term, stems in zip(order, wanted, strict=True)) for order in orders)


def _other_kind(a: Analysis, cell: Cell, technique: str) -> str:
    """Return why the network of a cell says nothing about a method of this kind; empty if it may."""
    if technique in TREES:
        return "the method trains trees, no network"
    kinds, word = (TRANSFORMERS, "transformer") if is_transformer(a, cell) else (OTHERS, "CNN or plain network")
    listed = any(kind in technique for kind in (*TRANSFORMERS, *OTHERS))
    return f"the method is no {word}" if listed and not any(kind in technique for kind in kinds) else ""
