"""Images that are the same, or nearly: found by their bytes and by how brightness changes along their rows."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

SIDE = 8
"""Of a hash, in bits: 8 rows of 8 comparisons between neighbours."""
NEAR = 3
"""Bits in which the hashes of nearly the same pictures may differ; one of four parts of 16 bits then agrees."""
PLAIN = 4.0
"""Standard deviation, in grey levels, of pictures too plain for the hash to say anything: they are only compared
byte by byte."""
ALIKE = 0.02
"""Mean squared difference of two thumbnails, each of mean 0, as a share of the variance of both, up to which
pictures are nearly the same: what compression, another size or another brightness makes."""


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
    from one to the other. Work and memory grow with N unless very many hashes resemble each other.

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
    thumbnails = np.stack([looks[row].thumbnail for row in rows]) if len(rows) else np.zeros((0, 2 * SIDE, 18, 3))
    grey = thumbnails.astype(np.float32).mean(3).reshape(len(rows), 2 * SIDE * 2 * (SIDE + 1))
    deviation = grey.std(1)
    shown = deviation > PLAIN
    rows, thumbnails, deviation = rows[shown], thumbnails[shown], deviation[shown]
    bits = np.array([looks[row].bits for row in rows], dtype=np.uint64)
    for shift in range(0, SIDE * SIDE, 16):
        key = (bits >> np.uint64(shift)) & np.uint64(0xFFFF)
        order = np.argsort(key, kind="stable")
        ends = np.flatnonzero(np.diff(key[order], append=np.uint64(1 << 16))) + 1
        begin = 0
        for end in ends.tolist():
            members = order[begin:end]
            begin = end
            for place, member in enumerate(members[:-1].tolist()):
                others = members[place + 1 :]
                others = others[np.bitwise_count(bits[others] ^ bits[member]) <= NEAR]
                if len(others) and len(found := others[_alike(thumbnails, member, others)]):
                    yield int(rows[member]), rows[found]


def _alike(thumbnails: np.ndarray, one: int, others: np.ndarray) -> np.ndarray:
    """Return which of the others show nearly what one shows, bool (M,)."""
    left = thumbnails[one].astype(np.float32)
    right = thumbnails[others].astype(np.float32)
    left, right = left - left.mean(), right - right.mean((1, 2, 3), keepdims=True)
    variance = np.minimum((left**2).mean(), (right**2).mean((1, 2, 3)))
    return ((right - left) ** 2).mean((1, 2, 3)) <= ALIKE * variance
