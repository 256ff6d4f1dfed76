"""Random crops, zoom, mirror images and colour for images and their masks, in batches, on whatever device they live.

As in `datasets.augment`, the randomness of an epoch is drawn at once, on the CPU, before the first batch.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from datasets.splits import VOID

ALLOWED = ("zoom", "flip", "colour", "foreground")


def draw(
    count: int,
    augment: Mapping[str, Any],
    generator: torch.Generator,
    size: Sequence[int] = (1, 1),
    crop: Sequence[int] | None = None,
) -> Tensor | None:
    """Draw the augmentations of `count` images, float32 (count, 6), with foreground 7, or None if none is asked for.

    Args:
        count: Number of images, one epoch as a rule.
        augment: Any of `zoom` (least and greatest factor; a window is cut out of what is enlarged, and what is made
            smaller is surrounded by void, at a random place), `flip` (mirror left and right half of the time),
            `colour` (largest change of contrast, as a factor, and of brightness, in standard deviations) and
            `foreground` (share of images whose window is moved over a random pixel of any class but the first, so that
            small objects are seen often enough). What is absent, null, 0 or false does not happen.
        generator: On the CPU; the only source of randomness.
        size: Height and width of the images; needed for a crop.
        crop: Height and width of what is cut out, at a random place, after zooming; None takes whole images.

    Raises:
        ValueError: An unknown augmentation, or one out of its range.
    """
    unknown = sorted(set(augment) - set(ALLOWED))
    if unknown:
        raise ValueError(f"Unknown augmentation {', '.join(unknown)}; allowed are {', '.join(ALLOWED)}.")
    low, high = augment.get("zoom") or (1.0, 1.0)
    colour = float(augment.get("colour") or 0)
    if not 0 < low <= high:
        raise ValueError(f"zoom is [{low}, {high}]; it must be a least and a greatest factor, both above 0.")
    if not 0 <= colour < 1:
        raise ValueError(f"colour is {colour}; it must be at least 0 and below 1.")
    foreground = float(augment.get("foreground") or 0)
    if not 0 <= foreground <= 1:
        raise ValueError(f"foreground is {foreground}; it must be a share from 0 to 1.")
    uniform = 2 * torch.rand((count, 5), generator=generator) - 1  # drawn even if unused: settings do not move others
    mirrored = torch.randint(0, 2, (count,), generator=generator)
    aimed, pick = torch.rand((2, count), generator=generator)
    if low == high == 1 and not augment.get("flip") and not colour and crop is None:
        return None
    factor = low * (high / low) ** (0.5 + 0.5 * uniform[:, 0])
    sides = torch.tensor(size).float()
    shares = torch.ones(2) if crop is None else torch.tensor(crop) / sides
    window = shares / factor[:, None]  # its height and width, over the image's
    reach = (1 - window).abs()  # how far it may move before it leaves the image, or the image the window
    shift = reach * uniform[:, [2, 1]]
    if crop is not None and low == high == 1:  # whole pixels: nothing is blurred
        shift = ((shift + reach) / 2 * sides).round() * 2 / sides - reach
    sign = 1 - 2 * mirrored if augment.get("flip") else torch.ones(count)
    tint = colour * uniform[:, 3:5]
    columns = [window[:, 1] * sign, shift[:, 1], window[:, 0], shift[:, 0], 1 + tint[:, 0], tint[:, 1]]
    if foreground:
        columns.append(torch.where(aimed < foreground, pick, -1))
    return torch.stack(columns, 1)


def apply(
    images: Tensor, masks: Tensor, draws: Tensor | None, crop: Sequence[int] | None = None
) -> tuple[Tensor, Tensor]:
    """Change colours, then zoom, crop and mirror; what comes into sight is 0 in the image, its mean, and void.

    Args:
        images: float (B, C, H, W), normalised.
        masks: uint8 (B, H, W).
        draws: (B, 6 or 7) of `draw`, on their device.
        crop: Height and width of the result, as given to `draw`; None keeps the images' own.

    Returns:
        Tensors like `images` and `masks` (the same ones if nothing was drawn).
    """
    if draws is None:
        return images, masks
    across, right, down, lower, contrast, brightness, *pick = draws.unbind(1)
    if pick:
        right, lower = _aimed(masks, pick[0], (across.abs(), down), (right, lower))
    images = images * contrast.view(-1, 1, 1, 1) + brightness.view(-1, 1, 1, 1)
    zero = torch.zeros_like(across)
    theta = torch.stack([across, zero, right, zero, down, lower], 1).view(-1, 2, 3)
    size = [*images.shape[:2], *(images.shape[2:] if crop is None else crop)]
    grid = functional.affine_grid(theta, size, align_corners=False).to(images.dtype)
    images = functional.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    # outside is sampled as 0, so classes are moved up by one
    raised = (masks.to(images.dtype) + 1).unsqueeze(1)
    sampled = functional.grid_sample(raised, grid, mode="nearest", padding_mode="zeros", align_corners=False)
    classes = sampled.squeeze(1).round().to(torch.int16) - 1
    return images, torch.where(classes < 0, VOID, classes).to(torch.uint8)


def _aimed(
    masks: Tensor, pick: Tensor, window: tuple[Tensor, Tensor], middle: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Return the middles (B,) of windows, across and down, moved over a pixel of the foreground where one is picked.

    All are in units of half an image. The pixel falls anywhere in the middle half of the window, as far as the image's
    border allows: what is always in the centre is learnt by its place.
    """
    inside = ((masks > 0) & (masks != VOID)).flatten(1)
    count = inside.sum(1)
    wanted = (pick * count).floor().clamp_min(0) + 1
    place = (inside.cumsum(1) < wanted[:, None]).sum(1).clamp_max(inside.shape[1] - 1)
    height, width = masks.shape[1:]
    found = []
    for at, side, size, old in zip((place % width, place // width), (width, height), window, middle, strict=True):
        reach = (1 - size).abs()
        jitter = 0.5 * size * torch.where(reach > 0, old / reach.clamp_min(1e-6), 0)
        aim = (2 * at + 1) / side - 1 + jitter
        aim = (((aim + reach) / 2 * side).round() * 2 / side - reach).clamp(-reach, reach)  # whole pixels
        found.append(torch.where((pick >= 0) & (count > 0), aim, old))
    return found[0], found[1]
