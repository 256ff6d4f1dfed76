"""The report says what the records say, in every format, and works in a browser."""

import csv
import dataclasses
import functools
import io
import itertools
import json
import re
import shlex
import shutil
import subprocess
import sys
from xml.etree import ElementTree

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from axe_playwright_python.sync_playwright import Axe
from matplotlib.lines import Line2D
from matplotlib.text import Text
from scipy import stats as scipy_stats

from harness import plan, records, report
from harness.analysis import cells
from harness.analysis.cells import Analysis
from harness.analysis.equal import equal_losses
from harness.errors import UsageError
from harness.metrics.declared import CLASSIFICATION, Metric
from harness.records.study import StudyData
from harness.report import figures, latex, multiples
from harness.report.__main__ import main
from harness.report.items import Column, Entry, Notice, Row, Section, Table
from harness.report.sections import (
    answer,
    best,
    classes,
    controls,
    cost,
    curves,
    failures,
    ranks,
    reproduce,
    results,
    runs,
    setting,
    verdicts,
    withheld,
)
from harness.report.writing import compose
from tests import synthetic
from tests.conftest import lacks


@pytest.fixture(scope="module")
def study():
    return synthetic.study()


@pytest.fixture(scope="module")
def analysis(study):
    return Analysis(study)


@pytest.fixture(scope="module")
def folder(study, tmp_path_factory):
    where = tmp_path_factory.mktemp("report")
    assert report.build(study, where) == where / "index.html"
    return where


