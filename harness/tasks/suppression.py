"""Which detections are left of those that lie on one another: greedy suppression, over all images of a batch."""

from __future__ import annotations

import torch
from torch import Tensor

AT_ONCE = 1 << 16
"""Pairs of detections that are compared at a time, so that they fit into a cache."""


def survivors(boxes: Tensor, labels: Tensor, there: Tensor, overlap: float) -> Tensor:
    """Return which detections are left after those that overlap a more certain one of their class are dropped (N,D).

    Args:
        boxes: corners x1, y1, x2, y2 (N,D,4), in each image in descending order of their scores.
        labels: their classes from 0 on, (N,D); those of what is no detection may be anything.
        there: which of them are detections, bool (N,D).
        overlap: intersection over union above which a detection is dropped, above 0.
    """
    boxes, left = boxes.flatten(0, 1), torch.zeros_like(there).flatten()
    place = there.flatten().nonzero().squeeze(1)
    label = labels.flatten()[place]
    group = place // there.shape[1] * (label.amax() + 1 if len(label) else 1) + label  # of an image and a class
    group, order = group.sort(stable=True)
    place, counts = place[order], group.unique_consecutive(return_counts=True)[1]
    starts = counts.cumsum(0) - counts
    # groups with about as many detections are compared together: pairs grow with the square of the most
    widths, rows = counts.sort()
    end, most = len(rows), widths.tolist()
    while end:
        width = most[end - 1]
        some = slice(max(0, end - max(1, AT_ONCE // width**2)), end)
        column = torch.arange(width, device=place.device)
        among = column < widths[some].unsqueeze(1)
        which = place[torch.where(among, starts[rows[some]].unsqueeze(1) + column, 0)]
        left[which[undropped(_drops(boxes[which], overlap), among)]] = True
        end = some.start
    return left.view_as(there)


def _drops(boxes: Tensor, overlap: float) -> Tensor:
    """Return which pairs of boxes (N,D,4) overlap by more than ``overlap``, bool (N,D,D)."""
    x1, y1, x2, y2 = boxes.unbind(2)
    # inner > overlap x union, where the union is the sum of the areas less inner
    least = overlap / (1 + overlap) * (x2 - x1).clamp_min(0) * (y2 - y1).clamp_min(0)

    def shared(low: Tensor, high: Tensor) -> Tensor:
        ends = torch.minimum(high.unsqueeze(2), high.unsqueeze(1))
        return ends.sub_(torch.maximum(low.unsqueeze(2), low.unsqueeze(1))).clamp_min_(0)

    return shared(x1, x2).mul_(shared(y1, y2)) > least.unsqueeze(2) + least.unsqueeze(1)


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
