"""Every number behind the verdicts: per cell, and over all cells."""

from __future__ import annotations

import math
from dataclasses import replace

from harness.analysis.cells import Across, Analysis, Cell, Outcome
from harness.analysis.stats import Comparison
from harness.report.figures import limit
from harness.report.items import Column, Entry, Item, Prose, Row, Scale, Section, Table
from harness.report.sections.common import (
    SCOPES,
    TONES,
    cell_filters,
    dash,
    interval_entry,
    looking,
    loss_entry,
    loss_filters,
    number_entry,
    reason,
    remarks,
    scopes,
    simultaneous,
    verdict_entry,
)
from harness.text import DASH, count, joined, number, p_value, slug

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
    """Return how verdicts are reached, and which comparisons are corrected together."""
    n = len(a.challengers)
    text = (
        f"Each loss is compared with {a.reference} seed by seed: equal seeds share initial weights, batches and "
        f"augmentations. Differences stand with {simultaneous(n)}, over {scopes(a.comparisons.values())}"
        + (f" (Bonferroni: each at level 1 - 0.05 / {n})" if n > 1 else "")
        + "; cells are not corrected for each other. The verdict is read off the interval: better or worse where it "
        "excludes 0"
    )
    if a.margin:
        text += (
            f", equivalent where it lies within ±{a.metric.with_unit(a.margin)}, the margin declared before the runs "
            "(also where it excludes 0)"
        )
    text += (
        "; withheld where something other than the number of seeds stands in its way, named in the note of the "
        "verdict. Runs that did not learn are left out, unless most runs of a loss do not; Failures has their rates, "
        "and the means with them. "
        "The seeds needed to decide assume the observed difference and spread: a rough guide where n is small. "
        f"{looking(a)}"
    )
    if a.across:
        text += (
            "Over all cells a loss is better, worse or equivalent only if it is so in each of them; where cells "
            "contradict each other it depends on what is named. The mean over cells is for reading, and has no verdict."
        )
    return text.strip()


def scale_of(a: Analysis, compared: list[Comparison]) -> Scale:
    """Return the common axis of a column of differences."""
    ends = [max(abs(c.low), abs(c.high)) if math.isfinite(c.low) else abs(c.difference) for c in compared]
    half = limit(ends, a.margin)
    return Scale(-half, half, a.margin, a.metric.number(-half), a.metric.number(half, sign=True))


def _columns(a: Analysis, compared: list[Comparison]) -> tuple[Column, ...]:
    unit = f" ({a.metric.unit})" if a.metric.unit else ""
    difference_unit = f" ({a.metric.difference_unit})" if a.metric.difference_unit else ""
    family = max((c.family for c in compared), default=len(a.challengers))
    together = simultaneous(family, "losses of this cell")
    return (
        Column("loss", "loss"),
        Column("verdict", "verdict", note=f"against {a.reference}"),
        Column("because", "because", note="why the verdict is withheld", detail=True),
        Column("mean", f"{a.metric.title}{unit}", "number", "mean over completed runs ± half of its 95 % t interval"),
        Column(
            "difference",
            f"difference{difference_unit}",
            "number",
            f"from {a.reference}, with {together}, over {scopes(compared)}; the shaded band is the margin",
            scale_of(a, compared),
        ),
        *(
            [Column("seeds", "on these test items", "number", f"{together}, over seeds alone, on these test items")]
            if any(c.scope == "new items" for c in compared)
            else []
        ),
        Column("scope", "interval over", detail=True),
        Column("comparisons", "comparisons", "number", "whose intervals hold together", detail=True),
        Column("n", "n", "number", "pairs of runs compared; for the baseline, completed runs"),
        Column("improved", "ahead", "number", "share of pairs in which it did better, ties counting half"),
        Column("effect", "d", "number", "difference in standard deviations of the differences", detail=True),
        Column("p", "p", "number", f"of no difference, times {family} (the losses of this cell)"),
        Column(
            "seeds_needed", "seeds to decide", "number", "for 80 % power, if difference and spread stay as observed"
        ),
    )


