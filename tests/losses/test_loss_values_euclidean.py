"""Worked values of losses of distances, and agreement with torch where it has the same; float64 to 1e-6."""

import pytest
import torch
from loss_registry import batch, build, pair_of
from torch.nn import functional

from losses import euclidean


def double(values):
    return torch.tensor(values, dtype=torch.float64)


POINTS = double([[0, 0], [2, 0], [1, 1], [4, 4], [6, 4], [5, 6]]), torch.tensor([0, 0, 0, 1, 1, 1])
VALUES = [
    ("contrastive", {}, (double([[0.0], [0.3]]), torch.tensor([0, 0])), 0.3**2 / 2),
    ("contrastive", {}, (double([[0.0], [0.8]]), torch.tensor([0, 1])), 0.2**2 / 2),
    ("contrastive", {"half": False}, (double([[0.0], [1.5]]), torch.tensor([0, 1])), 0.0),
    ("triplet", {}, (double([[1, 0], [0.8, 0.6], [0.8, -0.6]]), torch.tensor([0, 0, 1])), 0.2 / 3),
    ("range", {"margin": 50.0, "intra": 1.0, "inter": 0.0}, POINTS, 7.66666667),
    ("range", {"margin": 50.0, "intra": 0.0, "inter": 1.0}, POINTS, 15.22222222),
]
WORKED = {name for name, *_ in VALUES} | {
    "center_invariant",
    "margin_ranking",
    "clip_contrastive",
    *(f"{name}_cross_entropy" for name in ("contrastive", "triplet", "range", "center_invariant")),
}


@pytest.mark.parametrize(("name", "settings", "data", "expected"), VALUES)
def test_value(name, settings, data, expected):
    features, target = data
    assert build(name, **settings)(features, target).item() == pytest.approx(expected, abs=1e-6)


def test_triplet_forms():
    anchor, positive, negative = [1.0, 0], [0.8, 0.6], [0.0, 1]
    target = torch.tensor([0, 0, 1])
    plain = euclidean.triplet(double([anchor, positive, negative]), target, margin=1.0, squared=False, normalised=False)
    expected = functional.triplet_margin_loss(*(double([row]) for row in (anchor, positive, negative)), eps=0)
    assert plain[0].item() == pytest.approx(expected.item(), abs=1e-6)
    assert plain[0].item() == pytest.approx(0.21824134, abs=1e-6)
    soft = euclidean.triplet(double([anchor, positive, [0.6, 0.8]]), target, squared=False, soft=True)
    assert soft[0].item() == pytest.approx(0.57071558, abs=1e-6)


def test_triplet_takes_the_hardest():
    prediction, target = pair_of(build("triplet"), count=20)
    features = prediction.detach()
    unit = functional.normalize(features)
    distance = torch.cdist(unit, unit).square()
    for i in range(20):
        same = [distance[i, j] for j in range(20) if j != i and target[j] == target[i]]
        other = [distance[i, j] for j in range(20) if target[j] != target[i]]
        expected = max(max(same) - min(other) + 0.2, 0) if same and other else 0
        assert euclidean.triplet(features, target)[i].item() == pytest.approx(float(expected), abs=1e-9)


def test_center_invariant_is_the_penalty_where_features_lie_on_their_centres():
    loss = build("center_invariant", 2, 2)
    loss.function.centres.data = double([[1, 0], [5, 5]])
    value = loss(double([[1, 0], [5, 5]]), torch.tensor([0, 1]))
    assert value.item() == pytest.approx(150.0625)


def test_margin_ranking_agrees_with_torch():
    scores = double([[0.9, 0.5], [0.2, 0.6]])
    loss = build("margin_ranking")
    assert loss(scores, double([1, 1])).item() == pytest.approx(0.5)
    expected = functional.margin_ranking_loss(scores[:, 0], scores[:, 1], double([1, -1]), margin=0.5)
    assert loss(scores, double([1, 0])).item() == pytest.approx(expected.item())


def test_contrast_of_two_views():
    images, texts = double([[1, 0], [1, 1]]), double([[1, 0.2], [0.5, 1]])
    assert build("clip_contrastive")(images, texts).item() == pytest.approx(0.07187658, abs=1e-6)


@pytest.mark.parametrize("name", ["contrastive", "triplet", "range", "center_invariant"])
def test_sums_with_cross_entropy(name):
    total = build(f"{name}_cross_entropy")
    pairs = batch(total)
    parts = [weight * total.losses[term](pairs) for term, weight in total.weights.items()]
    assert total(pairs).item() == pytest.approx(sum(part.item() for part in parts))


@pytest.mark.parametrize("name", ["contrastive", "triplet", "range", "clip_contrastive"])
@pytest.mark.parametrize("target", [[0, 0, 0], [0, 1, 2], [0, 1, 1]])
def test_equal_features_classes_alone_or_without_rivals_are_finite(name, target):
    features = torch.ones(3, 4, requires_grad=True)
    labels = torch.tensor(target) if name != "clip_contrastive" else torch.ones(3, 4)
    value = build(name, dtype=torch.float32)(features, labels)
    value.backward()
    assert value.isfinite()
    assert features.grad.isfinite().all()


@pytest.mark.parametrize("name", ["contrastive", "range"])
def test_rotation_and_translation_change_nothing(name):
    prediction, target = pair_of(build(name))
    turn = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).Q
    moved = prediction @ turn + 3
    torch.testing.assert_close(build(name)(moved, target), build(name)(prediction, target))
