"""Heads on the angle between features and class weights.

They hold the class weights, so the model has no head of its own. `logits` is what metrics judge, without margin; the
call puts the margin on the true class and returns cross-entropy. Features and class weights are normalised.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from losses.checks import check_features, check_range
from losses.lift import is_target
from losses.loss import about


class CosineHead(nn.Module):
    """Class weights (C,F), drawn as Xavier uniform, and cross-entropy of scaled cosines with a margin."""

    def __init__(self, *, num_classes: int, num_features: int, scale: float, margin: float) -> None:
        super().__init__()
        check_range("scale", scale, 0, above=True)
        self.scale = scale
        self.margin = margin
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(num_classes, num_features)))

    def cosines(self, features: Tensor) -> Tensor:
        """Return the cosines (N,C) of features (N,F) with the class weights."""
        features = features.to(self.weight.dtype)
        return functional.linear(functional.normalize(features), functional.normalize(self.weight))

    def logits(self, features: Tensor) -> Tensor:
        """Return the logits (N,C) without margin: scale * cos."""
        return self.scale * self.cosines(features)

    def penalised(self, cosines: Tensor) -> Tensor:
        """Return what stands in place of the cosine of the true class."""
        raise NotImplementedError

    def forward(self, features: Tensor, target: Tensor) -> Tensor:
        """Return (N,) from features (N,F) and target (N,) int64."""
        check_features(features, target, self.weight.shape[1])
        cosines = self.cosines(features)
        margined = torch.where(is_target(target, cosines.shape[1]), self.penalised(cosines), cosines)
        return functional.cross_entropy(self.scale * margined, target, reduction="none")


@about(
    name="NormFace",
    family="angular",
    takes="features",
    link="softmax",
    paper="Wang et al., ACM MM 2017, arXiv 1704.06369, with a fixed scale",
    evidence="H",
    aliases=("normalised_softmax",),
)
class NormFace(CosineHead):
    """Cross-entropy of scaled cosines, without margin.

    L = -ln softmax(s cos)_t.

    >>> head = NormFace(num_classes=2, num_features=2, scale=1.0)
    >>> head.weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> head.logits(torch.tensor([[3.0, 4.0]]))
    tensor([[0.6000, 0.8000]], grad_fn=<MulBackward0>)
    """

    def __init__(self, *, num_classes: int, num_features: int, scale: float = 30.0) -> None:
        super().__init__(num_classes=num_classes, num_features=num_features, scale=scale, margin=0.0)

    def penalised(self, cosines: Tensor) -> Tensor:
        """Return the cosines as they are."""
        return cosines


@about(
    name="CosFace",
    family="angular",
    takes="features",
    link="softmax",
    paper="Wang et al., CVPR 2018, arXiv 1801.09414, eq. 4",
    evidence="V",
    aliases=("am_softmax",),
)
class CosFace(CosineHead):
    """Ask the cosine with the true class to be larger by a margin.

    L = -ln softmax(s (cos - m [c = t]))_t. AM-Softmax (arXiv 1801.05599) is the same with scale 30.

    >>> head = CosFace(num_classes=2, num_features=2, scale=1.0, margin=0.2)
    >>> head.weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> head(torch.tensor([[3.0, 4.0]]), torch.tensor([1])).detach()
    tensor([0.6931])
    """

    def __init__(self, *, num_classes: int, num_features: int, scale: float = 64.0, margin: float = 0.35) -> None:
        check_range("margin", margin, 0)
        super().__init__(num_classes=num_classes, num_features=num_features, scale=scale, margin=margin)

    def penalised(self, cosines: Tensor) -> Tensor:
        """Return cos - m."""
        return cosines - self.margin


@about(
    name="ArcFace",
    family="angular",
    takes="features",
    link="softmax",
    paper="Deng et al., CVPR 2019, arXiv 1801.07698, eq. 3",
    evidence="V",
)
class ArcFace(CosineHead):
    """Ask the angle to the true class to be smaller by a margin.

    L = -ln softmax(s cos(theta + m [c = t]))_t, m in radians. Where theta + m passes pi, cos - m sin m takes its place,
    as in the authors' code, so that the logit keeps falling. Gradients are infinite at theta = 0, where the sine is
    held at the precision of its dtype.

    >>> head = ArcFace(num_classes=2, num_features=2)
    >>> head.penalised(torch.tensor([1.0, 0.0, -1.0]))
    tensor([ 0.8774, -0.4794, -1.2397])
    """

    def __init__(self, *, num_classes: int, num_features: int, scale: float = 64.0, margin: float = 0.5) -> None:
        check_range("margin", margin, 0, math.pi / 2)
        super().__init__(num_classes=num_classes, num_features=num_features, scale=scale, margin=margin)

    def penalised(self, cosines: Tensor) -> Tensor:
        """Return cos(theta + m), or cos - m sin m where theta + m passes pi."""
        sines = (1 - cosines.square()).clamp_min(torch.finfo(cosines.dtype).eps).sqrt()
        turned = cosines * math.cos(self.margin) - sines * math.sin(self.margin)
        return torch.where(cosines > -math.cos(self.margin), turned, cosines - self.margin * math.sin(self.margin))
