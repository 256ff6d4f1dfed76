"""What a run scores on every item of a test set: how it is kept, and the item scores of a metric.

The *item scores* of a metric are numbers, one for each item, whose mean is the metric and whose spread gives the
sampling variance of it to first order: the metric's value plus the influence of each item on it (the infinitesimal
jackknife; Efron, The Jackknife, the Bootstrap and Other Resampling Plans, SIAM 1982, chapter 6). For a metric that is
a mean over items, such as accuracy, they are what each item scores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Arrays = Mapping[str, Any]
SHARES = {"found50": 0.5, "found75": 0.75}
"""Overlap from which on a box counts as found, by name of the metric."""


def of_classes(index: Any, target: Any, correct: Any) -> dict[str, np.ndarray]:
    """Return what a classifier keeps of a test set.

    Args:
        index: (N,) position of each item in the official file.
        target: (N,) class of each item.
        correct: (N,) bool, whether it is the class that was predicted.

    Returns:
        ``item`` int32 (N,), ``target`` uint8 or uint16 (N,), and ``correct``, packed bits, uint8 (N / 8 rounded up,).
    """
    target = np.asarray(target)
    small = np.uint8 if target.max(initial=0) < 256 else np.uint16
    return {"item": _positions(index), "target": target.astype(small), "correct": np.packbits(np.asarray(correct))}


def of_values(index: Any, error: Any, target: Any) -> dict[str, np.ndarray]:
    """Return what a regression keeps of a test set: ``item`` int32, ``error`` (prediction minus truth) float32, and
    ``target`` float64, all (N,), in the unit of the data.
    """
    error, target = np.asarray(error), np.asarray(target)
    return {"item": _positions(index), "error": error.astype(np.float32), "target": target.astype(np.float64)}


def of_scores(index: Any, scores: Arrays) -> dict[str, np.ndarray]:
    """Return what is kept of a test set where item scores are at hand: ``item`` int32 (N,), and those of every metric
    under its name, float32 (N,).
    """
    return {"item": _positions(index), **{name: np.asarray(each).astype(np.float32) for name, each in scores.items()}}


def _positions(index: Any) -> np.ndarray:
    return np.asarray(index).astype(np.int32)


def scores(metric: str, arrays: Arrays) -> np.ndarray | None:
    """Return the item scores of a metric on one test set: float64 (N,), in the order of ``arrays["item"]``.

    None: what was kept does not say, or the metric has no derivative there (G-mean where a class is never found).

    Args:
        metric: its name without the test set, such as ``top1``.
        arrays: what `of_classes`, `of_values` or `of_scores` returned.
    """
    if "correct" in arrays:
        correct = np.unpackbits(arrays["correct"], count=len(arrays["item"])).astype(np.float64)
        return _CLASSES[metric](correct, arrays["target"]) if metric in _CLASSES else None
    if "error" in arrays:
        return _VALUES[metric](arrays["error"].astype(np.float64), arrays["target"]) if metric in _VALUES else None
    if metric in SHARES and "iou" in arrays:
        return (arrays["iou"] >= SHARES[metric]).astype(np.float64)
    return arrays[metric].astype(np.float64) if metric in arrays and metric != "item" else None


def _recalls(correct: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the recalls of the classes that occur, (K,), and the influence of each item on that of its own class."""
    _, place, counts = np.unique(target, return_inverse=True, return_counts=True)
    recalls = np.bincount(place, correct) / counts
    return recalls, (correct - recalls[place]) * len(target) / counts[place]


def _balanced_accuracy(correct: np.ndarray, target: np.ndarray) -> np.ndarray:
    recalls, influence = _recalls(correct, target)
    return recalls.mean() + influence / len(recalls)


def _gmean(correct: np.ndarray, target: np.ndarray) -> np.ndarray | None:
    recalls, influence = _recalls(correct, target)
    if not recalls.all():
        return None
    value = np.exp(np.log(recalls).mean())
    _, place = np.unique(target, return_inverse=True)
    return value * (1 + influence / recalls[place] / len(recalls))


def _r2(error: np.ndarray, target: np.ndarray) -> np.ndarray:
    squares, spread = error**2, (target - target.mean()) ** 2
    share = squares.mean() / spread.mean()
    return 1 - share - (squares - share * spread) / spread.mean()


def _rmse(error: np.ndarray, target: np.ndarray) -> np.ndarray:
    value = np.sqrt((error**2).mean())
    return value + (error**2 - value**2) / (2 * value) if value else np.zeros(len(error))


Found = Callable[[np.ndarray, np.ndarray], np.ndarray | None]
_CLASSES: Mapping[str, Found] = {
    "top1": lambda correct, _: correct,
    "balanced_accuracy": _balanced_accuracy,
    "gmean": _gmean,
}
_VALUES: Mapping[str, Found] = {"r2": _r2, "rmse": _rmse, "mae": lambda error, _: np.abs(error)}
