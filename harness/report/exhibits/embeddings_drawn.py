"""Pictures of embeddings: neighbours, similarities of pairs, ROC, and a plane."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from harness.report.figures import BLUE, ORANGE, STYLE

Kept = dict[str, Mapping[str, np.ndarray[Any, Any]]]
"""What runs keep of the pictures, by loss; `harness.tasks.embedding.Embedding.examples` defines it."""
ACROSS = 4  # panels side by side
FRAME = 2  # pixels around a neighbour
LEAST_FALSE = 1e-4


def neighbours(kept: Kept) -> Figure:
    """Return for each loss a block of queries, one a row, and their neighbours, framed by whether they are right."""
    with mpl.rc_context(STYLE):
        figure, panels = _panels(len(kept), 1.9)
        for axes, (label, found) in zip(panels, kept.items(), strict=True):
            rows = [
                np.concatenate(
                    [_framed(query, None), *(_framed(x, bool(hit)) for x, hit in zip(near, right, strict=True))], 1
                )
                for query, near, right in zip(found["queries"], found["neighbours"], found["right"], strict=True)
            ]
            axes.imshow(np.concatenate(rows, 0), interpolation="nearest")
            axes.set_title(label, fontsize=7.5)
            axes.set_axis_off()
        return figure


def similarities(kept: Kept) -> Figure:
    """Return for each loss the distributions of the cosines of genuine pairs and of impostors."""
    with mpl.rc_context(STYLE):
        figure, panels = _panels(len(kept), 1.4)
        for axes, (label, found) in zip(panels, kept.items(), strict=True):
            for part, colour in (("impostors", ORANGE), ("genuine", BLUE)):
                edges = np.linspace(-1, 1, len(found[part]) + 1)
                axes.stairs(found[part], edges, color=colour, fill=True, alpha=0.55)
            axes.set_title(label, fontsize=7.5)
            axes.set_yticks([])
            axes.set_xticks([-1, 0, 1])
        return figure


def roc(kept: Kept) -> Figure:
    """Return the receiver operating characteristics of all losses in one panel."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.6, 3.4), layout="constrained")
        axes = figure.subplots()
        colours = mpl.colormaps["viridis"](np.linspace(0, 0.92, len(kept)))
        for number, (label, found) in enumerate(kept.items()):
            false = np.maximum(found["false"], LEAST_FALSE)
            line = ("-", "--", ":")[number % 3]
            axes.plot(false, found["true"], color=colours[number], linestyle=line, linewidth=1, label=label)
        axes.set_xscale("log")
        axes.set_xlim(LEAST_FALSE, 1)
        axes.set_ylim(0, 1)
        axes.set_xlabel("impostors accepted")
        axes.set_ylabel("genuine pairs accepted")
        axes.legend(fontsize=6, ncols=1 + len(kept) // 16, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
        return figure


def plane(kept: Kept) -> Figure:
    """Return for each loss the embeddings of a few classes in their main plane."""
    with mpl.rc_context(STYLE):
        figure, panels = _panels(len(kept), 1.9)
        for axes, (label, found) in zip(panels, kept.items(), strict=True):
            axes.scatter(*found["plane"].T, c=found["plane_class"], cmap="tab10", s=5, linewidths=0, vmin=0, vmax=9)
            axes.set_title(label, fontsize=7.5)
            axes.set_xticks([])
            axes.set_yticks([])
        return figure


DRAWERS: Mapping[str, Callable[[Kept], Figure]] = {
    "neighbours": neighbours,
    "similarities": similarities,
    "roc": roc,
    "plane": plane,
}


def _panels(count: int, height: float) -> tuple[Figure, list[Axes]]:
    """Return a figure with so many panels, ``ACROSS`` of them side by side, each of that height in inches."""
    across = min(ACROSS, count)
    down = -(-count // across)
    figure = Figure(figsize=(2.1 * across, height * down), layout="constrained")
    every = list(figure.subplots(down, across, squeeze=False).flat)
    for axes in every[count:]:
        axes.set_axis_off()
    return figure, every[:count]


def _framed(image: np.ndarray[Any, Any], right: bool | None) -> np.ndarray[Any, Any]:
    """Return an image (C, H, W) as (H, W, 3) with a frame: white for a query, else by whether it is right."""
    shown = (np.repeat(image, 3, 0) if len(image) == 1 else image).transpose(1, 2, 0)
    colour = np.full(3, 255) if right is None else np.rint(255 * np.array(to_rgb(BLUE if right else ORANGE)))
    framed = np.empty((shown.shape[0] + 2 * FRAME, shown.shape[1] + 2 * FRAME, 3), np.uint8)
    framed[:] = colour.astype(np.uint8)
    framed[FRAME:-FRAME, FRAME:-FRAME] = shown
    return framed
