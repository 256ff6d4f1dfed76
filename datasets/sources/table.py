"""A table of your own: any CSV file with a column of numbers to predict."""

from pathlib import Path
from typing import Unpack

import numpy as np
import pandas as pd

from datasets import tables
from datasets.files import reads
from datasets.splits import MissingData
from datasets.tables import TableSplits


@reads("{path}")
def table(
    root: Path,
    *,
    download: bool = False,
    path: str,
    target: str,
    **common: Unpack[tables.Common],
) -> TableSplits:
    """Rows of a CSV file with a header: columns of numbers as they are, columns of words as one column for each word.

    Args:
        root: Where data lie; a relative ``path`` is looked for there.
        download: Not used.
        path: The file.
        target: Name of the column to predict.
        common: Sizes of the parts and gross errors; see `datasets.tables.Common`.

    Raises:
        MissingData: There is no such file.
        ValueError: It lacks the column, a value is missing, or a size or a share cannot be had.
    """
    file = root / path
    if not file.is_file():
        raise MissingData(f"the table {file} does not exist: give dataset.path, relative to data.root or absolute.")
    frame = pd.read_csv(file)
    if target not in frame.columns:
        raise ValueError(f"{file} has no column {target}: set dataset.target to one of {', '.join(frame.columns)}.")
    if (lacking := int(frame.isna().any(axis=1).sum())) > 0:
        raise ValueError(f"{lacking} of {len(frame)} rows of {file} lack a value: fill or remove them first.")
    if not pd.api.types.is_numeric_dtype(frame[target]):
        raise ValueError(f"the column {target} of {file} holds words, not numbers to predict.")
    features = pd.get_dummies(frame.drop(columns=target), dtype=float)
    return tables.split(
        file.name,
        features.to_numpy(dtype=np.float64),
        frame[target].to_numpy(dtype=np.float64),
        tuple(map(str, features.columns)),
        **common,
    )
