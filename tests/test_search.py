"""Searches before the comparison: equal budgets, equal questions after equal answers, and validation alone decides."""

import json
import math
import subprocess
import sys
from dataclasses import replace

import pytest

from harness import compose, paths, plan, records
from harness.address import Addresses, setting_hash
from harness.errors import UsageError
from harness.metrics import declared
from harness.plan import Study
from harness.records.store import sealed
from harness.studies.search import RATE, Search, space_of
from tests.conftest import SCRATCH

ADDRESSES = Addresses(SCRATCH, SCRATCH)
METRICS = [replace(metric, low=None, high=None).as_dict() for metric in declared.CLASSIFICATION]


def study(track="tuned", losses=("cross_entropy", "focal", "center_cross_entropy"), **more):
    search = {"factors": [0.3, 1.0, 3.0], "trials": 10, "range": [0.1, 10.0], "most": 3, "seeds": [7001]}
    search |= {"most_seeds": 1} | more.pop("search", {})
    axes = {"model": ["cnn_micro", "mlp"], "loss": list(losses), "seed": [1, 2]} | more.pop("axes", {})
    return Study(name="test", question="?", axes=axes, track=track, search=search, **more)


def search_of(asked):
    """Return the search of a study before its first round."""
    return Search(plan.settings(asked), asked, ADDRESSES)


def answer(run, results, value, status="done", **more):
    """Write what a run would have left: ``value`` on validation, and on test the opposite."""
    record = {"status": status, "valid": {"top1": value, "nll": value}, "test": {"top1": -(value or 0)}}
    record |= {"key": run.key, "seed": run.seed, "metrics": METRICS, **more}
    records.write_json(records.run_folder(run.key, results) / "record.json", sealed(record))


def searched(asked, results, objective):
    """Carry a search out with made-up results; return it and the keys of each round."""
    search, rounds = search_of(asked), []
    while trials := search.ask():
        for run in trials:
            answer(run, results, objective(run.setting.spec))
        search.tell(results)
        rounds.append([run.key for run in trials])
    return search, rounds


def peaked(spec):
    """A metric with its best at three times the model's rate and, where there is a gamma, at gamma 0.5."""
    gamma = spec.loss.get("gamma", 0.5)
    return 1 - math.log10(spec.optimizer["lr"] / 0.015) ** 2 - (gamma - 0.5) ** 2 / 10


def test_trials_that_may_yet_be_better_get_further_seeds(tmp_path):
    """Two rates lie within the margin on noisy seeds: both get seeds until they are told apart, the others none."""
    given = {"seeds": [7001, 7002], "most_seeds": 6, "most": 0}
    asked = study("lr", ("cross_entropy",), search=given, axes={"model": ["cnn_micro"]}, margin=0.02)
    search, told = search_of(asked), {}
    level = {0.0015: 0.5, 0.005: 0.9, 0.015: 0.91}
    while trials := search.ask():
        for run in trials:
            noise = 0.03 * (-1) ** run.seed * (run.setting.spec.optimizer["lr"] == 0.005)
            answer(run, tmp_path, level[run.setting.spec.optimizer["lr"]] + noise)
            if run.setting.label == "cross_entropy":  # the negative control is searched, too
                told.setdefault(run.setting.role, []).append((run.setting.spec.optimizer["lr"], run.seed % 1000))
        search.tell(tmp_path)
    seeds = {rate: [s for r, s in told["search"] if r == rate] for rate in level}
    assert seeds[0.0015] == [1, 2]
    assert seeds[0.005] == seeds[0.015] == [1, 2, 3, 4, 5, 6][: len(seeds[0.005])]
    assert 2 < len(seeds[0.005]) <= 6
    assert [seed for _, seed in told["search_repeat"]] == [seed for _, seed in told["search"]]


# ---------------------------------------------------------------------- asking


@pytest.mark.parametrize("track", ["lr", "tuned"])
def test_every_loss_in_every_cell_has_the_same_budget_on_seeds_outside_the_study(tmp_path, track):
    asked = study(track, search={"seeds": [7001, 7002], "most": 0})
    search, rounds = searched(asked, tmp_path, peaked)
    assert {len(trials) for trials in search.trials.values()} == {search.budget} == {{"lr": 3, "tuned": 10}[track]}
    assert len(search.trials) == 2 * 5  # three losses, the negative control, and the baseline repeated
    assert len(rounds) == {"lr": 1, "tuned": 3}[track]
    for contender, trials in search.trials.items():
        runs = [run for trial in trials for run in trial.runs]
        again = search.settings[contender].role == "baseline_repeat"
        assert len({run.key for run in runs}) == 2 * search.budget, contender
        assert {run.seed for run in runs} == ({8001, 8002} if again else {7001, 7002})
        assert {run.pair_seed for run in runs} == {7001, 7002}
        assert {run.setting.role for run in runs} == {"search_repeat" if again else "search"}
        assert {run.setting.spec.trainer["epochs"] for run in runs} == {
            search.settings[contender].spec.trainer["epochs"]
        }


