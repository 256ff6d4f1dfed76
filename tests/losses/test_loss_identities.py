"""Identities between losses, and agreement with independent implementations, forward and gradient."""

import math

import pytest
import timm.loss
import torch
from loss_registry import CLASSES, batch, build, pair_of, value_and_gradients
from scipy.optimize import minimize_scalar
from sklearn.metrics import brier_score_loss, hinge_loss
from torch.nn import functional
from torchmetrics.functional.classification import multiclass_hinge_loss
from torchvision.ops import sigmoid_focal_loss

from losses.margin import hinge, hinge_ww
from losses.probability import binary_cross_entropy, binary_focal


def assert_equal_losses(first, second, prediction, target, **tolerance):
    value, gradients = value_and_gradients(first, prediction, target)
    other, others = value_and_gradients(second, prediction, target)
    torch.testing.assert_close(value, other, **tolerance)
    torch.testing.assert_close(gradients, others, **tolerance)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("focal", {"gamma": 0.0}),
        ("poly1", {"epsilon": 0.0}),
        ("label_smoothing", {"smoothing": 0.0}),
        ("symmetric_cross_entropy", {"alpha": 1.0, "beta": 0.0}),
        ("center_cross_entropy", {"terms": {"cross_entropy": 1.0, "center": 0.0}}),
    ],
)
def test_reduces_to_cross_entropy(name, settings):
    loss, entropy = build(name, **settings), build("cross_entropy")
    pairs = batch(loss)
    value, gradients = value_and_gradients(loss, pairs)
    expected, (gradient,) = value_and_gradients(entropy, {"class_logits": pairs["class_logits"]})
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradients[-1], gradient)
    assert not any(other.any() for other in gradients[:-1])


def test_pf_loss_on_a_balanced_batch_is_cross_entropy():
    loss = build("pf_loss_r1")
    prediction, _ = pair_of(loss, count=3 * CLASSES)
    for target in (torch.arange(CLASSES).repeat(3), torch.full((3 * CLASSES,), 2)):  # all classes alike; one class only
        assert_equal_losses(loss, build("cross_entropy"), prediction, target)


def test_pf_loss_is_the_mean_over_classes_present():
    loss, entropy = build("pf_loss_r1"), build("cross_entropy")
    prediction, _ = pair_of(loss, count=7)
    target = torch.tensor([0, 0, 0, 0, 1, 1, 3])
    means = [entropy(prediction[target == c], target[target == c]) for c in (0, 1, 3)]
    torch.testing.assert_close(loss(prediction, target), torch.stack(means).mean())


def test_pf_loss_of_two_classes_weighs_by_the_frequency_of_the_other():
    loss = build("pf_loss_r1")
    prediction, _ = pair_of(loss, count=5)
    target = torch.tensor([0, 0, 0, 1, 1])
    weight = torch.tensor([2, 2, 2, 3, 3], dtype=torch.float64)
    complement = build("cross_entropy", norm="weights")(prediction, target, weight=weight)
    torch.testing.assert_close(loss(prediction, target), complement)


def test_focal_with_alpha_is_a_multiple():
    loss = build("focal", gamma=0.0, alpha=0.5)
    prediction, target = pair_of(loss)
    torch.testing.assert_close(loss(prediction, target), build("cross_entropy")(prediction, target) / 2)


def test_negative_control_worse_is_cross_entropy_without_the_last_class():
    loss = build("negative_control_worse")
    prediction, target = pair_of(loss, count=40)
    seen = (target != CLASSES - 1).double()
    torch.testing.assert_close(loss(prediction, target), build("cross_entropy")(prediction, target, weight=seen))


def test_negative_control_blind_is_cross_entropy_without_every_second_class():
    loss = build("negative_control_blind")
    prediction, target = pair_of(loss, count=40)
    seen = (target % 2 == 0).double()
    torch.testing.assert_close(loss(prediction, target), build("cross_entropy")(prediction, target, weight=seen))


def test_negative_control_labels_is_binary_cross_entropy_without_every_second_label():
    logits, target = torch.randn(6, 5), torch.randint(2, (6, 5)).float()
    seen = torch.tensor([1.0, 0, 1, 0, 1]).expand(6, 5)
    found = build("negative_control_labels")(logits, target)
    torch.testing.assert_close(found, build("binary_cross_entropy")(logits, target, weight=seen))


@pytest.mark.parametrize("name", ["arcface", "cosface"])
def test_head_without_margin_is_normface(name):
    first, second = build(name, margin=0.0, scale=30.0), build("normface")
    prediction, target = pair_of(first)
    assert_equal_losses(first, second, prediction, target)
    torch.testing.assert_close(first(prediction, target), functional.cross_entropy(first.logits(prediction), target))


def test_arcface_turns_the_angle_and_then_falls_on():
    head = build("arcface").function
    angles = torch.linspace(0.01, math.pi - 0.01, 500, dtype=torch.float64)
    penalised = head.penalised(angles.cos())
    turned = angles + head.margin < math.pi
    torch.testing.assert_close(penalised[turned], (angles + head.margin).cos()[turned])
    assert (penalised < angles.cos()).all()
    assert (penalised.diff()[turned[1:]] < 0).all()
    assert (penalised.diff()[~turned[:-1]] < 0).all()


def test_mae_of_probabilities_is_bounded_by_two():
    loss = build("mae_prob")
    prediction, target = pair_of(loss)
    p = prediction.softmax(1).gather(1, target.unsqueeze(1))
    torch.testing.assert_close(loss(prediction, target), (2 - 2 * p).mean())


