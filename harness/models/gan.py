"""Generators with the critics that they are trained against."""

import itertools
import math
from collections.abc import Sequence

from torch import Tensor, nn

from harness.models.checks import require


class Generator(nn.Module):
    """Images from noise: a linear layer, then convolutions that double the sides of the maps, at last a sigmoid.

    Args:
        channels: of an image.
        size: height and width of an image.
        latent: how many numbers of the noise are used, the first ones.
        widths: of the maps, coarsest first; between two of them the sides double.
    """

    def __init__(self, channels: int, size: tuple[int, int], latent: int, widths: Sequence[int]) -> None:
        super().__init__()
        scale = 2 ** (len(widths) - 1)
        self.latent = latent
        self.start = (widths[0], size[0] // scale, size[1] // scale)
        self.first = nn.Linear(latent, math.prod(self.start))
        layers: list[nn.Module] = [nn.BatchNorm2d(widths[0]), nn.ReLU()]
        for before, after in itertools.pairwise(widths):
            layers += [nn.Upsample(scale_factor=2), nn.Conv2d(before, after, 3, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(after), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], channels, 3, padding=1), nn.Sigmoid())

    def forward(self, noise: Tensor) -> Tensor:
        """Return images (N,C,H,W) in [0, 1] from noise (N,...)."""
        return self.layers(self.first(noise.flatten(1)[:, : self.latent]).unflatten(1, self.start))


class Critic(nn.Module):
    """One score for an image, of it alone: a body that makes maps, and a linear layer on them."""

    body: nn.Module
    last: nn.Module

    def features(self, images: Tensor) -> Tensor:
        """Return the last maps (N,F,h,w) of images (N,C,H,W) in [0, 1]."""
        return self.body(2 * images - 1)

    def scores(self, features: Tensor) -> Tensor:
        """Return scores (N,) from the last maps."""
        return self.last(features.flatten(1)).squeeze(1)

    def forward(self, images: Tensor) -> Tensor:
        """Return scores (N,) of images (N,C,H,W) in [0, 1]."""
        return self.scores(self.features(images))


class ConvolutionalCritic(Critic):
    """One score for an image, of it alone: convolutions that halve the sides of the maps, without normalisation.

    Args:
        channels: of an image.
        size: height and width of an image.
        widths: of the maps, finest first; between two of them the sides are halved.
    """

    def __init__(self, channels: int, size: tuple[int, int], widths: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for number, width in enumerate(widths):
            layers += [nn.Conv2d(channels, width, 3, 1 if number == 0 else 2, padding=1), nn.LeakyReLU(0.2)]
            channels = width
        self.body = nn.Sequential(*layers)
        scale = 2 ** (len(widths) - 1)
        self.last = nn.Linear(channels * (size[0] // scale) * (size[1] // scale), 1)


class DenseGenerator(nn.Module):
    """Images from noise by fully connected layers with ReLU, at last a sigmoid.

    Args:
        shape: of an image.
        latent: how many numbers of the noise are used, the first ones.
        widths: of the hidden layers.
    """

    def __init__(self, shape: tuple[int, ...], latent: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.latent = latent
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise((latent, *widths)):
            layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU()]
        self.layers = nn.Sequential(
            *layers, nn.Linear(widths[-1], math.prod(shape)), nn.Unflatten(1, shape), nn.Sigmoid()
        )

    def forward(self, noise: Tensor) -> Tensor:
        """Return images (N,C,H,W) in [0, 1] from noise (N,...)."""
        return self.layers(noise.flatten(1)[:, : self.latent])


class DenseCritic(Critic):
    """One score for an image, of it alone, by fully connected layers with leaky ReLU.

    Args:
        shape: of an image.
        widths: of the hidden layers.
    """

    def __init__(self, shape: tuple[int, ...], widths: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in itertools.pairwise((math.prod(shape), *widths)):
            layers += [nn.Linear(before, after), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*layers, nn.Unflatten(1, (widths[-1], 1, 1)))
        self.last = nn.Linear(widths[-1], 1)


class Gan(nn.Module):
    """A generator and a critic that share nothing."""

    def __init__(self, generator: nn.Module, critic: nn.Module) -> None:
        super().__init__()
        self.generator, self.critic = generator, critic

    def forward(self, noise: Tensor) -> dict[str, Tensor]:
        """Return ``images`` (N,C,H,W) in [0, 1] from noise (N,...)."""
        return {"images": self.generator(noise)}


def dense_gan(*, inputs: tuple[int, ...], latent: int, generator: Sequence[int], critic: Sequence[int]) -> Gan:
    """A generator from ``latent`` numbers and a critic, fully connected, with hidden layers of these widths.

    Raises:
        ValueError: the inputs are no images, or have fewer numbers than ``latent``.
    """
    _check_latent(inputs, latent)
    return Gan(DenseGenerator(inputs, latent, generator), DenseCritic(inputs, critic))


def gan(*, inputs: tuple[int, ...], latent: int, generator: Sequence[int], critic: Sequence[int]) -> Gan:
    """A convolutional generator from ``latent`` numbers, widths coarsest first, and a critic, widths finest first.

    Raises:
        ValueError: the sides of images cannot be halved that often, or an image has fewer numbers than ``latent``.
    """
    _check_latent(inputs, latent)
    channels, height, width = inputs
    scale = 2 ** (max(len(generator), len(critic)) - 1)
    require(
        height % scale == width % scale == 0,
        f"gan halves images {len(generator) - 1} and {len(critic) - 1} times, but {height}x{width} pixels cannot be: "
        "choose model.generator and model.critic with fewer widths.",
    )
    size = (height, width)
    return Gan(Generator(channels, size, latent, generator), ConvolutionalCritic(channels, size, critic))


def _check_latent(inputs: tuple[int, ...], latent: int) -> None:
    require(len(inputs) == 3, f"a gan makes images, but an input of this task has the shape {inputs}: use model=mlp.")
    most = math.prod(inputs)
    require(1 <= latent <= most, f"model.latent is {latent}; noise has as many numbers as an image: use 1 to {most}.")