def test_a_fixed_track_asks_for_nothing():
    search = search_of(study("fixed"))
    assert search.budget == 0
    assert search.ask() == search.runs == search.ahead == []
    assert search.chosen() == {}


def test_the_first_trial_is_the_default_and_all_stay_within_the_space(tmp_path):
    asked = study(losses=("cross_entropy", "focal_tversky", "ghm_c_ovr", "dice", "center_cross_entropy"))
    search, _ = searched(asked, tmp_path, peaked)
    for contender, (first, *others) in search.trials.items():
        setting = search.settings[contender]
        space = space_of(setting, asked)
        assert first.runs[0].setting.spec == setting.spec, "1.3333333333333333 stays as it is"
        for trial in others:
            assert trial.values.keys() == space.keys()
            for path, given in space.items():
                value = trial.values[path]
                assert trial.runs[0].setting.spec.value(path) == value
                if "choices" in given:
                    assert value in given["choices"]
                else:
                    low, high = (0, math.inf) if path == RATE else (given["low"], given["high"])  # rates may go further
                    assert low <= value <= high
                    assert type(value) is type(given["low"])
                    assert value == float(f"{value:.3g}")
    own = {label: set(space_of(s, asked)) - {RATE} for (_, label), s in search.settings.items()}
    assert own["cross_entropy repeated"] == set()
    assert own["cross_entropy"] == own["negative_control_worse"] == set()
    assert own["dice"] == {"loss.smooth", "loss.squared"}
    assert own["center_cross_entropy"] == {"loss.terms.center"}


def test_what_the_study_gives_is_not_searched(tmp_path):
    asked = study(
        losses=("focal",),
        axes={"loss.gamma": [1, 5]},
        baseline="focal gamma=1",
        include=[{"loss": "poly1_focal", "loss.gamma": 2.0, "loss.epsilon": 1.0}],
        recipes=[{"when": {"model": "mlp"}, "set": {"optimizer.lr": 0.1}}],
        controls={"negative_control": None},
    )
    search, _ = searched(asked, tmp_path, peaked)
    for (_, label), trials in search.trials.items():
        found = {trial.runs[0].setting.spec.loss["gamma"] for trial in trials}
        assert len(found) == 1, label
        assert f"gamma={found.pop()}" in label
    first = {s.choices["model"]: search.trials[p][0].values[RATE] for p, s in search.settings.items()}
    assert first == {"cnn_micro": 0.005, "mlp": 0.1}, "the search is around the study's own rate"


def test_equal_answers_lead_to_equal_questions_whatever_else_is_compared(tmp_path):
    whole, rounds = searched(study(), tmp_path / "a", peaked)
    again, same = searched(study(), tmp_path / "b", peaked)
    assert rounds == same
    assert whole.chosen() == again.chosen()
    fewer, _ = searched(
        study(losses=("focal", "cross_entropy"), controls={"negative_control": None}), tmp_path / "c", peaked
    )
    assert {contender: whole.chosen()[contender] for contender in fewer.chosen()} == fewer.chosen()
    other, _ = searched(study(), tmp_path / "d", lambda spec: -peaked(spec))
    assert other.runs[0].key == whole.runs[0].key
    assert {run.key for run in other.runs} != {run.key for run in whole.runs}, "answers move the later questions"


def test_answers_that_are_there_are_found_and_the_rest_is_asked(tmp_path):
    """A search stopped after its first round goes on with the second: the first is asked again, and finished."""
    whole, rounds = searched(study(), tmp_path / "straight", peaked)
    stopped = search_of(study())
    for run in stopped.ask():
        answer(run, tmp_path / "stopped", peaked(run.setting.spec))
    before = records.finished(tmp_path / "stopped")
    assert before == set(rounds[0])
    resumed, _ = searched(study(), tmp_path / "stopped", peaked)
    assert records.finished(tmp_path / "stopped") == records.finished(tmp_path / "straight")
    assert resumed.chosen() == whole.chosen()


