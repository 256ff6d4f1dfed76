"""Losses of boxes: symmetries, bounds, what their gradients leave out, and boxes that no model should predict."""

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as draws
from loss_registry import NAMES, build
from torchvision import ops

from losses import geometric as g
from losses.kinds import Draw

ALIGNED = [name for name in NAMES if build(name).about.kinds == ("boxes",)]
ROTATED = [name for name in NAMES if build(name).about.kinds == ("rotated_boxes",)]
KINDS = [(name, {}) for name in ALIGNED] + [
    *[("alpha_iou", {"kind": kind, "alpha": alpha}) for kind in ("giou", "diou", "ciou") for alpha in (0.5, 3.0)],
    *[("inner_iou", {"kind": kind}) for kind in ("giou", "diou", "ciou", "eiou", "siou")],
    ("iou", {"form": "log"}),
    ("focal_eiou", {"detach": False}),
]


def double(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def some(make, seed, count=40):
    draw = Draw(count, classes=1, seed=seed)
    return [make(draw) for _ in range(2)]


def values(name, prediction, target, **options):
    return build(name, **options).function(prediction, target)


def slope(function, prediction, target):
    leaf = prediction.clone().requires_grad_()
    return torch.autograd.grad(function(leaf, target).sum(), leaf)[0]


def mirrored(data):
    return torch.stack([-data[:, 2], data[:, 1], -data[:, 0], data[:, 3]], 1)


def transposed(data):
    return data[:, [1, 0, 3, 2]]


@pytest.mark.parametrize("change", [mirrored, transposed])
@pytest.mark.parametrize(("name", "options"), KINDS)
def test_directions_are_alike(name, options, change):
    prediction, target = some(Draw.boxes, 1)
    expected = values(name, prediction, target, **options)
    torch.testing.assert_close(values(name, change(prediction), change(target), **options), expected)


@pytest.mark.parametrize(("name", "options"), [*KINDS, ("gwd", {}), ("piou", {}), ("gwd", {"distance": "log1p"})])
def test_prediction_and_target_may_be_exchanged(name, options):
    prediction, target = some(Draw.rotated_boxes if name in ROTATED else Draw.boxes, 2)
    expected = values(name, prediction, target, **options)
    torch.testing.assert_close(values(name, target, prediction, **options), expected)


def test_divergence_may_not_be_exchanged():
    prediction, target = some(Draw.rotated_boxes, 2)
    assert (values("kld_box", prediction, target) - values("kld_box", target, prediction)).abs().max() > 0.1


def test_bounds():
    prediction, target = (data[:, None].expand(-1, 40, -1).reshape(-1, 4) for data in some(Draw.boxes, 3))
    prediction = 3 * prediction.view(40, 40, 4).transpose(0, 1).reshape(-1, 4) - 8
    iou, giou, diou, ciou, eiou = (values(name, prediction, target) for name in ("iou", "giou", "diou", "ciou", "eiou"))
    assert (iou == 1).any()
    for loss, top in ((iou, 1), (giou, 2), (diou, 2), (values("siou", prediction, target), 3)):
        assert loss.min() >= 0
        assert loss.max() <= top
    for less, more in ((iou, giou), (iou, diou), (diou, ciou), (diou, eiou)):
        assert (less <= more + 1e-12).all()


def test_giou_is_iou_where_one_box_holds_the_other():
    outer, _ = some(Draw.boxes, 4)
    centre, half = (outer[:, :2] + outer[:, 2:]) / 2, (outer[:, 2:] - outer[:, :2]) / 4
    inner = torch.cat([centre - half, centre + half], 1)
    torch.testing.assert_close(g.giou(inner, outer), g.iou(inner, outer))
    torch.testing.assert_close(g.diou(inner, outer), g.iou(inner, outer))  # the centres are one


def test_iou_agrees_with_torchvision():
    prediction, target = some(Draw.boxes, 5)
    torch.testing.assert_close(g.iou(prediction, target), 1 - ops.box_iou(prediction, target).diagonal())


def test_only_penalties_move_boxes_that_are_apart():
    prediction, target = double([0, 0, 1, 1]), double([5, 7, 8, 9])
    for name in ("iou", "focal_eiou", "alpha_iou", "inner_iou"):
        assert not slope(build(name).function, prediction, target).any()
    for name in ("giou", "diou", "ciou", "eiou", "siou", "mpdiou", "nwd"):
        step = prediction - 0.1 * slope(build(name).function, prediction, target)
        assert values(name, step, target) < values(name, prediction, target)
    # those that compare sides may move the centre away first, to widen the box
    for name in ("diou", "ciou", "mpdiou", "nwd"):
        gradient = slope(build(name).function, prediction, target)
        assert ((gradient[:, :2] + gradient[:, 2:]) < 0).all()


def aspect(prediction, target):
    """v and IoU, from torchvision and the definition."""
    w, h, wg, hg = (
        *(prediction[:, 2:] - prediction[:, :2]).unbind(1),
        *(target[:, 2:] - target[:, :2]).unbind(1),
    )
    return 4 / math.pi**2 * ((wg / hg).atan() - (w / h).atan()) ** 2, ops.box_iou(prediction, target).diagonal()


@pytest.mark.parametrize("threshold", [None, 0.5])
def test_weight_of_ciou_has_no_gradient(threshold):
    prediction, target = some(Draw.boxes, 6)
    v, iou = aspect(prediction, target)
    weight = v / (1 - iou + v)
    if threshold is not None:
        assert (iou >= threshold).any()
        weight = torch.where(iou < threshold, 0, weight)

    def held(leaf, target):
        return g.diou(leaf, target) + weight * aspect(leaf, target)[0]

    def ours(leaf, target):
        return g.ciou(leaf, target, alpha_threshold=threshold)

    torch.testing.assert_close(ours(prediction, target), held(prediction, target))
    torch.testing.assert_close(slope(ours, prediction, target), slope(held, prediction, target))


def test_the_two_ciou_agree_from_half_overlap_on():
    prediction, target = some(Draw.boxes, 7, count=200)
    first, second = g.ciou(prediction, target), g.ciou(prediction, target, alpha_threshold=0.5)
    _, iou = aspect(prediction, target)
    assert (first[iou >= 0.5] == second[iou >= 0.5]).all()
    assert (first[iou < 0.5] > second[iou < 0.5]).all()
    torch.testing.assert_close(second[iou < 0.5], g.diou(prediction, target)[iou < 0.5])


def test_weight_of_focal_eiou():
    prediction, target = some(Draw.boxes, 8)
    iou = ops.box_iou(prediction, target).diagonal()
    torch.testing.assert_close(g.focal_eiou(prediction, target, gamma=0.0), g.eiou(prediction, target))
    torch.testing.assert_close(
        slope(g.focal_eiou, prediction, target),
        iou.sqrt().unsqueeze(1) * slope(g.eiou, prediction, target),
    )

    def attached(leaf, target):
        return g.focal_eiou(leaf, target, detach=False)

    overlapping = iou > 0.01
    leaf = prediction[overlapping].clone().requires_grad_()
    assert torch.autograd.gradcheck(attached, (leaf, target[overlapping]))
    assert not torch.allclose(slope(attached, prediction, target), slope(g.focal_eiou, prediction, target))


def test_siou_with_the_sign_turned_is_another_loss():
    """As one library has it by default: the distance term becomes 2 - exp(+) - exp(+), a reward."""
    prediction, target = double([0, 0, 1, 1]), double([2, 2, 3, 3])
    gain = 2 - 2 * math.exp((2 - 1) * (2 / 3) ** 2)
    assert 1 + gain / 2 == pytest.approx(0.44037643, abs=1e-6)
    assert values("siou", prediction, target).item() == pytest.approx(1.35881961, abs=1e-6)


SIZES = (0.0, 1e-44, 1e-39, 1e-30, 1e-23, 1e-21, 1e-19, 1e-12, 1e-4, 1.0, 1.0 + 2**-20, 3.0, 1e4)
PLACES = draws.sampled_from((*SIZES, -1.0, -1e-39, -1e4)) | draws.floats(-1e4, 1e4, width=32)


@settings(max_examples=60, deadline=None)
@given(prediction=draws.lists(PLACES, min_size=4, max_size=4), target=draws.lists(PLACES, min_size=4, max_size=4))
@example(prediction=[0, 0, 1e-21, 1e-21], target=[0, 0, 1e-21, 2e-21])
@example(prediction=[0, 0, 5, 1e-39], target=[0, 0, 5, 1e-39])
@example(prediction=[3, 3, 1, 1], target=[0, 0, 0, 0])
@example(prediction=[0, 108, 0, 0], target=[0, 0, 0, 1.7e-9])
@pytest.mark.parametrize(("name", "options"), KINDS)
def test_any_box_gives_finite_numbers(name, options, prediction, target):
    """Targets are boxes, perhaps without area; predictions are any four numbers."""
    leaf = torch.tensor([prediction], dtype=torch.float32, requires_grad=True)
    x1, y1, x2, y2 = target
    truth = torch.tensor([[min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)]], dtype=torch.float32)
    value = build(name, dtype=torch.float32, **options)(leaf, truth)
    value.backward()
    assert value.isfinite()
    assert leaf.grad.isfinite().all()
    assert value >= -1e-6


