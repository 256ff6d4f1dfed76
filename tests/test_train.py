"""The training loop: fair pairing, resume bit for bit, divergence, and what a record holds."""

import json
import math

import pandas as pd
import pytest
import torch

from harness import NUMERICS
from harness import records
from harness.training import loop as train
from harness.catalogue.entries import for_classification
from harness.errors import UsageError

LOSSES = for_classification()
SHORT = ("dataset.train_size=128", "trainer.batch_size=32", "trainer.epochs=3", "dataset.augment.shift=1")


def never():
    return False


def quiet(*_):
    return None


def weights(trainer):
    return {name: tensor.clone() for name, tensor in trainer.model.body.state_dict().items()}


@pytest.mark.parametrize("model", ["cnn_micro", "vit_nano"])
def test_equal_seeds_mean_equal_weights_batches_and_augmentations_for_every_loss(trainer, model):
    """Also for losses with weights of their own, and even after they have drawn and trained."""

    def seen(loss):
        run = trainer(f"loss={loss}", f"model={model}", *SHORT, seed=5)
        start = weights(run)
        batches = []
        for epoch in range(2):
            for inputs, target in run.task.epoch(
                32, train.seed_for(5, "order", epoch), train.seed_for(5, "augment", epoch)
            ):
                batches.append((inputs.clone(), target.clone()))
                run.step(inputs, target)
        return start, batches

    start, batches = seen("cross_entropy")
    for loss in LOSSES:
        other_start, other_batches = seen(loss)
        assert all(torch.equal(start[name], other_start[name]) for name in start), loss
        for (x, y), (other_x, other_y) in zip(batches, other_batches, strict=True):
            assert torch.equal(x, other_x), loss
            assert torch.equal(y, other_y), loss


def test_other_seeds_mean_other_weights_batches_and_augmentations(trainer):
    one, other = trainer(*SHORT, seed=1), trainer(*SHORT, seed=2)
    assert not all(torch.equal(a, b) for a, b in zip(weights(one).values(), weights(other).values(), strict=True))
    x, y = next(iter(one.task.epoch(32, 1, 1)))
    assert not torch.equal(next(iter(one.task.epoch(32, 2, 1)))[1], y)
    moved, same_labels = next(iter(one.task.epoch(32, 1, 2)))
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


class Drawing(torch.nn.Module):
    """A loss that draws random numbers."""

    def __init__(self, loss):
        super().__init__()
        self.loss, self.about = loss, loss.about

    def forward(self, output, target, mask=None):
        return self.loss(output, target, mask) + 0 * torch.rand(1000).sum()


def test_a_loss_that_draws_does_not_move_the_models_dropout(trainer):
    def masks(draws):
        run = trainer(*SHORT)
        run.model.body = Dropping(run.model.body)
        if draws:
            run.loss = Drawing(run.loss)
        for inputs, target in run.task.epoch(32, 1, 1):
            run.step(inputs, target)
        return run.model.body.masks

    plain, drawing = masks(False), masks(True)
    assert len(plain) == 4
    assert all(torch.equal(a, b) for a, b in zip(plain, drawing, strict=True))
    assert not torch.equal(plain[0], plain[1])


def finish(run, folder, stop=never):
    record = run.run(folder, 1e9, stop, quiet)
    return record, {name: t.clone() for name, t in (run.model.state_dict() | run.loss.state_dict()).items()}


def stop_at(run, step):
    return lambda: run.progress.step == step