def test_crammer_singer_bounds_weston_watkins():
    loss = build("hinge_cs")
    prediction, target = pair_of(loss)
    strongest = loss.function(prediction, target)
    every = CLASSES * build("hinge_ww").function(prediction, target)
    assert (strongest <= every + 1e-12).all()  # they are equal where one class alone is too near
    assert (every <= (CLASSES - 1) * strongest).all()


def reference(name):
    """The same loss by somebody else: logits, target -> scalar."""
    one_hot = functional.one_hot
    return {
        "cross_entropy": lambda z, t: functional.nll_loss(functional.log_softmax(z, 1), t),
        "label_smoothing": timm.loss.LabelSmoothingCrossEntropy(0.1),
        "focal": lambda z, t: (
            (1 - z.softmax(1)[range(len(t)), t]) ** 2 * functional.cross_entropy(z, t, reduction="none")
        ).mean(),
        "focal_ovr": lambda z, t: sigmoid_focal_loss(z, one_hot(t, CLASSES).to(z), reduction="none").sum(1).mean(),
        "poly1": timm.loss.PolyCrossEntropy(1.0),
        "bce_ovr": timm.loss.BinaryCrossEntropy(0.0, sum_classes=True),
        "hinge_ww": functional.multi_margin_loss,
        "brier": lambda z, t: CLASSES * functional.mse_loss(z.softmax(1), one_hot(t, CLASSES).to(z)),
        "mae_prob": lambda z, t: CLASSES * functional.l1_loss(z.softmax(1), one_hot(t, CLASSES).to(z)),
    }[name]


@pytest.mark.parametrize(
    "name",
    ["cross_entropy", "label_smoothing", "focal", "focal_ovr", "poly1", "bce_ovr", "hinge_ww", "brier", "mae_prob"],
)
def test_agrees_with_an_independent_implementation(name):
    loss = build(name)
    prediction, target = pair_of(loss, count=40)
    value, (gradient,) = value_and_gradients(loss, prediction, target)
    expected = reference(name)(prediction, target)
    (expected_gradient,) = torch.autograd.grad(expected, prediction)
    # timm computes in float32
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-7, check_dtype=False)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-5, atol=1e-7)


def test_agrees_with_metrics():
    prediction, target = pair_of(build("cross_entropy"), count=40)
    logits = prediction.detach()
    crammer, brier = (build(name)(prediction, target).item() for name in ("hinge_cs", "brier"))
    classes = list(range(CLASSES))
    assert crammer == pytest.approx(hinge_loss(target.numpy(), logits.numpy(), labels=classes))
    assert brier == pytest.approx(
        brier_score_loss(target.numpy(), logits.softmax(1).numpy(), labels=classes, scale_by_half=False)
    )
    # inside [0, 1], because torchmetrics takes anything else for logits and normalises it
    inside = logits.sigmoid()
    theirs = multiclass_hinge_loss(inside, target, CLASSES, multiclass_mode="one-vs-all").sum()
    assert build("hinge_ovr")(inside, target).item() == pytest.approx(theirs.item())


def test_binary_focal_without_focus_is_binary_cross_entropy():
    logits = torch.linspace(-5, 5, 11, dtype=torch.float64)
    target = (torch.arange(11) % 2).double()
    torch.testing.assert_close(
        binary_focal(logits, target, gamma=0.0, alpha=None), binary_cross_entropy(logits, target)
    )
    torch.testing.assert_close(hinge(logits, target), hinge(-logits, 1 - target))


NGL_MINIMA = [  # classes, p at the minimum, loss there, at one-hot, at uniform, p at the minimum of softmax_sigmoid
    (2, 0.56594, 4.765228, 5.652148, 4.788645, 0.55811),
    (10, 0.39103, 9.318486, 9.598234, 9.426089, 0.36294),
    (100, 0.36150, 10.456162, 10.486103, 10.472921, 0.33768),
    (1000, 0.35869, 10.571877, 10.574890, 10.573624, 0.33545),
]


def ngl_at(p, classes, **settings):
    """NGL where the true class has probability p and the others share the rest."""
    logits = torch.full((1, classes), (1 - p) / (classes - 1), dtype=torch.float64)
    logits[0, 0] = p
    return build("ngl", classes, **settings)(logits.clamp_min(1e-300).log(), torch.tensor([0])).item()


@pytest.mark.parametrize(("classes", "best", "lowest", "one_hot", "uniform", "best_sigmoid"), NGL_MINIMA)
def test_ngl_is_lowest_well_below_certainty(classes, best, lowest, one_hot, uniform, best_sigmoid):
    found = minimize_scalar(ngl_at, bounds=(0.01, 0.99), args=(classes,), method="bounded", options={"xatol": 1e-9})
    assert found.x == pytest.approx(best, abs=1e-5)
    assert found.x > (1 - found.x) / (classes - 1)  # the true class is still the most likely
    assert [found.fun, ngl_at(1.0, classes), ngl_at(1 / classes, classes)] == pytest.approx(
        [lowest, one_hot, uniform], abs=1e-6
    )
    found = minimize_scalar(
        lambda p: ngl_at(p, classes, variant="softmax_sigmoid"), bounds=(0.01, 0.99), method="bounded"
    )
    assert found.x == pytest.approx(best_sigmoid, abs=2e-5)


@pytest.mark.parametrize("count", [1, 12])
def test_gradients_of_single_items_are_those_of_the_batch(count):
    logits = torch.randn(count, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    target = torch.arange(count) % 10
    leaf = logits.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(hinge_ww(leaf, target).sum(), leaf)
    single = torch.func.vmap(torch.func.grad(lambda z, t: hinge_ww(z[None], t[None])[0]))(logits, target)
    torch.testing.assert_close(single, gradient)
    (twice,) = torch.autograd.grad(hinge_ww(leaf, target).sum(), leaf, create_graph=True)
    torch.testing.assert_close(twice, gradient)
