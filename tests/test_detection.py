"""Detection: scenes, assignment, matcher and average precision, learning, resume bit for bit, refusals."""

import pytest
import torch

from datasets.sources.crowded_scenes import crowded_scenes
from harness import address, compose
from harness.errors import UsageError
from harness.metrics.detection import DetectionMetrics, pairwise_iou
from harness.tasks import Seeds, detection
from harness.tasks.assignment import Cells, aligned_quality, atss
from harness.tasks.detection import PRIOR, SHOWN
from harness.training.job import Job, Stopped
from harness.training.loop import Loop

SIZES = {"train_size": 40, "valid_size": 10, "test_size": 10, "split_seed": 0}
SETTINGS = {"size": [64, 64], "digits": [0, 1, 4], "objects": [1, 5], "sides": [12, 32], "overlap": 0.2, **SIZES}
BASE = (
    "task=detection",
    "dataset.size=[64,64]",
    "dataset.sides=[12,32]",
    "dataset.objects=[1,5]",
    "dataset.train_size=128",
    "dataset.valid_size=32",
    "dataset.test_size=32",
    "trainer.epochs=2",
)


def job(*overrides, seed=1):
    config = compose.compose_run(["device=cpu", *overrides])
    spec = address.spec_of(config.config)
    data = {"root": "nowhere", "download": False}
    return Job("key", config.choices, "", "run", spec, seed, data, config.config["feed"], "", 1e9, {}, {})


def run(made, folder, stop=lambda: False):
    return made.run(folder, stop, lambda *_: None)[:3]


def boxes_of(*rows):
    return torch.tensor(rows, dtype=torch.float32)


# ---------------------------------------------------------------- data


def test_scenes_hold_digits_within_the_image_that_hardly_cover_each_other():
    splits = crowded_scenes(**SETTINGS)
    assert splits.classes == ("0", "1", "4")
    assert splits.train.images.shape == (40, 3, 64, 64)
    assert splits.train.targets.shape == (40, 5, 6)
    boxes, labels = splits.train.targets[..., :4], splits.train.targets[..., 4]
    there = labels >= 0
    counts = there.sum(1)
    assert (int(counts.min()), int(counts.max())) == (1, 5)
    assert set(labels.unique().tolist()) == {-1, 0, 1, 2}
    assert not boxes[~there].any()
    assert (boxes[there] >= 0).all()
    assert (boxes[there] <= 64).all()
    sides = (boxes[there][:, 2:] - boxes[there][:, :2]).amax(1)
    assert 10 <= sides.min() < sides.max() <= 32
    for row in range(40):
        overlap = pairwise_iou(boxes[row, there[row]], boxes[row, there[row]]).fill_diagonal_(0)
        assert overlap.max() < 0.4  # boxes are tighter than the squares that were kept apart


def test_a_scene_does_not_depend_on_how_many_there_are():
    few, many = crowded_scenes(**SETTINGS), crowded_scenes(**{**SETTINGS, "train_size": 60})
    assert torch.equal(few.train.images, many.train.images[:40])
    assert torch.equal(few.test.targets, many.test.targets)
    assert few.checksum != many.checksum
    assert few.checksum == crowded_scenes(**SETTINGS).checksum


def test_a_box_is_around_what_differs_from_the_scene_without_it():
    one = crowded_scenes(**{**SETTINGS, "objects": [1, 1], "sides": [24, 24]})
    box = one.train.targets[:, 0, :4]
    assert ((box[:, 2:] - box[:, :2]).amax(1) >= 20).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"digits": [11]}, r"dataset.digits is \[11\]"),
        ({"objects": [3, 2]}, r"dataset.objects is \[3, 2\]"),
        ({"sides": [12, 80]}, "must be two sides from 8 to 64 pixels"),
        ({"test_size": 0}, "dataset.test_size is 0"),
        ({"overlap": 1.5}, "dataset.overlap is 1.5"),
    ],
)
def test_scenes_that_cannot_be_made_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        crowded_scenes(**{**SETTINGS, **changes})


