"""Losses on the overlap of regions: soft counts of every class over the pixels of an image.

A dense prediction (N,C,...) gives one value per image, (N,); of (N,C) every item is an image of one pixel, so that
these losses train classifiers too. With `over_batch` the counts run over the whole batch, and every image carries its
value.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor

from losses.adapters import one_hot
from losses.checks import check_choice, check_class_logits, check_pair, check_range
from losses.loss import About, about, about_by_settings
from losses.probability import entropy_of_classes
from losses.quantity import log_cosh
from losses.shared import CustomFunction, masked_labels, spread_mask

Mode = Literal["multiclass", "binary", "multilabel"]
MODES = ("multiclass", "binary", "multilabel")
F = TypeVar("F", bound=Callable[..., Any])


def _about_by_mode(function: F) -> F:
    """Decorator above `about`: what is known about a loss of exclusive classes, with labels in the other modes."""
    fact: About = function.about  # pyright: ignore[reportFunctionMemberAccess]

    def derive(settings: Mapping[str, Any]) -> About:
        mode = settings.get("mode", "multiclass")
        if mode == "multiclass":
            return fact
        return replace(fact, name=f"{fact.name}, {mode}", kinds=("binary_logits",), link="sigmoid", aliases=())

    return about_by_settings(derive)(function)


class Counts(NamedTuple):
    """Soft counts of every class, (N,C), or (1,C) over the batch: true positives, sums of p, g and p^2, and pixels."""

    both: Tensor
    predicted: Tensor
    actual: Tensor
    squares: Tensor
    pixels: Tensor

    @property
    def false_positive(self) -> Tensor:
        """What was predicted and is not there."""
        return self.predicted - self.both

    @property
    def false_negative(self) -> Tensor:
        """What is there and was not predicted."""
        return self.actual - self.both


def _counts(
    logits: Tensor,
    target: Tensor,
    mask: Tensor | None,
    over_batch: bool,
    squared: bool = False,
    mode: Mode = "multiclass",
) -> Counts:
    if mode != "multiclass" or target.ndim == logits.ndim:
        return _label_counts(logits, target, mask, over_batch, squared, mode)
    target, mask = masked_labels(target, mask)
    check_class_logits(logits, target)
    # half precision would lose pixels in the sums of an image
    exact = torch.promote_types(logits.dtype, torch.float32)
    flat = logits.to(exact).unsqueeze(-1).flatten(2)
    counted = None if mask is None else _pixels(mask).unsqueeze(1).to(exact)
    both, predicted, actual, squares, _ = _ClassSums.of(flat, _pixels(target).unsqueeze(1), counted, squared)
    pixels = actual.sum(1, keepdim=True)
    sums = (both, predicted, actual, squares if squared else predicted, pixels)
    return Counts(*(part.sum(0, keepdim=True) if over_batch else part for part in sums))


def _label_counts(
    logits: Tensor, target: Tensor, mask: Tensor | None, over_batch: bool, squared: bool, mode: Mode
) -> Counts:
    """Return counts where the target is of the shape of the logits: labels, or probabilities of exclusive classes."""
    check_choice("mode", mode, MODES)
    check_pair(logits, target)
    if logits.ndim < 2 and mode != "binary":
        raise ValueError(f"logits: shape {tuple(logits.shape)}, allowed is (N, C, ...) with mode={mode!r}")
    exclusive = mode == "multiclass"
    items = target.shape[:1] + target.shape[2:] if exclusive else target.shape
    exact = torch.promote_types(logits.dtype, torch.float32)
    ones = None if mask is None else spread_mask(mask, items)
    if ones is not None:
        ones = ones.unsqueeze(1) if exclusive else ones
        target = torch.where(ones, target, 0)
    p = logits.to(exact)
    p = p.softmax(1) if exclusive else p.sigmoid()
    counted = torch.ones_like(p) if ones is None else ones.expand_as(p).to(exact)

    def total(part: Tensor) -> Tensor:
        return part.unsqueeze(-1).flatten(2).sum(2) if mode != "binary" else part.unsqueeze(-1).flatten(1).sum(1, True)

    true = counted * target
    sums = (true * p, counted * p, true * target if squared else true, counted * p * p, counted)
    totals = [total(part) for part in sums]
    return Counts(*(part.sum(0, keepdim=True) if over_batch else part for part in totals))


class _ClassSums(CustomFunction):
    """Sums over pixels of p [c = t], p, [c = t] and, on request, p^2, (N,C), where the mask counts; and p (N,C,P).

    By hand, because the gradient needs only p and t: no slope of p is ever written.
    """

    @classmethod
    def plain(cls, flat: Tensor, place: Tensor, counted: Tensor | None, squared: bool) -> tuple[Tensor, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the sums from a softmax that torch differentiates."""
        return _sums(flat.softmax(1), place, counted, squared)

    @staticmethod
    def forward(flat: Tensor, place: Tensor, counted: Tensor | None, squared: bool) -> tuple[Tensor, ...]:
        return _sums(flat.softmax(1) if _fused(flat) else _softmax(flat), place, counted, squared)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *tensors, ctx.squared = inputs
        ctx.save_for_backward(*tensors, output[4])
        ctx.mark_non_differentiable(output[2], output[4])
        ctx.set_materialize_grads(False)  # zeros for p would be as large as p

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor | None) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        flat, place, counted, p = ctx.saved_tensors
        none = p.new_zeros(p.shape[:2])
        both, predicted, _, squares, _ = (none if slope is None else slope for slope in slopes)
        if torch.is_grad_enabled():  # to be differentiated again
            p = flat.softmax(1)
        slope = predicted.unsqueeze(2) + (2 * squares.unsqueeze(2) * p if ctx.squared else 0)
        if _fused(flat):
            slope = torch.where(_is_class(place, p), slope + both.unsqueeze(2), slope)
            gradient = p * (slope - (p * slope).sum(1, keepdim=True))
        else:
            true = both.gather(1, place.squeeze(1)).unsqueeze(1) * p.gather(1, place)
            gradient = p * slope
            mean = gradient.sum(1, keepdim=True) + true
            gradient = gradient.addcmul_(p, mean, value=-1).scatter_add_(1, place, true)
        return gradient if counted is None else gradient * counted, None, None, None


