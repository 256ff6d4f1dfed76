"""Pascal VOC 2007 and 2012, detection: photographs with boxes around 20 kinds of objects."""

from pathlib import Path
from typing import Unpack

from torchvision.datasets import VOCDetection

from datasets.boxed import Boxed, Found, voc
from datasets.boxed.splits import OfficialSettings, split
from datasets.boxes import BoxSplits
from datasets.files import official, reads
from datasets.masks import lines
from datasets.sources.voc import CLASSES as MASKED
from datasets.splits import MissingData

CLASSES = MASKED[1:]
LISTS = {
    "voc2012": {"train": ("2012/train",), "test": ("2012/val",)},
    "voc2007": {"train": ("2007/trainval",), "test": ("2007/test",)},
    "voc0712": {"train": ("2007/trainval", "2012/trainval"), "test": ("2007/test",)},
}
"""Year and name of the lists that train and test."""


@official
@reads(
    ("voc/VOCdevkit/VOC2007/ImageSets/Main", "VOCdevkit/VOC2007/ImageSets/Main"),
    ("voc/VOCdevkit/VOC2007/Annotations", "VOCdevkit/VOC2007/Annotations"),
    ("voc/VOCdevkit/VOC2007/JPEGImages", "VOCdevkit/VOC2007/JPEGImages"),
    ("voc/VOCdevkit/VOC2012/ImageSets/Main", "VOCdevkit/VOC2012/ImageSets/Main"),
    ("voc/VOCdevkit/VOC2012/Annotations", "VOCdevkit/VOC2012/Annotations"),
    ("voc/VOCdevkit/VOC2012/JPEGImages", "VOCdevkit/VOC2012/JPEGImages"),
)
def voc_boxes(root: Path, *, download: bool = False, lists: str, **common: Unpack[OfficialSettings]) -> BoxSplits:
    """Photographs with boxes of 20 classes; objects marked as difficult are not trained on, as in the challenge.

    Args:
        root: Folder of all data sets; the files lie in `root/voc/VOCdevkit/VOC2012`, or `root/VOCdevkit/VOC2012`.
        download: Whether to fetch the official archives (2 GB, and 1 GB for 2007) through torchvision.
        lists: `voc2012` trains on its training list (5,717 images) and tests on its validation list (5,823), as the
            boxes of its test are not public; `voc2007` trains on trainval (5,011) and tests on test (4,952);
            `voc0712`, the usual protocol, trains on trainval of both years (16,551) and tests on test of 2007.
        common: See `datasets.boxed.splits.OfficialSettings`; validation images are taken from those that train.

    Raises:
        MissingData: The files are absent, broken or wrong, or could not be downloaded.
        ValueError: A size cannot be had, or there are no such lists.

    Source:
        Everingham et al., The Pascal Visual Object Classes (VOC) Challenge, IJCV 88, 2010.
    """
    if lists not in LISTS:
        raise ValueError(f"dataset.lists is {lists}; it must be {', '.join(LISTS)}.")
    places = (root / "voc" / "VOCdevkit", root / "VOCdevkit")
    kit = next((place for place in places if place.is_dir()), places[0])
    parts = {
        part: [boxed for name in names for boxed in _listed(kit, *name.split("/"), download=download)]
        for part, names in LISTS[lists].items()
    }
    return split("Pascal VOC", Found("VOC", parts, CLASSES), CLASSES, common, official=True)


def _listed(kit: Path, year: str, name: str, *, download: bool) -> list[Boxed]:
    """Return the images of a list and their boxes."""
    home = kit / f"VOC{year}"
    file = home / "ImageSets" / "Main" / f"{name}.txt"
    if download and not file.is_file():
        which = "2007-test" if (year, name) == ("2007", "test") else year
        try:
            VOCDetection(kit.parent, year=which, image_set=name, download=True)
        except (OSError, RuntimeError) as error:
            raise MissingData(f"Pascal VOC {year} could not be downloaded into {kit.parent}: {error}") from error
    if not file.is_file():
        raise MissingData(
            f"Pascal VOC {year} is absent in {home.resolve()} (no {file.relative_to(home)}); get it with "
            "data.download=true, or name the folder of all data sets in LOSSBENCH_DATA or data.root."
        )
    return [_image(home, line.split()[0]) for line in lines(file)]


def _image(home: Path, name: str) -> Boxed:
    file = home / "Annotations" / f"{name}.xml"
    image = home / "JPEGImages" / f"{name}.jpg"
    if not file.is_file():
        return Boxed(image, (), problem=f"has no {file.relative_to(home)}")
    root = voc.root_of(file)
    return Boxed(image, (), problem="has an XML file without boxes") if root is None else voc.image_of(image, root)
