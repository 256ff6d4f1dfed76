"""Losses on the probability given to the true class."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from losses.adapters import OverClasses, is_target, one_hot, reduce_classes
from losses.checks import check_choice, check_class_logits, check_pair, check_range
from losses.loss import EXACT, Reduction, about
from losses.shared import CustomFunction, constant, one_minus_prob


@about(
    name="Cross-entropy",
    family="probability",
    kind="class_logits",
    link="softmax",
    paper="maximum likelihood; Bridle 1990",
    evidence="V",
    aliases=("cce", "sparse_cce", "nll", "softmax_loss", "categorical_cross_entropy"),
)
def cross_entropy(logits: Tensor, target: Tensor, *, reduction: Reduction = "none") -> Tensor:
    """Negative log-probability of the true class.

    L = -ln p_t, p = softmax(z). logits: (N,C,...); target: (N,...) int64, or probabilities q (N,C,...), of which it is
    the mean, -sum_c q_c ln p_c; returns (N,...), in nats, or their mean.

    >>> cross_entropy(torch.zeros(1, 2), torch.tensor([1]))
    tensor([0.6931])
    """
    check_class_logits(logits, target, soft=True)
    return _entropy(logits, target, reduction)


def entropy_of_classes(logits: Tensor, target: Tensor) -> Tensor:
    """Return the cross-entropy (N,...) of classes alone, for losses that have no mean over probabilities.

    logits: (N,C,...); target: (N,...) int64.

    >>> entropy_of_classes(torch.zeros(1, 2), torch.tensor([1]))
    tensor([0.6931])
    """
    check_class_logits(logits, target)
    return _entropy(logits, target, "none")


def _entropy(logits: Tensor, target: Tensor, reduction: Reduction, smoothing: float = 0.0) -> Tensor:
    dense = logits.ndim > 2
    if target.ndim == logits.ndim:
        values = functional.cross_entropy(logits, target, reduction="none", label_smoothing=smoothing)
    elif torch.compiler.is_compiling():  # in this form nothing but the logits is kept, and nothing else written
        shifted = logits - logits.detach().amax(1, keepdim=True)
        true = torch.where(is_target(target, logits.shape[1]), shifted, 0).sum(1)
        if smoothing:
            true = (1 - smoothing) * true + smoothing * shifted.mean(1)
        values = shifted.exp().sum(1).log() - true
    elif dense and logits.device.type == "cpu" and logits.dtype in EXACT:
        values = _PixelEntropy.of(logits, target, smoothing)[0]
    else:  # torch's own mean over pixels adds up in any order on a GPU
        at_once = "none" if dense else reduction
        values = functional.cross_entropy(logits, target, reduction=at_once, label_smoothing=smoothing)
    return values.mean() if reduction == "mean" and values.ndim else values


class _PixelEntropy(CustomFunction):
    """Cross-entropy of pixels by hand: between forward and backward nothing of the size of the logits is kept.

    Returns the values (N,...), and the greatest logit and the sum of exponentials (N,1,...), for the gradient.
    """

    @classmethod
    def plain(cls, logits: Tensor, target: Tensor, smoothing: float) -> tuple[Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the values alone."""
        log_p = logits.log_softmax(1)
        values = -(1 - smoothing) * log_p.gather(1, target.unsqueeze(1)).squeeze(1)
        return (values - smoothing * log_p.mean(1) if smoothing else values,)

    @staticmethod
    def forward(logits: Tensor, target: Tensor, smoothing: float) -> tuple[Tensor, Tensor, Tensor]:
        top = logits.amax(1, keepdim=True)
        shifted = logits - top
        true = shifted.gather(1, target.unsqueeze(1))
        if smoothing:
            true = (1 - smoothing) * true + smoothing * shifted.mean(1, keepdim=True)
        total = shifted.exp_().sum(1, keepdim=True)
        return (total.log() - true).squeeze(1), top, total

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *tensors, ctx.smoothing = inputs
        ctx.save_for_backward(*tensors, *output[1:])
        ctx.mark_non_differentiable(*output[1:])

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        logits, target, top, total = ctx.saved_tensors
        slope = slopes[0].unsqueeze(1)
        again = torch.is_grad_enabled()  # to be differentiated again
        gradient = logits.softmax(1) * slope if again else (logits - top).exp_().mul_(slope / total)
        if ctx.smoothing:
            gradient = gradient.sub_(ctx.smoothing / logits.shape[1] * slope)
        return gradient.scatter_add_(1, target.unsqueeze(1), (ctx.smoothing - 1) * slope), None, None


