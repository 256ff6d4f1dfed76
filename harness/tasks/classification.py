"""Image classification: one label per image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from datasets import augment
from harness.metrics import declared
from harness.metrics.classification import ClassificationMetrics, trivial
from harness.tasks import Batch, Predict, Seeds, Setup, Shift, Spec
from harness.tasks.images import ImageTask
from losses.kinds import Pair, Pairs


class Classification(ImageTask):
    """Images with a class each, augmented on the device in batches."""

    offers = frozenset({"class_logits", "features"})
    evaluates = frozenset({"class_logits"})
    metrics = declared.CLASSIFICATION

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.spec = Spec(self.splits.train.shape, {"class_logits": self.classes}, classes=self.classes)

    def epoch(self, seeds: Seeds, first: int = 0) -> Iterator[Batch]:
        """Yield images and labels in a new order; the remainder that fills no batch is left out of this epoch."""
        generator = torch.Generator().manual_seed(seeds.augment)
        draws = augment.draw(len(self.splits.train), self.augment, generator).to(self.device)
        for rows, images, targets in self.shuffled(seeds.order, first):
            yield Batch((self.ready(augment.apply(images, draws[rows])),), targets)

    def pairs(self, outputs: Any, batch: Batch) -> Pairs:
        """Return class scores (N,C), if the model has a head, and features (N,F), both with the labels (N,)."""
        return {kind: Pair(outputs[kind], batch.target) for kind in self.offers & outputs.keys()}

    def probe(self, count: int) -> Batch:
        """Return the first ``count`` validation images and their labels."""
        images, targets = self.feed.rows("valid", torch.arange(min(count, len(self.splits.valid))))
        return Batch((self.ready(images),), targets)

    def evaluate(self, predict: Predict, split: str, shift: Shift | None = None) -> dict[str, Any]:
        """Return what `ClassificationMetrics` says of a split, and of every test item."""
        tested = split == "test"
        metrics = ClassificationMetrics(self.classes, predict.link, self.class_counts, self.device, keep=tested)
        for images, targets in self.judged(split, predict, shift):
            metrics.add(predict(images)["class_logits"], targets)
        return metrics.scores() | ({"items": metrics.items(self.splits.test.index)} if tested else {})

    def describe(self) -> dict[str, Any]:
        """Return sizes of the splits, classes, checksum, and what the trivial prediction scores."""
        found = trivial(self.class_counts, self.splits.test.labels)
        return {**super().describe(), "trivial": found, "trivial_name": "the most frequent class of training"}
