"""The inference holds what it promises, on simulated studies and on worked values."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from harness.analysis import stats

SIMULATIONS = 2000
# four standard errors of a proportion near 0.05 (and, with POWER_SLACK, near 0.8) over that many simulations
SLACK = 4 * math.sqrt(0.05 * 0.95 / SIMULATIONS)
POWER_SLACK = 4 * math.sqrt(0.8 * 0.2 / SIMULATIONS)


@pytest.fixture
def rng():
    return np.random.default_rng(20)


@pytest.mark.parametrize("n", [2, 3, 5, 12])
def test_interval_covers_the_true_difference(rng, n):
    tests = stats.paired_tests(rng.normal(0.3, 1.0, (SIMULATIONS, n)), margin=0.5)
    covered = np.mean((tests.low <= 0.3) & (tests.high >= 0.3))
    assert abs(covered - 0.95) < SLACK


@pytest.mark.parametrize("n", [2, 5, 12])
def test_false_positive_rate_is_nominal_under_the_null(rng, n):
    tests = stats.paired_tests(rng.normal(0.0, 1.0, (SIMULATIONS, n)), margin=0.5)
    assert abs(np.mean(tests.p < stats.ALPHA) - stats.ALPHA) < SLACK


def simulated_families(rng, shifts, n, count=SIMULATIONS):
    """Yield the p values of studies whose losses share one baseline, so their differences are correlated."""
    losses = rng.normal(np.asarray(shifts)[:, None], 1.0, (count, len(shifts), n))
    baseline = rng.normal(0.0, 1.0, (count, 1, n))
    return stats.paired_tests(losses - baseline, margin=0.5)


def test_holm_keeps_the_family_wise_error_under_the_null(rng):
    p = simulated_families(rng, [0.0] * 11, n=5).p
    unadjusted = np.mean((p < stats.ALPHA).any(axis=1))
    adjusted = np.mean((stats.holm(p) < stats.ALPHA).any(axis=1))
    assert unadjusted > 0.2  # so the correction has something to correct
    assert 0.005 < adjusted < stats.ALPHA + SLACK


def test_holm_keeps_the_error_among_the_equal_when_others_differ(rng):
    p = simulated_families(rng, [0.0] * 6 + [9.0] * 5, n=8).p
    adjusted = stats.holm(p)
    assert np.mean((adjusted[:, :6] < stats.ALPHA).any(axis=1)) < stats.ALPHA + SLACK
    assert np.mean(adjusted[:, 6:] < stats.ALPHA) > 0.99


def test_equivalence_is_rarely_claimed_at_the_margin_and_found_inside(rng):
    at_margin = stats.paired_tests(rng.normal(0.5, 0.3, (SIMULATIONS, 8)), margin=0.5)
    inside = stats.paired_tests(rng.normal(0.0, 0.3, (SIMULATIONS, 8)), margin=0.5)
    assert abs(np.mean(at_margin.p_equivalent < stats.ALPHA) - stats.ALPHA) < SLACK
    assert np.mean(inside.p_equivalent < stats.ALPHA) > 0.9


@pytest.mark.parametrize(
    ("difference", "margin", "comparisons"), [(1.0, 0.0, 1), (0.5, 0.0, 11), (0.0, 1.0, 1), (0.2, 1.0, 5)]
)
def test_seeds_needed_reach_the_power_they_promise(rng, difference, margin, comparisons):
    n = stats.seeds_needed(difference, 1.0, margin, comparisons)
    assert n is not None
    level = stats.ALPHA / comparisons

    def power(seeds):
        tests = stats.paired_tests(rng.normal(difference, 1.0, (SIMULATIONS, seeds)), margin)
        return max(np.mean(tests.p < level), np.mean(tests.p_equivalent < level))

    assert power(n) > stats.POWER - POWER_SLACK
    assert power(max(2, n // 2)) < stats.POWER


def test_seeds_needed_says_when_no_affordable_number_would_do():
    assert stats.seeds_needed(1e-6, 1.0, 0.0, 1) is None
    assert stats.seeds_needed(math.nan, 1.0, 0.1, 1) is None
    assert stats.seeds_needed(1e9, 1.0, 0.1, 1) == 2
    assert stats.seeds_needed(1e9, 1.0, 0.1, 1, "sign flip") == 6  # 2/2^5 is still above 0.05


def test_sign_flip_agrees_with_enumeration_by_hand():
    # |sum| of 1, 2, 4 with all signs is at least 5 for: +++, -++ and their mirrors
    assert stats.sign_flip([-1.0, 2.0, 4.0]) == pytest.approx(4 / 8)
    assert stats.sign_flip([1.0, 2.0, 4.0]) == stats.least_sign_flip_p(3) == 0.25


@settings(deadline=None, max_examples=25)
@given(st.lists(st.floats(-1, 1, allow_subnormal=False), min_size=2, max_size=8))
def test_sign_flip_never_goes_below_its_least_value(blocks):
    assert stats.least_sign_flip_p(len(blocks)) - 1e-12 <= stats.sign_flip(blocks) <= 1.0


def test_sign_flip_holds_its_level_with_blocks_of_unequal_spread(rng):
    # seeds share their cells, so blocks are what may be flipped; their spread may differ from seed to seed
    spread = np.geomspace(0.1, 3.0, 6)
    p = np.array([stats.sign_flip(rng.normal(0.0, spread)) for _ in range(600)])
    assert np.mean(p < stats.ALPHA) < stats.ALPHA + 4 * math.sqrt(0.05 * 0.95 / 600)
    assert np.mean(p <= 0.5) > 0.4  # and it is no test that always says 1


def test_sign_flip_samples_when_there_are_too_many_seeds_to_enumerate(rng):
    shifted = rng.normal(1.0, 1.0, 20)
    p = stats.sign_flip(shifted)
    assert p == stats.sign_flip(shifted)  # reproducible
    assert 2 / 2**stats.EXACT_FLIPS_UP_TO <= p < 0.01


def test_holm_matches_worked_values_and_counts_what_was_not_tested():
    assert stats.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    with_gap = stats.holm([0.01, math.nan, 0.03])
    assert with_gap[[0, 2]] == pytest.approx([0.03, 0.06])
    assert math.isnan(with_gap[1])
    assert stats.holm([]).size == 0


def test_holm_matches_statsmodels(rng):
    for size in (1, 2, 11):
        p = rng.uniform(size=size) ** 4
        assert stats.holm(p) == pytest.approx(multipletests(p, method="holm")[1])


def test_paired_t_matches_scipys_paired_test(rng):
    a, b = rng.normal(size=7), rng.normal(size=7)
    expected = scipy_stats.ttest_rel(a, b)
    found = stats.paired_tests(a - b, margin=0.1)
    assert float(found.p) == pytest.approx(expected.pvalue)
    assert (float(found.low), float(found.high)) == pytest.approx(tuple(expected.confidence_interval()))


def test_no_spread_decides_only_with_enough_pairs():
    few, many = stats.paired_tests(np.zeros(3), 0.1), stats.paired_tests(np.zeros(6), 0.1)
    assert float(few.p) == float(many.p) == 1.0
    assert float(few.p_equivalent) == 2.0**-3
    assert float(many.p_equivalent) == 2.0**-6
    shifted = stats.paired_tests(np.full((2, 5), 0.3), 0.1)
    assert shifted.p == pytest.approx([2 / 2**5] * 2)
    assert shifted.low == pytest.approx([0.3, 0.3])


def test_one_value_has_a_mean_and_nothing_else():
    alone = stats.mean_interval([2.0, math.nan])
    assert (alone.mean, alone.n) == (2.0, 1)
    assert math.isnan(alone.low)
    assert stats.mean_interval([]).n == 0


@pytest.mark.parametrize(
    ("difference", "p", "p_equivalent", "higher", "expected"),
    [
        (0.1, 0.01, 1.0, True, "better"),
        (0.1, 0.01, 1.0, False, "worse"),
        (-0.1, 0.01, 1.0, True, "worse"),
        (0.1, 0.20, 0.01, True, "equivalent"),
        (0.1, 0.01, 0.01, True, "equivalent"),
        (0.1, 0.05, 0.05, True, "not decidable"),
        (math.nan, math.nan, math.nan, True, "not decidable"),
    ],
)
def test_verdicts(difference, p, p_equivalent, higher, expected):
    assert stats.verdict(difference, p, p_equivalent, higher_is_better=higher) == expected


def test_a_family_gets_its_verdicts_and_the_number_that_would_decide(rng):
    noise = rng.normal(0.0, 0.01, (4, 8))
    found = stats.compare_family(
        {"up": 0.1 + noise[0], "same": 0.1 * noise[1], "open": 0.006 + noise[2], "one": noise[3, :1], "none": []},
        margin=0.005,
        higher_is_better=True,
    )
    assert [found[name].verdict for name in found] == ["better", "equivalent", *["not decidable"] * 3]
    assert found["up"].p_holm == pytest.approx(5 * found["up"].p)
    needed = found["open"].seeds_needed
    assert needed is not None
    assert needed > 8
    assert found["one"].n == 1
    assert found["one"].seeds_needed is None
    assert found["none"].n == 0


def test_a_lower_metric_turns_the_verdict():
    d = {"a": np.array([-0.2, -0.21, -0.19, -0.2, -0.22])}
    assert stats.compare_family(d, margin=0.01, higher_is_better=False)["a"].verdict == "better"
    assert stats.compare_family(d, margin=0.01, higher_is_better=True)["a"].verdict == "worse"


def test_sign_flips_of_five_seeds_cannot_decide_a_difference():
    blocks = {"a": np.array([1.0, 1.1, 0.9, 1.2, 1.0])}
    by_t = stats.compare_family(blocks, margin=0.0, higher_is_better=True)["a"]
    by_flip = stats.compare_family(blocks, margin=0.0, higher_is_better=True, test="sign flip")["a"]
    assert (by_t.verdict, by_flip.verdict) == ("better", "not decidable")
    assert by_flip.p == stats.least_sign_flip_p(5)
    assert by_flip.seeds_needed == 6


def test_planted_differences_are_found_with_the_power_of_the_design(rng):
    """Twelve seeds and eleven losses, one of them planted: found about as often as theory says at Holm's first step."""
    losses = rng.normal(np.array([0.02] + [0.0] * 10)[:, None], 0.01, (600, 11, 12))
    p = stats.paired_tests(losses - rng.normal(0.0, 0.01, (600, 1, 12)), margin=0.0).p
    found = np.mean(stats.holm(p)[:, 0] < stats.ALPHA)
    theory = TTestPower().power(0.02 / (0.01 * math.sqrt(2)), 12, stats.ALPHA / 11)
    assert abs(found - theory) < 0.08


