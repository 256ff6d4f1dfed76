"""Exhibits: the reproduction of a document's tables and figures beside our own records."""

import csv
import dataclasses
import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from harness import compose, plan
from harness.analysis.cells import Analysis
from harness.catalogue import entries
from harness.paths import MEASURED
from harness.records.study import StudyData
from harness.report import exhibits, writing
from harness.report.exhibits import covariates, hybrid, hybrid_figures
from harness.training import probe
from losses.hybrid import added, number
from losses.kinds import Pair

ERRORS = torch.rand(2, 200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def value(experiment, a, b):
    return added(*ERRORS, **experiment._asdict(), a=a, b=b)


# ---------------------------------------------------------------- which experiments are one function


def test_the_27_experiments_are_those_of_the_paper_in_its_order():
    assert [number(*experiment[:3]) for experiment in hybrid.EXPERIMENTS] == list(range(1, 28))
    for experiment in hybrid.EXPERIMENTS:
        config = compose.option("loss", experiment.label)
        named = ("term", "coefficients", "filter") if experiment.term != "none" else ("term",)
        assert [config[name] for name in named] == [getattr(experiment, name) for name in named]


MODES = ("consistent", "printed")


@given(st.floats(0.01, 0.99), st.floats(0.01, 0.99) | st.none(), st.sampled_from(MODES))
@settings(max_examples=120, deadline=None)
def test_experiments_called_the_same_are_the_same(a, b, mode):
    b = 1 - a if b is None else b
    for experiment in (each._replace(mode=mode) for each in hybrid.EXPERIMENTS):
        torch.testing.assert_close(value(experiment, a, b), value(hybrid.same_as(experiment, a, b), a, b))


def test_experiments_called_distinct_differ():
    both = dict.fromkeys(hybrid.distinct() + hybrid.distinct(mode="printed"))
    assert len(both) == 21
    for first, second in itertools.combinations(both, 2):
        assert not torch.allclose(value(first, hybrid.A, hybrid.B), value(second, hybrid.A, hybrid.B), rtol=1e-4)


@pytest.mark.parametrize("name", ["hybrid", "hybrid_mini"])
def test_the_studies_train_each_distinct_experiment_once(name):
    study = plan.read_study(name)
    assert study.axes["loss"] == [experiment.label for experiment in hybrid.distinct()]


def test_at_other_covariates_twenty_three_experiments_are_trained():
    settings = [setting for setting in plan.settings(plan.read_study("hybrid_camvid")) if setting.role == "run"]
    losses = [setting.choices["loss"] for setting in settings]
    assert sorted(losses) == sorted(experiment.label for experiment in hybrid.distinct(0.4, 0.5))
    assert len(losses) == 23


def test_the_whole_study_trains_what_is_printed_too():
    study = plan.read_study("hybrid")
    found = [setting.label for setting in plan.settings(study) if setting.role == "run"]
    both = dict.fromkeys(hybrid.distinct() + hybrid.distinct(mode="printed"))
    assert set(found) == {experiment.label for experiment in both}


def test_where_u_is_never_positive_relu_leaves_nothing():
    # a < b and b < 0 is the only way for both factors to be negative, and only in linear coefficients
    assert hybrid.same_as(hybrid.Experiment("ema", "linear", "relu"), 0.5, -1.0).term == "ema"
    assert hybrid.same_as(hybrid.Experiment("ema", "linear", "relu"), 2.0, 3.0) == hybrid.Experiment("none")


# ---------------------------------------------------------------- the exhibit


def records(shifts, seeds=range(1, 13), labels=None, at=None):
    """Return a study in which each seed moves all experiments alike, and each experiment by its shift.

    ``at``: A and B of a study that gives them itself, so that its labels have them.
    """
    a, b = at or (hybrid.A, hybrid.B)
    suffix = "" if at is None else f" a={a:g}, b={b:g}"
    random = np.random.default_rng(0)
    rows = []
    for seed in seeds:
        common = random.normal(0, 0.02)
        for experiment in labels or hybrid.distinct(a, b):
            miou = 0.5 + common + shifts(experiment) + random.normal(0, 0.001)
            label = experiment.label + ("" if experiment.term == "none" else suffix)
            rows.append({
                "role": "run", "status": "done", "label": label, "dataset": "scenes", "model": "unet_micro",
                "seed": seed, "pair_seed": seed, "key": f"{label}/{seed}", "setting": label,
                "source": "runs", "test.miou": miou, "test.dice": 2 * miou / (1 + miou), "config.loss.a": a,
                "config.loss.b": b, "loss_name": experiment.label, "loss_evidence": "R", "env.device": "cpu",
                "env.torch": "2.14.1",
            })  # fmt: skip
    history = pd.DataFrame([{"key": row["key"], "epoch": 1, "added.value": 0.2, "added.gradient": 0.1} for row in rows])
    spec = {"name": "hybrid", "baseline": "hybrid_none", "metric": "test.miou", "margin": 0.01, "exhibits": ["hybrid"]}
    return StudyData("hybrid", spec, pd.DataFrame(rows), history)


def tables(study):
    section = hybrid.section(Analysis(study))
    return {item.id: item for item in section.items if hasattr(item, "columns")}


def texts(table, key):
    index = [column.key for column in table.columns].index(key)
    return [row.entries[index].text for row in table.rows]


def test_planted_effects_are_found_and_none_is_found_where_there_is_none():
    found = tables(records(lambda e: 0.03 if e.term in ("hybrid1", "hybrid2") else 0.0))["hybrid-statements"]
    verdicts = dict(zip(texts(found, "statement"), texts(found, "verdict"), strict=True))
    words = list(verdicts.values())
    assert words[1] == "supported"  # hybrid losses against none
    assert words[2] == "no difference beyond the margin"  # the linear combination against none
    assert words[4] == "supported"  # heterogeneous against single


def test_the_reading_as_penalties_on_weights_is_shown_with_what_was_measured():
    table = tables(records(lambda e: 0.0))["hybrid-weights"]
    measured = pd.read_csv(MEASURED / "hybrid_weight_penalty.csv")
    assert texts(table, "over") == ["sum", "mean"] * 2
    exponential = measured["loss"].str.contains("_ne_|hybrid1|hybrid2")
    summed = measured["over"].eq("sum") & measured["model"].eq("unet_micro")
    assert texts(table, "infinite")[:2] == [str((exponential & summed).sum()), "0"]
    assert float(texts(table, "most")[1]) == pytest.approx(
        measured[measured["over"].eq("mean") & measured["model"].eq("unet_micro")]["ratio"].max(), rel=0.05
    )
    assert f"{(exponential & summed).sum()} experiments could not take a first step" in table.caption


def test_an_effect_the_other_way_contradicts():
    found = tables(records(lambda e: -0.03 if e.term != "none" else 0.0))["hybrid-statements"]
    assert texts(found, "verdict")[:3] == ["contradicted"] * 3


def test_table_2_shows_every_experiment_beside_the_printed_value():
    table = tables(records(lambda e: 0.0))["hybrid-table2-scenes-unet_micro"]
    assert texts(table, "experiment") == [str(n) for n in range(1, 28)]
    assert texts(table, "paper_loss")[:3] == ["1.072", "1.525", "1.398"]
    assert texts(table, "paper_iou")[26] == "0.768"
    assert texts(table, "same")[8] == "hybrid_ema_convex_none"
    means = texts(table, "mean")
    assert means[7] == means[8] == means[9] == means[10]
    assert set(texts(table, "added_gradient")) == {"10.0 %"}
    assert all("reconstruction" in text for text in texts(table, "loss")[1:])


def test_experiments_are_found_at_covariates_that_the_study_gives():
    found = tables(records(lambda e: 0.03 if e.term in ("hybrid1", "hybrid2") else 0.0, at=(0.4, 0.5)))
    table = found["hybrid-table2-scenes-unet_micro"]
    assert all(mean[0].isdigit() for mean in texts(table, "mean"))
    assert [text for text in texts(table, "same") if text] == [
        f"hybrid_{term}_{kind}_none" for term in ("ema", "hybrid2") for kind in ("convex", "linear")
    ]
    assert texts(found["hybrid-statements"], "verdict")[1] == "supported"


def test_equations_as_printed_have_a_table_of_their_own_where_they_were_trained():
    both = list(dict.fromkeys(hybrid.distinct() + hybrid.distinct(mode="printed")))
    made = records(lambda e: 0.03 if e.mode == "printed" else 0.0, labels=both)
    found = tables(made)
    table = found["hybrid-table2-scenes-unet_micro-printed"]
    assert texts(table, "same")[8] == "hybrid_ema_convex_none mode=printed"
    assert texts(table, "same")[26] == "hybrid_ne_linear"
    assert texts(table, "verdict")[7] == "better"
    assert texts(found["hybrid-table2-scenes-unet_micro"], "verdict")[7] != "better"
    assert "hybrid-table2-scenes-unet_micro-printed" not in tables(records(lambda e: 0.0))


def test_the_command_for_missing_equations_as_printed_plans_them():
    some = [*hybrid.distinct(), hybrid.Experiment("ema", "convex", "none", "printed")]
    table = tables(records(lambda e: 0.0, labels=some))["hybrid-table2-scenes-unet_micro-printed"]
    note = table.rows[11].entries[3].note  # number 12, the two-sided eLU, which has no run
    overrides = note.partition("study=hybrid ")[2].split()
    labels = {setting.label for setting in plan.settings(plan.read_study("hybrid", overrides))}
    assert {"hybrid_none", "hybrid_ema_convex_bielu mode=printed"} <= labels


def test_missing_experiments_say_which_command_makes_them():
    some = [hybrid.Experiment("none"), hybrid.Experiment("comb", "convex")]
    found = tables(records(lambda e: 0.0, labels=some))
    row = found["hybrid-table2-scenes-unet_micro"].rows[2]
    assert "python -m harness study=hybrid axes.loss=[hybrid_none,hybrid_comb_linear]" in row.entries[3].note
    assert texts(found["hybrid-statements"], "n")[0] == "0"


def test_the_printed_gradients_are_right_where_the_dossier_says_so():
    found = hybrid_figures.printed_gradients(0.6, 0.5)
    assert [equation for equation, _, deviation in found if deviation < 1e-9] == [10, 11, 13, 14]


def test_a_broken_exhibit_takes_nothing_with_it(monkeypatch):
    def broken(a):
        raise RuntimeError("no ink")

    monkeypatch.setattr(hybrid, "section", broken)
    report = writing.compose(records(lambda e: 0.0))
    broken_one = next(section for section in report.sections if section.id == "exhibit-hybrid")
    assert "no ink" in broken_one.items[0].text
    assert len(report.sections) > 8


def test_every_figure_is_drawn(tmp_path):
    page = writing.write(records(lambda e: 0.0, seeds=(1, 2)), tmp_path)
    drawn = {path.stem for path in (tmp_path / "figures").glob("*.svg")}
    wanted = {f"hybrid-fig{n}" for n in (2, 4, 5, 6, 7, 8)} | {"hybrid-fig9-scenes-unet_micro", "hybrid-descent"}
    assert wanted <= drawn
    assert page.stat().st_size < 5e6


def test_a_study_without_exhibits_has_none():
    study = records(lambda e: 0.0)
    del study.spec["exhibits"]
    assert exhibits.sections(Analysis(study)) == []


# ---------------------------------------------------------------- the size of what is added


def probed(name):
    loss = entries.build(name)
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 5, 6, 6, generator=draw)
    target = torch.randint(0, 5, (4, 6, 6), generator=draw)
    return probe.beside_cross_entropy(loss, {"class_logits": Pair(logits, target, target > 0)})


