"""*A Survey of Loss Functions in Deep Learning* (Li, Liu and Liu, 2025): its taxonomy, with measured results."""

from __future__ import annotations

import csv
import functools
import statistics
from collections.abc import Sequence

from harness.analysis.cells import Analysis, Cell
from harness.compose import options
from harness.paths import ROOT
from harness.report.exhibits import drawings
from harness.report.exhibits.drawings import Dot
from harness.report.figures import limit
from harness.report.items import Column, Entry, Figure, Item, Prose, Row, Section, Table
from harness.report.sections.common import dash, interval_entry, loss_filters, simultaneous
from harness.text import count, joined

PRINTED = ROOT / "results" / "published" / "survey_taxonomy.csv"
LIFTS = ("", "_ovr", "_prob", "_cross_entropy", "_multiclass")
"""How a loss of something else is named once it trains classifiers: one-vs-rest, on probabilities, in a sum."""
OTHERWISE = {"binary_cross_entropy": "bce_ovr", "mse": "brier", "balanced_cross_entropy": "balanced_cross_entropy_ovr"}


def section(a: Analysis) -> Section:
    """Return a figure of all families, a line for each, and the taxonomy with what each of its losses did here."""
    intro = (
        "The survey of Li, Liu and Liu (2025) sorts losses by what they compare. Here every loss of its figure that "
        f"this study trains is shown with its difference from {a.reference}. Losses of values, binary labels or pairs "
        "train a classifier on its probabilities, one class against the rest, or added to cross-entropy; families "
        "that compare boxes do not apply to this task.",
    )
    listed = _listed()
    items: list[Item] = [Prose((*intro, *_sentences(a))), _figure(a), _table(a, listed)]
    return Section("exhibit-taxonomy", "The taxonomy of Li, Liu and Liu (2025), measured", tuple(items))


def _listed() -> list[dict[str, str]]:
    with PRINTED.open(newline="") as file:
        return list(csv.DictReader(file))


def labels_of(a: Analysis, names: Sequence[str]) -> list[str]:
    """Return the labels of this study that stand for losses of the taxonomy."""
    wanted = [label for name in names for label in lifted(name)]
    return [label for label in dict.fromkeys(wanted) if label in a.labels]


def lifted(name: str) -> list[str]:
    """Return a loss's name and those under which it trains classifiers, where it is a loss of something else."""
    return [stem + lift for stem in dict.fromkeys((name, OTHERWISE.get(name, name))) for lift in LIFTS]


def _by_family(a: Analysis, cell: Cell) -> dict[str, list[Dot]]:
    found: dict[str, list[Dot]] = {}
    for label in a.challengers:
        compared = a.comparisons.get((cell, label))
        if compared is not None and compared.n:
            dot = Dot(a.metric.scale * compared.difference, compared.verdict, a.name(label))
            found.setdefault(a.loss_facts[label].family or "other", []).append(dot)
    return dict(sorted(found.items(), key=lambda entry: entry[0]))


def _sentences(a: Analysis) -> list[str]:
    """Say for each cell how far apart families are, beside how far apart the losses of a family are."""
    sentences = []
    sign = 1 if a.metric.higher_is_better else -1
    for cell in a.cells:
        found = _by_family(a, cell)
        if len(found) < 2:
            continue
        middle = {family: statistics.median(dot.value for dot in dots) for family, dots in found.items()}
        best, worst = (pick(middle, key=lambda family: sign * middle[family]) for pick in (max, min))
        sentences.append(
            f"{cell.title}: by the median of its losses {best} is the best family "
            f"({a.metric.number(middle[best] / a.metric.scale, sign=True)}) and {worst} the worst "
            f"({a.metric.number(middle[worst] / a.metric.scale, sign=True)})."
        )
    if sentences:
        sentences.append(
            "That ranking is a description: no test stands behind it, and families differ in number of losses."
        )
    return sentences


def _figure(a: Analysis) -> Figure:
    panels = {cell.title: _by_family(a, cell) for cell in a.cells}
    extents = [dot.value for found in panels.values() for dots in found.values() for dot in dots]
    half = limit(extents, a.margin * a.metric.scale)
    caption = (
        f"Each mark is a loss at its mean difference from {a.reference}; triangle up: better, down: worse, square: "
        "equivalent, open circle: not decidable, open diamond: withheld. The band is the margin of equivalence; a "
        "pointer at the edge is a loss too far away to draw. In brackets: how many losses."
    )
    alt = " ".join(
        f"{title}: " + "; ".join(
            f"{family} " + joined(f"{dot.label} {dot.value:+.2f} {dot.verdict}" for dot in dots)
            for family, dots in found.items()
        ) + "."
        for title, found in panels.items()
    )  # fmt: skip
    axis = f"difference in {a.metric.title} ({a.metric.difference_unit})"
    draw = functools.partial(drawings.families, panels, a.margin * a.metric.scale, half, axis)
    return Figure("taxonomy-families", "Families", caption, alt, draw, wide=True)


def _table(a: Analysis, listed: Sequence[dict[str, str]]) -> Table:
    columns = (
        Column("section", "section"),
        Column("printed", "as printed"),
        Column("family", "family"),
        Column("loss", "loss here"),
        *(Column(f"cell_{i + 1}", cell.short, "number", cell.title) for i, cell in enumerate(a.cells)),
    )
    rows = []
    for line in listed:
        names = line["losses"].split()
        head = (Entry(line["section"]), Entry(line["printed"]), Entry(line["family"]))
        labels = labels_of(a, names)
        for label in labels:
            entries = (_entry(a, cell, label) for cell in a.cells)
            row = (*head, Entry(a.display(label)), *entries)
            rows.append(Row(row, reference=label == a.baseline, filters=loss_filters(a, label)))
        if not labels:
            why = _why_not(a, names)
            rows.append(Row((*head, Entry(" ".join(names)), *(dash(why) for _ in a.cells))))
    measured = sum(bool(labels_of(a, line["losses"].split())) for line in listed)
    caption = (
        f"{measured} of {count(len(listed), 'entry', 'entries')} of that taxonomy are measured in this study: "
        f"difference in {a.metric.title} from {a.reference} with {simultaneous(len(a.challengers))}. A dash says on "
        "hover why it is one."
    )
    return Table("taxonomy", "The taxonomy, loss by loss", columns, tuple(rows), caption, folded=True)


def _why_not(a: Analysis, names: Sequence[str]) -> str:
    lifted = [OTHERWISE.get(name, name) + lift for name in names for lift in LIFTS]
    trainable = [name for name in lifted if name in options("loss")]
    command = f"python -m harness study={a.study.name} axes.loss=[{a.baseline},{','.join(trainable[:1])}]"
    return f"not in this study, or not a loss of this task: {command}"


def _entry(a: Analysis, cell: Cell, label: str) -> Entry:
    if label == a.baseline:
        return Entry("baseline")
    found = a.comparisons.get((cell, label))
    if found is None or not found.n:
        return dash("no pair of completed runs here")
    return interval_entry(a, found, a.outcomes[cell, label].paired_keys)
