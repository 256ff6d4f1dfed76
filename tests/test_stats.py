"""The inference holds what it promises, on simulated studies and on worked values."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from harness.analysis import effects, learning, reasons, stats
from harness.analysis.best import confidence_set
from harness.analysis.estimates import ALPHA, critical, crossed, e_value, estimate
from harness.analysis.reasons import Reason
from harness.analysis.stats import Scale
from scripts import simulate_verdicts as simulated

SIMULATIONS = 2000


def slack(rate, count=SIMULATIONS):
    """Return four standard errors of a proportion over that many simulations."""
    return 4 * math.sqrt(rate * (1 - rate) / count)


@pytest.fixture
def rng():
    return np.random.default_rng(20)


# ---------------------------------------------------------------- intervals over seeds


@pytest.mark.parametrize("n", [2, 3, 5, 12])
def test_the_interval_over_seeds_covers_the_true_difference(rng, n):
    covered = 0
    for _ in range(SIMULATIONS):
        low, high = estimate(rng.normal(0.3, 1.0, n)).interval("seeds")
        covered += low <= 0.3 <= high
    assert abs(covered / SIMULATIONS - 0.95) < slack(0.05)


def test_it_is_scipys_paired_t(rng):
    a, b = rng.normal(size=7), rng.normal(size=7)
    expected = scipy_stats.ttest_rel(a, b)
    found = estimate(a - b)
    assert found.p("seeds") == pytest.approx(expected.pvalue)
    assert found.interval("seeds") == pytest.approx(tuple(expected.confidence_interval()))


def test_a_family_of_intervals_holds_together(rng):
    """Losses share one baseline, so their differences are correlated; the intervals miss anywhere in 5 % at most."""
    missed = alone = 0
    for _ in range(600):
        d = rng.normal(0.0, 1.0, (11, 5)) - rng.normal(0.0, 1.0, 5)
        family = stats.compare_family(dict(enumerate(d)), Scale())
        missed += any(c.low > 0 or c.high < 0 for c in family.values())
        alone += any(estimate(row).p("seeds") < ALPHA for row in d)
    assert alone / 600 > 0.2, "the correction has something to correct"
    assert 0.005 < missed / 600 < ALPHA + slack(0.05, 600)


def test_the_interval_is_cut_off_where_no_difference_can_be(rng):
    found = estimate([0.5, -0.4])
    assert found.interval("seeds", low=-1.0, high=1.0) == (-1.0, 1.0)


def test_equal_differences_have_the_width_of_the_grain():
    low, high = estimate([0.25] * 5, grain=0.01).interval("seeds")
    assert 0.25 - 0.01 < low < 0.25 < high < 0.25 + 0.01
    low, high = estimate([0.0] * 5).interval("seeds")
    assert low < 0 < high < 1e-9


def test_one_pair_has_a_mean_and_nothing_else():
    alone = stats.compare([2.0], Scale(margin=1.0))
    assert (alone.difference, alone.n, alone.verdict) == (2.0, 1, "not decidable")
    assert math.isnan(alone.low)
    assert math.isnan(stats.compare([], Scale()).difference)
    assert stats.mean_interval([2.0, math.nan]).n == 1
    assert stats.mean_interval([]).n == 0


# ---------------------------------------------------------------- intervals over seeds and new items


def test_crossed_effects_agree_with_the_analysis_of_variance_of_a_full_table(rng):
    table = rng.normal(size=(6, 40)) + rng.normal(size=(6, 1)) + rng.normal(size=40)
    items = [(np.arange(40), row) for row in table]
    error, freedom, fixed = crossed(items)
    s, n = table.shape
    rows, columns = table.mean(1), table.mean(0)
    between = n * rows.var(ddof=1)
    within = s * columns.var(ddof=1)
    rest = ((table - rows[:, None] - columns + table.mean()) ** 2).sum() / ((s - 1) * (n - 1))
    assert error**2 == pytest.approx((between + within - rest) / (s * n))
    assert fixed**2 == pytest.approx((within - rest) / (s * n))
    assert freedom == pytest.approx((between + within - rest) ** 2 / (between**2 / (s - 1) + within**2 / (n - 1)))


@pytest.mark.parametrize("redrawn", [False, True])
def test_intervals_over_new_items_cover_where_those_over_seeds_do_not(rng, redrawn):
    found = pd.DataFrame([simulated.coverage(rng, 12, 360, redrawn=redrawn, gap=0.0) for _ in range(500)]).mean()
    assert 0.93 - slack(0.05, 500) < found["coverage, new items"] < 0.97 + slack(0.03, 500)
    assert found["coverage, seeds alone"] < found["coverage, new items"] - 0.01


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_what_holds_for_new_items_is_never_surer_than_what_holds_for_these(rng, seeds):
    world = simulated.World(rng, (0.97, 0.97), 1800, 360, by_seed=True)
    for _ in range(30):
        items = simulated.differences([world.seed() for _ in range(seeds)], 1)
        found = estimate(simulated.by_seed(items), items, 1 / 360)
        for sequential in (False, True):
            new, own = (found.interval(scope, sequential=sequential) for scope in ("new items", "seeds"))
            assert new[0] <= own[0]
            assert new[1] >= own[1]
            assert found.p("new items", sequential=sequential) >= found.p("seeds", sequential=sequential)


def test_seeds_cannot_shrink_what_the_items_contribute(rng):
    hard = rng.normal(size=50)
    items = [(np.arange(50), hard + 0.01 * rng.normal(size=50)) for _ in range(8)]
    found = estimate([d.mean() for _, d in items], items)
    assert found.fixed_new == pytest.approx(found.error_new, rel=0.01)
    assert stats.seeds_needed(found, Scale(), ALPHA) is None or abs(found.mean) > 2 * found.error_new


# ---------------------------------------------------------------- looking after every seed


@pytest.mark.parametrize("n", [6, 9, 20])
def test_the_sequential_bound_is_where_the_e_value_reaches_its_level(n):
    t = critical(n - 1, ALPHA, sequential_pairs=n)
    assert e_value(t, n) == pytest.approx(1 / ALPHA)
    assert t > critical(n - 1, ALPHA)
    assert critical(1, ALPHA, sequential_pairs=2) == math.inf, "two seeds cannot decide"


def test_looking_after_every_seed_keeps_its_level(rng):
    found = pd.DataFrame([simulated.looking(rng, 1) for _ in range(400)]).mean()
    assert found["false, until=decided"] <= ALPHA
    assert found["false, fixed design looked at after every seed"] > 0.15, "what it is for"


def test_deciding_takes_few_more_seeds_than_a_design_that_knew_the_effect(rng):
    for effect in (1.0, 2.0):
        mean = np.mean([simulated.needed(rng, effect) for _ in range(200)])
        assert mean < 1.5 * simulated.fixed_design(effect)


# ---------------------------------------------------------------- verdicts


@pytest.mark.parametrize(
    ("low", "high", "higher", "expected"),
    [
        (0.1, 0.9, True, "better"),
        (0.1, 0.9, False, "worse"),
        (-0.9, -0.1, True, "worse"),
        (-0.04, 0.03, True, "equivalent"),
        (0.01, 0.03, True, "equivalent"),
        (-0.01, 0.9, True, "not decidable"),
        (-math.inf, math.inf, True, "not decidable"),
        (math.nan, math.nan, True, "not decidable"),
    ],
)
def test_verdicts(low, high, higher, expected):
    assert stats.verdict(low, high, Scale(higher_is_better=higher, margin=0.05)) == expected


def test_a_family_gets_its_verdicts_and_the_number_that_would_decide(rng):
    noise = rng.normal(0.0, 0.01, (4, 8))
    found = stats.compare_family(
        {"up": 0.1 + noise[0], "same": 0.1 * noise[1], "open": 0.006 + noise[2], "one": noise[3, :1], "none": []},
        Scale(margin=0.005),
    )
    assert [found[name].verdict for name in found] == ["better", "equivalent", *["not decidable"] * 3]
    assert found["up"].p == pytest.approx(5 * estimate(0.1 + noise[0]).p("seeds"))
    needed = found["open"].seeds_needed
    assert needed is not None
    assert needed > 8
    assert found["one"].seeds_needed is None
    assert found["none"].n == 0


def test_a_withheld_verdict_keeps_its_numbers():
    found = stats.compare([1.0, 1.1, 0.9, 1.0, 1.05], Scale())
    why = Reason("the search ended at the edge", reasons.EDGE)
    held = found.withheld([why])
    assert (found.verdict, held.verdict, held.because) == ("better", "withheld", (why,))
    assert (held.low, held.high) == (found.low, found.high)
    assert found.withheld(()) is found


@pytest.mark.parametrize(("difference", "margin", "family"), [(1.0, 0.0, 1), (0.6, 0.0, 11), (0.0, 1.0, 1)])
def test_seeds_needed_reach_the_power_they_promise(rng, difference, margin, family):
    alpha, scale = ALPHA / family, Scale(margin=margin)
    spread = np.array([-1.0, 1.0, -1.0, 1.0]) / math.sqrt(4 / 3)  # standard deviation 1
    n = stats.seeds_needed(estimate(difference + spread), scale, alpha)
    assert n is not None

    def power(seeds):
        ends = (estimate(rng.normal(difference, 1.0, seeds)).interval("seeds", alpha) for _ in range(600))
        return np.mean([stats.verdict(*pair, scale) != "not decidable" for pair in ends])

    assert power(n) > stats.POWER - 0.08
    assert power(max(2, n // 2)) < stats.POWER


def test_what_cannot_be_decided_within_the_limit_is_given_up(rng):
    noise = rng.normal(size=6)
    noise = (noise - noise.mean()) / noise.std(ddof=1)
    assert not stats.within_reach(estimate(noise), Scale(margin=0.01), ALPHA, 12)
    assert stats.within_reach(estimate(noise + 1.5), Scale(margin=0.01), ALPHA, 12)
    assert stats.within_reach(estimate([1.0]), Scale(), ALPHA, 12), "nothing is known yet"


def test_two_samples_are_compared_by_welch(rng):
    a, b = rng.normal(size=6), rng.normal(1.0, 3.0, 9)
    expected = scipy_stats.ttest_ind(b, a, equal_var=False)
    mean, low, high, p = stats.welch(a, b)
    assert p == pytest.approx(expected.pvalue)
    assert (low, high) == pytest.approx(tuple(expected.confidence_interval()))
    assert mean == pytest.approx(b.mean() - a.mean())


# ---------------------------------------------------------------- the best


def test_the_confidence_set_holds_the_best(rng):
    held = [simulated.set_holds_best(rng, 5, 6)["set holds the best"] for _ in range(200)]
    assert np.mean(held) >= 0.95 - slack(0.05, 200)


def test_the_confidence_set_leaves_out_what_is_beaten_and_names_the_victor(rng):
    scores = {"a": rng.normal(0.9, 0.001, 6), "b": rng.normal(0.9, 0.001, 6), "c": rng.normal(0.8, 0.001, 6)}
    found = confidence_set(list(scores), lambda x, y: estimate(scores[x] - scores[y]))
    assert [each.may_be_best for each in found] == [True, True, False]
    assert found[2].beaten_by in ("a", "b")
    assert 0.09 < found[2].by < 0.1
    held = confidence_set(
        list(scores), lambda x, y: estimate(scores[x] - scores[y]), withheld={"c": (Reason("edge", reasons.EDGE),)}
    )
    assert held[2].may_be_best, "what may be better than it seems cannot be left out"


# ---------------------------------------------------------------- one effect or several


def test_an_average_hides_no_reversal():
    up, down = stats.compare([2.0, 2.1, 1.9, 2.0], Scale()), stats.compare([-1.0, -1.1, -0.9, -1.0], Scale())
    assert effects.heterogeneity([up, down]).shown
    assert effects.verdict_over([up, down], mixed=True) == "depends"
    assert effects.verdict_over([up, up], mixed=False) == "better"
    same = stats.compare([0.0, 0.01, -0.01, 0.0], Scale(margin=0.5))
    assert effects.verdict_over([up, same], mixed=False) == "not decidable"
    assert effects.verdict_over([up, same], mixed=True) == "depends"
    assert effects.verdict_over([up, up.withheld(["edge"])], mixed=False) == "withheld"


def test_heterogeneity_is_welchs_test(rng):
    from statsmodels.stats.oneway import anova_oneway

    groups = [rng.normal(0, spread, n) for spread, n in ((1.0, 5), (2.0, 8), (0.5, 12))]
    expected = anova_oneway(groups, use_var="unequal", welch_correction=True)
    assert effects.heterogeneity([stats.compare(g, Scale()) for g in groups]).p == pytest.approx(expected.pvalue)


def test_no_single_axis_is_named_where_only_the_combination_decides():
    signs = {("cnn", "0"): 1, ("cnn", "1"): -1, ("vit", "0"): -1, ("vit", "1"): 1}
    assert effects.depends_on(["model", "rate"], signs) == ()


# ---------------------------------------------------------------- learning


def test_runs_at_chance_and_far_below_their_median_did_not_learn():
    good = [0.75, 0.74, 0.76, 0.75, 0.74, 0.75, 0.76]
    assert learning.learnt([*good, 0.50], 0.0, 0.75).tolist() == [True] * 7 + [False]
    assert learning.learnt([*good, 0.60], 0.0, 0.75).all(), "a bad run that learnt"
    assert learning.learnt([*good, 0.72], 0.0, 0.75).all(), "a little worse is no failure"
    assert not learning.learnt([0.1, 0.11, 0.1], 0.1, 0.9).any(), "all at chance"
    assert learning.learnt([3.0, 3.1, 9.0, 3.05], 10.0, 3.0, higher_is_better=False).tolist() == [1, 1, 0, 1]
    assert learning.learnt([math.nan, 0.5], math.nan, 0.5).tolist() == [False, True]


def test_collapses_do_not_make_verdicts(rng):
    """One run in ten of a loss collapses; runs that learn equal the baseline's."""
    wrong = [simulated.false_of_shape(rng, 8, "collapse of one in ten")["false better or worse"] for _ in range(400)]
    assert np.mean(wrong) < ALPHA + slack(0.05, 400)


