"""Images of your own with a class each, or several: in folders, listed in a table, or packed in parquet."""

import functools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Unpack

import numpy as np
import torch
from PIL import Image

from datasets import duplicates, inspection, listed_tables, listings, pixels
from datasets.decoded import Decoded
from datasets.divided import Sizes, divided
from datasets.files import reads
from datasets.grouped import OwnSplits, entries
from datasets.inspection import Seen
from datasets.listings import NONE, Entry, Listing
from datasets.splits import Images, MissingData, numbered
from datasets.tagged import TaggedImages

DAMAGED = ("stop", "skip")
DUPLICATES = ("warn", "drop", "allow")
FIRST_KEPT = ("test", "valid", "train", NONE)
"""In which part an image stays of which others are copies: what is tested stays as it was."""


@reads("{path}")
def images(
    root: Path,
    *,
    download: bool = False,
    path: str,
    table: str | None,
    file: str | None,
    label: str | Sequence[str] | None,
    group: str | None,
    channels: int,
    size: Sequence[int] | None,
    range: Sequence[float] | None,
    damaged: str,
    duplicates: str,
    **sizes: Unpack[Sizes],
) -> OwnSplits:
    """Images in files, decoded when they are needed.

    What is found in the folder decides how it is read (`datasets.listings`, `datasets.listed_tables`): a table that
    is named, or `labels.csv`, or `metadata.csv` or `.jsonl` as the Hugging Face hub has them; parquet files with packed
    images; folders named after classes, in `train`, `valid` (`val`, `validation`) and `test` or not; else the only
    table that there is. Parts that are not there are drawn from the training images, with the same share of
    every class.

    Args:
        root: Folder of all data sets.
        download: Not used.
        path: Folder of this data set, below `root` or absolute.
        table: File of names and labels, below `path`; None: as described.
        file: Its column of files; None: that whose entries are images of the folder.
        label: Its column of labels, or the columns of 0 and 1 of all classes; None recognises them by their names.
        group: What must not stand in two parts: a column of the table, or ``regex:`` and an expression on file names.
        channels: 3 for colour, 1 for grey.
        size: Height and width to which all images are brought (averaged down); None: they have one size already.
        range: Values of images of more than 8 bits that become 0 and 255; None: what they use (see
            `datasets.pixels.usual_span`).
        damaged: What a file that cannot be used does: `stop`, or `skip` it and say so.
        duplicates: What is done where an image, or nearly the same picture, stands in two parts: `warn`, `drop` (one of
            each set of copies is kept, in the test if it is there), or `allow`, which does not look for them.
        sizes: Of the parts; see `Sizes`.

    Raises:
        MissingData: There is no such folder, it is organised in another way, or a file is missing or damaged.
        ValueError: A setting is out of its range.
    """
    form = Form(channels, size, range, damaged, duplicates)
    _check(form)
    listing = listings.grouped(_listed(root / path, table, file, label, damaged == "skip"), group)
    return _read(path, listing, form, group is not None, sizes)


class Form(NamedTuple):
    """What images are brought to, and what is done with those that cannot be used, or stand twice; see `images`."""

    channels: int
    size: Sequence[int] | None
    range: Sequence[float] | None
    damaged: str
    duplicates: str


def _read(name: str, listing: Listing, form: Form, groups: bool, sizes: Sizes) -> OwnSplits:
    """Return the splits of a data set of which all images are listed."""
    seen = (inspection.headers if form.duplicates == "allow" else inspection.decoded)(listing.entries)
    listing, seen, skipped = _usable(listing, seen, form.damaged)
    notes = [*listing.notes, *skipped[:1]]
    if form.duplicates != "allow":
        listing, seen, said = _without_copies(listing, seen, form.duplicates == "drop")
        notes += said
    wanted = tuple(form.size) if form.size is not None else inspection.one_size(seen)
    span, said = _span(seen, form.range)
    read = functools.partial(read_image, channels=form.channels, size=(wanted[0], wanted[1]), span=span)
    parts = _parts(listing, read, (form.channels, wanted[0], wanted[1]))
    splits = divided(name, parts, listing.classes, sizes, groups=groups, several=listing.several)
    if form.duplicates == "warn":
        said += _across(splits, listing, seen)
    if moving := [entry.path.name for entry, each in zip(listing.entries, seen, strict=True) if each.frames > 1]:
        said.append(f"{len(moving)} files have several images, of which the first is used: {pixels.some(moving)}.")
    return replace(splits, notes=(*notes, *said, *_few(splits)), skipped=tuple(skipped[1:]))


