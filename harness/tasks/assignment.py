"""Which cell of a detector is asked to find which box: the rules of ATSS, of centre sampling and of task alignment.

All take a whole batch, and none depends on the loss, so that every loss is asked for the same.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from harness.metrics.detection import pairwise_iou

NEAREST = 9
"""ATSS: cells of a level near the centre of a box that may be asked to find it."""
ANCHOR = 4.0
"""ATSS: side of the square around the centre of a cell whose overlap decides which of them are, in cells."""


class Cells(NamedTuple):
    """The cells of all levels of a detector, finest level first.

    Attributes:
        centres: x and y in pixels, (A,2).
        sides: in pixels, (A,).
        counts: number of cells of each level, which add up to A.
    """

    centres: Tensor
    sides: Tensor
    counts: tuple[int, ...]


def atss(truth: Tensor, there: Tensor, cells: Cells) -> Tensor:
    """Return which box each cell is asked to find, int64 (N,A); -1: none.

    Of the cells of every level nearest to the centre of a box those find it whose squares overlap it at least as much
    as their mean and standard deviation together, and whose centres lie in it; the one that overlaps it most in any
    case. A cell of several boxes takes the one that its square overlaps most.

    Args:
        truth: boxes (N,M,4).
        there: bool (N,M), False: no box.
        cells: of all levels.

    Source:
        Zhang et al., Bridging the Gap Between Anchor-based and Anchor-free Detection (ATSS), CVPR 2020,
        arXiv:1912.02424, algorithm 1. That a box always finds a cell is ours.
    """
    half = ANCHOR / 2 * cells.sides.unsqueeze(1)
    overlap = pairwise_iou(truth, torch.cat([cells.centres - half, cells.centres + half], 1))  # (N,M,A)
    distance = torch.cdist((truth[..., :2] + truth[..., 2:]) / 2, cells.centres)
    near, first = [], 0
    for level in distance.split(cells.counts, 2):
        near.append(first + level.topk(min(NEAREST, level.shape[2]), largest=False).indices)
        first += level.shape[2]
    near = torch.cat(near, 2)
    candidates = overlap.gather(2, near)
    least = candidates.mean(2) + candidates.std(2, correction=0)
    chosen = torch.zeros_like(overlap, dtype=torch.bool).scatter_(2, near, True)
    chosen &= (overlap >= least.unsqueeze(2)) & inside(truth, cells.centres)
    best = near.gather(2, candidates.argmax(2, keepdim=True))
    return claimed(chosen.scatter(2, best, True) & there.unsqueeze(2), overlap)


def inside(boxes: Tensor, points: Tensor) -> Tensor:
    """Return whether each point (A,2) lies in each box (N,M,4): bool (N,M,A)."""
    low, high = points - boxes[..., None, :2], boxes[..., None, 2:] - points
    return torch.minimum(low, high).amin(3) > 0


def claimed(chosen: Tensor, fit: Tensor) -> Tensor:
    """Return for each cell the box that it fits best of those that have chosen it, int64 (N,A); -1: none has.

    Args:
        chosen: bool (N,M,A).
        fit: from 0 on, (N,M,A).
    """
    best, found = torch.where(chosen, fit, -1).max(1)
    return torch.where(best >= 0, found, -1)
