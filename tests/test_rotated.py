"""Rotated boxes: scenes, exact overlap, suppression, average precision, pairs, learning, refusals."""

import math

import pytest
import torch
from shapely import Polygon

import datasets.sources.rotated_scenes as source
from datasets.rotated import RotatedSplits
from datasets.sources.crowded_scenes import crowded_scenes
from datasets.sources.rotated_scenes import OVERLAP, rotated_scenes
from datasets.stress import box_noise
from harness import address, compose
from harness.errors import UsageError
from harness.metrics.detection import pairwise_iou
from harness.metrics.rotated import RotatedMetrics, hulls, rotated_iou, shared_area, turn_between
from harness.tasks import Batch, Seeds
from harness.tasks.detection import PRIOR
from harness.tasks.rotated_detection import RotatedDetection, survivors
from harness.training.job import Job
from harness.training.loop import Loop

SIZES = {"train_size": 40, "valid_size": 10, "test_size": 10, "split_seed": 0}
SETTINGS = {"size": [48, 64], "digits": [2, 3], "objects": [1, 4], "sides": [16, 28], "narrowness": [0.5, 0.9], **SIZES}
SHOWN = ("ap", "ap50", "ap75", "matched_iou", "angle_error")
APART = ("_target_", "augment", "split")
BASE = ("task=rotated_detection", "dataset.train_size=96", "dataset.valid_size=16", "dataset.test_size=16")


def job(*overrides):
    config = compose.compose_run(["device=cpu", *overrides])
    spec = address.spec_of(config.config)
    data = {"root": "nowhere", "download": False}
    return Job("key", config.choices, "", "run", spec, 1, data, config.config["feed"], "", 1e9, {}, {})


