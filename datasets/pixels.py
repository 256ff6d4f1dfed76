"""Image files of any kind as pixels: upright, of any depth, and refused in one sentence where they cannot be used."""

import io
import math
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from datasets.decoded import BROKEN
from datasets.splits import MissingData

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm")
"""Of the files that are taken for images, in lower case."""
SYSTEM = ("__MACOSX", "@eaDir", "Thumbs.db", "ehthumbs.db", "desktop.ini")
"""Files and folders that operating systems leave among those of their users."""
MOST_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 89_478_485)
"""Of one image (179 million): a larger one takes more than half a gigabyte, and Pillow suspects an attack."""
WHITE = (255, 255, 255, 255)
Span = tuple[float, float]
"""The values of an image of more than 8 bits that become 0 and 255."""

warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # half as large is large, but no fault


def is_left(file: Path) -> bool:
    """Return whether a file is hidden, or left by an operating system: ``._photo.png`` is macOS's about ``photo.png``.

    Args:
        file: relative to the folder of the data set, so that folders above it do not count.
    """
    return any(part.startswith(".") or part in SYSTEM for part in file.parts)


def is_image(file: Path) -> bool:
    """Return whether a file, relative to the folder of the data set, is to be read as an image, judged by its name."""
    return file.suffix.lower() in SUFFIXES and not is_left(file)


def some(names: Iterable[object], most: int = 3) -> str:
    """Return the first few names and how many more there are, for messages: "a.png, b.png, c.png and 9 more"."""
    listed = [str(name) for name in names]
    more = len(listed) - most
    return ", ".join(listed[:most]) + (f" and {more} more" if more > 0 else "")


def opened(path: Path, content: bytes | None = None, *, load: bool = True, least: int | None = None) -> Image.Image:
    """Return an image in the mode of its file, turned as its EXIF entry says, of several frames the first.

    Use it for masks too, so that a mask and its image are turned alike. Several threads may call it at once. ``info``
    of a decoded image has the number of ``frames``.

    Args:
        path: of the file; messages name it.
        content: what the file holds, if it is not to be read.
        load: whether to decode it; if not, only ``size`` (width and height, as turned) and ``mode`` are of use.
        least: decode it no larger than is needed for so many pixels a side, where that saves time (JPEG).

    Raises:
        MissingData: the file is missing, damaged, or has more than `MOST_PIXELS`; the sentence names it.
    """
    try:
        # not by its name: Pillow then maps TIFF files into memory, where it confuses width and height of turned ones
        with path.open("rb") if content is None else io.BytesIO(content) as file, Image.open(file) as image:
            if load:
                if least is not None:
                    image.draft(None, (least, least))
                frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # MPO: a photograph and previews
                image.load()
                ImageOps.exif_transpose(image, in_place=True)
                image.info["frames"] = frames
                return image
            quarter = image.format != "TIFF" and image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            return Image.new("1", (image.height, image.width)) if quarter else image
    except FileNotFoundError:
        raise MissingData(f"there is no file {path}.") from None
    except Image.DecompressionBombError:
        raise MissingData(f"{path} has more than {MOST_PIXELS / 1e6:.0f} million pixels; make it smaller.") from None
    except BROKEN as error:
        said = "its content is no image of a known format" if "cannot identify" in str(error) else error
        raise MissingData(f"{path} cannot be read as an image ({said}); mend or remove it.") from None


def is_deep(image: Image.Image) -> bool:
    """Return whether an image has one channel of more than 8 bits: integers of 16 or 32, or floating point."""
    return image.mode[0] in "IF"


def span_of(values: np.ndarray) -> Span:
    """Return the least and the greatest finite value of an image (0 and 0 if there is none)."""
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


def usual_span(low: float, high: float, whole: bool) -> Span:
    """Return the range that values between ``low`` and ``high`` most likely use.

    Whole numbers from 0 on: 0 to the greatest number of as many bits (4095 for a scanner of 12 bits in a file of 16).
    Floating point: 0 to 1 or 0 to 255 where all lie within; else, as with negative numbers, what was found.

    Args:
        low, high: least and greatest value of all images.
        whole: whether they are integers.
    """
    if low >= 0 and whole:
        return 0.0, float(2 ** max(8, math.ceil(math.log2(high + 1))) - 1)
    for limit in (1.0, 255.0):
        if low >= 0 and high <= limit:
            return 0.0, limit
    return low, high


def eight_bit(image: Image.Image, channels: int, span: Span = (0.0, 65535.0)) -> Image.Image:
    """Return an image in RGB or grey, 8 bits a channel: what is transparent becomes white, as pages show it.

    Args:
        image: in any mode of Pillow's.
        channels: 3 for RGB, 1 for grey.
        span: of an image of more than 8 bits, the values that become 0 and 255; those beyond become these, and what is
            no number becomes 0.
    """
    if is_deep(image):
        low, high = span
        values = (np.asarray(image).astype(np.float64) - low) * (255 / max(high - low, 1e-12))
        image = Image.fromarray(np.nan_to_num(values).clip(0, 255).round().astype(np.uint8))
    elif image.has_transparency_data:
        coloured = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, WHITE), coloured)
    mode = "RGB" if channels == 3 else "L"
    return image if image.mode == mode else image.convert(mode)
