"""The resident feed: a whole data set on the device, gathered batch by batch; nothing is copied while it trains."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from datasets.splits import Splits


class Resident:
    """The splits of a data set on a device.

    Args:
        splits: training, validation and test part.
        device: where batches are needed.
    """

    def __init__(self, splits: Splits, device: torch.device) -> None:
        self.splits, self.device = splits, device
        parts = {"train": splits.train, "valid": splits.valid, "test": splits.test}
        self.images = {name: part.images.to(device) for name, part in parts.items()}
        self.targets = {name: part.targets.to(device) for name, part in parts.items()}

    def shuffled(self, order: Tensor, size: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield whole batches of training images and targets in an order (N,), from batch ``first`` on."""
        images, targets, order = self.images["train"], self.targets["train"], order.to(self.device)
        for start in range(first * size, max(1, len(order) // size) * size, size):
            chosen = order[start : start + size]
            # several times faster than images[chosen]
            yield images.index_select(0, chosen), targets.index_select(0, chosen)

    def ordered(self, split: str, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield all images and targets of a split in their order; the last batch may be smaller."""
        yield from zip(self.images[split].split(size), self.targets[split].split(size), strict=True)

    def rows(self, split: str, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images and targets of a few rows of a split."""
        rows = rows.to(self.device)
        return self.images[split][rows], self.targets[split][rows]
