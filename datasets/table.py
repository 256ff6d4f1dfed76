"""A table of your own: any CSV file with a column of numbers to predict."""

from pathlib import Path

import numpy as np
import pandas as pd

from datasets.splits import MissingData
from datasets.tables import TableSplits, split


def table(
    root: Path,
    *,
    download: bool = False,
    path: str,
    target: str,
    train_size: int | None,
    valid_size: int,
    test_size: int,
    split_seed: int,
    outliers: float,
    outlier_size: float,
) -> TableSplits:
    """Rows of a CSV file with a header: columns of numbers as they are, columns of words as one column for each word.

    Args:
        root: Where data lie; a relative ``path`` is looked for there.
        download: Not used.
        path: The file.
        target: Name of the column to predict.
        train_size: Number of training rows; None takes all that the others leave.
        valid_size: Number of validation rows.
        test_size: Number of test rows.
        split_seed: Chooses which rows; at least 0.
        outliers: Share of training values that are gross errors.
        outlier_size: By how many standard deviations gross errors are too high.

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
    return split(
        file.name,
        features.to_numpy(dtype=np.float64),
        frame[target].to_numpy(dtype=np.float64),
        tuple(map(str, features.columns)),
        train_size=train_size,
        valid_size=valid_size,
        test_size=test_size,
        split_seed=split_seed,
        outliers=outliers,
        outlier_size=outlier_size,
    )
