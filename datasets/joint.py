"""Random crops, zoom, mirror images and colour for images and their masks, in batches, on whatever device they live.

As in `datasets.augment`, the randomness of an epoch is drawn at once, on the CPU, before the first batch.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from datasets.splits import VOID

ALLOWED = ("zoom", "flip", "colour")


def draw(
    count: int,
    augment: Mapping[str, Any],
    generator: torch.Generator,
    size: Sequence[int] = (1, 1),
    crop: Sequence[int] | None = None,
) -> Tensor | None:
    """Draw the augmentations of `count` images, float32 (count, 6), or None if nothing is asked for.

    Args:
        count: Number of images, one epoch as a rule.
        augment: Any of `zoom` (least and greatest factor; a window is cut out of what is enlarged, and what is made
            smaller is surrounded by void, at a random place), `flip` (mirror left and right half of the time) and
            `colour` (largest change of contrast, as a factor, and of brightness, in standard deviations). What is
            absent, null, 0 or false does not happen.
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
    uniform = 2 * torch.rand((count, 5), generator=generator) - 1  # drawn even if unused: settings do not move others
    mirrored = torch.randint(0, 2, (count,), generator=generator)
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
    return torch.stack([window[:, 1] * sign, shift[:, 1], window[:, 0], shift[:, 0], 1 + tint[:, 0], tint[:, 1]], 1)


def apply(
    images: Tensor, masks: Tensor, draws: Tensor | None, crop: Sequence[int] | None = None
) -> tuple[Tensor, Tensor]:
    """Change colours, then zoom, crop and mirror; what comes into sight is 0 in the image, its mean, and void.

    Args:
        images: float (B, C, H, W), normalised.
        masks: uint8 (B, H, W).
        draws: (B, 6) of `draw`, on their device.
        crop: Height and width of the result, as given to `draw`; None keeps the images' own.

    Returns:
        Tensors like `images` and `masks` (the same ones if nothing was drawn).
    """
    if draws is None:
        return images, masks
    across, right, down, lower, contrast, brightness = draws.unbind(1)
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
