"""Faster R-CNN: anchors and regions, what they are asked to find, and its three seats."""

import pytest
import torch
from torchvision.models.detection import _utils as theirs
from torchvision.ops import box_iou

from harness import compose
from harness.errors import UsageError
from harness.models import anchors as anchors_of
from harness.models import heads, two_stage
from harness.models import shifts as shifts_of
from harness.tasks import Batch, Seeds, matching
from harness.tasks import two_stage_detection as task_of
from harness.training.loop import Loop
from tests.test_detection import BASE, job

COMMAND = ("task=two_stage_detection", *BASE[1:])
CONFIG = {
    "_target_": "harness.models.two_stage.cnn_two_stage", "widths": [8, 8, 16], "depth": 1, "side": 24, "hidden": 16,
    "proposals": 12,
}  # fmt: skip
OUTPUTS = {"objects": 3, "shifts": 4}


def loop(*overrides):
    return Loop(job(*overrides))


def boxes_of(target):
    """Return the boxes of an image, without the rows that hold none."""
    return target[target[:, 4] >= 0]


def build(config=CONFIG, inputs=(3, 64, 64), outputs=OUTPUTS, **changes):
    torch.manual_seed(0)
    return heads.build({**config, **changes}, inputs, outputs)


def some_boxes(*shape, generator=None):
    low = torch.rand(*shape, 2, generator=generator) * 40
    return torch.cat([low, low + 4 + torch.rand(*shape, 2, generator=generator) * 20], -1)


# ---------------------------------------------------------------------- the model


def test_boxes_are_moved_as_torchvision_moves_them():
    boxes, shifts = some_boxes(50), torch.randn(50, 4)
    expected = theirs.BoxCoder((1.0, 1.0, 1.0, 1.0), bbox_xform_clip=shifts_of.LARGEST).decode_single(shifts, boxes)
    torch.testing.assert_close(shifts_of.moved(boxes[None], shifts[None])[0], expected)


def test_anchors_lie_around_the_centres_of_all_cells_and_have_one_area():
    anchors = anchors_of.around((16, 24), 8, [10.0])
    assert anchors.shape == (2 * 3 * 3, 4)
    sides = anchors[:, 2:] - anchors[:, :2]
    torch.testing.assert_close(sides.prod(1), torch.full((18,), 100.0))
    torch.testing.assert_close(sides[:3, 1] / sides[:3, 0], torch.tensor(anchors_of.RATIOS))
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    assert centres[::3].tolist() == [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12]]


def test_scores_and_shifts_stand_in_the_order_of_the_anchors():
    model = build().eval()
    features = model.body(torch.randn(2, 3, 64, 64))
    (scores,), (shifts,) = model.first([features])
    down, across, anchor = 2, 5, 1
    place = (down * 8 + across) * 3 + anchor
    assert torch.equal(anchors_of.of_anchors(scores, 1)[:, place, 0], scores[:, anchor, down, across])
    assert torch.equal(anchors_of.of_anchors(shifts, 4)[:, place], shifts[:, 4 * anchor : 4 * anchor + 4, down, across])


def test_regions_lie_in_the_image_and_are_not_alike_while_there_are_others():
    model = build()
    scores, boxes = torch.randn(3, 192), some_boxes(3, 192) * 1.3 - 5
    regions = model._proposals(scores, boxes)
    assert regions.shape == (3, 12, 4)
    assert regions.min() >= 0
    assert regions.max() <= 64
    for image in range(3):
        overlap = box_iou(regions[image], regions[image])
        assert overlap.triu(1).max() <= two_stage.ALIKE
        best = boxes[image, scores[image].argmax()].clamp(0, 64)
        assert torch.equal(regions[image, 0], best)
    same = model._proposals(scores, boxes[:, :1].expand(-1, 192, -1))
    assert torch.equal(same, same[:, :1].expand(-1, 12, -1)), "where all are alike, these are what there is"


def test_every_weight_is_trained_and_equal_seeds_give_equal_models():
    one, same = build(), build()
    assert all(map(torch.equal, one.parameters(), same.parameters()))
    outputs = one(torch.randn(2, 3, 64, 64))
    assert {kind: tuple(values[0].shape) for kind, values in outputs.items()} == {
        "anchors": (2, 192, 4), "proposed": (2, 192, 1), "first_shifts": (2, 192, 4),
        "regions": (2, 12, 4), "objects": (2, 12, 3), "shifts": (2, 12, 4),
    }  # fmt: skip
    torch.stack([values[0].square().sum() for values in outputs.values() if values[0].requires_grad]).sum().backward()
    assert [name for name, weight in one.named_parameters() if weight.grad is None] == []
    assert not outputs["regions"][0].requires_grad


def test_torchvisions_own_has_its_pyramid_and_heads():
    named = {
        "_target_": "harness.models.two_stage.torchvision_two_stage", "name": "fasterrcnn_resnet50_fpn",
        "proposals": 8, "arguments": None, "pretrained": False,
    }  # fmt: skip
    model = build(named, (1, 64, 64)).eval()
    with torch.no_grad():
        outputs = model(torch.randn(1, 1, 64, 64))
    assert outputs["anchors"][0].shape == (1, 3 * (16**2 + 8**2 + 4**2 + 2**2 + 1), 4)
    assert outputs["objects"][0].shape == (1, 8, 3)
    sides = outputs["anchors"][0][0, [1, -2]]
    assert (sides[:, 2] - sides[:, 0]).tolist() == [32, 512]  # those of torchvision
    with pytest.raises(UsageError, match="fasterrcnn_resnet50_fpn"):
        build(named, name="maskrcnn_resnet50_fpn")


