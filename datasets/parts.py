"""Training, validation and test part of files of one's own: as folders or lists name them, or drawn."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from datasets.splits import stratified_order

T = TypeVar("T")
NAMES = {
    "train": "train", "training": "train",
    "valid": "valid", "val": "valid", "validation": "valid", "dev": "valid",
    "test": "test", "testing": "test",
}  # fmt: skip
"""The part that a folder or a list of this name stands for."""
SHARE = 0.2
"""Of the training images, that a part gets which has no files and no size of its own."""
SEVERAL = 3
"""How many names a message gives of many."""


def divided(
    title: str,
    found: Mapping[str, Sequence[T]],
    train_size: int | None,
    valid_size: float | None,
    test_size: float | None,
    seed: int,
) -> dict[str, list[T]]:
    """Return the items of the three parts, each in the order that it was given in.

    A part that was not found is drawn from the training items, the test first. A smaller part is a part of every larger
    one, and neither training nor test moves with the size of another.

    Args:
        title: what an error message calls the data set.
        found: items by part; `train` at least.
        train_size: how many; None: all that the others leave.
        valid_size, test_size: how many, or a share below 1 of what there is; None: all, or where the part was not
            found, a fifth of what there is to draw from.
        seed: chooses which.

    Raises:
        ValueError: a size cannot be had.
    """
    train, parts = list(found["train"]), {}
    for name, size in (("test", test_size), ("valid", valid_size)):
        own = found.get(name)
        pool = train if own is None else list(own)
        count = _count(size, len(pool), SHARE if own is None else 1)
        most = len(pool) if own is not None else len(train) - (2 if name == "test" else 1)
        if not 1 <= count <= most:
            raise ValueError(
                f"dataset.{name}_size is {'null' if size is None else size}, which is {count} of {len(pool)} images of "
                f"{title}: it must leave 1 or more for every part, so {max(most, 0)} at most here."
            )
        chosen, others = _taken(pool, count, seed)
        parts[name] = chosen
        train = others if own is None else train
    count = len(train) if train_size is None else train_size
    if not 1 <= count <= len(train):
        raise ValueError(f"dataset.train_size is {count}, but {title} has {len(train)} training images.")
    return {"train": _taken(train, count, seed)[0], "valid": parts["valid"], "test": parts["test"]}


def _count(size: float | None, available: int, share: float) -> int:
    if size is None:
        return max(1, round(share * available))
    return round(size * available) if 0 < size < 1 else int(size)


def _taken(items: Sequence[T], count: int, seed: int) -> tuple[list[T], list[T]]:
    """Return so many items of a random order, and the others, each in their own order."""
    order = stratified_order(np.zeros(len(items), dtype=np.int64), seed)
    return [items[row] for row in np.sort(order[:count])], [items[row] for row in np.sort(order[count:])]


def named(items: Sequence[Any]) -> str:
    """Return the first few of many names, as a message gives them.

    >>> named(["a", "b"]), named(list("abcdef"))
    ('a, b', 'a, b, c, ...')
    """
    return ", ".join([*map(str, items[:SEVERAL]), *(["..."] if len(items) > SEVERAL else [])])
