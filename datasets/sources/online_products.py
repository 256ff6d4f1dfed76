"""Stanford Online Products in its official files, divided by product as papers do."""

from collections.abc import Sequence
from pathlib import Path

from datasets.by_class import ClassSplits
from datasets.class_lists import rows, with_validation
from datasets.files import official, reads


@official
@reads("{path}")
def online_products(
    root: Path, *, download: bool = False, path: str, valid_classes: int, size: Sequence[int], split_seed: int
) -> ClassSplits:
    """Photographs of 22,634 products that were sold online: the official 11,318 train, less those drawn for validation.

    Args:
        root: Folder of all data sets.
        download: Not used.
        path: Folder ``Stanford_Online_Products`` of the archive, below ``root`` or absolute.
        valid_classes: Number of validation classes, two or more.
        size: Height and width to which all images are brought.
        split_seed: Chooses the validation classes; at least 0.

    Raises:
        MissingData: The files are absent, or not those of the set.
        ValueError: There are not so many classes.

    Source:
        Oh Song et al., Deep Metric Learning via Lifted Structured Feature Embedding, CVPR 2016.
    """
    home = root / path
    train, test = (
        [(home / file, f"{int(label):05}") for _, label, _, file in rows(home / f"Ebay_{part}.txt", 4)[1:]]
        for part in ("train", "test")
    )
    return with_validation(train, test, valid_classes, size, split_seed)
