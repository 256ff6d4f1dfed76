"""Multi-label classification: any number of labels per image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from datasets import augment
from harness.metrics import declared
from harness.metrics.multilabel import MultilabelMetrics
from harness.tasks import Batch, Predict, Seeds, Setup, Shift, Spec
from harness.tasks.images import ImageTask
from losses.kinds import Pair, Pairs


class Multilabel(ImageTask):
    """Images with any number of labels each, one logit for each label."""

    made_for = "multilabel"
    offers = frozenset({"binary_logits"})
    evaluates = offers
    metrics = declared.MULTILABEL

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.spec = Spec(self.splits.train.shape, {"binary_logits": self.classes}, classes=self.classes)

    def epoch(self, seeds: Seeds, first: int = 0) -> Iterator[Batch]:
        """Yield images and labels in a new order; the remainder that fills no batch is left out of this epoch."""
        generator = torch.Generator().manual_seed(seeds.augment)
        draws = augment.draw(len(self.splits.train), self.augment, generator).to(self.device)
        for rows, images, targets in self.shuffled(seeds.order, first):
            yield Batch((self.ready(augment.apply(images, draws[rows])),), targets.float())

    def pairs(self, outputs: Any, batch: Batch) -> Pairs:
        """Return the logits (N,K) with the labels, 0 or 1 (N,K)."""
        return {"binary_logits": Pair(outputs["binary_logits"], batch.target)}

    def probe(self, count: int) -> Batch:
        """Return the first ``count`` validation images and their labels."""
        images, targets = self.feed.rows("valid", torch.arange(min(count, len(self.splits.valid))))
        return Batch((self.ready(images),), targets.float())

    def evaluate(self, predict: Predict, split: str, shift: Shift | None = None) -> dict[str, Any]:
        """Return what `MultilabelMetrics` says of a split, and of every test item."""
        metrics = MultilabelMetrics(predict.link)
        for images, targets in self.judged(split, predict, shift):
            metrics.add(predict(images)["binary_logits"], targets)
        return metrics.scores() | ({"items": metrics.items(self.splits.test.index)} if split == "test" else {})

    def describe(self) -> dict[str, Any]:
        """Return sizes of the splits, labels and how many training images have each, checksum, and what it scores to
        say of each label what is true of most training images.
        """
        counts, train, truth = self.class_counts.cpu(), len(self.splits.train), self.splits.test.targets
        guess = MultilabelMetrics(None)
        guess.add((2 * counts > train).float().expand(len(truth), -1) - 0.5, torch.as_tensor(truth))
        scores = {name: value for name, value in guess.scores().items() if isinstance(value, float)}
        return {
            **super().describe(),
            "class_counts": counts.tolist(),
            "trivial": scores,
            "trivial_name": "for each label, what is true of most of training",
        }
