"""Two studies compared: what did not change stays unchanged, what was planted is found, and noise is called noise."""

import csv
import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from harness import records
from harness.analysis import stats
from harness.analysis.estimates import estimate
from harness.errors import UsageError
from harness.report import compare
from harness.report.__main__ import main
from tests import synthetic

FEW = {"losses": ("cross_entropy", "focal", "ngl"), "mishaps": False, "history": False}


@pytest.fixture(scope="module")
def study():
    return synthetic.study(**FEW)


def changed(study, which=None, **columns):
    """Return the study with other values in the rows where ``which`` holds, its keys made new there."""
    runs = study.runs.copy()
    hit = pd.Series(True, index=runs.index) if which is None else which
    runs.loc[hit, "key"] = "x" + runs.loc[hit, "key"]
    for name, value in columns.items():
        runs[name] = [
            new if h else old for h, old, new in zip(hit, runs[name], pd.Series(value, runs.index), strict=True)
        ]
    return dataclasses.replace(study, runs=runs)


def noisy(study, rng, sd=0.003, shift=0.0, which=None):
    values = study.runs["test.top1"] + rng.normal(shift, sd, len(study.runs))
    return changed(study, which, **{"test.top1": values})


def by_name(found):
    return {(change.cell, change.label): change for change in found.changes}


def test_a_study_and_itself_are_identical(study, tmp_path):
    found = compare.difference(study, study)
    assert len(found.changes) == 6
    assert {change.word for change in found.changes} == {"identical"}
    assert all(change.identical == len(change.pairs) == 12 for change in found.changes)
    assert (found.only, found.environment, found.settings, found.asked) == ((), (), (), ())
    assert "nothing changed. All 72 runs" in compare.lead(found)


def test_a_last_bit_is_not_identical(study):
    hit = study.runs["label"].eq("focal") & study.runs["seed"].eq(3) & study.runs["role"].eq("run")
    runs = study.runs.assign(
        **{"test.top1": study.runs["test.top1"].mask(hit, np.nextafter(study.runs["test.top1"], 2))}
    )
    found = compare.difference(study, dataclasses.replace(study, runs=runs))
    assert sorted(change.identical for change in found.changes) == [11, 11, 12, 12, 12, 12]
    assert "nothing changed" not in compare.lead(found)


def test_a_planted_shift_is_found_where_it_was_planted(study):
    hit = study.runs["label"].eq("focal") & study.runs["model"].eq("cnn_micro")
    found = by_name(compare.difference(study, noisy(study, np.random.default_rng(0), shift=-0.02, which=hit)))
    verdicts = {name: change.word for name, change in found.items()}
    assert verdicts.pop(("digits · cnn_micro", "focal")) == "worse"
    assert set(verdicts.values()) == {"identical"}
    lower = {**study.spec, "metric": "test.nll", "margin": 0.0}
    less = changed(study, hit, **{"test.nll": study.runs["test.nll"] * 0.5})
    found = compare.difference(*(dataclasses.replace(side, spec=lower) for side in (study, less)))
    assert by_name(found)["digits · cnn_micro", "focal"].verdict == "better"


def test_numbers_are_those_of_scipy_paired_and_not(study):
    other = noisy(study, np.random.default_rng(1))
    paired = by_name(compare.difference(study, other))["digits · cnn_micro", "ngl"]
    before, now = ([pair[i] for pair in paired.pairs] for i in (3, 4))
    test = scipy_stats.ttest_rel(now, before)
    assert (paired.paired, paired.family, paired.p) == (True, 6, pytest.approx(min(1, 6 * test.pvalue)))
    assert (paired.low, paired.high) == pytest.approx(tuple(test.confidence_interval(1 - 0.05 / 6)))
    apart = dataclasses.replace(other, runs=other.runs.assign(seed=other.runs["seed"] + 100))
    found = by_name(compare.difference(study, apart))["digits · cnn_micro", "ngl"]
    welch = scipy_stats.ttest_ind(now, before, equal_var=False)
    assert (found.paired, found.pairs, found.p) == (False, (), pytest.approx(min(1, 6 * welch.pvalue)))
    assert (found.low, found.high) == pytest.approx(tuple(welch.confidence_interval(1 - 0.05 / 6)))


