"""The gradients that the program of the Distance-IoU paper descends, for IoU, GIoU, DIoU and CIoU.

They are worked out by hand there (github.com/Zzh-tju/DIoU, folder "simulation experiment", MATLAB), and this page says
the same in tensors. Beside the gradients of the losses they differ in this:

- A change of a side counts twice in what comes from IoU or GIoU: d/dw is taken as d/dright - d/dleft, which lacks the
  factor 1/2 of right = x + w/2 and left = x - w/2. The distance of DIoU and CIoU has the factor.
- In the distance, width and height of the enclosing box have one derivative, that of both axes together; its part in x
  and y has the opposite sign; a box that spans the target on an axis has -1 where the derivative is 1.
- GIoU of boxes that are apart has a union with a negative overlap (or, apart on both axes, a positive one).
- CIoU's aspect ratio lacks the factor 1/(w^2 + h^2), as the paper states.

`MENDED` undoes these one at a time, to see which of them decides an order of losses.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

HAND = ("iou", "giou", "diou", "ciou")
MENDED = {
    "": "as in the program",
    "halved": "the factor 1/2 put back into the sides' part of IoU and GIoU",
    "distance": "the true gradient of the distance of DIoU and CIoU; sides still count twice in IoU",
    "overlap": "no negative overlap in GIoU; sides still count twice",
}
"""What of the program is put right -> in words."""
EDGES = {"left": (0, -1), "right": (0, 1), "top": (1, -1), "bottom": (1, 1)}
"""Edge -> its axis, and the side of the centre on which it lies."""


def direction(name: str, boxes: Tensor, target: Tensor, mended: str = "") -> Tensor:
    """Return the way down (N, 4) in x, y, w, h that the program takes.

    Args:
        name: one of `HAND`.
        boxes, target: centre x, y, width, height, each (N, 4).
        mended: one of `MENDED`.
    """
    mine, other = _corners(boxes), _corners(target)
    low, high = torch.maximum(mine[0], other[0]), torch.minimum(mine[1], other[1])
    extent = high - low  # negative on an axis on which they are apart
    meet = (extent > 0).all(1)
    if name == "giou" and mended == "overlap":
        extent = extent * meet[:, None]
    overlap = extent.prod(1)
    union = boxes[:, 2:].prod(1) + target[:, 2:].prod(1) - overlap
    from_overlap, from_union = _overlap_and_union(
        mine, other, extent, boxes[:, 2:], counts=meet | (mended != "overlap")
    )
    slope = (union[:, None] * from_overlap - overlap[:, None] * from_union) / union.square()[:, None]
    slope = torch.where((meet & (union > 0))[:, None], slope, 0)
    if name == "giou":
        slope = slope + _cover(mine, other, union, from_union)
    found = _by_centre(slope, 0.5 if mended == "halved" else 1.0)
    if name in ("diou", "ciou"):
        found = found + _distance(boxes, target, mine, other, true=mended == "distance")
    if name == "ciou":
        found = found + _aspect(boxes, target, torch.where(meet, overlap / union, 0))
    return found


def _corners(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the upper left and the lower right corner, each (N, 2)."""
    return boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2


def _overlap_and_union(
    mine: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor], extent: Tensor, sides: Tensor, counts: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the slopes of overlap and union along the four edges, each (N, 4) in the order of `EDGES`."""
    overlap, area = [], []
    for axis, sign in EDGES.values():
        edge, limit = (mine[0], other[0]) if sign < 0 else (mine[1], other[1])
        inside = (sign * edge < sign * limit)[:, axis] & counts
        overlap.append(torch.where(inside, sign * extent[:, 1 - axis], 0))
        area.append(sign * sides[:, 1 - axis])
    return torch.stack(overlap, 1), torch.stack(area, 1) - torch.stack(overlap, 1)


def _cover(mine: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor], union: Tensor, from_union: Tensor) -> Tensor:
    """Return the slope of union / enclosing area along the four edges (N, 4)."""
    sides = torch.maximum(mine[1], other[1]) - torch.minimum(mine[0], other[0])
    area = sides.prod(1)
    slopes = []
    for axis, sign in EDGES.values():
        edge, limit = (mine[0], other[0]) if sign < 0 else (mine[1], other[1])
        slopes.append(torch.where((sign * edge > sign * limit)[:, axis], sign * sides[:, 1 - axis], 0))
    return (area[:, None] * from_union - union[:, None] * torch.stack(slopes, 1)) / area.square()[:, None]


def _by_centre(edges: Tensor, factor: float) -> Tensor:
    """Return slopes along the edges (N, 4) as slopes in x, y, w, h; the chain rule has the factor 1/2."""
    left, right, top, bottom = edges.unbind(1)
    return torch.stack([left + right, top + bottom, factor * (right - left), factor * (bottom - top)], 1)


def _distance(
    boxes: Tensor, target: Tensor, mine: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor], true: bool
) -> Tensor:
    """Return the way down of the squared distance of the centres over the squared diagonal of the enclosing box."""
    shift = target[:, :2] - boxes[:, :2]
    sides = torch.maximum(mine[1], other[1]) - torch.minimum(mine[0], other[0])
    before, behind = (mine[0] < other[0]).to(boxes.dtype), (mine[1] > other[1]).to(boxes.dtype)
    by_centre, by_side = behind - before, (behind + before) / 2
    squared, diagonal = shift.square().sum(1, keepdim=True), sides.square().sum(1, keepdim=True)
    if true:
        centre, side = -2 * sides * by_centre, 2 * sides * by_side
    else:
        spans = before * behind > 0
        # one derivative stands for width and height of the enclosing box; a box that spans the target has -1 in its own
        own = torch.where(spans, -1, by_side)
        centre = 2 * sides.sum(1, keepdim=True) * by_centre
        side = 2 * (sides * own + sides.flip(1) * by_side)
    return torch.cat([2 * shift * diagonal - centre * squared, side * squared], 1) / diagonal.square()


def _aspect(boxes: Tensor, target: Tensor, iou: Tensor) -> Tensor:
    """Return the way down of CIoU's term of aspect ratios, without the factor 1/(w^2 + h^2)."""
    (width, height), (target_width, target_height) = boxes[:, 2:].unbind(1), target[:, 2:].unbind(1)
    turn = (target_width / target_height).atan() - (width / height).atan()
    value = 4 / math.pi**2 * turn.square()
    weight = value / (1 - iou + value + 1e-7) * (8 / math.pi**2) * turn
    return torch.stack([torch.zeros_like(turn), torch.zeros_like(turn), weight * height, -weight * width], 1)