def _check(form: Form) -> None:
    channels, size, span = form.channels, form.size, form.range
    sized = size is None or (not isinstance(size, int) and len(size) == 2 and min(size) > 0)
    if channels not in (1, 3) or not sized:
        raise ValueError(
            f"dataset.channels is {channels} and dataset.size {size}; they must be 3 (colour) or 1 (grey), and a "
            "height and a width in pixels, or null where all images have one size."
        )
    if span is not None and (len(span) != 2 or span[0] >= span[1]):
        raise ValueError(f"dataset.range is {list(span)}; it must be the values that become 0 and 255, or null.")
    for name, value, known in (("damaged", form.damaged, DAMAGED), ("duplicates", form.duplicates, DUPLICATES)):
        if value not in known:
            raise ValueError(f"dataset.{name} is {value}; it must be {' or '.join(known)}.")


def _listed(
    home: Path, table: str | None, file: str | None, label: str | Sequence[str] | None, skip: bool = False
) -> Listing:
    if home.is_file():
        raise MissingData(
            f"{home} is a file: give its folder in dataset.path={home.parent} and, if it is a table, its name in "
            f"dataset.table={home.name}."
        )
    if not home.is_dir():
        raise MissingData(f"there is no folder {home.resolve()}; {_LAYOUT}")
    tables = listed_tables.find(home, table)
    in_folders = None if tables else listings.in_folders(home)
    if in_folders is not None:
        if file or label:
            raise ValueError(f"{home} has a folder for each class: dataset.file and dataset.label are for tables.")
        return in_folders
    if found := tables or listed_tables.beside(home):
        return listed_tables.listing(home, found, file, label, skip)
    raise MissingData(f"{home.resolve()} has no folders of two or more classes, and no table; {_LAYOUT}")


_LAYOUT = (
    "dataset.path names a folder, below data.root or absolute, that has a folder of images for each class, or such "
    "folders in train, valid and test, or a table of files and labels (CSV, JSON lines, parquet), which dataset.table "
    "may name."
)


def _usable(listing: Listing, seen: list[Seen], damaged: str) -> tuple[Listing, list[Seen], list[str]]:
    """Return what can be used, and of what cannot the sentence for the terminal and all problems."""
    problems = [each.problem for each in seen if each.problem is not None]
    if not problems:
        return listing, seen, []
    if damaged == "stop":
        more = f" So it is with {len(problems) - 1} more." if len(problems) > 1 else ""
        raise MissingData(f"{problems[0]}{more} dataset.damaged=skip leaves such images out.")
    names = [entry.path.name for entry, each in zip(listing.entries, seen, strict=True) if each.problem]
    note = f"{len(names)} of {len(seen)} images cannot be read and were left out: {pixels.some(names)}."
    kept = [place for place, each in enumerate(seen) if not each.problem]
    return listings.checked(_kept(listing, kept)), [seen[place] for place in kept], [note, *problems]


def _kept(listing: Listing, rows: Sequence[int]) -> Listing:
    """Return these images of a listing, and the classes that they have."""
    kept = tuple(listing.entries[row] for row in rows)
    found = {label for entry in kept for label in entry.labels}
    return replace(listing, entries=kept, classes=tuple(label for label in listing.classes if label in found))


def _without_copies(listing: Listing, seen: list[Seen], drop: bool) -> tuple[Listing, list[Seen], list[str]]:
    """Return a listing without copies, if they are to be dropped, and what is to be said of copies."""
    sets = _sets(seen)
    labels: dict[int, set[tuple[str, ...]]] = {}
    for number, entry in zip(sets.tolist(), listing.entries, strict=True):
        labels.setdefault(number, set()).add(entry.labels)
    torn = [listing.entries[row].path.name for row, number in enumerate(sets) if len(labels[number]) > 1]
    said = [f"{len(torn)} images have copies of another class: {pixels.some(torn)}; one of the labels is wrong."]
    said = said if torn else []
    if not drop:
        return listing, seen, said
    rank = np.array([FIRST_KEPT.index(entry.part) for entry in listing.entries])
    order = np.lexsort((np.arange(len(sets)), rank, sets))
    firsts = order[np.flatnonzero(np.diff(sets[order], prepend=-1))]
    rows = np.sort(firsts).tolist()
    if dropped := sorted(set(range(len(sets))) - set(rows)):
        names = pixels.some(listing.entries[row].path.name for row in dropped)
        said.append(f"{len(dropped)} images are copies of others and were left out: {names}.")
    return listings.checked(_kept(listing, rows)), [seen[row] for row in rows], said