def double(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def some(count, seed=0, thin=1.0):
    """Return boxes near each other, (count, 5) in float64."""
    draw = torch.Generator().manual_seed(seed)
    numbers = torch.rand(count, 5, generator=draw, dtype=torch.float64)
    low, high = double([0, 0, 0.1, 0.1, -4], [20, 20, 20, 20 * thin, 4])
    return low + numbers * (high - low)


def corners(box):
    x, y, width, height, angle = box
    sin, cos = math.sin(angle), math.cos(angle)
    signs = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    halves = [(i * width / 2, j * height / 2) for i, j in signs]
    return Polygon([(x + u * cos - v * sin, y + u * sin + v * cos) for u, v in halves])


def moved(boxes, across, down=0.0):
    """Return boxes moved along their own axes, in units of their sides."""
    sin, cos = boxes[:, 4].sin(), boxes[:, 4].cos()
    u, v = across * boxes[:, 2], down * boxes[:, 3]
    return torch.cat([boxes[:, :2] + torch.stack([u * cos - v * sin, u * sin + v * cos], 1), boxes[:, 2:]], 1)


# ---------------------------------------------------------------- overlap


@pytest.mark.parametrize("thin", [1.0, 0.02])
def test_the_shared_area_is_shapelys(thin):
    first, second = some(400, 1, thin), some(400, 2, thin)
    expected = [
        corners(one).intersection(corners(other)).area
        for one, other in zip(*map(torch.Tensor.tolist, (first, second)), strict=True)
    ]
    expected = torch.tensor(expected, dtype=torch.float64)
    assert (expected > 0).sum() > 60
    torch.testing.assert_close(shared_area(first, second), expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(shared_area(second, first), expected, rtol=1e-9, atol=1e-12)


def test_boxes_on_a_grid_share_what_shapely_says():
    """Corners on sides, sides on sides, one box in another: shapely is exact there, as coordinates are whole."""
    draw = torch.Generator().manual_seed(3)
    boxes = torch.randint(1, 5, (2, 300, 5), generator=draw).double()
    boxes[..., 4] *= math.pi / 2
    first, second = boxes
    expected = [
        corners(one).intersection(corners(other)).area
        for one, other in zip(first.tolist(), second.tolist(), strict=True)
    ]
    torch.testing.assert_close(shared_area(first, second), torch.tensor(expected).double(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda b: b, 1),
        (lambda b: b + double(0, 0, 0, 0, math.pi), 1),
        (lambda b: b[:, [0, 1, 3, 2, 4]] + double(0, 0, 0, 0, math.pi / 2), 1),
        (lambda b: b + 1e-13 * some(300, 9), 1),
        (lambda b: b * double(1, 1, 0.5, 0.5, 1), 0.25),
        (lambda b: moved(b * double(1, 1, 0.5, 0.5, 1), 0.5, 0.5), 0.25),  # within, from a corner on
        (lambda b: moved(b, 0.25), 0.75 / 1.25),
        (lambda b: moved(b, 1), 0),  # they share a side
        (lambda b: moved(b, 1, 1), 0),  # they share a corner
        (lambda b: moved(b, 3), 0),
        (lambda b: b * double(1, 1, 0, 1, 1), 0),
        (lambda b: b * double(1, 1, -1, 1, 1), 0),
    ],
)
def test_overlap_of_boxes_that_are_nearly_the_same_or_touch(change, expected):
    boxes = some(300, 4)
    other = change(boxes)
    for found in (rotated_iou(boxes, other), rotated_iou(other, boxes)):
        torch.testing.assert_close(found, torch.full_like(found, expected), rtol=1e-9, atol=1e-11)


def test_overlap_of_upright_boxes_and_of_nothing():
    boxes = some(60, 5)
    boxes[:, 4] = 0
    upright = hulls(boxes)
    torch.testing.assert_close(
        rotated_iou(boxes[:30, None], boxes[None, 30:]), pairwise_iou(upright[:30], upright[30:])
    )
    nothing = torch.zeros(2, 5)
    assert rotated_iou(nothing, nothing).tolist() == [0, 0]
    assert rotated_iou(nothing[:0], nothing[:0]).shape == (0,)


def test_hulls_hold_the_boxes():
    boxes = some(50, 6)
    expected = [corners(box).bounds for box in boxes.tolist()]
    torch.testing.assert_close(hulls(boxes), torch.tensor(expected, dtype=torch.float64))


def test_the_turn_between_boxes_is_that_of_their_longer_sides():
    first = torch.tensor([[0.0, 0, 2, 6, 0.1]]).expand(4, 5)
    second = torch.tensor([[0, 0, 2, 6, 0.3], [0, 0, 2, 6, 0.3 - math.pi], [0, 0, 6, 2, 0.3], [5, 5, 1, 2, 0.1]])
    expected = torch.tensor([0.2, 0.2, math.pi / 2 - 0.2, 0]).rad2deg()
    torch.testing.assert_close(turn_between(first, second), expected, rtol=0, atol=1e-4)


# ---------------------------------------------------------------- suppression and average precision


def test_the_most_certain_of_boxes_that_overlap_is_left():
    draw = torch.Generator().manual_seed(7)
    boxes, groups = some(120, 8).view(4, 30, 5), torch.randint(3, (4, 30), generator=draw)
    there = torch.rand(4, 30, generator=draw) < 0.8
    expected = torch.zeros_like(there)
    for image in range(4):
        for each in there[image].nonzero()[:, 0].tolist():
            before = [i for i in expected[image].nonzero()[:, 0].tolist() if groups[image, i] == groups[image, each]]
            overlap = rotated_iou(boxes[image, before], boxes[image, each])
            expected[image, each] = not (overlap > 0.2).any()
    found = survivors(boxes, groups, there, 0.2)
    assert torch.equal(found, expected)
    assert 0 < found.sum() < there.sum()


def test_average_precision_by_hand():
    """Two images with two boxes; hits at ranks 1 and 3 of four detections, one of them turned by 20 degrees."""
    truth = torch.tensor([[[20.0, 20, 10, 20, 0], [50, 50, 10, 20, 1]], [[20, 40, 10, 20, 0.5], [0, 0, 0, 0, 0]]])
    labels = torch.tensor([[0, 0], [0, -1]])
    turned = truth[:1, :1] + torch.tensor([0, 0, 0, 0, math.radians(20)])
    wrong = torch.tensor([[[50.0, 50, 10, 20, 1 + math.pi / 2]]])  # a quarter turn: overlap 1/3
    boxes = torch.cat([torch.cat([turned, wrong], 1), truth[1:]])
    metrics = RotatedMetrics(2, torch.device("cpu"))
    metrics.add(boxes, torch.tensor([[0.9, 0.8], [0.7, 0.6]]), torch.tensor([[0, 0], [0, -1]]), truth, labels)
    found, each = metrics.scores(), metrics.items(torch.tensor([7, 9]))
    overlap = float(rotated_iou(turned, truth[:1, :1]))
    assert 0.6 < overlap < 0.75
    assert found["ap50"] == pytest.approx((34 + 33 * 2 / 3) / 101)  # at recalls up to 0.33, and up to 0.66
    assert found["ap75"] == pytest.approx(34 / 3 / 101)
    assert found["matched_iou"] == pytest.approx((1 + overlap) / 2)
    assert found["angle_error"] == pytest.approx(10, abs=1e-4)
    assert each["item"].tolist() == [7, 9]
    assert each["angle_error"].tolist() == pytest.approx([20, 0], abs=1e-4)
    assert each["ap75"].mean() == pytest.approx(found["ap75"])


def test_no_detections_have_no_angle():
    metrics = RotatedMetrics(2, torch.device("cpu"))
    truth, labels = some(4).view(2, 2, 5), torch.tensor([[0, 1], [-1, 0]])
    metrics.add(truth, torch.ones(2, 2), torch.full((2, 2), -1), truth, labels)
    found = metrics.scores()
    assert {name: found[name] for name in SHOWN} == dict.fromkeys(SHOWN[:3], 0) | dict.fromkeys(SHOWN[3:])
    assert "angle_error" not in metrics.items(torch.arange(2))


# ---------------------------------------------------------------- data


def test_scenes_hold_digits_at_any_angle_within_the_image():
    splits = rotated_scenes(**SETTINGS)
    assert splits.classes == ("2", "3")
    assert splits.train.images.shape == (40, 3, 48, 64)
    assert splits.train.targets.shape == (40, 4, 6)
    boxes, labels = splits.train.targets[..., :5], splits.train.targets[..., 5]
    there = labels >= 0
    assert set(labels.unique().tolist()) == {-1, 0, 1}
    assert (int(there.sum(1).min()), int(there.sum(1).max())) == (1, 4)
    assert not boxes[~there].any()
    outside = hulls(boxes[there])
    assert outside[:, :2].min() > -1e-4
    assert (outside[:, 2:] < torch.tensor([64.0001, 48.0001])).all()
    assert (boxes[there][:, 2] < boxes[there][:, 3]).all()
    angles = boxes[there][:, 4]
    assert -math.pi / 2 <= angles.min() < -1.2
    assert 1.2 < angles.max() < math.pi / 2
    for row in range(40):
        overlap = pairwise_iou(*[hulls(boxes[row, there[row]])] * 2).fill_diagonal_(0)
        assert overlap.max() < OVERLAP


def test_a_scene_does_not_depend_on_how_many_there_are():
    few, many = rotated_scenes(**SETTINGS), rotated_scenes(**{**SETTINGS, "train_size": 60})
    assert torch.equal(few.train.images, many.train.images[:40])
    assert torch.equal(few.train.targets, many.train.targets[:40])
    assert torch.equal(few.test.images, many.test.images)
    assert few.checksum != many.checksum
    assert few.checksum == rotated_scenes(**SETTINGS).checksum


def test_a_box_is_around_what_covers_the_photograph(monkeypatch):
    settings = {**SETTINGS, "objects": [1, 1], "sides": [24, 24]}
    scenes = rotated_scenes(**settings).train
    monkeypatch.setattr(source, "_seen", lambda ink, *_: torch.zeros(len(ink), 1, 48, 64))
    bare = rotated_scenes(**settings).train.images.double()
    change = scenes.images - bare
    opacity = (change / torch.where(change > 0, 255 - bare, -bare)).amax(1)
    down, across = torch.meshgrid(torch.arange(48) + 0.5, torch.arange(64) + 0.5, indexing="ij")
    for covered, box in zip(opacity, scenes.targets[:, 0, :5].double(), strict=True):
        u = (across - box[0]) * box[4].cos() + (down - box[1]) * box[4].sin()
        v = (down - box[1]) * box[4].cos() - (across - box[0]) * box[4].sin()
        beyond = torch.stack([-u - box[2] / 2, u - box[2] / 2, -v - box[3] / 2, v - box[3] / 2])
        ink = beyond[:, covered > 0.3]
        assert ink.amax(1).min() > -1.5
        assert ink.max() < 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"digits": [11]}, r"dataset.digits is \[11\]"),
        ({"objects": [3, 2]}, r"dataset.objects is \[3, 2\]"),
        ({"sides": [12, 40]}, r"dataset.sides is \[12, 40\]; it must be a least and a greatest, from 8 to 32"),
        ({"narrowness": [0.5, 1.5]}, r"dataset.narrowness is \[0.5, 1.5\]"),
        ({"test_size": 0}, "dataset.test_size is 0"),
    ],
)
def test_scenes_that_cannot_be_made_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        rotated_scenes(**{**SETTINGS, **changes})


