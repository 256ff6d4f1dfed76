"""The command line: help without torch, sentences instead of tracebacks, and exit codes."""

import os
import sys
from types import SimpleNamespace

import pytest

from harness import run
from tests.warm import Server


@pytest.mark.parametrize(
    "module", ["harness", "harness.run", "harness.report", "harness.records", "harness.tracking", "scripts.fetch"]
)
def test_help_needs_no_torch(cli, module):
    found = cli("tests.help_probe", module, cold=True)
    assert found.returncode == 0, found.stderr
    assert "torch imported: False" in found.stdout
    assert "mlflow imported: False" in found.stdout
    assert len(found.stdout.splitlines()) > 4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["harness", "study=dmo"], "unknown study 'dmo': did you mean demo?"),
        (["harness", "study=smoke", "axes.loss=[focl,cross_entropy]"], "unknown loss 'focl': did you mean focal"),
        (
            ["harness", "study=smoke", "base.trainer.epoch=3"],
            "unknown setting 'trainer.epoch': did you mean trainer.epochs",
        ),
        (["harness", "study=smoke", "axes.model=[vit_nan]"], "unknown model 'vit_nan': did you mean vit_nano"),
        (["harness", "axes.loss=[focal]"], "give exactly one study=NAME"),
        (["harness", "study=smoke", "engine.workers=0"], "engine.workers=0"),
        (["harness", "study=smoke", "track=tuend"], "unknown track 'tuend': did you mean tuned?"),
        (
            ["harness", "study=smoke", "search.trials=8"],
            "search.trials is for track=tuned, but the track of this study",
        ),
        (
            ["harness", "study=smoke", "track=tuned", "search.trials=none"],
            "search.trials=none: use a whole number from 1 on",
        ),
        (["harness", "study=smoke", "device=gpu"], "unknown device 'gpu'"),
        (["harness.run", "loss=fcal"], "unknown loss 'fcal': did you mean focal"),
        (["harness.run", "dataset=cifar11"], "unknown data set 'cifar11': did you mean cifar10"),
        (["harness.run", "loss=focal", "loss.gama=1"], "unknown setting 'loss.gama': did you mean loss.gamma"),
        (["harness.run", "loss=focal", "loss.gamma=-1"], "gamma"),
        (["harness.run", "loss=center"], "center"),
        (["harness.run", "model=vit_nano", "model.patch_size=3"], "Patches of 3x3 pixels do not divide images of 8x8"),
        (["harness.run", "dataset=cifar10", "data.root=nowhere"], "nowhere"),
        (
            ["harness", "study=smoke", "metric=test.nonsense"],
            "unknown metric 'test.nonsense': did you mean test.ece or test.confidence_gap or test.gmean?",
        ),
        (["harness", "study=smoke", "metric=test.tpo1"], "unknown metric 'test.tpo1': did you mean test.top1"),
        (["harness", "study=smoke", "axes.loss.gamma=[2,-1]", "axes.loss=[focal]", "baseline=focal gamma=2"], "gamma"),
        (
            ["harness", "study=smoke", "base.stress=few", "axes.stress.share=[0.5,2]"],
            "stress.share=2: use a number above 0 and at most 1",
        ),
        (["harness", "study=smoke", "axes.stress=[none,fwe]"], "unknown stress 'fwe': did you mean few"),
        (["harness", "study=smoke", "base.stress=few", "base.stress.shar=1"], "did you mean stress.share"),
        (["harness", "study=smoke", "base.shift=[niose]"], "unknown shift 'niose': did you mean noise"),
        (["harness", "study=smoke", "base.task=regresion"], "unknown task 'regresion': did you mean regression"),
        (["harness.run", "stress=lable_noise"], "unknown stress 'lable_noise': did you mean label_noise"),
        (["harness.run", "shift=[noise,atack]"], "unknown shift 'atack': did you mean attack"),
        (["harness.run", "task=regression", "stress=few"], "stress changes items with a class each"),
        (["harness.run", "task=segmentation", "shift=[attack]"], "shift=attack misleads classifiers of images"),
        (["harness.run", "shift=[noise]", "shift.noise.size=2"], "shift.noise.size=2: use a number from 0 to 1"),
        (["harness.records", "publish", "nothing"], "no records of a study 'nothing'"),
        (["harness.report", "build", "nothing"], "no records of a study 'nothing'"),
    ],
)
def test_bad_requests_get_one_sentence_and_exit_code_2_before_any_training(cli, arguments, said):
    found = cli(*arguments)
    assert found.returncode == 2, found.stdout + found.stderr
    assert said in found.stderr
    assert len(found.stderr.strip().splitlines()) == 1
    assert not list(cli.results.glob("runs/*/*"))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["loss=focal"], "the task two_roles has several losses: set loss.boxes and loss.classes, not loss."),
        (["loss.boxes=gio"], "unknown loss 'gio': did you mean giou"),
        (["loss.boxs=giou"], "unknown setting 'loss.boxs': did you mean loss.boxes"),
        (["loss.boxes.gama=1"], "unknown setting 'loss.boxes.gama'"),
    ],
)
def test_a_task_with_several_losses_refuses_what_fits_none(two_roles, overrides, said, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["harness.run"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    assert run.main(["task=two_roles", *overrides]) == 2
    found = capsys.readouterr().err
    assert said in found
    assert len(found.strip().splitlines()) == 1


def test_wrong_combination_in_a_study_stops_it_before_any_training(cli):
    found = cli("harness", "study=smoke", "axes.model=[cnn_micro,vit_nano]", "base.model.patch_size=3")
    assert found.returncode == 2
    found = cli("harness", "study=smoke", "axes.model=[vit_nano]", "base.model.patch_size=3")
    assert found.returncode == 2
    assert "do not divide images of 8x8" in found.stderr
    assert not list(cli.results.glob("runs/*/*"))


def test_single_runs_and_multirun_are_found_by_a_study(cli, recorded):
    first = cli("harness.run", "-m", "loss=cross_entropy,focal", "seed=1,2", "trainer.epochs=2")
    assert first.returncode == 0, first.stderr
    before = recorded(cli.results)
    assert len(before) == 4
    again = cli("harness.run", "loss=focal", "seed=2", "trainer.epochs=2")
    assert again.returncode == 0
    assert "epoch" not in again.stdout
    file = cli.results.parent / "file"
    file.touch()
    refused = cli("harness", "study=smoke", "plan_only=true", LOSSBENCH_RESULTS=str(file))
    assert (refused.returncode, refused.stderr) == (2, f"{file} is no folder: name another in LOSSBENCH_RESULTS.\n")
    planned = cli("harness", "study=smoke", "plan_only=true")
    assert "4 done, 4 missing" in planned.stdout
    assert "estimated from records of like runs" in planned.stdout
    swept = cli("harness", "study=smoke", "tracking.enabled=false")
    assert swept.returncode == 0, swept.stderr
    after = recorded(cli.results)
    assert len(after) == 8
    assert {key: after[key] for key in before} == before


def test_a_worker_and_this_process_give_the_same_numbers(cli, recorded, tmp_path):
    assert (
        cli(
            "harness",
            "study=smoke",
            "name=tried",
            "tracking.enabled=false",
            "controls.negative_control=null",
            "controls.baseline_repeat=false",
        ).returncode
        == 0
    )
    swept = recorded(cli.results)
    elsewhere = {"LOSSBENCH_RESULTS": str(tmp_path / "elsewhere")}
    assert (
        cli("harness.run", "-m", "loss=focal,cross_entropy", "seed=2,1", "trainer.epochs=2", **elsewhere).returncode
        == 0
    )
    single = recorded(tmp_path / "elsewhere")
    assert {k: (r["test"], r["valid"]) for k, r in swept.items()} == {
        k: (r["test"], r["valid"]) for k, r in single.items()
    }


def test_a_reader_that_has_seen_enough_is_no_error(cli):
    with cli("harness", "study=demo", "plan_only=true", start=True) as process:
        process.stdout.close()
        assert process.wait(120) == 141
        assert process.stderr.read() == ""


def test_a_forked_commands_number_and_exit_code_are_heard_if_they_come_at_once():
    read, write = os.pipe()
    os.write(write, b"12\n0\n")
    with os.fdopen(read, "rb", 0) as stdout:
        server = Server.__new__(Server)
        server.heard, server.process = b"", SimpleNamespace(stdout=stdout)
        assert [server._hear(1.0), server._hear(1.0)] == [b"12", b"0"]
        with pytest.raises(TimeoutError):
            server._hear(0.0)
    os.close(write)
