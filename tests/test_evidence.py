"""Published evidence: exact, whole or not there, with what runs scored on every test item."""

import dataclasses
import importlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness import compose, records
from harness.analysis import deciding
from harness.analysis.cells import Analysis
from harness.errors import UsageError
from harness.metrics import items as metrics
from harness.paths import MEASURED
from harness.records import evidence, items, packed, reuse
from harness.records import study as study_module
from harness.report import compare
from tests import synthetic

PUBLISH = importlib.import_module("harness.records.publish")  # by its own name the package has the function
MARGIN = 0.005
NEAR = st.sampled_from(
    [0.0, 1e-9, -1e-9, 1e-12, MARGIN, -MARGIN, np.nextafter(MARGIN, 1), np.nextafter(MARGIN, 0), 1 / 360]
)
SCORES = st.sampled_from([0.9, 0.95, 1 / 3, 0.1 + 0.2])
NO_ROWS = dict.fromkeys(("controls", "mishaps", "history"), False)


# ---------------------------------------------------------------- exact


@pytest.mark.filterwarnings("ignore:Precision loss occurred")  # of scipy, of scores that differ by a rounding
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_publication_changes_no_comparison(tmp_path, data):
    seeds = tuple(range(1, 1 + data.draw(st.integers(2, 5))))
    study = synthetic.study(seeds, ("cross_entropy", "focal", "ngl"), ("mlp",), **NO_ROWS)
    base = {seed: data.draw(SCORES) for seed in seeds}
    scores = [
        base[row.seed] + (0.0 if row.label == "cross_entropy" else data.draw(NEAR)) if row.role == "run" else 0.9
        for row in study.runs.itertuples()
    ]
    study = dataclasses.replace(study, runs=study.runs.assign(**{"test.top1": scores}))
    records.publish_tables(study, tmp_path)
    again = records.load_published(tmp_path / "made_up.csv")
    assert dict(zip(again.runs["key"], again.runs["test.top1"], strict=True)) == dict(
        zip(study.runs["key"], scores, strict=True)
    )
    before, after = (Analysis(each).comparisons for each in (study, again))
    assert before
    assert {key: repr(one) for key, one in before.items()} == {key: repr(one) for key, one in after.items()}


def test_publication_hides_no_failure(tmp_path):
    study = with_items(synthetic.study())
    records.publish_tables(study, tmp_path)
    again = records.load_published(tmp_path / "made_up.csv")
    assert again.runs["status"].value_counts().to_dict() == study.runs["status"].value_counts().to_dict()
    assert {"failed", "missing", "diverged"} <= set(again.runs["status"])
    before, after = (Analysis(each).comparisons for each in (study, again))
    assert {key: repr(one) for key, one in before.items()} == {key: repr(one) for key, one in after.items()}
    assert "Traceback" not in "".join(path.read_text() for path in tmp_path.glob("*.csv"))


def test_every_number_is_read_back_to_the_last_bit(tmp_path):
    study = synthetic.study()
    records.publish_tables(study, tmp_path)
    again = records.load_published(tmp_path / "made_up.csv")
    finished, published = (each.runs[each.runs["status"].isin(["done", "diverged"])] for each in (study, again))
    before, after = (each.set_index("key").sort_index() for each in (finished, published))
    numbers = [name for name in before.select_dtypes(["number", "bool"]) if before[name].notna().any()]
    assert {"test.top1", "test.nll", "cost.step_ms", "config.optimizer.lr", "seed"} <= set(numbers)
    pd.testing.assert_frame_equal(before[numbers], after[numbers], check_exact=True, check_dtype=False)
    compared = finished[~finished["role"].str.startswith("search")]  # epochs of trials are not published
    keys = study.history["key"].isin(compared["key"])
    epochs = [
        each.sort_values(["key", "epoch"]).reset_index(drop=True) for each in (study.history[keys], again.history)
    ]
    pd.testing.assert_frame_equal(*epochs, check_exact=True, check_dtype=False)


def test_publishing_what_was_published_writes_the_same_bytes(tmp_path):
    first = records.publish_tables(with_items(synthetic.study()), tmp_path / "a").files
    second = records.publish_tables(records.load_published(first[0]), tmp_path / "b").files
    assert [path.name for path in first] == [path.name for path in second]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


# ---------------------------------------------------------------- one step


class Killed(BaseException):
    """The process is no more."""


