"""Vision transformers for small images."""

from typing import Any

from timm.layers.patch_embed import PatchEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from harness.models.checks import check_patch, require, sides


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
        height, width = sides(img_size)
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
    check_patch(image_size, patch_size)
    require(dim % heads == 0, f"model.heads={heads} does not divide model.dim={dim}; choose a number that does.")
    require(pool in ("avg", "token"), f"model.pool is {pool}; it must be avg or token.")
    require(
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
