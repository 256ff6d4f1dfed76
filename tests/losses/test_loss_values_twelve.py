"""Losses that users of other libraries ask for: their definitions, written once more in NumPy and SciPy."""

import itertools
import math

import numpy as np
import pytest
import torch
from loss_registry import CLASSES, build, pair_of
from scipy.ndimage import distance_transform_edt
from torch.nn import functional

from harness.metrics.detection import pairwise_iou
from harness.tasks import Seeds
from losses import boundary, imbalance
from losses.kinds import Pair
from losses.lovasz import lovasz_hinge, lovasz_softmax
from losses.probability import asymmetric, binary_focal, cross_entropy, quality_focal, varifocal
from losses.quantity import charbonnier

COUNTS = [100, 16, 1, 0, 81]
WORKED = {
    "soft_target_cross_entropy", "generalized_cross_entropy", "logit_adjustment", "balanced_softmax", "ldam",
    "ldam_cosine", "asymmetric", "lovasz_softmax", "lovasz_hinge", "boundary", "supervised_contrastive",
    "multi_similarity", "quality_focal", "varifocal", "charbonnier",
}  # fmt: skip
"""Whose values are worked out here."""


def double(values):
    return torch.tensor(values, dtype=torch.float64)


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def drawn(name, **options):
    """Ordinary logits and their classes, as NumPy has them too."""
    logits, target = pair_of(build(name), **options)
    return logits.detach(), target, logits.detach().numpy(), target.numpy()


def assert_values(found, expected):
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-9, atol=1e-12)


# ---------------------------------------------------------------- of probabilities


def test_soft_targets_are_the_mean_over_their_classes():
    logits, soft = pair_of(build("soft_target_cross_entropy"))
    each = torch.stack([cross_entropy(logits, torch.full((12,), c)) for c in range(CLASSES)], 1)
    torch.testing.assert_close(build("soft_target_cross_entropy").function(logits, soft), (soft * each).sum(1))


def test_soft_targets_are_the_divergence_plus_their_entropy():
    logits, soft = pair_of(build("kl_divergence"))
    entropy = -(soft * soft.log()).sum(1)
    expected = build("kl_divergence").function(logits, soft) + entropy
    torch.testing.assert_close(build("soft_target_cross_entropy").function(logits, soft), expected)


@pytest.mark.parametrize("q", [0.3, 0.7, 1.0])
def test_generalised_cross_entropy(q):
    logits, target, z, t = drawn("generalized_cross_entropy")
    p = softmax(z)[np.arange(12), t]
    assert_values(build("generalized_cross_entropy", q=q).function(logits, target), (1 - p**q) / q)


def test_generalised_cross_entropy_lies_between_cross_entropy_and_the_probability_of_an_error():
    logits, target, *_ = drawn("generalized_cross_entropy")
    near_zero = build("generalized_cross_entropy", q=1e-7).function(logits, target)
    torch.testing.assert_close(near_zero, cross_entropy(logits, target), rtol=1e-5, atol=0)
    at_one = build("generalized_cross_entropy", q=1.0).function(logits, target)
    torch.testing.assert_close(2 * at_one, build("mae_prob").function(logits, target))


@pytest.mark.parametrize("gamma_pos", [0.0, 1.0])
@pytest.mark.parametrize("clip", [0.0, 0.05, 0.3])
def test_asymmetric(gamma_pos, clip):
    z, t = np.linspace(-6, 6, 25), np.arange(25) % 2
    p = 1 / (1 + np.exp(-z))
    kept = np.maximum(p - clip, 0)
    expected = -t * (1 - p) ** gamma_pos * np.log(p) - (1 - t) * kept**4 * np.log(1 - kept)
    assert_values(asymmetric(double(z), double(t), gamma_pos=gamma_pos, clip=clip), expected)


def test_asymmetric_without_clip_and_with_equal_exponents_is_focal():
    logits, labels = pair_of(build("binary_focal"))
    found = asymmetric(logits, labels, gamma_pos=2.0, gamma_neg=2.0, clip=0.0)
    torch.testing.assert_close(found, binary_focal(logits, labels, alpha=None))


@pytest.mark.parametrize("clip", [0.0, 1e-9, 0.05])
def test_a_negative_that_is_surely_wrong_keeps_a_finite_slope(clip):
    logits = torch.tensor([1e4, 100.0, 20.0], requires_grad=True)
    values = asymmetric(logits, torch.zeros(3), clip=clip)
    (slope,) = torch.autograd.grad(values.sum(), logits)
    assert values.isfinite().all()
    assert slope.isfinite().all()
    if clip == 0.05:
        assert (values <= -(0.95**4) * math.log(0.05) + 1e-5).all()


