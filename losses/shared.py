"""Mathematics that several families share."""

from collections.abc import Callable

import torch
from torch import Tensor

from losses.checks import check_range


def root(square: Tensor) -> Tensor:
    """Return the square root with slope 0 at 0, where that of the root is infinite.

    >>> root(torch.tensor([4.0, 0.0]))
    tensor([2., 0.])
    """
    positive = square > 0
    return torch.where(positive, torch.where(positive, square, 1).sqrt(), 0)


def rest(entropy: Tensor) -> Tensor:
    """Return 1 - exp(-entropy), the probability not given to the true class, precise where it is small.

    2 t / (1 + t) with t = tanh(entropy / 2), because compilers have vectors of tanh but not of expm1.

    >>> rest(torch.tensor([0.0, 1e-6, 0.6931472, 100.0]))
    tensor([0.0000e+00, 1.0000e-06, 5.0000e-01, 1.0000e+00])
    """
    t = torch.tanh(entropy / 2)
    return 2 * t / (1 + t)


def presence(values: Tensor, mask: Tensor | None) -> Tensor:
    """Return 1 where a value counts and 0 where it does not, in the shape of values and at least float32.

    mask: bool, of the shape of values or of its leading dimensions (or any that broadcasts), None = all count.

    >>> presence(torch.zeros(2, 2), torch.tensor([True, False]))
    tensor([[1., 1.],
            [0., 0.]])
    """
    # counts are whole numbers, which float32 holds exactly up to 2^24 items; bf16 would stop at 256
    exact = torch.promote_types(values.dtype, torch.float32)
    if mask is None:
        return torch.ones_like(values, dtype=exact)
    return mask.view(*mask.shape, *[1] * (values.ndim - mask.ndim)).expand_as(values).to(exact)


def harmony(
    gradient: Tensor, bins: int, mask: Tensor | None = None, follow: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Return the weights of the gradient harmonising mechanism (Li, Liu and Wang 2019), detached.

    w_i = N / (R_i M): N items, R_i of them in the item's bin of gradient size, M bins that are not empty, as in the
    authors' code, so that the weights average to 1 (the paper divides by all bins). gradient: sizes from 0 to 1.
    follow: given the counts of this batch (bins,), returns what takes their place, such as a moving average.

    >>> harmony(torch.tensor([0.1, 0.1, 0.1, 0.9]), 10)
    tensor([0.6667, 0.6667, 0.6667, 2.0000])
    """
    check_range("bins", bins, 1)
    ones = presence(gradient, mask)
    place = (gradient.detach().to(ones.dtype) * bins).long().clamp(0, bins - 1).flatten()
    counts = ones.new_zeros(bins).scatter_add(0, place, ones.flatten())
    filled = counts > 0
    density = torch.where(filled, counts if follow is None else follow(counts), 1)
    weights = ones.sum() / (density * filled.sum().clamp_min(1))
    return weights.gather(0, place).view_as(gradient).to(gradient.dtype)
