"""Localisation: boxes around masks, metrics against torchvision, and a study of box losses from end to end."""

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou, masks_to_boxes

from datasets.splits import VOID
from harness import records
from harness.errors import UsageError
from harness.metrics.localisation import RunningOverlaps
from harness.tasks import Seeds
from harness.tasks.localisation import Corners, Localisation, around, filled
from tests.conftest import carried_out

SMALL = ("dataset.size=[32,32]", "dataset.train_size=128", "dataset.valid_size=32", "dataset.test_size=32")
BASE = ("task=localisation", "dataset=scenes", *SMALL, "model=cnn_grid", "trainer.batch_size=32")


def test_boxes_are_those_of_torchvision_with_their_last_pixel():
    draw = torch.Generator().manual_seed(0)
    masks = (torch.rand(50, 9, 13, generator=draw) < 0.04).to(torch.uint8)
    masks[:, 4, 6] = 3  # never empty
    truth = masks_to_boxes(masks > 0) + torch.tensor([0, 0, 1, 1])
    torch.testing.assert_close(around(masks), truth)
    masks[0, 0, 0] = VOID  # void is nowhere
    torch.testing.assert_close(around(masks), truth)
    assert not around(torch.full((1, 4, 4), VOID)).any()
    assert not around(torch.zeros(1, 4, 4)).any()


def test_a_filled_box_has_that_box_around_it():
    boxes = torch.tensor([[1.0, 2.0, 5.0, 3.0], [0.0, 0.0, 8.0, 6.0]])
    masks = filled(boxes, [6, 8])
    assert masks.shape == (2, 6, 8)
    torch.testing.assert_close(around(masks), boxes)


def overlaps(found, truth):
    metrics = RunningOverlaps()
    metrics.add(found, truth)
    return metrics.scores()


def test_metrics_are_torchvisions():
    draw = torch.Generator().manual_seed(0)
    corner, side = torch.rand(2, 300, 2, generator=draw).double() * torch.tensor([[[20.0]], [[10.0]]])
    truth = torch.cat([corner, corner + side + 1], 1)
    found = truth + torch.tensor([1.0, -0.5, 1.0, 0.5])
    iou = box_iou(found, truth).diagonal()
    scores = overlaps(found, truth)
    assert scores["iou"] == pytest.approx(float(iou.mean()))
    assert scores["found50"] == pytest.approx(float((iou >= 0.5).double().mean()))
    assert scores["found75"] == pytest.approx(float((iou >= 0.75).double().mean()))
    assert 0 < scores["found75"] < scores["found50"] < 1
    assert scores["corner_error"] == pytest.approx(0.75)
    assert overlaps(truth, truth) == {"iou": 1, "found50": 1, "found75": 1, "corner_error": 0}


def test_corners_are_never_inside_out():
    numbers = 50 * torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
    boxes = Corners(20, 40)(numbers)
    assert (boxes[:, :2] <= boxes[:, 2:]).all()
    torch.testing.assert_close(Corners(20, 40)(torch.zeros(1, 4)), torch.tensor([[10.0, 5.0, 30.0, 15.0]]))


def test_losses_of_boxes_and_of_values_see_the_same_corners(loop):
    run = loop(*BASE, "loss=giou")
    task = run.task
    assert isinstance(task, Localisation)
    batch = next(task.epoch(Seeds(1, 1)))
    assert (batch.inputs[0].shape, batch.target.shape) == ((32, 3, 32, 32), (32, 4))
    pairs = task.pairs(run.model(*batch.inputs), batch)
    assert pairs["boxes"] is pairs["values"]
    assert pairs["boxes"].target is batch.target
    assert pairs["boxes"].mask is None
    other = loop(*BASE, "loss=smooth_l1").task
    torch.testing.assert_close(next(other.epoch(Seeds(1, 1))).target, batch.target)


def test_the_true_boxes_overlap_with_themselves_and_are_shown(loop):
    task = loop(*BASE, "loss=giou").task
    truth = task.boxes["test"]
    sides = torch.tensor([32.0, 32.0])
    middle, size = (truth[:, :2] + truth[:, 2:]) / 2 / sides, (truth[:, 2:] - truth[:, :2]) / sides
    numbers = torch.cat([middle, size], 1).logit(1e-7)  # what a network must answer
    found = task.evaluate(lambda images: {"numbers": numbers}, "test")
    assert found["iou"] == pytest.approx(1, abs=1e-5)
    assert found["corner_error"] == pytest.approx(0, abs=1e-4)
    shown = task.examples(lambda images: {"numbers": numbers[task.shown()]})
    assert (shown["prediction"] == shown["truth"]).all()
    assert shown["prediction"].shape == shown["truth"].shape == (4, 32, 32)


def test_images_whose_object_was_cut_away_are_left_out(loop):
    run = loop(*BASE, "dataset.augment.zoom=[3,4]", "loss=giou")  # windows so small that many miss every digit
    pairs = [run.task.pairs({"numbers": torch.zeros(32, 4)}, batch)["boxes"] for batch in run.task.epoch(Seeds(1, 1))]
    boxes, counted = torch.cat([pair.target for pair in pairs]), torch.cat([pair.mask for pair in pairs])
    assert 0 < counted.sum() < len(counted)
    assert not boxes[~counted].any()
    run.step(next(run.task.epoch(Seeds(1, 1))))
    assert run.meter.close().bad_step is None


def test_a_network_overlaps_more_than_the_mean_box(loop, tmp_path):
    record = carried_out(loop(*BASE, "loss=giou", "dataset.train_size=400", "trainer.epochs=12"), tmp_path)
    assert record["status"] == "done"
    assert record["test"]["iou"] > record["data"]["trivial"]["iou"] + 0.05


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("loss=focal",), "compares class_logits, but this task offers only boxes and values"),
        (("loss=gwd",), "compares rotated_boxes"),
        (("loss=giou", "model=unet_micro"), "classifies every pixel"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(loop, changes, message):
    with pytest.raises(UsageError, match=message):
        loop(*BASE, *changes)


def test_images_without_masks_are_refused(loop):
    with pytest.raises(UsageError, match="digits has a class for every image, not every pixel: use task=class"):
        loop("task=localisation", "dataset=digits", "model=cnn_micro", "loss=giou")


def test_a_study_of_boxes_from_end_to_end(cli):
    done = cli(
        "harness", "study=localisation", "axes.loss=[smooth_l1,giou]", "axes.seed=[1,2]", "track=fixed",
        "base.trainer.epochs=3", "base.dataset.train_size=128", "name=boxes",
        "tracking.enabled=false",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    runs = records.load_study("boxes", cli.results).runs
    assert set(runs["status"]) == {"done"}
    assert runs["test.iou"].between(0, 1).all()
    page = (cli.results / "boxes" / "report" / "index.html").read_text()
    assert "test IoU of boxes" in page
    assert "boxes found at IoU 0.75" in page


def test_sizes_of_images_and_objects_come_from_the_training_set(loop):
    mpdiou = loop(*BASE, "loss=mpdiou", "dataset.size=[24,40]").losses["model"].function
    assert mpdiou.keywords == {"width": 40.0, "height": 24.0}
    run = loop(*BASE, "loss=nwd")
    boxes = run.task.boxes["train"].double().numpy()
    expected = np.mean([np.sqrt((x2 - x1) * (y2 - y1)) for x1, y1, x2, y2 in boxes])
    assert run.losses["model"].function.keywords == {"size": pytest.approx(expected)}
    assert loop(*BASE, "loss=nwd", "loss.size=7.5").losses["model"].function.keywords == {"size": 7.5}
