"""Detection: many boxes in an image, with a class each."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from datasets import joint_boxes
from datasets.decoded import in_memory
from harness.errors import UsageError, unknown
from harness.metrics.detection import DETECTION, DetectionMetrics, pairwise_iou
from harness.tasks import Batch, Lazy, Predict, Seeds, Setup, Shift, Spec
from harness.tasks.assignment import RULES, Cells, aligned_quality, atss, centre, inside, task_aligned
from harness.tasks.balance import balance
from harness.tasks.images import ImageTask
from harness.tasks.localisation import object_size
from harness.tasks.suppression import survivors
from losses.compound import Sum
from losses.kinds import Pair, Pairs
from losses.loss import Link

PRIOR = math.log(0.01 / 0.99)
"""Score of every class before training, so that the many empty cells do not drown the rest (Lin et al., RetinaNet)."""
BALANCES = ("gradient", "fixed")
"""What the weight of a role may be: the length of the gradient that its loss starts with, or a factor."""
KEPT, CERTAIN = 100, 0.05
"""Detections of an image that are evaluated at most, and their least score."""
AT_ONCE = 1 << 18
"""Numbers of images that are normalised at a time."""
SHOWN, DRAWN = 4, 0.3
"""Test images that a run keeps for the report to show, and the least score of the boxes in them."""

Maps = Mapping[str, tuple[Tensor, ...]]
"""What a detector returns: by kind of output a map (N, K, h, w) for every level, the finest first."""


class Detection(ImageTask):
    """Images with boxes. Every cell of a grid has a score for each class, and the box that it would put there.

    Boxes are corners in pixels; as ``values`` they are in units of a cell, so that differences are about as large as
    losses of overlap are; as ``rotated_boxes`` they have the angle 0. The losses of classes see every cell: as
    ``binary_logits`` a score for each class by itself, as ``class_logits`` one more for the background, always 0.

    Args:
        setup: which data, and where.
        weights: of the losses of the roles ``classes`` and ``boxes``.
        nms: overlap from which on the less certain of two detections of a class is dropped.
        assignment: which cells are asked to find a box, a name in `harness.tasks.assignment.RULES`.
        balance: ``gradient``: a weight is the length of the gradient that a loss starts with (see
            `harness.tasks.balance`); ``fixed``: it is a factor.

    Raises:
        UsageError: a setting is out of its range, or the data set has no boxes.
    """

    offers = frozenset({"binary_logits", "quality_logits", "class_logits", "boxes", "values", "rotated_boxes"})
    evaluates = offers
    metrics = DETECTION
    roles: ClassVar[Mapping[str, tuple[str, ...]]] = {"model": ("classes", "boxes")}
    role_kinds: ClassVar[Mapping[str, frozenset[str]]] = {
        "classes": frozenset({"binary_logits", "quality_logits", "class_logits"}),
        "boxes": frozenset({"boxes", "values", "rotated_boxes"}),
    }
    made_for: ClassVar[str] = "detection"
    varied = staticmethod(joint_boxes.apply)

    def __init__(self, setup: Setup, weights: Mapping[str, float], nms: float, assignment: str, balance: str) -> None:
        super().__init__(setup)
        self.weights, self.nms, self.assignment, self.balance = weights, nms, assignment, balance
        for name, value, known in (("assignment", assignment, RULES), ("balance", balance, BALANCES)):
            if value not in known:
                raise unknown(f"task.{name}", value, known)
        if not 0 < nms <= 1:
            raise UsageError(f"task.nms is {nms}; it must be above 0 and at most 1.")
        try:
            joint_boxes.check(self.augment)
        except ValueError as error:
            raise UsageError(str(error)) from error
        channels, *self.size = self.splits.train.images.shape[1:]
        self.spec = Spec(
            (channels, *self.size), {"objects": self.classes, "sides": 4}, dense=True, classes=self.classes
        )

    @functools.cached_property
    def class_counts(self) -> Tensor:
        """How many training boxes each class has: (C,) on the device."""
        return torch.bincount(self.counting[:, 4].long(), minlength=self.classes).to(self.device)

    @property
    def counting(self) -> Tensor:
        """All training boxes that are neither difficult nor crowds, (K, 6)."""
        targets = in_memory(self.splits.train.targets).flatten(0, 1)
        return targets[(targets[:, 4] >= 0) & (targets[:, 5] == 0)]

    def statistic(self, name: str) -> Any:
        """Return ``image_height``, ``image_width`` or ``object_size`` of the training images and boxes, in pixels.

        There are no counts of classes, as losses that ask for them would have to know how much background there is.
        """
        if name != "object_size":
            return None if name.startswith("class_") else super().statistic(name)
        return object_size(self.counting[:, :4])

    def epoch(self, seeds: Seeds, first: int = 0) -> Iterator[Batch]:
        """Yield images and their boxes in a new order, varied."""
        generator = torch.Generator().manual_seed(seeds.augment)
        draws = joint_boxes.draw(len(self.splits.train), self.augment, generator)
        draws = None if draws is None else draws.to(self.device)
        for rows, images, targets in self.shuffled(seeds.order, first):
            drawn = None if draws is None else draws[rows]
            images, targets = self.varied(self.normalised(images), targets, drawn, self.augment)
            yield Batch((images.contiguous(memory_format=self.format),), targets)

    def ready(self, images: Tensor) -> Tensor:
        """Return normalised images in the memory format of the model.

        For channels last on a CPU a few at a time, which stay in the cache; bytes are rearranged before they are
        numbers, and what all images are multiplied by has the same layout, so that no pass is without vectors.
        """
        if images.device.type != "cpu" or self.format is torch.contiguous_format:
            return super().ready(images)
        scale, offset = (
            values.expand(1, *images.shape[1:]).contiguous(memory_format=self.format)
            for values in (self.scale, self.offset)
        )
        done = torch.empty(images.shape, memory_format=self.format)
        few = max(1, AT_ONCE // max(1, scale.numel()))
        for some, place in zip(images.split(few), done.split(few), strict=True):
            place.copy_(some.contiguous(memory_format=self.format))
            torch.addcmul(offset, place, scale, out=place)
        return done

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
        found = self.assigned(truth, torch.where(ignored, -1, labels), cells, scores.detach(), boxes.detach())
        there, found = found >= 0, found.clamp_min(0)
        counts = there | ~(inside(truth, cells.centres) & ignored.unsqueeze(2)).any(1)
        label = labels.gather(1, found).clamp_min(0)
        wanted = functional.one_hot(label, self.classes) * there.unsqueeze(2)
        each = counts.unsqueeze(2).expand_as(scores)
        target = truth.gather(1, found.unsqueeze(2).expand(-1, -1, 4)).flatten(0, 1)
        pair = Pair(boxes.flatten(0, 1), target, there.flatten())
        side = cells.sides.repeat(len(truth)).unsqueeze(1)

        def quality() -> Tensor:
            overlap = pairwise_iou(pair.prediction.detach().unsqueeze(1), target.unsqueeze(1)).view_as(there)
            return wanted * self.quality(scores.detach(), overlap, label, there, found, truth.shape[1]).unsqueeze(2)

        return Lazy(
            {
                "binary_logits": lambda: Pair(scores, wanted.to(scores.dtype), each),
                "quality_logits": lambda: Pair(scores, quality(), each),
                "class_logits": lambda: with_background(scores, there, label, counts),
                "boxes": lambda: pair,
                "values": lambda: Pair(pair.prediction / side, target / side, pair.mask),
                "rotated_boxes": lambda: Pair(upright(pair.prediction), upright(target), pair.mask),
            }
        )

    def assigned(self, truth: Tensor, labels: Tensor, cells: Cells, scores: Tensor, boxes: Tensor) -> Tensor:
        """Return which box each cell is asked to find, int64 (N,A), by the rule of the config; -1: none.

        Args:
            truth: boxes (N,M,4).
            labels: their classes, (N,M); -1: no box to be found.
            cells: of all levels.
            scores: of the cells for every class, (N,A,C), without gradient.
            boxes: of the cells, (N,A,4), without gradient.
        """
        there = labels >= 0
        if self.assignment != "task_aligned":
            return {"atss": atss, "centre": centre}[self.assignment](truth, there, cells)
        own = labels.clamp_min(0).unsqueeze(2).expand(-1, -1, scores.shape[1])
        return task_aligned(truth, there, cells, scores.sigmoid().transpose(1, 2).gather(1, own), boxes)

    def quality(
        self, scores: Tensor, overlap: Tensor, label: Tensor, there: Tensor, found: Tensor, most: int
    ) -> Tensor:
        """Return what losses of ``quality_logits`` ask of each cell's score of its class, (N,A), from 0 to 1: how well
        its box overlaps the one that it is to find, or what task alignment makes of that (`aligned_quality`).

        Args:
            scores: of the cells for every class, (N,A,C), without gradient.
            overlap: of their boxes with those that they are to find, (N,A), without gradient.
            label: the class of these, (N,A).
            there: whether a cell is to find one, (N,A).
            found: which, (N,A).
            most: number of boxes of an image.
        """
        if self.assignment != "task_aligned":
            return overlap
        own = scores.sigmoid().gather(2, label.unsqueeze(2)).squeeze(2)
        return aligned_quality(own, overlap, torch.where(there, found, -1), most)

    def prepare(self, model: nn.Module, losses: Mapping[str, Any], seeds: Seeds) -> dict[str, float]:
        """Balance the losses of the roles, if that is asked for, and return their weights."""
        together = losses["model"]
        if self.balance == "fixed" or not isinstance(together, Sum):
            return {}
        return balance(model, together, self.pairs, self.epoch(seeds))

    def found(self, outputs: Maps, link: Link = "sigmoid") -> tuple[Tensor, Tensor, Tensor]:
        """Return detections, in descending order of their scores: boxes (N,D,4), scores (N,D), classes (N,D) or -1.

        Args:
            outputs: of a model.
            link: how its scores become probabilities: ``softmax`` over classes and background, else one by one.
        """
        logits, boxes, _ = self.cells(outputs)
        boxes, scores, labels, certain = likeliest(logits, boxes, link)
        survives = survivors(boxes, labels, certain, self.nms)
        order = (~survives).to(torch.uint8).argsort(dim=1, stable=True)[:, : max(1, int(survives.sum(1).max()))]
        labels = torch.where(survives, labels, -1).gather(1, order)
        return boxes.gather(1, order.unsqueeze(2).expand(-1, -1, 4)), scores.gather(1, order), labels

    # ------------------------------------------------------------------ evaluation

    def evaluate(self, predict: Predict, split: str, shift: Shift | None = None) -> dict[str, Any]:
        """Return what `DetectionMetrics` finds for a split, and the scores of every image in the test."""
        metrics = DetectionMetrics(self.classes, self.device)
        for images, targets in self.judged(split, predict, shift):
            labels, ignored = targets[..., 4:].long().unbind(2)
            metrics.add(*self.found(predict(images), predict.link), targets[..., :4], labels, ignored)
        return metrics.scores() | ({"items": metrics.items(self.splits.test.index)} if split == "test" else {})

    def examples(self, predict: Predict) -> dict[str, Any]:
        """Return a few test images, evenly spaced in the list, with their true boxes and those found with a score of
        `DRAWN` or more.

        Returns:
            ``images`` uint8 (K,C,H,W); ``true_corners`` and ``corners`` (K,M,4,2), x and y of the corners in pixels, in
            their order around a box; ``true_labels`` and ``labels`` (K,M), classes, -1: no box; ``overlaps`` (K,M), of
            a box that was found with the true one of its class that it overlaps most.
        """
        count = len(self.splits.test)
        images, targets = self.feed.rows("test", torch.linspace(0, count - 1, min(SHOWN, count)).round().long())
        boxes, scores, labels = self.found(predict(self.ready(images)), predict.link)
        labels = torch.where(scores >= DRAWN, labels, -1)
        truth, true_labels = self.boxes_and_labels(targets)
        overlaps = self.overlap(boxes, truth) * (labels.unsqueeze(2) == true_labels.unsqueeze(1))
        kept = {
            "images": images,
            "true_corners": self.corners(truth),
            "true_labels": true_labels,
            "corners": self.corners(boxes),
            "labels": labels,
            "overlaps": overlaps.amax(2),
        }
        return {name: values.cpu().numpy() for name, values in kept.items()}

    @staticmethod
    def boxes_and_labels(targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the boxes (N,M,4) in targets, and their classes (N,M), -1: no box."""
        return targets[..., :4], targets[..., 4].long()

    @staticmethod
    def overlap(first: Tensor, second: Tensor) -> Tensor:
        """Return the overlaps (N,P,Q) of boxes (N,P,4) and (N,Q,4)."""
        return pairwise_iou(first, second)

    @staticmethod
    def corners(boxes: Tensor) -> Tensor:
        """Return x and y of the corners of boxes (N,M,4), in their order around a box: (N,M,4,2)."""
        return boxes[..., [0, 1, 2, 1, 2, 3, 0, 3]].unflatten(-1, (4, 2))

    def describe(self) -> dict[str, Any]:
        """Return sizes of the splits, classes, checksum, size of the images, and training boxes of each class."""
        return {**super().describe(), "image_size": list(self.size), "class_counts": self.class_counts.tolist()}


