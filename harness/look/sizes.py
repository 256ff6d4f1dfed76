"""How large the objects of training images are, which decides how well region and box losses can be told apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from datasets.boxes import BoxSplits
from datasets.decoded import gather
from datasets.splits import VOID, Images, Splits

MOST_MASKS = 60
"""Masks of a part that are decoded to look at their pixels, evenly spaced."""
SMALL, LARGE = 32, 96
"""Sides of a square in pixels below which COCO calls an object small, and above which it calls it large."""
LEAST = 0.001
"""Share of an image below which an object is one of few pixels, on which IoU moves in large steps."""


def is_background(name: str) -> bool:
    """Return whether a class is what lies behind the objects, by its name."""
    return name.lower() in ("background", "bg", "other")


def some_masks(part: Images) -> Tensor:
    """Return at most `MOST_MASKS` masks of a part, evenly spaced: uint8 (N, H, W)."""
    rows = np.unique(np.linspace(0, len(part) - 1, min(len(part), MOST_MASKS)).astype(int))
    return gather([part.targets], torch.from_numpy(rows))[0]


def told(splits: Any) -> list[str]:
    """Return a sentence on the sizes of boxes, or of objects in masks, as they are trained on; none of other data."""
    if isinstance(splits, BoxSplits):
        return _of_boxes(splits.train.targets, splits.train.shape)
    if isinstance(splits, Splits) and splits.train.masked:
        return _of_masks(splits)
    return []


def _of_boxes(targets: Any, shape: tuple[int, int, int]) -> list[str]:
    boxes = targets[targets[..., 4] >= 0].double()
    sides = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).clamp_min(0).sqrt().numpy()
    return _sentence(sides, shape, "Boxes")


def _of_masks(splits: Splits) -> list[str]:
    """Return the sizes of what hangs together in masks, class by class, background and void left out."""
    masks = some_masks(splits.train).numpy()
    objects = [number for number, name in enumerate(splits.classes) if not is_background(name)]
    areas = [
        np.bincount(_connected(mask == number).ravel())[1:]
        for mask in masks
        for number in np.intersect1d(objects, np.unique(mask[mask != VOID]))
    ]
    return _sentence(np.sqrt(np.concatenate(areas)) if areas else np.zeros(0), splits.train.shape, "Objects in masks")


def _connected(mask: np.ndarray) -> np.ndarray:
    """Return the number of the object that each pixel belongs to, 0 for none."""
    found: Any = ndimage.label(mask)
    return found[0]


def _sentence(sides: np.ndarray, shape: tuple[int, int, int], what: str) -> list[str]:
    if not len(sides):
        return []
    low, middle, high = np.quantile(sides, (0.05, 0.5, 0.95))
    small, large = (sides < SMALL).mean(), (sides > LARGE).mean()
    tiny = (sides**2 < LEAST * shape[1] * shape[2]).mean()
    few = f"; {100 * tiny:.0f} % cover less than a thousandth of the image" if tiny >= 0.005 else ""
    return [
        f"{what} have a side (the root of their area) of {middle:.0f} pixels in the median, nine of ten from {low:.0f} "
        f"to {high:.0f}: {100 * small:.0f} % are small as COCO has it (below {SMALL}), {100 * large:.0f} % large "
        f"(above {LARGE}){few}."
    ]
