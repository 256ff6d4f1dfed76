"""Metrics of detection: COCO's figures as pycocotools has them, VOC's, errors by kind, item scores, suppression."""

import contextlib
import io
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchvision.ops import batched_nms, box_iou

from harness.metrics.declared import metric_of
from harness.metrics.detection import DETECTION, DetectionMetrics, pairwise_iou
from harness.metrics.detection_curves import RECALLS, Curve, averages
from harness.metrics.detection_errors import KINDS, errors_of
from harness.metrics.items import scores as item_scores
from harness.tasks import suppression
from harness.tasks.suppression import survivors, undropped

CLASSES = 4
AREAS = ("small", "medium", "large")
COCOS = (
    "ap",
    "ap50",
    "ap75",
    *(f"ap_{area}" for area in AREAS),
    "ar1",
    "ar10",
    "ar100",
    *(f"ar_{area}" for area in AREAS),
)


def scattered(images, seed=0, *, detections=24, boxes=7, ignored=(0,), largest=150.0, whole=False):
    """Return what `DetectionMetrics.add` takes: boxes of many sizes, detections near them and on others, tied scores,
    some images without detections and some without boxes.
    """
    draw = torch.Generator().manual_seed(seed)

    def rand(*shape):
        return torch.rand(*shape, generator=draw, dtype=torch.float64)

    corner, side = 200 * rand(images, boxes, 2), 6 * (largest / 6) ** rand(images, boxes, 2)
    truth = torch.cat([corner, corner + side], 2)
    labels = torch.randint(-1, CLASSES, (images, boxes), generator=draw)
    kinds = torch.tensor(ignored)[torch.randint(0, len(ignored), (images, boxes), generator=draw)]
    place = torch.randint(0, boxes, (images, detections), generator=draw)
    meant = truth.gather(1, place[..., None].expand(-1, -1, 4))
    size = (meant[..., 2:] - meant[..., :2]).repeat(1, 1, 2)
    found = meant + 0.3 * size * rand(images, detections, 1) * (rand(images, detections, 4) - 0.5)
    other = torch.randint(-1, CLASSES, (images, detections), generator=draw)
    called = torch.where(rand(images, detections) < 0.7, labels.gather(1, place), other)
    if whole:
        truth, found = truth.round(), found.round()
    called[0::7], labels[1::5] = -1, -1
    return found, (30 * rand(images, detections)).round() / 30, called, truth, labels, kinds


def spread_of(name, kept):
    """Return the mean of the item scores of a metric, and the standard error of that mean."""
    found = item_scores(name, kept)
    assert found is not None
    return found.mean(), found.std() / len(found) ** 0.5


def metrics_of(batch, *cuts, classes=CLASSES):
    metrics = DetectionMetrics(classes, torch.device("cpu"))
    for rows in zip(*(part.tensor_split(cuts) for part in batch), strict=True):
        metrics.add(*rows)
    return metrics


def pycocotools(found, scores, called, truth, labels, ignored):
    """Return the twelve figures of pycocotools, None where it says -1; ids count from 1, as it needs."""
    notes, results = [], []
    for image in range(len(found)):
        for box, label, kind in zip(
            truth[image].tolist(), labels[image].tolist(), ignored[image].tolist(), strict=True
        ):
            if label >= 0:
                x, y, width, height = box[0], box[1], box[2] - box[0], box[3] - box[1]
                note = {"id": len(notes) + 1, "image_id": image, "category_id": label, "iscrowd": int(kind == 2)}
                notes.append({**note, "bbox": [x, y, width, height], "area": width * height})
        for box, score, label in zip(
            found[image].tolist(), scores[image].tolist(), called[image].tolist(), strict=True
        ):
            if label >= 0:
                bbox = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
                results.append({"image_id": image, "category_id": label, "bbox": bbox, "score": score})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        images, classes = ([{"id": each} for each in range(count)] for count in (len(found), CLASSES))
        dataset: Any = {"images": images, "categories": classes, "annotations": notes}
        coco.dataset = dataset
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")  # pyright: ignore[reportArgumentType]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [None if value == -1 else value for value in evaluation.stats.tolist()]


# ---------------------------------------------------------------- COCO


