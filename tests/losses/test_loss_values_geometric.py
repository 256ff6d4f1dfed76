"""Worked values of box losses, invariances, and where known libraries differ; float64 to 1e-6."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as draws
from loss_registry import build
from torchvision import ops

from losses import geometric as g
from losses.kinds import Draw


def double(*rows):
    return torch.tensor(rows, dtype=torch.float64)


A = double([0, 0, 4, 2]), double([1, 0, 5, 4])
B = double([0, 0, 1, 1]), double([2, 2, 3, 3])
C = double([10, 10, 30, 30]), double([12, 8, 34, 28])
ROTATED = double([0, 0, 4, 2, 0]), double([1, 0, 4, 2, math.pi / 4])
FLAT = double([2, 1, 4, 2, 0]), double([3, 2, 4, 4, 0])  # boxes A, as rotated ones

VALUES = [
    ("iou", {}, (2 / 3, 1, 0.37209302)),
    ("iou", {"form": "log"}, (1.09861229, -math.log(1e-7), 0.46536325)),
    ("giou", {}, (0.76666667, 1.77777778, 0.39482030)),
    ("diou", {}, (0.71544715, 1.44444444, 0.38435717)),
    ("ciou", {}, (0.71793133, 1.44444444, 0.38435943)),
    ("ciou", {"alpha_threshold": 0.5}, (0.71544715, 1.44444444, 0.38435943)),
    ("eiou", {}, (0.96544715, 1.44444444, 0.39130162)),
    ("focal_eiou", {}, (0.55740117, 0, 0.31006968)),
    ("siou", {}, (0.72854974, 1.35881961, 0.38489496)),
    ("mpdiou", {"width": 64, "height": 48}, (1 - 0.33239583, 1.0025, 1 - 0.62353198)),
    ("alpha_iou", {}, (0.96296296, 1, 0.75243689)),
    ("alpha_iou", {"kind": "diou"}, (None, 1.08779150, None)),
    ("alpha_iou", {"kind": "giou"}, (None, 1.47050754, None)),
    ("inner_iou", {}, (1 - 0.22727273, 1, 1 - 0.54034230)),
    ("inner_iou", {"ratio": 1.25}, (1 - 0.36363636, 1, 1 - 0.68756027)),
    ("inner_iou", {"kind": "ciou"}, (0.82399194, None, None)),
    ("inner_iou", {"kind": "ciou", "ratio": 1.25}, (0.68762830, None, None)),
    ("nwd", {}, (1 - 0.87343945, 1 - 0.80174004, 1 - 0.74653186)),
]
ON_ROTATED = [
    ("gwd", {}, ROTATED, 0.70540532),
    ("gwd", {"distance": "log1p"}, ROTATED, 0.51922569),
    ("gwd", {}, FLAT, 0.73205081),
    ("gwd", {"distance": "log1p"}, FLAT, 0.58094022),
    ("kld_box", {}, ROTATED, 1 - 1 / (1 + math.log(1.875))),
    ("kld_box", {}, ROTATED[::-1], 1 - 1 / (1 + math.log(1.6875))),
    ("piou", {}, (double([20, 20, 20, 10, 0]), double([22, 20, 20, 10, 0])), 0.20550705),
]
WORKED = {name for name, *_ in VALUES} | {name for name, *_ in ON_ROTATED}
ALIGNED = sorted({name for name, *_ in VALUES})


def value(name, prediction, target, **settings):
    return build(name, **settings)(prediction, target).item()


@pytest.mark.parametrize(("name", "settings", "expected"), VALUES)
def test_value_of_boxes(name, settings, expected):
    for pair, number in zip((A, B, C), expected, strict=True):
        if number is not None:
            assert value(name, *pair, **settings) == pytest.approx(number, abs=1e-6)


@pytest.mark.parametrize(("name", "settings", "pair", "expected"), ON_ROTATED)
def test_value_of_rotated_boxes(name, settings, pair, expected):
    assert value(name, *pair, **settings) == pytest.approx(expected, abs=1e-6)


def some_boxes(seed, count=20):
    draw = Draw(count, classes=1, seed=seed)
    return [draw.boxes().requires_grad_() for _ in range(2)]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (g.giou, ops.generalized_box_iou_loss),
        (g.diou, ops.distance_box_iou_loss),
        (g.ciou, ops.complete_box_iou_loss),
    ],
)
@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_torchvision(ours, theirs, seed):
    prediction, target = some_boxes(seed)
    other = prediction.detach().clone().requires_grad_()
    mine, peer = ours(prediction, target.detach()), theirs(other, target.detach(), eps=0)
    torch.testing.assert_close(mine, peer)
    mine.sum().backward()
    peer.sum().backward()
    torch.testing.assert_close(prediction.grad, other.grad)


@pytest.mark.parametrize("name", ALIGNED)
def test_identical_boxes_cost_nothing_and_have_a_gradient(name):
    box = double([3, 4, 9, 6])
    same = box.clone().requires_grad_()
    loss = build(name)(same, box)
    assert loss.item() == pytest.approx(0, abs=1e-12)
    loss.backward()
    assert same.grad.isfinite().all()


@pytest.mark.parametrize("name", ALIGNED)
def test_boxes_apart_identical_or_without_area_are_finite(name):
    cases = torch.tensor(
        [[0, 0, 1, 1, 2, 2, 3, 3], [0, 0, 0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0, 2, 2], [0, 0, 2, 2, 1, 1, 1, 1],
         [0, 0, 2, 2, 2, 0, 4, 2], [0, 0, 2, 2, 0, 0, 2, 2], [0, 0, 1e4, 1e4, 0, 0, 1e-4, 1e-4]]
    )  # fmt: skip
    prediction = cases[:, :4].clone().requires_grad_()
    loss = build(name, dtype=torch.float32)(prediction, cases[:, 4:])
    loss.backward()
    assert loss.isfinite()
    assert prediction.grad.isfinite().all()


@settings(max_examples=15, deadline=None)
@given(seed=draws.integers(0, 10_000), dx=draws.floats(-50, 50), dy=draws.floats(-50, 50))
@pytest.mark.parametrize("name", ALIGNED)
def test_translation_changes_nothing(name, seed, dx, dy):
    prediction, target = some_boxes(seed, 4)
    shift = double(dx, dy, dx, dy)
    assert value(name, prediction + shift, target + shift) == pytest.approx(value(name, prediction, target), abs=1e-9)


@settings(max_examples=15, deadline=None)
@given(seed=draws.integers(0, 10_000), scale=draws.floats(0.1, 10))
@pytest.mark.parametrize("name", [name for name in ALIGNED if name not in ("mpdiou", "nwd")])
def test_scale_changes_nothing(name, seed, scale):
    prediction, target = some_boxes(seed, 4)
    assert value(name, scale * prediction, scale * target) == pytest.approx(value(name, prediction, target), abs=1e-9)


def test_what_scales_with_the_image_or_the_objects():
    prediction, target = some_boxes(3)
    wide = value("mpdiou", 3 * prediction, 3 * target, width=1920.0, height=1920.0)
    assert wide == pytest.approx(value("mpdiou", prediction, target))
    assert value("nwd", 3 * prediction, 3 * target, size=38.4) == pytest.approx(value("nwd", prediction, target))


@pytest.mark.parametrize("kind", ["iou", "giou", "diou", "ciou"])
def test_alpha_one_is_the_plain_loss(kind):
    prediction, target = some_boxes(4)
    expected = {"iou": g.iou, "giou": g.giou, "diou": g.diou, "ciou": g.ciou}[kind](prediction, target)
    torch.testing.assert_close(g.alpha_iou(prediction, target, alpha=1.0, kind=kind), expected)


@pytest.mark.parametrize("kind", ["iou", "giou", "diou", "ciou", "eiou", "siou"])
def test_ratio_one_is_the_plain_loss(kind):
    prediction, target = some_boxes(5)
    expected = getattr(g, kind)(prediction, target)
    torch.testing.assert_close(g.inner_iou(prediction, target, ratio=1.0, kind=kind), expected)


def test_ciou_is_diou_where_aspect_ratios_agree():
    prediction, _ = some_boxes(6)
    target = 2 * prediction.detach() + 1
    torch.testing.assert_close(g.ciou(prediction, target), g.diou(prediction, target))


def test_siou_grows_with_distance():
    """One library's default turns the sign of the distance term, so that boxes apart cost less."""
    target = double([0, 0, 1, 1])
    costs = [g.siou(target + shift, target).item() for shift in (2.0, 4.0, 8.0)]
    assert costs == sorted(costs)
    assert costs[0] > 1


