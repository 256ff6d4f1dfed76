"""The handwritten digits that come with scikit-learn: 1,797 grey images of 8x8 pixels, no download."""

from pathlib import Path
from typing import Unpack

import numpy as np
from sklearn.datasets import load_digits

from datasets.splits import Splits, SplitSettings, numbered, split, stratified_order

TEST_SIZE = 360
TEST_SEED = 0


def digits(root: Path | None = None, *, download: bool = False, **common: Unpack[SplitSettings]) -> Splits:
    """Digits 0 to 9 in 8x8 pixels with one channel.

    The set has no official test part, so a stratified fifth (360 images) is set aside, the same for every `split_seed`.

    Args:
        root: Not used; the images are part of scikit-learn. Every data set is called alike.
        download: Not used.
        common: Settings as in `splits.SplitSettings`; of test images there are at most 360.

    Raises:
        ValueError: A size cannot be had.

    Source:
        Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI 1998 (its test part).
    """
    pixels, targets = map(np.asarray, load_digits(return_X_y=True))
    # 17 grey levels, 0..16, spread over 0..255
    images = np.rint(pixels * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    everything = numbered(images, targets)
    order = stratified_order(targets, TEST_SEED)
    return split(
        "digits",
        everything.take(order[TEST_SIZE:]),
        everything.take(order[:TEST_SIZE]),
        tuple("0123456789"),
        **common,
    )
