"""A few training images as they are given to a model, with their labels, masks or boxes drawn in."""

from __future__ import annotations

import base64
import colorsys
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from datasets.decoded import gather
from datasets.splits import VOID, Splits
from harness.look import sizes
from harness.text import count, joined

MOST = 24
LEAST_SIDE, MOST_SIDE = 160, 320
"""Pixels of the longer side as drawn: small images are enlarged by a whole number, large ones reduced."""
COVER = 0.55
"""How much of a pixel's colour is that of its class."""
TURN = 0.381966
"""The golden section of a circle of hues, so that neighbouring classes differ most."""


@dataclass(frozen=True)
class Picture:
    """One image: ``source``, a data address of a PNG; ``words``, its class, or what its mask or boxes hold."""

    source: str
    words: str


def colour(number: int) -> tuple[int, int, int]:
    """Return the colour of a class, red, green and blue from 0 to 255.

    >>> colour(0), colour(1) != colour(2)
    ((235, 59, 59), True)
    """
    red, green, blue = colorsys.hsv_to_rgb(number * TURN % 1, 0.75, 0.92)
    return round(255 * red), round(255 * green), round(255 * blue)


def drawn(splits: Any, most: int = MOST) -> tuple[Picture, ...]:
    """Return at most ``most`` training images: of classes in turn, or evenly spaced where an image has several.

    Args:
        splits: images with a class each, several labels, masks or boxes; of tables there are none.
        most: how many.
    """
    if not isinstance(splits, Splits):
        return ()
    part, classes = splits.train, splits.classes
    chosen = torch.from_numpy(_rows(part.targets, len(part), most))
    images, targets = gather([part.images, part.targets], chosen)
    return tuple(_picture(image.numpy(), target, classes) for image, target in zip(images, targets, strict=True))


def _rows(targets: Any, items: int, most: int) -> np.ndarray:
    """Return distinct rows in ascending order of class: the first of each class, the second, until there are enough."""
    if targets.ndim != 1:
        return np.unique(np.linspace(0, items - 1, min(items, most)).astype(int))
    labels = targets.numpy()
    order = np.argsort(labels, kind="stable")
    ordered = labels[order]
    turn = np.arange(items) - np.searchsorted(ordered, ordered)
    kept = np.sort(np.lexsort((ordered, turn))[:most])
    return order[kept]


def _picture(image: np.ndarray, target: Tensor, classes: Sequence[str]) -> Picture:
    colours = (image if len(image) == 3 else np.repeat(image[:1], 3, 0)).transpose(1, 2, 0)
    if target.ndim == 2 and target.shape == colours.shape[:2]:
        mask = target.numpy().astype(int)
        return Picture(_encoded(_enlarged(_covered(colours, mask, classes))), _in_mask(mask, classes))
    if target.ndim == 2:
        boxes = [row for row in target.tolist() if row[4] >= 0]
        return Picture(_encoded(_with_boxes(colours, boxes)), _in_boxes(boxes, classes))
    found = [int(target)] if target.ndim == 0 else target.nonzero().flatten().tolist()
    return Picture(_encoded(_enlarged(colours)), joined([classes[number] for number in found]) or "no label")


def _factor(height: int, width: int) -> float:
    longer = max(height, width)
    return MOST_SIDE / longer if longer > MOST_SIDE else float(-(-LEAST_SIDE // longer))


def _enlarged(colours: np.ndarray) -> Image.Image:
    height, width = colours.shape[:2]
    factor = _factor(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    way = Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.BOX
    return Image.fromarray(np.ascontiguousarray(colours)).resize(size, way)


def _covered(colours: np.ndarray, mask: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Return an image in the colours of its mask: background as it is, void darkened."""
    table = np.zeros((VOID + 1, 3))
    table[: len(classes)] = [colour(number) for number in range(len(classes))]
    share = np.full(VOID + 1, COVER)
    share[[number for number, name in enumerate(classes) if sizes.is_background(name)]] = 0
    cover = share[mask][..., None]
    return (colours * (1 - cover) + table[mask] * cover).round().astype(np.uint8)


def _with_boxes(colours: np.ndarray, boxes: Sequence[Sequence[float]]) -> Image.Image:
    picture = _enlarged(colours)
    across, down = picture.width / colours.shape[1], picture.height / colours.shape[0]
    pen = ImageDraw.Draw(picture)
    for left, top, right, bottom, number, *_ in boxes:
        corners = (left * across, top * down, max(left, right) * across - 1, max(top, bottom) * down - 1)
        outline = (*corners[:2], max(corners[0], corners[2]), max(corners[1], corners[3]))
        pen.rectangle(outline, outline=colour(int(number)), width=2)
    return picture


def _in_mask(mask: np.ndarray, classes: Sequence[str]) -> str:
    counts = np.bincount(mask.ravel(), minlength=VOID + 1)
    pairs = [(number, name) for number, name in enumerate(classes) if counts[number]]
    shown = sorted(pairs, key=lambda pair: -counts[pair[0]])[:3]
    words = [f"{name} {100 * counts[number] / mask.size:.0f} %" for number, name in shown]
    return ", ".join([*words, *([f"{len(pairs) - 3} more"] if len(pairs) > 3 else [])]) or "void alone"


def _in_boxes(boxes: Sequence[Sequence[float]], classes: Sequence[str]) -> str:
    names = list(dict.fromkeys(classes[int(row[4])] for row in boxes))
    ignored = sum(len(row) > 5 and row[5] > 0 for row in boxes)
    words = f"{count(len(boxes), 'box', 'boxes')}{': ' if names else ''}{', '.join(names[:4])}"
    words += f" and {len(names) - 4} more" if len(names) > 4 else ""
    return f"{words}; {ignored} not trained on" if ignored else words


def _encoded(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