def test_what_lies_ahead_is_counted(tmp_path):
    search = search_of(study())
    assert len(search.ahead) == 10 * 10
    first = search.ask()
    assert len(first) == 10 * 5
    assert len(search.ahead) == 10 * 5
    searched_, _ = searched(study(), tmp_path, peaked)
    assert searched_.ahead == []


def test_a_space_without_room_gets_a_sentence():
    asked = study(search={"range": [0.9999, 1.0001]})
    with pytest.raises(UsageError, match=r"give search\.range more room"):
        search_of(asked).ask()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"gama": {"low": 0.0, "high": 1.0}}, "unknown setting 'gama': did you mean gamma"),
        ({"gamma": {"low": 0.0}}, "needs low and high"),
        ({"gamma": 3}, "needs low and high"),
    ],
)
def test_a_wrong_space_gets_a_sentence(monkeypatch, content, said):
    real = compose.option
    monkeypatch.setattr(compose, "option", lambda g, n: content if (g, n) == ("search", "focal") else real(g, n))
    with pytest.raises(UsageError, match=said):
        search_of(study())


PLAN_ONLY = """
import pathlib, sys
from harness import compose, plan
from harness.studies import sweep
study, options = plan.read_study("smoke", [sys.argv[1]]), compose.compose_run([]).config
print(sweep.planned_only(study, options, pathlib.Path(sys.argv[2])))
print(sorted({"torch", "optuna", "pandas"} & set(sys.modules)))
"""


@pytest.mark.parametrize(("track", "imported"), [("fixed", "[]"), ("lr", "[]"), ("tuned", "['optuna']")])
def test_only_track_tuned_imports_optuna_and_planning_never_torch(tmp_path, track, imported):
    command = [sys.executable, "-c", PLAN_ONLY, f"track={track}", str(tmp_path)]
    found = subprocess.run(command, cwd=paths.ROOT, capture_output=True, text=True, check=False)
    assert found.stdout.splitlines()[-1:] == [imported], found.stderr


# ---------------------------------------------------------------------- choosing


def contender_of(search, label, model="cnn_micro"):
    return next(one for one, s in search.settings.items() if (s.label, s.choices["model"]) == (label, model))


@pytest.mark.parametrize("track", ["lr", "tuned"])
def test_the_best_on_validation_is_chosen_and_test_is_never_asked(tmp_path, track):
    search, _ = searched(study(track), tmp_path, peaked)
    for contender, trials in search.trials.items():
        best = max(peaked(trial.runs[0].setting.spec) for trial in trials)
        assert peaked(search.settings[contender].at(search.chosen()[contender]).spec) == best
    for path in tmp_path.glob("runs/*/record.json"):
        records.write_json(path, sealed(json.loads(path.read_text()) | {"test": None}))
    again = search_of(study(track))
    while again.ask():
        again.tell(tmp_path)
    assert again.chosen() == search.chosen()


def test_tuning_finds_a_better_setting_than_the_default(tmp_path):
    search, _ = searched(study(search={"trials": 20}), tmp_path, peaked)
    for label in ("cross_entropy", "focal"):
        contender = contender_of(search, label)
        default = peaked(search.settings[contender].spec)
        found = peaked(search.settings[contender].at(search.chosen()[contender]).spec)
        assert found > 0.95 > default
    assert search.chosen()[contender_of(search, "focal")]["loss.gamma"] < 1.3


def test_of_equals_the_middle_is_chosen_and_nothing_is_searched_further(tmp_path):
    grid, rounds = searched(study("lr"), tmp_path, lambda spec: 0.5)
    one = contender_of(grid, "focal")
    assert grid.chosen()[one] == {RATE: 0.005}, "the middle of the grid"
    assert len(rounds) == 1
    assert grid.choices[one].tied == (0.0015, 0.015)
    assert not grid.choices[one].edge


def parabola(best):
    """A metric whose only optimum is at the learning rate ``best``."""
    return lambda spec: 1 - math.log10(spec.optimizer["lr"] / best) ** 2


@pytest.mark.parametrize(
    ("best", "tried", "edge"),
    [
        (0.005, [0.0015, 0.005, 0.015], False),
        (0.015, [0.0015, 0.005, 0.015, 0.045], False),
        (0.0004, [0.000135, 0.00045, 0.0015, 0.005, 0.015], False),
        (100.0, [0.0015, 0.005, 0.015, 0.045, 0.135, 0.405], True),
        (1e-9, [4.05e-05, 0.000135, 0.00045, 0.0015, 0.005, 0.015], True),
    ],
)
def test_a_grid_grows_until_its_best_rate_is_interior_or_the_bound_is_reached(tmp_path, best, tried, edge):
    search, rounds = searched(study("lr", axes={"model": ["cnn_micro"]}), tmp_path, parabola(best))
    assert len(rounds) == len(tried) - 2, "one further rate a round"
    for contender, trials in search.trials.items():
        rates = sorted(trial.values[RATE] for trial in trials)
        assert rates == tried
        assert search.choices[contender].edge == edge
        assert search.chosen()[contender][RATE] == min(rates, key=lambda rate: abs(math.log(rate / best)))