def test_a_box_of_no_class_is_refused():
    parts = list(rotated_scenes(**SETTINGS).parts.values())
    with pytest.raises(ValueError, match="the train targets hold the class 1"):
        RotatedSplits(*parts, ("2",))


def test_a_share_of_training_boxes_is_drawn_wrongly():
    splits = rotated_scenes(**{**SETTINGS, "train_size": 200})
    few, many = (box_noise(splits, rate=rate, seed=3) for rate in (0.2, 0.5))
    assert torch.equal(box_noise(splits, rate=0, seed=3).train.targets, splits.train.targets)
    assert few.valid is splits.valid
    assert few.test is splits.test
    right, wrong = splits.train.targets, many.train.targets
    there = right[..., 5] >= 0
    assert torch.equal(wrong[..., 5], right[..., 5])
    assert not wrong[~there][:, :5].any()
    changed = (wrong != right).any(2)
    assert changed.sum() / there.sum() == pytest.approx(0.5, abs=0.07)
    earlier = (few.train.targets != right).any(2)
    assert earlier.sum() / there.sum() == pytest.approx(0.2, abs=0.07)
    assert torch.equal(few.train.targets[earlier], wrong[earlier])
    before, after = right[changed], wrong[changed]
    assert ((after[:, :2] - before[:, :2]).abs() <= before[:, 2:4] / 2).all()
    stretched = after[:, 2:4] / before[:, 2:4]
    assert 0.5 <= stretched.min() < 0.6
    assert 1.7 < stretched.max() <= 2
    assert -math.pi / 2 <= after[:, 4].min()
    assert after[:, 4].max() < math.pi / 2
    turns = turn_between(before[:, :5], torch.cat([before[:, :4], after[:, 4:5]], 1))
    assert turns.max() > 80


