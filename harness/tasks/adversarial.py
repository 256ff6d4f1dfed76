"""Adversarial generation: a critic tells generated images from real ones, a generator learns from its scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, ClassVar

import torch
from torch import Tensor

from harness.errors import UsageError
from harness.tasks import Batch, Lazy, Objective, Predict, Seeds, Setup
from harness.tasks.generation import Generation
from losses.generative import critic_slopes
from losses.kinds import Pair


class Adversarial(Generation):
    """A generator trained against a critic.

    The critic's losses compare its scores of real and generated images, and, for a penalty, its slopes between them.
    The generator's compare the critic's scores of generated images, with the target 0, and ``feature_maps``: the
    critic's last maps, averaged over generated and over real images (Salimans et al., Improved techniques for training
    GANs, NeurIPS 2016, arXiv 1606.03498, sec. 3.1), because no generated image belongs to a real one.

    Args:
        setup: which data, and where.
        critic_steps: steps of the critic, each on a batch of its own, before one of the generator.
        more: settings of `Generation`.

    Raises:
        UsageError: a number is below its least value, or the data set does not have that many batches.
    """

    offers = frozenset({"critic_scores", "critic_slopes", "feature_maps"})
    evaluates = frozenset({"critic_scores", "feature_maps"})
    roles: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "critic": ("critic", "penalty"),
        "generator": ("generator", "matching"),
    }
    role_kinds: ClassVar[Mapping[str, frozenset[str]]] = {
        "critic": frozenset({"critic_scores"}),
        "penalty": frozenset({"critic_slopes"}),
        "generator": frozenset({"critic_scores", "feature_maps"}),
        "matching": frozenset({"feature_maps"}),
    }
    needs: ClassVar[tuple[str, ...]] = ("critic", "generator")
    suited: ClassVar[str] = "model=gan_micro"

    def __init__(self, setup: Setup, critic_steps: int = 1, **more: Any) -> None:
        super().__init__(setup, **more)
        if not 1 <= critic_steps <= self.steps_per_epoch:
            raise UsageError(
                f"task.critic_steps is {critic_steps}; it must be from 1 to {self.steps_per_epoch}, the batches of an "
                "epoch."
            )
        self.critic_steps = critic_steps
        self.steps_per_epoch //= critic_steps

    def epoch(self, seeds: Seeds, first: int = 0) -> Iterator[Batch]:
        """Yield as many batches of real images at a time as the critic takes steps."""
        real = self.real(seeds, first * self.critic_steps)
        for _ in range(first, self.steps_per_epoch):
            yield Batch(tuple(islice(real, self.critic_steps)), None)

    def objectives(self, model: Any, batch: Batch) -> Iterator[Objective]:
        """Yield the critic's objective for every batch of real images, then the generator's."""
        generator, critic = model.generator, model.critic
        for real in batch.inputs:
            with torch.no_grad():
                fake = generator(self.noise(len(real)))
            share = torch.rand(len(real), device=self.device)
            yield Objective("critic", Lazy(_of_critic(critic, real, fake, share)))
        real = batch.inputs[-1]
        yield Objective("generator", Lazy(_of_generator(critic, real, generator(self.noise(len(real))))))

    def sample(self, predict: Predict, noise: Tensor, generator: torch.Generator) -> Tensor:
        """Return the generator's images for noise."""
        return predict(noise)["images"]


def _of_critic(critic: Any, real: Tensor, fake: Tensor, share: Tensor) -> dict[str, Any]:
    """Return what makes the pairs of the critic: scores of real and generated images (2N,), and slopes in between."""
    ones = torch.ones(len(real), device=real.device)

    def scores() -> Pair:
        return Pair(critic(torch.cat([real, fake])), torch.cat([ones, torch.zeros_like(ones)]))

    def slopes() -> Pair:
        return Pair(critic_slopes(critic, real, fake, share), ones)

    return {"critic_scores": scores, "critic_slopes": slopes}


def _of_generator(critic: Any, real: Tensor, fake: Tensor) -> dict[str, Any]:
    """Return what makes the pairs of the generator: scores of generated images (N,), and mean maps (1,F,h,w)."""
    maps = critic.features(fake)

    def scores() -> Pair:
        found = critic.scores(maps)
        return Pair(found, torch.zeros_like(found, dtype=torch.float32))

    def features() -> Pair:
        with torch.no_grad():
            wanted = critic.features(real)
        return Pair(maps.mean(0, keepdim=True), wanted.float().mean(0, keepdim=True))

    return {"critic_scores": scores, "feature_maps": features}