def test_one_run_on_a_side_has_no_interval_and_no_verdict(study):
    other = noisy(study, np.random.default_rng(2))
    trials, first = other.runs["role"].eq("search"), other.runs["seed"].eq(1)
    one = pd.concat([other.runs[trials], other.runs[first].assign(seed=101)])
    for change in compare.difference(study, dataclasses.replace(other, runs=one)).changes:
        assert change.verdict == "not decidable", change.because
        assert math.isnan(change.low)
        assert math.isnan(change.p)
        assert math.isfinite(change.difference)


def test_a_gate_on_either_side_withholds_and_names_the_side(study):
    shifted = study.runs.assign(**{"test.top1": study.runs["test.top1"] + 0.05})
    untried = dataclasses.replace(study, runs=shifted[~shifted["role"].eq("search")])
    found = compare.difference(study, untried, ("before", "after"))
    assert {change.word for change in found.changes} == {"withheld"}
    assert found.changes[0].because == ("after: the trials of its search are not recorded",)
    assert "6 withheld" in compare.lead(found)
    assert "withheld: after: the trials of the search are not recorded (6 comparisons)" in compare.summary(found)
    older = dataclasses.replace(study, runs=shifted.assign(old=True))
    assert "withheld" not in {change.word for change in compare.difference(older, study).changes}, "it is what changed"


def with_items(study, rng, items=200):
    """Return the study with bits of test items whose share of right ones is each run's score."""
    kept, runs = {}, study.runs.copy()
    for index, run in runs.iterrows():
        right = rng.uniform(size=items) < run["test.top1"]
        runs.loc[index, "test.top1"] = right.mean()
        kept[run["key"]] = {
            "test/item": np.arange(items, dtype=np.int32),
            "test/target": np.zeros(items, dtype=np.uint8),
            "test/correct": np.packbits(right),
        }
    return dataclasses.replace(study, runs=runs, arrays=kept.get)


def test_scores_on_test_items_widen_the_interval_to_new_ones_where_both_sides_have_them(study):
    rng = np.random.default_rng(4)
    before, now = with_items(study, rng), with_items(changed(study), rng)
    found = by_name(compare.difference(before, now))["digits · cnn_micro", "ngl"]
    bits = [
        [np.unpackbits(side.arrays(pair[i])["test/correct"], count=200).astype(float) for pair in found.pairs]
        for side, i in ((before, 1), (now, 2))
    ]
    items = [(np.arange(200), y - x) for x, y in zip(*bits, strict=True)]
    expected = estimate([d.mean() for _, d in items], items, 1 / 360).interval("new items", 0.05 / 6)
    assert (found.scope, found.low, found.high) == ("new items", *map(pytest.approx, expected))
    assert {c.scope for c in compare.difference(before, changed(study)).changes} == {"seeds"}


@pytest.mark.parametrize("shared", [True, False])
def test_noise_is_called_a_change_no_more_often_than_it_may(shared):
    """300 pairs of studies that differ in noise alone: at most about one in twenty has any better or worse."""
    rng, rounds, family, seeds = np.random.default_rng(5), 300, 6, 8
    alarms = 0
    for _ in range(rounds):
        a, b = rng.normal(0.9, 0.01, (2, family, seeds))
        pairs = list(zip(a, b, strict=True))
        if shared:
            compared = [stats.compare(y - x, stats.Scale(), family=family) for x, y in pairs]
            ends = [(c.low, c.high) for c in compared]
        else:
            ends = [stats.welch(x, y, stats.ALPHA / family)[1:3] for x, y in pairs]
        alarms += any(low > 0 or high < 0 for low, high in ends)
    assert scipy_stats.binomtest(alarms, rounds, 0.05, alternative="greater").pvalue > 0.001
    assert alarms > 2  # else the test could not fail the other way: nothing would ever be found


