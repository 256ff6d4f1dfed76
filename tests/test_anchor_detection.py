"""RetinaNet and SSD: their anchors, which of them count, and their two seats."""

import pytest
import torch
from torch.nn import functional
from torchvision.models.detection import _utils as theirs
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from harness.errors import UsageError
from harness.models import anchors as anchors_of
from harness.models import heads
from harness.tasks import Batch, Seeds, matching
from harness.training.loop import Loop
from tests.test_detection import BASE, job

COMMAND = ("task=anchor_detection", *BASE[1:])
SSD = ("task.unlike=0.5", "task.negatives=3", "loss.classes=cross_entropy")
CONFIG = {
    "_target_": "harness.models.anchors.retinanet", "widths": [8, 8, 16, 16], "levels": 2, "num_features": 16,
    "side": 2,
}  # fmt: skip
LIBRARY = {
    "_target_": "harness.models.anchors.torchvision_anchors", "name": "retinanet_resnet50_fpn", "pretrained": False,
    "arguments": None,
}  # fmt: skip
OUTPUTS = {"objects": 3, "shifts": 4}


def loop(*overrides):
    return Loop(job(*overrides))


def build(config=CONFIG, inputs=(3, 64, 64), **changes):
    torch.manual_seed(0)
    return heads.build({**config, **changes}, inputs, OUTPUTS)


@pytest.fixture(scope="module")
def made():
    return loop(*COMMAND)


@pytest.fixture(scope="module")
def batch(made):
    return next(iter(made.task.epoch(Seeds(1, 2))))


# ---------------------------------------------------------------------- the models


def test_anchors_are_retinanets_around_the_centres_of_cells():
    sides = [32.0 * step for step in anchors_of.OCTAVE]
    ours = anchors_of.around((16, 24), 8, sides)
    cell = torch.zeros(1, 1, 2, 3)
    made = AnchorGenerator((tuple(sides),), (anchors_of.RATIOS,))
    made.set_cell_anchors(torch.float32, torch.device("cpu"))
    made.cell_anchors = [made.generate_anchors(sides, anchors_of.RATIOS)]  # theirs are rounded to whole pixels
    (theirs_,) = made(ImageList(torch.zeros(1, 3, 16, 24), [(16, 24)]), [cell])
    order = [ratio * 3 + side for side in range(3) for ratio in range(3)]  # theirs are sorted by ratio first
    expected = theirs_.view(6, 9, 4)[:, order] + 4  # and lie around the corner of a cell
    assert (ours.view(6, 9, 4) - expected).abs().max() <= 0.5


def test_scores_and_shifts_stand_in_the_order_of_the_anchors():
    model = build().eval()
    images = torch.randn(2, 3, 64, 64)
    maps, outputs = model.net.net(images), model(images)
    down, across, anchor = 2, 3, 4
    place = 8 * 8 * 9 + (down * 4 + across) * 9 + anchor  # of the second level
    wanted = maps["objects"][1][:, 3 * anchor : 3 * anchor + 3, down, across]
    assert torch.equal(outputs["objects"][0][:, place], wanted)
    assert torch.equal(outputs["shifts"][0][:, place], maps["shifts"][1][:, 4 * anchor : 4 * anchor + 4, down, across])
    box = outputs["anchors"][0][0, place]
    assert ((box[:2] + box[2:]) / 2).tolist() == [56, 40]
    assert (box[2:] - box[:2]).prod().sqrt().item() == pytest.approx(16 * 2 * 2 ** (1 / 3))


def test_every_weight_is_trained_and_equal_seeds_give_equal_models():
    one, same = build(), build()
    assert all(map(torch.equal, one.parameters(), same.parameters()))
    outputs = one(torch.randn(2, 3, 64, 64))
    sum(outputs[kind][0].square().sum() for kind in ("objects", "shifts")).backward()
    assert [name for name, weight in one.named_parameters() if weight.grad is None] == []


@pytest.mark.parametrize(
    ("name", "size", "anchors", "scales"),
    [
        ("retinanet_resnet50_fpn", 128, 9 * (16**2 + 8**2 + 4**2 + 2**2 + 1), [1, 1, 1, 1]),
        ("ssdlite320_mobilenet_v3_large", 320, 3234, [0.1, 0.1, 0.2, 0.2]),
    ],
)
def test_torchvisions_own_have_their_anchors(name, size, anchors, scales):
    model = build(LIBRARY, (1, size, size), name=name).eval()
    with torch.no_grad():
        outputs = model(torch.randn(1, 1, size, size))
    assert {kind: tuple(found[0].shape) for kind, found in outputs.items()} == {
        "anchors": (1, anchors, 4), "objects": (1, anchors, 3), "shifts": (1, anchors, 4),
    }  # fmt: skip
    assert model.scales.tolist() == pytest.approx(scales)


