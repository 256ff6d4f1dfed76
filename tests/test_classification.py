"""The metrics that judge classification, against scikit-learn and torchmetrics."""

import math

import pytest
import sklearn.metrics
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from harness import compose, plan
from harness.tasks.classification import metrics
from harness.train import Trainer


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
    assert metrics(logits, torch.tensor([0, 0]), "sigmoid")["ece"] == pytest.approx(0.0, abs=1e-6)
    assert metrics(logits, torch.tensor([0, 0]), "sigmoid")["nll"] is None


def test_classes_that_do_not_occur_do_not_spoil_the_mean():
    found = metrics(torch.eye(4)[[0, 1]], torch.tensor([0, 1]), "none")
    assert (found["top1"], found["macro_f1"], found["ece"]) == (1.0, 1.0, None)
    assert [math.isnan(share) for share in found["per_class"]] == [False, False, True, True]


def test_top_5_of_fewer_classes_is_everything():
    assert metrics(torch.randn(10, 3), torch.zeros(10, dtype=torch.long), "none")["top5"] == 1.0


# ---------------------------------------------------------------- stress


def test_stress_reaches_the_training_split_alone_and_the_key(described):
    calm, hard = described(), described("stress.label_noise=0.4", "stress.imbalance_ratio=10")
    assert "stress" not in calm["dataset"]
    assert calm == described("stress.noise=next", "stress.seed=3")  # what is not asked for decides nothing
    assert compose.setting_hash(hard) != compose.setting_hash(calm)
    easy, stressed = (Trainer(given, 1, {"root": "nowhere", "download": False}).task for given in (calm, hard))
    assert len(stressed.targets["train"]) < len(easy.targets["train"])
    assert torch.equal(stressed.targets["test"], easy.targets["test"])
    assert torch.equal(stressed.targets["valid"], easy.targets["valid"])
    assert stressed.describe()["checksum"] != easy.describe()["checksum"]


def test_levels_of_stress_are_cells():
    study = plan.load("demo", ["axes.stress.label_noise=[0,0.4]", "axes.loss=[cross_entropy,mae_prob]"])
    settings = plan.settings(study)
    assert {setting.cell[2:] for setting in settings} == {("0",), ("0.4",)}
    planted = [setting for setting in settings if setting.role == "planted"]
    assert {setting.cell[2:] for setting in planted} == {("0",), ("0.4",)}
