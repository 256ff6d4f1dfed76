"""Omniglot: handwritten characters of 50 alphabets, 20 drawings of each, divided by alphabet."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from datasets.by_class import ClassSplits, split_by_class
from datasets.files import official, reads
from datasets.splits import MissingData

SIDE = 105
"""Height and width of an official image in pixels."""


@official
@reads("omniglot/omniglot-py/{train_folder}", "omniglot/omniglot-py/{test_folder}")
def omniglot(
    root: Path,
    *,
    download: bool = False,
    train_folder: str,
    test_folder: str,
    valid_alphabets: int,
    test_alphabets: int | None,
    size: int,
) -> ClassSplits:
    """Characters in one channel, white on black; a class is a character, and no alphabet is in two splits.

    Training takes the first alphabets of its folder in the order of their names and validation the last. The test takes
    the last ones of its own folder; where both are one folder, they come after those of validation.

    Args:
        root: Folder of all data sets; the files lie in ``root/omniglot/omniglot-py/FOLDER/ALPHABET/CHARACTER/*.png``,
            as the authors' archives and torchvision unpack them.
        download: Not used; torchvision's ``Omniglot(root / "omniglot", download=True)`` fetches both folders.
        train_folder: ``images_background`` (30 alphabets, 964 characters), or a smaller one of the authors.
        test_folder: ``images_evaluation`` (20 alphabets, 659 characters).
        valid_alphabets: Number of validation alphabets.
        test_alphabets: Number of test alphabets; None takes all of the folder.
        size: Height and width to which images are reduced, at most 105.

    Raises:
        MissingData: A folder is absent or empty, or a drawing is broken or of another size.
        ValueError: There are not so many alphabets, or the size cannot be had.

    Source:
        Lake, Salakhutdinov and Tenenbaum, Human-level Concept Learning through Probabilistic Program Induction,
        Science 350, 2015.
    """
    if not 1 <= size <= SIDE:
        raise ValueError(f"dataset.size is {size}; it must be from 1 to {SIDE}, the side of the official images.")
    home = root / "omniglot" / "omniglot-py"
    train, same = _alphabets(home / train_folder), train_folder == test_folder
    test = train if same else _alphabets(home / test_folder)
    tested = len(test) if test_alphabets is None else test_alphabets
    held = tested if same else 0
    kept = len(train) - valid_alphabets - held
    if kept < 1 or valid_alphabets < 1 or not 1 <= tested <= len(test):
        raise ValueError(
            f"{valid_alphabets} validation and {tested} test alphabets were asked for, but {train_folder} has "
            f"{len(train)} and {test_folder} has {len(test)}, and training needs some too."
        )
    chosen = (train[:kept], train[kept : len(train) - held], test[len(test) - tested :])
    parts = [[character for alphabet in each for character in _characters(alphabet)] for each in chosen]
    characters = [character for part in parts for character in part]
    drawings = [(place, file) for place, folder in enumerate(characters) for file in sorted(folder.glob("*.png"))]
    return split_by_class(
        "Omniglot",
        torch.from_numpy(np.stack([_read(file, size) for _, file in drawings])).unsqueeze(1),
        torch.tensor([place for place, _ in drawings]),
        [f"{folder.parent.name}/{folder.name}" for folder in characters],
        (len(parts[0]), len(parts[1]), len(parts[2])),
    )


def _alphabets(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.glob("*") if path.is_dir())
    if not found:
        raise MissingData(
            f"Omniglot's {folder.name} is absent in {folder.parent.resolve()}; unpack the authors' {folder.name}.zip "
            "there, or name the folder that has omniglot/omniglot-py in LOSSBENCH_DATA or data.root."
        )
    return found


def _characters(alphabet: Path) -> list[Path]:
    return sorted(path for path in alphabet.glob("*") if path.is_dir())


def _read(file: Path, size: int) -> np.ndarray:
    """Return a drawing, uint8 (size, size), ink white: averaged over the area of each pixel."""
    try:
        with Image.open(file) as image:
            drawn = image.convert("L")
    except OSError as error:
        raise MissingData(f"{file} cannot be read ({error}): unpack Omniglot anew.") from error
    if drawn.size != (SIDE, SIDE):
        raise MissingData(
            f"{file} has {drawn.size[0]}x{drawn.size[1]} pixels, not {SIDE}x{SIDE}: unpack Omniglot anew."
        )
    return 255 - np.asarray(drawn.resize((size, size), Image.Resampling.BOX))
