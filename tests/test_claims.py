"""The claims ledger: verdicts follow planted truths, chance decides nothing, and what is missing is named."""

import dataclasses
import math
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest

from harness import plan
from harness.address import Addresses
from harness.analysis import claims, deciding, reasons, weighing
from harness.analysis.cells import Analysis
from harness.analysis.claims import COSTS, Claim
from harness.analysis.deciding import decide
from harness.analysis.reasons import Reason
from harness.analysis.samples import Differences, Measures, Rates
from harness.analysis.weighing import Evidence, Place, weigh
from harness.errors import UsageError
from harness.metrics import detection, generation, retrieval
from harness.metrics.declared import KNOWN, Metric
from harness.records.study import StudyData, load_study
from harness.report import __main__ as command
from harness.report import ledger
from harness.report.sections import claims as section
from harness.studies.search import Search


def open_gate(*_):
    return ()


def study(values, seeds=12, noise=0.004, seed=0, name="survey", history=None, **more):
    """Return records: ``values`` gives the true metric by (loss, label noise), seeds move all runs alike."""
    rng = np.random.default_rng(seed)
    common = rng.normal(0, 0.01, seeds)
    rows = []
    for (loss, level), mean in values.items():
        for index in range(seeds):
            value = mean + common[index] + rng.normal(0, noise)
            rows.append(
                {"key": f"{loss}-{level}-{index}", "role": "run", "status": "done", "label": loss, "loss": loss,
                 "dataset": "digits", "model": "cnn_micro", "axis.stress.rate": level, "seed": index, "old": False,
                 "env.device": "cpu", "env.torch": "2.14.1", "test.top1": value, "cost.step_ms": 10 * math.exp(value),
                 "started": f"2026-11-21T{index:02}:00:00+00:00", "loss_evidence": "A", **more}
            )  # fmt: skip
    curves = pd.DataFrame() if history is None else pd.DataFrame(history)
    return Analysis(StudyData(name, {}, pd.DataFrame(rows), curves))


def claim(**more):
    given = {"id": "x", "document": "D", "short": "d", "source": "1", "says": "S.", "study": "survey", "margin": 0.01,
             "compare": {"loss": "a"}, "against": {"loss": "b"}, "written": "2026-11-20"}  # fmt: skip
    return Claim(**given | more)


def decided(asked, records, gate=open_gate):
    (found,) = decide([weigh(asked, records, gate)])
    return found


def estimate(asked, records):
    (place,) = weigh(asked, records, open_gate).places
    return place.sample.estimate


# ---------------------------------------------------------------- verdicts


@pytest.mark.parametrize(
    ("expect", "difference", "expected"),
    [
        ("more", 0.03, "supported"),
        ("more", -0.03, "contradicted"),
        ("more", 0.0, "contradicted"),  # equivalent: too small to matter
        ("less", -0.03, "supported"),
        ("less", 0.03, "contradicted"),
        ("at least", 0.0, "supported"),
        ("at least", 0.03, "supported"),
        ("at least", -0.03, "contradicted"),
        ("at most", 0.0, "supported"),
        ("at most", 0.03, "contradicted"),
        ("different", -0.03, "supported"),
        ("different", 0.0, "contradicted"),
    ],
)
def test_planted_truths_are_found(expect, difference, expected):
    records = study({("a", 0): 0.9 + difference, ("b", 0): 0.9})
    assert decided(claim(expect=expect), records).verdict == expected


def test_a_slight_loss_within_the_margin_is_no_worse():
    found = decided(claim(expect="at least"), study({("a", 0): 0.894, ("b", 0): 0.9}, seeds=40, noise=0.002))
    (place,) = found.evidence.places
    assert found.interval(place)[1] < 0  # a difference is shown, but it does not fall short by a margin
    assert found.verdict == "supported"


def test_a_verdict_is_what_its_interval_says():
    asked = claim(margin=1.0)
    said = {
        (0.5, 2.0): "yes", (-2.0, -0.5): "no", (-0.5, 0.5): "no", (0.2, 0.8): "no", (-0.5, 2.0): "open",
    }  # fmt: skip
    assert {ends: deciding.answer(asked, *ends) for ends in said} == said
    tolerant = {(-0.5, 2.0): "yes", (-0.9, -0.1): "yes", (-2.0, -0.5): "no", (-2.0, 0.5): "open"}
    assert {ends: deciding.answer(claim(margin=1.0, expect="at least"), *ends) for ends in tolerant} == tolerant


