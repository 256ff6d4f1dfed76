"""The diabetes patients that come with scikit-learn: 442 rows, 10 features, no download."""

from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_diabetes

from datasets.tables import TableSplits, split


def diabetes(
    root: Path | None = None,
    *,
    download: bool = False,
    train_size: int | None,
    valid_size: int,
    test_size: int,
    split_seed: int,
    outliers: float,
    outlier_size: float,
) -> TableSplits:
    """Progression of the disease after a year (25 to 346), from age, sex, weight, blood pressure and six blood values.

    Args:
        root: Not used; the table is part of scikit-learn. Every data set is called alike.
        download: Not used.
        train_size: Number of training rows; None takes all that the others leave.
        valid_size: Number of validation rows.
        test_size: Number of test rows.
        split_seed: Chooses which rows; at least 0.
        outliers: Share of training values that are gross errors.
        outlier_size: By how many standard deviations gross errors are too high.

    Raises:
        ValueError: A size or a share cannot be had.

    Source:
        Efron, Hastie, Johnstone and Tibshirani, Least Angle Regression, Annals of Statistics 32(2), 2004.
    """
    table: Any = load_diabetes(scaled=False)
    return split(
        "diabetes",
        np.asarray(table["data"]),
        np.asarray(table["target"]),
        tuple(table["feature_names"]),
        train_size=train_size,
        valid_size=valid_size,
        test_size=test_size,
        split_seed=split_seed,
        outliers=outliers,
        outlier_size=outlier_size,
    )
