"""Worked values, in float64 to 1e-6; those of adapted losses and of sums follow by hand from the probabilities."""

import importlib
from pathlib import Path

import pytest
import torch
from loss_registry import NAMES, build, config, target_of

from losses.kinds import Pair
from losses.margin import hinge
from losses.probability import binary_cross_entropy, binary_focal
from losses.quantity import absolute_error, squared_error


def double(values):
    return torch.tensor(values, dtype=torch.float64)


LOGITS = double([[2, 1, 0.1], [0.5, 2.5, -1]]), torch.tensor([0, 2])
FEATURES = double([[1, 2, 2], [2, -1, 0.5]]), torch.tensor([1, 0])
CLASS_WEIGHTS = double([[1, 0, 1], [0.5, 1, 2], [-1, 1, 0]])
POINTS = double([[0, 0], [2, 0], [1, 1], [4, 4], [6, 4], [5, 6]]), torch.tensor([0, 0, 0, 1, 1, 1])
CENTRES = double([[1, 0], [5, 5]])
IMBALANCED = double([[2, 0], [1, 0], [0, 0], [1, 0]]), torch.tensor([0, 0, 0, 1])
BINARY = double([0, 2, -1]), double([1, 1, 0])
MARGINS = double([-2, -0.5, 0, 0.5, 1, 2]), double([1, 1, 1, 1, 1, 1])

ON_LOGITS = [
    ("cross_entropy", {}, 2.03510411),
    ("label_smoothing", {}, 2.00010411),
    ("label_smoothing", {"smoothing": 0.15}, 1.98260411),  # 0.1 over the other two classes only
    ("focal", {}, 1.75741246),
    ("poly1", {}, 2.69264921),
    ("poly1", {"epsilon": 2.0}, 3.35019432),
    ("symmetric_cross_entropy", {}, 2.83369082),
    ("ngl", {}, 7.22484359),
    ("ngl", {"over_classes": "sum"}, 3 * 7.22484359),
    ("bce_ovr", {}, 3.52540738),
    ("bce_ovr", {"over_classes": "mean"}, 3.52540738 / 3),
    ("focal_ovr", {}, 1.39554951),
    ("hinge_ovr", {}, 5.05),
    ("hinge_ww", {}, 7 / 6),
    ("hinge_cs", {}, 2.25),
    ("brier", {}, 0.94161497),
    ("mae_prob", {}, 1.31509021),
    ("negative_control_worse", {}, 0.41703002 / 2),
]
ON_IMBALANCED = [("cross_entropy", {}, 0.61164964), ("pf_loss_r1", {}, 0.84552032)]
ON_FEATURES = [
    ("normface", {}, 0.00039029),
    ("cosface", {}, 3.56826765),
    ("cosface", {"scale": 30.0}, 1.69025586),
    ("arcface", {}, 1.11917853),
    ("arcface", {"margin": 0.49916417}, 1.10156863),  # 28.6 degrees
]
ON_POINTS = [("center", {}, 0.66666667), ("center_cross_entropy", {}, 0.69314718 + 0.003 * 0.66666667)]


WORKED = {name for name, *_ in ON_LOGITS + ON_IMBALANCED + ON_FEATURES + ON_POINTS}


def test_every_loss_has_a_worked_value():
    """In the example of its docstring, or here and in test_loss_values_*.py, which name what they cover in WORKED."""
    others = [importlib.import_module(path.stem) for path in Path(__file__).parent.glob("test_loss_values_*.py")]
    worked = WORKED.union(*(module.WORKED for module in others))
    assert worked <= set(NAMES)
    for name in set(NAMES) - worked:
        composed = config(name)
        assert "terms" in composed or ">>>" in target_of(composed.get("base", composed))[0].__doc__, name


@pytest.mark.parametrize(("name", "settings", "expected"), ON_LOGITS)
def test_value_on_logits(name, settings, expected):
    logits, target = LOGITS
    assert build(name, 3, **settings)(logits, target).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("name", "settings", "expected"), ON_IMBALANCED)
def test_value_on_an_imbalanced_batch(name, settings, expected):
    logits, target = IMBALANCED
    assert build(name, 2, **settings)(logits, target).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("name", "settings", "expected"), ON_FEATURES)
def test_value_of_a_head(name, settings, expected):
    features, target = FEATURES
    loss = build(name, 3, 3, **settings)
    loss.function.weight.data = CLASS_WEIGHTS
    assert loss(features, target).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("name", "settings", "expected"), ON_POINTS)
def test_value_with_centres(name, settings, expected):
    features, target = POINTS
    loss = build(name, 2, 2, **settings)
    center = loss.losses["center"].function if "cross" in name else loss.function
    center.centres.copy_(CENTRES)
    pairs = {"features": Pair(features, target), "class_logits": Pair(torch.zeros_like(features), target)}
    assert loss(pairs).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("function", "settings", "data", "expected"),
    [
        (binary_cross_entropy, {}, BINARY, [0.69314718, 0.12692801, 0.31326169]),
        (binary_focal, {}, BINARY, [0.04332170, 0.00045089, 0.01699354]),
        (hinge, {}, MARGINS, [3, 1.5, 1, 0.5, 0, 0]),
        (squared_error, {}, (double([1.5, 1.5, 3, 7]), double([1, 2, 3, 4])), [0.25, 0.25, 0, 9]),
        (absolute_error, {}, (double([1.5, 1.5, 3, 7]), double([1, 2, 3, 4])), [0.5, 0.5, 0, 3]),
    ],
)
def test_values_of_elementwise_functions(function, settings, data, expected):
    torch.testing.assert_close(function(*data, **settings), double(expected), atol=1e-8, rtol=1e-7)


def test_binary_focal_without_alpha():
    assert binary_focal(*BINARY, alpha=None).mean().item() == pytest.approx(0.06591614, abs=1e-6)


def test_ngl_gradient():
    logits, target = LOGITS
    leaf = logits.clone().requires_grad_()
    build("ngl", 3)(leaf, target).backward()
    expected = double([[0.1121, -0.0652, -0.0469], [-0.0772, 0.1426, -0.0654]])
    torch.testing.assert_close(leaf.grad, expected, atol=5e-5, rtol=0)