@about(
    name="Binary cross-entropy",
    family="probability",
    kind="binary_logits",
    link="sigmoid",
    paper="maximum likelihood of the logistic model; Cox 1958",
    evidence="V",
    aliases=("bce", "log_loss", "logistic"),
)
def binary_cross_entropy(logits: Tensor, target: Tensor, *, reduction: Reduction = "none") -> Tensor:
    """Negative log-likelihood of a binary label, elementwise.

    L = -t ln p - (1-t) ln(1-p), p = sigmoid(z). logits and target (0 to 1) of one shape, which is returned, in nats, or
    the mean.

    >>> binary_cross_entropy(torch.tensor([0.0, 2.0, -1.0]), torch.tensor([1.0, 1.0, 0.0]))
    tensor([0.6931, 0.1269, 0.3133])
    """
    check_pair(logits, target)
    return functional.binary_cross_entropy_with_logits(logits, target, reduction=reduction)


@about(
    name="Label smoothing",
    family="probability",
    kind="class_logits",
    link="softmax",
    paper="Szegedy et al., CVPR 2016, arXiv 1512.00567",
    evidence="V",
    aliases=("label_smoothing_ce",),
)
def label_smoothing(logits: Tensor, target: Tensor, *, smoothing: float = 0.1, reduction: Reduction = "none") -> Tensor:
    """Cross-entropy with a target that assigns part of its probability uniformly to all classes.

    L = (1-s) CE + s mean_c(-ln p_c), that is q = (1-s) onehot + s/C. logits: (N,C,...); target: (N,...) int64, or
    probabilities (N,C,...) in place of onehot; returns (N,...), in nats, or their mean. Spreading s over the other C-1
    classes only is this with s C/(C-1) in place of s.

    >>> label_smoothing(torch.tensor([[2.0, 0.0]]), torch.tensor([0]), smoothing=0.5)
    tensor([0.6269])
    """
    check_class_logits(logits, target, soft=True)
    check_range("smoothing", smoothing, 0, 1)
    return _entropy(logits, target, reduction, smoothing)


@about(
    name="Focal",
    family="probability",
    kind="class_logits",
    link="softmax",
    paper="Lin et al., ICCV 2017, arXiv 1708.02002, eq. 4-5, in softmax form",
    evidence="V",
)
def focal(logits: Tensor, target: Tensor, *, gamma: float = 2.0, alpha: float | None = None) -> Tensor:
    """Cross-entropy scaled down where the prediction is already right.

    L = alpha (1-p_t)^gamma (-ln p_t), p = softmax(z). logits: (N,C,...); target: (N,...) int64; returns (N,...).
    alpha: one factor for all classes, None = 1 (only the binary form has different ones for the two classes).

    >>> focal(torch.zeros(1, 2), torch.tensor([1]))
    tensor([0.1733])
    """
    check_range("gamma", gamma, 0)
    if alpha is not None:
        check_range("alpha", alpha, 0, above=True)
    entropy = entropy_of_classes(logits, target)
    # 1 - p_t is 0 where p_t rounds to 1, and the slope of a power below 1 is infinite there
    wrong = one_minus_prob(entropy).clamp_min(torch.finfo(entropy.dtype).tiny)
    return wrong**gamma * entropy * (1 if alpha is None else alpha)


@about(
    name="Binary focal",
    family="probability",
    kind="binary_logits",
    link="sigmoid",
    paper="Lin et al., ICCV 2017, arXiv 1708.02002, eq. 5",
    evidence="V",
    aliases=("sigmoid_focal",),
)
def binary_focal(logits: Tensor, target: Tensor, *, gamma: float = 2.0, alpha: float | None = 0.25) -> Tensor:
    """Binary cross-entropy scaled down where the prediction is already right, elementwise.

    L = alpha_t (1-p_t)^gamma (-ln p_t), p = sigmoid(z), p_t = p where t = 1, else 1-p; alpha_t likewise, None = 1.
    logits and target (0 or 1) of one shape, which is returned.

    >>> binary_focal(torch.tensor([0.0, 0.0]), torch.tensor([1.0, 0.0]))
    tensor([0.0433, 0.1300])
    """
    check_range("gamma", gamma, 0)
    check_pair(logits, target)
    against = torch.rsub(target, 1, alpha=2) * logits
    wrong = against.sigmoid()
    if gamma < 1:  # the slope of such a power is infinite where 1 - p_t rounds to 0
        wrong = wrong.clamp_min(torch.finfo(wrong.dtype).tiny)
    values = wrong**gamma * functional.softplus(against)
    if alpha is None:
        return values
    check_range("alpha", alpha, 0, 1)
    return values * ((2 * alpha - 1) * target + (1 - alpha))


