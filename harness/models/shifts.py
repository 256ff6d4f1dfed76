"""How a detector that begins with boxes moves them: the shifts of R-CNN."""

from __future__ import annotations

import torch
from torch import Tensor

LARGEST = 4.0
"""Logarithm of the greatest factor on a side of a box."""


def moved(boxes: Tensor, shifts: Tensor) -> Tensor:
    """Return boxes (N,A,4), corners, whose centres are moved by shifts (N,A,4) in units of their sides, and whose sides
    are multiplied by exponentials: the parameters of R-CNN (Girshick et al., CVPR 2014, arXiv:1311.2524, appendix C).
    """
    sides = boxes[..., 2:] - boxes[..., :2]
    centres = (boxes[..., :2] + boxes[..., 2:]) / 2 + shifts[..., :2] * sides
    half = sides * shifts[..., 2:].clamp_max(LARGEST).exp() / 2
    return torch.cat([centres - half, centres + half], -1)
