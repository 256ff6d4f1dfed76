"""Image classification: one label per image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from datasets import augment
from harness.errors import UsageError
from harness.tasks.loading import load

CALIBRATION_BINS = 15


class Classification:
    """A data set that lives on the device, augmented there in batches.

    Args:
        dataset: config of the data set.
        data: ``root`` and ``download``.
        device: where images live and batches are made.
        channels_last: memory format of the batches.
    """

    takes = frozenset({"class_logits", "features"})
    judges = "class_logits"
    selects = "top1"
    dense = False

    def __init__(
        self, dataset: Mapping[str, Any], data: Mapping[str, Any], device: torch.device, channels_last: bool
    ) -> None:
        self.splits, self.images, self.targets = load(dataset, data, device)
        if self.targets["train"].ndim != 1:
            name = dataset["_target_"].rpartition(".")[2]
            raise UsageError(
                f"the data set {name} has a class for every pixel, not every image: use task=segmentation."
            )
        self.augment = dataset["augment"]
        self.device = device
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        channels, size = self.splits.train.images.shape[1:3]
        self.model_shape = {"in_channels": channels, "image_size": size, "num_classes": len(self.splits.classes)}
        mean, std = (torch.tensor(x, device=device).view(1, -1, 1, 1) for x in (self.splits.mean, self.splits.std))
        self.scale, self.shift = 1 / (255 * std), -mean / std

    def steps_per_epoch(self, batch_size: int) -> int:
        """Return the number of whole batches in the training split (at least one)."""
        return max(1, len(self.targets["train"]) // batch_size)

    def epoch(
        self, batch_size: int, order_seed: int, augment_seed: int, first: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images, labels) in a new order; the remainder that fills no batch is left out of this epoch."""
        images, targets = self.images["train"], self.targets["train"]
        order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(order_seed)).to(self.device)
        generator = torch.Generator().manual_seed(augment_seed)
        draws = augment.draw(len(targets), self.augment, generator).to(self.device)
        for step in range(first, self.steps_per_epoch(batch_size)):
            place = slice(step * batch_size, (step + 1) * batch_size)
            chosen = order[place]
            batch = images.index_select(0, chosen)  # several times faster than images[chosen]
            yield self._ready(augment.apply(batch, draws[place])), targets[chosen]

    def _ready(self, images: Tensor) -> Tensor:
        return torch.addcmul(self.shift, images, self.scale).contiguous(memory_format=self.format)

    def probe(self, count: int) -> tuple[Tensor, Tensor]:
        """Return the first ``count`` validation images and their labels."""
        return self._ready(self.images["valid"][:count]), self.targets["valid"][:count]

    def mask(self, target: Tensor) -> None:
        """Return None: every image counts."""

    def evaluate(self, split: str, predict: Callable[[Tensor], Tensor], link: str, batch_size: int) -> dict[str, Any]:
        """Return top-1, top-5, macro-F1, per-class accuracy and, where ``link`` allows, likelihood and calibration."""
        images, targets = self.images[split], self.targets[split]
        logits = torch.cat([predict(self._ready(part)) for part in images.split(batch_size)])
        return metrics(logits, targets, link)

    def examples(self, predict: Callable[[Tensor], Tensor]) -> None:
        """Return None: labels are told by the metrics."""

    def describe(self) -> dict[str, Any]:
        """Return sizes of the splits, number of classes, and the checksum of indices and labels."""
        counts = {name: len(target) for name, target in self.targets.items()}
        return {**counts, "classes": len(self.splits.classes), "checksum": self.splits.checksum}


def metrics(logits: Tensor, target: Tensor, link: str) -> dict[str, Any]:
    """Judge class scores.

    Args:
        logits: (N, C) scores; the class with the highest is predicted.
        target: (N,) class indices.
        link: ``softmax`` (likelihood and calibration), ``sigmoid`` (calibration of the predicted class), ``none``.

    Returns:
        ``top1``, ``top5``, ``macro_f1`` in [0, 1] (classes that neither occur nor are predicted are left out of
        macro-F1), ``nll`` in nats and ``ece`` in [0, 1] over 15 equal bins or None, ``per_class`` recalls (NaN: none).
    """
    classes = logits.shape[1]
    best = logits.topk(min(5, classes)).indices
    predicted = best[:, 0]
    confusion = torch.bincount(target * classes + predicted, minlength=classes**2).view(classes, classes).double()
    hits, actual, guessed = confusion.diag(), confusion.sum(1), confusion.sum(0)
    f1 = 2 * hits / (actual + guessed)
    scalars = {
        "top1": hits.sum() / len(target),
        "top5": (best == target[:, None]).any(1).double().mean(),
        "macro_f1": f1[actual + guessed > 0].mean(),
    }
    if link == "softmax":
        scalars["nll"] = torch.nn.functional.cross_entropy(logits.double(), target)
    if link != "none":
        scores = logits.softmax(1) if link == "softmax" else _confidence_of_best(logits)
        scalars["ece"] = multiclass_calibration_error(
            scores, target, classes, CALIBRATION_BINS, validate_args=False
        ).double()
    values = torch.cat([torch.stack(list(scalars.values())), hits / actual]).tolist()  # the one transfer to the host
    named = dict(zip(scalars, values[: len(scalars)], strict=True))
    return {
        "top1": 0.0,
        "top5": 0.0,
        "macro_f1": 0.0,
        "nll": None,
        "ece": None,
        **named,
        "per_class": values[len(scalars) :],
    }


def _confidence_of_best(logits: Tensor) -> Tensor:
    """Return scores whose greatest is the sigmoid of the best logit: what one-vs-rest believes of its choice."""
    return logits.sigmoid().where(logits == logits.amax(1, keepdim=True), 0.0)