@about(
    name="Poly-1",
    family="probability",
    kind="class_logits",
    link="softmax",
    paper="Leng et al., ICLR 2022, arXiv 2204.12511",
    evidence="V",
    aliases=("poly1_ce", "polyloss"),
)
def poly1(logits: Tensor, target: Tensor, *, epsilon: float = 1.0) -> Tensor:
    """Cross-entropy with a different first coefficient in its expansion in powers of 1-p_t.

    L = -ln p_t + epsilon (1-p_t), p = softmax(z); epsilon depends on the task, >= -1 (2 in the paper for ImageNet).
    logits: (N,C,...); target: (N,...) int64; returns (N,...).

    >>> poly1(torch.zeros(1, 2), torch.tensor([1]))
    tensor([1.1931])
    """
    check_range("epsilon", epsilon, -1)
    entropy = entropy_of_classes(logits, target)
    return entropy + epsilon * one_minus_prob(entropy)


@about(
    name="Poly-1 focal",
    family="probability",
    kind="class_logits",
    link="softmax",
    paper="Leng et al., ICLR 2022, arXiv 2204.12511, sec. 6",
    evidence="V",
)
def poly1_focal(logits: Tensor, target: Tensor, *, gamma: float = 2.0, epsilon: float = 1.0) -> Tensor:
    """Focal loss with a different first coefficient in its expansion in powers of 1-p_t.

    L = (1-p_t)^gamma (-ln p_t) + epsilon (1-p_t)^(gamma+1), p = softmax(z); epsilon is -1 in the paper for detection.
    logits: (N,C,...); target: (N,...) int64; returns (N,...).

    >>> poly1_focal(torch.zeros(1, 2), torch.tensor([1]))
    tensor([0.2983])
    """
    check_range("epsilon", epsilon, -1)
    check_range("gamma", gamma, 0)
    entropy = entropy_of_classes(logits, target)
    wrong = one_minus_prob(entropy).clamp_min(torch.finfo(entropy.dtype).tiny)
    return wrong**gamma * (entropy + epsilon * wrong)


@about(
    name="Kullback-Leibler divergence",
    family="probability",
    kind="class_probabilities",
    link="softmax",
    paper="Kullback and Leibler 1951; Hinton et al., arXiv 1503.02531, for temperatures",
    evidence="V",
    aliases=("distillation",),
)
def kl_divergence(logits: Tensor, target: Tensor, *, temperature: float = 1.0, reduction: Reduction = "none") -> Tensor:
    """KL divergence of the predicted distribution from a target distribution, such as that of a teacher.

    L = T^2 sum_c q_c ln(q_c / p_c), truth first, p = softmax(z/T); q is what the teacher gave at the same T. For
    one-hot q and T = 1 it is cross-entropy. logits and target (probabilities) (N,C,...); returns (N,...), in nats, or
    their mean.

    >>> kl_divergence(torch.tensor([[0.1, 0.6, 0.3]]).log(), torch.tensor([[0.2, 0.5, 0.3]]))
    tensor([0.0475])
    """
    check_pair(logits, target)
    check_range("temperature", temperature, 0, above=True)
    scaled = logits if temperature == 1 else logits / temperature
    if torch.compiler.is_compiling():  # in this form nothing but the logits and the target is kept
        shifted = scaled - scaled.detach().amax(1, keepdim=True)
        own = target * (target.clamp_min(torch.finfo(target.dtype).tiny).log() - shifted)
        values = own.sum(1) + shifted.exp().sum(1).log() * target.sum(1)
        return temperature**2 * (values.mean() if reduction == "mean" else values)
    parts = functional.kl_div(scaled.log_softmax(1), target, reduction="none" if reduction == "none" else "sum")
    if reduction == "mean":  # one sum over everything is faster than one over classes and another over items
        whole = parts.sum() if parts.ndim else parts
        return whole * (temperature**2 * logits.shape[1] / logits.numel())
    return temperature**2 * parts.sum(1)


