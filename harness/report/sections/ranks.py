"""Ranks over data sets, where a study has enough of them: a critical-difference diagram."""

from __future__ import annotations

import functools

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure as Drawing

from harness.analysis import stats
from harness.analysis.cells import Analysis
from harness.analysis.stats import Ranks
from harness.report.figures import INK, STYLE, WIDTH
from harness.report.items import Figure, Prose, Section
from harness.text import count, joined, p_value


def section(a: Analysis) -> Section:
    """Return the diagram, or an empty section where there are fewer than eight data sets or three losses."""
    scores = _scores(a)
    if len(scores) < stats.LEAST_DATA_SETS or scores.shape[1] < 3:
        return Section("ranks", "Ranks over data sets", ())
    found = stats.ranks(scores, higher_is_better=a.metric.higher_is_better)
    best, worst = found.mean.idxmin(), found.mean.idxmax()
    left_out = [a.called(label) for label in a.labels if a.name(label) not in scores]
    text = (
        f"Losses are ranked on each of {count(len(scores), 'data set')} by their mean {a.metric.title} over models and "
        f"seeds (Demšar 2006). Friedman's test that all {scores.shape[1]} are alike gives p {p_value(found.p)}; "
        f"mean ranks go from {found.mean.min():.2f} ({best}) to {found.mean.max():.2f} ({worst}). Losses joined by a "
        "bar are not distinguished by Nemenyi's test at 5 %."
    )
    if left_out:
        text += f" Left out, because a data set lacks them: {joined(left_out)}."
    caption = "Mean rank over data sets, best at the left; bars join losses that are not distinguished."
    alt = caption + " " + "; ".join(f"{name} {rank:.2f}" for name, rank in found.mean.sort_values().items()) + "."
    figure = Figure("ranks", "Critical differences", caption, alt, functools.partial(_draw, found), wide=True)
    return Section("ranks", "Ranks over data sets", (Prose((text,)), figure))


def _scores(a: Analysis) -> pd.DataFrame:
    """Return the mean metric of every loss (columns) on every data set (rows); losses that lack one are left out."""
    values = [
        (outcome.cell.values[0], a.name(label), outcome.values.mean)
        for (_, label), outcome in a.outcomes.items()
        if outcome.values.n
    ]
    frame = pd.DataFrame(values, columns=["dataset", "loss", "value"])
    return frame.pivot_table(index="dataset", columns="loss", values="value").dropna(axis=1)


def _draw(found: Ranks) -> Drawing:
    import scikit_posthocs

    with mpl.rc_context(STYLE):
        figure = Drawing(figsize=(2 * WIDTH, 0.9 + 0.22 * len(found.mean)), layout="constrained")
        scikit_posthocs.critical_difference_diagram(
            found.mean, found.pairs, ax=figure.subplots(), color_palette=dict.fromkeys(found.mean.index, INK),
            label_props={"fontsize": 8}, crossbar_props={"linewidth": 2}, elbow_props={"linewidth": 0.8},
            marker_props={"s": 14},
        )  # fmt: skip
        return figure