@pytest.mark.parametrize(
    ("seed", "asked"),
    [
        (0, {}),
        (1, {"ignored": (0, 0, 0, 2)}),
        (2, {"ignored": (0, 2), "whole": True}),
        (3, {"largest": 20.0, "ignored": (0, 0, 2)}),
        (4, {"largest": 300.0, "detections": 110, "boxes": 3}),
    ],
)
def test_the_twelve_figures_are_those_of_pycocotools(seed, asked):
    batch = scattered(16, seed, **asked)
    found = metrics_of(batch, 5, 6).scores()
    expected = pycocotools(*batch)
    assert [found[name] for name in COCOS] == pytest.approx(expected, abs=1e-6)
    assert found["ap"] > 0.1
    assert (found["ap_large"] is None) == (asked.get("largest") == 20.0)
    assert found["per_class"] == pytest.approx([found["ap"]] * CLASSES, abs=0.4)
    assert np.mean(found["per_class"]) == pytest.approx(found["ap"])


def test_at_most_a_hundred_detections_of_a_class_in_an_image_count():
    found, scores, called, truth, labels, ignored = scattered(3, 5, detections=130)
    batch = (found, scores, torch.ones_like(called), truth, torch.ones_like(labels), ignored)
    assert [metrics_of(batch).scores()[name] for name in COCOS] == pytest.approx(pycocotools(*batch), abs=1e-6)


def test_sizes_are_those_of_the_areas_that_are_given():
    found, scores, called, truth, labels, ignored = scattered(8, largest=20.0)
    metrics = DetectionMetrics(CLASSES, torch.device("cpu"))
    metrics.add(found, scores, called, truth, labels, ignored, torch.full(labels.shape, 32.0**2 + 1))
    values = metrics.scores()
    assert values["ap_small"] is None
    assert values["ap_medium"] > 0.1


def test_perfect_and_absent_detections_and_the_first_box_of_all():
    *_, truth, labels, ignored = scattered(4)
    labels[0, 0], sure = 1, torch.ones(labels.shape)
    values = metrics_of((truth, sure, labels, truth, labels, ignored)).scores()
    assert [values[name] for name in ("ap", "ap50", "ar100", "voc_ap50", "matched_iou")] == pytest.approx([1] * 5)
    assert values["never_found"] == values["calibration"] == 0
    none = metrics_of((truth, sure, torch.full_like(labels, -1), truth, labels, ignored)).scores()
    assert (none["ap"], none["ar100"], none["voc_ap50"], none["never_found"]) == (0, 0, 0, 1)
    assert none["matched_iou"] is none["calibration"] is None
    assert none["errors_missed"] == int((labels >= 0).sum()) / 4


@pytest.mark.parametrize("detections", [0, 5])
def test_without_a_single_box_there_is_no_precision(detections):
    found, scores, called, truth, labels, ignored = scattered(4, detections=detections)
    metrics = metrics_of((found, scores, called, truth, torch.full_like(labels, -1), ignored))
    values = metrics.scores()
    assert [values[name] for name in (*COCOS, "voc_ap50", "never_found", "lost_missed")] == [None] * 15
    assert values["errors_background"] == int((called >= 0).sum()) / 4
    assert set(metrics.items(torch.arange(4))) == {"item"}


def test_a_score_that_is_no_number_is_the_lowest():
    found, scores, called, truth, labels, ignored = scattered(12)
    lost = torch.rand(scores.shape, generator=torch.Generator().manual_seed(1)) < 0.2
    values = [
        metrics_of((found, torch.where(lost, filler, scores), called, truth, labels, ignored)).scores()
        for filler in (torch.nan, -1.0)
    ]
    same = [name for name in values[0] if name not in ("calibration", "per_class")]
    assert {name: values[0][name] for name in same} == {name: values[1][name] for name in same}
    assert 0 < values[0]["calibration"] < 1


# ---------------------------------------------------------------- Pascal VOC