def test_efficient_is_not_extended_iou():
    assert g.eiou(*A).item() == pytest.approx(0.96544715, abs=1e-6)
    assert abs(g.eiou(*A).item() - 0.61666667) > 0.3


@pytest.mark.parametrize("name", ["gwd", "kld_box"])
def test_a_quarter_turn_with_sides_exchanged_is_the_same_box(name):
    box, other = ROTATED
    turned = double([0, 0, 2, 4, math.pi / 2])
    assert value(name, turned, other) == pytest.approx(value(name, box, other), abs=1e-9)
    assert value(name, box, turned) == pytest.approx(value(name, box, box), abs=1e-6)


def test_wasserstein_agrees_with_the_matrix_roots():
    torch.manual_seed(0)
    prediction, target = double([1, 2, 5, 3, 0.3]), double([2, 1, 4, 6, 1.1])

    def covariance(box):
        turn = torch.tensor(
            [[math.cos(box[4]), -math.sin(box[4])], [math.sin(box[4]), math.cos(box[4])]], dtype=torch.float64
        )
        return turn @ torch.diag(box[2:4].square() / 4) @ turn.T

    def matrix_root(matrix):
        values, vectors = torch.linalg.eigh(matrix)
        return vectors @ torch.diag(values.clamp_min(0).sqrt()) @ vectors.T

    first, second = covariance(prediction[0]), covariance(target[0])
    half = matrix_root(first)
    squared = 2 + first.trace() + second.trace() - 2 * matrix_root(half @ second @ half).trace()
    assert value("gwd", prediction, target) == pytest.approx(1 - 1 / (2 + squared.sqrt().item()), abs=1e-9)


def test_piou_moves_with_whole_pixels_and_nears_the_exact_overlap():
    first, second = double([15, 15, 12, 8, 0.4]), double([17, 16, 10, 9, 0.1])
    shift = double([5, 3, 0, 0, 0])
    assert value("piou", first + shift, second + shift) == pytest.approx(value("piou", first, second), abs=1e-6)


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"prediction: shape \(2, 5\)"):
        g.iou(torch.zeros(2, 5), torch.zeros(2, 5))
