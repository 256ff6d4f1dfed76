"""The documents at a glance: the survey's taxonomy, when losses appeared, and which task uses which."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.report.figures import BLUE, FAINT, INK, MUTED, ORANGE, PAPER, STYLE, TEAL

LINE = 0.17  # inches of one line of small text
TECHNIQUES = {"CNN": BLUE, "ViT": ORANGE, "CNN and ViT": TEAL, "other": MUTED}


def taxonomy(sections: pd.DataFrame) -> Figure:
    """Return the survey's tree, one column per family; ``sections`` as ``entries.taxonomy`` gives them."""
    printed = sections.drop_duplicates("section")
    families = {str(family): group for family, group in printed.groupby("family", sort=False)}
    rows = max(map(len, families.values()))
    lefts, width = _columns([list(group["printed"]) for group in families.values()], 0.078)
    axes = _sheet(width, LINE * (rows + 4), rows + 3.2)
    with mpl.rc_context(STYLE):
        tasks: dict[str, list[int]] = {}
        for place, (family, group) in enumerate(families.items()):
            tasks.setdefault(str(group["task"].iloc[0]), []).append(place)
            axes.text(lefts[place], 1.7, family, fontsize=9, color=BLUE, va="center")
            for line, name in enumerate(group["printed"]):
                axes.text(lefts[place], 3 + line, name, fontsize=7.5, va="center")
        for task, columns in tasks.items():
            axes.text(lefts[columns[0]], 0, task, fontsize=10.5, va="center", fontweight="bold")
            axes.plot([lefts[columns[0]], lefts[columns[-1] + 1] - 0.2], [0.75, 0.75], color=MUTED, lw=0.8)
    return figure_of(axes)


def timeline(sections: pd.DataFrame) -> Figure:
    """Return the year of each loss's paper, by family; years without a paper are left out."""
    dated = sections.drop_duplicates("section").dropna(subset="year")
    years, families = sorted(dated["year"].astype(int).unique()), list(dict.fromkeys(dated["family"]))
    cells = {
        key: [_short(name) for name in group["printed"]]
        for key, group in dated.groupby(["family", dated["year"].astype(int)])
    }
    heights = [max(len(cells.get((family, year), ())) for year in years) for family in families]
    columns = [[str(year), *(name for family in families for name in cells.get((family, year), ()))] for year in years]
    lefts, width = _columns(columns, 0.052, start=0.75)
    lines = sum(heights) + 1.1 * len(heights)
    axes = _sheet(width, LINE * (lines + 2), lines + 1)
    with mpl.rc_context(STYLE):
        for left, year in zip(lefts, years, strict=False):
            axes.text(left, 0, str(year), fontsize=8.5, color=MUTED, va="center")
        top = 1.1
        for family, height in zip(families, heights, strict=True):
            axes.axhline(top - 0.45, color=FAINT, lw=0.7)
            axes.text(0, top + 0.1, family, fontsize=8.5, color=BLUE, va="center")
            for left, year in zip(lefts, years, strict=False):
                for line, name in enumerate(cells.get((family, year), ())):
                    axes.text(left, top + 0.1 + line, name, fontsize=6.8, va="center")
            top += height + 1.1
    return figure_of(axes)


def _columns(texts: Sequence[Sequence[str]], letter: float, start: float = 0.0) -> tuple[list[float], float]:
    """Return the left edges (inches) of columns wide enough for their texts, with the end of the last; and the end."""
    edges = [start]
    for column in texts:
        edges.append(edges[-1] + 0.16 + letter * max(map(len, column)))
    return edges, edges[-1]


def _sheet(width: float, height: float, lines: float) -> Axes:
    """Return axes over a whole figure: inches across, lines of text down."""
    with mpl.rc_context(STYLE):
        axes = Figure(figsize=(width, height)).add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, width), ylim=(lines, -0.8))
        axes.axis("off")
        return axes


def figure_of(axes: Axes) -> Figure:
    """Return the figure that axes are on."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    return figure


def _short(name: str) -> str:
    short = name.split(" (")[0].replace("Quadratic Smoothed", "Quadr. smoothed").replace("Distance IoU and ", "DIoU, ")
    return (
        short.replace("Intersection over Union", "IoU").replace("Generalized", "Gen.").replace("Sensitivity", "Sens.")
    )


def task_map(methods: pd.DataFrame) -> Figure:
    """Return how many methods of each task use each loss; ``methods`` as ``entries.methods`` gives them."""
    counts = methods.groupby(["loss", "task"])["technique"].agg(["size", _technique]).reset_index()
    tasks = list(dict.fromkeys(methods["task"]))
    order = methods["loss"].value_counts(sort=True)
    names = sorted(order.index, key=lambda name: (-order[name], name))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 1.9 + 0.24 * len(names)))
        axes = figure.subplots()
        figure.subplots_adjust(0.2, 0.02, 0.84, 1 - 1.6 / figure.get_size_inches()[1])
        for technique, colour in TECHNIQUES.items():
            chosen = counts[counts["_technique"] == technique]
            axes.scatter(
                [tasks.index(task) for task in chosen["task"]],
                [names.index(name) for name in chosen["loss"]],
                s=60 + 34 * chosen["size"],
                color=colour,
                label=technique,
            )
        for row in counts.itertuples():
            at = (tasks.index(str(row.task)), names.index(str(row.loss)))
            axes.text(*at, str(row.size), color=PAPER, fontsize=7.5, ha="center", va="center")
        axes.set(xlim=(-0.6, len(tasks) - 0.4), ylim=(len(names) - 0.4, -0.6))
        axes.set_xticks(range(len(tasks)), tasks, rotation=35, ha="left")
        axes.set_yticks(range(len(names)), names)
        axes.xaxis.tick_top()
        axes.tick_params(length=0, colors=INK)
        axes.grid(color=FAINT, lw=0.5)
        axes.set_axisbelow(True)
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, markerscale=0.7)
        return figure


def _technique(kinds: pd.Series) -> str:
    """Return what the methods behind a number are built of."""
    text = " ".join(kinds)
    convolution, transformer = "CNN" in text, "ViT" in text
    return "CNN and ViT" if convolution and transformer else "CNN" if convolution else "ViT" if transformer else "other"


def cost_ranking(ranked: pd.DataFrame, column: str, axis: str) -> Figure:
    """Return what the review ranks in words as measured; ``ranked`` as ``costs.ranked`` gives it."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 0.75 + 0.19 * len(ranked)))
        axes = figure.add_axes((0.3, 0.55 / figure.get_figheight(), 0.66, 1 - 0.62 / figure.get_figheight()))
        for word, colour, meant in (("low", BLUE, "called cheap"), ("high", ORANGE, "called costly")):
            mine = ranked["said"] == word
            axes.plot(ranked[column][mine], [i for i, one in enumerate(mine) if one], "o", color=colour, label=meant)
        axes.set_yticks(range(len(ranked)), list(ranked["loss"]), fontsize=8)
        axes.invert_yaxis()
        if (ranked[column] > 0).all():
            axes.set_xscale("log")
        axes.set_xlabel(axis, fontsize=8.5)
        axes.grid(axis="y", color=FAINT, lw=0.7)
        axes.legend(fontsize=8, frameon=False, loc="upper right")
    return figure
