"""Checks of shapes, dtypes, settings and labels. Only labels on the CPU are read, so none waits for a device."""

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar

import torch
from torch import Tensor

_TRUSTED = ContextVar("labels_trusted", default=False)


@contextlib.contextmanager
def labels_trusted() -> Iterator[None]:
    """Within this context labels are not looked at: whoever loaded them has checked their range already."""
    token = _TRUSTED.set(True)
    try:
        yield
    finally:
        _TRUSTED.reset(token)


def may_look(data: Tensor) -> bool:
    """Return whether values may be read: on the CPU, not while compiling, and not of tensors that hold no values."""
    return not torch.compiler.is_compiling() and type(data) is Tensor and data.device.type == "cpu"


def check_labels(target: Tensor, num_classes: int) -> None:
    """Raise ValueError unless labels, of any shape, are from 0 to num_classes - 1; only where `may_look` says so."""
    if not may_look(target) or _TRUSTED.get() or not target.numel():
        return
    try:
        low, high = (int(end) for end in torch.aminmax(target))
    except RuntimeError:  # inside of vmap a tensor has no one value
        return
    if low < 0 or high >= num_classes:
        raise ValueError(
            f"target: class {low if low < 0 else high}, allowed are 0 to {num_classes - 1}; leave other labels out by "
            "a mask, or by the ignore_index of losses.loss.Loss"
        )


def check_class_logits(logits: Tensor, target: Tensor, *, soft: bool = False) -> None:
    """Raise ValueError unless logits are (N,C,...) floats with C >= 2 and target is (N,...) int64, below C.

    soft: the target may also be probabilities, floats of the shape of the logits.
    """
    shape = logits.shape  # read once: these checks are a noticeable part of a small loss
    if len(shape) < 2 or shape[1] < 2:
        raise ValueError(f"logits: shape {tuple(shape)}, allowed is (N, C, ...) with 2 classes or more")
    check_float("logits", logits)
    if soft and len(target.shape) == len(shape) and target.is_floating_point():
        check_pair(logits, target)
        return
    _check_class_target(target, shape[:1] + shape[2:])
    check_labels(target, shape[1])


def check_features(features: Tensor, target: Tensor, num_features: int, num_classes: int | None = None) -> None:
    """Raise ValueError unless features are (N, num_features) floats and target is (N,) int64, below num_classes."""
    if features.ndim != 2 or features.shape[1] != num_features:
        raise ValueError(f"features: shape {tuple(features.shape)}, allowed is (N, {num_features})")
    check_float("features", features)
    _check_class_target(target, (features.shape[0],))
    if num_classes is not None:
        check_labels(target, num_classes)


def check_pair(prediction: Tensor, target: Tensor) -> None:
    """Raise ValueError unless prediction and target have one shape and both are floats."""
    if prediction.shape != target.shape:
        raise ValueError(
            f"target: shape {tuple(target.shape)}, allowed is that of the prediction, {tuple(prediction.shape)}"
        )
    check_float("prediction", prediction)
    check_float("target", target)


def check_choice(name: str, value: str, allowed: Sequence[str]) -> None:
    """Raise ValueError unless the setting `name` is one of the allowed words."""
    if value not in allowed:
        raise ValueError(f"{name}={value!r}: allowed is {' or '.join(map(repr, allowed))}")


def check_range(
    name: str, value: float, low: float = float("-inf"), high: float = float("inf"), *, above: bool = False
) -> None:
    """Raise ValueError unless low <= value < high (with `above`, low < value < high)."""
    if not (low < value < high if above else low <= value < high):
        raise ValueError(f"{name}={value!r}: allowed is {low} {'<' if above else '<='} {name} < {high}")


def check_float(name: str, data: Tensor) -> None:
    """Raise ValueError unless data are floats of a dtype that can hold what losses compute: all but float16."""
    if not data.is_floating_point():
        raise ValueError(f"{name}: dtype {data.dtype}, allowed is a floating-point dtype")
    if data.dtype is torch.float16:
        raise ValueError(
            f"{name}: dtype torch.float16, whose range ends at 65,504, allowed are float32, float64 and bfloat16; "
            "call .float(), or use losses.loss.Loss, which does"
        )


def _check_class_target(target: Tensor, shape: tuple[int, ...]) -> None:
    if target.shape != shape:
        raise ValueError(
            f"target: shape {tuple(target.shape)}, allowed is {tuple(shape)}, one class for every item, which of a "
            "one-hot target is its argmax(1)"
        )
    if target.dtype != torch.int64:
        raise ValueError(f"target: dtype {target.dtype}, allowed is torch.int64; losses.loss.Loss takes any integers")
