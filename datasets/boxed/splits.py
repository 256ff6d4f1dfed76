"""From boxes in files to splits: images of one size, decoded when they are needed, and boxes in its pixels."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np
import torch
from torch import Tensor

from datasets.boxed import Boxed, Found
from datasets.boxed.fitted import fitted, within
from datasets.boxes import CROWD, DIFFICULT, BoxSplits
from datasets.decoded import Decoded
from datasets.parts import OwnSettings, divided, groups_of, span_of
from datasets.pixels import Span, opened, some
from datasets.splits import Images, MissingData

OUTSIDE = 0.01
"""How far a box may reach over the edge of its image, as a share of it, beside a pixel: rounding. It is cut there."""
SMALL = 2.0
"""Side in pixels, at the size of the data set, below which a box can hardly be found."""


class OfficialSettings(TypedDict):
    """What the settings of benchmarks with boxes have in common.

    Attributes:
        size: Height and width in pixels to which all images are brought.
        fit: How images come to `size`: `pad` keeps the aspect ratio and pads with grey at the right or the bottom,
            `stretch` fills it. Boxes are in pixels of the result, and so are the sizes (small, medium, large) that
            metrics tell apart.
        damaged: What an image does that is missing or broken, or whose boxes are wrong: `stop` raises, `skip` leaves it
            out.
        train_size: Number of training images; None takes all that are left.
        valid_size: Number of validation images, or their share (below 1); None takes a fifth of the training images.
        test_size: Number of test images, or their share; None takes all.
        split_seed: Chooses which images; at least 0.
    """

    size: Sequence[int]
    fit: str
    damaged: str
    train_size: int | None
    valid_size: float | None
    test_size: float | None
    split_seed: int


class BoxSettings(OwnSettings):
    """What the settings of data sets of one's own with boxes have in common.

    Attributes:
        fit: See `OfficialSettings`.
    """

    fit: str


class Sized(NamedTuple):
    """An image, its boxes (M, 4) in shares of its width and height, and both of these in pixels."""

    boxed: Boxed
    corners: np.ndarray
    size: tuple[int, int]


class Item(NamedTuple):
    """An image, and what it belongs to that must not stand in two parts."""

    image: Path
    group: str


def split(
    title: str,
    found: Found,
    classes: Sequence[str] | None,
    settings: BoxSettings | OfficialSettings,
    *,
    official: bool = False,
) -> BoxSplits:
    """Return images of one size, averaged down, and their boxes, scaled with them; an image may have none.

    Args:
        title: what an error message calls the data set.
        found: images and boxes; parts that are not there are drawn.
        classes: names of the classes, in the order of their numbers; boxes of others are left out. None: all that have
            a training box.
        settings: see `BoxSettings` and `OfficialSettings`.
        official: whether the files are those of a benchmark: its boxes are cut at the edge of their image, and left out
            if nothing remains, where those of others are refused; and classes need no training box.

    Raises:
        MissingData: a file is missing, broken or wrong.
        ValueError: a setting is out of its range, or a class has no training box.
    """
    own: Any = {"group": None, "grey": False, **settings}
    parts, skipped = _usable(found, skip=own["damaged"] == "skip", cut=official)
    paths = {name: [each.boxed.image for each in part] for name, part in parts.items()}
    groups, said = groups_of(paths, own["group"])
    parts = divided(title, parts, own, (lambda item: groups[item.boxed.image]) if groups else None)
    if official and classes is not None:
        names = tuple(classes)
    else:
        names = _names(found, [each.boxed for each in parts["train"]], classes, title)
    size, channels = (own["size"][0], own["size"][1]), 1 if own["grey"] else 3
    rows = {name: [_target(each, names, size, own["fit"]) for each in part] for name, part in parts.items()}
    most = max(1, *(len(row) for part in rows.values() for row in part))
    span = span_of([each.boxed.image for each in parts["train"]])
    read = functools.partial(_read, size=size, channels=channels, span=span, fit=own["fit"])
    made = {
        name: Images(
            Decoded(
                tuple(Item(each.boxed.image, groups.get(each.boxed.image, "")) for each in part),
                read,
                (channels, *size),
            ),
            _padded(rows[name], most),
            torch.arange(len(part)),
        )
        for name, part in parts.items()
    }
    notes = [*_first(found.form, names, rows), *found.notes, *said, *_small(rows["train"], size)]
    return BoxSplits(**made, classes=names, skipped=tuple(skipped), notes=tuple(notes), groups=bool(groups))


# ---------------------------------------------------------------- what can be used


def _usable(found: Found, skip: bool, cut: bool) -> tuple[dict[str, list[Sized]], list[str]]:
    """Return the images whose boxes can be used, and what is wrong with the others.

    Raises:
        MissingData: something is wrong, and is not skipped, or nothing is left; the sentence counts.
    """
    usable: dict[str, list[Sized]] = {}
    wrong: list[str] = []
    lost = 0
    with ThreadPoolExecutor() as pool:  # headers are waited for, not computed
        for name, part in found.parts.items():
            for each, sized in zip(part, pool.map(functools.partial(_sized, cut=cut), part), strict=True):
                if isinstance(sized, str):
                    wrong.append(f"{each.image.name} {sized}")
                else:
                    usable.setdefault(name, []).append(sized)
                    lost += len(each.boxes) - len(sized.corners)
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
    if lost:
        found.notes.append(f"{lost} boxes without an area within their image are left out.")
    return usable, wrong


def _sized(each: Boxed, cut: bool) -> Sized | str:
    """Return an image with its boxes in shares of its width and height, or what is wrong with it.

    Args:
        each: the image, as its annotation says.
        cut: whether boxes are cut to the image, and left out if nothing remains, instead of refused.
    """
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
    if not cut and (over > 1 / np.array([width, height, width, height])).any():
        return f"has a box ({each.boxes[int(over.max(1).argmax())].label}) that reaches out of it"
    corners = corners.clip(0, 1)
    flat = np.any(corners[:, 2:] <= corners[:, :2], axis=1)
    if flat.any() and not cut:
        return f"has a box ({each.boxes[int(flat.argmax())].label}) without an area"
    kept = tuple(box for box, gone in zip(each.boxes, flat.tolist(), strict=True) if not gone)
    return Sized(replace(each, boxes=kept), corners[~flat], (width, height))


def _names(found: Found, train: Sequence[Boxed], classes: Sequence[str] | None, path: str) -> tuple[str, ...]:
    """Return the names of the classes: those wanted, or those that have training boxes, ignored ones not counted."""
    there = {box.label for each in found.images for box in each.boxes}
    trained = {box.label for each in train for box in each.boxes if not box.ignored}
    if not trained:
        raise MissingData(f"{path} has {len(train)} training images, and no box to train on in any of them.")
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


# ---------------------------------------------------------------- images and targets


def _target(each: Sized, names: tuple[str, ...], size: tuple[int, int], fit: str) -> np.ndarray:
    """Return the boxes of an image in pixels of the size of the data set, classes, and `ignored`: float32 (M, 6)."""
    kept = [row for row, box in enumerate(each.boxed.boxes) if box.label in names]
    boxes = [each.boxed.boxes[row] for row in kept]
    height, width = within(each.size, size, fit)
    corners = each.corners[kept] * np.array([width, height, width, height])
    rest = np.array([(names.index(box.label), box.ignored) for box in boxes]).reshape(-1, 2)
    return np.column_stack([corners, rest]).astype(np.float32)


def _padded(rows: list[np.ndarray], most: int) -> Tensor:
    """Return the boxes of all images, float32 (N, most, 6); what is no box is 0 of the class -1."""
    targets = torch.zeros(len(rows), most, 6)
    targets[..., 4] = -1
    for target, row in zip(targets, rows, strict=True):
        target[: len(row)] = torch.from_numpy(row)
    return targets


def _read(item: Item, size: tuple[int, int], channels: int, span: Span, fit: str) -> np.ndarray:
    return fitted(opened(item.image), channels, span, size, fit)


# ---------------------------------------------------------------- what there is to say


def _first(form: str, names: Sequence[str], rows: Mapping[str, list[np.ndarray]]) -> Iterator[str]:
    """Yield sentences on how many boxes there are, how many do not count, and how many images have none."""
    ignored = np.concatenate([row[:, 5] for row in rows["train"]])
    yield f"{form} boxes: {len(names)} classes, {int((ignored == 0).sum())} boxes to train on."
    whole = [row for part in rows.values() for row in part]
    every = np.concatenate([row[:, 5] for row in whole])
    for kind, what in ((DIFFICULT, "objects are marked as difficult"), (CROWD, "boxes hold a crowd")):
        if count := int((every == kind).sum()):
            yield f"{count} {what}: they are not trained on, and in evaluation neither hits nor misses."
    if empty := sum(not (row[:, 5] == 0).any() for row in whole):
        yield f"{empty} of {len(whole)} images have no object that counts; they stay, as nothing is to be found there."


def _small(rows: list[np.ndarray], size: Sequence[int]) -> Iterator[str]:
    """Yield a sentence on boxes that are hardly more than a pixel, if there are some."""
    whole = np.concatenate(rows)
    small = int(((whole[:, 2:4] - whole[:, :2]).min(1) < SMALL).sum())
    if small:
        yield f"{small} of {len(whole)} boxes are narrower than {SMALL:g} pixels at {size[0]}x{size[1]} (dataset.size)."
