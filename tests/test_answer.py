"""The answer at the head of a report: what to use where, what it means to choose a loss, and every verdict."""

import dataclasses

import pytest

from harness import report
from harness.analysis import advice
from harness.analysis.cells import Analysis
from harness.metrics.declared import from_dict
from harness.report.items import Entry, Points, Row, Table
from harness.report.sections import answer, best
from harness.report.writing import compose
from tests import synthetic

FEW = ("cross_entropy", "ngl", "mae_prob", "label_smoothing", "hinge_ww")


def made(**more):
    return synthetic.study(**({"mishaps": False, "history": False, "losses": FEW, "track": "fixed"} | more))


@pytest.fixture(scope="module")
def study():
    return made()


@pytest.fixture(scope="module")
def a(study):
    return Analysis(study)


def moved(study, label, shift, model="vit_nano", name="test.top1"):
    """Return the study with a metric of a loss on one model moved by ``shift``."""
    hit = study.runs["label"].eq(label) & study.runs["model"].eq(model) & study.runs["role"].eq("run")
    values = [value + shift if found else value for found, value in zip(hit, study.runs[name], strict=True)]
    return dataclasses.replace(study, runs=study.runs.assign(**{name: values}))


def test_what_is_better_everywhere_is_advised_and_what_is_worse_to_be_avoided(a):
    (piece,) = advice.advice(a)
    assert (piece.kind, piece.use, piece.cells) == ("better", "ngl", a.cells)
    assert advice.to_avoid(a)[0] == "mae_prob"
    said = answer.sentence(a)
    assert said.startswith("Use NGL (+")
    assert "avoid absolute error on probabilities (−" in said


@pytest.mark.parametrize(("count", "said"), [(4, " or "), (5, "or one of 2 others"), (6, "or one of 3 others")])
def test_three_losses_are_named_or_four_but_not_one_other(count, said):
    """Where several are better: a fourth has a name, not a number."""
    names = ("ngl", "label_smoothing", "focal", "bce_ovr", "arcface", "hinge_ww")[:count]
    study = made(losses=("cross_entropy", *names))
    for label in names:
        for model in ("cnn_micro", "vit_nano"):
            study = moved(study, label, 0.02 - synthetic.LOSSES[label][5], model)  # as good as each other
    first = answer.sentence(Analysis(study)).partition(";")[0]
    assert first.count("points)") == (4 if count == 4 else 3)
    assert said in first
    assert "one of 1 others" not in first


def test_where_nothing_is_better_the_baseline_stays(study):
    a = Analysis(moved(study, "ngl", -0.03))
    better, kept = advice.advice(a)
    assert [(each.kind, each.use, [cell.model for cell in each.cells]) for each in (better, kept)] == [
        ("better", "ngl", ["cnn_micro"]),
        ("kept", "cross_entropy", ["vit_nano"]),
    ]
    said = answer.sentence(a)
    assert "use NGL (+" in said[0].lower() + said[1:]
    assert "on cnn_micro; keep cross-entropy on vit_nano: none of 4 alternatives is shown to be better" in said
    assert "ngl" not in advice.to_avoid(a), "it is better on the other model"


def test_losses_that_are_equal_leave_the_baseline():
    a = Analysis(made(losses=("cross_entropy", "label_smoothing", "bce_ovr"), noise=0.02, seeds=(1, 2, 3, 4)))
    assert answer.sentence(a) == (
        "Use cross-entropy: none of 2 alternatives is shown to be better, both may be as good."
    )
    alone = Analysis(made(losses=("cross_entropy", "bce_ovr"), noise=0.02, seeds=(1, 2, 3)))
    assert answer.sentence(alone) == "Use cross-entropy: the alternative is not shown to be better."


def test_where_every_verdict_is_withheld_there_is_no_advice_but_the_remedy(study):
    runs = study.runs
    gone = runs["label"].eq("cross_entropy") & runs["seed"].eq(1) & runs["role"].eq("run")
    status = ["missing" if hit else value for hit, value in zip(gone, runs["status"], strict=True)]
    a = Analysis(dataclasses.replace(study, runs=runs.assign(status=status)))
    assert [piece.kind for piece in advice.advice(a)] == ["silent"]
    assert answer.sentence(a) == (
        "No advice: every verdict is withheld, because runs are missing (remedy: run the study again)."
    )
    assert answer.choices(a) == []


