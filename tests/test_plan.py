"""Planning: axes, rules, controls, keys; and the same keys as single runs."""

import itertools
import json
import re

import pytest

from harness import address, compose, plan, schema
from harness.address import Addresses
from harness.errors import UsageError
from harness.plan import Study
from tests.conftest import SCRATCH

ADDRESSES = Addresses(SCRATCH, SCRATCH)


def study(**fields):
    given = {
        "axes": {"model": ["cnn_micro", "mlp"], "loss": ["cross_entropy", "focal"], "seed": [1, 2]},
        "controls": {"baseline_repeat": False, "negative_control": None},
    }
    return Study(name="test", question="?", **(given | fields))


def planned(**fields):
    asked = study(**fields)
    return plan.runs(plan.settings(asked), asked, ADDRESSES)


def test_axes_are_crossed():
    found = {(r.setting.choices["model"], r.setting.choices["loss"], r.seed) for r in planned()}
    assert found == set(itertools.product(["cnn_micro", "mlp"], ["cross_entropy", "focal"], [1, 2]))
    assert len({run.key for run in planned()}) == 8


def test_setting_as_axis_is_part_of_the_label_only_if_it_is_the_losss():
    axes = {"loss": ["focal"], "loss.gamma": [1, 5], "trainer.epochs": [2, 3], "seed": [1]}
    runs = planned(axes=axes, baseline="focal gamma=1")
    assert {(r.setting.label, r.setting.axes["trainer.epochs"]) for r in runs} == set(
        itertools.product(["focal gamma=1", "focal gamma=5"], [2, 3])
    )
    assert {r.setting.spec.loss["gamma"] for r in runs} == {1, 5}


def test_include_adds_exclude_drops_recipes_set():
    runs = planned(
        include=[{"loss": "focal", "loss.gamma": 5.0}],
        exclude=[{"model": "mlp", "loss": ["focal"]}],
        recipes=[{"when": {"model": "mlp"}, "set": {"optimizer.lr": 0.25}}],
        base={"trainer.epochs": 7},
    )
    found = {(r.setting.choices["model"], r.setting.label) for r in runs}
    assert found == {
        ("cnn_micro", "cross_entropy"), ("cnn_micro", "focal"), ("mlp", "cross_entropy"),
        ("cnn_micro", "focal gamma=5.0"), ("mlp", "focal gamma=5.0"),
    }  # fmt: skip
    for run in runs:
        assert (run.setting.spec.optimizer["lr"] == 0.25) == (run.setting.choices["model"] == "mlp")
        assert run.setting.spec.trainer["epochs"] == 7


def test_controls_stand_beside_every_cell():
    runs = planned(controls={"baseline_repeat": True, "negative_control": "negative_control_blind"})
    by_role = {
        role: [r for r in runs if r.setting.role == role] for role in ("run", "baseline_repeat", "negative_control")
    }
    assert [len(found) for found in by_role.values()] == [8, 4, 4]
    assert {r.setting.label for r in by_role["baseline_repeat"]} == {"cross_entropy"}
    assert all(r.seed == r.pair_seed + 1000 for r in by_role["baseline_repeat"])
    assert {r.setting.choices["loss"] for r in by_role["negative_control"]} == {"negative_control_blind"}
    assert not {r.key for r in by_role["baseline_repeat"]} & {r.key for r in by_role["run"]}


def test_controls_are_there_unless_they_are_refused():
    roles = ("run", "baseline_repeat", "negative_control")

    def counts(task, baseline, controls):
        base = {"task": task}
        runs = planned(axes={"loss": [baseline], "seed": [1]}, base=base, baseline=baseline, controls=controls)
        assert len({r.setting.choices["loss"] for r in runs if r.setting.role == "negative_control"}) <= 1
        return [sum(r.setting.role == role for r in runs) for role in roles], runs[-1].setting.choices["loss"]

    assert counts("classification", "focal", {}) == ([1, 1, 1], "negative_control_worse")
    assert counts("segmentation", "dice", {}) == ([1, 1, 1], "negative_control_blind")
    assert counts("regression", "mae", {})[1] == "negative_control_high"
    assert counts("regression", "mae", {"negative_control": "mse"})[1] == "mse"
    assert counts("classification", "focal", {"baseline_repeat": False})[0] == [1, 0, 1]
    assert counts("classification", "focal", {"negative_control": False})[0] == [1, 1, 0]


