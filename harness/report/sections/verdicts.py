"""The verdicts, in plain sentences, ahead of the numbers."""

from __future__ import annotations

from harness.analysis import gates
from harness.analysis.cells import Across, Analysis, Cell, Outcome
from harness.analysis.controls import FEW_SEEDS
from harness.analysis.equal import equal_losses
from harness.records.study import damaged_of
from harness.report.items import Item, Notice, Point, Points, Prose, Section
from harness.report.sections.common import TONES, looking, loss_filters, reason, simultaneous, starts
from harness.text import count, joined


def section(a: Analysis) -> Section:
    """Return which losses are better, worse, equivalent or not decidable against the baseline, and which withheld."""
    items: list[Item] = [Prose((lead(a),)), *notices(a)]
    if a.comparisons:
        items.append(Points(tuple(_points(a))))
        if a.across:
            items.append(Prose(tuple(over_all_cells(a))))
    return Section("verdicts", "Verdicts", tuple(items))


def lead(a: Analysis) -> str:
    """Return what was compared and, where no difference could be decided, that."""
    settings = f" ({a.shared_settings})" if a.shared_settings else ""
    compared = f"{count(len(a.challengers), 'loss', 'losses')}{settings} against {a.reference}"
    where = (
        f"{a.cells[0].title}" if len(a.cells) == 1 else f"{len(a.cells)} cells ({'; '.join(c.title for c in a.cells)})"
    )
    text = f"Compared: {compared}, in {a.metric.title}, seed by seed on {where or 'no cell'}. "
    text += f"A verdict is read off {simultaneous(len(a.challengers))}, in {a.metric.difference_unit or 'its unit'}"
    text += f"; an interval within ±{a.metric.with_unit(a.margin)} means equivalent. " if a.margin else ". "
    found = {c.verdict for c in a.comparisons.values()}
    if found == {"withheld"}:
        text += "Every verdict is withheld; the reasons are counted below. "
    elif found and found <= {"not decidable", "withheld"}:
        text += (
            f"No difference from {a.reference} could be decided; beside each loss that more seeds would decide is how "
            "many it takes. "
        )
    return f"{text}{looking(a)}".strip()


def notices(a: Analysis) -> list[Notice]:
    """Return what qualifies every verdict: controls without a result, few seeds, runs set aside or missing."""
    found = []
    if damaged := damaged_of(a.study.name, map(str, a.study.runs["key"])):
        found.append(Notice(f"{count(len(damaged), 'file')} could not be read and left out: {' '.join(damaged)}"))
    if undecided := [c for c in a.controls if c.status in ("undecided", "not run")]:
        cells: dict[tuple[str, str], list[str]] = {}
        for each in undecided:
            cells.setdefault((each.name, each.detail), []).append(each.cell.short)
        which = "; ".join(f"{name} on {joined(at)}: {detail}" for (name, detail), at in cells.items())
        open_in = dict.fromkeys(each.cell.short for each in undecided if gates.blind(a, each.cell))
        more = f" No loss is called equivalent on {joined(open_in)} until they have one." if open_in else ""
        found.append(Notice(f"Controls without a result: {which}.{more}"))
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
    if lost := [o for o in a.outcomes.values() if o.unlearnt]:
        which = "; ".join(f"{a.called(o.label)} in {starts(o.unlearnt, o.failures.runs)}" + _where(a, o) for o in lost)
        found.append(
            Notice(
                f"Did not learn: {which}. Verdicts leave such runs out, unless they are most of a loss; their rates "
                "stand under Failures."
            )
        )
    if equal := equal_losses(a):
        which = "; ".join(
            joined(map(a.called, labels)) + (f" on {joined(cell.short for cell in cells)}" if len(a.cells) > 1 else "")
            for labels, cells in equal.items()
        )
        found.append(Notice(f"Equal runs, to the last digit with every seed: {which}. Each group is one finding."))
    return found


def _where(a: Analysis, outcome: Outcome) -> str:
    return f" on {outcome.cell.short}" if len(a.cells) > 1 else ""