def test_cross_entropy_adds_nothing_to_itself():
    assert probed("cross_entropy") == {"added.value": 0.0, "added.gradient": 0.0}
    assert probed("hybrid_none") == {"added.value": 0.0, "added.gradient": 0.0}


def test_the_exponential_adds_more_than_the_moving_average():
    assert 0 < probed("hybrid_ema_linear_none")["added.gradient"] < probed("hybrid_ne_linear")["added.gradient"] < 1


def test_losses_of_other_things_add_nothing_that_could_be_compared():
    assert set(probed("giou").values()) == {None}


# ---------------------------------------------------------------- covariates


def covariate_records(effect, seeds=range(1, 9)):
    """Return two experiments at two pairs of covariates, and the baseline."""
    random = np.random.default_rng(0)
    rows = []
    pairs = [
        (None, None),
        *itertools.product(("hybrid_comb_convex", "hybrid_ema_convex_none"), ((0.1, 0.9), (0.6, 0.5))),
    ]
    for seed in seeds:
        common = random.normal(0, 0.02)
        for file, pair in pairs:
            a, b = pair or (0.6, 0.5)
            label = "hybrid_none" if file is None else f"{file} a={a}, b={b}"
            miou = 0.5 + common + random.normal(0, 0.001) + (effect(a) if file else 0.0)
            rows.append({
                "role": "run", "status": "done", "label": label, "dataset": "scenes", "model": "unet_micro",
                "seed": seed, "pair_seed": seed, "key": f"{label}/{seed}", "setting": label, "source": "runs",
                "test.miou": miou, "config.loss.a": a, "config.loss.b": b, "loss_name": label, "loss_evidence": "R",
                "env.device": "cpu", "env.torch": "2.14.1",
            })  # fmt: skip
    history = pd.DataFrame([{"key": row["key"], "epoch": 1} for row in rows])
    spec = {"name": "hybrid_covariates", "baseline": "hybrid_none", "metric": "test.miou", "margin": 0.01,
            "exhibits": ["covariates"]}  # fmt: skip
    return StudyData("hybrid_covariates", spec, pd.DataFrame(rows), history)


