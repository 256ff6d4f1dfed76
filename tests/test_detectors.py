"""Detectors: maps of several levels, of our own models and of libraries, and sets of boxes."""

import pytest
import torch
from torch import nn
from torchvision.models import detection as torchvisions
from torchvision.ops import generalized_box_iou

from harness.errors import UsageError
from harness.models import heads
from harness.tasks import Seeds
from harness.tasks.set_detection import hungarian, pairwise_giou
from tests.test_detection import BASE, boxes_of

OURS = "harness.models.detection."
NAMED = "harness.models.named_detection."
OUTPUTS = {"objects": 3, "sides": 4}
PYRAMID = {"_target_": OURS + "pyramid_detector", "widths": [8, 8, 16, 16, 24], "levels": 3, "num_features": 16}
TIMM = {
    "_target_": NAMED + "timm_detector",
    "name": "resnet10t",
    "stem": "auto",
    "cells": None,
    "num_features": 16,
    "depth": 1,
    "arguments": None,
    "pretrained": False,
}
VISION = {
    "_target_": NAMED + "torchvision_detector",
    "name": "fcos_resnet50_fpn",
    "arguments": None,
    "pretrained": False,
}
DETR = {
    "_target_": "harness.models.set_detection.detr",
    "widths": [8, 16, 16],
    "dim": 16,
    "heads": 2,
    "encoder": 1,
    "decoder": 2,
    "queries": 9,
}


def build(config, inputs=(3, 64, 64), outputs=OUTPUTS, seed=0, **changes):
    torch.manual_seed(seed)
    return heads.build({**config, **changes}, inputs, outputs)


def grids(outputs):
    """Return height and width of every level, which all kinds of output share."""
    found = [[tuple(level.shape[2:]) for level in levels] for levels in outputs.values()]
    assert all(sizes == found[0] for sizes in found)
    return found[0]


def untrained(model):
    """Return the names of the weights that no output depends on."""
    outputs = model(torch.randn(2, 3, 64, 64))
    torch.stack([level.square().sum() for levels in outputs.values() for level in levels]).sum().backward()
    return [name for name, weight in model.named_parameters() if weight.grad is None]


@pytest.mark.parametrize(
    ("config", "changes", "inputs", "expected"),
    [
        (PYRAMID, {}, (1, 64, 96), [(8, 12), (4, 6), (2, 3)]),
        (TIMM, {}, (3, 64, 96), [(8, 12), (4, 6), (2, 3)]),
        (TIMM, {"cells": [4, 16]}, (1, 64, 64), [(16, 16), (4, 4)]),
        (TIMM, {}, (3, 32, 32), [(16, 16), (8, 8), (4, 4)]),  # with the stem for small images
        (TIMM, {"name": "vit_tiny_patch16_224"}, (3, 64, 64), [(16, 16), (8, 8), (4, 4)]),
        (TIMM, {"name": "vit_tiny_patch16_224", "stem": "original", "cells": [4, 16]}, (3, 64, 64), [(16, 16), (4, 4)]),
        (TIMM, {"name": "mobilenetv3_small_050"}, (3, 64, 64), [(8, 8), (4, 4), (2, 2)]),
        (VISION, {}, (1, 64, 96), [(8, 12), (4, 6), (2, 3), (1, 2), (1, 1)]),
        (VISION, {"name": "retinanet_resnet50_fpn"}, (3, 64, 64), [(8, 8), (4, 4), (2, 2), (1, 1), (1, 1)]),
    ],
)
def test_levels_are_grids_over_the_image(config, changes, inputs, expected):
    with torch.device("meta"):
        outputs = build(config, inputs, **changes)(torch.empty(2, *inputs))
    assert grids(outputs) == expected
    assert {kind: levels[0].shape[:2] for kind, levels in outputs.items()} == {"objects": (2, 3), "sides": (2, 4)}


@pytest.mark.parametrize(
    ("config", "changes"),
    [(PYRAMID, {}), (TIMM, {}), (TIMM, {"name": "vit_tiny_patch16_224", "arguments": {"depth": 2}})],
)
def test_every_weight_is_trained_and_equal_seeds_give_equal_models(config, changes):
    one, same = build(config, **changes), build(config, **changes)
    assert all(map(torch.equal, one.parameters(), same.parameters()))
    assert not untrained(one)


def test_towers_are_shared_and_keep_no_statistics_of_images():
    model = build(PYRAMID)
    assert not [module for module in model.towers.modules() if isinstance(module, nn.BatchNorm2d)]
    assert [tuple(factor.shape) for factor in model.factors] == [()] * 3
    images = torch.randn(1, 3, 64, 64)
    before = model.eval()(images)
    model.factors[1].data.fill_(2.0)
    after = model(images)
    assert torch.equal(after["sides"][1], 2 * before["sides"][1])
    assert torch.equal(after["sides"][0], before["sides"][0])
    assert torch.equal(after["objects"][1], before["objects"][1])


def test_torchvisions_towers_give_what_torchvision_gives():
    """Before its ReLU, and without the bias that is the score of classes before training."""
    model = build(VISION)
    torch.manual_seed(0)
    theirs = torchvisions.fcos_resnet50_fpn(weights=None, weights_backbone=None, num_classes=3)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        levels = list(theirs.eval().backbone(images).values())
        expected = theirs.head(levels)
        found = {kind: [level.flatten(2) for level in maps] for kind, maps in model.eval()(images).items()}
    flat = {kind: torch.cat(maps, 2).transpose(1, 2) for kind, maps in found.items()}
    bias = theirs.head.classification_head.cls_logits.bias[0]
    torch.testing.assert_close(flat["objects"] + bias, expected["cls_logits"])
    torch.testing.assert_close(flat["sides"].relu(), expected["bbox_regression"])


