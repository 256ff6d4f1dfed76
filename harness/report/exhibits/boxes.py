"""Detectors: the losses of the survey's taxonomy that sit in a seat of theirs, with three measures of how well boxes
fit, and what goes wrong.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence

from harness.analysis import seats
from harness.analysis.cells import Analysis, Cell
from harness.analysis.frames import numbers
from harness.analysis.stats import mean_interval, metric_interval
from harness.metrics.declared import Metric
from harness.paths import ROOT
from harness.report.items import Column, Entry, Item, Prose, Row, Section, Table
from harness.report.sections.common import (
    cell_filters,
    dash,
    interval_entry,
    loss_entry,
    loss_filters,
    simultaneous,
)
from harness.text import DASH, number, slug

PRINTED = ROOT / "results" / "published" / "survey_taxonomy.csv"
CHAPTER = "3.2"
"""The survey's section of losses of boxes, all of which are listed."""
SEATED = {"focal": "binary_focal"}
"""Losses that have another name in a seat of a detector: every class of its own, present or not."""
FINER = ("test.ap75", "test.matched_iou")
"""What is shown beside the study's metric: both tell losses of boxes apart by how tightly these fit."""
KINDS = {
    "localisation": "misplaced",
    "classification": "wrong class",
    "both": "both",
    "duplicate": "duplicate",
    "background": "background",
    "missed": "missed",
}
"""Kinds of error (`harness.metrics.detection_errors`), as columns say them."""


def section(a: Analysis) -> Section:
    """Return the taxonomy with what each loss did in its seat, and a table of errors by kind for each cell."""
    if not a.seats:
        return Section("exhibit-boxes", "Losses of a detector", (Prose(("This study has no seats of losses.",)),))
    intro = (
        "The survey of Li, Liu and Liu (2025) describes nine losses of boxes in its section 3.2, beside losses of "
        "values (3.1) and of probabilities (4) that train detectors, too. Here each sits in its seat, for boxes or for "
        f"scores of classes, while the other seat keeps the loss of {a.reference}, the baseline. Losses of boxes "
        "differ most in how tightly boxes fit, so average precision at an overlap of 0.75 and the mean overlap of the "
        "boxes that find an object (at least 0.5) stand beside.",
    )
    items: list[Item] = [Prose(intro), _taxonomy(a)]
    items += [table for cell in a.cells if (table := _errors(a, cell))]
    return Section("exhibit-boxes", "Li, Liu and Liu (2025), section 3.2: losses of boxes, measured", tuple(items))


def label_in_seat(a: Analysis, name: str) -> str:
    """Return the label of this study in which a loss, in its seat, is all that differs from the baseline; the baseline
    where it is one of its losses; empty where there is none.
    """
    base = a.seats.get(a.baseline, {})
    wanted = SEATED.get(name, name)
    if wanted in base.values():
        return a.baseline
    for label, seated in a.seats.items():
        own = seats.changed(seated, base)
        if list(own.values()) == [wanted] and not seats.settings(label, list(seated)):
            return label
    return ""


def _taxonomy(a: Analysis) -> Table:
    finer = [a.metric_of(key) for key in FINER if numbers(a.main, key).notna().any() and key != a.metric.key]
    columns = [Column("section", "section"), Column("printed", "as printed"), Column("loss", "loss here")]
    for i, cell in enumerate(a.cells):
        name = cell.short if len(a.cells) > 1 else ""
        for metric in (a.metric, *finer):
            title = f"{name}: {metric.title}" if name else metric.title
            columns.append(Column(f"{metric.key}_{i + 1}", title, "number", cell.title))
    rows = []
    with PRINTED.open(newline="") as file:
        lines = list(csv.DictReader(file))
    for line in lines:
        for name in line["losses"].split():
            label = label_in_seat(a, name)
            if not label and not line["section"].startswith(f"{CHAPTER}."):
                continue
            if name == "jaccard":  # the same of masks
                continue
            rows.append(_row(a, line, name, label, finer))
    caption = (
        f"Difference from {a.reference} ({a.metric.difference_unit}): in {a.metric.title} with "
        f"{simultaneous(len(a.challengers))}, the verdict on hover; in the others seed by seed, with 95 % intervals "
        "over seeds, which are corrected for nothing and have no verdict. A dash says on hover why it is one."
    )
    return Table("boxes", "Losses of a detector, one by one", tuple(columns), tuple(rows), caption)