def test_a_sweep_is_named_after_its_study_and_what_was_asked_otherwise():
    asked = ["margin=0.01", "axes.seed=[1,2]"]
    assert plan.read_study("demo").name == "demo"
    assert plan.read_study("demo", asked).name == plan.read_study("demo", asked[::-1]).name
    assert re.fullmatch(r"demo-[0-9a-f]{6}", plan.read_study("demo", asked).name)
    assert plan.read_study("demo", asked).name != plan.read_study("demo", asked[:1]).name
    own = plan.read_study("demo", [*asked, "name=mine"])
    assert (own.name, own.study, own.overrides) == ("mine", "demo", [*asked, "name=mine"])


# ---------------------------------------------------------------------- several losses, one for each role


def test_a_loss_of_a_role_is_chosen_by_name(two_roles):
    composed = compose.compose_run(["task=two_roles", "loss.boxes=diou", "loss.classes=focal", "loss.classes.gamma=3"])
    losses = composed.config["loss"]
    assert losses["boxes"] == compose.option("loss", "diou")
    assert losses["classes"] == {**compose.option("loss", "focal"), "gamma": 3}
    choices = composed.choices
    assert (choices["loss"], choices["loss.boxes"], choices["loss.classes"]) == ("diou + focal", "diou", "focal")
    base = compose.compose_run(["task=two_roles"])
    swapped = compose.swapped(base, {"loss.classes.gamma": 3, "loss.boxes": "diou", "loss.classes": "focal"})
    assert swapped == composed
    spec = address.spec_of(compose.compose_run(["task=two_roles", "loss.classes=center_cross_entropy"]).config)
    assert spec.loss["classes"]["parts"].keys() == {"cross_entropy", "center"}, "the terms of sums are written out"


def test_roles_are_axes_and_have_a_negative_control(two_roles):
    fields = {"base": {"task": "two_roles"}, "controls": {}}
    runs = planned(axes={"loss.boxes": ["giou", "diou"], "seed": [1]}, baseline="giou", **fields)
    found = {(r.setting.label, r.setting.role): r.setting for r in runs}
    assert set(found) == {
        ("giou", "run"), ("diou", "run"), ("giou", "baseline_repeat"), ("negative_control_high", "negative_control"),
    }  # fmt: skip
    assert {setting.choices["loss.classes"] for setting in found.values()} == {"cross_entropy"}
    assert len({setting.cell for setting in found.values()}) == 1
    axes = {"loss.boxes": ["giou"], "loss.classes": ["focal"], "loss.classes.gamma": [1, 2], "seed": [1]}
    labels = {
        r.setting.label for r in planned(axes=axes, baseline="boxes=giou, classes=focal classes.gamma=1", **fields)
    }
    assert labels >= {f"boxes=giou, classes=focal classes.gamma={gamma}" for gamma in (1, 2)}


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        ({"loss": ["focal"]}, "the task two_roles has several losses: set loss.boxes and loss.classes, not loss."),
        ({"loss.boxes": ["gio"]}, "unknown loss 'gio': did you mean giou"),
        ({"loss.boxes": ["giou"], "loss.boxes.x": [1]}, "unknown setting 'loss.boxes.x'"),
    ],
)
def test_what_fits_no_role_gets_a_sentence(two_roles, axes, said):
    with pytest.raises(UsageError, match=said):
        planned(axes={**axes, "seed": [1]}, base={"task": "two_roles"}, baseline="giou")