@pytest.mark.parametrize("beta", [0.0, 1.5, 2.0])
def test_quality_focal(beta):
    z, y = np.linspace(-5, 5, 21), np.linspace(0, 1, 21)
    p = 1 / (1 + np.exp(-z))
    expected = np.abs(y - p) ** beta * -(y * np.log(p) + (1 - y) * np.log(1 - p))
    assert_values(quality_focal(double(z), double(y), beta=beta), expected)


@pytest.mark.parametrize(("alpha", "gamma"), [(0.75, 2.0), (1.0, 0.0)])
def test_varifocal(alpha, gamma):
    z, q = np.linspace(-5, 5, 21), np.linspace(0, 1, 21)
    q[::3] = 0
    p = 1 / (1 + np.exp(-z))
    there = -q * (q * np.log(p) + (1 - q) * np.log(1 - p))
    expected = np.where(q > 0, there, -alpha * p**gamma * np.log(1 - p))
    assert_values(varifocal(double(z), double(q), alpha=alpha, gamma=gamma), expected)


def test_quality_focal_is_least_where_the_score_is_the_quality():
    quality = double([0.2, 0.5, 0.9])
    logits = torch.logit(quality).requires_grad_()
    values = quality_focal(logits, quality)
    (slope,) = torch.autograd.grad(values.sum(), logits)
    assert values.detach().abs().max() < 1e-20
    assert slope.abs().max() < 1e-12


def test_a_detector_gives_the_overlap_of_its_boxes_as_quality(loop):
    sizes = ("dataset.train_size=128", "dataset.valid_size=32", "dataset.test_size=32")
    run = loop("task=detection", "loss.classes=quality_focal", *sizes)
    batch = next(run.task.epoch(Seeds(1, 2)))
    pairs = run.task.pairs(run.model(*batch.inputs), batch)
    quality, wanted = pairs["quality_logits"].target, pairs["binary_logits"].target
    assert quality.shape == wanted.shape
    assert not quality.requires_grad
    assert not quality[wanted == 0].any()
    boxes, target, there = pairs["boxes"]
    overlap = pairwise_iou(boxes, target).diagonal()[there]
    torch.testing.assert_close(quality.flatten(0, 1).sum(1)[there], overlap.detach())
    assert 0 < quality.max() <= 1


# ---------------------------------------------------------------- of unequal classes


@pytest.mark.parametrize("tau", [0.0, 1.0, 1.5])
def test_logit_adjustment(tau):
    logits, target, z, t = drawn("logit_adjustment")
    n = np.maximum(COUNTS, 1)
    p = softmax(z + tau * np.log(n / n.sum()))
    found = build("logit_adjustment", counts=COUNTS, tau=tau).function(logits, target)
    assert_values(found, -np.log(p[np.arange(12), t]))


def test_balanced_softmax_counts_every_class_as_often_as_it_occurs():
    logits, target, z, t = drawn("balanced_softmax")
    weighted = np.maximum(COUNTS, 1) * np.exp(z)
    expected = -np.log(weighted[np.arange(12), t] / weighted.sum(1))
    assert_values(build("balanced_softmax", counts=COUNTS).function(logits, target), expected)


def margins():
    return 0.5 * (1 / np.maximum(COUNTS, 1)) ** 0.25


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_ldam(scale):
    logits, target, z, t = drawn("ldam")
    moved = z.copy()
    moved[np.arange(12), t] -= margins()[t]
    p = softmax(scale * moved)[np.arange(12), t]
    found = build("ldam", counts=COUNTS, scale=scale).function(logits, target)
    np.testing.assert_allclose(found.numpy(), -np.log(p), rtol=1e-6, atol=1e-12)


def test_the_head_of_ldam_is_ldam_of_its_cosines():
    loss = build("ldam_cosine", counts=COUNTS)
    features, target = pair_of(loss)
    cosines = functional.normalize(features) @ functional.normalize(loss.function.weight).T
    torch.testing.assert_close(loss.function(features, target), imbalance.ldam(cosines, target, counts=COUNTS))


@pytest.mark.parametrize("name", ["logit_adjustment", "balanced_softmax", "ldam"])
def test_counts_are_one_for_each_class(name):
    logits, target = pair_of(build(name))
    with pytest.raises(ValueError, match=r"^counts: \(3,\) numbers, allowed is one for each of the 5 classes$"):
        build(name, counts=[1, 2, 3]).function(logits, target)
    dense, labels = pair_of(build(name), count=2, shape=(3, 4))
    flat = build(name, counts=COUNTS).function(dense.movedim(1, -1).reshape(-1, CLASSES), labels.flatten())
    torch.testing.assert_close(build(name, counts=COUNTS).function(dense, labels).flatten(), flat)


