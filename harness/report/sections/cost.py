"""What each loss costs, and how it performs by the other metrics."""

from __future__ import annotations

import statistics

import pandas as pd

from harness.analysis import stats
from harness.analysis.cells import Analysis, Outcome, tally
from harness.analysis.frames import column, numbers, rows, where
from harness.metrics.declared import Metric
from harness.report.items import Column, Entry, Item, Notice, Prose, Row, Section, Table
from harness.report.sections import search_cost
from harness.report.sections.common import (
    cell_entry,
    cell_filters,
    dash,
    interval_entry,
    loss_entry,
    loss_filters,
    number_entry,
    step_ratios,
)
from harness.text import count, joined, number

UNSTEADY = 1.25  # greatest over least step time of one and the same setting
SHOWN = 12  # other metrics that a table can hold; CSV has all


def section(a: Analysis) -> Section:
    """Return the table of cost, that of the search if there was one, and the table of secondary metrics."""
    note = (
        f"Step time is the median optimisation step of a run; its ratio to {a.reference} is taken seed by seed, of "
        "runs on one kind of processor, and shown as median and range over seeds. These are step times of this sweep: "
        "its runs were made one after another or side by side, and what else the machine did is in them. To compare "
        "the costs of losses use results/measured/loss_costs.csv, whose measurements are interleaved on a quiet "
        "machine (python -m scripts.bench_losses). Memory is what a run takes at most on a GPU, data sets left out, "
        "and by how much the training process grows on a CPU."
    )
    trials = search_cost.trials_of(a)
    items: list[Item] = [Prose((note,)), *_several(a), *_unsteady(a), _cost_table(a, trials)]
    if trials:
        items += [search_cost.table(a, trials), search_cost.prose(a)]
    items.append(_metrics_table(a))
    return Section("cost", "Cost and other metrics", tuple(items))


def _several(a: Analysis) -> list[Notice]:
    """Return which processors there were, where times of several stand beside each other."""
    measured = rows(a.main, numbers(a.main, "cost.step_ms").notna())
    processors = column(measured, "env.device_name").dropna()
    if processors.nunique() < 2:
        return []
    return [
        Notice(
            f"Runs were made on several processors: {tally(processors)}. Ratios are of runs on the same one; times and "
            "memory mix them."
        )
    ]


def _unsteady(a: Analysis) -> list[Notice]:
    """Return how far the baseline's own step time varies, where that drowns differences between losses."""
    spread = {}
    for cell in a.cells:
        times = numbers(where(a.runs, label=a.baseline, cell=cell.values), "cost.step_ms").dropna()
        if len(times) > 1 and times.min() > 0:
            spread[cell] = float(times.max() / times.min())
    if not spread or max(spread.values()) < UNSTEADY:
        return []
    cell = max(spread, key=lambda cell: spread[cell])
    text = (
        f"The step time of {a.reference} itself varies by a factor of {number(spread[cell], 1)} between its runs on "
        f"{cell.title}: most likely the machine was busy with other work. "
        "Ratios smaller than that say nothing about a loss."
    )
    return [Notice(text)]


def _cost_table(a: Analysis, trials: search_cost.Trials) -> Table:
    columns = (
        Column("cell", "cell"),
        Column("loss", "loss"),
        Column("difference", f"difference ({a.metric.difference_unit or a.metric.title})", "number", "as above"),
        Column("step_ratio", f"step time / {a.reference}", "number", "median over seeds, and range"),
        Column("step_ms", "step (ms)", "number", "median over seeds"),
        Column("train_s", "training (s)", "number", "median over seeds"),
        Column("peak_memory_mb", "memory (MB)", "number", "median over seeds"),
        Column("waiting", "waiting for data (%)", "number", "share of training in which the loop waits for batches"),
        Column("parameters", "model parameters", "number"),
        Column("loss_parameters", "loss parameters", "number", "weights of the loss itself"),
        Column("diverged", "diverged", "number", "of the runs planned", detail=True),
        Column("failed", "failed", "number", "of the runs planned", detail=True),
        Column("unlearnt", "did not learn", "number", "of the runs planned", detail=True),
    )
    if trials:
        columns += (
            Column("search_runs", "runs of the search", "number", "they chose the learning rate, and settings"),
            Column("search_s", "search (s)", "number", "wall time of all of them"),
            Column("with_search", "with search", "number", "times the wall time of one run without any search"),
        )
    table_rows = tuple(_cost_row(a, outcome, trials) for outcome in a.outcomes.values())
    caption = "What each loss costs, beside what it gains."
    if trials:
        caption += (
            f" {search_cost.rule(a, trials)} With search: wall time of all runs of a loss's search and of one compared "
            "run (the mean over seeds), divided by that of the run."
        )
    return Table("cost", "Cost", columns, table_rows, caption)