def samples(asked, *differences):
    return Evidence(asked, tuple(Place((("model", str(i)),), Differences(tuple(d)), (f"k{i}",))
                                 for i, d in enumerate(differences)))  # fmt: skip


def test_a_document_errs_in_one_claim_of_any_at_most_as_often_as_it_may():
    """Ten claims of two places each, without a difference and with a margin too small for equivalence, against the same
    baseline: at most 5 % of 200 documents may find any verdict (binomially at most 20).
    """
    rng = np.random.default_rng(2)
    family = [claim(id=name, expect="different", margin=1e-6) for name in "abcdefghij"]
    wrong = 0
    for _ in range(200):
        runs = rng.normal(0, 0.01, (2, 11, 6))
        found = decide(
            samples(x, *(runs[place, i] - runs[place, 10] for place in (0, 1))) for i, x in enumerate(family)
        )
        wrong += any(d.decided for d in found)
    assert wrong <= 20


@pytest.mark.parametrize("expect", ["more", "less"])
def test_one_place_without_an_effect_is_enough_to_support_nothing(expect):
    """A great effect in one place, none in the other: at most 5 % of 400 claims may hold or depend (at most 28)."""
    rng = np.random.default_rng(3)
    asked = claim(expect=expect, margin=1e-6)
    shift = 0.5 if expect == "more" else -0.5
    found = [
        decide([samples(asked, rng.normal(shift, 0.01, 6), rng.normal(0, 0.01, 6))])[0].verdict for _ in range(400)
    ]
    assert sum(verdict != "not decidable" for verdict in found) <= 28


def test_the_family_of_a_document_is_all_of_its_tested_claims_whatever_was_run():
    whole = [claim(), claim(id="y"), claim(id="z", needs="a task"), claim(id="c", test="cost", metric="time")]
    records = study({("a", 0): 0.95, ("b", 0): 0.9})
    found = deciding.ledger(lambda _: records, whole, open_gate, only="survey")
    assert [(d.claim.id, d.family) for d in found if d.claim.test != "cost"] == [("x", 2), ("y", 2)]
    assert found[0].level == pytest.approx(0.975)
    assert deciding.ledger(lambda _: None, whole, open_gate)[0].verdict == "withheld"


# ---------------------------------------------------------------- places


def two_models(cnn, vit):
    first, second = study(cnn), study(vit, seed=1)
    other = second.study.runs.assign(model="vit_nano", key="vit-" + second.study.runs["key"])
    return Analysis(StudyData("survey", {}, pd.concat([first.study.runs, other], ignore_index=True), pd.DataFrame()))


def test_an_average_never_hides_a_reversal():
    records = two_models({("a", 0): 0.95, ("b", 0): 0.7}, {("a", 0): 0.8, ("b", 0): 0.85})
    found = decided(claim(), records)
    assert found.verdict == "depends on"
    assert found.because == "model: holds at cnn_micro, not at vit_nano"
    assert [place.title for place in found.evidence.places] == ["digits, cnn_micro", "digits, vit_nano"]
    both = two_models({("a", 0): 0.95, ("b", 0): 0.7}, {("a", 0): 0.9, ("b", 0): 0.85})
    assert decided(claim(), both).verdict == "supported"
    assert decided(claim(expect="less"), both).verdict == "contradicted"


def test_what_separates_places_is_named_by_as_few_axes_as_do():
    asked = claim(expect="more")
    at = [(("model", m), ("axis.stress.rate", r)) for m in "cv" for r in "01"]
    places = [Place(each, Differences(())) for each in at]
    assert deciding.depends_on(places, ["yes", "no", "yes", "no"]) == "wrong labels: holds at 0, not at 1"
    assert deciding.depends_on(places, ["yes", "no", "no", "open"]).startswith("model and wrong labels: holds at c 0")
    assert deciding.answer(asked, 1, 2) == "yes"


def test_members_of_a_list_are_one_mean_or_each_on_its_own():
    records = study({("a", 0): 0.95, ("b", 0): 0.9, ("c", 0): 0.85}, noise=1e-6)
    asked = claim(compare={"loss": ["a", "c"]})
    assert estimate(asked, records) == pytest.approx(0.0, abs=1e-4)
    each = decided(dataclasses.replace(asked, members="each"), records)
    assert (each.verdict, each.because) == ("depends on", "loss: holds at a, not at c")
    paired = claim(compare={"loss": ["a", "b"]}, against={"loss": ["b", "c"]}, members="paired")
    assert [round(p.sample.estimate, 3) for p in weigh(paired, records, open_gate).places] == [0.05, 0.05]


