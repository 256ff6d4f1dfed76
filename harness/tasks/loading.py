"""A data set on the device, read once per worker, and what the tasks on it share."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_method
from torch import Tensor, nn

from datasets import stress
from datasets.splits import Splits
from harness.errors import UsageError
from harness.tasks import DataSetup

Parts = dict[str, Tensor]


class OnDevice:
    """A data set that lives on the device: its splits, their order in an epoch, and normalised batches.

    Raises:
        UsageError: the data set belongs to the other task.
    """

    masked: bool
    """True if the data set has a class for every pixel, False if for every image."""
    decode: nn.Module | None = None

    def __init__(self, setup: DataSetup) -> None:
        dataset, device = setup.dataset, setup.device
        self.splits, self.images, self.targets = load(dataset, setup.data, device)
        if (self.targets["train"].ndim == 3) != self.masked:
            has, other = (
                ("image, not every pixel", "classification")
                if self.masked
                else ("pixel, not every image", "segmentation")
            )
            name = dataset["_target_"].rpartition(".")[2]
            raise UsageError(f"the data set {name} has a class for every {has}: use task={other}.")
        self.augment = dataset["augment"]
        self.device = device
        self.format = torch.channels_last if setup.channels_last else torch.contiguous_format
        self.classes = len(self.splits.classes)
        mean, std = (torch.tensor(x, device=device).view(1, -1, 1, 1) for x in (self.splits.mean, self.splits.std))
        self.scale, self.shift = 1 / (255 * std), -mean / std

    @functools.cached_property
    def class_counts(self) -> Tensor:
        """How many training images, or pixels of them, each class has: (C,) on the device."""
        targets = self.targets["train"].flatten()
        return torch.bincount(targets, minlength=self.classes)[: self.classes]  # beyond the classes: void

    def steps_per_epoch(self, batch_size: int) -> int:
        """Return the number of whole batches in the training split (at least one)."""
        return max(1, len(self.targets["train"]) // batch_size)

    def order(self, seed: int) -> Tensor:
        """Return the order of the training images in an epoch, on the device."""
        return torch.randperm(len(self.targets["train"]), generator=torch.Generator().manual_seed(seed)).to(self.device)

    def normalised(self, images: Tensor) -> Tensor:
        """Return images of mean 0 and deviation 1, judged by the training split."""
        return torch.addcmul(self.shift, images, self.scale)

    def ready(self, images: Tensor) -> Tensor:
        """Return normalised images in the memory format of the model."""
        return self.normalised(images).contiguous(memory_format=self.format)

    def describe(self) -> dict[str, Any]:
        """Return the sizes of the splits, the names of the classes, and the checksum of indices and labels."""
        counts = {name: len(target) for name, target in self.targets.items()}
        return {**counts, "classes": list(self.splits.classes), "checksum": self.splits.checksum}


def load(dataset: Mapping[str, Any], data: Mapping[str, Any], device: object) -> tuple[Splits, Parts, Parts]:
    """Return the splits of a data set, and its images and its targets on the device, by name of split."""
    settings = {name: value for name, value in dataset.items() if name not in ("_target_", "augment")}
    return _load(dataset["_target_"], str(data["root"]), bool(data["download"]), json.dumps(settings), str(device))


@functools.lru_cache(maxsize=2)  # a warm worker meets the same data again and again
def _load(target: str, root: str, download: bool, settings: str, device: str) -> tuple[Splits, Parts, Parts]:
    named = json.loads(settings)
    harder = named.pop("stress", None)
    splits: Splits = get_method(target)(Path(root), download=download, **named)
    if not isinstance(splits, Splits):
        name = target.rpartition(".")[2]
        raise UsageError(f"the data set {name} is a table with a number to predict for every row: use task=regression.")
    if harder is not None:
        splits = stress.applied(splits, **harder)
    parts = {"train": splits.train, "valid": splits.valid, "test": splits.test}
    return (
        splits,
        {k: v.images.to(device) for k, v in parts.items()},
        {k: v.targets.to(device) for k, v in parts.items()},
    )
