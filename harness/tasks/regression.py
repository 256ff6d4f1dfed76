"""Regression: one number per row of a table."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import get_method
from torch import Tensor

from datasets.tables import TableSplits
from harness.errors import UsageError
from harness.tasks import DataSetup

NORMAL_QUARTILES = 1.349  # distance of a normal distribution's quartiles, in standard deviations


class Regression:
    """Rows with a number each. Features have mean 0 and deviation 1; losses see numbers less their median and in units
    of their spread, both judged by quartiles of the training part, which gross errors hardly move.

    Args:
        setup: which table; ``channels_last`` is not used.
        robustness: refused; it is measured for classifiers.

    Raises:
        UsageError: the data set is no table.
    """

    takes = frozenset({"values"})
    judges = frozenset({"values"})
    selects = "r2"
    dense = False
    decode = None

    def __init__(self, setup: DataSetup, robustness: Mapping[str, float] | None = None) -> None:
        if robustness is not None:
            raise UsageError("robustness is measured for image classifiers; leave out the robustness settings here.")
        if "stress" in setup.dataset:
            raise UsageError("stress changes labels of images; tables have dataset.outliers and dataset.train_size.")
        self.device = device = setup.device
        self.splits = load(setup.dataset, setup.data)
        train = self.splits.train
        mean, deviation = train.features.mean(0), train.features.std(0)
        low, self.middle, high = (float(x) for x in np.quantile(train.values, (0.25, 0.5, 0.75)))
        self.spread = max((high - low) / NORMAL_QUARTILES, 1e-6 * max(1.0, abs(self.middle)))
        self.inputs, self.targets = {}, {}
        for name in ("train", "valid", "test"):
            part = getattr(self.splits, name)
            inputs = (part.features - mean) / np.where(deviation > 0, deviation, 1)
            self.inputs[name] = torch.from_numpy(inputs)[:, :, None, None].to(device)
            self.targets[name] = torch.from_numpy((part.values - self.middle) / self.spread)[:, None].float().to(device)
        self.model_shape = {"in_channels": train.features.shape[1], "image_size": 1, "num_classes": 1}

    @property
    def class_counts(self) -> Tensor:
        """Numbers have no classes."""
        raise UsageError("a loss that weighs classes cannot be trained on numbers: choose another loss or task.")

    def steps_per_epoch(self, batch_size: int) -> int:
        """Return the number of whole batches in the training part (at least one)."""
        return max(1, len(self.targets["train"]) // batch_size)

    def epoch(
        self, batch_size: int, order_seed: int, augment_seed: int, first: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (rows, numbers) in a new order; the remainder that fills no batch is left out of this epoch."""
        inputs, targets = self.inputs["train"], self.targets["train"]
        order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(order_seed)).to(self.device)
        for step in range(first, self.steps_per_epoch(batch_size)):
            chosen = order[step * batch_size : (step + 1) * batch_size]
            yield inputs[chosen], targets[chosen]

    def probe(self, count: int) -> tuple[Tensor, Tensor]:
        """Return the first ``count`` validation rows and their numbers."""
        return self.inputs["valid"][:count], self.targets["valid"][:count]

    def mask(self, target: Tensor) -> None:
        """Return None: every row counts."""

    def evaluate(self, split: str, predict: Callable[[Tensor], Tensor], link: str, batch_size: int) -> dict[str, Any]:
        """Return what `metrics` says, in the unit of the table."""
        found = torch.cat([predict(part) for part in self.inputs[split].split(batch_size)])
        values, truth = (x[:, 0].double() * self.spread + self.middle for x in (found, self.targets[split]))
        return metrics(values, truth)

    def examples(self, predict: Callable[[Tensor], Tensor]) -> None:
        """Return None: numbers are told by the metrics."""

    def describe(self) -> dict[str, Any]:
        """Return the sizes of the parts, the names of the features, and the checksum of all of it."""
        counts = {name: len(target) for name, target in self.targets.items()}
        return {**counts, "features": list(self.splits.names), "checksum": self.splits.checksum}


def metrics(values: Tensor, truth: Tensor) -> dict[str, float]:
    """Judge predicted numbers.

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


def load(dataset: Mapping[str, Any], data: Mapping[str, Any]) -> TableSplits:
    """Return the splits of a table.

    Raises:
        UsageError: the data set has images.
    """
    settings = {name: value for name, value in dataset.items() if name not in ("_target_", "augment")}
    splits = _load(dataset["_target_"], str(data["root"]), bool(data["download"]), json.dumps(settings))
    if not isinstance(splits, TableSplits):
        name = dataset["_target_"].rpartition(".")[2]
        raise UsageError(f"the data set {name} has images, not a number to predict for every row: use another task.")
    return splits


@functools.lru_cache(maxsize=2)  # a warm worker meets the same data again and again
def _load(target: str, root: str, download: bool, settings: str) -> Any:
    return get_method(target)(Path(root), download=download, **json.loads(settings))