def test_a_name_a_size_and_weights_that_there_are_not_are_refused():
    with pytest.raises(UsageError, match="retinanet_resnet50_fpn"):
        build(LIBRARY, name="retinanet")
    with pytest.raises(UsageError, match="cannot take images of 64x64 pixels"):
        build(LIBRARY, name="ssd300_vgg16")
    with pytest.raises(UsageError, match=r"only RetinaNet has: set model\.pretrained=false"):
        build(LIBRARY, name="ssdlite320_mobilenet_v3_large", pretrained=True)


# ---------------------------------------------------------------------- what is asked for


def test_anchors_are_asked_as_torchvision_asks_them(made, batch):
    outputs = made.model(*batch.inputs)
    pairs = made.task.pairs(outputs, batch)
    named, boxes = pairs["class_logits"], pairs["boxes"]
    matcher = theirs.Matcher(0.5, 0.4, allow_low_quality_matches=True)
    seen = set()
    for image, anchors in enumerate(outputs["anchors"][0]):
        truth = batch.target[image][batch.target[image, :, 4] >= 0]
        expected = matcher(box_iou(truth[:, :4], anchors)) if len(truth) else torch.full((len(anchors),), -1)
        real = expected >= 0
        assert torch.equal(named.mask[image], expected != -2)
        assert torch.equal(named.target[image][real], truth[expected[real], 4].long())
        assert (named.target[image][~real] == made.task.classes).all()
        assert torch.equal(boxes.mask.view(len(batch.target), -1)[image], real)
        assert torch.equal(boxes.target.view(len(batch.target), -1, 4)[image][real], truth[expected[real], :4])
        seen |= set(expected.clamp_max(0).tolist())
    assert seen == {-2, -1, 0}


def test_boxes_that_are_ignored_are_asked_of_no_anchor(made, batch):
    target = batch.target.clone()
    target[..., 5] = 1.0
    pairs = made.task.pairs(made.model(*batch.inputs), Batch(batch.inputs, target))
    assert not pairs["boxes"].mask.any()
    assert (pairs["binary_logits"].target == 0).all()
    assert not pairs["binary_logits"].mask.all()
    assert pairs["binary_logits"].mask.any()


def test_the_hardest_negatives_count_three_to_one():
    torch.manual_seed(0)
    scores = torch.randn(3, 500)
    positive = torch.zeros(3, 500, dtype=torch.bool)
    positive[0, :20] = positive[1, :200] = True
    negative = ~positive
    negative[0, 400:] = False
    chosen = matching.hardest(scores, positive, negative, 3)
    assert (chosen & negative).sum(1).tolist() == [60, 300, 0]
    assert torch.equal(chosen & positive, positive)
    left = scores[0][negative[0] & ~chosen[0]]
    assert scores[0][negative[0] & chosen[0]].min() > left.max()
    assert not (chosen & ~positive & ~negative).any()


def test_ssds_loss_of_classes_is_that_of_torchvision():
    """The same anchors, and the same sum of the cross-entropy, as SSD.compute_loss has them."""
    made = loop(*COMMAND, *SSD)
    batch = next(iter(made.task.epoch(Seeds(1, 2))))
    outputs = made.model(*batch.inputs)
    pair = made.task.pairs(outputs, batch)["class_logits"]
    each = functional.cross_entropy(pair.prediction, pair.target, reduction="none")
    foreground = pair.target < made.task.classes
    count = foreground.sum(1, keepdim=True)
    waiting = torch.where(foreground, -torch.inf, each)
    _, place = waiting.sort(1, descending=True)
    background = place.sort(1)[1] < 3 * count
    assert torch.equal(pair.mask & foreground, foreground)
    torch.testing.assert_close(each[pair.mask].sum(), each[foreground].sum() + each[background].sum())


@pytest.mark.parametrize("settings", [(), SSD], ids=["retinanet", "ssd"])
def test_it_learns(settings, tmp_path):
    made = loop(*COMMAND, *settings, "trainer.epochs=4", "dataset.train_size=64", "optimizer.lr=0.003")
    _, history, _, _ = made.run(tmp_path, lambda: False, lambda *_: None)
    assert history["train.loss"].iloc[-1] < 0.8 * history["train.loss"].iloc[0]


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (("model=detector_micro",), "this model has no anchors"),
        (("model=faster_rcnn_micro",), "this model has no anchors"),
        (("task=detection", "model=retinanet_micro"), "use task=anchor_detection"),
        (("task=two_stage_detection", "model=retinanet_micro"), "this model proposes no regions"),
        (("model.side=0",), "model.side is 0; it must be above 0"),
        (("task.unlike=0.6",), "the first no greater than the second"),
        (("task.negatives=0",), "task.negatives is 0; it must be above 0, or null"),
    ],
)
def test_what_does_not_fit_is_refused(command, sentence, tmp_path):
    with pytest.raises((UsageError, ValueError), match=sentence):
        loop(*COMMAND, *command).run(tmp_path, lambda: True, lambda *_: None)
