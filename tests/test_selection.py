"""The rule by which a trial is chosen: the same in any order of rows, and open about what it could not tell apart."""

import math
import random

import pytest

from harness.metrics.declared import CLASSIFICATION, Metric, metric_of
from harness.selection import Tried, choose, contending, ranks, tried


def runs(scores, seeds=(1, 2)):
    """Return the runs of trials: ``{rate: {metric: value or one value per seed}}``; a text is a status."""
    found = []
    for rate, valid in scores.items():
        for i, seed in enumerate(seeds):
            status = valid if isinstance(valid, str) else "done"
            values = {} if isinstance(valid, str) else valid
            here = {name: value[i] if isinstance(value, tuple) else value for name, value in values.items()}
            found.append(Tried(f"at {rate}", rate, seed, status, here))
    return found


def test_the_mean_over_seeds_decides():
    chosen = choose(runs({0.1: {"top1": (0.9, 0.5)}, 1.0: {"top1": (0.7, 0.75)}, 10.0: {"top1": 0.6}}), "test.top1")
    assert (chosen.trial, chosen.rate, chosen.by, chosen.tied, chosen.edge) == ("at 1.0", 1.0, "top1", (), False)
    assert chosen.lead == pytest.approx(0.025)


def test_lower_is_chosen_where_lower_is_better():
    chosen = choose(runs({0.1: {"rmse": 3.0}, 1.0: {"rmse": 2.0}, 10.0: {"rmse": 2.5}}), "test.rmse")
    assert (chosen.rate, chosen.lead) == (1.0, 0.5)


def test_equal_means_are_equal_in_whatever_order_their_parts_were_added():
    shares = (0.1, 0.2, 0.3)
    assert sum(shares) != sum(shares[::-1]), "floating point"
    both = runs({1.0: {"top1": shares}, 2.0: {"top1": shares[::-1]}}, seeds=(1, 2, 3))
    assert choose(both, "top1").tied == (2.0,)


@pytest.mark.parametrize(
    ("scores", "rate", "by"),
    [
        ({"nll": (0.5, 0.4, 0.6)}, 1.0, "nll (tie of top1)"),
        ({"nll": (0.5, 0.5, 0.6), "auc": (0.7, 0.8, 0.9)}, 1.0, "auc (tie of top1)"),
        ({"nll": (0.5, None, 0.6), "auc": (0.9, 0.8, 0.7)}, 0.1, "auc (tie of top1)"),
        ({"auc": (0.9, 0.8, 0.95)}, 10.0, "auc (tie of top1)"),
    ],
)
def test_equals_are_told_apart_by_the_first_metric_that_all_recorded(scores, rate, by):
    given = {
        r: {"top1": 0.8} | {name: each[i] for name, each in scores.items()} for i, r in enumerate((0.1, 1.0, 10.0))
    }
    chosen = choose(runs(given), "test.top1")
    assert (chosen.rate, chosen.by, chosen.tied) == (rate, by, ())
    assert chosen.lead > 0


def test_a_tie_breaker_never_outweighs_the_metric():
    chosen = choose(runs({0.1: {"top1": 0.81, "nll": 9.0}, 1.0: {"top1": 0.8, "nll": 0.1}}), "test.top1")
    assert (chosen.rate, chosen.by) == (0.1, "top1")


def test_what_nothing_tells_apart_is_tied_and_the_middle_is_taken():
    equal = {rate: {"top1": 0.8, "nll": 0.5} for rate in (0.1, 1.0, 10.0)}
    chosen = choose(runs(equal | {100.0: {"top1": 0.7, "nll": 0.1}}), "test.top1")
    assert (chosen.rate, chosen.tied, chosen.lead, chosen.by) == (1.0, (0.1, 10.0), 0.0, "top1")
    alone = choose(runs({0.1: {"top1": 0.8}}), "test.top1")
    assert (alone.rate, alone.tied, alone.edge) == (0.1, (), False), "one rate is no edge"
    assert math.isnan(alone.lead)


def test_a_metric_at_its_floor_gives_way_to_the_next():
    given = {
        0.1: {"gmean": 0.0, "balanced_accuracy": 0.3, "top1": 0.9},
        1.0: {"gmean": 0.0, "balanced_accuracy": 0.4, "top1": 0.8},
    }
    chosen = choose(runs(given), "test.gmean", CLASSIFICATION)
    assert (chosen.rate, chosen.by) == (1.0, "balanced_accuracy (gmean at its floor)")
    given[0.1]["gmean"] = (0.0, 1e-6)
    assert choose(runs(given), "test.gmean", CLASSIFICATION).by == "gmean", "one run is off the floor"
    zero = {rate: {"gmean": 0.0, "balanced_accuracy": 0.0, "top1": rate} for rate in (0.1, 0.2)}
    assert choose(runs(zero), "test.gmean").by == "top1 (gmean at its floor)"


