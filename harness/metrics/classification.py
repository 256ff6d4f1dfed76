"""Metrics of class scores: accuracy, rare classes, ranking, likelihood and calibration."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from harness.metrics import items
from losses.loss import Link

CALIBRATION_BINS = 15
EXACT_SCORES = 1 << 24
"""Scores (items times classes) up to which the area under the ROC curve is exact; beyond, a histogram gives it."""


class ClassificationMetrics:
    """Counts of a split, added up on the device; the host is asked once, at the end.

    Args:
        classes: number of classes C.
        link: ``softmax`` (likelihood and calibration), ``sigmoid`` (calibration of the predicted class) or None.
        counts: (C,) training images of each class; a class is a minority if it has at most half as many as the most
            frequent one.
        device: where scores lie.
        keep: whether to keep of every item whether it was right.
    """

    def __init__(self, classes: int, link: Link, counts: Tensor, device: torch.device, *, keep: bool = False) -> None:
        self.classes, self.link, self.counts, self.keep = classes, link, counts, keep
        self.kept = Rows()
        self.confusion = torch.zeros(classes**2, dtype=torch.int64, device=device)
        self.sums = {name: torch.zeros((), dtype=torch.float64, device=device) for name in ("top5", "nll")}
        self.bins = torch.zeros(3, CALIBRATION_BINS + 1, dtype=torch.float64, device=device)
        self.ranking = AreaUnderCurve(classes)

    def add(self, logits: Tensor, target: Tensor) -> None:
        """Count a batch: logits (N, C), of which the highest is predicted, and classes (N,)."""
        best = logits.topk(min(5, self.classes)).indices
        self.confusion += torch.bincount(target * self.classes + best[:, 0], minlength=self.classes**2)
        self.sums["top5"] += (best == target[:, None]).any(1).sum()
        if self.link == "softmax":
            self.sums["nll"] += functional.cross_entropy(logits.double(), target, reduction="sum")
        if self.link is not None:
            scores = logits.softmax(1) if self.link == "softmax" else logits.sigmoid()
            self._calibrate(scores.amax(1), best[:, 0] == target)
        if self.keep:
            self.kept.add(torch.stack([target, (best[:, 0] == target).to(target)], 1))
        self.ranking.add(logits.sigmoid() if self.link == "sigmoid" else logits.softmax(1), target)

    def _calibrate(self, confidence: Tensor, correct: Tensor) -> None:
        edges = torch.linspace(0, 1, CALIBRATION_BINS + 1, device=confidence.device)
        index = (
            torch.bucketize(confidence, edges, right=True) - 1
        )  # as torchmetrics: a confidence of 1 has a bin of its own
        for row, values in enumerate((torch.ones_like(confidence), correct, confidence)):
            self.bins[row].scatter_add_(0, index, values.double())

    def items(self, index: Tensor) -> dict[str, np.ndarray]:
        """Return what is kept of every item, in the order in which they came (`harness.metrics.items.of_classes`).

        Args:
            index: (N,) position of each in the official file.
        """
        target, correct = self.kept.values.T.cpu().numpy()
        return items.of_classes(index.numpy(), target, correct.astype(bool))

    def scores(self) -> dict[str, Any]:
        """Return all metrics.

        Returns:
            ``top1``, ``top5``, ``macro_f1`` in [0, 1] (classes that neither occur nor are predicted are left out of
            macro-F1), ``balanced_accuracy`` and ``gmean``, the arithmetic and the geometric mean of the recalls of
            classes that occur, ``auc``, ``minority_recall`` or None where no class is a minority, ``nll`` in nats and
            ``ece`` in [0, 1] over 15 equal bins or None, ``confidence_gap`` in [-1, 1], mean confidence minus accuracy
            (above 0: overconfident) or None, ``per_class`` recalls (NaN: the class does not occur).
        """
        confusion = self.confusion.view(self.classes, self.classes).double()
        hits, actual, guessed = confusion.diag(), confusion.sum(1), confusion.sum(0)
        total = actual.sum()
        f1 = 2 * hits / (actual + guessed)
        recalls = hits[actual > 0] / actual[actual > 0]
        found = {
            "top1": hits.sum() / total,
            "top5": self.sums["top5"] / total,
            "macro_f1": f1[actual + guessed > 0].mean(),
            "balanced_accuracy": recalls.mean(),
            "gmean": recalls.log().mean().exp(),
            "auc": self.ranking.value(),
        }
        if (rare := (2 * self.counts <= self.counts.max()) & (actual > 0)).any():
            found["minority_recall"] = (hits / actual)[rare].mean()
        if self.link == "softmax":
            found["nll"] = self.sums["nll"] / total
        if self.link is not None:
            _, correct, confidence = self.bins
            found["ece"] = (correct - confidence).abs().sum() / total
            found["confidence_gap"] = (confidence - correct).sum() / total
        values = torch.cat([torch.stack(list(found.values())), hits / actual]).tolist()  # the one transfer to the host
        absent = {name: None for name in ("minority_recall", "nll", "ece", "confidence_gap") if name not in found}
        return dict(zip(found, values, strict=False)) | absent | {"per_class": values[len(found) :]}


class Rows:
    """Rows that are added batch by batch, in one tensor that doubles when it is full.

    A list of small tensors that live as long as the evaluation lies between those of each batch, and leaves holes in
    memory when they go.

    Attributes:
        count: rows so far.
    """

    LEAST = 1024

    def __init__(self) -> None:
        self.count = 0
        self._held: Tensor | None = None

    def add(self, rows: Tensor) -> None:
        """Append rows (N, ...), of the shape and dtype of those before."""
        count = self.count + len(rows)
        if self._held is None or count > len(self._held):
            grown = rows.new_empty(max(self.LEAST, 2 * count), *rows.shape[1:])
            if self._held is not None:
                grown[: self.count] = self._held[: self.count]
            self._held = grown
        self._held[self.count : count] = rows
        self.count = count

    @property
    def values(self) -> Tensor:
        """All rows so far, (count, ...), a view.

        Raises:
            ValueError: there are none.
        """
        if self._held is None:
            raise ValueError("nothing was added")
        return self._held[: self.count]


TRIVIAL = ("top1", "macro_f1", "balanced_accuracy", "gmean", "minority_recall")


def trivial(counts: Tensor, target: Tensor) -> dict[str, float]:
    """Return what it scores to call every item by the most frequent class of training, by metric.

    Args:
        counts: (C,) training items of each class.
        target: (N,) classes of the items that are judged.
    """
    counts, target = counts.cpu(), target.cpu()
    metrics = ClassificationMetrics(len(counts), None, counts, counts.device)
    metrics.add((torch.arange(len(counts)) == counts.argmax()).double().expand(len(target), -1), target)
    found = metrics.scores()
    return {name: found[name] for name in TRIVIAL if found[name] is not None}


class AreaUnderCurve:
    """Mean over classes of the area under the ROC curve of each class against all others.

    It is exact while the scores seen so far fit into memory; a greater split is counted into a histogram of 4,096 bins
    per class, in which ties within a bin count half. Bins are equal in log-odds, over the range of float32, because
    nearly all probabilities of a trained network lie close to 0.

    Args:
        classes: number of classes.
    """

    BINS = 4096
    LOW, HIGH = -104.0, 17.0

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.scores, self.target = Rows(), Rows()
        self.histogram: Tensor | None = None  # (2, C, bins): items of the class, and others

    def add(self, scores: Tensor, target: Tensor) -> None:
        """Count a batch: scores (N, C) in [0, 1], comparable over items, and classes (N,)."""
        if self.histogram is None:
            self.scores.add(scores)
            self.target.add(target)
            if self.scores.count * self.classes > EXACT_SCORES:
                self.histogram = torch.zeros(2, self.classes, self.BINS, dtype=torch.float64, device=scores.device)
                self._count(self.scores.values, self.target.values)
                self.scores, self.target = Rows(), Rows()
        else:
            self._count(scores, target)

    def _count(self, scores: Tensor, target: Tensor) -> None:
        assert self.histogram is not None
        odds = scores.double().logit().clamp(self.LOW, self.HIGH)
        index = ((odds - self.LOW) / (self.HIGH - self.LOW) * self.BINS).long().clamp_max(self.BINS - 1).T
        own = functional.one_hot(target, self.classes).T.double()
        for row, members in enumerate((own, 1 - own)):
            self.histogram[row].scatter_add_(1, index, members)

    def value(self) -> Tensor:
        """Return the mean area in [0, 1]; NaN if no class and its rest both occur."""
        if self.histogram is None:
            return area_under_curve(self.scores.values, self.target.values)
        own, others = self.histogram
        below = others.cumsum(1) - others
        members, rest = own.sum(1), others.sum(1)
        return ((own * (below + others / 2)).sum(1) / (members * rest))[(members > 0) & (rest > 0)].mean()


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
