"""Models for small images: a body that makes features, and a linear head on them.

Every builder below is the `_target_` of a file in `conf/model/`; it gets `in_channels` and `image_size` from the data
and returns a body that turns float images (N, C, H, W) into features (N, body.num_features).
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import timm
import torch
from huggingface_hub import HfApi, try_to_load_from_cache
from hydra.utils import get_method
from timm.layers.patch_embed import PatchEmbed
from timm.models.convnext import ConvNeXt
from timm.models.resnet import BasicBlock, ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from losses.loss import Output

NOT_FOR_BUILDERS = frozenset({"_target_", "lr", "precision", "channels_last", "pretrained", "weights"})
"""Fields of a model's yaml that `build` or the trainer reads; all others are settings of the builder."""


class Model(nn.Module):
    """A body and, unless the loss brings its own, a linear head.

    Attributes:
        num_features: Length F of the feature vector.
        dense: True if the body makes a map of features, so that every pixel is classified.
        head: Linear layer from features to classes, or None.
    """

    def __init__(self, body: nn.Module, num_features: int, num_classes: int | None) -> None:
        super().__init__()
        self.body = body
        self.num_features = num_features
        self.dense: bool = getattr(body, "dense", False)
        self.head: nn.Module | None = None
        if num_classes is not None:
            self.head = nn.Conv2d(num_features, num_classes, 1) if self.dense else nn.Linear(num_features, num_classes)

    def forward(self, images: Tensor) -> Output:
        """Features (N, F) and logits (N, num_classes) of float images (N, C, H, W); dense: (N, F, h, w) and
        (N, num_classes, H, W)."""
        features = self.body(images)
        if self.head is None:
            return Output(features, None)
        logits = self.head(features)
        if self.dense and logits.shape[-2:] != images.shape[-2:]:
            logits = functional.interpolate(logits, images.shape[-2:], mode="bilinear", align_corners=False)
        return Output(features, logits)


def is_dense(config: Mapping[str, Any]) -> bool:
    """Return whether a model classifies every pixel: those of `harness.segmenters` do."""
    return config["_target_"].startswith("harness.segmenters.")


def build(
    config: Mapping[str, Any], *, in_channels: int, image_size: int | tuple[int, int], num_classes: int | None
) -> Model:
    """Build the model that `config` (the content of a file in `conf/model/`) describes, from the global random stream.

    The body is built before the head, so equal seeds give equal bodies with and without a head.

    Args:
        config: `_target_` (a builder of this module or of `harness.segmenters`), its settings, and what the trainer
            reads (lr, precision, channels_last).
        in_channels: Channels of the images.
        image_size: Height and width of the images; one number for square ones.
        num_classes: Number of logits; None builds no head, because the loss is one.

    Raises:
        ValueError: The images are too small for the model, or its pretrained weights cannot be had.
    """
    builder: Callable[..., Any] = get_method(config["_target_"])
    wanted = inspect.signature(builder).parameters
    # a builder that asks for pretrained weights gets them by itself
    settings = {k: v for k, v in config.items() if k not in NOT_FOR_BUILDERS or (k == "pretrained" and k in wanted)}
    body = builder(in_channels=in_channels, image_size=image_size, **settings)
    if config.get("pretrained") and "pretrained" not in wanted:
        resized = {"img_size": image_size, "patch_size": settings["patch_size"]} if builder is vit else {}
        load_pretrained(body, config.get("weights"), in_chans=in_channels, **resized)
    return Model(body, body.num_features, num_classes)


