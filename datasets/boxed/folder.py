"""The boxes in a folder, whichever format they have."""

from pathlib import Path

from datasets.boxed import Found, coco, voc, yolo
from datasets.splits import MissingData

READERS = (coco.read, voc.read, yolo.read)
"""In the order in which they are asked; the first that knows what lies in a folder has it."""


def known(home: Path) -> Found | None:
    """Return the images below a folder and the boxes in them, None where no format is recognised.

    Raises:
        MissingData: a file is damaged.
    """
    return next((found for read in READERS if (found := read(home)) is not None), None)


def find(home: Path) -> Found:
    """Return the images below a folder and the boxes in them.

    Raises:
        MissingData: there is no such folder, no boxes in it, or a file is damaged.
    """
    if not home.is_dir():
        raise MissingData(f"there is no folder {home.resolve()}; name one in dataset.path.")
    found = known(home)
    if found is None:
        raise MissingData(
            f"{home.resolve()} has no boxes that are understood: it needs COCO's JSON (images, annotations, "
            "categories), an XML file of Pascal VOC for each image, or labels of YOLO (labels/NAME.txt for "
            "images/NAME.jpg)."
        )
    if "train" not in found.parts:
        raise MissingData(f"{home.resolve()} has no training images, only those of {' and '.join(found.parts)}.")
    return found
