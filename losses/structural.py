"""Losses on structure: local statistics, features of images, and what moves between frames."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from losses.checks import check_choice, check_float, check_pair, check_range
from losses.loss import about
from losses.shared import CustomFunction, in_full_precision, safe_sqrt, unit, valid_mask


@about(
    name="SSIM",
    family="structural",
    kind="images",
    link=None,
    paper="Wang et al., IEEE TIP 13(4), 2004, eq. 13",
    evidence="V",
)
def ssim(
    prediction: Tensor, target: Tensor, *, window: int = 11, sigma: float = 1.5, data_range: float = 1.0
) -> Tensor:
    """1 - SSIM, the similarity of local means, variances and covariance of two images.

    L = 1 - SSIM, SSIM = (2 mx my + C1)(2 sxy + C2) / ((mx^2 + my^2 + C1)(sx^2 + sy^2 + C2)), C1 = (0.01 R)^2, C2 =
    (0.03 R)^2, statistics under a Gaussian window, mean over the positions where the whole window lies in the image,
    and over channels. Some libraries halve it, or pad the border. data_range: R, from the darkest to the brightest
    value that an image can have: 1 for images from 0 to 1. Both (N,C,H,W) with sides of a window or more; returns (N,).

    >>> ssim(torch.full((1, 1, 16, 16), 0.5), torch.full((1, 1, 16, 16), 0.6))
    tensor([0.0164])
    """
    _check_images(prediction, target, window)
    x, y = _at_least_single(prediction, target)
    brightness, structure = _dissimilarity(x, y, window, sigma, data_range)
    return (brightness + structure - brightness * structure).flatten(1).mean(1)


SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""What people weigh the five scales by, finest first (Wang et al. 2003)."""


@about(
    name="Multi-scale SSIM",
    family="structural",
    kind="images",
    link=None,
    paper="Wang et al., Asilomar Conference on Signals, Systems and Computers, 2003, eq. 7",
    evidence="V",
    aliases=("msssim",),
)
def ms_ssim(
    prediction: Tensor,
    target: Tensor,
    *,
    weights: Sequence[float] = SCALES,
    window: int = 11,
    sigma: float = 1.5,
    data_range: float = 1.0,
) -> Tensor:
    """1 - multi-scale SSIM: structure at several scales, each half the size of the previous, luminance at the coarsest.

    L = 1 - mean_channels l_M^w_M prod_j cs_j^w_j: cs the mean of SSIM's second factor, at M scales, from 1e-6 on (a
    power has no slope at 0), l that of the first times the second (l_M cs_M is SSIM itself, as in all public code);
    halved by means of 2 x 2 pixels. weights: w_j, finest first. Both (N,C,H,W), with sides of (window - 1) 2^(M-1) + 1
    or more, 161 by default; returns (N,). A loss that mixes it with the absolute error goes by the same name elsewhere.

    >>> ms_ssim(torch.full((1, 1, 176, 176), 0.5), torch.full((1, 1, 176, 176), 0.6))
    tensor([0.0022])
    """
    if not weights:
        raise ValueError("weights: (), allowed is one number per scale, one scale or more")
    for weight in weights:
        check_range("weights", weight, 0)
    _check_images(prediction, target, (window - 1) * 2 ** (len(weights) - 1) + 1)
    x, y = _at_least_single(prediction, target)
    product = torch.ones((), dtype=x.dtype, device=x.device)
    for scale, weight in enumerate(weights):
        last = scale == len(weights) - 1
        brightness, structure = _dissimilarity(x, y, window, sigma, data_range)
        lack = brightness + structure - brightness * structure if last else structure
        held = (1 - lack.flatten(2).mean(2)).clamp_min(1e-6)
        product = product * held**weight
        if not last:
            x, y = functional.avg_pool2d(x, 2), functional.avg_pool2d(y, 2)
    return 1 - product.mean(1)


