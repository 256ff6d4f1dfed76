"""Exhibits of classification on planted truths: taxonomy, architectures, NGL's table, imbalance."""

import csv
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from harness import plan
from harness.analysis import stats
from harness.analysis.cells import Analysis
from harness.compose import options
from harness.records.study import StudyData
from harness.report import writing
from harness.report.exhibits import architectures, imbalance, methods, ngl, taxonomy
from harness.report.exhibits.drawings import Dot
from harness.report.items import Figure, Table


def records(value, *, labels, models=("cnn_micro",), axes=({},), seeds=range(1, 9), metrics=(), name="survey", **spec):
    """Return records whose metric is ``value(label, model, axes)``, seeds moving all losses alike."""
    random = np.random.default_rng(0)
    rows = []
    for model in models:
        for at in axes:
            for seed in seeds:
                common = random.normal(0, 0.01)
                for label in labels:
                    found = value(label, model, at) + common + random.normal(0, 0.0015)
                    rows.append({
                        "role": "run", "status": "done", "label": label, "loss": label, "dataset": "digits",
                        "model": model, "seed": seed, "pair_seed": seed, "key": f"{label}/{model}/{at}/{seed}",
                        "setting": label, "source": "runs", "test.top1": found, "loss_name": label,
                        "loss_family": FAMILIES.get(label, "probability"), "loss_link": "softmax",
                        "loss_evidence": "R" if label.startswith("pf_") else "V", "loss_paper": "",
                        "env.device": "cpu", "env.torch": "2.14.1",
                        **{f"axis.{key}": part for key, part in at.items()}, **dict.fromkeys(metrics, found),
                    })  # fmt: skip
    content = {"name": name, "baseline": "cross_entropy", "metric": "test.top1", "margin": 0.005} | spec
    history = pd.DataFrame([{"key": row["key"], "epoch": 1} for row in rows])
    return StudyData(name, content, pd.DataFrame(rows), history)


FAMILIES = {"arcface": "angular", "dice": "region", "brier": "quantity", "hinge_ovr": "margin"}
LABELS = ("cross_entropy", "focal", "arcface", "dice", "brier", "hinge_ovr")
SHIFTS = {"focal": 0.0, "arcface": 0.03, "dice": -0.02, "brier": -0.2, "hinge_ovr": 0.0}


def first(section, kind, part=""):
    return next(item for item in section.items if isinstance(item, kind) and part in item.id)


# ---------------------------------------------------------------- taxonomy


def test_the_taxonomy_shows_what_each_of_its_losses_did():
    section = taxonomy.section(Analysis(records(lambda x, *_: 0.9 + SHIFTS.get(x, 0), labels=LABELS)))
    table = first(section, Table)
    by_loss = {row.entries[3].text: row for row in table.rows}
    assert len({row.entries[0].text for row in table.rows}) == 55
    assert by_loss["arcface"].entries[4].note.startswith("better; 99 % interval over seeds")
    assert by_loss["arcface"].entries[1].text == "ArcFace (printed AcrFace)"
    assert by_loss["brier"].entries[1].text.startswith("Mean Squared Error")
    assert by_loss["hinge_ovr"].entries[0].text == "4.1.2"
    assert by_loss["cross_entropy"].reference
    missing = by_loss["poly1"].entries[4]
    assert "axes.loss=[cross_entropy,poly1]" in missing.note
    sentences = " ".join(section.items[0].paragraphs)
    assert "angular is the best family" in sentences
    assert "quantity the worst" in sentences


def test_families_are_drawn_with_every_loss_and_what_is_far_away_is_counted():
    study = records(lambda x, *_: 0.9 + SHIFTS.get(x, 0), labels=LABELS)
    drawn = first(taxonomy.section(Analysis(study)), Figure)
    figure = drawn.draw()
    labels = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert labels == ["angular (1)", "margin (1)", "probability (1)", "quantity (1)", "region (1)"]
    assert "1 further away" in [text.get_text() for text in figure.axes[0].texts]
    assert "Brier" in drawn.alt


