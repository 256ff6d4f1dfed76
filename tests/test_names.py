"""Losses are called by name in the tables of a report, and as on the command line in CSV and code."""

import dataclasses

import pytest

from harness.analysis.cells import Analysis
from harness.report import names, table_csv
from harness.report.items import Column, Entry, Row, Section, Table
from harness.report.sections import answer, best, controls, cost, runs, setting, verdicts
from tests import synthetic


@pytest.fixture(scope="module")
def analysis():
    labels = ("cross_entropy", "label_smoothing", "focal", "focal gamma=5", "mae_prob")
    return Analysis(synthetic.study((1, 2, 3), labels, ("mlp",), history=False))


def test_no_table_has_a_label_with_an_underscore_where_a_loss_is_named(analysis):
    made = [part.section(analysis) for part in (best, controls, cost, runs, setting)]
    tables = [item for part in names.with_names(analysis, made) for item in part.items if isinstance(item, Table)]
    assert len(tables) > 6
    read = dict.fromkeys(("cross-entropy", "label smoothing"), False)
    for table in (each.for_reading() for each in tables if each.id not in names.AS_CODE):
        words = [column.title for column in table.columns]
        for row in table.rows:
            words += [
                entry.text for entry, column in zip(row.entries, table.columns, strict=True) if column.kind != "code"
            ]
        for text in words:
            assert not [label for label in analysis.loss_facts if "_" in label and label in text], (table.id, text)
            read |= {name: True for name in read if name in text.lower()}
    assert all(read.values())


def test_a_formula_is_called_by_itself(monkeypatch):
    formulas = ("symbolic formula=-y * log(p)", "symbolic formula=(p - y) ** 2, over_classes=mean")
    for label in formulas:
        monkeypatch.setitem(synthetic.LOSSES, label, ("formula", "probability", "softmax", "", "M", 0.0, 1.0))
    made = Analysis(synthetic.study((1, 2, 3), ("cross_entropy", *formulas), ("mlp",), history=False))
    assert [made.name(label) for label in formulas] == [
        "Formula -y * log(p)",
        "Formula (p - y) ** 2, over_classes=mean",
    ]


def test_csv_keeps_labels_and_words_that_are_labels_too_stay_words(analysis):
    entries = (Entry("focal"), Entry("focal gamma=5"), Entry("focal length of mae_prob, loss=mae_prob"))
    columns = (Column("a", "cross_entropy"), Column("b", "b"), Column("c", "c"), Column("d", "d", "code"))
    table = Table("x", "X", columns, (Row((*entries, Entry("mae_prob"))),))
    (section,) = names.with_names(analysis, [Section("s", "S", (table,))])
    (found,) = section.items
    texts = [entry.text for entry in found.for_reading().rows[0].entries]
    assert texts == [
        "Focal loss",
        "Focal loss gamma=5",
        "focal length of absolute error on probabilities, loss=mae_prob",
        "mae_prob",
    ]
    listed = Table("x", "X", columns[:1], (Row((Entry("focal, mae_prob and cross_entropy"),)),))
    (section,) = names.with_names(analysis, [Section("s", "S", (listed,))])
    (read,) = section.items[0].for_reading().rows[0].entries
    assert read.text == "focal loss, absolute error on probabilities and cross-entropy"
    assert found.columns[0].title == "cross-entropy"
    assert table_csv.text(found).splitlines()[1].startswith("focal,focal gamma=5,")


def test_settings_that_all_losses_share_are_said_once():
    made = synthetic.study((1, 2, 3), ("cross_entropy", "focal", "ngl"), ("mlp",), history=False)

    def study(focal, ngl):
        labels = made.runs["label"].replace({"focal": f"focal {focal}".strip(), "ngl": f"ngl {ngl}".strip()})
        return Analysis(dataclasses.replace(made, runs=made.runs.assign(label=labels)))

    a = study("gamma=5", "gamma=5")
    assert a.shared_settings == "gamma=5"
    assert [a.name(label) for label in a.challengers] == ["Focal loss", "NGL"]
    assert "2 losses (gamma=5) against cross-entropy" in verdicts.lead(a)
    assert "All others with gamma=5." in answer.matrix(a).caption
    for focal, ngl in (("gamma=5", "gamma=2"), ("gamma=5", ""), ("", "")):
        assert study(focal, ngl).shared_settings == ""
    assert study("gamma=5", "").name("focal gamma=5") == "Focal loss gamma=5"
    labels = ("cross_entropy", "focal", "focal gamma=5")
    same = Analysis(synthetic.study((1, 2, 3), labels, ("mlp",), history=False))
    assert same.shared_settings == ""
    assert "with gamma" not in answer.matrix(same).caption