def devkit(found, scores, called, truth, labels, ignored):
    """Return the means of average precision at an overlap of 0.5 at all points and at 11, detection by detection."""
    areas, few = [], []
    for label in range(CLASSES):
        rows, taken, boxes = [], set(), 0
        for image in range(len(found)):
            boxes += int(((labels[image] == label) & (ignored[image] == 0)).sum())
            rows += [(image, d) for d in range(len(scores[image])) if called[image, d] == label]
        if not boxes:
            continue
        rows.sort(key=lambda row: -float(scores[row]))
        hits = misses = 0
        curve = []
        for image, d in rows:
            overlaps = box_iou(found[image, d][None], truth[image])[0] * (labels[image] == label)
            best = int(overlaps.argmax())
            if overlaps[best] < 0.5:
                misses += 1
            elif ignored[image, best] == 0:
                hits, misses = (hits, misses + 1) if (image, best) in taken else (hits + 1, misses)
                taken.add((image, best))
            curve.append((hits / boxes, hits / max(1, hits + misses)))
        recalls = [0, *(recall for recall, _ in curve)]
        highest = [max(precision for _, precision in curve[k:]) for k in range(len(curve))]
        areas.append(sum((b - a) * p for a, b, p in zip(recalls, recalls[1:], highest, strict=False)))
        few.append(sum(max((p for r, p in curve if r >= k / 10), default=0) for k in range(11)) / 11)
    return sum(areas) / len(areas), sum(few) / len(few)


@pytest.mark.parametrize("ignored", [(0,), (0, 0, 1), (0, 1, 2)])
def test_the_precision_of_pascal_voc_knows_difficult_boxes(ignored):
    batch = scattered(12, 3, ignored=ignored)
    crowds = batch[-1] == 2
    batch[4][crowds] = -1  # the devkit knows none
    values = metrics_of(batch, 7).scores()
    assert (values["voc_ap50"], values["voc07_ap50"]) == pytest.approx(devkit(*batch))
    assert 0.1 < values["voc_ap50"] < 0.9


def test_a_difficult_box_makes_detections_neither_hits_nor_misses():
    box = torch.tensor([[[0.0, 0, 10, 10], [50, 50, 60, 60]]])
    twice = torch.tensor([[[50.0, 50, 60, 60], [50, 50, 60, 60], [0, 0, 10, 10]]])
    scores, called = torch.tensor([[0.9, 0.8, 0.7]]), torch.zeros(1, 3, dtype=torch.int64)
    labels = torch.zeros(1, 2, dtype=torch.int64)
    values = metrics_of((twice, scores, called, box, labels, torch.tensor([[0, 1]])), classes=1).scores()
    assert (values["ap"], values["voc_ap50"], values["errors_duplicate"]) == (1, 1, 0)
    plain = metrics_of((twice, scores, called, box, labels, torch.tensor([[0, 0]])), classes=1).scores()
    assert plain["voc_ap50"] == pytest.approx((1 + 2 / 3) / 2)
    assert plain["errors_duplicate"] == 1


def test_the_area_under_a_curve_by_hand():
    """Of 4 boxes, hits at ranks 1, 3 and 4: precisions 1, 2/3, 3/4, of which the second is raised to 3/4."""
    curve = Curve.of(np.array([True, False, True, True, False]), np.ones(5, bool), 4)
    assert curve.area() == pytest.approx((1 + 0.75 + 0.75) / 4)
    assert curve.read(np.array([0.25, 0.5, 0.76])) == pytest.approx((1 + 0.75 + 0) / 3)
    nothing = np.zeros(0, bool)
    assert Curve.of(nothing, nothing, 3).area() == 0


@pytest.mark.parametrize("size", [0, 1, 60])
def test_precision_of_many_lists_at_once_is_that_of_each_to_the_last_bit(size):
    rng = np.random.default_rng(size)
    counts = rng.random((10, size)) < 0.8
    right = counts & (rng.random((10, size)) < np.linspace(0, 0.9, 10)[:, None])
    each = [Curve.of(*lists, 41).read(RECALLS) for lists in zip(right, counts, strict=True)]
    assert averages(right, counts, 41).tolist() == each


# ---------------------------------------------------------------- errors


