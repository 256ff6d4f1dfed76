"""Records: atomic, flat with pandas alone, published, imported, merged; and what the report reads of them."""

import importlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from harness import plan, records
from harness.address import Addresses
from harness.errors import UsageError
from harness.plan import Study
from harness.records import evidence, items
from tests.conftest import SCRATCH

PUBLISH = importlib.import_module("harness.records.publish")  # by its own name the package has the function
ADDRESSES = Addresses(Path("nowhere"), SCRATCH)


@pytest.fixture
def study():
    axes = {"loss": ["cross_entropy", "focal"], "seed": [1, 2]}
    controls = {"baseline_repeat": False, "negative_control": False}
    return Study("small", "Is it small?", axes, base={"device": "cpu"}, controls=controls)


@pytest.fixture
def runs(study):
    return planned(study)


def planned(study):
    return plan.runs(plan.settings(study), study, ADDRESSES)


def finish(runs, results, **changes):
    """Write made-up records of ``runs``, as a run of the loop would."""
    for number, run in enumerate(runs):
        content = run.setting.spec.content
        record = {
            "key": run.key,
            "choices": run.setting.choices,
            "seed": run.seed,
            "status": "done",
            "config": {name: value for name, value in content.items() if name not in ("device", "threads")},
            "identity": ADDRESSES.identity(run.setting.spec),
            "env": {"device": "cpu", "threads": 1, "commit": "123456789012"},
            "test": {"top1": 0.9 + number / 100, "per_class": [1.0, float("nan")]},
            "cost": {"wall_s": 2.0},
        } | changes
        records.save(
            records.run_folder(run.key, results),
            record,
            pd.DataFrame({"epoch": [1, 2], "train.loss": [2.0, 1.0 + number]}),
        )


def test_what_is_written_is_read_with_names_joined_by_dots(study, runs, tmp_path):
    records.write_study(study, runs, tmp_path)
    finish(runs[:3], tmp_path)
    found = records.load_study("small", tmp_path)
    assert found.spec["question"] == "Is it small?"
    assert list(found.runs["status"]) == ["done", "done", "done", "missing"]
    assert list(found.runs["label"]) == ["cross_entropy", "focal", "cross_entropy", "focal"]
    assert list(found.runs["seed"]) == [1, 1, 2, 2]
    assert found.runs.loc[0, "config.optimizer.lr"] == 0.005
    assert json.loads(found.runs.loc[0, "test.per_class"]) == [1.0, None]
    assert len(found.history) == 6
    assert set(found.runs["source"]) == {"local"}


def test_failed_runs_are_read_but_not_finished(study, runs, tmp_path):
    records.write_study(study, runs, tmp_path)
    records.save_failure(records.run_folder(runs[0].key, tmp_path), {"key": runs[0].key, "error": "boom"})
    assert records.finished(tmp_path) == set()
    found = records.load_study("small", tmp_path).runs
    assert found.loc[0, "status"] == "failed"
    assert found.loc[0, "error"] == "boom"
    finish(runs[:1], tmp_path)
    assert records.finished(tmp_path) == {runs[0].key}
    assert records.load_study("small", tmp_path).runs.loc[0, "status"] == "done"


def test_publish_then_a_clean_clone_reads_the_same(study, runs, tmp_path):
    here, clone = tmp_path / "here", tmp_path / "clone"
    records.write_study(study, runs, here)
    finish(runs, here)
    written = records.publish("small", here)
    names = ["small.csv", "small_settings.csv", "small_history.csv.gz", "small.json"]
    assert [path.name for path in written.files] == sorted(names, key=names.index)
    shutil.copytree(here / "measured", clone / "measured")
    original, copy = records.load_study("small", here), records.load_study("small", clone)
    assert set(copy.runs["source"]) == {"measured"}
    assert copy.spec == original.spec
    once = json.loads((clone / "measured" / "small.json").read_text())["shared"]  # said once, not in every row
    assert {"config.trainer.epochs", "identity.code.model"} <= set(once) <= set(copy.runs.columns)
    assert not set(once) & set(pd.read_csv(clone / "measured" / "small.csv").columns)
    assert set(original.runs.dropna(axis="columns", how="all").columns) <= set(copy.runs.columns)
    columns = ["key", "role", "label", "seed", "status", "test.top1", "config.optimizer.lr", "env.commit", "setting"]
    by_key = [frame.runs.sort_values("key")[columns].reset_index(drop=True) for frame in (original, copy)]
    pd.testing.assert_frame_equal(*by_key, check_dtype=False)
    assert len(copy.history) == len(original.history)


def test_local_and_measured_records_add_up(study, runs, tmp_path):
    other = tmp_path / "other"
    records.write_study(study, runs, other)
    finish(runs[:2], other)
    records.publish("small", other)
    here = tmp_path / "here"
    records.write_study(study, runs, here)
    finish(runs[2:], here)
    shutil.copytree(other / "measured", here / "measured")
    found = records.load_study("small", here).runs
    assert sorted(found["key"]) == sorted(run.key for run in runs)
    assert set(found["status"]) == {"done"}
    assert sorted(found["source"]) == ["local", "local", "measured", "measured"]


def test_measured_rows_of_another_setting_do_not_slip_in(study, runs, tmp_path):
    records.write_study(study, runs, tmp_path)
    finish(runs, tmp_path)
    longer = Study(**{**vars(study), "base": {"device": "cpu", "trainer.epochs": 99}})
    others = planned(longer)
    elsewhere = tmp_path / "elsewhere"
    records.write_study(longer, others, elsewhere)
    finish(others, elsewhere)
    records.publish("small", elsewhere)
    shutil.copytree(elsewhere / "measured", tmp_path / "measured")
    assert set(records.load_study("small", tmp_path).runs["key"]) == {run.key for run in runs}


