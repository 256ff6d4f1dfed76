"""The address of a run: other content, other code or another sweep never answers with an old score."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from harness import address, behaviour, compose, content, fingerprints, journal, plan, records
from harness.address import Addresses
from harness.behaviour import agree
from harness.errors import UsageError
from harness.plan import Study
from harness.records import store
from harness.training.job import carry_out, check
from losses.loss import About
from tests.conftest import ROOT

LOSS = '''
from losses.loss import about
@about(name="mine", family="quantity", kind="values", link=None, paper="none", evidence="H")
def loss(prediction, target, *, scale=1.0):
    """Squares."""
    return scale * _error(prediction, target) ** 2
def _error(prediction, target):
    return prediction - target
'''
MODEL = """
import torch
from torch import nn
class Body(nn.Module):
    def __init__(self, inputs):
        super().__init__()
        self.layer = nn.Linear(inputs[0], 8)
        self.num_features = 8
    def forward(self, x):
        return torch.tanh(self.layer(x))
def build(*, inputs):
    return Body(inputs)
"""


EMBEDDED = {
    "breast_cancer",
    "crowded_scenes",
    "diabetes",
    "digit_pair",
    "digit_sets",
    "digits",
    "glyphs",
    "rotated_scenes",
    "scenes",
    "two_digits",
}
"""Data sets of scikit-learn, or made of them."""
ONE_FUNCTION = {
    ("av_consistency", "clip_contrastive"),
    ("balanced_softmax", "logit_adjustment"),
    ("cross_entropy", "hybrid_none"),
    ("cross_entropy", "symbolic"),
    ("huber", "smooth_l1"),
    ("huber_prob", "smooth_l1_prob"),
}
"""Losses that are one function by two names, at the settings of their configs."""


@pytest.fixture
def table(tmp_path):
    """Write a small table; return its file."""
    numbers = np.random.default_rng(0).normal(size=(120, 3))
    frame = pd.DataFrame(numbers, columns=["a", "b", "target"])
    file = tmp_path / "data" / "mine.csv"
    file.parent.mkdir()
    frame.to_csv(file, index=False)
    return file


def table_spec(**changes):
    asked = ["task=regression", "dataset=table", "dataset.path=mine.csv", "dataset.valid_size=30"]
    asked += ["dataset.test_size=30", "trainer.epochs=1", "device=cpu"]
    return address.spec_of(compose.compose_run(asked).config).at(changes)


def key_of(spec, root, results):
    return Addresses(root, results).keys(spec, [1])[0]


def multiply_target(file, factor):
    frame = pd.read_csv(file)
    frame["target"] *= factor
    frame.to_csv(file, index=False)


# ---------------------------------------------------------------- content


def test_the_key_covers_the_bytes_of_a_table(table, tmp_path):
    spec, results = table_spec(), tmp_path / "results"
    before = key_of(spec, table.parent, results)
    multiply_target(table, 1000)
    changed = key_of(spec, table.parent, results)
    table.unlink()
    assert len({before, changed, key_of(spec, table.parent, results)}) == 3


def test_the_key_covers_content_not_where_it_lies_or_when_it_was_written(table, tmp_path):
    spec, results = table_spec(), tmp_path / "results"
    before = key_of(spec, table.parent, results)
    shutil.copytree(table.parent, tmp_path / "b")
    assert key_of(spec, tmp_path / "b", results) == before, "equal files below another root"
    os.utime(table, (1, 1))
    assert key_of(spec, table.parent, results) == before, "touched"
    multiply_target(tmp_path / "b" / "mine.csv", -1)
    assert key_of(spec, tmp_path / "b", results) != before, "other files below another root"


def test_a_folder_counts_with_names_and_bytes_of_all_its_files(tmp_path):
    folder = tmp_path / "data" / "set"
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    for name in ("images/a.png", "images/b.png", "masks/a.png"):
        (folder / name).write_text(name)
    patterns, settings = (
        ("{path}/{images}", "{path}/{masks_in}"),
        {"path": "set", "images": "images", "masks_in": "masks"},
    )

    def digest():
        return content.Digests(tmp_path / "results").of(tmp_path / "data", patterns, settings)

    found = [digest()]
    (folder / "images/a.png").write_text("other")
    found.append(digest())
    (folder / "images/b.png").rename(folder / "images/c.png")
    found.append(digest())
    (folder / "masks/b.png").write_text("new")
    found.append(digest())
    assert len(set(found)) == 4
    (folder / "notes.txt").write_text("neither image nor mask")
    (folder / "images" / "._a.png").write_text("left by another system")
    (folder / "images" / "gone.png").symlink_to(tmp_path / "nowhere")
    assert digest() == found[-1]
    shutil.rmtree(folder)
    assert digest() is None


def test_the_first_place_that_exists_counts(tmp_path):
    patterns = (("own/*.bin", "*.bin"),)
    (tmp_path / "a.bin").write_text("a")
    first = content.Digests(tmp_path / "r").of(tmp_path, patterns, {})
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "a.bin").write_text("a")
    assert content.Digests(tmp_path / "r").of(tmp_path, patterns, {}) == first, "equal files in the other place"
    (tmp_path / "a.bin").write_text("stray")
    assert content.Digests(tmp_path / "r").of(tmp_path, patterns, {}) == first


def test_files_at_rest_are_read_once(tmp_path, monkeypatch):
    file = tmp_path / "big.bin"
    file.write_bytes(bytes(1000))
    before = time.time() - 100
    os.utime(file, (before, before))
    digest = content.Digests(tmp_path / "results").of_path(file)
    hashed = content._hashed
    monkeypatch.setattr(content, "_hashed", lambda *_: pytest.fail("read again"))
    assert content.Digests(tmp_path / "results").of_path(file) == digest
    monkeypatch.setattr(content, "_hashed", hashed)
    replaced = tmp_path / "other.bin"
    replaced.write_bytes(bytes(999) + b"1")
    os.utime(replaced, (before, before))
    replaced.replace(file)  # as large and as old, but another file
    assert content.Digests(tmp_path / "results").of_path(file) != digest


def test_a_file_that_changes_twice_in_one_tick_is_read_again(tmp_path):
    file = tmp_path / "fresh.bin"
    file.write_bytes(b"one")
    about = file.stat()
    digest = content.Digests(tmp_path / "results").of_path(file)
    file.write_bytes(b"two")
    os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert content.Digests(tmp_path / "results").of_path(file) != digest


def test_official_sets_declare_their_files_and_others_are_in_memory():
    declared = {name: Addresses(ROOT).code.declared(compose.option("dataset", name)["_target_"], "reads")
                for name in compose.options("dataset")}  # fmt: skip
    assert {name for name, files in declared.items() if not files} == EMBEDDED


def test_a_setting_that_names_a_file_counts_where_nothing_is_declared(module, tmp_path):
    module("own_loss", "def data(root, *, download, file):\n    return None\n")
    spec = table_spec(dataset={"_target_": "own_loss.data", "file": "x.bin", "augment": {}})
    found = []
    for text in ("one", "two"):
        (tmp_path / "x.bin").write_text(text)
        found.append(Addresses(tmp_path, tmp_path / "results").content(spec))
    assert None not in found
    assert found[0] != found[1]


def test_an_absent_set_is_fetched_before_its_content_is_asked_for(module, tmp_path):
    module(
        "own_loss",
        """
