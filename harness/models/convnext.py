"""ConvNeXt for small images."""

from collections.abc import Sequence

from timm.models.convnext import ConvNeXt

from harness.models.checks import check_patch, check_reduction, require


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
    require(reduction in (8, 16, 32), f"model.reduction is {reduction}; it must be 8, 16 or 32.")
    check_reduction("convnext", image_size, reduction)
    check_patch(image_size, patch_size)
    return ConvNeXt(
        in_channels,
        num_classes=0,
        output_stride=reduction,
        depths=tuple(depths),
        dims=tuple(dims),
        patch_size=patch_size,
        ls_init_value=layer_scale,
    )
