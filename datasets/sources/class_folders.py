"""Any folder of images with a folder for each class, divided by class."""

from collections.abc import Sequence
from pathlib import Path

from datasets.by_class import ClassSplits, held_out, split_files
from datasets.class_lists import folders_of, of_classes
from datasets.files import reads


@reads("{path}")
def class_folders(
    root: Path,
    *,
    download: bool = False,
    path: str,
    valid_classes: int,
    test_classes: int,
    least: int,
    size: Sequence[int],
    channels: int,
    split_seed: int,
) -> ClassSplits:
    """Images in a folder for each class; which classes are trained on, validated and tested is drawn.

    Args:
        root: Folder of all data sets.
        download: Not used.
        path: Folder of this data set, below ``root`` or absolute.
        valid_classes: Number of validation classes, two or more.
        test_classes: Number of test classes, likewise.
        least: Images that a class must have; others are left out.
        size: Height and width to which all images are brought.
        channels: 3 for colour, 1 for grey.
        split_seed: Chooses; at least 0.

    Raises:
        MissingData: There is no such folder, or an image cannot be read.
        ValueError: There are not so many classes.
    """
    found = {name: files for name, files in folders_of(root / path).items() if len(files) >= least}
    valid, test = held_out(list(found), (valid_classes, test_classes), split_seed)
    train = set(found) - valid - test
    files = {"train": of_classes(found, train), "valid": of_classes(found, valid), "test": of_classes(found, test)}
    return split_files(files, (size[0], size[1]), channels)
