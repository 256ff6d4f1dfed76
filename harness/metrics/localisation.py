"""Metrics of one predicted box per image."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from harness.metrics import items
from harness.metrics.items import SHARES
from losses.geometric import iou


class RunningOverlaps:
    """Overlap and distance of the edges of every box of a split: two numbers per box."""

    def __init__(self) -> None:
        self.kept: list[Tensor] = []

    def add(self, found: Tensor, truth: Tensor) -> None:
        """Take a batch: predicted and true boxes (N,4), corners x1, y1, x2, y2, not inside out, with an area."""
        overlap = (1 - iou(found, truth)).float().double()  # as it is kept, so that both agree on which are found
        self.kept.append(torch.stack([overlap, (found - truth).abs().mean(1)]))

    def items(self, index: Tensor) -> dict[str, np.ndarray]:
        """Return what is kept of every box, in the order in which they came: its overlap, as ``iou``, and ``item``.

        Args:
            index: (N,) position of the image of each in the official file.
        """
        return items.of_scores(index.numpy(), {"iou": torch.cat(self.kept, 1)[0].cpu().numpy()})

    def scores(self) -> dict[str, float]:
        """Return all metrics.

        Returns:
            ``iou``, the mean overlap (intersection over union); ``found50`` and ``found75``, the shares of boxes with
            at least half and three quarters of it; ``corner_error``, the mean distance of an edge from its place, in
            pixels.
        """
        overlap, distance = torch.cat(self.kept, 1)
        shares = ((overlap >= least).double().mean() for least in SHARES.values())
        scalars = [overlap.mean(), *shares, distance.mean()]
        return dict(zip(("iou", *SHARES, "corner_error"), torch.stack(scalars).tolist(), strict=True))
