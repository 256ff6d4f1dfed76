"""Detectors: maps of features, and on them a tower for every kind of output, the same one for all levels.

Their outputs are, by kind, a tuple of maps (N, K, h, w), one for every level, the finest first: for every cell of a
grid over the image, K numbers. The side of a cell is the height of the image over h.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn, ones
from torchvision.ops import FeaturePyramidNetwork

from harness.models.segmentation import vit as transformer

GROUPS = 8
"""Groups of channels that a tower normalises."""
SCALED = "sides"
"""Kind of output that has a learnt factor for every level, as levels share their towers but not their sizes."""


class Detector(nn.Module):
    """A body, and for every kind of output a tower: convolutions with group normalisation, and a linear layer.

    Levels share the towers. Nothing in them keeps statistics over images, which would be those of all levels together.

    Args:
        body: from images (N, C, H, W) to features (N, F, h, w), one map or a sequence of maps, the finest first.
        num_features: F, a multiple of 8.
        levels: number of maps.
        outputs: how many numbers each kind of output has.
        depth: convolutions of a tower.

    Raises:
        ValueError: the task is about sets of boxes.

    Source:
        Tian et al., FCOS, ICCV 2019, arXiv:1904.01355, section 3.2: shared towers with a factor for each level.
    """

    dense = True

    def __init__(
        self, body: nn.Module, num_features: int, levels: int, outputs: Mapping[str, int], depth: int = 1
    ) -> None:
        super().__init__()
        if "places" in outputs:
            raise ValueError("this detector answers for every cell, not with a set of boxes: use model=detr_micro.")
        self.body = body
        self.towers = nn.ModuleDict({kind: _tower(num_features, numbers, depth) for kind, numbers in outputs.items()})
        scaled = SCALED in outputs and levels > 1
        self.factors = nn.ParameterList(nn.Parameter(ones(())) for _ in range(levels if scaled else 0))

    def forward(self, images: Tensor) -> dict[str, tuple[Tensor, ...]]:
        """Return the maps (N, K, h, w) of every level, by kind of output."""
        found = self.body(images)
        levels = (found,) if isinstance(found, Tensor) else tuple(found)
        outputs = {kind: tuple(map(tower, levels)) for kind, tower in self.towers.items()}
        if len(self.factors):
            factors = tuple(self.factors)
            outputs[SCALED] = tuple(f * level for f, level in zip(factors, outputs[SCALED], strict=True))
        return outputs


def _tower(num_features: int, numbers: int, depth: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [
            nn.Conv2d(num_features, num_features, 3, padding=1, bias=False),
            nn.GroupNorm(GROUPS, num_features),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers, nn.Conv2d(num_features, numbers, 1))


class Pyramid(nn.Module):
    """Features of several sizes; what the coarser ones know is added to the finer ones.

    Args:
        body: from images to a sequence of maps, the finest first.
        widths: channels of these maps.
        num_features: F, channels of the maps returned.
        notes: what a reader of its results should know, a sentence each.

    Source:
        Lin et al., Feature Pyramid Networks, CVPR 2017, arXiv:1612.03144, as torchvision has it.
    """

    def __init__(self, body: nn.Module, widths: Sequence[int], num_features: int, notes: Sequence[str] = ()) -> None:
        super().__init__()
        self.body, self.neck, self.notes = body, FeaturePyramidNetwork(list(widths), num_features), tuple(notes)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return maps (N, F, h, w) of images (N, C, H, W), the finest first."""
        named = OrderedDict((str(place), level) for place, level in enumerate(self.body(images)))
        return tuple(self.neck(named).values())


class Stages(nn.ModuleList):
    """Stages one after the other, of which the last ones give a map each."""

    def __init__(self, stages: Sequence[nn.Module], levels: int) -> None:
        super().__init__(stages)
        self.levels = levels

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the maps of the last stages."""
        found = [images]
        for stage in self:
            found.append(stage(found[-1]))
        return tuple(found[-self.levels :])


def cnn_detector(
    *,
    in_channels: int,
    image_size: Sequence[int],
    outputs: Mapping[str, int],
    widths: Sequence[int],
    depth: int,
) -> Detector:
    """Convolutions that halve the image once per width, then further ones at that size: one level.

    Args:
        in_channels: Channels of the images.
        image_size: Height and width of the images.
        outputs: How many numbers each kind of output has.
        widths: Channels after each halving; three make cells of 8x8 pixels.
        depth: Number of further convolutions.

    Raises:
        ValueError: The cells do not divide the image, or the last width is no multiple of 8.
    """
    check_cells(f"a detector of widths {list(widths)}", image_size, 2 ** len(widths))
    check_groups(widths[-1], "the last of model.widths")
    layers: list[nn.Module] = []
    for place, width in enumerate([*widths, *[widths[-1]] * depth]):
        layers += _convolution(in_channels, width, 2 if place < len(widths) else 1)
        in_channels = width
    return Detector(nn.Sequential(*layers), in_channels, 1, outputs)


def pyramid_detector(
    *,
    in_channels: int,
    image_size: Sequence[int],
    outputs: Mapping[str, int],
    widths: Sequence[int],
    levels: int,
    num_features: int,
) -> Detector:
    """Stages that halve the image, each of two convolutions, of which the last ones are the levels of a pyramid.

    Args:
        in_channels: Channels of the images.
        image_size: Height and width of the images.
        outputs: How many numbers each kind of output has.
        widths: Channels after each halving; five with three levels make cells of 8x8, 16x16 and 32x32 pixels.
        levels: Number of levels.
        num_features: Channels of every level, a multiple of 8.

    Raises:
        ValueError: The largest cells do not divide the image, there are fewer stages than levels, or the channels are
            no multiple of 8.
    """
    check_cells(f"a pyramid of widths {list(widths)}", image_size, 2 ** len(widths))
    check_groups(num_features, "model.num_features")
    if levels > len(widths):
        raise ValueError(f"model.levels is {levels}, but model.widths names {len(widths)} stages: choose fewer levels.")
    channels = [in_channels, *widths]
    stages = [
        nn.Sequential(*_convolution(before, width, 2), *_convolution(width, width, 1))
        for before, width in itertools.pairwise(channels)
    ]
    body = Pyramid(Stages(stages, levels), widths[-levels:], num_features)
    return Detector(body, num_features, levels, outputs)


def _convolution(in_channels: int, width: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(in_channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]


def vit_detector(
    *, in_channels: int, image_size: Sequence[int], outputs: Mapping[str, int], patch_size: int, **settings: Any
) -> Detector:
    """Vision transformer whose patches are the cells; other settings are those of `harness.models.vit.vit`."""
    body = transformer(in_channels=in_channels, image_size=image_size, patch_size=patch_size, **settings)
    body.body.fc_norm = nn.Identity()  # for the mean over patches, which nothing asks for
    return Detector(body, body.num_features, 1, outputs)


def check_cells(name: str, image_size: Sequence[int], cell: int) -> None:
    """Raise ValueError unless the largest cells of a detector, of so many pixels a side, divide the image."""
    if any(side % cell for side in image_size):
        height, width = image_size
        raise ValueError(
            f"{name} has cells of {cell}x{cell} pixels, which do not divide images of {height}x{width}; choose "
            f"dataset.size in multiples of {cell}, or another model."
        )


def check_groups(num_features: int, setting: str) -> None:
    """Raise ValueError unless the channels of a tower can be normalised in groups."""
    if num_features % GROUPS:
        raise ValueError(f"{setting} is {num_features}; it must be a multiple of {GROUPS}.")