def test_a_withheld_loss_is_never_advised_nor_to_be_avoided(study):
    runs = study.runs
    gone = runs["label"].isin(["ngl", "mae_prob"]) & runs["seed"].eq(1) & runs["role"].eq("run")
    status = ["missing" if hit else value for hit, value in zip(gone, runs["status"], strict=True)]
    a = Analysis(dataclasses.replace(study, runs=runs.assign(status=status)))
    said = answer.sentence(a)
    assert said.startswith("Use cross-entropy: none of 4 alternatives")
    assert "4 verdicts are withheld" in said
    assert "NGL" not in said
    assert "absolute error" not in said
    assert not {"ngl", "mae_prob"} & set(advice.contenders(a))


def test_lower_is_better_where_it_is(study):
    a = Analysis(dataclasses.replace(study, spec=study.spec | {"metric": "test.nll", "margin": 0.0}))
    assert all(advice.gain(a, label, a.cells) == pytest.approx(-_mean(a, label)) for label in FEW[1:4])


def _mean(a, label):
    return sum(a.comparisons[cell, label].difference for cell in a.cells) / len(a.cells)


def test_each_choice_says_what_it_costs(study):
    spoilt = study
    for model in ("cnn_micro", "vit_nano"):
        spoilt = moved(spoilt, "ngl", 0.4, model, "test.ece")
    lines = dict(answer.choices(Analysis(spoilt)))
    assert list(lines)[:2] == ["ngl", "cross_entropy"]
    assert lines["ngl"].startswith("Better (+")
    assert "its probabilities are unusable as they are (calibration error 4" in lines["ngl"]
    assert lines["cross_entropy"].startswith("The baseline: test top-1 accuracy 9")
    assert "unusable" not in dict(answer.choices(Analysis(study)))["ngl"]


def test_the_answer_itself_says_what_a_better_score_was_bought_with(study):
    one = moved(study, "ngl", 0.4, "vit_nano", "test.ece")
    both = moved(one, "ngl", 0.4, "cnn_micro", "test.ece")
    caveat = "its probabilities are unusable as they are"
    assert "unusable" not in answer.sentence(Analysis(study))
    assert f" points; {caveat} on vit_nano)" in answer.sentence(Analysis(one))
    assert f" points; {caveat})" in answer.sentence(Analysis(both))


def test_a_decided_interval_does_not_seem_to_end_at_nothing(study):
    a = Analysis(study)
    far = {at: dataclasses.replace(c, low=0.002, high=0.02) for at, c in a.comparisons.items()}
    a.comparisons = far
    at = next(at for at, c in far.items() if c.verdict == "better")
    a.comparisons = far | {at: dataclasses.replace(far[at], low=0.0003)}
    shown = " ".join(entry.text for row in answer.matrix(a).rows for entry in row.entries)
    assert "[+0.03, +2.00]" in shown
    assert "[+0.2, +2.0]" in shown
    other = dataclasses.replace(far[at], difference=0.0174, low=0.0004, high=0.035, verdict="worse")
    assert from_dict({"key": "nll", "title": "", "digits": 3}).difference(other) == "+0.0174 [+0.0004, +0.0350]"
    undecided = dataclasses.replace(other, verdict="not decidable")
    assert from_dict({"key": "nll", "title": "", "digits": 3}).difference(undecided) == "+0.017 [0.000, +0.035]"


def test_scores_that_are_no_probabilities_are_said_to_be_none():
    losses = ("cross_entropy", "hinge_ww", "label_smoothing")
    lines = dict(answer.choices(Analysis(made(losses=losses, noise=0.01, seeds=(1, 2, 3, 4)))))
    assert "its scores are not probabilities" in lines["hinge_ww"]


