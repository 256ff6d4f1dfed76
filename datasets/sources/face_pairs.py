"""Faces in a folder for each person, with a file of the pairs that are verified, as LFW has them."""

from collections.abc import Sequence
from pathlib import Path

import torch

from datasets.by_class import ClassSplits, Protocol, held_out, split_files
from datasets.class_lists import folders_of, of_classes
from datasets.files import official, reads
from datasets.splits import MissingData


@official
@reads("{path}", "{pairs}")
def face_pairs(
    root: Path,
    *,
    download: bool = False,
    path: str,
    pairs: str,
    valid_classes: int,
    least: int,
    size: Sequence[int],
    channels: int,
    split_seed: int,
) -> ClassSplits:
    """Faces in a folder for each person, ``NAME/NAME_0001.jpg``, and a file of pairs, as LFW has them.

    Verification is about the pairs of the file alone. Who occurs in it is tested, with all images; of the others some
    are drawn for validation and the rest trains.

    Args:
        root: Folder of all data sets.
        download: Not used; torchvision's ``LFWPeople(root, download=True)`` fetches images and pairs.
        path: Folder of the people, below ``root`` or absolute.
        pairs: The file, likewise. A line ``NAME I J`` is two images of one person, ``NAME I OTHER J`` of two; lines of
            one or two numbers count folds and are skipped.
        valid_classes: Number of people for validation, two or more.
        least: Images that a person must have to be trained on or to be in validation.
        size: Height and width to which all images are brought.
        channels: 3 for colour, 1 for grey.
        split_seed: Chooses who is in validation; at least 0.

    Raises:
        MissingData: The folder or the file is absent, or the file names an image that is not there.
        ValueError: There are too few people.
    """
    found, listed = folders_of(root / path), _pairs(root / pairs)
    named = {(name, number) for pair in listed for name, number in pair}
    if absent := sorted(name for name, _ in named if name not in found):
        raise MissingData(f"{root / pairs} names {absent[0]}, who has no folder in {root / path}.")
    tested = {name for name, _ in named}
    others = [name for name, files in found.items() if name not in tested and len(files) >= least]
    (valid,) = held_out(others, (valid_classes,), split_seed)
    files = {
        "train": of_classes(found, set(others) - valid),
        "valid": of_classes(found, valid),
        "test": of_classes(found, tested),
    }
    row = {file.stem: at for at, (file, _) in enumerate(files["test"])}
    stems = [[f"{name}_{number:04}" for name, number in pair] for pair in listed]
    if lost := [stem for pair in stems for stem in pair if stem not in row]:
        raise MissingData(f"{root / pairs} names the image {lost[0]}, which is not in {root / path}.")
    chosen = torch.tensor([[row[stem] for stem in pair] for pair in stems])
    return split_files(files, (size[0], size[1]), channels, {"test": Protocol(pairs=chosen)})


def _pairs(file: Path) -> list[tuple[tuple[str, int], tuple[str, int]]]:
    """Return the pairs of images that a file lists: name and number of each."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise MissingData(f"{file} cannot be read as a file of pairs ({error}).") from error
    pairs = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if len(words) < 3:
            continue
        name, first, *rest = words
        other, second = (name, rest[0]) if len(words) == 3 else (rest[0], rest[-1])
        if len(words) > 4 or not first.isdecimal() or not second.isdecimal():
            raise MissingData(f"line {number} of {file} is no pair: write NAME I J, or NAME I OTHER J.")
        pairs.append(((name, int(first)), (other, int(second))))
    if not pairs:
        raise MissingData(f"{file} lists no pairs: a line is NAME I J, or NAME I OTHER J.")
    return pairs
