"""The one module, the sum, losses with weights or memory, and what they say about bad input."""

import functools
import pickle

import pytest
import torch
from loss_registry import CLASSES, FEATURES, batch, build, masked, pair_of, value_and_gradients
from torch import nn

from losses.adapters import one_vs_rest
from losses.angular import ArcFace
from losses.compound import Sum
from losses.euclidean import Center
from losses.imbalance import pf_loss_r1
from losses.kinds import Pair
from losses.loss import Loss, about, about_of
from losses.margin import hinge
from losses.probability import binary_cross_entropy, cross_entropy, focal
from losses.quantity import squared_error

POINTS = torch.tensor([[0.0, 0], [2, 0], [1, 1], [4, 4], [6, 4], [5, 6]]), torch.tensor([0, 0, 0, 1, 1, 1])
CENTRES = torch.tensor([[1.0, 0], [5, 5]])


def center(num_classes=2, **settings):
    loss = Loss(Center(num_classes=num_classes, num_features=2, **settings))
    loss.function.centres[:2] = CENTRES
    return loss


def test_centres_follow_the_paper():
    loss = center()
    features, target = POINTS
    value = loss(features, target)
    assert value.item() == pytest.approx(4 / 6)  # with the centres as they were before the step
    torch.testing.assert_close(loss.function.centres, torch.tensor([[1, 0.125], [5, 4.875]]))


def test_centres_hold_still_in_evaluation():
    loss = center().eval()
    features, target = POINTS
    loss(features, target)
    torch.testing.assert_close(loss.function.centres, CENTRES)


def test_centre_of_an_absent_class_holds_still():
    loss = center(num_classes=3)
    loss.function.centres[2] = 7
    features, target = POINTS
    loss(features, target, target == 0)
    torch.testing.assert_close(loss.function.centres, torch.tensor([[1, 0.125], [5, 5], [7, 7]]))


def test_centres_are_memory_not_weights():
    loss = center()
    features, target = POINTS
    leaf = features.clone().requires_grad_()
    loss(leaf, target).backward()
    torch.testing.assert_close(leaf.grad, (features - CENTRES[target]) / len(target))
    assert not list(loss.parameters())
    assert list(loss.state_dict()) == ["function.centres"]
    assert not loss.function.centres.requires_grad


@pytest.mark.parametrize("name", ["arcface", "cosface", "normface"])
def test_weights_of_a_head_receive_gradient(name):
    loss = build(name)
    prediction, target = pair_of(loss)
    _, (_, gradient) = value_and_gradients(loss, prediction, target)
    assert gradient.shape == (CLASSES, FEATURES)
    assert gradient.any(1).all()
    assert loss.is_head


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("name", ["arcface", "cosface", "normface"])
def test_gradient_is_finite_where_features_lie_on_a_class_weight(name, sign):
    loss = build(name, dtype=torch.float32)
    features = (sign * loss.function.weight).detach().requires_grad_()
    value, gradients = value_and_gradients(loss, features, torch.arange(CLASSES))
    assert all(torch.isfinite(number).all() for number in [value, *gradients])


def test_a_head_can_be_trained():
    loss = build("arcface", dtype=torch.float32)
    features, target = torch.eye(CLASSES, FEATURES), torch.arange(CLASSES)
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.1)
    for _ in range(30):
        optimizer.zero_grad()
        loss(features, target).backward()
        optimizer.step()
    assert (loss.logits(features).argmax(1) == target).all()


def test_sum_is_the_weighted_sum_of_its_terms():
    loss = build("center_cross_entropy").eval()
    pairs = batch(loss)
    pairs = masked(pairs, pairs["features"].target != 0)
    terms = [weight * build(name).eval()(pairs) for name, weight in [("cross_entropy", 1), ("center", 0.003)]]
    torch.testing.assert_close(loss(pairs), sum(terms))
    assert not loss.is_head


def test_sum_with_a_head_is_a_head():
    terms = {"center": build("center"), "arcface": build("arcface")}
    loss = Sum(terms, {"center": 0.1, "arcface": 1.0})
    features, _ = pair_of(loss)
    torch.testing.assert_close(loss.logits(features), terms["arcface"].logits(features))
    assert loss.is_head
    assert set(loss.state_dict()) == {"losses.center.function.centres", "losses.arcface.function.weight"}


def test_what_is_known_about_sums_and_adapters():
    total = build("center_cross_entropy").about
    assert total.name == "Cross-entropy + 0.003 Center"
    assert (total.family, total.kinds, total.link) == ("euclidean", ("class_logits", "features"), "softmax")
    assert Sum({"a": build("cross_entropy"), "b": build("hinge_cs")}, {"a": 1, "b": 1}).about.link is None
    reconstructed = Sum({"a": build("cross_entropy"), "b": build("pf_loss_r1")}, {"a": 1, "b": 1}).about
    assert reconstructed.evidence == "R"
    assert "reconstruction" in reconstructed.name
    assert build("bce_ovr").about.name == "Binary cross-entropy, one-vs-rest"
    assert [build(name).about.link for name in ("bce_ovr", "hinge_ovr", "brier")] == ["sigmoid", None, "softmax"]


def test_about_looks_through_partials():
    partial = functools.partial(functools.partial(focal, gamma=1.0), alpha=0.5)
    assert about_of(partial) is about_of(focal)
    assert about_of(functools.partial(one_vs_rest, base=functools.partial(hinge, margin=2.0))).family == "margin"
    assert about_of(functools.partial(ArcFace, scale=30.0)).name == "ArcFace"


