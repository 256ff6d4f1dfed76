"""Losses on probabilities that weigh classes, or items, against imbalance."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from losses.adapters import OverClasses, is_target, one_hot, one_vs_rest, reduce_classes
from losses.angular import CosineHead
from losses.checks import check_choice, check_class_logits, check_pair, check_range
from losses.loss import about
from losses.probability import (
    binary_cross_entropy,
    binary_focal,
    entropy_of_classes,
    label_smoothing,
)
from losses.shared import constant, counted, ghm_weights, masked_labels, one_minus_prob, valid_mask

Weights = Sequence[float] | Tensor


def _of_class(weights: Weights, logits: Tensor, target: Tensor, name: str) -> Tensor:
    """Return each item's class weight, in the precision of logits."""
    held = constant(weights, logits.dtype, logits.device)
    if held.shape != (logits.shape[1],):
        raise ValueError(
            f"{name}: {tuple(held.shape)} numbers, allowed is one for each of the {logits.shape[1]} classes"
        )
    return held.gather(0, target.flatten()).view_as(target)


def _over_mean(values: Tensor, weights: Tensor, mask: Tensor | None) -> Tensor:
    """Return values over the mean weight of what counts, so that the mean of weighted values is their weighted mean."""
    ones = valid_mask(weights, mask)
    total = (weights * ones).sum()
    return torch.where(total > 0, values * ones.sum() / torch.where(total > 0, total, 1), values).to(values.dtype)


@about(
    name="Weighted cross-entropy",
    family="probability",
    kind="class_logits",
    link="softmax",
    paper="class weights in maximum likelihood; King and Zeng 2001",
    evidence="V",
    from_training_set={"weights": "class_weights"},
    aliases=("wce",),
    whole_batch=True,
)
def weighted_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    weights: Weights | None = None,
    over: Literal["weights", "count"] = "weights",
    smoothing: float = 0.0,
    mask: Tensor | None = None,
) -> Tensor:
    """Cross-entropy with a weight for each class.

    L_i = w_t CE_i, divided by the mean weight of the batch (over weights, as torch does) or not (over count, as Keras
    and most papers do): the two differ by a factor that changes from batch to batch. weights: one per class, None = all
    1. smoothing: s, the target as in `label_smoothing`, each class's part with its own weight, (1-s) w_t CE_i + s
    mean_c(-w_c ln p_c), as torch has it. logits: (N,C,...); target: (N,...) int64; mask: bool (N,...), items that
    count; returns (N,...).

    >>> weighted_cross_entropy(torch.zeros(2, 2), torch.tensor([0, 1]), weights=[1.0, 3.0])
    tensor([0.3466, 1.0397])
    """
    check_choice("over", over, ("weights", "count"))
    target, mask = masked_labels(target, mask)
    if weights is None:
        return label_smoothing(logits, target, smoothing=smoothing) if smoothing else entropy_of_classes(logits, target)
    entropy = entropy_of_classes(logits, target)
    own = _of_class(weights, logits, target, "weights")
    if not smoothing:
        return entropy * (_over_mean(own, own, mask) if over == "weights" else own)
    check_range("smoothing", smoothing, 0, 1)
    each = constant(weights, logits.dtype, logits.device).view(-1, *[1] * (logits.ndim - 2))
    values = (1 - smoothing) * own * entropy - smoothing * (each * logits.log_softmax(1)).mean(1)
    return _over_mean(values, own, mask) if over == "weights" else values


