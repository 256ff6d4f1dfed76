"""The seats of a detector: every loss of classes or boxes trains it, weights by first gradients, what is ignored."""

import functools

import pytest
import torch
from hydra.utils import instantiate

from harness import compose
from harness.errors import UsageError
from harness.tasks import Batch, Seeds
from harness.tasks.detection import Detection
from harness.training import build
from harness.training.job import Stopped
from harness.training.loop import Loop
from losses.loss import about_of
from tests.test_detection import BASE, job, run

REFUSED = {"balanced_softmax", "class_balanced", "ldam", "logit_adjustment", "weighted_cross_entropy"}
"""Losses that ask how many items each class has, which nobody knows of the background."""
SMALL = (*BASE[1:4], "dataset.train_size=32", "dataset.valid_size=8", "dataset.test_size=8", "trainer.epochs=1")


def fitting(role):
    """Names of the losses that may sit in a seat."""
    found = []
    for name in compose.options("loss"):
        config = compose.option("loss", name)
        if "terms" not in config:
            about = about_of(instantiate(config))
            if set(about.kinds) <= Detection.role_kinds[role] and not about.untrainable and about.family != "control":
                found.append(name)
    return found


@functools.cache
def made(*overrides):
    return Loop(job("task=detection", *SMALL, *overrides))


@functools.cache
def compared():
    """Outputs of an untrained detector for a batch, as leaves, and what losses compare of them."""
    loop = made()
    batch = next(loop.task.epoch(Seeds(1, 2)))
    outputs = {
        kind: tuple(level.detach().requires_grad_() for level in levels)
        for kind, levels in loop.model(*batch.inputs).items()
    }
    return outputs, loop.task.pairs(outputs, batch)


@pytest.mark.parametrize(("role", "least"), [("classes", 75), ("boxes", 20)])
def test_every_loss_that_may_sit_in_a_seat_trains_it(role, least):
    outputs, pairs = compared()
    leaf = outputs[{"classes": "objects", "boxes": "sides"}[role]][0]
    names = fitting(role)
    assert len(names) >= least
    for name in names:
        if name in REFUSED:
            continue
        loss = build.loss(compose.option("loss", name), made().task, 0, role)
        value = loss(pairs)
        (slope,) = torch.autograd.grad(value, leaf, retain_graph=True)
        assert value.isfinite(), name
        assert slope.isfinite().all(), name
        assert (slope.flatten(2).abs().sum((0, 2)) > 0).all(), name  # scores of every class, all four edges


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_losses_that_count_classes_are_refused(name):
    with pytest.raises(UsageError, match="this task has no class_"):
        build.loss(compose.option("loss", name), made().task, 0, "classes")


@pytest.mark.parametrize(
    ("classes", "boxes"),
    [("cross_entropy", "mae"), ("varifocal", "mpdiou"), ("ghm_c", "ghm_r"), ("quality_focal", "gwd"), ("dice", "nwd")],
)
def test_losses_of_both_seats_move_every_weight_together(classes, boxes):
    loop = Loop(job("task=detection", *SMALL, f"loss.classes={classes}", f"loss.boxes={boxes}"))
    before = {name: p.detach().clone() for name, p in loop.model.named_parameters()}
    for batch in loop.task.epoch(Seeds(1, 2)):
        loop.step(batch)
    now = dict(loop.model.named_parameters())
    assert all(now[name].isfinite().all() for name in before)
    assert not [name for name, old in before.items() if torch.equal(now[name], old)]


def test_the_background_is_a_class_of_score_0():
    _, pairs = compared()
    logits, target, counts = pairs["class_logits"]
    images, classes, cells = logits.shape
    assert (images, classes, cells) == (16, 4, 64)
    assert not logits[:, 3].any()
    wanted = pairs["binary_logits"].target
    assert torch.equal(target == 3, wanted.sum(2) == 0)
    assert torch.equal(torch.nn.functional.one_hot(target, 4)[..., :3].to(wanted.dtype), wanted)
    assert counts.all()


def test_scores_become_probabilities_as_the_loss_of_classes_has_them():
    loop = made("loss.classes=cross_entropy")
    assert loop.predict.link == "softmax"
    assert made().predict.link == "sigmoid"
    outputs = {"objects": (torch.full((1, 3, 8, 8), -20.0),), "sides": (torch.zeros(1, 4, 8, 8),)}
    outputs["objects"][0][0, :, 3, 3] = torch.tensor([9.0, 9.0, -20.0])
    scores = {link: loop.task.found(outputs, link)[1][0, 0].item() for link in ("softmax", "sigmoid")}
    assert scores["softmax"] == pytest.approx(0.5, abs=0.01)
    assert scores["sigmoid"] > 0.98


# ---------------------------------------------------------------- weights of the seats