# ---------------------------------------------------------------------- what is asked for


def test_anchors_are_asked_as_torchvision_asks_them():
    generator = torch.Generator().manual_seed(1)
    truth, boxes = some_boxes(4, 5, generator=generator), some_boxes(4, 200, generator=generator)
    there = torch.rand(4, 5, generator=generator) < 0.7
    there[0] = False
    found = matching.by_overlap(truth, there, boxes, 0.7, 0.3)
    matcher = theirs.Matcher(0.7, 0.3, allow_low_quality_matches=True)
    assert (found[0] == matching.NOTHING).all(), "an image without objects has only background"
    for image in range(1, 4):
        real = there[image].nonzero()[:, 0]
        expected = matcher(box_iou(truth[image][real], boxes[image]))
        expected = torch.where(expected >= 0, real[expected.clamp_min(0)], expected)
        assert torch.equal(found[image], expected)
        assert len({*found[image].tolist()}) > 3


def test_half_of_the_sampled_anchors_at_most_are_to_find_a_box():
    torch.manual_seed(0)
    positive = torch.zeros(3, 1000, dtype=torch.bool)
    positive[0, :400] = positive[1, :10] = True
    negative = ~positive
    negative[1, 500:] = negative[2, 20:] = False
    chosen = matching.sampled(positive, negative, 256, 0.5)
    assert chosen.sum(1).tolist() == [256, 256, 20]
    assert (chosen & positive).sum(1).tolist() == [128, 10, 0]
    assert not (chosen & ~positive & ~negative).any()
    assert not torch.equal(chosen[0], matching.sampled(positive, negative, 256, 0.5)[0])


@pytest.fixture(scope="module")
def made():
    return loop(*COMMAND)


def test_true_boxes_as_regions_are_found_with_their_classes(made):
    task, truth = made.task, torch.tensor([[[8.0, 8, 30, 28], [40, 30, 60, 60]]])
    labels = torch.tensor([[2, 1]])
    objects = torch.zeros(1, 2, task.classes).scatter_(2, labels.unsqueeze(2), 20.0)
    outputs = {"regions": (truth,), "objects": (objects,), "shifts": (torch.zeros(1, 2, 4),)}
    boxes, scores, found = task.found(outputs)
    assert {(label, *box) for label, box in zip(found[0].tolist(), boxes[0].tolist(), strict=True)} == {
        (2, 8.0, 8.0, 30.0, 28.0), (1, 40.0, 30.0, 60.0, 60.0),
    }  # fmt: skip
    assert (scores > 0.99).all()


def test_seats_see_what_they_are_asked_for(made):
    task, model = made.task, made.model
    batch = next(iter(task.epoch(Seeds(1, 2))))
    outputs = model(*batch.inputs)
    pairs = task.pairs(outputs, batch)
    scores, boxes = pairs["class_logits"], pairs["boxes"]
    regions = outputs["regions"][0]
    names = pairs["class_logits"].target
    assert scores.prediction.shape == (len(names), task.classes + 1, regions.shape[1])
    for image in range(len(names)):
        real = boxes_of(batch.target[image])
        best = box_iou(regions[image], real[:, :4]).amax(1) if len(real) else torch.zeros(regions.shape[1])
        assert (names[image][best >= 0.5] < task.classes).all()
    asked = boxes.target[boxes.mask]
    everywhere = {tuple(box) for image in batch.target for box in boxes_of(image)[:, :4].tolist()}
    assert {tuple(box) for box in asked.tolist()} <= everywhere
    wanted = pairs["binary_logits"]
    assert 0 < wanted.target.sum() <= wanted.mask.sum() <= len(names) * task_of.SAMPLED
    assert (wanted.target[~wanted.mask] == 0).all()
    in_units = pairs["values"]
    torch.testing.assert_close(
        (in_units.prediction / boxes.prediction).nan_to_num(1)[:, 0],
        (in_units.target / boxes.target)[:, 0].nan_to_num(1),
    )


def test_boxes_that_are_ignored_are_asked_of_nobody(made):
    task = made.task
    batch = next(iter(task.epoch(Seeds(1, 2))))
    target = batch.target.clone()
    target[..., 5] = 1.0
    outputs = made.model(*batch.inputs)
    pairs = task.pairs(outputs, Batch(batch.inputs, target))
    assert not pairs["boxes"].mask.any()
    assert (pairs["class_logits"].target == task.classes).all()
    assert not pairs["class_logits"].mask.all()


def test_it_learns(tmp_path):
    made = loop(*COMMAND, "trainer.epochs=4", "dataset.train_size=64", "optimizer.lr=0.003")
    _, history, _, _ = made.run(tmp_path, lambda: False, lambda *_: None)
    assert history["train.loss"].iloc[-1] < 0.8 * history["train.loss"].iloc[0]
    assert set(made.task.weights) == {"classes", "boxes", "proposals"}


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (("model=detector_micro",), "this model proposes no regions"),
        (("task=detection", "model=faster_rcnn_micro"), "use task=two_stage_detection"),
        (("model.side=0",), "model.side is 0; it must be above 0"),
        (("loss.classes=binary_focal",), "loss.classes may compare only class_logits"),
        (("loss.proposals=cross_entropy",), "loss.proposals may compare only binary_logits"),
    ],
)
def test_what_does_not_fit_is_refused(command, sentence, tmp_path):
    with pytest.raises((UsageError, ValueError), match=sentence):
        loop(*COMMAND, *command).run(tmp_path, lambda: True, lambda *_: None)


def test_every_seat_is_in_the_config():
    assert {"loss.classes", "loss.boxes", "loss.proposals"} <= set(compose.compose_run([COMMAND[0]]).choices)
