"""Images that are the same, or nearly: found by their bytes and by how brightness changes along their rows."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

SIDE = 8
"""Of a hash, in bits: 8 rows of 8 comparisons between neighbours."""
NEAR = 8
"""Bits in which the hashes of nearly the same pictures may differ."""
ALIKE = 0.12
"""Squared difference of two thumbnails, each of mean 0, as a share of their variance, up to which pictures are nearly
the same: what compression, another size or brightness, or a shift by a pixel makes. It is less for pictures that are
partly plain, by the square of the share that is not: outlines of trousers on black resemble each other without being
copies. All such pairs among 12,000 photographs of CIFAR-10 show the same object from the same side."""
STEP = 4.0
"""Grey levels between neighbouring cells of a thumbnail above which it is not plain there."""
PLAIN = 4.0
"""Standard deviation, in grey levels, of thumbnails that are too plain to say anything: only bytes are compared."""
MOST = 64
"""How many pictures, of those whose hashes are nearest, each is compared with."""
ROWS = 16
"""Hashes that are compared with all others at a time."""


class Look(NamedTuple):
    """What is kept of an image to find its copies.

    Attributes:
        bits: uint64, a difference hash (dHash): whether brightness falls from a pixel to its right neighbour, for
            8 x 8 neighbours at 9 x 8 pixels.
        thumbnail: uint8 (16, 18, 3).
    """

    bits: int
    thumbnail: np.ndarray


def look(image: Image.Image) -> Look:
    """Return what is kept of an image in RGB.

    Source:
        Neal Krawetz, Kind of Like That, 2013 (dHash).
    """
    small = image.resize((2 * (SIDE + 1), 2 * SIDE), Image.Resampling.BOX, reducing_gap=2.0)
    thumbnail = np.asarray(small)
    grey = thumbnail.astype(np.int64) @ np.array([299, 587, 114])
    cells = grey.reshape(SIDE, 2, SIDE + 1, 2).sum((1, 3))
    packed = np.packbits(cells[:, :-1] > cells[:, 1:])
    return Look(int.from_bytes(packed.tobytes(), "big"), thumbnail)


def sets(digests: Sequence[bytes], looks: Sequence[Look]) -> np.ndarray:
    """Return for each image the number of the set of copies that it belongs to, int64 (N,); sets count from 0.

    Two images are in one set if their digests agree, if their pictures nearly do, or if a chain of such pairs leads
    from one to the other. The hashes of all pairs are compared, a few images with all others at a
    time: seconds for 60,000 images.

    Args:
        digests: of the bytes of each image.
        looks: of each image.
    """
    count = len(digests)
    _, first = np.unique(np.array(digests, dtype=object).astype("S"), return_inverse=True)
    anchors = np.full(first.max(initial=-1) + 1, -1)
    anchors[first[::-1]] = np.arange(count)[::-1]
    pairs = [np.stack([np.arange(count), anchors[first]])]
    pairs += [np.stack([np.full(len(others), row), others]) for row, others in _near(looks, np.unique(anchors))]
    left, right = np.concatenate(pairs, axis=1)
    graph = coo_array((np.ones(len(left), dtype=np.int8), (left, right)), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def _near(looks: Sequence[Look], rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield images and later ones that look nearly the same, of the given rows."""
    if not len(rows):
        return
    thumbnails = np.stack([looks[row].thumbnail for row in rows])
    grey = thumbnails.mean(3, dtype=np.float32)
    shown = grey.std((1, 2)) > PLAIN
    rows, thumbnails, grey = rows[shown], thumbnails[shown], grey[shown]
    detail = (np.abs(np.diff(grey, axis=2)) > STEP).mean((1, 2))
    bits = np.array([looks[row].bits for row in rows], dtype=np.uint64)
    for begin in range(0, len(rows), ROWS):
        apart = np.bitwise_count(bits[begin : begin + ROWS, None] ^ bits[begin:])
        apart[np.tril_indices(len(apart))] = SIDE * SIDE  # pairs that were compared, and each with itself
        close = apart <= NEAR
        for place in np.flatnonzero(close.any(1)).tolist():
            others = np.flatnonzero(close[place])
            others = begin + others[np.argsort(apart[place, others], kind="stable")[:MOST]]
            one = begin + place
            limit = ALIKE * np.minimum(detail[one], detail[others]) ** 2
            if len(found := others[_difference(thumbnails[one], thumbnails[others]) <= limit]):
                yield int(rows[one]), rows[found]


def _difference(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the squared difference of a thumbnail and others, each of mean 0, as a share of the lesser variance."""
    left, right = one.astype(np.float32), others.astype(np.float32)
    left, right = left - left.mean(), right - right.mean((1, 2, 3), keepdims=True)
    variance = np.minimum((left**2).mean(), (right**2).mean((1, 2, 3)))
    return ((right - left) ** 2).mean((1, 2, 3)) / variance
