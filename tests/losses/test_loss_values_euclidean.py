"""Worked values of losses of distances, and agreement with torch where it has the same; float64 to 1e-6."""

import pytest
import torch
from loss_registry import batch, build, pair_of
from pytorch_metric_learning.losses import ProxyAnchorLoss
from torch.nn import functional

from losses import euclidean
from losses.triplets import triplet_all, triplet_semi_hard


def double(values):
    return torch.tensor(values, dtype=torch.float64)


POINTS = double([[0, 0], [2, 0], [1, 1], [4, 4], [6, 4], [5, 6]]), torch.tensor([0, 0, 0, 1, 1, 1])
VALUES = [
    ("contrastive", {}, (double([[0.0], [0.3]]), torch.tensor([0, 0])), 0.3**2 / 2),
    ("contrastive", {}, (double([[0.0], [0.8]]), torch.tensor([0, 1])), 0.2**2 / 2),
    ("contrastive", {"half": False}, (double([[0.0], [1.5]]), torch.tensor([0, 1])), 0.0),
    (
        "triplet",
        {"squared": True, "normalised": True, "soft": False},
        (double([[1, 0], [0.8, 0.6], [0.8, -0.6]]), torch.tensor([0, 0, 1])),
        0.2 / 3,
    ),
    ("range", {"margin": 50.0, "intra": 1.0, "inter": 0.0}, POINTS, 7.66666667),
    ("range", {"margin": 50.0, "intra": 0.0, "inter": 1.0}, POINTS, 15.22222222),
]
WORKED = {name for name, *_ in VALUES} | {
    "center_invariant",
    "triplet_semi_hard",
    "triplet_all",
    "proxy_anchor",
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
    plain = euclidean.triplet(double([anchor, positive, negative]), target, margin=1.0, normalised=False, soft=False)
    expected = functional.triplet_margin_loss(*(double([row]) for row in (anchor, positive, negative)), eps=0)
    assert plain[0].item() == pytest.approx(expected.item(), abs=1e-6)
    assert plain[0].item() == pytest.approx(0.21824134, abs=1e-6)
    soft = euclidean.triplet(double([anchor, positive, [0.6, 0.8]]), target)
    assert soft[0].item() == pytest.approx(0.57071558, abs=1e-6)


def test_triplet_takes_the_hardest():
    prediction, target = pair_of(build("triplet"), count=20)
    features, facenet = prediction.detach(), {"squared": True, "normalised": True, "soft": False}
    unit = functional.normalize(features)
    distance = torch.cdist(unit, unit).square()
    for i in range(20):
        same = [distance[i, j] for j in range(20) if j != i and target[j] == target[i]]
        other = [distance[i, j] for j in range(20) if target[j] != target[i]]
        expected = max(max(same) - min(other) + 0.2, 0) if same and other else 0
        assert euclidean.triplet(features, target, **facenet)[i].item() == pytest.approx(float(expected), abs=1e-9)


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


@pytest.mark.parametrize("name", ["contrastive", "triplet", "triplet_all"])
def test_small_distances_far_from_the_origin_are_as_exact_as_their_features(name):
    """Where squares of lengths cancel in float32; and equal features, whose distance has no slope."""
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(8, 16, generator=generator) * 30 + 100
    features = torch.cat([features, features[:4], features[4:] + 1e-3 * torch.randn(4, 16, generator=generator)])
    target = torch.arange(8).repeat(2) % 4
    values, slopes = [], []
    for dtype in (torch.float32, torch.float64):
        data = features.to(dtype).requires_grad_()
        value = build(name).function(data, target)
        values.append(value.double())
        slopes.append(torch.autograd.grad(value.sum(), data)[0].double())
    torch.testing.assert_close(*values, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(*slopes, rtol=1e-3, atol=1e-3)


# ---------------------------------------------------------------- triplets and proxies


def triplets(features, target, anchor):
    """Yield the distances to positive and negative of all triplets of an anchor."""
    items = range(len(target))
    positives = [i for i in items if i != anchor and target[i] == target[anchor]]
    for p in positives:
        yield [(features[anchor], features[p], features[n]) for n in items if target[n] != target[anchor]]


@pytest.mark.parametrize("squared", [True, False])
def test_triplets_by_plain_loops(squared):
    prediction, target = pair_of(build("triplet_all"), count=24)
    features = functional.normalize(prediction.detach())
    power = 2 if squared else 1
    semi, every = (
        loss(prediction.detach(), target, margin=0.3, squared=squared, normalised=True).tolist()
        for loss in (triplet_semi_hard, triplet_all)
    )
    for anchor in range(24):
        by_positive, violating = [], []
        for found in triplets(features, target, anchor):
            apart = [((a - p).norm() ** power, (a - n).norm() ** power) for a, p, n in found]
            if not apart:
                continue
            near = apart[0][0]
            farther = [n for _, n in apart if n > near]
            chosen = min(farther) if farther else max(n for _, n in apart)
            by_positive.append(max(float(near - chosen) + 0.3, 0))
            violating += [value for p, n in apart if (value := float(p - n) + 0.3) > 0]
        assert semi[anchor] == pytest.approx(sum(by_positive) / max(1, len(by_positive)), abs=1e-9)
        assert every[anchor] == pytest.approx(sum(violating) / max(1, len(violating)), abs=1e-9)


@pytest.mark.parametrize("loss", [triplet_semi_hard, triplet_all])
def test_triplets_of_a_masked_batch_are_those_of_the_rest(loss):
    prediction, target = pair_of(build("triplet_all"), count=20)
    mask = torch.arange(20) % 4 != 0
    torch.testing.assert_close(loss(prediction, target, mask=mask)[mask], loss(prediction[mask], target[mask]))
    assert not loss(prediction, target, mask=mask)[~mask].any()
    assert torch.autograd.gradcheck(lambda x: loss(x, target, margin=0.31), prediction.detach().requires_grad_())


def test_proxies_are_those_of_pytorch_metric_learning():
    ours = build("proxy_anchor")
    prediction, target = pair_of(ours, count=12)
    proxies = ours.function.proxies
    theirs = ProxyAnchorLoss(*proxies.shape, margin=0.1, alpha=32).double()
    theirs.proxies.data = proxies.data.clone()
    assert ours.function(prediction, target).mean().item() == pytest.approx(theirs(prediction, target).item())


def test_hardest_triplets_with_a_hinge_fold_up_where_the_default_does_not():
    """From points that nearly coincide the hinge rests at its margin; the softplus pulls the classes apart."""
    draw = torch.Generator().manual_seed(0)
    target = torch.arange(4).repeat(4)
    spread = {}
    for name, settings in (("hinge", {"squared": True, "normalised": True, "soft": False}), ("default", {})):
        features = (torch.ones(16, 8) + 1e-3 * torch.randn(16, 8, generator=draw)).double().requires_grad_()
        optimizer = torch.optim.SGD([features], lr=0.1)
        for _ in range(100):
            optimizer.zero_grad()
            euclidean.triplet(features, target, **settings).mean().backward()
            optimizer.step()
        spread[name] = torch.cdist(features, features).max().item()
    assert spread["default"] > 20 * spread["hinge"]
