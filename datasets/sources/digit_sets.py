"""Images of several handwritten digits, made of those that come with scikit-learn: ten labels, no download."""

from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits

from datasets.sources.digits import TEST_SEED, TEST_SIZE
from datasets.splits import stratified_order
from datasets.tagged import TaggedImages, TaggedSplits

PLACES = 4


def digit_sets(
    root: Path | None = None,
    *,
    download: bool = False,
    train_size: int,
    valid_size: int,
    test_size: int,
    split_seed: int,
) -> TaggedSplits:
    """Up to four digits in the quarters of 16x16 pixels with one channel; the labels say which digits occur.

    Each quarter is empty with probability one half, else it holds a digit d with a probability proportional to
    1 / (d + 1), so that labels are unevenly frequent: 0 is in about one image of two, 9 in one of fifteen.

    Args:
        root: Not used; the images are part of scikit-learn. Every data set is called alike.
        download: Not used.
        train_size: Number of training images.
        valid_size: Number of validation images, made of the same 1,437 digits as those of training.
        test_size: Number of test images, made of the other 360.
        split_seed: Chooses the digits and where they lie; at least 0.

    Raises:
        ValueError: A number is out of its range.

    Source:
        After MultiMNIST: Sabour, Frosst and Hinton, Dynamic Routing Between Capsules, NeurIPS 2017, section 6.
    """
    if min(train_size, valid_size, test_size) < 1 or split_seed < 0:
        raise ValueError("dataset.train_size, valid_size and test_size must be at least 1, and split_seed at least 0.")
    pixels, labels = map(np.asarray, load_digits(return_X_y=True))
    digits = np.rint(pixels * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)  # 17 grey levels over 0..255
    order = stratified_order(labels, TEST_SEED)
    stream, parts = np.random.PCG64(split_seed), []
    for pool, count in (
        (order[TEST_SIZE:], train_size),
        (order[TEST_SIZE:], valid_size),
        (order[:TEST_SIZE], test_size),
    ):
        parts.append(_made(digits[pool], labels[pool], count, stream))
    return TaggedSplits(parts[0], parts[1], parts[2], tuple("0123456789"))


def _made(digits: np.ndarray, labels: np.ndarray, count: int, stream: np.random.PCG64) -> TaggedImages:
    """Return images made of these digits (M, 8, 8)."""
    share = np.cumsum(1 / np.arange(1, 11))
    drawn = stream.random_raw(2 * count * PLACES).reshape(2, count, PLACES)
    where = (drawn[0] >> np.uint64(11)) / 2**53  # uniform in [0, 1)
    wanted = np.searchsorted(share / share[-1], 2 * where, side="right")  # from one half on: 10, an empty quarter
    images, marks = np.zeros((count, 16, 16), dtype=np.uint8), np.zeros((count, 11), dtype=np.uint8)
    for digit in range(10):
        rows, places = np.nonzero(wanted == digit)
        pool = digits[labels == digit]
        for row, place, number in zip(rows, places, drawn[1][rows, places] % np.uint64(len(pool)), strict=True):
            top, left = 8 * (place // 2), 8 * (place % 2)
            images[row, top : top + 8, left : left + 8] = pool[int(number)]
        marks[rows, digit] = 1
    return TaggedImages(torch.from_numpy(images)[:, None], torch.from_numpy(marks[:, :10].copy()), torch.arange(count))
