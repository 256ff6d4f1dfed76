"""What tasks that generate images share: real batches in [0, 1], generated images, and how these are evaluated."""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from datasets import augment
from harness.errors import UsageError
from harness.metrics.generation import METRICS, Comparison, RandomFeatures
from harness.tasks import Predict, Seeds, Setup, Shift, Spec
from harness.tasks.images import ImageTask

EXAMPLES = 8
"""Images that a run keeps for the report to show."""
NOISE = {"valid": 1, "test": 2}
"""Seed of the noise that a split is evaluated with: the same for every loss and seed."""


class Generation(ImageTask):
    """Images to imitate; labels are not used.

    A model makes an image from standard normal noise of an image's shape, of which it may use a part.

    Args:
        setup: which data, and where.
        passes: how often an epoch goes through the training images; every epoch ends with an evaluation.
        samples: images that are generated for an evaluation, and most real images that they are compared with.
        weights: factor on the loss of a role; 0 leaves it out.

    Raises:
        UsageError: a number is below its least value, or the data set has masks or rows.
    """

    metrics = METRICS
    needs: ClassVar[tuple[str, ...]]
    """Parts that a model must have to be of use, such as ``critic``."""
    suited: ClassVar[str]
    """A model to choose, as in ``model=gan_micro``."""

    def __init__(
        self, setup: Setup, passes: int = 1, samples: int = 1000, weights: Mapping[str, float] | None = None
    ) -> None:
        super().__init__(setup)
        for name, value, least in (("passes", passes, 1), ("samples", samples, 2)):
            if value < least:
                raise UsageError(f"task.{name} is {value}; it must be {least} or more.")
        self.passes, self.samples, self.weights = passes, samples, weights or {}
        self.steps_per_pass = self.steps_per_epoch
        self.steps_per_epoch *= passes
        self.spec = Spec(self.splits.train.shape)

    def parts(self, model: nn.Module) -> Mapping[str, nn.Module]:
        """Return the part of a model that each objective trains.

        Raises:
            UsageError: the model is made for another task.
        """
        if not all(hasattr(model, name) for name in self.needs):
            raise UsageError(
                f"this task needs a model with {' and '.join(self.needs)}: choose {self.suited}, or one like it."
            )
        return {name: getattr(model, name, model) for name in self.roles}

    def real(self, seeds: Seeds, first: int = 0) -> Iterator[Tensor]:
        """Yield batches of training images (N,C,H,W) in [0, 1], augmented, from number ``first`` of an epoch on."""
        passed, within = divmod(first, self.steps_per_pass)
        for number in range(passed, self.passes):
            generator = torch.Generator().manual_seed(seeds.augment + number)
            draws = augment.draw(len(self.splits.train), self.augment, generator).to(self.device)
            for rows, images, _ in self.shuffled(seeds.order + number, within):
                yield self.scaled(augment.apply(images, draws[rows]))
            within = 0

    def scaled(self, images: Tensor) -> Tensor:
        """Return raw images in [0, 1], in the memory format of the model."""
        return (images / 255).contiguous(memory_format=self.format)

    def noise(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Return standard normal noise (count,C,H,W) on the device: the same on every device where a generator of the
        CPU is given, otherwise from the stream that the loop has seeded.
        """
        place = self.device if generator is None else generator.device
        return torch.randn(count, *self.spec.inputs, generator=generator, device=place).to(self.device)

    @abstractmethod
    def sample(self, predict: Predict, noise: Tensor, generator: torch.Generator) -> Tensor:
        """Return an image in [0, 1] for each item of noise (N,C,H,W); more noise may be drawn from the generator."""

    def generated(self, predict: Predict, count: int, seed: int) -> Iterator[Tensor]:
        """Yield ``count`` generated images (N,C,H,W) in [0, 1], batch by batch; equal seeds give equal noise."""
        generator = torch.Generator().manual_seed(seed)
        for start in range(0, count, self.setup.eval_batch_size):
            noise = self.noise(min(self.setup.eval_batch_size, count - start), generator)
            yield self.sample(predict, noise, generator)

    def evaluate(self, predict: Predict, split: str, shift: Shift | None = None) -> dict[str, Any]:
        """Return what `Comparison` finds between generated images and those of a split."""
        if shift is not None:
            raise UsageError("shift changes test images, and this task makes its images from noise: leave it out.")
        return self.compared(self.generated(predict, self.samples, NOISE[split]), split)

    def compared(self, batches: Iterator[Tensor], split: str) -> dict[str, float]:
        """Return the metrics of batches of images in [0, 1] beside those of a split."""
        metrics = Comparison(self.references[split], self.references["train"])
        for images in batches:
            metrics.add(self.features(images))
        return metrics.scores()

    def spaced(self, split: str, count: int) -> Tensor:
        """Return at most ``count`` images of a split, evenly spaced in it, raw."""
        return self.feed.rows(split, self.rows_of(split, count))[0]

    def rows_of(self, split: str, count: int) -> Tensor:
        """Return the rows of at most ``count`` items of a split, evenly spaced in it."""
        whole = len(getattr(self.splits, split))
        return torch.linspace(0, whole - 1, min(count, whole)).round().long()

    @functools.cached_property
    def features(self) -> RandomFeatures:
        """The features that images are compared by."""
        return RandomFeatures(self.spaced("train", self.samples) / 255)

    @functools.cached_property
    def references(self) -> dict[str, Tensor]:
        """Features of real images, by split."""
        return {split: self.features(self.spaced(split, self.samples) / 255) for split in ("train", "valid", "test")}

    def examples(self, predict: Predict) -> dict[str, Any]:
        """Return a few test images and as many generated ones, uint8 (K,C,H,W)."""
        images = self.spaced("test", EXAMPLES)
        found = torch.cat(list(self.generated(predict, len(images), NOISE["test"])))
        return {"images": images.cpu().numpy(), "generated": as_bytes(found).cpu().numpy()}

    def describe(self) -> dict[str, Any]:
        """Return sizes of the splits, checksum, and the test scores of training images in place of generated ones
        (``floor``) and of normal noise with the mean and the covariance of training images (``trivial``).
        """
        train = self.spaced("train", self.samples) / 255
        draw = torch.randn(self.samples, len(train), generator=torch.Generator().manual_seed(0)).to(self.device)
        normal = torch.tensordot(draw / len(train) ** 0.5, train - train.mean(0), 1) + train.mean(0)
        scores = {
            name: self.compared(iter([images]), "test")
            for name, images in (("floor", train), ("trivial", normal.clamp(0, 1)))
        }
        named = "normal noise with the mean and covariance of training images"
        return {**super().describe(), **scores, "trivial_name": named}


def as_bytes(images: Tensor) -> Tensor:
    """Return images in [0, 1] as uint8 from 0 to 255."""
    return (255 * images).round().clamp(0, 255).to(torch.uint8)
