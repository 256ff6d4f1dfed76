"""How far a loss is from cross-entropy, on the same predictions: the size of what it adds, in value and in gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from losses.compound import Sum
from losses.kinds import Pair, Pairs
from losses.loss import Loss
from losses.probability import cross_entropy


def beside_cross_entropy(loss: Loss | Sum, pairs: Pairs) -> dict[str, float | None]:
    """Return ``added.value``, (loss - CE) / CE, and ``added.gradient``, |g - g_CE| / |g_CE| in the logits.

    A term that hardly moves the gradient cannot change what is learnt; without these numbers "no difference" would mean
    nothing. Losses that compare other things than class logits have none.

    Args:
        loss: without memory of its own.
        pairs: what the task compares on some batch, in float32.
    """
    if loss.about.kinds != ("class_logits",):
        return {"added.value": None, "added.gradient": None}
    logits, target, mask = pairs["class_logits"]
    leaf = logits.detach().clone().requires_grad_()

    def of(function: Loss | Sum) -> tuple[Tensor, Tensor]:
        value = function({"class_logits": Pair(leaf, target, mask)})
        return value.detach(), torch.autograd.grad(value, leaf)[0]

    (value, gradient), (entropy, reference) = of(loss), of(Loss(cross_entropy))
    return {
        "added.value": float((value - entropy) / entropy),
        "added.gradient": float((gradient - reference).norm() / reference.norm()),
    }
