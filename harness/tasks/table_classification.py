"""Classification of tables: one label per row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from harness.errors import UsageError
from harness.feeds import check_suited, splits_for
from harness.metrics import declared
from harness.metrics.classification import ClassificationMetrics, trivial
from harness.tasks import Batch, Predict, Seeds, Setup, Shift, Spec, Task, class_statistic
from losses.kinds import Pair, Pairs


class TableClassification(Task):
    """Rows with a class each. Features have mean 0 and standard deviation 1 over the training rows.

    Raises:
        UsageError: the data set is not a table with classes.
    """

    offers = frozenset({"class_logits", "features"})
    evaluates = frozenset({"class_logits"})
    metrics = declared.CLASSIFICATION

    def __init__(self, setup: Setup) -> None:
        self.splits, self.setup, self.device = splits_for(setup), setup, setup.device
        check_suited(self.splits, "table_classification", setup)
        train, self.classes = self.splits.train, len(self.splits.classes)
        mean, deviation = train.features.double().mean(0), train.features.double().std(0, correction=0)
        deviation = torch.where(deviation > 0, deviation, 1)
        parts = {name: getattr(self.splits, name) for name in ("train", "valid", "test")}
        self.inputs = {k: ((v.features - mean) / deviation).float().to(self.device) for k, v in parts.items()}
        self.targets = {name: part.targets.to(self.device) for name, part in parts.items()}
        self.class_counts = torch.bincount(self.targets["train"], minlength=self.classes)
        self.spec = Spec((train.features.shape[1],), {"class_logits": self.classes}, classes=self.classes)
        self.steps_per_epoch = max(1, len(train) // setup.batch_size)

    def statistic(self, name: str) -> Any:
        """Return ``class_counts`` or ``class_weights`` of the training rows; see `class_statistic`."""
        return class_statistic(name, self.class_counts)

    def epoch(self, seeds: Seeds, first: int = 0) -> Iterator[Batch]:
        """Yield rows and labels in a new order; the remainder that fills no batch is left out of this epoch."""
        inputs, targets, size = self.inputs["train"], self.targets["train"], self.setup.batch_size
        order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(seeds.order)).to(self.device)
        for step in range(first, self.steps_per_epoch):
            chosen = order[step * size : (step + 1) * size]
            yield Batch((inputs[chosen],), targets[chosen])

    def pairs(self, outputs: Any, batch: Batch) -> Pairs:
        """Return class scores (N,C), if the model has a head, and features (N,F), both with the labels (N,)."""
        return {kind: Pair(outputs[kind], batch.target) for kind in self.offers & outputs.keys()}

    def probe(self, count: int) -> Batch:
        """Return the first ``count`` validation rows and their labels."""
        return Batch((self.inputs["valid"][:count],), self.targets["valid"][:count])

    def evaluate(self, predict: Predict, split: str, shift: Shift | None = None) -> dict[str, Any]:
        """Return what `ClassificationMetrics` says of a split, and of every test item."""
        if shift is not None:
            raise UsageError("shift changes images, and this task has rows of numbers: leave it out.")
        size, tested = self.setup.eval_batch_size, split == "test"
        metrics = ClassificationMetrics(self.classes, predict.link, self.class_counts, self.device, keep=tested)
        for inputs, targets in zip(self.inputs[split].split(size), self.targets[split].split(size), strict=True):
            metrics.add(predict(inputs)["class_logits"], targets)
        return metrics.scores() | ({"items": metrics.items(self.splits.test.index)} if tested else {})

    def describe(self) -> dict[str, Any]:
        """Return sizes of the splits, training rows of each class, names of features and classes, the checksum, and
        what the trivial prediction scores.
        """
        return {
            **{name: len(targets) for name, targets in self.targets.items()},
            "classes": list(self.splits.classes),
            "class_counts": self.class_counts.tolist(),
            "features": list(self.splits.names),
            "checksum": self.splits.checksum,
            "trivial": trivial(self.class_counts, self.targets["test"]),
            "trivial_name": "the most frequent class of training",
        }