# ---------------------------------------------------------------------- what was chosen, wrong names, overrides


def test_runs_are_at_what_was_chosen_for_their_loss():
    asked = study(controls={"baseline_repeat": True, "negative_control": None})
    settings = plan.settings(asked)
    chosen = {setting.contender: {"optimizer.lr": 0.123} for setting in settings}
    focal = next(setting for setting in settings if setting.label == "focal")
    chosen[focal.contender]["loss.gamma"] = 0.5
    runs = plan.runs(settings, asked, ADDRESSES, chosen)
    assert {r.setting.spec.optimizer["lr"] for r in runs} == {0.123}
    assert [r.setting.spec.loss["gamma"] for r in runs if r.setting.contender == focal.contender] == [0.5, 0.5]
    assert {r.setting.label for r in runs} == {"cross_entropy", "focal"}


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        ({"loss": ["fcal"], "seed": [1]}, "unknown loss 'fcal': did you mean focal"),
        ({"loss": ["cross_entropy"], "seed": [1], "loss.gama": [1]}, "unknown setting 'loss.gama'"),
        ({"loss": ["focal"], "seed": [1]}, "baseline=cross_entropy is not among the losses"),
        (
            {"loss": ["cross_entropy"], "seed": [1], "dataset": ["digit"]},
            "unknown data set 'digit': did you mean digits",
        ),
    ],
)
def test_wrong_names_get_a_sentence(axes, said):
    with pytest.raises(UsageError, match=said.replace("(", r"\(")):
        planned(axes=axes)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("axes.seed=[]", r"axes.seed=\[\]: use a list of values, at least one"),
        ("axes.seed=3", "axes.seed=3: use a list"),
        ("axes.seed=[1000]", "use a list of different whole numbers from 0 to 999"),
        ("track=tund", "unknown track 'tund': "),
        ("basline=focal", "did you mean baseline"),
        ("search.seeds=[1]", "share a seed"),
        ("search.seeds=[1002]", "share a seed"),
        ("search.seeds=[7001,8001]", r"contains a seed and that seed \+ 1000, on which the control is searched"),
        ("search.seeds=[998]", r"search.seeds \(up to search.most_seeds\) and axes.seed share a seed"),
        ("search.most_seeds=0", "search.most_seeds=0: use a whole number, at least 1 and below 1000"),
        ("search.most=-1", "search.most=-1: use a whole number from 0 on"),
        ("search.most=1", "search.most is for track=lr and track=tuned, but the track of this study is fixed"),
        ("max_seeds=24", "max_seeds=24 is for until=decided: add that"),
        ("until=done", "unknown until 'done'"),
        ("until=decided", r"needs max_seeds, at least as many as the seeds given \(2\), but it is null"),
        ("search.seeds=[]", r"search.seeds=\[\]: use a list of whole numbers from 1 on"),
        ("search.seeds=[1.5]", "use a list of whole numbers"),
        ("search.factors=[0,1]", r"search.factors=\[0,1\]: use a list of numbers above 0"),
        ("search.trials=0", "search.trials=0: use a whole number from 1 on"),
        ("search.trials=2.5", "search.trials=2.5: use a whole number"),
        ("search.range=[2,4]", r"search.range=\[2, 4\] is not \[low,high\] with 1 between"),
        ("search.range=[0.1]", "use a list of 2 numbers above 0"),
        ("search.trails=5", "unknown setting 'search.trails': did you mean search.trials"),
        ("search=5", "search=5: use a mapping"),
        ("search.trials=5", "search.trials is for track=tuned, but the track of this study is fixed"),
        ("axes.loss=[focal", "cannot read"),
    ],
)
def test_wrong_study_fields_get_a_sentence(override, said):
    with pytest.raises(UsageError, match=said):
        plan.read_study("smoke", [override])


@pytest.mark.parametrize("most", ["1", "2.5", "1001", "[3]"])
def test_fewer_seeds_than_are_given_cannot_be_the_most(most):
    with pytest.raises(UsageError, match="max_seeds"):
        plan.read_study("smoke", ["until=decided", f"max_seeds={most}"])