def read_csv(folder, name):
    with (folder / "tables" / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


def rows_of(folder, name):
    return {row["loss"]: row for row in read_csv(folder, name)}


def table_of(section: Section, identity: str) -> Table:
    return next(item for item in section.items if isinstance(item, Table) and item.id == identity)


def texts(table: Table, column: str) -> list[str]:
    index = [c.key for c in table.columns].index(column)
    return [row.entries[index].text for row in table.rows]


# ---------------------------------------------------------------------------- what it says


def test_numbers_are_those_of_the_records(study, folder):
    runs = study.runs[
        (study.runs["role"] == "run") & (study.runs["model"] == "cnn_micro") & (study.runs["status"] == "done")
    ]
    values = runs.pivot(index="seed", columns="label", values="test.top1").astype(float)
    found = rows_of(folder, "results-digits-cnn_micro")
    for label in ("ngl", "arcface", "focal gamma=5"):
        row, own = found[label], values[label].dropna()
        paired = values[[label, "cross_entropy"]].dropna()
        test = scipy_stats.ttest_rel(paired[label], paired["cross_entropy"])
        low, high = test.confidence_interval(1 - 0.05 / 9)  # nine losses against the baseline
        assert float(row["mean"]) == pytest.approx(own.mean())
        assert float(row["difference"]) == pytest.approx((paired[label] - paired["cross_entropy"]).mean())
        assert [float(row[f"difference_{end}"]) for end in ("low", "high")] == pytest.approx([low, high])
        assert float(row["p"]) == pytest.approx(min(1, 9 * test.pvalue))
        assert (row["scope"], row["comparisons"]) == ("seeds, on these test items", "9")
        assert int(row["n"]) == len(paired)
        assert set(row["runs"].split()) <= set(study.runs["key"])
    assert found["pf_loss_r1 (reconstruction)"]["evidence"] == "R"


def test_verdicts_are_the_truth_of_the_simulation(analysis):
    for cell in analysis.cells:
        found = {label: analysis.comparisons[cell, label].verdict for label in analysis.challengers}
        assert found["ngl"] == "better"
        assert found["mae_prob"] == found["focal gamma=5"] == "worse"
    assert analysis.comparisons[analysis.cells[0], "label_smoothing"].verdict == "equivalent"


def test_diverged_and_unbalanced_seeds_are_counted_not_dropped(analysis):
    cell = analysis.cells[0]
    arcface, uneven = analysis.outcomes[cell, "arcface"], analysis.outcomes[cell, "focal gamma=5"]
    assert (arcface.planned, arcface.diverged, analysis.comparisons[cell, "arcface"].n) == (12, 2, 10)
    assert (uneven.planned, analysis.comparisons[cell, "focal gamma=5"].n) == (9, 9)
    lines = [line for item in verdicts.section(analysis).items for p in getattr(item, "points", ()) for line in p.lines]
    assert any(name == "ArcFace" and "2 of 12 diverged, the others compared" in words for name, words in lines)


def reversed_on(study, model, label="ngl", shift=0.02):
    """Return the study with ``label`` as much worse on one model as it is better on the other."""
    hit = study.runs["label"].eq(label) & study.runs["model"].eq(model) & study.runs["role"].eq("run")
    return with_changes_by(study, "test.top1", lambda value: value - shift, hit)


def with_changes_by(study, name, change, which):
    values = [change(old) if hit else old for hit, old in zip(which, study.runs[name], strict=True)]
    return dataclasses.replace(study, runs=study.runs.assign(**{name: values}))


def test_an_average_never_hides_a_reversal(study, tmp_path):
    a = Analysis(reversed_on(study, "vit_nano"))
    (sentence,) = (text for text in verdicts.over_all_cells(a) if text.startswith("NGL"))
    better, worse = (a.metric.difference(a.comparisons[cell, "ngl"]) for cell in a.cells)
    assert sentence == f"NGL depends on model: better on cnn_micro ({better}); worse on vit_nano ({worse})."
    table = table_of(results.section(a), "results-all-cells")
    row = by_loss(table, "verdict")["ngl"], by_loss(table, "depends_on")["ngl"]
    assert [entry.text for entry in row] == ["depends", "model"]
    assert by_loss(table, "p")["ngl"].value < 0.001
    assert by_loss(table, "least")["ngl"].value < -0.005 < 0.005 < by_loss(table, "greatest")["ngl"].value
    assert sentence in " ".join(report.summary(a.study).split())


def test_many_cells_get_a_table_of_verdicts_best_loss_first():
    a = Analysis(synthetic.study(seeds=range(1, 8), models=tuple(synthetic.MODELS), mishaps=False, history=False))
    table = table_of(answer.section(a), "verdicts")
    assert [column.title for column in table.for_reading().columns] == ["loss", *synthetic.MODELS]
    assert (texts(table, "id")[1], texts(table, "id")[-1]) == ("ngl", "mae_prob")
    assert all(text.startswith("worse −31.") or text.startswith("worse −30.") for text in texts(table, "cell_3")[-1:])


def test_few_seeds_are_said_to_be_few():
    small = Analysis(synthetic.study(seeds=(1, 2, 3), mishaps=False))
    words = " ".join(notice.text for notice in verdicts.notices(small))
    assert "No verdict rests on more than 3 pairs" in words


def test_a_study_that_cannot_tell_says_so():
    same = synthetic.study(
        seeds=(1, 2), losses=("cross_entropy", "label_smoothing", "bce_ovr"), noise=0.02, mishaps=False
    )
    assert "No difference from cross-entropy could be decided" in verdicts.lead(Analysis(same))


@pytest.mark.parametrize("metric", ["test.nll", "test.ece"])
def test_lower_is_better_where_it_is(study, metric):
    a = Analysis(dataclasses.replace(study, spec={**study.spec, "metric": metric, "margin": 0.0}))
    assert not a.metric.higher_is_better
    if metric == "test.nll":
        assert a.comparisons[a.cells[0], "mae_prob"].verdict == "worse"
        assert a.comparisons[a.cells[0], "hinge_ww"].n == 0  # its scores are no probabilities


def test_what_a_link_forbids_is_a_dash_with_its_reason(analysis):
    table = table_of(cost.section(analysis), "metrics")
    index = {column.key: i for i, column in enumerate(table.columns)}
    row = next(row for row in table.rows if row.entries[index["loss"]].text == "hinge_ww")
    assert row.entries[index["nll"]].text == "–"
    assert "not probabilities" in row.entries[index["nll"]].note
    sigmoid = next(row for row in table.rows if row.entries[index["loss"]].text == "bce_ovr")
    assert sigmoid.entries[index["nll"]].text == "–"
    assert sigmoid.entries[index["ece"]].value is not None


SMOOTHNESS = Metric("smoothness", "smoothness", "dB", "dB", digits=1)


def test_metrics_are_those_that_the_records_declare(study):
    values = np.linspace(1, 2, len(study.runs))
    more = {"test.smoothness": values, "shifted.blur.smoothness": values / 2, "shifted.blur.top1": values / 3}
    own = dataclasses.replace(study, runs=study.runs.assign(**more), metrics=(SMOOTHNESS, *CLASSIFICATION[:2]))
    table = table_of(cost.section(Analysis(own)), "metrics")
    assert [column.key for column in table.columns][3:] == ["smoothness", "top5", "blur_smoothness"]
    assert table.columns[-1].title == "test smoothness under blur (dB)"
    a = Analysis(dataclasses.replace(own, spec=own.spec | {"metric": "test.smoothness"}))
    assert (a.metric.title, a.metric.digits) == ("test smoothness", 1)
    shifted = Analysis(dataclasses.replace(own, spec=own.spec | {"metric": "shifted.blur.top1"}))
    assert cost.secondary(shifted)[0].key == "test.smoothness"


def test_declared_metrics_travel_with_the_records_and_with_what_is_published(tmp_path):
    record = {
        "key": "a",
        "status": "done",
        "seed": 1,
        "config": {},
        "test": {"smoothness": 3.0},
        "metrics": [SMOOTHNESS.as_dict()],
    }
    records.save(records.run_folder("a", tmp_path), record, pd.DataFrame({"epoch": [1]}))
    records.write_json(
        tmp_path / "own" / "study.json", {"name": "own", "axes": {}, "baseline": "x", "metric": "test.smoothness"}
    )
    (tmp_path / "own" / "runs.csv").write_text("key,role,label,seed,pair_seed,setting\na,run,x,1,1,s\n")
    for _ in ("from the records", "from their index"):
        found = records.load_study("own", tmp_path)
        assert found.metrics == (SMOOTHNESS,)
        assert not [name for name in found.runs if name.startswith("metrics")]
    table, *_ = records.publish("own", tmp_path).files
    published = records.load_published(table)
    assert (published.metrics, published.spec) == (found.metrics, found.spec)
    (tmp_path / "own" / "runs.csv").unlink()
    assert records.load_study("own", tmp_path).metrics == (SMOOTHNESS,)


def test_an_unknown_metric_is_one_sentence_with_the_nearest(study):
    with pytest.raises(UsageError, match=r"did you mean test\.smoothness"):
        Analysis(dataclasses.replace(study, spec=study.spec | {"metric": "test.smoothnes"}, metrics=(SMOOTHNESS,)))


def test_several_objectives_have_learning_curves_of_their_own(study, tmp_path):
    history = study.history.rename(columns={"train.loss": "train.loss.critic"})
    history = history.assign(**{"train.loss.generator": history["train.loss.critic"] + 1})
    two = dataclasses.replace(study, history=history)
    items = curves.section(Analysis(two)).items
    assert items[0].id == "speed"
    assert [item.id for item in items if "cnn_micro" in item.id] == [
        "curves-valid-digits-cnn_micro",
        "curves-train-critic-digits-cnn_micro",
        "curves-train-generator-digits-cnn_micro",
    ]
    assert "training loss of the generator" in items[3].title
    assert report.build(two, tmp_path).exists()


def test_step_time_is_relative_to_the_baseline(analysis):
    table = table_of(cost.section(analysis), "cost")
    index = {column.key: i for i, column in enumerate(table.columns)}
    ratios = {row.entries[index["loss"]].text: row.entries[index["step_ratio"]] for row in table.rows}
    assert ratios["cross_entropy"].value == 1
    slow = ratios["pf_loss_r1 (reconstruction)"]
    assert slow.value == pytest.approx(1.9, rel=0.05)
    assert slow.low < slow.value < slow.high


def test_step_times_of_different_processors_are_not_compared(study):
    odd = study.runs["seed"].mod(2).eq(1) & study.runs["label"].eq("pf_loss_r1")
    slower = study.runs["cost.step_ms"] * [9.0 if hit else 1.0 for hit in odd]
    runs = with_changes(study, odd, **{"env.device_name": "another CPU"}).runs.assign(**{"cost.step_ms": slower})
    section = cost.section(Analysis(dataclasses.replace(study, runs=runs)))
    assert by_loss(table_of(section, "cost"), "step_ratio")["pf_loss_r1 (reconstruction)"].high < 3
    words = [item.text for item in section.items if isinstance(item, Notice)]
    assert any("several processors: Some CPU" in text for text in words)
    runs = with_changes(study, study.runs["label"].eq("pf_loss_r1"), **{"env.device_name": "another CPU"}).runs
    apart = by_loss(table_of(cost.section(Analysis(dataclasses.replace(study, runs=runs))), "cost"), "step_ratio")
    assert apart["pf_loss_r1 (reconstruction)"].value is None


def by_loss(table: Table, column: str):
    index = {column.key: i for i, column in enumerate(table.columns)}
    return {row.entries[index["loss"]].text: row.entries[index[column]] for row in table.rows}


SEARCH = {
    "lr": {"factors": [0.3, 1, 3], "seeds": [7001], "most": 2, "most_seeds": 8},
    "tuned": {"trials": 6, "seeds": [7001], "most": 2, "most_seeds": 8},
}


def searched(track="lr", models=("mlp",), seeds=(1, 2), history=False):
    """Return a study with a search of one seed, and the rule of its search."""
    made = synthetic.study(
        seeds=seeds, models=models, track=track, mishaps=False, history=history, search_seeds=(7001,)
    )
    return dataclasses.replace(made, spec=made.spec | {"search": SEARCH[track]})


@pytest.mark.parametrize(("track", "trials"), [("lr", 3), ("tuned", 6)])
def test_a_search_is_part_of_the_cost(track, trials):
    """Every made-up run takes equally long, so a loss with its search costs one run and its trials."""
    table = table_of(cost.section(Analysis(searched(track))), "cost")
    assert (
        f"One rule searches for every loss: {trials} trials on seed 7001; further ones where the best rate is the "
        "outermost, at most 2 times on each side; further seeds, up to 8, where trials cannot be told apart. "
        f"It came to {trials} runs per loss and cell."
    ) in table.caption
    assert {entry.text for entry in by_loss(table, "search_runs").values()} == {str(trials)}
    assert by_loss(table, "search_s")["arcface"].value == pytest.approx(trials * 2.6 * 1.31)
    for entry in by_loss(table, "with_search").values():
        assert entry.value == pytest.approx(trials + 1)
        assert len(entry.runs) == trials + 2


def test_a_search_that_is_going_on_is_reported_before_anything_is_compared():
    made = searched()
    table = table_of(
        cost.section(Analysis(dataclasses.replace(made, runs=made.runs[made.runs["role"] == "search"]))), "cost"
    )
    assert "One rule searches for every loss" in table.caption
    assert "It came to" not in table.caption


def test_without_a_search_there_is_no_cost_of_one():
    section = cost.section(Analysis(synthetic.study(seeds=(1, 2), track="fixed", mishaps=False, history=False)))
    table = table_of(section, "cost")
    assert "search" not in table.caption
    assert not {"search_runs", "search_s", "with_search"} & {column.key for column in table.columns}
    assert "cost-steps" not in {item.id for item in section.items if isinstance(item, Table)}


def test_searches_that_grew_are_one_rule_and_missing_trials_are_missing():
    made = searched()
    search = made.runs["role"].eq("search")
    late = search & made.runs["label"].eq("focal") & made.runs["lr"].eq(0.015)
    made = with_changes(made, late, status="missing", **{"cost.wall_s": None})
    failed = search & made.runs["label"].eq("ngl") & made.runs["lr"].eq(0.015)
    made = with_changes(made, failed, status="failed", **{"cost.wall_s": None})
    fewer = made.runs[~(search & made.runs["label"].eq("bce_ovr"))]
    table = table_of(cost.section(Analysis(dataclasses.replace(made, runs=fewer))), "cost")
    assert "equal" not in table.caption
    assert "It came to 0 to 3 runs per loss and cell." in table.caption
    assert by_loss(table, "search_runs")["bce_ovr"].text == "0"
    assert by_loss(table, "with_search")["bce_ovr"].value == 1
    assert by_loss(table, "search_runs")["focal"].text == "2 of 3"
    assert by_loss(table, "with_search")["focal"].note == "1 run of the search missing"
    assert by_loss(table, "search_runs")["ngl"].text == "3"
    assert by_loss(table, "search_s")["ngl"].note == "without 1 run that left no time"


@pytest.mark.parametrize(("track", "trials"), [("lr", 3), ("tuned", 6)])
def test_the_search_costs_its_steps(track, trials, tmp_path):
    """A run takes 16 steps an epoch; focal's search grows by one run, which diverges after three epochs."""
    made = searched(track, models=("mlp", "cnn_micro"), history=True)
    search = made.runs["role"].eq("search") & made.runs["label"].eq("focal") & made.runs["model"].eq("mlp")
    further = made.runs[search].iloc[:1].assign(key="further", setting="further", status="diverged", lr=0.1)
    epochs = pd.DataFrame({"key": "further", "epoch": [1, 2, 3], "step": [16, 32, 48]})
    made = dataclasses.replace(
        made, runs=pd.concat([made.runs, further], ignore_index=True),
        history=pd.concat([made.history, epochs], ignore_index=True),
    )  # fmt: skip
    section = cost.section(Analysis(made))
    table = table_of(section, "cost-steps")
    keys = [column.key for column in table.columns]
    found = {
        (row.entries[0].text, row.entries[1].text): dict(zip(keys, row.entries, strict=True)) for row in table.rows
    }
    run = 16 * synthetic.EPOCHS
    base, own, both = found["mlp", "cross_entropy"], found["mlp", "focal"], found["all 2 cells", "focal"]
    for row, extra, n in ((base, 0, 1), (own, 1, 1), (both, 1, 2)):
        assert row["trials"].value == row["search_runs"].value == n * trials + extra
        assert row["search_steps"].value == n * trials * run + 48 * extra
        assert row["run_steps"].value == n * run
        assert row["total_steps"].value == n * (trials + 1) * run + 48 * extra
        assert row["ratio"].value == 1 + 48 * extra / (n * (trials + 1) * run)
    assert "further" in own["total_steps"].runs
    assert ("not the least that it needs" in str(section.items)) == (track == "tuned")
    report.build(made, tmp_path)
    with (tmp_path / "tables" / "cost-steps.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    assert [float(row["ratio"]) for row in written] == [row.entries[keys.index("ratio")].value for row in table.rows]


def test_steps_of_a_search_that_are_not_known_are_not_guessed():
    made = searched(history=True)
    key = made.runs[made.runs["role"].eq("search") & made.runs["label"].eq("cross_entropy")]["key"].iloc[0]
    lost = dataclasses.replace(made, history=made.history[made.history["key"] != key])
    table = table_of(cost.section(Analysis(lost)), "cost-steps")
    assert by_loss(table, "total_steps")["cross_entropy"].note == "1 run of the search left no steps"
    assert {entry.text for entry in by_loss(table, "ratio").values()} == {"–"}
    assert by_loss(table, "total_steps")["focal"].value == 4 * 16 * synthetic.EPOCHS


def test_what_was_chosen_and_out_of_what_is_shown():
    made = synthetic.study(seeds=(1, 2), track="tuned", mishaps=False, history=False)
    focal = made.runs["label"].eq("focal") & made.runs["role"].eq("run")
    made = with_changes(made, focal, **{"config.loss.gamma": 0.4, "config.optimizer.lr": 0.002})
    section = setting.section(Analysis(made))
    table = table_of(section, "learning-rates")
    assert by_loss(table, "lr")["focal"].text == "0.002"
    assert by_loss(table, "grid")["focal"].text == "6 from 0.0007 to 0.03"
    assert by_loss(table, "settings")["focal"].text == "gamma 0.4 (6 from 0.14 to 6)"
    assert by_loss(table, "settings")["ngl"].text == "–"
    summary = dict(tuple(entry.text for entry in row.entries) for row in table_of(section, "setting").rows)
    assert summary["track"].startswith(
        "tuned: learning rate and the loss's own settings chosen per loss on validation ("
    )


def test_an_unsteady_machine_is_said_to_be_one(study, analysis):
    assert not any(isinstance(item, Notice) for item in cost.section(analysis).items)
    busy = study.runs["cost.step_ms"] * np.random.default_rng(0).uniform(1, 3, len(study.runs))
    section = cost.section(Analysis(dataclasses.replace(study, runs=study.runs.assign(**{"cost.step_ms": busy}))))
    assert any(isinstance(item, Notice) and "itself varies by a factor of" in item.text for item in section.items)


def test_one_learning_rate_for_all_losses_is_one_row():
    a = Analysis(synthetic.study(seeds=(1, 2), track="fixed", mishaps=False, history=False))
    assert texts(table_of(setting.section(a), "learning-rates"), "loss") == ["all losses"] * 2


# ---------------------------------------------------------------------------- controls


def alarms(**given):
    return " ".join(controls.alarms(Analysis(synthetic.study(mishaps=False, history=False, **given))))


def test_good_controls_are_quiet(analysis):
    found = [control for control in analysis.controls if control.gates]
    assert {control.status for control in found} == {"passed"}
    assert len(found) == 3 * len(analysis.cells)
    assert controls.alarms(analysis) == []


def test_whether_a_margin_could_be_seen_is_said_and_withholds_nothing():
    a = Analysis(synthetic.study(mishaps=False, history=False, noise=0.0005))
    names = texts(table_of(controls.section(a), "controls"), "control")
    assert names.count("Cross-entropy repeated, less one margin") == 2
    assert {c.status for c in a.controls if not c.gates} == {"passed"}
    rough = Analysis(synthetic.study(mishaps=False, history=False, noise=0.02))
    assert {c.status for c in rough.controls if not c.gates} == {"undecided"}
    assert all("control failed" not in why for found in rough.comparisons.values() for why in found.because)


def test_a_negative_control_that_is_not_found_is_loud():
    words = alarms(control_shift=0.0)
    assert "negative control" in words
    assert "was not found" in words
    loud = Analysis(synthetic.study(mishaps=False, history=False, control_shift=0.0))
    assert answer.section(loud).items[0] == Notice(controls.alarms(loud)[0], "alarm")


def test_a_negative_control_that_comes_out_better_is_loud():
    assert "came out better" in alarms(control_shift=0.01)


def test_a_baseline_that_differs_from_itself_is_loud():
    assert "differs from itself" in alarms(repeat_shift=0.1)


def test_a_study_that_learns_nothing_is_loud(study):
    runs = study.runs.assign(**{"test.top1": np.random.default_rng(0).normal(0.1, 0.01, len(study.runs))})
    words = " ".join(controls.alarms(Analysis(dataclasses.replace(study, runs=runs))))
    assert "does not beat chance" in words


def test_controls_that_were_not_run_are_named():
    a = Analysis(synthetic.study(seeds=(1, 2), controls=False, history=False))
    found = {control.name: control.status for control in a.controls}
    assert found["Cross-entropy repeated with other seeds"] == found["negative control"] == "not run"
    assert "without a result" in " ".join(notice.text for notice in verdicts.notices(a))


# ---------------------------------------------------------------------------- mixed and broken records


def with_changes(study, which, **values) -> StudyData:
    runs = study.runs.copy()
    for name, value in values.items():
        runs[name] = [value if hit else old for hit, old in zip(which, runs[name], strict=True)]
    return dataclasses.replace(study, runs=runs)


def test_other_device_types_are_set_aside_unless_mixed(study):
    elsewhere = with_changes(study, study.runs["label"].eq("focal"), **{"env.device": "cuda"})
    apart, mixed = Analysis(elsewhere), Analysis(elsewhere, mix=True)
    assert "focal" not in apart.labels
    assert "Set aside" in " ".join(notice.text for notice in verdicts.notices(apart))
    assert texts(table_of(setting.section(apart), "set-aside"), "made_on") == ["cuda, torch 2"]
    assert mixed.comparisons[mixed.cells[0], "focal"].n == 12
    words = [item.text for item in setting.section(mixed).items if isinstance(item, Notice)]
    assert any("mix device types" in text for text in words)


def test_runs_of_older_code_are_marked(study, monkeypatch):
    monkeypatch.setattr(cells, "_old", lambda runs: runs["label"].eq("ngl"))
    old = Analysis(study)
    assert old.outcomes[old.cells[0], "ngl"].old == 12
    words = [item.text for item in setting.section(old).items if isinstance(item, Notice)]
    assert any("older code" in text for text in words)


def test_failures_tell_what_happened_and_how_to_run_again(analysis):
    section = failures.section(analysis)
    table = table_of(section, "failures")
    assert texts(table, "status") == ["diverged"] * 2 + ["failed"] + ["missing"] * 2
    assert texts(table, "what")[0] == "at step 37; last finite loss 12,300"
    assert "ValueError" in texts(table, "what")[2]
    codes = [item.text for item in section.items if hasattr(item, "folded") and not isinstance(item, Table)]
    assert codes[0] == "python -m harness study=made_up"
    assert "Traceback" in codes[1]


def searched_to_the_edge(study, label="ngl"):
    """Return the study with the best rate of a loss at the end of what was tried."""
    last = study.runs["label"].eq(label) & study.runs["role"].eq("search") & study.runs["lr"].eq(0.015)
    return with_changes(study, last, **{"valid.top1": 0.95})


def test_what_the_search_found_is_listed(study):
    tied = study.runs["label"].eq("focal") & study.runs["role"].eq("search") & study.runs["lr"].lt(0.01)
    ties = with_changes(searched_to_the_edge(study), tied, **{f"valid.{name}": 0.9 for name in ("top1", "nll")})
    table = table_of(setting.section(Analysis(ties)), "search")
    assert {entry.text for entry in by_loss(table, "trials").values()} == {"3"}
    assert [loss for loss, entry in by_loss(table, "edge").items() if entry.text] == ["focal", "ngl"]
    assert by_loss(table, "lead")["ngl"].value == pytest.approx(0.05)
    assert by_loss(table, "lead")["ngl"].text == "5.00 points"
    assert by_loss(table, "by")["ngl"].text == "top1"
    assert by_loss(table, "tied")["focal"].text in ("0.0015", "0.005")
    assert by_loss(table, "lead")["focal"].value == 0


def test_a_withheld_verdict_says_why_wherever_it_is_shown(study, tmp_path):
    made = searched_to_the_edge(study)
    why = "its search ended at the edge of the learning rates tried (0.015)"
    page = report.build(made, tmp_path).read_text()
    row = rows_of(tmp_path, "results-digits-vit_nano")["ngl"]
    assert (row["verdict"], row["because"]) == ("withheld", why)
    assert (float(row["difference"]), row["seeds_needed"]) == (pytest.approx(0.01, abs=0.002), "")
    for text in (page, (tmp_path / "report.md").read_text(), (tmp_path / "report.tex").read_text()):
        assert "withheld" in text
    assert why in page
    assert why in (tmp_path / "report.md").read_text()
    assert why in (tmp_path / "tables" / "withheld-verdicts.tex").read_text()
    drawn = next(item for item in compose(made).figures() if item.id == "differences-vit_nano")
    assert re.search(r"NGL \+\d\.\d\d, withheld", drawn.alt)
    counted = next(row for row in read_csv(tmp_path, "withheld") if "edge" in row["reason"])
    assert (counted["verdicts"], counted["cells"], counted["losses"]) == ("2", "2", "ngl")
    summary = report.summary(made)
    assert re.search(r"^ngl +◇ withheld \[1\]", summary, re.MULTILINE)
    assert "1 the search ended at the edge of the learning rates tried" in summary


def test_what_withholds_the_baseline_withholds_every_verdict_but_rules_the_others_in_or_out(study):
    a = Analysis(searched_to_the_edge(study, "cross_entropy"))
    assert {found.verdict for found in a.comparisons.values()} == {"withheld"}
    assert "Every verdict is withheld" in verdicts.lead(a)
    kept = {each.label for each in a.best[a.cells[1]] if each.may_be_best}
    assert kept == {"ngl", "cross_entropy"}  # the others lost to ngl at rates of their own
    table = table_of(withheld.section(a), "withheld")
    first = {column.key: entry.text for column, entry in zip(table.columns, table.rows[0].entries, strict=True)}
    assert (first["whose"], first["verdicts"], first["losses"]) == ("cross-entropy, the baseline", "18", "all")


def test_every_reason_has_a_kind_and_a_remedy(study):
    loud = synthetic.study(history=False, control_shift=0.0)
    found = [Analysis(loud), Analysis(searched_to_the_edge(study)), Analysis(synthetic.study(seeds=(1, 2)))]
    kinds = {why.kind for a in found for c in a.comparisons.values() for why in c.because}
    assert len(kinds) >= 4
    assert all(kind.what and kind.remedy and kind.heading for kind in kinds)


# ---------------------------------------------------------------------------- the best


def test_the_losses_that_may_be_the_best_head_the_report(study, analysis, folder):
    made = compose(study)
    assert [section.id for section in made.sections[:2]] == ["answer", "best"]
    table = table_of(made.sections[1], "best")
    assert texts(table, "where")[0] == "over all cells"
    assert texts(table, "size") == ["3 of 10", "3 of 10", "1 of 10"]
    assert texts(table, "unbeaten") == ["ngl"] * 3
    assert texts(table, "withheld")[1] == "bce_ovr and hinge_ww"  # of which runs failed or are missing
    beaten = by_loss(table_of(made.sections[1], "best-losses"), "beaten_by")
    assert beaten["mae_prob"].text == "ngl"
    markdown = (folder / "report.md").read_text()
    assert "On cnn_micro, 3 of 10 losses may be the best (95 % confidence): NGL" in markdown.split("## Which")[0]
    assert "3 of 10 losses may be the best: NGL, which no other beats" in markdown
    assert "On vit_nano, 1 of 10 losses is the best (95 % confidence): NGL." in " ".join(report.summary(study).split())


def test_where_every_loss_may_be_the_best_one_sentence_says_so():
    losses = ("cross_entropy", "label_smoothing", "bce_ovr")
    same = Analysis(synthetic.study(seeds=(1, 2, 3), losses=losses, noise=0.02, mishaps=False, history=False))
    (prose,) = best.section(same).items
    (sentence,) = prose.paragraphs
    assert sentence.startswith("Every one of 3 losses may be the best in each of 2 cells")
    alone = Analysis(synthetic.study(seeds=(1,), losses=losses, mishaps=False, history=False))
    assert "it takes two runs" in best.sentences(alone)[0]


# ---------------------------------------------------------------------------- runs that did not learn


@pytest.fixture(scope="module")
def collapsed(study):
    """Return the study with one collapsed run of focal on vit_nano."""
    hit = study.runs["label"].eq("focal") & study.runs["model"].eq("vit_nano") & study.runs["seed"].eq(3)
    return with_changes(study, hit & study.runs["role"].eq("run"), **{"test.top1": 0.12})


def test_a_run_that_did_not_learn_is_visible_everywhere(study, collapsed, tmp_path):
    a = Analysis(collapsed)
    cell = a.cells[1]
    before, now = Analysis(study).outcomes[cell, "focal"], a.outcomes[cell, "focal"]
    assert (now.unlearnt, len(now.differences), len(now.all_differences)) == (1, 11, 12)
    report.build(collapsed, tmp_path)
    found = read_csv(tmp_path, "failure-rates")
    rates = next(row for row in found if (row["loss"], row["cell"]) == ("focal", "vit_nano"))
    assert rates["failures"] == "fails in 1 start of 12"
    assert float(rates["rate"]) == pytest.approx(1 / 12)
    assert [float(rates[f"rate_{end}"]) for end in ("low", "high")] == pytest.approx([0.0149, 0.354], abs=1e-3)
    assert float(rates["p"]) == 1
    assert float(rates["learnt"]) == pytest.approx(before.values.mean, abs=0.001)
    assert float(rates["all_difference"]) == pytest.approx(float(rates["difference"]) - 0.07, abs=0.005)
    row = rows_of(tmp_path, "results-digits-vit_nano")["focal"]
    assert row["remarks"] == "1 of 12 did not learn; 11 pairs compared"
    lost = [row for row in read_csv(tmp_path, "failures") if row["status"] == "did not learn"]
    assert [(row["loss"], row["seed"], row["what"]) for row in lost] == [("focal", "3", "scored 12.00")]
    assert "focal loss in 1 start of 12 on vit_nano" in " ".join(notice.text for notice in verdicts.notices(a))
    assert "1/12 did not learn" in report.summary(collapsed)


def test_without_failures_there_is_a_bound_on_their_rate():
    a = Analysis(synthetic.study(seeds=range(1, 9), mishaps=False, history=False))
    prose = failures.section(a).items
    assert "none of 8 starts failed, up to 32 % of starts still may" in prose[0].paragraphs[0]
    assert prose[1].paragraphs == ("Every planned run finished, and learnt.",)


# ---------------------------------------------------------------------------- losses that are one function


def test_losses_whose_runs_are_equal_to_the_last_digit_are_one_finding(study):
    runs = study.runs.copy()
    where = runs["model"].eq("vit_nano") & runs["role"].eq("run")
    tests = [name for name in runs if name.startswith("test.")]
    for seed in runs.loc[where, "seed"].unique():
        of_seed = where & runs["seed"].eq(seed)
        runs.loc[of_seed & runs["label"].eq("ngl"), tests] = runs.loc[of_seed & runs["label"].eq("focal"), tests].values
    a = Analysis(dataclasses.replace(study, runs=runs))
    assert equal_losses(Analysis(study)) == {}
    assert equal_losses(a) == {("focal", "ngl"): [a.cells[1]]}
    sentence = (
        "Equal runs, to the last digit with every seed: focal loss and NGL on vit_nano. Each group is one finding."
    )
    assert sentence in [notice.text for notice in verdicts.notices(a)]
    runs.loc[where & runs["label"].eq("ngl") & runs["seed"].eq(2), "test.top1"] += 1e-9
    assert equal_losses(Analysis(dataclasses.replace(study, runs=runs))) == {}


# ---------------------------------------------------------------------------- scores on test items


def with_items(study, items=360):
    """Return the study with the bits of every test image: what a run scored, each right with that probability."""
    random = np.random.default_rng(11)
    hardness = random.uniform(size=items)
    kept, runs = {}, study.runs.copy()
    for index, run in runs.iterrows():
        if run["status"] == "done":
            right = hardness < np.clip(run["test.top1"] + random.normal(0, 0.002, items), 0, 1)
            runs.loc[index, "test.top1"] = right.mean()
            kept[run["key"]] = {
                "test/item": np.arange(items, dtype=np.int32),
                "test/target": np.zeros(items, dtype=np.uint8),
                "test/correct": np.packbits(right),
            }
    return dataclasses.replace(study, runs=runs, arrays=kept.get)


def test_the_interval_over_new_items_stands_before_that_over_seeds(tmp_path):
    made = with_items(synthetic.study(seeds=range(1, 7), models=("mlp",), mishaps=False, history=False))
    a = Analysis(made)
    report.build(made, tmp_path)
    for label, row in rows_of(tmp_path, "results-digits-mlp").items():
        if label == "cross_entropy":
            continue
        found = a.comparisons[a.cells[0], a.labels[[a.display(x) for x in a.labels].index(label)]]
        assert row["scope"] == "seeds and new test items"
        assert float(row["difference_low"]) == pytest.approx(found.low)
        assert float(row["seeds_low"]) == pytest.approx(found.seeds_low)
        assert found.low <= found.difference <= found.high
    titles = [column.title for column in table_of(results.section(a), "results-digits-mlp").columns]
    assert titles.index("difference (points)") + 1 == titles.index("on these test items")
    assert "over seeds and new test items" in " ".join(report.summary(made).split())


def test_looking_again_is_said_to_be_harmless_or_marked(study):
    looked = Analysis(dataclasses.replace(study, spec=study.spec | {"looks": [8, 12]}))
    assert "anytime-valid" in verdicts.lead(looked)
    assert "Seeds were added after a first report, at 8 and 12 seeds." in results.method(looked)
    assert "anytime-valid" not in verdicts.lead(Analysis(study))


# ---------------------------------------------------------------------------- speed


def test_speed_stands_beside_quality(study):
    a = Analysis(study)
    table = table_of(curves.section(a), "speed")
    history = study.history.merge(study.runs[["key", "label", "model", "role", "status", "seed"]], on="key")
    own = history.query("label == 'ngl' and model == 'vit_nano' and role == 'run' and status == 'done'")
    base = study.runs.query("label == 'cross_entropy' and model == 'vit_nano' and role == 'run'")
    goal = 0.1 + 0.9 * (base["valid.top1"].mean() - 0.1)
    passed = own.groupby("key")[["step", "valid.top1"]].apply(
        lambda run: np.interp(goal, run["valid.top1"].cummax(), run["step"])
    )
    row = {column.key: entry for row in table.rows if [e.text for e in row.entries[:2]] == ["vit_nano", "ngl"]
           for column, entry in zip(table.columns, row.entries, strict=True)}  # fmt: skip
    assert row["step_90"].value == pytest.approx(np.median(passed))
    assert row["seeds_90"].text == f"{len(passed)} of 12"
    assert row["difference"].value == a.comparisons[a.cells[1], "ngl"].difference
    assert by_loss(table, "step_99")["mae_prob"].text == "–"  # it ends 31 points lower
    assert by_loss(table, "seeds_99")["mae_prob"].text == "0 of 12"


def test_without_chance_there_is_no_share_of_the_way_for_a_metric_that_falls(study):
    falls = dataclasses.replace(study, spec={**study.spec, "metric": "test.nll", "margin": 0.0})
    assert not any(getattr(item, "id", "") == "speed" for item in curves.section(Analysis(falls)).items)


@pytest.mark.parametrize("more", [[], ["name=mine"]])
def test_the_command_reproduces_a_study_with_its_overrides(more):
    asked = plan.read_study("demo", ["axes.seed=[1,2]", "base.trainer.epochs=3", "margin=0.01", *more])
    empty = StudyData(asked.name, plan.as_dict(asked), pd.DataFrame(), pd.DataFrame())
    words = shlex.split(reproduce.command(empty))
    assert words[:4] == ["python", "-m", "harness", "study=demo"]
    assert plan.read_study("demo", words[4:]) == asked


def test_a_sweep_with_overrides_says_so_at_its_head(study, tmp_path):
    changed = study.spec | {"study": "demo", "overrides": ["axes.seed=[1,2]"]}
    made = dataclasses.replace(study, name="demo-3fa9c2", spec=changed)
    page = compose(made)
    assert page.title == "demo-3fa9c2"
    assert page.facts[0] == "demo with axes.seed=[1,2]"
    assert "demo with axes.seed=[1,2]" in report.summary(made).splitlines()[0]
    asked = compose(dataclasses.replace(made, spec=changed | {"overrides": ["question=Why?"], "question": "Why?"}))
    assert asked.title == "Why?"


def test_a_study_whose_file_has_changed_since_says_so():
    asked = plan.read_study("demo", ["axes.seed=[1,2]"])
    spec = plan.as_dict(asked) | {"looks": []}  # as it is kept, with what the file cannot say
    same = StudyData(asked.name, spec, pd.DataFrame(), pd.DataFrame())
    assert reproduce.unlike_its_file(same) == ""
    other = dataclasses.replace(same, spec=spec | {"margin": 0.3})
    assert "has changed since in margin" in reproduce.unlike_its_file(other)
    assert "as conf/study/nowhere.yaml first" in reproduce.unlike_its_file(
        dataclasses.replace(same, spec=spec | {"study": "nowhere"})
    )


@pytest.mark.parametrize(
    "made",
    [
        {"seeds": (1,), "losses": ("cross_entropy", "ngl", "hinge_ww")},
        {"seeds": (1, 2), "models": ("cnn_micro",), "controls": False, "history": False},
        {"seeds": (1, 2), "losses": ("cross_entropy",), "track": "fixed"},
    ],
)
def test_small_studies_are_reported(made, tmp_path):
    page = report.build(synthetic.study(**{"mishaps": False, **made}), tmp_path)
    assert "Verdicts" in page.read_text()


def test_a_study_of_which_nothing_ran_is_reported(study, tmp_path):
    runs = study.runs[list(synthetic.PLANNED)].assign(status="missing", source="local")
    nothing = StudyData(study.name, study.spec, runs, pd.DataFrame(columns=["key", "epoch"]))
    page = report.build(nothing, tmp_path).read_text()
    assert "failed or are missing" in page
    assert "no pair of completed runs" in page
    assert max(map(len, report.summary(nothing).splitlines())) <= 100


# ---------------------------------------------------------------------------- formats


def test_every_table_and_figure_is_written_in_every_format(folder):
    markdown, latex = (folder / "report.md").read_text(), (folder / "report.tex").read_text()
    tables = {path.stem for path in (folder / "tables").glob("*.csv")}
    assert tables == {path.stem for path in (folder / "tables").glob("*.tex")}
    assert {"results-all-cells", "results-digits-vit_nano", "cost", "metrics", "controls", "failures", "runs"} <= tables
    drawn = {path.stem for path in (folder / "figures").glob("*.svg")}
    assert drawn == {path.stem for path in (folder / "figures").glob("*.png")}
    assert {"differences-cnn_micro", "curves-valid-digits-vit_nano", "curves-train-digits-cnn_micro"} <= drawn
    assert all(f"figures/{name}.svg" in markdown for name in drawn)
    assert r"\input{tables/results-all-cells.tex}" in latex


def test_reconstructions_carry_the_word_in_every_format(folder):
    for path in ("index.html", "report.md", "tables/cost.csv", "tables/cost.tex", "figures/differences-cnn_micro.svg"):
        text = (folder / path).read_text()
        text = text.replace(r"\_", "_").replace("<wbr>", "")
        assert "pf_loss_r1 (reconstruction)" in text or "PF-loss, reconstruction 1" in text, path


def test_markdown_tables_have_equal_rows(folder):
    lines = (folder / "report.md").read_text().splitlines()
    for before, line in itertools.pairwise(lines):
        if before.startswith("|") and line.startswith("|"):
            assert len(re.split(r"(?<!\\)\|", before)) == len(re.split(r"(?<!\\)\|", line))
    assert not any("<b>" in line for line in lines if line.startswith("|"))


def test_latex_escapes_what_it_must(folder):
    for path in (folder / "tables").glob("*.tex"):
        text = path.read_text()
        assert text.isascii() or all(ord(letter) < 0x250 for letter in text)
        bodies = re.findall(r"\\midrule(.*?)\\bottomrule", text, re.DOTALL)
        assert not re.search(r"(?<!\\)[_%#]", "".join(bodies)), path.name
        assert len(bodies) == text.count(r"\begin{table}") >= 1


def test_latex_breaks_long_tables_and_titles_and_drops_empty_columns():
    columns = (Column("a", "loss"), Column("b", "a very long title of numbers", "number"), Column("c", "remarks"))
    rows = tuple(Row((Entry(f"loss {i}"), Entry(str(i)), Entry(""))) for i in range(100))
    text = latex.table(Table("x", "Title", columns, rows, "Caption."))
    assert text.count(r"\begin{table}") == 3
    assert text.count("(continued)") == 2
    assert text.count(r"\label{tab:x}") == 1
    assert all(f"loss {i} & {i} " in text for i in range(100))
    assert "remarks" not in text
    assert r"\textbf{a very long} \\ \textbf{title of} \\ \textbf{numbers}" in text


def test_every_link_of_the_page_leads_somewhere_and_none_leaves_it(folder):
    page = (folder / "index.html").read_text()
    names = re.findall(r'\sid="([^"]+)"', page)
    assert len(names) == len(set(names))
    links = re.findall(r'href="([^"]+)"', page)
    inner = {link[1:] for link in links if link.startswith("#")}
    assert inner <= set(names)
    assert sum(link.startswith("#set-") for link in links) > 50
    files = {link for link in links if not link.startswith(("#", "data:"))}
    assert all((folder / link).exists() for link in files)
    assert not re.search(r'(src|href)="(https?:)?//', page)


def test_the_same_records_give_the_same_files(tmp_path):
    few = {"seeds": (1, 2), "losses": ("cross_entropy", "ngl"), "models": ("cnn_micro",), "mishaps": False}
    for name in ("a", "b"):
        report.build(synthetic.study(**few), tmp_path / name)
    files = [path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*")]
    assert len(files) > 20
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


def test_a_page_of_1000_runs_is_below_5_mb(tmp_path):
    many = synthetic.study(seeds=range(1, 35), models=tuple(synthetic.MODELS), track="fixed", mishaps=False)
    assert len(many.runs) > 1000
    assert report.build(many, tmp_path).stat().st_size < 5e6 / 2  # many losses in many cells take twice as much


def test_the_terminal_gets_a_table_of_at_most_100_columns(study, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    text = report.summary(study)
    assert max(map(len, text.splitlines())) <= 100
    a = Analysis(study)
    difference, mean = (
        a.metric.difference(a.comparisons[a.cells[0], "ngl"]),
        a.metric.interval(a.outcomes[a.cells[0], "ngl"].values),
    )
    assert re.search(rf"^ngl +▲ better +{re.escape(difference)} +{re.escape(mean)} +12$", text, re.MULTILINE)
    assert "2/12 diverged" in text
    assert "simultaneous 95 % intervals over the 9 losses of a cell" in " ".join(text.split())


@pytest.mark.parametrize("columns", [40, 60, 80, 120])
def test_the_terminal_is_as_wide_as_it_is(study, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    text = report.summary(study)
    assert max(map(len, text.splitlines())) <= columns
    assert re.search(r"^ngl +▲ better", text, re.MULTILINE)
    assert ("difference (points)" in text) == (columns >= 60), "the effect stands wherever there is room"
    assert ("mean (%)" in text) == (columns >= 80)


def test_the_report_needs_no_torch(tmp_path):
    code = (
        "import sys; from pathlib import Path; from harness import report; from tests import synthetic; "
        "report.build(synthetic.study(seeds=(1, 2), history=False), Path(sys.argv[1])); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=120)


def test_an_unknown_study_is_one_sentence_and_exit_code_2(capsys):
    assert main(["build", "no_such_study"]) == 2
    words = capsys.readouterr().err.strip()
    assert "no_such_study" in words
    assert "\n" not in words


# ---------------------------------------------------------------------------- in a browser


@pytest.fixture
def page(browser, folder):
    """Return the page at desktop width, watched for errors and for requests that leave the disk."""
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    problems: list[str] = []
    opened.on(
        "console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None
    )
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on(
        "request", lambda sent: None if sent.url.startswith(("file:", "data:", "blob:")) else problems.append(sent.url)
    )
    opened.goto((folder / "index.html").as_uri())
    yield opened
    opened.close()
    assert problems == []


PAPER = 673  # pixels between the margins of an A4 sheet
RESULTS = "#table-results-digits-cnn_micro"


def shown(page, column):
    return page.locator(f"{RESULTS} tbody tr > :nth-child({column})").all_inner_texts()


def test_a_click_sorts_the_table(page):
    before = shown(page, 1)
    title = page.locator(f"{RESULTS} thead button", has_text="loss")
    title.click()
    assert shown(page, 1) == sorted(before) != before
    title.click()
    assert shown(page, 1) == sorted(before, reverse=True)
    assert page.locator(f"{RESULTS} th[aria-sort]").get_attribute("aria-sort") == "descending"


def test_the_keyboard_sorts_numbers_by_value_and_leaves_gaps_last(page):
    index = page.locator(f"{RESULTS} thead button").all_inner_texts().index("difference (points)") + 1
    title = page.locator(f"{RESULTS} thead button").nth(index - 1)
    title.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Space")  # ascending
    found = [text.split()[0].replace("−", "-") for text in shown(page, index)]
    assert found[-1] == "–"  # the baseline has no difference
    numbers = [float(text) for text in found[:-1]]
    assert numbers == sorted(numbers)
    assert numbers[0] < -30


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Return the page of a small study: axe looks at every element."""
    losses = ("cross_entropy", "ngl", "arcface", "pf_loss_r1")
    return report.build(synthetic.study(seeds=(1, 2), losses=losses, track="fixed"), tmp_path_factory.mktemp("small"))


def faults(page, within="html"):
    """Return what axe finds: rule, impact, an element and how many there are."""
    found = Axe().run(page, context=within).response["violations"]
    return [(each["id"], each["impact"], each["nodes"][0]["html"][:200], len(each["nodes"])) for each in found]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_axe_finds_no_fault(browser, small, width, scheme):
    page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    page.goto(small.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    chooser(page, "loss").fill("r")  # most rows stay, and a verdict is left without any
    found = faults(page)
    page.get_by_role("button", name="Enlarge: vit_nano").click()
    found += faults(page, "dialog")
    page.evaluate("document.querySelector('dialog h2').style.color = 'var(--line)'")
    provoked = faults(page, "dialog")
    page.close()
    assert found == []
    assert [rule for rule, *_ in provoked] == ["color-contrast"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_overflows_the_page(page, width, scheme):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 844})
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", paper)[:3])) < 200) == (scheme == "dark")


@pytest.mark.parametrize("width", [390, 1280])
def test_letters_in_figures_can_be_read(page, width):
    page.set_viewport_size({"width": width, "height": 844})
    sizes = page.evaluate(
        """[...document.querySelectorAll("figure svg")].filter(svg => svg.clientWidth).flatMap(svg =>
            [...svg.querySelectorAll("text")].map(
                text => parseFloat(getComputedStyle(text).fontSize) * svg.clientWidth / svg.viewBox.baseVal.width))"""
    )
    assert min(sizes) > 9


def test_a_number_leads_to_its_runs(page):
    page.locator(f"{RESULTS} tbody tr").first.locator("a").first.click()
    target = page.locator("li:target")
    assert target.is_visible()
    assert target.inner_text().startswith("12 runs")
    target.locator("a").first.click()
    assert page.locator("tr:target").is_visible()


def chooser(page, kind):
    return page.get_by_role("combobox", name=kind, exact=True)


def visible_rows(page, table):
    return page.locator(f"{table} tbody tr:visible > th").all_inner_texts()


def test_a_filter_hides_what_is_about_something_else(page):
    every = page.locator("tr[data-filters]").count()
    chooser(page, "model").select_option("vit_nano")
    assert not page.locator(RESULTS).is_visible()
    assert page.get_by_text("No row of this table fits the filter.").locator("visible=true").count()
    assert len(visible_rows(page, "#table-results-digits-vit_nano")) == len(synthetic.LOSSES)
    assert len(visible_rows(page, "#table-results-all-cells")) == len(synthetic.LOSSES) - 1  # about no single model
    assert page.locator("figure:visible h3").all_inner_texts()[0] == "vit_nano"
    chooser(page, "family").select_option("angular")
    assert sorted(visible_rows(page, "#table-results-digits-vit_nano")) == ["ArcFace", "Cross-entropy"]
    status = page.get_by_role("status")
    left, total = map(int, re.findall(r"[0-9]+", status.inner_text().replace(",", "")))
    assert 0 < left < total
    page.get_by_role("button", name="Show all").click()
    page.wait_for_function("!document.querySelector('#filtered output').textContent")  # changes first
    assert page.locator("tr[data-filters]:not([hidden])").count() == every
    assert page.evaluate("document.activeElement.closest('form')?.id") == "filters"


def test_losses_are_searched_by_part_of_their_name(page):
    chooser(page, "loss").fill("FOCAL")
    assert sorted(visible_rows(page, RESULTS)) == ["Cross-entropy", "Focal loss", "Focal loss gamma=5"]
    assert "Focal loss gamma=5" in page.locator("#verdicts .points li:visible").first.inner_text()
    assert page.locator("#answer .points dt:visible").all_inner_texts() == ["Focal loss"]
    assert len(visible_rows(page, "#table-verdicts")) == 3
    chooser(page, "loss").fill("no such loss")
    assert page.get_by_text("none that fits the filter").count() > 1


def test_a_link_into_what_is_filtered_away_shows_everything(page):
    page.locator(f"{RESULTS} tbody tr").first.locator("a").first.click()
    chooser(page, "family").select_option("margin")
    link = page.locator("li:target a").first  # a run of another family
    link.click()
    page.wait_for_function("document.querySelector('tr:target:not([hidden])')")
    assert chooser(page, "family").input_value() == ""


def test_what_has_one_value_has_no_filter(tmp_path):
    few = synthetic.study(seeds=(1, 2), losses=("cross_entropy", "ngl"), models=("mlp",), controls=False, history=False)
    written = report.build(few, tmp_path).read_text()
    assert "<label>loss <input" in written
    assert "<label>model" not in written
    assert "<label>family" not in written


def test_a_figure_is_enlarged_and_escape_leads_back(page):
    button = page.get_by_role("button", name="Enlarge: vit_nano")
    button.focus()
    page.keyboard.press("Enter")
    shown = page.get_by_role("dialog", name="vit_nano")
    assert shown.is_visible()
    inside, outside = (
        at.bounding_box()["width"] for at in (shown.locator("svg"), page.locator("main figure svg").first)
    )
    assert inside > 1.5 * outside
    page.keyboard.press("Escape")
    assert not shown.is_visible()
    assert page.evaluate("document.activeElement.textContent") == "Enlarge"
    page.locator("#differences-cnn_micro .drawing").click()
    assert page.get_by_role("dialog", name="cnn_micro").is_visible()


def test_figures_are_saved_from_the_page_alone(browser, folder, tmp_path):
    (tmp_path / "moved.html").write_bytes((folder / "index.html").read_bytes())
    page = browser.new_page(color_scheme="dark")
    page.goto((tmp_path / "moved.html").as_uri())
    page.get_by_role("button", name="Enlarge: vit_nano").click()
    found = {}
    for kind in ("SVG", "PNG"):
        with page.expect_download() as saving:
            page.get_by_role("dialog").get_by_role("button", name=kind).click()
        found[saving.value.suggested_filename] = saving.value.path().read_bytes()
    page.close()
    assert list(found) == ["differences-vit_nano.svg", "differences-vit_nano.png"]
    drawing = found["differences-vit_nano.svg"].decode()
    assert ElementTree.fromstring(drawing).tag == "{http://www.w3.org/2000/svg}svg"
    assert "var(" not in drawing
    assert figures.INK in drawing  # light colours, also from a dark page
    picture, beside = (
        matplotlib.image.imread(io.BytesIO(content))
        for content in (found["differences-vit_nano.png"], (folder / "figures/differences-vit_nano.png").read_bytes())
    )
    assert np.allclose(picture.shape[:2], beside.shape[:2], atol=2)
    assert np.abs(picture[..., :3].mean() - beside[..., :3].mean()) < 0.02


def test_the_runs_say_how_mlflow_finds_them(page, study):
    words = page.locator("#runs p").first.inner_text()
    key = re.search("tags.`lossbench.key` = '([0-9a-f]+)'", words)
    assert key is not None
    assert key[1] in set(study.runs["key"])


def test_it_prints_everything_on_light_paper_without_cutting_tables(page):
    page.emulate_media(media="print", color_scheme="dark")
    page.set_viewport_size({"width": PAPER, "height": 1000})
    hidden = page.locator("nav, #filters, .files button")
    assert not any(hidden.nth(index).is_visible() for index in range(hidden.count()))
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.evaluate("document.body.style.color = 'var(--alarm)'")
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(163, 18, 31)"
    tables = page.evaluate(
        "[...document.querySelectorAll('table')].map(t => [t.id, t.checkVisibility({contentVisibilityAuto: true}), "
        "t.getBoundingClientRect().right])"
    )
    unprinted = {name for name, visible, _ in tables if not visible}
    assert unprinted == {"table-runs"}  # folded and long; a folded short one, the settings, is opened
    assert page.locator("details.long + .unprinted").first.is_visible()
    cut = [(name, right) for name, visible, right in tables if visible and right > PAPER + 1]
    assert cut == []


def test_a_pdf_repeats_the_head_of_a_table_on_every_page(page, tmp_path):
    if shutil.which("pdftotext") is None:
        lacks("no pdftotext to read the PDF with")
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    page.pdf(path=tmp_path / "report.pdf", format="A4", prefer_css_page_size=True)
    text = subprocess.run(
        ["pdftotext", "-layout", tmp_path / "report.pdf", "-"], capture_output=True, text=True, check=True
    )
    pages = text.stdout.split("\f")
    head = "run role loss cell seed status"  # longer names of columns may take two lines
    assert sum(head in re.sub(r"\s+", " ", text) for text in pages) > 2


# ---------------------------------------------------------------------------- class by class


def by_class(study, scores):
    """Return the study with a score of each class by label (none: 0.5, 0.25)."""
    texts = [json.dumps(scores.get(label, [0.5, 0.25])) for label in study.runs["label"]]
    return dataclasses.replace(
        study, runs=study.runs.assign(**{"test.per_class": texts, "data.classes": '["cat", "rare dog"]'})
    )


def test_classes_are_listed_by_name_and_by_loss(study):
    losses = Analysis(study).challengers
    a = Analysis(by_class(study, {losses[0]: [0.75, None]}))
    table = classes.section(a).items[1]
    assert [column.title for column in table.columns] == ["loss", "cat", "rare dog"]
    rows = {row.entries[0].text: row.entries[1:] for row in table.rows}
    assert [entry.text for entry in rows[a.display(a.baseline)]] == ["50.0", "25.0"]
    first, second = rows[a.display(losses[0])]
    assert (first.text, first.note.split(",")[0]) == ("75.0", "+25.0 from the baseline")
    assert second.value is None
    assert "neither occurs" in second.note


def test_too_many_classes_make_no_table(study):
    many = dataclasses.replace(study, runs=study.runs.assign(**{"test.per_class": json.dumps([0.5] * 26)}))
    assert classes.section(Analysis(many)).items == ()


def test_cells_that_differ_in_a_number_have_figures_of_their_own(study, tmp_path):
    def at(frame, level, **more):
        return frame.assign(key=frame["key"] + level, **more)

    levels = ("0", "0.4")
    runs = pd.concat([at(study.runs, level, **{"axis.stress.rate": level}) for level in levels])
    history = pd.concat([at(study.history, level) for level in levels])
    both = dataclasses.replace(study, runs=runs.reset_index(drop=True), history=history.reset_index(drop=True))
    report.build(both, tmp_path)
    drawn = [path.stem for path in (tmp_path / "figures").glob("curves-valid-*.svg")]
    ends = ("-40-wrong-labels", "-clean-labels")
    assert sum(name.endswith(ends[0]) for name in drawn) == sum(name.endswith(ends[1]) for name in drawn) > 0


def test_losses_are_ranked_where_there_are_eight_data_sets(tmp_path):
    whole = synthetic.study(models=("cnn_micro",), mishaps=False)
    assert not ranks.section(Analysis(whole)).items
    parts = []
    for index in range(8):
        part = whole.runs.copy()
        part["dataset"], part["key"] = f"data{index}", part["key"] + f"-{index}"
        parts.append(part)
    many = dataclasses.replace(whole, runs=pd.concat(parts, ignore_index=True))
    prose, figure = ranks.section(Analysis(many)).items
    assert "ranked on each of 8 data sets" in prose.paragraphs[0]
    assert "(NGL)" in prose.paragraphs[0]
    assert len(figure.draw().axes) == 1
    few = many.runs[~((many.runs["label"] == "focal") & (many.runs["dataset"] == "data3"))]
    (sentence,) = ranks.section(Analysis(dataclasses.replace(many, runs=few))).items[0].paragraphs
    assert "Left out, because a data set lacks them: focal loss." in sentence


# ---------------------------------------------------------------------------- many runs


def test_more_runs_than_a_page_holds_are_listed_in_csv_alone(study, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "MOST", len(study.runs) - 1)
    page = report.build(study, tmp_path).read_text()
    listed = (tmp_path / "tables" / "runs.csv").read_text()
    assert all(key in listed for key in study.runs["key"])
    assert 'href="tables/runs.csv"' in page
    assert f'id="run-{study.runs["key"].iloc[0]}"' not in page
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(re.findall(r'\sid="([^"]+)"', page))
    words = f"{len(study.runs)} runs, too many for a page"
    assert words in page
    assert words in (tmp_path / "report.md").read_text()
    first = study.runs["key"].iloc[0]
    assert first in page.split('id="run-sets"')[1]  # what a number comes from is still there
    monkeypatch.setattr(runs, "MOST", len(study.runs))
    assert f'id="run-{first}"' in report.build(study, tmp_path).read_text()


@pytest.mark.parametrize("cores", [2, 3])
def test_figures_drawn_side_by_side_are_the_same_bytes(study, tmp_path, monkeypatch, cores):
    drawn = {item.id: item.draw for item in compose(study).figures()}
    drawn["local"] = lambda: drawn["differences-cnn_micro"]()
    monkeypatch.setattr(figures.hardware, "cores", lambda: 1)
    figures.save_all(drawn, tmp_path / "one")
    monkeypatch.setattr(figures.hardware, "cores", lambda: cores)
    monkeypatch.setattr(figures, "FEW", 1)
    figures.save_all(drawn, tmp_path / "many")
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(files) == 2 * len(drawn)
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "many" / file).read_bytes(), file


def test_an_error_in_a_figure_is_raised_wherever_it_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(figures.hardware, "cores", lambda: 2)
    monkeypatch.setattr(figures, "FEW", 1)
    bars = {"cell": [figures.Bar("a", 0.0, 0.0, 0.0, "no verdict", "")]}
    bad = functools.partial(figures.forest, bars, 0.1, 1.0, "x")
    with pytest.raises(KeyError, match="no verdict"):
        figures.save_all(dict.fromkeys("abcd", bad), tmp_path)


def test_curves_lie_where_their_numbers_say():
    epochs = pd.Index(range(1, 9), name="epoch")
    mean = pd.Series(np.linspace(0.5, 0.9, 8), index=epochs)
    good = multiples.Curve(pd.DataFrame({"mean": mean, "low": mean - 0.01, "high": mean + 0.01}), ())
    broken = multiples.Curve(good.over.iloc[:0], (mean.iloc[:3],))
    figure = multiples.curves({"base": good, "other": good, "lost": broken}, "base", "accuracy", 100.0, True)
    figure.canvas.draw()
    lines = [artist for artist in figure.artists if isinstance(artist, Line2D)]
    firsts = [line for line in lines if line.get_color() == figures.BLUE and len(line.get_xdata())]
    assert [list(line.get_ydata()) for line in firsts] == [list(mean * 100)] * 2
    corners = [line.get_transform().transform([(1, 90), (8, 90)]) for line in firsts]
    assert np.allclose(corners[0][:, 1], corners[1][:, 1])  # one vertical axis
    assert corners[1][0, 0] > corners[0][1, 0]  # the second panel is to the right of the first
    words = {artist.get_text() for artist in figure.artists if isinstance(artist, Text)}
    assert {"base", "other", "lost", "1 diverged"} <= words
    ticks = {artist.get_text(): artist.get_position() for artist in figure.artists if isinstance(artist, Text)}
    at = firsts[0].get_transform() - figure.dpi_scale_trans
    assert ticks["80"][1] == pytest.approx(at.transform((1, 80))[1])
