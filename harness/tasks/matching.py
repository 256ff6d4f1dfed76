"""Which anchor or region is asked to find which true box, and which of the others count."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.metrics.detection import pairwise_iou

NOTHING, UNCOUNTED = -1, -2
"""In place of a box: an anchor or region that is to find none, and one that does not count."""
UNITS = 4.0
"""Units of boxes as ``values``, to the side of an anchor or region, as the cells of `Detection` have them."""


def by_overlap(truth: Tensor, there: Tensor, boxes: Tensor, alike: float, unlike: float) -> Tensor:
    """Return which true box each box is to find, int64 (N,A), `NOTHING` or `UNCOUNTED`.

    It is the one that it overlaps most, by ``alike`` or more, or if no other box overlaps some true one more. Below
    ``unlike`` it is to find none.

    Args:
        truth: boxes (N,M,4).
        there: bool (N,M), False: no box.
        boxes: (N,A,4).
        alike, unlike: overlaps, the second no greater than the first.
    """
    overlap = pairwise_iou(truth, boxes) * there.unsqueeze(2)
    most, place = overlap.max(1)
    found = torch.where(most >= alike, place, torch.where(most < unlike, NOTHING, UNCOUNTED))
    best = (overlap == overlap.amax(2, keepdim=True)) & (overlap > 0)
    return torch.where(best.any(1), place, found)


def sampled(positive: Tensor, negative: Tensor, most: int, share: float) -> Tensor:
    """Return which anchors count, bool (N,A): some of an image, drawn by the global generator, which the loop seeds
    anew in every step.

    Args:
        positive, negative: bool (N,A).
        most: how many of an image, at most.
        share: of positive ones among them, at most.
    """
    drawn = torch.rand(positive.shape, device=positive.device)
    chosen = positive & (_rank(torch.where(positive, drawn, 2.0)) < int(most * share))
    rest = most - chosen.sum(1, keepdim=True)
    return chosen | (negative & (_rank(torch.where(negative, drawn, 2.0)) < rest))


def hardest(scores: Tensor, positive: Tensor, negative: Tensor, times: float) -> Tensor:
    """Return which anchors count, bool (N,A): the positive ones, and of an image ``times`` as many negative ones, those
    that are surest of a thing.

    Args:
        scores: how sure each is that there is a thing, (N,A), without gradient.
        positive, negative: bool (N,A).
        times: how many negative ones to a positive one.

    Source:
        Liu et al., SSD, ECCV 2016, arXiv:1512.02325, section 2.2, hard negative mining.
    """
    place = _rank(torch.where(negative, -scores, torch.inf))
    return positive | (negative & (place < times * positive.sum(1, keepdim=True)))


def _rank(values: Tensor) -> Tensor:
    return values.argsort(1).argsort(1)


def within(boxes: Tensor, truth: Tensor, chosen: Tensor) -> Tensor:
    """Return whether the centre of each box (N,A,4) lies in a true one that is chosen, bool (N,A).

    Args:
        boxes: (N,A,4).
        truth: (N,M,4).
        chosen: bool (N,M).
    """
    centres = (boxes[..., :2] + boxes[..., 2:]) / 2
    low = centres.unsqueeze(1) - truth[..., None, :2]
    high = truth[..., None, 2:] - centres.unsqueeze(1)
    return ((torch.minimum(low, high).amin(3) > 0) & chosen.unsqueeze(2)).any(1)


def units(boxes: Tensor) -> Tensor:
    """Return by what boxes that were moved from these, (N,A,4), are divided as ``values``: (N*A,1)."""
    area = boxes.unflatten(2, (2, 2)).diff(dim=2).clamp_min(1).prod(3).flatten()
    return (area.sqrt() / UNITS).unsqueeze(1)
