"""Semantic segmentation: one label per pixel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from datasets import joint
from datasets.splits import VOID
from harness.errors import UsageError
from harness.metrics import declared
from harness.metrics.segmentation import ConfusionMetrics, of_confusion
from harness.tasks import Batch, Predict, Seeds, Setup, Shift, Spec, views
from harness.tasks.images import ImageTask
from losses.kinds import Pair, Pairs
from losses.loss import Link

EXAMPLES = 4
"""Test images that a run keeps for the report to show."""


class MaskedImages(ImageTask):
    """Images with a mask each, cropped, zoomed, mirrored and tinted on the device in batches.

    Args:
        setup: which data, and where.
        crop: height and width of what is cut out at random places for training; None takes whole images.

    Raises:
        UsageError: the crop does not fit, or the data set has a class for every image.
    """

    made_for: ClassVar[str] = "segmentation"

    def __init__(self, setup: Setup, crop: Sequence[int] | None = None) -> None:
        super().__init__(setup)
        self.channels, *self.size = self.splits.train.shape
        self.crop = None if crop is None else _checked_crop(crop, self.size)
        shrinks = min(self.augment.get("zoom") or (1.0,)) < 1  # surrounds an image with void
        self.has_void = shrinks or any(part.has_void for part in self.splits.parts.values())

    @property
    def window(self) -> tuple[int, ...]:
        """Height and width of what the model sees."""
        return tuple(self.size if self.crop is None else self.crop)

    def masked_batches(self, seeds: Seeds, first: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images and masks in a new order; the remainder that fills no batch is left out of this epoch."""
        generator = torch.Generator().manual_seed(seeds.augment)
        draws = joint.draw(len(self.splits.train), self.augment, generator, self.size, self.crop)
        draws = None if draws is None else draws.to(self.device)
        for rows, images, masks in self.shuffled(seeds.order, first):
            images, masks = joint.apply(
                self.normalised(images), masks, None if draws is None else draws[rows], self.crop
            )
            yield images.contiguous(memory_format=self.format), masks.long()

    def shown(self) -> Tensor:
        """Return the rows of the test images that a run keeps, evenly spaced."""
        count = len(self.splits.test)
        return torch.linspace(0, count - 1, min(EXAMPLES, count)).round().long()


