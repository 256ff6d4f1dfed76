"""Mirrors beside MLflow: TensorBoard and Weights & Biases."""

import importlib.util
import math
import sys
import types
from typing import ClassVar

import pytest

from harness import journal, tracking
from harness.errors import UsageError
from harness.tracking import copies
from harness.tracking.__main__ import main
from harness.tracking.live import MLFLOW, Rounds
from harness.tracking.store import runs_address
from tests.test_tracking import history_rows, run_row, study_of, write_results


class Writer:
    """Stands for TensorBoard's SummaryWriter: keeps what was written, by the name of the folder."""

    written: ClassVar[dict[str, dict]] = {}

    def __init__(self, folder):
        self.kept = self.written.setdefault("/".join(folder.split("/")[-2:]), {})
        self.kept["curves"] = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def add_scalar(self, name, value, step, walltime=None):
        self.kept["curves"].setdefault(name, []).append((step, value))

    def add_hparams(self, settings, finals, run_name=None):
        self.kept["settings"], self.kept["finals"] = settings, finals

    def add_text(self, name, text):
        self.kept[name] = text


class Project:
    """Stands for the package wandb: keeps what runs are given, by their ids."""

    def __init__(self):
        self.runs, self.modes = {}, []

    def Settings(self, **given):
        return given

    def init(self, **given):
        self.modes.append(given["mode"])
        run = types.SimpleNamespace(about=given, curves=[], summary={}, code=None)
        run.log = lambda values, step: run.curves.append((step, values))
        run.finish = lambda exit_code, quiet: setattr(run, "code", exit_code)
        self.runs[given["id"]] = run
        return run


@pytest.fixture
def board(monkeypatch):
    monkeypatch.setattr(Writer, "written", {})
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=Writer))
    monkeypatch.setattr(copies, "lacking", lambda _: "")
    return Writer.written