def test_the_floor_is_the_bad_end_of_a_metrics_range():
    """An error of 0 is the best there is, not a floor; without a metric to fall back on there is nothing to do."""
    perfect = {rate: {"rmse": 0.0, "mae": rate} for rate in (0.1, 0.2)}
    assert choose(runs(perfect), "test.rmse").by == "mae (tie of rmse)"
    missing = {rate: {"gmean": 0.0} for rate in (0.1, 0.2)}
    assert choose(runs(missing), "test.gmean").by == "gmean", "nothing to fall back on was recorded"


@pytest.mark.parametrize("status", ["diverged", "failed", "missing"])
def test_one_run_that_did_not_finish_makes_a_trial_the_worst(status):
    given = runs({0.1: {"top1": 0.9}, 1.0: {"top1": 0.5}})
    given[0] = Tried("at 0.1", 0.1, 1, status, {"top1": 1.0})
    chosen = choose(given, "test.top1")
    assert (chosen.rate, chosen.lead) == (1.0, math.inf)
    undefined = runs({0.1: {"top1": (0.9, None)}, 1.0: {"top1": 0.5}})
    assert choose(undefined, "test.top1").rate == 1.0


def test_where_no_trial_finished_nothing_decided():
    chosen = choose(runs({0.1: "diverged", 1.0: "failed", 10.0: "diverged"}), "test.top1")
    assert (chosen.rate, chosen.by, chosen.tied) == (1.0, "", (0.1, 10.0))
    assert not chosen.edge


def test_the_order_of_rows_moves_nothing():
    rng = random.Random(0)
    for _ in range(200):
        scores = {
            10.0**i: rng.choice(["diverged", {"top1": rng.choice([0.5, 0.6]), "nll": rng.choice([1.0, 2.0])}])
            for i in range(5)
        }
        given = runs(scores)
        expected, order = choose(given, "test.top1"), ranks(given, "test.top1")
        rng.shuffle(given)
        again = choose(given, "test.top1")
        assert repr(again) == repr(expected)
        assert ranks(given, "test.top1") == order
        assert order[expected.trial] == max(order.values())
        assert {rate for rate in scores if order[f"at {rate}"] == order[expected.trial]} == {
            expected.rate,
            *expected.tied,
        }


def test_what_a_task_declares_itself_is_compared_in_its_direction():
    own = Metric("luck", "luck", higher_is_better=False)
    given = runs({0.1: {"luck": 1.0}, 1.0: {"luck": 2.0}})
    assert choose(given, "shifted.noise.luck", [own]).rate == 0.1


def test_rows_of_a_table_become_runs():
    row = {"setting": "abc", "lr": 0.1, "seed": 7001.0, "status": "done", "valid.top1": 0.5, "valid.nll": float("nan")}
    (found,) = tried([row | {"valid.confusion": "[[1, 2]]", "test.top1": 0.9}])
    assert found == Tried("abc", 0.1, 7001, "done", {"top1": 0.5, "nll": None, "confusion": None})


def test_fallbacks_and_tie_breakers_are_declared_metrics():
    from harness.metrics.declared import FALLBACKS, TIE_BREAKERS
    from harness.metrics.detection import DETECTION

    for name in {*FALLBACKS, *FALLBACKS.values(), *TIE_BREAKERS}:
        assert metric_of(name, DETECTION).key == name


def test_what_may_be_better_by_more_than_the_margin_contends():
    given = runs({0.1: {"top1": (0.90, 0.80, 0.7)}, 1.0: {"top1": (0.85, 0.86, 0.85)}, 10.0: {"top1": (0.5, 0.5, 0.5)}},
                 seeds=(1, 2, 3))  # fmt: skip
    assert contending(given, "at 1.0", "test.top1", margin=0.02) == ["at 0.1"]
    assert contending(given, "at 1.0", "test.top1", margin=0.2) == []
    assert contending(given, "at 1.0", "test.top1") == [], "no margin was declared"
    assert choose(given, "test.top1", margin=0.02).contending == (0.1,)
    one = [run for run in given if run.seed == 1]
    assert contending(one, "at 0.1", "test.top1", margin=0.5) == ["at 1.0", "at 10.0"], "one seed shows nothing"


def test_a_trial_with_fewer_seeds_than_others_is_out():
    given = runs({0.1: {"top1": 0.95}, 1.0: {"top1": 0.9}, 10.0: {"top1": 0.8}}, seeds=(1, 2))
    more = [*given, *(Tried(f"at {rate}", rate, 3, "done", {"top1": 0.85}) for rate in (1.0, 10.0))]
    assert choose(more, "test.top1").rate == 1.0
