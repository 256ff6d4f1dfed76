"""Whether results can be written is found out before training; leftovers go by a rule; links lead nowhere."""

import errno
import json
import os
import time
from types import SimpleNamespace

import numpy as np
import pytest

from harness import __main__ as command
from harness import plan, records
from harness import run as single
from harness.errors import UsageError
from harness.plan import Study
from harness.records import items, lease, room, store
from harness.studies import sweep
from harness.tracking import store as tracking
from tests.test_records import ADDRESSES, finish

AXES = {"loss": ["cross_entropy", "focal"], "seed": [1, 2]}


@pytest.fixture
def study():
    controls = {"baseline_repeat": False, "negative_control": False}
    return Study("small", "?", AXES, base={"device": "cpu"}, controls=controls)


@pytest.fixture
def runs(study):
    return plan.runs(plan.settings(study), study, ADDRESSES)


def refusing(number):
    def refused(*_):
        raise OSError(number, os.strerror(number))

    return refused


@pytest.mark.parametrize("number", sorted(store.NO_ROOM))
def test_a_folder_that_cannot_be_written_is_found_out_first(number, study, runs, tmp_path, monkeypatch):
    work = sweep.Work({"threads": 1, "engine": {"workers": 1}}, pytest.fail, tmp_path, ADDRESSES, study)
    monkeypatch.setattr(room.os, "fsync", refusing(number))
    with pytest.raises(UsageError, match="nothing can be written to") as found:
        work.check(runs)
    assert store.NO_ROOM[number] in str(found.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("free", [{"f_bavail": 1}, {"f_favail": 3}], ids=["bytes", "inodes"])
def test_too_little_room_is_found_out_first(free, tmp_path, monkeypatch):
    plenty = {"f_bavail": 1 << 40, "f_frsize": 4096, "f_files": 1 << 30, "f_favail": 1 << 30}
    monkeypatch.setattr(room.os, "statvfs", lambda _: SimpleNamespace(**plenty))
    room.check(tmp_path, 10)
    monkeypatch.setattr(room.os, "statvfs", lambda _: SimpleNamespace(**plenty | free))
    with pytest.raises(UsageError, match="left, and 10 runs need about"):
        room.check(tmp_path, 10)


def test_room_is_estimated_from_what_runs_wrote(runs, tmp_path):
    assert room._bytes_of_a_run(tmp_path) == room.RUN_BYTES
    finish(runs, tmp_path)
    items.save(store.run_folder(runs[0].key, tmp_path), {"test/x": np.random.default_rng(0).random(100_000)})
    assert 700_000 / 4 < room._bytes_of_a_run(tmp_path) < 900_000 / 4


def test_few_files_are_said_or_raised(tmp_path, monkeypatch):
    import resource

    limits = {"now": (40, 4096)}
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits["now"])
    monkeypatch.setattr(resource, "setrlimit", lambda _, now: limits.update(now=now))
    room.check(tmp_path, 1, workers=2)
    assert limits["now"] == (room.FILES + 2 * room.FILES_OF_WORKER, 4096)
    limits["now"] = (40, 64)
    with pytest.raises(UsageError, match="may open 64 files here"):
        room.check(tmp_path, 1)


def test_a_results_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "results").write_text("")
    with pytest.raises(UsageError, match="is no folder"):
        room.check(tmp_path / "results", 1)


def test_commands_end_in_one_sentence_where_the_disk_is_full(tmp_path, monkeypatch, capsys):
    for module in (records, store, room):
        monkeypatch.setattr(module, "RESULTS", tmp_path, raising=False)
    monkeypatch.setattr(os, "fsync", refusing(errno.ENOSPC))
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert command.main(["study=smoke", "tracking.enabled=false"]) == 2
    first = capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["run"])
    assert single.main(["model=mlp", "dataset=digits", "device=cpu"]) == 2
    for said in (first, capsys.readouterr().err):
        assert said.count("\n") == 1
        assert "no room or no inodes left" in said


# ---------------------------------------------------------------------- leftovers