def _compared(a: Analysis, found: Comparison | None, outcome: Outcome, with_items: bool) -> list[Entry]:
    """Return the entries from verdict to seeds needed."""
    values, keys, paired = outcome.values, outcome.keys, outcome.paired_keys
    mean = Entry(a.metric.interval(values), _finite(values.mean), _finite(values.low), _finite(values.high), keys)
    if found is None:
        n = Entry(str(values.n), values.n, runs=keys)
        nothing = [Entry(DASH)] * (3 + with_items)
        return [Entry("baseline"), Entry(""), mean, *nothing, n, *[Entry(DASH)] * 4]
    narrow = []
    if with_items:
        shown = found.scope == "new items" and found.n > 1
        text = f"[{a.metric.number(found.seeds_low, sign=True)}, {a.metric.number(found.seeds_high, sign=True)}]"
        ends = (_finite(found.seeds_low), _finite(found.seeds_high)) if shown else (None, None)
        narrow = [Entry(text if shown else DASH, _finite(found.difference) if shown else None, *ends)]
    needed = dash(reason(found)) if found.seeds_needed is None else number_entry(found.seeds_needed, 0)
    share, low, high = map(_finite, (found.improved, found.improved_low, found.improved_high))
    ahead = Entry(f"{100 * found.improved:.0f} %" if found.n else DASH, share, low, high)
    effect = Entry(number(found.effect, 2, sign=True), _finite(found.effect))
    n = Entry(str(found.n), found.n, runs=paired)
    about = [Entry(SCOPES[found.scope]), Entry(str(found.family), found.family)]
    p = Entry(p_value(found.p), _finite(found.p))
    difference = interval_entry(a, found, paired)
    because = Entry("; ".join(found.because))
    return [verdict_entry(found), because, mean, difference, *narrow, *about, n, ahead, effect, p, needed]


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _order(a: Analysis, value: float) -> float:
    return math.inf if not math.isfinite(value) else -value if a.metric.higher_is_better else value


def _cell_table(a: Analysis, cell: Cell) -> Table:
    outcomes = [a.outcomes[cell, label] for label in a.labels if (cell, label) in a.outcomes]
    outcomes.sort(key=lambda outcome: _order(a, outcome.values.mean))
    compared = [a.comparisons[cell, o.label] for o in outcomes if (cell, o.label) in a.comparisons]
    columns = (
        *_columns(a, compared),
        Column("kind", "family, evidence"),
        Column("family", "family", detail=True),
        Column("evidence", "evidence", detail=True),
        Column("remarks", "remarks"),
    )
    family = max((c.family for c in compared), default=0)
    caption = f"Losses on {cell.title}, best mean first, with {simultaneous(family, 'losses of this cell')}."
    return Table(
        f"results-{slug(cell.title)}",
        cell.title,
        columns,
        tuple(_cell_row(a, outcome, any(c.scope == "new items" for c in compared)) for outcome in outcomes),
        caption,
    )


def _cell_row(a: Analysis, outcome: Outcome, with_items: bool) -> Row:
    found = a.comparisons.get((outcome.cell, outcome.label))
    known = a.loss_facts[outcome.label]
    entries = _compared(a, found, outcome, with_items)
    kind = ", ".join(part for part in (known.family, known.evidence) if part)
    rest = (Entry(kind), Entry(known.family), Entry(known.evidence), Entry("; ".join(remarks(outcome))))
    filters = (*cell_filters(a, outcome.cell.values), *loss_filters(a, outcome.label))
    return Row((loss_entry(a, outcome.label), *entries, *rest), reference=outcome.label == a.baseline, filters=filters)


def _across_table(a: Analysis) -> Table:
    found = sorted(a.across.values(), key=lambda across: _order(a, across.values.mean))
    unit = f" ({a.metric.difference_unit})" if a.metric.difference_unit else ""
    columns = (
        Column("loss", "loss"),
        Column("verdict", "in every cell", note="the verdict that all cells share"),
        Column("depends_on", "depends on"),
        Column("difference", f"mean difference{unit}", "number", "over cells, with a simultaneous 95 % interval"),
        Column("least", f"least{unit}", "number", "difference of a cell"),
        Column("greatest", f"greatest{unit}", "number", "difference of a cell"),
        Column("p", "p of one effect", "number", "Welch's test that the differences of all cells are equal"),
        Column("cells", "cells", "number"),
    )
    caption = (
        f"Over {count(len(a.cells), 'cell')}, best mean first. The mean is for reading: where the effects of cells "
        "differ it describes none of them, and it has no verdict."
    )
    rows = tuple(_across_row(a, across) for across in found)
    return Table("results-all-cells", "Over all cells", columns, rows, caption)


def _across_row(a: Analysis, across: Across) -> Row:
    metric = a.metric
    mean = metric.number(across.difference, sign=True)
    if math.isfinite(across.low):
        mean += f" [{metric.number(across.low, sign=True)}, {metric.number(across.high, sign=True)}]"
    spread = across.heterogeneity
    ends = (Entry(metric.number(end, sign=True), _finite(end)) for end in (spread.least, spread.greatest))
    verdict = Entry(across.verdict, tone=TONES.get(across.verdict, ""))
    because = dict.fromkeys(reason for c in across.compared.values() for reason in c.because)
    if across.verdict == "withheld":
        verdict = replace(verdict, note=f"because {'; '.join(because)}")
    difference = Entry(
        mean, _finite(across.difference), _finite(across.low), _finite(across.high), across.keys,
        "the effects of cells differ: no single number describes them" if spread.shown else "",
    )  # fmt: skip
    entries = (
        loss_entry(a, across.label), verdict, Entry(joined(across.depends_on, "or") if across.depends_on else ""),
        difference, *ends, Entry(p_value(spread.p), _finite(spread.p)), number_entry(across.cells, 0),
    )  # fmt: skip
    return Row(entries, filters=loss_filters(a, across.label))