@about(
    name="Soft-target cross-entropy",
    family="probability",
    kind="class_probabilities",
    link="softmax",
    paper="cross-entropy of distributions; Zhang et al., mixup, ICLR 2018, arXiv 1710.09412, for mixed labels",
    evidence="V",
    aliases=("soft_cross_entropy", "soft_ce"),
)
def soft_target_cross_entropy(logits: Tensor, target: Tensor, *, reduction: Reduction = "none") -> Tensor:
    """Cross-entropy of the predicted distribution with a target distribution: mixed, smoothed or a teacher's labels.

    L = -sum_c q_c ln p_c, p = softmax(z): the Kullback-Leibler divergence plus the entropy of q, which has no part in
    the gradient; ordinary cross-entropy where q is one-hot. A q that does not sum to 1 is not scaled. logits and target
    (probabilities) (N,C,...); returns (N,...), in nats, or their mean.

    >>> soft_target_cross_entropy(torch.zeros(1, 2), torch.tensor([[0.3, 0.7]]))
    tensor([0.6931])
    """
    check_pair(logits, target)
    if logits.ndim < 2:
        raise ValueError(f"logits: shape {tuple(logits.shape)}, allowed is (N, C, ...)")
    at_once = "none" if logits.ndim > 2 else reduction  # as for classes: torch's own mean over pixels has no order
    values = functional.cross_entropy(logits, target, reduction=at_once)
    return values.mean() if reduction == "mean" and values.ndim else values


@about(
    name="Generalised cross-entropy",
    family="probability",
    kind="class_logits",
    link="softmax",
    paper="Zhang and Sabuncu, NeurIPS 2018, arXiv 1805.07836, eq. 6, without truncation",
    evidence="H",
    aliases=("gce", "lq"),
)
def generalized_cross_entropy(logits: Tensor, target: Tensor, *, q: float = 0.7) -> Tensor:
    """Between cross-entropy, which learns fast, and the absolute error, which tolerates wrong labels.

    L = (1 - p_t^q)/q, p = softmax(z): cross-entropy as q goes to 0; at q = 1 the probability not given to the true
    class, half the absolute error. At most 1/q; in the paper 0 < q <= 1. logits: (N,C,...); target: (N,...) int64;
    returns (N,...).

    >>> generalized_cross_entropy(torch.zeros(1, 2), torch.tensor([1]))
    tensor([0.5492])
    """
    check_range("q", q, 0, above=True)
    return one_minus_prob(q * entropy_of_classes(logits, target)) / q


@about(
    name="Asymmetric",
    family="probability",
    kind="binary_logits",
    link="sigmoid",
    paper="Ridnik et al., ICCV 2021, arXiv 2009.14119, eq. 4-7; its settings for MS-COCO",
    evidence="V",
    aliases=("asl",),
)
def asymmetric(
    logits: Tensor, target: Tensor, *, gamma_pos: float = 0.0, gamma_neg: float = 4.0, clip: float = 0.05
) -> Tensor:
    """Binary cross-entropy that scales easy negatives down, more than easy positives, and drops the easiest of them.

    L = -t (1-p)^g+ ln p - (1-t) p_m^g- ln(1-p_m), p = sigmoid(z), p_m = max(p - clip, 0), g+ and g- gamma_pos and
    gamma_neg: negatives below clip cost nothing, and those with wrong labels, p near 1, have a bounded slope. The
    authors' code has gamma_pos 1. For many labels per item; without clip and with equal exponents it is `binary_focal`
    without alpha. Elementwise: logits and target (0 to 1) of one shape, which is returned.

    >>> asymmetric(torch.tensor([0.0, 0.0, -4.0]), torch.tensor([1.0, 0.0, 0.0]))
    tensor([0.6931, 0.0245, 0.0000])
    """
    check_range("gamma_pos", gamma_pos, 0)
    check_range("gamma_neg", gamma_neg, 0)
    check_range("clip", clip, 0, 1)
    check_pair(logits, target)
    if clip:
        wrong = (logits.sigmoid() - clip).relu()
        cross = -((-logits).sigmoid() + clip).clamp_max(1).log()  # finite, where p rounds to 1 too
    else:
        wrong, cross = logits.sigmoid(), functional.softplus(logits)
    missed = functional.softplus(-logits)
    if gamma_pos:
        missed = _focused((-logits).sigmoid(), gamma_pos) * missed
    return target * missed + (1 - target) * (_focused(wrong, gamma_neg) * cross)


