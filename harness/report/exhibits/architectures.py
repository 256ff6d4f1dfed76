"""*A Comprehensive Review* (Elharrouss et al., 2025), table 6 and section 3.3: does the architecture change which loss
is best?
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any, NamedTuple

from scipy import stats as scipy_stats

from harness.analysis.cells import Analysis, Cell
from harness.analysis.stats import Comparison
from harness.report.exhibits import drawings
from harness.report.items import Column, Entry, Figure, Item, Prose, Row, Section, Table, Tone
from harness.report.sections.common import cell_filters, dash, loss_entry, loss_filters
from harness.text import count, p_value, slug

WORDS: dict[str, tuple[str, Tone]] = {
    "better": ("gains more on the second", "better"),
    "worse": ("gains less on the second", "worse"),
    "equivalent": ("the same on both", "equivalent"),
    "not decidable": ("not decidable", "undecided"),
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
        f"{a.baseline} on one architecture minus that on the other, seed by seed. The losses of one comparison share "
        "an error rate of 5 % (Holm).",
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
    return Section("exhibit-architectures", "The review's table 6: does the architecture matter?", tuple(items))


def interactions(a: Analysis, pair: CellPair) -> dict[str, Comparison]:
    """Return the interaction of every loss: its difference from the baseline on the second model minus that on the
    first, over the seeds that both completed.
    """
    differences = {}
    for label in a.challengers:
        sides = [a.outcomes.get((cell, label)) for cell in pair]
        if None in sides:
            continue
        first, second = (dict(zip(side.seeds, side.differences, strict=True)) for side in sides if side is not None)
        differences[label] = [second[seed] - first[seed] for seed in first if seed in second]
    return a.family(differences)


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
    leads = f"{a.display(best[0])} has the best mean on both" if best[0] == best[1] else (
        f"{a.display(best[0])} has the best mean on {pair.first.model}, {a.display(best[1])} on {pair.second.model}"
    )  # fmt: skip
    return (
        f"{pair.title}: {leads}; {agree} over {count(len(both), 'loss', 'losses')}; the gain of "
        f"{count(depends, 'loss', 'losses')} of {len(found)} depends significantly on the architecture."
    )


def _table(a: Analysis, pair: CellPair) -> Table:
    unit = f" ({a.metric.difference_unit})" if a.metric.difference_unit else ""
    columns = (
        Column("loss", "loss"),
        Column("first", f"{pair.first.model}{unit}", "number", f"difference from {a.baseline} there"),
        Column("second", f"{pair.second.model}{unit}", "number", f"difference from {a.baseline} there"),
        Column("interaction", f"second less first{unit}", "number", "with its 95 % interval over seeds"),
        Column("n", "n", "number", "seeds that both completed"),
        Column("p_holm", "p (Holm)", "number"),
        Column("verdict", "does it differ?"),
    )
    found = interactions(a, pair)
    order = sorted(found, key=lambda label: -abs(found[label].difference) if found[label].n else math.inf)
    rows = tuple(_row(a, pair, label, found[label]) for label in order)
    caption = (
        f"{pair.title}: what each loss gains on {a.baseline}, on {pair.first.model} and on {pair.second.model}. The "
        f"same on both: the interaction lies within the margin of {a.metric.with_unit(a.margin)}."
    )
    return Table(f"architectures-{slug(pair.title)}-{slug(pair.second.model)}",
                 f"{pair.first.model} and {pair.second.model}, {pair.title}", columns, rows, caption)  # fmt: skip


def _row(a: Analysis, pair: CellPair, label: str, found: Comparison) -> Row:
    if not found.n:
        return Row((loss_entry(a, label), *(dash("no seed completed on both"),) * 6), filters=loss_filters(a, label))
    sides = [
        Entry(a.metric.difference(c), c.difference, runs=a.outcomes[cell, label].paired_keys)
        for cell in pair
        for c in (a.comparisons[cell, label],)
    ]
    word, tone = WORDS[found.verdict]
    needed = f"about {found.seeds_needed:,} seeds would decide" if found.seeds_needed else ""
    keys = tuple(key for cell in pair for key in a.outcomes[cell, label].paired_keys)
    entries = (
        loss_entry(a, label), *sides, Entry(a.metric.difference(found), found.difference, runs=keys, tone=tone),
        Entry(str(found.n), found.n), Entry(p_value(found.p_holm), found.p_holm), Entry(word, note=needed, tone=tone),
    )  # fmt: skip
    return Row(entries, filters=(*cell_filters(a, *(cell.values for cell in pair)), *loss_filters(a, label)))


def _figure(a: Analysis, names: tuple[str, str], pairs: list[CellPair]) -> Figure:
    panels = {}
    for pair in pairs:
        found = interactions(a, pair)
        panels[pair.title] = [
            (a.display(label), *(a.metric.scale * a.comparisons[cell, label].difference for cell in pair), c.verdict)
            for label, c in found.items()
            if c.n
        ]
    axis = f"difference from {a.baseline}" + (f" ({a.metric.difference_unit})" if a.metric.difference_unit else "")
    caption = (
        f"Each line is a loss, from its difference from {a.baseline} on {names[0]} to that on {names[1]}; level lines "
        "mean that the architecture does not matter. Bold and named where it is significant: blue gains more on "
        "the second, orange less."
    )
    alt = caption + " " + " ".join(
        f"{title}: " + "; ".join(f"{label} {x:+.2f} to {y:+.2f}" for label, x, y, _ in lines) + "."
        for title, lines in panels.items()
    )  # fmt: skip
    draw = functools.partial(drawings.slopes, panels, names, axis)
    return Figure(f"architectures-{slug(names[0])}-{slug(names[1])}", f"{names[0]} and {names[1]}", caption, alt, draw,
                  wide=len(pairs) > 1)  # fmt: skip