# ---------------------------------------------------------------- the task


CENTRES = torch.stack(torch.meshgrid(torch.arange(8), torch.arange(8), indexing="xy"), 2).view(-1, 2) * 8.0 + 4
CELLS = Cells(CENTRES, torch.full((64,), 8.0), (64,))


def test_cells_are_asked_to_find_the_boxes_that_they_lie_in():
    truth = boxes_of([8, 8, 40, 40], [44, 44, 60, 64], [0, 0, 0, 0])[None]
    found = atss(truth, torch.tensor([[True, True, False]]), CELLS)[0]
    assert set(found.tolist()) == {-1, 0, 1}
    for box in (0, 1):
        mine = CENTRES[found == box]
        assert len(mine) <= 9
        assert (mine > truth[0, box, :2]).all()
        assert (mine < truth[0, box, 2:]).all()
    # 9 cells around (24, 24) on a grid of 8: the four at distance sqrt(32) overlap alike, and more than the others
    assert sorted(CENTRES[found == 0].tolist()) == [[20, 20], [20, 28], [28, 20], [28, 28]]


def test_a_box_between_all_centres_gets_the_nearest_cell():
    truth = boxes_of([9, 9, 11, 11])[None]
    found = atss(truth, torch.ones(1, 1, dtype=torch.bool), CELLS)[0]
    assert CENTRES[found == 0].tolist() == [[12, 12]]


def test_task_alignment_asks_the_best_cell_of_a_box_for_the_best_overlap():
    """Alignments are .5 x .8^6, .25 x .8^6 and 1 x .4^6 for the first box, and the second box has one cell."""
    scores = torch.tensor([[0.5, 0.25, 1.0, 0.3, 0.9]])
    overlap = torch.tensor([[0.8, 0.8, 0.4, 0.6, 0.9]])
    quality = aligned_quality(scores, overlap, torch.tensor([[0, 0, 0, 1, -1]]), 3)
    expected = [0.8, 0.4, 0.8 * 2 * 0.5**6, 0.6, 0.0]
    torch.testing.assert_close(quality, torch.tensor([expected]))
    assert not aligned_quality(torch.zeros(1, 2), torch.zeros(1, 2), torch.tensor([[0, -1]]), 1).any()


@pytest.mark.parametrize("rule", ["atss", "task_aligned"])
def test_losses_of_quality_are_asked_for_overlaps_in_the_class_of_the_box(rule):
    made = Loop(job(*BASE, f"task.assignment={rule}", "loss.classes=quality_focal"))
    batch = next(made.task.epoch(Seeds(0, 0)))
    pairs = made.task.pairs(made.model(*batch.inputs), batch)
    quality, wanted = pairs["quality_logits"].target, pairs["binary_logits"].target
    found, truth, mask = pairs["boxes"]
    overlap = pairwise_iou(found.detach().unsqueeze(1), truth.unsqueeze(1)).flatten()[mask]
    assert not quality[wanted == 0].any()
    highest = quality.amax(2).flatten()[mask]
    assert highest.max() == pytest.approx(float(overlap.max()))
    assert torch.equal(highest, overlap) == (rule == "atss")


