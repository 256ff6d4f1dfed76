"""Embedding: features in which images of one class are near each other, for classes that were never trained on."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from datasets import augment
from datasets.by_class import Protocol
from harness.errors import UsageError
from harness.feeds import samplers, splits_for
from harness.metrics.retrieval import REIDENTIFICATION, RETRIEVAL, RetrievalMetrics, main_directions, neighbours
from harness.metrics.verification import Similarities
from harness.tasks import Batch, Predict, Seeds, Setup, Shift, Spec
from harness.tasks.images import ImageTask
from losses.kinds import Pair, Pairs

QUERIES, NEIGHBOURS, BINS, CLASSES, SHOWN = 6, 6, 80, 8, 400
"""Of the pictures: queries, neighbours of each, steps of curves, classes and items of the plane."""


class Embedding(ImageTask):
    """Images with a class each, trained on some classes and evaluated on others by the features alone.

    Args:
        setup: which data, and where.
        sampler: ``balanced``: batches of P classes with K images each; ``shuffled``: every image once an epoch.
        images_per_class: K of a balanced batch, two or more; P = batch size / K.
        dimension: length of an embedding; None: that of the model's own features.
        normalise: whether losses see embeddings of length 1. Metrics compare directions in any case.
        views: 2: every image of a batch comes twice, augmented differently; losses may then compare ``embeddings``,
            the features of one view with those of the other.

    Raises:
        UsageError: one of these is out of its range, or validation and test have no classes of their own.
    """

    offers = frozenset({"features", "class_logits", "embeddings"})  # the last with two views only
    evaluates = offers  # all of them train the features
    metrics = RETRIEVAL
    made_for: ClassVar[str] = "embedding"

    def __init__(
        self,
        setup: Setup,
        sampler: Literal["balanced", "shuffled"],
        images_per_class: int,
        dimension: int | None,
        normalise: bool,
        views: Literal[1, 2],
    ) -> None:
        super().__init__(setup)
        self.views, self.normalise = views, normalise
        if views not in (1, 2):
            raise UsageError(f"task.views is {views}; it must be 1 or 2.")
        if views == 2 and not any(self.augment.values()):
            raise UsageError("task.views is 2, but dataset.augment is empty, so that both views would be the same.")
        whole = splits_for(setup)
        self.unseen, self.protocols = whole.unseen, whole.protocols
        if any(protocol.camera is not None for protocol in self.protocols.values()):
            self.metrics = RETRIEVAL + REIDENTIFICATION  # pyright: ignore[reportAttributeAccessIssue]
        self.untrained: nn.Module | None = None
        self.tested: tuple[Tensor, Tensor, Similarities] | None = None
        if views == 1:
            self.offers = type(self).offers - {"embeddings"}  # pyright: ignore[reportAttributeAccessIssue]
        self.sampler, self.batches = sampler, {"sampler": sampler}
        if sampler == "balanced":
            if images_per_class < 2 or setup.batch_size % images_per_class:
                raise UsageError(
                    f"task.images_per_class is {images_per_class}; it must be two or more and divide "
                    f"trainer.batch_size, {setup.batch_size}."
                )
            shape = {"classes": setup.batch_size // images_per_class, "images": images_per_class}
            self.order = functools.partial(samplers.balanced, self.splits.train.labels, **shape)
            self.batches |= {"classes_per_batch": shape["classes"], "images_per_class": images_per_class}
            self.order(0)  # refuses what cannot be had
        elif sampler == "shuffled":
            self.order = functools.partial(samplers.shuffled, self.splits.train.labels)
        else:
            raise UsageError(f"task.sampler is {sampler}; it must be balanced or shuffled.")
        shape = tuple(self.splits.train.images.shape[1:])
        self.spec = Spec(shape, {"class_logits": self.classes}, classes=self.classes, dimension=dimension)

    def epoch(self, seeds: Seeds, first: int = 0) -> Iterator[Batch]:
        """Yield images and labels in the order of the sampler; second views follow after all first ones."""
        generator = torch.Generator().manual_seed(seeds.augment)
        size, count = self.setup.batch_size, self.steps_per_epoch * self.setup.batch_size
        views = [augment.draw(count, self.augment, generator).to(self.device) for _ in range(self.views)]
        for step, (images, targets) in enumerate(self.feed.shuffled(self.order(seeds.order), size, first), first):
            rows = slice(step * size, step * size + len(targets))
            seen = torch.cat([augment.apply(images, draws[rows]) for draws in views])
            yield Batch((self.ready(seen),), targets.repeat(self.views))

    def pairs(self, outputs: Any, batch: Batch) -> Pairs:
        """Return features (N,F) and, if the model has a head, class scores (N,C), both with the labels (N,); with two
        views also the features of both, matched row by row.
        """
        found = {kind: Pair(outputs[kind], batch.target) for kind in ("class_logits", "features") if kind in outputs}
        if self.normalise:
            found["features"] = Pair(functional.normalize(outputs["features"]), batch.target)
        if self.views == 2:
            found["embeddings"] = Pair(*found["features"].prediction.chunk(2))
        return found

    def prepare(self, model: nn.Module, losses: Mapping[str, Any], seeds: Seeds) -> dict[str, float]:
        """Keep the initial weights, which are one of the floors."""
        self.untrained = copy.deepcopy(model).cpu()
        return {}

    def evaluate(self, predict: Predict, split: str, shift: Shift | None = None) -> dict[str, Any]:
        """Return what `RetrievalMetrics` finds for a split; of test data also what each class scores."""
        metrics = RetrievalMetrics(self.protocols.get(split))
        for images, targets in self.judged(split, predict, shift):
            metrics.add(predict(images)["features"], targets)
        scores, items, similarities = metrics.found()
        if split == "test" and shift is None:
            self.tested = (*metrics.joined(), similarities)
        return scores | ({"items": items} if split == "test" and items else {})

    def examples(self, predict: Predict) -> dict[str, Any] | None:
        """Return what pictures of the test split show.

        Returns:
            ``queries`` uint8 (Q,C,H,W), evenly spaced, their ``neighbours`` (Q,K,C,H,W), nearest first, and whether
            each is of the class, ``right``; shares of ``genuine`` and ``impostors`` in equal bins of the cosine from -1
            to 1; ``false`` and ``true`` accepts, the ROC; ``plane`` (M,2), the two main directions of the embeddings of
            a few classes, ``plane_class`` (M,).
        """
        if self.tested is None:
            return None
        features, target, similarities = self.tested
        rows = self.protocols.get("test", Protocol()).queries(len(target)).to(target.device)
        rows = rows[torch.linspace(0, len(rows) - 1, min(QUERIES, len(rows))).long()]
        near = neighbours(features, target, rows, NEIGHBOURS, self.protocols.get("test"))
        shown = [self.feed.rows("test", part.cpu())[0].byte().cpu().numpy() for part in (rows, near.flatten())]
        genuine, impostors = similarities.histograms(BINS)
        false, true = similarities.roc()
        at = np.unique(np.searchsorted(false, np.concatenate([[0], np.geomspace(1e-4, 1, BINS)]), "right") - 1)
        few = (target - target.min() < CLASSES).nonzero()[:SHOWN, 0]
        return {
            "queries": shown[0],
            "neighbours": shown[1].reshape(*near.shape, *shown[1].shape[1:]),
            "right": (target[near] == target[rows, None]).cpu().numpy(),
            "genuine": genuine.astype(np.float32),
            "impostors": impostors.astype(np.float32),
            "false": false[at].astype(np.float32),
            "true": true[at].astype(np.float32),
            "plane": main_directions(features[few]).cpu().numpy().astype(np.float32),
            "plane_class": (target[few] - target.min()).cpu().numpy().astype(np.int16),
        }

    def describe(self) -> dict[str, Any]:
        """Return sizes and classes of the splits, the checksum, how batches are made, and the floors: what raw pixels
        and the network before training score.
        """
        counts = {split: len(names) for split, names in self.unseen.items()}
        floors = {"raw_pixels": self._floor(lambda images: images.flatten(1))}
        if self.untrained is not None:
            network = self.untrained.to(self.device).eval()
            floors["untrained_network"] = self._floor(lambda images: network(images)["features"].float())
        return {
            **super().describe(),
            **{f"{split}_classes": list(names) for split, names in self.unseen.items()},
            "class_numbers": {"train": self.classes, **counts},
            **self.batches,
            "views": self.views,
            "dimension": self.spec.dimension,
            "floors": floors,
            "trivial": floors["raw_pixels"],
            "trivial_name": "the pixels themselves",
        }

    @torch.inference_mode()
    def _floor(self, features: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Return what features that nobody trained score on the test split."""
        metrics = RetrievalMetrics(self.protocols.get("test"))
        for images, targets in self.feed.ordered("test", self.setup.eval_batch_size):
            metrics.add(features(self.ready(images)), targets)
        return metrics.scores()