def first_gradients(loop):
    """Length of the gradient of each weighted loss in the outputs, for the first batch of training."""
    batch = next(loop.task.epoch(loop._seeds(0)))
    outputs = loop.model(*batch.inputs)
    pairs, lengths = loop.task.pairs(outputs, batch), {}
    for role, loss in loop.losses["model"].losses.items():
        value = loop.losses["model"].weights[role] * loss(pairs)
        slopes = torch.autograd.grad(
            value, [*outputs["objects"], *outputs["sides"]], allow_unused=True, retain_graph=True
        )
        lengths[role] = sum(float(slope.square().sum()) for slope in slopes if slope is not None) ** 0.5
    return lengths


@pytest.mark.parametrize("losses", [(), ("loss.boxes=mse", "loss.classes=ghm_c"), ("loss.boxes=nwd",)])
def test_weights_are_the_lengths_of_the_first_gradients(losses):
    loop = Loop(job("task=detection", *SMALL, "task.weights={classes:0.3,boxes:2}", *losses))
    assert first_gradients(loop) == pytest.approx({"classes": 0.3, "boxes": 2.0}, rel=1e-4)
    assert loop.losses["model"].weights == loop.weights


def test_balancing_changes_neither_model_nor_memory_of_losses():
    balanced, fixed = (
        Loop(job("task=detection", *SMALL, "loss.boxes=ghm_r", "loss.classes=ghm_c_ovr_moving", f"task.balance={how}"))
        for how in ("gradient", "fixed")
    )
    assert fixed.weights == {}
    assert fixed.losses["model"].weights == {"classes": 0.05, "boxes": 0.1}
    for one, other in ((balanced.model, fixed.model), (balanced.losses, fixed.losses)):
        state = other.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in one.state_dict().items())


def test_a_run_that_is_resumed_has_the_weights_it_began_with(tmp_path):
    straight, *_ = run(Loop(job(*BASE)), tmp_path / "a")
    stopped = Loop(job(*BASE))
    with pytest.raises(Stopped):
        run(stopped, tmp_path / "b", lambda: stopped.state.step == 3)
    resumed, *_ = run(Loop(job(*BASE)), tmp_path / "b")
    assert resumed["loss_weights"] == straight["loss_weights"] == stopped.weights
    assert resumed["test"] == straight["test"]


def test_a_seat_alone_keeps_its_weight():
    loop = Loop(job("task=detection", *SMALL, "task.weights={classes:1,boxes:0}"))
    assert loop.weights == {}


def test_a_first_batch_without_boxes_is_passed_over(monkeypatch):
    task = made().task
    batches = list(task.epoch(Seeds(1, 2)))
    empty = batches[0].target.clone()
    empty[..., 4] = -1
    batches[0] = Batch(batches[0].inputs, empty)

    monkeypatch.setattr(Detection, "epoch", lambda *_: iter(batches))
    loop = Loop(job("task=detection", *SMALL))
    assert loop.weights["boxes"] > 0
    monkeypatch.setattr(Detection, "epoch", lambda *_: iter(batches[:1]))
    with pytest.raises(UsageError, match=r"no training image gives loss.boxes a gradient"):
        Loop(job("task=detection", *SMALL))


# ---------------------------------------------------------------- what is ignored


def test_boxes_that_are_ignored_are_found_by_nothing_and_their_cells_do_not_count():
    task = made().task
    batch = next(task.epoch(Seeds(1, 2)))
    target = batch.target[:1].clone()
    target[0, :, 4], target[0, :, :4] = -1, 0
    target[0, 0] = torch.tensor([8.0, 8, 40, 40, 1, 0])
    target[0, 1] = torch.tensor([24.0, 24, 64, 64, 2, 2])
    outputs = {"objects": (torch.zeros(1, 3, 8, 8),), "sides": (torch.zeros(1, 4, 8, 8),)}
    pairs = task.pairs(outputs, Batch(batch.inputs, target))
    wanted, counts = pairs["binary_logits"].target[0], pairs["binary_logits"].mask[0]
    assert not wanted[:, 2].any()
    assert wanted[:, 1].sum() == pairs["boxes"].mask.sum() > 0
    _, _, cells = task.cells(outputs)
    low, high = target[0, 1, :2], target[0, 1, 2:4]
    held = ((cells.centres > low) & (cells.centres < high)).all(1)
    assert torch.equal(counts.all(1), ~held | wanted.any(1))
    assert torch.equal(pairs["class_logits"].mask[0], counts.all(1))


@pytest.mark.parametrize("rule", ["centre", "task_aligned"])
def test_a_detector_learns_by_every_rule_of_assignment(rule, tmp_path):
    loop = Loop(job(*BASE, f"task.assignment={rule}"))
    first, *_, last = run(loop, tmp_path)[1]["train.loss"]
    assert last < first


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("task.assignment=nearest",), "task.assignment"),
        (("task.balance=value",), "task.balance"),
    ],
)
def test_unknown_rules_are_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        Loop(job("task=detection", *SMALL, *changes))
