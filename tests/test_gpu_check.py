"""The check on a GPU: its parts rehearsed on the CPU, and what becomes of those that fail, or take too long."""

import json
import math
import os
import sys
import tarfile
import textwrap
import time
import zipfile

import pandas as pd
import pytest

from harness.errors import UsageError
from scripts import gpu_check
from scripts.gpu import machine, parts, runs
from scripts.gpu.finding import Finding, Left, Place

ABSENT = ("mlflow", "optuna", "statsmodels", "scikit_posthocs", "segmentation_models_pytorch", "kornia", "monai", "piq",
          "pytorch_metric_learning", "playwright", "pycocotools", "shapely", "jinja2", "ray", "submitit")  # fmt: skip
"""What a machine with a GPU may lack."""


def rehearsed(name, folder):
    """Carry out a part on the CPU; return its findings by what they are of, and the records of its runs."""
    found = list(parts.PARTS[name](Place("cpu", folder)))
    findings = {each.what: each for each in found if isinstance(each, Finding)}
    assert all(each.held in (True, None) for each in findings.values())
    return findings, [each for each in found if not isinstance(each, Finding)]


# ---------------------------------------------------------------- the parts


def test_the_machine_is_described(tmp_path):
    found, _ = rehearsed("device", tmp_path)
    assert {"processor", "torch", "TF32 in convolutions", "cuDNN deterministic"} <= found.keys()
    assert found["product of bf16 matrices"].value > 0
    assert found["copy in memory, read and written"].value > 0


def test_a_run_whose_worker_is_killed_is_resumed_and_compared(tmp_path):
    found, records = rehearsed("resume", tmp_path)
    assert found["worker killed after"].value.startswith("epoch")
    assert found["killed and resumed, against unhurt: largest difference"].held
    assert [record["status"] for record in records] == ["done"] * 3


@pytest.mark.parametrize("name", ["segmentation", "detection"])
def test_one_run_of_a_task(name, tmp_path):
    found, (record,) = rehearsed(name, tmp_path)
    assert record["status"] == "done"
    assert any("peak memory" in what for what in found)


def test_every_task_is_trained(tmp_path):
    found, records = rehearsed("tasks", tmp_path)
    assert found["tasks that could not be trained"].value == 0
    assert records


def test_a_task_that_fails_is_named_and_the_others_go_on(tmp_path, monkeypatch):
    broken = {"status": "failed", "error": "RuntimeError: no kernel image"}
    monkeypatch.setattr(runs, "ended", lambda pool, jobs: ((job, broken) for job in jobs))
    found = list(runs.tasks(Place("cpu", tmp_path)))
    assert Finding("regression: failed", "RuntimeError: no kernel image") in found
    assert found[-1].held is False


def test_the_recipe_for_cifar10_gives_a_row_for_each_loss(tmp_path):
    found, records = rehearsed("cifar10", tmp_path)
    assert [record["choices"]["loss"] for record in records] == ["cross_entropy", "label_smoothing"]
    assert {"cross_entropy: top-1 accuracy", "label_smoothing: top-1 accuracy"} <= found.keys()


def test_without_cifar10_that_part_is_left_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.setenv("LOSSBENCH_DATA", str(tmp_path))
    monkeypatch.setattr(Place, "size", lambda self, full, tiny: full)
    with pytest.raises(Left, match="CIFAR-10"):
        list(runs.cifar10(Place("cpu", tmp_path)))


def test_one_worker_and_several_do_the_same(tmp_path):
    found, _ = rehearsed("workers", tmp_path)
    assert found["largest difference of a loss, norm or score between the two"].value == 0
    assert found["one worker / several"].value > 0


def test_what_is_waited_for_is_a_share(tmp_path):
    found, _ = rehearsed("waiting", tmp_path)
    shares = [each.value for what, each in found.items() if "share of the time" in what]
    assert len(shares) == 2
    assert all(0 <= share < 1 for share in shares)


