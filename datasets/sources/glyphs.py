"""Made characters: any number of classes of a few strokes each, drawn by shaky hands. No download."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from datasets.by_class import ClassSplits, split_by_class

STROKES, POINTS = 3, 16
"""Quadratic curves of a character, and the dots of the pen along each."""


def glyphs(
    root: Path | None = None,
    *,
    download: bool = False,
    classes: Sequence[int],
    images_per_class: int,
    size: int,
    shake: float,
    split_seed: int,
) -> ClassSplits:
    """Characters in one channel, white on black; a class is three curves, of which every image is another drawing.

    A drawing moves the ends and the middle of each curve, and stretches, slants and shifts the whole; the pen is
    between .8 and 1.6 of thirty-seconds of the side wide. Only sums, products and square roots are taken, so that every
    machine draws the same.

    Args:
        root: Not used; the characters are made. Every data set is called alike.
        download: Not used.
        classes: Number of training, validation and test classes.
        images_per_class: Drawings of each class, two or more.
        size: Height and width in pixels, at least 8.
        shake: How far points of a curve move, as a share of the side, at least 0.
        split_seed: Chooses the characters and the drawings; at least 0.

    Raises:
        ValueError: A setting is out of its range.
    """
    if images_per_class < 2 or split_seed < 0 or size < 8 or shake < 0:
        raise ValueError(
            f"dataset.images_per_class is {images_per_class}, dataset.size {size}, dataset.shake {shake} and "
            f"dataset.split_seed {split_seed}; they must be at least 2, 8, 0 and 0."
        )
    train, valid, test = classes
    count, generator = train + valid + test, np.random.PCG64(split_seed)
    shapes = 0.15 + 0.7 * _uniform(generator, (count, STROKES, 3, 2))
    drawn = [_drawn(shape, images_per_class, size, shake, generator) for shape in shapes]
    return split_by_class(
        "glyphs",
        torch.from_numpy(np.concatenate(drawn)).unsqueeze(1),
        torch.arange(count).repeat_interleave(images_per_class),
        [f"glyph {number:04}" for number in range(count)],
        (train, valid, test),
    )


def _uniform(generator: np.random.PCG64, shape: tuple[int, ...]) -> np.ndarray:
    """Return numbers from 0 to 1, whose stream numpy guarantees."""
    words: np.ndarray = generator.random_raw(int(np.prod(shape)))
    return ((words >> np.uint64(11)) * 2.0**-53).reshape(shape)


def _drawn(shape: np.ndarray, count: int, size: int, shake: float, generator: np.random.PCG64) -> np.ndarray:
    """Return drawings of a character, uint8 (count, size, size), from its curves, (STROKES, 3, 2)."""
    moved = shape + shake * (2 * _uniform(generator, (count, *shape.shape)) - 1)
    # a matrix near the identity about the middle, and a shift
    turn = 0.4 * _uniform(generator, (count, 4)) - 0.2
    shift = 0.1 * _uniform(generator, (count, 2, 1)) - 0.05
    x, y = moved[..., 0].reshape(count, -1) - 0.5, moved[..., 1].reshape(count, -1) - 0.5
    x, y = (
        ((axis == 0) + turn[:, 2 * axis, None]) * x + ((axis == 1) + turn[:, 2 * axis + 1, None]) * y + shift[:, axis]
        for axis in (0, 1)
    )
    pen = (0.8 + 0.8 * _uniform(generator, (count, 1, 1))) * size / 32
    along = np.arange(POINTS) / (POINTS - 1)
    first, middle, last = (1 - along) * (1 - along), 2 * along * (1 - along), along * along
    dots = [
        np.concatenate([a[:, None] * first + b[:, None] * middle + c[:, None] * last for a, b, c in _strokes(axis)], 1)
        for axis in (x, y)
    ]
    pixel = (np.arange(size) + 0.5) / size - 0.5
    nearest = np.full((count, size, size), np.inf)
    for across, down in zip(dots[0].T, dots[1].T, strict=True):
        apart = (pixel - across[:, None])[:, None, :], (pixel - down[:, None])[:, :, None]
        np.minimum(nearest, apart[0] * apart[0] + apart[1] * apart[1], out=nearest)
    ink = (pen + 0.5 - np.sqrt(nearest) * size).clip(0, 1)
    return np.rint(255 * ink).astype(np.uint8)


def _strokes(axis: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return start, middle and end of every curve, (N,) each, from coordinates (N, STROKES * 3)."""
    return [(axis[:, at], axis[:, at + 1], axis[:, at + 2]) for at in range(0, 3 * STROKES, 3)]