def test_upright_boxes_drawn_wrongly_lie_in_the_image():
    settings = {**compose.option("dataset", "crowded_scenes"), **SIZES}
    splits = crowded_scenes(**{name: value for name, value in settings.items() if name not in APART})
    found = box_noise(splits, rate=0.9, seed=0).train.targets
    there = found[..., 4] >= 0
    boxes, size = found[there][:, :4], splits.train.images.shape[-1]
    assert ((boxes != splits.train.targets[there][:, :4]).any(1)).float().mean() > 0.8
    assert boxes.min() >= 0
    assert boxes.max() <= size
    assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_only_boxes_can_be_drawn_wrongly():
    with pytest.raises(ValueError, match="stress=box_noise changes boxes, which these data do not have"):
        Loop(job("stress=box_noise", "dataset=digits"))


# ---------------------------------------------------------------- the task


def maps_of(boxes, there):
    """Return what the cells of 8 pixels of an image of 64 must say to give these boxes, (N,64,5), by kind."""
    places = torch.arange(8) * 8.0 + 4
    centres = torch.stack(torch.meshgrid(places, places, indexing="xy"), 2).view(-1, 2)
    sides = torch.cat([(boxes[..., :2] - centres) / 8, torch.where(there[..., None], boxes[..., 2:4] / 8, 1).log()], 2)
    angle = torch.stack([(2 * boxes[..., 4]).sin(), (2 * boxes[..., 4]).cos() - 1], 2)
    return {
        kind: (values.transpose(1, 2).unflatten(2, (8, 8)),) for kind, values in (("sides", sides), ("angle", angle))
    }


