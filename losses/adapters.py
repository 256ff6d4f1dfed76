"""Adapters: how a loss for two classes, or for values, becomes a loss for many classes."""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from losses.checks import check_choice, check_class_logits
from losses.loss import about_adapter

OverClasses = Literal["sum", "mean"]
Elementwise = Callable[[Tensor, Tensor], Tensor]


@about_adapter(lambda base: replace(base, name=f"{base.name}, one-vs-rest", kinds=("class_logits",), aliases=()))
def one_vs_rest(logits: Tensor, target: Tensor, *, base: Elementwise, over_classes: OverClasses = "sum") -> Tensor:
    """Sum over classes of a binary loss, each class against all others.

    L = sum_c base(z_c, [c = t]), or the mean over c. The default is the sum, C separate problems (Rifkin and Klautau,
    In defense of one-vs-all classification, JMLR 5, 2004), so that the true class's gradient does not shrink with C.

    logits: (N,C,...); target: (N,...) int64, or probabilities q (N,C,...), of which it is the mean, sum_c q_c
    base(z_c, 1) + (1 - q_c) base(z_c, 0); returns (N,...). base: `f(logits, labels)`, elementwise, labels 0 or 1.

    >>> from losses.margin import hinge
    >>> one_vs_rest(torch.tensor([[2.0, 0.5, -1.0]]), torch.tensor([1]), base=hinge)
    tensor([3.5000])
    """
    check_class_logits(logits, target, soft=True)
    if target.ndim == logits.ndim:
        for_it, against = base(logits, torch.ones_like(logits)), base(logits, torch.zeros_like(logits))
        return reduce_classes(target * for_it + (1 - target) * against, over_classes)
    return reduce_classes(base(logits, one_hot(target, logits)), over_classes)


@about_adapter(
    lambda base: replace(
        base,
        name=f"{base.name} of probabilities",
        kinds=("class_logits",),
        link="softmax",
        paper=f"{base.paper}; of probabilities: Brier 1950 (squared), Ghosh et al. 2017, arXiv 1712.09482 (absolute)",
        aliases=(),
    )
)
def on_probabilities(logits: Tensor, target: Tensor, *, base: Elementwise, over_classes: OverClasses = "sum") -> Tensor:
    """A loss for values between the softmax probabilities and the one-hot target, summed over classes.

    L = sum_c base(p_c, [c = t]), p = softmax(z), or the mean over c. The default is the sum, which is the literature's:
    with the squared error it is the score of Brier (Monthly Weather Review 78, 1950), from 0 to 2; with the absolute
    error it is the MAE of Ghosh, Kumar and Sastry (AAAI 2017, arXiv 1712.09482), 2 - 2 p_t.

    logits: (N,C,...); target: (N,...) int64, or probabilities (N,C,...) in place of one-hot; returns (N,...). base:
    `f(prediction, target)`, elementwise.

    >>> from losses.quantity import squared_error
    >>> on_probabilities(torch.zeros(1, 2), torch.tensor([1]), base=squared_error)
    tensor([0.5000])
    """
    check_class_logits(logits, target, soft=True)
    labels = target if target.ndim == logits.ndim else one_hot(target, logits)
    return reduce_classes(base(logits.softmax(1), labels), over_classes)


def one_hot(target: Tensor, logits: Tensor) -> Tensor:
    """Return (N,C,...) of the dtype of logits, 1 at the target class; unlike torch's it never waits for the device.

    >>> one_hot(torch.tensor([1]), torch.zeros(1, 3))
    tensor([[0., 1., 0.]])
    """
    return is_target(target, logits.shape[1]).to(logits.dtype)


def is_target(target: Tensor, num_classes: int) -> Tensor:
    """Return (N,C,...) booleans from target (N,...), True at the target class.

    >>> is_target(torch.tensor([1]), 3)
    tensor([[False,  True, False]])
    """
    classes = torch.arange(num_classes, device=target.device)
    return target.unsqueeze(1) == classes.view(-1, *[1] * (target.ndim - 1))


def reduce_classes(values: Tensor, over_classes: OverClasses) -> Tensor:
    """Return (N,...) from values (N,C,...): the sum or the mean over classes.

    >>> reduce_classes(torch.tensor([[1.0, 2.0]]), "mean")
    tensor([1.5000])
    """
    check_choice("over_classes", over_classes, ("sum", "mean"))
    return values.sum(1) if over_classes == "sum" else values.mean(1)
