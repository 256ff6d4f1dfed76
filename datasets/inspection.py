"""A look at every file of a data set before anything trains: what is damaged, how large and how deep images are."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from datasets import duplicates, pixels
from datasets.listings import Entry
from datasets.splits import MissingData


class Seen(NamedTuple):
    """What is known of an image.

    Attributes:
        size: height and width in pixels, upright.
        span: least and greatest value, of one of more than 8 bits.
        whole: whether such values are integers.
        digest: SHA-256 of its bytes.
        look: what is kept to find copies.
        frames: how many images the file has, of which the first is used.
        problem: why it cannot be used; then nothing else is known.
    """

    size: tuple[int, int] = (0, 0)
    span: pixels.Span | None = None
    whole: bool = True
    digest: bytes = b""
    look: duplicates.Look | None = None
    frames: int = 1
    problem: str | None = None


def headers(entries: Sequence[Entry]) -> list[Seen]:
    """Return the sizes of images, by their headers; all are decoded that have more than 8 bits."""
    return _each(entries, _header)


def decoded(entries: Sequence[Entry]) -> list[Seen]:
    """Return all that is known of images, decoded one by one by several threads."""
    return _each(entries, _decoded)


def _each(entries: Sequence[Entry], see: Callable[[Entry], Seen]) -> list[Seen]:
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(see, entries))


def _header(entry: Entry) -> Seen:
    try:
        image = pixels.opened(entry.path, entry.content and entry.content(), load=False)
    except MissingData as error:
        return Seen(problem=str(error))
    return _decoded(entry) if pixels.is_deep(image) else Seen((image.height, image.width))


def _decoded(entry: Entry) -> Seen:
    try:
        content = entry.content() if entry.content else entry.path.read_bytes()
        size = pixels.opened(entry.path, content, load=False).size
        image = pixels.opened(entry.path, content, least=64)
        span, whole = None, True
        if pixels.is_deep(image):
            values = np.asarray(image)
            span, whole = pixels.span_of(values), values.dtype.kind != "f"
        shown = pixels.eight_bit(image, 3, span or (0, 1))
    except MissingData as error:
        return Seen(problem=str(error))
    except OSError as error:
        return Seen(problem=f"{entry.path} cannot be read ({error.strerror or error}); mend or remove it.")
    digest = hashlib.sha256(content).digest()
    return Seen((size[1], size[0]), span, whole, digest, duplicates.look(shown), image.info["frames"])


def span_of_all(seen: Sequence[Seen]) -> tuple[pixels.Span, bool] | None:
    """Return the range that images of more than 8 bits use, and whether they hold integers; None: there is none."""
    deep = [each for each in seen if each.span is not None]
    if not deep:
        return None
    low, high = min(each.span[0] for each in deep if each.span), max(each.span[1] for each in deep if each.span)
    whole = all(each.whole for each in deep)
    return pixels.usual_span(low, high, whole), whole


def one_size(seen: Sequence[Seen]) -> tuple[int, int]:
    """Return the size that all images have.

    Raises:
        MissingData: they have several; the sentence proposes one.
    """
    found = Counter(each.size for each in seen)
    if len(found) == 1:
        return next(iter(found))
    heights, widths = zip(*(each.size for each in seen), strict=True)
    side = usual_side(seen)
    raise MissingData(
        f"the images have {len(found)} sizes, from {min(heights)}x{min(widths)} to {max(heights)}x{max(widths)} pixels "
        f"(height x width): name one for all, such as dataset.size=[{side},{side}]."
    )


def usual_side(seen: Sequence[Seen]) -> int:
    """Return the side of a square that suits images of several sizes: a multiple of 32 near the shorter side of most,
    224 at most.
    """
    shorter = float(np.median([min(each.size) for each in seen]))
    return 32 * max(1, min(7, round(shorter / 32)))