def _row(a: Analysis, line: dict[str, str], name: str, label: str, finer: Sequence[Metric]) -> Row:
    head = [Entry(line["section"]), Entry(line["printed"])]
    if not label:
        rotated = "it compares rotated boxes: task=rotated_detection" if name in ("piou", "kld_box") else ""
        why = rotated or f"not in this study: axes.loss.boxes=[giou,{name}]"
        return Row((*head, Entry(name), *(dash(why) for _ in a.cells for _ in (0, *finer))))
    entries = []
    for cell in a.cells:
        found = a.comparisons.get((cell, label))
        if label == a.baseline:
            entries += [Entry("baseline"), *(_value(a, cell, metric) for metric in finer)]
        elif found is None or not found.n:
            entries += [dash("no pair of completed runs here")] * (1 + len(finer))
        else:
            entries.append(interval_entry(a, found, a.outcomes[cell, label].paired_keys))
            entries += [_difference(a, cell, label, metric) for metric in finer]
    said = Entry(name, note=loss_entry(a, label).note)
    return Row((*head, said, *entries), reference=label == a.baseline, filters=loss_filters(a, label))


def _by_seed(a: Analysis, cell: Cell, label: str, metric: Metric) -> dict[int, float]:
    """Return a metric of the completed runs of a loss in a cell, by seed."""
    outcome = a.outcomes.get((cell, label))
    if outcome is None:
        return {}
    pairs = zip(a.measured(outcome, "seed"), a.measured(outcome, metric.key), strict=True)
    return {int(seed): float(value) for seed, value in pairs if math.isfinite(value)}


def _value(a: Analysis, cell: Cell, metric: Metric) -> Entry:
    found = metric_interval(list(_by_seed(a, cell, a.baseline, metric).values()), metric)
    if not found.n:
        return dash("no completed run of it here")
    return Entry(f"{metric.interval(found)} {metric.unit}".strip(), found.mean, note="the baseline's value itself")


def _difference(a: Analysis, cell: Cell, label: str, metric: Metric) -> Entry:
    own, base = (_by_seed(a, cell, each, metric) for each in (label, a.baseline))
    found = mean_interval([own[seed] - base[seed] for seed in sorted(own.keys() & base.keys())])
    if not found.n:
        return dash("no pair of completed runs here")
    text = metric.number(found.mean, sign=True)
    if found.n > 1:
        text += f" [{metric.number(found.low, sign=True)}, {metric.number(found.high, sign=True)}]"
    low, high = (found.low, found.high) if found.n > 1 else (None, None)
    return Entry(text, found.mean, low, high, a.outcomes[cell, label].keys)


# ---------------------------------------------------------------- errors by kind


def _errors(a: Analysis, cell: Cell) -> Table | None:
    """Return for each loss how many errors of each kind an image has, and what they cost; None where not recorded."""
    known = {kind: title for kind, title in KINDS.items() if numbers(a.main, f"test.errors_{kind}").notna().any()}
    if not known:
        return None
    rows = []
    for label in a.labels:
        outcome = a.outcomes.get((cell, label))
        if outcome is None or not outcome.keys:
            continue
        entries = [_error(a, cell, label, kind) for kind in known]
        never = numbers(a.records(outcome), "test.never_found").dropna()
        entries.append(Entry(number(100 * never.mean(), 1), float(never.mean())) if len(never) else dash("no objects"))
        filters = (*cell_filters(a, cell.values), *loss_filters(a, label))
        rows.append(Row((loss_entry(a, label), *entries), reference=label == a.baseline, filters=filters))
    columns = (
        Column("loss", "loss"),
        *(Column(kind, title, "number", f"errors of the kind {kind} in an image") for kind, title in known.items()),
        Column("never_found", "never found (%)", "number", "share of objects that no detection overlaps by 0.5"),
    )
    caption = (
        f"What goes wrong on {cell.title}: errors in a test image, mean over runs; in brackets by how many points the "
        "average precision at an overlap of 0.5 would rise if a kind of error were mended (kinds as in TIDE: Bolya et "
        "al., 2020). Nearly all detections of low score count as errors here, though they cost little: the number in "
        "brackets is the one to read. No verdicts are given."
    )
    return Table(
        f"errors-{slug(cell.title)}", f"Errors by kind, {cell.short}", columns, tuple(rows), caption, folded=True
    )


def _error(a: Analysis, cell: Cell, label: str, kind: str) -> Entry:
    runs = a.records(a.outcomes[cell, label])
    counted, lost = (numbers(runs, f"test.{name}_{kind}").dropna() for name in ("errors", "lost"))
    if counted.empty:
        return dash("not recorded")
    cost = f" ({number(100 * lost.mean(), 1, sign=True)})" if len(lost) else f" ({DASH})"
    return Entry(f"{number(counted.mean(), 2)}{cost}", float(counted.mean()), runs=a.outcomes[cell, label].keys)
