"""Test images made harder: by noise, and by a small change that misleads."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def noisy(images: Tensor, deviation: float, generator: torch.Generator) -> Tensor:
    """Return images with Gaussian noise of this standard deviation, clipped to [0, 1].

    Args:
        images: (N, C, H, W) between 0 and 1.
        deviation: as a share of the range of pixels, above 0.
        generator: on the CPU, so that the noise does not depend on the device.
    """
    noise = torch.randn(images.shape, generator=generator).to(images.device)
    return (images + deviation * noise).clamp(0, 1)


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