def test_any_member_of_a_list_is_enough_and_none_is_needed_against_it():
    records = study({("a", 0): 0.95, ("b", 0): 0.9, ("c", 0): 0.9, ("d", 0): 0.9}, noise=1e-6)
    asked = claim(compare={"loss": ["a", "c"]}, members="any", expect="different")
    found = decided(asked, records)
    assert (found.verdict, found.because) == ("supported", "by a")
    none = decided(dataclasses.replace(asked, compare={"loss": ["d", "c"]}), records)
    assert (none.verdict, none.because) == ("contradicted", "")

    def gate(analysis, cell, label):
        return (Reason("its search ended at the edge", reasons.EDGE),) if label == edge else ()

    edge = "c"
    assert decided(asked, records, gate).verdict == "supported", "what is unknown of c cannot undo what is known of a"
    edge = "a"
    assert decided(asked, records, gate).verdict == "withheld"
    two = two_models({("a", 0): 0.95, ("b", 0): 0.9, ("c", 0): 0.9}, {("a", 0): 0.9, ("b", 0): 0.9, ("c", 0): 0.9})
    assert decided(asked, two).because == "model: holds at cnn_micro, not at vit_nano"


@pytest.mark.parametrize("members", ["mean", "each"])
def test_a_member_without_a_run_is_named_not_dropped(members):
    records = study({("a", 0): 0.95, ("b", 0): 0.9})
    found = decided(claim(compare={"loss": ["a", "missing"]}, members=members), records)
    assert (found.verdict, "missing" in found.because) == ("withheld", True)
    assert found.because.startswith("no runs of missing")


def test_a_place_without_one_side_is_named_not_dropped():
    records = two_models({("a", 0): 0.95, ("b", 0): 0.9}, {("a", 0): 0.95})
    found = decided(claim(), records)
    assert (found.verdict, found.because) == ("withheld", "no runs of b (vit_nano)")


def test_beyond_subtracts_the_same_difference_elsewhere():
    records = study({("a", 0): 0.95, ("b", 0): 0.9, ("a", 0.4): 0.75, ("b", 0.4): 0.6}, noise=1e-6)
    conditions = {"where": {"stress.rate": 0.4}, "beyond": {"stress.rate": 0}}
    assert estimate(claim(**conditions), records) == pytest.approx(0.1, abs=1e-4)
    assert estimate(claim(where={"stress.rate": 0.4}), records) == pytest.approx(0.15, abs=1e-4)
    assert [p.title for p in weigh(claim(), records, open_gate).places] == [
        "digits, cnn_micro, wrong labels 0", "digits, cnn_micro, wrong labels 0.4",
    ]  # fmt: skip
    listed = claim(where={"stress.rate": [0, 0.4]})
    assert len(weigh(listed, records, open_gate).places) == 2


def test_records_of_another_device_and_rows_of_controls_do_not_enter():
    records = study({("a", 0): 0.95, ("b", 0): 0.9})
    runs = records.study.runs.copy()
    runs.loc[runs["seed"] > 7, "env.device"] = "cuda"
    assert weigh(claim(), Analysis(StudyData("survey", {}, runs, pd.DataFrame())), open_gate).n == 8
    trials = records.study.runs.assign(role="search", lr=0.1, **{"valid.top1": 0.5})
    control = trials.assign(label="negative_control_worse", loss="negative_control_worse")
    whole = pd.concat([records.study.runs, trials, control], ignore_index=True)
    asked = claim(role="search", metric="valid.top1", compare={"model": "cnn_micro"}, against={"model": "cnn_micro"},
                  pair="loss", spread=True)  # fmt: skip
    found = weigh(asked, Analysis(StudyData("survey", {}, whole, pd.DataFrame())), open_gate)
    assert found.n == 2  # the two losses of runs


# ---------------------------------------------------------------- withheld


def test_a_gate_withholds_and_says_why_and_where():
    records = two_models({("a", 0): 0.95, ("b", 0): 0.9}, {("a", 0): 0.95, ("b", 0): 0.9})

    def gate(analysis, cell, label):
        assert analysis is records
        edge = Reason("its search ended at the edge", reasons.EDGE)
        return (edge,) if (cell.model, label) == ("vit_nano", "a") else ()

    found = decided(claim(), records, gate)
    assert (found.verdict, found.because) == ("withheld", "a: its search ended at the edge (vit_nano)")
    assert decided(claim(where={"model": "cnn_micro"}), records, gate).verdict == "supported"


