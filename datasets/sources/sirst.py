"""SIRST: small targets in infrared images, a few pixels each."""

from pathlib import Path
from typing import Unpack

from datasets import masks
from datasets.files import official, reads
from datasets.splits import MissingData, Splits

CLASSES = ("background", "target")


@official
@reads(("atr/sirst", "sirst"))
def sirst(
    root: Path,
    *,
    download: bool = False,
    **common: Unpack[masks.MaskSettings],
) -> Splits:
    """Grey images with two classes, of which the second fills less than a thousandth of the pixels.

    The open stand-in for the unpublished "ATR" set of the hybrid losses' paper.

    Args:
        root: Folder of all data sets; `images`, `masks` (`NAME_pixels0.png`) and the lists `train.txt`, `val.txt` and
            `test.txt` lie in `root/atr/sirst` or `root/sirst`.
        download: Not used: the set is cloned.
        common: See `datasets.masks.MaskSettings`; a target must survive the size.

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
    return masks.read_splits(
        "SIRST",
        train,
        valid,
        test,
        CLASSES,
        channels=1,
        binary=True,
        **common,
    )


def _pairs(home: Path, name: str) -> list[masks.ImageMask]:
    file = next((path for path in (home / f"{name}.txt", home / "idx_427" / f"{name}.txt") if path.exists()), None)
    file = home / f"{name}.txt" if file is None else file
    return [
        masks.ImageMask(home / "images" / f"{line}.png", home / "masks" / f"{line}_pixels0.png", file)
        for line in masks.lines(file)
    ]
