"""Figures in one style: quiet, readable in grey and by the colour-blind, the same on paper and on a dark screen.

Colours name roles. In the page each is replaced by a variable of the style sheet (:data:`ROLES`), so that figures
follow light and dark; the files keep the colours given here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import joblib
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness import hardware
from harness.records.store import whole

INK, MUTED, FAINT, PAPER = "#22262e", "#6a7180", "#dfe2e8", "#fefefd"
BLUE, ORANGE, TEAL = "#0b63a5", "#c2500a", "#0f7b6c"
BITMAP: Any = {"dpi": 160, "pil_kwargs": {"compress_level": 4}}  # as small as the usual 6 in 60 % of the time
FEW = 6  # figures that are drawn in about the time that another process takes to start
WIDTH = 5.2  # inches of a figure that shares the page with another
LEAST = 3.0  # inches that are left for the bars beside long names
ROLES = {INK: "ink", MUTED: "muted", FAINT: "line", PAPER: "paper", BLUE: "better", ORANGE: "worse", TEAL: "equal"}

STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,  # a label may have a $
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.unicode_minus": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "figure.facecolor": PAPER,
    "svg.fonttype": "none",
    "savefig.facecolor": PAPER,
}

# shape as well as colour tells the verdict, so that grey print keeps it
MARKS: dict[str, Any] = {
    "better": {"marker": "^", "color": BLUE, "markerfacecolor": BLUE},
    "worse": {"marker": "v", "color": ORANGE, "markerfacecolor": ORANGE},
    "equivalent": {"marker": "s", "color": TEAL, "markerfacecolor": TEAL},
    "not decidable": {"marker": "o", "color": MUTED, "markerfacecolor": PAPER},
    "withheld": {"marker": "D", "color": MUTED, "markerfacecolor": PAPER},
}

NOTE: dict[str, Any] = {"ha": "right", "fontsize": 7.5}


@dataclass(frozen=True)
class Bar:
    """One line of a forest plot, in the units of the axis; ``seeds``: the difference of each pair of runs."""

    label: str
    value: float
    low: float
    high: float
    verdict: str
    text: str
    seeds: tuple[float, ...] = ()


def limit(extents: Sequence[float], margin: float) -> float:
    """Return the half-width of an axis on which most intervals can be seen.

    One loss that fails altogether would squeeze all others into a line; what lies far beyond the rest (over three times
    the 70th percentile) runs off the axis, and is marked and named there.

    >>> limit([0.01, 0.02, 0.015, 0.8], 0.005)
    0.0212
    """
    finite = [abs(extent) for extent in extents if math.isfinite(extent)]
    if not finite:
        return max(margin, 1e-9) * 2
    usual = float(np.quantile(finite, 0.7, method="lower"))
    kept = [extent for extent in finite if extent <= 3 * usual] or finite
    return round(1.06 * max(*kept, 2 * margin, 1e-9), 12)


BELOW = 0.3
"""Of a row, by which the dots of single seeds stand below their interval."""


def forest(panels: Mapping[str, Sequence[Bar]], margin: float, half: float, axis: str) -> Figure:
    """Return differences from the baseline with intervals, one panel per cell, the margin of equivalence shaded.

    Args:
        panels: by the title of a cell, its losses from top to bottom.
        margin: half-width of the shaded band.
        half: half-width of the axis; see :func:`limit`.
        axis: what the axis measures.
    """
    with mpl.rc_context(STYLE):
        lines = [max(1, len(bars)) for bars in panels.values()]
        bars = [bar for panel in panels.values() for bar in panel]
        height = 0.75 + 0.23 * sum(lines) + 0.3 * len(lines)
        left = 0.15 + 0.075 * max(len(bar.label) for bar in bars)
        figure = Figure(figsize=(max(WIDTH, left + LEAST), height))
        grid = figure.subplots(len(lines), 1, squeeze=False, sharex=True, height_ratios=lines)[:, 0]
        _margins(figure, (len(lines), 1), left=left, gap=0.35)
        for axes, (title, panel) in zip(grid, panels.items(), strict=True):
            _forest_panel(axes, panel, margin, half)
            axes.set_title(title if len(panels) > 1 else "")
        grid[-1].set_xlabel(axis)
        return figure


def _margins(figure: Figure, shape: tuple[int, int], left: float, gap: float) -> None:
    """Set margins and the gap between panels in inches: exact, and quicker than measuring every text."""
    width, height = figure.get_size_inches()
    top, right, bottom = 0.25, 0.12, 0.5
    inner_height = (height - bottom - top - gap * (shape[0] - 1)) / shape[0]
    inner_width = (width - left - right - gap * (shape[1] - 1)) / shape[1]
    figure.subplots_adjust(left / width, bottom / height, 1 - right / width, 1 - top / height)
    figure.subplots_adjust(hspace=gap / inner_height, wspace=gap / inner_width)


def _forest_panel(axes: Axes, bars: Sequence[Bar], margin: float, half: float) -> None:
    if margin:
        axes.axvspan(-margin, margin, color=FAINT, lw=0, alpha=0.7)
    axes.axvline(0, color=MUTED, lw=0.8)
    for y, bar in enumerate(bars):
        mark = MARKS[bar.verdict]
        near = [value for value in bar.seeds if abs(value) <= half]
        below = [y + BELOW] * len(near)  # on the line of the interval they would not be seen
        axes.plot(near, below, lw=0, marker="o", ms=2.6, mew=0, color=mark["color"], alpha=0.5)
        if abs(bar.value) > half:
            side = math.copysign(1, bar.value)
            axes.plot(side * half * 0.97, y, marker="<" if side < 0 else ">", ms=5, color=mark["color"], clip_on=False)
            axes.text(side * half * 0.9, y, bar.text, va="center", ha="left" if side < 0 else "right", fontsize=8)
            continue
        if math.isfinite(bar.low):
            style = (0, (2, 1.5)) if bar.verdict == "withheld" else "-"
            axes.plot([bar.low, bar.high], [y, y], color=mark["color"], lw=1.5, ls=style, solid_capstyle="butt")
        axes.plot(bar.value, y, ms=4.6 if mark["marker"] == "D" else 5.5, mew=1.3, lw=0, **mark)
    axes.set(xlim=(-half, half), ylim=(len(bars) - 0.45, -0.55), yticks=range(len(bars)))
    axes.set_yticklabels([bar.label for bar in bars])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def save_all(drawings: Mapping[str, Callable[[], Figure]], folder: Path) -> None:
    """Draw figures by name and write each as SVG and PNG, on all cores if they are many."""
    workers = max(1, min(hardware.cores(), len(drawings) // FEW))
    joblib.Parallel(workers)(joblib.delayed(_draw)(draw, folder / name) for name, draw in drawings.items())


def _draw(draw: Callable[[], Figure], stem: Path) -> None:
    save(draw(), stem)


def save(figure: Figure, stem: Path) -> None:
    """Write ``figure`` as SVG and PNG; equal figures give equal files."""
    # a product of small matrices may set the flag of overflow for lanes that it does not use
    with mpl.rc_context({**STYLE, "svg.hashsalt": stem.name}), np.errstate(over="ignore"):
        with whole(stem.with_name(f"{stem.name}.svg")) as file:  # another report of the study may be read meanwhile
            figure.savefig(file, format="svg", metadata={"Date": None})
        with whole(stem.with_name(f"{stem.name}.png")) as file:
            figure.savefig(file, format="png", metadata={"Software": None}, **BITMAP)


def _slim(svg: str) -> str:
    """Return a drawing in half the letters: hundredths of a point will do, and the page has its own font.

    >>> _slim('<path d="M 46.812345 78 L 9 18 "/> <text style="font-family: X, y; fill: red" x="1.234">0.0625</text>')
    '<path d="M 46.81 78 L 9 18"/> <text style="fill: red" x="1.23">0.0625</text>'
    """

    def short(found: re.Match[str]) -> str:
        words = re.sub(r"(\.[0-9]{2})[0-9]+", r"\1", " ".join(found[2].split()))
        return f' {found[1]}="{words}"'

    svg = re.sub(r' (d|x|y)="([^"]*)"', short, svg)
    svg = re.sub(r' transform="rotate\(-?0 [^"]*\)"', "", svg)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    return re.sub(r"\n\s*", "\n", svg)


def inline(svg: str, alt: str) -> str:
    """Return a saved figure as an element for the page: colours by role, its width left to the page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    for colour, role in ROLES.items():
        svg = re.sub(colour, f"var(--{role})", svg, flags=re.IGNORECASE)
    head, rest = svg.split(">", 1)
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    # matplotlib numbers its groups alike in every figure; only what is referred to (clip paths, marks) needs its id
    rest = re.sub(r'<g id="[a-zA-Z0-9.]*_[0-9]+(_[0-9]+)?"', "<g", rest)
    return f'{head} role="img" aria-label="{escape(alt)}" font-family="sans-serif">{_slim(rest)}'
