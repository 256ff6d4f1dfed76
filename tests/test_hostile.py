"""A study whose records were made to harm whoever reads its report: nothing of it acts in any output."""

import csv
import io
import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from harness import records, report
from harness.analysis.cells import Analysis
from harness.report import writing
from harness.report.sections import reproduce
from harness.text import UNSEEN
from harness.tracking import runs as tracked
from tests import synthetic

ESCAPE, BIDI = "\x1b]0;owned\x07\x1b[2J", "\u202elacof\u202c"
LABELS = {
    "focal": f"=cmd|'/C calc'!A0 {ESCAPE}",
    "ngl": f"@SUM(A1) $\\frac{{1}}{{0$ {BIDI}",
    "hinge_ww": "+1 <script>alert(1)</script> `x` ```\n# head [l](javascript:x) &#x202e; "
    "${7*7} {{7*7}} \\input{/etc/passwd}",
}  # fmt: skip
COMMITS = ["0a1b2c3; rm -rf ~", "$(touch x)", "--orphan", "0a1b2c3\nrm x", "HEAD", "../..", "zzzzzzz"]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    made = synthetic.study((1, 2, 3), ("cross_entropy", *LABELS), ("cnn_micro",), mishaps=False, track="fixed")
    runs = made.runs.assign(label=made.runs["label"].replace(LABELS), **{"env.commit": COMMITS[0]})
    spec = made.spec | {"question": f"Which? {ESCAPE}{BIDI} \ud800", "overrides": ["axes.seed=[1]", "x=$(id)`id`;id"]}
    runs["loss_name"] = runs["loss_name"] + ESCAPE
    folder = tmp_path_factory.mktemp("hostile")
    records.publish_tables(replace(made, runs=runs, spec=spec), folder)
    return records.load_published(folder / "made_up.csv")


@pytest.fixture(scope="module")
def written(study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    writing.write(study, folder)
    return folder


def test_nothing_unseen_reaches_any_output(study, written):
    files = [path for path in written.rglob("*") if path.suffix in (".html", ".md", ".tex", ".csv", ".svg")]
    assert len(files) > 10
    for text in (report.summary(study), *(path.read_text() for path in files)):
        assert not UNSEEN.findall(text.replace("\n", "").replace("\t", ""))
    assert any("\\x1b]0;owned" in path.read_text() for path in files)


def test_no_cell_is_a_formula(written):
    for path in written.glob("tables/*.csv"):
        for row in csv.reader(io.StringIO(path.read_text(), newline="")):
            for cell in row:
                assert not cell.startswith(("=", "@")), path
                if cell.startswith(("+", "-")):
                    float(cell)


def test_a_dollar_is_a_dollar_in_figures(written):
    drawn = [ET.parse(path) for path in written.glob("figures/*.svg")]
    assert drawn
    assert any("$\\frac{1}{0$" in "".join(tree.getroot().itertext()) for tree in drawn)


def test_markup_of_labels_is_text(written):
    page = (written / "index.html").read_text()
    assert "<script>alert" not in page
    assert "{{7*7}}" in page
    document = "".join(path.read_text() for path in [written / "report.tex", *written.glob("tables/*.tex")])
    assert "\\input{/etc" not in document
    assert not re.search(r"(?<!\\)\$\\frac", document)
    markdown = (written / "report.md").read_text()
    assert not re.search(r"(?<!\\)<script|(?<!\\)\[l\]|(?<!\\)&#x202e", markdown)


@pytest.mark.parametrize("commit", COMMITS)
def test_what_is_to_be_pasted_is_a_commit_or_nothing(commit, study):
    runs = study.runs.assign(**{"env.commit": commit})
    section = reproduce.section(Analysis(replace(study, runs=runs)))
    assert "git checkout" not in section.items[1].text
    good = reproduce.section(Analysis(replace(study, runs=runs.assign(**{"env.commit": "0a1b2c3d4e5f"}))))
    assert good.items[1].text.startswith("git checkout 0a1b2c3d4e5f\n")


def test_commands_are_quoted(study):
    section = reproduce.section(Analysis(replace(study, name="made up; id")))
    lines = section.items[1].text.splitlines()
    assert "'x=$(id)`id`;id'" in lines[0]
    assert lines[1] == "python -m harness.report build 'made up; id'"


def test_tags_of_mlflow_are_visible(study):
    rows = study.runs.to_dict("records")
    for group in tracked.groups(rows).values():
        assert not UNSEEN.findall(json.dumps([tracked._params(row) | {"title": tracked._title(row)} for row in group],
                                             ensure_ascii=False))  # fmt: skip
