"""Checks of shapes, dtypes and settings. None of them reads values, so none waits for the device."""

from collections.abc import Sequence

import torch
from torch import Tensor


def check_class_logits(logits: Tensor, target: Tensor) -> None:
    """Raise ValueError unless logits are (N,C,...) floats with C >= 2 and target is (N,...) int64."""
    shape = logits.shape  # read once: these checks are a noticeable part of a small loss
    if len(shape) < 2 or shape[1] < 2:
        raise ValueError(f"logits: shape {tuple(shape)}, allowed is (N, C, ...) with 2 classes or more")
    _check_float("logits", logits)
    _check_class_target(target, shape[:1] + shape[2:])


def check_features(features: Tensor, target: Tensor, num_features: int) -> None:
    """Raise ValueError unless features are (N, num_features) floats and target is (N,) int64."""
    if features.ndim != 2 or features.shape[1] != num_features:
        raise ValueError(f"features: shape {tuple(features.shape)}, allowed is (N, {num_features})")
    _check_float("features", features)
    _check_class_target(target, (features.shape[0],))


def check_pair(prediction: Tensor, target: Tensor) -> None:
    """Raise ValueError unless prediction and target have one shape and both are floats."""
    if prediction.shape != target.shape:
        raise ValueError(
            f"target: shape {tuple(target.shape)}, allowed is that of the prediction, {tuple(prediction.shape)}"
        )
    _check_float("prediction", prediction)
    _check_float("target", target)


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


def _check_float(name: str, data: Tensor) -> None:
    if not data.is_floating_point():
        raise ValueError(f"{name}: dtype {data.dtype}, allowed is a floating-point dtype")


def _check_class_target(target: Tensor, shape: tuple[int, ...]) -> None:
    if target.shape != shape:
        raise ValueError(f"target: shape {tuple(target.shape)}, allowed is {tuple(shape)}, one class for every item")
    if target.dtype != torch.int64:
        raise ValueError(f"target: dtype {target.dtype}, allowed is torch.int64")