def test_the_projects_own_gates_are_asked():
    runs = study({("a", 0): 0.95, ("cross_entropy", 0): 0.9}).study.runs
    records = Analysis(StudyData("survey", {"track": "fixed"}, runs.assign(old=runs["label"] == "a"), pd.DataFrame()))
    (found,) = decide([weigh(claim(against={"loss": "cross_entropy"}), records)])
    assert (found.verdict, found.because) == ("withheld", "a: 12 of 12 runs were made by older code")


def test_a_metric_at_the_end_of_its_range_decides_nothing():
    runs = study({("a", 0): 0.0, ("b", 0): 0.0}).study.runs.assign(**{"test.gmean": 0.0})
    records = Analysis(StudyData("survey", {}, runs, pd.DataFrame()))
    found = decided(claim(metric="test.gmean"), records)
    assert (found.verdict, found.because) == ("withheld", "test.gmean does not tell runs apart: 0 in all of them")
    assert decided(claim(metric="test.auc"), records).because == "no run of the study survey records test.auc"


def test_a_margin_finer_than_one_test_item_is_named():
    records = study({("a", 0): 0.95, ("b", 0): 0.9}, **{"data.test": 50})
    found = decided(claim(), records)
    assert (found.verdict, found.because) == ("withheld", "the margin is finer than one test item (2.00 %)")
    assert decided(claim(margin=0.03), records).verdict == "supported"


def test_seeds_must_be_complete_and_runs_that_failed_are_told():
    runs = study({("a", 0): 0.95, ("b", 0): 0.9, ("c", 0): 0.85}, noise=1e-6).study.runs
    runs.loc[runs["key"] == "c-0-3", "status"] = "diverged"
    records = Analysis(StudyData("survey", {}, runs, pd.DataFrame()))
    found = decided(claim(compare={"loss": ["a", "c"]}, expect="different"), records)
    assert found.evidence.n == 11
    assert "c-0-3" not in found.evidence.keys
    assert "1 run diverged, left out" in found.because


def test_a_rare_run_that_did_not_learn_is_left_out_and_a_usual_one_is_not():
    runs = study({("a", 0): 0.95, ("cross_entropy", 0): 0.9}, **{"data.classes": 10}).study.runs
    runs.loc[runs["key"] == "a-0-3", "test.top1"] = 0.1
    against = {"against": {"loss": "cross_entropy"}}
    rare = decided(claim(**against), Analysis(StudyData("survey", {}, runs, pd.DataFrame())))
    assert (rare.evidence.n, rare.verdict, rare.because) == (11, "supported", "1 run did not learn, left out")
    runs.loc[runs["label"] == "a", "test.top1"] = np.linspace(0.09, 0.11, 12)
    usual = decided(claim(**against), Analysis(StudyData("survey", {}, runs, pd.DataFrame())))
    assert (usual.evidence.n, usual.verdict) == (12, "contradicted")
    assert "12 runs did not learn, most of its runs" in usual.because


def test_what_is_missing_is_named():
    assert decided(claim(needs="a task of speech"), None).because == "needs a task of speech"
    assert decided(claim(needs="a task of speech"), None).verdict == "cannot be tested"
    assert decided(claim(), None).because == "no runs of the study survey: python -m harness study=survey"
    assert decided(claim(), study({("a", 0): 0.9})).because == "no runs of b"
    few = decided(claim(), study({("a", 0): 0.9, ("b", 0): 0.9}, seeds=1))
    assert (few.verdict, few.because) == ("withheld", "1 complete seeds: a comparison takes two")
    old = decided(claim(retired="nobody said so"), None)
    assert (old.verdict, old.because, old.counted) == ("retired", "nobody said so", False)


def test_undecided_claims_say_how_many_seeds_would_decide():
    found = decided(claim(margin=0.001), study({("a", 0): 0.901, ("b", 0): 0.9}, 5))
    assert found.verdict == "not decidable"
    number = int(found.because.removeprefix("about ").removesuffix(" seeds would decide").replace(",", ""))
    assert number > 5


# ---------------------------------------------------------------- kinds of test


