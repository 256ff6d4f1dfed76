"""How images of any size come to one size, and their boxes with them."""

import numpy as np
from PIL import Image

from datasets.pixels import Span, eight_bit

FITS = ("pad", "stretch")
GREY = 114
"""What pads: about the mean of photographs (that of ImageNet is 124, 116, 104), so that it is nearly 0 once normalised;
the value that YOLO's implementations pad with."""


def within(image: tuple[int, int], size: tuple[int, int], fit: str) -> tuple[int, int]:
    """Return height and width in pixels to which an image is resized so that it fits into a size.

    Args:
        image: its width and height in pixels.
        size: height and width to fill.
        fit: ``pad`` keeps the aspect ratio, up to rounding to whole pixels, and leaves room at the right or the bottom;
            ``stretch`` fills the size.

    Raises:
        ValueError: there is no such way.
    """
    if fit not in FITS:
        raise ValueError(f"dataset.fit is {fit}; it must be {' or '.join(FITS)}.")
    if fit == "stretch":
        return size
    scale = min(size[0] / image[1], size[1] / image[0])
    return max(1, round(image[1] * scale)), max(1, round(image[0] * scale))


def fitted(image: Image.Image, channels: int, span: Span, size: tuple[int, int], fit: str) -> np.ndarray:
    """Return an image, uint8 (C, H, W): averaged down, or interpolated up, and padded with `GREY` as `within` says."""
    height, width = within(image.size, size, fit)
    small = np.asarray(eight_bit(image, channels, span).resize((width, height), Image.Resampling.BILINEAR))
    pixels = np.full((channels, *size), GREY, dtype=np.uint8)
    pixels[:, :height, :width] = small.reshape(height, width, channels).transpose(2, 0, 1)
    return pixels
