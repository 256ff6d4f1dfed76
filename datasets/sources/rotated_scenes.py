"""Scenes of many digits at any angle: scikit-learn's digits on its photographs, rotated boxes, no download."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from datasets.rotated import RotatedSplits
from datasets.sources.scenes import EDGE, material, resized, window
from datasets.splits import Images

OVERLAP = 0.2
"""The upright boxes around two digits of a scene share less than this (intersection over union)."""
TRIES = 6
"""How often another position is tried for a digit that would cover others; then it is left out."""
AT_ONCE = 128
"""Scenes that are painted together."""
LOOKS = 6
"""Numbers that say how a digit looks, before those that say where it lies."""
FRAME = 10
"""Side of the image of a digit with an empty border, in its own pixels, of which the digit has 8."""
FINE = 8
"""Parts of such a pixel in which the edge of the ink is sought."""
LARGEST = 2 / 3
"""Greatest height of a digit over the shorter side of a scene: at any angle it then lies within."""


def rotated_scenes(
    root: Path | None = None,
    *,
    download: bool = False,
    size: Sequence[int],
    digits: Sequence[int],
    objects: Sequence[int],
    sides: Sequence[int],
    narrowness: Sequence[float],
    train_size: int,
    valid_size: int,
    test_size: int,
    split_seed: int,
) -> RotatedSplits:
    """Photographs in three channels with many handwritten digits in them, each turned by any angle.

    A box is the smallest that holds all ink of a digit, in the digit's own axes: its height is the longer side, as a
    rule, and its angle says how the digit is turned but for half a turn. The test has other digits and another part of
    the photographs than training and validation. Scene i of a split is the same for every size of split.

    Args:
        root: Not used; everything is part of scikit-learn. Every data set is called alike.
        download: Not used.
        size: Height and width in pixels.
        digits: Which digits appear.
        objects: Least and greatest number of digits in a scene; one that finds no room is left out.
        sides: Least and greatest height of a digit in pixels.
        narrowness: Least and greatest factor on its width, up to 1.
        train_size: Number of training scenes.
        valid_size: Number of validation scenes.
        test_size: Number of test scenes.
        split_seed: Chooses which scenes; at least 0.

    Raises:
        ValueError: A setting is out of its range.
    """
    sizes = {"train_size": train_size, "valid_size": valid_size, "test_size": test_size}
    _check(size, digits, {"objects": objects, "sides": sides, "narrowness": narrowness}, sizes)
    digits, parts = sorted(set(digits)), []
    for place, count in enumerate(sizes.values()):
        ink, labels, walls = material(digits, test=place == 2)
        numbers = 5 + objects[1] * (LOOKS + 2 * TRIES)
        words = np.random.PCG64([split_seed, place]).random_raw(count * numbers).reshape(count, numbers)
        draws = torch.from_numpy((words >> np.uint64(11)) / 2.0**53)
        classes = torch.from_numpy(np.searchsorted(digits, labels))
        blocks = [
            _painted(_backdrops(block, walls, size), block, objects, (ink, classes), (sides, narrowness))
            for block in draws.split(AT_ONCE)
        ]
        images, targets = (torch.cat(each) for each in zip(*blocks, strict=True))
        parts.append(Images(images, targets, torch.arange(count)))
    return RotatedSplits(parts[0], parts[1], parts[2], tuple(map(str, digits)))


def _check(
    size: Sequence[int],
    digits: Sequence[int],
    ranges: Mapping[str, Sequence[float]],
    sizes: Mapping[str, int | None],
) -> None:
    bounds = {"objects": (1, math.inf), "sides": (8, int(LARGEST * min(size))), "narrowness": (0.25, 1)}
    for name, (low, high) in bounds.items():
        least, most = ranges[name]
        if not low <= least <= most <= high:
            bound = "" if math.isinf(high) else f" to {high}"
            raise ValueError(
                f"dataset.{name} is {[least, most]}; it must be a least and a greatest, from {low}{bound}."
            )
    if not digits or set(digits) - set(range(10)):
        raise ValueError(f"dataset.digits is {list(digits)}; it must name one or more of 0 to 9.")
    for name, count in sizes.items():
        if count is None or count < 1:
            raise ValueError(f"dataset.{name} is {count}; scenes are made to order, so name a number from 1 on.")


def _backdrops(draws: Tensor, walls: Sequence[Tensor], size: Sequence[int]) -> Tensor:
    """Return parts of photographs, float64 (N, 3, H, W), faded so that ink stands out, from numbers in [0, 1)."""
    shape, found = (size[0], size[1]), []
    for which, zoom, top, left in draws[:, :4].tolist():
        wall = walls[int(which * len(walls))]
        side = min(wall.shape[1:]) * (0.25 + 0.75 * zoom)
        found.append(resized(window(wall, side, top, left, shape), shape))
    return 64 + torch.stack(found).double() / 2


def _painted(
    images: Tensor,
    numbers: Tensor,
    objects: Sequence[int],
    known: tuple[Tensor, Tensor],
    ranges: tuple[Sequence[float], Sequence[float]],
) -> tuple[Tensor, Tensor]:
    """Paint digits into images, float64 (N, 3, H, W); return these, uint8, and the boxes, float32 (N, M, 6).

    Args:
        images: What is painted on.
        numbers: In [0, 1), of each scene: four of its backdrop, how many digits, and LOOKS + 2 TRIES of each of M.
        objects: Least and greatest number of digits, the greatest being M.
        known: Ink of every digit there is, (D, 1, 1, 8, 8), and its class, (D,).
        ranges: Least and greatest height, and factor on the width.
    """
    (shortest, tallest), (narrowest, widest) = ranges
    wanted = objects[0] + (numbers[:, 4] * (objects[1] - objects[0] + 1)).long()
    draws = numbers[:, 5:].unflatten(1, (objects[1], -1))
    pick, side, narrow, turn, tone, strength = draws[..., :LOOKS].unbind(2)
    ink = functional.pad(known[0][:, 0].double(), [(FRAME - 8) // 2] * 4)
    chosen = (pick * len(ink)).long()
    height = shortest + side * (tallest - shortest)
    frame = torch.stack([height * (narrowest + narrow * (widest - narrowest)), height], 2) * FRAME / 8
    angle = (2 * turn - 1) * math.pi
    low, high = _extent(ink)[chosen].chunk(2, 2)
    extent, shift = frame * (high - low), _turned(frame * (low + high - 1) / 2, angle)
    sin, cos = angle.sin().abs().unsqueeze(2), angle.cos().abs().unsqueeze(2)
    half = (extent * cos + extent.flip(2) * sin) / 2
    centres, there = _placed(half, draws[..., LOOKS:].unflatten(2, (TRIES, 2)), wanted, images.shape[2:])
    for each in range(draws.shape[1]):
        shown = _seen(ink[chosen[:, each]], centres[:, each] - shift[:, each], frame[:, each], angle[:, each], images)
        opacity = shown * ((0.8 + 0.2 * strength[:, each]) * there[:, each]).view(-1, 1, 1, 1)
        images += opacity * (255 * tone[:, each].round().view(-1, 1, 1, 1) - images)
    half_turns = torch.floor(angle / math.pi + 0.5) * math.pi
    boxes = torch.cat([centres, extent, (angle - half_turns).unsqueeze(2), known[1][chosen].unsqueeze(2)], 2)
    boxes = torch.where(there.unsqueeze(2), boxes, boxes.new_tensor([0, 0, 0, 0, 0, -1]))
    return images.round().to(torch.uint8), boxes.float()


def _extent(ink: Tensor) -> Tensor:
    """Return the box around the ink of images (D, 1, S, S), x1, y1, x2, y2 in shares of the image: (D, 4)."""
    fine = functional.interpolate(ink, scale_factor=FINE, mode="bilinear")[:, 0] > EDGE
    count, found = fine.shape[1], []
    for marks in (fine.any(1), fine.any(2)):  # of columns, of rows
        marks = marks.to(torch.uint8)
        found.append(torch.stack([marks.argmax(1), count - marks.flip(1).argmax(1)], 1))
    return torch.stack(found, 2).flatten(1) / count


def _turned(points: Tensor, angle: Tensor) -> Tensor:
    """Return points (..., 2) turned about the origin by angles (...)."""
    (x, y), sin, cos = points.unbind(-1), angle.sin(), angle.cos()
    return torch.stack([x * cos - y * sin, x * sin + y * cos], -1)


def _placed(half: Tensor, tries: Tensor, wanted: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the centres (N, M, 2) of boxes within images, and whether each found room, (N, M).

    Args:
        half: Half the sides of the upright boxes around them, (N, M, 2).
        tries: Where each might lie, from one end (0) to the other (1), (N, M, TRIES, 2).
        wanted: How many of them each image should have, (N,).
        size: Height and width of the images.
    """
    room = torch.tensor([size[1], size[0]]) - 2 * half
    centres, there = torch.zeros_like(half), torch.zeros(half.shape[:2], dtype=torch.bool)
    areas = 4 * half.prod(2)
    for each in range(half.shape[1]):
        mine, open_ = half[:, each, None], each < wanted
        for attempt in tries[:, each].unbind(1):
            centre = (half[:, each] + attempt * room[:, each]).unsqueeze(1)
            low, high = torch.maximum(centre - mine, centres - half), torch.minimum(centre + mine, centres + half)
            shared = (high - low).clamp_min(0).prod(2)
            covers = shared >= OVERLAP * (areas + areas[:, each, None] - shared)
            finds = open_ & ~(covers & there).any(1)
            centres[:, each] = torch.where(finds.unsqueeze(1), centre[:, 0], centres[:, each])
            there[:, each] |= finds
            open_ = open_ & ~finds
    return centres, there


def _seen(ink: Tensor, centre: Tensor, frame: Tensor, angle: Tensor, images: Tensor) -> Tensor:
    """Return how digits look in scenes, ink (N, 1, H, W) from 0 to 1, as large as images (N, 3, H, W).

    Args:
        ink: Of upright digits, (N, 1, S, S).
        centre: Of each in its scene, (N, 2).
        frame: Width and height of it, in pixels of the scene, (N, 2).
        angle: By which it is turned, (N,).
        images: The scenes.
    """
    down, across = (torch.arange(side, dtype=torch.float64) + 0.5 for side in images.shape[2:])
    pixels = torch.stack(torch.meshgrid(across, down, indexing="xy"), 2)
    places = _turned(pixels - centre.view(-1, 1, 1, 2), -angle.view(-1, 1, 1))
    return functional.grid_sample(ink, 2 * places / frame.view(-1, 1, 1, 2), align_corners=False)
