"""The seam carries other tasks than classification: a toy task that finds boxes, with a box loss, in the real loop."""

import sys
import types
from typing import ClassVar

import pytest
import torch

from harness.training import loop as train
from losses.loss import Output, about


@about(name="toy box overlap", family="geometric", takes="values", link="none", paper="a toy", evidence="H")
def overlap(boxes, target, *, penalty=1.0):
    """One minus IoU plus the distance of the corners: one value per box."""
    low = torch.maximum(boxes[:, :2], target[:, :2])
    high = torch.minimum(boxes[:, 2:], target[:, 2:])
    inside = (high - low).clamp(min=0).prod(1)
    area = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1) + (target[:, 2:] - target[:, :2]).prod(1) - inside
    return 1 - inside / area.clamp(min=1e-6) + penalty * (boxes - target).abs().mean(1)


class Boxes:
    """Find a bright rectangle in a dark image."""

    takes = frozenset({"values"})
    judges = frozenset({"values"})
    selects = "overlap"
    dense = False
    decode = None
    model_shape: ClassVar = {"in_channels": 1, "image_size": 8, "num_classes": 4}

    def __init__(self, setup):
        dataset = setup.dataset
        generator = torch.Generator().manual_seed(0)
        low = torch.randint(0, 4, (dataset["count"], 2), generator=generator)
        high = low + torch.randint(2, 5, (dataset["count"], 2), generator=generator)
        x = torch.arange(8)
        rows = (x >= low[:, :1]) & (x < high[:, :1])
        columns = (x >= low[:, 1:]) & (x < high[:, 1:])
        self.images = (rows[:, :, None] & columns[:, None, :]).float()[:, None]
        self.boxes = torch.cat([low, high], 1) / 8

    def steps_per_epoch(self, batch_size):
        return len(self.boxes) // batch_size

    def epoch(self, batch_size, order_seed, augment_seed, first=0):
        order = torch.randperm(len(self.boxes), generator=torch.Generator().manual_seed(order_seed))
        for step in range(first, self.steps_per_epoch(batch_size)):
            chosen = order[step * batch_size : (step + 1) * batch_size]
            yield self.images[chosen], self.boxes[chosen]

    def examples(self, predict):
        return None

    def probe(self, count):
        return self.images[:count], self.boxes[:count]

    def mask(self, target):
        return None

    def evaluate(self, split, predict, link, batch_size):
        boxes = predict(self.images)
        return {"overlap": float(1 - overlap(boxes, self.boxes, penalty=0.0).mean())}

    def describe(self):
        return {"train": len(self.boxes)}


@pytest.fixture
def boxes(described, monkeypatch):
    room = types.ModuleType("toy_boxes")
    room.Boxes, room.overlap = Boxes, overlap
    monkeypatch.setitem(sys.modules, "toy_boxes", room)
    changes = {
        "task": {"_target_": "toy_boxes.Boxes"},
        "dataset": {"count": 256},
        "loss": {"_target_": "toy_boxes.overlap", "_partial_": True, "penalty": 1.0},
    }
    return described("trainer.epochs=12", "model=mlp", "trainer.batch_size=32") | changes


def test_a_box_task_trains_in_the_same_loop(boxes, tmp_path):
    trainer = train.Trainer(boxes, 1, {})
    before = trainer.evaluate("test")["overlap"]
    record = trainer.run(tmp_path, 1e9, lambda: False, lambda *_: None)
    assert record["status"] == "done"
    assert record["test"]["overlap"] > max(0.4, before + 0.2)


def test_a_box_task_resumes_bit_for_bit(boxes, tmp_path):
    straight = train.Trainer(boxes, 1, {}).run(tmp_path / "a", 1e9, lambda: False, lambda *_: None)
    stopped = train.Trainer(boxes, 1, {})
    with pytest.raises(train.Stopped):
        stopped.run(tmp_path / "b", 1e9, lambda: stopped.progress.step == 13, lambda *_: None)
    resumed = train.Trainer(boxes, 1, {}).run(tmp_path / "b", 1e9, lambda: False, lambda *_: None)
    assert resumed["test"] == straight["test"]


def test_a_box_task_refuses_class_losses(boxes, described):
    with pytest.raises(train.UsageError, match="compares class_logits, but this task offers only values"):
        train.Trainer(boxes | {"loss": described("loss=focal")["loss"]}, 1, {})


def test_output_has_two_parts():
    assert Output(None, None)._fields == ("features", "prediction")
