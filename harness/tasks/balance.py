"""How the losses of several roles are weighed against each other: by the gradients that they start with."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from harness.errors import UsageError
from harness.tasks import Batch
from losses.compound import Sum
from losses.kinds import Pairs

Maps = Mapping[str, tuple[Tensor, ...]]


def balance(
    model: nn.Module, losses: Sum, pairs: Callable[[Maps, Batch], Pairs], batches: Iterator[Batch]
) -> dict[str, float]:
    """Divide the weight of every loss by the length of its gradient at the start, and return the weights.

    The gradient is that of the loss by itself in all outputs of the untrained model for a batch, the first in which
    every loss has one. What was a weight is so the length of the gradient that a loss starts with: two losses that
    differ by a factor are trained alike, and no loss is weak because its numbers are small. Model and losses are left
    as they were (statistics of normalisation, memory of a loss), so that nothing but the seed decides the weights.

    Args:
        model: as it starts.
        losses: of the roles, with the lengths that their gradients are to have as weights, which are changed.
        pairs: what losses compare, from outputs and a batch.
        batches: the first of training.

    Raises:
        UsageError: no batch gives a loss a gradient.
    """
    model, tried = copy.deepcopy(model), copy.deepcopy(losses)
    without = ""
    for batch in batches:
        with torch.no_grad():
            outputs = model(*batch.inputs)
        leaves = {kind: tuple(level.float().requires_grad_() for level in levels) for kind, levels in outputs.items()}
        compared = pairs(leaves, batch)
        lengths = {name: _length(loss(compared), leaves) for name, loss in tried.losses.items()}
        without = next((name for name, length in lengths.items() if length == 0), "")
        if not without:
            if all(map(math.isfinite, lengths.values())):  # else the first step will tell
                losses.weights = {name: weight / lengths[name] for name, weight in losses.weights.items()}
            return dict(losses.weights)
    raise UsageError(
        f"no training image gives loss.{without} a gradient, so its weight cannot be found: choose another loss, or "
        "task.balance=fixed."
    )


def _length(loss: Tensor, outputs: Maps) -> float:
    """Return the length of the gradient of a loss in all outputs together."""
    leaves = [level for levels in outputs.values() for level in levels]
    found = torch.autograd.grad(loss, leaves, allow_unused=True, retain_graph=True)
    return float(nn.utils.get_total_norm([gradient for gradient in found if gradient is not None]))
