"""Every number behind the verdicts: per cell, and over all cells."""

from __future__ import annotations

import math

from harness.analysis import stats
from harness.analysis.cells import Across, Analysis, Cell, Outcome
from harness.analysis.stats import Comparison, Interval
from harness.report.figures import limit
from harness.report.items import Column, Entry, Item, Prose, Row, Scale, Section, Table
from harness.report.sections.common import (
    cell_filters,
    dash,
    loss_entry,
    loss_filters,
    number_entry,
    reason,
    remarks,
    verdict_entry,
)
from harness.text import DASH, count, number, p_value, slug

EVIDENCE = (
    "Evidence for a loss's definition: V, it agrees with an independent implementation; H, derived by hand from the "
    "standard definition; M, its settings are from general knowledge of the paper; R, a reconstruction of an "
    "incompletely published loss."
)


def section(a: Analysis) -> Section:
    """Return one table of results per cell, and one over all cells if there are several."""
    items: list[Item] = [Prose((method(a), EVIDENCE))]
    if a.across:
        items.append(_across_table(a))
    items += [_cell_table(a, cell) for cell in a.cells]
    return Section("results", "Results", tuple(items))


def method(a: Analysis) -> str:
    """Return how verdicts are reached and which comparisons share a correction."""
    text = (
        f"Each loss is compared with {a.baseline} seed by seed: equal seeds share initial weights, batches and "
        "augmentations. "
        "Intervals are 95 % Student t intervals over seeds, for differences over pairs of runs. "
        f"Within each cell, the comparisons with {a.baseline} ({count(len(a.challengers), 'loss', 'losses')}) share an "
        "error rate of 5 % by Holm's correction; cells are not corrected for each other. "
    )
    if a.margin:
        text += (
            f"Equivalent means that two one-sided tests, Holm-corrected likewise, place the difference within "
            f"±{a.metric.with_unit(a.margin)}, the margin declared before the runs; a loss that is both equivalent and "
            "better, or worse, is called equivalent. "
        )
    text += "The seeds needed to decide assume the observed difference and spread: a rough guide where n is small. "
    if a.across:
        text += (
            "Over all cells, the mean over seeds and cells is tested by flipping the signs of whole seeds, with a Holm "
            "correction of its own over the losses."
        )
    return text.strip()


def scale_of(a: Analysis, compared: list[Comparison]) -> Scale:
    """Return the common axis of a column of differences."""
    ends = [max(abs(c.low), abs(c.high)) if math.isfinite(c.low) else abs(c.difference) for c in compared]
    half = limit(ends, a.margin)
    return Scale(-half, half, a.margin, a.metric.number(-half), a.metric.number(half, sign=True))


def _columns(a: Analysis, compared: list[Comparison], n_title: str, n_note: str) -> tuple[Column, ...]:
    unit = f" ({a.metric.unit})" if a.metric.unit else ""
    difference_unit = f" ({a.metric.difference_unit})" if a.metric.difference_unit else ""
    return (
        Column("loss", "loss"),
        Column("verdict", "verdict", note=f"against {a.baseline}"),
        Column("mean", f"{a.metric.title}{unit}", "number", "mean over completed runs ± half of the 95 % t interval"),
        Column(
            "difference",
            f"difference{difference_unit}",
            "number",
            f"from {a.baseline}, with its 95 % t interval; the shaded band is the margin of equivalence",
            scale_of(a, compared),
        ),
        Column("n", n_title, "number", n_note),
        Column("improved", "ahead", "number", "share of pairs in which it did better, ties counting half"),
        Column("effect", "d", "number", "difference in standard deviations of the differences", detail=True),
        Column("p", "p", "number", "of the difference, before correction", detail=True),
        Column("p_holm", "p (Holm)", "number", "of the difference, corrected over the losses"),
        Column("p_equivalent", "p equiv.", "number", "of two one-sided tests, Holm-corrected: small means equivalent"),
        Column(
            "seeds_needed", "seeds to decide", "number", "for 80 % power, if difference and spread stay as observed"
        ),
    )