class Segmentation(MaskedImages):
    """A class for every pixel.

    Args:
        setup: which data, and where.
        crop: height and width on which the model is trained, cut out at random places; whole images are then evaluated
            by windows of this size that slide over them. None takes whole images in both.
        overlap: least share of such a window that its neighbour sees too.
        scales: factors at which test images are looked at, and averaged.
        mirror: whether test images are also looked at in the mirror, and averaged.

    Raises:
        UsageError: one of these is out of its range, or the data set has a class for every image.
    """

    offers = frozenset({"class_logits"})
    evaluates = frozenset({"class_logits"})
    metrics = declared.SEGMENTATION

    def __init__(
        self,
        setup: Setup,
        crop: Sequence[int] | None = None,
        overlap: float = 1 / 3,
        scales: Sequence[float] = (1.0,),
        mirror: bool = False,
    ) -> None:
        super().__init__(setup, crop)
        self.overlap, self.scales, self.mirror = overlap, scales, mirror
        if not 0 <= overlap < 1:
            raise UsageError(f"task.overlap is {overlap}; it must be at least 0 and below 1.")
        if not scales or min(scales) <= 0:
            raise UsageError(f"task.scales is {list(scales)}; it must have one factor or more, all above 0.")
        self.spec = Spec(
            (self.channels, *self.window), {"class_logits": self.classes}, dense=True, classes=self.classes
        )

    def epoch(self, seeds: Seeds, first: int = 0) -> Iterator[Batch]:
        """Yield images and masks in a new order."""
        for images, masks in self.masked_batches(seeds, first):
            yield Batch((images,), masks)

    def pairs(self, outputs: Any, batch: Batch) -> Pairs:
        """Return class scores (N,C,H,W) with masks (N,H,W), in which void does not count."""
        counted = batch.target != VOID if self.has_void else None
        return {"class_logits": Pair(outputs["class_logits"], batch.target, counted)}

    def probe(self, count: int) -> Batch:
        """Return the first ``count`` validation images, what a model sees of them, and their masks."""
        seen = [
            slice((whole - side) // 2, (whole + side) // 2) for whole, side in zip(self.size, self.window, strict=True)
        ]
        images, masks = self.feed.rows("valid", torch.arange(min(count, len(self.splits.valid))))
        return Batch((self.ready(images[..., *seen]),), masks[..., *seen].long())

    def _scores(self, predict: Predict, split: str, link: Link) -> Callable[[Tensor], Tensor]:
        """Return a function from images to class scores of all pixels, seen in all views; scales and mirror images,
        which cost most, only for the test.
        """

        def logits(images: Tensor) -> Tensor:
            return predict(images)["class_logits"]

        def whole(images: Tensor) -> Tensor:
            return views.windowed(logits, images, self.window, self.overlap)

        if split != "test":
            return whole
        return lambda images: views.averaged(whole, images, self.scales, self.mirror, link)

    def evaluate(self, predict: Predict, split: str, shift: Shift | None = None) -> dict[str, Any]:
        """Return the metrics of `ConfusionMetrics`; boundaries, which cost most, and the scores of every image in the
        test only.
        """
        scores, tested = self._scores(predict, split, predict.link), split == "test"
        metrics = ConfusionMetrics(self.classes, predict.link, boundaries=tested, device=self.device, keep=tested)
        for images, masks in self.judged(split, predict, shift):
            metrics.add(scores(images), masks)
        found = metrics.scores(self.splits.classes)
        return found | ({"items": metrics.items(self.splits.test.index, self.splits.classes)} if tested else {})

    def examples(self, predict: Predict) -> dict[str, Any]:
        """Return a few test images, evenly spaced in the list, their masks and the predicted ones, all uint8."""
        images, masks = self.feed.rows("test", self.shown())
        predicted = self._scores(predict, "test", None)(self.ready(images)).argmax(1)
        kept = {"images": images, "truth": masks, "prediction": predicted.to(torch.uint8)}
        return {name: values.cpu().numpy() for name, values in kept.items()}

    def describe(self) -> dict[str, Any]:
        """Return sizes of the splits, classes, checksum, files left out, and what the trivial prediction scores."""
        seen = {"window": list(self.window), "scales": list(self.scales), "mirror": self.mirror}
        return {
            **super().describe(),
            "image_size": list(self.size),
            **(seen if self.crop is not None or self.mirror or list(self.scales) != [1] else {}),
            "skipped": len(self.splits.skipped),
            "trivial": self._trivial(),
        }

    def _trivial(self) -> dict[str, float]:
        """Return what it scores on the test split to call every pixel by the most frequent class of training."""
        frequent = self.class_counts.argmax()
        confusion = torch.zeros(self.classes, self.classes, dtype=torch.float64, device=self.device)
        confusion[:, frequent] = self.splits.test.class_counts(self.classes).double().to(self.device)
        found = {name: float(value) for name, value in of_confusion(confusion, self.splits.classes).items()}
        return {name: found[name] for name in ("miou", "foreground_iou", "dice", "pixel_accuracy") if name in found}


def _checked_crop(crop: Sequence[int], size: Sequence[int]) -> tuple[int, int]:
    if len(crop) != 2 or not all(1 <= side <= whole for side, whole in zip(crop, size, strict=True)):
        raise UsageError(
            f"task.crop is {list(crop)}; it must be a height and a width in pixels, at most {size[0]} and {size[1]}, "
            "the size of the images (dataset.size)."
        )
    return crop[0], crop[1]
