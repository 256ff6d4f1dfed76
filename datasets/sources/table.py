"""A table of your own: any CSV file with a column of numbers to predict."""

from pathlib import Path
from typing import Unpack

import numpy as np
import pandas as pd

from datasets import tables
from datasets.files import reads
from datasets.tables import TableSplits


@reads("{path}")
def table(
    root: Path,
    *,
    download: bool = False,
    path: str,
    target: str,
    **common: Unpack[tables.TableSettings],
) -> TableSplits:
    """Rows of a CSV file with a header: columns of numbers as they are, columns of words as one column for each word.

    Args:
        root: Where data lie; a relative ``path`` is looked for there.
        download: Not used.
        path: The file.
        target: Name of the column to predict.
        common: Sizes of the parts and gross errors; see `datasets.tables.TableSettings`.

    Raises:
        MissingData: There is no such file.
        ValueError: It lacks the column, a value is missing, or a size or a share cannot be had.
    """
    features, names, column = tables.read_csv(root, path, target)
    if not pd.api.types.is_numeric_dtype(column):
        raise ValueError(f"the column {target} of {path} holds words, not numbers to predict: use labelled_table.")
    return tables.split(Path(path).name, features, column.to_numpy(dtype=np.float64), names, **common)
