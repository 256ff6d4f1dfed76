"""What tables with classes hand over: rows of numbers with a class each, in three fixed, stratified splits."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypedDict, Unpack

import numpy as np
import torch
from torch import Tensor

from datasets.splits import check_classes, stratified_order
from datasets.tables import dealt_rows, ends, part_sizes


@dataclass(frozen=True)
class LabelledRows:
    """Rows of a table with a class each.

    Attributes:
        features: float32 (N, F).
        targets: int64 (N,), class of each row.
        index: int64 (N,), position of each row in the whole table, ascending.
    """

    features: Tensor
    targets: Tensor
    index: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, rows: np.ndarray) -> "LabelledRows":
        """The given rows (distinct, any order), in the order of the table."""
        chosen = torch.from_numpy(np.sort(rows))
        return LabelledRows(self.features[chosen], self.targets[chosen], self.index[chosen])


@dataclass(frozen=True)
class LabelledTable:
    """Training, validation and test rows of one table, with the names of its features and classes."""

    train: LabelledRows
    valid: LabelledRows
    test: LabelledRows
    names: tuple[str, ...]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse targets that are no class.

        Raises:
            ValueError: A target is below 0, or as large as the number of classes or larger.
        """
        for name, part in (("train", self.train), ("valid", self.valid), ("test", self.test)):
            check_classes(part.targets, len(self.classes), name)

    @property
    def made_for(self) -> str:
        """Name of the task that these data are for."""
        return "table_classification"

    @property
    def content(self) -> str:
        """What a target is, for messages."""
        return "a class for every row of a table"

    @cached_property
    def checksum(self) -> str:
        """16 hex digits that change when any split gains, loses, changes or relabels a row."""
        digest = hashlib.sha256()
        for part in (self.train, self.valid, self.test):
            plain = (part.index.numpy().astype("<i8"), part.targets.numpy().astype("<i8"), part.features.numpy())
            for numbers in plain:
                digest.update(len(numbers).to_bytes(8, "little"))
                digest.update(np.ascontiguousarray(numbers).tobytes())
        return digest.hexdigest()[:16]


class LabelledTableSettings(TypedDict):
    """What all tables with classes have in common.

    Attributes:
        train_size: Number of training rows; None takes all that the others leave.
        valid_size: Number of validation rows, their share (below 1), or None: a fifth.
        test_size: Number of test rows, likewise.
        split_seed: Chooses which rows; at least 0.
    """

    train_size: int | None
    valid_size: float | None
    test_size: float | None
    split_seed: int


def split(
    name: str, features: np.ndarray, labels: Sequence[object], names: tuple[str, ...],
    dealt: np.ndarray | None = None, **settings: Unpack[LabelledTableSettings],
) -> LabelledTable:  # fmt: skip
    """Divide a table at random, with the same share of every class in each part.

    Test rows come from the beginning of one stratified order, then validation, and training from its end.

    Args:
        name: What an error message calls the table.
        features: (N, F) numbers.
        labels: (N,) class of each row; classes are numbered in the order of their names.
        names: Name of each feature.
        dealt: int64 (N,), the part of each row: 0 trains, 1 is for validation, 2 for the test, others for nothing;
            None: drawn by the split seed.
        settings: Sizes of the parts.

    Raises:
        ValueError: There is only one class, a size cannot be had, or a class is too rare to be trained.
    """
    words = np.array([str(label) for label in labels])
    classes, targets = np.unique(words, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"{name} has only one class, {classes[0]}: there is nothing to tell apart.")
    sizes = part_sizes(
        name, len(words), settings["train_size"], settings["valid_size"], settings["test_size"], len(classes),
        f"each of them needs {len(classes)}, one for each class, or more",
    )  # fmt: skip
    whole = LabelledRows(
        torch.from_numpy(features.astype(np.float32)), torch.from_numpy(targets), torch.arange(len(targets))
    )
    chosen = ends(stratified_order(targets, settings["split_seed"]), sizes) if dealt is None else dealt_rows(dealt)
    train, valid, test = map(whole.take, chosen)
    for what, part in (("training", train), ("validation", valid), ("test", test)):
        for label, count in enumerate(torch.bincount(part.targets, minlength=len(classes)).tolist()):
            if not count:
                raise ValueError(
                    f"the class {classes[label]} of {name} is so rare ({int((targets == label).sum())} rows) that no "
                    f"{what} row has it: leave these rows out of the file, or join the class with another."
                )
    return LabelledTable(
        train=train,
        valid=valid,
        test=test,
        names=names,
        classes=tuple(map(str, classes)),
    )