def test_seeds_that_may_be_added_follow_the_given_ones():
    asked = plan.read_study("smoke", ["until=decided", "max_seeds=6", "axes.seed=[1,5,3]"])
    assert asked.further_seeds == [6, 7, 8]
    assert asked.on([4]).seeds == [4]
    assert plan.read_study("smoke").further_seeds == []
    late = plan.read_study("smoke", ["until=decided", "max_seeds=6", "axes.seed=[998,2]"])
    assert late.further_seeds == [999, 0, 1, 3], "a baseline's other seeds begin at 1000"
    with pytest.raises(UsageError, match="share a seed"):
        plan.read_study("smoke", ["until=decided", "max_seeds=12", "search.seeds=[9]"])


def test_the_repeated_baseline_is_a_contender_of_its_own():
    asked = study(controls={"baseline_repeat": True, "negative_control": None})
    found = {s.contender: s.role for s in plan.settings(asked)}
    assert sorted(found.values()).count("baseline_repeat") == 2
    assert len(found) == 2 * 3


def test_a_search_is_told_from_another_tracks():
    tuned = plan.read_study("smoke", ["track=tuned", "search.trials=5"])
    given = {"trials": 5, "range": [0.1, 10.0], "most": 3, "seeds": [7001, 7002, 7003], "most_seeds": 8}
    assert tuned.search == {"factors": [0.3, 1.0, 3.0]} | given
    assert plan.read_study("smoke", ["search.factors=[1,2]", "track=lr"]).search["factors"] == [1, 2]
    with pytest.raises(UsageError, match=r"search\.factors is for track=lr, but the track of this study is tuned"):
        plan.read_study("smoke", ["track=tuned", "search.factors=[1,2]"])


def test_a_file_may_hold_the_searches_of_both_tracks(monkeypatch):
    real = plan.compose.loaded
    monkeypatch.setattr(
        plan.compose, "loaded", lambda path: real(path) | {"search": {"factors": [0.5, 2], "trials": 4}}
    )
    assert plan.read_study("smoke", ["track=tuned"]).search["factors"] == [0.5, 2]
    assert plan.read_study("smoke", ["track=lr"]).search["trials"] == 4


def test_a_study_can_build_on_another(two_roles):
    file = two_roles / "study" / "later.yaml"
    file.write_text("defaults: [smoke, _self_]\nbase: {stress: few}\naxes: {loss: [focal], stress.share: [0.1, 1]}\n")
    smoke, later = plan.read_study("smoke"), plan.read_study("later")
    assert (later.name, later.question, later.seeds) == ("later", smoke.question, smoke.seeds)
    assert later.base == {**smoke.base, "stress": "few"}
    assert later.axes == {**smoke.axes, "loss": ["focal"], "stress.share": [0.1, 1]}
    file.write_text("defaults: [smok, _self_]\n")
    with pytest.raises(UsageError, match=r"unknown study 'smok': did you mean smoke"):
        plan.read_study("later")
    file.write_text("defaults: [smoke]\nbaseline: focal\n")
    with pytest.raises(UsageError, match=r"later would be overruled by .*: write defaults: \[smoke, _self_\]\."):
        plan.read_study("later")


def test_overrides_reach_study_and_runs():
    asked = plan.read_study(
        "smoke", ["axes.loss=[cross_entropy,ngl]", "axes.seed=[4]", "base.trainer.epochs=5", "margin=0.01"]
    )
    assert asked.margin == 0.01
    runs = plan.runs(plan.settings(asked), asked, ADDRESSES)
    assert {r.setting.choices["loss"] for r in runs if r.setting.role == "run"} == {"cross_entropy", "ngl"}
    assert {r.setting.spec.trainer["epochs"] for r in runs} == {5}