def test_rates_of_failure_have_intervals():
    one, none = stats.rate(1, 8), stats.rate(0, 8)
    assert (one.failed, one.runs) == (1, 8)
    assert 0.02 < one.low < 0.03 < 0.45 < one.high < 0.5
    difference = stats.rate_difference(none, one)
    assert difference.low < 0.125 == difference.difference < difference.high
    assert difference.p == 1.0
    assert stats.rate_difference(none, stats.rate(8, 8)).p < 0.001
    assert (stats.rate(0, 0).low, stats.rate(0, 0).high) == (0.0, 1.0)


def test_thresholds_and_curves():
    history = pd.DataFrame({"step": [10, 20, 30, 40], "valid.top1": [0.5, 0.85, 0.8, 0.9], "epoch": [1, 2, 3, 4]})
    assert learning.thresholds(0.1, 0.9) == pytest.approx((0.82, 0.892))
    assert learning.crossing(history, "valid.top1", 0.82) == pytest.approx(10 + 10 * 0.32 / 0.35)
    assert math.isnan(learning.crossing(history, "valid.top1", 0.95))
    assert learning.last_rise(history, "valid.top1") == pytest.approx(0.05)
    assert learning.roughness(history, "valid.top1") == pytest.approx((0.4 + 0.15) / 2)


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
    found = stats.compare(d, Scale())
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
