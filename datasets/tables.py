"""What tables hand over: rows of numbers with a value each to predict, in three fixed splits."""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypedDict, Unpack

import numpy as np

SHARE = 0.2
"""Of all rows, that validation and test each take unless told otherwise."""


@dataclass(frozen=True)
class Rows:
    """Rows of a table.

    Attributes:
        features: float32 (N, F).
        values: float32 (N,), what is predicted, or float64 where float32 could not hold small differences of it.
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
            values = part.values.astype(part.values.dtype.newbyteorder("<"))
            for numbers in (part.index.astype("<i8"), values, part.features.astype("<f4")):
                digest.update(len(numbers).to_bytes(8, "little"))
                digest.update(np.ascontiguousarray(numbers).tobytes())
        return digest.hexdigest()[:16]


class TableSettings(TypedDict):
    """What all tables have in common.

    Attributes:
        train_size: Number of training rows; None takes all that the others leave.
        valid_size: Number of validation rows, their share (below 1), or None: a fifth.
        test_size: Number of test rows, likewise.
        split_seed: Chooses which rows; at least 0.
        outliers: Share of training values that are gross errors, at least 0 and below 0.5; a larger share keeps the
            errors of a smaller one.
        outlier_size: By how many of the training values' standard deviations gross errors are too high.
    """

    train_size: int | None
    valid_size: float | None
    test_size: float | None
    split_seed: int
    outliers: float
    outlier_size: float


def part_sizes(
    name: str, rows: int, train: int | None, valid: float | None, test: float | None, least: int, why: str
) -> tuple[int, int, int]:
    """Return how many rows train, validate and test.

    Args:
        name: What an error message calls the table.
        rows: Of the table.
        train: Number of training rows; None: all that the others leave.
        valid, test: Numbers, shares of all rows (below 1), or None: `SHARE`.
        least: Rows that validation and test need.
        why: What for, as the end of a sentence.

    Raises:
        ValueError: There are too few; the sentence says which sizes would do.
    """
    shares = (SHARE if size is None else size for size in (valid, test))
    valid_size, test_size = (round(size * rows) if 0 < size < 1 else int(size) for size in shares)
    most = rows - valid_size - test_size
    train_size = most if train is None else train
    for what, size, needed in (
        ("train_size", train_size, 1),
        ("valid_size", valid_size, least),
        ("test_size", test_size, least),
    ):
        if size < needed or train_size > most:
            raise ValueError(
                f"{what} is {size}, but {name} has {rows} rows in all, of which validation takes {valid_size} and the "
                f"test {test_size}; {why}. Shares fit any table: dataset.valid_size=0.2 dataset.test_size=0.2."
            )
    return train_size, valid_size, test_size


def ends(order: np.ndarray, sizes: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the rows of training, from the end of an order; of validation; and of the test, from its beginning."""
    train, valid, test = sizes
    return order[len(order) - train :], order[test : test + valid], order[:test]


def dealt_rows(dealt: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the rows of training, validation and test from the part of each row (0, 1, 2)."""
    train, valid, test = (np.flatnonzero(dealt == part) for part in range(3))
    return train, valid, test


def split(
    name: str,
    features: np.ndarray,
    values: np.ndarray,
    names: tuple[str, ...],
    dealt: np.ndarray | None = None,
    **common: Unpack[TableSettings],
) -> TableSplits:
    """Divide a table at random: test rows from the beginning of one order, then validation, training from its end.

    Args:
        name: What an error message calls the table.
        features: (N, F) numbers.
        values: (N,) numbers to predict, float32 or float64.
        names: Name of each feature.
        dealt: int64 (N,), the part of each row: 0 trains, 1 is for validation, 2 for the test, others for nothing;
            None: drawn by the split seed.
        common: Sizes of the parts and gross errors.

    Raises:
        ValueError: A size or a share cannot be had.
    """
    split_seed, outliers = common["split_seed"], common["outliers"]
    if not 0 <= outliers < 0.5:
        raise ValueError(f"outliers is {outliers}; it must be at least 0 and below 0.5.")
    if split_seed < 0:
        raise ValueError(f"split_seed is {split_seed}; it must not be negative.")
    sizes = part_sizes(
        name, len(values), common["train_size"], common["valid_size"], common["test_size"], 2,
        "a score of validation or test, such as R2, needs two rows at least",
    )  # fmt: skip
    whole = Rows(features.astype(np.float32), values, np.arange(len(values)))
    order = np.argsort(np.random.PCG64(split_seed).random_raw(len(values)), kind="stable")
    train, valid, test = map(whole.take, ends(order, sizes) if dealt is None else dealt_rows(dealt))
    return TableSplits(
        train=with_outliers(train, outliers, common["outlier_size"], split_seed),
        valid=valid,
        test=test,
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
