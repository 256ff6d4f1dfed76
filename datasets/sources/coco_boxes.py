"""COCO 2017, detection: everyday photographs with boxes around 80 kinds of objects."""

from pathlib import Path
from typing import Unpack

from datasets.boxed import coco
from datasets.boxed.splits import OfficialSettings, split
from datasets.boxes import BoxSplits
from datasets.files import official, reads
from datasets.parts import tails
from datasets.splits import MissingData


@official
@reads(
    ("coco/coco/{train_part}", "coco/{train_part}"),
    ("coco/coco/{test_part}", "coco/{test_part}"),
    ("coco/coco/annotations/instances_{train_part}.json", "coco/annotations/instances_{train_part}.json"),
    ("coco/coco/annotations/instances_{test_part}.json", "coco/annotations/instances_{test_part}.json"),
)
def coco_boxes(
    root: Path, *, download: bool = False, train_part: str, test_part: str, **common: Unpack[OfficialSettings]
) -> BoxSplits:
    """Everyday photographs with boxes; the official training images train and select, the validation images test.

    Classes are numbered from 0 on in the order of their official ids, which have gaps. Crowds are not trained on, and
    take detections away from false positives, as in COCO's evaluation.

    Args:
        root: Folder of all data sets; images lie in `root/coco/train2017` and `root/coco/val2017`, boxes in
            `root/coco/annotations/instances_train2017.json` and its like, or all of these in `root/coco/coco`.
        download: Not used: 20 GB are fetched better by hand.
        train_part: Name of the training part, in all these places.
        test_part: Name of the test part.
        common: See `datasets.boxed.splits.OfficialSettings`; validation images are taken from the training part.

    Raises:
        MissingData: The files are absent, broken or wrong.
        ValueError: A size cannot be had.

    Source:
        Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014.
    """
    home = root / "coco" / "coco" if (root / "coco" / "coco").is_dir() else root / "coco"
    lists, known = {}, {}
    for name, part in (("train", train_part), ("test", test_part)):
        file = home / "annotations" / f"instances_{part}.json"
        missing = next((place for place in (home / part, file) if not place.exists()), None)
        if missing is not None:
            raise MissingData(
                f"COCO is absent in {missing.resolve()}; get its images and the annotations of train and val from "
                "https://cocodataset.org/#download and unpack them there, or name the folder of all data sets in "
                "LOSSBENCH_DATA or data.root."
            )
        content = coco.content_of(file)
        if content is None:
            raise MissingData(f"{file} holds no boxes (images, annotations, categories); get the official file again.")
        lists[name] = (file, content)
        known |= tails(home / part, sorted((home / part).glob("*.jpg")))
    found = coco.found_in(lists, known)
    return split("COCO", found, found.classes, common, official=True)
