"""Metrics of predicted numbers."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from harness.metrics import items


class RunningErrors:
    """Predicted and true numbers of a split, one of each per row: quantiles and variances need all of them."""

    def __init__(self) -> None:
        self.kept: list[Tensor] = []

    def add(self, values: Tensor, truth: Tensor) -> None:
        """Take a batch: predictions (N,) and true numbers (N,)."""
        self.kept.append(torch.stack([values, truth]))

    def items(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """Return what is kept of every row, in the order in which they came (`harness.metrics.items.of_values`).

        Args:
            index: (N,) position of each in the table.
        """
        values, truth = torch.cat(self.kept, 1).cpu().numpy()
        return items.of_values(index, values - truth, truth)

    def scores(self) -> dict[str, float]:
        """Return the metrics of :func:`metrics`."""
        return metrics(*torch.cat(self.kept, 1))


def metrics(values: Tensor, truth: Tensor) -> dict[str, float]:
    """Return the metrics of predicted numbers.

    Args:
        values: (N,) predictions.
        truth: (N,) numbers, not all equal.

    Returns:
        ``r2`` (share of the variance that is explained; 1 at best, 0 for the mean), ``rmse``, ``mae`` and ``mdae``
        (root mean squared, mean and median absolute error) in the unit of the numbers.
    """
    error = values - truth
    squares = error.square()
    scalars = (
        1 - squares.sum() / (truth - truth.mean()).square().sum(),
        squares.mean().sqrt(),
        error.abs().mean(),
        error.abs().quantile(0.5),
    )
    return dict(zip(("r2", "rmse", "mae", "mdae"), torch.stack(scalars).tolist(), strict=True))
