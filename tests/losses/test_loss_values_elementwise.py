"""Worked values of losses of values, of one score, and against imbalance, and where libraries differ."""

import math

import numpy as np
import pytest
import torch
from loss_registry import build
from scipy.special import huber as scipy_huber
from sklearn.linear_model import _sgd_fast
from torch.nn import functional

from losses import imbalance, margin, probability, quantity


def double(values):
    return torch.tensor(values, dtype=torch.float64)


REGRESSION = double([1.5, 1.5, 3, 7]), double([1, 2, 3, 4])
MARGINS = double([-2, -0.5, 0, 0.5, 1, 2]), double([1, 1, 1, 1, 1, 1])
BINARY = double([0, 2, -1]), double([1, 1, 0])
LOGITS = double([[2, 1, 0.1], [0.5, 2.5, -1]]), torch.tensor([0, 2])
IMBALANCED = double([[2, 0], [1, 0], [0, 0], [1, 0]]), torch.tensor([0, 0, 0, 1])
HARMONY = double([-4, -3, -3.5, -5, 0, 2, -1]), double([0, 0, 0, 0, 1, 1, 1])
EDGES = double([0.7, 0.2, 0.4, 0.1]).logit(), double([1, 0, 0, 0])
VECTOR = double([[1.5, 1.5, 3, 7]]), double([[1, 2, 3, 4]])
P = double([[0.65900114, 0.24243297, 0.09856589], [0.11611453, 0.85797681, 0.02590865]])


def squares(errors):
    return (errors**2).sum(1).mean().item()


OFF = P - double([[1, 0, 0], [0, 0, 1]])
VALUES = [
    ("mean_bias_error", {}, REGRESSION, -0.75),
    ("mae", {}, REGRESSION, 1.0),
    ("mse", {}, REGRESSION, 2.375),
    ("huber", {}, REGRESSION, 0.6875),
    ("huber", {"delta": 2.0}, REGRESSION, 1.0625),
    ("huber", {"delta": 0.5}, REGRESSION, 0.40625),
    ("smooth_l1", {}, REGRESSION, 0.6875),
    ("smooth_l1", {"beta": 0.5}, REGRESSION, 0.8125),
    ("smooth_l1", {"beta": 1 / 9}, REGRESSION, 0.95833333),
    ("balanced_l1", {}, REGRESSION, 1.21993214),
    ("log_cosh", {}, REGRESSION, 0.63738938),
    ("quantile", {"tau": 0.1}, REGRESSION, 0.8),
    ("quantile", {}, REGRESSION, 0.5),
    ("quantile", {"tau": 0.9}, REGRESSION, 0.2),
    ("rmse", {}, REGRESSION, 1.54110350),
    ("rmsle", {}, REGRESSION, 0.27565268),
    ("euclidean", {}, VECTOR, 4.75),
    ("reconstruction", {}, VECTOR, 9.5),
    ("mahalanobis", {"covariance": double([[2, 0.5], [0.5, 1]])}, (double([[1, 2]]), double([[0, 0]])), 2.0),
    ("gaussian_nll", {}, (double([[0.5, math.log(4)]]), double([1])), 0.72439718),
    ("ghm_r", {}, (double([0, 0.01, 0.02, 0.5, -1]), double([0, 0, 0, 0, 0])), 0.18523622),
    ("huber_prob", {}, LOGITS, squares(OFF) / 2),
    ("smooth_l1_prob", {}, LOGITS, squares(OFF) / 2),
    ("log_cosh_prob", {}, LOGITS, OFF.cosh().log().sum(1).mean().item()),
    ("balanced_l1_prob", {}, LOGITS, quantity.balanced_l1(OFF, 0 * OFF).sum(1).mean().item()),
    ("zero_one", {}, MARGINS, 3 / 6),
    ("hinge", {}, MARGINS, 6 / 6),
    ("squared_hinge", {}, MARGINS, 12.5 / 6),
    ("smooth_hinge", {}, MARGINS, 4.125 / 6),
    ("quadratic_smooth_hinge", {"gamma": 0.5}, MARGINS, 5 / 6),
    ("quadratic_smooth_hinge", {"gamma": 1.0}, MARGINS, 4.125 / 6),
    ("quadratic_smooth_hinge", {}, MARGINS, 2.875 / 6),
    ("modified_huber", {}, MARGINS, 11.5 / 6),
    ("exponential", {}, MARGINS, (7.38905610 + 1.64872127 + 1 + 0.60653066 + 0.36787944 + 0.13533528) / 6),
    ("exponential_multiclass", {}, (double([[2, 0]]), torch.tensor([0])), math.exp(-1)),
    ("squared_hinge_ovr", {}, LOGITS, (0 + 4 + 1.21 + 2.25 + 12.25 + 4) / 2),
    ("quadratic_smooth_hinge_ovr", {}, LOGITS, (0 + 1 + 1.21 / 4 + 2.25 / 4 + 2.5 + 1) / 2),
    ("smooth_hinge_ovr", {}, LOGITS, (0 + 1.5 + 0.6 + 1 + 3 + 1.5) / 2),
    ("modified_huber_ovr", {}, LOGITS, (0 + 4 + 1.21 + 2.25 + 10 + 4) / 2),
    ("exponential_ovr", {}, LOGITS, sum(map(math.exp, (-2, 1, 0.1, 0.5, 2.5, 1))) / 2),
    ("binary_cross_entropy", {}, BINARY, 0.37777896),
    ("binary_focal", {}, BINARY, 0.02025538),
    ("poly1_focal", {}, LOGITS, 2.23937338),
    ("kl_divergence", {}, (double([[0.1, 0.6, 0.3]]).log(), double([[0.2, 0.5, 0.3]])), 0.04746866),
    ("kl_divergence", {}, (double([[0.2, 0.5, 0.3]]).log(), double([[0.1, 0.6, 0.3]])), 0.04007822),
    ("gini", {}, (double([[0, 0]]), torch.tensor([0])), 0.5),
    ("weighted_cross_entropy", {"weights": [1, 2, 3]}, LOGITS, 2.84414116),
    ("weighted_cross_entropy", {"weights": [1, 2, 3], "over": "count"}, LOGITS, 5.68828232),
    ("class_balanced", {"counts": [500, 50, 5], "beta": 0.999}, LOGITS, 4.92195210),
    ("class_balanced", {"counts": [7, 7, 7]}, LOGITS, 2.03510411),
    ("balanced_cross_entropy", {}, EDGES, 0.11933466),
    ("balanced_cross_entropy_ovr", {}, (double([[0, 0], [0, 0]]), torch.tensor([0, 1])), math.log(2)),
    ("ghm_c", {"bins": 10}, HARMONY, 0.53978441),
    ("ghm_c_ovr", {}, (double([[0, 0]]), torch.tensor([1])), 2 * math.log(2)),
    ("pf_loss_r2", {}, IMBALANCED, 0.84552032),
    ("pf_loss_r3", {}, (double([[0, 0], [0, 0], [0, 0]]), torch.tensor([0, 0, 1])), math.log(2) * (1 + 0.5**0.5) / 3),
]
WORKED = {name for name, *_ in VALUES}


