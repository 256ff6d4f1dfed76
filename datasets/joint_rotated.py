"""Zoom, crop, mirror images and colour for images together with their rotated boxes, in batches.

Draws and images are those of `datasets.joint_boxes`; here boxes follow them that have an angle.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from datasets import joint_boxes

GRID = 8
"""Points along each side of a box that are looked at to tell how much of it is in sight."""


def apply(images: Tensor, targets: Tensor, draws: Tensor | None, augment: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Change colours, then zoom, crop and mirror; what comes into sight is 0 in the image, its mean.

    Boxes stay whole where the edge of the image cuts them, as what is left would be no rectangle. One of which less
    than the share `visible` of what was in sight still is so is taken away.

    Args:
        images: float (B, C, H, W), normalised.
        targets: float32 (B, M, 6), as `datasets.rotated.RotatedSplits` has them.
        draws: (B, 6) of `datasets.joint_boxes.draw`, on their device.
        augment: the settings that it was given.

    Returns:
        Tensors like `images` and `targets` (the same ones if nothing was drawn).
    """
    if draws is None:
        return images, targets
    images = joint_boxes.seen(images, draws, augment)
    if not augment.get("zoom") and not augment.get("flip"):
        return images, targets
    size = (images.shape[2], images.shape[3])
    return images, moved(targets, draws[:, :4], size, joint_boxes.visible(augment))


def moved(targets: Tensor, windows: Tensor, size: tuple[int, int], least: float) -> Tensor:
    """Return rotated boxes in the pixels of a window; a mirror image turns the sign of the angle.

    Args:
        targets: float32 (B, M, 6).
        windows: (B, 4), as `datasets.joint_boxes.moved` takes them; both factors are equal but for the sign.
        size: height and width of the image, and of the window once it is enlarged.
        least: share of what was in sight of a box below which it is taken away.
    """
    factor, shift = windows[:, None, ::2], windows[:, None, 1::2]
    sides = joint_boxes.sides_of(size, targets)
    middle = ((2 * targets[..., :2] / sides - 1 - shift) / factor + 1) / 2 * sides
    turned = torch.where(factor[..., 0] < 0, -targets[..., 4], targets[..., 4])
    turned = torch.where(turned >= math.pi / 2, turned - math.pi, turned)  # half a turn changes no box
    boxes = torch.cat([middle, targets[..., 2:4] / factor[..., 1:], turned.unsqueeze(-1)], -1)
    now, before = in_sight(boxes, size), in_sight(targets[..., :5], size)
    there = (targets[..., 5] >= 0) & (now > 0) & (now >= least * before)
    nothing = torch.zeros(6, device=targets.device)
    nothing[5] = -1
    return torch.where(there.unsqueeze(-1), torch.cat([boxes, targets[..., 5:]], -1), nothing)


def in_sight(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the share of each rotated box (..., 5) that lies in an image of a height and width, in steps of 1/64."""
    x, y, width, height, angle = boxes.unsqueeze(-2).unbind(-1)  # (..., 1)
    place = (torch.arange(GRID, device=boxes.device) + 0.5) / GRID - 0.5
    across, down = width * place.repeat(GRID), height * place.repeat_interleave(GRID)
    right, lower = x + across * angle.cos() - down * angle.sin(), y + across * angle.sin() + down * angle.cos()
    inside = (right >= 0) & (right <= size[1]) & (lower >= 0) & (lower <= size[0])
    return inside.float().mean(-1)