from datasets.files import reads
@reads("fetched.bin")
def data(root, *, download):
    assert download
    (root / "fetched.bin").write_text("here")
""",
    )
    spec = table_spec(dataset={"_target_": "own_loss.data", "augment": {}})
    assert Addresses(tmp_path, tmp_path / "results").content(spec) is None
    found = Addresses(tmp_path, tmp_path / "results", download=True).content(spec)
    assert found == Addresses(tmp_path, tmp_path / "results").content(spec) is not None


def test_no_old_score_from_the_command_line(table, cli):
    asked = ["harness.run", "task=regression", "dataset=table", "dataset.path=mine.csv", "dataset.valid_size=30"]
    asked += ["dataset.test_size=30", "trainer.epochs=1", "device=cpu", f"data.root={table.parent}"]
    first = cli(*asked)
    assert first.returncode == 0, first.stderr
    assert "run " not in cli(*asked).stdout.split("\n")[0], "nothing has changed"
    multiply_target(table, 1000)
    second = cli(*asked)
    rmse = [float(out.stdout.partition("rmse ")[2].split(",")[0]) for out in (first, second)]
    assert rmse[1] > 100 * rmse[0]
    table.unlink()
    gone = cli(*asked)
    assert gone.returncode == 2
    assert "does not exist" in gone.stderr
    assert "rmse" not in gone.stdout


# ---------------------------------------------------------------- code


def observed(spec, root, results):
    """Do what carrying out a run does for later plans; return its key."""
    addresses = Addresses(root, results)
    behaviours = behaviour.Behaviours(results)
    for part in addresses.parts(spec):
        behaviours.observe(part, {"root": str(root), "download": False})
    return addresses.keys(spec, [1])[0]


def own(component, name):
    return table_spec(**{f"{component}._target_": f"own_{component}.{name}"})


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("scale * _error(prediction, target) ** 2", "(\n        scale * _error(prediction, target) ** 2\n    )", True),
        ('"""Squares."""', '"""The squared error."""', True),
        ("** 2", "* _error(prediction, target)", True),
        ("_error", "_difference", True),
        ("_error(prediction, target) ** 2", "(prediction.square() - 2 * prediction * target + target**2)", True),
        ("prediction - target", "prediction - target * 0", False),
        ("** 2", "** 2 * 1.001", False),
        ("** 2", "** 2 + 1", False),
        ("scale *", "scale * 0 *", False),
        ('link=None', 'link="softmax"', False),
    ],
)  # fmt: skip
def test_an_edited_loss_is_run_again_and_a_reformatted_or_quicker_one_is_not(old, new, same, module, tmp_path):
    spec = table_spec(loss={"_target_": "own_loss.loss", "_partial_": True, "scale": 1.0})
    module("own_loss", LOSS)
    before = observed(spec, tmp_path, tmp_path / "results")
    assert old in LOSS
    module("own_loss", LOSS.replace(old, new))
    assert (key_of(spec, tmp_path, tmp_path / "results") == before) == same
    assert (key_of(spec, tmp_path, tmp_path / "results") == before) == same, "and it stays so"


def test_a_loss_that_never_ran_is_its_tree(module, tmp_path):
    spec = table_spec(loss={"_target_": "own_loss.loss", "_partial_": True, "scale": 1.0})
    found = []
    for text in (LOSS, LOSS.replace("** 2", "* _error(prediction, target)")):
        module("own_loss", text)
        found.append(key_of(spec, tmp_path, tmp_path / "results"))
    assert found[0] != found[1]
    assert not (tmp_path / "results").exists()


def test_going_back_to_an_earlier_loss_finds_its_runs(module, tmp_path):
    spec = table_spec(loss={"_target_": "own_loss.loss", "_partial_": True, "scale": 1.0})
    found = []
    for text in (LOSS, LOSS.replace("** 2", "** 4"), LOSS):
        module("own_loss", text)
        found.append(observed(spec, tmp_path, tmp_path / "results"))
    assert found[0] == found[2] != found[1]


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("torch.tanh(self.layer(x))", "self.layer(x).tanh()", True),
        ("torch.tanh(self.layer(x))", "torch.tanh(self.layer(x)) * 0", False),
        ("torch.tanh(self.layer(x))", "torch.tanh(self.layer(x)) + (0.001 if self.training else 0)", False),
        ("self.num_features = 8", "self.num_features = 8; nn.init.zeros_(self.layer.bias)", False),
        ("self.layer = ", "torch.rand(1); self.layer = ", False),
    ],
)
def test_an_edited_model_is_run_again(old, new, same, module, tmp_path):
    spec = table_spec(model={"_target_": "own_model.build", "channels_last": False})
    module("own_model", MODEL)
    before = observed(spec, tmp_path, tmp_path / "results")
    assert old in MODEL
    module("own_model", MODEL.replace(old, new))
    assert (key_of(spec, tmp_path, tmp_path / "results") == before) == same


def test_every_loss_has_a_fingerprint_and_it_is_its_own():
    found = {}
    for name in compose.options("loss"):
        config = address._expanded(compose.option("loss", name))
        found[name] = fingerprints.of("loss", config, {})
        assert found[name], name
        assert agree(found[name], fingerprints.of("loss", config, {})), name
        assert len(json.dumps(found[name])) < 1500
    equal = {(a, b) for a in found for b in found if a < b and agree(found[a], found[b])}
    assert {pair for pair in equal if not pair[0].startswith("hybrid_")} == ONE_FUNCTION
    further = {(a, b) for a, b in equal - ONE_FUNCTION if b != "symbolic"}  # cross-entropy, unless a formula is given
    assert all(b.startswith("hybrid_") for _, b in further), "filters that change nothing here"


@pytest.mark.parametrize("name", ["cnn_micro", "vit_nano", "mlp", "unet_micro", "resnet_small"])
def test_models_have_fingerprints_that_depend_on_their_settings(name):
    config = compose.option("model", name)
    assert agree(fingerprints.of("model", config, {}), fingerprints.of("model", config, {}))
    setting = next(key for key in ("dim", "widths", "width", "hidden", "channels", "patch_size") if key in config)
    other = [2 * x for x in config[setting]] if isinstance(config[setting], list) else 2 * config[setting]
    assert not agree(fingerprints.of("model", config, {}), fingerprints.of("model", {**config, setting: other}, {}))


def test_trying_out_leaves_nothing_behind():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    config = {"_target_": "tests.test_address.changes_everything", "_partial_": True}
    assert fingerprints.of("loss", config, {}) is None
    assert torch.get_default_dtype() == torch.float32
    assert torch.equal(torch.rand(3), expected)


def changes_everything(prediction, target):
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    raise AssertionError


changes_everything.about = About("x", "quantity", ("values",), None, "none", "H")


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ({"a": [1.0, 2.0]}, {"a": [1.0, 2.0 + 1e-6]}, True),
        ({"a": [1.0, 2.0]}, {"a": [1.0, 2.0 + 1e-5]}, False),
        ({"a": [1e6, 1e-17]}, {"a": [1e6, -1e-17]}, True),
        ({"a": [None, 1.0]}, {"a": [None, 1.0]}, True),
        ({"a": [None]}, {"a": [1.0]}, False),
        ({"a": [1.0]}, {"a": [1.0, 1.0]}, False),
        ({"a": [1.0]}, {"b": [1.0]}, False),
        ({"a": "x"}, {"a": "y"}, False),
        ({"a": "x"}, {"a": [1.0]}, False),
    ],
)
def test_fingerprints_agree_to_a_millionth(one, other, expected):
    assert agree(one, other) is agree(other, one) is expected


def test_planning_what_never_ran_does_not_import_torch(tmp_path):
    code = (
        "import sys; from pathlib import Path; from harness import behaviour, plan\n"
        "from harness.address import Addresses\n"
        "behaviour.MEASURED = Path(sys.argv[1])  # as if nothing were published\n"
        "study = plan.read_study('demo'); addresses = Addresses(Path('data'), Path(sys.argv[1]))\n"
        "print(len(plan.runs(plan.settings(study), study, addresses)), 'torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, capture_output=True, text=True, check=True)
    count, imported = found.stdout.split()
    assert int(count) > 10
    assert imported == "False"


def test_a_run_keeps_what_its_code_does(spec, job, tmp_path, monkeypatch):
    monkeypatch.setattr(behaviour, "MEASURED", tmp_path)  # as if nothing were published
    asked = spec("model=mlp")
    addresses = Addresses(tmp_path, tmp_path)
    key = addresses.keys(asked, [1])[0]
    given = {"key": key, "identity": addresses.identity(asked), "parts": addresses.parts(asked)}
    made = job(asked, **given, folder=str(records.run_folder(key, tmp_path)))
    assert check(made) is None
    assert carry_out(made, lambda: False, lambda *_: None)["status"] == "done"
    record = records.read(key, tmp_path)
    assert record is not None, records.damaged
    kept = {entry["component"]: entry for entry in record["behaviour"]}
    assert kept.keys() == {"loss", "model", "dataset", "task", "trainer"}
    assert {name for name, entry in kept.items() if "fingerprint" in entry} == {"loss", "model", "dataset"}
    assert {name: entry["identity"] for name, entry in kept.items()} == record["identity"]["code"]
    listed = list(journal.entries(tmp_path / behaviour.NAME))
    assert [entry["component"] for entry in listed] == ["loss", "model", "dataset"]


def test_files_that_change_between_plan_and_run_fail_it(table, job, tmp_path):
    asked, results = table_spec(), tmp_path / "results"
    addresses = Addresses(table.parent, results)
    key = addresses.keys(asked, [1])[0]
    data = {"root": str(table.parent), "download": False}
    folder = str(records.run_folder(key, results))
    made = job(
        asked, key=key, identity=addresses.identity(asked), parts=addresses.parts(asked), data=data, folder=folder
    )
    multiply_target(table, 2)
    assert "have changed since this run was planned" in carry_out(made, lambda: False, lambda *_: None)["error"]


def test_many_processes_add_to_a_journal(tmp_path):
    path = tmp_path / "journal.jsonl"
    code = (
        "import sys; from pathlib import Path; from harness import journal\n"
        "for i in range(200): journal.append(Path(sys.argv[1]), {'who': sys.argv[2], 'number': i, 'text': 'x' * 900})"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, path, str(who)], cwd=ROOT) for who in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    path.write_bytes(path.read_bytes()[:-100])  # the last one was cut short
    journal.append(path, {"who": "last"})
    found = list(journal.entries(path))
    assert len(found) == 600
    assert found[-1] == {"who": "last"}


# ---------------------------------------------------------------- comparing


def rows(contents, **more):
    count = len(contents)
    return pd.DataFrame(
        {"dataset": ["table"] * count, "config.dataset.path": ["a.csv"] * count, "identity.data": contents} | more
    )


def test_runs_on_different_content_are_not_compared():
    records.check_content("x", rows(["1", "1"]), rows([None, "1"]))
    records.check_content("x", rows(["1", "2"], **{"config.dataset.path": ["a.csv", "b.csv"]}))
    records.check_content("x", rows(["1", "2"], dataset=["table", "folder"]), pd.DataFrame({"key": ["k"]}))
    with pytest.raises(UsageError, match=r"x has runs on different content of the data set table \(1 and 2\)"):
        records.check_content("x", rows(["1", "2"]))
    with pytest.raises(UsageError, match="different content"):
        records.check_content("x", rows(["1"]), rows(["2"]))
    with pytest.raises(UsageError, match="different content"):
        records.check_content(
            "x", rows(["1"], **{"config.dataset.size": [300]}), rows(["2"], **{"config.dataset.size": [300.0]})
        )


def made_up(run, addresses, **changes):
    """Return the record of a run as the loop would leave it."""
    config = {name: value for name, value in run.setting.spec.content.items() if name not in ("device", "threads")}
    return {
        "key": run.key,
        "seed": run.seed,
        "status": "done",
        "config": config,
        "identity": addresses.identity(run.setting.spec),
        "env": {"device": "cpu", "threads": 1, "torch": "2.11"},
        "metrics": [{"key": "r2", "title": "R2", "low": None, "high": 1.0}],
        "test": {"r2": 0.5},
        "valid": {"r2": 0.4},
        **changes,
    }


@pytest.fixture
def planned(table, tmp_path):
    """Return a function that plans a study of two runs on the table as it is now."""
    study = Study(
        "small", "?", {"loss": ["mse"], "seed": [1, 2]}, baseline="mse", metric="test.r2",
        base={"task": "regression", "dataset": "table", "dataset.path": "mine.csv", "device": "cpu"},
        controls={"baseline_repeat": False, "negative_control": False},
    )  # fmt: skip

    def plan_in(results):
        addresses = Addresses(table.parent, results)
        runs = plan.runs(plan.settings(study), study, addresses)
        records.write_study(study, runs, results)
        return runs, addresses

    return plan_in


EPOCHS = pd.DataFrame({"epoch": [1], "train.loss": [1.0]})


def test_a_study_refuses_evidence_on_other_content(table, planned, tmp_path):
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    runs, addresses = planned(elsewhere)
    records.save(records.run_folder(runs[0].key, elsewhere), made_up(runs[0], addresses), EPOCHS)
    records.publish("small", elsewhere)
    shutil.copytree(elsewhere / "measured", here / "measured")
    runs, addresses = planned(here)
    records.save(records.run_folder(runs[1].key, here), made_up(runs[1], addresses), EPOCHS)
    assert set(records.load_study("small", here).runs["status"]) == {"done"}, "the same content"
    multiply_target(table, 1000)
    runs, addresses = planned(here)
    records.save(records.run_folder(runs[1].key, here), made_up(runs[1], addresses), EPOCHS)
    with pytest.raises(UsageError, match="small has runs on different content of the data set table"):
        records.load_study("small", here)
    mixed = records.load_study("small", here, mix=True).runs
    assert sorted(zip(mixed["source"], mixed["seed"], strict=True)) == [("local", 2), ("measured", 1)]
    records.save(records.run_folder(runs[0].key, here), made_up(runs[0], addresses), EPOCHS)
    assert set(records.load_study("small", here).runs["source"]) == {"local"}, "all was run again"


def test_published_behaviour_is_known_to_later_plans(planned, tmp_path):
    entry = {"component": "loss", "spec": "s", "tree": "t", "identity": "i", "fingerprint": {"a": [1.0]}}
    runs, addresses = planned(tmp_path)
    unseen = {"component": "task", "spec": "s", "tree": "t", "identity": "t"}
    for run in runs:
        records.save(records.run_folder(run.key, tmp_path), made_up(run, addresses, behaviour=[entry, unseen]), EPOCHS)
    for _ in range(2):
        records.publish("small", tmp_path)
    assert list(journal.entries(tmp_path / "measured" / behaviour.NAME)) == [entry]
    assert "behaviour" not in str(list(records.load_study("small", tmp_path).runs.columns))


# ---------------------------------------------------------------- records


def tampered(path, change):
    """Change a record as someone would who knows how it is sealed."""
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(store.sealed(record)))


def set_nested(*path_and_value):
    *path, last, value = path_and_value

    def change(record):
        for name in path:
            record = record[name]
        record[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (set_nested("key", "0" * 16), "it has the key 0000000000000000"),
        (set_nested("seed", 7), "belongs to another key"),
        (set_nested("seed", "1"), "its seed is 1"),
        (set_nested("seed", True), "its seed is True"),
        (set_nested("config", "optimizer", "lr", 9.0), "belongs to another key"),
        (set_nested("config", {}), "belongs to another key"),
        (set_nested("identity", "data", "0" * 16), "belongs to another key"),
        (set_nested("identity", "code", "loss", "0" * 16), "belongs to another key"),
        (set_nested("env", {}), "belongs to another key"),
        (set_nested("status", "excellent"), "its status is excellent"),
        (set_nested("test", "r2", 17), "test.r2 is 17, outside its range from None to 1.0"),
        (set_nested("valid", "r2", "good"), "valid.r2 is good"),
        (set_nested("shifted", {"noise": {"r2": 2.0}}), "shifted.noise.r2 is 2.0"),
    ],
)
def test_what_does_not_hold_together_is_not_believed(change, reason, planned, tmp_path):
    (run, other), addresses = planned(tmp_path)
    for each in (run, other):
        records.save(records.run_folder(each.key, tmp_path), made_up(each, addresses), EPOCHS)
    path = records.run_folder(run.key, tmp_path) / "record.json"
    records.damaged.clear()
    assert records.read(run.key, tmp_path) is not None, records.damaged
    tampered(path, change)
    assert list(records.load_study("small", tmp_path).runs["status"]) == ["missing", "done"]
    assert len(records.damaged) == 1
    assert reason in records.damaged[0]
    assert records.finished(tmp_path) == {other.key}
    assert path.with_name("record.json.damaged").exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace('"r2": 0.5', '"r2": 0.6'),
        lambda text: text.replace('"seed": 1', '"seed": 2'),
        lambda text: text[:-20],
        lambda text: "[]",
        lambda text: "null",
        lambda text: text.replace('"digest"', '"other"'),
        lambda text: "\x00" * 100,
        lambda text: "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
    ],
)
def test_a_record_edited_by_hand_or_cut_short_is_set_aside(damage, planned, tmp_path):
    (run, other), addresses = planned(tmp_path)
    for each in (run, other):
        records.save(records.run_folder(each.key, tmp_path), made_up(each, addresses), EPOCHS)
    path = records.run_folder(run.key, tmp_path) / "record.json"
    assert damage(path.read_text()) != path.read_text()
    path.write_text(damage(path.read_text()), encoding="latin-1")
    assert list(records.load_study("small", tmp_path).runs["status"]) == ["missing", "done"]
    assert records.finished(tmp_path) == {other.key}
    records.save(records.run_folder(run.key, tmp_path), made_up(run, addresses), EPOCHS)
    assert list(records.load_study("small", tmp_path).runs["status"]) == ["done", "done"]


def test_an_empty_record_is_no_finished_run(planned, tmp_path):
    (run, other), addresses = planned(tmp_path)
    records.save(records.run_folder(other.key, tmp_path), made_up(other, addresses), EPOCHS)
    folder = records.run_folder(run.key, tmp_path)
    folder.mkdir(parents=True)
    (folder / "record.json").touch()
    assert records.finished(tmp_path) == {other.key}
    assert list(records.load_study("small", tmp_path).runs["status"]) == ["missing", "done"]


def test_what_is_not_believed_is_not_merged(planned, tmp_path):
    (run, other), addresses = planned(tmp_path / "a")
    for each in (run, other):
        records.save(records.run_folder(each.key, tmp_path / "a"), made_up(each, addresses), EPOCHS)
    path = records.run_folder(run.key, tmp_path / "a") / "record.json"
    tampered(path, set_nested("test", "r2", 17))
    before = path.read_text()
    assert records.merge([tmp_path / "a"], tmp_path / "b") == {
        "copied": 1,
        "already here": 0,
        "studies": 1,
        "damaged": 1,
    }
    assert records.finished(tmp_path / "b") == {other.key}
    assert path.read_text() == before


def test_read_only_results_do_not_stop_a_report(planned, tmp_path, monkeypatch):
    (run, _), addresses = planned(tmp_path)
    records.save(records.run_folder(run.key, tmp_path), made_up(run, addresses, status="odd"), EPOCHS)

    def refused(path, target):
        raise PermissionError(30, "read-only file system", str(path))

    monkeypatch.setattr(Path, "rename", refused)
    assert records.read(run.key, tmp_path) is None


def test_a_write_that_fails_leaves_no_part(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    records.write_text(tmp_path / "a.txt", "old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        records.write_text(tmp_path / "a.txt", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_evidence_of_the_checkout_is_found_wherever_results_go(tmp_path):
    code = (
        "from harness import records; s = records.load_study('losses'); print(set(s.runs['source']), len(s.runs) > 100)"
    )
    environment = os.environ | {"LOSSBENCH_RESULTS": str(tmp_path / "elsewhere")}
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert found.stdout.strip() == "{'measured'} True", found.stderr


# ---------------------------------------------------------------- sweeps


def test_sweeps_of_one_study_have_names_of_their_own():
    plain, fewer, same = (plan.read_study("demo", o) for o in ([], ["axes.seed=[1]"], ["axes.seed=[1]"]))
    assert plain.name == "demo"
    assert fewer.name == same.name != plain.name
    assert fewer.name.startswith("demo-")
    assert plan.read_study("demo", ["axes.seed=[2]"]).name != fewer.name
    assert plan.read_study("demo", ["base.threads=2"]).name != plain.name, "threads move numbers"
    assert plan.read_study("demo", ["name=mine", "axes.seed=[1]"]).name == "mine"


@pytest.mark.parametrize("name", ["demo", "survey", "runs", "measured", "../x", "a/b", ".hidden", "''"])
def test_a_name_that_is_taken_or_no_folder_is_refused(name):
    with pytest.raises(UsageError, match="name="):
        plan.read_study("demo", [f"name={name}", "axes.seed=[1]"])


def test_what_moves_no_number_makes_no_other_sweep(cli):
    neutral = ["data.root=elsewhere", "engine.workers=1", "tracking.enabled=false", "feed=resident", "plan_only=true"]
    names = [
        cli("harness", "study=smoke", *more).stdout.partition(":")[0]
        for more in (neutral, ["plan_only=true", "threads=2"], ["plan_only=true", "margin=0.1"])
    ]
    assert names[0] == "smoke"
    assert len(set(names)) == 3


def test_a_sweep_never_replaces_the_list_of_another(tmp_path):
    axes = {"loss": ["cross_entropy"], "seed": [1]}
    first = Study("mine", "?", axes, controls={}, study="demo", overrides=["axes.seed=[1]"])
    records.write_study(first, [], tmp_path)
    records.write_study(first, [], tmp_path)
    listed = (tmp_path / "mine" / "study.json").read_text()
    for study, overrides in (("demo", ["axes.seed=[2]"]), ("survey", ["axes.seed=[1]"]), ("demo", [])):
        other = Study("mine", "?", axes, controls={}, study=study, overrides=overrides)
        with pytest.raises(UsageError, match=r"belongs to the sweep study=demo axes.seed=\[1\]: choose another"):
            records.write_study(other, [], tmp_path)
    assert (tmp_path / "mine" / "study.json").read_text() == listed
