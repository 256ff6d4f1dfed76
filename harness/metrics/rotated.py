"""Rotated boxes: their exact overlap, and average precision by it.

A box is its centre x and y, width, height, and the angle in radians from the x axis to the side that is its width; y
points down, so that a positive angle turns clockwise on the screen. Half a turn changes nothing.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.metrics import items
from harness.metrics.declared import Metric, error
from harness.metrics.detection import DETECTION, DetectionMetrics
from harness.metrics.detection_matching import Floats, Ints, Shape

ROTATED: tuple[Metric, ...] = (
    *DETECTION,
    error("angle_error", "angle of found boxes, error in degrees", high=90.0),
)
"""What upright boxes are judged by, with the overlap of rotated ones; and by how much those that are found are turned,
which a loss that finds fewer boxes may do better at."""


def rotated_iou(first: Tensor, second: Tensor) -> Tensor:
    """Return the overlaps (...), intersection over union, of rotated boxes (..., 5) and (..., 5), row by row.

    Exact but for rounding; 0 where neither box has an area.
    """
    shared = shared_area(first, second)
    union = area(first) + area(second) - shared
    return torch.where(union > 0, shared / torch.where(union > 0, union, 1), 0)


def area(boxes: Tensor) -> Tensor:
    """Return the areas (...) of rotated boxes (..., 5); a negative side counts as 0."""
    return boxes[..., 2:4].clamp_min(0).prod(-1)


def shared_area(first: Tensor, second: Tensor) -> Tensor:
    """Return the areas (...) that rotated boxes (..., 5) and (..., 5) share, row by row, exact but for rounding.

    Let every point of the border of one box move to the nearest point of the other box. What lies outside moves to the
    border there without crossing the inside, so the moved border still runs once around the intersection and around
    nothing else. It is a polygon whose area the shoelace formula gives, once each side is cut where it crosses the
    lines along the other box's sides.
    """
    first, second = torch.broadcast_tensors(first, second)
    u, v = _corners(first, second)
    du, dv = u.roll(-1, 0) - u, v.roll(-1, 0) - v
    across, down = (second[..., 2:4].clamp_min(0) / 2).unbind(-1)
    cuts = _ascending(*_crossings(u, du, across), *_crossings(v, dv, down))
    times = torch.stack([torch.zeros_like(cuts[0]), *cuts], 1)  # (4 sides, 5, ...)
    u, v = (
        (start.unsqueeze(1) + times * way.unsqueeze(1)).flatten(0, 1).clamp(-half, half)
        for start, way, half in ((u, du, across), (v, dv, down))
    )
    shared = (u * v.roll(-1, 0) - u.roll(-1, 0) * v).sum(0) / 2
    return torch.minimum(shared.clamp_min(0), torch.minimum(area(first), area(second)))


def _corners(boxes: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Return the corners of boxes (..., 5) in the axes of others about their centres: two coordinates (4, ...)."""
    width, height = (boxes[..., 2:4].clamp_min(0) / 2).unbind(-1)
    across = torch.stack([-width, width, width, -width])
    down = torch.stack([-height, -height, height, height])
    (x, y), angle = (boxes[..., :2] - other[..., :2]).unbind(-1), other[..., 4]
    turn = boxes[..., 4] - angle
    u = x * angle.cos() + y * angle.sin() + across * turn.cos() - down * turn.sin()
    v = y * angle.cos() - x * angle.sin() + across * turn.sin() + down * turn.cos()
    return u, v


def _crossings(start: Tensor, way: Tensor, half: Tensor) -> tuple[Tensor, Tensor]:
    """Return at which shares of their way, ascending, sides cross -half and half; the nearer end where they do not."""
    way = torch.where(way == 0, 1, way)  # a cut that is none does no harm
    one, other = (((line - start) / way).clamp(0, 1) for line in (-half, half))
    return torch.minimum(one, other), torch.maximum(one, other)


def _ascending(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return four numbers in ascending order, given a <= b and c <= d."""
    one, other = torch.maximum(a, c), torch.minimum(b, d)
    return torch.minimum(a, c), torch.minimum(one, other), torch.maximum(one, other), torch.maximum(b, d)


def hulls(boxes: Tensor) -> Tensor:
    """Return the smallest upright boxes (..., 4), x1, y1, x2, y2, that hold rotated ones (..., 5)."""
    sin, cos = boxes[..., 4].sin().abs(), boxes[..., 4].cos().abs()
    width, height = boxes[..., 2], boxes[..., 3]
    half = torch.stack([width * cos + height * sin, width * sin + height * cos], -1) / 2
    return torch.cat([boxes[..., :2] - half, boxes[..., :2] + half], -1)


def turn_between(first: Tensor, second: Tensor) -> Tensor:
    """Return the angles in degrees, from 0 to 90, between the longer sides of rotated boxes (..., 5) and (..., 5).

    So a box is the same whichever of its sides is called the width; of a square the height is the longer side.
    """
    first, second = (boxes[..., 4] + (boxes[..., 2] > boxes[..., 3]) * (math.pi / 2) for boxes in (first, second))
    return torch.asin((first - second).sin().abs().clamp_max(1)).rad2deg()


ROTATED_BOXES = Shape(shared_area, area)
"""Boxes (P, 5): centre x and y, width, height, angle."""


class RotatedMetrics(DetectionMetrics):
    """Detections and true boxes of a split, which are rotated: all metrics by their exact overlap, and their angles.

    Args:
        classes: number of classes.
        device: where detections lie.
    """

    def __init__(self, classes: int, device: torch.device) -> None:
        super().__init__(classes, device, ROTATED_BOXES)

    def scores(self) -> dict[str, Any]:
        """Return what `DetectionMetrics` does, and ``angle_error``: mean `turn_between` of the hits at 0.5 and their
        boxes, None without hits.
        """
        turns = self._turns()[1]
        return super().scores() | {"angle_error": float(turns.mean()) if len(turns) else None}

    def items(self, index: Tensor) -> dict[str, np.ndarray]:
        """Return what `DetectionMetrics` does, and the item scores of ``angle_error``, a ratio of sums over images."""
        image, turns = self._turns()
        if not len(turns):
            return super().items(index)
        influence = np.bincount(image, turns - turns.mean(), self.images) * self.images / len(turns)
        return super().items(index) | items.of_scores(index.numpy(), {"angle_error": turns.mean() + influence})

    def _turns(self) -> tuple[Ints, Floats]:
        """Return the image of each hit at 0.5, and by how many degrees it is turned."""
        found, truth, _, matches = self.matched
        hit = np.flatnonzero(matches.truth >= 0)
        true = truth.boxes[torch.from_numpy(matches.truth[hit])]
        return found.image[hit], turn_between(found.boxes[torch.from_numpy(hit)], true).numpy()
