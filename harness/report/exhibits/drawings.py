"""Figures of the exhibits of classification: families, architectures, imbalance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.report.figures import BLUE, FAINT, INK, MARKS, MUTED, ORANGE, STYLE, TEAL, WIDTH

LINES = (("-", BLUE), ("--", ORANGE), ("-.", TEAL), (":", INK), ((0, (5, 1, 1, 1, 1, 1)), BLUE), ((0, (1, 1)), ORANGE))
"""Dash and colour of the lines of a figure, so that they differ in grey print too."""


@dataclass(frozen=True)
class Dot:
    """One loss on a line: its difference, its verdict, its name."""

    value: float
    verdict: str
    label: str


def families(panels: Mapping[str, Mapping[str, Sequence[Dot]]], margin: float, half: float, axis: str) -> Figure:
    """Return one line per family with its losses as marks at their difference from the baseline.

    Args:
        panels: by the title of a cell, dots by family.
        margin: half-width of the shaded band.
        half: half-width of the axis; what lies beyond stands at its edge as a pointer.
        axis: what the axis measures.
    """
    with mpl.rc_context(STYLE):
        lines = [max(1, len(found)) for found in panels.values()]
        figure = Figure(figsize=(2 * WIDTH, 0.8 + 0.34 * sum(lines) + 0.35 * len(lines)), layout="constrained")
        grid = figure.subplots(len(lines), 1, squeeze=False, sharex=True, height_ratios=lines)[:, 0]
        for axes, (title, found) in zip(grid, panels.items(), strict=True):
            axes.axvspan(-margin, margin, color=FAINT, lw=0, alpha=0.7)
            axes.axvline(0, color=MUTED, lw=0.8)
            for y, dots in enumerate(found.values()):
                _line(axes, dots, y, half)
            axes.set(xlim=(-half, half), ylim=(len(found) - 0.4, -0.6), yticks=range(len(found)))
            axes.set_yticklabels([f"{family} ({len(dots)})" for family, dots in found.items()])
            axes.tick_params(axis="y", length=0)
            axes.grid(axis="y", color=FAINT, lw=0.5)
            axes.spines["left"].set_visible(False)
            axes.set_title(title if len(panels) > 1 else "")
        grid[-1].set_xlabel(axis)
        return figure


def _line(axes: Axes, dots: Sequence[Dot], y: int, half: float) -> None:
    """Draw the losses of a family: equal ones above each other, those beyond the axis as a pointer with their count."""
    seen: dict[int, int] = {}
    for dot in dots:
        if abs(dot.value) <= half:
            step = round(40 * dot.value / half)
            rank = seen[step] = seen.get(step, -1) + 1
            lift = 0.16 * ((rank + 1) // 2) * (-1) ** rank
            axes.plot(dot.value, y + lift, ms=4.8, mew=1.1, lw=0, **MARKS[dot.verdict])
    for side, pointer, align in ((-1, "<", "left"), (1, ">", "right")):
        beyond = [dot for dot in dots if dot.value * side > half]
        if beyond:
            colour = MARKS[beyond[0].verdict]["color"]
            axes.plot(side * half * 0.985, y, marker=pointer, ms=5, color=colour, clip_on=False)
            count = f"{len(beyond)} further away"
            axes.text(side * half * 0.965, y - 0.2, count, va="center", ha=align, fontsize=7.5, color=colour)


def slopes(panels: Mapping[str, Sequence[tuple[str, float, float, str]]], names: tuple[str, str], axis: str) -> Figure:
    """Return, per panel, a line for each loss from its difference on one architecture to that on the other.

    Args:
        panels: by title, (loss, value on the first, value on the second, verdict on the interaction).
        names: the two architectures.
        axis: what the values are.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH * len(panels), 3.6), layout="constrained")
        grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axes, (title, lines) in zip(grid, panels.items(), strict=True):
            axes.axhline(0, color=MUTED, lw=0.8)
            for label, first, second, verdict in lines:
                decided = verdict in ("better", "worse")
                colour = {"better": BLUE, "worse": ORANGE}.get(verdict, MUTED)
                axes.plot([0, 1], [first, second], color=colour, lw=1.6 if decided else 0.7, marker="o", ms=3)
                if decided:
                    axes.annotate(
                        label, (1, second), xytext=(5, 0), textcoords="offset points", va="center", fontsize=8
                    )
            axes.set(xticks=[0, 1], xticklabels=names, xlim=(-0.15, 1.6))
            axes.set_title(title)
        grid[0].set_ylabel(axis)
        return figure


def by_ratio(
    panels: Mapping[tuple[str, str], Mapping[str, Mapping[float, tuple[float, float, float]]]], named: Sequence[str]
) -> Figure:
    """Return metrics against the imbalance ratio: rows are metrics, columns profiles, a line per loss.

    Args:
        panels: by (metric, profile), by loss, by ratio: mean, low and high in percent.
        named: losses that get a colour, an interval and a name; the others are thin and grey.
    """
    with mpl.rc_context(STYLE):
        every = sorted({ratio for losses in panels.values() for points in losses.values() for ratio in points})
        metrics, profiles = (list(dict.fromkeys(key[i] for key in panels)) for i in (0, 1))
        figure = Figure(figsize=(WIDTH * len(profiles), 0.9 + 2.1 * len(metrics)), layout="constrained")
        grid = figure.subplots(len(metrics), len(profiles), squeeze=False, sharex=True, sharey="row")
        for (metric, profile), losses in panels.items():
            axes = grid[metrics.index(metric)][profiles.index(profile)]
            for label, points in losses.items():
                ratios = sorted(points)
                means = [points[ratio][0] for ratio in ratios]
                if label not in named:
                    axes.plot(ratios, means, color=MUTED, lw=0.6, alpha=0.6)
                    continue
                dash, colour = LINES[named.index(label) % len(LINES)]
                spread = [[abs(points[r][0] - points[r][side]) for r in ratios] for side in (1, 2)]
                axes.errorbar(ratios, means, spread, color=colour, ls=dash, lw=1.5, marker="o", ms=3, elinewidth=0.8,
                              label=label)  # fmt: skip
            axes.set_xscale("log")
            axes.set_xticks(every, [f"{ratio:g}" for ratio in every])
            axes.minorticks_off()
            axes.grid(axis="y", color=FAINT, lw=0.5)
            if metric == metrics[0]:
                axes.set_title(profile)
            if profile == profiles[0]:
                axes.set_ylabel(f"{metric} (%)")
        for axes in grid[-1]:
            axes.set_xlabel("imbalance ratio")
        handles, labels = grid[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
        return figure