def test_losses_at_one_place_do_not_hide_each_other():
    figure = taxonomy.drawings.families({"x": {"f": [Dot(0.1, "better", "a"), Dot(0.1, "better", "b")]}}, 0.5, 1, "d")
    heights = [line.get_ydata()[0] for line in figure.axes[0].lines if line.get_marker() == "^"]
    assert len(set(heights)) == 2


# ---------------------------------------------------------------- architectures


def gains(label, model, at):
    return 0.9 + (SHIFTS.get(label, 0) if model == "cnn_micro" or label != "dice" else 0.03)


def test_an_interaction_is_found_where_one_was_planted_and_only_there():
    a = Analysis(records(gains, labels=LABELS, models=("cnn_micro", "vit_nano"), seeds=range(1, 13)))
    section = architectures.section(a)
    verdicts = {row.entries[0].text: row.entries[-1].text for row in first(section, Table).rows}
    assert verdicts["dice"] == "gains more on the second"
    assert {verdicts[x] for x in ("focal", "arcface", "brier")} == {"the same on both"}
    sentences = section.items[0].paragraphs[1]
    assert "arcface has the best mean on cnn_micro" in sentences or "arcface has the best mean on both" in sentences
    assert "the gain of 1 loss of 5 is shown to depend on the architecture" in sentences
    figure = first(section, Figure).draw()
    assert [text.get_text() for text in figure.axes[0].texts] == ["Dice"]


def test_an_interaction_is_withheld_where_a_verdict_is():
    study = records(gains, labels=LABELS, models=("cnn_micro", "vit_nano"), seeds=range(1, 13))
    lost = (study.runs["label"] == "dice") & (study.runs["model"] == "vit_nano") & (study.runs["seed"] == 3)
    study.runs.loc[lost, ["status", "test.top1"]] = ["failed", np.nan]
    row = next(
        row for row in first(architectures.section(Analysis(study)), Table).rows if row.entries[0].text == "dice"
    )
    assert row.entries[-1].text == "withheld"
    assert row.entries[-1].note == "withheld: because 1 of 12 runs failed"


def test_chance_interactions_are_rare():
    """Two losses, no interaction, 200 studies: at most 5 % may show one (binomially at most 20)."""
    wrong = 0
    random = np.random.default_rng(3)
    a = Analysis(records(lambda *_: 0.9, labels=LABELS[:3], models=("cnn_micro", "vit_nano"), margin=0))
    for _ in range(200):
        interactions = {label: random.normal(0, 0.01, 6) - random.normal(0, 0.01, 6) for label in LABELS[1:3]}
        found = stats.compare_family(interactions, a.scale(a.cells[0]))
        wrong += any(c.verdict in ("better", "worse") for c in found.values())
    assert wrong <= 20


def test_one_architecture_says_how_to_add_another():
    section = architectures.section(Analysis(records(gains, labels=LABELS)))
    assert "axes.model=[a,b]" in section.items[0].paragraphs[-1]


# ---------------------------------------------------------------- NGL


def test_printed_and_measured_differences_stand_side_by_side():
    study = records(
        lambda x, *_: 0.9 + {"ngl": 0.02, "focal": -0.002}.get(x, 0), labels=("cross_entropy", "ngl", "focal")
    )
    study.runs["dataset"] = "cifar10"
    table = first(ngl.section(Analysis(study)), Table)
    rows = {(row.entries[0].text, row.entries[2].text): row.entries for row in table.rows}
    ours = rows["cifar10", "ngl"]
    assert [entry.text for entry in ours[3:5]] == ["+0.12", "same"]
    assert ours[6].text == "more"
    assert ours[7].value == pytest.approx(2 - 0.12, abs=0.2)
    assert rows["cifar10", "focal"][6].text == "same"
    assert "axes.loss=[cross_entropy,symmetric_cross_entropy" in rows["cifar10", "symmetric_cross_entropy"][5].note
    assert rows["pcam", "ngl"][3].text == "+7.07"
    study.runs["config.stress.rate"] = 0.4
    table = first(ngl.section(Analysis(study)), Table)
    noisy = next(row.entries for row in table.rows if row.entries[2].text == "ngl")
    assert (noisy[3].text, noisy[3].note) == ("–", "the paper trained on whole, clean data")