@pytest.mark.parametrize("name", [name for name in ALIGNED if name not in ("focal_eiou", "nwd")])
@pytest.mark.parametrize("inverted", [(3, 3, 1, 1), (3, 0, 1, 2), (30, 30, -30, -30)])
def test_a_box_inside_out_is_never_worth_it(name, inverted):
    assert values(name, double(inverted), double([0, 0, 2, 2])).item() >= 1


def moved(data, angle, dx, dy):
    x, y, w, h, turn = data.unbind(1)
    cos, sin = math.cos(angle), math.sin(angle)
    return torch.stack([cos * x - sin * y + dx, sin * x + cos * y + dy, w, h, turn + angle], 1)


@settings(max_examples=25, deadline=None)
@given(angle=draws.floats(-7, 7), dx=draws.floats(-50, 50), dy=draws.floats(-50, 50))
@pytest.mark.parametrize("name", ["gwd", "kld_box"])
def test_rigid_motion_changes_nothing(name, angle, dx, dy):
    prediction, target = some(Draw.rotated_boxes, 9)
    expected = values(name, prediction, target)
    torch.testing.assert_close(values(name, moved(prediction, angle, dx, dy), moved(target, angle, dx, dy)), expected)


@pytest.mark.parametrize("name", ROTATED)
def test_half_a_turn_is_the_same_box(name):
    prediction, target = some(Draw.rotated_boxes, 10)
    half = prediction + double([0, 0, 0, 0, math.pi])
    torch.testing.assert_close(values(name, half, target), values(name, prediction, target))
    quarter = prediction[:, [0, 1, 3, 2, 4]] + double([0, 0, 0, 0, math.pi / 2])
    torch.testing.assert_close(values(name, quarter, target), values(name, prediction, target))