def test_a_cell_that_is_right_gives_back_its_boxes():
    """Scores and edges as they should be make detections that are the true boxes."""
    task = Loop(job(*BASE)).task
    batch = next(task.epoch(Seeds(1, 2)))
    truth, labels = batch.target[..., :4], batch.target[..., 4].long()
    empty = {"objects": (torch.zeros(16, 3, 8, 8),), "sides": (torch.zeros(16, 4, 8, 8),)}
    pairs = task.pairs(empty, batch)
    target, mask = pairs["boxes"].target.view(16, 64, 4), pairs["boxes"].mask.view(16, 64)
    edges = torch.cat([CENTRES - target[..., :2], target[..., 2:] - CENTRES], 2).clamp_min(0.1) / 8
    right = {
        "objects": ((20 * pairs["binary_logits"].target - 10 - PRIOR).transpose(1, 2).unflatten(2, (8, 8)),),
        "sides": (torch.where(mask[..., None], edges.log(), 0).transpose(1, 2).unflatten(2, (8, 8)),),
    }
    metrics = DetectionMetrics(3, torch.device("cpu"))
    metrics.add(*task.found(right), truth, labels)
    assert metrics.scores()["ap50"] == pytest.approx(1, abs=0.02)  # cells outside a thin box cannot hold it
    torch.testing.assert_close(pairs["values"].target * 8, pairs["boxes"].target)
    assert pairs["binary_logits"].target.sum() == mask.sum()


def test_detections_of_one_class_that_overlap_are_dropped():
    task = Loop(job(*BASE)).task
    outputs = {"objects": (torch.full((1, 3, 8, 8), -20.0),), "sides": (torch.zeros(1, 4, 8, 8),)}
    outputs["objects"][0][0, 0, 3, 3:5] = torch.tensor([9.0, 8.0])  # neighbours: the boxes overlap by a third
    outputs["objects"][0][0, 1, 3, 3] = 7.0
    boxes, scores, labels = task.found(outputs)
    assert labels.tolist() == [[0, 0, 1]]
    assert scores[0].tolist() == sorted(scores[0].tolist(), reverse=True)
    torch.testing.assert_close(boxes[0, 0], torch.tensor([20.0, 20, 36, 36]))
    task.nms = 0.3
    assert task.found(outputs)[2].tolist() == [[0, 1]]


def test_images_are_normalised_a_few_at_a_time_to_the_same_bits(monkeypatch):
    task = Loop(job(*BASE)).task
    images, _ = task.feed.rows("train", torch.arange(10))
    task.format, expected = torch.channels_last, task.normalised(images)
    for many in (1, 3 * images[0].numel(), 1 << 30):
        monkeypatch.setattr(detection, "AT_ONCE", many)
        ready = task.ready(images)
        torch.testing.assert_close(ready, expected, atol=0, rtol=1e-6)
        assert ready.is_contiguous(memory_format=torch.channels_last)


def test_equal_seeds_give_equal_batches_from_any_batch_on():
    task = Loop(job(*BASE)).task
    whole, rest = list(task.epoch(Seeds(3, 4))), list(task.epoch(Seeds(3, 4), first=5))
    assert len(whole) == task.steps_per_epoch == 8
    for one, other in zip(whole[5:], rest, strict=True):
        assert torch.equal(one.inputs[0], other.inputs[0])
        assert torch.equal(one.target, other.target)


@pytest.mark.parametrize("model", ["detector_micro", "vit_detector_micro"])
@pytest.mark.parametrize("loss", ["giou", "smooth_l1"])
def test_losses_of_boxes_and_of_values_train_every_weight(model, loss):
    made = Loop(job(*BASE, f"model={model}", f"loss.boxes={loss}", "loss.classes=binary_cross_entropy"))
    before = {name: p.detach().clone() for name, p in made.model.named_parameters() if "fc_norm" not in name}
    for batch in made.task.epoch(Seeds(1, 2)):
        made.step(batch)
    now = dict(made.model.named_parameters())
    assert all(now[name].isfinite().all() for name in before)
    assert not [name for name, old in before.items() if torch.equal(now[name], old)]


def test_a_detector_learns_far_beyond_an_untrained_one(tmp_path):
    settings = ("dataset.train_size=320", "trainer.epochs=5", "dataset.size=[48,48]", "dataset.sides=[16,24]")
    made = Loop(job(*BASE, *settings))
    assert made.evaluate("test")["ap50"] < 0.02
    record, _, examples = run(made, tmp_path)
    assert record["metrics"][0]["key"] == "ap"
    assert record["test"]["ap50"] > 0.25
    assert examples["corners"].shape[2:] == examples["true_corners"].shape[2:] == (4, 2)


