"""Images of your own with a class each: a folder for each class, or a list of files and labels."""

import csv
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from datasets.decoded import BROKEN, Decoded
from datasets.files import reads
from datasets.splits import Images, MissingData, Splits, check_size, numbered, part, split, stratified_order

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
LIST = "labels.csv"
PARTS = {"train": "train", "valid": "valid", "val": "valid", "validation": "valid", "test": "test"}
"""Folders, and entries of the column `split`, by the part that they stand for."""
SHARE = 0.2
"""Of the images that are left, where a part has no folder of its own and no size."""

Labelled = dict[str, list[tuple[Path, str]]]
"""Files and the names of their classes, by part."""


@reads("{path}")
def images(
    root: Path,
    *,
    download: bool = False,
    path: str,
    channels: int,
    size: Sequence[int] | None,
    train_size: int | None,
    valid_size: float | None,
    test_size: float | None,
    split_seed: int,
) -> Splits:
    """Images in files, decoded when they are needed; classes are sorted by name.

    Three layouts: `CLASS/FILE`; `train/CLASS/FILE` and, if wanted, the same in `valid` (or `val`, `validation`) and
    `test`; or a table `labels.csv` with the columns file, label and, if wanted, split, whose order is kept. Parts that
    are not there are drawn from the training images, with the same share of every class.

    Args:
        root: Folder of all data sets.
        download: Not used.
        path: Folder of this data set, below `root` or absolute.
        channels: 3 for colour, 1 for grey.
        size: Height and width to which all images are brought (averaged down); None: they have one size already.
        train_size: Number of training images; None takes all that are left.
        valid_size: Number of validation images, or their share (below 1); None takes all, or a fifth of the training
            images where there are none.
        test_size: Number of test images, or their share, likewise.
        split_seed: Chooses which images; at least 0.

    Raises:
        MissingData: There is no such folder, it has another layout, or a file is missing; one that is damaged is
            reported when it is decoded.
        ValueError: A setting is out of its range.
    """
    sized = size is None or (not isinstance(size, int) and len(size) == 2 and min(size) > 0)
    if channels not in (1, 3) or not sized:
        raise ValueError(
            f"dataset.channels is {channels} and dataset.size {size}; they must be 3 (colour) or 1 (grey), and a "
            "height and a width in pixels, or null where all images have one size."
        )
    home = root / path
    found = _listed(home) if (home / LIST).is_file() else _in_folders(home)
    classes = tuple(sorted({label for files in found.values() for _, label in files}))
    first = found["train"][0][0]
    wanted = (size[0], size[1]) if size is not None else _read(first, channels, None).shape[1:]
    read = functools.partial(_read, channels=channels, size=wanted, fit=size is not None)
    parts = {
        name: numbered(
            Decoded(tuple(file for file, _ in files), read, (channels, *wanted)),
            [classes.index(label) for _, label in files],
        )
        for name, files in found.items()
    }
    return _divided(path, parts, classes, train_size, valid_size, test_size, split_seed)


def _divided(
    name: str,
    parts: dict[str, Images],
    classes: tuple[str, ...],
    train_size: int | None,
    valid_size: float | None,
    test_size: float | None,
    seed: int,
) -> Splits:
    pool, valid, test = parts["train"], parts.get("valid"), parts.get("test")
    if "test" not in parts:
        count = _count(test_size, len(pool), SHARE)
        check_size(name, "test_size", count, len(classes), len(pool) - 2 * len(classes))
        order = stratified_order(pool.labels.numpy(), seed)
        test, pool, test_size = pool.take(order[:count]), pool.take(order[count:]), None
    if lacking := [label for label, count in zip(classes, pool.class_counts(len(classes)), strict=True) if not count]:
        raise ValueError(f"{name} has no training image of the class {lacking[0]}.")
    assert test is not None
    test_count = _count(test_size, len(test), 1)
    if valid is None:
        sizes = {"train_size": train_size, "valid_size": _count(valid_size, len(pool), SHARE), "test_size": test_count}
        return split(name, pool, test, classes, split_seed=seed, **sizes)
    return Splits(
        part(name, "train_size", pool, train_size, classes, seed),
        part(name, "valid_size", valid, _count(valid_size, len(valid), 1), classes, seed),
        part(name, "test_size", test, test_count, classes, seed),
        classes,
    )