# ---------------------------------------------------------------- effect sizes and ranks


def test_the_probability_of_improvement_is_the_share_of_pairs_ahead(rng):
    share, low, high = stats.improvement([0.1, 0.2, -0.1, 0.0])
    assert share == pytest.approx(2.5 / 4)
    assert low < share < high
    assert stats.improvement([0.1, 0.2, -0.1, 0.0], higher_is_better=False)[0] == pytest.approx(1.5 / 4)
    covered = 0
    for _ in range(400):  # true probability 0.8: the interval should hold it in 95 %, binomially at least 362 times
        _, low, high = stats.improvement(np.where(rng.random(30) < 0.8, 1.0, -1.0))
        covered += low <= 0.8 <= high
    assert covered >= 362


def test_effect_size_is_the_difference_in_deviations(rng):
    d = rng.normal(0.5, 1.0, 50)
    found = stats.compare_family({"x": d}, margin=0.0, higher_is_better=True)["x"]
    assert found.effect == pytest.approx(d.mean() / d.std(ddof=1))
    assert found.improved == pytest.approx((d > 0).mean())


def test_ranks_find_a_planted_order_and_nothing_where_all_are_alike(rng):
    names = list("abcd")
    truth = np.array([0.3, 0.2, 0.1, 0.0])
    ordered = pd.DataFrame(rng.normal(0, 0.01, (12, 4)) + truth, columns=names)
    found = stats.ranks(ordered, higher_is_better=True)
    assert found.mean.tolist() == [1, 2, 3, 4]
    assert found.p < 1e-3
    assert found.pairs.loc["a", "d"] < 0.01
    assert stats.ranks(ordered, higher_is_better=False).mean.tolist() == [4, 3, 2, 1]
    low = sum(stats.ranks(pd.DataFrame(rng.normal(size=(10, 4))), higher_is_better=True).p < 0.05 for _ in range(200))
    assert low <= 20  # 5 % of 200, with binomial chance


def test_few_data_sets_are_not_ranked():
    with pytest.raises(ValueError, match="4 methods on 7 data sets cannot be ranked"):
        stats.ranks(pd.DataFrame(np.eye(7)[:, :4]), higher_is_better=True)