def test_a_run_resumes_bit_for_bit_in_mid_epoch(tmp_path):
    straight, history, _ = run(Loop(job(*BASE)), tmp_path / "a")
    stopped = Loop(job(*BASE))
    with pytest.raises(Stopped):
        run(stopped, tmp_path / "b", lambda: stopped.state.step == 11)
    resumed, again, _ = run(Loop(job(*BASE)), tmp_path / "b")
    assert resumed["test"] == straight["test"]
    assert history["train.loss"].tolist() == again["train.loss"].tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            ("loss.classes=giou",),
            "compares boxes, but loss.classes may compare only binary_logits and class_logits and",
        ),
        (("loss.classes=class_balanced",), "loss.counts is null, and this task has no class_counts"),
        (
            ("loss.boxes=binary_focal",),
            "compares binary_logits, but loss.boxes may compare only boxes and rotated_boxes and values",
        ),
        (("model=cnn_micro",), "the model cnn classifies images, but this task is about every pixel"),
        (("dataset=scenes",), "scenes has a class for every pixel"),
        (("task.nms=0",), "task.nms is 0; it must be above 0"),
        (("+dataset.augment.cutout=3",), "set dataset.augment.cutout=null"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(changes, message):
    sizes = () if "dataset=scenes" in changes else BASE[1:]
    with pytest.raises(UsageError, match=message) as refusal:
        Loop(job("task=detection", *sizes, *changes))
    assert "\n" not in str(refusal.value)


def test_other_tasks_refuse_boxes():
    with pytest.raises(UsageError, match=r"crowded_scenes has boxes with a class each .*: use task=detection"):
        Loop(job("task=segmentation", "dataset=crowded_scenes", "dataset.train_size=4", "dataset.test_size=4"))


class Echo:
    """A model that returns what it is given."""

    link = "sigmoid"

    def __call__(self, *inputs):
        return inputs


def test_examples_keep_the_boxes_that_are_drawn(loop):
    task = loop("task=detection", "dataset.train_size=20", "dataset.valid_size=8", "dataset.test_size=8").task
    truth = task.splits.test.targets[[0, 2, 5, 7]]
    perfect = (truth[..., :4], (truth[..., 4] >= 0).float(), truth[..., 4].long())
    task.found = lambda *_: perfect
    kept = task.examples(Echo())
    there = kept["true_labels"] >= 0
    assert len(kept["images"]) == SHOWN
    assert kept["corners"].tolist() == kept["true_corners"].tolist()
    assert kept["labels"].tolist() == kept["true_labels"].tolist()
    assert kept["overlaps"][there] == pytest.approx(1)
    assert kept["true_corners"][0, 0].tolist() == truth[0, 0][[0, 1, 2, 1, 2, 3, 0, 3]].view(4, 2).tolist()
    task.found = lambda *_: (perfect[0], 0.1 * perfect[1], perfect[2])
    assert (task.examples(Echo())["labels"] == -1).all()


def test_sizes_of_images_and_objects_come_from_the_training_set(loop):
    task = loop(*BASE, "dataset.train_size=20", "dataset.valid_size=8", "dataset.test_size=8").task
    sizes = [
        float((row[2] - row[0]) * (row[3] - row[1])) ** 0.5
        for target in task.splits.train.targets
        for row in target
        if row[4] >= 0
    ]
    assert task.statistic("object_size") == pytest.approx(sum(sizes) / len(sizes))
    assert (task.statistic("image_width"), task.statistic("image_height")) == (64.0, 64.0)
    assert task.statistic("class_counts") is None  # of the background there is no count
    assert sum(task.describe()["class_counts"]) == len(sizes)
