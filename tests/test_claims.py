"""The claims ledger: verdicts follow planted truths, chance decides nothing, and what is missing is named."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest

from harness import plan
from harness.address import Addresses
from harness.analysis import claims
from harness.analysis.claims import Claim, decide, weigh
from harness.errors import UsageError
from harness.metrics.declared import Metric, metric_of
from harness.records.study import StudyData
from harness.report import __main__ as command
from harness.report import ledger
from harness.report.sections import claims as section
from harness.studies.search import Search

TOP1 = metric_of("test.top1")


def study(values, seeds=12, noise=0.004, seed=0, name="survey"):
    """Return records: ``values`` gives the true metric by (loss, label noise), seeds move all runs alike."""
    rng = np.random.default_rng(seed)
    common = rng.normal(0, 0.01, seeds)
    rows = []
    for (loss, level), mean in values.items():
        for index in range(seeds):
            value = mean + common[index] + rng.normal(0, noise)
            rows.append(
                {"key": f"{loss}-{level}-{index}", "role": "run", "status": "done", "label": loss, "loss": loss,
                 "dataset": "digits", "model": "cnn_micro", "axis.stress.rate": level, "seed": index,
                 "env.device": "cpu", "env.torch": "2.14.1", "test.top1": value, "cost.step_ms": 10 * math.exp(value)}
            )  # fmt: skip
    return StudyData(name, {}, pd.DataFrame(rows), pd.DataFrame())


def claim(**more):
    given = {"id": "x", "document": "D", "short": "d", "source": "1", "says": "S.", "study": "survey", "margin": 0.01,
             "compare": {"loss": "a"}, "against": {"loss": "b"}}  # fmt: skip
    return Claim(**given | more)


def verdict(expect, difference, **more):
    (found,) = decide([weigh(claim(expect=expect, **more), study({("a", 0): 0.9 + difference, ("b", 0): 0.9}))])
    return found.verdict


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
    assert verdict(expect, difference) == expected


def test_a_metric_at_the_end_of_its_range_decides_nothing():
    records = study({("a", 0): 0.0, ("b", 0): 0.0})
    records.runs["test.top1"] = 0.0
    (found,) = decide([weigh(claim(expect="more"), records)])
    assert found.verdict == "not decidable"
    assert found.evidence.missing == "a metric that tells runs apart: test.top1 is 0 in all of them"
    records.runs.loc[0, "test.top1"] = 0.5
    assert weigh(claim(expect="more"), records).n == 12


def test_a_slight_loss_within_the_margin_is_no_worse():
    records = study({("a", 0): 0.894, ("b", 0): 0.9}, seeds=40, noise=0.002)
    (found,) = decide([weigh(claim(expect="at least"), records)])
    assert found.p_against < 0.05  # a difference is shown, but it does not fall short by a margin
    assert found.verdict == "supported"


@pytest.mark.parametrize("expect", ["more", "less", "different"])
def test_chance_supports_nothing_more_often_than_it_may(expect):
    """No difference, and a margin too small for equivalence: at most 5 % of 600 claims may find one, by binomial
    chance at most 47.
    """
    rng = np.random.default_rng(1)
    each = claim(expect=expect, margin=1e-6)
    found = [decide([claims._tested(each, TOP1, rng.normal(0, 0.01, 6).tolist(), (), 0)])[0] for _ in range(600)]
    assert sum(d.verdict == "supported" for d in found) <= 47


def test_claims_of_a_document_share_the_error_rate():
    """Ten claims without a difference, against the same baseline: at most 5 % of 200 documents may find any
    (binomially at most 20).
    """
    rng = np.random.default_rng(2)
    family = [claim(id=name, expect="different", margin=1e-6) for name in "abcdefghij"]
    wrong = 0
    for _ in range(200):
        runs = rng.normal(0, 0.01, (11, 6))
        found = decide(
            claims._tested(x, TOP1, (own - runs[10]).tolist(), (), 0) for x, own in zip(family, runs, strict=False)
        )
        wrong += any(d.verdict == "supported" for d in found)
    assert wrong <= 20


def test_beyond_subtracts_the_same_difference_elsewhere():
    records = study({("a", 0): 0.95, ("b", 0): 0.9, ("a", 0.4): 0.75, ("b", 0.4): 0.6}, noise=1e-6)
    conditions = {"where": {"stress.rate": 0.4}, "beyond": {"stress.rate": 0}}
    assert weigh(claim(**conditions), records).estimate == pytest.approx(0.1, abs=1e-4)
    assert weigh(claim(where={"stress.rate": 0.4}), records).estimate == pytest.approx(0.15, abs=1e-4)
    assert weigh(claim(), records).estimate == pytest.approx(0.1, abs=1e-4)  # the mean over what is left open


def test_several_losses_are_averaged_and_seeds_must_be_complete():
    records = study({("a", 0): 0.95, ("b", 0): 0.9, ("c", 0): 0.85}, noise=1e-6)
    both = claim(compare={"loss": ["a", "c"]})
    assert weigh(both, records).estimate == pytest.approx(0.0, abs=1e-4)
    records.runs.loc[records.runs["key"] == "c-0-3", "status"] = "diverged"
    found = weigh(both, records)
    assert (found.n, found.diverged) == (11, 1)
    assert "c-0-3" not in found.keys


def test_relative_claims_compare_ratios():
    records = study({("a", 0): math.log(1.2), ("b", 0): 0.0}, noise=1e-6)
    found = weigh(claim(metric="cost.step_ms", relative=True, margin=0.05), records)
    assert math.exp(found.estimate) == pytest.approx(1.2, rel=1e-3)
    (decision,) = decide([found])
    assert section.effect(decision).startswith("+20.0 %")


def test_spread_compares_ranges_with_a_loss_as_one_observation():
    rows = [
        {"key": f"{loss}{model}{lr}", "role": "search", "status": "done", "label": loss, "loss": loss, "seed": 7001,
         "dataset": "digits", "model": model, "lr": lr, "valid.top1": 0.9 - width * index}
        for loss in "abcdef" for model, width in (("vit", 0.1), ("cnn", 0.02)) for index, lr in enumerate((1, 2, 3))
    ]  # fmt: skip
    records = StudyData("survey", {}, pd.DataFrame(rows), pd.DataFrame())
    asked = claim(role="search", pair="loss", spread=True, metric="valid.top1", compare={"model": "vit"},
                  against={"model": "cnn"})  # fmt: skip
    found = weigh(asked, records)
    assert (found.n, round(found.estimate, 6)) == (6, 0.16)


def test_a_claim_is_read_in_the_metric_that_its_records_declare():
    records = study({("a", 0): 0.93, ("b", 0): 0.9}, noise=1e-6)
    records.runs["test.smoothness"] = records.runs["test.top1"]
    own = dataclasses.replace(records, metrics=(Metric("smoothness", "smoothness", "dB", "dB", digits=1),))
    (found,) = decide([weigh(claim(metric="test.smoothness"), own)])
    assert section.effect(found) == "0.0 [0.0, 0.0]"
    assert "0.01 dB of smoothness" in [entry.text for entry in section.overview([found])[2].rows[0].entries]
    with pytest.raises(UsageError, match=r"unknown metric 'test\.smoothness'"):
        weigh(claim(metric="test.smoothness"), records)


def test_what_is_missing_is_named():
    assert weigh(claim(needs="a task of detection"), None).missing == "a task of detection"
    assert weigh(claim(), None).missing == "python -m harness study=survey"
    records = study({("a", 0): 0.9})
    assert weigh(claim(), records).missing == "runs of loss b in the study survey"
    few = study({("a", 0): 0.9, ("b", 0): 0.9}, seeds=1)
    (found,) = decide([weigh(claim(), few)])
    assert (found.verdict, found.evidence.missing) == ("not decidable", "python -m harness study=survey")


def test_undecided_claims_say_how_many_seeds_would_decide():
    (found,) = decide([weigh(claim(margin=0.001), study({("a", 0): 0.901, ("b", 0): 0.9}, 5))])
    assert found.verdict == "not decidable"
    assert found.seeds_needed is not None
    assert found.seeds_needed > 5


def test_records_of_another_device_are_not_mixed_in():
    records = study({("a", 0): 0.95, ("b", 0): 0.9})
    records.runs.loc[records.runs["seed"] > 7, "env.device"] = "cuda"
    assert weigh(claim(), records).n == 8


# ---------------------------------------------------------------- the ledger of this project


def test_there_are_at_least_forty_claims_with_source_and_margin():
    found = claims.read_claims()
    assert len(found) >= 40
    assert len({each.document for each in found}) == 5
    for each in found:
        assert each.needs or each.margin > 0
        assert each.says.endswith(".")
        assert "reconstruction" in each.says or not any("pf_loss" in str(v) or "hybrid_" in str(v)
                                                         for v in (each.compare, each.against))  # fmt: skip


@pytest.mark.parametrize("name", sorted({each.study for each in claims.read_claims() if each.study}))
def test_every_claim_finds_its_runs_in_the_plan_of_its_study(name, tmp_path):
    """With every planned run finished and equal, each claim has as many observations as the study has seeds."""
    asked = plan.read_study(name)
    settings, addresses = plan.settings(asked), Addresses(tmp_path, tmp_path)
    runs = [*plan.runs(settings, asked, addresses), *Search(settings, asked, addresses).ask()]
    rows = [
        {"key": run.key, "role": run.setting.role, "status": "done", "label": run.setting.label, "seed": run.seed,
         **run.setting.choices, "lr": run.setting.spec.optimizer["lr"],
         **{f"axis.{key}": value for key, value in run.setting.axes.items()},
         **{f"config.loss.{key}": value for key, value in run.setting.spec.loss.items()}}
        for run in runs
    ]  # fmt: skip
    for each in claims.read_claims():
        if each.study != name:
            continue
        records = StudyData(
            name, {}, pd.DataFrame(rows).assign(**{each.metric: np.linspace(0.1, 0.9, len(rows))}), pd.DataFrame()
        )
        found = weigh(each, records)
        assert found.n >= 5, (each.id, found.missing)


def test_the_ledger_is_written_and_summarised(tmp_path, capsys, monkeypatch):
    records = study({("label_smoothing", 0): 0.93, ("cross_entropy", 0): 0.9})
    monkeypatch.setattr(claims, "recorded", lambda name: records if name == "survey" else None)
    asked = claims._claim(tmp_path, {"document": "Doc", "short": "d", "id": "good", "source": "1", "says": "It helps.",
        "study": "survey", "compare": {"loss": "label_smoothing"}, "against": {"loss": "cross_entropy"},
        "margin": 0.005})  # fmt: skip
    missing = claims._claim(tmp_path, {"document": "Doc", "short": "d", "id": "later", "source": "2",
        "says": "It would.", "needs": "a task of detection"})  # fmt: skip
    monkeypatch.setattr(claims, "read_claims", lambda: [asked, missing])
    assert command.main(["claims", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "supported     d: It helps." in printed
    assert "2 claims: 1 supported, 0 contradicted and 1 not decidable." in printed
    page = (tmp_path / "index.html").read_text()
    assert "needs a task of detection" in page
    assert "It helps." in (tmp_path / "report.md").read_text()
    row = pd.read_csv(tmp_path / "tables" / "claims-d.csv").set_index("id").loc["good"]
    assert row["verdict"] == "supported"
    assert row["estimate"] == pytest.approx(0.03, abs=0.01)
    assert len(row["keys"].split()) == 24


def test_wrong_claims_are_refused_in_one_sentence(tmp_path):
    base = {"document": "D", "short": "d", "id": "x", "source": "1", "says": "S."}
    whole = {"study": "survey", "compare": {"loss": "a"}, "against": {"loss": "b"}, "margin": 0.01}
    for entry, message in (
        (base | whole | {"expects": "more"}, "unknown field of the claim x"),
        (base | whole | {"study": "servey"}, "did you mean 'survey'|survey"),
        (base | whole | {"expect": "better"}, "unknown expectation of the claim x"),
        (base | whole | {"margin": 0}, "a margin above 0, named before the runs"),
        ({**base, "says": ""}, "has no says"),
    ):
        with pytest.raises(UsageError, match=message):
            claims._claim(tmp_path / "d.yaml", entry)
    assert ledger.compose([]).sections[0].items


def test_every_property_of_the_review_names_claims_that_exist():
    known = {each.id for each in claims.read_claims()}
    named = [name for line in pd.read_csv(ledger.PROPERTIES)["claims"] for name in line.split()]
    assert set(named) <= known
    page = ledger.compose([decide([weigh(claim(id="focal_costs_more"), study({("a", 0): 0.95, ("b", 0): 0.9}))])[0]])
    rows = {(row.entries[0].text, row.entries[2].text): row.entries[3] for row in page.sections[1].items[1].rows}
    assert rows["Focal", "costs more than cross-entropy"].text.startswith("supported: +4.94")
    assert rows["Dice", "harder to optimise"].note == "no claim stands for it"


def test_runs_that_diverged_are_counted_where_the_verdict_stands():
    records = study({("a", 0): 0.95, ("b", 0): 0.9})
    records.runs.loc[records.runs["key"].isin(["a-0-3", "a-0-4"]), "status"] = "diverged"
    (row,) = section.overview(decide([weigh(claim(), records)]))[2].rows
    assert "2 runs diverged and could not be compared" in [entry.text for entry in row.entries]
