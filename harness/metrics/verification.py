"""Verification: whether two items are of one class, decided by their similarity alone."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from harness.metrics.declared import share

STEPS = 2**20
"""Similarities are counted in steps of 1 / STEPS, near the precision of a cosine in float32; equals are ties."""
FALSE_ACCEPTS = {"tar_at_far_1e2": 1e-2, "tar_at_far_1e3": 1e-3}
VERIFICATION = (
    share("verification_auc", "verification AUC"),
    share("tar_at_far_1e2", "TAR at FAR 0.01"),
    share("tar_at_far_1e3", "TAR at FAR 0.001"),
)


class Similarities:
    """How often each cosine occurs among genuine pairs (of one class) and impostors (of two).

    Memory does not grow with the number of pairs: they are counted, not kept.

    Attributes:
        genuine, impostors: int64 (2 STEPS + 1,), from a cosine of -1 to one of 1.
    """

    def __init__(self) -> None:
        self.genuine = torch.zeros(2 * STEPS + 1, dtype=torch.int64)
        self.impostors = torch.zeros_like(self.genuine)

    def add(self, similar: Tensor, same: Tensor) -> None:
        """Count pairs: cosines, -inf for those that do not count, and whether each pair is genuine, of one shape."""
        # one bin more, the first, takes what does not count
        step = similar.mul(STEPS).add_(STEPS + 1.5).clamp_(0, 2 * STEPS + 1.5).to(torch.int32)
        size = len(self.genuine) + 1
        genuine = torch.bincount(step[same], minlength=size)[1:].cpu()
        self.genuine += genuine
        self.impostors += torch.bincount(step.flatten(), minlength=size)[1:].cpu() - genuine

    def scores(self) -> dict[str, float]:
        """Return the metrics of `VERIFICATION`; NaN where there are no genuine pairs or no impostors.

        Returns:
            ``verification_auc``: probability that a genuine pair is more similar than an impostor, ties counted half;
            ``tar_at_far_1e2``, ``tar_at_far_1e3``: greatest share of genuine pairs accepted by a threshold that accepts
            at most that share of the impostors.
        """
        false, true = self.roc()
        if np.isnan(false).any() or np.isnan(true).any():
            return {metric.key: float("nan") for metric in VERIFICATION}
        rates = {name: float(true[np.searchsorted(false, most, "right") - 1]) for name, most in FALSE_ACCEPTS.items()}
        return {"verification_auc": float(np.trapezoid(true, false)), **rates}

    def roc(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the shares of impostors and of genuine pairs that a threshold accepts, float64, from none to all, one
        threshold for each cosine that occurs; NaN if there are none.
        """
        occurs = ((self.genuine + self.impostors) > 0).flip(0)
        counts = (self.impostors.flip(0)[occurs], self.genuine.flip(0)[occurs])
        accepted = [np.concatenate([[0], each.cumsum(0).numpy()]) for each in counts]
        with np.errstate(invalid="ignore"):
            false, true = (each / each[-1] for each in accepted)
        return false, true

    def histograms(self, bins: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the shares of genuine pairs and of impostors in equal bins from a cosine of -1 to 1, (bins,) each."""
        edges = np.linspace(0, 2 * STEPS + 1, bins + 1).astype(np.int64)[:-1]
        found = (np.add.reduceat(each.numpy(), edges) for each in (self.genuine, self.impostors))
        genuine, impostors = (each / max(1, each.sum()) for each in found)
        return genuine, impostors
