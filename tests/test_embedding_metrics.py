"""Metrics of embeddings: by hand, beside pytorch-metric-learning and scikit-learn, and by loops over all pairs."""

import numpy as np
import pytest
import torch
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from pytorch_metric_learning.utils.inference import CustomKNN
from sklearn.metrics import average_precision_score, roc_auc_score

from datasets.by_class import Protocol
from harness.metrics import retrieval
from harness.metrics.retrieval import RetrievalMetrics, neighbours


def found(features, target, batches=1, protocol=None):
    metrics = RetrievalMetrics(protocol)
    for pair in zip(features.chunk(batches), target.chunk(batches), strict=True):
        metrics.add(*pair)
    return metrics.found()


def scores(*arguments, **more):
    return found(*arguments, **more)[0]


def drawn(count, classes, spread, seed=0):
    draw = torch.Generator().manual_seed(seed)
    target = torch.randint(classes, (count,), generator=draw)
    return torch.randn(classes, 8, generator=draw)[target] + spread * torch.randn(count, 8, generator=draw), target


# ---------------------------------------------------------------- metrics


def test_metrics_of_a_case_by_hand():
    """Angles 0, 10, 25, 45, 82, 90 degrees; classes a b a b a b, so that R = 2 for every item."""
    angles = torch.deg2rad(torch.tensor([0.0, 10, 25, 45, 82, 90]))
    features = 3 * torch.stack([angles.cos(), angles.sin()], 1)  # lengths do not count
    found = scores(features, torch.tensor([0, 1, 0, 1, 0, 1]))
    # the two nearest of each, by class: 0: b a; 10: a a; 25: b b; 45: a b; 82: b b; 90: a b
    # the second of 0, 45 and 90 is of the class: a precision of 1/2, over R = 2
    assert found["map_at_r"] == pytest.approx(3 * 0.25 / 6)
    assert found["recall_at_1"] == 0
    assert found["r_precision"] == pytest.approx(3 * 0.5 / 6)


@pytest.mark.parametrize("spread", [0.3, 1.0, 3.0])
def test_metrics_are_those_of_pytorch_metric_learning(spread):
    features, target = drawn(400, 12, spread)
    calculator = AccuracyCalculator(
        ("mean_average_precision_at_r", "precision_at_1", "r_precision"),
        k="max_bin_count",
        device=torch.device("cpu"),
        knn_func=CustomKNN(CosineSimilarity()),
    )
    theirs = calculator.get_accuracy(features, target)
    ours = scores(features, target, batches=3)
    assert ours["map_at_r"] == pytest.approx(theirs["mean_average_precision_at_r"], abs=1e-6)
    assert ours["recall_at_1"] == pytest.approx(theirs["precision_at_1"], abs=1e-6)
    assert ours["r_precision"] == pytest.approx(theirs["r_precision"], abs=1e-6)


def test_an_item_that_is_alone_in_its_class_is_no_query():
    features = torch.eye(4)[[0, 0, 1, 2]] + 0.01
    found = scores(features, torch.tensor([5, 5, 7, 9]))
    assert {found[name] for name in ("map_at_r", "recall_at_1", "recall_at_5", "r_precision")} == {1.0}
    alone = scores(torch.eye(3), torch.arange(3))
    assert {name for name, value in alone.items() if value == value} == {"spread"}


# ---------------------------------------------------------------- verification


@pytest.mark.parametrize("spread", [0.5, 2.0])
def test_verification_is_over_all_pairs(spread):
    features, target = drawn(150, 9, spread)
    directions = torch.nn.functional.normalize(features).double().numpy()
    first, second = np.triu_indices(150, 1)
    similar = (directions[first] * directions[second]).sum(1)
    genuine = (target[first] == target[second]).numpy()
    ours = scores(features, target, batches=4)
    assert ours["verification_auc"] == pytest.approx(roc_auc_score(genuine, similar), abs=1e-5)
    impostors = np.sort(similar[~genuine])[::-1]
    for name, rate in (("tar_at_far_1e2", 1e-2), ("tar_at_far_1e3", 1e-3)):
        refused = impostors[int(rate * len(impostors))]  # the first impostor that is one too many
        assert ours[name] == pytest.approx((similar[genuine] > refused).mean(), abs=2 / genuine.sum())
    assert ours["spread"] == pytest.approx(1 - similar.mean(), abs=1e-5)


