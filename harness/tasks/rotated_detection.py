"""Rotated detection: many boxes in an image, at any angle, with a class each."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from datasets import joint_rotated
from datasets.decoded import in_memory
from harness.metrics.rotated import ROTATED, RotatedMetrics, hulls, rotated_iou
from harness.tasks import Batch, Lazy, Predict, Setup, Shift, Spec
from harness.tasks.assignment import Cells
from harness.tasks.detection import PRIOR, Detection, Maps, likeliest, with_background
from harness.tasks.suppression import undropped
from losses.kinds import Pair, Pairs
from losses.loss import Link


class RotatedDetection(Detection):
    """Images with rotated boxes. Every cell of a grid has a score for each class, and the box that it would put there.

    Boxes are centre x and y, width and height in pixels, and the angle in radians, as losses of rotated boxes take them
    (`losses.geometric`). A cell gives the centre relative to its own and the logarithms of the sides, in cells, and two
    numbers that point in the direction of twice the angle: so half a turn changes nothing, and the angle never jumps.

    Losses of values compare the same five numbers, all in cells. The angle is the arc that the end of the true box's
    longer side moves by, and the true angle the one of its half turns that is nearest to the predicted one.

    Raises:
        UsageError: a setting is out of its range, or the data set has no rotated boxes.
    """

    offers = Detection.offers - {"boxes"}
    evaluates = offers
    metrics = ROTATED
    role_kinds: ClassVar[Mapping[str, frozenset[str]]] = {
        **Detection.role_kinds,
        "boxes": frozenset({"rotated_boxes", "values"}),
    }
    made_for: ClassVar[str] = "rotated_detection"
    varied = staticmethod(joint_rotated.apply)

    def __init__(self, setup: Setup, weights: Mapping[str, float], nms: float, assignment: str, balance: str) -> None:
        super().__init__(setup, weights, nms, assignment, balance)
        self.spec = Spec(
            self.spec.inputs, {"objects": self.classes, "sides": 4, "angle": 2}, dense=True, classes=self.classes
        )

    @functools.cached_property
    def class_counts(self) -> Tensor:
        """How many training boxes each class has: (C,) on the device."""
        labels = in_memory(self.splits.train.targets)[..., 5].long().flatten()
        return torch.bincount(labels[labels >= 0], minlength=self.classes).to(self.device)

    def statistic(self, name: str) -> Any:
        """Return what `Detection.statistic` does; ``object_size`` is the mean root of the area of training boxes."""
        if name != "object_size":
            return super().statistic(name)
        targets = in_memory(self.splits.train.targets).flatten(0, 1)
        return float(targets[targets[:, 5] >= 0, 2:4].double().prod(1).sqrt().mean())

    # ------------------------------------------------------------------ cells and boxes

    def turned(self, outputs: Maps) -> tuple[Tensor, Tensor, Cells]:
        """Return scores (N,A,C) and boxes (N,A,5) of all cells, level after level, and where these lie."""
        *_, cells = self.cells(outputs)
        objects, sides, angle = (
            torch.cat([level.float().flatten(2) for level in outputs[kind]], 2).transpose(1, 2)
            for kind in ("objects", "sides", "angle")
        )
        cell = cells.sides.unsqueeze(1)
        centres = cells.centres + cell * sides[..., :2]
        lengths = cell * torch.minimum(sides[..., 2:], (max(self.size) / cell).log()).exp()
        angles = torch.atan2(angle[..., :1], 1 + angle[..., 1:]) / 2  # 1: upright at first, with a slope for all
        return objects + PRIOR, torch.cat([centres, lengths, angles], 2), cells

    def pairs(self, outputs: Maps, batch: Batch) -> Pairs:
        """Return the scores of all cells with 0 or 1, or with how well their boxes overlap those that they are asked to
        find (N,A,C); and the boxes of the P cells that are asked to find one, (P,5). Which these are the upright boxes
        around all decide.
        """
        scores, boxes, cells = self.turned(outputs)
        truth, labels = batch.target[..., :5], batch.target[..., 5].long()
        found = self.assigned(hulls(truth), labels, cells, scores.detach(), hulls(boxes.detach()))
        there, found = found >= 0, found.clamp_min(0)
        label = labels.gather(1, found).clamp_min(0)
        wanted = functional.one_hot(label, self.classes) * there.unsqueeze(2)
        # some losses are too slow to compare boxes that nobody asks for, so that the host waits for their number
        asked = there.flatten().nonzero().squeeze(1)
        matched = truth.gather(1, found.unsqueeze(2).expand(-1, -1, 5))
        pair = Pair(boxes.flatten(0, 1).index_select(0, asked), matched.flatten(0, 1).index_select(0, asked))
        side = cells.sides.expand_as(there).flatten().index_select(0, asked)

        def quality() -> Tensor:
            overlap = torch.zeros_like(there, dtype=scores.dtype).flatten()
            overlap.index_copy_(0, asked, rotated_iou(pair.prediction.detach(), pair.target))
            overlap = overlap.view_as(there)
            return wanted * self.quality(scores.detach(), overlap, label, there, found, truth.shape[1]).unsqueeze(2)

        return Lazy(
            {
                "binary_logits": lambda: Pair(scores, wanted.to(scores.dtype)),
                "quality_logits": lambda: Pair(scores, quality()),
                "class_logits": lambda: with_background(scores, there, label),
                "rotated_boxes": lambda: pair,
                "values": lambda: _values(pair, side),
            }
        )

    def found(self, outputs: Maps, link: Link = "sigmoid") -> tuple[Tensor, Tensor, Tensor]:
        """Return detections, in descending order of their scores: boxes (N,D,5), scores (N,D), classes (N,D) or -1.

        Arguments as in `Detection.found`.
        """
        logits, boxes, _ = self.turned(outputs)
        boxes, scores, labels, certain = likeliest(logits, boxes, link)
        return boxes, scores, torch.where(survivors(boxes, labels, certain, self.nms), labels, -1)

    def evaluate(self, predict: Predict, split: str, shift: Shift | None = None) -> dict[str, Any]:
        """Return what `RotatedMetrics` finds for a split, and the scores of every image in the test."""
        metrics = RotatedMetrics(self.classes, self.device)
        for images, targets in self.judged(split, predict, shift):
            metrics.add(*self.found(predict(images), predict.link), targets[..., :5], targets[..., 5].long())
        return metrics.scores() | ({"items": metrics.items(self.splits.test.index)} if split == "test" else {})

    @staticmethod
    def boxes_and_labels(targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the boxes (N,M,5) in targets, and their classes (N,M), -1: no box."""
        return targets[..., :5], targets[..., 5].long()

    @staticmethod
    def overlap(first: Tensor, second: Tensor) -> Tensor:
        """Return the overlaps (N,P,Q) of boxes (N,P,5) and (N,Q,5)."""
        return rotated_iou(*torch.broadcast_tensors(first.unsqueeze(2), second.unsqueeze(1)))

    @staticmethod
    def corners(boxes: Tensor) -> Tensor:
        """Return x and y of the corners of boxes (N,M,5), in their order around a box: (N,M,4,2)."""
        x, y, width, height, angle = boxes.unsqueeze(-2).unbind(-1)
        across = torch.tensor([-0.5, 0.5, 0.5, -0.5], device=boxes.device) * width
        down = torch.tensor([-0.5, -0.5, 0.5, 0.5], device=boxes.device) * height
        cos, sin = angle.cos(), angle.sin()
        return torch.stack([x + across * cos - down * sin, y + across * sin + down * cos], -1)