@about(
    name="Class-balanced",
    family="probability",
    kind="class_logits",
    link="softmax",
    paper="Cui et al., CVPR 2019, arXiv 1901.05555, eq. 9-12",
    evidence="V",
    from_training_set={"counts": "class_counts"},
)
def class_balanced(
    logits: Tensor,
    target: Tensor,
    *,
    counts: Weights | None = None,
    beta: float = 0.9999,
    form: Literal["softmax", "sigmoid", "focal"] = "softmax",
    gamma: float = 2.0,
) -> Tensor:
    """Cross-entropy or focal loss weighted by the inverse of each class's effective number of items.

    L = w_t base, w_c = (1 - beta) / (1 - beta^n_c), scaled to mean 1 over the classes. counts: n_c of the training set,
    None = equal; a class without items counts as one with a single item, else its weight would be infinite and all
    others 0. form: cross-entropy, or binary cross-entropy or focal (without its 0.25) of every class, summed. Values
    are averaged over items, as in the authors' code; torch would divide by the batch's weights. logits: (N,C,...);
    target: (N,...) int64; returns (N,...).

    >>> class_balanced(torch.zeros(2, 2), torch.tensor([0, 1]), counts=[1, 3], beta=0.0)
    tensor([0.6931, 0.6931])
    """
    check_range("beta", beta, 0, 1)
    check_choice("form", form, ("softmax", "sigmoid", "focal"))
    check_class_logits(logits, target)
    if form == "softmax":
        values = entropy_of_classes(logits, target)
    elif form == "sigmoid":
        values = one_vs_rest(logits, target, base=binary_cross_entropy)
    else:
        values = one_vs_rest(logits, target, base=lambda z, t: binary_focal(z, t, gamma=gamma, alpha=None))
    if counts is None:
        return values
    held = constant(counts, torch.float64, logits.device)
    weights = 1 / (1 - beta ** held.clamp_min(1))
    return values * _of_class(weights * len(held) / weights.sum(), logits, target, "counts")


