"""Losses on the difference of two values: elementwise, then those of whole vectors and of the whole batch."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from losses.checks import check_float, check_pair, check_range
from losses.loss import Reduction, about
from losses.shared import CustomFunction, constant, forward_mode, ghm_weights, safe_sqrt, valid_mask


@about(
    name="Squared error",
    family="quantity",
    kind="values",
    link=None,
    paper="least squares",
    evidence="V",
    aliases=("l2", "quadratic", "pixel_wise_mean"),
)
def squared_error(prediction: Tensor, target: Tensor, *, reduction: Reduction = "none") -> Tensor:
    """Squared difference.

    L = (yh - y)^2. Both of one shape, which is returned, or the mean. The minimiser is the conditional mean.

    >>> squared_error(torch.tensor([7.0]), torch.tensor([4.0]))
    tensor([9.])
    """
    check_pair(prediction, target)
    if forward_mode():
        return _reduced((prediction - target).square(), reduction)
    return functional.mse_loss(prediction, target, reduction=reduction)


@about(
    name="Absolute error",
    family="quantity",
    kind="values",
    link=None,
    paper="least absolute deviations; Willmott and Matsuura 2005",
    evidence="V",
    aliases=("l1", "pixel_wise"),
)
def absolute_error(prediction: Tensor, target: Tensor, *, reduction: Reduction = "none") -> Tensor:
    """Absolute difference.

    L = |yh - y|. Both of one shape, which is returned, or the mean. Kink at 0, where the gradient is 0. The minimiser
    is the conditional median.

    >>> absolute_error(torch.tensor([1.0]), torch.tensor([4.0]))
    tensor([3.])
    """
    check_pair(prediction, target)
    return functional.l1_loss(prediction, target, reduction=reduction)


@about(
    name="Mean bias error",
    family="quantity",
    kind="values",
    link=None,
    paper="definition of the bias of a predictor",
    evidence="H",
    aliases=("mbe",),
    untrainable="it is signed and unbounded below, so it is minimised by predicting infinity; use it as a metric.",
)
def mean_bias_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Signed difference: its mean is above 0 where a model predicts too little, below 0 where it predicts too much.

    L = y - yh. Both of one shape, which is returned. Both signs occur in the literature.

    >>> mean_bias_error(torch.tensor([1.0]), torch.tensor([4.0]))
    tensor([3.])
    """
    check_pair(prediction, target)
    return target - prediction


@about(
    name="Huber",
    family="quantity",
    kind="values",
    link=None,
    paper="Huber, Ann. Math. Statist. 35(1), 1964",
    evidence="V",
)
def huber(prediction: Tensor, target: Tensor, *, delta: float = 1.0, reduction: Reduction = "none") -> Tensor:
    """Half the squared error up to delta, linear beyond it.

    L = e^2/2 where |e| <= delta, else delta (|e| - delta/2), e = yh - y. Both of one shape, which is returned. It is
    delta times Smooth L1 with beta = delta, so the two agree at 1 only. delta is in the unit of the values; 1.345
    standard deviations of the error give 95 % efficiency.

    >>> huber(torch.tensor([0.5, 3.0]), torch.zeros(2))
    tensor([0.1250, 2.5000])
    """
    check_pair(prediction, target)
    check_range("delta", delta, 0, above=True)
    if forward_mode():
        size = (prediction - target).abs()
        return _reduced(torch.where(size <= delta, size.square() / 2, delta * (size - delta / 2)), reduction)
    return functional.huber_loss(prediction, target, reduction=reduction, delta=delta)


def _reduced(values: Tensor, reduction: Reduction) -> Tensor:
    return values.mean() if reduction == "mean" else values


