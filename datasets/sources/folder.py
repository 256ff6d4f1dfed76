"""Any folder of images and masks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

import numpy as np

from datasets import masks
from datasets.files import reads
from datasets.splits import MissingData, Splits, stratified_order

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


@reads("{path}/{images}", "{path}/{masks_in}")
def folder(
    root: Path,
    *,
    download: bool = False,
    path: str,
    images: str,
    masks_in: str,
    mask_suffix: str,
    classes: Sequence[str],
    grey: bool,
    binary: bool,
    void: Sequence[int],
    **common: Unpack[masks.MaskSettings],
) -> Splits:
    """Images in one folder and their masks, of the same names, in another; the split is random.

    Args:
        root: Folder of all data sets.
        download: Not used.
        path: Folder of this data set, below `root` or absolute.
        images: Folder of the images, below `path`.
        masks_in: Folder of the masks, below `path`: one channel, a class number for each pixel, 255 for void.
        mask_suffix: What the name of a mask has after that of its image, such as `_mask.png`.
        classes: Name of each class, from 0 on.
        grey: Whether images have one channel instead of three.
        binary: Whether every value of a mask but 0 means class 1.
        void: Further values of masks that mean void.
        common: See `datasets.masks.MaskSettings`; validation and test images are counted out, so None is refused.

    Raises:
        MissingData: There is no such folder, or a file is missing, broken or wrong.
        ValueError: A size cannot be had.
    """
    pairs = _pairs(root / path, images, masks_in, mask_suffix)
    rest, test = _set_aside(pairs, common)
    return masks.read_splits(
        path,
        rest,
        None,
        test,
        tuple(classes),
        channels=1 if grey else 3,
        binary=binary,
        void=tuple(void),
        **{**common, "test_size": None},
    )


def _pairs(home: Path, images: str, masks_in: str, mask_suffix: str) -> list[masks.ImageMask]:
    if not (home / images).is_dir():
        where = (home / images).resolve()
        raise MissingData(f"there is no folder {where}; name one in dataset.path and dataset.images.")
    found = sorted(file for file in (home / images).iterdir() if file.suffix.lower() in SUFFIXES)
    return [masks.ImageMask(file, home / masks_in / f"{file.stem}{mask_suffix}", home / images) for file in found]


def _set_aside(
    pairs: list[masks.ImageMask], common: masks.MaskSettings
) -> tuple[list[masks.ImageMask], list[masks.ImageMask]]:
    """Return what training and validation share, and the test."""
    valid_size, test_size = common["valid_size"], common["test_size"]
    if not valid_size or not test_size or test_size < 1 or test_size + valid_size >= len(pairs):
        raise ValueError(
            f"dataset.test_size is {test_size} and dataset.valid_size is {valid_size}, but there are {len(pairs)} "
            "images: training needs some, and so do validation and test."
        )
    order = stratified_order(np.zeros(len(pairs), dtype=np.int64), common["split_seed"])
    rest, test = ([pairs[place] for place in np.sort(part)] for part in (order[test_size:], order[:test_size]))
    return rest, test
