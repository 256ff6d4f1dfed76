"""Regression: one number per row of a table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.errors import UsageError
from harness.feeds import check_suited, splits_for
from harness.metrics import declared
from harness.metrics.regression import RunningErrors, metrics
from harness.tasks import Batch, Predict, Seeds, Setup, Shift, Spec, Task
from losses.kinds import Pair, Pairs

NORMAL_QUARTILES = 1.349  # distance of a normal distribution's quartiles, in standard deviations

TRIVIAL = "the mean of training (for absolute errors, the median)"


class Regression(Task):
    """Rows with a number each. Features have mean 0 and standard deviation 1; losses see numbers less their median and
    in units of their spread, both from quartiles of the training part, which gross errors hardly move.

    Raises:
        UsageError: the data set is no table.
    """

    offers = frozenset({"values", "counts", "distributions"})
    evaluates = offers
    metrics = declared.REGRESSION

    def __init__(self, setup: Setup) -> None:
        self.splits, self.setup = splits_for(setup), setup
        check_suited(self.splits, "regression", setup)
        self.device = device = setup.device
        train = self.splits.train
        mean, deviation = train.features.mean(0), train.features.std(0)
        low, self.middle, high = (float(x) for x in np.quantile(train.values, (0.25, 0.5, 0.75)))
        self.spread = max((high - low) / NORMAL_QUARTILES, 1e-6 * max(1.0, abs(self.middle)))
        self.inputs, self.targets = {}, {}
        for name in ("train", "valid", "test"):
            part = getattr(self.splits, name)
            inputs = (part.features - mean) / np.where(deviation > 0, deviation, 1)
            self.inputs[name] = torch.from_numpy(inputs).to(device)
            self.targets[name] = torch.from_numpy((part.values - self.middle) / self.spread)[:, None].float().to(device)
        self.spec = Spec((train.features.shape[1],), {"numbers": 1}, {"distributions": {"log_variances": 1}})
        self.positive = bool((train.values >= 0).all())
        self.steps_per_epoch = max(1, len(train) // setup.batch_size)

    def epoch(self, seeds: Seeds, first: int = 0) -> Iterator[Batch]:
        """Yield rows and numbers in a new order; the remainder that fills no batch is left out of this epoch."""
        inputs, targets, size = self.inputs["train"], self.targets["train"], self.setup.batch_size
        order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(seeds.order)).to(self.device)
        for step in range(first, self.steps_per_epoch):
            chosen = order[step * size : (step + 1) * size]
            yield Batch((inputs[chosen],), targets[chosen])

    def pairs(self, outputs: Any, batch: Batch) -> Pairs:
        """Return predicted and true numbers (N,1), as values, and as counts in the unit of the table where none is
        negative; with a predicted variance, also as distributions (N,2,1).
        """
        numbers, target = outputs["numbers"], batch.target
        found = {"values": Pair(numbers, target)}
        if self.positive:
            found["counts"] = Pair(self._in_unit(numbers), self._in_unit(target))
        if "log_variances" in outputs:
            found["distributions"] = Pair(torch.stack([numbers, outputs["log_variances"]], 1), target)
        return found

    def _in_unit(self, numbers: Tensor) -> Tensor:
        return numbers * self.spread + self.middle

    def evaluate(self, predict: Predict, split: str, shift: Shift | None = None) -> dict[str, Any]:
        """Return what `RunningErrors` says, in the unit of the table, and of every test row."""
        if shift is not None:
            raise UsageError("shift changes images, and this task has rows of numbers: leave it out.")
        errors, size = RunningErrors(), self.setup.eval_batch_size
        for inputs, targets in zip(self.inputs[split].split(size), self.targets[split].split(size), strict=True):
            found = predict(inputs)["numbers"]
            errors.add(*(self._in_unit(x[:, 0].double()) for x in (found, targets)))
        return errors.scores() | ({"items": errors.items(self.splits.test.index)} if split == "test" else {})

    def describe(self) -> dict[str, Any]:
        """Return the sizes of the parts, the names of the features, the checksum of all of it, and what the trivial
        prediction scores.
        """
        counts = {name: len(target) for name, target in self.targets.items()}
        named = {"features": list(self.splits.names), "checksum": self.splits.checksum}
        return {**counts, **named, "trivial": self._trivial(), "trivial_name": TRIVIAL}

    def _trivial(self) -> dict[str, float]:
        """Return what one number for every test row scores: the one that is best by each metric on the training rows,
        their mean for squared errors and their median for absolute ones.
        """
        train, test = (torch.from_numpy(getattr(self.splits, name).values).double() for name in ("train", "test"))
        by_mean, by_median = (metrics(each.expand_as(test), test) for each in (train.mean(), train.quantile(0.5)))
        return {name: (by_mean if name in ("r2", "rmse") else by_median)[name] for name in by_mean}
