"""Losses on the margin between the score of the true class and the others."""

from torch import Tensor

from losses.checks import check_class_logits, check_pair, check_range
from losses.lift import is_target
from losses.loss import about


@about(
    name="Hinge",
    family="margin",
    takes="binary_logits",
    link="none",
    paper="Boser, Guyon and Vapnik, COLT 1992; Cortes and Vapnik, Machine Learning 20, 1995",
    evidence="V",
)
def hinge(logits: Tensor, target: Tensor, *, margin: float = 1.0) -> Tensor:
    """Ask every score to lie on the right side by a margin, elementwise.

    L = max(margin - y z, 0), y = 2 t - 1. logits and target (0 or 1) of one shape, which is returned. Kink at
    y z = margin.

    >>> import torch
    >>> hinge(torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0]))
    tensor([0.5000, 1.5000])
    """
    check_pair(logits, target)
    check_range("margin", margin, 0, above=True)
    return (margin - (2 * target - 1) * logits).relu()


@about(
    name="Hinge, Weston-Watkins",
    family="margin",
    takes="class_logits",
    link="none",
    paper="Weston and Watkins, ESANN 1999",
    evidence="V",
    aliases=("multi_margin",),
)
def hinge_ww(logits: Tensor, target: Tensor, *, margin: float = 1.0) -> Tensor:
    """Ask the true class to beat every other class by a margin; every class that does not stay below counts.

    L = (1/C) sum_{j != t} max(margin + z_j - z_t, 0), with the 1/C of `torch.nn.functional.multi_margin_loss`.
    logits: (N,C,...); target: (N,...) int64; returns (N,...). Kinks at z_t - z_j = margin.

    >>> import torch
    >>> hinge_ww(torch.tensor([[2.0, 1.5, 1.0, 2.5]]), torch.tensor([0]))
    tensor([0.5000])
    """
    return _violations(logits, target, margin).mean(1)


@about(
    name="Hinge, Crammer-Singer",
    family="margin",
    takes="class_logits",
    link="none",
    paper="Crammer and Singer, JMLR 2, 2001",
    evidence="V",
)
def hinge_cs(logits: Tensor, target: Tensor, *, margin: float = 1.0) -> Tensor:
    """Ask the true class to beat every other class by a margin; only the strongest rival counts.

    L = max(margin + max_{j != t} z_j - z_t, 0). logits: (N,C,...); target: (N,...) int64; returns (N,...).
    Kinks at z_t - z_j = margin and where two rivals tie.

    >>> import torch
    >>> hinge_cs(torch.tensor([[2.0, 1.5, 1.0, 2.5]]), torch.tensor([0]))
    tensor([1.5000])
    """
    return _violations(logits, target, margin).amax(1)


def _violations(logits: Tensor, target: Tensor, margin: float) -> Tensor:
    """Return (N,C,...): by how much each other class violates the margin, 0 at the true class."""
    check_class_logits(logits, target)
    check_range("margin", margin, 0, above=True)
    behind = margin + logits - logits.gather(1, target.unsqueeze(1))
    return behind.masked_fill(is_target(target, logits.shape[1]), 0).relu()
