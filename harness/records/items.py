"""What a run scored on every test item, in its folder: items.npz, arrays named ``<test set>/<name>``.

A test set is ``test`` or ``shifted.<name>``; `harness.metrics.items` says what the arrays are.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from harness.records.store import load_arrays, whole

NAME = "items.npz"


def save(folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write the arrays into the folder of a run; a process that is killed meanwhile leaves nothing under the name."""
    with whole(folder / NAME) as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def load(folder: Path) -> dict[str, np.ndarray] | None:
    """Return the arrays in the folder of a run, or None if it kept none or they are damaged, which is then said."""
    return load_arrays(folder / NAME)


def of_test_set(arrays: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """Return the arrays of one test set by their name within it, as `harness.metrics.items.scores` takes them.

    >>> of_test_set({"test/item": np.arange(2), "shifted.blur/item": np.arange(3)}, "test")
    {'item': array([0, 1])}
    """
    return {key.partition("/")[2]: array for key, array in arrays.items() if key.partition("/")[0] == name}
