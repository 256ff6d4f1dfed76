"""Losses of values: what they are for, where they bend, and agreement with independent implementations."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as draws
from loss_registry import NAMES, build, pair_of, value_and_gradients
from scipy.spatial.distance import mahalanobis as scipy_mahalanobis
from sklearn.metrics import mean_pinball_loss
from torch.nn import functional
from torchmetrics.functional import mean_squared_error, mean_squared_log_error

from losses import quantity
from losses.shared import ghm_weights

ELEMENTWISE = [name for name in NAMES if set(build(name).about.kinds) <= {"values", "counts", "binary_logits"}]
PROBABILITIES = ["brier", "mae_prob", "huber_prob", "smooth_l1_prob", "balanced_l1_prob", "log_cosh_prob"]


def double(values):
    return torch.tensor(values, dtype=torch.float64)


def pair(seed, *shape):
    draw = torch.Generator().manual_seed(seed)
    return [2 * torch.randn(*shape, generator=draw, dtype=torch.float64) for _ in range(2)]


def slope(function, *data):
    leaves = [one.clone().requires_grad_() for one in data]
    return torch.autograd.grad(function(*leaves).sum(), leaves[0])[0]


@pytest.mark.parametrize("shape", [(6, 3), (3, 3), (3, 2, 3)])
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_masking_rows_equals_leaving_them_out(name, shape):
    """A mask may be as short as the batch; where sides are equal it must not be read along the other one."""
    loss = build(name)
    prediction, target = pair_of(loss, count=math.prod(shape))
    rows, target = prediction.detach().view(shape), target.view(shape)
    mask = torch.arange(shape[0]) % 3 != 1
    kept = rows[mask].requires_grad_()
    value, (gradient,) = value_and_gradients(loss, kept, target[mask])
    spoilt = torch.where(mask.view(-1, *[1] * (len(shape) - 1)), rows, torch.nan)
    masked, (all_gradients,) = value_and_gradients(loss, spoilt.requires_grad_(), target, mask)
    torch.testing.assert_close(masked, value)
    torch.testing.assert_close(all_gradients[mask], gradient)
    assert not all_gradients[~mask].any()


@pytest.mark.parametrize(
    ("name", "peer"),
    [
        ("mse", functional.mse_loss),
        ("mae", functional.l1_loss),
        ("rmse", lambda yh, y: functional.mse_loss(yh, y).sqrt()),
        ("rmse", lambda yh, y: mean_squared_error(yh, y, squared=False)),
        ("rmsle", lambda yh, y: mean_squared_log_error(yh, y).sqrt()),
        ("quantile", lambda yh, y: functional.l1_loss(yh, y) / 2),
        ("log_cosh", lambda yh, y: (torch.logaddexp(yh - y, y - yh) - math.log(2)).mean()),
        ("mean_bias_error", lambda yh, y: y.mean() - yh.mean()),
    ],
)
@pytest.mark.parametrize("shape", [(7,), (4, 3), (2, 3, 5)])
def test_agrees_with_an_independent_implementation(name, peer, shape):
    # above -1, where all of them are defined
    prediction, target = (data.exp() for data in pair(1, *shape))
    prediction.requires_grad_()
    value, (gradient,) = value_and_gradients(build(name), prediction, target)
    expected = peer(prediction, target)
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-7, check_dtype=False)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, prediction)[0], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("tau", [0.1, 0.5, 0.8])
def test_quantile_agrees_with_scikit_learn_and_finds_the_quantile(tau):
    prediction, target = pair(2, 101)
    expected = mean_pinball_loss(target.numpy(), prediction.numpy(), alpha=tau)
    assert quantity.quantile(prediction, target, tau=tau).mean().item() == pytest.approx(expected)
    guesses = target.sort().values
    costs = torch.stack([quantity.quantile(guess.expand_as(target), target, tau=tau).mean() for guess in guesses])
    assert guesses[costs.argmin()].item() == pytest.approx(np.quantile(target.numpy(), tau, method="inverted_cdf"))


def test_quantile_of_probabilities_is_the_absolute_error_whatever_tau():
    """That is why there is no quantile_prob: what the true class lacks is what the others have too much."""
    logits, _ = pair(3, 20, 5)
    p, label = logits.softmax(1), functional.one_hot(torch.arange(20) % 5, 5).double()
    for tau in (0.1, 0.5, 0.9):
        torch.testing.assert_close(
            quantity.quantile(p, label, tau=tau).sum(1), quantity.absolute_error(p, label).sum(1) / 2
        )


def test_huber_and_smooth_l1_of_probabilities_are_half_of_brier_by_default():
    prediction, target = pair_of(build("brier"))
    brier = build("brier")(prediction, target)
    values = {name: build(name)(prediction, target) for name in ("huber_prob", "smooth_l1_prob")}
    torch.testing.assert_close(values, dict.fromkeys(values, brier / 2))
    node = {"_target_": "losses.quantity.huber", "_partial_": True, "delta": 0.25}
    assert build("huber_prob", base=node)(prediction, target) < 0.8 * values["huber_prob"]


@pytest.mark.parametrize("name", PROBABILITIES)
def test_losses_of_probabilities_fall_as_the_true_class_gains(name):
    loss = build(name)
    logits = torch.zeros(1, 5, dtype=torch.float64)
    costs = []
    for score in (-5.0, -1.0, 0.0, 1.0, 5.0, 50.0):
        logits[0, 2] = score
        costs.append(loss(logits, torch.tensor([2])).item())
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] == pytest.approx(0, abs=1e-12)


@settings(max_examples=200, deadline=None)
@given(draws.floats(-1e6, 1e6))
def test_log_cosh_lies_between_its_two_limits(error):
    value = quantity.log_cosh(double([error]), double([0])).item()
    assert value == quantity.log_cosh(double([-error]), double([0])).item()
    assert max(0, abs(error) - math.log(2)) <= value + 1e-12
    assert value <= min(error**2 / 2, abs(error)) + 1e-12 * abs(error) + 1e-300
    assert slope(quantity.log_cosh, double([error]), double([0])).item() == pytest.approx(math.tanh(error), abs=1e-12)


@pytest.mark.parametrize("error", [1e-4, 1e-3, 1e-2, 0.1])
def test_log_cosh_keeps_its_digits_in_float32(error):
    value = quantity.log_cosh(torch.tensor([error, -error]), torch.zeros(2))
    assert value.tolist() == pytest.approx([math.log(math.cosh(error))] * 2, rel=1e-3)


def test_slope_of_balanced_l1():
    error = double([-3, -1, -0.5, 0, 0.25, 1, 2])
    b = math.expm1(1.5 / 0.5)
    inside = 0.5 * (b * error.abs().clamp_max(1) + 1).log()
    torch.testing.assert_close(slope(quantity.balanced_l1, error, torch.zeros_like(error)), error.sign() * inside)


@pytest.mark.parametrize("name", ["huber", "smooth_l1", "balanced_l1", "log_cosh", "quantile", "mae"])
def test_robust_losses_have_a_bounded_slope(name):
    error = torch.tensor([1e10, -1e10, 1e30], requires_grad=True)
    build(name, dtype=torch.float32).function(error, torch.zeros(3)).sum().backward()
    assert error.grad.abs().max() <= 1.5 + 1e-6


def test_smooth_l1_without_smoothing_is_the_absolute_error():
    prediction, target = pair(4, 30)
    torch.testing.assert_close(
        quantity.smooth_l1(prediction, target, beta=0.0), quantity.absolute_error(prediction, target)
    )


def test_mean_bias_error_has_a_sign_and_is_no_objective():
    assert build("mean_bias_error").about.untrainable
    assert quantity.mean_bias_error(double([1, 3]), double([2, 2])).tolist() == [1, -1]


def test_root_of_the_mean_is_not_the_mean_of_roots():
    prediction, target = pair(5, 40)
    whole = build("rmse")(prediction, target).item()
    halves = [build("rmse")(prediction[part], target[part]).item() for part in (slice(20), slice(20, 40))]
    assert whole**2 == pytest.approx(sum(half**2 for half in halves) / 2)
    assert sum(halves) / 2 < whole


def test_rmsle_minds_predicting_too_little_more_and_holds_negative_predictions_at_zero():
    loss = build("rmsle")
    low, high = (loss(double([10 + off]), double([10])).item() for off in (-5, 5))
    assert low > high
    below = double([-3]).requires_grad_()
    value, (gradient,) = value_and_gradients(loss, below, double([4]))
    assert value.item() == pytest.approx(math.log(5))
    assert gradient.item() == 0


def test_reconstruction_is_twice_euclidean_and_as_many_squared_errors_as_numbers():
    prediction, target = pair(6, 4, 3, 5, 5)
    summed = quantity.reconstruction(prediction, target)
    torch.testing.assert_close(summed, 2 * quantity.euclidean(prediction, target))
    torch.testing.assert_close(summed.mean(), 75 * functional.mse_loss(prediction, target))


def some_covariance(seed, size):
    root = pair(seed, size, size)[0]
    return root @ root.T + 0.1 * torch.eye(size, dtype=torch.float64)


@pytest.mark.parametrize("seed", range(5))
def test_mahalanobis_agrees_with_scipy_in_any_coordinates(seed):
    (prediction, target), covariance = pair(seed, 8, 4), some_covariance(seed + 10, 4)
    ours = quantity.mahalanobis(prediction, target, covariance=covariance)
    inverse = torch.linalg.inv(covariance).numpy()
    peer = [scipy_mahalanobis(x, mu, inverse) for x, mu in zip(prediction.numpy(), target.numpy(), strict=True)]
    assert ours.tolist() == pytest.approx(peer)
    change = pair(seed + 20, 4, 4)[0]
    other = quantity.mahalanobis(prediction @ change.T, target @ change.T, covariance=change @ covariance @ change.T)
    torch.testing.assert_close(other, ours)


def test_mahalanobis_without_covariance_is_the_distance():
    prediction, target = pair(7, 8, 4)
    distance = functional.pairwise_distance(prediction, target, eps=0)
    torch.testing.assert_close(quantity.mahalanobis(prediction, target), distance)
    torch.testing.assert_close(quantity.mahalanobis(prediction, target, squared=True), distance.square())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_mahalanobis_takes_its_covariance_from_a_yaml(dtype):
    loss = build("mahalanobis", covariance=[[2.0, 0.5], [0.5, 1.0]])
    prediction = torch.tensor([[1.0, 2.0], [0.0, 0.0]], dtype=dtype, requires_grad=True)
    value = loss(prediction, torch.zeros(2, 2, dtype=dtype))
    assert value.item() == pytest.approx(1.0)
    value.backward()
    assert prediction.grad.isfinite().all()
    with pytest.raises(torch.linalg.LinAlgError):
        quantity.mahalanobis(prediction, prediction, covariance=[[1.0, 2.0], [2.0, 1.0]])
    with pytest.raises(ValueError, match=r"covariance: shape \(1, 1\)"):
        quantity.mahalanobis(prediction, prediction, covariance=[[1.0]])


def test_gaussian_likelihood_is_lowest_where_the_variance_is_the_squared_error():
    error = double([0.1, 0.5, 3.0])
    prediction = torch.stack([torch.zeros(3, dtype=torch.float64), error.square().log()], 1)
    gradient = slope(quantity.gaussian_nll, prediction, error)
    torch.testing.assert_close(gradient[:, 1], torch.zeros(3, dtype=torch.float64))


def test_gaussian_likelihood_leaves_no_huge_variance_behind_but_holds_small_ones():
    prediction = torch.tensor([[0.0, 1e4], [0.0, 50.0], [0.0, -1e4]])
    gradient = slope(quantity.gaussian_nll, prediction, torch.full((3,), 5.0))
    assert gradient[:, 1].tolist() == pytest.approx([0.5, 0.5, 0])
    peer = functional.gaussian_nll_loss(torch.zeros(1), torch.full((1,), 5.0), torch.zeros(1), eps=1e-6)
    assert quantity.gaussian_nll(prediction, torch.full((3,), 5.0))[2].item() == pytest.approx(peer.item(), rel=1e-5)


@pytest.mark.parametrize("bins", [1, 10, 30])
def test_harmony_agrees_with_counting_bin_by_bin(bins):
    gradient = torch.rand(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64) ** 3
    mask = torch.arange(200) % 4 != 0
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
    expected = torch.zeros(200, dtype=torch.float64)
    inside = [(gradient >= low) & (gradient < high) for low, high in pairwise(edges)]
    filled = sum(bool((one & mask).any()) for one in inside)
    for one in inside:
        expected[one] = mask.sum() / (filled * (one & mask).sum().clamp_min(1))
    torch.testing.assert_close(ghm_weights(gradient, bins, mask)[mask], expected[mask])


def test_ghm_r_quiets_the_crowd():
    """A thousand perfect items and one outlier: the outlier counts as much as all others together."""
    error = torch.zeros(1001, dtype=torch.float64)
    error[0] = 5
    values = quantity.ghm_r(error, torch.zeros_like(error))
    assert values[0].item() == pytest.approx(1001 / 2 * (math.hypot(5, 0.02) - 0.02))
