"""Temperature scaling: which number it finds, and what a run records at it."""

import math

import numpy as np
import pytest
import torch
from scipy import special

from harness import plan
from harness.metrics.declared import SCALED
from harness.metrics.scaling import temperature
from tests.conftest import carried_out

BASE = ("task=scaled_classification", "model=mlp", "dataset.train_size=200", "trainer.batch_size=20")


class Fixed:
    """A model that gives the same scores to equal images, sharpened by a factor."""

    def __init__(self, pixels, factor, link="softmax"):
        stream = torch.Generator().manual_seed(3)
        self.weight, self.factor, self.link = torch.randn(pixels, 10, generator=stream), factor, link

    def __call__(self, images):
        return {"class_logits": self.factor * images.flatten(1) @ self.weight}


@pytest.mark.parametrize("factor", [0.02, 1.0, 40.0])
def test_the_temperature_makes_right_what_was_sharpened(factor):
    stream = np.random.default_rng(0)
    logits = stream.normal(0, 2, (20000, 5))
    chance = special.softmax(logits, 1).cumsum(1)
    target = torch.from_numpy((stream.random((20000, 1)) > chance).sum(1))
    assert temperature(torch.from_numpy(factor * logits), target) == pytest.approx(factor, rel=0.03)


@pytest.mark.parametrize("items", [10, 500])
def test_scores_that_are_all_right_are_no_surer_than_their_number_allows(items):
    target = torch.arange(items) % 5
    logits = 30.0 * torch.nn.functional.one_hot(target, 5)
    found = (logits / temperature(logits, target)).softmax(1).gather(1, target[:, None])
    assert float(found.mean()) == pytest.approx(1 - 0.8 / (items + 1), rel=1e-3)


def test_a_useless_model_has_a_temperature_too_and_no_items_have_none():
    target = torch.arange(4)
    assert math.isfinite(temperature(torch.zeros(4, 4), target))
    with pytest.raises(ValueError, match="there are none"):
        temperature(torch.zeros(0, 4), target[:0])


def test_a_run_is_evaluated_before_and_after_at_the_temperature_of_validation_data(loop):
    task = loop(*BASE).task
    pixels = math.prod(task.splits.train.shape)
    sharp, plain = Fixed(pixels, 5.0), Fixed(pixels, 1.0)
    found, other = task.evaluate(sharp, "test"), task.evaluate(plain, "test")
    assert set(found) - {"items"} == {metric.key for metric in task.metrics} | {"per_class"}
    assert found["temperature"] == pytest.approx(5 * other["temperature"], rel=1e-3)
    for name in SCALED[1:]:
        assert found[name] == pytest.approx(other[name], rel=1e-3, abs=1e-6)
    assert found["scaled_nll"] < found["nll"]
    valid = task.evaluate(sharp, "valid")
    assert valid["temperature"] == pytest.approx(found["temperature"], rel=1e-12)
    assert found["top1"] == other["top1"]


def test_where_there_is_no_softmax_or_images_are_shifted_there_is_no_temperature(loop):
    task = loop(*BASE).task
    pixels = math.prod(task.splits.train.shape)
    assert {task.evaluate(Fixed(pixels, 1.0, None), "test")[name] for name in SCALED} == {None}
    shifted = task.evaluate(Fixed(pixels, 1.0), "test", lambda images: images)
    assert {shifted[name] for name in SCALED} == {None}
    assert shifted["nll"] is not None


def test_a_run_records_it_and_a_study_may_ask_for_it(loop, tmp_path):
    made = carried_out(loop(*BASE, "trainer.epochs=2"), tmp_path)
    assert made["test"]["temperature"] > 0
    assert made["valid"]["scaled_nll"] <= made["valid"]["nll"] + 0.01  # in hindsight it is hardly worse
    declared = {metric["key"]: metric for metric in made["metrics"]}
    assert declared["scaled_ece"]["title"] == "calibration error after temperature scaling"
    axes = ["base.task=scaled_classification", "metric=test.scaled_nll", "axes.model=[mlp]"]
    assert plan.read_study("smoke", axes).metric == "test.scaled_nll"
