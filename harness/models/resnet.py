"""Residual networks for small images."""

from collections.abc import Sequence
from typing import Any

from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn
from torch.nn import functional

from harness.models.checks import require

BLOCK: Any = BasicBlock  # timm's annotation asks for an instance where it takes the class


def resnet(
    *, in_channels: int, image_size: int, channels: Sequence[int], blocks: Sequence[int], imagenet_stem: bool
) -> ResNet:
    """Residual network of timm with basic blocks.

    Args:
        in_channels: Channels of the images.
        image_size: Height and width of the images.
        channels: Width of each of the four stages.
        blocks: Number of blocks of each stage.
        imagenet_stem: True for a 7x7 convolution of stride 2 and max-pooling (pretrained weights need them), False for
            a 3x3 convolution as wide as the first stage, which suits small images.
    """
    if imagenet_stem:
        return ResNet(BLOCK, tuple(blocks), 0, in_channels, channels=tuple(channels))
    width = channels[0]
    # timm makes stems other than the deep one 64 wide, and a 64-wide stem dominates a small network
    body = ResNet(
        BLOCK, tuple(blocks), 0, in_channels, stem_type="deep", stem_width=width // 2, channels=tuple(channels)
    )
    body.conv1 = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(body.conv1.weight, mode="fan_out", nonlinearity="relu")
    body.maxpool = nn.Identity()
    return body


class WideBlock(nn.Module):
    """Two 3x3 convolutions, each after batch normalisation and ReLU, beside a shortcut."""

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.shortcut = None
        if in_channels != width or stride != 1:
            self.shortcut = nn.Conv2d(in_channels, width, 1, stride=stride, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) to (N, width, H / stride, W / stride)."""
        active = functional.relu(self.norm1(images))
        # A shortcut that changes the shape starts from the activated input, as in the authors' code.
        shortcut = images if self.shortcut is None else self.shortcut(active)
        return shortcut + self.conv2(functional.relu(self.norm2(self.conv1(active))))


class WideResNet(nn.Sequential):
    """Three groups of wide blocks, of 16, 32 and 64 times `widen` channels (`num_features`)."""

    def __init__(self, in_channels: int, depth: int, widen: int) -> None:
        layers: list[nn.Module] = [nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)]
        channels = 16
        for group in range(3):
            for block in range((depth - 4) // 6):
                width = 16 * 2**group * widen
                layers.append(WideBlock(channels, width, stride=2 if group and not block else 1))
                channels = width
        super().__init__(*layers, nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.num_features = channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def wide_resnet(*, in_channels: int, image_size: int, depth: int, widen: int) -> WideResNet:
    """Wide residual network for small images (Zagoruyko and Komodakis, arXiv:1605.07146), without dropout.

    Args:
        in_channels: Channels of the images.
        image_size: Height and width of the images.
        depth: Number of convolutions: 6n + 4.
        widen: Factor on the number of channels.

    Raises:
        ValueError: `depth` is not of this form.
    """
    require(
        depth >= 10 and depth % 6 == 4, f"model.depth is {depth}; a wide ResNet has 6n + 4 layers: 10, 16, 22, 28 ..."
    )
    return WideResNet(in_channels, depth, widen)
