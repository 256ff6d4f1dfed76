"""The breast tumours that come with scikit-learn: 569 rows, 30 features, 2 classes, no download."""

from pathlib import Path
from typing import Any, Unpack

import numpy as np
from sklearn.datasets import load_breast_cancer

from datasets import labelled_tables
from datasets.labelled_tables import LabelledTable, LabelledTableSettings


def breast_cancer(
    root: Path | None = None, *, download: bool = False, **common: Unpack[LabelledTableSettings]
) -> LabelledTable:
    """Benign (357) and malignant (212) tumours, from the size and shape of cell nuclei under the microscope.

    Args:
        root: Not used; the table is part of scikit-learn. Every data set is called alike.
        download: Not used.
        common: Sizes of the parts; see `datasets.labelled_tables.LabelledTableSettings`.

    Raises:
        ValueError: A size cannot be had.

    Source:
        Street, Wolberg and Mangasarian, Nuclear Feature Extraction for Breast Tumor Diagnosis, SPIE 1905, 1993.
    """
    table: Any = load_breast_cancer()
    labels = np.asarray(table["target_names"])[np.asarray(table["target"])]
    names = tuple(map(str, table["feature_names"]))
    return labelled_tables.split("breast_cancer", np.asarray(table["data"]), list(labels), names, **common)
