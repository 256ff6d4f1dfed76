"""Cars-196 in its official files: cars, divided by model as papers do."""

from collections.abc import Sequence
from pathlib import Path

from datasets.by_class import ClassSplits
from datasets.class_lists import halves
from datasets.files import official, reads
from datasets.splits import MissingData


@official
@reads("{path}")
def cars196(
    root: Path, *, download: bool = False, path: str, valid_classes: int, size: Sequence[int], split_seed: int
) -> ClassSplits:
    """Cars of 196 models: the first 98 train, less those drawn for validation, and the others are tested.

    Args:
        root: Folder of all data sets.
        download: Not used.
        path: Folder with ``cars_annos.mat`` and ``car_ims/`` of the archive, below ``root`` or absolute.
        valid_classes: Number of validation classes, two or more.
        size: Height and width to which all images are brought.
        split_seed: Chooses the validation classes; at least 0.

    Raises:
        MissingData: The files are absent, or not those of the set.
        ValueError: There are not so many classes.

    Source:
        Krause et al., 3D Object Representations for Fine-Grained Categorization, 2013; the split: Oh Song et al., CVPR
        2016.
    """
    from scipy.io import loadmat

    file = root / path / "cars_annos.mat"
    try:
        rows = loadmat(str(file), simplify_cells=True)["annotations"]
        listed = [(root / path / row["relative_im_path"], f"{int(row['class']):03}") for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MissingData(
            f"{file} cannot be read as the list of Cars-196 ({error}): unpack the archive anew."
        ) from error
    return halves("Cars-196", listed, valid_classes, size, split_seed)