def kill_at(step, monkeypatch):
    """Let everything that changes a file fail from the ``step``-th change on, as it does in a process that is dead."""
    count = 0

    def dying(name, change):
        def changed(*arguments, **more):
            nonlocal count
            count += 1
            if count >= step:
                raise Killed(name)
            return change(*arguments, **more)

        return changed

    for place, name in ((Path, "replace"), (Path, "unlink"), (Path, "open"), (os, "fsync")):
        monkeypatch.setattr(place, name, dying(name, getattr(place, name)))


def content(folder):
    study = records.load_published(folder / "made_up.csv")
    scored = {key: study.item_scores(key, "test.top1") for key in study.runs["key"]}
    return (
        study.spec["question"],
        sorted(study.runs["test.top1"].dropna()),
        sorted(study.history["train.loss"]),
        {key: found[1].mean() for key, found in scored.items() if found},
    )


def test_publication_that_is_killed_at_any_step_leaves_the_old_evidence_or_the_new(tmp_path):
    old, new = with_items(synthetic.study(noise=0.002)), with_items(synthetic.study(noise=0.004), seed=1)
    new = dataclasses.replace(new, spec=new.spec | {"question": "Again?"})
    contents = []
    for study, name in ((old, "old"), (new, "new")):
        records.publish_tables(study, tmp_path / name)
        contents.append(content(tmp_path / name))
    assert contents[0] != contents[1]
    seen, step = [], 0
    while True:
        step += 1
        folder = tmp_path / f"killed at {step}"
        shutil.copytree(tmp_path / "old", folder)
        with pytest.MonkeyPatch.context() as monkeypatch:
            kill_at(step, monkeypatch)
            try:
                records.publish_tables(new, folder)
                break
            except Killed:
                pass
        found = content(folder)
        assert found in contents, f"mixed after step {step}"
        seen.append(contents.index(found))
        records.publish_tables(new, folder)  # what was left is cleared away
        assert content(folder) == contents[1]
        assert {path.name for path in folder.iterdir()} == {path.name for path in (tmp_path / "new").iterdir()}
        shutil.rmtree(folder)
    assert seen == sorted(seen)
    assert {0, 1} == set(seen)


def test_a_file_that_is_not_the_published_one_is_not_believed(tmp_path):
    table = records.publish_tables(synthetic.study(), tmp_path).files[0]
    table.write_text(table.read_text().replace("0.9", "0.8"))
    with pytest.raises(UsageError, match=r"made_up\.csv is not what was published"):
        records.load_published(table)
    table.unlink()
    with pytest.raises(UsageError, match="is not what was published"):
        records.load_published(table)


@pytest.mark.parametrize("manifest", ["", "[]", "{}", '{"files": {}, "shared": {}}'])
def test_a_manifest_that_names_nothing_gets_a_sentence(manifest, tmp_path):
    (tmp_path / "x.json").write_text(manifest)
    with pytest.raises(UsageError, match="publish the study again"):
        evidence.find("x", [tmp_path])


@pytest.mark.parametrize("path", sorted(MEASURED.glob("*.json")), ids=lambda path: path.stem)
def test_committed_evidence_is_whole(path):
    found = evidence.find(path.stem, [MEASURED])
    assert len(found.rows)
    assert set(found.history["key"]) <= set(found.rows["key"])
    assert set(found.item_arrays) <= set(found.rows["key"])
    assert all((MEASURED / file).stat().st_size <= 1 << 20 for file in found.manifest["files"])


# ---------------------------------------------------------------- scores on test items


def with_items(study, n=360, seed=0):
    """Return a study whose runs kept what they scored on ``n`` test items and on as many that are shifted."""
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 10, n)
    kept = {
        run.key: {
            f"{name}/{part}": array
            for name in ("test", "shifted.noise")
            for part, array in metrics.of_classes(np.arange(n), target, rng.random(n) < 0.9).items()
        }
        for run in study.runs.itertuples()
        if run.role != "search" and run.status == "done"
    }
    return dataclasses.replace(study, arrays=kept.get)


