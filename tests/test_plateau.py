"""Training to the plateau: when the rate falls, when training ends, and that a resumed run does the same."""

import pandas as pd
import pytest
import torch

from harness.training.job import Stopped, check
from tests.conftest import carried_out

SHORT = ("trainer=plateau", "dataset.train_size=64", "trainer.batch_size=32", "trainer.patience=2")


def scripted(loop, scores, *overrides):
    """Return a loop whose validation scores are given, epoch by epoch."""
    run = loop(*SHORT, f"trainer.epochs={len(scores)}", *overrides)
    real, given = run.evaluate, iter(scores)
    run.evaluate = lambda split, *more: {**real(split, *more), **({"top1": next(given)} if split == "valid" else {})}
    return run


def rates(run):
    return [round(row["lr"] / run.lr, 6) for row in run.state.history]


@pytest.mark.parametrize(
    ("scores", "trained", "stopped", "selected", "reduced_after"),
    [
        ([0.1, 0.2, 0.2, 0.2, 0.3, 0.3, 0.3, 0.9], 7, "plateau", 5, 4),  # equal scores do not count as rising
        ([0.1, 0.2, 0.1, 0.2, 0.2, 0.2, 0.9, 0.9], 6, "plateau", 2, 4),
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8], 8, "limit", 8, None),
        ([0.1, 0.2, 0.1, 0.1, 0.3, 0.4, 0.5, 0.6], 8, "limit", 8, 4),
        ([float("nan"), 0.2, 0.1, 0.1, 0.1, 0.1, 0.9, 0.9], 6, "plateau", 2, 4),
    ],
)
def test_the_rate_falls_at_the_first_plateau_and_training_ends_at_the_second(
    loop, tmp_path, scores, trained, stopped, selected, reduced_after
):
    run = scripted(loop, scores, "trainer.warmup=0")
    record = carried_out(run, tmp_path)
    assert (record["epochs_trained"], record["stopped"]) == (trained, stopped)
    assert record["selected_epoch"] == selected
    cut = trained if reduced_after is None else reduced_after
    assert rates(run) == [1.0] * cut + [0.1] * (trained - cut)


def test_at_the_first_plateau_the_best_weights_come_back(loop, tmp_path):
    run = scripted(loop, [0.1, 0.5, 0.4, 0.3, 0.2, 0.1], "trainer.warmup=0")
    seen = []
    real = run._look_for_plateau

    def looked(epoch):
        real(epoch)
        seen.append({name: t.clone() for name, t in run.model.state_dict().items()})

    run._look_for_plateau = looked
    carried_out(run, tmp_path)
    best, reached, restored = seen[1], seen[2], seen[3]
    assert all(torch.equal(best[name], restored[name]) for name in best)
    assert not all(torch.equal(reached[name], restored[name]) for name in best)


def test_validation_metrics_of_which_less_is_better_must_fall(loop, tmp_path):
    run = loop("task=regression", "trainer=plateau", "trainer.epochs=8", "trainer.patience=2")
    real, given = run.evaluate, iter([5.0, 4.0, 4.0, 4.0, 4.0, 4.5, 3.0, 2.0])
    run.task.metrics = tuple(metric for metric in run.task.metrics if metric.key == "rmse")
    run.evaluate = lambda split, *more: {**real(split, *more), **({"rmse": next(given)} if split == "valid" else {})}
    record = carried_out(run, tmp_path)
    assert (record["epochs_trained"], record["stopped"], record["selected_epoch"]) == (6, "plateau", 2)


def test_the_warm_up_is_a_share_of_ten_epochs(loop):
    run = loop(*SHORT, "trainer.epochs=60", "trainer.warmup=0.1")
    found = []
    for count in range(4):
        run._set_lr(count)
        found.append(run.optimizers["model"].param_groups[0]["lr"] / run.lr)
    assert run.task.steps_per_epoch == 2
    assert found == pytest.approx([0.5, 1, 1, 1])


@pytest.mark.parametrize("steps", [[3], [9], [10, 13]])
@pytest.mark.parametrize("loss", ["cross_entropy", "a_softmax", "center_cross_entropy"])
def test_a_resumed_run_reaches_the_same_plateaus_bit_for_bit(loop, tmp_path, loss, steps):
    """Stopped before, at and after the first plateau, which comes after epoch 5 (step 10)."""
    scores = [0.1, 0.2, 0.3, 0.3, 0.3, 0.3, 0.3, 0.9]
    straight = scripted(loop, scores, f"loss={loss}")
    record = carried_out(straight, tmp_path / "straight")
    assert record["stopped"] == "plateau"
    done = 0
    for step in steps:
        run = scripted(loop, scores, f"loss={loss}")
        skip(run, done)
        with pytest.raises(Stopped):
            carried_out(run, tmp_path / "stopped", lambda run=run, step=step: run.state.step >= step)
        done = len(run.state.history)
    resumed = scripted(loop, scores, f"loss={loss}")
    skip(resumed, done)
    again = carried_out(resumed, tmp_path / "stopped")
    for part in ("test", "valid", "selected_epoch", "epochs_trained", "stopped"):
        assert again[part] == record[part], part
    one, other = ({**run.model.state_dict(), **run.losses.state_dict()} for run in (straight, resumed))
    assert all(torch.equal(one[name], other[name]) for name in one)
    same = ["epoch", "step", "lr", "train.loss", "grad_norm"]
    first, second = (pd.DataFrame(run.state.history)[same] for run in (straight, resumed))
    pd.testing.assert_frame_equal(first, second, check_exact=True)


def skip(run, epochs):
    """Leave out the scripted scores of the epochs that a checkpoint has."""
    for _ in range(epochs):
        run.evaluate("valid")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (("trainer.select=last",), "trainer.schedule=plateau goes back to the best epoch"),
    ],
)
def test_settings_that_mean_nothing_are_refused(spec, job, settings, sentence):
    found = check(job(spec("trainer=plateau", *settings), only_check=True))
    assert found is not None
    assert found.startswith(sentence)


def test_other_schedules_end_at_the_limit(loop, tmp_path):
    record = carried_out(loop("trainer.epochs=2", "dataset.train_size=64"), tmp_path)
    assert (record["stopped"], record["epochs_trained"]) == ("limit", 2)
