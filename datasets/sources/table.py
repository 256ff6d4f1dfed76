"""A table of your own: any CSV or parquet file with a column of numbers to predict."""

from pathlib import Path
from typing import Any, Unpack

import numpy as np

from datasets import tables
from datasets.files import reads
from datasets.tables import TableSplits


class Settings(tables.TableSettings, tables.FileSettings):
    """Sizes of the parts, gross errors, and how the file is written and used."""


@reads("{path}")
def table(root: Path, *, download: bool = False, path: str, target: str, **settings: Unpack[Settings]) -> TableSplits:
    """Rows of a table: columns of numbers standardised, columns of words as one column for each word.

    Args:
        root: Where data lie; a relative ``path`` is looked for there.
        download: Not used.
        path: The file.
        target: Name of the column to predict.
        settings: See `datasets.tables.TableSettings` and `datasets.tables.FileSettings`.

    Raises:
        MissingData: There is no such file, or it is no table.
        ValueError: It lacks a column, one is no feature as it is, a value is missing, or a size cannot be had.
    """
    given, common = tables.divided(settings)
    found = tables.read(root, path, target, given)
    if found.target.kind in ("odd", "date", "nested"):
        raise ValueError(f"the column {target} of {path}, which is to be predicted, {found.target.problem}: mend it.")
    if not np.issubdtype(found.target.cells.dtype, np.number):  # pyright: ignore[reportArgumentType]
        raise ValueError(f"the column {target} of {path} holds words, not numbers to predict: use labelled_table.")
    values = found.target.cells.to_numpy(dtype=np.float64)
    return tables.split(Path(path).name, found.features, values, found.names, found.groups, found.rows, **common)


def proposed(path: Path) -> dict[str, Any] | None:
    """Return settings for a table at a path whose column to predict holds numbers; None: it does not."""
    found = tables.proposed(path)
    return None if found is None or found.labels else found.settings
