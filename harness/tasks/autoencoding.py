"""Autoencoding: images through a bottleneck of few numbers and back, and new images from the bottleneck's prior."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from harness.metrics.generation import RECONSTRUCTION, RandomMaps, Reconstruction
from harness.tasks import Batch, Lazy, Objective, Predict, Seeds, Setup, Shift
from harness.tasks.generation import EXAMPLES, Generation, as_bytes
from losses.kinds import Pair, Pairs

MAPS_SEED = 1
"""Seed of the random network whose maps losses compare: another one than that of the metrics."""


class Autoencoding(Generation):
    """A variational autoencoder (Kingma and Welling, arXiv 1312.6114), trained on one weighted sum of losses.

    Reconstructions are compared as ``images``, as ``values`` pixel by pixel, as ``binary_logits`` (scores before the
    sigmoid, grey pixels as probabilities), or as ``feature_maps`` of a fixed random network; the latents with their
    standard normal prior.

    Args:
        setup: which data, and where.
        more: settings of `Generation`.
    """

    offers = frozenset({"images", "values", "binary_logits", "feature_maps", "latents"})
    evaluates = frozenset({"images", "values", "binary_logits", "feature_maps"})
    metrics = (*Generation.metrics, *RECONSTRUCTION)
    roles: ClassVar[Mapping[str, tuple[str, ...]]] = {"model": ("reconstruction", "latent", "features")}
    role_kinds: ClassVar[Mapping[str, frozenset[str]]] = {
        "reconstruction": evaluates,
        "latent": frozenset({"latents"}),
        "features": frozenset({"feature_maps"}),
    }
    needs: ClassVar[tuple[str, ...]] = ("encoder", "decoder")
    suited: ClassVar[str] = "model=vae_micro"

    def __init__(self, setup: Setup, **more: Any) -> None:
        super().__init__(setup, **more)
        self.maps = RandomMaps(self.spec.inputs[0], MAPS_SEED).to(self.device)

    def epoch(self, seeds: Seeds, first: int = 0) -> Iterator[Batch]:
        """Yield images in a new order, each its own target."""
        for images in self.real(seeds, first):
            yield Batch((images,), images)

    def objectives(self, model: nn.Module, batch: Batch) -> Iterator[Objective]:
        """Yield the one objective, with latents drawn from their distributions."""
        yield Objective("model", self.pairs(model(self.noise(len(batch.target)), *batch.inputs), batch))

    def pairs(self, outputs: Any, batch: Batch) -> Pairs:
        """Return reconstructions and images (N,C,H,W) in every kind, and latents (N,2,F)."""
        logits, images = outputs["binary_logits"].float(), batch.target
        found = logits.sigmoid()
        return Lazy(
            {
                "images": lambda: Pair(found, images),
                "values": lambda: Pair(found, images),
                "binary_logits": lambda: Pair(logits, images),
                "feature_maps": lambda: Pair(self.maps(found), self.maps(images).float()),
                "latents": lambda: Pair(outputs["latents"], images.new_zeros(len(images))),
            }
        )

    def sample(self, predict: Predict, noise: Tensor, generator: torch.Generator) -> Tensor:
        """Return decoded noise."""
        return predict(noise)["binary_logits"].sigmoid()

    def reconstructed(self, predict: Predict, images: Tensor) -> Tensor:
        """Return what is decoded from the means of the latents of images."""
        return predict(torch.zeros_like(images), images)["binary_logits"].sigmoid()

    @functools.cached_property
    def train_labels(self) -> Tensor:
        """Labels of the training images that features are compared with."""
        return self.feed.rows("train", self.rows_of("train", self.samples))[1]

    def evaluate(self, predict: Predict, split: str, shift: Shift | None = None) -> dict[str, Any]:
        """Return what `Comparison` finds in images from the prior, and `Reconstruction` in reconstructions."""
        generated = super().evaluate(predict, split, shift)
        metrics = Reconstruction(self.references["train"], self.train_labels)
        for raw, labels in self.feed.ordered(split, self.setup.eval_batch_size):
            images = self.scaled(raw)
            found = self.reconstructed(predict, images)
            metrics.add(found, images, self.features(found), labels)
        return generated | metrics.scores()

    def examples(self, predict: Predict) -> dict[str, Any]:
        """Return a few test images, their reconstructions, and as many images from the prior, uint8 (K,C,H,W)."""
        images = self.scaled(self.spaced("test", EXAMPLES))
        found = as_bytes(self.reconstructed(predict, images)).cpu().numpy()
        return {**super().examples(predict), "reconstructed": found}