def _sums(p: Tensor, place: Tensor, counted: Tensor | None, squared: bool) -> tuple[Tensor, ...]:
    seen = p if counted is None else p * counted
    ones = torch.ones_like(p[:, :1]) if counted is None else counted
    both, actual = (_by_class(part, place) for part in (seen, ones.expand_as(p)))
    return both, seen.sum(2), actual, (p * seen).sum(2) if squared else p.new_zeros(()), p


def _fused(flat: Tensor) -> bool:
    """Return whether dense operations are cheap: a compiler makes one of many, and a GPU has the bandwidth."""
    return torch.compiler.is_compiling() or flat.device.type != "cpu"


def _softmax(flat: Tensor) -> Tensor:
    """Return softmax(1), twice as fast as torch's on CPUs."""
    p = (flat - flat.amax(1, keepdim=True)).exp_()
    return p.div_(p.sum(1, keepdim=True))


def _by_class(values: Tensor, place: Tensor) -> Tensor:
    """Return the sums (N,C) of values (N,C,P) over the pixels of each class t (N,1,P)."""
    if _fused(values):  # a scatter would add up in any order
        return torch.where(_is_class(place, values), values, 0).sum(2)
    own = values.gather(1, place).squeeze(1)
    sums = own.new_zeros(values.shape[:2], dtype=torch.float64)  # one pixel at a time, so rounded at the end only
    return sums.scatter_add(1, place.squeeze(1), own.double()).to(values.dtype)


