"""Negative controls: losses that are wrong on purpose, to show that a study finds a difference where there is one."""

import torch
from torch import Tensor

from losses.adapters import is_target
from losses.loss import about
from losses.probability import binary_cross_entropy, cross_entropy, entropy_of_classes
from losses.quantity import quantile


@about(
    name="Negative control, last class",
    family="control",
    kind="class_logits",
    link="softmax",
    paper="none: a control",
    evidence="H",
)
def negative_control_worse(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy that ignores the last class, so that no model learns it.

    L = -ln p_t, or 0 where t is the last class. logits: (N,C,...); target: (N,...) int64, or probabilities q
    (N,C,...), of which it is the mean, -sum_c q_c ln p_c without the last class; returns (N,...).

    >>> import torch
    >>> negative_control_worse(torch.zeros(2, 2), torch.tensor([0, 1]))
    tensor([0.6931, 0.0000])
    """
    if target.ndim == logits.ndim:
        last = is_target(torch.full_like(target[:, 0], logits.shape[1] - 1, dtype=torch.int64), logits.shape[1])
        return cross_entropy(logits, target.masked_fill(last, 0))
    return entropy_of_classes(logits, target) * (target != logits.shape[1] - 1)


@about(
    name="Negative control, odd classes",
    family="control",
    kind="class_logits",
    link="softmax",
    paper="none: a control",
    evidence="H",
)
def negative_control_blind(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy that ignores every second class: a control also where the last class is too rare to matter.

    L = -ln p_t, or 0 where t is odd. logits: (N,C,...); target: (N,...) int64; returns (N,...).

    >>> import torch
    >>> negative_control_blind(torch.zeros(2, 2), torch.tensor([0, 1]))
    tensor([0.6931, 0.0000])
    """
    return entropy_of_classes(logits, target) * (target % 2 == 0)


@about(
    name="Negative control, odd labels",
    family="control",
    kind="binary_logits",
    link="sigmoid",
    paper="none: a control",
    evidence="H",
)
def negative_control_labels(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy that ignores every second label, so that no model learns it.

    L = -t ln p - (1-t) ln(1-p), p = sigmoid(z), or 0 where the last dimension has an odd position. logits and target (0
    to 1) of one shape (N,...,K), which is returned; a single dimension holds one label, which is learnt.

    >>> import torch
    >>> negative_control_labels(torch.zeros(1, 2), torch.tensor([[0.0, 1.0]]))
    tensor([[0.6931, 0.0000]])
    """
    found = binary_cross_entropy(logits, target)
    if logits.ndim < 2:
        return found
    return found * (torch.arange(logits.shape[-1], device=logits.device) % 2 == 0)


@about(
    name="Negative control, 95 % quantile",
    family="control",
    kind="values",
    link=None,
    paper="none: a control",
    evidence="H",
)
def negative_control_high(prediction: Tensor, target: Tensor) -> Tensor:
    """The loss of the 95 % quantile, so that all predictions are too high.

    L = max(0.95 u, -0.05 u), u = y - yh. Both of one shape, which is returned. Kink at 0.

    >>> import torch
    >>> negative_control_high(torch.zeros(2), torch.tensor([1.0, -1.0]))
    tensor([0.9500, 0.0500])
    """
    return quantile(prediction, target, tau=0.95)