def test_chosen_rates_stand_over_the_number_of_classes():
    study = records(lambda *_: 0.9, labels=("cross_entropy", "ngl"))
    study.runs["data.classes"] = 10.0
    trials = pd.concat([study.runs[study.runs["seed"] <= 2].assign(lr=rate) for rate in (0.1, 0.3)])
    best = {"cross_entropy": 0.1, "ngl": 0.3}
    trials["valid.top1"] = [0.9 - 0.1 * (lr != best[x]) for x, lr in zip(trials["label"], trials["lr"], strict=True)]
    trials = trials.assign(role="search", setting=trials["label"] + trials["lr"].astype(str))
    searched = replace(study, runs=pd.concat([study.runs, trials], ignore_index=True))
    table = first(ngl.section(Analysis(searched)), Table, "rates")
    assert [[entry.text for entry in row.entries] for row in table.rows] == [
        ["digits", "cnn_micro", "10", "0.1", "0.3", "3"]
    ]
    assert len(ngl.section(Analysis(records(lambda *_: 0.9, labels=("cross_entropy", "ngl")))).items) == 2


# ---------------------------------------------------------------- imbalance

AXES = [{"stress.profile": "tail", "stress.ratio": ratio} for ratio in (1, 10, 50)]
AXES += [{"stress.profile": "step", "stress.ratio": ratio} for ratio in (10, 50)]
METRICS = ("test.gmean", "test.auc", "test.minority_recall")


def rare(label, _, at):
    ratio = at["stress.ratio"]
    return 0.95 - 0.1 * np.log10(ratio) + (0.05 if label == "pf_loss_r1" and ratio == 50 else 0)


def imbalanced():
    study = records(rare, labels=("cross_entropy", "focal", "pf_loss_r1"), axes=AXES, metrics=METRICS,
                    name="imbalance", exhibits=["imbalance"])  # fmt: skip
    study.spec["metric"] = "test.gmean"
    study.runs.loc[study.runs["axis.stress.ratio"] == 1, "test.minority_recall"] = np.nan
    return study


def test_imbalance_is_shown_by_ratio_profile_and_metric(tmp_path):
    study = imbalanced()
    section = imbalance.section(Analysis(study))
    sentences = section.items[0].paragraphs[-1]
    assert "tail, 1:50, cnn_micro: pf_loss_r1 (reconstruction)" in sentences
    gmean = first(section, Table, "gmean")
    assert len(gmean.columns) == 6
    assert len(first(section, Table, "minority").columns) == 5  # balanced data have no minority
    row = next(row for row in gmean.rows if row.entries[0].text.startswith("pf_loss_r1"))
    assert [entry.tone for entry in row.entries[1:]].count("better") == 2
    figure = first(section, Figure).draw()
    assert [axes.get_ylabel() for axes in figure.axes][::2] == [
        "test G-mean (%)", "test area under ROC (%)", "test minority recall (%)",
    ]  # fmt: skip
    assert [label.get_text() for label in figure.axes[-1].get_xticklabels()] == ["1", "10", "50"]
    writing.write(study, tmp_path)
    assert (tmp_path / "figures" / "imbalance-ratio.svg").exists()


def test_a_profile_that_is_no_axis_is_that_of_the_runs_and_intervals_end_at_a_hundred():
    axes = [{"stress.ratio": ratio} for ratio in (10, 50)]
    study = records(lambda *_: 0.995, labels=("cross_entropy", "focal"), axes=axes,
                    metrics=METRICS, name="imbalance_binary", exhibits=["imbalance"])  # fmt: skip
    study.runs["config.stress.profile"] = "step"
    study.runs[list(METRICS)] = study.runs[list(METRICS)].clip(upper=1)
    study.spec["metric"] = "test.gmean"
    section = imbalance.section(Analysis(study))
    assert "step, 1:50, cnn_micro: no loss" in section.items[0].paragraphs[-1]
    figure = first(section, Figure).draw()
    assert figure.axes[0].get_title(loc="left") == "step"
    tops = [top for axes in figure.axes for bars in axes.collections for (_, (_, top)) in bars.get_segments()]
    assert tops
    assert max(tops) <= 100 + 1e-9
    assert all(entry.high <= 1 for row in first(section, Table, "auc").rows for entry in row.entries[1:])


