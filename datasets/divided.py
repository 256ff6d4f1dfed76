"""Parts of a data set of images: those that there are, and those that are drawn from the training images."""

from typing import TypedDict

import numpy as np

from datasets.grouped import OwnSplits, deal, entries, numbers, strata
from datasets.pixels import some
from datasets.splits import Images, MissingData, check_size, stratified_order
from datasets.tagged import TaggedSplits

SHARE = 0.2
"""Of the images that are left, where a part is not there and has no size."""


class Sizes(TypedDict):
    """How many images each part has.

    Attributes:
        train_size: Number of training images; None takes all that are left.
        valid_size: Number of validation images, or their share (below 1); None takes all, or a fifth of the training
            images where there are none.
        test_size: Number of test images, or their share, likewise.
        split_seed: Chooses which images; at least 0.
    """

    train_size: int | None
    valid_size: float | None
    test_size: float | None
    split_seed: int


def divided(
    name: str,
    parts: dict[str, Images],
    classes: tuple[str, ...],
    sizes: Sizes,
    *,
    groups: bool = False,
    several: bool = False,
) -> OwnSplits:
    """Return the splits; what is drawn comes from the beginning of a stratified order, and training from its end.

    Args:
        name: of the data set, for messages.
        parts: ``train``, and ``valid`` and ``test`` where there are such; absent ones are drawn from ``train``.
        classes: their names.
        sizes: of the parts.
        groups: whether images have a group, which must not stand in two parts.
        several: whether an image may have any number of classes.

    Raises:
        MissingData: there are too few images or groups.
        ValueError: a size cannot be had.
    """
    seed, given = sizes["split_seed"], set(parts)
    least = 1 if groups or several else len(classes)
    if groups:
        parts = _dealt(name, parts, len(classes), sizes)
    elif len(parts["train"]) < (drawn := 4 - len(given)) * least:
        raise MissingData(
            f"{name} has {len(parts['train'])} images of {len(classes)} classes, to train on and to draw the other "
            f"parts from; there must be {drawn * least} at least, {drawn} of each class."
        )
    pool, chosen = parts["train"], {}
    for part in ("test", "valid"):
        setting, size = f"{part}_size", sizes["test_size" if part == "test" else "valid_size"]
        if part in given:
            count = _count(size, len(parts[part]), 1)
            check_size(name, setting, count, least, len(parts[part]))
            chosen[part] = parts[part].take(stratified_order(strata(parts[part]), seed)[:count])
        elif groups:
            chosen[part] = parts[part]
        else:
            count = _count(size, len(pool), SHARE, least)
            check_size(name, setting, count, least, len(pool) - (1 if "valid" in given or chosen else 2) * least)
            order = stratified_order(strata(pool), seed)
            chosen[part], pool = pool.take(order[:count]), pool.take(order[count:])
    if sizes["train_size"] is not None:
        check_size(name, "train_size", sizes["train_size"], len(classes), len(pool))
        order = stratified_order(strata(pool), seed)
        pool = pool.take(order[: sizes["train_size"]])
    if lacking := [label for label, count in zip(classes, pool.class_counts(len(classes)), strict=True) if not count]:
        raise ValueError(f"{name} has no training image of {some(lacking)}: add some, or remove the others.")
    kind = TaggedSplits if several else OwnSplits
    return kind(pool, chosen["valid"], chosen["test"], classes, groups=groups)


def _dealt(name: str, parts: dict[str, Images], classes: int, sizes: Sizes) -> dict[str, Images]:
    """Return all three parts, those that were missing dealt out of the training images by whole groups."""
    pool, shares, left = parts["train"], {}, 1.0
    for part_name, size in (("test", sizes["test_size"]), ("valid", sizes["valid_size"])):
        if part_name not in parts:
            count = _count(size, round(left * len(pool)), SHARE)
            check_size(name, f"{part_name}_size", count, 1, len(pool) - 1)
            shares[part_name] = count / len(pool)
            left -= shares[part_name]
    if not shares:
        return parts
    of_group = numbers(entries([pool]))
    if of_group.max() < len(shares):
        raise MissingData(f"{name} has {of_group.max() + 1} groups for {len(shares) + 1} parts; there must be more.")
    where = deal(of_group, strata(pool), (left, *shares.values()), sizes["split_seed"])
    drawn = [pool.take(np.flatnonzero(where == number)) for number in np.arange(len(shares) + 1)]
    if not all(map(len, drawn)) or not drawn[0].class_counts(classes).all():
        raise MissingData(
            f"the {of_group.max() + 1} groups of {name} cannot be divided so that every part has images and training "
            "has every class: a class may stand in one group alone."
        )
    return {**parts, "train": drawn[0], **dict(zip(shares, drawn[1:], strict=True))}


def _count(size: float | None, available: int, share: float, least: int = 0) -> int:
    """Return a number of images from a number, a share below 1, or None for a given share, but no fewer than least."""
    if size is None:
        return max(least, round(share * available))
    size = size * available if 0 < size < 1 else size
    return round(size)