def test_a_cell_that_is_right_gives_back_its_boxes():
    task = Loop(job(*BASE)).task
    batch = next(task.epoch(Seeds(1, 2)))
    truth, labels = batch.target[..., :5], batch.target[..., 5].long()
    empty = {
        "objects": (torch.zeros(16, 3, 8, 8),),
        "sides": (torch.zeros(16, 4, 8, 8),),
        "angle": (torch.ones(16, 2, 8, 8),),
    }
    pairs = task.pairs(empty, batch)
    wanted = pairs["binary_logits"].target
    there = wanted.any(2)
    assert pairs["rotated_boxes"].target.shape == (int(there.sum()), 5)
    boxes = torch.zeros(16, 64, 5)
    boxes[there] = pairs["rotated_boxes"].target
    maps = maps_of(boxes, there) | {"objects": ((20 * wanted - 10 - PRIOR).transpose(1, 2).unflatten(2, (8, 8)),)}
    right = task.pairs(maps, batch)
    for pair in (right["rotated_boxes"], right["values"]):
        torch.testing.assert_close(pair.prediction, pair.target, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(right["quality_logits"].target, wanted.float(), rtol=0, atol=1e-4)
    metrics = RotatedMetrics(3, torch.device("cpu"))
    metrics.add(*task.found(maps), truth, labels)
    assert [metrics.scores()[name] for name in SHOWN] == pytest.approx([1, 1, 1, 1, 0], abs=1e-2)


def test_values_do_not_see_half_turns():
    """A prediction that is half a turn away, but for a tenth, is off by the arc of a tenth, in cells."""
    task = Loop(job(*BASE)).task
    truth = torch.tensor([[[36.0, 36, 8, 24, 1.5, 0]]])
    cell = torch.zeros(1, 64, dtype=torch.bool)
    cell[0, 36] = True  # around (36, 36)
    boxes = torch.where(cell[..., None], truth[..., :5] + torch.tensor([0, 0, 0, 0, 0.1]), 0)
    maps = maps_of(boxes, cell) | {"objects": (torch.zeros(1, 3, 8, 8),)}
    pairs = task.pairs(maps, Batch((), truth))
    at = (pairs["values"].prediction[:, 4] - pairs["values"].target[:, 4]).abs().argmin()
    assert float(pairs["rotated_boxes"].prediction[:, 4].min()) < -1.5  # 1.6 is beyond the end of the range
    difference = (pairs["values"].prediction - pairs["values"].target)[at]
    torch.testing.assert_close(difference, torch.tensor([0, 0, 0, 0, 0.1 * 12 / 8]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        ("loss.boxes=gwd",),
        ("loss.boxes=kld_box", "loss.classes=cross_entropy"),
        ("loss.boxes=piou", "task.balance=fixed"),
        ("loss.boxes=smooth_l1", "loss.classes=quality_focal", "task.assignment=task_aligned"),
        ("loss.boxes=negative_control_high", "task.assignment=centre"),
    ],
)
def test_losses_of_rotated_boxes_train_every_weight(changes):
    made = Loop(job(*BASE, *changes))
    before = {name: p.detach().clone() for name, p in made.model.named_parameters()}
    for batch in made.task.epoch(Seeds(1, 2)):
        made.step(batch)
    now = dict(made.model.named_parameters())
    assert all(each.isfinite().all() for each in now.values())
    assert not [name for name, old in before.items() if torch.equal(now[name], old)]


def test_the_grid_of_piou_is_the_image():
    made = Loop(job(*BASE, "loss.boxes=piou", "dataset.size=[48,64]"))
    task = made.task
    assert (task.statistic("image_width"), task.statistic("image_height")) == (64.0, 48.0)
    targets = task.splits.train.targets
    sizes = [float(box[2] * box[3]) ** 0.5 for image in targets for box in image if box[5] >= 0]
    assert task.statistic("object_size") == pytest.approx(sum(sizes) / len(sizes))
    assert task.describe()["class_counts"] == torch.bincount(targets[..., 5].long().flatten() + 1)[1:].tolist()


def test_a_detector_learns_far_beyond_an_untrained_one(tmp_path):
    settings = (
        "dataset.train_size=240",
        "dataset.digits=[0,1]",
        "trainer.epochs=6",
        "dataset.size=[32,32]",
        "dataset.sides=[16,21]",
        "dataset.objects=[1,1]",
    )
    made = Loop(job(*BASE[:1], *BASE[2:], *settings))
    assert made.evaluate("test")["ap50"] < 0.05
    record, _, examples = made.run(tmp_path, lambda: False, lambda *_: None)[:3]
    assert record["metrics"][0]["key"] == "ap"
    assert record["test"]["ap50"] > 0.2
    assert examples["corners"].shape[2:] == examples["true_corners"].shape[2:] == (4, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("dataset.augment.colour=0", "+dataset.augment.shift=2"), "set dataset.augment.shift=null"),
        (("loss.boxes=giou",), "compares boxes, but loss.boxes may compare only rotated_boxes and values"),
        (
            ("task=detection", "dataset=rotated_scenes"),
            "rotated boxes with a class each .*: use task=rotated_detection",
        ),
        (("dataset=crowded_scenes",), "crowded_scenes has boxes with a class each .*: use task=detection"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(changes, message):
    with pytest.raises(UsageError, match=message) as refusal:
        Loop(job(*BASE, *changes))
    assert "\n" not in str(refusal.value)


def test_corners_go_around_a_box_as_it_is_turned():
    box = torch.tensor([[[3.0, 2.5, 4, 2, 0], [3.0, 2.5, 4, 2, math.pi / 2]]])
    expected = [[[1, 1.5], [5, 1.5], [5, 3.5], [1, 3.5]], [[4, 0.5], [4, 4.5], [2, 4.5], [2, 0.5]]]
    torch.testing.assert_close(RotatedDetection.corners(box), torch.tensor([expected]))
