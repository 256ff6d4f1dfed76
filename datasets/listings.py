"""Which images a folder holds, of which class, part and group: what is known of them before any is opened."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from datasets.pixels import SUFFIXES, is_image, is_left, some
from datasets.splits import MissingData

PARTS = {
    "train": "train", "training": "train",
    "valid": "valid", "val": "valid", "validation": "valid", "dev": "valid",
    "test": "test", "testing": "test",
}  # fmt: skip
"""Names of folders and files, and entries of a column, in lower case, by the part that they stand for."""
PATTERN = "regex:"
"""Begins a setting `group` that is an expression, not the name of a column."""
NONE = ""
"""The part of what may be in any."""


class Entry(NamedTuple):
    """An image that is listed.

    Attributes:
        path: of its file, or of the file that it is packed in, with its number.
        labels: names of its classes, one unless the data set has several labels for each image.
        part: train, valid or test, or `NONE`.
        group: what it belongs to that must not stand in two parts (a patient, say), None without groups.
        content: returns the bytes of a packed image; None: they lie in the file.
    """

    path: Path
    labels: tuple[str, ...]
    part: str = NONE
    group: str | None = None
    content: Callable[[], bytes] | None = None


@dataclass(frozen=True)
class Listing:
    """The images of a data set.

    Attributes:
        entries: in the order of the list, or sorted by folder and name.
        classes: names of the classes in their order.
        several: whether an image may have any number of classes.
        notes: what was understood or left aside, in sentences.
        columns: of a table, those that were not used, with the values of each row.
        settings: of `dataset`, what was guessed, to be given next time.
    """

    entries: tuple[Entry, ...]
    classes: tuple[str, ...]
    several: bool = False
    notes: tuple[str, ...] = ()
    columns: dict[str, list[str]] | None = None
    settings: tuple[tuple[str, object], ...] = ()


def part_named(name: str) -> str | None:
    """Return the part that a folder, a file or an entry is named after, None if it is none."""
    return PARTS.get(name.lower())


def ordered(labels: set[str]) -> tuple[str, ...]:
    """Return names of classes in their order: by number where all are whole numbers, else by name."""
    whole = all(re.fullmatch(r"-?\d+", label) for label in labels)
    return tuple(sorted(labels, key=(lambda label: (int(label), label)) if whole else None))


def folders(home: Path) -> list[Path]:
    """Return the folders in a folder, without hidden ones, sorted by name."""
    return sorted(path for path in home.iterdir() if path.is_dir() and not is_left(Path(path.name)))


def files(home: Path) -> Iterator[Path]:
    """Yield the files below a folder, relative to it, without those of the system; links to folders are followed."""
    for folder, below, names in os.walk(home, followlinks=True):
        below[:] = sorted(name for name in below if not is_left(Path(name)))
        inside = Path(folder).relative_to(home)
        yield from (inside / name for name in sorted(names) if not is_left(Path(name)))


def in_folders(home: Path) -> Listing | None:
    """Return the images of folders named after classes, in folders named after parts or not.

    None: that is not how the folder is organised.

    Raises:
        MissingData: a class has a folder without an image, or a part has classes that are not trained on.
    """
    named = {part: folder for folder in folders(home) if (part := part_named(folder.name))}
    parts = named if "train" in named else {NONE: home}
    first = next(iter(parts.values())) if NONE in parts else parts["train"]
    if sum(any(is_image(file) for file in files(folder)) for folder in folders(first)) < 2:
        return None
    entries: list[Entry] = []
    others: list[str] = []
    for part, folder in parts.items():
        for of_class in folders(folder):
            found = [*files(of_class)]
            images = [Entry(of_class / file, (of_class.name,), part) for file in found if is_image(file)]
            if not images:
                raise MissingData(f"{of_class} has no image ({', '.join(SUFFIXES)}): fill it or remove it.")
            entries += images
            others += [f"{of_class.name}/{file}" for file in found if not is_image(file)]
        others += [path.name for path in sorted(folder.iterdir()) if path.is_file() and is_image(Path(path.name))]
    notes = (f"{len(others)} files were left aside, no images of a class by their names: {some(others)}.",)
    return checked(
        Listing(tuple(entries), ordered({entry.labels[0] for entry in entries}), notes=notes if others else ())
    )


def checked(listing: Listing) -> Listing:
    """Return a listing if it can be trained on.

    Raises:
        MissingData: it has fewer than two classes, or one that no training image has.
    """
    trained = {label for entry in listing.entries if entry.part in ("train", NONE) for label in entry.labels}
    needed = 1 if listing.several else 2
    if len(trained) < needed:
        raise MissingData(
            f"the training images have too few classes ({some(ordered(trained)) or 'none'}): there must be {needed} or "
            "more."
        )
    for part in ("valid", "test"):
        if unknown := {label for e in listing.entries if e.part == part for label in e.labels} - trained:
            raise MissingData(
                f"there is no training image of {some(ordered(unknown))}, but {part} has images of it: add some to "
                f"training, or remove those of {part}."
            )
    return listing


def grouped(listing: Listing, group: str | None) -> Listing:
    """Return the same images with their groups.

    Args:
        listing: of all images.
        group: name of a column, or ``regex:`` and an expression that is looked for in the name of each file; what its
            first parenthesis matches (or all of it) names the group. None: there are no groups.

    Raises:
        MissingData: there is no such column, the expression is none, a name does not match, or a group stands in two
            of the given parts.
    """
    if group is None:
        return listing
    names = _matched(listing, group.removeprefix(PATTERN)) if group.startswith(PATTERN) else _column(listing, group)
    entries = tuple(entry._replace(group=name) for entry, name in zip(listing.entries, names, strict=True))
    seen: dict[str, str] = {}
    for entry, name in zip(entries, names, strict=True):
        if seen.setdefault(name, entry.part) != entry.part:
            raise MissingData(
                f"dataset.group={group}: the group {name} stands in two parts ({seen[name]} and {entry.part}); mend "
                "the parts, or leave them to be drawn."
            )
    alone = len(seen) == len(entries)
    note = f"{len(entries)} images form {len(seen)} groups by {group}" + (
        ": every image is a group of its own; is that meant?" if alone else "; none stands in two parts."
    )
    return replace(listing, entries=entries, notes=(*listing.notes, note))


def _matched(listing: Listing, expression: str) -> list[str]:
    try:
        pattern = re.compile(expression)
    except re.error as error:
        raise MissingData(f"dataset.group: {expression} is no regular expression ({error}).") from None
    found = [pattern.search(entry.path.name) for entry in listing.entries]
    if lacking := [entry.path.name for entry, match in zip(listing.entries, found, strict=True) if match is None]:
        raise MissingData(
            f"dataset.group: {expression} is not found in the names of {len(lacking)} files ({some(lacking)}); every "
            "image needs a group."
        )
    return [match[1 if pattern.groups else 0] or "" for match in found if match]


def _column(listing: Listing, name: str) -> Sequence[str]:
    columns = listing.columns
    if columns is None or name not in columns:
        has = f"the table has {', '.join(columns)} beside" if columns else "there is no table with further columns"
        raise MissingData(
            f"dataset.group={name}: there is no such column ({has}); name one, or give an expression on the names of "
            "files, such as 'regex:^(\\w+)_'."
        )
    if lacking := [row for row, value in enumerate(columns[name], 2) if not value]:
        raise MissingData(f"dataset.group={name}: line {some(lacking)} names no group; every image needs one.")
    return columns[name]
