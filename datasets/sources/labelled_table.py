"""A table of your own with a column of classes: any CSV or parquet file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from datasets import labelled_tables, own_tables
from datasets.files import reads
from datasets.labelled_tables import LabelledTableSettings
from datasets.own_tables import OwnLabelledTable


class Settings(LabelledTableSettings, own_tables.FileSettings):
    """Sizes of the parts, and how the file is written and used."""


@reads("{path}")
def labelled_table(
    root: Path, *, download: bool = False, path: str, target: str, **settings: Unpack[Settings]
) -> OwnLabelledTable:
    """Rows of a table: columns of numbers standardised, columns of words as one column for each word.

    Args:
        root: Where data lie; a relative ``path`` is looked for there.
        download: Not used.
        path: The file.
        target: Name of the column of classes, words or whole numbers.
        settings: See `datasets.labelled_tables.LabelledTableSettings` and `datasets.own_tables.FileSettings`.

    Raises:
        MissingData: There is no such file, or it is no table.
        ValueError: It lacks a column, one is no feature as it is, a value is missing, or a size cannot be had.
    """
    given, common = own_tables.divided(settings)
    found = own_tables.read(root, path, target, given)
    labels = own_tables.labels(found.target, path)
    name, (classes, strata) = Path(path).name, np.unique(labels, return_inverse=True)
    parts = own_tables.dealt(name, found, strata, common, len(classes))
    splits = labelled_tables.split(name, found.features, labels, found.names, parts, **common)
    return OwnLabelledTable(**vars(splits), notes=found.notes, groups=found.groups)


def proposed(path: Path, given: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """Return settings for a table at a path whose column to predict holds classes; None: it does not.

    Args:
        path: The file.
        given: Settings that need not be guessed, such as `target`.

    Raises:
        MissingData: It looks like a table, but cannot be read.
    """
    found = own_tables.proposed(path, given or {})
    return found.settings if found is not None and found.labels else None