def _check_images(prediction: Tensor, target: Tensor, side: int) -> None:
    check_pair(prediction, target)
    if prediction.ndim != 4 or min(prediction.shape[2:]) < side:
        raise ValueError(
            f"prediction: shape {tuple(prediction.shape)}, allowed is (N, C, H, W) with sides of {side} or more"
        )


def _at_least_single(*images: Tensor) -> list[Tensor]:
    # variances come from differences of large numbers, so half precision would lose them
    return [image.to(torch.promote_types(image.dtype, torch.float32)) for image in images]


@in_full_precision
def _dissimilarity(x: Tensor, y: Tensor, window: int, sigma: float, data_range: float) -> tuple[Tensor, Tensor]:
    """Return what SSIM's two factors, of brightness and of structure, lack of 1, wherever the window lies in the image.

    With d = x - y and s = x + y they lack 2 md^2/(md^2 + ms^2 + 2 C1) and 2 vd/(vd + vs + 2 C2), m the mean and v the
    variance: as precise as d itself is, also where the images are nearly alike.
    """
    check_range("window", window, 1)
    check_range("sigma", sigma, 0, above=True)
    check_range("data_range", data_range, 0, above=True)
    place = torch.arange(window, dtype=x.dtype, device=x.device) - (window - 1) / 2
    bell = torch.exp(-place.square() / (2 * sigma**2))
    groups = 4 * x.shape[1]
    bell = (bell / bell.sum()).expand(groups, 1, 1, window)
    both = x - y, x + y
    # E[z^2] - E[z]^2 would be the difference of two large numbers; about a point near the data they are small
    levels = [each.detach().mean((2, 3), keepdim=True) for each in both]
    level = torch.cat(levels, 1)
    away = [each - its for each, its in zip(both, levels, strict=True)]
    rows = functional.conv2d(torch.cat([*away, *(each.square() for each in away)], 1), bell, groups=groups)
    means, squares = functional.conv2d(rows, bell.transpose(2, 3), groups=groups).chunk(2, 1)
    variance_apart, variance_together = (squares - means.square()).chunk(2, 1)
    apart, together = (means + level).square().chunk(2, 1)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    brightness = 2 * apart / (apart + together + 2 * c1)
    structure = 2 * variance_apart / (variance_apart + variance_together + 2 * c2)
    return brightness, structure


