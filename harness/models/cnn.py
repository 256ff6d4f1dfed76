"""Plain convolutional networks."""

from collections.abc import Sequence

from torch import nn

from harness.models.checks import check_reduction


class Cnn(nn.Sequential):
    """3x3 convolutions, each with batch normalisation and ReLU, halved by max-pooling in between, then averaged."""

    def __init__(self, in_channels: int, widths: Sequence[int], grid: int) -> None:
        layers: list[nn.Module] = []
        for width in widths:
            if layers:
                layers.append(nn.MaxPool2d(2))
            layers += [nn.Conv2d(in_channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            in_channels = width
        super().__init__(*layers, nn.AdaptiveAvgPool2d(grid), nn.Flatten())
        self.num_features = in_channels * grid**2


def cnn(*, in_channels: int, image_size: int | tuple[int, int], widths: Sequence[int], grid: int = 1) -> Cnn:
    """Convolutions of these widths at full, half, quarter ... resolution, averaged over grid x grid parts of the image.

    A grid of 1 forgets where things are, as classifiers do.
    """
    check_reduction("cnn", image_size, 2 ** (len(widths) - 1))
    return Cnn(in_channels, widths, grid)
