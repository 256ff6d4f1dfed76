"""Training, validation and test part of files of one's own: as folders or lists name them, or drawn."""

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import TypedDict, TypeVar

import numpy as np

from datasets.grouped import deal
from datasets.listings import PARTS, Entry, Listing, files, grouped
from datasets.pixels import Span, is_deep, is_image, opened, some, usual_span
from datasets.pixels import span_of as span_of_one
from datasets.splits import MissingData, stratified_order

T = TypeVar("T")
SHARE = 0.2
"""Of the training images, that a part gets which has no files and no size of its own."""


class OwnSettings(TypedDict):
    """What the settings of data sets of one's own, whose targets lie in files, have in common.

    Attributes:
        group: ``regex:`` and an expression on the names of images: what it finds names what must not stand in two
            parts. None: there are no groups.
        grey: Whether images have one channel instead of three.
        size: Height and width in pixels to which all images are brought; images are averaged down.
        damaged: What an image does that is missing or broken, or whose target is: `stop` raises, `skip` leaves it out.
        train_size: Number of training images; None takes all that are left.
        valid_size: Number of validation images, or their share (below 1); None takes all of the part, or a fifth of the
            training images where there is none.
        test_size: Number of test images, or their share, likewise.
        split_seed: Chooses which images; at least 0.
    """

    group: str | None
    grey: bool
    size: Sequence[int]
    damaged: str
    train_size: int | None
    valid_size: float | None
    test_size: float | None
    split_seed: int


def divided(
    title: str, found: Mapping[str, Sequence[T]], settings: OwnSettings, group: Callable[[T], str] | None = None
) -> dict[str, list[T]]:
    """Return the items of the three parts, each in the order that it was given in.

    A part that was not found is drawn from the training items, the test first. A smaller part is a part of every larger
    one, and the test does not move with the size of another.

    Args:
        title: what an error message calls the data set.
        found: items by part; `train` at least.
        settings: sizes, which groups meet as nearly as they can, and what chooses.
        group: what an item belongs to that must not stand in two parts.

    Raises:
        ValueError: a size cannot be had, or there are too few groups.
    """
    train, parts, seed = list(found["train"]), {}, settings["split_seed"]
    for name, size in (("test", settings["test_size"]), ("valid", settings["valid_size"])):
        own = found.get(name)
        pool = train if own is None else list(own)
        count = _count(size, len(pool), SHARE if own is None else 1)
        most = len(pool) if own is not None else len(train) - (2 if name == "test" else 1)
        if not 1 <= count <= most:
            raise ValueError(
                f"dataset.{name}_size is {'null' if size is None else size}, which is {count} of {len(pool)} images of "
                f"{title}: it must leave 1 or more for every part, so {max(most, 0)} at most here."
            )
        if own is None and group is not None:
            parts[name], train = _whole(pool, count, seed, group, name)
        else:
            parts[name], others = _taken(pool, count, seed)
            train = others if own is None else train
    count = len(train) if settings["train_size"] is None else settings["train_size"]
    if not 1 <= count <= len(train):
        raise ValueError(f"dataset.train_size is {count}, but {title} has {len(train)} training images.")
    return {"train": _taken(train, count, seed)[0], "valid": parts["valid"], "test": parts["test"]}


def _whole(pool: Sequence[T], count: int, seed: int, group: Callable[[T], str], name: str) -> tuple[list[T], list[T]]:
    """Return whole groups of nearly so many items, and the others."""
    groups = np.unique([group(item) for item in pool], return_inverse=True)[1].astype(np.int64)
    where = deal(groups, np.zeros(len(pool), dtype=np.int64), (len(pool) - count, count), seed)
    chosen, others = ([item for item, part in zip(pool, where, strict=True) if part == wanted] for wanted in (1, 0))
    if not chosen or not others:
        raise ValueError(
            f"dataset.group leaves {groups.max() + 1} groups to draw from, too few for a part {name} of its own: use "
            "an expression that tells more groups apart."
        )
    return chosen, others


def _count(size: float | None, available: int, share: float) -> int:
    if size is None:
        return max(1, round(share * available))
    return round(size * available) if 0 < size < 1 else int(size)


