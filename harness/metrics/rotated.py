"""Rotated boxes: their exact overlap, and average precision by it.

A box is its centre x and y, width, height, and the angle in radians from the x axis to the side that is its width; y
points down, so that a positive angle turns clockwise on the screen. Half a turn changes nothing.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from harness.metrics.declared import Metric, error
from harness.metrics.detection import DETECTION, THRESHOLDS, average_precision, matched

KEPT = ("ap", "ap50", "ap75", "matched_iou")
ROTATED: tuple[Metric, ...] = (
    *(metric for metric in DETECTION if metric.key in KEPT),
    error("angle_error", "angle of found boxes, error in degrees", high=90.0),
)
"""Average precision as of upright boxes, by the overlap of rotated ones, and `turn_between` of the boxes found."""


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
    half = boxes[..., 2:4].clamp_min(0) / 2
    signs = torch.tensor([[-1, 1, 1, -1], [-1, -1, 1, 1]], dtype=half.dtype, device=half.device)
    across, down = signs.view(2, 4, *[1] * (half.ndim - 1)) * half.movedim(-1, 0).unsqueeze(1)
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


def suppressed(boxes: Tensor, groups: Tensor, there: Tensor, overlap: float) -> Tensor:
    """Return which boxes are left (N, D), bool, after those that overlap a more certain one of their group are dropped.

    Args:
        boxes: rotated boxes (N, D, 5), in each image in descending order of their scores.
        groups: of each, such as its class, (N, D): boxes of different groups may overlap.
        there: which of them are boxes, bool (N, D).
        overlap: intersection over union above which a box is dropped.
    """
    radius = torch.linalg.vector_norm(boxes[..., 2:4], dim=2) / 2
    near = torch.cdist(boxes[..., :2], boxes[..., :2]) < radius.unsqueeze(2) + radius.unsqueeze(1)
    near &= (groups.unsqueeze(2) == groups.unsqueeze(1)) & there.unsqueeze(2) & there.unsqueeze(1)
    image, one, other = near.triu(1).nonzero(as_tuple=True)  # of the others the overlap is 0, or nobody asks
    drops = torch.zeros_like(near)
    drops[image, one, other] = rotated_iou(boxes[image, one], boxes[image, other]) > overlap
    kept = there.clone()
    for each in range(boxes.shape[1] - 1):
        kept &= ~(drops[:, each] & kept[:, each, None])
    return kept


class RotatedMetrics:
    """Detections of a split: for each its score, its class, and the overlap with the rotated box that it matches.

    Args:
        classes: number of classes.
        device: where detections lie.
    """

    def __init__(self, classes: int, device: torch.device) -> None:
        self.classes = classes
        self.thresholds = torch.tensor(THRESHOLDS, dtype=torch.float64, device=device)
        self.kept: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        self.boxes = torch.zeros(classes, dtype=torch.int64, device=device)

    def add(self, boxes: Tensor, scores: Tensor, labels: Tensor, truth: Tensor, true_labels: Tensor) -> None:
        """Take a batch.

        Args:
            boxes: detections (N, D, 5), in each image in descending order of their scores.
            scores: (N, D).
            labels: their classes, (N, D); -1: no detection.
            truth: true boxes (N, M, 5).
            true_labels: their classes, (N, M); -1: no box.
        """
        boxes, truth = boxes.double(), truth.double()
        there = labels >= 0
        same = (labels.unsqueeze(2) == true_labels.unsqueeze(1)) & there.unsqueeze(2)
        overlap = torch.zeros(same.shape, dtype=torch.float64, device=same.device)
        image, one, other = same.nonzero(as_tuple=True)
        overlap[image, one, other] = rotated_iou(boxes[image, one], truth[image, other])
        best = matched(overlap, self.thresholds)
        partner = (overlap == best[..., :1]).to(torch.uint8).argmax(2, keepdim=True).expand(-1, -1, 5)
        turn = turn_between(boxes, truth.gather(1, partner))
        self.kept.append((scores[there], labels[there], best[there], turn[there]))
        self.boxes += torch.bincount(true_labels[true_labels >= 0], minlength=self.classes)

    def scores(self) -> dict[str, float | None]:
        """Return all metrics, means over the classes that occur.

        Returns:
            ``ap``: average precision, mean over `THRESHOLDS`; ``ap50`` and ``ap75``: at one of them; ``matched_iou``
            and ``angle_error``: mean overlap, and mean `turn_between`, of the detections that match at 0.5 and their
            boxes, or None where none does.
        """
        scores, labels, overlap, turn = (torch.cat(parts) for parts in zip(*self.kept, strict=True))
        right = overlap > 0
        mean = torch.stack(
            [
                average_precision(scores[labels == label], right[labels == label], boxes)
                for label, boxes in enumerate(self.boxes.tolist())
                if boxes
            ]
        ).mean(0)
        ap, ap50, ap75 = torch.stack([mean.mean(), mean[0], mean[5]]).tolist()
        hit = right[:, 0]
        found = {"matched_iou": overlap[hit, 0], "angle_error": turn[hit]}
        means = {name: float(each.mean()) if len(each) else None for name, each in found.items()}
        return {"ap": ap, "ap50": ap50, "ap75": ap75, **means}
