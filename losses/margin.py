"""Losses on the margin between the score of the true class and the others."""

import torch
from torch import Tensor

from losses.adapters import is_target
from losses.checks import check_class_logits, check_pair, check_range
from losses.loss import about


@about(
    name="Hinge",
    family="margin",
    kind="binary_logits",
    link=None,
    paper="Boser, Guyon and Vapnik, COLT 1992; Cortes and Vapnik, Machine Learning 20, 1995",
    evidence="V",
)
def hinge(logits: Tensor, target: Tensor, *, margin: float = 1.0) -> Tensor:
    """Shortfall of a binary score, with the sign of its label, from a margin, or 0, elementwise.

    L = max(margin - y z, 0), y = 2 t - 1. logits and target (0 or 1) of one shape, which is returned. Kink at
    y z = margin.

    >>> hinge(torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0]))
    tensor([0.5000, 1.5000])
    """
    check_pair(logits, target)
    check_range("margin", margin, 0, above=True)
    return (margin - (2 * target - 1) * logits).relu()


@about(
    name="Hinge, Weston-Watkins",
    family="margin",
    kind="class_logits",
    link=None,
    paper="Weston and Watkins, ESANN 1999",
    evidence="V",
    aliases=("multi_margin",),
)
def hinge_ww(logits: Tensor, target: Tensor, *, margin: float = 1.0) -> Tensor:
    """Hinge on the difference of the true class's score and each other's, summed and divided by the number of classes.

    L = (1/C) sum_{j != t} max(margin + z_j - z_t, 0), with the 1/C of `torch.nn.functional.multi_margin_loss`.
    logits: (N,C,...); target: (N,...) int64; returns (N,...). Kinks at z_t - z_j = margin.

    >>> hinge_ww(torch.tensor([[2.0, 1.5, 1.0, 2.5]]), torch.tensor([0]))
    tensor([0.5000])
    """
    # the true class is behind itself by the margin, exactly, and has no slope: cheaper to take off than to leave out
    return (_behind(logits, target, margin).relu().sum(1) - margin) / logits.shape[1]


@about(
    name="Hinge, Crammer-Singer",
    family="margin",
    kind="class_logits",
    link=None,
    paper="Crammer and Singer, JMLR 2, 2001",
    evidence="V",
)
def hinge_cs(logits: Tensor, target: Tensor, *, margin: float = 1.0) -> Tensor:
    """Hinge on the true class's score minus that of the strongest other class.

    L = max(margin + max_{j != t} z_j - z_t, 0). logits: (N,C,...); target: (N,...) int64; returns (N,...).
    Kinks at z_t - z_j = margin and where two rivals tie.

    >>> hinge_cs(torch.tensor([[2.0, 1.5, 1.0, 2.5]]), torch.tensor([0]))
    tensor([1.5000])
    """
    if torch.compiler.is_compiling():  # which rounds a maximum of bf16, so that it equals no value and has no slope
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return _behind(logits, target, margin).masked_fill(is_target(target, logits.shape[1]), 0).amax(1).relu()


def _behind(logits: Tensor, target: Tensor, margin: float) -> Tensor:
    """Return (N,C,...): by how much the true class is behind each class and the margin; itself by the margin."""
    check_class_logits(logits, target)
    check_range("margin", margin, 0, above=True)
    return logits - logits.gather(1, target.unsqueeze(1)) + margin


# ---------------------------------------------------------------- of one score, elementwise; m = y z, y = 2 t - 1


def _margin(logits: Tensor, target: Tensor) -> Tensor:
    check_pair(logits, target)
    return (2 * target - 1) * logits


@about(
    name="Zero-one",
    family="margin",
    kind="binary_logits",
    link=None,
    paper="definition of an error",
    evidence="H",
    untrainable="its gradient is 0 wherever it exists; use accuracy, which is 1 minus it.",
)
def zero_one(logits: Tensor, target: Tensor) -> Tensor:
    """1 for an error and 0 otherwise, elementwise; a score of 0 is an error.

    L = [m <= 0]. logits and target (0 or 1) of one shape, which is returned.

    >>> zero_one(torch.tensor([0.5, 0.5, 0.0]), torch.tensor([1.0, 0.0, 1.0]))
    tensor([0., 1., 1.])
    """
    margin = _margin(logits, target)
    return (margin <= 0).to(logits.dtype) + 0 * margin


