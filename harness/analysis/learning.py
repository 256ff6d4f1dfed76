"""Whether a run learnt, when it passed a threshold, and whether its curve still rose when training ended."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

LEAST_GAIN = 0.1
"""A run that gained less than this share of what the baseline's median run gained over chance is at chance."""
FAR_SHARE, FAR_SPREADS = 0.25, 5.0
"""A run is far below the median of its setting if it lost this share of the gain, and so many robust deviations. Of a
gain that is small itself, hard test items of one seed can take a tenth from any loss."""
LEAST_SPREAD = 0.01
"""Least robust deviation, as a share of the median's gain: a few equal runs have none."""
MAD = 1.4826  # median absolute deviation to standard deviation, for a normal distribution
LAST = 0.25
"""The part of training over which a curve that still rises is sought."""


def learnt(values: ArrayLike, chance: float, typical: float, *, higher_is_better: bool = True) -> NDArray[np.bool_]:
    """Return which runs learnt.

    A run did not learn if it is at chance (its gain over chance is below a tenth of the baseline's), or far below the
    median of its own setting: by a quarter of the median's gain and five robust standard deviations.

    Args:
        values: (n,) scores of the runs of one setting; not-a-numbers did not learn.
        chance: what a constant prediction scores; nan: not known, then only the second rule counts.
        typical: the baseline's median score.
        higher_is_better: direction of the metric.

    >>> learnt([0.75, 0.74, 0.76, 0.75, 0.33], 0.0, 0.75).tolist()
    [True, True, True, True, False]
    """
    sign = 1 if higher_is_better else -1
    v = sign * np.asarray(values, dtype=float)
    good = np.isfinite(v)
    if not good.any():
        return good
    middle = float(np.median(v[good]))
    if math.isfinite(chance):
        good &= ~(v <= sign * chance + LEAST_GAIN * max(0.0, sign * (typical - chance)))
    gain = middle - sign * chance if math.isfinite(chance) else abs(middle)
    if gain > 0 and np.isfinite(v).sum() > 2:
        spread = max(MAD * float(np.median(np.abs(v[np.isfinite(v)] - middle))), LEAST_SPREAD * gain)
        good &= ~((middle - v > FAR_SHARE * gain) & (middle - v > FAR_SPREADS * spread))
    return good


def thresholds(chance: float, final: float, shares: Sequence[float] = (0.9, 0.99)) -> tuple[float, ...]:
    """Return the scores at given shares of the way from chance to a final score (chance 0 where it is not known)."""
    start = chance if math.isfinite(chance) else 0.0
    return tuple(start + share * (final - start) for share in shares)


def last_rise(history: pd.DataFrame, metric: str, *, higher_is_better: bool = True) -> float:
    """Return by how much the best validation score of a run rose over the last quarter of its training; nan for less
    than four epochs.
    """
    values = history[metric].to_numpy(dtype=float) * (1 if higher_is_better else -1)
    values = values[np.isfinite(values)]
    if len(values) < 4:
        return math.nan
    cut = len(values) - max(1, round(LAST * len(values)))
    return float(max(values[cut:].max() - values[:cut].max(), 0.0))


def roughness(history: pd.DataFrame, metric: str) -> float:
    """Return the roughness of a validation curve: twice the mean distance of its points from the line between their
    neighbours, which is the mean absolute second difference where epochs are even (published ones are thinned); nan for
    less than three.

    >>> roughness(pd.DataFrame({"step": [1, 2, 4], "valid.top1": [0.0, 1.0, 0.0]}), "valid.top1")
    2.0
    """
    steps, values = _curve(history, metric)
    if len(values) < 3:
        return math.nan
    share = (steps[1:-1] - steps[:-2]) / (steps[2:] - steps[:-2])
    return float(2 * np.abs(values[1:-1] - values[:-2] - share * (values[2:] - values[:-2])).mean())


def crossing(history: pd.DataFrame, metric: str, threshold: float, *, higher_is_better: bool = True) -> float:
    """Return the step at which a validation curve, drawn with lines between its epochs, first passed a threshold; that
    of the first epoch where this had passed it already; nan: it never did.

    >>> crossing(pd.DataFrame({"step": [10, 20], "valid.top1": [0.5, 0.9]}), "valid.top1", 0.7)
    15.0
    """
    steps, values = _curve(history, metric)
    over = (values - threshold) * (1 if higher_is_better else -1)
    if not (over >= 0).any():
        return math.nan
    i = int(np.argmax(over >= 0))
    return (
        float(steps[0]) if i == 0 else float(steps[i] - over[i] / (over[i] - over[i - 1]) * (steps[i] - steps[i - 1]))
    )


def _curve(history: pd.DataFrame, metric: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    # by NumPy, since a study may have ten thousand curves, and pandas takes half a millisecond for each
    steps, values = (history[name].to_numpy(dtype=float) for name in ("step", metric))
    known = ~np.isnan(values)
    order = np.argsort(steps[known], kind="stable")
    return steps[known][order], values[known][order]