def _is_class(place: Tensor, values: Tensor) -> Tensor:
    """Return [c = t] (N,C,P); compilers have vectors of 32 bits that are twice as long."""
    return torch.arange(values.shape[1], dtype=torch.int32, device=place.device).view(1, -1, 1) == place.int()


def _per_image(values: Tensor, target: Tensor) -> Tensor:
    """Return (N,) from the values of classes (N,C) or (1,C): their mean, for every image."""
    return values.mean(1).expand(len(target))


@_about_by_mode
@about(
    name="Dice",
    family="region",
    kind="class_logits",
    link="softmax",
    paper="Milletari et al., V-Net, 3DV 2016, arXiv 1606.04797 (squared)",
    evidence="V",
    aliases=("dice_coefficient_loss",),
    per_image=True,
)
def dice(
    logits: Tensor,
    target: Tensor,
    *,
    smooth: float = 1e-5,
    squared: bool = False,
    over_batch: bool = False,
    mode: Mode = "multiclass",
    mask: Tensor | None = None,
) -> Tensor:
    """1 - Dice coefficient of the predicted and the true region, averaged over classes.

    L = 1 - mean_c (2 TP + s)/(sum p + sum g + s), p = softmax(z); squared: sum p^2 instead of sum p, as in V-Net. s, in
    pixels as TP is, is smooth; with s > 0 a class that is neither there nor predicted costs nothing. logits: (N,C,...);
    target: (N,...) int64, or probabilities (N,C,...); mask: bool (N,...), pixels that count; returns (N,). In the modes
    binary and multilabel p = sigmoid(z), and target, floats from 0 to 1, and mask have the shape of the logits, (N,...)
    of one region or (N,C,...) of C regions that may overlap.

    >>> dice(torch.zeros(1, 2, 4), torch.tensor([[0, 0, 1, 1]]))
    tensor([0.5000])
    """
    check_range("smooth", smooth, 0)
    counts = _counts(logits, target, mask, over_batch, squared, mode)
    return _per_image(1 - _dice(counts, smooth, squared), target)


def _dice(counts: Counts, smooth: float, squared: bool = False) -> Tensor:
    sizes = (counts.squares if squared else counts.predicted) + counts.actual
    return _share(2 * counts.both, sizes, smooth)


def _share(part: Tensor, whole: Tensor, smooth: float) -> Tensor:
    """Return (part + s)/(whole + s); nothing of nothing is all of it."""
    whole = whole + smooth
    nothing = whole <= 0
    return torch.where(nothing, 1, (part + smooth) / torch.where(nothing, 1, whole))


@_about_by_mode
@about(
    name="Jaccard",
    family="region",
    kind="class_logits",
    link="softmax",
    paper="Rahman and Wang, ISVC 2016, eq. 3",
    evidence="V",
    aliases=("soft_iou",),
    per_image=True,
)
def jaccard(
    logits: Tensor,
    target: Tensor,
    *,
    smooth: float = 1e-5,
    over_batch: bool = False,
    mode: Mode = "multiclass",
    mask: Tensor | None = None,
) -> Tensor:
    """1 - Jaccard index (IoU) of the predicted and the true region, averaged over classes.

    L = 1 - mean_c (TP + s)/(TP + FP + FN + s), p = softmax(z). Arguments as for `dice`; returns (N,).

    >>> jaccard(torch.zeros(1, 2, 4), torch.tensor([[0, 0, 1, 1]]))
    tensor([0.6667])
    """
    return tversky(logits, target, alpha=1.0, beta=1.0, smooth=smooth, over_batch=over_batch, mode=mode, mask=mask)