def _count(size: float | None, available: int, share: float) -> int:
    """Return a number of images from a number, a share below 1, or None for a given share."""
    size = share * available if size is None else size * available if 0 < size < 1 else size
    return round(size)


def _in_folders(home: Path) -> Labelled:
    if not home.is_dir():
        raise MissingData(f"there is no folder {home.resolve()}; {_LAYOUT}")
    named = {PARTS[folder.name]: folder for folder in _folders(home) if folder.name in PARTS}
    if "train" not in named:
        named = {"train": home}
    found = {name: [*_files_by_class(folder)] for name, folder in named.items()}
    if len({label for _, label in found["train"]}) < 2:
        raise MissingData(f"{named['train'].resolve()} has no folders of two or more classes; {_LAYOUT}")
    return found


_LAYOUT = (
    "dataset.path names a folder, below data.root or absolute, that has a folder of images for each class, or such "
    f"folders in train, valid and test, or a list of files and labels in {LIST}."
)


def _folders(home: Path) -> list[Path]:
    return sorted(path for path in home.iterdir() if path.is_dir() and not path.name.startswith("."))


def _files_by_class(home: Path) -> Iterator[tuple[Path, str]]:
    for folder in _folders(home):
        files = [file for file in folder.rglob("*") if _is_image(file.relative_to(folder))]
        if not files:
            raise MissingData(f"{folder.resolve()} has no image ({', '.join(SUFFIXES)}); remove it, or fill it.")
        yield from ((file, folder.name) for file in sorted(files))


def _is_image(file: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.parts)  # the ._ files of other systems, too
    return file.suffix.lower() in SUFFIXES and not hidden


def _listed(home: Path) -> Labelled:
    with (home / LIST).open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"file", "label"} <= rows[0].keys():
        raise MissingData(f"{(home / LIST).resolve()} must have the columns file and label, and a row for each image.")
    found: Labelled = {}
    for number, row in enumerate(rows, 2):
        name, where = row.get("split") or "train", f"{(home / LIST).resolve()}, line {number},"
        if name not in PARTS or not row["label"]:
            raise MissingData(f"{where} needs a label, and in the column split one of {', '.join(PARTS)} (or nothing).")
        if not (home / row["file"]).is_file():
            raise MissingData(f"{where} names {row['file']}, but there is no such file beside the list.")
        found.setdefault(PARTS[name], []).append((home / row["file"], row["label"]))
    if len({label for _, label in found.get("train", [])}) < 2:
        raise MissingData(f"{(home / LIST).resolve()} has no training images of two or more classes.")
    return found


def _read(path: Path, channels: int, size: tuple[int, int] | None, fit: bool = False) -> np.ndarray:
    """Return an image, uint8 (C, H, W), upright, and of this size, if one is given, by averaging if it may.

    Raises:
        MissingData: the file cannot be used; the sentence names it.
    """
    try:
        with Image.open(path) as image:
            image.load()
        ImageOps.exif_transpose(image, in_place=True)
        deep = image.mode[0] in "IF"
        mode = "RGB" if channels == 3 else "L"
        image = image if image.mode == mode else image.convert(mode)
    except BROKEN as error:
        raise MissingData(f"{path} cannot be read as an image ({error}); mend or remove it.") from None
    if deep:
        raise MissingData(f"{path} has more than 8 bits a pixel and channel; convert it first.")
    if fit and size is not None:
        # Pillow's bilinear filter averages over all pixels that become one
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    height, width = image.height, image.width
    if size is not None and (height, width) != size:
        raise MissingData(
            f"{path} has {height}x{width} pixels, but the first image has {size[0]}x{size[1]}: name one size for all "
            "in dataset.size."
        )
    return np.asarray(image).reshape(height, width, channels).transpose(2, 0, 1)
