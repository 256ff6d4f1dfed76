"""The training loop: fair pairing, resume bit for bit, divergence, and what a record holds."""

import json
import math

import pandas as pd
import pytest
import torch

from harness import records
from harness.catalogue.entries import for_task
from harness.errors import UsageError
from harness.tasks import Seeds
from harness.training import build
from harness.training.job import Stopped, carry_out, check
from losses.loss import Loss
from tests.conftest import carried_out

LOSSES = for_task("classification")
SHORT = ("dataset.train_size=128", "trainer.batch_size=32", "trainer.epochs=3", "dataset.augment.shift=1")


def weights(loop):
    return {name: tensor.clone() for name, tensor in loop.model.body.state_dict().items()}


@pytest.mark.parametrize("model", ["cnn_micro", "vit_nano"])
def test_equal_seeds_mean_equal_weights_batches_and_augmentations_for_every_loss(loop, model):
    """Also for losses with weights of their own, and even after they have drawn and trained."""

    def seen(loss):
        run = loop(f"loss={loss}", f"model={model}", *SHORT, "dataset.train_size=64", seed=5)
        start = weights(run)
        batches = []
        for epoch in range(2):
            seeds = Seeds(build.seed_for(5, "order", epoch), build.seed_for(5, "augment", epoch))
            for batch in run.task.epoch(seeds):
                batches.append((batch.inputs[0].clone(), batch.target.clone()))
                run.step(batch)
        return start, batches

    start, batches = seen("cross_entropy")
    for loss in LOSSES:
        other_start, other_batches = seen(loss)
        assert all(torch.equal(start[name], other_start[name]) for name in start), loss
        for (x, y), (other_x, other_y) in zip(batches, other_batches, strict=True):
            assert torch.equal(x, other_x), loss
            assert torch.equal(y, other_y), loss


def test_other_seeds_mean_other_weights_batches_and_augmentations(loop):
    one, other = loop(*SHORT, seed=1), loop(*SHORT, seed=2)
    assert not all(torch.equal(a, b) for a, b in zip(weights(one).values(), weights(other).values(), strict=True))
    (x,), y = next(one.task.epoch(Seeds(1, 1)))
    assert not torch.equal(next(one.task.epoch(Seeds(2, 1))).target, y)
    (moved,), same_labels = next(one.task.epoch(Seeds(1, 2)))
    assert torch.equal(same_labels, y)
    assert not torch.equal(moved, x)


class Dropping(torch.nn.Module):
    """A body whose dropout draws from the global stream, to see whether a loss moves it."""

    def __init__(self, body):
        super().__init__()
        self.body, self.masks = body, []

    def forward(self, images):
        features = self.body(images)
        mask = torch.rand_like(features) > 0.5
        self.masks.append(mask)
        return features * mask


class Drawing(Loss):
    """A loss that draws random numbers."""

    def forward(self, *given, **more):
        return super().forward(*given, **more) + 0 * torch.rand(1000).sum()


def test_a_loss_that_draws_does_not_move_the_models_dropout(loop):
    def masks(draws):
        run = loop(*SHORT)
        run.model.body = Dropping(run.model.body)
        if draws:
            run.losses["model"] = Drawing(run.losses["model"].function)
        for batch in run.task.epoch(Seeds(1, 1)):
            run.step(batch)
        return run.model.body.masks

    plain, drawing = masks(False), masks(True)
    assert len(plain) == 4
    assert all(torch.equal(a, b) for a, b in zip(plain, drawing, strict=True))
    assert not torch.equal(plain[0], plain[1])


def finish(run, folder, stop=lambda: False):
    record = carried_out(run, folder, stop)
    return record, {name: t.clone() for name, t in (run.model.state_dict() | run.losses.state_dict()).items()}


def stop_at(run, step):
    return lambda: run.state.step == step


