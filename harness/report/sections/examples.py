"""What losses see: input, truth, and the prediction of every loss side by side, with what is wrong in it."""

from __future__ import annotations

import functools
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure as Drawing

from harness import records
from harness.analysis.cells import Analysis, Cell
from harness.report.figures import STYLE
from harness.report.items import Figure, Item, Section
from harness.report.sections.common import cell_filters
from harness.text import slug

VOID = 255
GAP = 3  # white pixels between pictures
HEIGHT = (0.62, 1.1)  # inches of a row, least and greatest
PAGE = 8.3  # inches that pictures share
Pictures = np.ndarray[Any, Any]


def section(a: Analysis) -> Section:
    """Return one figure per cell where the records keep examples; else nothing."""
    items: list[Item] = [figure for cell in a.cells if (figure := _figure(a, cell))]
    return Section("examples", "Examples", tuple(items))


def _figure(a: Analysis, cell: Cell) -> Figure | None:
    kept = {}
    for label in a.labels:
        outcome = a.outcomes.get((cell, label))
        keys = outcome.keys if outcome else ()
        found = next((x for key in keys if (x := records.examples(key)) is not None), None)
        if found is not None:
            kept[a.display(label)] = found
    if not kept:
        return None
    shown = {label: f"{_accuracy(found):.0%}" for label, found in kept.items()}
    images = len(next(iter(kept.values()))["truth"])
    caption = (
        f"{cell.title}: {images} test images, evenly spaced in the list, and the prediction of each loss with its "
        "first seed; below each, wrong pixels in black and void in grey. One seed shows what errors look like, not "
        "which loss is better."
    )
    alt = f"{caption} Correct pixels: {', '.join(f'{label} {share}' for label, share in shown.items())}."
    return Figure(
        f"examples-{slug(cell.title)}", f"Examples, {cell.short}", caption, alt, functools.partial(draw, kept), True,
        cell_filters(a, cell.values),
    )  # fmt: skip


def _accuracy(found: dict[str, Pictures]) -> float:
    counted = found["truth"] != VOID
    return float((found["prediction"] == found["truth"])[counted].mean())


def draw(kept: dict[str, dict[str, Pictures]]) -> Drawing:
    """Return the pictures as one mosaic: for each image a row of masks and a row of errors.

    Args:
        kept: by loss, ``images`` uint8 (K, C, H, W), ``truth`` and ``prediction`` uint8 (K, H, W).
    """
    first = next(iter(kept.values()))
    colours = palette()
    rows = []
    for index, (image, truth) in enumerate(zip(first["images"], first["truth"], strict=True)):
        blank = np.full((*truth.shape, 3), 255, np.uint8)
        picture = np.repeat(image, 3, 0) if len(image) == 1 else image
        predictions = [found["prediction"][index] for found in kept.values()]
        rows.append([picture.transpose(1, 2, 0), colours[truth], *(colours[x] for x in predictions)])
        rows.append([blank, blank, *(_errors(x, truth) for x in predictions)])
    mosaic = np.concatenate([np.concatenate([_framed(x) for x in row], 1) for row in rows], 0)
    titles = ["input", "truth", *kept]
    height, width = first["truth"].shape[1:]
    high = min(HEIGHT[1], max(HEIGHT[0], PAGE / len(titles) * height / width))
    wide = high * width / height
    above = 0.15 + 0.036 * max(map(len, titles))  # room for titles that stand askew, and beside the last ones
    beside = max(0.2, *(0.052 * len(title) - wide * (index + 0.65) for index, title in enumerate(reversed(titles))))
    with mpl.rc_context(STYLE):
        figure = Drawing(figsize=(wide * len(titles) + beside, high * len(rows) + above))
        axes = figure.add_axes((0.0, 0.0, wide * len(titles) / figure.get_figwidth(),
                                high * len(rows) / figure.get_figheight()))  # fmt: skip
        axes.imshow(mosaic, interpolation="nearest", aspect="auto")
        axes.set_axis_off()
        for index, title in enumerate(titles):
            axes.text((index + 0.35) * (width + GAP), -0.08 * height, title, rotation=35, fontsize=7.5, ha="left",
                      va="bottom", rotation_mode="anchor")  # fmt: skip
        return figure


def _framed(picture: Pictures) -> Pictures:
    return np.pad(picture, ((0, GAP), (0, GAP), (0, 0)), constant_values=255)


def _errors(prediction: Pictures, truth: Pictures) -> Pictures:
    shades = np.where(truth == VOID, 200, np.where(prediction == truth, 245, 0)).astype(np.uint8)
    return np.repeat(shades[..., None], 3, 2)


def palette() -> Pictures:
    """Return a colour for each class, uint8 (256, 3), as Pascal VOC assigns them; void is light grey.

    >>> palette()[[0, 1, 15]].tolist()
    [[0, 0, 0], [128, 0, 0], [192, 128, 128]]
    """
    colours = np.zeros((256, 3), np.uint8)
    labels = np.arange(256)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (((labels >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    colours[VOID] = 200
    return colours