def test_new_items_widen_the_interval():
    """Two losses that differ on test items alone: over seeds nothing moves, over items it does."""
    records = study({("a", 0): 0.9, ("b", 0): 0.9}, noise=1e-6)
    rng = np.random.default_rng(0)
    scores = {loss: (rng.random(300) < share).astype(float) for loss, share in (("a", 0.93), ("b", 0.9))}
    ids = np.arange(300, dtype=np.int32)
    runs = records.study.runs
    runs["test.top1"] = [scores[loss].mean() for loss in runs["loss"]]

    class Kept(StudyData):
        def item_scores(self, key, metric):
            return (ids, scores[key[0]]) if metric == "test.top1" else None

    with_items = weigh(claim(), Analysis(Kept("survey", {}, runs, pd.DataFrame())), open_gate).places[0].sample
    without = weigh(claim(), Analysis(StudyData("survey", {}, runs, pd.DataFrame())), open_gate).places[0].sample
    assert (with_items.scope, without.scope) == ("new items", "seeds")
    low, high = with_items.interval(0.95)
    spread = np.std(scores["a"] - scores["b"], ddof=1) / math.sqrt(300)
    assert high - low == pytest.approx(2 * 1.97 * spread, rel=0.1)
    assert np.ptp(without.interval(0.95)) < 1e-6


def test_a_sign_is_tested_beside_0():
    runs = study({("a", 0): -0.05}).study.runs.rename(columns={"test.top1": "test.gap"}).assign(**{"test.top1": 0.9})
    gap = Metric("gap", "confidence less accuracy", low=-1.0, high=1.0)
    records = Analysis(StudyData("survey", {}, runs, pd.DataFrame(), (gap, KNOWN["top1"])))
    asked = claim(test="sign", against={}, metric="test.gap")
    assert decided(dataclasses.replace(asked, expect="less"), records).verdict == "supported"
    assert decided(asked, records).verdict == "contradicted"
    assert estimate(asked, records) == pytest.approx(runs["test.gap"].mean())


def curves(fast, slow, wobble=0.0):
    """Return epochs of ``a``, which approaches 1 at ``fast``, and ``b`` at ``slow``."""
    return [
        {"key": f"{loss}-0-{seed}", "epoch": epoch, "step": 10 * epoch,
         "valid.top1": 1 - math.exp(-epoch / (scale * (1 + seed / 100))) + wobble * (-1) ** epoch * (loss == "a")}
        for loss, scale in (("a", fast), ("b", slow)) for seed in range(12) for epoch in range(1, 60)
    ]  # fmt: skip


def test_steps_to_a_share_of_the_other_sides_score_are_a_ratio():
    records = study({("a", 0): 0.9, ("b", 0): 0.9}, history=curves(2.0, 4.0))
    asked = claim(test="steps", metric="valid.top1", margin=0.1, expect="less")
    found = decided(asked, records)
    assert found.verdict == "supported"
    assert math.exp(found.evidence.places[0].sample.estimate) == pytest.approx(0.5, rel=0.05)
    assert section.effect(found).startswith("−49")
    never = study({("a", 0): 0.9, ("b", 0): 0.9}, history=curves(1e6, 4.0))
    assert decided(asked, never).because == "0 complete seeds: a comparison takes two"


def test_roughness_is_that_of_the_validation_curve():
    records = study({("a", 0): 0.9, ("b", 0): 0.9}, history=curves(4.0, 4.0, wobble=0.02))
    asked = claim(test="roughness", metric="valid.top1", relative=True, margin=0.1)
    assert decided(asked, records).verdict == "supported"
    assert decided(dataclasses.replace(asked, expect="less"), records).verdict == "contradicted"


def test_rates_of_failure_are_compared_as_rates():
    runs = study({("a", 0): 0.9, ("cross_entropy", 0): 0.9}).study.runs
    runs.loc[runs["key"].isin([f"a-0-{i}" for i in range(9)]), "status"] = "diverged"
    records = Analysis(StudyData("survey", {}, runs, pd.DataFrame()))
    asked = claim(test="rate", against={"loss": "cross_entropy"}, margin=0.1)
    found = decided(asked, records)
    assert found.verdict == "supported"
    assert found.evidence.places[0].sample == Rates((9, 0), (12, 12))
    assert section.effect(found).startswith("+75.0 [")
    same = Rates((1, 1), (12, 12)).interval(0.95)
    assert same[0] == pytest.approx(-same[1])


def test_costs_are_those_of_the_losses_alone(monkeypatch):
    measured = pd.DataFrame(
        {"loss": ["a", "b", "c"], "size": ["1", "1", "2"], "eager_ms": [3.0, 2.0, 1.0], "copies": [3.0, 2.1, 1.0],
         "operations": [30, 10, 10]}
    )  # fmt: skip
    monkeypatch.setattr(weighing, "costs", lambda: measured)
    asked = claim(test="cost", metric="time", margin=0.05)
    found = decided(asked, None)
    assert (found.verdict, found.exploratory) == ("supported", False)
    assert section.effect(found).startswith("+46.4 % [+42.9 %, +50.0 %]")
    apart = decided(dataclasses.replace(asked, against={"loss": "c"}), None)
    assert apart.because == "a and c were measured at different sizes"
    operations = dataclasses.replace(asked, against={"loss": "c"}, metric="operations")
    assert decided(operations, None).evidence.places[0].sample == Measures((math.log(3),))
    assert decided(dataclasses.replace(asked, against={"loss": "d"}), None).because == "no measured cost of d"


