"""Splits by seed: all items of a data set in one pool, and parts of the same sizes drawn anew for every run.

Comparisons over seeds then also range over which items are trained on and which are judged.
"""

import dataclasses
import hashlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datasets.by_class import ClassSplits
from datasets.decoded import Decoded
from datasets.splits import stratified_order
from datasets.tables import TableSplits, with_outliers

PARTS = ("train", "valid", "test")


def combined(*seeds: int) -> int:
    """Return a 63-bit seed that is another one for other seeds, in another order too."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, seeds)).encode()).digest()[:8], "big") >> 1


def redrawn(splits: Any, seed: int) -> Any:
    """Return splits of the same kind, sizes and classes, with their items drawn anew out of all of theirs.

    Parts are stratified where every item has a class; masks, boxes and numbers are drawn without. Where parts share no
    class, classes are drawn instead of items. ``index`` of a part then says which item of the pool it is, whatever part
    it lies in: the pool has the items of training, then validation, then test, as they were. Gross errors of a table
    are drawn anew too, for the new training rows alone. What only the parts kept apart, such as the walls and digits of
    composed scenes, is no longer apart.

    Args:
        splits: Splits of a data set: of images, of boxes, by class, or of a table.
        seed: Chooses; that of a run.
    """
    if isinstance(splits, ClassSplits):
        return _by_class(splits, seed)
    parts = [getattr(splits, name) for name in PARTS]
    if isinstance(splits, TableSplits):
        parts[0] = splits.clean
    pool = pooled(parts)
    targets, strata = getattr(pool, "targets", None), np.zeros(len(pool), dtype=np.int64)
    if isinstance(targets, Tensor) and targets.ndim == 1:
        strata = targets.numpy()
    order = stratified_order(strata, combined(seed, 0))
    ends = np.cumsum([len(part) for part in reversed(parts)])
    test, valid, train = (pool.take(rows) for rows in np.split(order, ends[:-1]))
    if isinstance(splits, TableSplits):
        share, size = splits.gross
        dirty = with_outliers(train, share, size, combined(seed, 1))
        return dataclasses.replace(splits, train=dirty, valid=valid, test=test, clean=train)
    return dataclasses.replace(splits, train=train, valid=valid, test=test)


def pooled(parts: list[Any]) -> Any:
    """Return all items of several parts, one after the other; ``index`` counts them."""
    names = [field.name for field in dataclasses.fields(parts[0]) if field.name != "index"]
    joined = {name: _joined([getattr(part, name) for part in parts]) for name in names}
    index = parts[0].index
    count = sum(map(len, parts))
    return type(parts[0])(**joined, index=torch.arange(count) if isinstance(index, Tensor) else np.arange(count))


def _joined(arrays: list[Any]) -> Any:
    if isinstance(arrays[0], Decoded):  # which may be read in different ways
        items = tuple((array.read, item) for array in arrays for item in array.items)
        return Decoded(items, _read, arrays[0].item_shape)
    return torch.cat(arrays) if isinstance(arrays[0], Tensor) else np.concatenate(arrays)


def _read(item: Any) -> np.ndarray:
    read, what = item
    return read(what)


def _by_class(splits: ClassSplits, seed: int) -> ClassSplits:
    """Return splits that share no class, as many classes in each as before, but others."""
    pool, unseen = pooled([getattr(splits, name) for name in PARTS]), splits.unseen or {}
    names = [*splits.classes, *unseen["valid"], *unseen["test"]]
    labels, targets = np.unique(pool.targets.numpy(), return_inverse=True)
    order = np.argsort(np.random.PCG64(combined(seed, 0)).random_raw(len(labels)), kind="stable")
    ends = np.cumsum([len(splits.classes), len(unseen["valid"])])
    rank = torch.from_numpy(np.argsort(order)[targets])
    pool = dataclasses.replace(pool, targets=rank)  # classes of training come first, as ever
    parts = [pool.take(np.isin(rank.numpy(), chosen).nonzero()[0]) for chosen in np.split(np.arange(len(order)), ends)]
    train, valid, test = (tuple(names[label] for label in chosen) for chosen in np.split(order, ends))
    given = dict(zip(PARTS, parts, strict=True))
    return dataclasses.replace(splits, **given, classes=train, unseen={"valid": valid, "test": test})
