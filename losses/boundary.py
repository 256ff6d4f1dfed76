"""A loss on the distance of pixels from the boundary of the true region."""

import math

import torch
from torch import Tensor

from losses.adapters import is_target
from losses.checks import check_class_logits
from losses.loss import about
from losses.shared import masked_labels

BLOCK = 1 << 22
"""Numbers that a step of the distance transform compares at once at most, unless one line of pixels is longer."""


@about(
    name="Boundary",
    family="region",
    kind="class_logits",
    link="softmax",
    paper="Kervadec et al., MIDL 2019 and Med. Image Anal. 67, 2021, arXiv 1812.07032, eq. 5-6",
    evidence="V",
    aliases=("surface",),
)
def boundary(logits: Tensor, target: Tensor, *, background: bool = False, mask: Tensor | None = None) -> Tensor:
    """Probability of a region times the signed distance from its true boundary, below 0 inside.

    L = mean_c p_c d_c, p = softmax(z), d_c in pixels: outside of the true region of class c the distance to its nearest
    pixel; inside, 1 less the distance to the nearest pixel of another class, as in the authors' code, so 0 on its rim;
    0 everywhere if the class fills the image or is not in it. The mean is over all classes but the first, unless the
    background is asked for too. The value can be negative. Where a class is absent there is no slope, so it is added to
    a loss of regions, with a weight that the paper raises from 0.01 by 0.01 per epoch. logits: (N,C,...); target:
    (N,...) int64; mask: bool (N,...): distances are to pixels that count; returns (N,...), 0 for all items of (N,C).

    >>> boundary(torch.zeros(1, 2, 5), torch.tensor([[0, 0, 1, 1, 1]]))
    tensor([[ 1.0000,  0.5000,  0.0000, -0.5000, -1.0000]])
    """
    target, mask = masked_labels(target, mask)
    check_class_logits(logits, target)
    first = 0 if background else 1
    exact = torch.promote_types(logits.dtype, torch.float32)
    p = logits.to(exact).softmax(1)[:, first:]
    with torch.no_grad():
        own = is_target(target, logits.shape[1])[:, first:]
        away = _signed_distance(own, None if mask is None else mask.unsqueeze(1)).to(exact)
    return (p * away).mean(1)


def _signed_distance(region: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the distance of every pixel from the boundary of a region, in pixels, float32 (N,C,...).

    Outside, the distance to the nearest pixel of the region; inside, 1 less the distance to the nearest pixel that is
    not of it; 0 where there is no such pixel.

    Args:
        region: bool (N,C,...).
        mask: bool that broadcasts, False: it is not known whether the pixel is of the region; None: all are known.

    >>> _signed_distance(torch.tensor([[[False, False, True, True]]]))
    tensor([[[ 2.,  1.,  0., -1.]]])
    """
    inside, outside = (region, ~region) if mask is None else (region & mask, ~region & mask)
    to_region, to_rest = _distance(inside), _distance(outside)
    signed = torch.where(region, 1 - to_rest, to_region)
    return torch.where(signed.isinf(), 0, signed)


def _distance(seeds: Tensor) -> Tensor:
    """Return the Euclidean distance of every pixel to the nearest seed of its image, exact, infinite where none is.

    Squared distances are added up one dimension after the other, d(x) = min_y f(y) + (x - y)^2 (Felzenszwalb and
    Huttenlocher, Theory of Computing 8, 2012), in as many steps as the block size asks for: it runs where the data are,
    and is compiled with the rest, which a transform on the CPU is not.

    Args:
        seeds: bool (N,C,...).

    >>> _distance(torch.tensor([[[[True, False], [False, False]]]]))
    tensor([[[[0.0000, 1.0000],
              [1.0000, 1.4142]]]])
    """
    squared = torch.where(seeds, 0.0, math.inf)
    for axis in range(2, squared.ndim):
        lines = squared.movedim(axis, -1).unsqueeze(-2)
        place = torch.arange(lines.shape[-1], dtype=squared.dtype, device=squared.device)
        steps = place.split(max(1, BLOCK // max(1, lines.numel())))
        nearest = [(lines + (place - step.unsqueeze(1)).square()).amin(-1) for step in steps]
        squared = torch.cat(nearest, -1).movedim(-1, axis)
    return squared.sqrt()
