"""Worked values of heads, their limits, and that only angles count; float64 to 1e-6."""

import pytest
import torch
from loss_registry import FEATURES, build, pair_of

from losses.angular import AdaFace, ArcFace, CosFace, CurricularFace, LSoftmax, MVSoftmax, SubcenterArcFace


def double(values):
    return torch.tensor(values, dtype=torch.float64)


FIXED = double([[1, 2, 2], [2, -1, 0.5]]), torch.tensor([1, 0])
WEIGHT = double([[1, 0, 1], [0.5, 1, 2], [-1, 1, 0]])
CENTRES = double([[[1, 0, 1], [0, 0, 1]], [[0.5, 1, 2], [1, 1, 1]], [[-1, 1, 0], [0, -1, 0.5]]])
VALUES = [
    ("l_softmax", {"margin": 1}, 0.11922925),
    ("l_softmax", {"margin": 2, "start": 0.0}, 0.50491971),
    ("l_softmax", {"margin": 3, "start": 0.0}, 1.53482683),
    ("l_softmax", {"start": 0.0}, 2.85352820),
    ("a_softmax", {"start": 0.0, "least": 0.0}, 2.24870047),
    ("a_softmax", {"start": 0.0}, 0.52861283),
    ("subcenter_arcface", {"centres": 2}, 3.95809696),
    ("mv_softmax", {}, 7.24698432),
    ("mv_softmax", {"adaptive": False}, 4.98426580),
    ("mv_softmax", {"kind": "arc", "margin": 0.5}, 5.99563766),
    ("mv_softmax", {"kind": "arc", "margin": 0.5, "adaptive": False}, 3.73317979),
    ("curricularface", {}, 0.00001531),
    ("adaface", {"smoothing": 1.0}, 7.33237335),
    ("sface", {}, 22.62587375),
    ("sface", {"a": 0.87, "b": 1.2}, 22.62758999),
]
WORKED = {name for name, *_ in VALUES}
HEADS = sorted({*WORKED, "arcface", "cosface", "normface"})


@pytest.mark.parametrize(("name", "settings", "expected"), VALUES)
def test_value(name, settings, expected):
    features, target = FIXED
    loss = build(name, 3, 3, **settings)
    loss.function.weight.data = CENTRES if name == "subcenter_arcface" else WEIGHT
    assert loss(features, target).item() == pytest.approx(expected, abs=1e-6)


def test_state_after_one_step():
    features, target = FIXED
    curricular = build("curricularface", 3, 3)
    curricular.function.weight.data = WEIGHT
    curricular(features, target)
    assert curricular.function.seen.item() == pytest.approx(0.00858564, abs=1e-7)
    ada = build("adaface", 3, 3, smoothing=1.0)
    ada(features, target)
    assert ada.function.norms.tolist() == pytest.approx([2.64564392, 0.50113517], abs=1e-6)
    held = ada.eval().function.norms.clone()
    ada(2 * features, target)
    assert torch.equal(ada.function.norms, held)


@pytest.mark.parametrize(
    ("name", "first", "schedule"),
    [
        ("a_softmax", 1000 / 1.12, lambda step: max(5.0, 1000 / (1 + 0.12 * step))),
        ("l_softmax", 1000 / 1.000025**35, lambda step: 1000 / (1 + 2.5e-5 * step) ** 35),
    ],
)
def test_annealing_falls_with_every_training_step_as_in_the_authors_code(name, first, schedule):
    features, target = FIXED
    loss = build(name, 3, 3)
    head = loss.function
    loss.eval()
    loss(features, target)
    assert head.steps == 0  # evaluation is no step
    loss.train()
    found = []
    for _ in range(4):
        loss(features, target)
        found.append(float(head.annealing))
    assert found[0] == pytest.approx(first)
    assert found == pytest.approx([schedule(step) for step in (1, 2, 3, 4)])
    other = build(name, 3, 3)
    other.load_state_dict(loss.state_dict())  # a checkpoint goes on where it was
    assert float(other.function.annealing) == found[-1]


