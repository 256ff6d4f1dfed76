"""Scenes of many digits: scikit-learn's digits on its photographs, with a box around each, no download."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from datasets.boxes import BoxSplits
from datasets.sources.scenes import EDGE, material, resized, window
from datasets.splits import Images

FIRST = 5
"""Numbers of a scene before those of its digits: four of its backdrop, and how many digits it has."""
TOGETHER = 64
"""Scenes that are painted at once: so few stay in the processor's cache."""
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
    overlap: float,
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
        overlap: What the squares around two digits may share at most (intersection over union), from 0 to 1; boxes,
            which are tighter, may share more.
        train_size: Number of training scenes.
        valid_size: Number of validation scenes.
        test_size: Number of test scenes.
        split_seed: Chooses which scenes; at least 0.

    Raises:
        ValueError: A setting is out of its range.
    """
    _check(size, digits, objects, sides, overlap)
    sizes = {"train_size": train_size, "valid_size": valid_size, "test_size": test_size}
    for name, count in sizes.items():
        if count is None or count < 1:
            raise ValueError(f"dataset.{name} is {count}; scenes are made to order, so name a number from 1 on.")
    shape, digits, parts, most = (size[0], size[1]), sorted(set(digits)), [], objects[1]
    for place, count in enumerate(sizes.values()):
        ink, labels, walls = material(digits, test=place == 2)
        classes = torch.from_numpy(np.searchsorted(digits, labels))
        numbers = FIRST + most * (4 + 2 * TRIES)
        words = np.random.PCG64([split_seed, place]).random_raw(count * numbers).reshape(count, numbers)
        made = []
        for draws in np.array_split((words >> np.uint64(11)) / 2.0**53, -(-count // TOGETHER)):
            images = torch.stack([_backdrop(draw, walls, shape) for draw in draws])
            placed = _placed(draws, objects, sides, shape, overlap)
            targets = _painted(images, placed, ink[:, 0, 0], classes)
            made.append((images.round().to(torch.uint8), targets))
        images, boxes = (torch.cat(each) for each in zip(*made, strict=True))
        parts.append(Images(images, boxes, torch.arange(count)))
    return BoxSplits(parts[0], parts[1], parts[2], tuple(map(str, digits)))


def _check(
    size: Sequence[int], digits: Sequence[int], objects: Sequence[int], sides: Sequence[int], overlap: float
) -> None:
    if not digits or set(digits) - set(range(10)):
        raise ValueError(f"dataset.digits is {list(digits)}; it must name one or more of 0 to 9.")
    if not 1 <= objects[0] <= objects[1]:
        raise ValueError(f"dataset.objects is {list(objects)}; it must be a least and a greatest number, from 1 on.")
    if not 8 <= sides[0] <= sides[1] <= min(size):
        raise ValueError(f"dataset.sides is {list(sides)}; it must be two sides from 8 to {min(size)} pixels.")
    if not 0 <= overlap <= 1:
        raise ValueError(f"dataset.overlap is {overlap}; it must be a share from 0 to 1.")


def _backdrop(draw: np.ndarray, walls: list[Tensor], size: tuple[int, int]) -> Tensor:
    """Return a part of a photograph, float (3, H, W), faded so that ink stands out, from numbers in [0, 1)."""
    which, zoom, top, left = draw[:4]
    wall = walls[int(which * len(walls))]
    return 64 + resized(window(wall, min(wall.shape[1:]) * (0.25 + 0.75 * zoom), top, left, size), size) / 2


class Placed(NamedTuple):
    """Where digits lie in N scenes, and how they look.

    Attributes:
        there: bool (N, M), whether a digit found room.
        squares: int64 (N, M, 3), its row, column and side in pixels.
        looks: float64 (N, M, 3) in [0, 1): which digit it is, whether it is bright, and how opaque.
    """

    there: Tensor
    squares: Tensor
    looks: Tensor


def _placed(
    draws: np.ndarray, objects: Sequence[int], sides: Sequence[int], size: tuple[int, int], overlap: float
) -> Placed:
    """Place digits one after the other, each where it covers none before it by more than `overlap`, if it finds room.

    Args:
        draws: (N, numbers) in [0, 1).
        objects: least and greatest number of digits.
        sides: least and greatest side.
        size: height and width of a scene.
        overlap: intersection over union of two squares at most.
    """
    least, most = objects
    wanted = least + (draws[:, 4] * (most - least + 1)).astype(np.int64)
    own = draws[:, FIRST:].reshape(len(draws), most, 4 + 2 * TRIES)
    squares = np.zeros((len(draws), most, 3), dtype=np.int64)
    squares[..., 2] = np.rint(sides[0] + own[..., 0] * (sides[1] - sides[0]))
    there = np.zeros((len(draws), most), dtype=bool)
    for place in range(most):
        side = squares[:, place, 2:]
        tries = own[:, place, 4:].reshape(-1, TRIES, 2)
        for corner in (tries * (np.array(size) - side + 1)[:, None]).astype(np.int64).swapaxes(0, 1):
            before = squares[:, :place]
            low = np.maximum(before[..., :2], corner[:, None])
            high = np.minimum(before[..., :2] + before[..., 2:], (corner + side)[:, None])
            shared = (high - low).clip(0).prod(2)
            free = shared <= overlap * (before[..., 2] ** 2 + side**2 - shared)
            fits = (wanted > place) & ~there[:, place] & (free | ~there[:, :place]).all(1)
            squares[fits, place, :2] = corner[fits]
            there[:, place] |= fits
    return Placed(*map(torch.from_numpy, (there, squares, own[..., 1:4])))


def _painted(images: Tensor, placed: Placed, ink: Tensor, classes: Tensor) -> Tensor:
    """Paint digits into scenes, float (N, 3, H, W), one after the other; return the boxes around their ink (N, M, 6).

    Args:
        images: are changed.
        placed: where digits go.
        ink: of all digits, (D, 8, 8) from 0 to 1.
        classes: of all digits, (D,).
    """
    targets = torch.zeros(*placed.there.shape, 6)
    targets[..., 4] = -1
    height, width = images.shape[2:]
    for place, there in enumerate(placed.there.unbind(1)):
        rows = there.nonzero()[:, 0]
        if not len(rows):
            continue
        row, column, side = placed.squares[rows, place].unbind(1)
        pick, tone, strength = placed.looks[rows, place].unbind(1)
        chosen = (pick * len(ink)).long()
        spread = _stretched(row, side, height) @ ink[chosen] @ _stretched(column, side, width).transpose(1, 2)
        opacity = (spread * (0.8 + 0.2 * strength.float()).view(-1, 1, 1)).unsqueeze(1)
        bright = 255 * tone.round().float().view(-1, 1, 1, 1)
        images[rows] = torch.lerp(images[rows], bright, opacity)
        inked = spread > EDGE
        edges = [_ends(inked.any(axis)) for axis in (1, 2)]
        corners = torch.stack([edges[0][0], edges[1][0], edges[0][1], edges[1][1]], 1)
        targets[rows, place, :4] = corners.float()
        targets[rows, place, 4] = classes[chosen].float()
    return targets


def _stretched(start: Tensor, side: Tensor, length: int) -> Tensor:
    """Return what each of `length` pixels takes from the 8 of a digit, linearly between centres: (N, length, 8).

    The digit begins at the pixels `start` (N,) and takes up `side` (N,); pixels outside take nothing.
    """
    pixel = torch.arange(length) - start[:, None]
    source = ((pixel + 0.5) * (8 / side[:, None]) - 0.5).clamp(0, 7)
    weights = (1 - (source[..., None] - torch.arange(8)).abs()).clamp_min(0)
    return weights * ((pixel >= 0) & (pixel < side[:, None]))[..., None]


def _ends(inked: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first place that is true in each row of (N, L), and the place after the last."""
    found = inked.to(torch.uint8)
    return found.argmax(1), inked.shape[1] - found.flip(1).argmax(1)