@pytest.mark.parametrize("loss", ["cross_entropy", "arcface", "center_cross_entropy"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("steps", [[1], [4], [6, 7, 11]])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(loop, tmp_path, loss, precision, steps):
    """Stopped inside an epoch, between two epochs, and several times; losses with weights and with memory too."""
    asked = (f"loss={loss}", f"trainer.precision={precision}", *SHORT)
    straight, final = finish(loop(*asked), tmp_path / "straight")
    for step in steps:
        run = loop(*asked)
        with pytest.raises(Stopped):
            finish(run, tmp_path / "stopped", stop_at(run, step))
        assert run.state.step == step
    resumed_run = loop(*asked)
    resumed, resumed_final = finish(resumed_run, tmp_path / "stopped")
    assert all(torch.equal(final[name], resumed_final[name]) for name in final)
    for part in ("test", "valid", "selected_epoch", "status"):
        assert resumed[part] == straight[part]


def test_history_of_a_resumed_run_equals_that_of_an_uninterrupted_one(loop, tmp_path):
    first = loop(*SHORT)
    finish(first, tmp_path / "a")
    stopped = loop(*SHORT)
    with pytest.raises(Stopped):
        finish(stopped, tmp_path / "b", stop_at(stopped, 6))
    second = loop(*SHORT)
    finish(second, tmp_path / "b")
    measured = ["epoch", "step", "lr", "train.loss", "grad_norm", "valid.top1", "valid.nll", "valid.ece"]
    pd.testing.assert_frame_equal(
        pd.DataFrame(first.state.history)[measured],
        pd.DataFrame(second.state.history)[measured],
        check_exact=True,
    )


def test_divergence_is_a_result_with_step_and_last_finite_loss(loop, tmp_path):
    run = loop("optimizer=sgd", "optimizer.lr=1.0e30", "trainer.warmup=0", *SHORT)
    record, _ = finish(run, tmp_path)
    assert record["status"] == "diverged"
    assert record["diverged_step"] in range(1, 12)
    assert math.isfinite(record["last_finite_loss"])
    assert record["test"] is None
    assert len(run.state.history) < 3


def accuracy_from(record):
    """Top-1 accuracy of the 360 test images from the accuracies per class: an independent sum."""
    from datasets.sources.digits import digits

    test = digits(None, download=False, train_size=128, valid_size=237, test_size=None, split_seed=0).test
    counts = torch.bincount(test.targets, minlength=10).tolist()
    return sum(share * count for share, count in zip(record["test"]["per_class"], counts, strict=True)) / sum(counts)


def test_record_says_what_was_measured(loop, tmp_path):
    run = loop(*SHORT, "trainer.select=last")
    record, _ = finish(run, tmp_path)
    assert all(len(json.loads(row["valid.per_class"])) == 10 for row in run.state.history)
    assert record["selected_epoch"] == 3
    assert set(record["test"]) == {
        "top1", "top5", "macro_f1", "balanced_accuracy", "gmean", "auc", "minority_recall", "nll", "ece",
        "confidence_gap", "per_class",
    }  # fmt: skip
    assert len(record["test"]["per_class"]) == 10
    assert record["test"]["top1"] == pytest.approx(accuracy_from(record), abs=1e-9)
    assert record["cost"]["parameters"] == 94186
    assert record["data"]["train"] == 128
    assert record["cost"]["step_ms"] > 0


def test_the_selected_epoch_is_the_best_on_validation_and_its_weights_are_tested(loop, tmp_path):
    run = loop(*SHORT, "optimizer.lr=0.05", "trainer.epochs=6")
    record, _ = finish(run, tmp_path)
    best = max(row["valid.top1"] for row in run.state.history)
    assert record["valid"]["top1"] == best
    assert record["selected_epoch"] == next(r["epoch"] for r in run.state.history if r["valid.top1"] == best)
    assert run.evaluate("valid")["top1"] == best


@pytest.mark.parametrize(
    ("loss", "has"), [("cross_entropy", (True, True)), ("bce_ovr", (False, True)), ("hinge_ww", (False, False))]
)
def test_likelihood_and_calibration_only_where_the_link_allows(loop, loss, has):
    scores = loop(f"loss={loss}", *SHORT).evaluate("valid")
    assert (scores["nll"] is not None, scores["ece"] is not None) == has


def test_loss_weights_are_trained(loop):
    run = loop("loss=arcface", *SHORT)
    before = [p.detach().clone() for p in run.losses.parameters()]
    for batch in run.task.epoch(Seeds(1, 1)):
        run.step(batch)
    assert before
    assert all(not torch.equal(a, b) for a, b in zip(before, run.losses.parameters(), strict=True))
    assert not run.model.heads


def test_learning_rate_warms_up_and_falls_to_zero(loop):
    run = loop("trainer.warmup=0.25", *SHORT)
    rates = []
    for count in range(run.total_steps):
        run._set_lr(count)
        rates.append(run.optimizers["model"].param_groups[0]["lr"] / run.lr)
    assert rates[:4] == pytest.approx([1 / 3, 2 / 3, 1, 1])
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert rates[-1] < 0.05


def test_clipping_bounds_the_gradient(loop):
    run = loop(
        "trainer.clip_norm=0.001",
        "optimizer=sgd",
        "optimizer.momentum=0",
        "optimizer.nesterov=false",
        "optimizer.weight_decay=0",
        "trainer.warmup=0",
        *SHORT,
    )
    parameters = run.parameters["model"]
    before = [p.detach().clone() for p in parameters]
    run.step(next(run.task.epoch(Seeds(1, 1))))
    moved = math.sqrt(sum(float(((a - b.detach()) ** 2).sum()) for a, b in zip(before, parameters, strict=True)))
    assert moved == pytest.approx(0.001 * run.lr, rel=1e-3)


def test_a_loss_for_another_task_is_refused(loop, monkeypatch):
    monkeypatch.setattr("harness.tasks.classification.Classification.offers", frozenset({"boxes"}))
    with pytest.raises(UsageError, match="compares class_logits, but this task offers only boxes"):
        loop()


GOLDEN = [1.7655, 0.9648]  # training loss of the first two epochs below


def test_numbers_do_not_change_unless_that_is_meant(loop, tmp_path):
    """If this fails and the change is meant, write the new values: the keys of all runs change with them."""
    run = loop(
        "trainer.precision=fp32", "trainer.epochs=2", "dataset.train_size=640", "dataset.augment.shift=1", seed=7
    )
    finish(run, tmp_path)
    assert [row["train.loss"] for row in run.state.history] == pytest.approx(GOLDEN, rel=0.01)


def test_with_one_objective_the_loop_is_the_plain_loop_bit_for_bit(loop):
    """A small CNN beside the loop that everybody writes by hand."""
    given = ("trainer.schedule=constant", "trainer.warmup=0", "trainer.precision=fp32", *SHORT)
    run, other = loop(*given), loop(*given)
    model, parameters = other.model, list(other.model.parameters())
    groups = [{"params": [p for p in parameters if p.ndim >= 2], "weight_decay": 0.05},
              {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0}]  # fmt: skip
    optimizer = torch.optim.AdamW(groups, lr=0.005, betas=(0.9, 0.999), fused=True)
    run.model.train()
    model.train()
    for batch in other.task.epoch(Seeds(1, 1)):
        value = torch.nn.functional.cross_entropy(model(*batch.inputs)["class_logits"], batch.target)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    for batch in run.task.epoch(Seeds(1, 1)):
        run.step(batch)
    start = loop(*given).model.state_dict()
    assert run.state.step == 4
    for name, tensor in model.state_dict().items():
        assert torch.equal(run.model.state_dict()[name], tensor), name
        assert not torch.equal(start[name], tensor), name


def test_failure_is_recorded_with_its_traceback(spec, job, tmp_path, monkeypatch):
    given = job(spec("trainer.schedule=cosine"), folder=str(tmp_path))

    def broken(*_):
        raise RuntimeError("the printer is on fire")

    with monkeypatch.context() as patched:
        patched.setattr("harness.training.loop.Loop.step", broken)
        outcome = carry_out(given, lambda: False, lambda *_: None)
    assert outcome == {"status": "failed", "error": "RuntimeError: the printer is on fire"}
    failure = json.loads((tmp_path / "failure.json").read_text())
    assert failure["status"] == "failed"
    assert "in broken" in failure["traceback"]
    assert not (tmp_path / "record.json").exists()
    assert carry_out(given, lambda: False, lambda *_: None) == {"status": "done"}
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["schema"] == records.SCHEMA
    assert [metric["key"] for metric in record["metrics"]][:2] == ["top1", "top5"]
    assert not (tmp_path / "failure.json").exists()


@pytest.mark.parametrize(
    ("metric", "sentence"),
    [
        ("test.top1", None),
        ("shifted.noise.top1", None),
        ("test.tpo1", "unknown metric 'test.tpo1': did you mean test.top1"),
        ("shifted.blur.top1", "unknown metric 'shifted.blur.top1': did you mean shifted.noise.top1"),
        ("tset.top1", "unknown metric 'tset.top1': did you mean test.top1"),
    ],
)
def test_a_metric_that_no_run_will_record_is_refused_before_training(spec, job, metric, sentence):
    found = check(job(spec("shift=[noise]"), metric=metric, only_check=True))
    assert found is None if sentence is None else found is not None and found.startswith(sentence)
