"""Image classification: one label per image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from datasets import augment
from harness.tasks.loading import OnDevice

CALIBRATION_BINS = 15


class Classification(OnDevice):
    """Images with a class each, augmented on the device in batches."""

    takes = frozenset({"class_logits", "features"})
    judges = "class_logits"
    selects = "top1"
    dense = False

    @property
    def model_shape(self) -> dict[str, Any]:
        """What a model must know of the data."""
        channels, size = self.splits.train.images.shape[1:3]
        return {"in_channels": channels, "image_size": size, "num_classes": self.classes}

    def epoch(
        self, batch_size: int, order_seed: int, augment_seed: int, first: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images, labels) in a new order; the remainder that fills no batch is left out of this epoch."""
        images, targets, order = self.images["train"], self.targets["train"], self.order(order_seed)
        generator = torch.Generator().manual_seed(augment_seed)
        draws = augment.draw(len(targets), self.augment, generator).to(self.device)
        for step in range(first, self.steps_per_epoch(batch_size)):
            place = slice(step * batch_size, (step + 1) * batch_size)
            chosen = order[place]
            batch = images.index_select(0, chosen)  # several times faster than images[chosen]
            yield self.ready(augment.apply(batch, draws[place])), targets[chosen]

    def probe(self, count: int) -> tuple[Tensor, Tensor]:
        """Return the first ``count`` validation images and their labels."""
        return self.ready(self.images["valid"][:count]), self.targets["valid"][:count]

    def mask(self, target: Tensor) -> None:
        """Return None: every image counts."""

    def evaluate(self, split: str, predict: Callable[[Tensor], Tensor], link: str, batch_size: int) -> dict[str, Any]:
        """Return top-1, top-5, macro-F1, per-class accuracy and, where ``link`` allows, likelihood and calibration."""
        images, targets = self.images[split], self.targets[split]
        logits = torch.cat([predict(self.ready(part)) for part in images.split(batch_size)])
        return metrics(logits, targets, link)

    def examples(self, predict: Callable[[Tensor], Tensor]) -> None:
        """Return None: labels are told by the metrics."""


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
