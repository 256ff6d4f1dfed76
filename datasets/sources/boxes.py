"""Any folder of images with boxes: COCO's JSON, Pascal VOC's XML, or YOLO's texts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

from datasets.boxed.folder import find, known
from datasets.boxed.splits import BoxSettings, split
from datasets.boxes import BoxSplits
from datasets.files import reads
from datasets.pixels import opened

LOOKED_AT, LARGE, STEP = 200, 128, 8
"""Images whose sizes are looked at before one is proposed, the longest side that is kept, and what sides are multiples
of, as detectors halve images a few times."""


@reads("{path}")
def boxes(
    root: Path, *, download: bool = False, path: str, classes: Sequence[str] | None, **common: Unpack[BoxSettings]
) -> BoxSplits:
    """Images of one size, averaged down, and their boxes, scaled with them; an image may have none.

    `datasets.boxed` says which files are understood. Parts are those of folders and lists, or drawn.

    Args:
        root: Folder of all data sets.
        download: Not used.
        path: Folder of this data set, below `root` or absolute.
        classes: Names of the classes, in the order of their numbers; boxes of others are left out. None: all that have
            a training box.
        common: See `datasets.boxed.splits.BoxSettings`.

    Raises:
        MissingData: There is no such folder, it holds no boxes, or a file is missing, broken or wrong.
        ValueError: A setting is out of its range, or a class has no training box.
    """
    return split(path, find(root / path), classes, common)


def proposed(path: Path) -> dict[str, Any] | None:
    """Return the settings of this data set for a folder of images with boxes, None where it is no such folder.

    Images that are all of one small size keep it, rounded up to a multiple of `STEP`.

    Raises:
        MissingData: boxes are there, but a file of theirs is damaged.
    """
    found = known(path) if path.is_dir() else None
    if found is None or not any(each.boxes for each in found.images):
        return None
    looked_at = found.images[:: max(1, len(found.images) // LOOKED_AT)]
    sizes = {opened(each.image, load=False).size for each in looked_at if each.image.is_file()}
    if len(sizes) != 1 or max(max(sizes)) > LARGE:
        return {}
    width, height = sizes.pop()
    return {"size": [-(-side // STEP) * STEP for side in (height, width)]}
