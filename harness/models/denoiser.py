"""Networks that take noise out of images, for diffusion."""

import math

import torch
from torch import Tensor, nn

from harness.models.checks import require

FREQUENCIES = 16


class Denoiser(nn.Module):
    """Fully connected residual blocks that know how much noise there is, and a way around them for the input.

    How much of the input is added to the answer depends on the noise, as in Karras et al., NeurIPS 2022, arXiv
    2206.00364: where there is little, an image is almost its input; where there is much, the noise is.

    Args:
        shape: of an image.
        width: of the residual stream.
        depth: number of blocks: layer normalisation, linear, SiLU, linear.
    """

    def __init__(self, shape: tuple[int, ...], width: int, depth: int) -> None:
        super().__init__()
        pixels = math.prod(shape)
        self.first = nn.Linear(pixels, width)
        self.noise_level = nn.Sequential(nn.Linear(2 * FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
            for _ in range(depth)
        )
        self.skip = nn.Linear(width, 1)
        self.last = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, pixels), nn.Unflatten(1, shape))

    def forward(self, noisy: Tensor, times: Tensor) -> dict[str, Tensor]:
        """Return ``denoised`` (N,C,H,W), the noise in images or the images without it, as the task asks.

        Args:
            noisy: images with noise (N,C,H,W).
            times: how far each is on its way to pure noise, from 0 to 1 (N,).
        """
        stream, level = self.first(noisy.flatten(1)), self.noise_level(embedded(times))
        for block in self.blocks:
            stream = stream + block(stream + level)
        return {"denoised": self.last(stream) + self.skip(level).view(-1, 1, 1, 1) * noisy}


def embedded(times: Tensor) -> Tensor:
    """Return sines and cosines (N,32) of times (N,), wavelengths from 2 pi down to 2 pi / 1000.

    Source:
        Vaswani et al., Attention is all you need, NeurIPS 2017, arXiv 1706.03762, sec. 3.5.
    """
    factors = torch.logspace(0, 3, FREQUENCIES, device=times.device)
    angles = times.float().unsqueeze(1) * factors
    return torch.cat([angles.sin(), angles.cos()], 1)


def denoiser(*, inputs: tuple[int, ...], width: int, depth: int) -> Denoiser:
    """Residual blocks of this width, as many as ``depth``.

    Raises:
        ValueError: the inputs are no images.
    """
    require(len(inputs) == 3, f"a denoiser takes images, but an input of this task has the shape {inputs}.")
    return Denoiser(inputs, width, depth)