def test_what_scale_does_to_rotated_boxes():
    prediction, target = some(Draw.rotated_boxes, 11)
    scale = double([3, 3, 3, 3, 1])
    torch.testing.assert_close(g.kld_box(scale * prediction, scale * target), g.kld_box(prediction, target))
    far, near = (1 / (1 - g.gwd(*data)) - 2 for data in ((scale * prediction, scale * target), (prediction, target)))
    torch.testing.assert_close(far, 3 * near)


def covariance(data):
    turn = torch.stack([data[:, 4].cos(), -data[:, 4].sin(), data[:, 4].sin(), data[:, 4].cos()], 1).view(-1, 2, 2)
    return turn @ torch.diag_embed(data[:, 2:4].square() / 4) @ turn.mT


def by_traces(prediction, target):
    """The textbook's closed form, from matrices."""
    first, second = covariance(prediction), covariance(target)
    trace = torch.vmap(torch.trace)
    coupled = (trace(first @ second) + 2 * (first.det() * second.det()).sqrt()).sqrt()
    shift = (prediction[:, :2] - target[:, :2]).square().sum(1)
    return 1 - 1 / (2 + (shift + trace(first) + trace(second) - 2 * coupled).sqrt())


def divergence_by_traces(prediction, target):
    first, second = covariance(prediction), covariance(target)
    away = (prediction - target)[:, :2].unsqueeze(2)
    shift = (away.mT @ second.inverse() @ away).flatten()
    trace = torch.vmap(torch.trace)(second.inverse() @ first)
    return 1 - 1 / (1 + ((shift + trace + (second.det() / first.det()).log()) / 2 - 1).log1p())