@about(
    name="Squared hinge",
    family="margin",
    kind="binary_logits",
    link=None,
    paper="Tang, Deep Learning using Linear Support Vector Machines, arXiv 1306.0239",
    evidence="V",
)
def squared_hinge(logits: Tensor, target: Tensor, *, margin: float = 1.0) -> Tensor:
    """Square of the hinge, which has no kink, elementwise.

    L = max(margin - m, 0)^2. logits and target (0 or 1) of one shape, which is returned.

    >>> squared_hinge(torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0]))
    tensor([0.2500, 2.2500])
    """
    return hinge(logits, target, margin=margin).square()


@about(
    name="Quadratically smoothed hinge",
    family="margin",
    kind="binary_logits",
    link=None,
    paper="T. Zhang, ICML 2004",
    evidence="H",
)
def quadratic_smooth_hinge(logits: Tensor, target: Tensor, *, gamma: float = 2.0) -> Tensor:
    """Hinge whose kink is replaced by a parabola of width gamma, elementwise.

    L = max(1 - m, 0)^2/(2 gamma) where m >= 1 - gamma, else 1 - gamma/2 - m. gamma towards 0 is the hinge, 1 the
    smoothed hinge, 2 a quarter of modified Huber. logits and target (0 or 1) of one shape, which is returned.

    >>> quadratic_smooth_hinge(torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0]))
    tensor([0.0625, 0.5625])
    """
    check_range("gamma", gamma, 0, above=True)
    behind = 1 - _margin(logits, target)
    near = behind.clamp(0, gamma)  # held where the straight line counts
    return torch.where(behind > gamma, behind - gamma / 2, near.square() / (2 * gamma))


@about(
    name="Smoothed hinge",
    family="margin",
    kind="binary_logits",
    link=None,
    paper="Rennie, Smooth Hinge Classification, 2005",
    evidence="H",
)
def smooth_hinge(logits: Tensor, target: Tensor) -> Tensor:
    """Hinge whose kink is replaced by a parabola between margin 0 and 1, elementwise.

    L = 0 where m >= 1, (1 - m)^2/2 between, 1/2 - m where m <= 0. logits and target (0 or 1) of one shape, which is
    returned.

    >>> smooth_hinge(torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0]))
    tensor([0.1250, 1.0000])
    """
    return quadratic_smooth_hinge(logits, target, gamma=1.0)


@about(
    name="Modified Huber",
    family="margin",
    kind="binary_logits",
    link=None,
    paper="T. Zhang, ICML 2004",
    evidence="V",
)
def modified_huber(logits: Tensor, target: Tensor) -> Tensor:
    """Squared hinge that continues linearly below margin -1, elementwise.

    L = max(1 - m, 0)^2 where m >= -1, else -4 m. logits and target (0 or 1) of one shape, which is returned.

    >>> modified_huber(torch.tensor([0.5, -2.0]), torch.tensor([1.0, 1.0]))
    tensor([0.2500, 8.0000])
    """
    return 4 * quadratic_smooth_hinge(logits, target, gamma=2.0)


MOST = 80.0
"""Exponents above it count as it: exp(88) is the last that float32 holds, and a batch is summed."""


@about(
    name="Exponential",
    family="margin",
    kind="binary_logits",
    link=None,
    paper="Freund and Schapire 1997, as the loss of AdaBoost",
    evidence="H",
)
def exponential(logits: Tensor, target: Tensor) -> Tensor:
    """Exponential of the negated margin, elementwise: sensitive to outliers and to wrong labels.

    L = exp(-m), -m at most 80, above which there is no gradient. logits and target (0 or 1) of one shape, which is
    returned.

    >>> exponential(torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0]))
    tensor([0.6065, 1.6487])
    """
    return (-_margin(logits, target)).clamp_max(MOST).exp()


@about(
    name="Exponential, multi-class",
    family="margin",
    kind="class_logits",
    link=None,
    paper="Zhu et al., Multi-class AdaBoost (SAMME), Statistics and Its Interface 2, 2009, eq. 3",
    evidence="H",
    aliases=("samme",),
)
def exponential_multiclass(logits: Tensor, target: Tensor) -> Tensor:
    """Exponential of the mean score of the other classes minus the score of the true class, the difference over C.

    L = exp(-<y, z>/C), y = 1 at the true class, -1/(C-1) elsewhere; the exponent at most 80, above which there is no
    gradient. logits: (N,C,...); target: (N,...) int64; returns (N,...).

    >>> exponential_multiclass(torch.tensor([[2.0, 0.0]]), torch.tensor([0]))
    tensor([0.3679])
    """
    check_class_logits(logits, target)
    classes = logits.shape[1]
    own = logits.gather(1, target.unsqueeze(1)).squeeze(1)
    ahead = own - (logits.sum(1) - own) / (classes - 1)
    return (-ahead / classes).clamp_max(MOST).exp()
