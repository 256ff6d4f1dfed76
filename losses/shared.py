"""Mathematics that several families share."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from losses.checks import check_range

F = TypeVar("F", bound=Callable[..., Any])


def in_full_precision(function: F) -> F:
    """Decorator: products inside are as precise as the data, also where autocast would round them to half precision.

    Autocast casts products of matrices and convolutions, whose rounding a difference of large numbers, or a scale of
    64, makes into an error of the whole loss.
    """

    @functools.wraps(function)
    def precise(*args: Any, **keywords: Any) -> Any:
        device = next(arg.device.type for arg in (*args, *keywords.values()) if isinstance(arg, Tensor))
        if not torch.is_autocast_enabled(device):
            return function(*args, **keywords)
        with torch.autocast(device, enabled=False):
            return function(*args, **keywords)

    return precise  # pyright: ignore[reportReturnType]


class CustomFunction(torch.autograd.Function):
    """A function of tensors whose gradient is written by hand; it can be mapped, and is quick to call."""

    generate_vmap_rule = True

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        # torch reads it in every call, and computing it takes longer than a small loss
        cls.forward.__signature__ = inspect.signature(cls.forward)  # pyright: ignore[reportFunctionMemberAccess]


def safe_sqrt(square: Tensor) -> Tensor:
    """Return the square root with slope 0 at 0, where that of the root is infinite.

    >>> safe_sqrt(torch.tensor([4.0, 0.0]))
    tensor([2., 0.])
    """
    positive = square > 0
    return torch.where(positive, torch.where(positive, square, 1).sqrt(), 0)


def one_minus_prob(entropy: Tensor) -> Tensor:
    """Return 1 - exp(-entropy), the probability not given to the true class, precise where it is small.

    >>> one_minus_prob(torch.tensor([0.0, 1e-6, 0.6931472, 100.0]))
    tensor([0.0000e+00, 1.0000e-06, 5.0000e-01, 1.0000e+00])
    """
    return _OneMinusProb.apply(entropy) if torch.compiler.is_compiling() else -torch.expm1(-entropy)


class _OneMinusProb(CustomFunction):
    """1 - exp(-h) for compilers: they have vectors of tanh but not of expm1, and do not see that its slope is e^-h."""

    @staticmethod
    def forward(entropy: Tensor) -> Tensor:
        t = torch.tanh(entropy / 2)
        return 2 * t / (1 + t)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        (wrong,) = ctx.saved_tensors
        return slope * (1 - wrong)


def valid_mask(values: Tensor, mask: Tensor | None) -> Tensor:
    """Return 1 where a value counts and 0 where it does not, in the shape of values and at least float32.

    mask: bool, of the shape of values or of its leading dimensions (or any that broadcasts), None = all count.

    >>> valid_mask(torch.zeros(2, 2), torch.tensor([True, False]))
    tensor([[1., 1.],
            [0., 0.]])
    """
    # counts are whole numbers, which float32 holds exactly up to 2^24 items; bf16 would stop at 256
    exact = torch.promote_types(values.dtype, torch.float32)
    if mask is None:
        return torch.ones_like(values, dtype=exact)
    return mask.view(*mask.shape, *[1] * (values.ndim - mask.ndim)).expand_as(values).to(exact)


def ghm_weights(
    gradient: Tensor, bins: int, mask: Tensor | None = None, follow: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Return the weights of the gradient harmonising mechanism (Li, Liu and Wang 2019), detached.

    w_i = N / (R_i M): N items, R_i of them in the item's bin of gradient size, M bins that are not empty, as in the
    authors' code, so that the weights average to 1 (the paper divides by all bins). gradient: sizes from 0 to 1.
    follow: given the counts of this batch (bins,), returns what takes their place, such as a moving average.

    >>> ghm_weights(torch.tensor([0.1, 0.1, 0.1, 0.9]), 10)
    tensor([0.6667, 0.6667, 0.6667, 2.0000])
    """
    check_range("bins", bins, 1)
    ones = valid_mask(gradient, mask)
    place = (gradient.detach().to(ones.dtype) * bins).long().clamp(0, bins - 1).flatten()
    counts = ones.new_zeros(bins).scatter_add(0, place, ones.flatten())
    filled = counts > 0
    density = torch.where(filled, counts if follow is None else follow(counts), 1)
    weights = ones.sum() / (density * filled.sum().clamp_min(1))
    return weights.gather(0, place).view_as(gradient).to(gradient.dtype)
