"""What each loss gains and loses class by class: a mean can hide that it gave up a rare one."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd

from harness.analysis.cells import Analysis, Cell, Outcome
from harness.analysis.frames import column, where
from harness.report.items import Column, Entry, Item, Prose, Row, Section, Table
from harness.report.sections.common import cell_filters, dash, loss_entry, loss_filters
from harness.text import count, number, slug

MOST = 25  # a table of more classes is unreadable
RECALL = "the share of the test items of each class that are recognised (recall)"
SCORES = {
    "test.miou": "the intersection over union of each class",
    "test.map": "the average precision of each label",
    "test.ap50": "the average precision of each class",
}
"""What is recorded class by class, by a metric of the task that records it; of all others it is `RECALL`."""


def section(a: Analysis) -> Section:
    """Return a table per cell: classes by column; nothing where no run recorded scores by class."""
    tables: list[Item] = [table for cell in a.cells if (table := _table(a, cell))]
    score = next((name for metric, name in SCORES.items() if column(a.main, metric).notna().any()), RECALL)
    note = (
        f"Mean over seeds, in %: {score}. The note of an entry is the difference from the baseline over the same "
        "seeds; single classes are not tested."
    )
    return Section("classes", "Class by class", (Prose((note,)), *tables) if tables else ())


def _table(a: Analysis, cell: Cell) -> Table | None:
    scores = {label: found for label in a.labels if (found := _scores(a, a.outcomes.get((cell, label)))) is not None}
    if not scores:
        return None
    names = class_names(a, cell, max(found.shape[1] for found in scores.values()))
    if len(names) > MOST:
        return None
    columns = (Column("loss", "loss"), *(Column(f"class_{k}", name, "number") for k, name in enumerate(names)))
    made = tuple(
        Row(
            (loss_entry(a, label), *_entries(found, scores.get(a.baseline), a.outcomes[cell, label].keys)),
            reference=label == a.baseline,
            filters=(*cell_filters(a, cell.values), *loss_filters(a, label)),
        )
        for label, found in scores.items()
    )
    return Table(f"classes-{slug(cell.title)}", cell.title, columns, made, f"Classes on {cell.title}.", folded=True)


def _scores(a: Analysis, outcome: Outcome | None) -> pd.DataFrame | None:
    """Return the score of each class (columns) by seed (rows); nan where it does not occur."""
    if outcome is None or not outcome.keys:
        return None
    runs = a.records(outcome)
    scores = {
        int(seed): [math.nan if value is None else float(value) for value in json.loads(text)]
        for seed, text in zip(column(runs, "seed"), column(runs, "test.per_class"), strict=True)
        if isinstance(text, str)
    }
    return pd.DataFrame.from_dict(scores, orient="index") if scores else None


def class_names(a: Analysis, cell: Cell, classes: int) -> list[str]:
    """Return the names of the classes in a cell, or their numbers where the records have none."""
    for text in column(where(a.main, cell=cell.values), "data.classes"):
        if isinstance(text, str) and text.startswith("["):
            return json.loads(text)
    return [str(k) for k in range(classes)]


def _entries(own: pd.DataFrame, base: pd.DataFrame | None, keys: tuple[str, ...]) -> list[Entry]:
    entries = []
    for name in own.columns:
        mean = 100 * float(np.mean(own[name].dropna())) if own[name].notna().any() else math.nan
        if math.isnan(mean):
            entries.append(dash("the class neither occurs nor is predicted"))
            continue
        note = ""
        if base is not None and base is not own and len(apart := 100 * (own[name] - base[name]).dropna()):
            note = f"{number(float(apart.mean()), 1, sign=True)} from the baseline, {count(len(apart), 'seed')}"
        entries.append(Entry(number(mean, 1), mean, runs=keys, note=note))
    return entries
