"""The race: who is out and when, what is asked next, and what a command line of it may say."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import yaml

from harness import choose, compose, plan, records, report
from harness.analysis import race as bounds
from harness.analysis.cells import Analysis
from harness.errors import UsageError
from harness.report.sections import race as told
from harness.studies import race, sweep
from harness.studies.race import Budget
from scripts import check_race

RNG = np.random.default_rng


def table(means, seeds, spread=0.01, seed=0):
    """Scores of losses with these means, by name and seed."""
    noise = RNG(seed).normal(size=(len(means), seeds)) * spread
    return {
        str(i): {s: mean + noise[i, s] + 0.05 * s for s in range(seeds)} for i, mean in enumerate(means)
    }  # what a seed adds to all losses alike is no spread


# ---------------------------------------------------------------------- bounds


def test_clearly_worse_losses_are_out_after_three_seeds_and_close_ones_are_not():
    means = [0.9] * 5 + [0.9 - 0.2] * 3
    found = {each.label: each for each in bounds.standings(table(means, 3))}
    assert [found[str(i)].open for i in range(8)] == [True] * 5 + [False] * 3
    assert all(int(found[str(i)].beaten_by) < 5 and found[str(i)].by > 0 for i in (5, 6, 7))


def test_two_losses_have_only_their_own_spread():
    """With nothing to borrow from, the bound is that of two losses alone: infinite for so few seeds at this level."""
    assert all(each.open for each in bounds.standings(table([0.9, 0.5], 2)))
    assert not all(each.open for each in bounds.standings(table([0.9, 0.5], 6)))


@pytest.mark.parametrize("spread_of_best", [1.0, 4.0])
def test_the_best_is_rarely_dropped_at_any_look(spread_of_best):
    lost, count = 0, 60
    for repetition in range(count):
        scores = RNG([3, repetition]).normal(size=(12, 8))
        scores[0] *= spread_of_best
        seen = {str(i): {s: scores[i, s] for s in range(8)} for i in range(12)}
        looks = [{name: dict(list(each.items())[:n]) for name, each in seen.items()} for n in range(2, 9)]
        lost += any(not each.open for look in looks for each in bounds.standings(look) if each.label == "0")
    assert lost <= 0.05 * count + 3 * (0.05 * 0.95 * count) ** 0.5


def test_spreads_have_in_common_what_they_were_drawn_from():
    v = 3.0
    alike = bounds.shared(2.0 * RNG(1).chisquare(v, 4000) / v, np.full(4000, v))
    assert alike.variance == pytest.approx(2.0, rel=0.1)
    assert alike.freedom > 50
    d = 4.0
    unlike = bounds.shared(2.0 * d / RNG(2).chisquare(d, 4000) * RNG(3).chisquare(v, 4000) / v, np.full(4000, v))
    assert unlike.freedom == pytest.approx(d, rel=0.25)
    assert unlike.variance == pytest.approx(2.0, rel=0.1)


def test_noise_of_items_is_the_variance_of_a_mean_difference():
    items = RNG(4).normal(size=(3, 2, 50))
    found = bounds.item_noise({str(i): {s: items[i, s] for s in range(2)} for i in range(3)})
    wanted = np.mean([(items[0, s] - items[2, s]).var() / 50 for s in range(2)])
    assert found[0, 2] == pytest.approx(wanted)
    assert bounds.item_noise({"a": {0: np.ones(3)}, "b": {0: np.ones(4)}}) is None
    assert bounds.item_noise({"a": {0: np.ones(3)}, "b": {1: np.ones(3)}}) is None


def test_losses_within_the_margin_are_equivalent_once_that_is_sure():
    few, many = (bounds.standings(table([0.9, 0.9, 0.9, 0.9], n, 0.002)) for n in (2, 20))
    assert not bounds.equivalent(few, 0.005)
    assert bounds.equivalent(many, 0.005)
    assert not bounds.equivalent(many, 0.0)


# ---------------------------------------------------------------------- rounds, with made-up runs

QUALITY = {"cross_entropy": 0.9, "focal": 0.902, "brier": 0.6, "ngl": 0.5, "label_smoothing": 0.9}


ALIKE: dict[str, str] = {}
"""Losses that go as another one."""


def history(score):
    return pd.DataFrame({"epoch": [1, 2], "train.loss": [1 - score, 0.9 - score], "grad_norm": [1.0, 1.0]})


@pytest.fixture
def raced(tmp_path, monkeypatch):
    """Return a function that races with made-up runs: how it ended, the keys that were run, what was said."""
    ran: list[str] = []

    def made_up(self, runs):
        for run in self.missing(runs):
            ran.append(run.key)
            rate = run.setting.spec.optimizer["lr"]
            label = ALIKE.get(run.setting.label, run.setting.label)
            noise = RNG([run.seed, *label.encode()]).normal() * 0.003
            best = 0.001 * (3 if label == "focal" and run.seed > 7001 else 1)
            score = QUALITY[label] + noise - 0.02 * np.log(rate / best) ** 2
            record = {
                "key": run.key, "seed": run.seed, "status": "done", "metrics": [],
                "test": {"top1": score}, "valid": {"top1": score}, "cost": {"wall_s": 2.0},
                "data": {"trivial": {"top1": 0.1}},
            }  # fmt: skip
            records.save(records.run_folder(run.key, tmp_path), record, history(score))

    monkeypatch.setattr(sweep.Work, "carry_out", made_up)
    monkeypatch.setattr(sweep.Work, "refused", lambda self, runs: {})
    options = compose.compose_run([]).config

    def call(budget, *more):
        ran.clear()
        said: list[str] = []
        losses = f"losses=[{','.join(QUALITY)}]"
        asked = choose.read(["dataset=digits", "runs=1", "name=raced", "device=cpu", losses, *more])
        ended = race.conduct(asked.study, options, budget, choose.judge, said.append, results=tmp_path)
        return ended, list(ran), said

    return call


def of_results(folder):
    return pd.read_csv(folder / "raced" / "runs.csv")


def test_a_race_drops_what_is_worse_and_spends_the_rest_on_what_is_left(raced, tmp_path):
    ended, ran, said = raced(Budget(runs=200), "max_seeds=4")
    listed = of_results(tmp_path)
    seeds = listed[listed["role"] == "run"].groupby("label")["seed"].nunique()
    assert ended.why == "seeds"
    assert ended.judgement.left == {"cross_entropy", "focal", "label_smoothing"}
    assert (seeds[["brier", "ngl"]] < seeds["focal"]).all()
    assert set(seeds[list(ended.judgement.left)]) == {4}
    searched = listed[listed["role"] == "search"].groupby("label")["seed"].nunique()
    assert (searched[["brier", "ngl"]] == 1).all(), "further seeds are for the rates of what is left"
    assert len(ran) == len(set(ran))
    assert len(said) >= 3


def test_a_loss_whose_rate_changes_begins_again(raced, tmp_path):
    raced(Budget(runs=200), "max_seeds=4")
    listed = of_results(tmp_path)
    focal = listed[(listed["role"] == "run") & (listed["label"] == "focal")]
    assert focal["lr"].nunique() == 1, "only runs at the last choice are compared"
    assert sorted(focal["seed"]) == [1, 2, 3, 4]
    trials = listed[(listed["role"] == "search") & (listed["label"] == "focal")]
    assert focal["lr"].iloc[0] in set(trials.loc[trials["seed"] > 7001, "lr"])


def test_the_same_command_goes_on_and_in_the_end_repeats_nothing(raced, tmp_path):
    ended, first, _ = raced(Budget(runs=20), "max_seeds=4")
    assert ended.runs == len(first) <= 20
    ended, second, _ = raced(Budget(runs=200), "max_seeds=4")
    assert not set(first) & set(second)
    last, third, _ = raced(Budget(runs=200), "max_seeds=4")
    assert not third
    assert (last.why, last.runs, last.judgement) == (ended.why, ended.runs, ended.judgement)
    assert last.runs == len(first) + len(second)


def test_a_small_budget_judges_the_first_losses_only(raced, tmp_path):
    ended, ran, said = raced(Budget(runs=40), "max_seeds=4")
    assert ended.waiting == ["ngl", "label_smoothing"]
    assert ended.judgement is not None
    assert set(of_results(tmp_path)["label"]) == {"cross_entropy", "focal", "brier"}
    assert said[0].startswith(
        "The budget is 40 runs, enough to judge 3 of 5 losses: cross_entropy, focal and brier race."
    )
    assert "For all, give runs=60;" in said[0]
    whole, more, _ = raced(Budget(runs=60), "max_seeds=4")
    assert (whole.waiting, set(ran) & set(more)) == ([], set()), "a larger budget goes on with what was trained"


def test_time_is_shared_out_by_what_a_run_takes(raced, monkeypatch):
    monkeypatch.setattr(race, "workers_of", lambda options, device: 1)
    ended, _, said = raced(Budget(seconds=40.0), "max_seeds=4")
    assert said[0].startswith("A run takes about 2 s, so the budget holds about 20 runs, enough to judge 2 of 5 losses")
    assert "For all, give budget=2m;" in said[0]
    assert len(ended.waiting) == 3
    _, ran, said = raced(Budget(seconds=10.0), "max_seeds=4")
    assert "about 5 runs. That is too few to judge even two losses, which takes budget=1m." in said[0]
    assert not ran


def test_losses_that_are_the_same_on_these_data_race_once(raced, tmp_path, monkeypatch):
    monkeypatch.setitem(ALIKE, "label_smoothing", "cross_entropy")
    ended, _, said = raced(Budget(runs=200), "max_seeds=4")
    assert ended.same == {"label_smoothing": "cross_entropy"}
    assert any(line.startswith("On these data label_smoothing is cross_entropy: ") for line in said)
    listed = of_results(tmp_path)
    assert set(listed[listed["role"] == "run"]["label"]) == {"cross_entropy", "focal", "brier", "ngl"}
    text = "\n".join(choose.answer(Analysis(records.load_study("raced", tmp_path)), ended, ended.study))
    assert "of 4 losses" in text
    assert "label_smoothing is cross_entropy on these data, and did not race." in text
    _, again, _ = raced(Budget(runs=200), "max_seeds=4")
    assert not again


def test_answers_name_the_losses_that_did_not_race(raced, tmp_path):
    ended, _, _ = raced(Budget(runs=40), "max_seeds=4")
    text = "\n".join(choose.answer(Analysis(records.load_study("raced", tmp_path)), ended, ended.study))
    assert "of 3 losses" in text
    assert "Not raced, because the budget is too small: ngl and label_smoothing." in text


@pytest.mark.parametrize("task", compose.options("task"))
def test_losses_to_try_first_can_be_trained_in_their_task(task):
    from harness.catalogue import entries, shortlist

    first = shortlist.of(task)
    of_features = {"arcface", "center_cross_entropy"} if task == "mixed_classification" else set()
    assert set(first) - of_features <= set(entries.for_task(task))
    assert len(set(first)) == len(first)
    several = any(key.startswith("loss.") for key in compose.compose_run([f"task={task}"]).choices)
    assert bool(first) != (several or task == "diffusion")


def test_time_counts_what_earlier_runs_took(raced):
    raced(Budget(runs=20))
    ended, ran, _ = raced(Budget(seconds=1.0))
    assert not ran
    assert ended.why == "budget"
    assert ended.seconds > 1.0


def test_the_answer_names_what_is_left_and_what_was_dropped(raced, tmp_path):
    ended, _, _ = raced(Budget(runs=200), "max_seeds=4")
    a = Analysis(records.load_study("raced", tmp_path))
    text = "\n".join(choose.answer(a, ended, ended.study))
    assert "3 of 5 losses may be the best after 4 seeds" in text
    assert "Dropped: " in text
    assert "these test items" not in text  # every seed has its own
    data = records.load_study("raced", tmp_path)
    fixed = dataclasses.replace(data, spec=data.spec | {"base": data.spec["base"] | {"dataset.split": "fixed"}})
    of_fixed = "\n".join(choose.answer(Analysis(fixed), ended, ended.study))
    assert "the certainty is about these test items, not new ones" in of_fixed
    assert "to focal" in text or "to cross_entropy" in text or "to label_smoothing" in text
    assert {each.label for each in a.best[a.cells[0]] if each.may_be_best} == ended.judgement.left


def test_the_page_of_a_race_gives_its_answer(raced, tmp_path):
    ended, _, _ = raced(Budget(runs=30), "max_seeds=4")
    data = records.load_study("raced", tmp_path)
    assert set(data.runs["status"]) == {"done"}, "runs for which the budget did not suffice are not missing"
    page = report.build(data, tmp_path / "raced" / "report")
    text, a = page.read_text().replace("\u00a0", " "), Analysis(data)
    assert f"<h1>{ended.study.question}</h1>" in text
    assert told.sentence(a) in text
    assert "withheld" not in text.partition("<body>")[2].partition("<script>")[0]
    table = pd.read_csv(page.parent / "tables" / "race.csv")
    assert set(table["id"]) == {"cross_entropy", "focal"}
    assert set(table["state"]) == {"yes"}
    assert told.sentence(a) in " ".join(report.summary(data).split())


def test_the_sentence_says_that_losses_left_in_the_race_never_learnt(raced, tmp_path, monkeypatch):
    monkeypatch.setitem(QUALITY, "cross_entropy", 0.05)  # below chance
    monkeypatch.setattr("harness.report.sections.race.standings", lambda a: as_if_none_was_out(a))
    raced(Budget(runs=200), "max_seeds=3")
    sentence = told.sentence(Analysis(records.load_study("raced", tmp_path)))
    assert sentence.endswith("; cross_entropy, the default, did not learn in any run.")


def as_if_none_was_out(a):
    return [dataclasses.replace(each, beaten_by="") for each in bounds.of_cell(a, a.cells[0])]


def test_what_is_chosen_can_be_trained_as_it_is_written(raced, tmp_path):
    ended, _, _ = raced(Budget(runs=200), "max_seeds=3", "trainer.epochs=7")
    said: list[str] = []
    a = Analysis(records.load_study("raced", tmp_path))
    choose.write_choice(a, ended.study, tmp_path / "choice.yaml", said.append)
    written = yaml.safe_load((tmp_path / "choice.yaml").read_text())
    line = said[0].partition("harness.run ")[2].split()
    composed = compose.compose_run(line).config
    assert composed["trainer"]["epochs"] == written["trainer"]["epochs"] == 7
    assert composed["optimizer"]["lr"] == written["optimizer"]["lr"]
    assert {"override /loss": composed["loss"]["_target_"].rpartition(".")[2]} in written["defaults"]


def test_a_check_trains_what_was_left_and_dropped_on_new_seeds_at_the_rates_of_the_race(raced, tmp_path, monkeypatch):
    ended, _, _ = raced(Budget(runs=200), "max_seeds=4")
    monkeypatch.setattr(sweep.Work, "check", lambda self, runs: bool(self.missing(runs)))
    found, lines = check_race.check("raced", 3, 1, tmp_path)
    again, before = pd.read_csv(tmp_path / "raced-check" / "runs.csv"), of_results(tmp_path)
    assert set(again["seed"]) == {1001, 1002, 1003}
    rates = before[before["role"] == "run"].groupby("label")["lr"].last()
    assert (again.groupby("label")["lr"].first() == rates[again["label"].unique()].sort_index()).all()
    assert set(again["label"]) - ended.judgement.left == {found.best_dropped} == {"brier"}
    assert found.held
    assert found.best in ended.judgement.left
    assert found.low <= found.leader_behind <= found.high
    assert 0.28 < found.ahead_low < found.ahead < found.ahead_high < 0.33
    assert lines[-1] == f"The race had left {found.best}."


# ---------------------------------------------------------------------- what is asked


def test_a_loss_that_equals_another_races_once():
    kept, same = choose._distinct(["cross_entropy", "cross_entropy", "focal"])
    assert kept == ["cross_entropy", "focal"]
    assert same == {"cross_entropy": "cross_entropy"}


def test_a_race_has_an_address_that_its_budget_does_not_change():
    names = [choose.read(["dataset=digits", "losses=[focal]", more]).study.name for more in ("budget=1h", "runs=9")]
    assert names[0] == names[1]
    assert choose.read(["dataset=digits", "losses=[brier]", "runs=9"]).study.name != names[0]


def test_losses_of_one_role_race_while_the_others_keep_theirs():
    few = ["dataset.train_size=8", "dataset.valid_size=4", "dataset.test_size=4", "dataset.size=[32,32]", "runs=9"]
    few.append("dataset.sides=[8,16]")
    study = choose.read(["task=detection", "losses.boxes=[diou]", "loss.classes=focal_ovr", *few]).study
    settings = plan.settings(study)
    assert {setting.label for setting in settings} == {"giou", "diou"}
    assert {setting.choices["loss"] for setting in settings} == {"focal_ovr + giou", "focal_ovr + diou"}
    assert study.baseline == "giou"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["dataset=digits", "losses=[focal]"], "budget=1h"),
        (["dataset=digits", "losses=[focal]", "budget=soon"], "budget=soon is no time"),
        (["dataset=digits", "losses=[focal]", "runs=0"], "runs=0 is no number of runs"),
        (["dataset=digits", "losses=focal", "runs=9"], "write losses="),
        (["dataset=digits", "losses=[focall]", "runs=9"], "did you mean focal"),
        (["dataset=digits", "losses=[focal]", "runs=9", "max_seeds=1"], "too few"),
        (["losses=[focal]", "runs=9"], "data=PATH"),
        (["task=detection", "runs=9"], "give losses.classes=[...] or losses.boxes=[...]"),
        (["task=detection", "losses.masks=[dice]", "runs=9"], "give losses.classes"),
        (["dataset=digits", "losses.boxes=[giou]", "runs=9"], "has one loss"),
        (["dataset=digits", "losses=[focal]", "runs=9", "margin=wide"], "margin"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(given, sentence):
    with pytest.raises(UsageError, match="(?s).*" + sentence.replace("[", r"\[")):
        choose.read(given)


def test_a_race_is_no_name_of_a_file():
    assert "choose" not in compose.options("study")
    assert plan.checked_name("my-race") == "my-race"