def test_annealing_ends_at_its_least():
    head = build("a_softmax", 3, 3).function
    for steps, expected in ((1658, 1000 / (1 + 0.12 * 1658)), (1659, 5.0), (10**6, 5.0)):
        head.steps.fill_(steps)
        assert float(head.annealing) == pytest.approx(expected)
    assert 1000 / (1 + 0.12 * 1658) > 5
    steep = build("l_softmax", 3, 3, decay=1.0, least=2.0).function
    steep.steps.fill_(100)
    assert float(steep.annealing) == 2


def same_weight(*heads):
    for head in heads:
        head.double().weight.data = heads[0].weight.data.view_as(head.weight)
    return heads


def test_limits():
    prediction, target = pair_of(build("arcface"))
    shape = {"num_classes": 5, "num_features": FEATURES}
    arc, centre = same_weight(ArcFace(**shape), SubcenterArcFace(**shape, centres=1))
    torch.testing.assert_close(centre(prediction, target), arc(prediction, target))
    cos, mv = same_weight(CosFace(**shape, scale=32.0), MVSoftmax(**shape, t=0.0))
    torch.testing.assert_close(mv(prediction, target), cos(prediction, target))
    plain = LSoftmax(**shape, margin=1).double()
    expected = torch.nn.functional.cross_entropy(prediction @ plain.weight.T, target, reduction="none")
    torch.testing.assert_close(plain(prediction, target), expected)


@pytest.mark.parametrize(("z", "margin", "added"), [(-1, 0.4, 0.0), (0, 0.0, 0.4), (1, -0.4, 0.8)])
def test_adaface_between_arcface_and_cosface(z, margin, added):
    head = AdaFace(num_classes=2, num_features=2, smoothing=0.0, h=1.0).double()
    head.norms = double([10 - 10.01 * z, 10 - 1e-3]) if z else double([10, 1e9])
    head.weight.data = torch.eye(2, dtype=torch.float64)
    features = 10 * double([[0.8, 0.6]])
    cosines = double([[torch.acos(double(0.8)).add(margin).cos().item() - added, 0.6]])
    expected = torch.nn.functional.cross_entropy(64 * cosines, torch.tensor([0]))
    assert head(features, torch.tensor([0])).item() == pytest.approx(expected.item(), rel=1e-6, abs=1e-9)


def test_curricular_weight_grows():
    head = CurricularFace(num_classes=2, num_features=2, smoothing=0.5).double()
    head.weight.data = torch.eye(2, dtype=torch.float64)
    for expected in (0.5, 0.75, 0.875):
        head(double([[1.0, 0.0]]), torch.tensor([0]))
        assert head.seen.item() == pytest.approx(expected)


@pytest.mark.parametrize("name", HEADS)
def test_rotation_changes_nothing(name):
    loss = build(name).eval()
    prediction, target = pair_of(loss)
    value = loss(prediction, target)
    draw = torch.randn(FEATURES, FEATURES, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    turn = torch.linalg.qr(draw).Q
    loss.function.weight.data = loss.function.weight.data @ turn
    torch.testing.assert_close(loss(prediction @ turn, target), value)


@pytest.mark.parametrize("name", [name for name in HEADS if name not in ("adaface", "l_softmax", "a_softmax")])
def test_length_of_features_changes_nothing(name):
    loss = build(name).eval()
    prediction, target = pair_of(loss)
    torch.testing.assert_close(loss(3 * prediction, target), loss(prediction, target))


@pytest.mark.parametrize("margin", [1, 2, 3, 4])
def test_psi_falls_all_the_way(margin):
    head = LSoftmax(num_classes=2, num_features=2, margin=margin).double()
    psi = head.psi(torch.linspace(0, torch.pi, 500, dtype=torch.float64).cos())
    assert (psi.diff() < 1e-12).all()
    assert psi[0].item() == pytest.approx(1)
    assert psi[-1].item() == pytest.approx(1 - 2 * margin)