@about(
    name="Perceptual",
    family="structural",
    kind="feature_maps",
    link=None,
    paper="Johnson et al., ECCV 2016, arXiv 1603.08155, eq. 2",
    evidence="H",
)
def perceptual(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference of the features of two images in one layer of a fixed network.

    L = mean (phi(yh) - phi(y))^2, that is |.|^2 / (C H W); sum over layers with weights. Which network, and its
    weights, decide what it means. Both (N,C,H,W), features already; returns (N,).

    >>> perceptual(torch.tensor([[[[1.0, 2]]]]), torch.tensor([[[[1.0, 1]]]]))
    tensor([0.5000])
    """
    check_pair(prediction, target)
    return (prediction - target).square().flatten(1).mean(1)


@about(
    name="Content",
    family="structural",
    kind="feature_maps",
    link=None,
    paper="Gatys et al., CVPR 2016, arXiv 1508.06576, eq. 1",
    evidence="H",
)
def content(prediction: Tensor, target: Tensor) -> Tensor:
    """Half the squared difference of the features of two images in one layer, summed.

    L = 1/2 sum (F - P)^2. Both (N,C,H,W), features already; returns (N,).

    >>> content(torch.tensor([[[[1.0, 2, 0, 1]], [[0, 1, 1, 2]]]]), torch.tensor([[[[1.0, 1, 1, 1]], [[0, 2, 0, 2]]]]))
    tensor([2.])
    """
    check_pair(prediction, target)
    return (prediction - target).square().flatten(1).sum(1) / 2


@about(
    name="Style",
    family="structural",
    kind="feature_maps",
    link=None,
    paper="Gatys et al., CVPR 2016, arXiv 1508.06576, eq. 3-5; Johnson et al., arXiv 1603.08155, eq. 3-4",
    evidence="H",
)
def style(prediction: Tensor, target: Tensor, *, scaling: str = "gatys") -> Tensor:
    """Difference of the Gram matrices of the features of two images in one layer, squared or absolute.

    G = F F^T over positions. gatys: sum (G - A)^2 / (4 C^2 (HW)^2); johnson: sum ((G - A)/(C H W))^2, four times as
    much; absolute: sum |G - A|/(C H W), as in inpainting by partial convolutions. Both (N,C,H,W), features already;
    returns (N,).

    >>> style(torch.tensor([[[[1.0, 2, 0, 1]], [[0, 1, 1, 2]]]]), torch.tensor([[[[1.0, 1, 1, 1]], [[0, 2, 0, 2]]]]))
    tensor([0.0312])
    """
    check_pair(prediction, target)
    check_choice("scaling", scaling, ("gatys", "johnson", "absolute"))
    size = prediction[0].numel() if len(prediction) else 1
    difference = _GramDifference.of(prediction.flatten(2), target.flatten(2)) / size
    if scaling == "absolute":
        return difference.abs().flatten(1).sum(1)
    squares = difference.square().flatten(1).sum(1)
    return squares / 4 if scaling == "gatys" else squares


class _GramDifference(CustomFunction):
    """F F^T - P P^T as the symmetric part of (F - P) (F + P)^T: precise also where the two are nearly alike.

    By hand, because the gradient is one product of matrices, for which autograd takes two.
    """

    @staticmethod
    @in_full_precision
    def forward(first: Tensor, second: Tensor) -> Tensor:
        product = (first - second) @ (first + second).mT
        return (product + product.mT) / 2

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    @in_full_precision
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        first, second = ctx.saved_tensors
        both = slope + slope.mT
        return tuple(
            sign * both @ maps.to(both.dtype) if asked else None
            for sign, maps, asked in zip((1, -1), (first, second), ctx.needs_input_grad, strict=True)
        )


@about(
    name="Contextual (reconstruction of the context loss)",
    family="structural",
    kind="feature_maps",
    link=None,
    paper="Mechrez et al., ECCV 2018, arXiv 1803.02077, eq. 2-5; the review does not define its context loss",
    evidence="R",
)
@in_full_precision
def context(prediction: Tensor, target: Tensor, *, h: float = 0.5, epsilon: float = 1e-5) -> Tensor:
    """-ln of the contextual similarity of two images: how well each feature of one is matched somewhere in the other.

    L = -ln mean_j max_i CX_ij, CX_ij = w_ij / sum_k w_ik, w_ij = exp((1 - d_ij/(min_k d_ik + eps))/h), d the cosine
    distance of features after the target's mean is taken off. Memory grows with the square of the positions. Both
    (N,C,H,W), features already; returns (N,).

    >>> context(torch.eye(4).view(1, 4, 2, 2), torch.eye(4).view(1, 4, 2, 2)).abs() < 1e-3
    tensor([True])
    """
    check_pair(prediction, target)
    check_range("h", h, 0, above=True)
    check_range("epsilon", epsilon, 0, above=True)
    x, y = prediction.flatten(2), target.flatten(2)
    for _ in range(2):  # the mean of large numbers is rounded, that of what is left of them hardly
        centre = y.mean(2, keepdim=True)
        x, y = x - centre, y - centre
    x, y = unit(x), unit(y)
    distance = (1 - x.mT @ y).clamp_min(0)
    relative = distance / (distance.amin(2, keepdim=True) + epsilon)
    likeness = ((1 - relative) / h).softmax(2)
    return -likeness.amax(1).mean(1).log()


@about(
    name="Temporal consistency",
    family="structural",
    kind="feature_maps",
    link=None,
    paper="as the review defines it for pairs of frames, per pair",
    evidence="H",
)
def temporal_consistency(prediction: Tensor, target: Tensor) -> Tensor:
    """Squared distance of consecutive frames.

    L = sum (f_t - f_{t-1})^2. Both (N,...), frames and those before them; returns (N,).

    >>> temporal_consistency(torch.ones(1, 1, 1, 2), torch.zeros(1, 1, 1, 2))
    tensor([2.])
    """
    return 2 * content(prediction, target)


@about(
    name="Motion consistency (reconstruction of the norm)",
    family="structural",
    kind="flows",
    link=None,
    paper="as the review defines it, whose norm is lost",
    evidence="R",
    aliases=("motion", "end_point_error"),
)
def motion_consistency(prediction: Tensor, target: Tensor, *, squared: bool = True) -> Tensor:
    """Squared distance of predicted and true optical flow, per pixel, or its root.

    L = |u - uh|^2 per pixel, or its root, the end-point error. Both (N,2,H,W); returns (N,H,W).

    >>> motion_consistency(torch.tensor([3.0, 4.0]).view(1, 2, 1, 1), torch.zeros(1, 2, 1, 1))
    tensor([[[25.]]])
    """
    check_pair(prediction, target)
    distance = (prediction - target).square().sum(1)
    return distance if squared else safe_sqrt(distance)


@about(
    name="SiamFC",
    family="structural",
    kind="binary_logits",
    link="sigmoid",
    paper="Bertinetto et al., arXiv 1606.09549, eq. 1-2",
    evidence="H",
    aliases=("cross_correlation",),
    whole_batch=True,
)
def siamfc(logits: Tensor, target: Tensor, *, balanced: bool = True, mask: Tensor | None = None) -> Tensor:
    """Logistic loss of a score map, positive near the target and negative elsewhere.

    L = ln(1 + exp(-y v)), y = 2 t - 1; balanced: places with and without the target have the same total weight, as in
    the paper's experiments. logits and target (0 or 1) of one shape, which is returned; mask: bool, what counts.

    >>> siamfc(torch.tensor([2.0, -1.0, 0.5]), torch.tensor([1.0, 0.0, 0.0]), balanced=False).mean()
    tensor(0.4714)
    """
    check_pair(logits, target)
    values = functional.softplus((1 - 2 * target) * logits)
    if not balanced:
        return values
    counted = valid_mask(target, mask)
    positives, total = (target * counted).sum(), counted.sum()
    negatives = total - positives
    both = (positives > 0) & (negatives > 0)
    weights = target * total / (2 * positives.clamp_min(1)) + (1 - target) * total / (2 * negatives.clamp_min(1))
    return values * torch.where(both, weights, 1)


@about(
    name="Attention target",
    family="structural",
    kind="attention",
    link=None,
    paper="Zheng, Lou and Jiang, TrojViT, CVPR 2023, arXiv 2208.13049, as in the authors' code",
    evidence="H",
)
def attention_target(prediction: Tensor, target: Tensor) -> Tensor:
    """-ln of the attention that the queries of a layer pay to one patch: the objective of an attack.

    L = -mean_q ln A_q,t, A the attention averaged over heads; sum over layers but the first. prediction: (N,Q,K)
    attention, rows sum to 1, from 1e-12 on; target: (N,) the patch as a float number; returns (N,).

    >>> attention_target(torch.full((1, 2, 4), 0.25), torch.tensor([3.0]))
    tensor([1.3863])
    """
    if prediction.ndim != 3 or prediction.shape[:1] != target.shape:
        raise ValueError(f"prediction: shape {tuple(prediction.shape)}, allowed is (N, Q, K) beside a target (N,)")
    check_float("prediction", prediction)
    patch = target.long().clamp(0, prediction.shape[2] - 1).view(-1, 1, 1).expand(-1, prediction.shape[1], 1)
    return -prediction.gather(2, patch).clamp_min(1e-12).log().mean((1, 2))