def load_pretrained(body: nn.Module, weights: str | None, **shape: Any) -> None:
    """Fill the body with the weights of timm's model of this name, all of them or none.

    Args:
        body: A body of one of timm's classes.
        weights: Name of the model in timm; None where timm has none of this form.
        shape: What timm adapts its weights to (`in_chans`; for a ViT also `img_size` and `patch_size`).

    Raises:
        ValueError: There are no weights of this shape, or they could not be fetched.
    """
    if weights is None:
        raise ValueError("timm has no pretrained weights for this model; set model.pretrained=false.")
    # Compared without any storage first, so that weights that cannot fit are not downloaded.
    with torch.device("meta"):
        official = timm.create_model(weights, num_classes=0, **shape)
    wanted, offered = ({name: v.shape for name, v in net.state_dict().items()} for net in (body, official))
    if wanted != offered:
        example = min(name for name in {**wanted, **offered} if wanted.get(name) != offered.get(name))
        raise ValueError(
            f"timm's weights {weights} do not fit this model (they differ at {example}, for one); "
            f"keep timm's own form of it, or set model.pretrained=false."
        )
    try:
        repository = vars(official)["pretrained_cfg"]["hf_hub_id"]
        if not isinstance(try_to_load_from_cache(repository, "model.safetensors"), str):
            HfApi().model_info(repository, timeout=10)  # one question, where timm would ask for a minute
        donor = timm.create_model(weights, pretrained=True, num_classes=0, **shape)
    except Exception as error:  # the libraries below raise a dozen kinds when a host cannot be reached
        raise ValueError(
            f"The pretrained weights {weights} could not be fetched ({type(error).__name__}); "
            f"connect to the internet once, or set model.pretrained=false."
        ) from error
    body.load_state_dict(donor.state_dict())


class Mlp(nn.Sequential):
    """Fully connected layers on the flat image; `num_features` is the width of the last."""

    def __init__(self, in_features: int, widths: Sequence[int]) -> None:
        layers: list[nn.Module] = [nn.Flatten()]
        for width in widths:
            layers += [nn.Linear(in_features, width), nn.ReLU()]
            in_features = width
        super().__init__(*layers)
        self.num_features = in_features


def mlp(*, in_channels: int, image_size: int | tuple[int, int], widths: Sequence[int]) -> Mlp:
    """Linear layers of these widths, each followed by ReLU."""
    return Mlp(in_channels * math.prod(_sides(image_size)), widths)


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
    _check_reduction("cnn", image_size, 2 ** (len(widths) - 1))
    return Cnn(in_channels, widths, grid)


def _require(condition: bool, sentence: str) -> None:
    if not condition:
        raise ValueError(sentence)


def _check_reduction(name: str, image_size: int | tuple[int, int], reduction: int) -> None:
    height, width = _sides(image_size)
    _require(
        min(height, width) >= reduction,
        f"{name} shrinks its input {reduction} times, so images of {height}x{width} pixels are too small; "
        f"choose a model with fewer stages, or larger images.",
    )


def _sides(image_size: int | tuple[int, int]) -> tuple[int, int]:
    return (image_size, image_size) if isinstance(image_size, int) else image_size


def _check_patch(image_size: int | tuple[int, int], patch_size: int) -> None:
    height, width = _sides(image_size)
    common = math.gcd(height, width)
    divisors = ", ".join(str(size) for size in range(1, common + 1) if common % size == 0)
    _require(
        common % patch_size == 0,
        f"Patches of {patch_size}x{patch_size} pixels do not divide images of {height}x{width}; "
        f"choose model.patch_size among {divisors}.",
    )


