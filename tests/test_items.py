"""What runs keep of every test item: item scores have the metric as their mean, and its sampling variance."""

import numpy as np
import pytest
import torch

from harness.metrics import items
from harness.metrics.classification import ClassificationMetrics
from harness.metrics.localisation import RunningOverlaps
from harness.metrics.multilabel import MultilabelMetrics
from harness.metrics.regression import metrics as of_regression
from harness.metrics.segmentation import ConfusionMetrics
from harness.records import items as kept_items

N, DRAWS = 400, 600
FEW = {
    "classification": ("dataset.train_size=200", "dataset.test_size=90"),
    "table_classification": (),
    "segmentation": ("model=fcn_micro", "dataset.train_size=16", "dataset.valid_size=8", "dataset.test_size=12"),
    "localisation": ("dataset.train_size=64", "dataset.valid_size=8", "dataset.test_size=12"),
    "regression": (),
    "multilabel": ("dataset.train_size=100", "dataset.valid_size=40", "dataset.test_size=50"),
}


def classifier(rng):
    target = rng.choice(4, N, p=[0.5, 0.25, 0.15, 0.1])
    correct = rng.random(N) < np.array([0.9, 0.7, 0.6, 0.5])[target]
    return target, np.where(correct, target, (target + 1) % 4)


def classified(target, predicted, keep=True):
    made = ClassificationMetrics(4, None, torch.ones(4), torch.device("cpu"), keep=keep)
    made.add(torch.nn.functional.one_hot(torch.from_numpy(predicted), 4).double(), torch.from_numpy(target))
    return made


def masked(truth, predicted, keep=True):
    made = ConfusionMetrics(3, None, boundaries=False, device=torch.device("cpu"), keep=keep)
    made.add(torch.nn.functional.one_hot(predicted, 3).movedim(3, 1).double(), truth)
    return made


def masks(rng):
    """Images of 6x6 pixels that are unequally hard; one class is rare."""
    truth = rng.choice(3, (N, 6, 6), p=[0.6, 0.3, 0.1])
    wrong = rng.random((N, 6, 6)) < rng.random((N, 1, 1)) * 0.6
    return torch.from_numpy(truth), torch.from_numpy(np.where(wrong, (truth + 1) % 3, truth))


def bootstrapped(value, draws=DRAWS):
    """Return the variance of a metric over items drawn with replacement; ``value`` takes the rows."""
    rng = np.random.default_rng(1)
    return np.var([value(rng.integers(0, N, N)) for _ in range(draws)])


def check(scores, value, of_rows):
    """Item scores have the metric as mean, and the variance of their mean is that of the metric."""
    assert scores is not None
    assert scores.dtype == np.float64
    assert scores.mean() == pytest.approx(value, abs=1e-6, rel=1e-6)
    assert scores.var() / N == pytest.approx(bootstrapped(of_rows), rel=0.2)


@pytest.mark.parametrize("metric", ["top1", "balanced_accuracy", "gmean"])
def test_item_scores_of_a_classifier(metric):
    target, predicted = classifier(np.random.default_rng(0))
    made = classified(target, predicted)
    scores = items.scores(metric, made.items(torch.arange(N)))
    check(scores, made.scores()[metric], lambda rows: classified(target[rows], predicted[rows]).scores()[metric])


@pytest.mark.parametrize("metric", ["miou", "foreground_iou", "dice", "pixel_accuracy", "miou_image", "dice_image"])
def test_item_scores_of_masks(metric):
    truth, predicted = masks(np.random.default_rng(0))
    classes = ("background", "a", "b")
    made = masked(truth, predicted)
    scores = items.scores(metric, made.items(torch.arange(N), classes))
    check(
        scores, made.scores(classes)[metric],
        lambda rows: masked(truth[rows], predicted[rows], keep=False).scores(classes)[metric],
    )  # fmt: skip


@pytest.mark.parametrize("metric", ["map", "exact_match", "label_accuracy"])
def test_item_scores_of_several_labels(metric):
    rng = np.random.default_rng(0)
    truth = rng.random((N, 3)) < [0.5, 0.3, 0.2]
    logits = np.round(rng.normal(size=(N, 3)) + 1.5 * truth - 0.7, 1)  # some are ties

    def made(rows):
        found = MultilabelMetrics("sigmoid")
        found.add(torch.from_numpy(logits[rows]), torch.from_numpy(truth[rows]))
        return found

    scores = items.scores(metric, made(np.arange(N)).items(torch.arange(N)))
    check(scores, made(np.arange(N)).scores()[metric], lambda rows: made(rows).scores()[metric])


