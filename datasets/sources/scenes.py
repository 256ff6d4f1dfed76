"""Scenes composed of scikit-learn's digits on its photographs: real pixels with exact masks, no download."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits, load_sample_images
from torch import Tensor
from torch.nn import functional

from datasets.sources.digits import TEST_SEED, TEST_SIZE
from datasets.splits import VOID, Images, Splits, stratified_order

INK, EDGE = 0.5, 0.3
"""A pixel belongs to a digit where it is this dark, and is void where it is lighter, down to the edge."""
DIGITS = 3
"""Most digits in a scene."""
SIDES = (0.4, 0.7)
"""Side of a digit over that of the scene."""
DRAWS = 5 + 6 * DIGITS


def scenes(
    root: Path | None = None,
    *,
    download: bool = False,
    size: Sequence[int],
    digits: Sequence[int],
    train_size: int,
    valid_size: int,
    test_size: int,
    split_seed: int,
) -> Splits:
    """Photographs in three channels with one to three handwritten digits in them; classes are background and digits.

    Training and validation draw their digits from 1,437 images and the test from the other 360, and the test looks at
    another part of the photographs. Edges of digits are void. Scene i of a split is the same for every size of split.

    Args:
        root: Not used; everything is part of scikit-learn. Every data set is called alike.
        download: Not used.
        size: Height and width in pixels.
        digits: Which digits appear, two or more: the fewer, the easier.
        train_size: Number of training scenes.
        valid_size: Number of validation scenes.
        test_size: Number of test scenes.
        split_seed: Chooses which scenes; at least 0.

    Raises:
        ValueError: A size cannot be had, or a digit does not exist.
    """
    if len(set(digits)) < 2 or set(digits) - set(range(10)):
        raise ValueError(f"dataset.digits is {list(digits)}; it must name two or more of 0 to 9.")
    digits = sorted(set(digits))
    sizes = {"train_size": train_size, "valid_size": valid_size, "test_size": test_size}
    for name, count in sizes.items():
        if count is None or count < 1:
            raise ValueError(f"dataset.{name} is {count}; scenes are made to order, so name a number from 1 on.")
    if len(size) != 2 or min(size) < 16:
        raise ValueError(f"dataset.size is {list(size)}; scenes need a height and a width of 16 pixels or more.")
    parts = []
    for place, count in enumerate(sizes.values()):
        ink, labels, walls = material(digits, test=place == 2)
        classes = 1 + np.searchsorted(digits, labels)
        words = np.random.PCG64([split_seed, place]).random_raw(count * DRAWS).reshape(count, DRAWS)
        draws = (words >> np.uint64(11)) / 2.0**53
        made = [_scene(draw, ink, classes, walls, (size[0], size[1])) for draw in draws]
        images, masks = (torch.stack(each) for each in zip(*made, strict=True))
        parts.append(Images(images, masks, torch.arange(count)))
    return Splits(parts[0], parts[1], parts[2], ("background", *map(str, digits)))


def material(digits: Sequence[int], *, test: bool) -> tuple[Tensor, np.ndarray, list[Tensor]]:
    """Return what scenes of a split are made of: the test shares neither digits nor walls with training and validation.

    Args:
        digits: Which digits appear.
        test: Whether the scenes are for the test.

    Returns:
        Ink of every digit, float32 (D, 1, 1, 8, 8) from 0 to 1; which digit it is, (D,); walls, (3, H, W) each.
    """
    pixels, labels = map(np.asarray, load_digits(return_X_y=True))
    order = stratified_order(labels, TEST_SEED)
    chosen = order[:TEST_SIZE] if test else order[TEST_SIZE:]
    chosen = chosen[np.isin(labels[chosen], digits)]
    ink = torch.from_numpy(pixels[chosen] / 16).float().view(-1, 1, 1, 8, 8)
    photographs = [torch.from_numpy(x.copy()).permute(2, 0, 1).float() for x in load_sample_images().images]
    # the left two thirds are for training and validation
    walls = [x[:, :, 2 * x.shape[2] // 3 :] if test else x[:, :, : 2 * x.shape[2] // 3] for x in photographs]
    return ink, labels[chosen], walls


def _scene(
    draw: np.ndarray, digits: Tensor, classes: np.ndarray, walls: list[Tensor], size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Return an image, uint8 (3, H, W), and its mask, uint8 (H, W), from numbers in [0, 1)."""
    which, zoom, top, left, number = draw[:5]
    wall = walls[int(which * len(walls))]
    backdrop = window(wall, min(wall.shape[1:]) * (0.25 + 0.75 * zoom), top, left, size)
    image = 64 + resized(backdrop, size) / 2  # faded, so that ink stands out
    mask = torch.zeros(size, dtype=torch.uint8)
    for pick, scale, down, right, tone, strength in draw[5:].reshape(DIGITS, 6)[: 1 + int(number * DIGITS)]:
        chosen = int(pick * len(digits))
        side = max(8, round(min(size) * (SIDES[0] + scale * (SIDES[1] - SIDES[0]))))
        ink = resized(digits[chosen, 0], (side, side))[0].clamp(0, 1)
        row, column = int(down * (size[0] - side + 1)), int(right * (size[1] - side + 1))
        place = (slice(row, row + side), slice(column, column + side))
        opacity = ink * (0.8 + 0.2 * strength)
        image[:, *place] = image[:, *place] * (1 - opacity) + 255 * round(tone) * opacity
        covered = torch.where(ink > INK, int(classes[chosen]), VOID).to(torch.uint8)
        mask[place] = torch.where(ink > EDGE, covered, mask[place])
    return image.round().to(torch.uint8), mask


def window(wall: Tensor, side: float, top: float, left: float, size: tuple[int, int]) -> Tensor:
    """Return a part of a photograph in the proportions of a scene.

    Args:
        wall: (C, H, W).
        side: Of the part, the longer one, in pixels.
        top: Where it begins, 0 (as high as possible) to 1.
        left: Likewise, to the left.
        size: Height and width of the scene.
    """
    shrink = side / max(size)
    height, width = (max(1, int(x * shrink)) for x in size)
    row, column = int(top * (wall.shape[1] - height + 1)), int(left * (wall.shape[2] - width + 1))
    return wall[:, row : row + height, column : column + width]


def resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Return an image (C, H, W) with another height and width, averaged where it shrinks."""
    return functional.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
