"""Heads on the angle between features and class weights.

They hold the class weights, so the model has no head of its own. `logits` is what metrics evaluate, without margin; the
call puts the margin on the true class and returns cross-entropy. Features and class weights are normalised.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from losses.adapters import is_target
from losses.checks import check_choice, check_features, check_range
from losses.loss import about
from losses.shared import in_full_precision, masked_labels, unit


class CosineHead(nn.Module):
    """Class weights (C,F), drawn as Xavier uniform, and cross-entropy of scaled cosines with a margin."""

    def __init__(self, *, num_classes: int, num_features: int, scale: float, margin: float) -> None:
        super().__init__()
        check_range("scale", scale, 0, above=True)
        self.scale = scale
        self.margin = margin
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(num_classes, num_features)))

    @in_full_precision
    def cosines(self, features: Tensor) -> Tensor:
        """Return the cosines (N,C) of features (N,F) with the class weights."""
        features = features.to(self.weight.dtype)
        return functional.linear(unit(features), functional.normalize(self.weight))

    def logits(self, features: Tensor) -> Tensor:
        """Return the logits (N,C) without margin: scale * cos."""
        return self.scale * self.cosines(features)

    def penalised(self, cosines: Tensor) -> Tensor:
        """Return what stands in place of the cosine of the true class: without a margin, the cosine."""
        return cosines

    def margined(self, cosines: Tensor, target: Tensor) -> Tensor:
        """Return the cosines (N,C) with the margin on the true class."""
        return _with_true(cosines, target, self.penalised(cosines.gather(1, target[:, None])))

    def forward(self, features: Tensor, target: Tensor) -> Tensor:
        """Return (N,) from features (N,F) and target (N,) int64."""
        check_features(features, target, self.weight.shape[-1], len(self.weight))
        margined = self.margined(self.cosines(features), target)
        return functional.cross_entropy(self.scale * margined, target, reduction="none")


@about(
    name="NormFace",
    family="angular",
    kind="features",
    link="softmax",
    paper="Wang et al., ACM MM 2017, arXiv 1704.06369, with a fixed scale",
    evidence="H",
    aliases=("normalised_softmax",),
)
class NormFace(CosineHead):
    """Cross-entropy of scaled cosines between normalised features and class weights, without margin.

    L = -ln softmax(s cos)_t.

    >>> head = NormFace(num_classes=2, num_features=2, scale=1.0)
    >>> head.weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> head.logits(torch.tensor([[3.0, 4.0]]))
    tensor([[0.6000, 0.8000]], grad_fn=<MulBackward0>)
    """

    def __init__(self, *, num_classes: int, num_features: int, scale: float = 30.0) -> None:
        super().__init__(num_classes=num_classes, num_features=num_features, scale=scale, margin=0.0)


@about(
    name="CosFace",
    family="angular",
    kind="features",
    link="softmax",
    paper="Wang et al., CVPR 2018, arXiv 1801.09414, eq. 4",
    evidence="V",
    aliases=("am_softmax",),
)
class CosFace(CosineHead):
    """Cross-entropy of scaled cosines, with a margin subtracted from the cosine of the true class.

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
    kind="features",
    link="softmax",
    paper="Deng et al., CVPR 2019, arXiv 1801.07698, eq. 3",
    evidence="V",
)
class ArcFace(CosineHead):
    """Cross-entropy of scaled cosines, with a margin added to the angle of the true class.

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
        fallback = cosines - self.margin * math.sin(self.margin)
        return torch.where(cosines > -math.cos(self.margin), _turned(cosines, self.margin), fallback)


@about(
    name="Sub-center ArcFace",
    family="angular",
    kind="features",
    link="softmax",
    paper="Deng et al., ECCV 2020, sec. 3.2",
    evidence="V",
)
class SubcenterArcFace(ArcFace):
    """ArcFace with several centres per class, of which the nearest counts: noisy items gather around the others.

    cos_c = max_k cos(x, W_ck), then as ArcFace. centres: K per class; 1 is ArcFace.

    >>> SubcenterArcFace(num_classes=2, num_features=2).weight.shape
    torch.Size([2, 3, 2])
    """

    def __init__(
        self, *, num_classes: int, num_features: int, scale: float = 64.0, margin: float = 0.5, centres: int = 3
    ) -> None:
        check_range("centres", centres, 1)
        super().__init__(num_classes=num_classes * centres, num_features=num_features, scale=scale, margin=margin)
        self.weight = nn.Parameter(self.weight.detach().view(num_classes, centres, num_features))

    @in_full_precision
    def cosines(self, features: Tensor) -> Tensor:
        """Return the cosines (N,C) of features (N,F) with the nearest centre of each class."""
        classes, centres, _ = self.weight.shape
        weight = functional.normalize(self.weight.flatten(0, 1))
        every = functional.linear(unit(features.to(self.weight.dtype)), weight)
        return every.view(-1, classes, centres).max(2).values  # amax would share the gradient among ties, at a cost


@about(
    name="MV-Softmax",
    family="angular",
    kind="features",
    link="softmax",
    paper="Wang et al., AAAI 2020, arXiv 1912.00833, eq. 8-10",
    evidence="V",
    aliases=("sv_x_softmax",),
)
class MVSoftmax(CosineHead):
    """CosFace or ArcFace in which the cosines of hard classes, those above the true one's with margin, are raised.

    f = cos_t - m (kind am, m 0.35) or cos(theta_t + m) (arc, m 0.5) in place of the true cosine; others with cos_j > f
    become (1 + t) cos_j + t (adaptive) or cos_j + t. t = 0 is CosFace or, without its fallback, ArcFace. Which classes
    are hard is decided without gradient. There is no easy margin, which public heads differ in.

    >>> MVSoftmax(num_classes=2, num_features=2).margined(torch.tensor([[0.5, 0.4]]), torch.tensor([0]))
    tensor([[0.1500, 0.6800]])
    """

    def __init__(
        self,
        *,
        num_classes: int,
        num_features: int,
        scale: float = 32.0,
        margin: float = 0.35,
        t: float = 0.2,
        kind: Literal["am", "arc"] = "am",
        adaptive: bool = True,
    ) -> None:
        check_range("margin", margin, 0, math.pi / 2)
        check_range("t", t, 0)
        check_choice("kind", kind, ("am", "arc"))
        super().__init__(num_classes=num_classes, num_features=num_features, scale=scale, margin=margin)
        self.t, self.kind, self.adaptive = t, kind, adaptive

    def penalised(self, cosines: Tensor) -> Tensor:
        """Return cos - m, or cos(theta + m)."""
        return cosines - self.margin if self.kind == "am" else _turned(cosines, self.margin)

    def margined(self, cosines: Tensor, target: Tensor) -> Tensor:
        """Return the cosines with the margin on the true class, and those of hard classes raised."""
        true = is_target(target, cosines.shape[1])
        own = self.penalised(cosines.gather(1, target[:, None]))
        raised = (1 + self.t) * cosines + self.t if self.adaptive else cosines + self.t
        return torch.where(true, own, torch.where(cosines > own, raised, cosines))


def _with_true(cosines: Tensor, target: Tensor, own: Tensor) -> Tensor:
    """Return cosines (N,C) with own (N,1) in place of those of the true classes."""
    if torch.compiler.is_compiling():  # which is then never written
        return torch.where(is_target(target, cosines.shape[1]), own, cosines)
    return cosines.scatter(1, target[:, None], own.to(cosines.dtype))


def _turned(cosines: Tensor, angle: float) -> Tensor:
    """Return cos(theta + angle) from cos(theta); the sine is held above 0, where its slope is infinite."""
    sines = (1 - cosines.square()).clamp_min(torch.finfo(cosines.dtype).eps).sqrt()
    return cosines * math.cos(angle) - sines * math.sin(angle)


@about(
    name="CurricularFace",
    family="angular",
    kind="features",
    link="softmax",
    paper="Huang et al., CVPR 2020, arXiv 2004.00288, eq. 8-10, with the smoothing of the authors' code",
    evidence="V",
    whole_batch=True,
)
class CurricularFace(ArcFace):
    """ArcFace in which the cosines of hard classes are first lowered and, as training progresses, raised.

    True class as in ArcFace; others with cos_j > cos(theta_t + m) become cos_j (t + cos_j), t <- smoothing r + (1 -
    smoothing) t, r the batch's mean true cosine, updated in training before it is used; it starts at 0. The paper's
    text is usually quoted with the opposite smoothing.

    >>> CurricularFace(num_classes=2, num_features=2).seen
    tensor(0.)
    """

    seen: Tensor

    def __init__(
        self, *, num_classes: int, num_features: int, scale: float = 64.0, margin: float = 0.5, smoothing: float = 0.01
    ) -> None:
        check_range("smoothing", smoothing, 0, 1)
        super().__init__(num_classes=num_classes, num_features=num_features, scale=scale, margin=margin)
        self.smoothing = smoothing
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, features: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return (N,) from features (N,F) and target (N,) int64; masked items do not move t."""
        target, mask = masked_labels(target, mask)
        check_features(features, target, self.weight.shape[1], len(self.weight))
        cosines = self.cosines(features)
        true = cosines.gather(1, target[:, None])
        if self.training:
            self._follow(true.detach()[:, 0], mask)
        own, limit = self.penalised(true), _turned(true, self.margin)
        hard = torch.where(cosines > limit, cosines * (self.seen + cosines), cosines)
        margined = torch.where(is_target(target, cosines.shape[1]), own, hard)
        return functional.cross_entropy(self.scale * margined, target, reduction="none")

    @torch.no_grad()
    def _follow(self, true: Tensor, mask: Tensor | None) -> None:
        counted = torch.ones_like(true) if mask is None else mask.to(true.dtype)
        count = counted.sum()
        mean = (true * counted).sum() / count.clamp_min(1)
        moved = self.smoothing * mean + (1 - self.smoothing) * self.seen
        self.seen = torch.where(count > 0, moved, self.seen).to(self.seen.dtype)


