"""The index says what the records say, whatever happened to them since it was made."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from harness import plan, records
from harness.address import Addresses
from harness.plan import Study
from harness.records import index, store

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def runs(tmp_path):
    """A study of three finished runs, a failed one and a missing one, read once, so that there is an index."""
    axes = {"loss": ["cross_entropy"], "model": ["mlp"], "seed": [1, 2, 3, 4, 5]}
    study = Study("small", "?", axes, controls={"baseline_repeat": False, "negative_control": False})
    runs = plan.runs(plan.settings(study), study, Addresses(tmp_path, tmp_path))
    records.write_study(study, runs, tmp_path)
    for number, run in enumerate(runs[:3]):
        finish(run, 0.9 + number / 100, tmp_path)
    records.save_failure(records.run_folder(runs[3].key, tmp_path), {"key": runs[3].key, "error": "boom"})
    records.load_study("small", tmp_path)
    assert where(tmp_path).exists()
    return runs


def where(results):
    return results / "small" / index.NAME


def finish(run, top1, results, history=None, **more):
    epochs = pd.DataFrame({"epoch": [1, 2], "train.loss": [2.0, top1]}) if history is None else history
    record = {"key": run.key, "seed": run.seed, "status": "done", "test": {"top1": top1}, **more}
    records.save(records.run_folder(run.key, results), record, epochs)


def with_top1(path, value):
    """Return the text of a record with another score, sealed anew."""
    record = json.loads(path.read_text())
    record["test"]["top1"] = value
    return json.dumps(store.sealed(record), indent=1)


def from_files(results):
    """Load as if there were no index; the index stays as it is."""
    hidden = where(results).with_suffix(".hidden")
    if kept := where(results).exists():
        where(results).rename(hidden)
    found = records.load_study("small", results)
    where(results).unlink(missing_ok=True)
    if kept:
        hidden.rename(where(results))
    return found


def loaded(results):
    """Load through the index, after comparing with what the files alone say."""
    expected, found = from_files(results), records.load_study("small", results)
    pd.testing.assert_frame_equal(found.runs, expected.runs)
    pd.testing.assert_frame_equal(found.history, expected.history)
    return found


def top1(study):
    return dict(zip(study.runs["seed"], study.runs["test.top1"], strict=True))


def test_what_is_unchanged_comes_from_the_index_alone(runs, tmp_path, monkeypatch):
    loaded(tmp_path)
    monkeypatch.setattr(records, "read", lambda *_: pytest.fail("a record was opened"))
    assert list(records.load_study("small", tmp_path).runs["status"]) == ["done"] * 3 + ["failed", "missing"]


def test_cells_of_several_types_come_back_as_they_were(runs, tmp_path):
    for run, value in zip(runs[:3], ("stop", 1, [1.5, None]), strict=True):
        finish(run, 0.5, tmp_path, config={"mixed": value, "rate": 1 / 3, "flag": True})
    loaded(tmp_path)  # makes the index anew
    found = loaded(tmp_path)
    assert list(found.runs["config.mixed"][:3]) == ["stop", 1, "[1.5, null]"]
    assert found.runs.loc[0, "config.rate"] == 1 / 3


def test_a_new_record_is_seen(runs, tmp_path):
    finish(runs[4], 0.7, tmp_path)
    found = loaded(tmp_path)
    assert top1(found)[5] == 0.7
    assert set(found.history["key"]) == {run.key for run in (*runs[:3], runs[4])}


def test_a_replaced_record_is_seen_even_with_the_old_time_and_size(runs, tmp_path):
    path = records.run_folder(runs[0].key, tmp_path) / "record.json"
    before = path.stat()
    records.write_text(path, with_top1(path, 0.1))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert top1(loaded(tmp_path))[1] == 0.1


def test_a_record_changed_in_place_is_seen(runs, tmp_path):
    path = records.run_folder(runs[0].key, tmp_path) / "record.json"
    path.write_text(with_top1(path, 0.1))
    os.utime(path, ns=(1, 1))
    assert top1(loaded(tmp_path))[1] == 0.1


def test_a_deleted_record_is_missing(runs, tmp_path):
    shutil.rmtree(records.run_folder(runs[1].key, tmp_path))
    found = loaded(tmp_path)
    assert found.runs.loc[1, "status"] == "missing"
    assert runs[1].key not in set(found.history["key"])


def test_a_failure_gives_way_to_its_record(runs, tmp_path):
    assert loaded(tmp_path).runs.loc[3, "error"] == "boom"
    finish(runs[3], 0.8, tmp_path)
    found = loaded(tmp_path)
    assert found.runs.loc[3, "status"] == "done"
    assert "error" not in found.runs


def test_another_list_of_runs_is_seen(runs, tmp_path):
    listed = tmp_path / "small" / "runs.csv"
    listed.write_text("\n".join(listed.read_text().splitlines()[:3]) + "\n")
    assert len(loaded(tmp_path).runs) == 2


@pytest.mark.parametrize("damage", [
    lambda content: b"", lambda content: b"{", lambda content: content[:-40], lambda content: content[:200],
    lambda content: content.replace(b"cross_entropy", b"cross_entropx"), lambda content: b"[]\n" + content,
])  # fmt: skip
def test_a_damaged_index_is_made_anew(damage, runs, tmp_path, monkeypatch):
    whole = where(tmp_path).read_bytes()
    assert damage(whole) != whole
    where(tmp_path).write_bytes(damage(whole))
    assert set(records.load_study("small", tmp_path).runs["loss"]) == {"cross_entropy"}
    assert where(tmp_path).read_bytes() == whole


def test_a_damaged_record_is_set_aside_though_the_index_was_good(runs, tmp_path):
    (records.run_folder(runs[0].key, tmp_path) / "record.json").write_text("{")
    assert list(records.load_study("small", tmp_path).runs["status"]) == [
        "missing",
        "done",
        "done",
        "failed",
        "missing",
    ]
    assert list(loaded(tmp_path).runs["status"]) == ["missing", "done", "done", "failed", "missing"]


def test_results_that_can_only_be_read_stay_without(runs, tmp_path, monkeypatch):
    where(tmp_path).unlink()

    def refused(file):
        raise OSError(30, "read-only file system")

    monkeypatch.setattr(os, "fsync", refused)  # the tests may run as root, whom no mode stops
    assert len(records.load_study("small", tmp_path).runs) == 5
    assert [path.name for path in where(tmp_path).parent.iterdir() if "index" in path.name] == []


def test_epochs_with_other_columns_or_line_breaks_are_read_run_by_run(runs, tmp_path):
    finish(runs[1], 0.5, tmp_path, history=pd.DataFrame({"epoch": [1], "valid.top1": [0.25]}))
    finish(runs[2], 0.6, tmp_path, history=pd.DataFrame({"epoch": [1, 2], "train.loss": ["[1,\n2]", "[2]"]}))
    history = loaded(tmp_path).history.set_index("key")
    assert list(history.loc[runs[0].key, "train.loss"].astype(float)) == [2.0, 0.9]
    assert history.loc[runs[1].key, "valid.top1"] == 0.25
    assert list(history.loc[runs[2].key, "train.loss"]) == ["[1,\n2]", "[2]"]


def test_many_processes_at_once_read_the_same(runs, tmp_path):
    """Four processes load while the records change and the index vanishes; none ever sees a wrong study."""
    code = (
        "import sys, json; from pathlib import Path; from harness import records\n"
        "for _ in range(30):\n"
        "    study = records.load_study('small', Path(sys.argv[1]))\n"
        "    assert list(study.runs['seed']) == [1, 2, 3, 4, 5], study.runs\n"
        "    assert list(study.runs['test.top1'][1:3]) == [0.91, 0.92], study.runs\n"
        "    assert study.runs['test.top1'][0] in (0.9, 0.1), study.runs\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    readers = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    turn = 0
    while any(reader.poll() is None for reader in readers):
        turn += 1
        finish(runs[0], (0.9, 0.1)[turn % 2], tmp_path)
        if turn % 5 == 0:
            where(tmp_path).unlink(missing_ok=True)
    assert [(reader.returncode, reader.communicate()[1]) for reader in readers] == [(0, "")] * 4
    assert top1(loaded(tmp_path))[1] == (0.9, 0.1)[turn % 2]
    assert json.loads(where(tmp_path).read_bytes().partition(b"\n")[0])["size"] > 0