class ConvStem(nn.Sequential):
    """Convolutions that halve the image to one position per patch; they take the place of timm's PatchEmbed.

    They give a small transformer the locality that it could not learn from a few thousand images (Xiao et al., Early
    Convolutions Help Transformers See Better, arXiv:2106.14881).
    """

    def __init__(
        self, *, img_size: int | tuple[int, int], patch_size: int, in_chans: int, embed_dim: int, **unused: Any
    ) -> None:
        halvings = patch_size.bit_length() - 1
        layers: list[nn.Module] = []
        for step in range(halvings + 1):
            width = embed_dim >> (halvings - step)
            layers.append(nn.Conv2d(in_chans, width, 3, stride=2 if step else 1, padding=1, bias=False))
            layers += [nn.BatchNorm2d(width), nn.ReLU()]
            in_chans = width
        super().__init__(*layers, nn.Conv2d(embed_dim, embed_dim, 1))
        height, width = _sides(img_size)
        self.num_patches = (height // patch_size) * (width // patch_size)

    def forward(self, input: Tensor) -> Tensor:
        """Images (N, C, H, W) to patches (N, L, D)."""
        return super().forward(input).flatten(2).transpose(1, 2)


def vit(
    *,
    in_channels: int,
    image_size: int | tuple[int, int],
    patch_size: int,
    dim: int,
    depth: int,
    heads: int,
    mlp_ratio: float,
    pool: str,
    conv_stem: bool,
    position_std: float,
) -> VisionTransformer:
    """Vision transformer of timm, initialised to learn from a few thousand images.

    In timm's own initialisation a small ViT hardly learns within a few epochs; with Xavier for the linear layers,
    Kaiming for the patch embedding and larger position embeddings it does.

    Args:
        in_channels: Channels of the images.
        image_size: Height and width of the images; one number for square ones.
        patch_size: Side of a patch; divides the image.
        dim: Width of a token.
        depth: Number of blocks.
        heads: Attention heads per block; divides `dim`.
        mlp_ratio: Width of the hidden layer of each block over `dim`.
        pool: avg (mean of the patches) or token (a class token).
        conv_stem: Whether convolutions make the patches; the patch size is then a power of two.
        position_std: Standard deviation of the initial position embeddings.

    Raises:
        ValueError: The patch does not divide the image or is no power of two under a convolutional stem, the heads do
            not divide the width, or `pool` is unknown.
    """
    _check_patch(image_size, patch_size)
    _require(dim % heads == 0, f"model.heads={heads} does not divide model.dim={dim}; choose a number that does.")
    _require(pool in ("avg", "token"), f"model.pool is {pool}; it must be avg or token.")
    _require(
        not conv_stem or patch_size & (patch_size - 1) == 0,
        f"A convolutional stem halves the image, so model.patch_size={patch_size} must be 1, 2, 4, 8 or 16.",
    )
    body = VisionTransformer(
        img_size=image_size,
        patch_size=patch_size,
        in_chans=in_channels,
        num_classes=0,
        global_pool=pool,  # pyright: ignore[reportArgumentType]
        embed_dim=dim,
        depth=depth,
        num_heads=heads,
        mlp_ratio=mlp_ratio,
        class_token=pool == "token",
        embed_layer=ConvStem if conv_stem else PatchEmbed,
    )
    _initialise(body, position_std)
    return body


def _initialise(body: VisionTransformer, position_std: float) -> None:
    for module in body.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    assert body.pos_embed is not None  # VisionTransformer learns positions unless told otherwise
    nn.init.trunc_normal_(body.pos_embed, std=position_std, a=-2 * position_std, b=2 * position_std)


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


def convnext(
    *,
    in_channels: int,
    image_size: int,
    patch_size: int,
    dims: Sequence[int],
    depths: Sequence[int],
    reduction: int,
    layer_scale: float | None,
) -> ConvNeXt:
    """ConvNeXt of timm.

    Args:
        in_channels: Channels of the images.
        image_size: Height and width of the images.
        patch_size: Side of the patches of the stem.
        dims: Width of each of the four stages.
        depths: Number of blocks of each stage.
        reduction: By how much all stages together shrink the image: 8, 16 or 32.
        layer_scale: Initial scale of the residual branches; None for none.

    Raises:
        ValueError: The images are too small, the patch does not divide them, or `reduction` is none of the three.
    """
    _require(reduction in (8, 16, 32), f"model.reduction is {reduction}; it must be 8, 16 or 32.")
    _check_reduction("convnext", image_size, reduction)
    _check_patch(image_size, patch_size)
    return ConvNeXt(
        in_channels,
        num_classes=0,
        output_stride=reduction,
        depths=tuple(depths),
        dims=tuple(dims),
        patch_size=patch_size,
        ls_init_value=layer_scale,
    )


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
    _require(
        depth >= 10 and depth % 6 == 4, f"model.depth is {depth}; a wide ResNet has 6n + 4 layers: 10, 16, 22, 28 ..."
    )
    return WideResNet(in_channels, depth, widen)