def test_only_those_whose_best_is_at_an_edge_are_searched_further(tmp_path):
    def objective(spec):
        return parabola(0.045 if "gamma" in spec.loss else 0.005)(spec)

    search, rounds = searched(study("lr", axes={"model": ["cnn_micro"]}), tmp_path, objective)
    assert {one[1]: len(trials) for one, trials in search.trials.items()} == {
        "cross_entropy": 3, "focal": 5, "center_cross_entropy": 3, "cross_entropy repeated": 3,
        "negative_control_worse": 3,
    }  # fmt: skip
    assert [len(keys) for keys in rounds] == [15, 1, 1]
    assert search.budget == 3, "what every loss has"


def test_rates_that_diverge_are_worse_than_the_edge_that_did_not(tmp_path):
    """The greatest rates diverge: the best of the rest is interior, since a worse one is known on either side."""
    asked = study("lr", axes={"model": ["cnn_micro"]})
    search = search_of(asked)
    while trials := search.ask():
        for run in trials:
            rate = run.setting.spec.optimizer["lr"]
            answer(run, tmp_path, rate, "done" if rate < 0.1 else "diverged")
        search.tell(tmp_path)
    assert {values[RATE] for values in search.chosen().values()} == {0.045}
    assert {choice.edge for choice in search.choices.values()} == {False}


@pytest.mark.parametrize(("best", "most", "edge"), [(0.5, 3, False), (100.0, 1, True), (1e-4, 3, False)])
def test_a_tuned_search_goes_on_beyond_its_outermost_rate(tmp_path, best, most, edge):
    """From 0.0005 to 0.05 at first; each further batch begins with the best values at a rate further out."""
    asked = study(axes={"model": ["cnn_micro"]}, losses=("cross_entropy", "focal"), search={"most": most})
    search, _ = searched(asked, tmp_path, parabola(best))
    for contender, trials in search.trials.items():
        assert search.choices[contender].edge == edge
        extra = [trials[i : i + 3] for i in range(10, len(trials), 3)]
        assert extra
        assert all(len(batch) == 3 for batch in extra)
        if edge:
            assert len(extra) == most
        before, further = max(trials[:10], key=lambda trial: parabola(best)(trial.runs[0].setting.spec)), extra[0][0]
        factor = further.values[RATE] / before.values[RATE]
        assert (factor if best > 0.1 else 1 / factor) == pytest.approx(math.sqrt(10), rel=0.01)
        assert further.values | {RATE: 0} == before.values | {RATE: 0}
    low, high = (min, max)[best > 0.1], (0.0005, 0.05)[best > 0.1]
    assert low(t.values[RATE] for trials in search.trials.values() for t in trials) != high


def test_equals_are_told_apart_by_the_likelihood_and_a_metric_at_its_floor_is_replaced(tmp_path):
    """G-means are 0 at every rate, the balanced accuracies equal: the likelihood decides, and the search says so."""
    asked = study("lr", axes={"model": ["cnn_micro"]}, metric="test.gmean")
    floored = [metric.as_dict() for metric in declared.CLASSIFICATION]
    search = search_of(asked)
    while trials := search.ask():
        for run in trials:
            rate = run.setting.spec.optimizer["lr"]
            valid = {"gmean": 0.0, "balanced_accuracy": 0.3, "top1": 0.5, "nll": abs(math.log(rate / 0.015))}
            answer(run, tmp_path, None, valid=valid, metrics=floored)
        search.tell(tmp_path)
    for contender, values in search.chosen().items():
        assert values == {RATE: 0.015}
        assert search.choices[contender].by == "nll (tie of balanced_accuracy, gmean at its floor)"
        assert len(search.trials[contender]) == 4, "the edge of the first grid was the best"