def _sets(seen: Sequence[Seen]) -> np.ndarray:
    return duplicates.sets([each.digest for each in seen], [each.look for each in seen if each.look is not None])


def _span(seen: Sequence[Seen], given: Sequence[float] | None) -> tuple[pixels.Span, list[str]]:
    """Return the values that become 0 and 255 in images of more than 8 bits, and what is to be said of them."""
    if given is not None:
        return (float(given[0]), float(given[1])), []
    found = inspection.span_of_all(seen)
    if found is None:
        return (0.0, 65535.0), []
    (low, high), whole = found
    what = "have more than 8 bits" if whole else "hold floating-point numbers"
    shown = f"{low:g} to {high:g}"
    return found[0], [f"images {what}: {shown} become 0 to 255; dataset.range=[{low:g},{high:g}] keeps it so."]


def _parts(listing: Listing, read: functools.partial[np.ndarray], shape: tuple[int, ...]) -> dict[str, Images]:
    """Return the images of every part that there is; those of none are training images."""
    found: dict[str, list[Entry]] = {"train": []}
    for entry in listing.entries:
        found.setdefault(entry.part or "train", []).append(entry)
    position = {label: place for place, label in enumerate(listing.classes)}
    parts: dict[str, Images] = {}
    for name, listed in found.items():
        pixels_of = Decoded(tuple(listed), read, shape)
        if listing.several:
            marks = torch.zeros(len(listed), len(position), dtype=torch.uint8)
            for row, entry in enumerate(listed):
                marks[row, [position[label] for label in entry.labels]] = 1
            parts[name] = TaggedImages(pixels_of, marks, torch.arange(len(listed)))
        else:
            parts[name] = numbered(pixels_of, [position[entry.labels[0]] for entry in listed])
    return parts


def _across(splits: OwnSplits, listing: Listing, seen: Sequence[Seen]) -> list[str]:
    """Return what is to be said of copies that stand in several parts."""
    number = dict(zip(map(id, listing.entries), _sets(seen).tolist(), strict=True))
    trained = {number[id(entry)] for entry in entries([splits.train])}
    said = []
    for name, images in (("validation", splits.valid), ("test", splits.test)):
        if copies := [entry.path.name for entry in entries([images]) if number[id(entry)] in trained]:
            said.append(
                f"{len(copies)} of {len(images)} {name} images are nearly the same as training images: "
                f"{pixels.some(copies)}; dataset.duplicates=drop leaves copies out."
            )
    return said


def _few(splits: OwnSplits) -> list[str]:
    """Return what is to be said of classes that a part lacks."""
    said = []
    for name, images in (("validation", splits.valid), ("test", splits.test)):
        counts = images.class_counts(len(splits.classes)).tolist()
        if lacking := [label for label, count in zip(splits.classes, counts, strict=True) if not count]:
            said.append(
                f"{len(lacking)} of {len(splits.classes)} classes have no {name} image ({pixels.some(lacking)}): too "
                "few images to tell how well they are recognised."
            )
    return said


def read_image(entry: Entry, channels: int, size: tuple[int, int], span: pixels.Span) -> np.ndarray:
    """Return an image, uint8 (C, H, W), upright and of this size (height, width), averaged down if it was larger.

    Raises:
        MissingData: the file cannot be used; the sentence names it.
    """
    image = pixels.eight_bit(pixels.opened(entry.path, entry.content and entry.content()), channels, span)
    if (image.height, image.width) != size:
        # Pillow's bilinear filter averages over all pixels that become one
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(*size, channels).transpose(2, 0, 1)


def proposed(path: Path) -> dict[str, object] | None:
    """Return settings of `run.yaml` that train on a folder of images with a class each, None if it is none.

    Args:
        path: the folder, or a table in it.

    Raises:
        MissingData: it is one, but something in it is wrong.
    """
    home, table = (path.parent, path.name) if path.is_file() else (path, None)
    if not home.is_dir() or (table and path.suffix.lower() not in listed_tables.SUFFIXES_OF_TABLES):
        return None
    try:
        listing = _listed(home, table, None, None)
    except MissingData:
        if table is None and not listed_tables.find(home, None):
            return None
        raise
    seen = [each for each in inspection.headers(listing.entries) if not each.problem]
    settings: dict[str, object] = {
        "task": "multilabel" if listing.several else "classification",
        "dataset": "images",
        "dataset.path": str(home.resolve()),
    }
    if table is not None:
        settings["dataset.table"] = table
    settings |= {f"dataset.{name}": value for name, value in listing.settings}
    if len({each.size for each in seen}) > 1:
        settings["dataset.size"] = [inspection.usual_side(seen)] * 2
    return settings