def test_kinds_of_error_by_hand():
    """One image with a hit and an error of every kind, and one that is perfect."""
    boxes = [[0.0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 70, 10], [80, 0, 90, 10]]
    labels = [0, 0, 0, 1, 1]
    found = [
        ([0, 0, 10, 10], 0, 0.95),  # a hit
        ([0, 0, 10, 9], 0, 0.85),  # the same again
        ([20, 0, 30, 4], 0, 0.75),  # overlap 0.4 with a box of its class
        ([40, 0, 50, 10], 1, 0.65),  # the other class
        ([60, 0, 70, 3], 0, 0.55),  # overlap 0.3 with a box of the other class
        ([0, 50, 10, 60], 0, 0.45),  # nothing
    ]
    *parts, scores = zip(*found, strict=True)
    place, called = torch.tensor(parts[0]).double()[None], torch.tensor(parts[1])[None]
    truth, true = torch.tensor(boxes).double()[None], torch.tensor(labels)[None]
    batch = (place, torch.tensor(scores)[None], called, truth, true, torch.zeros_like(true))
    metrics = metrics_of(batch, classes=2)
    sure = torch.ones(true.shape)
    metrics.add(truth, sure, true, truth, true)
    values = metrics.scores()
    expected = dict.fromkeys(KINDS, 0.5) | {"missed": 1.0}
    assert {kind: values[f"errors_{kind}"] for kind in KINDS} == expected
    assert values["never_found"] == 3 / 10  # the second, fourth and fifth box of the first image
    assert values["matched_iou"] == 1
    bins = [1 - 0.95, 0.85, 0.75, 0.65, 0.55, 0.45]  # with the one of 0.95 stand the five of 1, which are right
    assert values["calibration"] == pytest.approx(sum(bins) / 11)


@pytest.mark.parametrize("kind", ["background", "duplicate", "both"])
def test_what_an_error_costs_is_what_is_gained_without_the_detections_that_make_it(kind):
    found, scores, called, truth, labels, ignored = scattered(20, 7, detections=16)
    found[:, :4] += 40  # apart from everything
    batch = (found, scores, called, truth, labels, ignored)
    metrics = metrics_of(batch)
    before = metrics.scores()
    assert before[f"lost_{kind}"] > 0
    of = metrics.matched.found
    rows = np.flatnonzero(errors_of(*metrics.matched).kind == KINDS.index(kind))
    assert len(rows) / 20 == before[f"errors_{kind}"]
    kept = called.clone()
    for row in rows:
        same = (found[of.image[row]] == of.boxes[row]).all(1) & (called[of.image[row]] == of.label[row])
        kept[of.image[row], same] = -1
    after = metrics_of((found, scores, kept, truth, labels, ignored)).scores()
    assert after["ap50"] - before["ap50"] == pytest.approx(before[f"lost_{kind}"])


def test_what_wrong_places_classes_and_missed_boxes_cost():
    """Ten boxes of a class, five found; then an error that is mended finds a sixth one of ten, or makes it nine."""
    truth = torch.tensor([[20.0 * k, 0, 20 * k + 10, 10] for k in range(10)])[None]
    labels = torch.zeros(1, 10, dtype=torch.int64)
    place = torch.cat([truth[:, :5], truth[:, 5:6]], 1)
    scores, called = torch.linspace(0.9, 0.4, 6)[None], torch.tensor([[0, 0, 0, 0, 0, 1]])
    values = metrics_of((place, scores, called, truth, labels, torch.zeros_like(labels)), classes=2).scores()
    assert values["ap50"] == pytest.approx(51 / 101)
    assert values["lost_classification"] == pytest.approx(10 / 101)
    assert values["lost_missed"] == pytest.approx((84 - 51) / 101)  # recalls up to 5 / 6
    place[:, 5, 2:] -= 5
    values = metrics_of((place, scores, called * 0, truth, labels, torch.zeros_like(labels)), classes=2).scores()
    assert (values["lost_localisation"], values["lost_classification"]) == pytest.approx((10 / 101, 0))


# ---------------------------------------------------------------- item scores