def test_losses_are_measured_with_their_peers(tmp_path):
    found, _ = rehearsed("losses", tmp_path)
    assert found["cross_entropy, 128x10: forward and backward"].value > 0
    assert set(pd.read_csv(tmp_path / "loss_benchmark.csv")["by"]) >= {"lossbench", "torch"}


def test_rows_of_the_benchmark_of_the_harness_are_kept_as_they_come(tmp_path, monkeypatch):
    from scripts import bench_harness

    rows = [bench_harness.row("step", f"step {n}", [1.0 * n, 2.0], [1.0, 2.0], "ms", "<= 1.03") for n in (1, 2)]
    monkeypatch.setattr(bench_harness, "bench_segmentation", lambda repeats: iter(rows))
    found, _ = rehearsed("harness", tmp_path)
    assert [each.value for each in found.values()] == [1.0]
    assert len(pd.read_csv(tmp_path / "harness.csv")) == 1


PLANTED = """
import pytest
import torch
wanting = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

@wanting
def test_marked():
    assert torch.cuda.device_count()

@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_decorated(number):
    pass

def test_other():
    pass
"""


def test_tests_that_want_a_gpu_are_found(tmp_path):
    folder = tmp_path / "tests" / "losses"
    folder.mkdir(parents=True)
    (folder / "test_planted.py").write_text(PLANTED)
    whole = PLANTED.replace("wanting =", "pytestmark =").replace("@wanting", "")
    (tmp_path / "tests" / "test_whole.py").write_text(whole)
    (tmp_path / "tests" / "test_none.py").write_text("def test_none():\n    pass\n")
    planted = "tests/losses/test_planted.py"
    assert machine.wanting_a_gpu(tmp_path) == [
        f"{planted}::test_marked",
        f"{planted}::test_decorated",
        "tests/test_whole.py",
    ]


def test_the_suite_has_tests_that_want_a_gpu():
    assert "tests/losses/test_loss_laws.py::test_never_waits_for_the_device" in machine.wanting_a_gpu()


def test_tests_are_counted_and_failures_named(tmp_path, monkeypatch):
    file = tmp_path / "test_planted.py"
    file.write_text(
        "import pytest\ndef test_good(): pass\ndef test_bad(): assert 1 == 2\ndef test_no(): pytest.skip()\n"
    )
    monkeypatch.setattr(machine, "wanting_a_gpu", lambda: [str(file)])
    found = {each.what: each for each in machine.tests(Place("cpu", tmp_path))}
    assert [found[f"tests that {what}"].value for what in ("pass", "fail", "are skipped")] == [1, 1, 1]
    assert found["tests that fail"].held is False
    assert "hostname" not in (tmp_path / "tests.xml").read_text()
    assert "assert 1 == 2" in found["test_planted::test_bad"].value


# ---------------------------------------------------------------- what they compare with


@pytest.mark.parametrize(
    ("value", "goal", "held"),
    [(1.0, "", None), (0.94, ">= 0.94", True), (0.93, ">= 0.94", False), (math.nan, "<= 1", False)],
)
def test_a_goal_is_held_or_not(value, goal, held):
    assert Finding("", value, "", goal).held is held


def test_histories_differ_by_what_is_no_time(tmp_path):
    tables = {
        "one": {"train.loss": [1.0, 0.5], "step_ms": [3.0, 4.0], "peak_memory_mb": [5.0, 6.0]},
        "times": {"train.loss": [1.0, 0.5], "step_ms": [9.0, 9.0], "peak_memory_mb": [9.0, 9.0]},
        "loss": {"train.loss": [1.0, 0.75], "step_ms": [3.0, 4.0], "peak_memory_mb": [5.0, 6.0]},
        "diverged": {"train.loss": [1.0, math.nan], "step_ms": [3.0, 4.0], "peak_memory_mb": [5.0, 6.0]},
        "shorter": {"train.loss": [1.0], "step_ms": [3.0], "peak_memory_mb": [5.0]},
    }
    for name, table in tables.items():
        (tmp_path / name).mkdir()
        pd.DataFrame(table).to_csv(tmp_path / name / "history.csv", index=False)
    apart = {name: runs.difference(tmp_path / "one", tmp_path / name) for name in tables}
    assert apart == {"one": 0.0, "times": 0.0, "loss": 0.25, "diverged": math.inf, "shorter": math.inf}


