"""Localisation: the box around all that is not background."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from datasets.splits import VOID
from harness.errors import UsageError
from harness.tasks import DataSetup
from harness.tasks.segmentation import Segmentation
from losses.geometric import iou

SHARES = {"found50": 0.5, "found75": 0.75}
"""Overlap from which on a box counts as found, by name of the metric."""


class Localisation(Segmentation):
    """Images with a mask each, and one box to find: the smallest that holds every pixel of a class but background.

    Boxes are corners x1, y1, x2, y2 in pixels, so losses of boxes and losses of values compare the same four numbers.

    Args:
        setup: which data, and where.
        robustness: refused; it is measured for classifiers.

    Raises:
        UsageError: the data set has no masks, no background, or a split without a single box.
    """

    takes = frozenset({"boxes", "values"})
    judges = frozenset({"boxes", "values"})
    selects = "iou"
    dense = False

    def __init__(self, setup: DataSetup, robustness: Mapping[str, float] | None = None) -> None:
        super().__init__(setup, robustness=robustness)
        if self.splits.classes[0] != "background":
            name = setup.dataset["_target_"].rpartition(".")[2]
            raise UsageError(f"the data set {name} has no background, so that nothing stands out: use another one.")
        self.boxes = {name: around(masks) for name, masks in self.targets.items()}
        for name, boxes in self.boxes.items():
            if not is_box(boxes).any():
                raise UsageError(f"no {name} image has anything but background in it, so there is no box to find.")
        self.all_boxes = self.augment.get("zoom") is None and bool(is_box(self.boxes["train"]).all())
        self.model_shape = {**self.model_shape, "num_classes": 4}
        self.decode = Corners(self.size[0], self.size[1])

    @property
    def class_counts(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Boxes have no classes."""
        raise UsageError("a loss that weighs classes cannot be trained on boxes: choose another loss or task.")

    def epoch(
        self, batch_size: int, order_seed: int, augment_seed: int, first: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images, boxes) in a new order; the remainder that fills no batch is left out of this epoch."""
        for images, masks in super().epoch(batch_size, order_seed, augment_seed, first):
            yield images, around(masks)

    def probe(self, count: int) -> tuple[Tensor, Tensor]:
        """Return the first ``count`` validation images and their boxes."""
        return self.ready(self.images["valid"][:count]), self.boxes["valid"][:count]

    def mask(self, target: Tensor) -> Tensor | None:
        """Return True where an image has a box; None if all training images have one."""
        return None if self.all_boxes else is_box(target)

    def evaluate(self, split: str, predict: Callable[[Tensor], Tensor], link: str, batch_size: int) -> dict[str, Any]:
        """Return what `metrics` says of the images that have a box."""
        found = torch.cat([predict(self.ready(part)) for part in self.images[split].split(batch_size)])
        there = is_box(self.boxes[split])
        return metrics(found[there].double(), self.boxes[split][there].double())

    def examples(self, predict: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        """Return a few test images, evenly spaced in the list, and true and predicted boxes as filled masks, uint8."""
        place = self._shown()
        images, truth = self.images["test"][place], self.boxes["test"][place]
        found = predict(self.ready(images))
        kept = {"images": images, "truth": filled(truth, self.size), "prediction": filled(found, self.size)}
        return {name: values.cpu().numpy() for name, values in kept.items()}

    def _trivial(self) -> dict[str, float]:
        """Return what it scores on the test split to answer every image with the mean box of training."""
        train, test = (self.boxes[split][is_box(self.boxes[split])].double() for split in ("train", "test"))
        return metrics(train.mean(0).expand_as(test), test)


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


def is_box(boxes: Tensor) -> Tensor:
    """Return (N,) True where a box (N,4) has an area."""
    return (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])


def filled(boxes: Tensor, size: list[int]) -> Tensor:
    """Return masks, uint8 (N,H,W), that are 1 where the middle of a pixel lies in the box (N,4)."""
    rows, columns = (torch.arange(side, device=boxes.device) + 0.5 for side in size)
    left, top, right, bottom = boxes.unsqueeze(2).unbind(1)
    down, across = (rows > top) & (rows < bottom), (columns > left) & (columns < right)
    return (down.unsqueeze(2) & across.unsqueeze(1)).to(torch.uint8)


def metrics(found: Tensor, truth: Tensor) -> dict[str, float]:
    """Judge predicted boxes.

    Args:
        found: (N,4) corners x1, y1, x2, y2, not inside out.
        truth: (N,4) corners of boxes with an area.

    Returns:
        ``iou``, the mean overlap (intersection over union); ``found50`` and ``found75``, the shares of boxes with at
        least half and three quarters of it; ``corner_error``, the mean distance of an edge from its place, in pixels.
    """
    overlap = 1 - iou(found, truth)
    shares = ((overlap >= least).double().mean() for least in SHARES.values())
    scalars = [overlap.mean(), *shares, (found - truth).abs().mean()]
    return dict(zip(("iou", *SHARES, "corner_error"), torch.stack(scalars).tolist(), strict=True))