def with_background(scores: Tensor, there: Tensor, label: Tensor, counts: Tensor | None = None) -> Pair:
    """Return scores (N,A,C) beside one of the background, always 0, and which of all is right: (N,C+1,A), (N,A).

    Args:
        scores: of each class.
        there: whether a cell is asked to find a box, (N,A).
        label: the class of that box, (N,A).
        counts: which cells count, (N,A); None: all.
    """
    logits = functional.pad(scores, (0, 1)).transpose(1, 2)
    return Pair(logits, torch.where(there, label, scores.shape[2]), counts)


def likeliest(logits: Tensor, boxes: Tensor, link: Link) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the `KEPT` likeliest detections of each image, or as many as are certain in any, in descending order of
    their scores: boxes (N,D,K), scores (N,D), classes (N,D), and which are certain, (N,D).

    Args:
        logits: scores of all cells, (N,A,C).
        boxes: of all cells, (N,A,K).
        link: how scores become probabilities: ``softmax`` over classes and background, else one by one.
    """
    sure = functional.pad(logits, (0, 1)).softmax(2)[..., :-1] if link == "softmax" else logits.sigmoid()
    scores, place = sure.flatten(1).topk(min(KEPT, logits[0].numel()))
    certain = scores > CERTAIN
    width = max(1, int(certain.sum(1).max()))
    scores, place, certain = scores[:, :width], place[:, :width], certain[:, :width]
    cell = (place // logits.shape[2]).unsqueeze(2).expand(-1, -1, boxes.shape[2])
    return boxes.gather(1, cell), scores, place % logits.shape[2], certain


def upright(boxes: Tensor) -> Tensor:
    """Return boxes (P,4), corners, as centre x and y, width, height and the angle 0: (P,5)."""
    low, high = boxes[:, :2], boxes[:, 2:]
    return torch.cat([(low + high) / 2, high - low, torch.zeros_like(boxes[:, :1])], 1)
