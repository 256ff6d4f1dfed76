"""Models for segmentation: bodies that make a map of features, on which `harness.models.images` puts a linear head.

Every builder is the `_target_` of a file in `conf/model/`, as in `harness.models.images`; its body turns float images
(N, C, H, W) into features (N, body.num_features, h, w), where h and w may be smaller than H and W.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, cat, nn
from torch.nn import functional

from harness.models.vit import vit as transformer


def _check_divisible(name: str, image_size: Sequence[int], reduction: int) -> None:
    if any(side % reduction for side in image_size):
        height, width = image_size
        raise ValueError(
            f"{name} halves its input until it is {reduction} times smaller, which does not divide images of "
            f"{height}x{width} pixels; choose dataset.size in multiples of {reduction}."
        )


def _twice(in_channels: int, width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (in_channels, width):
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """Two convolutions on each scale, down and up again, with connections from side to side."""

    dense = True

    def __init__(self, in_channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.down = nn.ModuleList(_twice(*pair) for pair in zip([in_channels, *widths[:-1]], widths, strict=True))
        self.up = nn.ModuleList(
            _twice(below + width, width) for below, width in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.num_features = widths[0]

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) to features (N, widths[0], H, W)."""
        seen: list[Tensor] = []
        x = images
        for stage in self.down:
            x = stage(functional.max_pool2d(x, 2) if seen else x)
            seen.append(x)
        for stage, beside in zip(self.up, seen[-2::-1], strict=True):
            above = functional.interpolate(x, scale_factor=2.0, mode="nearest")
            x = stage(cat([beside, above], 1))
        return x


def unet(*, in_channels: int, image_size: Sequence[int], widths: Sequence[int]) -> UNet:
    """U-Net (Ronneberger et al., arXiv:1505.04597) of these widths, padded and with batch normalisation.

    Raises:
        ValueError: the image cannot be halved so often.
    """
    _check_divisible("unet", image_size, 2 ** (len(widths) - 1))
    return UNet(in_channels, widths)


class Fcn(nn.Module):
    """Convolutions and pooling; the scores of the last three scales are brought to one size and added."""

    dense = True

    def __init__(self, in_channels: int, widths: Sequence[int], num_features: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(_twice(*pair) for pair in zip([in_channels, *widths[:-1]], widths, strict=True))
        self.scores = nn.ModuleList(nn.Conv2d(width, num_features, 1) for width in widths[-3:])
        self.num_features = num_features

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) to features at the size of the third scale from the end."""
        seen: list[Tensor] = []
        x = images
        for stage in self.stages:
            x = stage(functional.max_pool2d(x, 2) if seen else x)
            seen.append(x)
        scored = [score(x) for score, x in zip(self.scores, seen[-3:], strict=True)]
        size = scored[0].shape[-2:]
        return scored[0] + sum(
            functional.interpolate(x, size, mode="bilinear", align_corners=False) for x in scored[1:]
        )


def fcn(*, in_channels: int, image_size: Sequence[int], widths: Sequence[int], num_features: int) -> Fcn:
    """Fully convolutional network with skips from the last three scales (Long et al., arXiv:1411.4038), without VGG.

    Raises:
        ValueError: there are fewer than three widths, or the image cannot be halved so often.
    """
    if len(widths) < 3:
        raise ValueError(f"model.widths is {list(widths)}; an FCN adds up three scales, so name three or more.")
    _check_divisible("fcn", image_size, 2 ** (len(widths) - 1))
    return Fcn(in_channels, widths, num_features)


class ViTMap(nn.Module):
    """A vision transformer whose patches are put back in their places."""

    dense = True

    def __init__(self, body: Any, grid: tuple[int, int]) -> None:
        super().__init__()
        self.body, self.grid, self.num_features = body, grid, body.num_features

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) to features (N, F, H / patch, W / patch)."""
        return self.body.forward_features(images).transpose(1, 2).unflatten(2, self.grid)


def vit(*, in_channels: int, image_size: Sequence[int], patch_size: int, **settings: Any) -> ViTMap:
    """Vision transformer with a linear decoder (Strudel et al., Segmenter, arXiv:2105.05633, "linear").

    Settings are those of `harness.models.vit.vit`, without `pool`.
    """
    height, width = image_size
    body = transformer(
        in_channels=in_channels, image_size=(height, width), patch_size=patch_size, pool="avg", **settings
    )
    return ViTMap(body, (height // patch_size, width // patch_size))


class SmpMap(nn.Module):
    """Encoder and decoder of a model of segmentation-models-pytorch, without its head."""

    dense = True

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.encoder, self.decoder = net.encoder, net.decoder
        self.num_features = next(m for m in net.segmentation_head.modules() if isinstance(m, nn.Conv2d)).in_channels

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) to features (N, F, h, w)."""
        found = self.encoder(images)
        return self.decoder(*found) if isinstance(found, tuple) else self.decoder(found)  # DPT's are two


def segmentation_model(
    *,
    in_channels: int,
    image_size: Sequence[int],
    architecture: str,
    encoder: str,
    pretrained: bool,
    decoder: dict[str, Any],
) -> SmpMap:
    """Any architecture of segmentation-models-pytorch that has an encoder and a decoder.

    Args:
        in_channels: Channels of the images.
        image_size: Height and width of the images.
        architecture: Its name there: unet, unetplusplus, deeplabv3plus, pspnet, segformer, fpn, upernet, dpt ...
        encoder: Name of the encoder there: resnet34, mit_b0, tu-convnext_tiny ...
        pretrained: Whether the encoder starts from its weights on ImageNet, which are downloaded.
        decoder: Further settings of the architecture, such as decoder_channels.

    Raises:
        ValueError: there is no such architecture or encoder, the image does not fit, or weights could not be fetched.
    """
    import segmentation_models_pytorch as smp  # takes seconds, and most models here do without

    weights = "imagenet" if pretrained else None
    try:
        net = smp.create_model(
            architecture, encoder, encoder_weights=weights, in_channels=in_channels, classes=1, **decoder
        )
    except KeyError as error:
        raise ValueError(f"segmentation-models-pytorch does not know model.encoder={encoder}: {error}.") from error
    except OSError as error:
        raise ValueError(
            f"the weights of {encoder} could not be fetched ({type(error).__name__}); connect to the internet once, or "
            "set model.pretrained=false."
        ) from error
    _check_divisible(architecture, image_size, int(getattr(net.encoder, "output_stride", 32)))
    return SmpMap(net)