# ---------------------------------------------------------------- of regions


def jaccard(wrong, truth):
    """The Jaccard loss of predicting all of the truth but for the wrong pixels: a function of sets, by counting."""
    predicted = truth ^ wrong
    union = (predicted | truth).sum()
    return 1 - (predicted & truth).sum() / union if union else 0.0


def extension(errors, truth):
    """The Lovász extension by its definition (Berman et al., definition 1): gains along the order of the errors."""
    value, wrong, before = 0.0, np.zeros_like(truth), 0.0
    for place in np.argsort(-errors, kind="stable"):
        wrong[place] = True
        now = jaccard(wrong, truth)
        value, before = value + errors[place] * (now - before), now
    return value


@pytest.mark.parametrize("classes", ["present", "all"])
@pytest.mark.parametrize("over_batch", [True, False])
def test_lovasz_softmax_is_the_extension_of_the_jaccard_loss(classes, over_batch):
    logits, target, z, t = drawn("lovasz_softmax", count=3, shape=(3, 4))
    target, t = target.clamp_max(3), np.minimum(t, 3)  # one class is absent
    p, t = softmax(np.moveaxis(z, 1, -1)).reshape(3, 12, CLASSES), t.reshape(3, 12)
    groups = [(p.reshape(-1, CLASSES), t.flatten())] * 3 if over_batch else list(zip(p, t, strict=True))
    expected = []
    for scores, labels in groups:
        counted = [c for c in range(CLASSES) if classes == "all" or (labels == c).any()]
        values = [extension(np.abs((labels == c) - scores[:, c]), labels == c) for c in counted]
        expected.append(np.mean(values))
    assert_values(lovasz_softmax(logits, target, classes=classes, over_batch=over_batch), expected)


@pytest.mark.parametrize("over_batch", [True, False])
def test_lovasz_hinge_is_the_extension_at_the_hinge(over_batch):
    logits, labels = pair_of(build("lovasz_hinge"), count=36)
    z, t = logits.detach().view(3, 12).numpy(), labels.view(3, 12).numpy() > 0.5
    t[1] = False  # nothing is true
    errors = np.maximum(1 - np.where(t, 1, -1) * z, 0)
    expected = [extension(errors.flatten(), t.flatten())] * 3 if over_batch else list(map(extension, errors, t))
    assert_values(lovasz_hinge(double(z), double(t), over_batch=over_batch), expected)


def test_lovasz_is_the_jaccard_loss_where_predictions_are_sure():
    for wrong in itertools.product([False, True], repeat=4):
        wrong, truth = np.array(wrong), np.array([True, True, False, False])
        hard = double(200.0 * np.where(truth ^ wrong, 1, -1))
        found = lovasz_softmax(torch.stack([-hard, hard])[None], torch.tensor(truth).long()[None])
        expected = (jaccard(wrong, truth) + jaccard(wrong, ~truth)) / 2
        assert found.item() == pytest.approx(expected)


def kervadec(truth):
    """The distance map of the authors: outside the distance to the region, inside that to the rest, less one."""
    if not truth.any() or truth.all():
        return np.zeros(truth.shape)
    return distance_transform_edt(~truth) * ~truth - (distance_transform_edt(truth) - 1) * truth


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("shape", [(9,), (7, 11), (4, 5, 6)])
def test_boundary_is_the_probability_times_a_distance_map(shape, background):
    logits, target, z, t = drawn("boundary", count=3, shape=shape)
    p = np.moveaxis(softmax(np.moveaxis(z, 1, -1)), -1, 1)
    maps = np.stack([[kervadec(image == c) for c in range(CLASSES)] for image in t])
    first = 0 if background else 1
    expected = (p * maps)[:, first:].mean(1)
    found = build("boundary", background=background).function(logits, target)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6, atol=1e-6)  # distances are float32


def test_distances_do_not_depend_on_the_size_of_a_step(monkeypatch):
    region = torch.rand(2, 3, 20, 17, generator=torch.Generator().manual_seed(1)) < 0.1
    whole = boundary._signed_distance(region)
    monkeypatch.setattr(boundary, "BLOCK", 1)
    assert torch.equal(boundary._signed_distance(region), whole)


def test_distances_are_to_pixels_that_count():
    target = torch.tensor([[0, 0, 0, 1, 1, 1, 0]])
    mask = torch.tensor([[True, True, True, False, True, True, True]])
    found = boundary._signed_distance(target.unsqueeze(1) == 1, mask.unsqueeze(1))[0, 0]
    assert found[mask[0]].tolist() == [4, 3, 2, -1, 0, 1]
    logits, _ = pair_of(build("boundary"), count=1, shape=(7,))
    loss = build("boundary")
    spoilt = torch.where(mask, target, 4)
    torch.testing.assert_close(loss(logits, spoilt, mask), loss(logits, target, mask))


