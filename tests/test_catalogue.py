"""The catalogue knows every loss, and what it says of the documents leads to losses that exist."""

import csv
import io
import math
import re
from typing import ClassVar

import pytest

from harness import compose
from harness.catalogue import curves, entries, page
from harness.catalogue.__main__ import main
from harness.tasks import Task

NAMES = compose.options("loss")


@pytest.fixture(scope="module")
def found():
    return {entry.id: entry for entry in entries.entries()}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return page.write(tmp_path_factory.mktemp("catalogue") / "catalogue.html")


def test_the_table_has_every_loss_and_its_settings(capsys):
    assert main(["--csv"]) == 0
    rows = {row["loss"]: row for row in csv.DictReader(io.StringIO(capsys.readouterr().out))}
    assert sorted(rows) == NAMES
    assert rows["focal"]["settings"] == "gamma=2.0, alpha=None"
    assert rows["focal"]["documents"].startswith("survey 4.2.7, review table 2")


@pytest.mark.parametrize("listed", ["methods", "taxonomy"])
def test_losses_that_the_documents_name_exist(listed):
    named = set(getattr(entries, listed)()["loss"].dropna())
    assert len(named) > 30
    assert named <= set(NAMES)


def test_every_section_of_the_survey_has_its_loss():
    assert not entries.taxonomy()["losses"].isna().any()


@pytest.mark.parametrize("name", NAMES)
def test_a_drawn_slope_is_the_derivative_of_the_drawn_value(name):
    drawn = curves.sampled(entries.build(name))
    if drawn is None or entries.build(name).about.detached:
        return
    _, xs, values, slopes = drawn
    assert all(map(math.isfinite, values))
    step = xs[1] - xs[0]
    differences = [(after - before) / (2 * step) for before, after in zip(values, values[2:], strict=False)]
    scale = max(1.0, *map(abs, slopes))
    errors = sorted(abs(a - b) / scale for a, b in zip(differences, slopes[1:-1], strict=True))
    # apart from kinks and jumps, where the difference straddles two slopes
    assert errors[int(0.8 * len(errors))] < 0.05


def test_most_losses_of_classifiers_have_a_drawing(found):
    classes = [name for name, entry in found.items() if entry.about.kinds == ("class_logits",)]
    assert all(curves.line_of(entries.build(name)) for name in classes)


def test_losses_are_listed_with_the_tasks_that_can_train_them(found):
    tasks = {name: set(entry.tasks) for name, entry in found.items()}
    dense = {"segmentation", "segmentation_windows"}
    assert tasks["cross_entropy"] >= {"classification", *dense}
    for name in ("arcface", "center_cross_entropy"):  # a head, and a sum with what is evaluated
        assert "classification" in tasks[name]
        assert not tasks[name] & dense
    assert "classification" not in tasks["center"]  # features alone are not evaluated
    assert "localisation" in tasks["giou"]
    assert tasks["mse"] >= {"localisation", "regression"}
    assert not tasks["gini"]  # no objective


class Paired(Task):
    """A task whose losses have roles."""

    offers = frozenset({"features", "class_logits"})
    evaluates = frozenset({"class_logits"})
    roles: ClassVar = {"model": ("scores", "features")}


def test_a_role_can_have_any_loss_whose_kind_is_offered():
    assert entries.trains(entries.build("center"), Paired)
    assert not entries.trains(entries.build("giou"), Paired)


def test_formulas_can_be_set(found):
    for entry in found.values():
        if entry.formula:
            page.formula(entry.formula)


def test_the_guide_says_when_to_use_which_loss_and_when_not(found):
    assert set(entries.guide()) <= set(NAMES)
    ours = [entry for name, entry in found.items() if name in entries.guide()]
    assert len(ours) > 150
    for entry in ours:
        assert entry.use.endswith("."), entry.id
        assert entry.avoid.endswith("."), entry.id
        assert entry.formula or "terms" in entry.settings, entry.id


def test_the_page_shows_every_loss_and_needs_no_network(written):
    text = written.read_text()
    for name in NAMES:
        assert f'<article id="{name}" class="loss">' in text
    assert not re.findall(r"""(?:src|href)=["'](?!#)""", text)


def test_search_in_a_browser(written, browser):
    tab = browser.new_page(viewport={"width": 390, "height": 800})
    trouble = []
    tab.on("pageerror", lambda error: trouble.append(error))
    tab.goto(written.as_uri())
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    tab.fill("#find", "1708.02002")
    shown = tab.locator("article:visible").evaluate_all("cards => cards.map(card => card.id)")
    assert "focal" in shown
    assert "cross_entropy" not in shown
    tab.fill("#find", "no such loss anywhere")
    assert tab.locator("article:visible").count() == 0
    assert tab.locator("#none").is_visible()
    tab.fill("#find", "")
    assert tab.locator("article.loss:visible").count() == len(NAMES)
    assert tab.locator("article.task:visible").count() > 0
    assert not trouble
    tab.close()
