"""Detectors with one level: a map of features, and on it a tower for every kind of output.

Their outputs are maps (N, K, h, w) by kind, a tuple of one for every level: for every cell of a grid over the image, K
numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from harness.models.segmentation import vit as transformer

GROUPS = 8
"""Groups of channels that a tower normalises."""


class Detector(nn.Module):
    """A body, and for every kind of output one convolution with group normalisation and a linear layer.

    Args:
        body: from images (N, C, H, W) to features (N, F, h, w).
        num_features: F, a multiple of 8.
        outputs: how many numbers each kind of output has.
    """

    dense = True

    def __init__(self, body: nn.Module, num_features: int, outputs: Mapping[str, int]) -> None:
        super().__init__()
        self.body = body
        self.towers = nn.ModuleDict(
            {
                kind: nn.Sequential(
                    nn.Conv2d(num_features, num_features, 3, padding=1, bias=False),
                    nn.GroupNorm(GROUPS, num_features),
                    nn.ReLU(),
                    nn.Conv2d(num_features, numbers, 1),
                )
                for kind, numbers in outputs.items()
            }
        )

    def forward(self, images: Tensor) -> dict[str, tuple[Tensor, ...]]:
        """Return the maps (N, K, h, w) of every kind of output, one level."""
        features = self.body(images)
        return {kind: (tower(features),) for kind, tower in self.towers.items()}


def cnn_detector(
    *, in_channels: int, image_size: Sequence[int], outputs: Mapping[str, int], widths: Sequence[int], depth: int
) -> Detector:
    """Convolutions that halve the image once per width, then further ones at that size.

    Args:
        in_channels: Channels of the images.
        image_size: Height and width of the images.
        outputs: How many numbers each kind of output has.
        widths: Channels after each halving; three make cells of 8x8 pixels.
        depth: Number of further convolutions.

    Raises:
        ValueError: The cells do not divide the image, or the last width is no multiple of 8.
    """
    cell = 2 ** len(widths)
    if any(side % cell for side in image_size) or widths[-1] % GROUPS:
        height, width = image_size
        raise ValueError(
            f"a detector of widths {list(widths)} has cells of {cell}x{cell} pixels and {GROUPS} groups of channels, "
            f"which must divide images of {height}x{width} and the last width."
        )
    layers: list[nn.Module] = []
    for place, width in enumerate([*widths, *[widths[-1]] * depth]):
        stride = 2 if place < len(widths) else 1
        layers += [nn.Conv2d(in_channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        in_channels = width
    return Detector(nn.Sequential(*layers), in_channels, outputs)


def vit_detector(
    *, in_channels: int, image_size: Sequence[int], outputs: Mapping[str, int], patch_size: int, **settings: Any
) -> Detector:
    """Vision transformer whose patches are the cells; other settings are those of `harness.models.vit.vit`."""
    body = transformer(in_channels=in_channels, image_size=image_size, patch_size=patch_size, **settings)
    return Detector(body, body.num_features, outputs)
