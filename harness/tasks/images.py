"""What tasks on images share: splits and their feed, normalised batches, and shifted test images."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from harness.errors import UsageError
from harness.feeds import check_suited, feed_for, splits_for
from harness.tasks import Predict, Setup, Shift, Task, class_statistic


class ImageTask(Task):
    """Images with a class each, or with a class for every pixel.

    Raises:
        UsageError: the data set is of another kind.
    """

    made_for: ClassVar[str] = "classification"
    """Name of the task that its data sets are made for."""

    def __init__(self, setup: Setup) -> None:
        self.setup, self.device = setup, setup.device
        check_suited(splits_for(setup), self.made_for, setup)  # before anything is decoded
        self.feed = feed_for(setup)
        self.splits = self.feed.splits
        self.augment = setup.dataset["augment"]
        self.format = torch.channels_last if setup.channels_last else torch.contiguous_format
        self.classes = len(self.splits.classes)
        mean, std = (torch.tensor(x, device=self.device).view(1, -1, 1, 1) for x in (self.splits.mean, self.splits.std))
        self.scale, self.offset = 1 / (255 * std), -mean / std
        self.steps_per_epoch = max(1, len(self.splits.train) // setup.batch_size)

    @functools.cached_property
    def class_counts(self) -> Tensor:
        """How many training images, or pixels of them, each class has: (C,) on the device."""
        return self.splits.train.class_counts(self.classes).to(self.device)

    def statistic(self, name: str) -> Any:
        """Return ``class_counts`` or ``class_weights`` of the training images (see `class_statistic`), or their
        ``image_height`` or ``image_width`` in pixels.
        """
        _, height, width = self.splits.train.shape
        sides = {"image_height": float(height), "image_width": float(width)}
        return sides[name] if name in sides else class_statistic(name, self.class_counts)

    def shuffled(self, order_seed: int, first: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield the batches of an epoch: their positions in its order, raw images and targets."""
        size, count = self.setup.batch_size, len(self.splits.train)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(order_seed))
        for step, (images, targets) in enumerate(self.feed.shuffled(order, size, first), first):
            yield slice(step * size, (step + 1) * size), images, targets

    def normalised(self, images: Tensor) -> Tensor:
        """Return images of mean 0 and standard deviation 1, by the statistics of the training split."""
        return torch.addcmul(self.offset, images, self.scale)

    def ready(self, images: Tensor) -> Tensor:
        """Return normalised images in the memory format of the model."""
        return self.normalised(images).contiguous(memory_format=self.format)

    def judged(self, split: str, predict: Predict, shift: Shift | None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield normalised images and targets of a split, in order, shifted if asked for."""
        change = None if shift is None else self._shifted(shift, predict)
        for images, targets in self.feed.ordered(split, self.setup.eval_batch_size):
            yield self.ready(images if change is None else change(images, targets)), targets

    def _shifted(self, shift: Shift, predict: Predict) -> Callable[[Tensor, Tensor], Tensor]:
        """Return a function from raw images and their targets to raw images that are shifted."""
        asked = inspect.signature(shift).parameters
        generator = torch.Generator().manual_seed(0)  # the same noise for every loss and seed
        if "scores" in asked and self.made_for != "classification":
            raise UsageError("shift=attack misleads classifiers of images: leave it out with this task.")

        def scores(images: Tensor) -> Tensor:
            return predict(self.ready(255 * images))["class_logits"]

        def change(images: Tensor, target: Tensor) -> Tensor:
            known = {"generator": generator, "target": target, "scores": scores}
            return 255 * shift(images.float() / 255, **{name: x for name, x in known.items() if name in asked})

        return change

    def describe(self) -> dict[str, Any]:
        """Return the sizes of the splits, the names of the classes, and the checksum of images and labels."""
        counts = {name: len(part) for name, part in self.splits.parts.items()}
        return {**counts, "classes": list(self.splits.classes), "checksum": self.splits.checksum}
