"""README and docs: links lead to something, and every command that they show would be accepted."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import yaml

from harness import choose, compose, plan

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "results" / "README.md"])


def without_code(page):
    return re.sub(r"^```.*?^```$|`[^`\n]*`", "", page.read_text(), flags=re.M | re.S)


def anchors(page):
    """The anchors that a forge gives to the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_something(page):
    for link in re.findall(r"\]\(([^)]+)\)", without_code(page)):
        if link.startswith(("http:", "https:")):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def commands():
    """Every command line of Python that a page shows, without its comment, or that stands for a part of a publication;
    CONTRIBUTING's are carried out elsewhere.
    """
    for page in PAGES:
        if page.name != "CONTRIBUTING.md":
            for block in re.findall(r"^```sh\n(.*?)^```$", page.read_text(), flags=re.M | re.S):
                lines = block.replace("\\\n", " ").splitlines()
                yield from (shlex.split(line, comments=True)[2:] for line in lines if line.startswith("python -m "))
    for paper in sorted((ROOT / "conf" / "papers").glob("*.yaml")):
        parts = yaml.safe_load(paper.read_text())["parts"]
        yield from (shlex.split(part["run"])[2:] for part in parts if "run" in part)


COMMANDS = list(commands())


def test_modules_of_commands_exist():
    assert len(COMMANDS) > 20
    for module, *_ in COMMANDS:
        assert importlib.util.find_spec(module), module


RACES = [rest for module, *rest in COMMANDS if rest[:1] == ["choose"]]
STUDIES = [rest for module, *rest in COMMANDS if module == "harness" and rest not in RACES]


@pytest.mark.parametrize("given", RACES, ids=" ".join)
def test_races_that_are_shown_would_be_accepted(given, monkeypatch):
    """Data of the user's own are not there: they are taken to be digits, the table of diabetes, or made scenes."""
    own = [word for word in given[1:] if word.startswith("data=")]
    instead = ["dataset=diabetes", "task=regression"] if "csv" in str(own) else ["dataset=digits"]
    if own and any(word.startswith("losses.boxes=") for word in given):
        instead = ["task=detection", *(f"dataset.{part}_size=8" for part in ("train", "valid", "test"))]
    rest = [word for word in given[1:] if word not in own and not word.startswith("dataset=")]
    monkeypatch.setattr(choose, "_distinct", lambda names: (list(names), {}))  # what it finds is test_race's matter
    axes = choose.read([*instead, *rest]).study.axes
    assert len(next(axis for name, axis in axes.items() if name.startswith("loss"))) > 1


@pytest.mark.parametrize("given", STUDIES, ids=" ".join)
def test_studies_that_are_shown_can_be_planned(given):
    of_run = [word for word in given if word.startswith(("data.", "device=", "threads=", "engine", "reuse="))]
    asked = [word for word in given if word not in of_run and not word.startswith(("study=", "plan_only="))]
    (name,) = (word.removeprefix("study=") for word in given if word.startswith("study="))
    compose.compose_run(of_run)
    assert next(iter(plan.settings(plan.read_study(name, asked))))


@pytest.mark.parametrize("given", [rest for module, *rest in COMMANDS if module == "harness.run"], ids=" ".join)
def test_runs_that_are_shown_can_be_composed(given, module):
    text = (ROOT / "docs" / "models.md").read_text()
    (own,) = re.findall(r"^```python\n# my_models\.py\n(.*?)^```$", text, flags=re.M | re.S)
    module("my_models", own)
    one = [re.sub(r"^(\w+)=([^\[,]+),.*", r"\1=\2", word) for word in given if word != "-m"]
    assert compose.compose_run(one).config["loss"]
