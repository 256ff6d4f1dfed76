"""Images with a mask each, read from files: what every data set for segmentation shares."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from PIL import Image
from torch import from_numpy

from datasets import colours
from datasets.colours import Table
from datasets.decoded import BROKEN, Decoded
from datasets.pixels import Span, eight_bit, opened
from datasets.splits import VOID, Images, MissingData, Splits, stratified_order

DAMAGED = ("stop", "skip")


@dataclasses.dataclass(frozen=True)
class Form:
    """What all images and masks of a data set are brought to.

    Attributes:
        size: Height and width in pixels; images are averaged down, masks take the nearest pixel.
        classes: Number of classes in the masks, 0 to classes - 1; 255 is void.
        channels: 3 for colour, 1 for grey.
        void: Further values that mean void.
        binary: True for masks in which every value but 0 is class 1, or in files that compression blurred, from 128 on.
        table: Colours of the classes; None: masks hold numbers.
        tolerance: How far the colour of a pixel may be from that of a class; None: not at all, or in files that
            compression blurred, half of the least distance between two, and what is further off is void.
        own: Whether these are files of one's own: they are turned as their EXIF entries say, transparent images lie on
            white, and deep ones are brought to 8 bits.
        span: The values of deep images that become 0 and 255.
    """

    size: tuple[int, int]
    classes: int
    channels: int = 3
    void: tuple[int, ...] = ()
    binary: bool = False
    table: Table | None = None
    tolerance: float | None = None
    own: bool = False
    span: Span = (0.0, 65535.0)

    @property
    def wide(self) -> tuple[int, int]:
        """Width and height, the order that Pillow takes."""
        return self.size[1], self.size[0]


@dataclasses.dataclass(frozen=True)
class ImageMask:
    """An image and its mask, and what names them: a list, or a folder.

    Attributes:
        segments: Of a mask in COCO's panoptic colours (id = R + 256 G + 65536 B), the class of each id; what has none
            is void.
        layers: Where each class has a mask file of its own, the class and the file of each: every value but 0 is of the
            class, a later one covers an earlier one, and the rest is class 0. ``mask`` is then the first of them.
        group: What the image belongs to that must not stand in two parts.
    """

    image: Path
    mask: Path
    named_by: Path
    segments: Mapping[int, int] | None = None
    layers: tuple[tuple[int, Path], ...] = ()
    group: str = ""


class MaskSettings(TypedDict):
    """What the settings of every data set of files have in common.

    Attributes:
        size: Height and width in pixels to which all images are brought; images are averaged down.
        damaged: What a file that is missing, broken or wrong does: `stop` raises, `skip` leaves the pair out, counted.
        train_size: Number of training images; None takes all (that validation leaves).
        valid_size: Number of validation images; None takes all, where the set has a validation part of its own.
        test_size: Number of test images; None takes all.
        split_seed: Chooses which images; at least 0.
    """

    size: Sequence[int]
    damaged: str
    train_size: int | None
    valid_size: int | None
    test_size: int | None
    split_seed: int


def lines(file: Path) -> list[str]:
    """Return the lines of a list that are not empty.

    Raises:
        MissingData: there is no such list, or nothing in it.
    """
    try:
        found = [line.strip() for line in file.read_text().splitlines() if line.strip()]
    except FileNotFoundError:
        raise MissingData(f"{file} is missing; it should list the images of this split.") from None
    if not found:
        raise MissingData(f"{file} lists no image.")
    return found


def read_splits(
    title: str,
    train: Sequence[ImageMask],
    valid: Sequence[ImageMask] | None,
    test: Sequence[ImageMask],
    classes: tuple[str, ...],
    *,
    size: Sequence[int],
    damaged: str,
    train_size: int | None,
    valid_size: int | None,
    test_size: int | None,
    split_seed: int,
    **form: Any,
) -> Splits:
    """Choose three splits, whose images and masks are decoded when they are needed, all at one size.

    A smaller split is a part of every larger one, whatever the others are.

    Args:
        title: What an error message calls the data set.
        train: The official training images.
        valid: The official validation images; None takes `valid_size` of the training images instead.
        test: The official test images.
        classes: Name of each class.
        size, damaged, train_size, valid_size, test_size, split_seed: See `MaskSettings`.
        form: The rest of `Form`.

    Raises:
        MissingData: `damaged` is `skip` and nothing is left; with `stop`, a file that is missing, broken or wrong is
            reported when it is decoded.
        ValueError: A size cannot be had.
    """
    if damaged not in DAMAGED:
        raise ValueError(f"dataset.damaged is {damaged}; it must be {' or '.join(DAMAGED)}.")
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"dataset.size is {list(size)}; it must be a height and a width in pixels.")
    wanted = Form((size[0], size[1]), len(classes), **form)
    if valid is None:
        if valid_size is None:
            raise ValueError(f"valid_size is null, but {title} has no validation part of its own; name a number.")
        _check_size(title, "valid_size", valid_size, len(train) - 1)
        order = _order(len(train), split_seed)
        train, valid = _taken(train, order[valid_size:]), _taken(train, order[:valid_size])
    parts, skipped = [], []
    for name, pairs, count in (("train", train, train_size), ("valid", valid, valid_size), ("test", test, test_size)):
        size_of_part = len(pairs) if count is None else count
        _check_size(title, f"{name}_size", size_of_part, len(pairs))
        rows = np.sort(_order(len(pairs), split_seed)[:size_of_part])
        problems = {row: _problem(pairs[row], wanted) for row in rows} if damaged == "skip" else {}
        left_out = [problem for problem in problems.values() if problem]
        if len(left_out) == len(rows):
            raise MissingData(f"{title} has no usable image for {name}: {left_out[0]}")
        parts.append(_images(pairs, rows[[not problems.get(row) for row in rows]], wanted))
        skipped += left_out
    return Splits(parts[0], parts[1], parts[2], classes, tuple(skipped))


def _order(count: int, seed: int) -> np.ndarray:
    return stratified_order(np.zeros(count, dtype=np.int64), seed)


def _taken(pairs: Sequence[ImageMask], rows: np.ndarray) -> list[ImageMask]:
    return [pairs[row] for row in np.sort(rows)]


def _check_size(title: str, name: str, size: int, most: int) -> None:
    if not 1 <= size <= most:
        raise ValueError(f"{name} is {size}, but {title} allows 1 to {most} here.")


def _images(pairs: Sequence[ImageMask], rows: np.ndarray, form: Form) -> Images:
    chosen = tuple(pairs[row] for row in rows)
    return Images(
        Decoded(chosen, functools.partial(read_image, form=form), (form.channels, *form.size)),
        Decoded(chosen, functools.partial(read_mask, form=form), form.size),
        from_numpy(rows.astype(np.int64)),
    )


def _problem(pair: ImageMask, form: Form) -> str | None:
    """Return what is wrong with an image or its mask, or None."""
    try:
        read_image(pair, form)
        read_mask(pair, form)
    except MissingData as error:
        return str(error)
    return None


def read_image(pair: ImageMask, form: Form) -> np.ndarray:
    """Return an image, uint8 (C, H, W).

    Raises:
        MissingData: the file is missing or damaged; the sentence names it.
    """
    image = _opened(pair.image, pair, form)
    if form.own:
        image = eight_bit(image, form.channels, form.span)
    else:
        image = image.convert("RGB" if form.channels == 3 else "L")
    # Pillow's bilinear filter averages over all pixels that become one
    pixels = np.asarray(image.resize(form.wide, Image.Resampling.BILINEAR))
    return pixels.reshape(*form.size, form.channels).transpose(2, 0, 1)


def read_mask(pair: ImageMask, form: Form) -> np.ndarray:
    """Return the mask of an image, uint8 (H, W).

    Raises:
        MissingData: the file is missing, damaged or wrong; the sentence names it.
    """
    size = _opened(pair.image, pair, form, load=False).size
    if pair.layers:
        values = np.zeros(size[::-1], dtype=np.uint8)
        for number, file in pair.layers:
            values[_foreground(colours.pixels(_sized(file, size, pair, form)), file)] = number
    else:
        mask = _sized(pair.mask, size, pair, form)
        if pair.segments is not None:
            values = _of_segments(mask, pair.segments)
        elif form.table is not None:
            values = _of_table(mask, form.table, pair, form)
        else:
            values = _of_numbers(mask, pair, form)
    return np.asarray(Image.fromarray(values.astype(np.uint8)).resize(form.wide, Image.Resampling.NEAREST))


def _sized(file: Path, size: tuple[int, int], pair: ImageMask, form: Form) -> Image.Image:
    """Return a mask that has the size of its image."""
    mask = _opened(file, pair, form)
    if mask.size != size:
        sizes = " and ".join(f"{width}x{height}" for width, height in (mask.size, size))
        raise _wrong(file, f"and its image {pair.image.name} differ in size ({sizes})")
    return mask


def _of_numbers(mask: Image.Image, pair: ImageMask, form: Form) -> np.ndarray:
    """Return the class of each pixel of a mask that holds numbers."""
    try:
        values = colours.pixels(mask)
    except ValueError as error:
        raise _wrong(pair.mask, str(error)) from None
    if form.binary:
        values = _foreground(values, pair.mask).astype(np.int64)
    elif values.ndim == 3:
        raise _wrong(pair.mask, f"holds colours ({mask.mode}), but a mask holds one class number for each pixel")
    values[np.isin(values, form.void)] = VOID
    wrong = values[(values != VOID) & ((values < 0) | (values >= form.classes))]
    if wrong.size:
        allowed = f"0 to {form.classes - 1} and {VOID} (void)"
        raise _wrong(pair.mask, f"holds the class {wrong[0]}, allowed are {allowed}")
    return values


def _foreground(values: np.ndarray, file: Path) -> np.ndarray:
    """Return which pixels of a mask of one class are of it, bool (H, W)."""
    values = values.max(2) if values.ndim == 3 else values
    return values > (VOID // 2 if colours.is_blurred(file) else 0)


def _of_table(mask: Image.Image, table: Table, pair: ImageMask, form: Form) -> np.ndarray:
    """Return the class of each pixel of a mask that holds colours."""
    blurred = colours.is_blurred(pair.mask)
    reach = form.tolerance if form.tolerance is not None else table.reach if blurred else 0.0
    values, stray = colours.numbered(mask, table, reach)
    if stray is not None and not blurred and form.tolerance is None:
        raise _wrong(
            pair.mask,
            f"holds the colour {list(stray)}, which dataset.colours does not name; add it (void: {list(stray)}"
            " leaves it out), or take the nearest colour by dataset.tolerance",
        )
    return values


def _of_segments(mask: Image.Image, segments: Mapping[int, int]) -> np.ndarray:
    pixels = np.asarray(mask.convert("RGB")).astype(np.int64)
    ids, place = np.unique(pixels @ np.array([1, 256, 65536]), return_inverse=True)
    return np.array([segments.get(int(number), VOID) for number in ids])[place].reshape(pixels.shape[:2])


def _opened(path: Path, pair: ImageMask, form: Form, *, load: bool = True) -> Image.Image:
    """Return an image, or only its header, which gives its size."""
    if form.own:
        return opened(path, load=load)
    try:
        with Image.open(path) as image:
            if load:
                image.load()
            return image
    except FileNotFoundError:
        raise _wrong(path, f"is missing, but {pair.named_by} names it") from None
    except BROKEN as error:
        raise _wrong(path, f"cannot be read as an image ({error})") from None


def _wrong(path: Path, what: str) -> MissingData:
    return MissingData(f"{path} {what}; mend or remove it, or leave such pairs out with dataset.damaged=skip.")
