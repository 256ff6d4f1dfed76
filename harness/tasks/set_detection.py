"""Detection by sets: a fixed number of queries answer for all objects, each object by one of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import box_convert

from harness.metrics.detection import pairwise_iou
from harness.tasks import Setup, Spec
from harness.tasks.assignment import Cells
from harness.tasks.detection import PRIOR, Detection, Maps

CERTAINTY, DISTANCE, OVERLAP = 2.0, 5.0, 2.0
"""Weights in the cost of a query for a box: of its score, of the difference of the boxes, of their overlap (GIoU)."""
IMPOSSIBLE = 1e6
"""Cost where a model gives NaN."""


class SetDetection(Detection):
    """Images with boxes, each found by exactly one query of a model: the pairs of the least cost (Hungarian matching).

    As in `Detection`, with queries in place of cells. Boxes as ``values`` are in units of the longer side of the image.
    In training every layer of the decoder answers, and each is matched by itself. No detections are suppressed. The
    cost is the same for every loss, so that every loss is asked for boxes by the same rule.

    Args:
        setup: which data, and where.
        weights: of the losses of the roles ``classes`` and ``boxes``.
        balance: as for `Detection`.

    Source:
        Carion et al., DETR, ECCV 2020, arXiv:2005.12872, section 3.1; weights of the cost as in Zhu et al., Deformable
        DETR, ICLR 2021, arXiv:2010.04159.
    """

    made_for: ClassVar[str] = "detection"

    def __init__(self, setup: Setup, weights: Mapping[str, float], balance: str) -> None:
        super().__init__(setup, weights, nms=1.0, assignment="atss", balance=balance)
        self.spec = Spec(self.spec.inputs, {"objects": self.classes, "places": 4}, dense=True, classes=self.classes)
        self.extent = torch.tensor([*self.size[::-1], *self.size[::-1]], dtype=torch.float32, device=self.device)

    def cells(self, outputs: Maps) -> tuple[Tensor, Tensor, Cells]:
        """Return scores (N,A,C) and boxes (N,A,4) of the queries, layer after layer. They have no place of their own,
        so that none lies in a box that is ignored.
        """
        (objects,), (places,) = outputs["objects"], outputs["places"]
        layers, queries = objects.shape[2:]
        scores, centred = (found.float().flatten(2).transpose(1, 2) for found in (objects, places))
        boxes = box_convert(centred.sigmoid(), "cxcywh", "xyxy") * self.extent
        nowhere = torch.full((layers * queries, 2), -1.0, device=self.device)
        sides = torch.full((layers * queries,), float(max(self.size)), device=self.device)
        return scores + PRIOR, boxes, Cells(nowhere, sides, (queries,) * layers)

    def assigned(self, truth: Tensor, labels: Tensor, cells: Cells, scores: Tensor, boxes: Tensor) -> Tensor:
        """Return which box each query is asked to find, int64 (N,A), matched layer by layer; -1: none.

        Arguments as in `Detection.assigned`. Matching goes through the images one by one, on the CPU.
        """
        own = labels.clamp_min(0).unsqueeze(1).expand(-1, scores.shape[1], -1)
        span = float(max(self.size))
        differences = (boxes.unsqueeze(2) - truth.unsqueeze(1)).abs().sum(3) / span
        cost = (
            DISTANCE * differences - CERTAINTY * scores.sigmoid().gather(2, own) - OVERLAP * pairwise_giou(boxes, truth)
        )
        cost = cost.nan_to_num(IMPOSSIBLE, IMPOSSIBLE, IMPOSSIBLE)
        return hungarian(cost, labels >= 0, cells.counts)


def hungarian(cost: Tensor, there: Tensor, counts: tuple[int, ...]) -> Tensor:
    """Return which box each query is asked to find, int64 (N,A); -1: none.

    In every image and layer as many pairs as there are boxes, or queries if these are fewer, such that their costs add
    up to the least.

    Args:
        cost: of each query for each box, (N,A,M), finite.
        there: bool (N,M), False: no box.
        counts: number of queries of each layer, which add up to A.
    """
    table, real = cost.cpu().double().numpy(), there.cpu().numpy()
    found = torch.full(cost.shape[:2], -1)
    for image, boxes in enumerate(real):
        columns = boxes.nonzero()[0]
        first = 0
        for count in counts:
            rows, matched = linear_sum_assignment(table[image, first : first + count][:, columns])
            found[image, first + torch.from_numpy(rows)] = torch.from_numpy(columns[matched])
            first += count
    return found.to(cost.device)


def pairwise_giou(first: Tensor, second: Tensor) -> Tensor:
    """Return the generalised overlaps (N,P,Q) of boxes (N,P,4) and (N,Q,4), in [-1, 1].

    Source:
        Rezatofighi et al., GIoU, CVPR 2019, arXiv:1902.09630, algorithm 1.
    """
    overlap = pairwise_iou(first, second)
    first, second = first.unsqueeze(2), second.unsqueeze(1)
    hull = (torch.maximum(first[..., 2:], second[..., 2:]) - torch.minimum(first[..., :2], second[..., :2])).prod(3)
    areas = [(boxes[..., 2:] - boxes[..., :2]).prod(3) for boxes in (first, second)]
    # of intersection I and union U, I / U is the overlap, and I + U the areas together
    union = (areas[0] + areas[1]) / (1 + overlap)
    return overlap - 1 + union / hull.clamp_min(1e-12)
