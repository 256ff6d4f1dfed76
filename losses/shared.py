"""Mathematics that several families share."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

from losses.checks import check_range

F = TypeVar("F", bound=Callable[..., Any])


def constant(numbers: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return numbers, or a tensor, as `torch.as_tensor` does; a GPU is sent the same numbers once, not in every step.

    A copy of numbers would make the host wait for the device. Where functions are transformed or compiled, nothing is
    kept: what is made there is no tensor that outlives them.
    """
    transformed = torch._C._functorch.peek_interpreter_stack() is not None  # pyright: ignore
    inside = transformed or torch.compiler.is_compiling()
    if device.type != "cuda" or inside or not isinstance(numbers, Sequence):
        return torch.as_tensor(numbers, dtype=dtype, device=device)
    return _kept(_frozen(numbers), dtype, device)


def _frozen(numbers: Any) -> Any:
    return tuple(map(_frozen, numbers)) if isinstance(numbers, Sequence) else numbers


@functools.lru_cache(maxsize=32)
def _kept(numbers: tuple[Any, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # what inference makes could not be trained with later
        return torch.tensor(numbers, dtype=dtype, device=device)


def in_full_precision(function: F) -> F:
    """Decorator: products inside are as precise as the data, also where autocast would round them to half precision.

    Autocast casts products of matrices and convolutions, whose rounding a difference of large numbers, or a scale of
    64, makes into an error of the whole loss.
    """

    @functools.wraps(function)
    def precise(*args: Any, **keywords: Any) -> Any:
        device = next(arg.device.type for arg in (*args, *keywords.values()) if isinstance(arg, Tensor))
        if device == "meta" or not torch.is_autocast_enabled(device):
            return function(*args, **keywords)
        with torch.autocast(device, enabled=False):
            return function(*args, **keywords)

    return precise  # pyright: ignore[reportReturnType]


def forward_mode() -> bool:
    """Return whether torch differentiates in forward mode now, which few of its fused losses have a rule for."""
    return not torch.compiler.is_compiling() and forward_ad._current_level >= 0


class CustomFunction(torch.autograd.Function):
    """A function of tensors whose gradient is written by hand; it can be mapped, and is quick to call.

    Forward-mode differentiation (`torch.func.jvp`, `jacfwd`, `hessian`) goes through the operations of `plain` instead.
    """

    generate_vmap_rule = True

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        # torch reads it in every call, and computing it takes longer than a small loss
        cls.forward.__signature__ = inspect.signature(cls.forward)  # pyright: ignore[reportFunctionMemberAccess]

    @classmethod
    def of(cls, *inputs: Any) -> Any:
        """Return the function of the inputs, differentiated by hand, except in forward mode."""
        return cls.plain(*inputs) if forward_mode() else cls.apply(*inputs)

    @classmethod
    def plain(cls, *inputs: Any, **more: Any) -> Any:
        """Return the same by operations that torch can differentiate."""
        return cls.forward(*inputs)


def safe_sqrt(square: Tensor) -> Tensor:
    """Return the square root with slope 0 at 0, where that of the root is infinite.

    >>> safe_sqrt(torch.tensor([4.0, 0.0]))
    tensor([2., 0.])
    """
    zero = square <= 0  # not of a NaN, which goes through the root
    return torch.where(zero, 0, torch.where(zero, 1, square).sqrt())


def unit(vectors: Tensor) -> Tensor:
    """Return vectors (N,F,...) divided by their length over F; those shorter than 1e-12 stay as they are.

    torch divides these by 1e-12, which makes gradients of 1e12.

    >>> unit(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    length = vectors.norm(2, 1, keepdim=True)
    return vectors / length.masked_fill(length <= 1e-12, 1)


def one_minus_prob(entropy: Tensor) -> Tensor:
    """Return 1 - exp(-entropy), the probability not given to the true class, precise where it is small.

    >>> one_minus_prob(torch.tensor([0.0, 1e-6, 0.6931472, 100.0]))
    tensor([0.0000e+00, 1.0000e-06, 5.0000e-01, 1.0000e+00])
    """
    return _OneMinusProb.of(entropy) if torch.compiler.is_compiling() else -torch.expm1(-entropy)


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


def spread_mask(mask: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return a mask in a shape of which its own is the whole or the beginning.

    Raises:
        ValueError: it is not bool, or its shape does not begin the other.

    >>> spread_mask(torch.tensor([True, False]), (2, 2))
    tensor([[ True,  True],
            [False, False]])
    """
    if mask.dtype != torch.bool:
        raise ValueError(f"mask: dtype {mask.dtype}, allowed is torch.bool")
    if mask.shape == shape:
        return mask
    if mask.ndim < 1 or mask.shape != shape[: mask.ndim]:
        raise ValueError(f"mask: shape {tuple(mask.shape)}, allowed is {tuple(shape)}, or the beginning of it")
    return mask.view(*mask.shape, *[1] * (len(shape) - mask.ndim)).expand(shape)


def masked_labels(target: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Return labels, 0 where the mask leaves them out, so that any number may stand there, and a mask of their shape.

    >>> masked_labels(torch.tensor([1, 255]), torch.tensor([True, False]))
    (tensor([1, 0]), tensor([ True, False]))
    """
    if mask is None:
        return target, None
    mask = spread_mask(mask, target.shape)
    return torch.where(mask, target, 0), mask


def valid_mask(values: Tensor, mask: Tensor | None) -> Tensor:
    """Return 1 where a value counts and 0 where it does not, in the shape of values and at least float32.

    mask: bool, of the shape of values or of its leading dimensions, None = all count.

    >>> valid_mask(torch.zeros(2, 2), torch.tensor([True, False]))
    tensor([[1., 1.],
            [0., 0.]])
    """
    # sums of whole numbers are exact in float32 up to 2^24, and as precise as its rounding beyond; bf16 stops at 256
    exact = torch.promote_types(values.dtype, torch.float32)
    return torch.ones_like(values, dtype=exact) if mask is None else spread_mask(mask, values.shape).to(exact)


def counted(place: Tensor, size: int, mask: Tensor | None = None) -> Tensor:
    """Return how often each of the numbers 0 to size - 1 occurs in place, as int64 (size,), without waiting for it.

    One by one in float32 a count would stop at 2^24. mask: bool, of the shape of place; None = all count.

    >>> counted(torch.tensor([0, 2, 2]), 3)
    tensor([1, 0, 2])
    """
    ones = torch.ones_like(place) if mask is None else mask.to(torch.int64)
    return ones.new_zeros(size).scatter_add(0, place.flatten(), ones.flatten())


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
    exact = torch.promote_types(gradient.dtype, torch.float32)
    mask = None if mask is None else spread_mask(mask, gradient.shape)
    place = (gradient.detach().to(exact) * bins).long().clamp(0, bins - 1).flatten()
    counts = counted(place, bins, mask)
    total, counts, filled = counts.sum(), counts.to(exact), counts > 0
    density = torch.where(filled, counts if follow is None else follow(counts), 1)
    weights = total / (density * filled.sum().clamp_min(1))
    return weights.gather(0, place).view_as(gradient).to(gradient.dtype)
