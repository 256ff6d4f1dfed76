"""Every class of metrics: batches of any size add up to the whole, and torchmetrics finds the same."""

import pytest
import torch
import torchmetrics.functional as reference
from hydra.utils import get_class
from torchmetrics.functional import classification as classes
from torchvision.ops import box_iou

from harness.errors import UsageError
from harness.metrics import declared
from harness.metrics.classification import AreaUnderCurve, ClassificationMetrics, area_under_curve
from harness.metrics.localisation import RunningOverlaps
from harness.metrics.regression import RunningErrors
from harness.metrics.segmentation import ConfusionMetrics

CPU = torch.device("cpu")


def drawn(seed=0):
    return torch.Generator().manual_seed(seed)


def classification(link="softmax"):
    target = torch.randint(0, 7, (300,), generator=drawn())
    logits = 2 * torch.randn(300, 7, generator=drawn(1)) + 2 * torch.nn.functional.one_hot(target, 7)
    counts = torch.tensor([90, 90, 90, 90, 90, 30, 30])
    return ClassificationMetrics(7, link, counts, CPU), (logits, target)


def segmentation(link="softmax"):
    target = torch.randint(0, 4, (24, 12, 10), generator=drawn())
    logits = torch.randn(24, 4, 12, 10, generator=drawn(1)) + torch.nn.functional.one_hot(target, 4).movedim(3, 1)
    target[:, 0] = 255
    return ConfusionMetrics(4, link, boundaries=True, device=CPU), (logits, target.to(torch.uint8))


def localisation():
    corner, side = 20 * torch.rand(200, 2, generator=drawn()), 1 + 10 * torch.rand(200, 2, generator=drawn(1))
    truth = torch.cat([corner, corner + side], 1).double()
    return RunningOverlaps(), (truth + torch.tensor([1.0, -0.5, 1.0, 0.5]), truth)


def regression():
    truth = 30 * torch.randn(200, generator=drawn()).double() + 150
    return RunningErrors(), (truth + 10 * torch.randn(200, generator=drawn(1)).double(), truth)


def scores(made, size):
    metrics, (found, truth) = made
    for part, aim in zip(found.split(size), truth.split(size), strict=True):
        metrics.add(part, aim)
    return metrics.scores(("background", "a", "b", "c")) if isinstance(metrics, ConfusionMetrics) else metrics.scores()


