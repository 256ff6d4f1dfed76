"""Test images made harder: by noise, blur and lost contrast, and by a small change that misleads.

Each function takes images (N, C, H, W) between 0 and 1 and the size of the change, and asks by keyword for what else it
needs: ``generator``, ``target`` (N,) classes, ``scores`` (a differentiable function from images to class scores).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur


def noisy(images: Tensor, *, size: float, generator: torch.Generator) -> Tensor:
    """Return images with Gaussian noise of this standard deviation, clipped to [0, 1].

    Args:
        images: (N, C, H, W) between 0 and 1.
        size: the standard deviation, as a share of the range of pixels, from 0 to 1.
        generator: on the CPU, so that the noise does not depend on the device.
    """
    _check_size(size)
    noise = torch.randn(images.shape, generator=generator).to(images.device)
    return (images + size * noise).clamp(0, 1)


def blurred(images: Tensor, *, size: float) -> Tensor:
    """Return images seen through a Gaussian blur whose standard deviation is this share of the shorter side."""
    _check_size(size)
    side = min(images.shape[-2:])
    sigma = size * side
    reach = min(math.ceil(3 * sigma), side - 1)  # beyond the border images are mirrored, which ends there
    return gaussian_blur(images, [2 * reach + 1] * 2, [sigma] * 2)


def faded(images: Tensor, *, size: float) -> Tensor:
    """Return images that have lost this share of their contrast: all pixels move towards their mean."""
    _check_size(size)
    return torch.lerp(images, images.mean((1, 2, 3), keepdim=True), size)


def attacked(images: Tensor, *, size: float, target: Tensor, scores: Callable[[Tensor], Tensor]) -> Tensor:
    """Return images of which every pixel is moved by ``size`` towards another class: one step of the sign of a gradient
    (Goodfellow et al., ICLR 2015), clipped to [0, 1].

    The gradient is that of the margin (score of the class minus the greatest other score), not of a loss: where
    probabilities saturate, the gradient of cross-entropy is 0 in float32, and a loss that merely scales its scores up
    would look robust (Carlini and Wagner, 2017).

    Args:
        images: (N, C, H, W) between 0 and 1.
        size: as a share of the range of pixels, from 0 to 1.
        target: (N,) class indices.
        scores: from images to class scores (N, C), differentiable.
    """
    _check_size(size)
    with torch.inference_mode(False), torch.enable_grad():
        moved = images.clone().requires_grad_()
        found = scores(moved)
        own = torch.nn.functional.one_hot(target.clone(), found.shape[1]).bool()
        margin = found[own] - found.masked_fill(own, -torch.inf).amax(1)
        (slope,) = torch.autograd.grad(margin.sum(), moved)
    return (images - size * slope.sign()).clamp(0, 1)


def _check_size(size: float) -> None:
    if not 0 <= size <= 1:
        raise ValueError(f"shift size is {size}; it must be between 0 and 1.")