def test_relative_claims_compare_ratios():
    records = study({("a", 0): math.log(1.2), ("b", 0): 0.0}, noise=1e-6)
    found = decided(claim(metric="cost.step_ms", relative=True, margin=0.05), records)
    assert section.effect(found).startswith("+20.0 %")


def test_spread_compares_ranges_with_a_loss_as_one_observation():
    rows = [
        {"key": f"{role}{loss}{model}{lr}", "role": role, "status": "done", "label": loss, "loss": loss, "seed": 7001,
         "dataset": "digits", "model": model, "lr": lr, "valid.top1": 0.9 - width * index, "test.top1": 0.9,
         "old": False}
        for role in ("search", "run") for loss in "abcdef" for model, width in (("vit", 0.1), ("cnn", 0.02))
        for index, lr in enumerate((1, 2, 3))
    ]  # fmt: skip
    records = Analysis(StudyData("survey", {}, pd.DataFrame(rows), pd.DataFrame()))
    asked = claim(role="search", pair="loss", spread=True, metric="valid.top1", compare={"model": "vit"},
                  against={"model": "cnn"})  # fmt: skip
    assert weigh(asked, records, open_gate).n == 6
    assert estimate(asked, records) == pytest.approx(0.16)


def test_a_claim_is_read_in_the_metric_that_its_records_declare():
    records = study({("a", 0): 0.93, ("b", 0): 0.9}, noise=1e-6)
    runs = records.study.runs.assign(**{"test.smoothness": records.study.runs["test.top1"]})
    own = Metric("smoothness", "smoothness", "dB", "dB", digits=1)
    asked = claim(metric="test.smoothness")
    found = decided(asked, Analysis(StudyData("survey", {}, runs, pd.DataFrame(), (own, KNOWN["top1"]))))
    assert section.effect(found) == "0.0 [0.0, 0.0]"
    assert "0.01 dB of smoothness" in [entry.text for entry in section.overview([found])[2].rows[0].entries]
    with pytest.raises(UsageError, match=r"unknown metric 'test\.smoothness'"):
        weigh(asked, Analysis(StudyData("survey", {}, runs, pd.DataFrame())), open_gate)


# ---------------------------------------------------------------- dates, reconstructions, equal functions


def test_a_claim_that_is_younger_than_its_runs_is_exploratory():
    records = study({("a", 0): 0.95, ("b", 0): 0.9})  # the first run started on 21 November at midnight
    for written, exploratory in (
        ("2026-11-20", False), ("2026-11-20T23:59Z", False), ("2026-11-21", True), ("2026-11-21T00:01Z", True),
    ):  # fmt: skip
        found = decided(claim(written=written), records)
        assert found.exploratory is exploratory
        assert ("exploratory" in section.verdict_text(found)) is exploratory


def test_reconstructions_and_equal_functions_are_counted_apart():
    records = study({("a", 0): 0.95, ("b", 0): 0.9}, loss_evidence="R")
    found = decide([weigh(claim(), records, open_gate), weigh(claim(id="y", same_as="x"), records, open_gate)])
    assert [section.verdict_text(d) for d in found] == [
        "supported (reconstruction)", "supported (reconstruction, the same as x)",
    ]  # fmt: skip
    assert section.summary(found) == (
        "1 claim: 1 supported. Of the 1 decided, 1 of reconstructions. Beside them 1 of equal functions counted once."
    )
    assert found[1].family == 1


