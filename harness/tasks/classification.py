"""Image classification: one label per image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from datasets import augment
from harness.errors import UsageError
from harness.tasks import DataSetup, robustness
from harness.tasks.loading import OnDevice

CALIBRATION_BINS = 15


class Classification(OnDevice):
    """Images with a class each, augmented on the device in batches."""

    takes = frozenset({"class_logits", "features"})
    judges = frozenset({"class_logits"})
    selects = "top1"
    masked = dense = False

    def __init__(self, setup: DataSetup, robustness: Mapping[str, float] | None = None) -> None:
        super().__init__(setup)
        self.robustness = dict(robustness or {})
        for name, value in self.robustness.items():
            if not 0 <= value <= 1:
                raise UsageError(f"robustness.{name} is {value}; it must be between 0 (not measured) and 1.")

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
        """Return what `metrics` says, and for the test what robustness was asked for."""
        images, targets = self.images[split], self.targets[split]
        logits = torch.cat([predict(self.ready(part)) for part in images.split(batch_size)])
        found = metrics(logits, targets, link, self.class_counts)
        return found | self._robustness(predict, batch_size) if split == "test" else found

    def _robustness(self, predict: Callable[[Tensor], Tensor], batch_size: int) -> dict[str, float]:
        """Return top-1 on test images made harder in the ways that were asked for."""

        def scores(images: Tensor) -> Tensor:
            return predict(self.ready(255 * images))

        generator = torch.Generator().manual_seed(0)  # the same noise for every loss and seed
        harder = {
            "noise": ("noisy_top1", lambda x, _, size: robustness.noisy(x, size, generator)),
            "blur": ("blurred_top1", lambda x, _, size: robustness.blurred(x, size)),
            "fade": ("faded_top1", lambda x, _, size: robustness.faded(x, size)),
            "attack": ("attacked_top1", lambda x, target, size: robustness.attacked(scores, x, target, size)),
        }
        images, targets = self.images["test"].split(batch_size), self.targets["test"].split(batch_size)
        found = {}
        for kind, size in self.robustness.items():
            name, change = harder[kind]
            hits = [
                scores(change(x.float() / 255, target, size)).argmax(1) == target
                for x, target in zip(images, targets, strict=True)
            ]
            found[name] = float(torch.cat(hits).double().mean())
        return found

    def examples(self, predict: Callable[[Tensor], Tensor]) -> None:
        """Return None: labels are told by the metrics."""


def metrics(logits: Tensor, target: Tensor, link: str, counts: Tensor | None = None) -> dict[str, Any]:
    """Judge class scores.

    Args:
        logits: (N, C) scores; the class with the highest is predicted.
        target: (N,) class indices.
        link: ``softmax`` (likelihood and calibration), ``sigmoid`` (calibration of the predicted class), ``none``.
        counts: (C,) training images of each class; a class is a minority if it has at most half as many as the
            most frequent one.

    Returns:
        ``top1``, ``top5``, ``macro_f1`` in [0, 1] (classes that neither occur nor are predicted are left out of
        macro-F1), ``balanced_accuracy`` and ``gmean``, the arithmetic and the geometric mean of the recalls of classes
        that occur, ``auc``, ``minority_recall`` or None where no class is a minority, ``nll`` in nats and ``ece`` in
        [0, 1] over 15 equal bins or None, ``per_class`` recalls (NaN: none).
    """
    classes = logits.shape[1]
    best = logits.topk(min(5, classes)).indices
    predicted = best[:, 0]
    confusion = torch.bincount(target * classes + predicted, minlength=classes**2).view(classes, classes).double()
    hits, actual, guessed = confusion.diag(), confusion.sum(1), confusion.sum(0)
    f1 = 2 * hits / (actual + guessed)
    recalls = hits[actual > 0] / actual[actual > 0]
    scalars = {
        "top1": hits.sum() / len(target),
        "top5": (best == target[:, None]).any(1).double().mean(),
        "macro_f1": f1[actual + guessed > 0].mean(),
        "balanced_accuracy": recalls.mean(),
        "gmean": recalls.log().mean().exp(),
        "auc": area_under_curve(logits.sigmoid() if link == "sigmoid" else logits.softmax(1), target),
    }
    if counts is not None and (rare := (2 * counts <= counts.max()) & (actual > 0)).any():
        scalars["minority_recall"] = (hits / actual)[rare].mean()
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
        "balanced_accuracy": 0.0,
        "gmean": 0.0,
        "auc": None,
        "minority_recall": None,
        "nll": None,
        "ece": None,
        **named,
        "per_class": values[len(scalars) :],
    }


def area_under_curve(scores: Tensor, target: Tensor) -> Tensor:
    """Return the mean over classes of the area under the ROC curve of each class against all others.

    It is the chance that an item of the class scores higher than one of another, ties counting half (Mann and Whitney);
    torchmetrics' way through the whole curve takes ten times as long. NaN if no class and its rest both occur.

    Args:
        scores: (N, C), comparable over items (probabilities, say).
        target: (N,) class indices.
    """
    columns = scores.T.contiguous()
    ordered = columns.sort(1).values
    ranks = (torch.searchsorted(ordered, columns) + torch.searchsorted(ordered, columns, right=True) + 1) / 2
    own = torch.nn.functional.one_hot(target, scores.shape[1]).T.double()
    members = own.sum(1)
    others = len(target) - members
    above = (ranks * own).sum(1) - members * (members + 1) / 2
    return (above / (members * others))[(members > 0) & (others > 0)].mean()


def _confidence_of_best(logits: Tensor) -> Tensor:
    """Return scores whose greatest is the sigmoid of the best logit: what one-vs-rest believes of its choice."""
    return logits.sigmoid().where(logits == logits.amax(1, keepdim=True), 0.0)