def _focused(wrong: Tensor, gamma: float) -> Tensor:
    """Return wrong^gamma; the slope of a power below 1 is infinite at 0, so that of what rounds to 0 is held at 0."""
    if gamma == 4:  # a general power costs several times as much
        return wrong.square().square()
    return (wrong.clamp_min(torch.finfo(wrong.dtype).tiny) if gamma < 1 else wrong) ** gamma


@about(
    name="Quality focal",
    family="probability",
    kind="quality_logits",
    link="sigmoid",
    paper="Li et al., Generalized Focal Loss, NeurIPS 2020, arXiv 2006.04388, eq. 4",
    evidence="H",
    aliases=("qfl",),
)
def quality_focal(logits: Tensor, target: Tensor, *, beta: float = 2.0) -> Tensor:
    """Binary cross-entropy with a quality from 0 to 1, scaled down where the prediction is near it, elementwise.

    L = |y - p|^beta [-y ln p - (1-y) ln(1-p)], p = sigmoid(z), y the quality: 0 for what is not there, else how well it
    was found, such as the overlap of the predicted box with the true one, held without gradient. Its minimum is at p =
    y; with y of 0 and 1 it is `binary_focal` without alpha. logits and target (0 to 1) of one shape, which is returned.

    >>> quality_focal(torch.tensor([0.0, 0.0]), torch.tensor([1.0, 0.75]))
    tensor([0.1733, 0.0433])
    """
    check_range("beta", beta, 0)
    check_pair(logits, target)
    away = (target - logits.sigmoid()).abs()
    return _focused(away, beta) * functional.binary_cross_entropy_with_logits(logits, target, reduction="none")


@about(
    name="Varifocal",
    family="probability",
    kind="quality_logits",
    link="sigmoid",
    paper="Zhang et al., VarifocalNet, CVPR 2021, arXiv 2008.13367, eq. 2",
    evidence="H",
    aliases=("vfl",),
)
def varifocal(logits: Tensor, target: Tensor, *, alpha: float = 0.75, gamma: float = 2.0) -> Tensor:
    """Binary cross-entropy with a quality from 0 to 1, scaled down where nothing is there and little is predicted.

    L = q [-q ln p - (1-q) ln(1-p)] where the quality q is above 0, -alpha p^gamma ln(1-p) where it is 0, p =
    sigmoid(z); elementwise. The quality is 0 for what is not there, else how well it was found, such as the overlap of
    the predicted box with the true one, held without gradient. What is there weighs as much as its quality. logits and
    target (0 to 1) of one shape, which is returned.

    >>> varifocal(torch.tensor([0.0, 0.0]), torch.tensor([0.5, 0.0]))
    tensor([0.3466, 0.1300])
    """
    check_range("alpha", alpha, 0)
    check_range("gamma", gamma, 0)
    check_pair(logits, target)
    weight = torch.where(target > 0, target, alpha * _focused(logits.sigmoid(), gamma))
    return weight * functional.binary_cross_entropy_with_logits(logits, target, reduction="none")


@about(
    name="Gini impurity",
    family="probability",
    kind="class_logits",
    link="softmax",
    paper="Breiman et al., Classification and Regression Trees, 1984",
    evidence="H",
    untrainable="it ignores the label, so any confident prediction minimises it; trees split by it.",
)
def gini(logits: Tensor, target: Tensor) -> Tensor:
    """Gini impurity of the prediction: the probability that two draws from it differ.

    L = 1 - sum_c p_c^2, p = softmax(z). logits: (N,C,...); target: (N,...) int64, not read; returns (N,...).

    >>> gini(torch.zeros(1, 2), torch.tensor([1]))
    tensor([0.5000])
    """
    check_class_logits(logits, target)
    return 1 - logits.softmax(1).square().sum(1)


