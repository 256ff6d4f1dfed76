"""Detection: many boxes in an image, with a class each."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import batched_nms

from datasets.decoded import in_memory
from harness.errors import UsageError
from harness.metrics.detection import DETECTION, DetectionMetrics, pairwise_iou
from harness.tasks import Batch, Lazy, Predict, Seeds, Setup, Shift, Spec
from harness.tasks.assignment import Cells, atss, inside
from harness.tasks.images import ImageTask
from harness.tasks.localisation import filled, object_size
from losses.kinds import Pair, Pairs

PRIOR = math.log(0.01 / 0.99)
"""Score of every class before training, so that the many empty cells do not drown the rest (Lin et al., RetinaNet)."""
KEPT, CERTAIN = 100, 0.05
"""Detections of an image that are evaluated at most, and their least score."""
SHOWN, DRAWN = 4, 0.3
"""Test images that a run keeps for the report to show, and the least score of the boxes in them."""

Maps = Mapping[str, tuple[Tensor, ...]]
"""What a detector returns: by kind of output a map (N, K, h, w) for every level, the finest first."""


class Detection(ImageTask):
    """Images with boxes. Every cell of a grid has a score for each class, and the box that it would put there.

    Boxes are corners in pixels; as ``values`` they are in units of a cell, so that differences are about as large as
    losses of overlap are.

    Args:
        setup: which data, and where.
        weights: factor on the loss of each role, ``classes`` and ``boxes``.
        nms: overlap from which on the less certain of two detections of a class is dropped.

    Raises:
        UsageError: a setting is out of its range, or the data set has no boxes.
    """

    offers = frozenset({"binary_logits", "quality_logits", "boxes", "values"})
    evaluates = offers
    metrics = DETECTION
    roles: ClassVar[Mapping[str, tuple[str, ...]]] = {"model": ("classes", "boxes")}
    role_kinds: ClassVar[Mapping[str, frozenset[str]]] = {
        "classes": frozenset({"binary_logits", "quality_logits"}),
        "boxes": frozenset({"boxes", "values"}),
    }
    made_for: ClassVar[str] = "detection"

    def __init__(self, setup: Setup, weights: Mapping[str, float], nms: float) -> None:
        super().__init__(setup)
        self.weights, self.nms = weights, nms
        if not 0 < nms <= 1:
            raise UsageError(f"task.nms is {nms}; it must be above 0 and at most 1.")
        if others := [name for name, value in self.augment.items() if value and name != "colour"]:
            raise UsageError(f"detection changes colours only: set dataset.augment.{others[0]}=null.")
        channels, *self.size = self.splits.train.images.shape[1:]
        self.spec = Spec(
            (channels, *self.size), {"objects": self.classes, "sides": 4}, dense=True, classes=self.classes
        )

    @functools.cached_property
    def class_counts(self) -> Tensor:
        """How many training boxes each class has: (C,) on the device."""
        targets: Any = in_memory(self.splits.train.targets)
        labels = targets[..., 4].long().flatten()
        return torch.bincount(labels[labels >= 0], minlength=self.classes).to(self.device)

    def statistic(self, name: str) -> Any:
        """Return what `ImageTask.statistic` does, or ``object_size`` of the training boxes; see there."""
        if name != "object_size":
            return super().statistic(name)
        targets = in_memory(self.splits.train.targets).flatten(0, 1)
        return object_size(targets[targets[:, 4] >= 0, :4])

    def epoch(self, seeds: Seeds, first: int = 0) -> Iterator[Batch]:
        """Yield images and their boxes in a new order, contrast and brightness changed."""
        generator = torch.Generator().manual_seed(seeds.augment)
        tint = float(self.augment.get("colour") or 0) * (
            2 * torch.rand(len(self.splits.train), 2, 1, 1, 1, generator=generator) - 1
        ).to(self.device)
        for rows, images, targets in self.shuffled(seeds.order, first):
            contrast, brightness = tint[rows].unbind(1)
            yield Batch((torch.addcmul(brightness, self.ready(images), 1 + contrast),), targets)

    # ------------------------------------------------------------------ cells and boxes

    def cells(self, outputs: Maps) -> tuple[Tensor, Tensor, Cells]:
        """Return scores (N,A,C) and boxes (N,A,4) of all cells, level after level, and where these lie."""
        sides, centres = [], []
        for level in outputs["objects"]:
            height, width = level.shape[2:]
            cell = self.size[0] / height
            down, across = (cell * (torch.arange(n, device=self.device) + 0.5) for n in (height, width))
            centres.append(torch.stack([across.repeat(height), down.repeat_interleave(width)], 1))
            sides.append(torch.full((height * width,), cell, device=self.device))
        cells = Cells(torch.cat(centres), torch.cat(sides), tuple(map(len, sides)))
        maps = {
            kind: torch.cat([level.float().flatten(2) for level in outputs[kind]], 2).transpose(1, 2)
            for kind in ("objects", "sides")
        }
        # distances of the four edges from the centre, at most the image
        cell = cells.sides.unsqueeze(1)
        edges = cell * torch.minimum(maps["sides"], (max(self.size) / cell).log()).exp()
        boxes = torch.cat([cells.centres - edges[..., :2], cells.centres + edges[..., 2:]], 2)
        return maps["objects"] + PRIOR, boxes, cells

    def pairs(self, outputs: Maps, batch: Batch) -> Pairs:
        """Return the scores of all cells with 0 or 1, or with how well their boxes overlap those that they are asked to
        find (N,A,C); and the boxes (N*A,4), of which those count that are asked to find one.

        Boxes that are ignored (difficult or crowds) are found by no cell; the scores of cells whose centres lie in one,
        and that find nothing else, do not count.
        """
        scores, boxes, cells = self.cells(outputs)
        truth, labels, ignored = batch.target[..., :4], batch.target[..., 4].long(), batch.target[..., 5] > 0
        found = atss(truth, (labels >= 0) & ~ignored, cells)
        there, found = found >= 0, found.clamp_min(0)
        counts = there | ~(inside(truth, cells.centres) & ignored.unsqueeze(2)).any(1)
        counts = counts.unsqueeze(2).expand_as(scores)
        wanted = functional.one_hot(labels.gather(1, found).clamp_min(0), self.classes) * there.unsqueeze(2)
        target = truth.gather(1, found.unsqueeze(2).expand(-1, -1, 4)).flatten(0, 1)
        pair = Pair(boxes.flatten(0, 1), target, there.flatten())
        side = cells.sides.repeat(len(truth)).unsqueeze(1)

        def quality() -> Tensor:
            overlap = pairwise_iou(pair.prediction.detach().unsqueeze(1), target.unsqueeze(1))
            return wanted * overlap.view(*there.shape, 1)

        return Lazy(
            {
                "binary_logits": lambda: Pair(scores, wanted.to(scores.dtype), counts),
                "quality_logits": lambda: Pair(scores, quality(), counts),
                "boxes": lambda: pair,
                "values": lambda: Pair(pair.prediction / side, pair.target / side, pair.mask),
            }
        )

    def found(self, outputs: Maps) -> tuple[Tensor, Tensor, Tensor]:
        """Return detections, in descending order of their scores: boxes (N,D,4), scores (N,D), classes (N,D) or -1."""
        logits, boxes, *_ = self.cells(outputs)
        images, _, classes = logits.shape
        scores, place = logits.sigmoid().flatten(1).topk(min(KEPT, logits[0].numel()))
        labels = place % classes
        boxes = boxes.gather(1, (place // classes).unsqueeze(2).expand(-1, -1, 4))
        certain = (scores > CERTAIN).flatten().nonzero()[:, 0]
        group = (torch.arange(images, device=labels.device)[:, None] * classes + labels).flatten()
        kept = batched_nms(boxes.flatten(0, 1)[certain], scores.flatten()[certain], group[certain], self.nms)
        survives = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
        survives[certain[kept]] = True
        survives = survives.view_as(scores)
        order = (~survives).to(torch.uint8).argsort(dim=1, stable=True)[:, : max(1, int(survives.sum(1).max()))]
        labels = torch.where(survives, labels, -1).gather(1, order)
        return boxes.gather(1, order.unsqueeze(2).expand(-1, -1, 4)), scores.gather(1, order), labels

    # ------------------------------------------------------------------ evaluation

    def evaluate(self, predict: Predict, split: str, shift: Shift | None = None) -> dict[str, Any]:
        """Return what `DetectionMetrics` finds for a split."""
        metrics = DetectionMetrics(self.classes, self.device)
        for images, targets in self.judged(split, predict, shift):
            metrics.add(*self.found(predict(images)), targets[..., :4], targets[..., 4].long())
        return metrics.scores()

    def examples(self, predict: Predict) -> dict[str, Any]:
        """Return a few test images, evenly spaced in the list, and outlines of true boxes and of those found with a
        score of `DRAWN` or more, uint8: the class from 1 on.
        """
        count = len(self.splits.test)
        images, targets = self.feed.rows("test", torch.linspace(0, count - 1, min(SHOWN, count)).round().long())
        boxes, scores, labels = self.found(predict(self.ready(images)))
        kept = {
            "images": images,
            "truth": outlined(targets[..., :4], targets[..., 4].long(), self.size),
            "prediction": outlined(boxes, torch.where(scores >= DRAWN, labels, -1), self.size),
        }
        return {name: values.cpu().numpy() for name, values in kept.items()}

    def describe(self) -> dict[str, Any]:
        """Return sizes of the splits, classes, checksum, size of the images, and training boxes of each class."""
        return {**super().describe(), "image_size": list(self.size), "class_counts": self.class_counts.tolist()}


def outlined(boxes: Tensor, labels: Tensor, size: list[int]) -> Tensor:
    """Return masks, uint8 (N,H,W): on the border of a box (N,M,4) its class (N,M) + 1, else 0; -1: no box."""
    masks = torch.zeros(len(boxes), *size, dtype=torch.uint8, device=boxes.device)
    inner = torch.tensor([1.0, 1, -1, -1], device=boxes.device)
    for each, label in zip(boxes.unbind(1), labels.unbind(1), strict=True):
        border = filled(each, size).bool() & ~filled(each + inner, size).bool()
        masks = torch.where(border & (label >= 0)[:, None, None], (label + 1)[:, None, None].to(torch.uint8), masks)
    return masks
