"""Lists of images whose classes are divided: some train, others validate, and others are tested."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from datasets.by_class import ClassSplits, held_out, listed_images, split_files
from datasets.splits import MissingData

Listed = list[tuple[Path, str]]
"""Images with the name of their class."""


def rows(file: Path, columns: int) -> list[list[str]]:
    """Return the words of every line of a list of images.

    Raises:
        MissingData: The file cannot be read, or a line of it has another number of words than ``columns``.
    """
    try:
        rows = [line.split() for line in file.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise MissingData(f"{file} cannot be read ({error}): unpack the archive anew, or set dataset.path.") from error
    if wrong := next((row for row in rows if len(row) != columns), None):
        raise MissingData(f"{file} has the line {' '.join(wrong)!r}, not {columns} words: unpack the archive anew.")
    return rows


def halves(name: str, listed: Listed, valid: int, size: Sequence[int], seed: int) -> ClassSplits:
    """Return splits in which the first half of the classes, by name, trains and the second is tested.

    Args:
        name: What the data set is called.
        listed: All images.
        valid: How many of the first half of the classes validate instead.
        size: Height and width to which all images are brought.
        seed: Chooses the validation classes.

    Raises:
        MissingData: There are no images.
        ValueError: There are not so many classes.
    """
    labels = sorted({label for _, label in listed})
    first = set(labels[: len(labels) // 2])
    if not first:
        raise MissingData(f"the list of {name} is empty: unpack the archive anew.")
    train, test = ([each for each in listed if (each[1] in first) == wanted] for wanted in (True, False))
    return with_validation(train, test, valid, size, seed)


def with_validation(train: Listed, test: Listed, count: int, size: Sequence[int], seed: int) -> ClassSplits:
    """Return splits in which so many of the training classes, chosen by the seed, validate instead.

    Raises:
        ValueError: There are not so many classes.
    """
    (valid,) = held_out(sorted({label for _, label in train}), (count,), seed)
    parts = {
        "train": [each for each in train if each[1] not in valid],
        "valid": [each for each in train if each[1] in valid],
        "test": test,
    }
    return split_files(parts, (size[0], size[1]), 3)


def folders_of(home: Path) -> dict[str, list[Path]]:
    """Return the images of every class by its name, which is that of its folder.

    Raises:
        MissingData: There are no folders with images.
    """
    folders = sorted(folder for folder in home.glob("*") if folder.is_dir() and not folder.name.startswith("."))
    found = {folder.name: files for folder in folders if (files := listed_images(folder))}
    if not found:
        raise MissingData(f"{home.resolve()} has no folders with images: dataset.path names a folder of one per class.")
    return found


def of_classes(found: Mapping[str, Sequence[Path]], names: set[str]) -> Listed:
    """Return the images of some classes, class by class in the order of their names."""
    return [(file, name) for name in sorted(names) for file in found[name]]