# ---------------------------------------------------------------- the command


def test_without_a_gpu_it_says_so_in_a_sentence(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(gpu_check.hardware, "device_type", lambda wanted: "cpu")
    assert gpu_check.main(["--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "needs a GPU" in said.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["--minutes", "0"], "leaves no time"),
        (["--out", "."], "holds something else"),
        (["--wheels", "nowhere"], "has no wheels"),
    ],
)
def test_requests_that_make_no_sense_end_in_a_sentence(given, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "thesis.tex").write_text("mine")
    assert gpu_check.main(["--rehearse", *given]) == 2
    assert sentence in capsys.readouterr().err
    assert (tmp_path / "thesis.tex").exists()


def test_packages_that_are_missing_are_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(gpu_check.NEEDED, "no_such_module", "no-such-package")
    assert gpu_check.main(["--rehearse", "--out", str(tmp_path / "out")]) == 2
    assert "this Python lacks no-such-package" in capsys.readouterr().err


def test_wheels_are_unpacked_and_tried(tmp_path, monkeypatch):
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "planted-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("planted/__init__.py", "")
    monkeypatch.setattr(gpu_check, "NEEDED", {"planted": "planted"})
    environment = gpu_check._environment(tmp_path / "scratch", wheels)
    assert (tmp_path / "scratch" / "site" / "planted" / "__init__.py").is_file()
    assert environment["PYTHONPATH"].startswith(str(tmp_path / "scratch"))
    with zipfile.ZipFile(wheels / "planted-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("planted/__init__.py", "raise ImportError('made for another Python')")
    with pytest.raises(UsageError, match="made for another Python"):
        gpu_check._environment(tmp_path / "other", wheels)
    (wheels / "planted-1.0-py3-none-any.whl").write_text("no archive")
    with pytest.raises(UsageError, match="cannot be unpacked"):
        gpu_check._environment(tmp_path / "third", wheels)


def test_every_part_has_a_share_and_a_function():
    assert list(gpu_check.SHARES) == list(parts.PARTS)


def test_time_that_a_part_leaves_is_there_for_the_next(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(gpu_check.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(gpu_check, "SHARES", {"one": (1, ""), "two": (2, ""), "three": (1, "")})
    given = {}
    for part, limit in gpu_check.limits(["one", "two", "three"], 80):
        given[part] = limit()
        now[0] += {"one": 5, "two": 70, "three": 0}[part]
    assert given == {"one": 20, "two": 55, "three": 5}


def stand_in(monkeypatch, tmp_path, text):
    """Let parts be carried out by a script instead of by Python, which gets the part's name, folder and device."""
    script = tmp_path / "stand_in"
    script.write_text(f"#!/bin/sh\nmkdir -p $4/parts\n{textwrap.dedent(text)}")
    script.chmod(0o755)
    monkeypatch.setattr(gpu_check.sys, "executable", str(script))


FOUND = json.dumps({"finding": {"what": "speed", "value": 2.5, "unit": "s", "goal": ">= 3", "held": False}})


@pytest.mark.parametrize(
    ("text", "status", "why"),
    [
        ("exit 0", "done", ""),
        ("exit 3", "failed", "its process ended with exit code 3"),
        ('echo \'{"error": "ValueError: no"}\' >> $4/parts/$3.jsonl; exit 1', "failed", "ValueError: no"),
        ('echo \'{"left": "no data"}\' >> $4/parts/$3.jsonl', "left", "no data"),
        ("printf '{\"find' >> $4/parts/$3.jsonl; sleep 60", "timeout", "its time of 60 s was over"),
    ],
)
def test_a_part_keeps_what_it_found_however_it_ends(text, status, why, tmp_path, monkeypatch):
    stand_in(monkeypatch, tmp_path, f"echo '{FOUND}' > $4/parts/$3.jsonl\necho printed\n{text}\n")
    folder = tmp_path / "out"
    folder.mkdir()
    if status == "timeout":
        wait, written = gpu_check.subprocess.Popen.wait, folder / "parts" / "losses.jsonl"

        def late(process, timeout=None):
            if timeout is None:
                return wait(process)
            while not (written.exists() and written.read_text().endswith('{"find')):
                time.sleep(0.01)
            raise gpu_check.subprocess.TimeoutExpired("", timeout)

        monkeypatch.setattr(gpu_check.subprocess.Popen, "wait", late)
    outcome = gpu_check.carry_out("losses", folder, os.environ, 60)
    assert (outcome.status, outcome.why) == (status, why)
    assert [finding["what"] for finding in outcome.findings] == ["speed"]
    assert (folder / "logs" / "losses.txt").read_text() == "printed\n"


def test_the_rest_goes_on_after_a_part_that_fails_and_all_is_written(tmp_path, monkeypatch, capsys):
    run = json.dumps({"record": {"key": "0" * 16, "test.top1": 0.5}})
    text = f"echo '{FOUND}' > $4/parts/$3.jsonl\n[ $3 != tests ] || exit 1\necho '{run}' >> $4/parts/$3.jsonl\n"
    stand_in(monkeypatch, tmp_path, text)
    folder = tmp_path / "out"
    assert gpu_check.main(["--rehearse", "--out", str(folder), "--only", "losses", "tests"]) == 1
    content = json.loads((folder / "summary.json").read_text())
    assert [(part["part"], part["status"]) for part in content["parts"]] == [("tests", "failed"), ("losses", "done")]
    page = (folder / "summary.md").read_text()
    assert "| speed | 2.5 s | >= 3: missed |" in page
    assert "| Tests that need a GPU (`tests`) | failed: its process ended with exit code 1 |" in page
    assert pd.read_csv(folder / "findings.csv")["part"].tolist() == ["tests", "losses"]
    assert pd.read_csv(folder / "runs.csv")[["part", "test.top1"]].to_numpy().tolist() == [["losses", 0.5]]
    with tarfile.open(tmp_path / "out.tar.gz") as archive:
        assert {"out/summary.md", "out/summary.json", "out/findings.csv", "out/logs/tests.txt"} <= set(
            archive.getnames()
        )
    assert "1 goal missed: speed" in capsys.readouterr().out
    assert gpu_check.main(["--rehearse", "--out", str(folder), "--only", "losses"]) == 0  # in place of the one before
    assert [part["part"] for part in json.loads((folder / "summary.json").read_text())["parts"]] == ["losses"]


def test_places_of_the_machine_are_left_out(monkeypatch):
    monkeypatch.setenv("LOSSBENCH_DATA", "/srv/secret/data")
    text = f"{gpu_check.ROOT}/losses/x.py, {sys.prefix}/bin/python, /srv/secret/data/cifar10"
    assert gpu_check.anonymous(text) == "./losses/x.py, PYTHON/bin/python, $LOSSBENCH_DATA/cifar10"


def test_it_needs_no_more_than_a_machine_with_a_gpu_has(cli, tmp_path):
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        textwrap.dedent(
            f"""
            from importlib.machinery import PathFinder

            find = PathFinder.find_spec

            def find_spec(cls, name, path=None, target=None):
                return None if name.partition(".")[0] in {ABSENT} else find(name, path, target)

            PathFinder.find_spec = classmethod(find_spec)
            """
        )
    )
    ended = cli("scripts.gpu_check", "--rehearse", "--only", "waiting", "losses", PYTHONPATH=str(site))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    folder = cli.results / "gpu_check"
    content = json.loads((folder / "summary.json").read_text())
    assert [(part["part"], part["status"]) for part in content["parts"]] == [("waiting", "done"), ("losses", "done")]
    written = [path.read_text() for path in folder.rglob("*") if path.is_file()]
    assert not any(str(gpu_check.ROOT) in text or str(tmp_path) in text for text in written)
