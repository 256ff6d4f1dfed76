"""Tables of one's own: how the file is written, which columns are used for what, and parts that share no group."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, cast

import numpy as np
import pandas as pd

from datasets import columns, grouped, table_files, tables
from datasets.columns import Column, column
from datasets.labelled_tables import LabelledTable
from datasets.redraw import combined, pooled, redrawn
from datasets.splits import MissingData
from datasets.tables import TableSplits

MISSING = ("stop", "drop", "fill")


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
        notes: What was understood, in sentences.
    """

    features: np.ndarray
    names: tuple[str, ...]
    target: Column
    groups: np.ndarray | None
    notes: tuple[str, ...]


def dealt(name: str, found: Table, strata: np.ndarray, settings: Mapping[str, Any], least: int) -> np.ndarray | None:
    """Return the part of each row (0 trains, 1 validation, 2 test, 3 none), whole groups; None: there are no groups.

    Args:
        name: What an error message calls the table.
        found: The table.
        strata: int64 (N,), class of each row; zeros where there is none.
        settings: Sizes of the parts and the seed.
        least: Rows that validation and test need.

    Raises:
        ValueError: There are too few rows, or too few groups.
    """
    if found.groups is None:
        return None
    sizes = tables.part_sizes(
        name, len(strata), settings["train_size"], settings["valid_size"], settings["test_size"], least,
        "validation and test need some",
    )  # fmt: skip
    shares = [*map(float, sizes), *([float(spare)] if (spare := len(strata) - sum(sizes)) else [])]
    parts = grouped.deal(found.groups, strata, tuple(shares), settings["split_seed"])
    if len({0, 1, 2} & set(parts.tolist())) < 3:
        raise ValueError(
            f"{name} has {int(found.groups.max()) + 1} groups, too few for training, validation and test to have some "
            "each: leave dataset.group out, or group by something finer."
        )
    return parts


@dataclass(frozen=True)
class OwnTable(TableSplits):
    """A table of one's own with numbers to predict.

    Attributes:
        notes: What was understood, in sentences for the terminal.
        groups: int64 (N,), group of each row of the table by its index; None: there are none.
    """

    notes: tuple[str, ...] = ()
    groups: np.ndarray | None = None

    def redrawn(self, seed: int) -> "OwnTable":
        """Return the same table with parts drawn anew out of all of its rows; whole groups, where there are groups."""
        if self.groups is None:
            return redrawn(self, seed)
        parts = [self.clean, self.valid, self.test]
        pool, where = pooled(parts), _dealt_anew(parts, self.groups, None, seed)
        train, valid, test = map(pool.take, tables.dealt_rows(where))
        dirty = tables.with_outliers(train, *self.gross, combined(seed, 1))
        return replace(self, train=dirty, valid=valid, test=test, clean=train)


@dataclass(frozen=True)
class OwnLabelledTable(LabelledTable):
    """A table of one's own with classes.

    Attributes:
        notes: What was understood, in sentences for the terminal.
        groups: int64 (N,), group of each row of the table by its index; None: there are none.
    """

    notes: tuple[str, ...] = ()
    groups: np.ndarray | None = None

    def redrawn(self, seed: int) -> "OwnLabelledTable":
        """Return the same table with parts drawn anew out of all of its rows; whole groups, where there are groups."""
        if self.groups is None:
            return redrawn(self, seed)
        parts = [self.train, self.valid, self.test]
        pool = pooled(parts)
        where = _dealt_anew(parts, self.groups, pool.targets.numpy(), seed)
        train, valid, test = map(pool.take, tables.dealt_rows(where))
        return replace(self, train=train, valid=valid, test=test)


def _dealt_anew(parts: list[Any], groups: np.ndarray, strata: np.ndarray | None, seed: int) -> np.ndarray:
    index = np.concatenate([np.asarray(part.index) for part in parts])
    strata = np.zeros(len(index), dtype=np.int64) if strata is None else strata
    own = np.unique(groups[index], return_inverse=True)[1]
    return grouped.deal(own, strata, tuple(float(len(part)) for part in parts), combined(seed, 0))


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
    group = None
    if given["group"] is not None:
        group = pd.factorize(frame[given["group"]].iloc[rows])[0]
        if (group < 0).any():
            raise ValueError(
                f"{int((group < 0).sum())} rows of {file} have no {given['group']}, which is dataset.group."
            )
    notes = [f"{file.name} was read with {form.words}: {len(frame):,} rows, {frame.shape[1]} columns."]
    if len(rows) < len(frame):
        notes.append(f"{len(frame) - len(rows):,} rows were left out because a value is missing.")
    elif gaps := sum(each.missing for each in features):
        notes.append(f"{gaps:,} missing values were filled.")
    return Table(numbers, names, replace(found, cells=found.cells.iloc[rows]), group, tuple(notes))


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


def proposed(path: Path, given: Mapping[str, Any]) -> Proposal | None:
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
    known = {**defaults, **given}
    frame, _ = cells(path, cast(FileSettings, known))
    target = known.get("target") or next((n for n in frame.columns if n.lower() in TARGETS), frame.columns[-1])
    if target not in frame.columns:
        raise MissingData(
            f"{path} has no column {target}: set dataset.target to one of {', '.join(frame.columns[:30])}."
        )
    settings: dict[str, Any] = {"target": target}
    taken = {target, known.get("group"), *known.get("drop", ()), *known.get("keep", ())}
    looked = [column(name, frame[name]) for name in frame.columns if name not in taken]
    if drop := [each.name for each in looked if each.problem and each.kind != "odd"]:
        settings["drop"] = [*known.get("drop", ()), *drop]
    if frame.drop(columns=[*drop, *known.get("drop", ())]).isna().any(axis=None):
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
