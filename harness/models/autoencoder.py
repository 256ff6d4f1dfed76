"""Autoencoders: from an image to a normal distribution of few numbers, and from such numbers to an image."""

import itertools
import math
from collections.abc import Sequence

from torch import Tensor, nn

from harness.models.checks import require


class Autoencoder(nn.Module):
    """A variational autoencoder of fully connected layers with ReLU.

    Args:
        shape: of an image.
        latent: how many numbers stand for an image.
        encoder: widths of the hidden layers from an image to the mean and log-variance of its latents.
        decoder: widths of the hidden layers from latents to an image.
    """

    def __init__(self, shape: tuple[int, ...], latent: int, encoder: Sequence[int], decoder: Sequence[int]) -> None:
        super().__init__()
        self.latent = latent
        pixels = math.prod(shape)
        self.encoder = nn.Sequential(
            nn.Flatten(), *_hidden(pixels, encoder), nn.Linear(encoder[-1], 2 * latent), nn.Unflatten(1, (2, latent))
        )
        self.decoder = nn.Sequential(*_hidden(latent, decoder), nn.Linear(decoder[-1], pixels), nn.Unflatten(1, shape))

    def forward(self, noise: Tensor, images: Tensor | None = None) -> dict[str, Tensor]:
        """Return ``binary_logits`` (N,C,H,W), of which the sigmoid is an image, and, with images, their ``latents``.

        Args:
            noise: standard normal (N,...), of which the first numbers are used; zeros reconstruct from means.
            images: (N,C,H,W) in [0, 1] to reconstruct; None decodes the noise itself, a sample of the prior. Their
                latents are means and log-variances (N,2,F).
        """
        drawn = noise.flatten(1)[:, : self.latent]
        if images is None:
            return {"binary_logits": self.decoder(drawn)}
        latents = self.encoder(2 * images - 1)
        mean, log_variance = latents.unbind(1)
        return {"binary_logits": self.decoder(mean + (log_variance / 2).exp() * drawn), "latents": latents}


def _hidden(inputs: int, widths: Sequence[int]) -> list[nn.Module]:
    layers = ([nn.Linear(before, after), nn.ReLU()] for before, after in itertools.pairwise((inputs, *widths)))
    return [layer for pair in layers for layer in pair]


def autoencoder(*, inputs: tuple[int, ...], latent: int, encoder: Sequence[int], decoder: Sequence[int]) -> Autoencoder:
    """A variational autoencoder with hidden layers of these widths.

    Raises:
        ValueError: the inputs are no images, or have fewer numbers than ``latent``.
    """
    require(len(inputs) == 3, f"an autoencoder takes images, but an input of this task has the shape {inputs}.")
    most = math.prod(inputs)
    require(1 <= latent <= most, f"model.latent is {latent}; an image has {most} numbers: use 1 to {most}.")
    return Autoencoder(inputs, latent, encoder, decoder)
