"""SIRST: small targets in infrared images, a few pixels each."""

from collections.abc import Sequence
from pathlib import Path

from datasets import masks
from datasets.splits import MissingData, Splits

CLASSES = ("background", "target")


def sirst(
    root: Path,
    *,
    download: bool = False,
    size: Sequence[int],
    damaged: str,
    train_size: int | None,
    valid_size: int | None,
    test_size: int | None,
    split_seed: int,
) -> Splits:
    """Grey images with two classes, of which the second fills less than a thousandth of the pixels.

    The open stand-in for the unpublished "ATR" set of the hybrid losses' paper.

    Args:
        root: Folder of all data sets; `images`, `masks` (`NAME_pixels0.png`) and the lists `train.txt`, `val.txt` and
            `test.txt` lie in `root/atr/sirst` or `root/sirst`.
        download: Not used: the set is cloned.
        size: Height and width to which all images are brought; a target must survive it.
        damaged: `stop` or `skip`, see `datasets.masks.load`.
        train_size: Number of training images; None takes all.
        valid_size: Number of validation images; None takes all.
        test_size: Number of test images; None takes all.
        split_seed: Chooses which images; at least 0.

    Raises:
        MissingData: The files are absent, broken or wrong.
        ValueError: A size cannot be had.

    Source:
        Dai et al., Asymmetric Contextual Modulation for Infrared Small Target Detection, WACV 2021.
    """
    home = root / "atr" / "sirst" if (root / "atr" / "sirst").is_dir() else root / "sirst"
    if not home.is_dir():
        raise MissingData(
            f"SIRST is absent in {home.resolve()}; clone https://github.com/YimianDai/sirst there, or name the folder "
            "of all data sets in LOSSBENCH_DATA or data.root."
        )
    train, valid, test = (_pairs(home, name) for name in ("train", "val", "test"))
    return masks.load(
        "SIRST",
        train,
        valid,
        test,
        CLASSES,
        size=size,
        channels=1,
        binary=True,
        damaged=damaged,
        train_size=train_size,
        valid_size=valid_size,
        test_size=test_size,
        split_seed=split_seed,
    )


def _pairs(home: Path, name: str) -> list[masks.Pair]:
    file = next((path for path in (home / f"{name}.txt", home / "idx_427" / f"{name}.txt") if path.exists()), None)
    file = home / f"{name}.txt" if file is None else file
    return [
        masks.Pair(home / "images" / f"{line}.png", home / "masks" / f"{line}_pixels0.png", file)
        for line in masks.lines(file)
    ]
