"""Any folder of images and masks."""

import contextlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Unpack

from datasets import colours as coloured
from datasets import masks, paired
from datasets.files import reads
from datasets.grouped import OwnSplits
from datasets.parts import OwnSettings, divided, groups_of, span_of
from datasets.pixels import opened, some
from datasets.splits import VOID, Images, MissingData, Splits

SIDE = 128
"""The shorter side of the size that is proposed, in pixels."""
LARGEST = 8192
"""Side beyond which masks are not looked at ahead of training: whether they fit into memory is for a feed to say."""
STEP = 32
"""Of proposed sides, so that models can halve them."""


@reads("{path}")
def folder(
    root: Path,
    *,
    download: bool = False,
    path: str,
    images: str | None,
    masks_in: str | None,
    mask_suffix: str | None,
    classes: Sequence[str] | None,
    colours: Mapping[str, int | Sequence[int]] | None,
    tolerance: float | None,
    binary: bool,
    void: Sequence[int],
    **common: Unpack[OwnSettings],
) -> OwnSplits:
    """Images and their masks, in folders of parts, divided by lists, or drawn.

    `datasets.paired.find` says which names and folders are understood. A mask holds class numbers (255: void), or
    colours in a table, or there is a mask file for each class.

    Args:
        root: Folder of all data sets.
        download: Not used.
        path: Folder of this data set, below `root` or absolute.
        images: Folder of the images, below `path` or its parts; None: as its name says.
        masks_in: Folder of the masks, likewise.
        mask_suffix: What the name of a mask has after that of its image, such as `_mask.png`; None: any.
        classes: Name of each class, from 0 on; None: what the masks hold, or the table names.
        colours: Colour (red, green, blue, or a grey value) of each class in the masks, by its name; `void` belongs to
            none. None: masks hold class numbers.
        tolerance: How far a pixel may be from the colour of its class (Euclidean distance); None: not at all, in JPEG
            files up to half of the least distance between two classes; what is further off is void.
        binary: Whether every value of a mask but 0 means class 1.
        void: Further values of masks that mean void.
        common: See `datasets.parts.OwnSettings`.

    Raises:
        MissingData: There is no such folder, or a file is missing, broken or wrong.
        ValueError: A setting is out of its range, masks hold what cannot be classes, or a class has no training pixel.
    """
    home, skip = root / path, common["damaged"] == "skip"
    found = paired.find(home, images, masks_in, mask_suffix)
    skipped = _unusable(found, skip)
    names, form = _meaning(found, home, classes, colours, binary, void)
    form |= {"void": tuple(void), "tolerance": tolerance}
    read, grouped = _read(found, home, names, form, common)
    _check_classes(read, path)
    skipped += read.skipped
    if skipped:
        count = len(found.pairs) + len(found.alone)
        found.notes.append(f"dataset.damaged=skip left out {len(skipped)} of {count} images: {some(skipped)}.")
    return OwnSplits(**read.parts, classes=names, skipped=tuple(skipped), notes=tuple(found.notes), groups=grouped)


def _read(
    found: paired.Found, home: Path, names: tuple[str, ...], form: Mapping[str, Any], common: OwnSettings
) -> tuple[Splits, bool]:
    """Return the three parts, and whether they keep groups together."""
    images = {name: [each.image for each in part] for name, part in found.parts.items()}
    groups, said = groups_of(images, common["group"])
    found.notes += said
    belongs = (lambda each: groups[each.image]) if groups else None
    parts = divided(home.name, found.parts, common, belongs)
    read = masks.read_splits(
        home.name,
        *([_pair(each, home, names, groups) for each in parts[name]] for name in ("train", "valid", "test")),
        names,
        size=common["size"],
        damaged=common["damaged"],
        train_size=None,
        valid_size=None,
        test_size=None,
        split_seed=common["split_seed"],
        channels=1 if common["grey"] else 3,
        own=True,
        span=span_of([each.image for each in parts["train"]]),
        **form,
    )
    return read, bool(groups)


def _unusable(found: paired.Found, skip: bool) -> list[str]:
    """Return what is wrong with images that have no mask, where they are skipped; look at all files where not.

    Raises:
        MissingData: an image has no mask, or one of another size, or a file is none; the sentence counts them.
    """
    alone = [f"{path.name} has no mask" for path in found.alone]
    if skip:
        return alone
    count = len(found.pairs) + len(alone)
    if alone:
        raise MissingData(
            f"{len(alone)} of {count} images have no mask ({some([path.name for path in found.alone])}); give them "
            "one, or leave them out with dataset.damaged=skip."
        )
    with ThreadPoolExecutor() as pool:  # headers are waited for, not computed
        wrong = [problem for problem in pool.map(_differing, found.pairs) if problem]
    if wrong:
        raise MissingData(
            f"{len(wrong)} of {count} images cannot be used with their masks: {some(wrong)}; mend or remove them, or "
            "leave such pairs out with dataset.damaged=skip."
        )
    return []


def _differing(pair: paired.Paired) -> str | None:
    """Return what is wrong with the headers of an image and its masks, or None."""
    try:
        size = opened(pair.image, load=False).size
        for _, file in pair.masks:
            if (other := opened(file, load=False).size) != size:
                return f"{file.name} has {other[0]}x{other[1]} pixels, but {pair.image.name} {size[0]}x{size[1]}"
    except MissingData as error:
        return str(error).partition(";")[0]
    return None