def test_data_that_are_imbalanced_as_they_are_have_tables_and_no_figure_against_the_ratio():
    study = records(lambda label, *_: 0.7 + 0.1 * (label == "focal"), labels=("cross_entropy", "focal"),
                    axes=[{"dataset.path": f"tables/{name}.csv"} for name in "ab"], metrics=METRICS[:2],
                    name="imbalance_tables", exhibits=["imbalance"])  # fmt: skip
    study.spec["metric"] = "test.gmean"
    a = Analysis(study)
    assert [cell.short for cell in a.cells] == ["a.csv", "b.csv"]
    section = imbalance.section(a)
    assert [each.title for each in section.items[1:]] == ["test G-mean", "test area under ROC"]
    assert len(first(section, Table, "gmean").columns) == 3


def test_partial_imbalance_is_a_partial_exhibit():
    study = imbalanced()
    study.runs.loc[(study.runs["label"] == "focal") & (study.runs["axis.stress.ratio"] == 50), "status"] = "missing"
    table = first(imbalance.section(Analysis(study)), Table, "gmean")
    row = next(row for row in table.rows if row.entries[0].text == "focal")
    assert ["python -m harness study=imbalance" in entry.note for entry in row.entries[1:]].count(True) == 2


def test_a_study_without_ratios_says_so():
    section = imbalance.section(Analysis(records(gains, labels=LABELS)))
    assert "axes.stress.ratio=[1,10,50]" in section.items[0].paragraphs[0]


# ---------------------------------------------------------------- methods


def test_methods_of_the_review_stand_beside_what_their_losses_did():
    labels = ("cross_entropy", "dice", "focal", "cross_entropy_dice")
    study = records(lambda x, model, _: 0.6 + {"dice": 0.05}.get(x, 0) * (model == "unet_micro"), labels=labels,
                    models=("unet_micro", "vit_seg_micro"))  # fmt: skip
    study.runs["task"] = "segmentation"
    table = first(methods.section(Analysis(study)), Table)
    rows = {row.entries[0].text: row.entries for row in table.rows}
    assert "better" in rows["UNet"][3].text
    assert rows["UNet"][4].note == "the method is no transformer"
    assert rows["Tri-Net"][3].text.startswith("cross_entropy_dice")
    assert rows["Tri-Net"][3].note == ""
    assert rows["Swin Transformer"][4].text.startswith("Dice")  # one of three, never their sum
    assert rows["UNet"][3].note == "each loss alone: together they were not trained here"
    assert rows["Attention-Unet"][3].note == ""  # one or the other
    assert "depth" in rows["DPT"][0].note
    assert rows["Segmenter"][4].text == "baseline"
    assert "baseline" not in rows["SegFormer"][4].text


def test_a_transformer_is_one_by_its_network_not_by_its_name():
    named = records(lambda *_: 0.9, labels=("cross_entropy",), models=("segformer_b0", "unet_micro", "vit_like"))
    a = Analysis(named)
    assert [methods.is_transformer(a, cell) for cell in a.cells] == [True, False, False]  # by conf/model
    named.runs["config.model.network"] = ["transformer" if x == "vit_like" else "cnn" for x in named.runs["model"]]
    a = Analysis(named)
    assert [methods.is_transformer(a, cell) for cell in a.cells] == [False, False, True]  # as recorded


def test_the_middle_of_two_losses_lies_between_them():
    labels = ("cross_entropy", "focal", "poly1", "arcface", "cosface")
    shifts = {"arcface": 0.06, "cosface": -0.02, "focal": 0.03, "poly1": 0.03}
    study = records(lambda x, *_: 0.9 + shifts.get(x, 0), labels=labels)
    study.runs["loss_family"] = ["angular" if label in ("arcface", "cosface") else "probability"
                                 for label in study.runs["label"]]  # fmt: skip
    sentences = " ".join(taxonomy.section(Analysis(study)).items[0].paragraphs)
    assert "probability is the best family (+2.9" in sentences
    assert "angular the worst (+1.98)" in sentences  # the middle of about +6 and -2


