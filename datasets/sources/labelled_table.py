"""A table of your own with a column of classes: any CSV or parquet file."""

from pathlib import Path
from typing import Any, Unpack

from datasets import labelled_tables, tables
from datasets.files import reads
from datasets.labelled_tables import LabelledTable, LabelledTableSettings


class Settings(LabelledTableSettings, tables.FileSettings):
    """Sizes of the parts, and how the file is written and used."""


@reads("{path}")
def labelled_table(
    root: Path, *, download: bool = False, path: str, target: str, **settings: Unpack[Settings]
) -> LabelledTable:
    """Rows of a table: columns of numbers standardised, columns of words as one column for each word.

    Args:
        root: Where data lie; a relative ``path`` is looked for there.
        download: Not used.
        path: The file.
        target: Name of the column of classes, words or whole numbers.
        settings: See `datasets.labelled_tables.LabelledTableSettings` and `datasets.tables.FileSettings`.

    Raises:
        MissingData: There is no such file, or it is no table.
        ValueError: It lacks a column, one is no feature as it is, a value is missing, or a size cannot be had.
    """
    given, common = tables.divided(settings)
    found = tables.read(root, path, target, given)
    labels = tables.labels(found.target, path)
    name = Path(path).name
    return labelled_tables.split(name, found.features, labels, found.names, found.groups, found.rows, **common)


def proposed(path: Path) -> dict[str, Any] | None:
    """Return settings for a table at a path whose column to predict holds classes; None: it does not."""
    found = tables.proposed(path)
    return found.settings if found is not None and found.labels else None
