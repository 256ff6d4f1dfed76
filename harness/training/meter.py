"""What is measured in every step: kept on the device as it is, and summed up once an epoch."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

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
def peak_memory(device: torch.device, own: Callable[[], float]) -> Iterator[dict[str, float]]:
    """Measure the greatest memory (MB) in use inside the block: on a GPU that of the run, on a CPU the growth of the
    process.

    Args:
        device: where the run is trained.
        own: returns the memory (MB) that the run itself holds on the device. What else lies there when the block begins
            (data sets, weights that are kept for the test, remains of earlier runs) does not count.
    """
    peak = {"mb": math.nan}
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        others = torch.cuda.memory_allocated() / 2**20 - own()
        yield peak
        peak["mb"] = torch.cuda.max_memory_allocated() / 2**20 - others
        return
    before = hardware.reset_peak_memory()
    yield peak
    if before is not None:
        peak["mb"] = max(0.0, hardware.peak_memory() - before)


def held_mb(modules: Iterable[nn.Module], optimizers: Iterable[torch.optim.Optimizer]) -> float:
    """Return the memory (MB) of weights, buffers, gradients, and what optimizers remember of them."""
    modules = list(modules)
    weights = [weight for module in modules for weight in module.parameters()]
    tensors = [*weights, *(weight.grad for weight in weights if weight.grad is not None)]
    tensors += [buffer for module in modules for buffer in module.buffers()]
    kept = [value for optimizer in optimizers for state in optimizer.state.values() for value in state.values()]
    tensors += [value for value in kept if isinstance(value, Tensor)]
    return sum(tensor.nbytes for tensor in tensors if tensor.is_cuda) / 2**20


class Waiting:
    """How long training waits for its batches.

    On a CPU, the time in which they are made. On a GPU, where the host is ahead of the device, the time that the device
    itself has between the end of a step and the beginning of the next: what it computes for a batch, and its idleness.

    Args:
        device: where it trains.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.seconds = device, 0.0
        self.marks: list[tuple[Any, Any]] = []

    @contextlib.contextmanager
    def for_batch(self) -> Iterator[None]:
        """Count the time inside the block, in which a batch is made; nothing waits for the device."""
        if self.device.type == "cuda":
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            yield
            end.record()
            self.marks.append((begin, end))
            return
        started = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - started

    def taken(self) -> float:
        """Return the seconds since the last call; the device has done all it was asked for."""
        seconds = self.seconds + sum(begin.elapsed_time(end) for begin, end in self.marks) / 1000
        self.seconds, self.marks = 0.0, []
        return seconds
