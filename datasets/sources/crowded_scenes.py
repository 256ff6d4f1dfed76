"""Scenes of many digits: scikit-learn's digits on its photographs, with a box around each, no download."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datasets.boxes import BoxSplits
from datasets.sources.scenes import EDGE, material, resized, window
from datasets.splits import Images

OVERLAP = 0.2
"""Squares around two digits of a scene share less than this (intersection over union)."""
Placed = tuple[int, int, int, tuple[float, float, float]]
TRIES = 6
"""How often another position is tried for a digit that would cover others; then it is left out."""


def crowded_scenes(
    root: Path | None = None,
    *,
    download: bool = False,
    size: Sequence[int],
    digits: Sequence[int],
    objects: Sequence[int],
    sides: Sequence[int],
    train_size: int,
    valid_size: int,
    test_size: int,
    split_seed: int,
) -> BoxSplits:
    """Photographs in three channels with many handwritten digits in them; classes are the digits.

    A box is the smallest that holds all ink of a digit. The test has other digits and another part of the photographs
    than training and validation. Scene i of a split is the same for every size of split.

    Args:
        root: Not used; everything is part of scikit-learn. Every data set is called alike.
        download: Not used.
        size: Height and width in pixels.
        digits: Which digits appear.
        objects: Least and greatest number of digits in a scene; one that finds no room is left out.
        sides: Least and greatest side of a digit in pixels.
        train_size: Number of training scenes.
        valid_size: Number of validation scenes.
        test_size: Number of test scenes.
        split_seed: Chooses which scenes; at least 0.

    Raises:
        ValueError: A setting is out of its range.
    """
    least, most = objects
    if not digits or set(digits) - set(range(10)):
        raise ValueError(f"dataset.digits is {list(digits)}; it must name one or more of 0 to 9.")
    if not 1 <= least <= most:
        raise ValueError(f"dataset.objects is {list(objects)}; it must be a least and a greatest number, from 1 on.")
    if not 8 <= sides[0] <= sides[1] <= min(size):
        raise ValueError(f"dataset.sides is {list(sides)}; it must be two sides from 8 to {min(size)} pixels.")
    sizes = {"train_size": train_size, "valid_size": valid_size, "test_size": test_size}
    for name, count in sizes.items():
        if count is None or count < 1:
            raise ValueError(f"dataset.{name} is {count}; scenes are made to order, so name a number from 1 on.")
    shape, digits, parts = (size[0], size[1]), sorted(set(digits)), []
    for place, count in enumerate(sizes.values()):
        ink, labels, walls = material(digits, test=place == 2)
        classes = torch.from_numpy(np.searchsorted(digits, labels))
        numbers = 5 + most * (4 + 2 * TRIES)
        words = np.random.PCG64([split_seed, place]).random_raw(count * numbers).reshape(count, numbers)
        made = []
        for draw in (words >> np.uint64(11)) / 2.0**53:
            wanted = draw[5:].reshape(most, -1)[: least + int(draw[4] * (most - least + 1))]
            made.append(_scene(_backdrop(draw, walls, shape), _placed(wanted, sides, shape), ink, classes, most))
        images, boxes = (torch.stack(each) for each in zip(*made, strict=True))
        parts.append(Images(images, boxes, torch.arange(count)))
    return BoxSplits(parts[0], parts[1], parts[2], tuple(map(str, digits)))


def _backdrop(draw: np.ndarray, walls: list[Tensor], size: tuple[int, int]) -> Tensor:
    """Return a part of a photograph, float (3, H, W), faded so that ink stands out, from numbers in [0, 1)."""
    which, zoom, top, left = draw[:4]
    wall = walls[int(which * len(walls))]
    return 64 + resized(window(wall, min(wall.shape[1:]) * (0.25 + 0.75 * zoom), top, left, size), size) / 2


def _scene(image: Tensor, found: list[Placed], ink: Tensor, classes: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Return an image with digits, uint8 (3, H, W), and a target (most, 6)."""
    target = torch.zeros(most, 6)
    target[:, 4] = -1
    for row, (side, down, right, (pick, tone, strength)) in enumerate(found):
        chosen = int(pick * len(ink))
        box = _painted(image, ink[chosen, 0], side, (down, right), (tone, strength))
        target[row] = torch.tensor([*box, int(classes[chosen]), 0])
    return image.round().to(torch.uint8), target


def _placed(draws: np.ndarray, sides: Sequence[int], size: tuple[int, int]) -> list[Placed]:
    """Return side, row and column of every digit that finds room, and what is left of its numbers in [0, 1)."""
    found, taken = [], np.zeros((0, 3), dtype=np.int64)
    for scale, pick, tone, strength, *tries in draws:
        side = round(sides[0] + scale * (sides[1] - sides[0]))
        for down, right in np.reshape(tries, (TRIES, 2)):
            corner = np.array([int(down * (size[0] - side + 1)), int(right * (size[1] - side + 1))])
            low = np.maximum(taken[:, :2], corner)
            high = np.minimum(taken[:, :2] + taken[:, 2:], corner + side)
            shared = (high - low).clip(0).prod(1)
            if (shared < OVERLAP * (taken[:, 2] ** 2 + side**2 - shared)).all():
                taken = np.concatenate([taken, [[*corner, side]]])
                found.append((side, int(corner[0]), int(corner[1]), (pick, tone, strength)))
                break
    return found


def _painted(
    image: Tensor, digit: Tensor, side: int, corner: tuple[int, int], look: tuple[float, float]
) -> tuple[int, int, int, int]:
    """Paint a digit into an image, float (3, H, W), and return the box around its ink."""
    ink = resized(digit, (side, side))[0].clamp(0, 1)
    place = (slice(corner[0], corner[0] + side), slice(corner[1], corner[1] + side))
    opacity = ink * (0.8 + 0.2 * look[1])
    image[:, *place] = image[:, *place] * (1 - opacity) + 255 * round(look[0]) * opacity
    rows, columns = ((ink > EDGE).any(axis).nonzero()[:, 0] for axis in (1, 0))
    top, left = corner
    return left + int(columns[0]), top + int(rows[0]), left + int(columns[-1]) + 1, top + int(rows[-1]) + 1