def aged(path, seconds, content="x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    os.utime(path, (time.time() - seconds,) * 2)
    return path


def test_leftovers_go_and_what_is_in_use_stays(runs, tmp_path):
    finish(runs[:1], tmp_path)
    done, other = (store.run_folder(run.key, tmp_path) for run in runs[:2])
    gone = [
        aged(other / ".record.json.0a1b.part", room.PART_S + 1),
        aged(other / ".checkpoint.part", room.PART_S + 1),
        aged(tmp_path / "small" / ".runs.csv.0a1b.part", room.PART_S + 1),
        aged(tmp_path / "measured" / ".small.json.0a1b.part", room.PART_S + 1),
        aged(tmp_path / ".probe.0a1b.part", room.PART_S + 1),
        aged(done / "record.json.damaged", 1),
        aged(done / lease.NAME, lease.EXPIRY_S + 1),
        aged(other / "record.json.damaged", room.DAMAGED_S + 1),
    ]
    (tmp_path / "runs" / ".key.7.part").mkdir()
    os.utime(tmp_path / "runs" / ".key.7.part", (1, 1))
    kept = [
        aged(store.run_folder(runs[2].key, tmp_path) / "checkpoint.pt.damaged", 3600),
        aged(store.run_folder(runs[2].key, tmp_path) / ".record.json.0a1b.part", 5),
        aged(store.run_folder(runs[2].key, tmp_path) / "checkpoint.pt", 90 * 86400),
        aged(tmp_path / "small" / "runs.csv", 90 * 86400),
    ]
    held = lease.take(store.run_folder(runs[3].key, tmp_path))
    assert room.tidy(tmp_path) == len(gone) + 1
    assert [path for path in gone if path.exists()] == []
    assert all(path.exists() for path in (*kept, held.path, done / "record.json"))
    assert not (tmp_path / "runs" / ".key.7.part").exists()


def test_the_lease_of_a_dead_process_goes(tmp_path):
    folder = tmp_path / "runs" / ("0" * 16)
    content = json.dumps({**lease._me(), "token": "x", "started": "1"})
    assert room.tidy(aged(folder / lease.NAME, 1, content).parents[2]) == 1
    assert not (folder / lease.NAME).exists()


# ---------------------------------------------------------------------- links


def test_merge_follows_no_link_and_takes_only_what_runs_leave(study, runs, tmp_path):
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    records.write_study(study, runs, theirs)
    finish(runs, theirs)
    secret = aged(tmp_path / "secret", 1, "mine")
    linked, whole, replaced, folder = (store.run_folder(run.key, theirs) for run in runs)
    (linked / "history.csv").unlink()
    (linked / "history.csv").symlink_to(secret)
    (whole / "more.txt").write_text("not of a run")
    record = replaced / "record.json"
    record.rename(tmp_path / "moved.json")
    record.symlink_to(tmp_path / "moved.json")
    folder.rename(tmp_path / "moved")
    folder.symlink_to(tmp_path / "moved")
    (theirs / "evil").mkdir()
    (theirs / "evil" / "runs.csv").symlink_to(secret)
    counts = records.merge([theirs], ours)
    assert counts == {"copied": 2, "already here": 0, "studies": 1, "damaged": 3}
    found = {
        path.parent.name: {file.name for file in path.parent.iterdir()} for path in ours.glob("runs/*/record.json")
    }
    assert found == {runs[0].key: {"record.json"}, runs[1].key: {"record.json", "history.csv"}}
    assert not [
        path for path in ours.rglob("*") if path.is_symlink() or (path.is_file() and path.read_text() == "mine")
    ]


@pytest.mark.parametrize("name", ["../secret.csv", "other.csv", "/etc/passwd"])
def test_a_manifest_names_only_files_of_its_own_study(name, study, runs, tmp_path):
    records.write_study(study, runs, tmp_path)
    finish(runs, tmp_path)
    records.publish("small", tmp_path)
    path = tmp_path / "measured" / "small.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"files": {**manifest["files"], name: "0" * 64}}))
    with pytest.raises(UsageError, match="names no files"):
        records.import_files([tmp_path / "measured" / "small.csv"], tmp_path / "here")


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda rows: rows.assign(key="../../x"), "no key of a run"),
        (lambda rows: rows.assign(**{"test.top1": 7.0}), "leaves its range"),
        (lambda rows: rows.assign(key=rows["key"].iloc[0]), "twice"),
        (lambda rows: rows.drop(columns="label"), "no column label"),
    ],
)
def test_import_believes_no_rows_unchecked(edit, said, study, runs, tmp_path):
    import hashlib

    import pandas as pd

    metrics = [{"key": "top1", "title": "top-1", "low": 0.0, "high": 1.0}]
    records.write_study(study, runs, tmp_path)
    finish(runs, tmp_path, metrics=metrics)
    records.publish("small", tmp_path)
    table, manifest = tmp_path / "measured" / "small.csv", tmp_path / "measured" / "small.json"
    edit(pd.read_csv(table)).to_csv(table, index=False)
    digest = hashlib.sha256(table.read_bytes()).hexdigest()
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(content | {"files": {**content["files"], "small.csv": digest}}))
    with pytest.raises(UsageError, match=said):
        records.import_files([table], tmp_path / "here")


@pytest.mark.parametrize("make", ["symlink_to", "hardlink_to"])
@pytest.mark.parametrize("uri", ["sqlite:///{}/mlflow.db", "http://127.0.0.1:1"])
def test_a_lock_is_never_opened_through_a_link(make, uri, tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "RESULTS", tmp_path)
    uri, secret = uri.format(tmp_path), aged(tmp_path / "secret", 1, "mine")
    with tracking.alone(uri, "token"):
        (lock,) = tmp_path.rglob("*.lock")
    assert tmp_path in lock.parents
    lock.unlink()
    getattr(lock, make)(secret)
    with pytest.raises(UsageError, match="remove it"), tracking.alone(uri, "token"):
        pass
    assert secret.read_text() == "mine"