@pytest.mark.parametrize(
    ("config", "changes", "inputs", "outputs", "message"),
    [
        (PYRAMID, {}, (3, 48, 64), OUTPUTS, "cells of 32x32 pixels, which do not divide images of 48x64"),
        (PYRAMID, {"levels": 6}, (3, 64, 64), OUTPUTS, "model.levels is 6, but model.widths names 5 stages"),
        (PYRAMID, {"num_features": 12}, (3, 64, 64), OUTPUTS, "model.num_features is 12; it must be a multiple of 8"),
        (TIMM, {"cells": [8, 12]}, (3, 64, 64), OUTPUTS, "has no cells of 12 pixels: choose model.cells among"),
        (TIMM, {"name": "vit_tiny_patch16_224", "cells": [12]}, (3, 64, 64), OUTPUTS, "has patches of 8 pixels"),
        (TIMM, {"name": "resnet10x"}, (3, 64, 64), OUTPUTS, "resnet10t"),
        (VISION, {}, (3, 64, 48), OUTPUTS, "which do not divide images of 64x48"),
        (
            VISION,
            {"name": "fasterrcnn_resnet50_fpn"},
            (3, 64, 64),
            OUTPUTS,
            "task=two_stage_detection for Faster R-CNN",
        ),
        (VISION, {"name": "fcos"}, (3, 64, 64), OUTPUTS, "fcos_resnet50_fpn"),
        (VISION, {}, (3, 64, 64), {**OUTPUTS, "angle": 1}, "gives scores and upright boxes"),
        (DETR, {}, (3, 64, 64), OUTPUTS, "use task=set_detection"),
        (DETR, {"queries": 10}, (3, 64, 64), {"objects": 3, "places": 4}, "it must be a square number"),
        (DETR, {"dim": 18}, (3, 64, 64), {"objects": 3, "places": 4}, "it must be a multiple of 4"),
        (PYRAMID, {}, (3, 64, 64), {"objects": 3, "places": 4}, "use model=detr_micro"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(config, changes, inputs, outputs, message):
    with pytest.raises((ValueError, UsageError), match=message) as refusal, torch.device("meta"):
        build(config, inputs, outputs, **changes)
    assert "\n" not in str(refusal.value)


# ---------------------------------------------------------------- sets


def test_a_detr_answers_with_every_layer_in_training_and_with_the_last_one_afterwards():
    model = build(DETR, outputs={"objects": 3, "places": 4})
    images = torch.randn(2, 3, 64, 64)
    both, last = model(images), model.eval()(images)
    assert both["objects"][0].shape == (2, 3, 2, 9)
    assert both["places"][0].shape == (2, 4, 2, 9)
    assert last["places"][0].shape == (2, 4, 1, 9)
    assert not untrained(model.train())


def test_matching_is_the_cheapest_by_hand_and_leaves_out_what_is_no_box():
    cost = torch.tensor([[1.0, 2.0, 0.0], [1.5, 4.0, 0.0], [9.0, 9.0, 0.0]])  # queries by boxes
    both = torch.stack([cost, cost]).repeat(1, 2, 1)  # two layers
    there = torch.tensor([[True, True, False], [False, True, False]])
    found = hungarian(both, there, (3, 3))
    assert found.tolist() == [[1, 0, -1] * 2, [1, -1, -1] * 2]  # 2 + 1.5 is less than 1 + 4
    assert hungarian(both, torch.zeros(2, 3, dtype=torch.bool), (3, 3)).eq(-1).all()


def test_generalised_overlaps_are_torchvisions():
    corner, side = 20 * torch.rand(2, 30, 2, generator=torch.Generator().manual_seed(0))
    boxes = torch.cat([corner, corner + side], 1)
    torch.testing.assert_close(
        pairwise_giou(boxes[None, :9], boxes[None, 9:])[0], generalized_box_iou(boxes[:9], boxes[9:])
    )


def test_every_object_is_asked_of_one_query_of_each_layer(loop):
    made = loop("task=set_detection", *BASE[1:])
    batch = next(made.task.epoch(Seeds(1, 2)))
    pairs = made.task.pairs(made.model(*batch.inputs), batch)
    objects = int((batch.target[..., 4] >= 0).sum())
    assert int(pairs["boxes"].mask.sum()) == 3 * objects
    assert float(pairs["binary_logits"].target.sum()) == 3 * objects
    assert float(pairs["values"].target.max()) <= 1
    before = [weight.detach().clone() for weight in made.model.parameters()]
    made.step(batch)
    assert not any(map(torch.equal, made.model.parameters(), before))


def test_answers_that_are_right_give_back_the_boxes(loop):
    task = loop("task=set_detection", *BASE[1:]).task
    truth = boxes_of([8, 8, 40, 40], [16, 32, 24, 64])
    centred = torch.cat([(truth[:, :2] + truth[:, 2:]) / 2, truth[:, 2:] - truth[:, :2]], 1) / 64
    scores = torch.tensor([[30.0, -20, -20], [-20, -20, 20.0]])
    outputs = {
        "objects": (scores.T[None, :, None],),
        "places": (centred.clamp(1e-6, 1 - 1e-6).logit().T[None, :, None],),
    }
    boxes, _, labels = task.found(outputs)
    assert labels.tolist() == [[0, 2]]
    torch.testing.assert_close(boxes[0], truth, atol=1e-3, rtol=0)