def test_noise_in_whole_studies_is_not_called_a_change(study):
    words = [
        change.verdict
        for seed in range(12)
        for change in compare.difference(study, noisy(study, np.random.default_rng(seed))).changes
    ]
    assert sum(word in ("better", "worse") for word in words) <= 3
    assert words.count("equivalent") > len(words) / 2  # within half a point, and 12 seeds show it


def test_what_one_side_alone_has_is_listed(study):
    less = dataclasses.replace(study, runs=study.runs[study.runs["label"].ne("ngl")])
    found = compare.difference(study, less, ("old", "new"))
    assert found.only == tuple(("old", f"digits · {model}", "ngl", 12) for model in ("cnn_micro", "vit_nano"))
    axis = dataclasses.replace(study, runs=study.runs.assign(**{"axis.stress.rate": "0.2"}))
    with pytest.raises(UsageError, match="no loss in a common cell"):
        compare.difference(study, axis)
    some = study.runs["model"].eq("mlp") | study.runs["model"].eq("vit_nano")
    wider = dataclasses.replace(study, runs=study.runs.assign(**{"axis.depth": [3.0 if x else None for x in some]}))
    found = compare.difference(study, wider)
    assert {cell for _, cell, _, _ in found.only} == {"digits · vit_nano", "digits · vit_nano · depth 3"}


def test_other_settings_and_surroundings_are_named(study):
    hit = study.runs["label"].eq("ngl")
    other = changed(study, hit, setting="another", **{"config.optimizer.lr": 0.01, "env.torch": "2.15.0"})
    found = compare.difference(study, other)
    assert found.settings == tuple(
        (f"digits · {model}", "ngl", "optimizer.lr: 0.005 → 0.01") for model in ("cnn_micro", "vit_nano")
    )
    assert [what for what, _, _ in found.environment] == ["torch"]
    words = compare.summary(found)
    assert "2 of 6 comparisons are of different settings and the two differ in torch" in " ".join(words.split())
    assert max(map(len, words.splitlines())) <= 100


def published(study, folder):
    return records.publish_tables(study, folder).files[0]


def test_the_command_compares_files_and_writes_every_format(study, tmp_path, capsys):
    before = published(study, tmp_path / "before")
    now = published(noisy(study, np.random.default_rng(0), shift=0.02), tmp_path / "now")
    assert main(["compare", str(before), str(now), "--out", str(tmp_path / "out")]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.startswith("now/made_up against before/made_up")
    assert "of 6 comparisons, 6 better" in printed
    page = (tmp_path / "out" / "index.html").read_text()
    assert "What changed" in page
    assert 'href="#run-' not in page
    assert "6 better" in (tmp_path / "out" / "report.md").read_text()
    with (tmp_path / "out" / "tables" / "changes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["verdict"] for row in rows} == {"better"}
    assert all(float(row["difference"]) == pytest.approx(0.02, abs=0.005) for row in rows)
    assert len((tmp_path / "out" / "tables" / "pairs.csv").read_text().splitlines()) == 1 + 6 * 12


def test_folders_of_results_and_of_studies_are_found(study, tmp_path):
    for name in ("made_up", "second"):
        (tmp_path / name).mkdir()
        study.runs[["key", "role", "label", "seed", "setting", "dataset", "model"]].to_csv(
            tmp_path / name / "runs.csv", index=False
        )
        records.write_json(tmp_path / name / "study.json", study.spec)
    assert compare.read_side(str(tmp_path / "second")).name == "second"
    assert compare.read_side(str(tmp_path), other="made_up").name == "made_up"
    with pytest.raises(UsageError, match="made_up and second: give FOLDER/STUDY"):
        compare.read_side(str(tmp_path), other="third")


@pytest.mark.parametrize("given", ["no_such_study", "no/such/file.csv", "no/such/folder", "harness"])
def test_what_is_not_there_is_one_sentence_and_exit_code_2(given, capsys):
    assert main(["compare", "losses", given]) == 2
    words = capsys.readouterr().err.strip()
    assert given in words
    assert "\n" not in words