def _exact(logits: Tensor) -> Tensor:
    """Return logits in float32 or better: what is added to them, or multiplies them, would be rounded as they are."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _counts(counts: Weights, logits: Tensor) -> Tensor:
    """Return the count of every class in float64, (C,1,...) beside logits (N,C,...).

    A class without items counts as one with a single item: the logarithm of none, or its inverse, would be infinite.
    """
    held = constant(counts, torch.float64, logits.device)
    if held.shape != (logits.shape[1],):
        raise ValueError(
            f"counts: {tuple(held.shape)} numbers, allowed is one for each of the {logits.shape[1]} classes"
        )
    return held.clamp_min(1).view(-1, *[1] * (logits.ndim - 2))


@about(
    name="Logit-adjusted cross-entropy",
    family="probability",
    kind="class_logits",
    link="softmax",
    paper="Menon et al., ICLR 2021, arXiv 2007.07314, eq. 10",
    evidence="H",
    from_training_set={"counts": "class_counts"},
    aliases=("logit_adjusted", "la"),
)
def logit_adjustment(logits: Tensor, target: Tensor, *, counts: Weights | None = None, tau: float = 1.0) -> Tensor:
    """Cross-entropy of scores to which the logarithms of the classes' shares of the training set are added.

    L = -ln softmax(z + tau ln pi)_t, pi_c = n_c / sum n. Only training adds them: prediction is by z alone, which then
    stands for classes of equal share, and with tau = 1 minimises the balanced error. counts: n_c of the training set,
    None = equal, which is plain cross-entropy; a class without items counts as one with a single item. logits:
    (N,C,...); target: (N,...) int64; returns (N,...).

    >>> logit_adjustment(torch.zeros(2, 2), torch.tensor([0, 1]), counts=[3, 1])
    tensor([0.2877, 1.3863])
    """
    check_range("tau", tau, 0)
    check_class_logits(logits, target)
    if counts is None:
        return entropy_of_classes(logits, target)
    held, exact = _counts(counts, logits), _exact(logits)
    return entropy_of_classes(exact + (tau * (held / held.sum()).log()).to(exact.dtype), target)


@about(
    name="Balanced softmax",
    family="probability",
    kind="class_logits",
    link="softmax",
    paper="Ren et al., NeurIPS 2020, arXiv 2007.10740, eq. 3-4",
    evidence="H",
    from_training_set={"counts": "class_counts"},
    aliases=("bsl",),
)
def balanced_softmax(logits: Tensor, target: Tensor, *, counts: Weights | None = None) -> Tensor:
    """Cross-entropy of a softmax in which every class counts as often as it occurs in the training set.

    L = -ln (n_t e^z_t / sum_c n_c e^z_c), found apart from `logit_adjustment`, which it is with tau = 1; prediction is
    by z alone. The meta-sampler of the paper is no part of it. Arguments as there; returns (N,...).

    >>> balanced_softmax(torch.zeros(2, 2), torch.tensor([0, 1]), counts=[3, 1])
    tensor([0.2877, 1.3863])
    """
    return logit_adjustment(logits, target, counts=counts, tau=1.0)


@about(
    name="LDAM",
    family="margin",
    kind="class_logits",
    link=None,
    paper="Cao et al., NeurIPS 2019, arXiv 1906.07413, eq. 11-13; scale and greatest margin of the authors' code",
    evidence="H",
    from_training_set={"counts": "class_counts"},
    aliases=("label_distribution_aware_margin",),
)
def ldam(
    logits: Tensor,
    target: Tensor,
    *,
    counts: Weights | None = None,
    max_margin: float = 0.5,
    scale: float = 30.0,
) -> Tensor:
    """Cross-entropy with a margin on the true class that is larger the rarer the class.

    L = -ln softmax(s (z - D_t [c = t]))_t, D_c = K / n_c^(1/4), K such that the rarest class has max_margin. The z of
    the paper are cosines, of features and class weights of length 1, for which s = 30 is meant: `LDAMHead` makes them.
    counts: n_c of the training set, None = equal; a class without items counts as one with a single item. The paper's
    deferred re-weighting, class weights in the last fifth of the epochs, is a schedule and no part of it. No link: what
    trains is the softmax of s z, not of z. logits: (N,C,...); target: (N,...) int64; returns (N,...).

    >>> ldam(torch.zeros(2, 2), torch.tensor([0, 1]), counts=[16, 1], scale=1.0)
    tensor([0.8259, 0.9741])
    """
    check_range("scale", scale, 0, above=True)
    check_class_logits(logits, target)
    exact = _exact(logits)
    margins = _margins(counts, logits, max_margin).to(exact.dtype)
    return entropy_of_classes(scale * (exact - torch.where(is_target(target, logits.shape[1]), margins, 0)), target)


def _margins(counts: Weights | None, logits: Tensor, max_margin: float) -> Tensor:
    """Return the margin of every class, (C,1,...) beside logits (N,C,...)."""
    check_range("max_margin", max_margin, 0)
    inverse = _counts([1.0] * logits.shape[1] if counts is None else counts, logits) ** -0.25
    return max_margin * inverse / inverse.amax()


@about(
    name="LDAM of cosines",
    family="angular",
    kind="features",
    link="softmax",
    paper="Cao et al., NeurIPS 2019, arXiv 1906.07413, eq. 11-13, with the normalised head of the authors' code",
    evidence="H",
    from_training_set={"counts": "class_counts"},
)
class LDAMHead(CosineHead):
    """Cross-entropy of scaled cosines, with a margin on the true class that is larger the rarer the class.

    L = -ln softmax(s (cos - D_t [c = t]))_t, D_c = K / n_c^(1/4), K such that the rarest class has max_margin: CosFace
    with a margin for each class, and `ldam` of the cosines that it is meant for. counts: n_c of the
    training set, None = equal; a class without items counts as one with a single item.

    >>> head = LDAMHead(num_classes=2, num_features=2, counts=[16, 1], scale=1.0)
    >>> head.weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> head(torch.tensor([[4.0, 3.0]]), torch.tensor([0])).detach()
    tensor([0.7185])
    """

    margins: Tensor

    def __init__(
        self,
        *,
        num_classes: int,
        num_features: int,
        counts: Weights | None = None,
        max_margin: float = 0.5,
        scale: float = 30.0,
    ) -> None:
        super().__init__(num_classes=num_classes, num_features=num_features, scale=scale, margin=max_margin)
        margins = _margins(counts, self.weight.detach().T, max_margin).cpu()
        self.register_buffer("margins", margins.to(self.weight.dtype))

    def margined(self, cosines: Tensor, target: Tensor) -> Tensor:
        """Return the cosines (N,C) with the margin of its class on the true one."""
        return cosines - torch.where(is_target(target, len(self.margins)), self.margins, 0)


@about(
    name="Balanced binary cross-entropy",
    family="probability",
    kind="binary_logits",
    link="sigmoid",
    paper="Xie and Tu, Holistically-Nested Edge Detection, ICCV 2015, arXiv 1504.06375, eq. 2",
    evidence="H",
    aliases=("bace", "hed"),
    whole_batch=True,
)
def balanced_cross_entropy(logits: Tensor, target: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Binary cross-entropy with positives weighted by the share of negatives, and negatives by that of positives.

    L = -b t ln p - (1-b) (1-t) ln(1-p), b the share of negatives in the image, (N,...) having N images, or in the
    batch, (N,). The mean is Jadon's form; the paper sums over pixels. logits and target (0 or 1) of one shape, which is
    returned; mask: bool, same shape, what counts.

    >>> balanced_cross_entropy(torch.zeros(4), torch.tensor([1.0, 0, 0, 0]))
    tensor([0.5199, 0.1733, 0.1733, 0.1733])
    """
    entropy = binary_cross_entropy(logits, target)
    ones = valid_mask(target, mask)
    axes = tuple(range(1, target.ndim)) or (0,)
    positives = (target * ones).sum(axes, keepdim=True) / ones.sum(axes, keepdim=True).clamp_min(1)
    return entropy * ((1 - positives) * target + positives * (1 - target))