def test_a_class_that_is_absent_or_everywhere_has_no_boundary():
    logits, _ = pair_of(build("boundary"), count=1, shape=(3, 4))
    loss = build("boundary", background=True)
    assert not loss.function(logits, torch.full((1, 3, 4), 2)).detach().any()


# ---------------------------------------------------------------- of features


def cosines(features):
    unit = features.detach().numpy()
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    return unit @ unit.T


def others(target, i):
    """Indices of the other items of i's class, and of those of other classes."""
    same = [j for j in range(len(target)) if j != i and target[j] == target[i]]
    return same, [j for j in range(len(target)) if target[j] != target[i]]


@pytest.mark.parametrize("temperature", [0.07, 0.1, 1.0])
def test_supervised_contrastive(temperature):
    loss = build("supervised_contrastive", temperature=temperature)
    features, target = pair_of(loss)
    similar, expected = cosines(features) / temperature, []
    for i in range(12):
        same, other = others(target, i)
        rivals = np.exp(similar[i, same + other]).sum()
        expected.append(np.mean([-np.log(np.exp(similar[i, p]) / rivals) for p in same]) if same else 0.0)
    assert_values(loss.function(features, target), expected)


@pytest.mark.parametrize("settings", [{}, {"threshold": 0.5, "beta": 40.0}, {"epsilon": 0.0}])
def test_multi_similarity(settings):
    loss = build("multi_similarity", **settings)
    features, target = pair_of(loss, count=20)
    chosen = {"alpha": 2.0, "beta": 50.0, "threshold": 1.0, "epsilon": 0.1, **settings}
    alpha, beta, threshold, epsilon = chosen.values()
    similar, expected = cosines(features), []
    for i in range(20):
        same, other = others(target, i)
        near = [p for p in same if other and similar[i, p] < similar[i, other].max() + epsilon]
        far = [n for n in other if same and similar[i, n] > similar[i, same].min() - epsilon]
        pull = np.log1p(np.exp(-alpha * (similar[i, near] - threshold)).sum()) / alpha
        push = np.log1p(np.exp(beta * (similar[i, far] - threshold)).sum()) / beta
        expected.append(pull + push if near and far else 0.0)
    assert any(expected)
    assert_values(loss.function(features, target), expected)


@pytest.mark.parametrize("name", ["supervised_contrastive", "multi_similarity"])
@pytest.mark.parametrize("target", [[0], [0, 0, 0], [0, 1, 2], [0, 1, 1]])
def test_equal_features_classes_alone_or_without_rivals_are_finite(name, target):
    features = torch.ones(len(target), 4, requires_grad=True)
    value = build(name, dtype=torch.float32)(features, torch.tensor(target))
    value.backward()
    assert value.isfinite()
    assert features.grad.isfinite().all()


@pytest.mark.parametrize("name", ["supervised_contrastive", "multi_similarity"])
def test_length_and_direction_of_all_features_change_nothing(name):
    features, target = pair_of(build(name))
    turn = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).Q
    lengths = torch.arange(1, 13, dtype=torch.float64).unsqueeze(1)
    torch.testing.assert_close(build(name)(lengths * features @ turn, target), build(name)(features, target))


# ---------------------------------------------------------------- of values


@pytest.mark.parametrize("epsilon", [1e-3, 1.0])
def test_charbonnier(epsilon):
    error = double(np.linspace(-3, 3, 13))
    assert_values(charbonnier(error, 0 * error, epsilon=epsilon), np.hypot(error.numpy(), epsilon))


def test_charbonnier_is_the_absolute_error_far_from_0_and_flat_at_0():
    error = torch.tensor([0.0, 1e6, -1e6], requires_grad=True)
    values = charbonnier(error, torch.zeros(3))
    (slope,) = torch.autograd.grad(values.sum(), error)
    assert values.tolist() == pytest.approx([1e-3, 1e6, 1e6])
    assert slope.tolist() == pytest.approx([0, 1, -1])


def test_a_mask_leaves_pixels_out_of_every_overlap():
    logits, target = pair_of(build("lovasz_softmax"), count=2, shape=(3, 4))
    mask = torch.arange(24).view(2, 3, 4) % 3 != 0
    kept = logits.movedim(1, -1)[mask].T[None], target[mask][None]
    found = build("lovasz_softmax")({"class_logits": Pair(logits, target, mask)})
    torch.testing.assert_close(found, build("lovasz_softmax")(*kept))
