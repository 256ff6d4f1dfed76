"""What stands between evidence and verdict, planted one by one into a sound study, and what analysis makes of it."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from harness.analysis.cells import Analysis
from harness.analysis.controls import false_discoveries
from harness.analysis.gates import gates, summary
from harness.analysis.sequential import open_settings
from harness.report.sections import verdicts
from tests import synthetic

LOSSES = ("cross_entropy", "focal", "hinge_ww", "mae_prob")


@pytest.fixture
def sound():
    """A study on track fixed in which nothing went wrong."""
    return synthetic.study(losses=LOSSES, models=("cnn_micro",), track="fixed", mishaps=False, history=False)


def changed(study, rows, **values):
    """Return the study with other values in the rows of a loss (or those that a mask chooses)."""
    runs = study.runs.copy()
    mask = (runs["label"] == rows) & (runs["role"] == "run") if isinstance(rows, str) else rows
    for name, value in values.items():
        if name not in runs:
            runs[name] = None
        runs.loc[mask, name.replace("__", ".")] = value
    return replace(study, runs=runs)


def of(study, label="focal"):
    """Return the gates of a loss, and its comparison."""
    a = Analysis(study)
    return gates(a, a.cells[0], label), a.comparisons[a.cells[0], label]


def test_nothing_stands_in_the_way_of_a_sound_study(sound):
    found, compared = of(sound)
    assert found == compared.because == ()
    assert compared.verdict != "withheld"


def test_missing_failed_and_old_runs_withhold(sound):
    runs = sound.runs
    focal = (runs["label"] == "focal") & (runs["role"] == "run")
    first = focal & (runs["seed"] == 1)
    assert of(changed(sound, first, status="missing"))[0] == ("1 of 12 runs are missing",)
    assert of(changed(sound, first, status="failed"))[0] == ("1 of 12 runs failed",)
    found, compared = of(changed(sound, "cross_entropy", old=True))
    assert found == ("cross_entropy: 12 of 12 runs were made by older code",)
    assert (compared.verdict, compared.because) == ("withheld", found)


def searched(study, scores, seeds=(7001, 7002, 7003)):
    """Return the study on track lr with trials of every loss: validation accuracy by rate."""
    trials = []
    for label in LOSSES:
        for rate, score in scores.items():
            row = study.runs[(study.runs["label"] == label) & (study.runs["role"] == "run")].iloc[0].to_dict()
            for i, seed in enumerate(seeds):
                own = {
                    "role": "search",
                    "seed": seed,
                    "lr": rate,
                    "setting": f"{label}{rate}",
                    "key": f"{label}{rate}{i}",
                }
                worse = (score[i] if isinstance(score, tuple) else score) - 0.1 * (label != "focal") * (rate != 0.005)
                trials.append(row | own | {"valid.top1": worse, "valid.nll": 1 - worse})
    runs = pd.concat([study.runs, pd.DataFrame(trials)], ignore_index=True)
    return replace(study, runs=runs, spec={**study.spec, "track": "lr"})


def test_a_search_that_ended_inside_withholds_nothing(sound):
    assert of(searched(sound, {0.0015: 0.8, 0.005: 0.9, 0.015: 0.8}))[0] == ()


def test_a_search_that_ended_at_the_edge_withholds(sound):
    found, _ = of(searched(sound, {0.0015: 0.8, 0.005: 0.9, 0.015: 0.95}))
    assert found == ("its search ended at the edge of the learning rates tried (0.015)",)
    assert not of(searched(sound, {0.0015: 0.8, 0.005: 0.9, 0.015: 0.95}), "hinge_ww")[0], "only where it happened"


def test_a_search_that_cannot_decide_withholds(sound):
    tied = searched(sound, {0.0015: 0.9, 0.005: 0.9, 0.015: 0.9, 0.05: 0.8})
    assert any("could not tell the learning rate" in reason for reason in of(tied)[0])
    noisy = searched(sound, {0.0015: (0.8, 0.95, 0.9), 0.005: (0.95, 0.87, 0.9), 0.015: 0.8})
    assert of(noisy)[0] == (
        "its search could not rule out that the learning rate 0.0015 is better by more than the margin",
    )
    assert of(replace(sound, spec={**sound.spec, "track": "lr"}))[0][0] == "the trials of its search are not recorded"


def test_floor_ceiling_and_grain_withhold(sound):
    everything = sound.runs["role"] == "run"
    (reason, *_), _ = of(changed(sound, everything, **{"test.top1": 1.0}))
    assert reason == "test top-1 accuracy is at its ceiling (100.00) in most runs of both"
    fine = replace(sound, spec={**sound.spec, "margin": 0.001})
    assert any("finer than one test item" in reason for reason in of(fine)[0]), "360 items: 0.28 points each"


def test_curves_that_still_rise_withhold(sound):
    study = synthetic.study(losses=LOSSES, models=("cnn_micro",), track="fixed", mishaps=False)
    history = study.history.copy()
    focal = history["key"].isin(study.runs.loc[study.runs["label"] == "focal", "key"])
    history.loc[focal, "valid.top1"] = 0.1 * history.loc[focal, "epoch"]
    late = changed(replace(study, history=history), "focal", selected_epoch=synthetic.EPOCHS)
    assert of(late)[0] == ("validation still rose by 20.00 points over the last quarter of training",)
    plateau = {"config.trainer.schedule": "plateau", "stopped": "plateau"}
    assert of(changed(late, "focal", **plateau))[0] == (), "it trained until it no longer rose"
    assert of(changed(late, "focal", **plateau | {"stopped": "limit"}))[0] == (
        "12 of 12 runs had not reached a plateau at the limit",
    )


@pytest.mark.parametrize("more", [{"repeat_shift": 0.05}, {"control_shift": 0.0}])
def test_a_failed_control_withholds_every_verdict_of_its_cell(more):
    study = synthetic.study(losses=LOSSES, models=("cnn_micro",), track="fixed", mishaps=False, **more)
    found, compared = of(study, "mae_prob")
    assert found[-1].startswith("a control failed here (")
    assert compared.verdict == "withheld"


def test_the_self_control_fails_beyond_the_margin_only():
    study = synthetic.study(losses=LOSSES, models=("cnn_micro",), track="fixed", mishaps=False, repeat_shift=0.05)
    wide = replace(study, spec={**study.spec, "margin": 0.2})
    assert not any("repeated" in reason for reason in of(wide, "mae_prob")[0])


def test_a_study_says_whether_it_could_see_one_margin(sound):
    seen = [control for control in Analysis(sound).controls if "less one margin" in control.name]
    assert [control.gates for control in seen] == [False]
    coarse = Analysis(replace(sound, spec={**sound.spec, "margin": 0.05}))
    assert next(c for c in coarse.controls if "less one margin" in c.name).status == "passed"


def test_false_discoveries_are_those_of_benjamini_and_hochberg():
    assert false_discoveries([0.01, 0.02, 0.03, 0.9]).tolist() == [True, True, True, False]


def test_runs_that_did_not_learn_are_counted_and_left_out(sound):
    runs = sound.runs
    bad = (runs["label"] == "focal") & (runs["role"] == "run") & runs["seed"].isin([3, 7])
    a = Analysis(changed(sound, bad, **{"test.top1": 0.1}))
    outcome = a.outcomes[a.cells[0], "focal"]
    assert (outcome.unlearnt, outcome.failures.failed, len(outcome.seeds)) == (2, 2, 10)
    assert len(outcome.all_differences) == 12
    assert outcome.values.mean < outcome.learnt.mean - 0.1
    assert a.comparisons[a.cells[0], "focal"].n == 10


def test_the_best_losses_head_the_report(sound):
    a = Analysis(sound)
    found = {each.label: each.may_be_best for each in a.best[a.cells[0]]}
    assert found["cross_entropy"]
    assert not found["mae_prob"]


def test_item_scores_widen_the_interval_and_come_first(sound):
    rng = np.random.default_rng(1)
    hard = rng.random(360)

    class WithItems(type(sound)):
        def item_scores(self, key, metric):
            row = self.runs.loc[self.runs["key"] == key].iloc[0]
            value = float(row[metric])
            return np.arange(360), (hard < value).astype(float) + value - (hard < value).mean()

    study = WithItems(sound.name, sound.spec, sound.runs, sound.history, sound.metrics)
    compared = Analysis(study).estimated
    assert {c.scope for c in compared.values()} == {"new items"}
    assert {c.scope for c in Analysis(sound).estimated.values()} == {"seeds"}
    assert all(c.low <= c.seeds_low and c.high >= c.seeds_high for c in compared.values())


def test_only_what_more_seeds_may_decide_is_open(sound):
    spec = {**sound.spec, "max_seeds": 40, "until": "decided"}
    a = Analysis(replace(sound, spec=spec))
    found = open_settings(replace(sound, spec=spec))
    verdicts = {label: c.verdict for (_, label), c in a.comparisons.items()}
    assert verdicts["mae_prob"] == "worse"
    worse = set(sound.runs.loc[sound.runs["label"] == "mae_prob", "setting"])
    assert found
    assert not found & worse
    assert open_settings(changed(replace(sound, spec=spec), "cross_entropy", old=True)) == set(), "all is withheld"


def test_many_reasons_are_told_in_short():
    assert summary(()) == ""
    assert summary(("a", "b")) == "a, and 1 further reason"


def test_nothing_is_equivalent_where_no_control_shows_that_the_cell_tells_losses_apart():
    """Runs that hardly learnt are alike; four pairs whose control scatters do not show more than that."""
    quiet = {"mishaps": False, "history": False, "track": "fixed", "noise": 0.000001}
    made = synthetic.study((1, 2, 3, 4), ("cross_entropy", "label_smoothing"), ("cnn_micro",), **quiet)
    compared = Analysis(made).comparisons
    assert [each.verdict for each in compared.values()] == ["equivalent"]
    control = made.runs["role"].eq("negative_control")
    made.runs.loc[control, "test.top1"] = [0.98, 0.7, 0.98, 0.98]
    a = Analysis(made)
    assert [each.status for each in a.controls if each.kind == "negative"] == ["undecided"]
    ((key, blind),) = a.comparisons.items()
    assert (a.estimated[key].verdict, blind.verdict, blind.because) == ("equivalent", "not decidable", ())
    assert blind.seeds_needed == 5
    assert any("No loss is called equivalent on " in notice.text for notice in verdicts.notices(a))
    assert not open_settings(replace(made, spec={**made.spec, "max_seeds": 50})), "more seeds do not mend the control"