@_about_by_mode
@about(
    name="Tversky",
    family="region",
    kind="class_logits",
    link="softmax",
    paper="Salehi et al., MLMI 2017, arXiv 1706.05721, eq. 3",
    evidence="V",
    per_image=True,
)
def tversky(
    logits: Tensor,
    target: Tensor,
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
    smooth: float = 1e-5,
    over_batch: bool = False,
    mode: Mode = "multiclass",
    mask: Tensor | None = None,
) -> Tensor:
    """1 - Tversky index, the overlap of regions with separate weights for false positives and false negatives.

    L = 1 - mean_c (TP + s)/(TP + alpha FP + beta FN + s), p = softmax(z): the defaults look for recall. 1/2 and 1/2 are
    Dice, 1 and 1 Jaccard. Other arguments as for `dice`; returns (N,).

    >>> tversky(torch.zeros(1, 2, 4), torch.tensor([[0, 0, 1, 1]]))
    tensor([0.5000])
    """
    return _per_image(1 - _tversky(logits, target, alpha, beta, smooth, over_batch, mode, mask), target)


def _tversky(
    logits: Tensor,
    target: Tensor,
    alpha: float,
    beta: float,
    smooth: float,
    over_batch: bool,
    mode: Mode = "multiclass",
    mask: Tensor | None = None,
) -> Tensor:
    for name, value in (("alpha", alpha), ("beta", beta), ("smooth", smooth)):
        check_range(name, value, 0)
    counts = _counts(logits, target, mask, over_batch, mode=mode)
    wrong = alpha * counts.false_positive + beta * counts.false_negative
    return _share(counts.both, counts.both + wrong, smooth)


@_about_by_mode
@about(
    name="Focal Tversky",
    family="region",
    kind="class_logits",
    link="softmax",
    paper="Abraham and Khan, ISBI 2019, arXiv 1810.07842, eq. 4, whose alpha and beta are exchanged",
    evidence="V",
    per_image=True,
)
def focal_tversky(
    logits: Tensor,
    target: Tensor,
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
    gamma: float = 4 / 3,
    smooth: float = 1e-5,
    over_batch: bool = False,
    mode: Mode = "multiclass",
    mask: Tensor | None = None,
) -> Tensor:
    """Tversky loss raised to a power, which emphasises classes whose regions do not overlap yet.

    L = mean_c (1 - T_c)^(1/gamma), gamma 1 to 3; many ports call the exponent gamma. alpha weighs false positives, as
    in `tversky` (the paper's letters are the other way round). Where T_c is nearly 1 (by 1e-6), there is no slope,
    which would be infinite. The paper sums over classes. Returns (N,).

    >>> focal_tversky(torch.zeros(1, 2, 4), torch.tensor([[0, 0, 1, 1]]))
    tensor([0.5946])
    """
    check_range("gamma", gamma, 0, above=True)
    missing = 1 - _tversky(logits, target, alpha, beta, smooth, over_batch, mode, mask)
    return _per_image(_power(missing, 1 / gamma), target)


@_about_by_mode
@about(
    name="Log-cosh Dice",
    family="region",
    kind="class_logits",
    link="softmax",
    paper="Jadon, CIBCB 2020, arXiv 2006.14822, eq. 17",
    evidence="H",
    aliases=("lcdice",),
    per_image=True,
)
def log_cosh_dice(
    logits: Tensor,
    target: Tensor,
    *,
    smooth: float = 1e-5,
    over_batch: bool = False,
    mode: Mode = "multiclass",
    mask: Tensor | None = None,
) -> Tensor:
    """Logarithm of the hyperbolic cosine of the Dice loss: flatter near its minimum.

    L = ln cosh(Dice loss), from 0 to 0.434. Arguments as for `dice`; returns (N,).

    >>> log_cosh_dice(torch.zeros(1, 2, 4), torch.tensor([[0, 0, 1, 1]]))
    tensor([0.1201])
    """
    value = dice(logits, target, smooth=smooth, over_batch=over_batch, mode=mode, mask=mask)
    return log_cosh(value, torch.zeros_like(value))


