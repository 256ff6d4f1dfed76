"""CUB-200-2011, Cars-196 and Stanford Online Products in their official files, divided by class as papers do."""

from collections.abc import Sequence
from pathlib import Path

from datasets.by_class import ClassSplits, held_out, split_files
from datasets.files import official, reads
from datasets.splits import MissingData

Listed = list[tuple[Path, str]]


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
    listed = [(home / "images" / file, Path(file).parts[0]) for _, file in _rows(home / "images.txt", 2)]
    return _halves("CUB-200-2011", listed, valid_classes, size, split_seed)


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
    return _halves("Cars-196", listed, valid_classes, size, split_seed)


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
        [(home / file, f"{int(label):05}") for _, label, _, file in _rows(home / f"Ebay_{part}.txt", 4)[1:]]
        for part in ("train", "test")
    )
    return _with_validation(train, test, valid_classes, size, split_seed)


def _rows(file: Path, columns: int) -> list[list[str]]:
    """Return the words of every line of a list of images."""
    try:
        rows = [line.split() for line in file.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise MissingData(f"{file} cannot be read ({error}): unpack the archive anew, or set dataset.path.") from error
    if wrong := next((row for row in rows if len(row) != columns), None):
        raise MissingData(f"{file} has the line {' '.join(wrong)!r}, not {columns} words: unpack the archive anew.")
    return rows


def _halves(name: str, listed: Listed, valid: int, size: Sequence[int], seed: int) -> ClassSplits:
    """Return splits in which the first half of the classes, by name, trains and the second is tested."""
    labels = sorted({label for _, label in listed})
    first = set(labels[: len(labels) // 2])
    if not first:
        raise MissingData(f"the list of {name} is empty: unpack the archive anew.")
    train, test = ([each for each in listed if (each[1] in first) == wanted] for wanted in (True, False))
    return _with_validation(train, test, valid, size, seed)


def _with_validation(train: Listed, test: Listed, count: int, size: Sequence[int], seed: int) -> ClassSplits:
    (valid,) = held_out(sorted({label for _, label in train}), (count,), seed)
    parts = {
        "train": [each for each in train if each[1] not in valid],
        "valid": [each for each in train if each[1] in valid],
        "test": test,
    }
    return split_files(parts, (size[0], size[1]), 3)
