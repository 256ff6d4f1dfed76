"""Published evidence under edited code: what a sample of its runs confirms keeps its keys, and nothing else does."""

import dataclasses
import json
import shutil

import pandas as pd
import pytest

from harness import behaviour, compose, journal, plan, records
from harness.address import Addresses, key_of, setting_hash
from harness.code import Code
from harness.errors import UsageError
from harness.plan import Study
from harness.records import evidence
from harness.studies import confirm as confirming
from harness.studies import sweep
from harness.studies.confirm import confirm

OPTIONS = ["engine.workers=1", "device=cpu", "tracking.enabled=false"]


def tiny(**changes):
    axes = {"loss": ["cross_entropy", "focal"], "seed": [1, 2]}
    base = {"dataset": "digits", "model": "mlp", "device": "cpu", "trainer.epochs": 1}
    controls = {"baseline_repeat": False, "negative_control": False}
    return Study("tiny", "Is it tiny?", axes, base=base, controls=controls, study="tiny", **changes)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Results of a study that searched a learning rate, with its evidence."""
    folder = tmp_path_factory.mktemp("trained")
    options = compose.compose_run(OPTIONS).config
    search = {"factors": [1.0, 3.0], "seeds": [7001], "most": 0, "most_seeds": 1}
    study = tiny(track="lr", search={**tiny().search, **search})
    with pytest.MonkeyPatch.context() as patch:  # what this checkout has confirmed gives code other identities
        patch.setattr(behaviour, "MEASURED", folder / "nothing")
        assert not sweep.sweep(study, options, results=folder).failed
        records.publish("tiny", folder)
    return study, folder


@pytest.fixture
def published(trained, tmp_path, monkeypatch):
    """The evidence alone, in a results folder of its own, as if the checkout had published nothing else."""
    study, folder = trained
    shutil.copytree(folder / "measured", tmp_path / "measured")
    monkeypatch.setattr(plan, "read_study", lambda *_: study)
    monkeypatch.setattr(behaviour, "MEASURED", tmp_path / "nothing")
    return tmp_path


def another(tree):
    """Return a digest that is not that of a tree."""
    return f"{'f' if tree[0] == 'e' else 'e'}{tree[1:]}"


def edit(monkeypatch, *places):
    """Let the syntax trees of some code be others, as after an edit."""
    digest = Code.digest

    def other(self, names, *rest):
        found = digest(self, names, *rest)
        return another(found) if any(name.startswith(places) for name in names) else found

    monkeypatch.setattr(Code, "digest", other)


@pytest.fixture
def edited(monkeypatch):
    """The trees of trainer and task are others."""
    edit(monkeypatch, "harness.tasks", "harness.training")


def keys_today(results):
    study = plan.read_study("tiny")
    addresses = Addresses(results / "no data", results)
    rows = evidence.find("tiny", [results / "measured"]).rows
    planned = confirming._planned(study, rows.to_dict("records"))
    found = set()
    for row in rows.to_dict("records"):
        setting = confirming._as_run(planned[row["setting"]], row)
        found |= set(addresses.keys(setting.spec, [row["seed"]]))
    return found, set(rows["key"])


def test_unedited_code_has_nothing_to_confirm(published):
    now, before = keys_today(published)
    assert now == before
    found = confirm("tiny", options=OPTIONS, results=published)
    assert (found.today, found.repeated, found.confirmed, found.left) == (8, {}, 0, {})


def test_an_edit_that_changes_nothing_keeps_the_keys(published, edited):
    now, before = keys_today(published)
    assert not now & before
    found = confirm("tiny", 2, OPTIONS, published)
    assert (found.today, len(found.repeated), found.differences, found.confirmed) == (0, 2, [], 8)
    assert set(found.repeated) <= before
    now, before = keys_today(published)
    assert now == before
    written = [entry for entry in journal.entries(published / "measured" / behaviour.NAME) if "confirmed" in entry]
    assert {entry["component"] for entry in written} == {"task", "trainer"}
    assert all(entry["confirmed"]["study"] == "tiny" for entry in written)
    assert confirm("tiny", 2, OPTIONS, published).today == 8, "once is enough"


def test_a_second_edit_is_confirmed_as_the_first_was(published, edited, monkeypatch):
    assert confirm("tiny", 2, OPTIONS, published).confirmed == 8
    edit(monkeypatch, "harness.tasks")
    found = confirm("tiny", 2, OPTIONS, published)
    assert (found.today, found.confirmed, found.left) == (0, 8, {})
    now, before = keys_today(published)
    assert now == before


def test_what_a_fingerprint_has_decided_is_entered_once(published, monkeypatch):
    edit(monkeypatch, "losses")
    found = confirm("tiny", options=OPTIONS, results=published)
    assert (found.today, found.repeated, found.confirmed, found.left) == (8, {}, 0, {})
    path = published / "measured" / behaviour.NAME
    entries = list(journal.entries(path))
    assert {entry["component"] for entry in entries if "fingerprint" not in entry} == {"loss"}
    confirm("tiny", options=OPTIONS, results=published)
    assert list(journal.entries(path)) == entries


def test_a_run_without_stress_is_none_of_one_with_it():
    study = dataclasses.replace(tiny(), base={**tiny().base, "stress": "label_noise"})
    study = dataclasses.replace(study, axes={"stress.rate": [0, 0.4], **study.axes}, track="fixed")
    settings = plan.settings(study)
    rows = [
        {
            **records.flat({"config": dict(setting.spec.content)}),
            "label": setting.label,
            "setting": setting_hash(setting.spec),
        }
        for setting in settings
    ]
    planned = confirming._planned(study, rows)
    assert {row["setting"] for row in rows} == planned.keys()
    for setting in settings:
        assert planned[setting_hash(setting.spec)].spec.stress == setting.spec.stress


def changed(published, column, change):
    """Replace the evidence by some with another number in every row."""
    study = records.load_published(published / "measured" / "tiny.csv")
    study.runs[column] = change(study.runs[column])
    records.publish_tables(study, published / "measured")


def test_a_difference_is_named_and_changes_nothing(published, edited):
    changed(published, "test.nll", lambda values: values * (1 + 3e-6))
    before = (published / "measured" / behaviour.NAME).read_bytes()
    found = confirm("tiny", 1, OPTIONS, published)
    assert len(found.differences) == 1
    assert "test.nll is" in found.differences[0]
    assert next(iter(found.repeated)) in found.differences[0]
    assert found.confirmed == 0
    assert "Nothing was changed" in str(found)
    assert (published / "measured" / behaviour.NAME).read_bytes() == before


def test_numbers_of_six_digits_are_compared_as_they_were_rounded(published, edited):
    changed(published, "test.nll", lambda values: values.map(lambda value: float(f"{value:.6g}")))
    assert confirm("tiny", 1, OPTIONS, published).differences == []


def test_scores_on_test_items_count(published, edited, monkeypatch):
    kept = confirming.items.load
    monkeypatch.setattr(
        confirming.items,
        "load",
        lambda folder: {n: 255 - a if n == "test/correct" else a for n, a in kept(folder).items()},
    )
    found = confirm("tiny", 1, OPTIONS, published)
    assert [difference for difference in found.differences if "test/correct of test items differs" in difference]


def test_evidence_of_another_loss_is_left(published, edited, monkeypatch):
    edit(monkeypatch, "losses.probability.focal")
    monkeypatch.setattr(behaviour, "agree", lambda *_: False)
    found = confirm("tiny", 2, OPTIONS, published)
    assert (found.confirmed, found.left) == (4, {"their loss does something else today, or has run here since": 4})


def test_a_setting_that_came_later_is_confirmed_as_code_is(published, monkeypatch):
    """Evidence from before the trainer had a patience: the setting is new, and so is the code that reads it."""
    study = records.load_published(published / "measured" / "tiny.csv")
    addresses, rows = Addresses(published / "no data", published), study.runs
    planned = confirming._planned(plan.read_study("tiny"), rows.to_dict("records"))
    before = rows.drop(columns="config.trainer.patience").to_dict("records")
    for row in before:
        setting = confirming._as_run(planned[row["setting"]], row)
        then = confirming._as_published(setting.spec, row)
        assert "patience" not in then.trainer
        row["setting"], row["key"] = setting_hash(then), key_of(then.content, confirming._identity(row), row["seed"])
    records.publish_tables(dataclasses.replace(study, runs=pd.DataFrame(before)), published / "measured")
    found = confirm("tiny", 2, OPTIONS, published)
    assert (found.today, len(found.repeated), found.differences, found.confirmed, found.left) == (0, 2, [], 8, {})
    (entry,) = (entry for entry in journal.entries(published / "measured" / behaviour.NAME) if "confirmed" in entry)
    assert (entry["component"], entry["identity"]) == ("trainer", before[0]["identity.code.trainer"])
    assert addresses.behaviours.known
    assert confirm("tiny", 2, OPTIONS, published).today == 8


def test_code_that_other_evidence_goes_by_keeps_its_identity(published, edited):
    study = records.load_published(published / "measured" / "tiny.csv")
    study.runs["identity.code.trainer"] = [another(tree) for tree in study.runs["identity.code.trainer"]]
    later = records.StudyData("later", study.spec, study.runs, study.history, study.metrics)
    records.publish_tables(later, published / "measured")
    found = confirm("tiny", 2, OPTIONS, published)
    assert (found.repeated, found.confirmed, found.left) == ({}, 0, {"other evidence goes by today's code": 8})


def test_evidence_that_does_not_lead_to_its_keys_is_left(published, edited):
    changed(published, "config.optimizer.lr", lambda values: values * 1.01)
    found = confirm("tiny", 2, OPTIONS, published)
    assert found.confirmed == 0
    assert sum(found.left.values()) == 8


def test_what_is_not_published_gets_a_sentence(tmp_path):
    with pytest.raises(UsageError, match="not published"):
        confirm("nothing", results=tmp_path)


def test_a_manifest_is_plain_json(published):
    manifest = json.loads((published / "measured" / "tiny.json").read_text())
    assert set(manifest["files"]) == {"tiny.csv", "tiny_settings.csv", "tiny_history.csv.gz", "tiny_items_1.npz"}