def test_covariates_that_matter_are_seen_and_others_are_not(tmp_path):
    given_effect = covariate_records(lambda a: 0.05 if a < 0.5 else 0.0)
    section = covariates.section(Analysis(given_effect))
    table = section.items[1]
    assert texts(table, "experiment") == ["2", "8"]
    assert [column.title for column in table.columns][2:4] == ["A 0.1, B 0.9", "A 0.6, B 0.5"]
    row = table.rows[0].entries
    assert [entry.note.split(";")[0] for entry in row[2:4]] == ["better", "equivalent"]
    assert row[4].value == pytest.approx(5, abs=0.2)
    none = covariates.section(Analysis(covariate_records(lambda a: 0.0))).items[1].rows[0].entries
    assert none[4].value < none[5].value
    writing.write(given_effect, tmp_path)
    assert (tmp_path / "figures" / "covariate-bars-scenes-unet_micro.svg").exists()


def test_covariates_without_a_finished_run_are_a_table_without_bars(tmp_path):
    given_effect = covariate_records(lambda a: 0.0)
    runs = given_effect.runs.copy()
    runs.loc[runs["label"] != "hybrid_none", ["status", "test.miou"]] = ["failed", np.nan]
    failed = dataclasses.replace(given_effect, runs=runs)
    items = covariates.section(Analysis(failed)).items
    assert [type(item).__name__ for item in items] == ["Prose", "Table"]
    assert "no pair of runs" in items[1].rows[0].entries[2].note
    writing.write(failed, tmp_path)