def test_the_influence_of_an_image_is_the_derivative_by_its_weight():
    draw = np.random.default_rng(0)
    image, right = draw.integers(0, 6, 80), draw.random(80) < np.linspace(0.9, 0.2, 80)
    counts = right | (draw.random(80) < 0.8)
    boxes = np.bincount(image[right], minlength=6) + 2

    def area(weights):
        hits, seen = (np.cumsum(weights[image] * each) for each in (right, counts))
        highest = np.maximum.accumulate((hits / seen)[right][::-1])[::-1]
        return (weights[image][right] * highest).sum() / (weights * boxes).sum()

    curve = Curve.of(right, counts, int(boxes.sum()))
    assert curve.area() == pytest.approx(area(np.ones(6)))
    steps = 1e-6 * np.eye(6)
    expected = [(area(1 + step) - area(1 - step)) / 2e-6 for step in steps]
    assert curve.influence(image, boxes) / 6 == pytest.approx(np.array(expected), abs=1e-7)


def test_item_scores_average_to_the_metric_and_spread_as_new_images_would():
    images = 80
    batch = scattered(images, 11, detections=12)
    metrics = metrics_of(batch, 30)
    values, kept = metrics.scores(), metrics.items(torch.arange(images))
    for name in ("ap", "ap50", "ap75", "matched_iou", "never_found"):
        assert spread_of(name, kept)[0] == pytest.approx(values[name], abs=1e-6)
    draw = torch.Generator().manual_seed(0)
    redrawn = [
        metrics_of([part[rows] for part in batch]).scores()
        for rows in torch.randint(0, images, (150, images), generator=draw)
    ]
    for name in ("ap", "ap50", "ap75", "matched_iou", "never_found"):
        spread = np.std([values[name] for values in redrawn])
        assert spread_of(name, kept)[1] == pytest.approx(spread, rel=0.2)


def test_every_metric_is_declared_and_the_task_keeps_item_scores_of_the_test(loop):
    made = loop("task=detection", "dataset.train_size=16", "dataset.valid_size=8", "dataset.test_size=8")
    valid, test = (made.task.evaluate(made.predict, split) for split in ("valid", "test"))
    names = {metric.key for metric in DETECTION}
    assert set(valid) == names | {"per_class"}
    assert set(test) - set(valid) == {"items"}
    assert test["items"]["item"].tolist() == made.task.splits.test.index.tolist()
    assert spread_of("ap", test["items"])[0] == pytest.approx(test["ap"], abs=1e-6)
    assert metric_of("test.lost_missed", DETECTION).title == "test AP at IoU 0.5 lost: missed"


# ---------------------------------------------------------------- overlaps and suppression


def test_overlaps_are_torchvisions():
    draw = torch.Generator().manual_seed(0)
    corner, side = 20 * torch.rand(2, 30, 2, generator=draw)
    boxes = torch.cat([corner, corner + side], 1)
    torch.testing.assert_close(pairwise_iou(boxes[:10], boxes[10:]), box_iou(boxes[:10], boxes[10:]))
    assert not pairwise_iou(torch.zeros(1, 4), torch.zeros(1, 4)).any()


@pytest.mark.parametrize("overlap", [0.3, 0.6, 1.0])
def test_suppression_is_torchvisions(overlap, monkeypatch):
    monkeypatch.setattr(suppression, "AT_ONCE", 5000)  # several images at a time, of unequal numbers of detections
    found, scores, called, *_ = scattered(9, 1, detections=60, boxes=3)
    order = scores.argsort(dim=1, descending=True, stable=True)
    found, called = found.gather(1, order[..., None].expand(-1, -1, 4)), called.gather(1, order)
    there = (order % 5 > 0) & (torch.arange(60) < 8 * torch.arange(9).unsqueeze(1))  # none in the first image
    left = survivors(found, called, there, overlap)
    for image in range(9):
        rows = there[image].nonzero()[:, 0]
        ranks = torch.arange(len(rows), 0, -1).double()
        expected = rows[batched_nms(found[image, rows], ranks, called[image, rows] + 1, overlap)]
        assert left[image].nonzero()[:, 0].tolist() == sorted(expected.tolist())
    assert overlap == 1.0 or int(left.sum()) < int(there.sum())


def test_who_is_dropped_drops_nobody():
    drops = torch.zeros(2, 5, 5, dtype=torch.bool)
    drops[:, range(4), range(1, 5)] = True  # each drops the next
    there = torch.tensor([[True] * 5, [False, *[True] * 4]])
    assert undropped(drops, there).tolist() == [[True, False, True, False, True], [False, True, False, True, False]]