def test_settings_reach_the_function():
    logits, target = torch.zeros(1, 2), torch.tensor([0])
    partial = functools.partial(one_vs_rest, base=functools.partial(hinge, margin=3.0), over_classes="mean")
    assert Loss(partial)(logits, target).item() == 3


def test_a_function_with_a_mask_is_handed_it():
    logits, target = torch.zeros(4, 2), torch.tensor([0, 0, 0, 1])
    mask = torch.tensor([True, True, False, True])
    expected = pf_loss_r1(logits[mask], target[mask]).mean()
    torch.testing.assert_close(Loss(pf_loss_r1)(logits, target, mask), expected)


def test_binary_logits_have_no_class_dimension():
    logits = torch.tensor([0.0, torch.nan, 2.0])
    value = Loss(binary_cross_entropy)(logits, torch.ones(3), torch.tensor([True, False, True]))
    torch.testing.assert_close(value, torch.tensor((0.69314718 + 0.12692801) / 2))


def test_reduction():
    logits, target = torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64)
    weight = torch.tensor([0.1, 0.2, 0.0, 0.1])
    unit = torch.tensor(2.0).log()
    for norm, expected in (("count", 0.1 * unit), ("weights", unit)):
        torch.testing.assert_close(Loss(cross_entropy, norm=norm)(logits, target, weight=weight), expected)


def test_pickles():
    loss = build("arcface")
    prediction, target = pair_of(loss)
    torch.testing.assert_close(pickle.loads(pickle.dumps(loss))(prediction, target), loss(prediction, target))


LOGITS, TARGET = torch.zeros(2, 3), torch.tensor([0, 1])
COMPLAINTS = {
    r"logits: shape \(2,\)": lambda: cross_entropy(torch.zeros(2), TARGET),
    r"logits: shape \(2, 1\).*2 classes or more": lambda: cross_entropy(torch.zeros(2, 1), TARGET),
    r"logits: dtype torch.int64": lambda: cross_entropy(LOGITS.long(), TARGET),
    r"target: shape \(2, 1\), allowed is \(2,\)": lambda: cross_entropy(LOGITS, TARGET.unsqueeze(1)),
    r"target: dtype torch.int32, allowed is torch.int64": lambda: cross_entropy(LOGITS, TARGET.int()),
    r"target: shape \(2,\), allowed is that of the prediction": lambda: squared_error(LOGITS, TARGET.float()),
    r"target: dtype torch.int64, allowed is a floating": lambda: binary_cross_entropy(LOGITS[0, :2], TARGET),
    r"gamma=-1: allowed is 0 <= gamma": lambda: focal(LOGITS, TARGET, gamma=-1),
    r"alpha=0: allowed is 0 < alpha": lambda: focal(LOGITS, TARGET, alpha=0),
    r"gamma=nan": lambda: focal(LOGITS, TARGET, gamma=float("nan")),
    r"smoothing=1.0": lambda: build("label_smoothing", smoothing=1.0)(LOGITS, TARGET),
    r"epsilon=-2": lambda: build("poly1", epsilon=-2)(LOGITS, TARGET),
    r"log_zero=0.0": lambda: build("symmetric_cross_entropy", log_zero=0.0)(LOGITS, TARGET),
    r"margin=0: allowed is 0 < margin": lambda: build("hinge_cs", margin=0)(LOGITS, TARGET),
    r"variant='x': allowed is 'softmax' or": lambda: build("ngl", variant="x")(LOGITS, TARGET),
    r"over_classes='max'": lambda: build("brier", over_classes="max")(LOGITS, TARGET),
    r"scale=0": lambda: build("cosface", scale=0),
    r"margin=2.0": lambda: build("arcface", margin=2.0),
    r"alpha=-0.5": lambda: build("center", alpha=-0.5),
    r"features: shape \(2, 3\), allowed is \(N, 6\)": lambda: build("arcface")(LOGITS, TARGET),
    r"norm='sum'": lambda: Loss(cross_entropy, norm="sum"),
    r"mask: shape \(3,\)": lambda: Loss(cross_entropy)(LOGITS, TARGET, torch.ones(3, dtype=torch.bool)),
    r"mask: dtype torch.float32": lambda: Loss(cross_entropy)(LOGITS, TARGET, torch.ones(2)),
    r"weight: shape \(2, 1\)": lambda: Loss(cross_entropy)(LOGITS, TARGET, weight=torch.ones(2, 1)),
    r"pairs: features, but the loss 'Cross-entropy' compares class_logits": lambda: Loss(cross_entropy)(
        {"features": Pair(LOGITS, TARGET)}
    ),
    r"target: None, allowed is a tensor beside a prediction": lambda: Loss(cross_entropy)(LOGITS),
    r"function=ArcFace: build it first": lambda: Loss(functools.partial(ArcFace, scale=30.0)),
    r"function=relu: decorate": lambda: Loss(nn.functional.relu),
    r"function=one_vs_rest: an adapter needs its base": lambda: Loss(one_vs_rest),
    r"at most one may be a head": lambda: Sum({"a": build("arcface"), "b": build("cosface")}, {"a": 1, "b": 1}),
    r"one weight for each": lambda: Sum({"a": build("focal")}, {"b": 1}),
    r"contains the word reconstruction": lambda: about(
        name="X", family="probability", kind="class_logits", link="softmax", paper="", evidence="R"
    ),
    r"kind='logits': allowed is class_logits": lambda: about(
        name="X", family="probability", kind="logits", link="softmax", paper="", evidence="H"
    ),
}


@pytest.mark.parametrize("message", COMPLAINTS)
def test_bad_input_gets_one_clear_sentence(message):
    with pytest.raises(ValueError, match=message) as caught:
        COMPLAINTS[message]()
    assert "\n" not in str(caught.value)
