"""The metrics that judge classification, against scikit-learn and torchmetrics."""

import math

import pytest
import sklearn.metrics
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from harness import compose, plan
from harness.errors import UsageError
from datasets import shifts as robustness
from harness.tasks.classification import area_under_curve, metrics
from harness.training.loop import Trainer


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
    assert metrics(logits, target, "none", counts)["minority_recall"] == pytest.approx(0.5)  # of classes 2 and 3
    assert metrics(logits, target, "none", torch.tensor([100, 60, 60, 51]))["minority_recall"] is None
    assert metrics(logits, target, "none")["gmean"] == 0.0


# ---------------------------------------------------------------- robustness


def test_robustness_is_measured_when_asked_for_and_part_of_the_key_only_then(described):
    harder = ("robustness.noise=0.3", "robustness.blur=0.1", "robustness.fade=0.7", "robustness.attack=0.1")
    calm, asked = described(), described(*harder)
    assert described("robustness.noise=0.3")["task"]["robustness"] == {"noise": 0.3}  # what is off is no part of a run
    assert "robustness" not in calm["task"]
    assert compose.setting_hash(calm) != compose.setting_hash(asked)
    trainer = Trainer(asked, 1, {"root": "nowhere", "download": False})
    assert "noisy_top1" not in trainer.evaluate("valid")
    found = trainer.evaluate("test")
    assert all(0 <= found[f"{kind}_top1"] <= 1 for kind in ("noisy", "blurred", "faded"))
    assert found["attacked_top1"] <= found["top1"]
    assert found == trainer.evaluate("test")  # the same noise each time
    with pytest.raises(UsageError, match=r"robustness.attack is 2; it must be between 0"):
        Trainer(described("robustness.attack=2"), 1, {"root": "nowhere", "download": False})


@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (2, 3, 32, 20)])
def test_blur_and_lost_contrast_take_detail_and_keep_the_mean(shape):
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    for change in (robustness.blurred, robustness.faded):
        spread = [change(images, size).std() for size in (0.01, 0.1, 0.5, 1.0)]
        assert spread == sorted(spread, reverse=True)
        assert spread[0] <= images.std()
        torch.testing.assert_close(change(torch.full(shape, 0.3), 0.5), torch.full(shape, 0.3))
    means = images.mean((1, 2, 3))
    torch.testing.assert_close(robustness.faded(images, 0.4).mean((1, 2, 3)), means)
    torch.testing.assert_close(robustness.faded(images, 1.0), means.view(-1, 1, 1, 1).expand(shape))
    dot = torch.zeros(1, 1, 9, 9)
    dot[..., 4, 4] = 1.0
    seen = robustness.blurred(dot, 1 / 9)[0, 0]  # a deviation of one pixel
    assert float(seen[4, 5] / seen[4, 4]) == pytest.approx(math.exp(-0.5), rel=1e-4)
    assert float(seen.sum()) == pytest.approx(1, abs=1e-4)


def test_an_attack_moves_every_pixel_against_the_class_however_confident_the_scores():
    weights = torch.tensor([[1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])  # (C, pixels)
    images, target = torch.tensor([0.9, 0.2]).view(1, 1, 1, 2), torch.tensor([0])
    for scale in (1.0, 1e4):  # at the second the gradient of cross-entropy is 0
        moved = robustness.attacked(lambda x, scale=scale: scale * x.flatten(1) @ weights.T, images, target, 0.05)
        torch.testing.assert_close(moved.flatten(), torch.tensor([0.85, 0.25]))
    assert robustness.attacked(lambda x: x.flatten(1) @ weights.T, images, target, 0.5).amin() >= 0


def test_robustness_of_segmentation_is_refused_in_one_sentence(described):
    given = described("task=segmentation", "dataset=scenes", "model=unet_micro", "robustness.noise=0.1")
    with pytest.raises(UsageError, match="robustness is measured for image classifiers"):
        Trainer(given, 1, {"root": "nowhere", "download": False})


# ---------------------------------------------------------------- what losses know of the training set


def test_losses_that_weigh_classes_get_the_counts_of_the_training_set(described):
    def values(loss, *more):
        trainer = Trainer(described(f"loss={loss}", *more), 1, {"root": "nowhere", "download": False})
        inputs, target = next(trainer.task.epoch(64, 0, 0))
        return trainer.loss(trainer.model(inputs), target), trainer.task

    hard = "stress.imbalance_ratio=20"
    plain, task = values("cross_entropy", hard)
    weights = (len(task.targets["train"]) / (10 * task.class_counts)).tolist()
    assert values("weighted_cross_entropy", hard)[0] != plain
    torch.testing.assert_close(
        values("weighted_cross_entropy", hard)[0], values("weighted_cross_entropy", hard, f"loss.weights={weights}")[0]
    )
    counts = task.class_counts.tolist()
    torch.testing.assert_close(
        values("class_balanced", hard)[0], values("class_balanced", hard, f"loss.counts={counts}")[0]
    )
