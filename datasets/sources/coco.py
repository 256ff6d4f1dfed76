"""COCO with a class for every pixel: panoptic masks merged by category, or the pixel maps of COCO-Stuff."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from datasets import masks
from datasets.files import official, reads
from datasets.splits import MissingData, Splits

ANNOTATIONS = ("panoptic", "stuff")
STUFF_CLASSES = 182


@official
@reads(
    ("coco/coco/{train_part}", "coco/{train_part}"),
    ("coco/coco/{test_part}", "coco/{test_part}"),
    ("coco/coco/annotations/{annotations}_{train_part}*", "coco/annotations/{annotations}_{train_part}*"),
    ("coco/coco/annotations/{annotations}_{test_part}*", "coco/annotations/{annotations}_{test_part}*"),
    ("coco/coco/{annotations}thingmaps", "coco/{annotations}thingmaps"),
)
def coco(
    root: Path,
    *,
    download: bool = False,
    annotations: str,
    train_part: str,
    test_part: str,
    **common: Unpack[masks.MaskSettings],
) -> Splits:
    """Everyday photographs; the official training images train and select, the official validation images test.

    Args:
        root: Folder of all data sets; images lie in `root/coco/train2017` and `root/coco/val2017`.
        download: Not used: 20 GB are fetched better by hand.
        annotations: `panoptic` (133 classes, things and stuff: `annotations/panoptic_train2017.json` and the folder of
            that name) or `stuff` (COCO-Stuff 164k, 182 numbers, of which 171 occur: `stuffthingmaps/train2017`).
        train_part: Name of the training part, in all these places.
        test_part: Name of the test part.
        common: See `datasets.masks.MaskSettings`; validation images are taken from the training part.

    Raises:
        MissingData: The files are absent, broken or wrong.
        ValueError: A size cannot be had, or there are no such annotations.

    Source:
        Lin et al., ECCV 2014; Kirillov et al., Panoptic Segmentation, CVPR 2019; Caesar et al., COCO-Stuff, CVPR 2018.
    """
    if annotations not in ANNOTATIONS:
        raise ValueError(f"dataset.annotations is {annotations}; it must be {' or '.join(ANNOTATIONS)}.")
    home = _home(root, (train_part, test_part), annotations)
    read = _panoptic if annotations == "panoptic" else _stuff
    (train, classes), (test, _) = (read(home, part) for part in (train_part, test_part))
    return masks.read_splits(
        "COCO",
        train,
        None,
        test,
        classes,
        **common,
    )


def _home(root: Path, parts: Sequence[str], annotations: str) -> Path:
    home = root / "coco" / "coco" if (root / "coco" / "coco").is_dir() else root / "coco"
    for part in parts:
        if not (home / part).is_dir():
            raise MissingData(
                f"COCO is absent in {(home / part).resolve()}; get its images and {annotations} annotations from "
                "https://cocodataset.org/#download and unpack them there, or name the folder of all data sets in "
                "LOSSBENCH_DATA or data.root."
            )
    return home


def _panoptic(home: Path, part: str) -> tuple[list[masks.ImageMask], tuple[str, ...]]:
    file = home / "annotations" / f"panoptic_{part}.json"
    try:
        content = json.loads(file.read_text())
    except FileNotFoundError:
        raise MissingData(f"{file} is missing; it belongs to COCO's panoptic annotations.") from None
    categories = sorted(content["categories"], key=lambda category: category["id"])
    number = {category["id"]: place for place, category in enumerate(categories)}
    names = {image["id"]: image["file_name"] for image in content["images"]}
    pairs = [
        masks.ImageMask(
            home / part / names[entry["image_id"]],
            file.with_suffix("") / entry["file_name"],
            file,
            {segment["id"]: number[segment["category_id"]] for segment in entry["segments_info"]},
        )
        for entry in content["annotations"]
    ]
    return pairs, tuple(category["name"] for category in categories)


def _stuff(home: Path, part: str) -> tuple[list[masks.ImageMask], tuple[str, ...]]:
    folder = home / "stuffthingmaps" / part
    found = sorted(folder.glob("*.png"))
    if not found:
        raise MissingData(f"{folder} has no masks; they are in stuffthingmaps_trainval2017.zip of COCO-Stuff.")
    pairs = [masks.ImageMask(home / part / f"{mask.stem}.jpg", mask, folder) for mask in found]
    return pairs, tuple(str(number) for number in range(1, STUFF_CLASSES + 1))
