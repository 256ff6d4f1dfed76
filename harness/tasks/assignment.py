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
"""Side of the square around the centre of a cell whose overlap says which boxes it is made for, in cells."""
RADIUS = 1.5
"""Centre sampling: distance from the centre of a box along each axis up to which cells find it, in cells."""
REACH = 8.0
"""Centre sampling: greatest distance of an edge that a cell is asked for, in cells; the coarsest level has no limit."""
ALIGNED = 13
"""Task alignment: number of cells that find a box."""
SCORE_POWER, OVERLAP_POWER = 1.0, 6.0
"""Task alignment: powers of score and overlap (alpha and beta)."""


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
    as their mean and standard deviation together, and whose centres lie in it. A cell of several boxes takes the one
    that its square overlaps most.

    Args:
        truth: boxes (N,M,4).
        there: bool (N,M), False: no box.
        cells: of all levels.

    Source:
        Zhang et al., Bridging the Gap Between Anchor-based and Anchor-free Detection (ATSS), CVPR 2020,
        arXiv:1912.02424, algorithm 1; see `or_nearest` for what is ours.
    """
    half = ANCHOR / 2 * cells.sides.unsqueeze(1)
    overlap = pairwise_iou(truth, torch.cat([cells.centres - half, cells.centres + half], 1))  # (N,M,A)
    distance = torch.cdist(middle(truth), cells.centres)
    near, first = [], 0
    for level in distance.split(cells.counts, 2):
        near.append(first + level.topk(min(NEAREST, level.shape[2]), largest=False).indices)
        first += level.shape[2]
    near = torch.cat(near, 2)
    candidates = overlap.gather(2, near)
    least = candidates.mean(2) + candidates.std(2, correction=0)
    chosen = torch.zeros_like(overlap, dtype=torch.bool).scatter_(2, near, True)
    chosen &= (overlap >= least.unsqueeze(2)) & inside(truth, cells.centres)
    return claimed(or_nearest(chosen, truth, cells) & there.unsqueeze(2), overlap)


def centre(truth: Tensor, there: Tensor, cells: Cells) -> Tensor:
    """Return which box each cell is asked to find, int64 (N,A); -1: none.

    A box is found by the cells that lie in it and near its centre, on the level whose cells are made for distances as
    large as the farthest edge. A cell of several boxes takes the smallest. Arguments as in `atss`.

    Source:
        Tian et al., FCOS, ICCV 2019, arXiv:1904.01355, section 3.2, with the centre sampling of the authors' code
        (arXiv:2006.09214, section 3.2); see `or_nearest` for what is ours.
    """
    most = [REACH * side[:1] for side in cells.sides.split(cells.counts)]
    least = [torch.zeros_like(most[0]), *most[:-1]]
    most[-1] = torch.full_like(most[0], torch.inf)
    low, high = (
        torch.cat([limit.expand(count) for limit, count in zip(limits, cells.counts, strict=True)])
        for limits in (least, most)
    )
    farthest = torch.maximum(cells.centres - truth[..., None, :2], truth[..., None, 2:] - cells.centres).amax(3)
    away = (middle(truth).unsqueeze(2) - cells.centres).abs().amax(3)
    chosen = inside(truth, cells.centres) & (away < RADIUS * cells.sides) & (farthest > low) & (farthest <= high)
    area = (truth[..., 2:] - truth[..., :2]).prod(2)
    fit = (1 / (1 + area)).unsqueeze(2).expand_as(away)
    return claimed(or_nearest(chosen, truth, cells) & there.unsqueeze(2), fit)


def task_aligned(truth: Tensor, there: Tensor, cells: Cells, scores: Tensor, boxes: Tensor) -> Tensor:
    """Return which box each cell is asked to find, int64 (N,A); -1: none.

    A box is found by the cells in it that already do so best, by score^alpha * overlap^beta. A cell of several boxes
    takes the one that its own box overlaps most. First arguments as in `atss`.

    Args:
        scores: probability that each cell gives to the class of each box, (N,M,A), without gradient.
        boxes: of the cells, (N,A,4), without gradient.

    Source:
        Feng et al., TOOD, ICCV 2021, arXiv:2108.07755, section 3.2.1, equation 5, with the settings of the paper; for
        what it asks of the scores see `aligned_quality`, and `or_nearest` for what is ours.
    """
    overlap = pairwise_iou(truth, boxes)
    held = inside(truth, cells.centres)
    aligned = torch.where(held, alignment(scores, overlap), -1)
    best = aligned.topk(min(ALIGNED, aligned.shape[2])).indices
    chosen = torch.zeros_like(held).scatter_(2, best, True) & held
    return claimed(or_nearest(chosen, truth, cells) & there.unsqueeze(2), overlap)


def alignment(scores: Tensor, overlap: Tensor) -> Tensor:
    """Return how well cells find boxes, by the probability of the class and the overlap, both from 0 to 1."""
    return scores**SCORE_POWER * overlap**OVERLAP_POWER


def aligned_quality(scores: Tensor, overlap: Tensor, found: Tensor, boxes: int) -> Tensor:
    """Return what task alignment asks of the score of each cell, (N,A); 0 where it is to find no box.

    Of the cells of a box the best aligned one is asked for the greatest overlap among them, and the others for less in
    the proportion of their alignments, so that one cell of the thirteen is certain, and the one with the best box.

    Args:
        scores: probability that each cell gives to the class of its box, (N,A), without gradient.
        overlap: of its own box with that box, (N,A), without gradient.
        found: which box each is to find, (N,A); -1: none.
        boxes: M, the number of boxes of an image.

    Source:
        Feng et al., TOOD, ICCV 2021, arXiv:2108.07755, section 3.2.2, the normalised alignment of equation 6.
    """
    there, place = found >= 0, found.clamp_min(0)
    overlap = torch.where(there, overlap, 0)
    aligned = torch.where(there, alignment(scores, overlap), 0)
    greatest = [
        torch.zeros(len(found), max(1, boxes), dtype=values.dtype, device=found.device)
        .scatter_reduce(1, place, values, "amax")
        .gather(1, place)
        for values in (aligned, overlap)
    ]
    return aligned / greatest[0].clamp_min(torch.finfo(aligned.dtype).tiny) * greatest[1]


RULES = ("atss", "centre", "task_aligned")
"""Names of the rules."""


def or_nearest(chosen: Tensor, truth: Tensor, cells: Cells) -> Tensor:
    """Return which cells each box has chosen, bool (N,M,A): one that has none gets the cell nearest to its centre.

    This one is of the level whose squares (`ANCHOR`) are most nearly as large as the box, so that no box is without a
    cell because it lies between the centres of all. The papers leave such boxes out.
    """
    size = (truth[..., 2:] - truth[..., :2]).clamp_min(1).prod(2).sqrt()
    misfit = (size.unsqueeze(2) / (ANCHOR * cells.sides)).log().abs()
    distance = torch.cdist(middle(truth), cells.centres)
    nearest = torch.where(misfit == misfit.amin(2, keepdim=True), distance, torch.inf).argmin(2, keepdim=True)
    alone = torch.zeros_like(chosen).scatter_(2, nearest, True)
    return torch.where(chosen.any(2, keepdim=True), chosen, alone)


def middle(boxes: Tensor) -> Tensor:
    """Return the centres (...,2) of boxes (...,4)."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2


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
