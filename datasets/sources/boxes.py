"""Any folder of images with boxes: COCO's JSON, Pascal VOC's XML, or YOLO's texts."""

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Unpack

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datasets import boxed
from datasets.boxes import BoxSplits
from datasets.decoded import Decoded
from datasets.files import reads
from datasets.parts import OwnSettings, divided, groups_of, span_of
from datasets.pixels import Span, eight_bit, opened, some
from datasets.splits import Images, MissingData

OUTSIDE = 0.01
"""How far a box may reach over the edge of its image, as a share of it, beside a pixel: rounding. It is cut there."""
SMALL = 2.0
"""Side in pixels, at the size of the data set, below which a box can hardly be found."""
Sized = tuple[boxed.Boxed, np.ndarray]
"""An image and its boxes (M, 4), in shares of its width and height."""


class Item(NamedTuple):
    """An image, and what it belongs to that must not stand in two parts."""

    image: Path
    group: str


@reads("{path}")
def boxes(
    root: Path, *, download: bool = False, path: str, classes: Sequence[str] | None, **common: Unpack[OwnSettings]
) -> BoxSplits:
    """Images of one size, averaged down, and their boxes, scaled with them; an image may have none.

    `datasets.boxed` says which files are understood. Parts are those of folders and lists, or drawn.

    Args:
        root: Folder of all data sets.
        download: Not used.
        path: Folder of this data set, below `root` or absolute.
        classes: Names of the classes, in the order of their numbers; boxes of others are left out. None: all that have
            a training box.
        common: See `datasets.parts.OwnSettings`.

    Raises:
        MissingData: There is no such folder, it holds no boxes, or a file is missing, broken or wrong.
        ValueError: A setting is out of its range, or a class has no training box.
    """
    found = boxed.find(root / path)
    parts, skipped = _usable(found, skip=common["damaged"] == "skip")
    paths = {name: [each.image for each, _ in part] for name, part in parts.items()}
    groups, said = groups_of(paths, common["group"])
    parts = divided(path, parts, common, (lambda item: groups[item[0].image]) if groups else None)
    names = _names(found, [each for each, _ in parts["train"]], classes, path)
    size, channels = (common["size"][0], common["size"][1]), 1 if common["grey"] else 3
    rows = {name: [_target(each, names, size) for each in part] for name, part in parts.items()}
    most = max(1, *(len(row) for part in rows.values() for row in part))
    span = span_of([each.image for each, _ in parts["train"]])
    read = functools.partial(_read, size=size, channels=channels, span=span)
    made = {
        name: Images(
            Decoded(tuple(Item(each.image, groups.get(each.image, "")) for each, _ in part), read, (channels, *size)),
            _padded(rows[name], most),
            torch.arange(len(part)),
        )
        for name, part in parts.items()
    }
    there = sum(map(len, rows["train"]))
    notes = [f"{found.form} boxes: {len(names)} classes, {there} boxes to train on.", *found.notes, *said]
    notes += _small(rows["train"], size)
    return BoxSplits(**made, classes=names, skipped=tuple(skipped), notes=tuple(notes), groups=bool(groups))


def _usable(found: boxed.Found, skip: bool) -> tuple[dict[str, list[Sized]], list[str]]:
    """Return the images whose boxes can be used, and what is wrong with the others.

    Raises:
        MissingData: something is wrong, and is not skipped, or nothing is left; the sentence counts.
    """
    usable: dict[str, list[Sized]] = {}
    wrong: list[str] = []
    with ThreadPoolExecutor() as pool:  # headers are waited for, not computed
        for name, part in found.parts.items():
            for each, shares in zip(part, pool.map(_in_shares, part), strict=True):
                if isinstance(shares, str):
                    wrong.append(f"{each.image.name} {shares}")
                else:
                    usable.setdefault(name, []).append((each, shares))
    count = len(found.images)
    if wrong and not skip:
        raise MissingData(
            f"{len(wrong)} of {count} images cannot be used: {some(wrong)}; mend or remove them, or leave them out "
            "with dataset.damaged=skip."
        )
    if lacking := [name for name in found.parts if name not in usable]:
        why = f": {some(wrong)}; mend them." if wrong else ", as its list is empty; fill it or remove it."
        raise MissingData(f"no image of the part {lacking[0]} can be used{why}")
    if wrong:
        found.notes.append(f"dataset.damaged=skip left out {len(wrong)} of {count} images: {some(wrong)}.")
    return usable, wrong