@about(
    name="Symmetric cross-entropy",
    family="probability",
    kind="class_logits",
    link="softmax",
    paper="Wang et al., ICCV 2019, arXiv 1908.06112, eq. 7",
    evidence="H",
    aliases=("symmetric_ce", "sce"),
)
def symmetric_cross_entropy(
    logits: Tensor, target: Tensor, *, alpha: float = 0.1, beta: float = 1.0, log_zero: float = -4.0
) -> Tensor:
    """Cross-entropy plus reverse cross-entropy, which is bounded and therefore tolerates noisy labels.

    L = alpha CE + beta RCE, RCE = -sum_c p_c ln(onehot_c) = -A (1-p_t), with A = log_zero in place of ln 0.
    Defaults: the paper's for CIFAR-10; alpha 6, beta 0.1 for CIFAR-100. logits: (N,C,...); target: (N,...)
    int64; returns (N,...).

    >>> symmetric_cross_entropy(torch.zeros(1, 2), torch.tensor([1]))
    tensor([2.0693])
    """
    check_range("alpha", alpha, 0)
    check_range("beta", beta, 0)
    check_range("log_zero", log_zero, high=0)
    entropy = entropy_of_classes(logits, target)
    return alpha * entropy - beta * log_zero * one_minus_prob(entropy)


NGL_ALPHA = 2.4092
"""The constant that the search for the loss ended with."""


@about(
    name="NGL",
    family="probability",
    kind="class_logits",
    link="softmax",
    paper="Akhmedova and Körber, Next Generation Loss Function for Image Classification, arXiv 2404.12948",
    evidence="V",
    aliases=("next_generation_loss",),
)
def ngl(
    logits: Tensor,
    target: Tensor,
    *,
    variant: Literal["softmax", "softmax_sigmoid"] = "softmax",
    over_classes: OverClasses = "mean",
) -> Tensor:
    """A function of probabilities and target that was found by genetic programming.

    L = mean_c exp(2.4092 - p_c (1 + y_c)) - cos(cos(sin(p_c))), p = softmax(z), y one-hot. variant softmax_sigmoid: the
    sigmoid of these p takes their place (the authors' Keras code with scaling). over_classes mean is the authors'; its
    gradient falls as 1/C. logits: (N,C,...); target: (N,...) int64; returns (N,...). The minimum is not at p_t = 1 but
    between 0.57 (C = 2) and 0.36, so expect low confidence.

    >>> ngl(torch.zeros(1, 2), torch.tensor([1]))
    tensor([4.7886])
    """
    check_class_logits(logits, target)
    check_choice("variant", variant, ("softmax", "softmax_sigmoid"))
    p = logits.softmax(1)
    if variant == "softmax_sigmoid":
        p = p.sigmoid()
    values = torch.exp(NGL_ALPHA - p * (1 + one_hot(target, logits))) - p.sin().cos().cos()
    return reduce_classes(values, over_classes)


@about(
    name="Wasserstein distance of classes",
    family="probability",
    kind="class_logits",
    link="softmax",
    paper="Frogner et al., NeurIPS 2015, arXiv 1506.05439, which is exact for one true class",
    evidence="H",
    aliases=("earth_mover",),
)
def wasserstein(logits: Tensor, target: Tensor, *, cost: Sequence[Sequence[float]] | Tensor | None = None) -> Tensor:
    """Expected distance of the predicted class from the true one, given a cost for each pair of classes.

    L = sum_c p_c M_tc, p = softmax(z): all probability has to be carried to the one true class, so the optimal
    transport needs no iteration. cost: M, (C,C), a row for each true class, None = 1 for every error, which makes it
    1 - p_t. logits: (N,C,...); target: (N,...) int64; returns (N,...).

    >>> wasserstein(torch.zeros(1, 2), torch.tensor([1]), cost=[[0.0, 3.0], [3.0, 0.0]])
    tensor([1.5000])
    """
    check_class_logits(logits, target)
    if cost is None:
        return one_minus_prob(entropy_of_classes(logits, target))
    classes = logits.shape[1]
    held = constant(cost, logits.dtype, logits.device)
    if held.shape != (classes, classes):
        raise ValueError(f"cost: shape {tuple(held.shape)}, allowed is {(classes, classes)}, from class to class")
    return (logits.softmax(1) * held[target].movedim(-1, 1)).sum(1)
