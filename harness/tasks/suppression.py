"""Which detections are left of those that lie on one another: greedy suppression, over all images of a batch."""

from __future__ import annotations

import torch
from torch import Tensor

AT_ONCE = 1 << 18
"""Pairs of detections that are compared at a time, so that they fit into a cache."""


def survivors(boxes: Tensor, labels: Tensor, there: Tensor, overlap: float) -> Tensor:
    """Return which detections are left after those that overlap a more certain one of their class are dropped (N,D).

    Args:
        boxes: corners x1, y1, x2, y2 (N,D,4), in each image in descending order of their scores.
        labels: their classes, (N,D).
        there: which of them are detections, bool (N,D).
        overlap: intersection over union above which a detection is dropped, above 0.
    """
    left = torch.zeros_like(there)
    ends = (there * torch.arange(1, there.shape[1] + 1, device=there.device)).amax(1)
    # images with about as many detections are compared together: pairs grow with the square of the most
    widths, order = ends.sort()
    end, counts = len(order), widths.tolist()
    while end and (width := counts[end - 1]):
        start = max(0, end - max(1, AT_ONCE // width**2))
        rows = order[start:end]
        some, classes, among = (values[rows, :width] for values in (boxes, labels, there))
        left[rows, :width] = undropped(_drops(some, classes, overlap), among)
        end = start
    return left


def _drops(boxes: Tensor, labels: Tensor, overlap: float) -> Tensor:
    """Return which pairs of a class overlap by more than ``overlap``, bool (N,D,D)."""
    x1, y1, x2, y2 = boxes.unbind(2)
    # inner > overlap x union, where the union is the sum of the areas less inner
    least = overlap / (1 + overlap) * (x2 - x1).clamp_min(0) * (y2 - y1).clamp_min(0)

    def shared(low: Tensor, high: Tensor) -> Tensor:
        ends = torch.minimum(high.unsqueeze(2), high.unsqueeze(1))
        return ends.sub_(torch.maximum(low.unsqueeze(2), low.unsqueeze(1))).clamp_min_(0)

    drops = shared(x1, x2).mul_(shared(y1, y2)) > least.unsqueeze(2) + least.unsqueeze(1)
    classes = labels.float()  # which are compared faster than integers of twice their size
    return drops.logical_and_(classes.unsqueeze(2) == classes.unsqueeze(1))


def undropped(drops: Tensor, there: Tensor) -> Tensor:
    """Return which of D items in order are left (N,D) when each that is left drops others that come after it.

    Item j is left unless one before it that is left drops it. Started from all of them, this settles the first item,
    then every item that only settled ones could drop: as many rounds as the longest chain of them, a handful.

    Args:
        drops: bool (N,D,D), whether the first of two would drop the second; only its upper triangle counts.
        there: which of them are items at all, bool (N,D).
    """
    drops = drops.triu(1).to(torch.float32)
    left, before = there, None
    while before is None or not torch.equal(left, before):
        before = left
        left = there & (torch.bmm(before.unsqueeze(1).to(drops.dtype), drops).squeeze(1) == 0)
    return left
