"""*Parameter-Free Loss* (Du et al., 2021): losses against imbalance, by G-mean, AUC and recall of the rare classes."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from harness.analysis import stats
from harness.analysis.cells import Analysis, Cell
from harness.analysis.frames import column, where
from harness.metrics.declared import Metric
from harness.report.exhibits import drawings
from harness.report.items import Column, Entry, Figure, Item, Prose, Row, Section, Table
from harness.report.sections.common import TONES, dash, loss_entry, loss_filters, reason
from harness.text import count, joined, mid_sentence, slug

METRICS = ("test.gmean", "test.auc", "test.minority_recall")
MEANING = (
    "G-mean is the geometric mean of the recalls of all classes, so one class that is never found makes it 0. Minority "
    "recall is the mean recall of classes with at most half as many training {items} as the most frequent."
)
RATIO, PROFILE = "axis.stress.ratio", "axis.stress.profile"
NAMED = 5
"""Losses that the figure names: the baseline, the reconstructions, and the best where classes are rarest."""


def section(a: Analysis) -> Section:
    """Return a table per metric, and where the imbalance ratio is an axis a figure against it."""
    if RATIO not in a.all.columns:
        return _without_ratios(a)
    intro = (
        "Du et al. (2021) claim that a loss without settings, which weighs classes by their share in each "
        "mini-batch, equals or beats tuned losses in G-mean and area under ROC, the more so the more data are skewed "
        "(ratios up to 200). Its equations could not be read: R1, R2 and R3 are reconstructions from its abstract "
        "(R1 is the mean false error with cross-entropy). Training classes are made rare, test classes are balanced; "
        "tail: class sizes fall by equal factors from the first class to the last; step: half of the classes keep "
        "all their images.",
        MEANING.format(items="images"),
    )
    items: list[Item] = [Prose((*intro, _leaders(a)))]
    items.append(_figure(a))
    for key in METRICS:
        skewed = [cell for cell in a.cells if key != METRICS[2] or _profile_and_ratio(a, cell)[1] >= 2]
        items.append(_table(a, a.metric_of(key), skewed))
    return Section("exhibit-imbalance", "The paper: losses against imbalance", tuple(items))


def _without_ratios(a: Analysis) -> Section:
    """Return the tables of a study whose data are imbalanced as they are, or that did not vary it."""
    title = "Losses against imbalance"
    metrics = [a.metric_of(key) for key in METRICS if key in a.main and column(a.main, key).notna().any()]
    if not metrics:
        command = f"python -m harness study={a.study.name} base.stress=imbalance axes.stress.ratio=[1,10,50]"
        return Section(
            "exhibit-imbalance", title, (Prose((f"Neither G-mean nor area under ROC was measured: {command}.",)),)
        )
    intro = f"The imbalance ratio is no axis of this study. {MEANING.format(items='items')}"
    return Section("exhibit-imbalance", title, (Prose((intro,)), *(_table(a, each, a.cells) for each in metrics)))


def _profile_and_ratio(a: Analysis, cell: Cell) -> tuple[str, float]:
    """Return profile and ratio of a cell."""
    at = dict(zip(a.cell_columns, cell.values, strict=True))
    profile = at.get(PROFILE) or next(
        iter(column(where(a.main, cell=cell.values), "config.stress.profile").dropna()), ""
    )
    return str(profile), float(at[RATIO])


def _leaders(a: Analysis) -> str:
    rarest = max(_profile_and_ratio(a, cell)[1] for cell in a.cells)
    sentences = []
    for cell in a.cells:
        profile, ratio = _profile_and_ratio(a, cell)
        if ratio < rarest:
            continue
        better = [a.called(x) for x in a.challengers if (c := a.comparisons.get((cell, x))) and c.verdict == "better"]
        held = sum(1 for x in a.challengers if (c := a.comparisons.get((cell, x))) and c.because)
        named = joined(better) if better else "no loss"
        named += f" (verdicts of {held} withheld)" if held else ""
        sentences.append(f"{profile}, 1:{ratio:g}, {cell.model}: {named}")
    metric = a.metric.title
    return f"Better than {a.reference} in {metric} where classes are rarest: {'; '.join(sentences)}."


def _values(a: Analysis, cell: Cell, label: str, metric: Metric) -> Any:
    outcome = a.outcomes.get((cell, label))
    return None if outcome is None else a.measured(outcome, metric.key).dropna()


def _figure(a: Analysis) -> Figure:
    panels: dict[tuple[str, str], dict[str, dict[float, tuple[float, float, float]]]] = {}
    model = a.cells[0].model
    cells = [cell for cell in a.cells if cell.model == model and cell.values[0] == a.cells[0].values[0]]
    profiles = list(dict.fromkeys(_profile_and_ratio(a, cell)[0] for cell in cells))
    for key in METRICS:
        metric = a.metric_of(key)
        for cell in cells:
            own, ratio = _profile_and_ratio(a, cell)
            for profile in profiles if ratio == 1 else [own]:  # balanced data have no profile
                lines = panels.setdefault((metric.title, profile), {})
                for label in a.labels:
                    found = _values(a, cell, label, metric)
                    if found is not None and len(found):
                        x = stats.metric_interval(found, metric)
                        low, high = (x.low, x.high) if x.n > 1 else (x.mean, x.mean)
                        scale = metric.scale
                        lines.setdefault(a.name(label), {})[ratio] = (scale * x.mean, scale * low, scale * high)
    named = _named(a, panels)
    caption = (
        f"{a.cells[0].values[0]}, {model}: mean over {count(len(a.seeds), 'seed')} with 95 % intervals, for "
        f"{joined(map(mid_sentence, named))}; the other losses are thin and grey. Balanced data have no minority."
    )
    draw = functools.partial(drawings.by_ratio, panels, named)
    return Figure("imbalance-ratio", "Metrics against the imbalance ratio", caption, caption, draw, wide=True)


def _named(a: Analysis, panels: dict[tuple[str, str], Any]) -> list[str]:
    """Return the losses worth a colour: baseline, R1, and the best by the first metric at the greatest ratio."""
    totals: dict[str, float] = {}
    for (metric, _), lines in panels.items():
        if metric == a.metric_of(METRICS[0]).title:
            for label, points in lines.items():
                totals[label] = totals.get(label, 0.0) + points[max(points)][0]
    best = sorted(totals, key=lambda label: -totals[label])
    wanted = [a.name(label) for label in (a.baseline, "pf_loss_r1", "focal") if label in a.labels]
    return list(dict.fromkeys([*wanted, *best]))[:NAMED]


def _table(a: Analysis, metric: Metric, cells: Sequence[Cell]) -> Table:
    columns = (
        Column("loss", "loss"),
        *(Column(f"cell_{i + 1}", cell.short, "number", cell.title) for i, cell in enumerate(cells)),
    )
    rows = tuple(
        Row(
            (loss_entry(a, label), *(_entry(a, cell, label, metric) for cell in cells)),
            reference=label == a.baseline,
            filters=loss_filters(a, label),
        )
        for label in a.labels
    )
    verdicts = " The mark is the study's verdict." if metric.key == a.metric.key else ""
    caption = f"{metric.title} ({metric.unit}): mean over seeds ± half of its 95 % interval.{verdicts}"
    return Table(f"imbalance-{slug(metric.key)}", metric.title, columns, rows, caption)


def _entry(a: Analysis, cell: Cell, label: str, metric: Metric) -> Entry:
    found = _values(a, cell, label, metric)
    if found is None or not len(found):
        return dash(f"no completed run recorded it: python -m harness study={a.study.name}")
    interval = stats.metric_interval(found, metric)
    keys = tuple(column(a.records(a.outcomes[cell, label]), "key"))
    low, high = (interval.low, interval.high) if interval.n > 1 else (None, None)
    compared = a.comparisons.get((cell, label)) if metric.key == a.metric.key else None
    tone = TONES[compared.verdict] if compared is not None and compared.n else ""
    note = "" if compared is None else f"{compared.verdict}: {a.metric.difference(compared)} from {a.reference}"
    if compared is not None and compared.because:
        note += f"; {reason(compared)}"
    return Entry(metric.interval(interval), interval.mean, low, high, keys, note, tone)