@about(
    name="Balanced binary cross-entropy, one-vs-rest",
    family="probability",
    kind="class_logits",
    link="sigmoid",
    paper="after Xie and Tu, ICCV 2015, arXiv 1504.06375, eq. 2, for each class",
    evidence="H",
    whole_batch=True,
)
def balanced_cross_entropy_ovr(
    logits: Tensor, target: Tensor, *, over_classes: OverClasses = "sum", mask: Tensor | None = None
) -> Tensor:
    """One-vs-rest cross-entropy, each class balanced against all others by their shares in the batch.

    L = sum_c -b_c t_c ln p_c - (1-b_c) (1-t_c) ln(1-p_c), b_c the share of items of other classes in the batch, or the
    mean over c. logits: (N,C,...); target: (N,...) int64; mask: bool (N,...), items that count; returns (N,...).

    >>> balanced_cross_entropy_ovr(torch.zeros(2, 2), torch.tensor([0, 1]))
    tensor([0.6931, 0.6931])
    """
    target, mask = masked_labels(target, mask)
    check_class_logits(logits, target)
    labels = one_hot(target, logits)
    ones = valid_mask(target, mask).unsqueeze(1)
    axes = (0, *range(2, labels.ndim))
    positives = (labels * ones).sum(axes, keepdim=True) / ones.sum(axes, keepdim=True).clamp_min(1)
    weights = (1 - positives) * labels + positives * (1 - labels)
    return reduce_classes(binary_cross_entropy(logits, labels) * weights, over_classes)


@about(
    name="GHM-C",
    family="probability",
    kind="binary_logits",
    link="sigmoid",
    paper="Li, Liu and Wang, AAAI 2019, arXiv 1811.05181, eq. 8-10, without moving average",
    evidence="V",
    aliases=("gradient_harmonizing_mechanism",),
    whole_batch=True,
)
def ghm_c(logits: Tensor, target: Tensor, *, bins: int = 30, mask: Tensor | None = None) -> Tensor:
    """Binary cross-entropy weighted by the inverse density of gradient norms: very easy and very hard items count less.

    L_i = N / (R_i M) BCE_i: R_i items in the bin of |p - t|, M bins that are not empty (`losses.shared.ghm_weights`).
    logits and target (0 or 1) of one shape, which is returned; mask: bool, what counts.

    >>> ghm_c(torch.tensor([0.0, 0.0, 4.0]), torch.tensor([1.0, 1.0, 0.0]))
    tensor([0.5199, 0.5199, 6.0272])
    """
    check_pair(logits, target)
    return ghm_weights((logits.sigmoid() - target).abs(), bins, mask) * binary_cross_entropy(logits, target)


