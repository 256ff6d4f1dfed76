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
            schema.check_group(group, name, content, content)
    for name in compose.options("study"):
        schema.check_study(name, compose.loaded(plan.CONF / "study" / f"{name}.yaml"))


def test_the_page_of_settings_is_fresh():
    assert settings.page() == settings.PAGE.read_text(), "python -m scripts.settings"


def test_editors_get_a_schema_of_every_file(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "PAGE", tmp_path / "settings.md")
    assert settings.main([str(tmp_path)]) == 0
    made = json.loads((tmp_path / "trainer_short.json").read_text())
    assert made["properties"]["schedule"]["enum"] == ["cosine", "constant", "plateau"]
    assert json.loads((tmp_path / "study.json").read_text())["required"] == ["question", "axes"]


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
