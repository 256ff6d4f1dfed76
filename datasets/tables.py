"""What tables hand over: rows of numbers with a value each to predict, in three fixed splits."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, Unpack, cast

import numpy as np
import pandas as pd

from datasets import columns, table_files
from datasets.columns import Column, column
from datasets.splits import MissingData

MISSING = ("stop", "drop", "fill")


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
        valid_size: Number of validation rows, or their share (below 1).
        test_size: Number of test rows, or their share, likewise.
        split_seed: Chooses which rows; at least 0.
        outliers: Share of training values that are gross errors, at least 0 and below 0.5; a larger share keeps the
            errors of a smaller one.
        outlier_size: By how many of the training values' standard deviations gross errors are too high.
    """

    train_size: int | None
    valid_size: float
    test_size: float
    split_seed: int
    outliers: float
    outlier_size: float


class FileSettings(TypedDict):
    """How a table of one's own is written, and which of its columns are used for what.

    Attributes:
        separator: Between the cells of a row; None: found out.
        decimal: `.` or `,`; None: found out.
        header: Whether the first row has the names of the columns; None: found out. Without, they are `column_1`, ...
        encoding: As Python calls it; None: found out.
        missing: What a missing value does: `stop`, `drop` the row, or `fill` it.
        missing_words: What stands for a missing value beside an empty cell, `?`, `-`, `NA`, `nan`, `null`, `none`.
        drop: Columns that are no features.
        keep: Columns that are features although they look like an identifier, a date or a constant.
        group: Column whose equal values stay in one part, and which is no feature; None: there is none.
    """

    separator: str | None
    decimal: str | None
    header: bool | None
    encoding: str | None
    missing: str
    missing_words: Sequence[str]
    drop: Sequence[str]
    keep: Sequence[str]
    group: str | None


class Table(NamedTuple):
    """A table of one's own, as it was read.

    Attributes:
        features: float32 (N, F).
        names: Name of each feature.
        target: The column to predict, none missing.
        groups: int64 (N,), number of the group of each row; None: there are none.
        rows: int64 (N,), position of each row in the file.
    """

    features: np.ndarray
    names: tuple[str, ...]
    target: Column
    groups: np.ndarray | None
    rows: np.ndarray


def cells(file: Path, given: FileSettings) -> tuple[pd.DataFrame, table_files.Form]:
    """Return all cells of a table and how it is written; missing ones are NA.

    Raises:
        MissingData: There is no such file, or it is no table.
    """
    form = table_files.Form(given["separator"], given["decimal"], given["header"], given["encoding"])
    frame, found = table_files.read(file, form)
    if words := {word.strip().lower() for word in given["missing_words"]}:
        frame = frame.mask(frame.apply(lambda column: column.astype("str").str.lower().isin(words)))
    return frame, found


def read(root: Path, path: str, target: str, given: FileSettings) -> Table:
    """Read a table of one's own.

    Args:
        root: Where a relative ``path`` is looked for.
        path: The file.
        target: Name of the column to predict.
        given: How it is written, and which columns are used.

    Raises:
        MissingData: There is no such file, or it is no table.
        ValueError: It lacks a column, or one is no feature as it is; the sentence names the settings that help.
    """
    file = root / path
    frame, form = cells(file, given)
    _check_columns(file, frame, form, target, given)
    found = column(target, frame[target])
    if found.missing and given["missing"] == "stop":
        raise ValueError(
            f"{found.missing} of {len(frame)} rows of {file} lack {target}, which is to be predicted: leave them out "
            "with dataset.missing=drop."
        )
    taken = {target, given["group"], *given["drop"]}
    features = [column(name, frame[name]) for name in frame.columns if name not in taken]
    columns.check(file.name, features, given["keep"], given["missing"])
    complete = frame[target].notna()
    if given["missing"] == "drop":
        complete &= frame[[each.name for each in features]].notna().all(axis=1)
    rows = np.flatnonzero(complete.to_numpy(dtype=bool))
    if not len(rows):
        raise ValueError(f"every row of {file} lacks a value: use dataset.missing=fill.")
    kept = [replace(each, cells=each.cells.iloc[rows]) for each in features]
    numbers, names = columns.features(kept)
    group = None if given["group"] is None else pd.factorize(frame[given["group"]].iloc[rows])[0]
    return Table(numbers, names, replace(found, cells=found.cells.iloc[rows]), group, rows)