@pytest.fixture
def project(monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setitem(sys.modules, "wandb", found := Project())
    monkeypatch.setattr(copies, "lacking", lambda _: "")
    return found


def two_seeds():
    return study_of(run_row(seed=1, top1=0.90), run_row(seed=2, top1=0.94))


def test_tensorboard_has_curves_settings_and_final_metrics_of_every_seed(board, tmp_path):
    done = copies.copy("tensorboard", two_seeds(), tmp_path)
    assert done == copies.Copied(new=3)
    one = next(kept for name, kept in board.items() if "seed 2" in name)
    assert one["curves"]["valid/top1"] == [(1, 0.71), (2, 0.72), (3, 0.73)]
    assert (one["finals"]["test/top1"], one["settings"]["optimizer.lr"]) == (0.94, 0.003)
    whole = next(kept for name, kept in board.items() if "all seeds" in name)
    assert whole["finals"]["test/top1.mean"] == pytest.approx(0.92)
    assert len({name.partition("/")[0] for name in board}) == 1  # both below their setting


def test_weights_and_biases_has_a_run_for_every_seed_below_its_setting_and_is_offline(project, tmp_path):
    assert copies.copy("wandb", two_seeds(), tmp_path) == copies.Copied(new=3)
    assert set(project.modes) == {"offline"}
    runs = {run.about["name"].partition(" ")[0]: run for run in project.runs.values()}
    assert {run.about["group"] for run in runs.values()} == {"focal · digits · cnn_micro"}
    assert runs["focal"].about["job_type"] == "setting"
    assert runs["focal"].summary["test/top1.mean"] == pytest.approx(0.92)
    assert [step for step, _ in runs["seed"].curves] == [1, 2, 3]
    assert all(run.about["project"] == "trial" and run.code == 0 for run in runs.values())


def test_it_is_online_where_the_user_says_so(project, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    copies.copy("wandb", study_of(run_row()), tmp_path, last=False)
    assert project.modes == ["online"]


@pytest.mark.parametrize("name", copies.KINDS)
def test_a_copy_is_made_once_and_anew_where_its_run_changed(name, board, project, tmp_path):
    failed = run_row(status="failed", error="ValueError: no")
    assert copies.copy(name, study_of(failed, run_row(seed=2)), tmp_path, last=False) == copies.Copied(new=2)
    again = study_of(run_row(), run_row(seed=2))
    assert copies.copy(name, again, tmp_path, last=False) == copies.Copied(updated=1, unchanged=1)
    assert copies.copy(name, again, tmp_path) == copies.Copied(new=1, unchanged=2)  # and what sums them up


def test_a_diverged_run_keeps_the_finite_part_of_its_curve(board, tmp_path):
    row = run_row(status="diverged", diverged_step=25.0)
    history = history_rows(row, (4.0, math.inf, math.nan))
    copies.copy("tensorboard", study_of(row, run_row(seed=2), history=history), tmp_path, last=False)
    found = next(kept for name, kept in board.items() if "seed 1" in name)
    assert found["curves"]["train/loss"] == [(1, 4.0)]
    assert "inf in epoch 2" in found["about"]


def test_what_a_mirror_raises_becomes_a_sentence_and_the_next_round_goes_on(project, tmp_path, monkeypatch):
    real, left = Project.init, [1]

    def full(self, **given):
        if not left:
            raise OSError("No space left on device")
        left.pop()
        return real(self, **given)

    monkeypatch.setattr(Project, "init", full)
    done = copies.copy("wandb", two_seeds(), tmp_path)
    assert done.new == 1
    assert "No space left on device" in done.reason
    assert "python -m harness.tracking trial --to wandb" in done.reason
    monkeypatch.setattr(Project, "init", real)
    assert copies.copy("wandb", two_seeds(), tmp_path) == copies.Copied(new=2, unchanged=1)


@pytest.mark.parametrize("name", [name for name in copies.KINDS if not importlib.util.find_spec(name)])
def test_a_package_that_is_not_installed_is_named_before_anything_runs(name, tmp_path):
    options = {"enabled": True, "mirrors": [MLFLOW, name], "uri": None}
    with pytest.raises(UsageError, match=f"pip install {name}"):
        tracking.check(options)
    tracking.check({**options, "enabled": False})
    assert "pip install" in copies.copy(name, two_seeds(), tmp_path).reason
    assert not list(tmp_path.iterdir())


def test_the_command_says_where_the_copies_are(board, tmp_path, capsys):
    write_results(tmp_path, [run_row()])
    assert main(["trial", "--to", "tensorboard", "--results", str(tmp_path)]) == 0
    assert "TensorBoard has the study trial: 2 new" in (said := capsys.readouterr().out)
    assert "tensorboard --logdir" in said
    noted = list(journal.entries(tmp_path / "trial" / "tensorboard" / copies.JOURNAL))
    assert [entry["run"] for entry in noted] == ["setting-focal run", "focal-1 run"]


def test_a_mirror_that_fails_keeps_no_other_from_being_written(board, tmp_path):
    write_results(tmp_path, [run_row()])
    found = Rounds("trial", (MLFLOW, "tensorboard"), "http://127.0.0.1:1", tmp_path).write()
    assert found.failed
    assert [words[:11] for words in found.done] == ["TensorBoard"]
    assert "127.0.0.1:1" in found.reasons[0]
    assert not runs_address("trial", "http://127.0.0.1:1", tmp_path)


def test_tensorboard_itself_reads_what_was_written(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    copies.copy("tensorboard", study_of(run_row()), tmp_path, last=False)
    (folder,) = (path.parent for path in (tmp_path / "trial").rglob("*.tfevents.*.0"))
    found = EventAccumulator(str(folder))
    found.Reload()
    assert [(point.step, round(point.value, 6)) for point in found.Scalars("valid/top1")] == [
        (1, 0.71),
        (2, 0.72),
        (3, 0.73),
    ]
