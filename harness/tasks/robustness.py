"""Test images made harder: by noise, blur and lost contrast, and by a small change that misleads."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur


def noisy(images: Tensor, deviation: float, generator: torch.Generator) -> Tensor:
    """Return images with Gaussian noise of this standard deviation, clipped to [0, 1].

    Args:
        images: (N, C, H, W) between 0 and 1.
        deviation: as a share of the range of pixels, above 0.
        generator: on the CPU, so that the noise does not depend on the device.
    """
    noise = torch.randn(images.shape, generator=generator).to(images.device)
    return (images + deviation * noise).clamp(0, 1)


def blurred(images: Tensor, deviation: float) -> Tensor:
    """Return images (N, C, H, W) seen through a Gaussian blur; its deviation is a share of the shorter side."""
    side = min(images.shape[-2:])
    sigma = deviation * side
    reach = min(math.ceil(3 * sigma), side - 1)  # beyond the border images are mirrored, which ends there
    return gaussian_blur(images, [2 * reach + 1] * 2, [sigma] * 2)


def faded(images: Tensor, share: float) -> Tensor:
    """Return images (N, C, H, W) that have lost this share of their contrast: all pixels move towards their mean."""
    return torch.lerp(images, images.mean((1, 2, 3), keepdim=True), share)


def attacked(predict: Callable[[Tensor], Tensor], images: Tensor, target: Tensor, size: float) -> Tensor:
    """Return images of which every pixel is moved by ``size`` towards another class: one step of the sign of a gradient
    (Goodfellow et al., ICLR 2015), clipped to [0, 1].

    The gradient is that of the margin (score of the class minus the greatest other score), not of a loss: where
    probabilities saturate, the gradient of cross-entropy is 0 in float32, and a loss that merely scales its scores up
    would look robust (Carlini and Wagner, 2017).

    Args:
        predict: from images to class scores (N, C), differentiable.
        images: (N, C, H, W) between 0 and 1.
        target: (N,) class indices.
        size: as a share of the range of pixels, above 0.
    """
    with torch.inference_mode(False), torch.enable_grad():
        moved = images.clone().requires_grad_()
        scores = predict(moved)
        own = torch.nn.functional.one_hot(target.clone(), scores.shape[1]).bool()
        margin = scores[own] - scores.masked_fill(own, -torch.inf).amax(1)
        (slope,) = torch.autograd.grad(margin.sum(), moved)
    return (images - size * slope.sign()).clamp(0, 1)
