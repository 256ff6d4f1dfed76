"""Predict an image from several views: windows that slide over it, scales, and its mirror image.

MONAI has such windows too, and a test compares with it; importing MONAI takes longer than many runs here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from losses.loss import Link

Predict = Callable[[Tensor], Tensor]


def windowed(predict: Predict, images: Tensor, window: Sequence[int], overlap: float) -> Tensor:
    """Return the mean over windows of what is predicted for each pixel.

    Args:
        predict: from (B, C, h, w) to logits (B, K, h, w).
        images: (B, C, H, W); where one is smaller than the window, 0 is put below and to the right of it.
        window: height and width h, w that the model takes.
        overlap: least share of a window that its neighbour sees too, in [0, 1).

    Returns:
        logits (B, K, H, W).
    """
    height, width = images.shape[2:]
    if (height, width) == tuple(window):
        return predict(images)
    missing = max(0, window[0] - height), max(0, window[1] - width)
    padded = functional.pad(images, (0, missing[1], 0, missing[0]))
    total, seen = None, padded.new_zeros(padded.shape[2:])
    for rows in _places(padded.shape[2], window[0], overlap):
        for columns in _places(padded.shape[3], window[1], overlap):
            part = predict(padded[..., rows, columns])
            total = part.new_zeros(*part.shape[:2], *padded.shape[2:]) if total is None else total
            total[..., rows, columns] += part
            seen[rows, columns] += 1
    assert total is not None
    return (total / seen)[..., :height, :width]


def _places(length: int, window: int, overlap: float) -> Iterator[slice]:
    step = max(1, int(window * (1 - overlap)))
    for start in (*range(0, length - window, step), length - window):
        yield slice(start, start + window)


def averaged(predict: Predict, images: Tensor, scales: Sequence[float], mirror: bool, link: Link) -> Tensor:
    """Return the mean over scales, and mirror images, of what is predicted.

    Args:
        predict: from images of any size to logits of that size.
        images: (B, C, H, W).
        scales: factors by which images are enlarged before they are looked at.
        mirror: whether to look at mirror images too.
        link: ``softmax``: probabilities are averaged, and their logarithm is returned; otherwise logits are.

    Returns:
        logits (B, K, H, W).
    """
    size = images.shape[2:]
    found = []
    for scale in scales:
        scaled = images if scale == 1 else _resized(images, [max(1, round(side * scale)) for side in size])
        for flipped in (False, True) if mirror else (False,):
            logits = predict(scaled.flip(3)).flip(3) if flipped else predict(scaled)
            found.append(logits if scale == 1 else _resized(logits, size))
    if len(found) == 1:
        return found[0]
    if link != "softmax":
        return torch.stack(found).mean(0)
    return torch.stack([logits.log_softmax(1) for logits in found]).logsumexp(0) - torch.tensor(len(found)).log()


def _resized(images: Tensor, size: Sequence[int]) -> Tensor:
    return functional.interpolate(images, list(size), mode="bilinear", align_corners=False)