MAKERS = {
    "classification": classification,
    "classification, sigmoid": lambda: classification("sigmoid"),
    "classification, no link": lambda: classification(None),
    "segmentation": segmentation,
    "segmentation, no link": lambda: segmentation(None),
    "localisation": localisation,
    "regression": regression,
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("size", [1, 7, 64])
def test_several_batches_give_what_one_gives(make, size):
    whole, parts = scores(make(), 10**6), scores(make(), size)
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        near = None if value is None else pytest.approx(value, rel=1e-6, abs=1e-9)
        assert parts[name] == near, name


@pytest.mark.parametrize(
    ("make", "known"),
    [
        (classification, declared.CLASSIFICATION),
        (segmentation, declared.SEGMENTATION),
        (localisation, declared.LOCALISATION),
        (regression, declared.REGRESSION),
    ],
)
def test_what_is_declared_is_found_and_within_its_bounds(make, known):
    found = scores(make(), 50)
    assert found.keys() - {"per_class"} == {metric.key for metric in known}
    for metric in known:
        assert metric.low is None or found[metric.key] >= metric.low
        assert metric.high is None or found[metric.key] <= metric.high


def test_metrics_known_without_a_task_are_those_of_the_task():
    assert len(declared.BY_TASK) == 7
    for target, metrics in declared.BY_TASK.items():
        assert get_class(target).metrics == metrics


def test_classification_is_torchmetrics():
    _, (logits, target) = classification()
    found, p = scores(classification(), 32), logits.softmax(1)
    expected = {
        "top1": classes.multiclass_accuracy(p, target, 7, average="micro"),
        "top5": classes.multiclass_accuracy(p, target, 7, average="micro", top_k=5),
        "macro_f1": classes.multiclass_f1_score(p, target, 7, average="macro"),
        "balanced_accuracy": classes.multiclass_recall(p, target, 7, average="macro"),
        "auc": classes.multiclass_auroc(p, target, 7, average="macro"),
        "minority_recall": classes.multiclass_recall(p, target, 7, average="none")[5:].mean(),
        "ece": classes.multiclass_calibration_error(p, target, 7, n_bins=15),
        "nll": torch.nn.functional.cross_entropy(logits, target),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(float(value), abs=1e-6), name


@pytest.mark.parametrize("confident", [0.1, 3.0, 100.0])
def test_calibration_is_that_of_torchmetrics_up_to_certainty(confident):
    """At a scale of 100 some confidences are exactly 1 and lie on the last edge."""
    _, (logits, target) = classification()
    metrics, logits = classification()[0], confident * logits
    for part, aim in zip(logits.split(41), target.split(41), strict=True):
        metrics.add(part, aim)
    expected = classes.multiclass_calibration_error(logits.softmax(1), target, 7, n_bins=15)
    assert metrics.scores()["ece"] == pytest.approx(float(expected), abs=1e-6)


def test_segmentation_is_torchmetrics():
    _, (logits, target) = segmentation()
    found, aim, known = scores(segmentation(), 5), target.long(), {"num_classes": 4, "ignore_index": 255}
    expected = {
        "miou": classes.multiclass_jaccard_index(logits, aim, average="macro", **known),
        "dice": classes.multiclass_f1_score(logits, aim, average="macro", **known),
        "precision": classes.multiclass_precision(logits, aim, average="macro", **known),
        "recall": classes.multiclass_recall(logits, aim, average="macro", **known),
        "pixel_accuracy": classes.multiclass_accuracy(logits, aim, average="micro", **known),
        "ece": classes.multiclass_calibration_error(logits.softmax(1), aim, n_bins=15, **known),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(float(value), abs=1e-6), name


def test_regression_is_torchmetrics():
    _, (values, truth) = regression()
    found = scores(regression(), 33)
    assert found["r2"] == pytest.approx(float(reference.r2_score(values, truth)))
    assert found["rmse"] == pytest.approx(float(reference.mean_squared_error(values, truth, squared=False)))
    assert found["mae"] == pytest.approx(float(reference.mean_absolute_error(values, truth)))


def test_overlaps_are_torchvisions():
    _, (found, truth) = localisation()
    assert scores(localisation(), 17)["iou"] == pytest.approx(float(box_iou(found, truth).diagonal().mean()))


# ---------------------------------------------------------------------- the area under the curve of many items


def ranked(scores, target, monkeypatch, at_most):
    monkeypatch.setattr("harness.metrics.classification.EXACT_SCORES", at_most)
    area = AreaUnderCurve(scores.shape[1])
    for part, aim in zip(scores.split(97), target.split(97), strict=True):
        area.add(part, aim)
    return area


@pytest.mark.parametrize("sharpness", [0.0, 1.0, 30.0])
def test_a_histogram_of_scores_is_near_the_exact_area(monkeypatch, sharpness):
    """Also where nearly all probabilities are close to 0 and 1, as those of a trained network are."""
    target = torch.randint(0, 20, (3000,), generator=drawn())
    logits = torch.randn(3000, 20, generator=drawn(1)) + torch.nn.functional.one_hot(target, 20)
    found = (sharpness * logits).softmax(1) if sharpness else torch.rand(3000, 20, generator=drawn(2))
    area = ranked(found, target, monkeypatch, at_most=0)
    assert area.histogram is not None
    assert float(area.value()) == pytest.approx(float(area_under_curve(found, target)), abs=1e-3)


def test_the_memory_of_the_area_is_bounded(monkeypatch):
    found, target = torch.rand(3000, 4, generator=drawn()), torch.randint(0, 4, (3000,), generator=drawn(1))
    area = ranked(found, target, monkeypatch, at_most=4 * 500)
    assert area.scores.count == area.target.count == 0
    assert area.histogram is not None
    assert area.histogram.shape == (2, 4, AreaUnderCurve.BINS)
    assert float(area.histogram.sum()) == 3000 * 4
    few = ranked(found[:400], target[:400], monkeypatch, at_most=4 * 500)
    assert few.histogram is None
    assert float(few.value()) == float(area_under_curve(found[:400], target[:400]))


def test_ties_count_half_in_the_histogram_too(monkeypatch):
    area = ranked(torch.full((6, 3), 0.5), torch.tensor([0, 0, 1, 1, 2, 2]), monkeypatch, at_most=0)
    assert float(area.value()) == 0.5


# ---------------------------------------------------------------------- declarations


def test_a_metric_comes_back_from_a_record_as_it_was():
    for metric in declared.KNOWN.values():
        assert declared.from_dict(metric.as_dict()) == metric


def test_names_of_metrics_are_declared_or_refused():
    assert declared.metric_of("valid.top1").title == "validation top-1 accuracy"
    assert declared.metric_of("shifted.blur.top1").title == "test top-1 accuracy under blur"
    own = declared.Metric("luck", "luck")
    assert declared.metric_of("test.luck", [own]).title == "test luck"
    with pytest.raises(UsageError, match=r"unknown metric 'test\.tpo1': did you mean test\.top1"):
        declared.metric_of("test.tpo1")
    with pytest.raises(UsageError, match=r"unknown metric 'test\.luck'"):
        declared.metric_of("test.luck")