def test_a_test_that_changed_needs_a_new_date(tmp_path):
    text = (
        'document: "D"\nshort: d\nclaims:\n  - id: x\n    source: "1"\n    says: S.\n    study: survey\n'
        "    compare: {loss: a}\n    against: {loss: b}\n    margin: 0.01\n  # a comment\n  - id: later\n"
        '    source: "2"\n    says: L.\n    needs: a task\n'
    )
    (tmp_path / "d.yaml").write_text(text)
    assert claims.read_claims(tmp_path)[0].is_younger_than("2999-01-01")  # a draft
    (tmp_path / "d.yaml").write_text(text.replace("    says: S.", "    says: S.\n    written: today"))
    with pytest.raises(UsageError, match=r"the claim x was written 'today', which is no date: .* --stamp"):
        claims.read_claims(tmp_path)
    assert claims.stamp(tmp_path, datetime(2026, 11, 25, 21, 30, tzinfo=UTC)) == ["x"]
    (own, later) = claims.read_claims(tmp_path)
    assert (own.written, own.definition, later.written) == ("2026-11-25T21:30Z", own.current_definition(), "")
    assert claims.stamp(tmp_path) == []
    stamped = (tmp_path / "d.yaml").read_text()
    (tmp_path / "d.yaml").write_text(stamped.replace("says: S.", "says: Better."))
    assert claims.read_claims(tmp_path)[0].says == "Better."  # words are no part of the test
    (tmp_path / "d.yaml").write_text(stamped.replace("margin: 0.01", "margin: 0.02"))
    with pytest.raises(UsageError, match=r"the claim x is not the one that was written 2026-11-25T21:30Z"):
        claims.read_claims(tmp_path)
    claims.stamp(tmp_path, datetime(2026, 11, 26, tzinfo=UTC))
    assert claims.read_claims(tmp_path)[0].written == "2026-11-26T00:00Z"
    assert (tmp_path / "d.yaml").read_text().count("written:") == 1


def test_a_definition_of_digits_alone_stays_a_text(tmp_path):
    """One hash in three hundred is."""
    entry = (
        'document: "D"\nshort: d\nclaims:\n  - id: x\n    source: "1"\n    says: S.\n    study: survey\n'
        "    compare: {{loss: a}}\n    against: {{loss: b}}\n    margin: {}\n"
    )
    for margin in (number / 1000 for number in range(1, 5000)):
        (tmp_path / "d.yaml").write_text(entry.format(margin))
        if claims.read_claims(tmp_path)[0].current_definition().isdecimal():
            break
    claims.stamp(tmp_path)
    (own,) = claims.read_claims(tmp_path)
    assert own.definition.isdecimal()
    assert own.definition == own.current_definition()


# ---------------------------------------------------------------- the ledger of this project


def test_every_claim_of_this_project_says_what_it_quotes_and_compares():
    found = claims.read_claims()
    assert len({each.document for each in found}) == 5
    tasks = (detection.DETECTION, generation.METRICS, generation.RECONSTRUCTION, retrieval.RETRIEVAL)
    known = {*KNOWN, *COSTS, "confidence_gap", *(metric.key for metrics in tasks for metric in metrics)}
    for each in found:
        assert each.says.endswith("."), each.id
        assert not each.tested or (each.margin > 0 and each.written), each.id
        uses = any("pf_loss" in str(v) or "hybrid_" in str(v) for v in (each.compare, each.against))
        assert not uses or "econstruction" in each.tests, each.id
        assert not each.tested or each.metric.rpartition(".")[2] in known, (each.id, each.metric)


@pytest.mark.parametrize("name", sorted({each.study for each in claims.read_claims() if each.tested and each.study}))
def test_every_claim_finds_its_runs_in_the_plan_of_its_study(name, tmp_path):
    """With every planned run finished, each claim has an observation for each seed in every place it speaks of."""
    asked = plan.read_study(name)
    settings, addresses = plan.settings(asked), Addresses(tmp_path, tmp_path)
    runs = [*plan.runs(settings, asked, addresses), *Search(settings, asked, addresses).ask()]
    rows = [
        {"key": run.key, "role": run.setting.role, "status": "done", "label": run.setting.label, "seed": run.seed,
         **run.setting.choices, "lr": run.setting.spec.optimizer["lr"], "old": False,
         **{f"axis.{key}": value for key, value in run.setting.axes.items()},
         **{f"config.loss.{k}": v for k, v in run.setting.spec.loss.items() if not isinstance(v, dict)}}
        for run in runs
    ]  # fmt: skip
    spread = np.linspace(0.5, 0.9, len(rows))
    for each in claims.read_claims():
        if each.study != name or not each.tested:
            continue
        epochs = [
            {"key": row["key"], "epoch": epoch, "step": epoch, each.metric: value * epoch / (epoch + 1 + value)}
            for row, value in zip(rows, spread, strict=True) for epoch in (1, 2, 4, 8, 200)
        ]  # fmt: skip
        metric = Metric(each.metric.rpartition(".")[2], "the metric of the claim")
        declared = (metric, *(KNOWN[n] for n in KNOWN if n != metric.key), Metric(str(asked.metric)[5:], "the study's"))
        frame = pd.DataFrame(rows).assign(**{each.metric: spread, asked.metric: spread})
        records = Analysis(StudyData(name, {"metric": asked.metric}, frame, pd.DataFrame(epochs), declared))
        found = weigh(each, records, open_gate)
        assert found.places, (each.id, found.missing)
        assert not [place.withheld for place in found.places if place.withheld], each.id
        assert found.n >= 2, each.id


