"""The verdicts, in plain sentences, ahead of the numbers."""

from __future__ import annotations

import math

from harness.analysis import stats
from harness.analysis.cells import Analysis, Cell
from harness.report.items import Column, Entry, Item, Notice, Point, Points, Prose, Row, Section, Table
from harness.report.sections import controls
from harness.report.sections.common import TONES, dash, loss_entry, loss_filters, reason
from harness.text import count, joined

FEW_SEEDS = 5


def section(a: Analysis) -> Section:
    """Return which losses are better, worse, equivalent or not decidable against the baseline."""
    items: list[Item] = [Prose((lead(a),)), *notices(a)]
    if a.comparisons:
        items.append(Points(tuple(_points(a))))
        if a.across:
            items.append(Prose((over_all_cells(a),)))
        if len(a.cells) > 2:
            items.append(_matrix(a))
    return Section("verdicts", "Verdicts", tuple(items))


def lead(a: Analysis) -> str:
    """Return what was compared and, where no difference could be decided, that."""
    compared = f"{count(len(a.challengers), 'loss', 'losses')} against {a.display(a.baseline)}"
    where = (
        f"{a.cells[0].title}" if len(a.cells) == 1 else f"{len(a.cells)} cells ({'; '.join(c.title for c in a.cells)})"
    )
    text = f"Compared: {compared}, in {a.metric.title}, seed by seed on {where or 'no cell'}. "
    text += f"Mean differences are in {a.metric.difference_unit or a.metric.title}, with n pairs of runs"
    text += f"; differences within ±{a.metric.with_unit(a.margin)} count as equivalent. " if a.margin else ". "
    decided = {c.verdict for c in a.comparisons.values()} - {"not decidable"}
    if a.comparisons and not decided:
        text += (
            f"No difference from {a.baseline} could be decided; beside each loss is the number of seeds that would "
            "decide it."
        )
    return text.strip()


def notices(a: Analysis) -> list[Notice]:
    """Return what qualifies every verdict: controls that failed, few seeds, runs set aside or missing."""
    found = [Notice(text, "alarm") for text in controls.alarms(a)]
    undecided = [c for c in controls.controls(a) if c.status in ("undecided", "not run")]
    if undecided:
        which = "; ".join(f"{c.name} on {c.cell.short}: {c.detail}" for c in undecided)
        found.append(Notice(f"Controls without a result: {which}."))
    n = max((c.n for c in a.comparisons.values()), default=0)
    if n < FEW_SEEDS:
        found.append(
            Notice(
                f"No verdict rests on more than {count(n, 'pair')} of runs. With so few, intervals are wide and only "
                "large differences can be detected: take what follows as a first look."
            )
        )
    if len(a.set_aside):
        found.append(
            Notice(
                f"Set aside and not compared: {count(len(a.set_aside), 'run')} on another device type or major version "
                "of torch, listed under Setting."
            )
        )
    if unfinished := sum(outcome.failed + outcome.missing for outcome in a.outcomes.values()):
        planned = count(len(a.main), "planned run")
        found.append(Notice(f"{unfinished} of {planned} failed or are missing; they are listed under Failures."))
    return found


def _points(a: Analysis) -> list[Point]:
    terms = {
        "better": f"Better than {a.baseline}",
        "worse": f"Worse than {a.baseline}",
        "equivalent": f"Equivalent within ±{a.metric.with_unit(a.margin)}",
        "not decidable": "Not decidable with these seeds",
    }
    points = []
    for verdict, term in terms.items():
        where = {
            label: [cell for cell in a.cells if (c := a.comparisons.get((cell, label))) and c.verdict == verdict]
            for label in a.challengers
        }
        lines = [(a.display(label), _in_cells(a, cells, label, verdict)) for label, cells in where.items() if cells]
        filters = (loss_filters(a, label) for label, cells in where.items() if cells)
        points.append(Point(term, TONES[verdict], tuple(lines), tuple(filters)))
    return points


def _in_cells(a: Analysis, cells: list[Cell], label: str, verdict: str) -> str:
    if verdict == "not decidable" and len(a.cells) > 2:  # the table below lists the many undecided cells
        diverged = sum(a.outcomes[cell, label].diverged for cell in cells)
        extent = f"in {'all' if len(cells) == len(a.cells) else f'{len(cells)} of'} {len(a.cells)} cells"
        return f"{extent}, {count(diverged, 'run')} diverged" if diverged else extent
    return "; ".join(_in_cell(a, cell, label) for cell in cells)


def _in_cell(a: Analysis, cell: Cell, label: str) -> str:
    found, outcome = a.comparisons[cell, label], a.outcomes[cell, label]
    where = [cell.short] if len(a.cells) > 1 else []
    where += [a.metric.number(found.difference, sign=True)] if found.n else []
    details = [f"n = {found.n}"]
    if outcome.diverged:
        details.append(
            f"{outcome.diverged} of {outcome.planned} diverged" + (", the others compared" if found.n else "")
        )
    if found.seeds_needed:
        details.append(f"about {found.seeds_needed:,} needed")
    elif (why := reason(found)) and not outcome.diverged:
        details.append(why)
    return f"{' '.join(where)} ({', '.join(details)})".strip()


def _matrix(a: Analysis) -> Table:
    rows = []
    mean = {
        label: sum(found) / len(found) * (-1 if a.metric.higher_is_better else 1)
        for label in a.challengers
        if (found := [c.difference for cell in a.cells if (c := a.comparisons.get((cell, label))) and c.n])
    }
    for label in sorted(a.challengers, key=lambda label: mean.get(label, math.inf)):
        entries = [loss_entry(a, label)]
        for cell in a.cells:
            found = a.comparisons.get((cell, label))
            if found is None:
                entries.append(dash("not planned here"))
                continue
            text = f"{found.verdict} {a.metric.number(found.difference, sign=True)}" if found.n else found.verdict
            keys = a.outcomes[cell, label].paired_keys
            tone = TONES[found.verdict]
            entries.append(Entry(text, found.difference if found.n else None, runs=keys, note=reason(found), tone=tone))
        rows.append(Row(tuple(entries), filters=loss_filters(a, label)))
    columns = [Column(f"cell_{i + 1}", cell.short, note=cell.title) for i, cell in enumerate(a.cells)]
    unit = a.metric.difference_unit or a.metric.title
    caption = f"Verdict and difference from {a.baseline} ({unit}) in every cell, best first."
    return Table("verdicts", "Verdicts by cell", (Column("loss", "loss"), *columns), tuple(rows), caption)


def over_all_cells(a: Analysis) -> str:
    """Return the verdicts over all cells together, in one paragraph."""
    by_verdict = {verdict: [] for verdict in TONES}
    for label, across in a.across.items():
        if across.comparison:
            by_verdict[across.comparison.verdict].append(a.display(label))
    seeds = max((x.seeds for x in a.across.values()), default=0)
    least = stats.least_sign_flip_p(seeds)
    if least * len(a.challengers) >= stats.ALPHA and not by_verdict["equivalent"]:
        return (
            f"Over all cells together nothing can be decided: the test flips the signs of whole seeds, and "
            f"{count(seeds, 'seed')} allow no p below {least:.3g}, too much for Holm's correction over "
            f"{count(len(a.challengers), 'loss', 'losses')}."
        )
    verdicts = [f"{verdict}: {joined(names)}" for verdict, names in by_verdict.items() if names]
    return f"Over all cells together: {'; '.join(verdicts)}."