@pytest.mark.parametrize(("name", "settings", "data", "expected"), VALUES)
def test_value(name, settings, data, expected):
    prediction, target = data
    loss = build(name, prediction.shape[-1], **settings)
    assert loss(prediction, target).item() == pytest.approx(expected, abs=1e-6)


def pair(seed, *shape):
    draw = torch.Generator().manual_seed(seed)
    return [2 * torch.randn(*shape, generator=draw, dtype=torch.float64) for _ in range(2)]


@pytest.mark.parametrize("delta", [0.3, 1.0, 2.5])
def test_smooth_l1_is_not_huber(delta):
    prediction, target = pair(1, 50)
    huber = quantity.huber(prediction, target, delta=delta)
    torch.testing.assert_close(huber, delta * quantity.smooth_l1(prediction, target, beta=delta))
    torch.testing.assert_close(huber, torch.from_numpy(scipy_huber(delta, (prediction - target).numpy())))


def test_balanced_l1_is_continuous_with_its_slope():
    for function in (quantity.balanced_l1,):
        error = double([1 - 1e-9, 1 + 1e-9]).requires_grad_()
        value = function(error, torch.zeros(2, dtype=torch.float64))
        value.sum().backward()
        assert value.tolist() == pytest.approx([1.07859354, 1.07859354], abs=1e-6)
        assert error.grad.tolist() == pytest.approx([1.5, 1.5], abs=1e-6)


def test_log_cosh_does_not_overflow():
    error = torch.tensor([1e3, -1e3, 1e30, 0.0], requires_grad=True)
    value = quantity.log_cosh(error, torch.zeros(4))
    assert value.tolist()[:2] == pytest.approx([999.30685282] * 2, rel=1e-6)
    value.sum().backward()
    assert error.grad.tolist() == pytest.approx([1, -1, 1, 0], abs=1e-6)
    assert torch.isinf(torch.tensor(1e3).cosh().log())  # the usual form


def test_quantile_half_is_half_the_absolute_error():
    prediction, target = pair(2, 50)
    torch.testing.assert_close(quantity.quantile(prediction, target), quantity.absolute_error(prediction, target) / 2)


def test_root_has_a_slope_at_a_perfect_fit():
    same = double([1, 2]).requires_grad_()
    build("rmse")(same, same.detach()).backward()
    assert not same.grad.any()


def test_gaussian_likelihood_agrees_with_torch():
    prediction, target = pair(3, 20, 2)[0], pair(4, 20)[0]
    expected = functional.gaussian_nll_loss(prediction[:, 0], target, prediction[:, 1].exp(), reduction="none")
    torch.testing.assert_close(quantity.gaussian_nll(prediction, target), expected)


