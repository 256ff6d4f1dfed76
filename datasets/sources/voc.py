"""Pascal VOC 2012, segmentation: photographs with 20 kinds of objects and background."""

from pathlib import Path
from typing import Unpack

from torchvision.datasets import VOCSegmentation

from datasets import masks
from datasets.files import official, reads
from datasets.splits import MissingData, Splits

CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
LISTS = ("official", "augmented")


@official
@reads(
    "voc/VOCdevkit/VOC2012/ImageSets/Segmentation",
    "voc/VOCdevkit/VOC2012/JPEGImages",
    "voc/VOCdevkit/VOC2012/SegmentationClass",
    "voc/VOCdevkit/VOC2012/SegmentationClassAug",
)
def voc(
    root: Path,
    *,
    download: bool = False,
    training_list: str,
    **common: Unpack[masks.MaskSettings],
) -> Splits:
    """Photographs with 21 classes; the official training list trains and selects, the official validation list tests.

    Args:
        root: Folder of all data sets; the files lie in `root/voc/VOCdevkit/VOC2012`.
        download: Whether to fetch the official archive (2 GB) through torchvision.
        training_list: `official` (1,464 images) or `augmented` (10,582, with SBD: `ImageSets/Segmentation/trainaug.txt`
            and the folder `SegmentationClassAug`, which have no official server).
        common: See `datasets.masks.MaskSettings`; validation images are taken from the training list, and the official
            validation list of 1,449 images is the test.

    Raises:
        MissingData: The files are absent, broken or wrong, or could not be downloaded.
        ValueError: A size cannot be had, or there is no such list.

    Source:
        Everingham et al., The Pascal Visual Object Classes Challenge, IJCV 111, 2015.
    """
    if training_list not in LISTS:
        raise ValueError(f"dataset.training_list is {training_list}; it must be {' or '.join(LISTS)}.")
    home = root / "voc" / "VOCdevkit" / "VOC2012"
    if download and not home.is_dir():
        try:
            VOCSegmentation(home.parents[1], year="2012", image_set="train", download=True)
        except (OSError, RuntimeError) as error:
            raise MissingData(f"Pascal VOC 2012 could not be downloaded into {home.parents[1]}: {error}") from error
    if not home.is_dir():
        raise MissingData(
            f"Pascal VOC 2012 is absent in {home.resolve()}; get it with data.download=true, or name the folder of all "
            "data sets in LOSSBENCH_DATA or data.root."
        )
    augmented = training_list == "augmented"
    train = _pairs(home, "trainaug" if augmented else "train", "SegmentationClassAug" if augmented else None)
    return masks.read_splits(
        "Pascal VOC 2012",
        train,
        None,
        _pairs(home, "val", None),
        CLASSES,
        **common,
    )


def _pairs(home: Path, name: str, folder: str | None) -> list[masks.ImageMask]:
    file = home / "ImageSets" / "Segmentation" / f"{name}.txt"
    return [
        masks.ImageMask(
            home / "JPEGImages" / f"{line}.jpg", home / (folder or "SegmentationClass") / f"{line}.png", file
        )
        for line in (line.split()[0] for line in masks.lines(file))
    ]