@pytest.mark.parametrize("loss", ["cross_entropy", "arcface", "center_cross_entropy"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("steps", [[1], [4], [6, 7, 11]])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(trainer, tmp_path, loss, precision, steps):
    """Stopped inside an epoch, between two epochs, and several times; losses with weights and with memory too."""
    asked = (f"loss={loss}", f"trainer.precision={precision}", *SHORT)
    straight, final = finish(trainer(*asked), tmp_path / "straight")
    for step in steps:
        run = trainer(*asked)
        with pytest.raises(train.Stopped):
            finish(run, tmp_path / "stopped", stop_at(run, step))
        assert run.progress.step == step
    resumed_run = trainer(*asked)
    resumed, resumed_final = finish(resumed_run, tmp_path / "stopped")
    assert all(torch.equal(final[name], resumed_final[name]) for name in final)
    for part in ("test", "valid", "selected_epoch", "status"):
        assert resumed[part] == straight[part]


def test_history_of_a_resumed_run_equals_that_of_an_uninterrupted_one(trainer, tmp_path):
    first = trainer(*SHORT)
    finish(first, tmp_path / "a")
    stopped = trainer(*SHORT)
    with pytest.raises(train.Stopped):
        finish(stopped, tmp_path / "b", stop_at(stopped, 6))
    second = trainer(*SHORT)
    finish(second, tmp_path / "b")
    measured = ["epoch", "step", "lr", "train.loss", "grad_norm", "valid.top1", "valid.nll", "valid.ece"]
    pd.testing.assert_frame_equal(
        pd.DataFrame(first.progress.history)[measured],
        pd.DataFrame(second.progress.history)[measured],
        check_exact=True,
    )


def test_divergence_is_a_result_with_step_and_last_finite_loss(trainer, tmp_path):
    run = trainer("optimizer=sgd", "optimizer.lr=1.0e30", "trainer.warmup=0", *SHORT)
    record, _ = finish(run, tmp_path)
    assert record["status"] == "diverged"
    assert record["diverged_step"] in range(1, 12)
    assert math.isfinite(record["last_finite_loss"])
    assert record["test"] is None
    assert len(run.progress.history) < 3


def accuracy_from(record):
    """Top-1 accuracy of the 360 test images from the accuracies per class: an independent sum."""
    from datasets.sources.digits import digits

    test = digits(None, download=False, train_size=128, valid_size=237, test_size=None, split_seed=0).test
    counts = torch.bincount(test.targets, minlength=10).tolist()
    return sum(share * count for share, count in zip(record["test"]["per_class"], counts, strict=True)) / sum(counts)


def test_record_says_what_was_measured(trainer, tmp_path):
    run = trainer(*SHORT, "trainer.select=last")
    record, _ = finish(run, tmp_path)
    assert all(len(json.loads(row["valid.per_class"])) == 10 for row in run.progress.history)
    assert record["selected_epoch"] == 3
    assert set(record["test"]) == {
        "top1", "top5", "macro_f1", "balanced_accuracy", "gmean", "auc", "minority_recall", "nll", "ece", "per_class",
    }  # fmt: skip
    assert len(record["test"]["per_class"]) == 10
    assert record["test"]["top1"] == pytest.approx(accuracy_from(record), abs=1e-9)
    assert record["cost"]["parameters"] == 94186
    assert record["data"]["train"] == 128
    assert record["cost"]["step_ms"] > 0


def test_the_selected_epoch_is_the_best_on_validation_and_its_weights_are_tested(trainer, tmp_path):
    run = trainer(*SHORT, "optimizer.lr=0.05", "trainer.epochs=6")
    record, _ = finish(run, tmp_path)
    best = max(row["valid.top1"] for row in run.progress.history)
    assert record["valid"]["top1"] == best
    assert record["selected_epoch"] == next(r["epoch"] for r in run.progress.history if r["valid.top1"] == best)
    assert run.evaluate("valid")["top1"] == best


@pytest.mark.parametrize(
    ("loss", "has"), [("cross_entropy", (True, True)), ("bce_ovr", (False, True)), ("hinge_ww", (False, False))]
)
def test_likelihood_and_calibration_only_where_the_link_allows(trainer, loss, has):
    scores = trainer(f"loss={loss}", *SHORT).evaluate("valid")
    assert (scores["nll"] is not None, scores["ece"] is not None) == has


def test_loss_weights_are_trained(trainer):
    run = trainer("loss=arcface", *SHORT)
    before = [p.detach().clone() for p in run.loss.parameters()]
    for inputs, target in run.task.epoch(32, 1, 1):
        run.step(inputs, target)
    assert before
    assert all(not torch.equal(a, b) for a, b in zip(before, run.loss.parameters(), strict=True))
    assert run.model.head is None


def test_learning_rate_warms_up_and_falls_to_zero(trainer):
    run = trainer("trainer.warmup=0.25", *SHORT)
    rates = []
    for count in range(run.total_steps):
        run._set_lr(count)
        rates.append(run.optimizer.param_groups[0]["lr"] / run.lr)
    assert rates[:4] == pytest.approx([1 / 3, 2 / 3, 1, 1])
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert rates[-1] < 0.05


def test_clipping_bounds_the_gradient(trainer):
    run = trainer(
        "trainer.clip_norm=0.001",
        "optimizer=sgd",
        "optimizer.momentum=0",
        "optimizer.nesterov=false",
        "optimizer.weight_decay=0",
        "trainer.warmup=0",
        *SHORT,
    )
    before = [p.detach().clone() for p in run._parameters]
    inputs, target = next(iter(run.task.epoch(32, 1, 1)))
    run.step(inputs, target)
    moved = math.sqrt(sum(float(((a - b.detach()) ** 2).sum()) for a, b in zip(before, run._parameters, strict=True)))
    assert moved == pytest.approx(0.001 * run.lr, rel=1e-3)


def test_a_loss_for_another_task_is_refused(trainer, monkeypatch):
    monkeypatch.setattr("harness.tasks.classification.Classification.takes", frozenset({"boxes"}))
    with pytest.raises(UsageError, match="compares class_logits, but this task offers only boxes"):
        trainer()


GOLDEN = {1: [1.7655, 0.9648]}  # harness.NUMERICS -> train loss of the first two epochs below


def test_numbers_do_not_change_unless_numerics_is_raised(trainer, tmp_path):
    """If this fails and the change is meant, raise harness.NUMERICS (or losses.NUMERICS) and write the new values."""
    run = trainer(
        "trainer.precision=fp32", "trainer.epochs=2", "dataset.train_size=640", "dataset.augment.shift=1", seed=7
    )
    finish(run, tmp_path)
    found = [row["train.loss"] for row in run.progress.history]
    assert found == pytest.approx(GOLDEN[NUMERICS], rel=0.01)


def test_failure_is_recorded_with_its_traceback(described, tmp_path):
    from harness.engines import local as engines

    job = {
        "key": "0" * 16,
        "names": {},
        "described": described("trainer.schedule=cosine"),
        "seed": 1,
        "environment": {},
        "data": {"root": "nowhere", "download": False},
        "checkpoint_seconds": 1e9,
    }

    def broken(*_):
        raise RuntimeError("the printer is on fire")

    outcome = engines.attempt(job, tmp_path, never, broken)
    assert outcome == {"status": "failed", "error": "RuntimeError: the printer is on fire"}
    failure = json.loads((tmp_path / "failure.json").read_text())
    assert "in broken" in failure["traceback"]
    assert not (tmp_path / "record.json").exists()
    train.run(job, tmp_path, never, quiet)
    assert json.loads((tmp_path / "record.json").read_text())["schema"] == records.SCHEMA
    assert not (tmp_path / "failure.json").exists()