@_about_by_mode
@about(
    name="Generalised Dice",
    family="region",
    kind="class_logits",
    link="softmax",
    paper="Sudre et al., DLMIA 2017, arXiv 1707.03237, sec. 2.1",
    evidence="V",
    per_image=True,
)
def generalized_dice(
    logits: Tensor,
    target: Tensor,
    *,
    smooth: float = 1e-5,
    over_batch: bool = False,
    mode: Mode = "multiclass",
    mask: Tensor | None = None,
) -> Tensor:
    """1 - Dice over all classes together, each class weighted by the inverse square of its size.

    L = 1 - (2 sum_c w_c TP_c + s)/(sum_c w_c (sum p + sum g) + s), w_c = 1/(sum g)^2: one ratio, no mean over classes.
    A class that is not there gets the largest weight among those that are, so that predicting it costs; libraries that
    add a small number give it nearly all the weight instead. Arguments as for `dice`; returns (N,).

    >>> generalized_dice(torch.zeros(1, 2, 4), torch.tensor([[0, 0, 1, 1]]))
    tensor([0.5000])
    """
    check_range("smooth", smooth, 0)
    counts = _counts(logits, target, mask, over_batch, mode=mode)
    there = counts.actual > 0
    weights = torch.where(there, 1 / torch.where(there, counts.actual, 1).square(), 0)
    weights = torch.where(there, weights, weights.amax(1, keepdim=True)) if weights.numel() else weights
    both, sizes = (weights * counts.both).sum(1), (weights * (counts.predicted + counts.actual)).sum(1)
    return (1 - _share(2 * both, sizes, smooth)).expand(len(target))


@about(
    name="Sensitivity-specificity",
    family="region",
    kind="class_logits",
    link="softmax",
    paper="Brosch et al., MICCAI 2015, eq. 3",
    evidence="H",
    per_image=True,
)
def sensitivity_specificity(
    logits: Tensor,
    target: Tensor,
    *,
    ratio: float = 0.05,
    over_batch: bool = False,
    mask: Tensor | None = None,
) -> Tensor:
    """Weighted sum of the mean squared errors inside a region and outside it.

    L = mean_c r sum (g-p)^2 g / sum g + (1-r) sum (g-p)^2 (1-g) / sum (1-g), p = softmax(z); a part without pixels
    counts 0. ratio: r, 0.02 to 0.1 in use. Other arguments as for `dice`; returns (N,).

    >>> sensitivity_specificity(torch.zeros(1, 2, 4), torch.tensor([[0, 0, 1, 1]]))
    tensor([0.2500])
    """
    check_range("ratio", ratio, 0, 1)
    target, mask = masked_labels(target, mask)
    check_class_logits(logits, target)
    p, g = logits.softmax(1), one_hot(target, logits)
    errors = (g - p).square()
    if mask is not None:
        errors = errors * mask.unsqueeze(1)
    counted = torch.ones_like(g[:, :1]) if mask is None else mask.unsqueeze(1).to(g.dtype)
    axes = (*((0,) if over_batch else ()), *range(2, p.ndim))

    def total(part: Tensor) -> Tensor:
        return part.sum(axes, keepdim=True).view(-1, part.shape[1]) if axes else part

    inside = total(errors * g) / total(counted * g).clamp_min(1)
    outside = total(errors * (1 - g)) / total(counted * (1 - g)).clamp_min(1)
    return _per_image(ratio * inside + (1 - ratio) * outside, target)


