"""Random shifts, mirror images and holes for whole batches, on whatever device the images live.

The randomness of an epoch is drawn at once, on the CPU, before the first batch: the same generator gives the same
augmentations on every device and however the epoch is cut into batches.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

ALLOWED = ("shift", "flip", "cutout")


@dataclass(frozen=True)
class Draws:
    """What happens to each of N images; a field that is None happens to none.

    Attributes:
        shift: int64 (N, 2), rows and columns from 0 to 2 * reach; the middle leaves the image where it is.
        flip: bool (N,), True mirrors left and right, after the shift.
        hole: int64 (N, 2), centre of the hole as a large number to be taken modulo height and width.
        reach: Largest shift in pixels.
        side: Side of the hole in pixels.
    """

    shift: Tensor | None = None
    flip: Tensor | None = None
    hole: Tensor | None = None
    reach: int = 0
    side: int = 0

    def _each(self, change: Any) -> "Draws":
        changed = (None if values is None else change(values) for values in (self.shift, self.flip, self.hole))
        return Draws(*changed, reach=self.reach, side=self.side)

    def to(self, device: torch.device | str) -> "Draws":
        """The same draws on another device."""
        return self._each(lambda values: values.to(device))

    def __getitem__(self, index: Tensor | slice) -> "Draws":
        return self._each(lambda values: values[index])


def draw(count: int, augment: Mapping[str, Any], generator: torch.Generator) -> Draws:
    """Draw the augmentations of `count` images.

    Args:
        count: Number of images, one epoch as a rule.
        augment: Any of `shift` (largest shift in pixels, every shift in both directions equally likely), `flip` (mirror
            left and right half of the time) and `cutout` (side of a black square around a random pixel, cut off at the
            border; DeVries and Taylor, arXiv:1708.04552). What is absent, null, 0 or false does not happen.
        generator: On the CPU; the only source of randomness.

    Raises:
        ValueError: An unknown augmentation or a negative number of pixels.
    """
    unknown = sorted(set(augment) - set(ALLOWED))
    if unknown:
        raise ValueError(f"Unknown augmentation {', '.join(unknown)}; allowed are {', '.join(ALLOWED)}.")
    reach, side = int(augment.get("shift") or 0), int(augment.get("cutout") or 0)
    if reach < 0 or side < 0:
        raise ValueError(f"shift is {reach} and cutout is {side} pixels; neither may be negative.")
    return Draws(
        shift=torch.randint(0, 2 * reach + 1, (count, 2), generator=generator) if reach else None,
        flip=torch.randint(0, 2, (count,), generator=generator).bool() if augment.get("flip") else None,
        hole=torch.randint(0, 2**31, (count, 2), generator=generator) if side else None,
        reach=reach,
        side=side,
    )


def apply(images: Tensor, draws: Draws) -> Tensor:
    """Shift, mirror, then cut a hole; what comes into sight at the border and the hole are 0 (black).

    Args:
        images: uint8 or float (B, C, H, W); not changed. One byte per pixel is by far the fastest.
        draws: For these B images, on their device.

    Returns:
        A tensor like `images` (the same one if nothing was drawn).
    """
    if draws.shift is not None:
        images = _shifted(images, draws.shift, draws.reach)
    if draws.flip is not None:
        # Choosing whole images from both versions is several times faster than `torch.where` pixel by pixel.
        versions = torch.cat([images, images.flip(-1)])
        images = versions.index_select(0, torch.arange(len(images), device=images.device) + draws.flip * len(images))
    if draws.hole is not None:
        images = images.masked_fill(_holes(draws.hole, draws.side, *images.shape[-2:]), 0)
    return images


def _shifted(images: Tensor, shift: Tensor, reach: int) -> Tensor:
    """Windows of the padded images; a view holds every window of the batch, so one index per image picks its own."""
    batch, channels, height, width = images.shape
    padded = torch.nn.functional.pad(images, (reach,) * 4).contiguous()
    per_image, per_channel, per_row, _ = padded.stride()
    begin = torch.arange(batch, device=images.device) * per_image + shift[:, 0] * per_row + shift[:, 1]
    last = (batch - 1) * per_image + 2 * reach * (per_row + 1) if batch else -1
    windows = padded.as_strided((last + 1, channels, height, width), (1, per_channel, per_row, 1))
    return windows.index_select(0, begin)


def _holes(centre: Tensor, side: int, height: int, width: int) -> Tensor:
    """True inside the holes: bool (B, 1, height, width)."""
    inside = []
    for axis, size in enumerate((height, width)):
        start = centre[:, axis, None] % size - side // 2
        pixel = torch.arange(size, device=centre.device)
        inside.append((pixel >= start) & (pixel < start + side))
    return (inside[0][:, :, None] & inside[1][:, None, :])[:, None]
