"""The resident feed: a whole data set on the device, gathered batch by batch; nothing is copied while it trains."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator

import torch
from torch import Tensor

from datasets.decoded import Decoded, in_memory
from datasets.splits import Splits
from harness.errors import UsageError
from harness.feeds import whole_batches


class Resident:
    """The splits of a data set on a device; images in files are decoded once.

    Args:
        splits: training, validation and test part.
        device: where batches are needed.

    Raises:
        UsageError: the decoded images do not fit into memory.
        MissingData: a file is missing or damaged.
    """

    def __init__(self, splits: Splits, device: torch.device) -> None:
        if _decoded_bytes(splits) > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"):
            raise _too_large(splits)  # before hours of decoding end in a killed process
        try:
            self.splits = splits.in_memory()
        except MemoryError:
            raise _too_large(splits) from None
        self.device = device
        self.images = {name: in_memory(part.images).to(device) for name, part in self.splits.parts.items()}
        self.targets = {name: in_memory(part.targets).to(device) for name, part in self.splits.parts.items()}

    def shuffled(self, order: Tensor, size: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield whole batches of training images and targets in an order (N,), from batch ``first`` on."""
        images, targets = self.images["train"], self.targets["train"]
        for chosen in whole_batches(order.to(self.device), size, first):
            # several times faster than images[chosen]
            yield images.index_select(0, chosen), targets.index_select(0, chosen)

    def ordered(self, split: str, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield all images and targets of a split in their order; the last batch may be smaller."""
        yield from zip(self.images[split].split(size), self.targets[split].split(size), strict=True)

    def rows(self, split: str, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images and targets of a few rows of a split."""
        rows = rows.to(self.device)
        return self.images[split][rows], self.targets[split][rows]


def _decoded_bytes(splits: Splits) -> int:
    arrays = [array for part in splits.parts.values() for array in (part.images, part.targets)]
    return sum(math.prod(array.shape) for array in arrays if isinstance(array, Decoded))


def _too_large(splits: Splits) -> UsageError:
    height, width = splits.train.shape[1:]
    return UsageError(
        f"these images take {_decoded_bytes(splits) / 1e9:.2g} GB at {height}x{width} pixels, more than there is "
        "memory for: use feed=streaming, or make dataset.size or dataset.train_size smaller."
    )
