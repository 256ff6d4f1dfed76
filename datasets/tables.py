"""What tables hand over: rows of numbers with a value each to predict, in three fixed splits."""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TypedDict, Unpack

import numpy as np
import pandas as pd

from datasets.splits import MissingData


@dataclass(frozen=True)
class Rows:
    """Rows of a table.

    Attributes:
        features: float32 (N, F).
        values: float32 (N,), what is predicted.
        index: int64 (N,), position of each row in the whole table, ascending.
    """

    features: np.ndarray
    values: np.ndarray
    index: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: np.ndarray) -> "Rows":
        """The given rows (distinct, any order), in the order of the table."""
        chosen = np.sort(rows)
        return Rows(self.features[chosen], self.values[chosen], self.index[chosen])


@dataclass(frozen=True)
class TableSplits:
    """Training, validation and test rows of one table, with the names of its features.

    Attributes:
        clean: Training rows without gross errors.
        gross: Share and size of the gross errors among training values, as in `TableSettings`.
    """

    train: Rows
    valid: Rows
    test: Rows
    names: tuple[str, ...]
    clean: Rows
    gross: tuple[float, float]

    @property
    def made_for(self) -> str:
        """Name of the task that these data are for."""
        return "regression"

    @property
    def content(self) -> str:
        """What a target is, for messages."""
        return "a number to predict for every row of a table"

    @cached_property
    def checksum(self) -> str:
        """16 hex digits that change when any split gains, loses or changes a row."""
        digest = hashlib.sha256()
        for part in (self.train, self.valid, self.test):
            for numbers in (part.index.astype("<i8"), part.values.astype("<f4"), part.features.astype("<f4")):
                digest.update(len(numbers).to_bytes(8, "little"))
                digest.update(np.ascontiguousarray(numbers).tobytes())
        return digest.hexdigest()[:16]


class TableSettings(TypedDict):
    """What all tables have in common.

    Attributes:
        train_size: Number of training rows; None takes all that the others leave.
        valid_size: Number of validation rows.
        test_size: Number of test rows.
        split_seed: Chooses which rows; at least 0.
        outliers: Share of training values that are gross errors, at least 0 and below 0.5; a larger share keeps the
            errors of a smaller one.
        outlier_size: By how many of the training values' standard deviations gross errors are too high.
    """

    train_size: int | None
    valid_size: int
    test_size: int
    split_seed: int
    outliers: float
    outlier_size: float


def read_csv(root: Path, path: str, target: str) -> tuple[np.ndarray, tuple[str, ...], pd.Series]:
    """Read a CSV file with a header; columns of words become one column of 0 and 1 for each word.

    Args:
        root: Where a relative ``path`` is looked for.
        path: The file.
        target: Name of the column to predict.

    Returns:
        Features, float64 (N, F); the name of each; the column to predict, as it is.

    Raises:
        MissingData: There is no such file.
        ValueError: It lacks the column, or a value is missing.
    """
    file = root / path
    if not file.is_file():
        raise MissingData(f"the table {file} does not exist: give dataset.path, relative to data.root or absolute.")
    frame = pd.read_csv(file)
    if target not in frame.columns:
        raise ValueError(f"{file} has no column {target}: set dataset.target to one of {', '.join(frame.columns)}.")
    if (lacking := int(frame.isna().any(axis=1).sum())) > 0:
        raise ValueError(f"{lacking} of {len(frame)} rows of {file} lack a value: fill or remove them first.")
    features = pd.get_dummies(frame.drop(columns=target), dtype=float)
    return features.to_numpy(dtype=np.float64), tuple(map(str, features.columns)), frame[target]


def split(
    name: str,
    features: np.ndarray,
    values: np.ndarray,
    names: tuple[str, ...],
    **common: Unpack[TableSettings],
) -> TableSplits:
    """Divide a table at random: test rows from the beginning of one order, then validation, training from its end.

    Args:
        name: What an error message calls the table.
        features: (N, F) numbers.
        values: (N,) numbers to predict.
        names: Name of each feature.
        common: Sizes of the parts and gross errors.

    Raises:
        ValueError: A size or a share cannot be had.
    """
    valid_size, test_size, split_seed = common["valid_size"], common["test_size"], common["split_seed"]
    outliers = common["outliers"]
    most = len(values) - valid_size - test_size
    train_size = most if common["train_size"] is None else common["train_size"]
    for what, size in (("train_size", train_size), ("valid_size", valid_size), ("test_size", test_size)):
        if size < 1 or most < 1 or train_size > most:
            raise ValueError(
                f"{what} is {size}, but {name} has {len(values)} rows in all; each part needs one or more."
            )
    if not 0 <= outliers < 0.5:
        raise ValueError(f"outliers is {outliers}; it must be at least 0 and below 0.5.")
    if split_seed < 0:
        raise ValueError(f"split_seed is {split_seed}; it must not be negative.")
    whole = Rows(features.astype(np.float32), values.astype(np.float32), np.arange(len(values)))
    order = np.argsort(np.random.PCG64(split_seed).random_raw(len(values)), kind="stable")
    train = whole.take(order[len(order) - train_size :])
    return TableSplits(
        train=with_outliers(train, outliers, common["outlier_size"], split_seed),
        valid=whole.take(order[test_size : test_size + valid_size]),
        test=whole.take(order[:test_size]),
        names=names,
        clean=train,
        gross=(outliers, common["outlier_size"]),
    )


def with_outliers(train: Rows, share: float, size: float, seed: int) -> Rows:
    """Return rows of which some values are gross errors; a larger share keeps the errors of a smaller one.

    Args:
        train: Rows without gross errors.
        share: Of values that are wrong, at least 0 and below 0.5.
        size: How far too high they are, in standard deviations of all values.
        seed: Chooses which; at least 0.
    """
    if not share:
        return train
    lottery = np.random.PCG64([seed, 1]).random_raw(int(train.index.max()) + 1)[train.index]
    wrong = np.argsort(lottery, kind="stable")[: round(share * len(train))]
    values = train.values.copy()
    values[wrong] += np.float32(size * train.values.std())
    return replace(train, values=values)
