"""Re-identification: people or vehicles seen by several cameras, in folders as Market-1501 has them."""

import re
from collections.abc import Sequence
from pathlib import Path

import torch

from datasets.by_class import ClassSplits, Protocol, held_out, listed_images, split_files
from datasets.files import official, reads
from datasets.splits import MissingData

NAME = re.compile(r"(-?\d+)_c(\d+)")
"""How the name of a file begins: identity and camera. Identity -1 is junk, 0 a distractor."""
JUNK, DISTRACTOR = -1, 0


@official
@reads("{path}")
def reidentification(
    root: Path,
    *,
    download: bool = False,
    path: str,
    valid_classes: int,
    size: Sequence[int],
    channels: int,
    split_seed: int,
) -> ClassSplits:
    """Images named ``0002_c1s1_000451_03.jpg``: identity 2, camera 1, in three folders.

    ``bounding_box_train`` trains, but for the identities drawn for validation; ``query`` is compared with
    ``bounding_box_test``, in which distractors are a class of their own and junk is left out. A query is not compared
    with images of its own identity from its own camera. In validation every image is a query.

    Args:
        root: Folder of all data sets.
        download: Not used.
        path: Folder with the three, below ``root`` or absolute.
        valid_classes: Number of validation identities, two or more.
        size: Height and width to which all images are brought.
        channels: 3 for colour, 1 for grey.
        split_seed: Chooses who is in validation; at least 0.

    Raises:
        MissingData: A folder is absent, a name says neither identity nor camera, or a folder holds who it must not.
        ValueError: There are too few identities.

    Source:
        Zheng et al., Scalable Person Re-identification: A Benchmark, ICCV 2015.
    """
    home = root / path
    train = [each for each in _listed(home / "bounding_box_train") if each[1] > DISTRACTOR]
    query = [each for each in _listed(home / "query") if each[1] > DISTRACTOR]
    gallery = _listed(home / "bounding_box_test")
    known = {identity for _, identity, _ in train}
    if both := sorted(known & {identity for _, identity, _ in (*query, *gallery)}):
        raise MissingData(f"identity {both[0]} is in bounding_box_train and among those tested in {home}.")
    (valid,) = held_out([f"{identity:06}" for identity in known], (valid_classes,), split_seed)
    parts = {
        "train": [each for each in train if f"{each[1]:06}" not in valid],
        "valid": [each for each in train if f"{each[1]:06}" in valid],
        "test": [*query, *gallery],
    }
    cameras = {part: torch.tensor([camera for _, _, camera in parts[part]]) for part in ("valid", "test")}
    asked = torch.arange(len(parts["test"])) < len(query)
    protocols = {"valid": Protocol(cameras["valid"]), "test": Protocol(cameras["test"], asked)}
    files = {part: [(file, f"{identity:06}") for file, identity, _ in listed] for part, listed in parts.items()}
    return split_files(files, (size[0], size[1]), channels, protocols)


def _listed(folder: Path) -> list[tuple[Path, int, int]]:
    """Return path, identity and camera of every image that is not junk."""
    found = []
    for file in listed_images(folder):
        said = NAME.match(file.name)
        if said is None:
            raise MissingData(f"{file} does not begin with identity and camera, such as 0002_c1; rename or remove it.")
        if (identity := int(said[1])) != JUNK:
            found.append((file, identity, int(said[2])))
    if not found:
        raise MissingData(
            f"{folder.resolve()} has no images: dataset.path names a folder with bounding_box_train, query and "
            "bounding_box_test, as Market-1501 has them."
        )
    return found