def _points(a: Analysis) -> list[Point]:
    terms = {
        "better": f"Better than {a.reference}",
        "worse": f"Worse than {a.reference}",
        "equivalent": f"Equivalent within ±{a.metric.with_unit(a.margin)}",
        "not decidable": "Not decidable with these seeds",
        "withheld": "Withheld: more seeds would not help",
    }
    points = []
    for verdict, term in terms.items():
        where = {
            label: [cell for cell in a.cells if (c := a.comparisons.get((cell, label))) and c.verdict == verdict]
            for label in a.challengers
        }
        lines = [(a.name(label), _in_cells(a, cells, label, verdict)) for label, cells in where.items() if cells]
        filters = (loss_filters(a, label) for label, cells in where.items() if cells)
        if lines or verdict != "withheld":
            points.append(Point(term, TONES[verdict], tuple(lines), tuple(filters)))
    return points


def _in_cells(a: Analysis, cells: list[Cell], label: str, verdict: str) -> str:
    every = "both" if len(a.cells) == 2 else f"all {len(a.cells)}"
    extent = f"in {every if len(cells) == len(a.cells) else f'{len(cells)} of {len(a.cells)}'} cells"
    if verdict == "withheld" and len(a.cells) > 1:
        kinds = dict.fromkeys(reason.kind.what for cell in cells for reason in a.comparisons[cell, label].because)
        return f"{extent}: {gates.summary(tuple(kinds))}"
    if verdict == "not decidable" and len(a.cells) > 2:  # the table below lists the many undecided cells
        diverged = sum(a.outcomes[cell, label].diverged for cell in cells)
        return f"{extent}, {count(diverged, 'run')} diverged" if diverged else extent
    return "; ".join(_in_cell(a, cell, label) for cell in cells)


def _in_cell(a: Analysis, cell: Cell, label: str) -> str:
    found, outcome = a.comparisons[cell, label], a.outcomes[cell, label]
    where = [cell.short] if len(a.cells) > 1 else []
    where += [a.metric.difference(found)] if found.n else []
    details = [f"n = {found.n}"]
    for what, lost in (("diverged", outcome.diverged), ("did not learn", outcome.unlearnt)):
        if lost:
            details.append(f"{lost} of {outcome.planned} {what}" + (", the others compared" if found.n else ""))
    if found.because:
        details.append(gates.summary(tuple(dict.fromkeys(each.kind.what for each in found.because))))
    elif found.seeds_needed:
        details.append(f"about {found.seeds_needed:,} needed")
    elif (why := reason(found)) and not outcome.diverged:
        details.append(why)
    return f"{' '.join(where)} ({', '.join(details)})".strip()


def over_all_cells(a: Analysis) -> list[str]:
    """Return what holds in every cell, and on what the rest depends with the effects, in one or two paragraphs."""
    by_verdict: dict[str, list[str]] = {}
    for label, across in a.across.items():
        by_verdict.setdefault(across.verdict, []).append(a.called(label))
    words = {"better": "better in every cell", "worse": "worse in every cell", "equivalent": "equivalent in every cell"}
    order = (*words, "not decidable", "withheld")
    found = []
    for verdict in (each for each in order if each in by_verdict):
        names = by_verdict[verdict]
        which = f"all {len(names)} losses" if len(names) == len(a.challengers) > 1 else joined(names)
        found.append(f"{words.get(verdict, verdict)}: {which}")
    paragraphs = [f"Over the {len(a.cells)} cells together: {'; '.join(found)}."] if found else []
    for across in a.across.values():
        if across.verdict == "depends":
            paragraphs.append(f"{a.name(across.label)} {depends(a, across)}.")
    return paragraphs


def depends(a: Analysis, across: Across) -> str:
    """Return on what the effect of a loss depends, with the effects of the cells that were decided."""
    on = joined(across.depends_on, "or") or "the cell"
    effects = "; ".join(
        f"{c.verdict} on {cell.short} ({a.metric.difference(c)})"
        for cell, c in across.compared.items()
        if c.verdict in ("better", "worse", "equivalent")
    )
    return f"depends on {on}: {effects}"