def _taken(items: Sequence[T], count: int, seed: int) -> tuple[list[T], list[T]]:
    """Return so many items of a random order, and the others, each in their own order."""
    order = stratified_order(np.zeros(len(items), dtype=np.int64), seed)
    return [items[row] for row in np.sort(order[:count])], [items[row] for row in np.sort(order[count:])]


def image_files(home: Path) -> list[Path]:
    """Return all image files below a folder, sorted by their path."""
    return sorted(home / file for file in files(home) if is_image(file))


def tails(home: Path, paths: Sequence[Path]) -> dict[str, list[Path]]:
    """Return files by the ends of their paths below a folder: `b.png`, `b`, `a/b.png` and `a/b` for `a/b.png`."""
    found: dict[str, list[Path]] = {}
    for path in paths:
        parts = path.relative_to(home).parts
        for start in range(len(parts)):
            end = PurePath(*parts[start:])
            for name in {end.as_posix(), end.with_suffix("").as_posix()}:
                found.setdefault(name, []).append(path)
    return found


def at_end(name: str, known: Mapping[str, list[Path]]) -> list[Path]:
    """Return the files that a path in a list or table means, whatever folders of another machine it begins with."""
    parts = PurePath(name.strip().replace("\\", "/")).parts
    ends = ("/".join(parts[start:]) for start in range(len(parts)))
    return next((known[end] for end in ends if end in known), [])


def listed(home: Path, images: Sequence[Path], folders: Sequence[str]) -> dict[str, list[Path]]:
    """Return the images of each part that has a list (`train.txt`, `val.txt`, `test.txt`), in the order of the list.

    A line is the name of an image, with or without suffix and folders; what follows a blank is of no use.

    Args:
        home: folder of the data set.
        images: its images.
        folders: where lists may lie, below it; the first that has one counts.

    Raises:
        MissingData: a list names what is not there, or an image is listed twice.
    """
    places = (sorted((home / folder).glob("*.txt")) for folder in folders)
    lists = next((found for files in places if (found := [f for f in files if f.stem.lower() in PARTS])), [])
    known, seen, parts = tails(home, images), {}, {}
    for file in lists:
        missing = []
        for line in file.read_text(encoding="utf-8-sig").splitlines():
            names = [line, *line.split()[:1]] if line.strip() else []
            found = next((paths for name in names if (paths := at_end(name, known))), [None])
            path = found[0]
            if len(found) > 1:
                raise MissingData(f"{file} lists {names[0]}, which may be {some(found)}; add the folder or the suffix.")
            if path is None:
                missing += names[:1]
            elif path in seen:
                raise MissingData(f"{path.name} is listed in {seen[path]} and again in {file}; take one away.")
            else:
                seen[path] = file
                parts.setdefault(PARTS[file.stem.lower()], []).append(path)
        if missing:
            raise MissingData(f"{file} lists {len(missing)} images that are absent ({some(missing)}); mend the list.")
    return parts


def groups_of(images: Mapping[str, Sequence[Path]], group: str | None) -> tuple[dict[Path, str], tuple[str, ...]]:
    """Return the group of each image, and what is to be said of them; nothing without groups.

    Args:
        images: by part; those of `train` alone may still be divided.
        group: ``regex:`` and an expression, as `datasets.listings.grouped` takes it.

    Raises:
        MissingData: the expression is none, a name does not match, or a group stands in two parts.
    """
    if group is None:
        return {}, ()
    entries = tuple(Entry(path, (), part) for part, paths in images.items() for path in paths)
    listing = grouped(Listing(entries, ()), group)
    return {entry.path: str(entry.group) for entry in listing.entries}, listing.notes


def span_of(images: Sequence[Path], most: int = 200) -> Span:
    """Return the values of images of more than 8 bits that become 0 and 255, by evenly spaced ones of them."""
    low, high, whole = math.inf, -math.inf, True
    for row in np.unique(np.linspace(0, len(images) - 1, min(len(images), most)).round().astype(int)):
        with contextlib.suppress(MissingData):  # which is said elsewhere
            if is_deep(opened(images[row], load=False)):
                values = np.asarray(opened(images[row]))
                least, greatest = span_of_one(values)
                low, high, whole = min(low, least), max(high, greatest), whole and values.dtype.kind != "f"
    return usual_span(low, high, whole) if low <= high else (0.0, 65535.0)
