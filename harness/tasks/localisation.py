"""Localisation: the box around all that is not background."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from datasets.decoded import chunks
from datasets.splits import VOID
from harness.errors import UsageError
from harness.feeds import Feed
from harness.metrics import declared
from harness.metrics.localisation import RunningOverlaps
from harness.tasks import Batch, Predict, Seeds, Setup, Shift, Spec
from harness.tasks.segmentation import MaskedImages
from losses.kinds import Pair, Pairs


class Localisation(MaskedImages):
    """Images with a mask each, and one box to find: the smallest that holds every pixel of a class but background.

    Boxes are corners x1, y1, x2, y2 in pixels, so losses of boxes and losses of values compare the same four numbers.

    Raises:
        UsageError: the data set has no masks, no background, or a split without a single box.
    """

    offers = frozenset({"boxes", "values"})
    evaluates = frozenset({"boxes", "values"})
    metrics = declared.LOCALISATION

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        if self.splits.classes[0] != "background":
            name = setup.dataset["_target_"].rpartition(".")[2]
            raise UsageError(f"the data set {name} has no background, so that nothing stands out: use another one.")
        self.boxes = _boxes(self.feed)
        for name, boxes in self.boxes.items():
            if not is_box(boxes).any():
                raise UsageError(f"no {name} image has anything but background in it, so there is no box to find.")
        self.all_boxes = self.augment.get("zoom") is None and bool(is_box(self.boxes["train"]).all())
        self.spec = Spec((self.channels, *self.size), {"numbers": 4})
        self.corners = Corners(self.size[0], self.size[1]).to(self.device)

    def statistic(self, name: str) -> Any:
        """Return what `ImageTask.statistic` does, or ``object_size``; see there."""
        train = self.boxes["train"]
        return object_size(train[is_box(train)]) if name == "object_size" else super().statistic(name)

    def epoch(self, seeds: Seeds, first: int = 0) -> Iterator[Batch]:
        """Yield images and their boxes in a new order."""
        for images, masks in self.masked_batches(seeds, first):
            yield Batch((images,), around(masks))

    def pairs(self, outputs: Any, batch: Batch) -> Pairs:
        """Return predicted and true boxes (N,4), as boxes and as values; images without a box do not count."""
        there = None if self.all_boxes else is_box(batch.target)
        pair = Pair(self.corners(outputs["numbers"]), batch.target, there)
        return {"boxes": pair, "values": pair}

    def evaluate(self, predict: Predict, split: str, shift: Shift | None = None) -> dict[str, Any]:
        """Return what `RunningOverlaps` says of the images that have a box, and of every one of them in the test."""
        metrics = RunningOverlaps()
        for images, masks in self.judged(split, predict, shift):
            truth = around(masks)
            there = is_box(truth)
            metrics.add(self.corners(predict(images)["numbers"])[there].double(), truth[there].double())
        if split != "test":
            return metrics.scores()
        return {**metrics.scores(), "items": metrics.items(self.splits.test.index[is_box(self.boxes["test"])])}

    def examples(self, predict: Predict) -> dict[str, Any]:
        """Return a few test images, evenly spaced in the list, and true and predicted boxes as filled masks, uint8."""
        images, masks = self.feed.rows("test", self.shown())
        found = self.corners(predict(self.ready(images))["numbers"])
        kept = {"images": images, "truth": filled(around(masks), self.size), "prediction": filled(found, self.size)}
        return {name: values.cpu().numpy() for name, values in kept.items()}

    def describe(self) -> dict[str, Any]:
        """Return sizes of the splits, classes, checksum, files left out, and what the trivial prediction scores."""
        return {
            **super().describe(),
            "image_size": list(self.size),
            "skipped": len(self.splits.skipped),
            "trivial": self._trivial(),
            "trivial_name": "the mean box of training everywhere",
        }

    def _trivial(self) -> dict[str, float]:
        """Return what it scores on the test split to answer every image with the mean box of training."""
        train, test = (self.boxes[split][is_box(self.boxes[split])].double() for split in ("train", "test"))
        metrics = RunningOverlaps()
        metrics.add(train.mean(0).expand_as(test), test)
        return metrics.scores()


class Corners(nn.Module):
    """Boxes (N,4), x1, y1, x2, y2 in pixels, from four numbers each.

    Centre and size are shares of the image, a sigmoid each, as in DETR (Carion et al., ECCV 2020, arXiv 2005.12872): a
    box is never inside out, and before training it is half as wide and high as the image, in its middle.
    """

    sides: Tensor

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.register_buffer("sides", torch.tensor([width, height, width, height], dtype=torch.float32), False)

    def forward(self, numbers: Tensor) -> Tensor:
        """Return (N,4) from (N,4)."""
        centre, size = (numbers.float().sigmoid() * self.sides).chunk(2, 1)
        return torch.cat([centre - size / 2, centre + size / 2], 1)


def around(masks: Tensor) -> Tensor:
    """Return the boxes (N,4) around what is neither background nor void in masks (N,H,W); all 0 where nothing is."""
    there = (masks != 0) & (masks != VOID)
    sides = []
    for inside in (there.any(1), there.any(2)):  # of columns, of rows
        marks = inside.to(torch.uint8)
        sides.append((marks.argmax(1), inside.shape[1] - marks.flip(1).argmax(1)))
    (left, right), (top, bottom) = sides
    return torch.stack([left, top, right, bottom], 1).float() * there.flatten(1).any(1, keepdim=True)


@functools.lru_cache(maxsize=2)  # as many as there are feeds: their masks may lie in files
def _boxes(feed: Feed) -> dict[str, Tensor]:
    """Return the boxes (N,4) of every split, on the host."""
    parts = feed.splits.parts.items()
    return {name: torch.cat([around(masks) for masks in chunks(part.targets)]) for name, part in parts}


def is_box(boxes: Tensor) -> Tensor:
    """Return (N,) True where a box (N,4) has an area."""
    return (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])


def object_size(boxes: Tensor) -> float:
    """Return the mean size of boxes (N,4), N > 0, in pixels: the root of the area, as AI-TOD is described by."""
    return float(((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).double().sqrt().mean())


def filled(boxes: Tensor, size: list[int]) -> Tensor:
    """Return masks, uint8 (N,H,W), that are 1 where the middle of a pixel lies in the box (N,4)."""
    rows, columns = (torch.arange(side, device=boxes.device) + 0.5 for side in size)
    left, top, right, bottom = boxes.unsqueeze(2).unbind(1)
    down, across = (rows > top) & (rows < bottom), (columns > left) & (columns < right)
    return (down.unsqueeze(2) & across.unsqueeze(1)).to(torch.uint8)