def test_a_method_trained_with_a_sum_that_was_not_trained_has_a_dash():
    study = records(lambda *_: 0.9, labels=("cross_entropy", "focal"), models=("vit_nano",))
    study.runs["task"] = "classification"
    rows = {row.entries[0].text: row.entries for row in first(methods.section(Analysis(study)), Table).rows}
    assert rows["MGViT"][3].note == "this study lacks what it is trained with"


def test_binary_cross_entropy_with_dice_is_found_by_what_it_sums():
    labels = ("cross_entropy", "dice", "bce_ovr", "bce_dice", "cross_entropy_dice")
    study = records(lambda x, *_: 0.6 + 0.05 * (x == "bce_dice"), labels=labels, models=("unet_micro",))
    study.runs["task"] = "segmentation"
    rows = {row.entries[0].text: row.entries for row in first(methods.section(Analysis(study)), Table).rows}
    assert re.fullmatch(r"bce_dice \+\d\.\d+, better", rows["UNet"][3].text)
    assert re.fullmatch(r"cross_entropy_dice [+−]\d\.\d+, \w[\w ]*", rows["BiFusion"][3].text)
    assert rows["Attention-Unet"][3].text.startswith("bce_ovr")


def test_reference_56_is_the_normalised_distance():
    study = records(lambda x, *_: 0.6 + 0.05 * (x == "nwd"), labels=("smooth_l1", "nwd"), baseline="smooth_l1")
    study.runs["task"] = "localisation"
    lines = [row.entries for row in first(methods.section(Analysis(study)), Table).rows]
    by_printed = {(line[0].text, line[2].text): line[3].text for line in lines}
    assert by_printed["Wang et al.", "Gaussian Wasserstein distance"].startswith("nwd")
    assert by_printed["Yang et al.", "Gaussian Wasserstein distance"] == "–"


def test_methods_of_tables_are_those_of_the_task():
    def table(task, labels, model="mlp"):
        study = records(lambda x, *_: 0.6 + 0.05 * (x == labels[1]), labels=labels, models=(model,), baseline=labels[0])
        study.runs["task"], study.runs["config.model.network"] = task, "mlp"
        return {row.entries[0].text: row.entries[3] for row in first(methods.section(Analysis(study)), Table).rows}

    classes = table("table_classification", ("cross_entropy", "bce_ovr"))
    assert set(classes) == {"DNN", "XGBoost", "TabNet", "Din et al.", "AutoGluon-Tabular", "CatBoost", "LightGBM"}
    assert classes["DNN"].text.startswith("bce_ovr")
    assert classes["TabNet"].note == "the method is no CNN or plain network"
    assert classes["CatBoost"].note == "the method trains trees, no network"
    assert classes["Din et al."].text == "baseline"
    values = table("regression", ("mae", "mse"))
    assert set(values) == {"DNN", "TabNet", "AutoGluon-Tabular"}
    assert values["AutoGluon-Tabular"].text.startswith("mse")


def test_the_euclidean_loss_of_a_classifier_is_the_brier_score():
    study = records(lambda x, *_: 0.9 + SHIFTS.get(x, 0), labels=LABELS)
    study.runs["task"] = "classification"
    rows = {row.entries[0].text: row.entries for row in first(methods.section(Analysis(study)), Table).rows}
    assert rows["VGG"][3].text.startswith("Brier")
    assert rows["VGG"][3].tone == "worse"


@pytest.mark.parametrize("name", ["losses", "survey", "cifar10", "outliers", "table_classification", "detection",
                                  "segmentation", "camvid", "localisation"])  # fmt: skip
def test_studies_whose_losses_the_review_names_show_its_methods(name):
    assert "methods" in plan.read_study(name).exhibits


def test_every_loss_of_the_reviews_methods_is_one_of_ours():
    with methods.PRINTED.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 116
    assert {name for line in lines for name in line["losses"].split()} <= set(options("loss"))
    assert set(methods.TASKS.values()) <= {line["task"] for line in lines}
