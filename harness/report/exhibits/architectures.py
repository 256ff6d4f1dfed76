"""*A Comprehensive Review* (Elharrouss et al., 2025), table 6 and section 3.3: does the architecture change which loss
is best?
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from scipy import stats as scipy_stats

from harness.analysis import stats
from harness.analysis.cells import Analysis, Cell, Outcome
from harness.analysis.estimates import Items
from harness.analysis.stats import Comparison
from harness.report.exhibits import drawings
from harness.report.items import Column, Entry, Figure, Item, Prose, Row, Section, Table, Tone
from harness.report.sections.common import (
    cell_filters,
    dash,
    interval_entry,
    loss_entry,
    loss_filters,
    reason,
    simultaneous,
)
from harness.text import count, p_value, slug

WORDS: dict[str, tuple[str, Tone]] = {
    "better": ("gains more on the second", "better"),
    "worse": ("gains less on the second", "worse"),
    "equivalent": ("the same on both", "equivalent"),
    "not decidable": ("not decidable", "undecided"),
    "withheld": ("withheld", "withheld"),
}


class CellPair(NamedTuple):
    """Two cells that differ in their model alone."""

    first: Cell
    second: Cell

    @property
    def title(self) -> str:
        """What the cells share."""
        return self.first.title.replace(f" · {self.first.model}", "")


def section(a: Analysis) -> Section:
    """Return, for every two models on the same data, what each loss gains on either and whether that differs."""
    pairs = [
        CellPair(x, y)
        for x, y in itertools.combinations(a.cells, 2)
        if x.model != y.model and (x.values[0], *x.values[2:]) == (y.values[0], *y.values[2:])
    ]
    intro = (
        "The review of Elharrouss et al. (2025) holds that CNNs and ViTs take the same losses, but that the effect "
        "of a loss may depend on the architecture. Measured, that is an interaction: the difference from "
        f"{a.reference} on one architecture minus that on the other, seed by seed, with simultaneous 95 % intervals "
        "over the losses of one comparison. It is withheld where a verdict of either architecture is.",
    )
    if not pairs:
        missing = (
            f"This study has one architecture on each data set: python -m harness study={a.study.name} axes.model=[a,b]"
        )
        return Section("exhibit-architectures", "CNN against ViT", (Prose((*intro, f"{missing}.")),))
    items: list[Item] = [Prose((*intro, *(_sentence(a, pair) for pair in pairs)))]
    items += [_table(a, pair) for pair in pairs]
    by_models: dict[tuple[str, str], list[CellPair]] = {}
    for pair in pairs:
        by_models.setdefault((pair.first.model, pair.second.model), []).append(pair)
    items += [_figure(a, names, found) for names, found in by_models.items()]
    return Section(
        "exhibit-architectures", "Elharrouss et al. (2025), table 6: does the architecture matter?", tuple(items)
    )


@functools.lru_cache(maxsize=8)  # sentence, table and figure ask
def interactions(a: Analysis, pair: CellPair) -> dict[str, Comparison]:
    """Return the interaction of every loss: its difference from the baseline on the second model minus that on the
    first, over the seeds that both completed.
    """
    differences, items = {}, {}
    for label in a.challengers:
        sides = [a.outcomes[cell, label] for cell in pair if (cell, label) in a.outcomes]
        if len(sides) < 2:
            continue
        first, second = (dict(zip(side.seeds, side.differences, strict=True)) for side in sides)
        shared = [seed for seed in first if seed in second]
        differences[label] = [second[seed] - first[seed] for seed in shared]
        if known := _items(a, sides, shared):
            items[label] = known
    scales = [a.scale(cell) for cell in pair]
    scale = replace(
        scales[0],
        low=scales[0].low + scales[1].low,
        high=scales[0].high + scales[1].high,
        grain=math.hypot(scales[0].grain, scales[1].grain),
    )
    found = stats.compare_family(differences, scale, items=items, sequential=a.sequential)
    return {
        label: c.withheld(tuple(dict.fromkeys(why for cell in pair for why in a.comparisons[cell, label].because)))
        for label, c in found.items()
    }


def _items(a: Analysis, sides: Sequence[Outcome], shared: Sequence[int]) -> Items | None:
    """Return the interaction on every test item, seed by seed; None where a side lacks items, or has others."""
    known = [a.item_differences(side) for side in sides]
    if known[0] is None or known[1] is None or len(shared) < 2:
        return None
    first, second = (dict(zip(side.seeds, own or (), strict=True)) for side, own in zip(sides, known, strict=True))
    if not all(np.array_equal(first[seed][0], second[seed][0]) for seed in shared):
        return None
    return [(first[seed][0], second[seed][1] - first[seed][1]) for seed in shared]


def _sentence(a: Analysis, pair: CellPair) -> str:
    found = interactions(a, pair)
    both = [
        (label, *(a.comparisons[cell, label].difference for cell in pair))
        for label in found
        if all(a.comparisons[cell, label].n for cell in pair)
    ]
    if len(both) < 2:
        return f"{pair.title}: too few losses completed on both."
    sign = 1 if a.metric.higher_is_better else -1
    best = [max([(a.baseline, 0.0, 0.0), *both], key=lambda x: sign * x[i])[0] for i in (1, 2)]
    tau: Any = scipy_stats.kendalltau([x[1] for x in both], [x[2] for x in both])
    depends = sum(c.verdict in ("better", "worse") for c in found.values())
    agree = f"Kendall's tau of the two rankings is {tau.statistic:.2f} (p {p_value(float(tau.pvalue))})"
    leads = f"{a.called(best[0])} has the best mean on both" if best[0] == best[1] else (
        f"{a.called(best[0])} has the best mean on {pair.first.model}, {a.called(best[1])} on {pair.second.model}"
    )  # fmt: skip
    return (
        f"{pair.title}: {leads}; {agree} over {count(len(both), 'loss', 'losses')}; the gain of "
        f"{count(depends, 'loss', 'losses')} of {len(found)} is shown to depend on the architecture."
    )


def _table(a: Analysis, pair: CellPair) -> Table:
    unit = f" ({a.metric.difference_unit})" if a.metric.difference_unit else ""
    columns = (
        Column("loss", "loss"),
        Column("first", f"{pair.first.model}{unit}", "number", f"difference from {a.reference} there"),
        Column("second", f"{pair.second.model}{unit}", "number", f"difference from {a.reference} there"),
        Column(
            "interaction",
            f"second less first{unit}",
            "number",
            f"with {simultaneous(len(interactions(a, pair)), 'losses')}",
        ),
        Column("n", "n", "number", "seeds that both completed"),
        Column("p", "p", "number", "times the number of losses"),
        Column("verdict", "does it differ?"),
    )
    found = interactions(a, pair)
    order = sorted(found, key=lambda label: -abs(found[label].difference) if found[label].n else math.inf)
    rows = tuple(_row(a, pair, label, found[label]) for label in order)
    caption = (
        f"{pair.title}: what each loss gains on {a.reference}, on {pair.first.model} and on {pair.second.model}. The "
        f"same on both: the interaction lies within the margin of {a.metric.with_unit(a.margin)}."
    )
    return Table(f"architectures-{slug(pair.title)}-{slug(pair.second.model)}",
                 f"{pair.first.model} and {pair.second.model}, {pair.title}", columns, rows, caption)  # fmt: skip


def _row(a: Analysis, pair: CellPair, label: str, found: Comparison) -> Row:
    if not found.n:
        return Row((loss_entry(a, label), *(dash("no seed completed on both"),) * 6), filters=loss_filters(a, label))
    sides = [
        interval_entry(a, c, a.outcomes[cell, label].paired_keys)
        for cell in pair
        for c in (a.comparisons[cell, label],)
    ]
    word, tone = WORDS[found.verdict]
    keys = tuple(key for cell in pair for key in a.outcomes[cell, label].paired_keys)
    entries = (
        loss_entry(a, label), *sides, replace(interval_entry(a, found, keys), tone=tone),
        Entry(str(found.n), found.n), Entry(p_value(found.p), found.p), Entry(word, note=reason(found), tone=tone),
    )  # fmt: skip
    return Row(entries, filters=(*cell_filters(a, *(cell.values for cell in pair)), *loss_filters(a, label)))


def _figure(a: Analysis, names: tuple[str, str], pairs: list[CellPair]) -> Figure:
    panels = {}
    for pair in pairs:
        found = interactions(a, pair)
        panels[pair.title] = [
            (a.name(label), *(a.metric.scale * a.comparisons[cell, label].difference for cell in pair), c.verdict)
            for label, c in found.items()
            if c.n
        ]
    axis = f"difference from {a.reference}" + (f" ({a.metric.difference_unit})" if a.metric.difference_unit else "")
    caption = (
        f"Each line is a loss, from its difference from {a.reference} on {names[0]} to that on {names[1]}; level lines "
        "mean that the architecture does not matter. Bold and named where the interval excludes 0: blue gains more on "
        "the second, orange less."
    )
    alt = caption + " " + " ".join(
        f"{title}: " + "; ".join(f"{label} {x:+.2f} to {y:+.2f}" for label, x, y, _ in lines) + "."
        for title, lines in panels.items()
    )  # fmt: skip
    draw = functools.partial(drawings.slopes, panels, names, axis)
    return Figure(f"architectures-{slug(names[0])}-{slug(names[1])}", f"{names[0]} and {names[1]}", caption, alt, draw,
                  wide=len(pairs) > 1)  # fmt: skip
