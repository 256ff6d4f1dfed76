"""A table of your own: any CSV or parquet file with a column of numbers to predict."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from datasets import own_tables, tables
from datasets.files import reads
from datasets.own_tables import OwnTable


class Settings(tables.TableSettings, own_tables.FileSettings):
    """Sizes of the parts, gross errors, and how the file is written and used."""


@reads("{path}")
def table(root: Path, *, download: bool = False, path: str, target: str, **settings: Unpack[Settings]) -> OwnTable:
    """Rows of a table: columns of numbers standardised, columns of words as one column for each word.

    Args:
        root: Where data lie; a relative ``path`` is looked for there.
        download: Not used.
        path: The file.
        target: Name of the column to predict.
        settings: See `datasets.tables.TableSettings` and `datasets.own_tables.FileSettings`.

    Raises:
        MissingData: There is no such file, or it is no table.
        ValueError: It lacks a column, one is no feature as it is, a value is missing, or a size cannot be had.
    """
    given, common = own_tables.divided(settings)
    found = own_tables.read(root, path, target, given)
    if found.target.kind in ("odd", "date", "nested"):
        raise ValueError(f"the column {target} of {path}, which is to be predicted, {found.target.problem}: mend it.")
    if not np.issubdtype(found.target.cells.dtype, np.number):  # pyright: ignore[reportArgumentType]
        raise ValueError(f"the column {target} of {path} holds words, not numbers to predict: use labelled_table.")
    name, values = Path(path).name, found.target.cells.to_numpy(dtype=np.float64)
    parts = own_tables.dealt(name, found, np.zeros(len(values), dtype=np.int64), common, 2)
    splits = tables.split(name, found.features, values, found.names, parts, **common)
    for what, part in (("validation", splits.valid), ("test", splits.test)):
        if len(np.unique(part.values)) < 2:
            raise ValueError(f"all {what} rows of {name} have the same value, so that R2 is undefined: take more rows.")
    return OwnTable(**vars(splits), notes=found.notes, groups=found.groups)


def proposed(path: Path, given: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """Return settings for a table at a path whose column to predict holds numbers; None: it does not.

    Args:
        path: The file.
        given: Settings that need not be guessed, such as `target`.

    Raises:
        MissingData: It looks like a table, but cannot be read.
    """
    found = own_tables.proposed(path, given or {})
    return None if found is None or found.labels else found.settings