@pytest.mark.parametrize("seed", range(5))
def test_divergence_agrees_with_the_traces(seed):
    prediction, target = some(Draw.rotated_boxes, seed)
    torch.testing.assert_close(g.kld_box(prediction, target), divergence_by_traces(prediction, target))
    torch.testing.assert_close(slope(g.kld_box, prediction, target), slope(divergence_by_traces, prediction, target))


@pytest.mark.parametrize("sides", [(1e-3, 1e4), (1e4, 1e-3)])
def test_divergence_of_a_line_and_a_field_is_finite_in_float32(sides):
    line, field = (torch.tensor([[0.0, 0.0, side, side / 2, 0.3]]) for side in sides)
    expected = g.kld_box(line.double(), field.double())
    torch.testing.assert_close(g.kld_box(line, field).double(), expected, rtol=1e-5, atol=0)
    assert slope(g.kld_box, line, field).isfinite().all()


@pytest.mark.parametrize("seed", range(5))
def test_wasserstein_agrees_with_the_traces(seed):
    prediction, target = some(Draw.rotated_boxes, seed)
    torch.testing.assert_close(g.gwd(prediction, target), by_traces(prediction, target))
    torch.testing.assert_close(slope(g.gwd, prediction, target), slope(by_traces, prediction, target))


@pytest.mark.parametrize("crossed", [False, True])
@pytest.mark.parametrize("step", [1e-2, 1e-3])
def test_wasserstein_sees_a_good_fit_in_float32(step, crossed):
    """The traces cancel: boxes of 100 pixels that are a hundredth of a pixel apart looked a tenth apart."""
    target = double([0.5, 0.25, 100, 60, 0.5])
    prediction = double([0.5, 0.25, 60, 100, 0.5 + math.pi / 2]) if crossed else target.clone()
    prediction[0, 0] += step
    expected, gradient = g.gwd(prediction, target), slope(g.gwd, prediction, target)
    value, single = g.gwd(prediction.float(), target.float()), slope(g.gwd, prediction.float(), target.float())
    torch.testing.assert_close(value.double(), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(single[:, :2].double(), gradient[:, :2], atol=1e-3, rtol=0)


def test_divergence_agrees_with_torch():
    prediction, target = some(Draw.rotated_boxes, 12)
    first, second = (
        torch.distributions.MultivariateNormal(data[:, :2], covariance(data)) for data in (prediction, target)
    )
    divergence = torch.distributions.kl_divergence(first, second)
    torch.testing.assert_close(g.kld_box(prediction, target), 1 - 1 / (1 + divergence.log1p()))


def test_soft_pixels_count_nearly_what_corners_enclose():
    prediction, target = some(Draw.boxes, 13)
    prediction, target = prediction.round() + 10, target.round() + 10

    def rotated(data):
        return torch.cat([(data[:, :2] + data[:, 2:]) / 2, data[:, 2:] - data[:, :2], torch.zeros(len(data), 1)], 1)

    soft = values("piou", rotated(prediction), rotated(target)).neg().exp()
    exact = ops.box_iou(prediction, target).diagonal()
    assert (soft - exact.clamp_min(0.1)).abs().max() < 0.05


def test_what_lies_outside_the_grid_does_not_count():
    """The grid is the image: a box beyond it costs the most and has no gradient, so give width and height."""
    prediction, target = double([200, 50, 20, 10, 0.1]), double([202, 50, 20, 10, 0.0])
    assert values("piou", prediction, target).item() == pytest.approx(-math.log(0.1))
    assert not slope(build("piou").function, prediction, target).any()
    inside = build("piou", width=256, height=128).function
    assert inside(prediction, target) < 0.4
    assert slope(inside, prediction, target).any()
