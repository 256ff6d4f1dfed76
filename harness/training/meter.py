"""What is measured in every step: kept on the device as it is, and summed up once an epoch."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness import hardware


@dataclass(frozen=True)
class Epoch:
    """Means over the steps of an epoch, by objective, and when a loss or a gradient was first not finite."""

    loss: Mapping[str, float]
    norm: Mapping[str, float]
    bad_step: int | None
    last_finite_loss: float | None


class Meter:
    """Losses and gradient norms of the steps of an epoch.

    Args:
        objectives: names of what is trained.
    """

    def __init__(self, objectives: Iterable[str]) -> None:
        self.kept: dict[str, list[Tensor | float]] = {name: [] for name in objectives}
        self.steps: dict[str, list[int]] = {name: [] for name in self.kept}

    def add(self, objective: str, step: int, loss: Tensor, norm: Tensor) -> None:
        """Keep the loss and the gradient norm of a step; nothing is computed, nothing waits for the device.

        On a CPU, numbers: a small tensor kept from every step would splinter the memory that batches come from, which
        then grows by about a batch a step.
        """
        self.kept[objective] += (loss, norm) if loss.is_cuda else (loss.item(), norm.item())
        self.steps[objective].append(step)

    def state(self) -> dict[str, tuple[Tensor, list[int]]]:
        """Return what a checkpoint keeps."""
        return {name: (_joined(kept), self.steps[name]) for name, kept in self.kept.items()}

    def load(self, state: Mapping[str, tuple[Tensor, list[int]]]) -> None:
        """Go on from a checkpoint."""
        for name, (kept, steps) in state.items():
            self.kept[name], self.steps[name] = kept.tolist() if kept.device.type == "cpu" else [*kept], list(steps)

    def close(self) -> Epoch:
        """Return the means since the last call, from one transfer to the host, and start anew."""
        losses, norms, bad, last = {}, {}, [], None
        for name, kept in self.kept.items():
            steps = self.steps[name]
            values = _joined(kept).double().cpu().view(-1, 2) if kept else torch.full((1, 2), math.nan)
            finite = values.isfinite().all(1)
            bad += [steps[row] for row in (~finite).nonzero()[:1, 0].tolist()] if steps else []
            if name == next(iter(self.kept)) and finite.any():
                last = float(values[finite][-1, 0])
            # one after the other, as the steps came, so that a resumed epoch has the same sum
            losses[name], norms[name] = (values.cumsum(0)[-1] / len(values)).tolist()
            self.kept[name], self.steps[name] = [], []
        return Epoch(losses, norms, min(bad, default=None), last)


def _joined(kept: list[Any]) -> Tensor:
    """Return numbers, or tensors of one each, in one tensor (N,)."""
    if kept and isinstance(kept[0], Tensor):
        return torch.stack(kept)
    return torch.tensor(kept, dtype=torch.float64)


@contextlib.contextmanager
def peak_memory(device: torch.device) -> Iterator[dict[str, float]]:
    """Measure the greatest memory (MB) in use inside the block: allocated on a GPU, growth of the process on a CPU."""
    peak = {"mb": math.nan}
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        yield peak
        peak["mb"] = torch.cuda.max_memory_allocated() / 2**20
        return
    before = hardware.reset_peak_memory()
    yield peak
    if before is not None:
        peak["mb"] = max(0.0, hardware.peak_memory() - before)
