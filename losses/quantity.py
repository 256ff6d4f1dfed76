"""Losses on the difference of two values, elementwise."""

from torch import Tensor

from losses.checks import check_pair
from losses.loss import about


@about(
    name="Squared error",
    family="quantity",
    takes="values",
    link="none",
    paper="least squares",
    evidence="V",
    aliases=("mse", "l2", "quadratic"),
)
def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Square the difference.

    L = (yh - y)^2. Both of one shape, which is returned. The minimiser is the conditional mean.

    >>> import torch
    >>> squared_error(torch.tensor([7.0]), torch.tensor([4.0]))
    tensor([9.])
    """
    check_pair(prediction, target)
    return (prediction - target).square()


@about(
    name="Absolute error",
    family="quantity",
    takes="values",
    link="none",
    paper="least absolute deviations; Willmott and Matsuura 2005",
    evidence="V",
    aliases=("mae", "l1"),
)
def absolute_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Take the size of the difference.

    L = |yh - y|. Both of one shape, which is returned. Kink at 0, where the gradient is 0. The minimiser is the
    conditional median.

    >>> import torch
    >>> absolute_error(torch.tensor([1.0]), torch.tensor([4.0]))
    tensor([3.])
    """
    check_pair(prediction, target)
    return (prediction - target).abs()