# ---------------------------------------------------------------- what the paper's own table and figures say


def test_what_the_printed_table_shows_is_computed_from_it():
    with hybrid.PRINTED.open(newline="") as file:
        printed = list(csv.DictReader(file))
    values = [float(row["loss_value"]) for row in printed]
    part, whole = (scipy_stats.spearmanr(range(len(x)), x).statistic for x in (values[1:], values))
    fall, shared = hybrid.printed_table()
    assert f"−{-part:.3f} over the 26 experiments with an added loss, −{-whole:.3f} with plain" in fall
    assert f"the least is {min(values):.3f}, plain cross-entropy has {values[0]:.3f}" in fall
    best = [n for n, row in enumerate(printed, 1) if row["dsc"] == max(each["dsc"] for each in printed)]
    assert best == list(range(18, 28))
    assert "is shared by 10 experiments (18 to 27)" in shared
    assert "has a DSC of 0.723 and 0.724 here" in shared


def test_what_is_said_of_the_printed_table_follows_its_values(monkeypatch):
    rising = {
        each.file: {"dsc": 0.7 + n / 100, "iou": 0.5, "loss_value": 1 + n / 10}
        for n, each in enumerate(hybrid.EXPERIMENTS)
    }
    monkeypatch.setattr(hybrid, "_printed", lambda: rising)
    fall, shared = hybrid.printed_table()
    assert "correlation is 1.000 over" in fall
    assert "is shared by 1 experiment (27)" in shared


