"""Two of the handwritten digits that come with scikit-learn: a task of two classes that needs no download."""

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

import numpy as np
from sklearn.datasets import load_digits

from datasets.splits import Splits, SplitSettings, numbered, split, stratified_order

TEST_PARTS = 5
"""One in so many images is set aside for the test."""


def digit_pair(
    root: Path | None = None, *, download: bool = False, digits: Sequence[int], **common: Unpack[SplitSettings]
) -> Splits:
    """Images of two digits in 8x8 pixels with one channel.

    The set has no official test part, so a stratified fifth is set aside, the same for every `split_seed`.

    Args:
        root: Not used; the images are part of scikit-learn. Every data set is called alike.
        download: Not used.
        digits: Two different ones; the first is class 0. There are 174 to 183 images of each.
        common: Settings as in `splits.SplitSettings`.

    Raises:
        ValueError: The digits are not two different ones from 0 to 9, or a size cannot be had.

    Source:
        Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI 1998 (its test part).
    """
    if len(digits) != 2 or len(set(digits)) != 2 or not set(digits) <= set(range(10)):
        raise ValueError(f"dataset.digits is {list(digits)}; it must be two different digits, such as [3,8].")
    pixels, shown = map(np.asarray, load_digits(return_X_y=True))
    rows = np.flatnonzero(np.isin(shown, digits))
    targets = (shown[rows] == digits[1]).astype(np.int64)
    # 17 grey levels, 0..16, spread over 0..255
    images = np.rint(pixels[rows] * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    everything, order = numbered(images, targets), stratified_order(targets, 0)
    tested = len(rows) // TEST_PARTS
    return split(
        "digit_pair",
        everything.take(order[tested:]),
        everything.take(order[:tested]),
        tuple(map(str, digits)),
        **common,
    )
