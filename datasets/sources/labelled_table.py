"""A table of your own with a column of classes: any CSV file."""

from pathlib import Path
from typing import Unpack

from datasets import labelled_tables, tables
from datasets.files import reads
from datasets.labelled_tables import LabelledTable, LabelledTableSettings


@reads("{path}")
def labelled_table(
    root: Path, *, download: bool = False, path: str, target: str, **common: Unpack[LabelledTableSettings]
) -> LabelledTable:
    """Rows of a CSV file with a header: columns of numbers as they are, columns of words as one column for each word.

    Args:
        root: Where data lie; a relative ``path`` is looked for there.
        download: Not used.
        path: The file.
        target: Name of the column of classes, words or numbers.
        common: Sizes of the parts; see `datasets.labelled_tables.LabelledTableSettings`.

    Raises:
        MissingData: There is no such file.
        ValueError: It lacks the column, a value is missing, or a size cannot be had.
    """
    features, names, labels = tables.read_csv(root, path, target)
    return labelled_tables.split(Path(path).name, features, list(labels), names, **common)
