"""CUB-200-2011 in its official files: birds, divided by species as papers do."""

from collections.abc import Sequence
from pathlib import Path

from datasets.by_class import ClassSplits
from datasets.class_lists import halves, rows
from datasets.files import official, reads


@official
@reads("{path}")
def cub200(
    root: Path, *, download: bool = False, path: str, valid_classes: int, size: Sequence[int], split_seed: int
) -> ClassSplits:
    """Birds of 200 species: the first 100 train, less those drawn for validation, and the others are tested.

    Args:
        root: Folder of all data sets.
        download: Not used.
        path: Folder ``CUB_200_2011`` of the archive, with ``images.txt`` and ``images/``, below ``root`` or absolute.
        valid_classes: Number of validation classes, two or more.
        size: Height and width to which all images are brought.
        split_seed: Chooses the validation classes; at least 0.

    Raises:
        MissingData: The files are absent, or not those of the set.
        ValueError: There are not so many classes.

    Source:
        Wah et al., The Caltech-UCSD Birds-200-2011 Dataset, 2011; the split: Oh Song et al., CVPR 2016.
    """
    home = root / path
    listed = [(home / "images" / file, Path(file).parts[0]) for _, file in rows(home / "images.txt", 2)]
    return halves("CUB-200-2011", listed, valid_classes, size, split_seed)