def _cost_row(a: Analysis, outcome: Outcome, trials: search_cost.Trials) -> Row:
    keys = outcome.keys
    numeric = [
        Entry(number(value, digits), value, runs=keys)
        if (value := _median(a.measured(outcome, f"cost.{name}"))) is not None
        else dash("not recorded")
        for name, digits in (("step_ms", 2), ("train_s", 1), ("peak_memory_mb", 1))
    ]
    counts = [_whole(a.measured(outcome, f"cost.{name}"), keys) for name in ("parameters", "loss_parameters")]
    ended = [
        Entry(f"{n} of {outcome.planned}" if n else "0", n)
        for n in (outcome.diverged, outcome.failed, outcome.unlearnt)
    ]
    return Row(
        (
            cell_entry(outcome.cell),
            loss_entry(a, outcome.label),
            _difference(a, outcome),
            _step_ratio(a, outcome),
            *numeric,
            _waiting(a, outcome),
            *counts,
            *ended,
            *(search_cost.entries(a, outcome, trials) if trials else ()),
        ),
        reference=outcome.label == a.baseline,
        filters=(*cell_filters(a, outcome.cell.values), *loss_filters(a, outcome.label)),
    )


def _difference(a: Analysis, outcome: Outcome) -> Entry:
    found = a.comparisons.get((outcome.cell, outcome.label))
    if found is None or not found.n:
        return dash("the baseline" if found is None else "no pair of runs that learnt")
    return interval_entry(a, found, outcome.paired_keys, a.metric.number(found.difference, sign=True))


def _step_ratio(a: Analysis, outcome: Outcome) -> Entry:
    if outcome.label == a.baseline:
        return Entry("1", 1.0, runs=outcome.keys)
    base = a.outcomes.get((outcome.cell, a.baseline))
    if base is None:
        return dash(f"no run of {a.reference} here")
    ratios = step_ratios(a, outcome, base)
    if not ratios:
        return dash("no pair of completed runs with a step time on one kind of processor")
    middle, low, high = statistics.median(ratios), min(ratios), max(ratios)
    text = number(middle, 2) + (f" [{number(low, 2)}, {number(high, 2)}]" if len(ratios) > 1 else "")
    return Entry(text, middle, low, high, outcome.paired_keys)


def _median(values: pd.Series) -> float | None:
    return float(values.median()) if values.notna().any() else None


def _waiting(a: Analysis, outcome: Outcome) -> Entry:
    share = _median(100 * a.measured(outcome, "cost.data_s") / a.measured(outcome, "cost.train_s"))
    return dash("not recorded") if share is None else Entry(number(share, 1), share, runs=outcome.keys)


def _whole(values: pd.Series, keys: tuple[str, ...]) -> Entry:
    value = _median(values)
    return dash("not recorded") if value is None else Entry(f"{value:,.0f}", value, runs=keys)


def secondary(a: Analysis) -> list[Metric]:
    """Return the metrics that runs recorded besides the study's own: all of its split, and under each shift of the test
    data the task's first.
    """
    split = a.metric.key.partition(".")[0]
    split = "test" if split == "shifted" else split
    shifts = dict.fromkeys(str(name).split(".")[1] for name in a.main.columns if str(name).startswith("shifted."))
    names = [metric.key for metric in a.metrics if numbers(a.main, f"{split}.{metric.key}").notna().any()]
    keys = [f"{split}.{name}" for name in names] + [f"shifted.{shift}.{name}" for shift in shifts for name in names[:1]]
    return [a.metric_of(key) for key in keys if key != a.metric.key]


def _metrics_table(a: Analysis) -> Table:
    metrics = secondary(a)
    columns = [
        Column(
            metric.key.partition(".")[2].replace(".", "_"),
            f"{metric.title} ({metric.unit})" if metric.unit else metric.title,
            "number",
            "higher is better" if metric.higher_is_better else "lower is better",
            detail=number >= SHOWN,
        )
        for number, metric in enumerate(metrics)
    ]
    table_rows = []
    for outcome in a.outcomes.values():
        entries = [_secondary(a, outcome, metric) for metric in metrics]
        head = (cell_entry(outcome.cell), loss_entry(a, outcome.label), number_entry(outcome.values.n, 0, outcome.keys))
        filters = (*cell_filters(a, outcome.cell.values), *loss_filters(a, outcome.label))
        table_rows.append(Row((*head, *entries), reference=outcome.label == a.baseline, filters=filters))
    caption = (
        "Other metrics: mean over completed runs ± half the width of the 95 % t interval. A dash: the metric is "
        "undefined for this loss (its scores are not probabilities), or was not recorded. No verdicts are given, "
        "because these metrics were not declared as the study's."
    )
    if hidden := metrics[SHOWN:]:
        caption += f" The CSV beside this page has {count(len(hidden), 'metric')} more."
    head = (Column("cell", "cell"), Column("loss", "loss"), Column("n", "n", "number", "completed runs"))
    return Table("metrics", "Other metrics", (*head, *columns), tuple(table_rows), caption)


def _secondary(a: Analysis, outcome: Outcome, metric: Metric) -> Entry:
    found = a.measured(outcome, metric.key).dropna()
    if found.empty:
        return dash(_undefined(metric, a.loss_facts[outcome.label].link) or "no completed run recorded it")
    interval = stats.metric_interval(found, metric)
    low, high = (interval.low, interval.high) if interval.n > 1 else (None, None)
    return Entry(metric.interval(interval), interval.mean, low, high, tuple(a.main.loc[found.index, "key"]))


def _undefined(metric: Metric, link: str) -> str:
    """Return why a metric means nothing for losses of this link; empty if it means something."""
    if not metric.links or link in metric.links:
        return ""
    scores = f"{link} probabilities" if link else "not probabilities"
    return f"undefined: it needs {joined(metric.links, 'or')} probabilities, and the scores of this loss are {scores}"