def test_the_repeated_baseline_is_searched_on_seeds_of_its_own(tmp_path):
    """Noise of the search reaches the control: with other seeds another rate may win."""
    asked = study("lr", axes={"model": ["cnn_micro"]}, search={"seeds": [7001, 7002]})
    search = search_of(asked)
    while trials := search.ask():
        for run in trials:
            answer(run, tmp_path, parabola(0.005 if run.seed < 8000 else 0.015)(run.setting.spec))
        search.tell(tmp_path)
    chosen = {one[1]: values[RATE] for one, values in search.chosen().items()}
    assert chosen["cross_entropy"] == 0.005
    assert chosen["cross_entropy repeated"] == 0.015
    runs = plan.runs(plan.settings(asked), asked, ADDRESSES, search.chosen())
    rates = {(run.setting.role, run.setting.label): run.setting.spec.optimizer["lr"] for run in runs}
    assert rates["baseline_repeat", "cross_entropy"] == 0.015
    assert rates["run", "cross_entropy"] == 0.005


@pytest.mark.parametrize("status", ["diverged", "failed", "missing"])
def test_one_run_that_diverged_or_failed_makes_a_trial_the_worst(tmp_path, status):
    asked = study("lr", axes={"model": ["cnn_micro"]}, search={"seeds": [7001, 7002]})
    search = search_of(asked)
    for run in search.ask():
        best = run.setting.spec.optimizer["lr"] == 0.015
        if not best or run.seed == 7001:
            answer(run, tmp_path, 0.9 if best else peaked(run.setting.spec) - 1)
        elif status == "failed":
            records.save_failure(records.run_folder(run.key, tmp_path), {"valid": {"top1": 1.0}})
        elif status == "diverged":
            answer(run, tmp_path, 1.0, status)
    search.tell(tmp_path)
    assert {values[RATE] for values in search.chosen().values()} == {0.005}


def test_optuna_is_told_that_a_diverged_trial_is_the_worst(tmp_path):
    """All that is far from the default diverges; the search goes on and chooses something that did not."""
    asked = study()
    search = search_of(asked)
    while trials := search.ask():
        for run in trials:
            rate = run.setting.spec.optimizer["lr"]
            answer(run, tmp_path, peaked(run.setting.spec), "done" if rate < 0.006 else "diverged")
        search.tell(tmp_path)
    assert {len(trials) for trials in search.trials.values()} == {10}
    assert max(values[RATE] for values in search.chosen().values()) < 0.006


def test_lower_is_chosen_where_lower_is_better_and_a_missing_value_is_the_worst(tmp_path):
    asked = study("lr", axes={"model": ["cnn_micro"]}, metric="test.nll")
    search = search_of(asked)
    for run in search.ask():
        rate = run.setting.spec.optimizer["lr"]
        answer(run, tmp_path, None if rate < 0.005 else rate)
    search.tell(tmp_path)
    assert {values[RATE] for values in search.chosen().values()} == {0.005}


def test_a_metric_that_is_not_recorded_gets_a_sentence(tmp_path):
    asked = study("lr", metric="test.top2")
    search = search_of(asked)
    for run in search.ask():
        answer(run, tmp_path, 1.0)
    with pytest.raises(UsageError, match=r"metric=test\.top2 is not recorded: nll, top1 are"):
        search.tell(tmp_path)


@pytest.mark.parametrize(("better", "rate"), [(True, 0.015), (False, 0.0015)])
def test_a_metric_that_a_task_declares_itself_is_searched_in_its_direction(tmp_path, better, rate):
    own = declared.Metric("luck", "luck", higher_is_better=better).as_dict()
    asked = study("lr", axes={"model": ["cnn_micro"]}, metric="shifted.noise.luck")
    search = search_of(asked)
    for run in search.ask():
        answer(run, tmp_path, None, valid={"luck": run.setting.spec.optimizer["lr"]}, metrics=[own])
    search.tell(tmp_path)
    assert {values[RATE] for values in search.chosen().values()} == {rate}


def test_the_study_runs_at_what_was_chosen_under_the_label_of_the_loss(tmp_path):
    asked = study()
    settings = plan.settings(asked)
    search, _ = searched(asked, tmp_path, peaked)
    runs = plan.runs(settings, asked, ADDRESSES, search.chosen())
    assert len(runs) == 2 * 2 * (3 + 1 + 1)
    for run in runs:
        values = search.chosen()[run.setting.contender]
        assert all(run.setting.spec.value(path) == value for path, value in values.items())
        assert run.pair_seed in asked.seeds
        assert run.setting.hash == setting_hash(run.setting.spec)
    assert {run.setting.label for run in runs} == {
        "cross_entropy",
        "focal",
        "center_cross_entropy",
        "negative_control_worse",
    }