def test_figures_that_are_not_the_papers_say_so_and_by_which_values():
    ranges = hybrid_figures.field_ranges(0.6, 0.5)
    x, y = np.meshgrid(np.linspace(0, 5, 40), np.linspace(0, 5, 40))
    field = np.sin(x) ** 10 + np.cos(10 + x * y) * np.cos(x)
    own = ranges["unbalanced", "(a) none"]
    assert (own.low, own.high) == (pytest.approx(field.min()), pytest.approx(field.max()))
    assert own.at_zero == pytest.approx((np.abs(field) < 0.05).mean())
    figures = {item.id: item for item in hybrid._formulas(0.6, 0.5)}
    for name, words in (("4", "not the paper's figure"), ("5", "cannot be the paper's"), ("2", "need not be its own")):
        assert words in figures[f"hybrid-fig{name}"].caption
    assert "−1.00 to 1.05" in figures["hybrid-fig5"].caption
    assert f"{max(x.high for x in ranges.values()):.2f}." in figures["hybrid-fig4"].caption
    section = hybrid.section(Analysis(records(lambda e: 0.0, seeds=(1, 2))))
    bars = next(item for item in section.items if getattr(item, "id", "").startswith("hybrid-fig9"))
    assert "the last epoch alone" in bars.caption


def test_functions_that_were_never_trained_as_their_own_are_counted():
    text = " ".join(hybrid._intro(Analysis(records(lambda e: 0.0, seeds=(1, 2))), 0.6, 0.5))
    assert "15 of the 27 are different functions" in text
    assert "the 12 experiments that equal another" in text
    assert "at A = 0.4, B = 0.5, say, 23 differ" in text
    other = hybrid.distinct(0.4, 0.5)
    for first, second in itertools.combinations(other, 2):
        assert not torch.allclose(value(first, 0.4, 0.5), value(second, 0.4, 0.5), rtol=1e-6)


def test_covariates_say_how_many_functions_they_are():
    files = ("hybrid_comb_convex", "hybrid_comb_linear", "hybrid_ema_convex_none")
    pairs = ((0.1, 0.9), (0.6, 0.5), (0.6, 0.9))
    text = covariates._functions([{file: dict.fromkeys(pairs, "") for file in files}])
    made = {
        tuple(np.round(value(covariates._experiment(file), *pair)[:50].numpy(), 12)) for file in files for pair in pairs
    }
    assert f"The study's 9 experiments with a pair are {len(made)} functions" in text
    assert "15 at A 0.6, B 0.5" in text
    assert covariates._functions([]) == "The study has no experiment of the paper with covariates."