OF_FILES = tuple(FileSettings.__annotations__)


def divided(settings: Any) -> tuple[FileSettings, Any]:
    """Return the settings of a file, and the others."""
    given = {name: settings[name] for name in OF_FILES}
    return cast(FileSettings, given), {name: value for name, value in settings.items() if name not in given}


def labels(target: Column, path: str) -> list[str]:
    """Return the class of each row as a text; whole numbers are written as such.

    Raises:
        ValueError: The column holds something else, or hardly two rows of one class.
    """
    cells = target.cells
    if target.kind in ("nested", "date"):
        raise ValueError(f"the column {target.name} of {path}, which has the classes, {target.problem}.")
    if pd.api.types.is_numeric_dtype(cells):
        numbers = cells.to_numpy(dtype=np.float64)
        if (numbers != np.floor(numbers)).any():
            raise ValueError(
                f"the column {target.name} of {path} holds numbers with fractions, not classes: use dataset=table."
            )
        found = [str(int(number)) for number in numbers]
    else:
        found = [str(cell) for cell in cells]
    if len(set(found)) > max(2, len(found) // 2):
        raise ValueError(
            f"the column {target.name} of {path} has {len(set(found))} different values in {len(found)} rows, which "
            "are no classes: for numbers to predict use task=regression dataset=table."
        )
    return found


class Proposal(NamedTuple):
    """Settings of a table that was looked at, and whether it has classes to predict."""

    settings: dict[str, Any]
    labels: bool


MOST_CLASSES = 20
"""Different whole numbers up to which a column is taken for one of classes."""
TARGETS = ("target", "label", "class", "y", "outcome", "diagnosis", "species", "price", "quality")
"""Names of a column that is likely to be predicted; else it is the last one."""


def proposed(path: Path, given: Mapping[str, Any] | None = None) -> Proposal | None:
    """Return settings for the table at a path: the column to predict, columns to leave out, what to do about gaps.

    Args:
        path: A file.
        given: Settings that need not be guessed.

    Raises:
        MissingData: It looks like a table, but cannot be read.
    """
    if path.suffix.lower() not in table_files.SUFFIXES or not path.is_file():
        return None
    defaults: dict[str, Any] = {
        "separator": None,
        "decimal": None,
        "header": None,
        "encoding": None,
        "missing_words": [],
    }
    known = {**defaults, **(given or {})}
    frame, _ = cells(path, cast(FileSettings, known))
    target = known.get("target") or next((n for n in frame.columns if n.lower() in TARGETS), frame.columns[-1])
    if target not in frame.columns:
        raise MissingData(
            f"{path} has no column {target}: set dataset.target to one of {', '.join(frame.columns[:30])}."
        )
    settings: dict[str, Any] = {"target": target}
    taken = {target, known.get("group")}
    looked = [column(name, frame[name]) for name in frame.columns if name not in taken]
    if drop := [each.name for each in looked if each.problem and each.kind != "odd"]:
        settings["drop"] = drop
    if frame.drop(columns=drop).isna().any(axis=None):
        settings["missing"] = "drop" if frame[target].isna().any() else "fill"
    found = column(target, frame[target])
    whole = pd.api.types.is_numeric_dtype(found.cells) and bool((found.cells.dropna() % 1 == 0).all())
    words = not pd.api.types.is_numeric_dtype(found.cells)
    return Proposal(settings, words or (whole and found.cells.nunique() <= MOST_CLASSES))


def _check_columns(file: Path, frame: pd.DataFrame, form: table_files.Form, target: str, given: FileSettings) -> None:
    """Raise a ValueError with the nearest remedy where a setting names a column that is not there."""
    shown = ", ".join(map(str, frame.columns[:30])) + (", ..." if frame.shape[1] > 30 else "")
    heads = "" if form.header else " (its first row holds numbers: dataset.header=true if these are names)"
    if frame.shape[1] < 2:
        raise ValueError(
            f"{file} has one column alone with {form.words}{heads}: set dataset.separator to what divides its cells."
        )
    named = {"drop": given["drop"], "keep": given["keep"], "group": [given["group"]] if given["group"] else []}
    if target not in frame.columns:
        raise ValueError(f"{file} has no column {target}{heads}: set dataset.target to one of {shown}.")
    for setting, names in named.items():
        for name in names:
            if name not in frame.columns:
                raise ValueError(f"{file} has no column {name}, which dataset.{setting} names: there are {shown}.")
    if given["missing"] not in MISSING:
        raise ValueError(f"dataset.missing is {given['missing']}: use {', '.join(MISSING[:-1])} or {MISSING[-1]}.")


def part_sizes(
    name: str, rows: int, train: int | None, valid: float, test: float, least: int, why: str
) -> tuple[int, int, int]:
    """Return how many rows train, validate and test.

    Args:
        name: What an error message calls the table.
        rows: Of the table.
        train: Number of training rows; None: all that the others leave.
        valid, test: Numbers, or shares of all rows (below 1).
        least: Rows that validation and test need.
        why: What for, as the end of a sentence.

    Raises:
        ValueError: There are too few; the sentence says which sizes would do.
    """
    valid_size, test_size = (round(size * rows) if 0 < size < 1 else int(size) for size in (valid, test))
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


def grouped_parts(
    name: str, groups: np.ndarray, strata: np.ndarray, sizes: tuple[int, int, int], seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the rows of training, validation and test, nothing of a group in two of them.

    Groups come in an order drawn by the seed, the large ones first; each goes where it brings the parts nearest to the
    share of every class that they should have. Sizes are met as nearly as groups allow; rows that no part asks for
    train nothing.

    Args:
        name: What an error message calls the table.
        groups: int64 (N,), number of the group of each row.
        strata: int64 (N,), class of each row; zeros where there is none.
        sizes: Rows of training, validation and test.
        seed: At least 0.

    Raises:
        ValueError: There are fewer groups than parts.
    """
    count = int(groups.max()) + 1
    if count < 3:
        raise ValueError(
            f"{name} has {count} groups, but training, validation and test need one each: leave dataset.group out."
        )
    table = np.zeros((count, int(strata.max()) + 1))
    np.add.at(table, (groups, strata), 1)
    spare = len(groups) - sum(sizes)
    lacking = np.outer([*sizes, spare], table.sum(0) / len(groups))
    lottery, weights = np.random.PCG64([seed, 2]).random_raw(count), table.sum(0) ** 2
    open_parts, left = [0, 1, 2], count
    where = np.empty(count, dtype=np.int64)
    for group in np.lexsort((lottery, -table.sum(1))):
        gain = lacking @ (table[group] / weights)
        part = max(open_parts if left <= len(open_parts) else range(4), key=gain.__getitem__)
        where[group], lacking[part], left = part, lacking[part] - table[group], left - 1
        open_parts = [each for each in open_parts if each != part]
    train, valid, test, _ = (np.flatnonzero(where[groups] == part) for part in range(4))
    return train, valid, test


def split(
    name: str,
    features: np.ndarray,
    values: np.ndarray,
    names: tuple[str, ...],
    groups: np.ndarray | None = None,
    rows: np.ndarray | None = None,
    **common: Unpack[TableSettings],
) -> TableSplits:
    """Divide a table at random: test rows from the beginning of one order, then validation, training from its end.

    Args:
        name: What an error message calls the table.
        features: (N, F) numbers.
        values: (N,) numbers to predict, float32 or float64.
        names: Name of each feature.
        groups: int64 (N,), number of the group of each row, nothing of which is in two parts; None: there are none.
        rows: int64 (N,), position of each row in its file; None: they are in order.
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
    index = np.arange(len(values)) if rows is None else rows
    whole = Rows(features.astype(np.float32), values, index)
    if groups is None:
        order = np.argsort(np.random.PCG64(split_seed).random_raw(len(values)), kind="stable")
        chosen = order[len(order) - sizes[0] :], order[sizes[2] : sizes[2] + sizes[1]], order[: sizes[2]]
    else:
        chosen = grouped_parts(name, groups, np.zeros(len(values), dtype=np.int64), sizes, split_seed)
    train, valid, test = map(whole.take, chosen)
    for what, part in (("validation", valid), ("test", test)):
        if len(np.unique(part.values)) < 2:
            raise ValueError(
                f"all {len(part)} {what} rows of {name} have the same value, so that R2 is undefined: take more."
            )
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