@about(
    name="AdaFace",
    family="angular",
    kind="features",
    link="softmax",
    paper="Kim, Jain and Liu, CVPR 2022, arXiv 2204.00964, eq. 14-18",
    evidence="V",
    whole_batch=True,
    detached=True,
)
class AdaFace(CosineHead):
    """Cross-entropy of scaled cosines with a margin that adapts to image quality, measured by the feature norm.

    z = clip(h (|x| - mean)/(std + 1e-3), -1, 1), without gradient; the true class gets s (cos(theta - m z) - m z - m),
    theta - m z held inside (0, pi). Mean and deviation of the norms (from 1e-3 to 100) are moving averages with weight
    smoothing for the new batch, updated in training before they are used; they start at 20 and 100. z = -1 is ArcFace,
    0 CosFace.

    >>> AdaFace(num_classes=2, num_features=2).norms
    tensor([ 20., 100.])
    """

    norms: Tensor

    def __init__(
        self,
        *,
        num_classes: int,
        num_features: int,
        scale: float = 64.0,
        margin: float = 0.4,
        h: float = 0.333,
        smoothing: float = 0.01,
    ) -> None:
        check_range("margin", margin, 0, math.pi / 2)
        check_range("h", h, 0)
        check_range("smoothing", smoothing, 0, 1.001)
        super().__init__(num_classes=num_classes, num_features=num_features, scale=scale, margin=margin)
        self.h, self.smoothing = h, smoothing
        self.register_buffer("norms", torch.tensor([20.0, 100.0]))

    def forward(self, features: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return (N,) from features (N,F) and target (N,) int64; masked items move no average."""
        target, mask = masked_labels(target, mask)
        check_features(features, target, self.weight.shape[1], len(self.weight))
        cosines = self.cosines(features)
        norms = features.detach().to(self.norms.dtype).norm(dim=1).clamp(1e-3, 100)
        if self.training:
            self._follow(norms, mask)
        z = (self.h * (norms - self.norms[0]) / (self.norms[1] + 1e-3)).clamp(-1, 1)[:, None].to(cosines.dtype)
        true = cosines.gather(1, target[:, None])
        # eps as wide as the sine can be told from 0, whose arccosine has no slope
        edge = 2 * torch.finfo(cosines.dtype).eps ** 0.5
        theta = true.clamp(-1 + edge**2, 1 - edge**2).acos()
        own = (theta - self.margin * z).clamp(edge, math.pi - edge).cos() - self.margin * (z + 1)
        margined = _with_true(cosines, target, own)
        return functional.cross_entropy(self.scale * margined, target, reduction="none")

    @torch.no_grad()
    def _follow(self, norms: Tensor, mask: Tensor | None) -> None:
        counted = torch.ones_like(norms) if mask is None else mask.to(norms.dtype)
        count = counted.sum()
        mean = (norms * counted).sum() / count.clamp_min(1)
        variance = ((norms - mean).square() * counted).sum() / (count - 1).clamp_min(1)
        new = torch.stack([mean, variance.sqrt()])
        moved = self.smoothing * new + (1 - self.smoothing) * self.norms
        # one item has no deviation
        self.norms = torch.where(count > 1, moved, self.norms).to(self.norms.dtype)


@about(
    name="SFace",
    family="angular",
    kind="features",
    link=None,
    paper="Zhong et al., IEEE TIP 30, 2021, eq. 5-9",
    evidence="V",
    detached=True,
)
class SFace(CosineHead):
    """Difference of inter-class and intra-class cosines whose gradients are rescaled by sigmoids of the angle.

    L = -r_in(theta_t) cos_t + sum_{j != t} r_out(theta_j) cos_j, r_in = s/(1 + exp(-k (theta - a))), r_out = s/(1 +
    exp(k (theta - b))), without gradient. Only the gradient means something: the value may be negative. No softmax.

    >>> head = SFace(num_classes=2, num_features=2)
    >>> head.weight.data = torch.eye(2)
    >>> head(torch.tensor([[0.0, 1.0]]), torch.tensor([0])).detach().abs() < 1e-3
    tensor([False])
    """

    def __init__(
        self,
        *,
        num_classes: int,
        num_features: int,
        scale: float = 64.0,
        k: float = 80.0,
        a: float = 0.8,
        b: float = 1.23,
    ) -> None:
        check_range("k", k, 0, above=True)
        super().__init__(num_classes=num_classes, num_features=num_features, scale=scale, margin=0.0)
        self.k, self.a, self.b = k, a, b

    def forward(self, features: Tensor, target: Tensor) -> Tensor:
        """Return (N,) from features (N,F) and target (N,) int64."""
        check_features(features, target, self.weight.shape[1], len(self.weight))
        cosines = self.cosines(features)
        theta = cosines.detach().clamp(-1, 1).acos()
        inwards = -torch.sigmoid(self.k * (theta - self.a))
        outwards = torch.sigmoid(self.k * (self.b - theta))
        return self.scale * (torch.where(is_target(target, cosines.shape[1]), inwards, outwards) * cosines).sum(1)


@about(
    name="L-Softmax",
    family="angular",
    kind="features",
    link="softmax",
    paper="Liu et al., ICML 2016, arXiv 1612.02295, eq. 5-6, with the annealing of the authors' code",
    evidence="V",
    aliases=("large_margin_softmax",),
)
class LSoftmax(CosineHead):
    """Cross-entropy in which the angle to the true class is multiplied by an integer margin.

    True logit |W_t||x| psi(theta), psi = (-1)^k cos(m theta) - 2k for theta in [k pi/m, (k+1) pi/m], which falls all
    the way; others |W_j||x| cos theta_j. In practice the true logit is |W_t||x| (lambda cos + psi)/(1 + lambda), lambda
    = max(start (1 + decay n)^-power, least) in training step n = 1, 2, ..., which the loss counts: training begins
    nearly without margin. start 0: lambda is least at once. Features of length 0 have no angle; they get psi = 0.

    >>> head = LSoftmax(num_classes=2, num_features=2, margin=2)
    >>> head.psi(torch.tensor([1.0, 0.0, -1.0]))
    tensor([ 1., -1., -3.])
    """

    normalises_weight = False
    steps: Tensor

    def __init__(
        self,
        *,
        num_classes: int,
        num_features: int,
        margin: int = 4,
        start: float = 1000.0,
        decay: float = 2.5e-5,
        power: float = 35.0,
        least: float = 0.0,
    ) -> None:
        check_choice("margin", str(margin), ("1", "2", "3", "4"))
        for name, value in (("start", start), ("decay", decay), ("power", power), ("least", least)):
            check_range(name, value, 0)
        super().__init__(num_classes=num_classes, num_features=num_features, scale=1.0, margin=float(margin))
        self.start, self.decay, self.power, self.least = start, decay, power, least
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @property
    def annealing(self) -> Tensor:
        """Lambda, the weight of the plain cosine beside psi, after the training steps so far."""
        grown = 1 + self.decay * self.steps.to(self.weight.dtype)
        return (self.start * grown**-self.power).clamp_min(self.least)

    def psi(self, cosines: Tensor) -> Tensor:
        """Return the margin function of the angle, by a Chebyshev polynomial of its cosine."""
        m = int(self.margin)
        c = cosines
        multiple = {1: c, 2: 2 * c**2 - 1, 3: 4 * c**3 - 3 * c, 4: 8 * c**4 - 8 * c**2 + 1}[m]
        k = (m * c.detach().clamp(-1, 1).acos() / math.pi).floor().clamp_max(m - 1)
        return (1 - 2 * k.remainder(2)) * multiple - 2 * k

    @in_full_precision
    def logits(self, features: Tensor) -> Tensor:
        """Return the logits (N,C) without margin: W x, or |x| cos with normalised weights."""
        weight = functional.normalize(self.weight) if self.normalises_weight else self.weight
        return functional.linear(features.to(weight.dtype), weight)

    def forward(self, features: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return (N,) from features (N,F) and target (N,) int64; where nothing counts, it is no training step."""
        target, mask = masked_labels(target, mask)
        check_features(features, target, self.weight.shape[1], len(self.weight))
        if self.training and len(target):
            self.steps = self.steps + (1 if mask is None else mask.any())
        logits, true = self.logits(features), functional.normalize(self.weight[target])
        cosines = (unit(features.to(true.dtype)) * true).sum(1, keepdim=True)
        lengths = features.to(logits.dtype).norm(dim=1, keepdim=True)
        if not self.normalises_weight:
            lengths = lengths * self.weight.norm(dim=1)[target][:, None]
        annealing = self.annealing
        own = lengths * (annealing * cosines + self.psi(cosines)) / (1 + annealing)
        return functional.cross_entropy(_with_true(logits, target, own), target, reduction="none")


@about(
    name="A-Softmax",
    family="angular",
    kind="features",
    link="softmax",
    paper="Liu et al., SphereFace, CVPR 2017, arXiv 1704.08063, eq. 7, with the annealing of the authors' code",
    evidence="V",
    aliases=("sphereface",),
)
class ASoftmax(LSoftmax):
    """L-Softmax with class weights of length 1, so that only angles decide.

    True logit |x| (lambda cos + psi(theta))/(1 + lambda), others |x| cos theta_j. Lambda falls as for `LSoftmax`, from
    1000 to 5, which it reaches after 1,659 steps.

    >>> ASoftmax(num_classes=2, num_features=2).psi(torch.tensor([1.0, 0.0, -1.0]))
    tensor([ 1., -3., -7.])
    """

    normalises_weight = True

    def __init__(
        self,
        *,
        num_classes: int,
        num_features: int,
        margin: int = 4,
        start: float = 1000.0,
        decay: float = 0.12,
        power: float = 1.0,
        least: float = 5.0,
    ) -> None:
        shape = {"num_classes": num_classes, "num_features": num_features}
        super().__init__(**shape, margin=margin, start=start, decay=decay, power=power, least=least)