@about(
    name="Exponential-logarithmic",
    family="region",
    kind="class_logits",
    link="softmax",
    paper="Wong et al., MICCAI 2018, arXiv 1809.00076, eq. 1-3",
    evidence="H",
    per_image=True,
)
def exponential_logarithmic(
    logits: Tensor,
    target: Tensor,
    *,
    dice_weight: float = 0.8,
    entropy_weight: float = 0.2,
    gamma: float = 0.3,
    smooth: float = 1.0,
    over_batch: bool = False,
    mask: Tensor | None = None,
) -> Tensor:
    """Weighted sum of powers of -ln Dice and of cross-entropy, with larger weights for rare classes.

    L = w_D mean_c (-ln Dice_c)^g + w_X mean_x w_t (-ln p_t)^g, w_c = sqrt(sum_k f_k / f_c), f the share of a class's
    pixels in the image. No slope where a logarithm is nearly 0 (by 1e-6), which would be infinite. Other arguments as
    for `dice`; returns (N,).

    >>> exponential_logarithmic(torch.zeros(1, 2, 4), torch.tensor([[0, 0, 1, 1]]))
    tensor([0.9074])
    """
    for name, value in (("dice_weight", dice_weight), ("entropy_weight", entropy_weight), ("gamma", gamma)):
        check_range(name, value, 0)
    target, mask = masked_labels(target, mask)
    check_class_logits(logits, target)
    counts = _counts(logits, target, mask, over_batch)
    overlap = _per_image(_power(-_dice(counts, smooth).log(), gamma), target)
    shares = (counts.actual / counts.pixels.clamp_min(1)).expand(len(target), -1)
    own = shares.gather(1, _pixels(target))
    entropy = _power(_pixels(entropy_of_classes(logits, target)), gamma)
    weighted = torch.where(own > 0, torch.where(own > 0, own, 1) ** -0.5, 0) * entropy
    return dice_weight * overlap + entropy_weight * _mean_pixel(weighted, mask)


def _pixels(dense: Tensor) -> Tensor:
    """Return (N,P) from (N,...), (N,1) from (N,)."""
    return dense.unsqueeze(-1).flatten(1)


def _mean_pixel(values: Tensor, mask: Tensor | None) -> Tensor:
    """Return (N,) from (N,P): the mean of what counts, 0 where nothing does."""
    counted = torch.ones_like(values) if mask is None else _pixels(mask).to(values.dtype)
    return (values * counted).sum(1) / counted.sum(1).clamp_min(1)


def _power(value: Tensor, gamma: float) -> Tensor:
    """Return value^gamma, 0 with slope 0 where the value is nearly 0."""
    near = value <= 1e-6
    return torch.where(near, 0, torch.where(near, 1, value) ** gamma)


@about(
    name="Combo",
    family="region",
    kind="class_logits",
    link="softmax",
    paper="Taghanaki et al., Comput. Med. Imaging Graph. 75, 2019, arXiv 1805.02798, eq. 3, with t ln p for t - ln p",
    evidence="H",
    per_image=True,
)
def combo(
    logits: Tensor,
    target: Tensor,
    *,
    alpha: float = 0.5,
    beta: float = 0.5,
    smooth: float = 1e-5,
    over_batch: bool = False,
    mask: Tensor | None = None,
) -> Tensor:
    """Weighted difference of cross-entropy, positives and negatives weighted separately, and the Dice coefficient.

    L = mean_c alpha MCE_c - (1 - alpha) Dice_c, MCE_c = -mean [beta t ln p + (1 - beta) (1 - t) ln(1 - p)], p =
    softmax(z). It can be negative. Other arguments as for `dice`; returns (N,).

    >>> combo(torch.zeros(1, 2, 4), torch.tensor([[0, 0, 1, 1]]))
    tensor([-0.0767])
    """
    check_range("alpha", alpha, 0)
    check_range("beta", beta, 0)
    target, mask = masked_labels(target, mask)
    check_class_logits(logits, target)
    counts = _counts(logits, target, mask, over_batch)
    log_p, g = logits.log_softmax(1), one_hot(target, logits)
    # ln(1 - p), exact where p is nearly 1, which only the greatest can be: the logarithm of the sum of the others
    top = one_hot(logits.argmax(1), logits) > 0
    others = logits.masked_fill(top, float("-inf")).logsumexp(1, keepdim=True) - logits.logsumexp(1, keepdim=True)
    log_rest = torch.where(top, others, (-log_p.masked_fill(top, float("-inf")).exp()).log1p())
    entropy = -(beta * g * log_p + (1 - beta) * (1 - g) * log_rest).mean(1)
    pixels = _mean_pixel(_pixels(entropy), mask)
    return alpha * pixels - (1 - alpha) * _per_image(_dice(counts, smooth), target)
