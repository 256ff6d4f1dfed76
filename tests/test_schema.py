"""The schema of settings: what it refuses, in which words, and that conf/ and docs/ agree with it."""

import json

import pytest

from harness import compose, plan, schema
from harness.errors import UsageError
from scripts import settings


def test_every_option_and_study_of_conf_is_allowed():
    for group in (*settings.SHOWN, "loss"):
        for name in compose.options(group):
            content = compose.option(group, name)
            content = content[name] if group == "shift" else content
            if content.get("_target_") == schema.MISSING:  # the user names it
                continue
            schema.check_group(group, name, content, content)
    for name in compose.options("study"):
        schema.check_study(name, compose.read_option("study", name))


def test_the_page_of_settings_is_fresh():
    assert settings.page() == settings.PAGE.read_text(), "python -m scripts.settings"


def test_editors_get_a_schema_of_every_file(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "PAGE", tmp_path / "settings.md")
    assert settings.main([str(tmp_path)]) == 0
    made = json.loads((tmp_path / "trainer_short.json").read_text())
    assert made["properties"]["schedule"]["enum"] == ["cosine", "constant", "plateau"]
    assert "defaults" in made["properties"]
    study = json.loads((tmp_path / "study.json").read_text())
    assert study["anyOf"] == [{"required": ["defaults"]}, {"required": ["question", "axes"]}]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"warmup": True}, "trainer.warmup=true: use a number from 0 to 1."),
        ({"clip_norm": -1}, "trainer.clip_norm=-1: use a number above 0, or null."),
        ({"precision": ""}, "unknown trainer.precision '\"\"': choose one of bf16, fp32, null."),
        ({"epoch": 3}, "unknown setting 'trainer.epoch': did you mean trainer.epochs"),
    ],
)
def test_the_sentence_has_the_value_and_what_is_allowed(given, sentence):
    default = compose.option("trainer", "short")
    with pytest.raises(UsageError) as caught:
        schema.check_group("trainer", "short", default | given, default)
    assert str(caught.value).startswith(sentence)


def test_a_setting_without_effect_is_refused_where_it_has_none_in_any_run():
    with pytest.raises(UsageError, match=r"trainer\.patience has no effect here: it is for trainer\.schedule=plateau"):
        plan.settings(plan.read_study("smoke", ["base.trainer.patience=3"]))
    plan.settings(plan.read_study("smoke", ["base.trainer.patience=3", "axes.trainer.schedule=[cosine,plateau]"]))
    asked = {"loss": {"critic": {}, "penalty": {}}, "task": {"weights": {"penalty": 0}}}
    assert schema.without_effect(asked, ["loss.penalty", "loss.critic.x"]) == {
        "loss.penalty": "task.weights.penalty above 0"
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: &a [1, 2]\n" + "".join(f"k{i}: *a\n" for i in range(11)), "holds more than any config needs"),
        ("a: " + "[" * 13 + "]" * 13, "holds more than any config needs"),
        ("a: [1, 2", "cannot be read as YAML"),
        ("- 1", "holds no settings"),
        ("a: ${nosuch:1}", "cannot be read as YAML"),
    ],
)
def test_a_file_that_explodes_or_is_no_yaml_is_refused(text, words, tmp_path):
    path = tmp_path / "file.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=words):
        compose.loaded(path)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["loss=ghm_c", "loss.bins=2.5"], "loss.bins=2.5: use a whole number."),
        (["loss=focal", "loss.alpha=half"], "loss.alpha=half: use a number, or null."),
        (["loss=mv_softmax", "loss.kind=ar"], "unknown loss.kind 'ar': did you mean arc?"),
        (["loss=bce_ovr", "loss.over_classes=som"], "unknown loss.over_classes 'som': did you mean sum?"),
        (["loss=class_balanced", "loss.counts=[1,x]"], "loss.counts=[1,x]: use a list of numbers"),
        (["loss=focal", "loss._target_=losses.nothing"], "loss._target_=losses.nothing: nothing of that name"),
        (["~trainer.epochs"], "trainer.epochs is missing: give it a whole number from 1 on."),
    ],
)
def test_settings_of_losses_take_their_type_from_the_signature_and_none_may_be_missing(overrides, sentence):
    with pytest.raises(UsageError) as caught:
        compose.compose_run(overrides)
    assert str(caught.value).startswith(sentence)


def test_what_a_signature_allows_passes():
    compose.compose_run(["loss=wasserstein", "loss.cost=[[0,1],[1,0]]"])
    compose.compose_run(["loss=class_balanced", "loss.counts=[3,2.5]"])
    compose.compose_run(["+dataset.augment.foreground=0.5", "task=segmentation"])


def test_every_value_of_a_multirun_is_looked_at_before_the_first_run():
    found = list(compose.alternatives(["loss=focal,ngl", "seed=1,2,3", "device=cpu"]))
    assert found == [
        ["loss=focal", "seed=1", "device=cpu"],
        ["loss=ngl", "seed=2", "device=cpu"],
        ["loss=ngl", "seed=3", "device=cpu"],
    ]


@pytest.mark.parametrize("overrides", [["optimizer.lr=0.1"], ["trainer.precision=fp32"]])
def test_a_model_s_own_setting_that_is_overruled_is_named(overrides):
    path = "model." + overrides[0].partition("=")[0].partition(".")[2]
    assert path in schema.without_effect(compose.compose_run(overrides).config, [path])
    assert not schema.without_effect(compose.compose_run().config, [path])


def test_an_option_of_ones_own_that_would_not_be_used_is_refused(tmp_path, monkeypatch):
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "demo.yaml").write_text("question: mine\n")
    monkeypatch.setattr(compose, "OWN_CONF", tmp_path)
    with pytest.raises(UsageError, match=r"demo is a study of lossbench's, so .*demo\.yaml is not used"):
        compose.file_of("study", "demo")
    assert compose.file_of("study", "smoke").name == "smoke.yaml"