@about(
    name="GHM-C, one-vs-rest",
    family="probability",
    kind="class_logits",
    link="sigmoid",
    paper="Li, Liu and Wang, AAAI 2019, arXiv 1811.05181, eq. 8-10, without moving average",
    evidence="V",
    whole_batch=True,
)
def ghm_c_ovr(
    logits: Tensor,
    target: Tensor,
    *,
    bins: int = 30,
    over_classes: OverClasses = "sum",
    mask: Tensor | None = None,
) -> Tensor:
    """One-vs-rest cross-entropy weighted by the inverse density of gradient norms over all items and classes.

    L = sum_c N / (R M) BCE(z_c, [c = t]), or the mean over c. logits: (N,C,...); target: (N,...) int64; mask: bool
    (N,...), items that count; returns (N,...).

    >>> ghm_c_ovr(torch.zeros(1, 2), torch.tensor([1]))
    tensor([1.3863])
    """
    target, mask = masked_labels(target, mask)
    check_class_logits(logits, target)
    seen = None if mask is None else mask.unsqueeze(1).expand_as(logits)
    return reduce_classes(ghm_c(logits, one_hot(target, logits), bins=bins, mask=seen), over_classes)


@about(
    name="GHM-C, one-vs-rest, moving average",
    family="probability",
    kind="class_logits",
    link="sigmoid",
    paper="Li, Liu and Wang, AAAI 2019, arXiv 1811.05181, eq. 8-10 and 13",
    evidence="V",
    whole_batch=True,
)
class MovingGHM(nn.Module):
    """`ghm_c_ovr` with a moving average of the histogram: for small batches, whose own is unreliable.

    R <- momentum R + (1 - momentum) count for the bins that the batch hits, in training, before it is used. As in the
    authors' code R starts at 0, so that the first values are 1/(1 - momentum) times too large.

    >>> MovingGHM(momentum=0.5)(torch.zeros(1, 2), torch.tensor([1]))
    tensor([2.7726])
    """

    density: Tensor

    def __init__(self, *, bins: int = 30, momentum: float = 0.75, over_classes: OverClasses = "sum") -> None:
        super().__init__()
        check_range("bins", bins, 1)
        check_range("momentum", momentum, 0, 1)
        self.bins, self.momentum = bins, momentum
        self.over_classes: OverClasses = over_classes
        self.register_buffer("density", torch.zeros(bins))

    def forward(self, logits: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return (N,...) from logits (N,C,...) and target (N,...) int64; masked items are not counted."""
        target, mask = masked_labels(target, mask)
        check_class_logits(logits, target)
        labels = one_hot(target, logits)
        seen = None if mask is None else mask.unsqueeze(1).expand_as(logits)
        weights = ghm_weights((logits.sigmoid() - labels).abs(), self.bins, seen, self._follow)
        return reduce_classes(weights * binary_cross_entropy(logits, labels), self.over_classes)

    @torch.no_grad()
    def _follow(self, counts: Tensor) -> Tensor:
        moved = self.momentum * self.density + (1 - self.momentum) * counts.to(self.density.dtype)
        if self.training:
            self.density = torch.where(counts > 0, moved, self.density)
        return moved.to(counts.dtype)


@about(
    name="PF-loss (reconstruction R1)",
    family="probability",
    kind="class_logits",
    link="softmax",
    paper="after Du et al., IEEE TNNLS 34(6), 2023, doi 10.1109/TNNLS.2021.3110885; its equations were not available",
    evidence="R",
    aliases=("mean_false_error",),
    whole_batch=True,
)
def pf_loss_r1(logits: Tensor, target: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Cross-entropy in which every class present in the batch counts alike, however few its items.

    L_i = N / (P n_t) CE_i, with N items in the batch, P classes present and n_t items of the class; its mean over the
    batch is the mean over classes of each class's mean. A reconstruction from the abstract of the parameter-free loss
    (the mean false error of Wang et al., IJCNN 2016, with cross-entropy): never report it under the original name.
    logits: (N,C,...); target: (N,...) int64; mask: bool (N,...), items that count; returns (N,...).

    >>> pf_loss_r1(torch.zeros(3, 2), torch.tensor([0, 0, 1]))
    tensor([0.5199, 0.5199, 1.0397])
    """
    target, mask = masked_labels(target, mask)
    entropy = entropy_of_classes(logits, target)
    counts, total = _shares(logits, target, mask)
    share = total / ((counts > 0).sum().clamp_min(1) * counts.clamp_min(1))
    return entropy * share.gather(0, target.flatten()).view_as(target).to(entropy.dtype)


def _shares(logits: Tensor, target: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the count (C,) of each class among what counts, and the total."""
    counts = counted(target, logits.shape[1], mask)
    exact = torch.promote_types(logits.dtype, torch.float32)
    return counts.to(exact), counts.sum().to(exact)


@about(
    name="PF-loss (reconstruction R2)",
    family="probability",
    kind="class_logits",
    link="softmax",
    paper="after Du et al., IEEE TNNLS 34(6), 2023, doi 10.1109/TNNLS.2021.3110885; its equations were not available",
    evidence="R",
    whole_batch=True,
)
def pf_loss_r2(logits: Tensor, target: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Cross-entropy in which each class is weighted by one minus its share of the batch.

    L_i = w_t CE_i, w_c = 1 - n_c/N, scaled to mean 1 over the batch; a batch of one class keeps plain cross-entropy.
    For two classes it is reconstruction R1. Speculative: never report it under the original name. logits: (N,C,...);
    target: (N,...) int64; mask: bool (N,...), items that count; returns (N,...).

    >>> pf_loss_r2(torch.zeros(3, 2), torch.tensor([0, 0, 1]))
    tensor([0.5199, 0.5199, 1.0397])
    """
    target, mask = masked_labels(target, mask)
    entropy = entropy_of_classes(logits, target)
    counts, total = _shares(logits, target, mask)
    own = (1 - counts / total.clamp_min(1)).gather(0, target.flatten()).view_as(target)
    own = torch.where((counts > 0).sum() > 1, own, 1)
    return entropy * _over_mean(own, own, mask).to(entropy.dtype)


@about(
    name="PF-loss (reconstruction R3)",
    family="probability",
    kind="class_logits",
    link="softmax",
    paper="after Du et al., IEEE TNNLS 34(6), 2023, doi 10.1109/TNNLS.2021.3110885; its equations were not available",
    evidence="R",
    whole_batch=True,
)
def pf_loss_r3(logits: Tensor, target: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Focal loss whose exponent is the class's count over the largest count, so that only frequent classes are damped.

    L_i = (1-p_t)^(n_t/n_max) CE_i, counts of the batch. Speculative: never report it under the original name. logits:
    (N,C,...); target: (N,...) int64; mask: bool (N,...), items that count; returns (N,...).

    >>> pf_loss_r3(torch.zeros(3, 2), torch.tensor([0, 0, 1]))
    tensor([0.3466, 0.3466, 0.4901])
    """
    target, mask = masked_labels(target, mask)
    entropy = entropy_of_classes(logits, target)
    counts, _ = _shares(logits, target, mask)
    exponent = (counts / counts.amax().clamp_min(1)).gather(0, target.flatten()).view_as(target)
    wrong = one_minus_prob(entropy).clamp_min(torch.finfo(entropy.dtype).tiny)
    return wrong ** exponent.to(entropy.dtype) * entropy