@about(
    name="Smooth L1",
    family="quantity",
    kind="values",
    link=None,
    paper="Girshick, ICCV 2015, arXiv 1504.08083, eq. 3",
    evidence="V",
)
def smooth_l1(prediction: Tensor, target: Tensor, *, beta: float = 1.0, reduction: Reduction = "none") -> Tensor:
    """Absolute error, replaced by a parabola within beta of 0.

    L = e^2/(2 beta) where |e| < beta, else |e| - beta/2, e = yh - y. Both of one shape, which is returned. beta = 0 is
    the absolute error; the region proposals of Faster R-CNN use sigma = 3, that is beta = 1/9. beta is in the unit of
    the values, which in the paper are offsets over the size of a proposal.

    >>> smooth_l1(torch.tensor([0.5, 3.0]), torch.zeros(2), beta=0.5)
    tensor([0.2500, 2.7500])
    """
    check_pair(prediction, target)
    check_range("beta", beta, 0)
    return functional.smooth_l1_loss(prediction, target, reduction=reduction, beta=beta)


@about(
    name="Charbonnier",
    family="quantity",
    kind="values",
    link=None,
    paper="Charbonnier et al., ICIP 1994; Lai et al., LapSRN, CVPR 2017, arXiv 1704.03915, eq. 2, for the setting",
    evidence="H",
    aliases=("smooth_absolute",),
)
def charbonnier(prediction: Tensor, target: Tensor, *, epsilon: float = 1e-3) -> Tensor:
    """Absolute error whose kink at 0 is rounded off: a hyperbola.

    L = sqrt(e^2 + epsilon^2), e = yh - y. Both of one shape, which is returned. epsilon is in the unit of the values,
    in the paper intensities from 0 to 1; a perfect fit costs epsilon. Less epsilon, and times it, this is the
    pseudo-Huber loss.

    >>> charbonnier(torch.tensor([3.0, 0.0]), torch.zeros(2), epsilon=4.0)
    tensor([5., 4.])
    """
    check_pair(prediction, target)
    check_range("epsilon", epsilon, 0, above=True)
    return ((prediction - target).square() + epsilon**2).sqrt()


@about(
    name="Balanced L1",
    family="quantity",
    kind="values",
    link=None,
    paper="Pang et al., Libra R-CNN, CVPR 2019, arXiv 1904.02701, eq. 8",
    evidence="V",
)
def balanced_l1(prediction: Tensor, target: Tensor, *, alpha: float = 0.5, gamma: float = 1.5) -> Tensor:
    """Smooth L1 with larger gradients for small errors and gradients of at most gamma for large ones.

    L = (alpha/b) (b|e| + 1) ln(b|e| + 1) - alpha |e| where |e| < 1, else gamma |e| + gamma/b - alpha, with
    b = exp(gamma/alpha) - 1, which makes value and slope continuous. Both of one shape, which is returned. The 1 is in
    the unit of the values; a threshold other than 1, which public code offers, breaks the slope.

    >>> balanced_l1(torch.tensor([0.5, 3.0]), torch.zeros(2))
    tensor([0.4006, 4.0786])
    """
    check_pair(prediction, target)
    check_range("alpha", alpha, 0, above=True)
    check_range("gamma", gamma, 0, above=True)
    b = math.expm1(gamma / alpha)
    size = (prediction - target).abs()
    inside = b * size.clamp_max(1)  # held where the other branch counts, so that it cannot overflow
    small = alpha / b * (inside + 1) * inside.log1p() - alpha * size
    return torch.where(size < 1, small, gamma * size + (gamma / b - alpha))


@about(
    name="Log-cosh",
    family="quantity",
    kind="values",
    link=None,
    paper="Saleh and Saleh, arXiv 2208.04564",
    evidence="V",
)
def log_cosh(prediction: Tensor, target: Tensor) -> Tensor:
    """Logarithm of the hyperbolic cosine of the difference: e^2/2 near 0, |e| - ln 2 beyond about 1, in their unit.

    L = ln cosh e = |e| - ln(1 + tanh |e|), e = yh - y, in this form, because cosh overflows at 89 in float32, and the
    usual |e| + ln(1 + exp(-2|e|)) - ln 2 has lost every digit at 1e-4. Both of one shape, which is returned. The
    gradient is tanh e.

    >>> log_cosh(torch.tensor([0.5, 1000.0]), torch.zeros(2))
    tensor([1.2011e-01, 9.9931e+02])
    """
    check_pair(prediction, target)
    return _LogCosh.of(prediction - target)