def test_import_joins_by_key(study, runs, tmp_path):
    sources = []
    for name, part in (("a", runs[:3]), ("b", runs[1:])):
        records.write_study(study, part, tmp_path / name)
        finish(part, tmp_path / name)
        sources.append(records.publish("small", tmp_path / name).files[0])
    here = tmp_path / "here"
    assert records.import_files(sources[:1], here) == {"small": 3}
    assert records.import_files(sources, here) == {"small": 1}
    assert records.import_files(sources, here) == {"small": 0}
    found = records.load_study("small", here)
    assert sorted(found.runs["key"]) == sorted(run.key for run in runs)
    assert len(found.history) == 8


def test_merge_copies_finished_runs_and_lists(study, runs, tmp_path):
    for name, part in (("a", runs[:3]), ("b", runs[2:])):
        records.write_study(study, part, tmp_path / name)
        finish(part, tmp_path / name)
    items.save(records.run_folder(runs[0].key, tmp_path / "a"), {"test/item": np.arange(3)})
    counts = records.merge([tmp_path / "a"], tmp_path / "b")
    assert items.load(records.run_folder(runs[0].key, tmp_path / "b"))["test/item"].tolist() == [0, 1, 2]
    assert counts == {"copied": 2, "already here": 1, "studies": 1}
    assert set(records.load_study("small", tmp_path / "b").runs["status"]) == {"done"}
    assert records.merge([tmp_path / "a"], tmp_path / "b")["copied"] == 0


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda folder: records.load_study("nothing", folder), "no records of a study 'nothing'"),
        (lambda folder: records.merge([folder], folder), "is not a results folder"),
        (lambda folder: records.import_files([folder / "no.csv"], folder), "is not a published study"),
    ],
)
def test_what_is_not_there_gets_a_sentence(call, said, tmp_path):
    with pytest.raises(UsageError, match=said):
        call(tmp_path)


def test_records_of_a_newer_version_are_named(study, runs, tmp_path):
    records.write_study(study, runs, tmp_path)
    path = records.run_folder(runs[0].key, tmp_path) / "record.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"schema": 999}')
    with pytest.raises(UsageError, match="newer lossbench"):
        records.load_study("small", tmp_path)


def test_too_much_evidence_is_refused(study, runs, tmp_path, monkeypatch):
    records.write_study(study, runs, tmp_path)
    finish(runs, tmp_path)
    monkeypatch.setattr(PUBLISH, "MEASURED_LIMIT", 100)
    with pytest.raises(UsageError, match="publish fewer"):
        records.publish("small", tmp_path)
    assert not (tmp_path / "measured").exists()


def test_a_long_table_of_runs_is_compressed(study, runs, tmp_path, monkeypatch):
    records.write_study(study, runs, tmp_path)
    finish(runs, tmp_path)
    before = records.load_study("small", tmp_path).runs
    plain = records.publish("small", tmp_path).files[0]
    assert plain.name == "small.csv"
    monkeypatch.setattr(PUBLISH, "MEASURED_LIMIT", plain.stat().st_size - 1)
    assert records.publish("small", tmp_path).files[0].name == "small.csv.gz"
    assert not plain.exists(), "the table that it replaces is gone"
    found = evidence.find("small", [tmp_path / "measured"]).rows
    assert sorted(found["key"]) == sorted(before["key"])


def test_long_histories_are_published_thinned_with_both_ends(study, runs, tmp_path, monkeypatch):
    records.write_study(study, runs, tmp_path)
    finish(runs, tmp_path)
    for run in runs:
        loss = np.random.default_rng(run.seed).normal(size=100)
        epochs = pd.DataFrame({"epoch": range(1, 101), "train.loss": loss, "valid.top1": 0.9})
        epochs.to_csv(records.run_folder(run.key, tmp_path) / "history.csv", index=False)
    whole = records.load_study("small", tmp_path).history
    content, step = PUBLISH._epochs_that_fit(whole)
    assert (step, len(read_epochs(content))) == (1, len(whole))
    monkeypatch.setattr(PUBLISH, "MEASURED_LIMIT", len(content) // 2)
    content, step = PUBLISH._epochs_that_fit(whole)
    assert step > 1
    assert len(content) <= PUBLISH.MEASURED_LIMIT
    for _, own in read_epochs(content).groupby("key"):
        assert (own["epoch"].iloc[0], own["epoch"].iloc[-1]) == (1, 100)
        assert len(own["epoch"].iloc[1:-1].diff().dropna().unique()) == 1


def read_epochs(content):
    return pd.read_csv(io.BytesIO(content), compression="gzip", dtype={"key": str})


def test_a_killed_write_leaves_the_old_content_or_the_new(tmp_path):
    """Kill a process that rewrites one file for ever; what is there is always whole."""
    path = tmp_path / "record.json"
    code = (
        "from pathlib import Path; from harness import records; import itertools\n"
        f"for i in itertools.count(): records.write_json(Path({str(path)!r}), {{'a': [i] * 20000}})"
    )
    environment = dict(os.environ)
    for _ in range(5):
        process = subprocess.Popen([sys.executable, "-c", code], env=environment)
        while not path.exists():
            assert process.poll() is None
        for _ in range(50):
            assert len(set(json.loads(path.read_text())["a"])) == 1
        process.kill()
        process.wait()
        assert len(json.loads(path.read_text())["a"]) == 20000