def test_a_step_is_called_slower_only_beyond_what_the_baseline_itself_varies_by():
    losses = ("cross_entropy", "pf_loss_r1", "label_smoothing")
    lines = dict(answer.choices(Analysis(made(losses=losses, noise=0.01, seeds=(1, 2, 3, 4)))))
    assert "a step takes 1.9 times as long" in lines["pf_loss_r1"]
    assert "a step takes" not in lines["label_smoothing"]


def test_runs_that_were_lost_are_part_of_the_choice():
    a = Analysis(synthetic.study(history=False, track="fixed"))
    arcface = answer._lost(a, "arcface")
    assert "diverged" in arcface
    assert answer._lost(a, "cross_entropy") == ""


def test_the_matrix_has_every_loss_the_baseline_first_then_the_best(a):
    table = answer.matrix(a)
    names = [row.entries[1].text for row in table.rows]
    assert names[:2] == ["cross_entropy", "ngl"]
    assert names[-1] == "mae_prob"
    assert set(names) == set(a.labels)
    assert [column.title for column in table.columns[2:]] == [cell.short for cell in a.cells]
    cell = table.rows[1].entries[2]
    assert cell.tone == "better"
    assert cell.text.startswith("better +")
    assert table.rows[0].reference
    assert table.rows[0].entries[0].text == "Cross-entropy (baseline)"


def test_many_losses_of_one_cell_stand_in_parts_side_by_side(a):
    assert answer.matrix(a).parts == 1
    rows = tuple(Row((Entry(str(number)),)) for number in range(23))
    table = Table("t", "t", (), rows, parts=3)
    assert [len(part) for part in table.cut()] == [8, 8, 7]
    assert sum(table.cut(), ()) == rows


def test_the_first_section_holds_all_of_it(study, a):
    page = compose(study)
    assert page.answer == answer.sentence(a)
    first = page.sections[0]
    assert first.id == "answer"
    kinds = [type(item) for item in first.items]
    assert kinds.index(Points) < kinds.index(Table)
    assert any(best.in_short(a)[0] in getattr(item, "paragraphs", ()) for item in first.items)


def test_the_terminal_ends_with_the_answer(study, a, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    text = report.summary(study)
    assert max(map(len, text.splitlines())) <= 60
    words = " ".join(text.split())
    assert " ".join(answer.sentence(a).split()) in words
    assert words.index("Answer:") > words.index("vit_nano")
    assert text.splitlines()[-1].startswith("python -m harness") or "If you must choose now:" in text


def test_cells_come_in_the_order_of_the_study():
    models = ("vit_nano", "cnn_micro")
    study = made(models=models)
    assert [cell.model for cell in Analysis(study).cells] == list(models)
    turned = dataclasses.replace(study, spec=study.spec | {"axes": study.spec["axes"] | {"model": list(models[::-1])}})
    assert [cell.model for cell in Analysis(turned).cells] == list(models[::-1])


def test_two_losses_of_one_name_keep_their_labels():
    a = Analysis(made(losses=("cross_entropy", "focal", "focal gamma=5")))
    assert [a.name(label) for label in a.labels] == ["Cross-entropy", "Focal loss", "Focal loss gamma=5"]


def test_a_column_that_reads_alike_in_every_row_goes_to_the_caption():
    from harness.report.items import Column, Entry, Row

    columns = (Column("a", "a"), Column("n", "n", "number"), Column("x", "x"))
    rows = tuple(Row((Entry(str(i)), Entry("12"), Entry(str(i % 2)))) for i in range(3))
    read = Table("t", "t", columns, rows, "About.").for_reading()
    assert [column.key for column in read.columns] == ["a", "x"]
    assert read.caption == "About. In every row: n 12."
    assert len(Table("t", "t", columns, rows[:2]).for_reading().columns) == 3, "two rows may agree by chance"


def test_an_answer_at_one_learning_rate_says_so(study, a):
    (said,) = answer.limits(a)
    assert "track=lr searches one for each" in said
    assert "track=lr  # a learning rate searched for every loss" in answer.next_steps(a)
    assert "track=lr searches" in " ".join(report.summary(study).split())
    searched = Analysis(made(track="lr"))
    assert answer.limits(searched) == []
    assert "track=lr" not in answer.next_steps(searched)
