"""The metrics that judge classification, against scikit-learn and torchmetrics."""

import math

import pytest
import sklearn.metrics
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from harness.errors import UsageError
from harness.metrics.classification import ClassificationMetrics, area_under_curve
from harness.tasks import Seeds


def metrics(logits, target, link, counts=None):
    """What is found in all items at once; without counts no class is rarer than another."""
    classes = logits.shape[1]
    found = ClassificationMetrics(classes, link, torch.ones(classes) if counts is None else counts, logits.device)
    found.add(logits, target)
    return found.scores()


@pytest.fixture(params=[(7, 500, 0), (3, 40, 1), (100, 2000, 2)])
def scores(request):
    classes, count, seed = request.param
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(0, classes, (count,), generator=generator)
    return torch.randn(count, classes, generator=generator) * 2 + 2 * torch.nn.functional.one_hot(
        target, classes
    ), target


def test_they_agree_with_scikit_learn(scores):
    logits, target = scores
    found = metrics(logits, target, "softmax")
    predicted, classes = logits.argmax(1), range(logits.shape[1])
    assert found["top1"] == pytest.approx(sklearn.metrics.accuracy_score(target, predicted))
    assert found["macro_f1"] == pytest.approx(sklearn.metrics.f1_score(target, predicted, average="macro"))
    assert found["nll"] == pytest.approx(
        sklearn.metrics.log_loss(target, logits.double().softmax(1), labels=list(classes))
    )
    if logits.shape[1] > 5:
        expected = sklearn.metrics.top_k_accuracy_score(target, logits, k=5, labels=list(classes))
        assert found["top5"] == pytest.approx(expected)
    recalls = sklearn.metrics.recall_score(
        target, predicted, average=None, labels=list(classes), zero_division=math.nan
    )
    assert found["per_class"] == pytest.approx(list(recalls), nan_ok=True)


def test_calibration_is_that_of_torchmetrics(scores):
    logits, target = scores
    expected = multiclass_calibration_error(logits.softmax(1), target, logits.shape[1], n_bins=15)
    assert metrics(logits, target, "softmax")["ece"] == pytest.approx(float(expected), rel=1e-5)


def test_one_vs_rest_calibration_looks_at_the_sigmoid_of_the_choice():
    logits = torch.tensor([[0.0, -9.0], [-9.0, 0.0]])  # two choices, each believed with one half
    assert metrics(logits, torch.tensor([0, 1]), "sigmoid")["ece"] == pytest.approx(0.5)
    assert metrics(logits, torch.tensor([0, 1]), "sigmoid")["confidence_gap"] == pytest.approx(-0.5), "underconfident"
    assert metrics(logits, torch.tensor([1, 0]), "sigmoid")["confidence_gap"] == pytest.approx(0.5), "overconfident"
    assert metrics(logits, torch.tensor([0, 1]), None)["confidence_gap"] is None
    assert metrics(logits, torch.tensor([0, 0]), "sigmoid")["ece"] == pytest.approx(0.0, abs=1e-6)
    assert metrics(logits, torch.tensor([0, 0]), "sigmoid")["nll"] is None


def test_classes_that_do_not_occur_do_not_spoil_the_mean():
    found = metrics(torch.eye(4)[[0, 1]], torch.tensor([0, 1]), None)
    assert (found["top1"], found["macro_f1"], found["ece"]) == (1.0, 1.0, None)
    assert [math.isnan(share) for share in found["per_class"]] == [False, False, True, True]


def test_top_5_of_fewer_classes_is_everything():
    assert metrics(torch.randn(10, 3), torch.zeros(10, dtype=torch.long), None)["top5"] == 1.0


# ---------------------------------------------------------------- rare classes


def test_rare_classes_are_judged_as_scikit_learn_judges_them(scores):
    logits, target = scores
    found = metrics(logits, target, "softmax")
    predicted = logits.argmax(1)
    assert found["balanced_accuracy"] == pytest.approx(sklearn.metrics.balanced_accuracy_score(target, predicted))
    recalls = sklearn.metrics.recall_score(target, predicted, average=None)
    assert found["gmean"] == pytest.approx(float(recalls.prod() ** (1 / len(recalls))), abs=1e-9)
    for link, believed in (("softmax", logits.softmax(1)), ("sigmoid", logits.sigmoid())):
        each = [sklearn.metrics.roc_auc_score(target == c, believed[:, c]) for c in target.unique()]
        assert metrics(logits, target, link)["auc"] == pytest.approx(sum(each) / len(each), rel=1e-6)


def test_ties_count_half_under_the_curve():
    assert float(area_under_curve(torch.zeros(6, 3), torch.tensor([0, 0, 1, 1, 2, 2]))) == 0.5
    coarse = torch.tensor([[2.0, 0], [1, 0], [1, 0], [0, 0]])
    target = torch.tensor([0, 0, 1, 1])
    assert float(area_under_curve(coarse[:, :1].repeat(1, 2), target)) == pytest.approx((0.875 + 0.125) / 2)


def test_a_class_is_a_minority_with_half_the_images_of_the_most_frequent():
    logits, target = torch.eye(4)[[0, 1, 2, 0]], torch.tensor([0, 1, 2, 3])
    counts = torch.tensor([100, 51, 50, 1])
    assert metrics(logits, target, None, counts)["minority_recall"] == pytest.approx(0.5)  # of classes 2 and 3
    assert metrics(logits, target, None, torch.tensor([100, 60, 60, 51]))["minority_recall"] is None
    assert metrics(logits, target, None)["gmean"] == 0.0


# ---------------------------------------------------------------- what losses know of the training set


def test_losses_that_weigh_classes_get_the_counts_of_the_training_set(loop):
    def values(loss, *more):
        run = loop(f"loss={loss}", "stress=imbalance", "stress.ratio=20", *more)
        batch = next(run.task.epoch(Seeds(0, 0)))
        return run.losses["model"](run.task.pairs(run.model(*batch.inputs), batch)), run.task

    plain, task = values("cross_entropy")
    weights = (len(task.splits.train) / (10 * task.class_counts)).tolist()
    assert values("weighted_cross_entropy")[0] != plain
    torch.testing.assert_close(
        values("weighted_cross_entropy")[0], values("weighted_cross_entropy", f"loss.weights={weights}")[0]
    )
    counts = task.class_counts.tolist()
    torch.testing.assert_close(values("class_balanced")[0], values("class_balanced", f"loss.counts={counts}")[0])


def test_what_the_training_set_does_not_have_must_be_given(loop, monkeypatch):
    monkeypatch.setattr("harness.tasks.images.ImageTask.statistic", lambda self, name: None)
    with pytest.raises(UsageError, match=r"loss\.counts is null, and this task has no class_counts: give it a value"):
        loop("loss=class_balanced")
