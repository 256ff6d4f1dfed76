"""Image classification on mixtures: every training image is a mixture of two, and so is its label."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from harness.errors import UsageError
from harness.tasks import Batch, Seeds, Setup
from harness.tasks.classification import Classification
from losses.kinds import Pair, Pairs


class MixedClassification(Classification):
    """Images with a class each, of which every training batch is mixed: MixUp or CutMix, drawn anew for every batch.

    Targets are the shares of the classes (N,C), for losses that compare ``class_probabilities`` and for those of
    ``class_logits`` that take probabilities as well. Validation and test images are not mixed.

    Args:
        setup: which data, and where.
        mixup: both parameters of the Beta distribution of the share of an image in a mixture, pixel by pixel (Zhang et
            al., ICLR 2018, arXiv:1710.09412); 0: no batch is mixed this way.
        cutmix: the same of the area that a rectangle of another image leaves of it (Yun et al., ICCV 2019,
            arXiv:1905.04899). Where neither is 0, half of the batches are mixed in either way.

    Raises:
        UsageError: both are 0, or one is below.
    """

    offers = frozenset({"class_logits", "class_probabilities"})
    evaluates = offers

    def __init__(self, setup: Setup, mixup: float, cutmix: float) -> None:
        super().__init__(setup)
        if mixup < 0 or cutmix < 0:
            raise UsageError(f"task.mixup is {mixup} and task.cutmix is {cutmix}; neither may be below 0.")
        ways = [(v2.MixUp, mixup), (v2.CutMix, cutmix)]
        self.ways = [way(alpha=alpha, num_classes=self.classes) for way, alpha in ways if alpha]
        if not self.ways:
            raise UsageError("task.mixup and task.cutmix are both 0, so nothing is mixed: use task=classification.")

    def epoch(self, seeds: Seeds, first: int = 0) -> Iterator[Batch]:
        """Yield images, normalised and mixed, and the shares of the classes in them (N,C), in a new order."""
        generator = torch.Generator().manual_seed(seeds.augment)
        drawn = torch.randint(2**62, (self.steps_per_epoch,), generator=generator).tolist()  # a seed for every step
        for step, batch in enumerate(super().epoch(seeds, first), first):
            images, shares = self.mixed(batch.inputs[0], batch.target, drawn[step])
            yield Batch((images.contiguous(memory_format=self.format),), shares)

    def mixed(self, images: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Return images (N,C,H,W) mixed with their neighbours in the batch, and the shares of the classes, by a seed.

        torchvision draws from the global generator of the CPU, which is put back as it was.
        """
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            way = self.ways[int(torch.randint(len(self.ways), ()))]
            return way(images, labels)

    def pairs(self, outputs: Any, batch: Batch) -> Pairs:
        """Return class scores (N,C) with the shares of the classes in the mixtures, or with their labels (N,)."""
        pair = Pair(outputs["class_logits"], batch.target)
        return dict.fromkeys(sorted(self.offers), pair)

    def prepare(self, model: nn.Module, losses: Mapping[str, Any], seeds: Seeds) -> dict[str, float]:
        """Refuse a loss that takes a single class for every item, before anything is trained.

        Raises:
            UsageError: the loss takes no shares of classes.
        """
        even = torch.full((2, self.classes), 1 / self.classes, device=self.device)
        try:
            losses["model"](dict.fromkeys(self.offers, Pair(torch.zeros_like(even), even)))
        except ValueError as error:
            raise UsageError(
                f"the loss {losses['model'].about.name} takes one class for every image, and not the shares of several "
                "in a mixture: choose one that does, such as soft_target_cross_entropy, or task=classification."
            ) from error
        return {}