def _in_shares(each: boxed.Boxed) -> np.ndarray | str:
    """Return the boxes of an image, float64 (M, 4) in shares of its width and height, or what is wrong with it."""
    if each.problem:
        return each.problem
    try:
        width, height = opened(each.image, load=False).size
    except FileNotFoundError as error:
        return "is missing" if not each.image.exists() else str(error).removeprefix(f"{each.image} ")
    if each.size not in (None, (width, height)):
        return f"has {width}x{height} pixels, but its boxes are for {each.size[0]}x{each.size[1]}"
    corners = np.array([box[:4] for box in each.boxes], dtype=np.float64).reshape(-1, 4)
    if not each.shares:
        corners /= np.array([width, height, width, height])
    over = np.maximum(-corners, corners - 1) - OUTSIDE
    if (over > 1 / np.array([width, height, width, height])).any():
        label = each.boxes[int(over.max(1).argmax())][4]
        return f"has a box ({label}) that reaches out of it"
    corners = corners.clip(0, 1)
    flat = (corners[:, 2:] <= corners[:, :2]).any(1)
    if flat.any():
        return f"has a box ({each.boxes[int(flat.argmax())][4]}) without an area"
    return corners


def _names(
    found: boxed.Found, train: Sequence[boxed.Boxed], classes: Sequence[str] | None, path: str
) -> tuple[str, ...]:
    """Return the names of the classes: those wanted, or those that have training boxes."""
    there, trained = ({box[4] for each in images for box in each.boxes} for images in (found.images, train))
    if not trained:
        raise MissingData(f"{path} has {len(train)} training images, and no box in any of them.")
    names = tuple(name for name in found.classes if name in trained) if classes is None else tuple(classes)
    if unknown := [name for name in names if name not in there]:
        raise ValueError(f"dataset.classes names {some(unknown)}, but {path} has boxes of {some(sorted(there))} only.")
    if absent := [name for name in names if name not in trained]:
        raise ValueError(
            f"no training image of {path} has a box of {some(absent)}: leave such classes out of dataset.classes, or "
            "use more images or another dataset.split_seed."
        )
    if others := sorted({*found.classes, *there} - set(names)):
        why = "without a training box" if classes is None else "that dataset.classes does not name"
        found.notes.append(f"{len(others)} classes {why} are left out: {some(others)}.")
    return names


def _target(each: Sized, names: tuple[str, ...], size: Sequence[int]) -> np.ndarray:
    """Return the boxes of an image in pixels of the size of the data set, classes, and zeros: float32 (M, 6)."""
    kept = [row for row, box in enumerate(each[0].boxes) if box[4] in names]
    labels = [names.index(each[0].boxes[row][4]) for row in kept]
    corners = each[1][kept] * np.array([size[1], size[0], size[1], size[0]])
    ignored = np.zeros((len(kept), 1))
    return np.column_stack([corners, np.array(labels).reshape(-1, 1), ignored]).astype(np.float32)


def _padded(rows: list[np.ndarray], most: int) -> Tensor:
    """Return boxes and classes of all images, float32 (N, most, 6); what is no box is 0 of the class -1."""
    targets = torch.zeros(len(rows), most, 6)
    targets[..., 4] = -1
    for target, row in zip(targets, rows, strict=True):
        target[: len(row)] = torch.from_numpy(row)
    return targets


def _read(item: Item, size: tuple[int, int], channels: int, span: Span) -> np.ndarray:
    """Return an image, uint8 (C, H, W), upright and averaged down."""
    image = eight_bit(opened(item.image), channels, span)
    pixels = np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR))
    return pixels.reshape(*size, channels).transpose(2, 0, 1)


def _small(rows: list[np.ndarray], size: Sequence[int]) -> list[str]:
    """Return a sentence on boxes that are hardly more than a pixel, if there are some."""
    whole = np.concatenate(rows)
    small = int(((whole[:, 2:4] - whole[:, :2]).min(1) < SMALL).sum())
    if not small:
        return []
    return [f"{small} of {len(whole)} boxes are narrower than {SMALL:g} pixels at {size[0]}x{size[1]} (dataset.size)."]


def proposed(path: Path) -> dict[str, Any] | None:
    """Return the settings of this data set for a folder of images with boxes, None where it is no such folder.

    Raises:
        MissingData: boxes are there, but a file of theirs is damaged.
    """
    reading = (boxed.coco, boxed.voc, boxed.yolo)
    found = next((found for read in reading if path.is_dir() and (found := read(path)) is not None), None)
    return None if found is None or not any(each.boxes for each in found.images) else {}
