"""Zoom, crop, mirror images and colour for images together with their boxes, in batches, on whatever device they live.

As in `datasets.joint`, whose draws these are, the randomness of an epoch is drawn at once, on the CPU, before the first
batch: the same generator gives the same augmentations on every device, from every feed, and from whatever batch on.
torchvision's transforms (v2) move boxes too, but change a whole batch alike.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from datasets import joint
from datasets.boxes import DIFFICULT

ALLOWED = ("zoom", "flip", "colour", "visible")
VISIBLE = 0.25
"""Share of a box that must stay in sight for it to be trained on, where `visible` is not set."""


def check(augment: Mapping[str, Any]) -> None:
    """Refuse what images with boxes are not varied by.

    Raises:
        ValueError: an unknown augmentation, or `visible` out of its range.
    """
    if unknown := sorted(name for name, value in augment.items() if value and name not in ALLOWED):
        raise ValueError(
            f"dataset.augment.{unknown[0]} does not work with boxes, for which there are {', '.join(ALLOWED)}: set "
            f"dataset.augment.{unknown[0]}=null."
        )
    if not 0 <= visible(augment) <= 1:
        raise ValueError(f"dataset.augment.visible is {visible(augment)}; it must be a share from 0 to 1.")


def visible(augment: Mapping[str, Any]) -> float:
    """Return the share of a box that must stay in sight."""
    share = augment.get("visible")
    return VISIBLE if share is None else float(share)


def draw(count: int, augment: Mapping[str, Any], generator: torch.Generator) -> Tensor | None:
    """Draw the augmentations of `count` images, float32 (count, 6), or None if none is asked for.

    Args:
        count: number of images, one epoch as a rule.
        augment: any of `zoom`, `flip` and `colour`, as `datasets.joint.draw` takes them, and `visible` (see `apply`).
        generator: on the CPU; the only source of randomness.

    Raises:
        ValueError: an augmentation that is unknown or out of its range.
    """
    check(augment)
    own = {name: augment[name] for name in ("zoom", "flip", "colour") if augment.get(name)}
    return joint.draw(count, own, generator)


def apply(images: Tensor, targets: Tensor, draws: Tensor | None, augment: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Change colours, then zoom, crop and mirror; what comes into sight is 0 in the image, its mean.

    Boxes are cut at the edge of the image. One of which less than the share `visible` is still in sight is marked as
    difficult, so that it is neither to be found nor wrong to be found; one that is out of sight is taken away.

    Args:
        images: float (B, C, H, W), normalised.
        targets: float32 (B, M, 6), as `datasets.boxes.BoxSplits` has them.
        draws: (B, 6) of `draw`, on their device.
        augment: the settings that `draw` was given.

    Returns:
        Tensors like `images` and `targets` (the same ones if nothing was drawn).
    """
    if draws is None:
        return images, targets
    images = seen(images, draws, augment)
    if not augment.get("zoom") and not augment.get("flip"):
        return images, targets
    return images, moved(targets, draws[:, :4], (images.shape[2], images.shape[3]), visible(augment))


def seen(images: Tensor, draws: Tensor, augment: Mapping[str, Any]) -> Tensor:
    """Return images (B, C, H, W) with other colours, zoomed, cropped and mirrored; arguments as in `apply`."""
    across, right, down, lower, contrast, brightness = draws.unbind(1)
    images = torch.addcmul(brightness.view(-1, 1, 1, 1), images, contrast.view(-1, 1, 1, 1))
    if not augment.get("zoom") and not augment.get("flip"):
        return images
    zero = torch.zeros_like(across)
    theta = torch.stack([across, zero, right, zero, down, lower], 1).view(-1, 2, 3)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False).to(images.dtype)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def sides_of(size: tuple[int, int], like: Tensor) -> Tensor:
    """Return width and height, (2,), of a height and width, without a copy from the host for every batch."""
    sides = like.new_full((2,), size[1])
    sides[1] = size[0]
    return sides


def moved(targets: Tensor, windows: Tensor, size: tuple[int, int], least: float) -> Tensor:
    """Return boxes in the pixels of a window, cut at its edge.

    Args:
        targets: float32 (B, M, 6).
        windows: (B, 4): factor and shift across, then down, that take a place in the window to its place in the image,
            both from -1 to 1; a negative factor mirrors.
        size: height and width of the image, and of the window once it is enlarged.
        least: share of a box below which it is marked as difficult.
    """
    factor, shift = windows[:, None, ::2], windows[:, None, 1::2]
    sides = sides_of(size, targets)
    ends = [((2 * corner / sides - 1 - shift) / factor + 1) / 2 * sides for corner in targets[..., :4].split(2, -1)]
    low, high = torch.minimum(*ends), torch.maximum(*ends)
    boxes = torch.cat([torch.minimum(low.clamp_min(0), sides), torch.minimum(high.clamp_min(0), sides)], -1)
    area, whole = (boxes[..., 2:] - boxes[..., :2]).prod(-1), (high - low).prod(-1)
    label, ignored = targets[..., 4], targets[..., 5]
    hidden = (area < least * whole) & (ignored == 0)
    found = torch.cat([boxes, torch.stack([label, torch.where(hidden, DIFFICULT, ignored)], -1)], -1)
    nothing = torch.zeros(6, device=targets.device)
    nothing[4] = -1
    return torch.where(((area > 0) & (label >= 0)).unsqueeze(-1), found, nothing)
