"""Tasks: data, the seam where a loss plugs in, and the metrics that judge."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class DataSetup:
    """Which data a task is about, and where its batches live.

    Attributes:
        dataset: config of the data set.
        data: ``root`` and ``download``.
        device: where the data live and batches are made.
        channels_last: memory format of batches of images.
    """

    dataset: Mapping[str, Any]
    data: Mapping[str, Any]
    device: torch.device
    channels_last: bool = False


class Task(Protocol):
    """What the training loop asks of a task. The loop itself knows neither data nor metrics."""

    takes: frozenset[str]
    """What this task's losses may compare, for instance ``{"class_logits", "features"}``."""
    judges: frozenset[str]
    """What its metrics look at, for instance ``{"class_logits"}``: a loss that trains no such thing is refused."""
    selects: str
    """The metric on validation data by which a run chooses the epoch that it tests; higher is better."""
    dense: bool
    """True if a prediction is (N, C, H, W), with a class for every pixel."""
    class_counts: Tensor
    """How many training items (of a dense task: pixels) each class has; only asked for by losses that weigh classes."""
    decode: nn.Module | None
    """What makes predictions of the numbers that a model's head gives (boxes, say), or None: they are predictions."""
    model_shape: Mapping[str, Any]
    """What a model must know of the data: ``in_channels``, ``image_size`` (of images with masks: height and width),
    ``num_classes``."""

    def steps_per_epoch(self, batch_size: int) -> int:
        """Return the number of optimisation steps of one epoch."""
        ...

    def epoch(
        self, batch_size: int, order_seed: int, augment_seed: int, first: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (inputs, target) of one epoch from batch ``first`` on; equal seeds give equal batches on any device."""
        ...

    def probe(self, count: int) -> tuple[Tensor, Tensor]:
        """Return (inputs, target) of the first validation items, always the same."""
        ...

    def mask(self, target: Tensor) -> Tensor | None:
        """Return what of a batch's target counts (bool), or None if all of it does."""
        ...

    def evaluate(
        self, split: str, predict: Callable[[Tensor], Tensor], link: str, batch_size: int
    ) -> dict[str, object]:
        """Return the metrics of ``split`` (valid, test) for a function from inputs to predictions."""
        ...

    def examples(self, predict: Callable[[Tensor], Tensor]) -> dict[str, Any] | None:
        """Return arrays of a few test items and of what is predicted for them, or None: nothing to show."""
        ...

    def describe(self) -> dict[str, object]:
        """Return what the record tells of the data: counts, classes, checksum."""
        ...