def test_item_scores_are_those_of_the_runs(tmp_path):
    study = with_items(synthetic.study())
    found = records.publish_tables(study, tmp_path)
    assert found.items
    again = records.load_published(found.files[0])
    for key in study.runs["key"]:
        for metric in ("test.top1", "test.balanced_accuracy", "shifted.noise.top1", "test.nll", "shifted.blur.top1"):
            before, after = study.item_scores(key, metric), again.item_scores(key, metric)
            assert (before is None) == (after is None)
            if before is not None:
                assert (before[0].dtype, before[1].dtype) == (after[0].dtype, after[1].dtype) == (np.int32, np.float64)
                assert all(np.array_equal(*pair) for pair in zip(before, after, strict=True))
    key = study.runs.loc[study.runs["status"].eq("done") & study.runs["role"].eq("run"), "key"].iloc[0]
    assert (
        study.item_scores(key, "test.top1")[1].mean()
        == np.unpackbits(study.arrays(key)["test/correct"], count=360).mean()
    )
    assert study.item_scores(key, "test.nll") is None


def test_item_scores_of_runs_here_come_from_their_folders(tmp_path):
    study = with_items(synthetic.study((1, 2), ("cross_entropy", "focal"), ("mlp",), **NO_ROWS))
    (tmp_path / "made_up").mkdir()
    listed = study.runs[list(synthetic.PLANNED)]
    listed.to_csv(tmp_path / "made_up" / "runs.csv", index=False)
    records.write_json(tmp_path / "made_up" / "study.json", study.spec)
    for row in study.runs.itertuples():
        record = {"key": row.key, "seed": row.seed, "status": "done", "config": {}, "test": {"top1": 0.9}}
        records.save(records.run_folder(row.key, tmp_path), record, pd.DataFrame({"epoch": [1]}))
        if arrays := study.arrays(row.key):
            items.save(records.run_folder(row.key, tmp_path), arrays)
    found = records.load_study("made_up", tmp_path)
    key = next(row.key for row in study.runs.itertuples() if row.role == "run")
    ids, scores = found.item_scores(key, "test.top1")
    assert np.array_equal(ids, np.arange(360))
    assert np.array_equal(scores, study.item_scores(key, "test.top1")[1])
    assert found.item_scores("nobody", "test.top1") is None
    records.publish("made_up", tmp_path)
    shutil.rmtree(tmp_path / "runs")
    shutil.rmtree(tmp_path / "made_up")
    assert np.array_equal(records.load_study("made_up", tmp_path).item_scores(key, "test.top1")[1], scores)


def test_what_runs_share_is_stored_once():
    ids, target, rng = np.arange(10_000, dtype=np.int32), np.zeros(10_000, np.uint8), np.random.default_rng(0)
    runs = {
        f"{n:02}": {"test/item": rng.permutation(ids) if n == 0 else ids, "test/target": target, "test/correct": bits}
        for n, bits in enumerate(rng.integers(0, 256, (40, 1250), np.uint8))
    }
    (content,) = packed.pack(runs, 1 << 20)
    assert len(content) < 40 * 1250 + 2 * 40_000 + 5_000
    found = packed.unpack(content)
    assert found.keys() == runs.keys()
    for key, arrays in runs.items():
        assert found[key].keys() == arrays.keys()
        assert all(
            np.array_equal(found[key][name], array) and found[key][name].dtype == array.dtype
            for name, array in arrays.items()
        )


