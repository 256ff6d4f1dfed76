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
from harness.report.sections import boxes
from harness.report.sections.classes import class_names
from harness.report.sections.common import cell_filters
from harness.text import slug

VOID = 255
GAP = 3  # white pixels between pictures, fewer between small ones
HEIGHT = (0.62, 1.1)  # inches of a row, least and greatest
PAGE = 8.3  # inches that pictures share
Pictures = np.ndarray[Any, Any]
Examples = dict[str, dict[str, Pictures]]
PARTS = {
    "reconstructed": "test images, evenly spaced in the list, and their reconstructions",
    "generated": "test images, evenly spaced in the list, and images generated from the same noise, which belong to no "
    "test image",
}


def section(a: Analysis) -> Section:
    """Return the figures of every cell whose records keep examples: masks, boxes, or generated images; else nothing."""
    return Section("examples", "Examples", tuple(figure for cell in a.cells for figure in _figures(a, cell)))


def _figures(a: Analysis, cell: Cell) -> list[Item]:
    kept = {}
    for label in a.labels:
        outcome = a.outcomes.get((cell, label))
        keys = outcome.keys if outcome else ()
        found = next((x for key in keys if (x := records.examples(key)) is not None), None)
        if found is not None:
            kept[a.name(label)] = found
    if not kept:
        return []
    arrays = next(iter(kept.values()))
    if "true_corners" in arrays:
        return _boxes(a, cell, kept)
    if "truth" in arrays:
        return [_masks(a, cell, kept)]
    return [_pictures(a, cell, kept, part) for part in PARTS if part in arrays]


def _masks(a: Analysis, cell: Cell, kept: Examples) -> Figure:
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


def _boxes(a: Analysis, cell: Cell, kept: Examples) -> list[Item]:
    """Return figures of what detectors find, so many losses in each as can be seen side by side."""
    known = max(int(max(found["labels"].max(), found["true_labels"].max())) for found in kept.values())
    names = class_names(a, cell, known + 1)
    parts, figures = boxes.blocks(list(kept)), []
    for number, labels in enumerate(parts, 1):
        shown = {label: kept[label] for label in labels}
        found = {label: boxes.tally(arrays) for label, arrays in shown.items()}
        caption = (
            f"{cell.title}: {len(kept[labels[0]]['images'])} test images, evenly spaced in the list, with their true "
            "boxes and those that each loss finds with a score of 0.3 or more, by its first seed. Dashed: no true box "
            f"of its class overlaps it by {boxes.HIT} or more. One seed shows what errors look like, not which loss is "
            "better."
        )
        alt = f"{caption} {'; '.join(f'{label}: {each}' for label, each in found.items())}."
        end = f"-{number}" if len(parts) > 1 else ""
        title = f"Boxes, {cell.short}" + (f" ({number} of {len(parts)})" if len(parts) > 1 else "")
        figures.append(
            Figure(
                f"examples-{slug(cell.title)}{end}", title, caption, alt, functools.partial(boxes.draw, shown, names),
                True, cell_filters(a, cell.values),
            )
        )  # fmt: skip
    return figures


def _pictures(a: Analysis, cell: Cell, kept: Examples, part: str) -> Figure:
    """Return a figure of images that models made, ``generated`` or ``reconstructed``, beside real ones."""
    caption = (
        f"{cell.title}: {PARTS[part]}, one column for each loss with its first seed. One seed shows what images look "
        "like, not which loss is better."
    )
    alt = f"{caption} Losses: {', '.join(kept)}."
    return Figure(
        f"examples-{part}-{slug(cell.title)}", f"Images {part}, {cell.short}", caption, alt,
        functools.partial(draw_images, kept, part), True, cell_filters(a, cell.values),
    )  # fmt: skip


def _accuracy(found: dict[str, Pictures]) -> float:
    counted = found["truth"] != VOID
    return float((found["prediction"] == found["truth"])[counted].mean())


def draw(kept: Examples) -> Drawing:
    """Return masks as one mosaic: for each image a row of masks and a row of errors.

    Args:
        kept: by loss, ``images`` uint8 (K, C, H, W), ``truth`` and ``prediction`` uint8 (K, H, W).
    """
    first = next(iter(kept.values()))
    colours = palette()
    rows = []
    for index, (image, truth) in enumerate(zip(first["images"], first["truth"], strict=True)):
        blank = np.full((*truth.shape, 3), 255, np.uint8)
        predictions = [found["prediction"][index] for found in kept.values()]
        rows.append([_coloured(image), colours[truth], *(colours[x] for x in predictions)])
        rows.append([blank, blank, *(_errors(x, truth) for x in predictions)])
    return _mosaic(rows, ["input", "truth", *kept])


def draw_images(kept: Examples, part: str) -> Drawing:
    """Return images as one mosaic: for each real image a row, and a column of those that each model made.

    Args:
        kept: by loss, ``images`` and the part, uint8 (K, C, H, W) of the same K, C, H and W.
        part: name of the made images.
    """
    images = next(iter(kept.values()))["images"]
    columns = [images, *(found[part] for found in kept.values())]
    return _mosaic([[_coloured(x) for x in row] for row in zip(*columns, strict=True)], ["test image", *kept])


def _coloured(image: Pictures) -> Pictures:
    """Return an image (C, H, W) of one or three channels as (H, W, 3)."""
    return (np.repeat(image, 3, 0) if len(image) == 1 else image).transpose(1, 2, 0)


def _mosaic(rows: list[list[Pictures]], titles: list[str]) -> Drawing:
    """Return rows of pictures (H, W, 3), all of one size, with a title above each column."""
    mosaic = np.concatenate([np.concatenate([_framed(x) for x in row], 1) for row in rows], 0)
    height, width = rows[0][0].shape[:2]
    gap = _gap(height)
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
            axes.text((index + 0.35) * (width + gap), -0.08 * height, title, rotation=35, fontsize=7.5, ha="left",
                      va="bottom", rotation_mode="anchor")  # fmt: skip
        return figure


def _gap(side: int) -> int:
    """Return how many white pixels are between pictures of that height."""
    return min(GAP, max(1, side // 8))


def _framed(picture: Pictures) -> Pictures:
    gap = _gap(len(picture))
    return np.pad(picture, ((0, gap), (0, gap), (0, 0)), constant_values=255)


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