def survivors(boxes: Tensor, labels: Tensor, there: Tensor, overlap: float) -> Tensor:
    """Return which detections are left after those that overlap a more certain one of their class are dropped (N,D).

    Args:
        boxes: rotated ones (N,D,5), in each image in descending order of their scores.
        labels: their classes, (N,D).
        there: which of them are detections, bool (N,D).
        overlap: intersection over union above which a detection is dropped, above 0.
    """
    radius = torch.linalg.vector_norm(boxes[..., 2:4], dim=2) / 2
    near = torch.cdist(boxes[..., :2], boxes[..., :2]) < radius.unsqueeze(2) + radius.unsqueeze(1)
    near &= (labels.unsqueeze(2) == labels.unsqueeze(1)) & there.unsqueeze(2) & there.unsqueeze(1)
    image, one, other = near.triu(1).nonzero(as_tuple=True)  # only these can overlap
    drops = torch.zeros_like(near)
    drops[image, one, other] = rotated_iou(boxes[image, one], boxes[image, other]) > overlap
    return undropped(drops, there)


def _values(pair: Pair, side: Tensor) -> Pair:
    """Return boxes (P,5) in units of their cells, whose sides are (P,), the angle as an arc; see `RotatedDetection`."""
    turns = torch.round((pair.prediction[:, 4] - pair.target[:, 4]).detach() / math.pi)
    arm = pair.target[:, 2:4].amax(1) / 2
    scale = torch.cat([torch.ones_like(pair.target[:, :4]), arm.unsqueeze(1)], 1) / side.unsqueeze(1)
    nearest = torch.cat([pair.target[:, :4], (pair.target[:, 4] + turns * math.pi).unsqueeze(1)], 1)
    return Pair(pair.prediction * scale, nearest * scale)
