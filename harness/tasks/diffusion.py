"""Diffusion: a network learns to take noise out of images, and makes images from pure noise step by step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from harness.errors import UsageError, unknown
from harness.tasks import Batch, Lazy, Objective, Predict, Seeds, Setup
from harness.tasks.generation import Generation
from losses.kinds import Pair

PREDICTS = ("noise", "image")
OFFSET = 0.008
MOST_BETA = 0.999


class Diffusion(Generation):
    """Denoising diffusion (Ho et al., NeurIPS 2020, arXiv 2006.11239) with a cosine schedule.

    The network answers with the noise or with the image; each follows from the other, so losses compare either of
    them, as ``noise`` and as ``images`` in [0, 1]. Where it is not what the network answers with, the loss is weighted
    by the share of noise. ``values`` are what the network answers with, number by number.

    Args:
        setup: which data, and where.
        steps: from an image to pure noise, and back in sampling.
        predicts: noise or image.
        more: settings of `Generation`.

    Raises:
        UsageError: a setting is out of its range.
    """

    offers = frozenset({"noise", "images", "values"})
    evaluates = offers
    needs: ClassVar[tuple[str, ...]] = ("noise_level",)
    suited: ClassVar[str] = "model=denoiser_micro"

    def __init__(self, setup: Setup, steps: int = 50, predicts: str = "noise", **more: Any) -> None:
        super().__init__(setup, **more)
        if steps < 2:
            raise UsageError(f"task.steps is {steps}; it must be 2 or more.")
        if predicts not in PREDICTS:
            raise unknown("what task.predicts can be", predicts, PREDICTS)
        self.steps, self.predicts = steps, predicts
        self.signal = signal_left(steps).to(self.device)

    def epoch(self, seeds: Seeds, first: int = 0) -> Iterator[Batch]:
        """Yield images in a new order, each its own target."""
        for images in self.real(seeds, first):
            yield Batch((images,), images)

    def objectives(self, model: nn.Module, batch: Batch) -> Iterator[Objective]:
        """Yield the one objective, each image at a random step with random noise."""
        count, (images,) = len(batch.target), batch.inputs
        steps = torch.randint(1, self.steps + 1, (count,), device=self.device)
        noise, signal = self.noise(count), _per_image(self.signal[steps])
        noisy = signal.sqrt() * (2 * images - 1) + (1 - signal).sqrt() * noise
        found = model(noisy, steps / self.steps)["denoised"]
        target = noise if self.predicts == "noise" else 2 * images - 1
        makers = {
            "noise": lambda: Pair(self.parted(found, noisy, signal)[0], noise),
            "images": lambda: Pair((self.parted(found, noisy, signal)[1] + 1) / 2, images),
            "values": lambda: Pair(found, target),
        }
        yield Objective("model", Lazy(makers))

    def parted(self, found: Tensor, noisy: Tensor, signal: Tensor) -> tuple[Tensor, Tensor]:
        """Return the noise and the image in [-1, 1] that an answer of the network stands for.

        Args:
            found: what the network answers with (N,C,H,W).
            noisy: what it was given.
            signal: share of the image's variance that is left in it (N,1,1,1).
        """
        if self.predicts == "noise":
            return found, (noisy - (1 - signal).sqrt() * found) / signal.sqrt()
        return (noisy - signal.sqrt() * found) / (1 - signal).sqrt(), found

    def sample(self, predict: Predict, noise: Tensor, generator: torch.Generator) -> Tensor:
        """Return images from pure noise, step by step, with noise of a generator in between (algorithm 2)."""
        images = noise
        for step in range(self.steps, 0, -1):
            signal, after = self.signal[step], self.signal[step - 1]
            kept, noisy = signal / after, 1 - signal
            times = torch.full((len(images),), step / self.steps, device=self.device)
            _, clean = self.parted(predict(images, times)["denoised"], images, signal)
            images = kept.sqrt() * (1 - after) / noisy * images + after.sqrt() * (1 - kept) / noisy * clean.clamp(-1, 1)
            if step > 1:
                images = images + ((1 - kept) * (1 - after) / noisy).sqrt() * self.noise(len(images), generator)
        return ((images + 1) / 2).clamp(0, 1)


def signal_left(steps: int) -> Tensor:
    """Return the share of an image's variance that is left after 0 to ``steps`` steps: (steps + 1,), from 1 on down.

    The squared cosine from 0 to a right angle; no step takes more than 99.9 % away.

    Source:
        Nichol and Dhariwal, Improved denoising diffusion, ICML 2021, arXiv 2102.09672, eq. 17.
    """
    times = (torch.arange(steps + 1, dtype=torch.float64) / steps + OFFSET) / (1 + OFFSET)
    curve = (times * math.pi / 2).cos().square()
    kept = (curve[1:] / curve[:-1]).clamp_min(1 - MOST_BETA)
    return torch.cat([torch.ones(1, dtype=torch.float64), kept.cumprod(0)]).float()


def _per_image(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
