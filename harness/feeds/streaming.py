"""The streaming feed: batches are decoded by threads while the device trains, and no more is held than the next few.

Threads do it instead of the processes of a DataLoader: the workers of a study are daemonic, so they may not start
processes; Pillow and torch release Python's lock while they decode and copy; and a thread decodes straight into the
pinned memory that the GPU copies from. Nothing random happens here, so batches are those of the resident feed, bit for
bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from datasets.decoded import batches, gather
from datasets.splits import Splits
from harness.errors import UsageError
from harness.feeds import whole_batches


class Streaming:
    """The splits of a data set, brought to a device batch by batch.

    Args:
        splits: training, validation and test part, in files or in memory.
        device: where batches are needed.
        workers: threads that decode, a batch each.
        prefetch: batches that are held ready ahead of the one in use.

    Raises:
        UsageError: one of these numbers is below 1.
    """

    def __init__(self, splits: Splits, device: torch.device, workers: int = 2, prefetch: int = 4) -> None:
        if min(workers, prefetch) < 1:
            raise UsageError(f"feed.workers={workers} and feed.prefetch={prefetch}: use whole numbers from 1 on.")
        self.splits, self.device, self.workers, self.prefetch = splits, device, workers, prefetch
        self.pin = device.type == "cuda"

    def shuffled(self, order: Tensor, size: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield whole batches of training images and targets in an order (N,), from batch ``first`` on."""
        return self._batches("train", whole_batches(order.cpu(), size, first))

    def ordered(self, split: str, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield all images and targets of a split in their order; the last batch may be smaller."""
        return self._batches(split, torch.arange(len(self.splits.parts[split])).split(size))

    def _batches(self, split: str, rows: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        part = self.splits.parts[split]
        for images, targets in batches(
            (part.images, part.targets), rows, workers=self.workers, prefetch=self.prefetch, pin=self.pin
        ):
            yield self._to_device(images), self._to_device(targets)

    def rows(self, split: str, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images and targets of a few rows of a split."""
        part = self.splits.parts[split]
        images, targets = gather((part.images, part.targets), rows.cpu(), pin=self.pin)
        return self._to_device(images), self._to_device(targets)

    def _to_device(self, batch: Tensor) -> Tensor:
        return batch.to(self.device, non_blocking=True)
