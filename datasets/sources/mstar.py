"""MSTAR: ten kinds of vehicles in synthetic-aperture radar, a chip each."""

from pathlib import Path

import numpy as np
from PIL import Image

from datasets.decoded import BROKEN
from datasets.files import official, reads
from datasets.splits import Images, MissingData, Splits, numbered, split

CLASSES = ("2S1", "BMP2", "BRDM_2", "BTR60", "BTR70", "D7", "T62", "T72", "ZIL131", "ZSU_23_4")
SUFFIXES = (".jpeg", ".jpg", ".png")


@official
@reads(("atr/MSTAR-10", "mstar"))
def mstar(
    root: Path,
    *,
    download: bool = False,
    crop: int,
    size: int,
    train_size: int | None,
    valid_size: int,
    test_size: int | None,
    split_seed: int,
) -> Splits:
    """Grey chips of ten vehicles, cut to one size around the centre, since the size of a chip would tell its class.

    Args:
        root: Folder of all data sets; `train/CLASS` (seen at 17 degrees) and `test/CLASS` (15 degrees) lie in
            `root/atr/MSTAR-10` or `root/mstar`.
        download: Not used: the set is cloned.
        crop: Side of the middle that is kept, in pixels; at most 128.
        size: Side to which it is brought.
        train_size: Number of training images; None takes all that validation leaves.
        valid_size: Number of validation images.
        test_size: Number of test images; None takes all.
        split_seed: Chooses which images; at least 0.

    Raises:
        MissingData: The files are absent or damaged.
        ValueError: A size cannot be had.

    Source:
        MSTAR public release, AFRL and DARPA, 1996.
    """
    home = root / "atr" / "MSTAR-10" if (root / "atr" / "MSTAR-10").is_dir() else root / "mstar"
    if not (home / "train").is_dir():
        raise MissingData(
            f"MSTAR is absent in {home.resolve()}; put the chips of https://github.com/hunterlew/"
            "mstar_with_machine_learning there as train/CLASS and test/CLASS, or name the folder of all data sets in "
            "LOSSBENCH_DATA or data.root."
        )
    train, test = (_chips(home / part, crop, size) for part in ("train", "test"))
    return split(
        "MSTAR",
        train,
        test,
        CLASSES,
        train_size=train_size,
        valid_size=valid_size,
        test_size=test_size,
        split_seed=split_seed,
    )


def _chips(folder: Path, crop: int, size: int) -> Images:
    if not 1 <= crop <= 128:
        raise ValueError(f"dataset.crop is {crop}; it must be 1 to 128, the side of the smallest chip.")
    chips, labels = [], []
    for label, name in enumerate(CLASSES):
        for path in sorted(path for path in (folder / name).glob("*") if path.suffix.lower() in SUFFIXES):
            chips.append(_chip(path, crop, size))
            labels.append(label)
    if set(labels) != set(range(len(CLASSES))):
        missing = next(name for label, name in enumerate(CLASSES) if label not in labels)
        raise MissingData(f"MSTAR has no chip in {(folder / missing).resolve()}; every class needs some.")
    return numbered(np.stack(chips)[:, None], labels)


def _chip(path: Path, crop: int, size: int) -> np.ndarray:
    try:
        with Image.open(path) as image:
            grey = image.convert("L")
    except BROKEN as error:
        raise MissingData(f"{path} cannot be read as an image ({error}); mend or remove it.") from None
    left, top = (grey.width - crop) // 2, (grey.height - crop) // 2
    return np.asarray(grey.crop((left, top, left + crop, top + crop)).resize((size, size), Image.Resampling.BILINEAR))