def test_embeddings_that_fell_together_cannot_be_told_apart():
    ours = scores(torch.ones(30, 4) + 1e-9 * torch.randn(30, 4), torch.arange(30) % 3)
    assert (ours["verification_auc"], ours["tar_at_far_1e2"], ours["tar_at_far_1e3"]) == (0.5, 0, 0)
    assert ours["spread"] == pytest.approx(0, abs=1e-6)


def test_features_that_are_no_numbers_resemble_nothing():
    features, target = drawn(40, 4, 0.1)
    features[:5] = torch.nan
    ours = scores(features, target)
    assert all(0 <= value <= 2 for value in ours.values())


def test_listed_pairs_replace_all_pairs():
    features = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
    pairs = torch.tensor([[0, 1], [0, 2], [1, 3], [2, 3]])
    _, _, similarities = found(features, torch.tensor([0, 0, 1, 1]), protocol=Protocol(pairs=pairs))
    assert (int(similarities.genuine.sum()), int(similarities.impostors.sum())) == (2, 2)


# ---------------------------------------------------------------- cameras


def test_the_rule_of_cameras_by_a_plain_loop():
    features, target = drawn(120, 8, 1.0)
    draw = torch.Generator().manual_seed(1)
    camera, query = torch.randint(3, (120,), generator=draw), torch.rand(120, generator=draw) < 0.3
    distractor = ~query & (torch.rand(120, generator=draw) < 0.1)
    protocol = Protocol(camera, query)
    alien = torch.where(distractor, 99, target)
    directions = torch.nn.functional.normalize(features)
    precisions, first, tenth = [], [], []
    for row in query.nonzero()[:, 0].tolist():
        kept = ~query & ~((alien == alien[row]) & (camera == camera[row]))
        right, similar = (alien == alien[row])[kept], (directions[kept] @ directions[row])
        if right.any():
            precisions.append(average_precision_score(right.numpy(), similar.numpy()))
            ranked = right[similar.argsort(descending=True)]
            first.append(bool(ranked[0]))
            tenth.append(bool(ranked[:10].any()))
    ours = scores(features, alien, protocol=protocol)
    assert ours["mean_ap"] == pytest.approx(np.mean(precisions), abs=1e-6)
    assert ours["cmc_1"] == ours["recall_at_1"] == pytest.approx(np.mean(first))
    assert ours["cmc_10"] == pytest.approx(np.mean(tenth))


def test_an_item_of_the_same_class_and_camera_is_left_out():
    features = torch.tensor([[1.0, 0.0], [1.0, 0.01], [1.0, 0.2], [0.8, 0.6]])
    target, camera = torch.tensor([0, 0, 1, 0]), torch.tensor([1, 1, 1, 2])
    assert scores(features, target, protocol=Protocol(camera))["cmc_1"] == pytest.approx(0)
    assert scores(features, target)["recall_at_1"] == pytest.approx(2 / 3)
    near = neighbours(features, target, torch.tensor([0]), 2, Protocol(camera))
    assert near.tolist() == [[2, 3]]


# ---------------------------------------------------------------- scores of classes, and memory


def test_classes_are_the_items_of_new_items_intervals():
    features, target = drawn(200, 10, 1.5)
    ours, items, _ = found(features, target)
    assert items["item"].tolist() == list(range(10))
    for name in ("map_at_r", "recall_at_1", "recall_at_5", "r_precision"):
        assert items[name].mean() == pytest.approx(ours[name], abs=1e-6)
    # without one class's queries the mean moves by its influence over (number of classes - its weight)
    weight = target.bincount().numpy() / len(target) * 10
    hits = np.array(list(_hits(features, target)))
    without = np.array([hits[(target != label).numpy()].mean() for label in range(10)])
    expected = ours["recall_at_1"] + (ours["recall_at_1"] - without) * (10 - weight)
    np.testing.assert_allclose(items["recall_at_1"], expected, atol=1e-6)


def _hits(features, target):
    """Yield whether the nearest neighbour of each item is of its class."""
    for row in range(len(target)):
        (near,) = neighbours(features, target, torch.tensor([row]), 1)
        yield float(target[near[0]] == target[row])


def test_chunks_do_not_move_the_result(monkeypatch):
    features, target = drawn(100, 6, 1.0)
    whole = scores(features, target)
    monkeypatch.setattr(retrieval, "AT_A_TIME", 700)
    assert scores(features, target) == pytest.approx(whole, abs=1e-6)
