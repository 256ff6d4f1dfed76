"""Learning curves as small multiples, drawn straight into the figure.

Matplotlib's own axes take a tenth of a second each, which hundreds of panels make minutes; here a panel is a box in
inches, a transform into it, and its share of a few collections of lines.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Polygon
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Affine2D, Bbox, TransformedBbox

from harness.report.figures import BLUE, FAINT, INK, MUTED, NOTE, ORANGE, STYLE
from harness.text import MINUS

ACROSS, WIDTH, HEIGHT = 4, 1.85, 1.25  # panels in a row, inches of one with its gaps
LEFT, RIGHT, TOP, BOTTOM, GAP = 0.8, 0.12, 0.25, 0.5, 0.42  # inches
LONGEST = 26  # letters of a title on one line: more would reach beyond the last column
LETTERS = 22  # of a vertical label that fit beside one row of panels
TICK, PAD = 3.5 / 72, 7 / 72  # inches: length of a tick, distance of its label
Span = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """One panel of learning curves.

    Args:
        over: of the completed runs, by epoch, with columns mean, low and high.
        broken: of each diverged run, by epoch.
    """

    over: pd.DataFrame
    broken: tuple[pd.Series, ...]


class Panel:
    """A box in a figure with axes to the left and below."""

    def __init__(self, figure: Figure, box: Bbox, x: Span, y: Span) -> None:
        self.figure, self.box, self.x, self.y = figure, box, x, y
        scale = Affine2D().translate(-x[0], -y[0]).scale(box.width / (x[1] - x[0]), box.height / (y[1] - y[0]))
        self._transform = scale.translate(box.x0, box.y0) + figure.dpi_scale_trans
        self._clip = TransformedBbox(box, figure.dpi_scale_trans)

    def line(self, values: pd.Series, **style: Any) -> None:
        """Draw ``values`` over their index."""
        self._put(Line2D(values.index.to_numpy(float), values.to_numpy(float), **style))

    def band(self, low: pd.Series, high: pd.Series, **style: Any) -> None:
        """Fill what lies between two lines."""
        x = low.index.to_numpy(float)
        corners = np.column_stack([np.concatenate([x, x[::-1]]), np.concatenate([low, high[::-1]])])
        if len(corners):
            self._put(Polygon(corners, closed=True, **style))

    def _put(self, artist: Line2D | Polygon) -> None:
        artist.set_transform(self._transform)
        self.figure.add_artist(artist)
        artist.set_clip_box(self._clip)

    def note(self, x: float, y: float, words: str, **style: Any) -> None:
        """Write at a point given as shares of the box."""
        self.write(self.box.x0 + x * self.box.width, self.box.y0 + y * self.box.height, words, **style)

    def write(self, x: float, y: float, words: str, **style: Any) -> None:
        """Write at a point given in inches."""
        self.figure.add_artist(Text(x, y, words, transform=self.figure.dpi_scale_trans, **style))

    def ticks(self, span: Span, inches: Span, whole: bool = False) -> dict[float, float]:
        """Return round values within ``span`` and where they lie."""
        found = MaxNLocator(4, integer=whole).tick_values(*span)
        slack = 1e-9 * (span[1] - span[0])
        kept = [float(value) for value in found if span[0] - slack <= value <= span[1] + slack]
        return {v: inches[0] + (v - span[0]) / (span[1] - span[0]) * (inches[1] - inches[0]) for v in kept}


def curves(panels: Mapping[str, Curve], reference: str, axis: str, scale: float, shared: bool) -> Figure:
    """Return learning curves as small multiples: mean over seeds, range from least to greatest, diverged runs.

    Args:
        panels: by loss.
        reference: the baseline, drawn in grey behind every other loss where the axis is ``shared``.
        axis: what is drawn.
        scale: factor from the metric's unit to the axis.
        shared: one vertical axis for all panels.
    """
    with mpl.rc_context(STYLE):
        scaled = {
            label: Curve(curve.over * scale, tuple(run * scale for run in curve.broken))
            for label, curve in panels.items()
        }
        base = scaled[reference].over["mean"] if shared and reference in scaled else None
        across = min(ACROSS, len(panels))
        down = math.ceil(len(panels) / across)
        figure = Figure(figsize=(0.6 + WIDTH * across, 0.55 + HEIGHT * down))
        x = _around((index for curve in scaled.values() for index in _indices(curve)), 0.02)
        every = _around((value for curve in scaled.values() for value in _values(curve)), 0.05)
        floor = _focus(list(scaled.values())) if shared else None
        made = []
        for index, (label, curve) in enumerate(scaled.items()):
            y = (floor or every) if shared else _around(_values(curve), 0.05)
            panel = Panel(figure, _box(figure, across, down, index), x, y)
            made.append(panel)
            _draw(panel, curve, None if label == reference else base)
            long = len(label) > LONGEST  # in two lines, in letters that can still be read on a phone
            width = max(LONGEST, len(label) // 2 + 4)
            title, size = (textwrap.fill(label, width, break_on_hyphens=False), 7.2) if long else (label, 8)
            panel.write(panel.box.x0, panel.box.y1 + (2 if long else 6) / 72, title, fontsize=size, color=INK)
            if floor and len(curve.over) and (end := curve.over["mean"].iloc[-1]) < floor[0]:
                panel.note(0.97, 0.06, f"ends at {end:.3g}, below", **NOTE, color=INK)
        _frames(figure, made, across, shared)
        figure.supxlabel("epoch", fontsize=9)
        figure.supylabel(textwrap.fill(axis, LETTERS * down), fontsize=9)
        return figure


def _draw(panel: Panel, curve: Curve, base: pd.Series | None) -> None:
    if base is not None:
        panel.line(base, color=MUTED, lw=0.9, ls=(0, (3, 2)))
    panel.band(curve.over["low"], curve.over["high"], facecolor=BLUE, alpha=0.18, lw=0)
    panel.line(curve.over["mean"], color=BLUE, lw=1.3)
    for run in curve.broken:
        panel.line(run, color=ORANGE, lw=0.8)
        panel.line(run.iloc[-1:], color=ORANGE, marker="x", ms=4, mew=1.2)
    if curve.broken:
        panel.note(0.97, 0.22, f"{len(curve.broken)} diverged", **NOTE, color=ORANGE)


def _frames(figure: Figure, panels: Sequence[Panel], across: int, shared: bool) -> None:
    """Draw axes, ticks and grids of all panels, and labels where they are read: at the left and below."""
    grid, lines = [], []
    for index, panel in enumerate(panels):
        box = panel.box
        lines.append([(box.x0, box.y1), (box.x0, box.y0), (box.x1, box.y0)])
        across_ticks = panel.ticks(panel.x, (box.x0, box.x1), whole=True)
        up_ticks = panel.ticks(panel.y, (box.y0, box.y1))
        grid += [[(box.x0, at), (box.x1, at)] for at in up_ticks.values()]
        lines += [[(box.x0 - TICK, at), (box.x0, at)] for at in up_ticks.values()]
        lines += [[(at, box.y0 - TICK), (at, box.y0)] for at in across_ticks.values()]
        style: dict[str, Any] = {"fontsize": 8, "color": INK}
        if not shared or index % across == 0:
            for at, words in zip(up_ticks.values(), tick_labels(list(up_ticks)), strict=True):
                panel.write(box.x0 - PAD, at, words, ha="right", va="center_baseline", **style)
        if index + across >= len(panels):
            for at, words in zip(across_ticks.values(), tick_labels(list(across_ticks)), strict=True):
                panel.write(at, box.y0 - PAD, words, ha="center", va="top", **style)
    for segments, colour, width in ((grid, FAINT, 0.5), (lines, MUTED, 0.6)):
        every = LineCollection(segments, colors=colour, linewidths=width, zorder=0.5)
        every.set_transform(figure.dpi_scale_trans)
        figure.add_artist(every)


def tick_labels(values: Sequence[float]) -> list[str]:
    """Return numbers with as many decimals as tell them apart, those of an axis alike.

    >>> tick_labels([-0.5, 0.0, 0.5]), tick_labels([88.0, 92.0]), tick_labels([0.0, 2e7])
    (['−0.5', '0.0', '0.5'], ['88', '92'], ['0', '2e+07'])
    """
    greatest = max((abs(value) for value in values), default=0.0)
    if greatest >= 1e5 or 0 < greatest < 1e-3:
        texts = [f"{value:.4g}" for value in values]
    else:
        exact = (d for d in range(7) if all(abs(round(value, d) - value) <= 1e-9 * greatest for value in values))
        decimals = next(exact, 6)
        texts = [f"{value + 0.0:.{decimals}f}" for value in values]
    return [text.replace("-", MINUS, 1) if text.startswith("-") else text for text in texts]


def _box(figure: Figure, across: int, down: int, index: int) -> Bbox:
    width, height = figure.get_size_inches()
    inner_width = (width - LEFT - RIGHT - GAP * (across - 1)) / across
    inner_height = (height - BOTTOM - TOP - GAP * (down - 1)) / down
    row, column = divmod(index, across)
    bottom = height - TOP - (row + 1) * inner_height - row * GAP
    return Bbox.from_bounds(LEFT + column * (inner_width + GAP), bottom, inner_width, inner_height)


def _indices(curve: Curve) -> Iterable[float]:
    return (float(epoch) for part in (curve.over, *curve.broken) for epoch in part.index)


def _values(curve: Curve) -> Iterable[float]:
    return (float(value) for part in (curve.over, *curve.broken) for value in part.to_numpy().ravel())


def _around(values: Iterable[float], margin: float) -> Span:
    found = list(values) or [0.0, 1.0]
    low, high = min(found), max(found)
    if high - low <= 1e-9 * max(abs(low), abs(high)):  # one epoch, or a level line
        low, high = low - (0.05 * abs(low) or 0.05), high + (0.05 * abs(high) or 0.05)
    return low - margin * (high - low), high + margin * (high - low)


def _focus(panels: Sequence[Curve]) -> Span | None:
    """Give the vertical axis to where curves end: the first epochs and a loss that fails would flatten all others."""
    late = [curve.over.iloc[len(curve.over) // 4 :] for curve in panels if len(curve.over)]
    if not late:
        return None
    low = float(np.nanquantile([frame["low"].min() for frame in late], 0.25))
    high = float(np.nanmax([frame["high"].max() for frame in late]))
    if not (math.isfinite(low) and high > low):
        return None
    return low - 0.15 * (high - low), high + 0.05 * (high - low)
