"""Triplet losses beside that of the hardest items: semi-hard ones, all that violate the margin; and proxies.

Triplets are never listed: negatives are sorted once for each anchor, so memory grows with the square of the batch.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from losses.adapters import is_target
from losses.checks import check_features, check_range
from losses.euclidean import check_batch, class_pairs, squared_distances
from losses.loss import about
from losses.shared import in_full_precision, masked_labels, safe_sqrt, unit


def _compared(
    features: Tensor, target: Tensor, squared: bool, normalised: bool, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the distances (N,N), whether two items are of one class, the distances to items of other classes in
    ascending order, infinite beyond their number, and that number, (N,1).
    """
    check_batch(features, target)
    same, other = class_pairs(target, mask)
    distance = squared_distances(unit(features) if normalised else features, exact=not squared)
    distance = distance if squared else safe_sqrt(distance)
    others = distance.masked_fill(~other, float("inf")).sort(1).values
    return distance, same, others, other.sum(1, keepdim=True)


def _at(others: Tensor, place: Tensor) -> Tensor:
    """Return the distances (N,N) at these places of each row; 0 where there is none."""
    found = others.gather(1, place)
    return torch.where(found.isinf(), 0, found)


@about(
    name="Triplet, semi-hard",
    family="euclidean",
    kind="features",
    link=None,
    paper="Schroff et al., FaceNet, CVPR 2015, arXiv 1503.03832, eq. 4, with the farthest where none is semi-hard",
    evidence="H",
    whole_batch=True,
)
@in_full_precision
def triplet_semi_hard(
    features: Tensor,
    target: Tensor,
    *,
    margin: float = 0.2,
    squared: bool = True,
    normalised: bool = True,
    mask: Tensor | None = None,
) -> Tensor:
    """Hinge on the distance of a pair of one class minus that to the nearest other item that is farther, plus a margin.

    L_i = mean_p max(d(i, p) - d(i, n) + m, 0), p the other items of i's class, n the nearest of another class with
    d(i, n) > d(i, p), or the farthest if none is; 0 for an item that lacks either. FaceNet: squared distances of
    features of length 1. features: (N,F); target: (N,) int64; mask: bool (N,), items that count; returns (N,).

    >>> triplet_semi_hard(torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8]]), torch.tensor([0, 0, 1]))
    tensor([0.0000, 0.5200, 0.0000])
    """
    check_range("margin", margin, 0)
    distance, same, others, count = _compared(features, target, squared, normalised, mask)
    if not len(target):
        return distance.sum(1)
    # sorted is a copy without gradient, among which to search
    place = torch.searchsorted(others.detach(), distance.detach(), right=True)
    nearest = _at(others, torch.minimum(place, count - 1).clamp_min(0))
    values = (distance - nearest + margin).relu()
    return torch.where(same & (count > 0), values, 0).sum(1) / same.sum(1).clamp_min(1)


@about(
    name="Triplet, all",
    family="euclidean",
    kind="features",
    link=None,
    paper="Hermans, Beyer and Leibe, arXiv 1703.07737, eq. 6, averaged over the triplets that are not 0",
    evidence="H",
    whole_batch=True,
)
@in_full_precision
def triplet_all(
    features: Tensor,
    target: Tensor,
    *,
    margin: float = 0.2,
    squared: bool = False,
    normalised: bool = False,
    mask: Tensor | None = None,
) -> Tensor:
    """Mean hinge over all triplets of a batch that violate the margin.

    L_i = mean of d(i, p) - d(i, n) + m over the items p of i's class and n of others for which it is above 0; 0 where
    it is for none. features: (N,F); target: (N,) int64; mask: bool (N,), items that count; returns (N,).

    >>> triplet_all(torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8]]), torch.tensor([0, 0, 1]))
    tensor([0.0000, 0.5496, 0.0000])
    """
    check_range("margin", margin, 0)
    distance, same, others, _ = _compared(features, target, squared, normalised, mask)
    if not len(target):
        return distance.sum(1)
    limit = distance + margin
    violate = torch.searchsorted(others.detach(), limit.detach())  # so many others are nearer than the limit
    nearest = torch.where(others.isinf(), 0, others).cumsum(1)
    nearest = torch.where(violate > 0, nearest.gather(1, (violate - 1).clamp_min(0)), 0)
    total = torch.where(same, violate * limit - nearest, 0).sum(1)
    return total / (violate * same).sum(1).clamp_min(1)


@about(
    name="Proxy-Anchor",
    family="euclidean",
    kind="features",
    link=None,
    paper="Kim et al., CVPR 2020, arXiv 2003.13911, eq. 4",
    evidence="V",
    whole_batch=True,
)
class ProxyAnchor(nn.Module):
    """Each class has a proxy, which attracts the items of its class in the batch and repels all others.

    L = 1/|P+| sum_{p in P+} ln(1 + sum_{x of p} e^(-a (cos(x, p) - m))) + 1/|P| sum_p ln(1 + sum_{x not of p} e^(a
    (cos(x, p) + m))), P the proxies, P+ those of classes in the batch, a the scale, m the margin; every item carries
    the batch's value. Proxies are drawn as Kaiming normal, as in the authors' code, and learnt.

    >>> loss = ProxyAnchor(num_classes=2, num_features=2, scale=1.0, margin=0.0)
    >>> loss.proxies.data = torch.eye(2)
    >>> loss(torch.tensor([[1.0, 0.0]]), torch.tensor([0])).detach()
    tensor([0.6598])
    """

    def __init__(self, *, num_classes: int, num_features: int, scale: float = 32.0, margin: float = 0.1) -> None:
        super().__init__()
        check_range("scale", scale, 0, above=True)
        check_range("margin", margin, 0)
        self.scale, self.margin = scale, margin
        self.proxies = nn.Parameter(nn.init.kaiming_normal_(torch.empty(num_classes, num_features), mode="fan_out"))

    @in_full_precision
    def forward(self, features: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return (N,) from features (N,F) and target (N,) int64; masked items neither attract nor repel."""
        target, mask = masked_labels(target, mask)
        check_features(features, target, self.proxies.shape[1], len(self.proxies))
        cosines = unit(features.to(self.proxies.dtype)) @ unit(self.proxies).T
        if not len(target):
            return cosines.sum(1)
        own = is_target(target, len(self.proxies))
        there = torch.ones_like(target, dtype=torch.bool) if mask is None else mask
        attracted, repelled = own & there.unsqueeze(1), ~own & there.unsqueeze(1)
        near = _log_one_plus(-self.scale * (cosines - self.margin), attracted)
        far = _log_one_plus(self.scale * (cosines + self.margin), repelled)
        present = attracted.any(0)
        return (near.sum() / present.sum().clamp_min(1) + far.mean()).expand(len(target))


def _log_one_plus(scores: Tensor, chosen: Tensor) -> Tensor:
    """Return ln(1 + sum of e^score) over the chosen scores of each column, (C,)."""
    scores = scores.masked_fill(~chosen, float("-inf"))
    return functional.pad(scores, (0, 0, 1, 0)).logsumexp(0)
