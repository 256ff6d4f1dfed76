"""Any file of a study truncated, emptied or garbled: never a traceback, said and counted, the rest as it was."""

import errno
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from harness import plan, records, report
from harness.errors import UsageError
from harness.plan import Study
from harness.records import items, store
from harness.report import writing
from harness.studies import sweep
from harness.training import checkpoint
from harness.training.job import carry_out
from tests.test_records import ADDRESSES, finish

AXES = {"loss": ["cross_entropy", "focal"], "seed": [1, 2]}
METRICS = [{"key": "top1", "title": "top-1 accuracy", "unit": "%", "scale": 100.0, "low": 0.0, "high": 1.0}]


def truncated(content):
    return content[: len(content) // 2]


def emptied(content):
    return b""


def garbled(content):
    noise = random.Random(0)
    return bytes(noise.randrange(256) for _ in content)


def flipped(content):
    """Return the content with one letter in its middle changed."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0x41]) + content[middle + 1 :]


def nested(content):
    return b"[" * 100_000


DAMAGES = [truncated, emptied, garbled, flipped, nested]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A results folder with four finished runs, and the same runs published in another."""
    results, there = tmp_path_factory.mktemp("made"), tmp_path_factory.mktemp("there")
    controls = {"baseline_repeat": False, "negative_control": False}
    study = Study("small", "Is it small?", AXES, base={"device": "cpu"}, controls=controls)
    runs = plan.runs(plan.settings(study), study, ADDRESSES)
    records.write_study(study, runs, results)
    finish(runs, results, metrics=METRICS)
    for run in runs:
        folder = store.run_folder(run.key, results)
        items.save(folder, {"test/item": np.arange(9, dtype=np.int32), "test/correct": np.packbits(np.ones(9, bool)),
                            "test/target": np.zeros(9, np.int64)})  # fmt: skip
        with store.whole(folder / "examples.npz") as file:
            np.savez_compressed(file, allow_pickle=False, images=np.zeros((2, 3)))
    records.load_study("small", results)  # the index
    records.publish("small", results)
    shutil.copytree(results / "measured", there / "measured")
    shutil.rmtree(results / "measured")
    return study, runs, results, there


def damaged_copy(made, tmp_path, which, damage):
    """Copy the folder that holds a file, damage the file, and return the folder and the file."""
    _, runs, results, there = made
    source = there if which.startswith("measured/") else results
    shutil.copytree(source, tmp_path / "results")
    path = tmp_path / "results" / which.replace("KEY", runs[0].key)
    path.write_bytes(damage(path.read_bytes()))
    return tmp_path / "results", path


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    monkeypatch.setattr(store, "damaged", said := [])
    monkeypatch.setattr("harness.records.study.damaged", said)
    monkeypatch.setattr(records, "damaged", said)
    return said


def loaded(results):
    """Return the study, or None and the sentence that says why there is none."""
    try:
        return records.load_study("small", results), ""
    except UsageError as error:
        return None, str(error)


def made_arrays(made, name):
    _, runs, results, _ = made
    arrays = store.load_arrays(store.run_folder(runs[0].key, results) / name)
    return {name: array.tolist() for name, array in arrays.items()}


OF_RUN = ["record.json", "history.csv", "items.npz", "examples.npz"]
OF_STUDY = ["runs.csv", "study.json", "records.index"]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("which", [*(f"runs/KEY/{name}" for name in OF_RUN), *(f"small/{name}" for name in OF_STUDY)])
def test_one_damaged_file_never_blocks_a_report(which, damage, made, nothing_said, tmp_path, monkeypatch):
    study, runs, *_ = made
    results, path = damaged_copy(made, tmp_path, which, damage)
    if not which.endswith(".index"):
        (results / "small" / "records.index").unlink()  # it was made from files that were whole
    monkeypatch.setattr(plan, "read_study", lambda *_: study)
    data, refused = loaded(results)
    if refused:
        assert which == "small/runs.csv"
        assert str(path) in refused
        return
    for run in runs:
        data.arrays(run.key)
        records.examples(run.key, results)
    if damage is flipped and which.endswith(".npz") and not nothing_said:  # a letter of the archive that says nothing
        arrays = store.load_arrays(path)
        assert {name: array.tolist() for name, array in arrays.items()} == made_arrays(made, path.name)
    elif damage is not flipped or which.endswith("record.json"):
        assert len([each for each in nothing_said if path.name in each]) == (path.name != "records.index")
    page = writing.compose(data)
    assert report.summary(data)
    if any(path.name in each for each in nothing_said):
        notices = [item.text for section in page.sections for item in section.items if hasattr(item, "tone")]
        assert any("could not be read" in text for text in notices if isinstance(text, str))
    whole = data.runs[data.runs["status"] == "done"]
    assert set(whole["key"]) >= {run.key for run in runs[1:]} or which == "small/runs.csv"


FILES = [f"measured/small{end}" for end in (".json", ".csv", "_settings.csv", "_history.csv.gz", "_items_1.npz")]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("which", FILES)
def test_damaged_evidence_is_said_and_never_built_upon(which, damage, made, nothing_said, tmp_path):
    _, runs, *_ = made
    results, path = damaged_copy(made, tmp_path, which, damage)
    with pytest.raises(UsageError):
        records.load_published(results / "measured" / "small.csv")
    with pytest.raises(UsageError):
        records.publish("small", results)
    data, refused = loaded(results)
    if refused:
        assert not which.endswith((".gz", ".npz"))
        assert str(path) in refused
        return
    data.arrays(runs[0].key)
    assert any(path.name in each for each in nothing_said)
    assert len(data.runs) == len(runs)
    assert report.summary(data)


@pytest.mark.parametrize("damage", DAMAGES)
def test_behaviours_that_are_damaged_are_passed_over(damage, made, tmp_path):
    from harness.behaviour import Behaviours

    entry = {"component": "loss", "spec": "s", "tree": "t", "identity": "i", "fingerprint": {"value": [1.0]}}
    odd = [[], {"component": "loss", "spec": "s", "tree": "u", "identity": "i", "fingerprint": [3]}, {"spec": {}}, 7]
    lines = [json.dumps(each) for each in (*odd, entry)]
    (tmp_path / "behaviours.jsonl").write_bytes(damage("\n".join(lines).encode()) + b"\n" + lines[-1].encode() + b"\n")
    found = Behaviours(tmp_path)
    assert found.known["loss", "s"]["t"] == ("i", {"value": [1.0]})
    assert all(mark is None or isinstance(mark, dict) for trees in found.known.values() for _, mark in trees.values())


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_run_whose_record_is_damaged_is_run_again_by_the_same_command(damage, made, nothing_said, tmp_path):
    study, runs, *_ = made
    results, path = damaged_copy(made, tmp_path, "runs/KEY/record.json", damage)
    work = sweep.Work({}, lambda: None, results, ADDRESSES, study)
    assert [run.key for run in work.missing(runs)] == [runs[0].key]
    assert (path.exists(), path.with_name("record.json.damaged").exists()) in [
        (False, True),
        (damage is emptied, False),
    ]
    finish(runs[:1], results)
    assert not path.with_name("record.json.damaged").exists(), "what was set aside is gone when the run is finished"


def test_records_that_were_read_are_not_read_by_every_sweep(made, tmp_path, monkeypatch):
    study, runs, results, _ = made
    shutil.copytree(results, tmp_path / "results")
    records.load_study("small", tmp_path / "results")
    monkeypatch.setattr(records, "read", None)
    assert sweep.Work({}, lambda: None, tmp_path / "results", ADDRESSES, study).missing(runs) == []


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The checkpoint of a run that was stopped."""
    from harness import address, compose
    from harness.training.job import Job, Stopped

    folder = tmp_path_factory.mktemp("stopped") / ("0" * 16)
    config = compose.compose_run(["device=cpu", "trainer.epochs=2", "model=mlp"]).config
    known = {"key": "0" * 16, "choices": {}, "label": "x", "role": "run", "environment": {}, "identity": {}}
    feed = {"_target_": "harness.feeds.resident.Resident"}
    job = Job(spec=address.spec_of(config), seed=1, data={"root": "nowhere", "download": False}, feed=feed,
              folder=str(folder), checkpoint_seconds=1e9, **known)  # fmt: skip
    epochs = []
    with pytest.raises(Stopped):
        carry_out(job, lambda: bool(epochs), lambda *found: epochs.append(found))
    assert [path.name for path in folder.iterdir()] == [checkpoint.NAME]
    return job, (folder / checkpoint.NAME).read_bytes()


def another_runs(content):
    """Return a checkpoint that is whole, of another model."""
    import io

    out = io.BytesIO()
    torch.save({"model": {}, "losses": {}, "optimizers": {}, "meter": {}, "state": {}}, out)
    return out.getvalue()


@pytest.mark.parametrize("damage", [*DAMAGES, another_runs, lambda content: another_runs(content)[:-9]])
def test_a_damaged_checkpoint_is_set_aside_and_the_run_starts_anew(damage, stopped, tmp_path, capsys):
    from dataclasses import replace

    job, content = stopped
    folder = tmp_path / job.key
    folder.mkdir()
    (folder / checkpoint.NAME).write_bytes(damage(content))
    epochs = []
    ended = carry_out(replace(job, folder=str(folder)), lambda: False, lambda epoch, *_: epochs.append(epoch))
    assert ended == {"status": "done"}
    assert epochs == [1, 2]
    assert "the run starts anew" in capsys.readouterr().err
    assert not list(folder.glob("*.damaged"))


def test_a_checkpoint_that_cannot_be_written_does_not_end_a_run(stopped, tmp_path, capsys, monkeypatch):
    from dataclasses import replace

    job, _ = stopped
    monkeypatch.setattr(checkpoint.torch, "save", full)
    job = replace(job, folder=str(tmp_path / job.key), checkpoint_seconds=0.0)
    assert carry_out(job, lambda: False, lambda *_: None) == {"status": "done"}
    assert "training goes on" in capsys.readouterr().err


def full(*_):
    raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598")


@pytest.mark.parametrize("number", sorted(store.NO_ROOM))
def test_where_no_result_can_be_written_one_sentence_says_so(number, stopped, tmp_path, monkeypatch):
    from dataclasses import replace

    job, _ = stopped
    job = replace(job, folder=str(tmp_path / job.key))

    def refused(file):
        raise OSError(number, "no")

    monkeypatch.setattr(store.os, "fsync", refused)
    ended = carry_out(job, lambda: False, lambda *_: None)
    assert ended["no_room"] == (number not in (errno.EMFILE, errno.ENFILE)), "a run may open too many files itself"
    assert store.NO_ROOM[number] in ended["error"]
    assert not [path for path in Path(job.folder).iterdir() if path.name != checkpoint.NAME], "nothing half-written"


def test_an_error_of_the_run_itself_is_not_taken_for_a_full_disk(stopped, tmp_path, monkeypatch):
    from dataclasses import replace

    job, _ = stopped

    def raising(*_):
        raise PermissionError(errno.EACCES, "no", "somewhere else")

    monkeypatch.setattr("harness.training.loop.Loop.run", raising)
    ended = carry_out(replace(job, folder=str(tmp_path / job.key)), lambda: False, lambda *_: None)
    assert (ended["status"], ended.get("no_room")) == ("failed", None)
    assert [path.name for path in (tmp_path / job.key).iterdir()] == ["failure.json"]


def test_a_flipped_bit_in_the_weights_of_a_checkpoint_is_found(stopped, tmp_path):
    _, content = stopped
    saved = torch.load(__import__("io").BytesIO(content), weights_only=True)
    weights = next(iter(saved["model"].values()))
    at = content.index(weights.numpy().tobytes()[:64])
    (tmp_path / checkpoint.NAME).write_bytes(content[: at + 8] + bytes([content[at + 8] ^ 1]) + content[at + 9 :])
    with pytest.raises(checkpoint.Damaged, match="checksum"), checkpoint.opened(tmp_path, torch.device("cpu")):
        pass


def test_epochs_of_a_run_that_are_garbled_leave_those_of_others(made, nothing_said, tmp_path):
    _, runs, *_ = made
    results, path = damaged_copy(made, tmp_path, "runs/KEY/history.csv", lambda text: text.replace(b"2.0", b"2.x"))
    (results / "small" / "records.index").unlink()
    history = records.load_study("small", results).history
    assert set(history["key"]) == {run.key for run in runs[1:]}
    assert pd.api.types.is_numeric_dtype(history["train.loss"])
    assert [path.name in each for each in nothing_said] == [True]