def test_identities_of_smoothed_hinges():
    scores, labels = pair(5, 50)[0], torch.arange(50).remainder(2).double()
    torch.testing.assert_close(
        margin.modified_huber(scores, labels), 4 * margin.quadratic_smooth_hinge(scores, labels, gamma=2.0)
    )
    torch.testing.assert_close(
        margin.smooth_hinge(scores, labels), margin.quadratic_smooth_hinge(scores, labels, gamma=1.0)
    )
    torch.testing.assert_close(
        margin.quadratic_smooth_hinge(scores, labels, gamma=1e-9), margin.hinge(scores, labels), atol=1e-8, rtol=0
    )


@pytest.mark.parametrize(
    ("ours", "peer"),
    [
        (margin.hinge, _sgd_fast.Hinge(1.0)),
        (margin.squared_hinge, _sgd_fast.SquaredHinge(1.0)),
        (margin.modified_huber, _sgd_fast.ModifiedHuber()),
    ],
)
def test_hinges_agree_with_scikit_learn(ours, peer):
    draw = np.random.default_rng(0)
    for score, label in zip(draw.normal(size=20) * 2, draw.integers(0, 2, 20), strict=True):
        leaf = double([score]).requires_grad_()
        value = ours(leaf, double([label]))
        assert value.item() == pytest.approx(peer.py_loss(score, 2.0 * label - 1))
        value.sum().backward()
        assert leaf.grad.item() == pytest.approx(peer.py_dloss(score, 2.0 * label - 1))


def test_one_hot_divergence_is_cross_entropy():
    logits, target = LOGITS
    labels = functional.one_hot(target, 3).double()
    torch.testing.assert_close(probability.kl_divergence(logits, labels), probability.cross_entropy(logits, target))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_divergence_agrees_with_torch(temperature):
    logits, teacher = pair(6, 10, 5)
    q = (teacher / temperature).softmax(1)
    ours = probability.kl_divergence(logits, q, temperature=temperature).mean()
    peer = functional.kl_div((logits / temperature).log_softmax(1), q, reduction="batchmean") * temperature**2
    torch.testing.assert_close(ours, peer)


def test_weights_over_weights_are_what_torch_does():
    logits, target = pair(7, 30, 4)[0], torch.arange(30).remainder(4)
    weights = double([1, 2, 3, 0.5])
    loss = build("weighted_cross_entropy", 4, weights=weights.tolist())
    torch.testing.assert_close(loss(logits, target), functional.cross_entropy(logits, target, weights))


def test_what_reduces_to_cross_entropy():
    logits, target = LOGITS
    entropy = probability.cross_entropy(logits, target)
    ones = imbalance.weighted_cross_entropy(logits, target, weights=[1, 1, 1])
    torch.testing.assert_close(ones, entropy)
    torch.testing.assert_close(imbalance.class_balanced(logits, target, counts=[9, 5, 2], beta=0.0), entropy)
    torch.testing.assert_close(imbalance.pf_loss_r1(logits, target), entropy)  # one item of each class
    alone = torch.zeros(2, dtype=torch.int64)
    for loss in (imbalance.pf_loss_r1, imbalance.pf_loss_r2):
        torch.testing.assert_close(loss(logits, alone), probability.cross_entropy(logits, alone))


def test_effective_numbers():
    logits = torch.zeros(3, 3, dtype=torch.float64)
    target = torch.arange(3)
    values = imbalance.class_balanced(logits, target, counts=[500, 50, 5], beta=0.99) / math.log(3)
    assert values.tolist() == pytest.approx([0.12612988, 0.31722297, 2.55664715], abs=1e-6)


def test_reconstructions_r1_and_r2_are_one_for_two_classes():
    logits, target = IMBALANCED
    torch.testing.assert_close(imbalance.pf_loss_r1(logits, target), imbalance.pf_loss_r2(logits, target))


def test_harmony_averages_to_one():
    gradient = torch.rand(200, generator=torch.Generator().manual_seed(0))
    assert quantity.ghm_weights(gradient, 10).mean().item() == pytest.approx(1, abs=1e-5)


def test_a_wrong_number_of_weights_is_one_sentence():
    with pytest.raises(ValueError, match=r"weights: .* one for each of the 3 classes"):
        imbalance.weighted_cross_entropy(*LOGITS, weights=[1, 2])


@pytest.mark.parametrize("form", ["softmax", "sigmoid", "focal"])
def test_a_class_without_training_items_takes_nothing_from_the_others(form):
    logits, target = double([[1.0, -0.5, 0.3], [0.2, 0.1, -1.0]]), torch.tensor([0, 1])
    none, one = (imbalance.class_balanced(logits, target, counts=[50, 10, n], form=form, beta=0.99) for n in (0, 1))
    torch.testing.assert_close(none, one)
    assert (none > 0.01).all()