class _LogCosh(CustomFunction):
    """ln cosh, without overflow, by hand, because no chain of slopes arrives at tanh.

    Compilers have a quick exponential and logarithm and a slow tanh: there it is a series near 0, beyond it the usual
    form.
    """

    @classmethod
    def plain(cls, error: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return ln cosh e = ln(1 + 2 sinh^2(e/2)), all of whose derivatives at 0 are right."""
        near = error.clamp(-15, 15)
        return (2 * (near / 2).sinh().square()).log1p() + (error.abs() - near.abs())

    @staticmethod
    def forward(error: Tensor) -> Tensor:
        size = error.abs()
        if not torch.compiler.is_compiling() or size.dtype == torch.float64:
            return size - size.tanh().log1p()
        size = size.to(torch.promote_types(size.dtype, torch.float32))
        far = size + (1 + (-2 * size).exp()).log() - math.log(2)
        x = size.square()  # the series to x^5 is as precise as float32 up to 0.4, from where on the other is
        near = x * (1 / 2 - x * (1 / 12 - x * (1 / 45 - x * (17 / 2520 - x * (31 / 14175)))))
        return torch.where(size < 0.4, near, far).to(error.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        (error,) = ctx.saved_tensors
        if not torch.compiler.is_compiling():
            return slope * error.tanh()
        decay = (-2 * error.abs()).exp()
        return slope * torch.copysign((1 - decay) / (1 + decay), error)


@about(
    name="Quantile",
    family="quantity",
    kind="values",
    link=None,
    paper="Koenker and Bassett, Econometrica 46, 1978",
    evidence="H",
    aliases=("pinball",),
)
def quantile(prediction: Tensor, target: Tensor, *, tau: float = 0.5) -> Tensor:
    """Absolute error weighted by sign, so that the minimiser is the tau-quantile instead of the median.

    L = max(tau u, (tau - 1) u), u = y - yh. Both of one shape, which is returned. tau = 1/2 is half the absolute error.
    Kink at 0.

    >>> quantile(torch.tensor([0.5, 3.0]), torch.zeros(2), tau=0.1)
    tensor([0.4500, 2.7000])
    """
    check_pair(prediction, target)
    check_range("tau", tau, 0, 1, above=True)
    under = target - prediction
    return torch.maximum(tau * under, (tau - 1) * under)


@about(
    name="Gaussian negative log-likelihood",
    family="quantity",
    kind="distributions",
    link=None,
    paper="maximum likelihood of a normal distribution; Nix and Weigend, ICNN 1994",
    evidence="V",
    aliases=("negative_log_likelihood_of_values",),
)
def gaussian_nll(prediction: Tensor, target: Tensor, *, least_variance: float = 1e-6) -> Tensor:
    """Negative log-likelihood of a normal distribution with predicted mean and variance.

    L = (ln v + (y - mu)^2 / v) / 2, without the constant ln(2 pi)/2; v = exp(log-variance), at least least_variance,
    in the squared unit of the values, below which the log-variance has no gradient (torch's clamp lets it pass).
    prediction: (N,2,...), mean and
    log-variance; target: (N,...); returns (N,...).

    >>> gaussian_nll(torch.tensor([[0.5, math.log(4)]]), torch.tensor([1.0]))
    tensor([0.7244])
    """
    if prediction.shape != (*target.shape[:1], 2, *target.shape[1:]):
        raise ValueError(
            f"prediction: shape {tuple(prediction.shape)}, allowed is (N, 2, ...) beside a target "
            f"{tuple(target.shape)}: mean and log-variance"
        )
    check_float("prediction", prediction)
    check_range("least_variance", least_variance, 0, above=True)
    mean, log_variance = prediction.unbind(1)
    log_variance = log_variance.clamp_min(math.log(least_variance))
    return (log_variance + (target - mean).square() * torch.exp(-log_variance)) / 2


# ---------------------------------------------------------------- of vectors


@about(
    name="Euclidean",
    family="quantity",
    kind="embeddings",
    link=None,
    paper="Caffe's EuclideanLoss; Simonyan and Zisserman, arXiv 1409.1556, for boxes",
    evidence="H",
)
def euclidean(prediction: Tensor, target: Tensor) -> Tensor:
    """Half the squared Euclidean distance of two vectors.

    L = |yh - y|^2 / 2, one value per vector. Both (N,...); returns (N,).

    >>> euclidean(torch.tensor([[0.5, 3.0]]), torch.zeros(1, 2))
    tensor([4.6250])
    """
    return reconstruction(prediction, target) / 2


@about(
    name="Reconstruction",
    family="quantity",
    kind="images",
    link=None,
    paper="squared norm per image, as autoencoders are trained",
    evidence="H",
)
def reconstruction(prediction: Tensor, target: Tensor) -> Tensor:
    """Squared Euclidean distance of two images.

    L = sum of (xh - x)^2 over the image: as many times the squared error as an image has numbers, so the two are not
    to be exchanged where terms are weighed. Both (N,...); returns (N,).

    >>> reconstruction(torch.tensor([[0.5, 3.0]]), torch.zeros(1, 2))
    tensor([9.2500])
    """
    check_pair(prediction, target)
    if prediction.ndim < 2:
        raise ValueError(
            f"prediction: shape {tuple(prediction.shape)}, allowed is (N, ...), a vector or image per item"
        )
    return (prediction - target).square().flatten(1).sum(1)


@about(
    name="Mahalanobis distance",
    family="quantity",
    kind="embeddings",
    link=None,
    paper="Mahalanobis 1936; Wojke et al., Deep SORT, arXiv 1703.07402, eq. 1",
    evidence="V",
)
def mahalanobis(
    prediction: Tensor,
    target: Tensor,
    *,
    covariance: Tensor | Sequence[Sequence[float]] | None = None,
    squared: bool = False,
) -> Tensor:
    """Mahalanobis distance of two vectors, for a given covariance.

    L = sqrt((x - mu)^T S^-1 (x - mu)), by a Cholesky factor, never by an inverse; squared as Deep SORT gates.
    Both (N,F); covariance: (F,F), positive definite, None = identity; returns (N,). The slope at distance 0 is 0.

    >>> mahalanobis(torch.tensor([[1.0, 1.0]]), torch.zeros(1, 2), covariance=[[2.0, 0.5], [0.5, 1.0]])
    tensor([1.0690])
    """
    check_pair(prediction, target)
    away = prediction - target
    if covariance is not None:
        # numbers stay on the CPU until they are a factor: looking for its failure would wait for the device
        held = torch.as_tensor(covariance, dtype=torch.float64)
        if held.shape != (away.shape[1],) * 2:
            raise ValueError(
                f"covariance: shape {tuple(held.shape)}, allowed is {(away.shape[1],) * 2}, that of the features"
            )
        away = away.to(torch.promote_types(away.dtype, torch.float32))
        factor = torch.linalg.cholesky(held)
        factor = (
            factor.to(away) if isinstance(covariance, Tensor) else constant(factor.tolist(), away.dtype, away.device)
        )
        away = torch.linalg.solve_triangular(factor, away.T, upper=False).T
    distance = away.square().sum(1)
    return distance if squared else safe_sqrt(distance)


# ---------------------------------------------------------------- of the whole batch


@about(
    name="Root mean squared error",
    family="quantity",
    kind="values",
    link=None,
    paper="Willmott and Matsuura 2005 compare it with the absolute error",
    evidence="H",
    whole_batch=True,
)
def root_mean_squared_error(prediction: Tensor, target: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Square root of the mean squared error of the batch; every item has that value.

    L = sqrt(mean(e^2)), once over the whole batch: the mean over batches is not that of the data set. Both of one
    shape, which is returned; mask: bool, items that count. The slope at a perfect fit is held at 0.

    >>> root_mean_squared_error(torch.tensor([3.0, 4.0]), torch.zeros(2))
    tensor([3.5355, 3.5355])
    """
    check_pair(prediction, target)
    return safe_sqrt(_mean((prediction - target).square(), mask)).expand_as(target)


@about(
    name="Root mean squared logarithmic error",
    family="quantity",
    kind="counts",
    link=None,
    paper="definition, as used for predictions that span orders of magnitude",
    evidence="H",
    whole_batch=True,
)
def root_mean_squared_logarithmic_error(prediction: Tensor, target: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Root mean squared difference of logarithms: underestimates cost more than overestimates.

    L = sqrt(mean((ln(1 + yh) - ln(1 + y))^2)), over the whole batch; every item carries that value. Predictions below 0
    count as 0, with slope 0 there. Both of one shape, which is returned, targets from 0 on; mask: bool, items that
    count.

    >>> root_mean_squared_logarithmic_error(torch.tensor([4.0]), torch.tensor([1.0]))
    tensor([0.9163])
    """
    check_pair(prediction, target)
    error = _LogRatio.of(prediction.clamp_min(0), target)
    return safe_sqrt(_mean(error.square(), mask)).expand_as(target)


class _LogRatio(CustomFunction):
    """ln((1 + a)/(1 + b)) by the difference of a and b, because that of two logarithms is rounded as they are.

    By hand, because |a - b| has no slope where they are the same.
    """

    @classmethod
    def plain(cls, a: Tensor, b: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return it from the side of the greater of the two, where the quotient is above 0."""
        return torch.where(a >= b, ((a - b) / (1 + b)).log1p(), -((b - a) / (1 + a)).log1p())

    @staticmethod
    def forward(a: Tensor, b: Tensor) -> Tensor:
        gap = a - b
        return torch.copysign((gap.abs() / (1 + torch.minimum(a, b))).log1p(), gap)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        a, b = ctx.saved_tensors
        first, second = ctx.needs_input_grad
        return slope / (1 + a) if first else None, -slope / (1 + b) if second else None


def _mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mean of what counts, 0 where nothing does."""
    if mask is None:
        return values.sum() / max(values.numel(), 1)
    ones = valid_mask(values, mask)
    return ((values * ones).sum() / ones.sum().clamp_min(1)).to(values.dtype)


@about(
    name="GHM-R",
    family="quantity",
    kind="values",
    link=None,
    paper="Li, Liu and Wang, AAAI 2019, arXiv 1811.05181, eq. 11-12, without moving average",
    evidence="V",
    whole_batch=True,
)
def ghm_r(
    prediction: Tensor, target: Tensor, *, mu: float = 0.02, bins: int = 10, mask: Tensor | None = None
) -> Tensor:
    """Pseudo-Huber error weighted by the inverse density of gradient norms: easy items and outliers count less.

    L_i = beta_i (sqrt(e^2 + mu^2) - mu), with beta_i = N / density of the gradient |e| / sqrt(e^2 + mu^2); see
    `ghm_weights`. mu is in the unit of the values, in the paper offsets over the size of an anchor. Both of one shape,
    which is returned; mask: bool, items that count.

    >>> ghm_r(torch.tensor([0.5, 0.0]), torch.zeros(2))
    tensor([0.4804, 0.0000])
    """
    check_pair(prediction, target)
    check_range("mu", mu, 0, above=True)
    error = prediction - target
    length = (error.square() + mu**2).sqrt()
    return ghm_weights(error.abs() / length, bins, mask) * (length - mu)
