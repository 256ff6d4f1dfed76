"""The diabetes patients that come with scikit-learn: 442 rows, 10 features, no download."""

from pathlib import Path
from typing import Any, Unpack

import numpy as np
from sklearn.datasets import load_diabetes

from datasets import tables
from datasets.tables import TableSplits


def diabetes(
    root: Path | None = None,
    *,
    download: bool = False,
    **common: Unpack[tables.TableSettings],
) -> TableSplits:
    """Progression of the disease after a year (25 to 346), from age, sex, weight, blood pressure and six blood values.

    Args:
        root: Not used; the table is part of scikit-learn. Every data set is called alike.
        download: Not used.
        common: Sizes of the parts and gross errors; see `datasets.tables.TableSettings`.

    Raises:
        ValueError: A size or a share cannot be had.

    Source:
        Efron, Hastie, Johnstone and Tibshirani, Least Angle Regression, Annals of Statistics 32(2), 2004.
    """
    table: Any = load_diabetes(scaled=False)
    return tables.split(
        "diabetes",
        np.asarray(table["data"]),
        np.asarray(table["target"], dtype=np.float32),
        tuple(table["feature_names"]),
        **common,
    )
