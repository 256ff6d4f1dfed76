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
        valid_size: Number of validation rows.
        test_size: Number of test rows.
        split_seed: Chooses which rows; at least 0.
    """

    train_size: int | None
    valid_size: int
    test_size: int
    split_seed: int


def split(
    name: str, features: np.ndarray, labels: Sequence[object], names: tuple[str, ...],
    **settings: Unpack[LabelledTableSettings],
) -> LabelledTable:  # fmt: skip
    """Divide a table at random, with the same share of every class in each part.

    Test rows come from the beginning of one stratified order, then validation, and training from its end.

    Args:
        name: What an error message calls the table.
        features: (N, F) numbers.
        labels: (N,) class of each row; classes are numbered in the order of their names.
        names: Name of each feature.
        settings: Sizes of the parts.

    Raises:
        ValueError: There is only one class, a size cannot be had, or a class is too rare to be trained.
    """
    words = np.array([str(label) for label in labels])
    classes, targets = np.unique(words, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"{name} has only one class, {classes[0]}: there is nothing to tell apart.")
    valid_size, test_size = settings["valid_size"], settings["test_size"]
    most = len(words) - valid_size - test_size
    train_size = most if settings["train_size"] is None else settings["train_size"]
    for what, size in (("train_size", train_size), ("valid_size", valid_size), ("test_size", test_size)):
        if size < len(classes) or train_size > most:
            raise ValueError(
                f"{what} is {size}, but {name} has {len(words)} rows in all, and each part needs {len(classes)}, one "
                "for each class, or more."
            )
    whole = LabelledRows(
        torch.from_numpy(features.astype(np.float32)), torch.from_numpy(targets), torch.arange(len(targets))
    )
    order = stratified_order(targets, settings["split_seed"])
    train = whole.take(order[len(order) - train_size :])
    for label, count in enumerate(torch.bincount(train.targets, minlength=len(classes)).tolist()):
        if not count:
            raise ValueError(f"the class {classes[label]} of {name} is so rare that no training row has it: remove it.")
    return LabelledTable(
        train=train,
        valid=whole.take(order[test_size : test_size + valid_size]),
        test=whole.take(order[:test_size]),
        names=names,
        classes=tuple(map(str, classes)),
    )