def _meaning(
    found: paired.Found,
    home: Path,
    classes: Sequence[str] | None,
    colours: Mapping[str, int | Sequence[int]] | None,
    binary: bool,
    void: Sequence[int],
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Return the names of the classes, and how masks show them, as `datasets.masks.Form` takes it.

    Raises:
        ValueError: masks hold something else than the settings say.
    """
    names, form = None, {}
    if found.layers:
        names = ("background", *(layer for layer in found.layers if layer.lower() != "background"))
        found.notes.append(f"each class has mask files of its own: {', '.join(names)}.")
    elif colours is not None:
        names, form["table"] = coloured.table_of(colours)
    if names is not None:
        if classes is not None and set(classes) != set(names):
            what = "their mask files show" if found.layers else "dataset.colours names"
            raise ValueError(
                f"dataset.classes is {list(classes)}, but {what} {list(names)}: leave it to null, or name the same."
            )
        return tuple(classes) if found.layers and classes is not None else names, form
    held = coloured.contents([pair.masks[0][1] for pair in found.pairs])
    for value in void:
        held.numbers.pop(value, None)
    if held.blurred:
        found.notes.append(
            "masks are JPEG files, which blur values: each pixel takes the nearest one, and is void if that is far off."
        )
    if binary:
        names = tuple(classes or ("background", "object"))
        if len(names) != 2:
            raise ValueError(f"dataset.binary=true is for two classes, but dataset.classes is {list(names)}.")
        return names, {"binary": True}
    known = coloured.described(home)
    if classes is None:
        learnt = coloured.understood(held, known)
        found.notes.append(f"understood from {held.files} masks: {coloured.overrides(learnt)}.")
        if "colours" in learnt:
            names, form["table"] = coloured.table_of(learnt["colours"])
            return names, form
        return tuple(learnt["classes"]), {"binary": learnt.get("binary", False)}
    if (advice := _other_than_numbers(held, known, len(classes))) is not None:
        raise ValueError(advice)
    return tuple(classes), {}


def _other_than_numbers(held: coloured.Contents, known: Mapping[str, Any], classes: int) -> str | None:
    """Return the sentence that says what to set where masks hold something else than class numbers, or None."""
    values = set(held.numbers)
    if not held.colours and not held.blurred and all(value < classes or value == VOID for value in values):
        if values == {0, VOID}:
            return (
                "masks hold the values 0 and 255 alone, and 255 means void: set dataset.binary=true if every value "
                "but 0 is the object."
            )
        return None
    learnt = coloured.understood(held, known)
    what = "colours" if held.colours else "values that JPEG blurs" if held.blurred else f"values up to {max(values)}"
    count = len(learnt["colours"] if "colours" in learnt else learnt["classes"])
    return (
        f"masks hold {what}, which are no numbers from 0 to {classes - 1}: with dataset.classes=null they are "
        f"understood as {count} classes; to name them yourself, set {coloured.overrides(learnt)} with your names in it."
    )


def _pair(each: paired.Paired, home: Path, names: tuple[str, ...], groups: Mapping[Path, str]) -> masks.ImageMask:
    layers = tuple((names.index(label), file) for label, file in each.masks if label) if each.masks[0][0] else ()
    return masks.ImageMask(
        each.image, each.masks[0][1], home, layers=tuple(sorted(layers)), group=groups.get(each.image, "")
    )


def _check_classes(splits: Splits, path: str) -> None:
    """Raise a ValueError if a class has no pixel to be trained on."""
    if max(splits.train.shape[1:]) > LARGEST:
        return
    counts = splits.train.class_counts(len(splits.classes)).tolist()
    absent = [name for name, count in zip(splits.classes, counts, strict=True) if not count]
    if not absent:
        return
    others = [name for name, part in list(splits.parts.items())[1:] if _has(part, splits.classes, absent[0])]
    where = f", though masks of {' and '.join(others)} do" if others else ""
    height, width = splits.train.shape[1:]
    raise ValueError(
        f"none of the {len(splits.train)} training masks of {path} shows {some(absent)} at {height}x{width} pixels"
        f"{where}: leave the class out of dataset.classes (or dataset.colours), or use more images, a larger "
        "dataset.size or another dataset.split_seed."
    )


def _has(part: Images, classes: tuple[str, ...], name: str) -> bool:
    return bool(part.class_counts(len(classes))[classes.index(name)])


def proposed(path: Path) -> dict[str, Any] | None:
    """Return the settings of this data set for a folder of images and masks, None where it is no such folder.

    They are those that differ from the defaults: `size`, about `SIDE` pixels on the shorter side, and `classes`,
    `colours` or `binary` as the masks ask for.

    Raises:
        MissingData: images and masks are there, but what masks hold cannot be classes.
    """
    try:
        found = paired.find(path)
    except MissingData:
        return None
    settings: dict[str, Any] = {"size": _proposed_size(found)}
    if not found.layers:
        held = coloured.contents([pair.masks[0][1] for pair in found.pairs], most=coloured.GLANCED_AT)
        try:
            settings |= coloured.understood(held, coloured.described(path))
        except ValueError as error:
            raise MissingData(f"{path}: {error}") from error
    return settings


def _proposed_size(found: paired.Found) -> list[int]:
    """Return height and width of the middle one of a few images, made smaller, to multiples of `STEP`."""
    sizes = []
    for pair in found.pairs[:: max(1, len(found.pairs) // 20)]:
        with contextlib.suppress(MissingData):
            sizes.append(opened(pair.image, load=False).size[::-1])
    height, width = sorted(sizes)[len(sizes) // 2] if sizes else (SIDE, SIDE)
    scale = min(1.0, SIDE / min(height, width))
    return [max(STEP, round(side * scale / STEP) * STEP) for side in (height, width)]