@pytest.mark.parametrize("metric", ["r2", "rmse", "mae"])
def test_item_scores_of_numbers(metric):
    rng = np.random.default_rng(0)
    truth = rng.normal(100, 20, N)
    found = truth + rng.standard_t(8, N) * 10

    def value(rows):
        return of_regression(torch.from_numpy(found[rows]), torch.from_numpy(truth[rows]))[metric]

    kept = items.of_values(np.arange(N), found - truth, truth)
    scores = items.scores(metric, kept)
    check(scores, value(np.arange(N)), value)


def test_item_scores_of_boxes_say_which_are_found():
    truth = torch.tensor([[0.0, 0, 8, 8]]).repeat(4, 1).double()
    found = torch.tensor([[0.0, 0, 8, 8], [0, 0, 8, 4], [0, 0, 8, 3], [0, 0, 6.5, 8]]).double()
    made = RunningOverlaps()
    made.add(found, truth)
    kept, metrics = made.items(torch.tensor([3, 4, 7, 9])), made.scores()
    assert kept["item"].tolist() == [3, 4, 7, 9]
    for name in ("iou", "found50", "found75"):
        scores = items.scores(name, kept)
        assert scores is not None
        assert scores.mean() == pytest.approx(metrics[name], abs=1e-6)
    assert items.scores("found50", kept).tolist() == [1, 1, 0, 1]


def test_there_are_no_item_scores_where_a_metric_has_no_derivative_or_is_none_of_them():
    target, predicted = np.array([0, 0, 1, 1]), np.array([0, 0, 0, 0])
    kept = items.of_classes(np.arange(4), target, target == predicted)
    assert items.scores("gmean", kept) is None
    assert items.scores("minority_recall", kept) is None
    assert items.scores("balanced_accuracy", kept).tolist() == [0.5] * 4  # recalls of 1 and 0 do not vary
    perfect = items.of_values(np.arange(3), np.zeros(3), np.arange(3.0))
    assert items.scores("rmse", perfect).tolist() == [0, 0, 0]
    assert items.scores("mdae", perfect) is None
    assert items.scores("item", items.of_scores(np.arange(3), {})) is None


@pytest.mark.parametrize("task", FEW)
def test_what_a_run_keeps_has_the_recorded_metrics_as_means(loop, tmp_path, task):
    shift = () if "table" in task or task == "regression" else ("shift=[noise]",)
    run = loop(f"task={task}", "trainer.batch_size=16", *FEW[task], *shift)
    record, _, _, kept = run.run(tmp_path, lambda: False, lambda *_: None)
    kept_items.save(tmp_path, kept)
    read = kept_items.load(tmp_path)
    assert read is not None
    assert {name.split("/")[0] for name in read} == {"test", *(["shifted.noise"] if shift else [])}
    found = 0
    for test_set, scores in {"test": record["test"], "shifted.noise": record.get("shifted", {}).get("noise")}.items():
        arrays = kept_items.of_test_set(read, test_set)
        for name, value in (scores or {}).items():
            each = items.scores(name, arrays)
            if each is not None:
                found += 1
                assert each.mean() == pytest.approx(value, abs=1e-6, rel=1e-6), name
                assert len(each) == len(arrays["item"])
        if arrays:
            test = run.task.splits.test
            assert set(arrays["item"].tolist()) <= set(np.asarray(test.index).tolist())
    assert found >= 2
    assert "items" not in record["test"]
    assert run.evaluate("valid").keys() == run.evaluate("test").keys()


def test_right_and_wrong_answers_stand_at_the_place_of_their_image(loop, tmp_path):
    """The images that a run got right, found by asking its model once more, one by one."""
    run = loop("dataset.train_size=200", "dataset.test_size=90")
    *_, kept = run.run(tmp_path, lambda: False, lambda *_: None)
    right = np.unpackbits(kept["test/correct"], count=90).astype(bool)
    test = run.task.splits.test
    assert kept["test/item"].tolist() == test.index.tolist()
    assert kept["test/target"].tolist() == test.targets.tolist()
    with torch.inference_mode():
        single = [int(run.predict(run.task.ready(image[None]))["class_logits"].argmax()) for image in test.images]
    assert right.tolist() == (np.array(single) == test.targets.numpy()).tolist()
    assert kept["test/correct"].nbytes == 12


@pytest.mark.parametrize("content", [b"", b"no archive"])
def test_a_damaged_file_is_none(tmp_path, content):
    assert kept_items.load(tmp_path) is None
    (tmp_path / kept_items.NAME).write_bytes(content)
    assert kept_items.load(tmp_path) is None