def _compared(
    a: Analysis, found: Comparison | None, values: Interval, keys: tuple[str, ...], paired: tuple[str, ...]
) -> list[Entry]:
    """Return the entries from verdict to seeds needed."""
    mean = Entry(a.metric.interval(values), _finite(values.mean), _finite(values.low), _finite(values.high), keys)
    if found is None:
        n = Entry(str(values.n), values.n, runs=keys)
        return [Entry("baseline"), mean, Entry(DASH), n, *(Entry(DASH) for _ in range(6))]
    difference = Entry(
        a.metric.difference(found), _finite(found.difference), _finite(found.low), _finite(found.high), paired,
        tone=verdict_entry(found).tone,
    )  # fmt: skip
    ps = [Entry(p_value(p), _finite(p)) for p in (found.p, found.p_holm, found.p_equivalent_holm)]
    needed = dash(reason(found)) if found.seeds_needed is None else number_entry(found.seeds_needed, 0)
    share, low, high = map(_finite, (found.improved, found.improved_low, found.improved_high))
    ahead = Entry(f"{100 * found.improved:.0f} %" if found.n else DASH, share, low, high)
    effect = Entry(number(found.effect, 2, sign=True), _finite(found.effect))
    n = Entry(str(found.n), found.n, runs=paired)
    return [verdict_entry(found), mean, difference, n, ahead, effect, *ps, needed]


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _order(a: Analysis, value: float) -> float:
    return math.inf if not math.isfinite(value) else -value if a.metric.higher_is_better else value


def _cell_table(a: Analysis, cell: Cell) -> Table:
    outcomes = [a.outcomes[cell, label] for label in a.labels if (cell, label) in a.outcomes]
    outcomes.sort(key=lambda outcome: _order(a, outcome.values.mean))
    compared = [a.comparisons[cell, o.label] for o in outcomes if (cell, o.label) in a.comparisons]
    columns = (
        *_columns(a, compared, "n", "pairs of runs compared; for the baseline, completed runs"),
        Column("kind", "family, evidence"),
        Column("family", "family", detail=True),
        Column("evidence", "evidence", detail=True),
        Column("remarks", "remarks"),
    )
    caption = f"Losses on {cell.title}, best mean first."
    return Table(
        f"results-{slug(cell.title)}",
        cell.title,
        columns,
        tuple(_cell_row(a, outcome) for outcome in outcomes),
        caption,
    )


def _cell_row(a: Analysis, outcome: Outcome) -> Row:
    found = a.comparisons.get((outcome.cell, outcome.label))
    known = a.loss_facts[outcome.label]
    entries = _compared(a, found, outcome.values, outcome.keys, outcome.paired_keys)
    kind = ", ".join(part for part in (known.family, known.evidence) if part)
    rest = (Entry(kind), Entry(known.family), Entry(known.evidence), Entry("; ".join(remarks(outcome))))
    filters = (*cell_filters(a, outcome.cell.values), *loss_filters(a, outcome.label))
    return Row((loss_entry(a, outcome.label), *entries, *rest), reference=outcome.label == a.baseline, filters=filters)


def _across_table(a: Analysis) -> Table:
    found = sorted(a.across.values(), key=lambda across: _order(a, across.values.mean))
    compared = [across.comparison for across in found if across.comparison]
    columns = (
        *_columns(a, compared, "seeds", "seeds completed, by the loss and the baseline, in every cell of the loss"),
        Column("cells", "cells", "number"),
        Column("remarks", "remarks"),
    )
    seeds = max((across.seeds for across in found), default=0)
    caption = (
        f"Means over seeds and {count(len(a.cells), 'cell')}, best first. p by sign flips of whole seeds; with "
        f"{count(seeds, 'seed')} it cannot go below {stats.least_sign_flip_p(seeds):.3g}."
    )
    rows = tuple(_across_row(a, across) for across in found)
    return Table("results-all-cells", "Over all cells", columns, rows, caption)


def _across_row(a: Analysis, across: Across) -> Row:
    left_out = f"{count(across.left_out, 'seed')} left out as incomplete" if across.left_out else ""
    entries = _compared(a, across.comparison, across.values, across.keys, across.keys)
    rest = (number_entry(across.cells, 0), Entry(left_out))
    is_baseline = across.label == a.baseline
    return Row(
        (loss_entry(a, across.label), *entries, *rest), reference=is_baseline, filters=loss_filters(a, across.label)
    )
