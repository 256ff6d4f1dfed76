"""Multi-layer perceptrons, for images and for rows of numbers."""

import math
from collections.abc import Sequence

from torch import nn


class Mlp(nn.Sequential):
    """Fully connected layers on the flat input; `num_features` is the width of the last."""

    def __init__(self, in_features: int, widths: Sequence[int]) -> None:
        layers: list[nn.Module] = [nn.Flatten()]
        for width in widths:
            layers += [nn.Linear(in_features, width), nn.ReLU()]
            in_features = width
        super().__init__(*layers)
        self.num_features = in_features


def mlp(*, inputs: tuple[int, ...], widths: Sequence[int]) -> Mlp:
    """Linear layers of these widths, each followed by ReLU."""
    return Mlp(math.prod(inputs), widths)