def test_items_are_split_into_small_parts_and_left_out_when_they_are_too_many(tmp_path, monkeypatch):
    study = with_items(synthetic.study())
    (whole,) = packed.pack({key: study.arrays(key) for key in study.runs["key"] if study.arrays(key)}, 1 << 20)
    parts = packed.pack({key: study.arrays(key) for key in study.runs["key"] if study.arrays(key)}, len(whole) // 3)
    assert len(parts) > 2
    assert max(map(len, parts)) <= len(whole) // 3
    together = {key: arrays for part in parts for key, arrays in packed.unpack(part).items()}
    assert together.keys() == packed.unpack(whole).keys()
    assert packed.pack({"a": {"test/error": np.random.default_rng(0).random(1000)}}, 1000) is None
    monkeypatch.setattr(PUBLISH, "ITEMS_LIMIT", len(whole) - 1)
    found = records.publish_tables(study, tmp_path)
    assert found.items is False
    assert "published without them" in str(found)
    assert records.load_published(found.files[0]).item_scores(study.runs["key"].iloc[0], "test.top1") is None


def test_items_of_several_kinds_of_data_lie_in_one_file():
    runs = {
        "a": {"test/item": np.arange(3, dtype=np.int32), "test/iou": np.ones(3, np.float32)},
        "b": {"test/item": np.arange(5, dtype=np.int32), "test/error": np.zeros(5, np.float32)},
        "c": {"test/item": np.arange(3, dtype=np.int32), "test/iou": np.zeros(3, np.float32)},
    }
    (content,) = packed.pack(runs, 1 << 20)
    found = packed.unpack(content)
    assert {key: sorted(arrays) for key, arrays in found.items()} == {
        key: sorted(arrays) for key, arrays in runs.items()
    }
    assert found["c"]["test/iou"].tolist() == [0, 0, 0]


def test_import_brings_items_and_epochs_along(tmp_path):
    study = with_items(synthetic.study())
    halves = {name: study.runs[study.runs["model"] == model] for name, model in (("a", "cnn_micro"), ("b", "vit_nano"))}
    for name, runs in halves.items():
        history = study.history[study.history["key"].isin(runs["key"])]
        records.publish_tables(dataclasses.replace(study, runs=runs, history=history), tmp_path / name)
    files = [tmp_path / name / "made_up.csv" for name in halves]
    records.import_files(files, tmp_path / "here")
    found = records.load_published(tmp_path / "here" / "measured" / "made_up.csv")
    for name, file in zip(halves, files, strict=True):
        part = records.load_published(file)
        assert set(part.runs["key"]) <= set(found.runs["key"])
        assert len(found.history[found.history["key"].isin(part.runs["key"])]) == len(part.history), name
        for key in part.runs["key"]:
            before, after = part.item_scores(key, "test.top1"), found.item_scores(key, "test.top1")
            assert before is None if after is None else np.array_equal(before[1], after[1])


# ---------------------------------------------------------------- where it is looked for


def test_ones_own_evidence_goes_before_the_checkouts(tmp_path, monkeypatch):
    committed, own = tmp_path / "checkout", tmp_path / "results"
    monkeypatch.setattr(study_module, "MEASURED", committed)
    monkeypatch.setattr(study_module, "RESULTS", own)
    (tmp_path / "made_up").mkdir()  # a folder that only has the name
    monkeypatch.chdir(tmp_path)
    study = synthetic.study((1, 2), ("cross_entropy", "focal"), ("mlp",), **NO_ROWS)
    records.publish_tables(study, committed)
    assert len(records.load_study("made_up", own).runs) == len(study.runs), "the checkout's, wherever results go"
    assert compare.read_side("made_up", results=own).name == "made_up"
    fewer = dataclasses.replace(study, runs=study.runs[study.runs["label"] == "focal"])
    records.publish_tables(fewer, own / "measured")
    assert set(records.load_study("made_up", own).runs["label"]) == {"focal"}
    with pytest.raises(UsageError, match="no records"):
        records.load_study("made_up", tmp_path / "elsewhere")


@pytest.mark.parametrize("study", ["localisation", "rotated", "survey"])
def test_a_published_run_that_is_taken_over_is_the_record_it_was_made_of(study):
    """Whatever else its table has: names of options, some by role, which the plan says better."""
    found = evidence.find(study, [MEASURED])
    taken = reuse._by_key(found)
    assert len(taken) > 40
    for record, _, _ in taken.values():
        options = {name.partition(".")[0] for name in record} & {*compose.GROUPS, "config", "axis"}
        assert not options
        assert isinstance(record["test"], dict)
        assert record["status"] in ("done", "diverged")


def test_damaged_evidence_is_not_taken_for_none(tmp_path, monkeypatch):
    monkeypatch.setattr(study_module, "MEASURED", tmp_path)
    assert deciding.recorded("made_up") is None
    table = records.publish_tables(synthetic.study(), tmp_path).files[0]
    assert deciding.recorded("made_up") is not None
    table.write_text("")
    with pytest.raises(UsageError, match="is not what was published"):
        deciding.recorded("made_up")


def test_what_was_published_is_told(tmp_path):
    told = str(records.publish_tables(with_items(synthetic.study()), tmp_path))
    for path in tmp_path.iterdir():
        assert path.name in told
    assert "all epochs" in told
    assert json.loads((tmp_path / "made_up.json").read_text())["files"].keys() == {
        path.name for path in tmp_path.iterdir() if path.suffix != ".json"
    }
    bare = records.publish_tables(synthetic.study(), tmp_path / "bare")
    assert bare.items is None
    assert "No run kept" in str(bare)