def test_committed_evidence_is_found_wherever_working_output_goes(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.records.study.RESULTS", tmp_path)
    assert len(load_study("outliers", tmp_path).runs) > 100
    found = deciding.recorded("outliers")
    assert found is not None
    assert deciding.recorded("no_such_study") is None


def test_the_ledger_is_written_and_summarised(tmp_path, capsys, monkeypatch):
    records = study({("label_smoothing", 0): 0.93, ("cross_entropy", 0): 0.9})
    monkeypatch.setattr(deciding, "recorded", lambda name: records if name == "survey" else None)
    base = {"document": "Doc", "short": "d", "source": "1", "written": "2026-11-20"}
    asked = Claim(**base, id="good", says="It helps.", words="it helps", study="survey", margin=0.005,
                  compare={"loss": "label_smoothing"}, against={"loss": "cross_entropy"})  # fmt: skip
    missing = Claim(**base, id="later", says="It would.", needs="a task of speech")
    monkeypatch.setattr(deciding, "read_claims", lambda: [asked, missing])
    assert command.main(["claims", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "supported - d: It helps." in printed
    assert "2 claims: 1 supported and 1 cannot be tested." in printed
    page = (tmp_path / "index.html").read_text()
    assert "needs a task of speech" in page
    assert "“it helps”" in page
    assert "It helps." in (tmp_path / "report.md").read_text()
    row = pd.read_csv(tmp_path / "tables" / "claims-d.csv").set_index("id").loc["good"]
    assert row["verdict"] == "supported"
    assert len(row["keys"].split()) == 24
    place = pd.read_csv(tmp_path / "tables" / "claims-d-places.csv").set_index("id").loc["good"]
    assert place["estimate"] == pytest.approx(0.03, abs=0.01)
    assert place["answer"] == "holds"


def test_wrong_claims_are_refused_in_one_sentence(tmp_path):
    base = {"document": "D", "short": "d", "id": "x", "source": "1", "says": "S."}
    whole = {"study": "survey", "compare": {"loss": "a"}, "against": {"loss": "b"}, "margin": 0.01}
    for entry, message in (
        (base | whole | {"expects": "more"}, "unknown field of the claim x"),
        (base | whole | {"study": "servey"}, "did you mean 'survey'|survey"),
        (base | whole | {"expect": "better"}, "unknown expectation of the claim x"),
        (base | whole | {"test": "sine"}, "unknown kind of test of the claim x"),
        (base | whole | {"members": "all"}, "unknown meaning of a list of the claim x"),
        (base | whole | {"members": "any"}, "the claim x has members any, but no list"),
        (base | whole | {"test": "cost", "metric": "money"}, "unknown cost of the claim x"),
        (base | whole | {"margin": 0}, "a margin above 0, named before the runs"),
        (base | whole | {"test": "sign"}, "needs compare, against"),
        (base | whole | {"words": "one two three four five six seven eight nine ten eleven twelve more"}, "12 words"),
        ({**base, "says": ""}, "has no says"),
    ):
        with pytest.raises(UsageError, match=message):
            claims.read_claim(tmp_path / "d.yaml", entry, stamped=False)
    head = 'document: "D"\nshort: d\nclaims:\n'
    (tmp_path / "d.yaml").write_text(head + '  - {id: y, source: "1", says: S., same_as: z}\n')
    with pytest.raises(UsageError, match="unknown claim of d that y is the same as"):
        claims.read_claims(tmp_path)
    assert ledger.compose([]).sections[0].items


def test_every_property_of_the_review_names_claims_that_exist():
    known = {each.id for each in claims.read_claims()}
    named = [name for line in pd.read_csv(ledger.PROPERTIES)["claims"] for name in line.split()]
    assert set(named) <= known
    page = ledger.compose([decided(claim(id="focal_costs_more"), study({("a", 0): 0.95, ("b", 0): 0.9}))])
    rows = {(row.entries[0].text, row.entries[2].text): row.entries[3] for row in page.sections[1].items[1].rows}
    assert rows["Focal", "costs more than cross-entropy"].text.startswith("supported: +4.94")
    assert rows["Dice", "harder to optimise"].note == "no claim stands for it"
