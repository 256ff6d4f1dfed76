"""Image files of any kind as pixels: upright, of any depth, and refused in one sentence where they cannot be used."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from datasets.decoded import BROKEN
from datasets.splits import MissingData

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm")
"""Of the files that are taken for images, in lower case."""
MOST_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 89_478_485)
"""Of one image (179 million): a larger one takes more than half a gigabyte, and Pillow suspects an attack."""

warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # half as large is large, but no fault


def is_image(file: Path) -> bool:
    """Return whether a file looks like an image by its name.

    Hidden files and all in hidden folders are none: ``._photo.png`` holds what macOS knows of ``photo.png``.

    Args:
        file: relative to the folder of the data set, so that folders above it do not count.
    """
    return file.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in file.parts)


def opened(path: Path, *, load: bool = True) -> Image.Image:
    """Return an image in the mode of its file, turned as its EXIF entry says, of several frames the first.

    Use it for masks too, so that a mask and its image are turned alike. Several threads may call it at once.

    Args:
        path: of the file.
        load: whether to decode it; if not, only ``size`` (width and height, as turned) and ``mode`` are of use.

    Raises:
        MissingData: the file is missing, damaged, or has more than `MOST_PIXELS`; the sentence names it.
    """
    try:
        with Image.open(path) as image:
            if load:
                image.load()
                return ImageOps.exif_transpose(image)
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)  # by a quarter
            return Image.new("1", image.size[:: -1 if turned else 1]) if turned else image
    except FileNotFoundError:
        raise MissingData(f"there is no file {path}.") from None
    except Image.DecompressionBombError:
        raise MissingData(f"{path} has more than {MOST_PIXELS / 1e6:.0f} million pixels; make it smaller.") from None
    except BROKEN as error:
        raise MissingData(f"{path} cannot be read as an image ({error}); mend or remove it.") from None
