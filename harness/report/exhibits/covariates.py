"""*Hybrid nonlinear losses* (Choi, IJFIS 24(4), 2024): do the covariates A and B of its terms matter?"""

from __future__ import annotations

import functools
from collections.abc import Iterable

from harness.analysis.cells import Analysis, Cell
from harness.analysis.frames import numbers
from harness.report.exhibits import hybrid_figures
from harness.report.exhibits.hybrid import EXPERIMENTS, RECONSTRUCTION, Experiment, distinct, same_as
from harness.report.items import Column, Entry, Figure, Item, Prose, Row, Section, Table
from harness.report.sections.common import dash, interval_entry, number_entry, simultaneous
from harness.text import count, slug

Covariates = tuple[float, float]


def section(a: Analysis) -> Section:
    """Return a table and bars per cell: experiments of the paper by pair of covariates."""
    by_cell = {cell: _labels(a, cell) for cell in a.cells}
    intro = (
        "Choi (2024) prints no values of A and B and no sweep over them, though the paper names the analysis; this "
        "is our own: pairs from almost no weight on the absolute error to almost no weight on the squared one. "
        "Convex coefficients take 1 - A in place of B, so a convex experiment changes with A alone, and where B is 1 - "
        "A a convex and a linear experiment are one function, and their runs are equal.",
        _functions(by_cell.values()),
    )
    items: list[Item] = [Prose(intro)]
    for cell, labels in by_cell.items():
        if labels:
            items.append(_table(a, cell, labels))
        if any(a.outcomes[cell, label].values.n for found in labels.values() for label in found.values()):
            items.append(_bars(a, cell, labels))
    return Section("exhibit-covariates", "The paper: covariates of hybrid nonlinear losses", tuple(items))


def _labels(a: Analysis, cell: Cell) -> dict[str, dict[Covariates, str]]:
    """Return the labels of a cell by experiment and pair of covariates, as their runs were configured."""
    found: dict[str, dict[Covariates, str]] = {}
    for label in a.challengers:
        runs = a.planned.get((cell, label))
        file = label.split(" ")[0]
        if runs is None or not len(runs) or file not in {experiment.file for experiment in EXPERIMENTS}:
            continue
        first, second = (numbers(runs, f"config.loss.{name}").dropna() for name in ("a", "b"))
        if len(first) and len(second):
            found.setdefault(file, {})[float(first.iloc[0]), float(second.iloc[0])] = label
    return {file: dict(sorted(pairs.items())) for file, pairs in found.items()}


def _functions(found: Iterable[dict[str, dict[Covariates, str]]]) -> str:
    """Return how many functions the study's experiments are at its pairs, and all 27 at each of them."""
    shown = {(file, pair) for labels in found for file, pairs in labels.items() for pair in pairs}
    pairs = sorted({pair for _, pair in shown})
    if not pairs:
        return "The study has no experiment of the paper with covariates."
    functions = {_function(_experiment(file), pair) for file, pair in shown}
    every = "; ".join(f"{len(distinct(*pair))} at {_named(pair)}" for pair in pairs)
    return (
        f"The study's {count(len(shown), 'experiment with a pair', 'experiments with a pair')} are "
        f"{count(len(functions), 'function')} of their own. How many of all 27 experiments are different "
        f"functions: {every}."
    )


def _function(experiment: Experiment, pair: Covariates) -> tuple[Experiment, float, float | None]:
    """Return what is equal for equal functions: the first experiment that is the same, A, and B where it counts."""
    same = same_as(experiment, *pair)
    return same, pair[0], pair[1] if same.coefficients == "linear" else None


def _experiment(file: str) -> Experiment:
    return next(experiment for experiment in EXPERIMENTS if experiment.file == file)


def _pairs(labels: dict[str, dict[Covariates, str]]) -> list[Covariates]:
    return sorted({pair for pairs in labels.values() for pair in pairs})


def _named(pair: Covariates) -> str:
    return f"A {pair[0]:g}, B {pair[1]:g}"


def _number_of(file: str) -> int:
    return next(number for number, experiment in enumerate(EXPERIMENTS, 1) if experiment.file == file)


def _table(a: Analysis, cell: Cell, labels: dict[str, dict[Covariates, str]]) -> Table:
    pairs = _pairs(labels)
    columns = (
        Column("experiment", "no.", "number", "the paper's number"),
        Column("loss", "loss"),
        *(Column(f"pair_{number}", _named(pair), "number") for number, pair in enumerate(pairs, 1)),
        Column("range", f"range ({a.metric.difference_unit})", "number", "between the best and the worst pair's mean"),
        Column("deviation", "seeds (SD)", "number", "deviation over seeds of one pair, mean over the pairs"),
    )
    rows = tuple(_row(a, cell, file, found, pairs) for file, found in labels.items())
    caption = (
        f"{cell.title}: difference in {a.metric.title} from {a.reference}, by pair of covariates, with "
        f"{simultaneous(len(a.challengers))}; the marks are the study's verdicts. Where the range is no greater than "
        "the deviation over seeds, no effect of the covariates was seen."
    )
    return Table(f"covariates-{slug(cell.title)}", f"Covariates, {cell.short}", columns, rows, caption)


def _row(a: Analysis, cell: Cell, file: str, found: dict[Covariates, str], pairs: list[Covariates]) -> Row:
    outcomes = [a.outcomes[cell, label] for label in found.values()]
    means = [a.metric.scale * outcome.values.mean for outcome in outcomes if outcome.values.n]
    spreads = [a.metric.scale * float(a.measured(outcome, a.metric.key).std()) for outcome in outcomes]
    spreads = [spread for spread in spreads if spread == spread]
    few = dash("too few completed runs")
    apart = number_entry(max(means) - min(means), 2) if len(means) > 1 else few
    spread = number_entry(sum(spreads) / len(spreads), 2) if spreads else few
    experiment = _number_of(file)
    entries = (_entry(a, cell, found.get(pair)) for pair in pairs)
    return Row((Entry(str(experiment), experiment), Entry(f"{file} {RECONSTRUCTION}"), *entries, apart, spread))


def _entry(a: Analysis, cell: Cell, label: str | None) -> Entry:
    if label is None:
        return dash("not part of the study")
    found = a.comparisons.get((cell, label))
    if found is None or not found.n:
        return dash(f"no pair of runs: python -m harness study={a.study.name}")
    return interval_entry(a, found, a.outcomes[cell, label].paired_keys)


def _bars(a: Analysis, cell: Cell, labels: dict[str, dict[Covariates, str]]) -> Figure:
    panels = {}
    for file, found in labels.items():
        values = {pair: a.measured(a.outcomes[cell, label], a.metric.key) * a.metric.scale
                  for pair, label in found.items()}  # fmt: skip
        panels[f"{_number_of(file)}: {file.removeprefix('hybrid_')}"] = [
            (f"{pair[0]:g}\n{pair[1]:g}", float(x.mean()), float(x.std())) for pair, x in values.items() if len(x)
        ]
    base = a.outcomes.get((cell, a.baseline))
    reference = None if base is None or not base.values.n else a.metric.scale * base.values.mean
    caption = (
        f"{cell.title}: mean and standard deviation over {count(len(a.seeds), 'seed')} for each pair of covariates (A "
        f"above B). Dashed: {a.reference}. The axis does not begin at 0."
    )
    axis = f"{a.metric.title} ({a.metric.unit})"
    return Figure(
        f"covariate-bars-{slug(cell.title)}", f"The same as bars, {cell.short}", caption, caption,
        functools.partial(hybrid_figures.covariate_bars, panels, reference, axis), True,
    )  # fmt: skip
