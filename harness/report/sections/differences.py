"""Differences from the baseline at a glance: one forest plot per model."""

from __future__ import annotations

import functools

from harness.analysis.cells import Analysis, Cell
from harness.report import figures
from harness.report.figures import Bar
from harness.report.items import Figure, Item, Prose, Section
from harness.report.sections.common import cell_filters, scopes, simultaneous
from harness.report.sections.results import scale_of
from harness.text import slug


def section(a: Analysis) -> Section:
    """Return a forest plot per model, its cells below each other."""
    items: list[Item] = []
    half = scale_of(a, list(a.comparisons.values())).high * a.metric.scale  # one axis for all models
    for model in dict.fromkeys(cell.model for cell in a.cells):
        panels = {cell.title: bars for cell in a.cells if cell.model == model and (bars := _bars(a, cell))}
        if panels:
            items.append(_figure(a, model, panels, half))
    if not items:
        items.append(Prose(("No pair of completed runs yet, so there are no differences to draw.",)))
    return Section("differences", f"Difference from {a.reference}", tuple(items))


def _bars(a: Analysis, cell: Cell) -> list[Bar]:
    scale, bars = a.metric.scale, []
    for label in a.challengers:
        found = a.comparisons.get((cell, label))
        if found and found.n:
            values = (scale * value for value in (found.difference, found.low, found.high))
            text = a.metric.number(found.difference, sign=True)
            seeds = tuple(scale * value for value in a.outcomes[cell, label].differences)
            bars.append(Bar(a.name(label), *values, verdict=found.verdict, text=text, seeds=seeds))
    sign = 1 if a.metric.higher_is_better else -1
    return sorted(bars, key=lambda bar: -sign * bar.value)


def _figure(a: Analysis, model: str, panels: dict[str, list[Bar]], half: float) -> Figure:
    unit = f" ({a.metric.difference_unit})" if a.metric.difference_unit else ""
    axis = f"difference in {a.metric.title}{unit}"
    caption = (
        f"{model}: mean paired difference from {a.reference} with {simultaneous(len(a.challengers))}, over "
        f"{scopes(a.comparisons.values())}, best first. Triangle up: better; down: worse; square: equivalent; open "
        "circle: not decidable; open diamond and broken line: verdict withheld; dots below: single seeds. "
        + ("The band is the margin of equivalence. " if a.margin else "")
        + "A pointer at the edge carries the value of a loss too far away to draw."
    )
    alt = f"{axis} on {model}. " + " ".join(
        f"{title}: " + "; ".join(f"{bar.label} {bar.text}, {bar.verdict}" for bar in bars) + "."
        for title, bars in panels.items()
    )
    draw = functools.partial(figures.forest, panels, a.margin * a.metric.scale, half, axis)
    filters = cell_filters(a, *(cell.values for cell in a.cells if cell.title in panels))
    return Figure(f"differences-{slug(model)}", model, caption, alt, draw, filters=filters)
