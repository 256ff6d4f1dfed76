"""What detectors find: images with the true boxes, and with those of every loss, in the colours of their classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure as Drawing
from matplotlib.lines import Line2D
from matplotlib.patheffects import Normal, Stroke

from harness.report.figures import STYLE, WIDTH
from harness.text import count

Arrays = Mapping[str, np.ndarray[Any, Any]]
MOST = 8  # losses side by side in a figure
HIT = 0.5
"""Overlap with a true box of its class from which on a box is drawn as right."""
SHADES = ("#f0e442", "#56b4e9", "#ff8c1a", "#ff7ad1", "#19e0a2", "#ffffff", "#a58bff")
"""Colours of the first classes, which stand out on photographs and from each other, also for the colour-blind."""
PAGE = 8.3  # inches that pictures share
GAP = 0.04  # of a picture, between two of them
DASHES = (0, (2.2, 1.4))


class Found(NamedTuple):
    """How many boxes are drawn of a loss, how many of them are right, and how many objects there are."""

    drawn: int
    right: int
    objects: int

    def __str__(self) -> str:
        """Say it in words."""
        return f"{count(self.drawn, 'box', 'boxes')}, {self.right} right, for {count(self.objects, 'object')}"


def tally(kept: Arrays) -> Found:
    """Return what the examples of a run show; see `harness.tasks.detection.Detection.examples`."""
    drawn = kept["labels"] >= 0
    right = drawn & (kept["overlaps"] >= HIT)
    return Found(int(drawn.sum()), int(right.sum()), int((kept["true_labels"] >= 0).sum()))


def blocks(labels: Sequence[str]) -> list[Sequence[str]]:
    """Return the losses of each figure: as few figures as hold them, about as many in each.

    >>> [len(block) for block in blocks([str(i) for i in range(15)])], len(blocks(["a"]))
    ([8, 7], 1)
    """
    size = -(-len(labels) // -(-len(labels) // MOST))
    return [labels[start : start + size] for start in range(0, len(labels), size)]


def colours(classes: int) -> list[str]:
    """Return a colour for each class."""
    if classes <= len(SHADES):
        return list(SHADES[:classes])
    return [to_hex(colour) for colour in colormaps["hsv"](np.arange(classes) / classes)]


def draw(kept: Mapping[str, Arrays], names: Sequence[str]) -> Drawing:
    """Return a row of pictures for each image: with its true boxes, and with those of each loss; a box that is no hit
    is dashed.

    Args:
        kept: by loss, its examples.
        names: of the classes.
    """
    first = next(iter(kept.values()))
    images, shades = first["images"], colours(len(names))
    titles = ["truth", *kept]
    height, width = images.shape[2:]
    wide = min(1.6, PAGE / len(titles))
    high = wide * height / width
    above, below = 0.15 + 0.034 * max(map(len, titles)), 0.3  # room for titles that stand askew
    beside = max(0.05, *(0.047 * len(title) - wide * (i + 0.6) for i, title in enumerate(reversed(titles))))
    across = max(WIDTH, wide * len(titles) + beside)
    with mpl.rc_context(STYLE):
        figure = Drawing(figsize=(across, high * len(images) + above + below))
        tall = figure.get_figheight()
        for row, image in enumerate(images):
            picture = (np.repeat(image, 3, 0) if len(image) == 1 else image).transpose(1, 2, 0)
            for column, found in enumerate([None, *kept.values()]):
                place = (column * wide / across, (below + high * (len(images) - 1 - row)) / tall)
                size = (wide * (1 - GAP) / across, high * (1 - GAP) / tall)
                axes = figure.add_axes((*place, *size))
                axes.imshow(picture, interpolation="nearest", aspect="auto")
                _boxes(axes, first if found is None else found, row, shades, truth=found is None)
                axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
                axes.set_axis_off()
                if row == 0:
                    axes.text(0.3 * width, -0.06 * height, titles[column], rotation=35, fontsize=7.5, ha="left",
                              va="bottom", rotation_mode="anchor")  # fmt: skip
        _legend(figure, names, shades)
        return figure


def _boxes(axes: Axes, kept: Arrays, row: int, shades: Sequence[str], *, truth: bool) -> None:
    """Draw the boxes of an image, on a dark line that keeps them apart from bright pixels."""
    corners, labels = (kept[f"true_{name}" if truth else name][row] for name in ("corners", "labels"))
    right = np.ones(len(labels), bool) if truth else kept["overlaps"][row] >= HIT
    for hit in (False, True):
        here = (labels >= 0) & (right == hit)
        closed = [np.vstack([box, box[:1]]) - 0.5 for box in corners[here]]
        style: Any = "-" if hit else DASHES
        lines: Any = {"clip_on": True, "capstyle": "butt", "joinstyle": "miter"}
        axes.add_collection(LineCollection(closed, colors="#000000", linewidths=1.7, alpha=0.65, **lines))
        shown = [shades[int(label)] for label in labels[here]]
        axes.add_collection(LineCollection(closed, colors=shown, linewidths=0.95, linestyles=[style], **lines))


def _legend(figure: Drawing, names: Sequence[str], shades: Sequence[str]) -> None:
    if len(names) > len(SHADES):
        return  # too many to be told apart by colour
    handles: list[Any] = [
        Line2D([], [], color=shade, lw=2.2, label=f"class {name}") for name, shade in zip(names, shades, strict=True)
    ]
    legend = figure.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0, 0), ncols=len(handles), frameon=False, fontsize=7.5,
        handlelength=1.4, columnspacing=1.2, borderaxespad=0, borderpad=0.2,
    )  # fmt: skip
    for line in legend.get_lines():
        line.set_path_effects([Stroke(linewidth=3.2, foreground="#555555"), Normal()])