OVERRIDES = [
    ["loss=focal", "model=mlp", "seed=2"],
    ["loss=center_cross_entropy", "loss.terms.center=0.1", "optimizer=sgd", "seed=3"],
    ["trainer.epochs=3", "optimizer.lr=0.001", "dataset.train_size=500"],
]


@pytest.mark.parametrize("overrides", OVERRIDES)
def test_a_study_and_a_single_run_agree_on_the_key(overrides):
    single = compose.compose_run(overrides)
    key = ADDRESSES.keys(address.spec_of(single.config), [single.config["seed"]])[0]
    values = dict(plan.parsed(entry) for entry in overrides)
    axes = {"loss": [values.pop("loss", "cross_entropy")], "seed": [values.pop("seed", 1)]}
    axes |= {name: [value] for name, value in values.items()}
    label = axes["loss"][0] + "".join(
        f" {k.removeprefix('loss.')}={v[0]}" for k, v in axes.items() if k.startswith("loss.")
    )
    assert [run.key for run in planned(axes=axes, baseline=label)] == [key]


def test_key_is_content_not_spelling(spec):
    def key(*overrides):
        return ADDRESSES.keys(spec(*overrides), [1])[0]

    assert key() == key("optimizer.lr=5.0e-3") == key("data.root=elsewhere", "engine.workers=1")
    assert key("loss=focal", "loss.gamma=2") == key("loss=focal", "loss.gamma=2.0")
    assert len({key(), key("threads=2"), key("optimizer.lr=0.004"), key("loss=focal"), key("trainer=long")}) == 5


def test_a_sum_is_described_by_the_content_of_its_terms(spec, monkeypatch):
    before = spec("loss=center_cross_entropy")
    assert before.loss["parts"]["center"]["_target_"].endswith("Center")
    real = compose.option
    monkeypatch.setattr(compose, "option", lambda g, n: real(g, n) | ({"alpha": 0.123} if n == "center" else {}))
    assert ADDRESSES.keys(spec("loss=center_cross_entropy"), [1]) != ADDRESSES.keys(before, [1])


@pytest.mark.parametrize("group", compose.GROUPS)
def test_every_option_composes(group):
    for name in compose.options(group):
        if compose.option(group, name).get("_target_") == schema.MISSING:  # the user names it
            continue
        assert compose.option(group, name) == compose.compose_run([f"{group}={name}"]).config[group]


def test_every_study_plans():
    for name in compose.options("study"):
        asked = plan.read_study(name)
        assert asked.question.endswith("?") or asked.question.endswith(".")
        settings = plan.settings(asked)
        assert plan.runs(settings, asked, ADDRESSES)
        json.dumps(plan.as_dict(asked))


def test_seeds_come_in_blocks_so_that_a_stopped_sweep_is_balanced():
    runs = planned(
        axes={"loss": ["cross_entropy", "focal"], "seed": [3, 1, 2]},
        controls={"baseline_repeat": True, "negative_control": None},
    )
    assert [run.pair_seed for run in runs] == [3, 3, 3, 1, 1, 1, 2, 2, 2]


def test_exclude_can_drop_seeds_of_a_cell_controls_included():
    runs = planned(
        exclude=[{"model": "mlp", "seed": [2]}], controls={"baseline_repeat": True, "negative_control": None}
    )
    assert {(r.setting.choices["model"], r.pair_seed) for r in runs} == {("cnn_micro", 1), ("cnn_micro", 2), ("mlp", 1)}


def test_models_of_a_library_are_called_by_their_name():
    axes = {"model": ["timm"], "model.name": ["resnet18", "resnet34"], "loss": ["cross_entropy"], "seed": [1, 2]}
    runs = planned(axes=axes, exclude=[{"model": "timm", "model.name": "resnet34", "seed": 2}])
    found = [(run.setting.choices["model"], run.seed) for run in runs]
    assert found == [("resnet18 (timm)", 1), ("resnet34 (timm)", 1), ("resnet18 (timm)", 2)]
