"""The search for losses: its trees, its sieve, its generations with made-up runs, and how its choice is judged."""

import hashlib
import itertools
import json
import math
import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from harness import records
from harness.errors import UsageError
from harness.evolution import asked as settings
from harness.evolution import judged, kept, pictures, report, search, trees
from harness.evolution.methods import Candidate, Genetic, NullSearch, Proposal, RandomSearch, ranked
from harness.evolution.sieve import Sieve
from harness.metrics.declared import share
from harness.metrics.items import of_classes
from harness.studies import sweep
from losses.formulas import height, nodes, parse

ITEMS = 40
ASKED = [
    "dataset=digits", "model=mlp", "device=cpu", "population=4", "generations=2", "moved=1", "seeds=[1,2]",
    "test_seeds=[11,12,13]", "finalists=2", "trainer.epochs=4", "name=sought",
]  # fmt: skip

# ---------------------------------------------------------------------- trees


def test_a_random_tree_is_as_tall_as_asked_and_can_be_written_and_read():
    heights = Counter()
    for index in range(200):
        tree = trees.ramped(trees.stream("tall", index), 2, 4)
        heights[height(tree)] += 1
        assert parse(str(tree)) == tree
    assert set(heights) == {2, 3, 4}
    assert heights[4] > 30


def test_a_draw_depends_on_its_place_alone():
    def proposals(order):
        method = RandomSearch(seed=1, generations=2, population=3)
        return {place: method.propose(*place).formula for place in order}

    places = [(generation, index, attempt) for generation in (0, 1) for index in (0, 1, 2) for attempt in (0, 1)]
    assert proposals(places) == proposals(places[::-1])
    assert len(set(proposals(places).values())) > 9


def test_children_have_parts_of_their_parents_and_stay_formulas():
    one, other = parse("exp(p) + y ** 2"), parse("cos(y / 0.25) - p")
    parts = {*nodes(one), *nodes(other)}
    crossed = [trees.crossed(trees.stream("crossed", index), one, other) for index in range(50)]
    leaves = {node for tree in crossed for node in nodes(tree) if not node.args}
    assert leaves <= parts
    assert len(set(crossed)) > 20
    for index in range(200):
        mutant = trees.mutated(trees.stream("mutated", index), one)
        assert parse(str(mutant)) == mutant


def test_moving_the_numbers_of_a_tree_moves_nothing_else():
    tree = parse("exp(2.4092 - p * (1 + y)) - p ** 2")
    moved = trees.moved(trees.stream("moved"), tree, 0.2)
    assert [node.op for node in nodes(moved)] == [node.op for node in nodes(tree)]
    numbers = [[node.value for node in nodes(each) if node.op == "number"] for each in (tree, moved)]
    assert all(old != new for old, new in zip(numbers[0][:2], numbers[1][:2], strict=True))
    assert numbers[1] == pytest.approx(numbers[0], rel=1.0)
    assert numbers[1][2] == 2.0, "an exponent is no number to move"


# ---------------------------------------------------------------------- the sieve


def test_the_sieve_lets_losses_through_once_and_says_what_is_wrong_with_others():
    sieve = Sieve(classes=5, over_classes="mean")
    for name in ("-y * log(p)", search.NGL, "(p - y) ** 2", "-(1 - p) ** 2 * y * log(p)"):
        assert sieve.refuses(name, name) == ""
    refused = {
        "p + 1": "leaves",
        "y * y": "leaves",
        "y * exp(z) ** 4": "finite",
        "y * max(p, 2)": "finite",
        "y * p": "learns",
        "p + y": "learns",
        "3 - y * log(p)": "new: it is -y * log(p)",
        "log(p) * y / -7": "new: it is -y * log(p)",
        "(y - p) * (y - p)": "new: it is (p - y) ** 2",
    }
    assert {text: sieve.refuses(text, "another") for text in refused} == refused


# ---------------------------------------------------------------------- generations, with made-up runs


def quality(formula):
    """How good a formula is: simple ones are, and so is chance."""
    luck = int(hashlib.sha256(formula.encode()).hexdigest()[:4], 16) / 65536
    return 0.9 + 0.08 * luck - 0.004 * trees.size(parse(formula))


class Interrupted(Exception):
    """The search was stopped."""


@pytest.fixture
def sought(tmp_path, monkeypatch):
    """Return a function that searches with made-up runs, and the keys that were run; it may be stopped after some."""
    ran = []

    def made_up(self, runs):
        for run in self.missing(runs):
            if call.left <= 0:
                raise Interrupted
            call.left -= 1
            ran.append(run)
            formula = run.setting.spec.loss.get("formula", "-y * log(p)")
            draw = np.random.default_rng([run.seed, len(formula)])
            score = min(1.0, quality(formula) + 0.01 * draw.normal())
            correct = draw.random(ITEMS) < quality(formula)
            record = {
                "key": run.key, "seed": run.seed, "status": "done", "metrics": [share("top1", "accuracy").as_dict()],
                "test": {"top1": float(correct.mean())}, "valid": {"top1": score}, "cost": {"wall_s": 2.0},
                "finished": f"2026-11-27T10:00:{run.seed % 60:02}+00:00",
                "env": {"device_name": "a CPU", "torch": "2.14", "commit": "0123"},
            }  # fmt: skip
            of_items = of_classes(np.arange(ITEMS)[::-1], np.zeros(ITEMS), correct)
            scored = {f"test/{name}": array for name, array in of_items.items()}
            records.save(records.run_folder(run.key, tmp_path), record, pd.DataFrame({"epoch": [1]}), None, scored)

    monkeypatch.setattr(sweep.Work, "carry_out", made_up)

    def refuses(self, formula, name):
        """As the sieve does, without the filters that compute."""
        used = {node.op for node in nodes(parse(formula))}
        twin = next((known for known, text in self.seen.items() if text == formula), None)
        if not {"p", "y"} <= used or twin:
            return "new: it is another" if twin else "leaves"
        self.seen[name] = formula
        return ""

    monkeypatch.setattr(Sieve, "refuses", refuses)
    monkeypatch.setattr(sweep.Work, "check", lambda self, runs: bool(runs))

    def call(*more, stop=10**6):
        call.left = stop
        ran.clear()
        said = []
        wanted = settings.read([*ASKED, *more])
        searched, finals = search.search(wanted, 10, said.append, tmp_path)
        return searched, finals, list(ran), said

    return call


def names(searched):
    return {
        method: [[(each.name, each.formula, each.scores) for each in one.members] for one in generations]
        for method, generations in searched.generations.items()
    }


def test_every_method_has_the_same_budget_and_every_generation_is_kept(sought, tmp_path):
    searched, finals, ran, said = sought()
    assert len(said) == 3 * 3
    assert len({run.key for run in ran}) == len(ran) == searched.trained
    for method, generations in searched.generations.items():
        assert [len(each.members) for each in generations] == [4] * 3
        written = json.loads((tmp_path / "sought" / method / "generation-002.json").read_text())
        assert [each["proposal"]["formula"] for each in written["members"]] == [
            each.formula for each in generations[2].members
        ]
    full = Counter(len(each.scores) for each in searched.members("random"))
    assert full == {1: 3 * 2, 3: 3 * 2}
    null = [run.seed for run in ran if run.setting.label == "cross_entropy" and run.seed > 1000]
    assert len({seed - seed % 100 for seed in null}) == 12, "seeds of their own for every candidate"
    assert len(finals) == 2 + 2 * 2


def test_the_best_stay_and_numbers_are_moved_in_the_end(sought):
    searched = sought()[0]
    generations = searched.generations["genetic"]
    best = [ranked(each.members)[0] for each in generations]
    assert all(before.fitness <= after.fitness for before, after in itertools.pairwise(best))
    for before, after in itertools.pairwise(generations):
        assert ranked(before.members)[0].name in {each.name for each in after.members}
    how = Counter(each.proposal.how for each in searched.members("genetic"))
    assert how["crossed"] + how["mutated"] == 3
    assert how["numbers moved"] == 3


@pytest.mark.parametrize("stop", [9, 60])
def test_a_search_that_was_stopped_goes_on_and_comes_to_the_same(sought, tmp_path, stop):
    with pytest.raises(Interrupted):
        sought(stop=stop)
    second, finals, ran, _ = sought()
    assert second.trained == stop + len(ran)
    third, again, none, _ = sought()
    assert not none
    assert names(third) == names(second)
    assert {name: [run.key for run in runs] for name, runs in again.items()} == {
        name: [run.key for run in runs] for name, runs in finals.items()
    }


def test_another_seed_is_another_search():
    one, other = ([Genetic(seed, 2, 9).propose(0, index, 0).formula for index in range(9)] for seed in (1, 2))
    assert one != other


def test_tournaments_prefer_the_fitter_and_a_further_stage_beats_any_score():
    far, near = Candidate("0.1", Proposal("-y * log(p)", "drawn"), [0.5, 0.6]), None
    near = Candidate("0.2", Proposal("(p - y) ** 2", "drawn"), [0.9])
    failed = Candidate("0.0", Proposal("y * p", "drawn"))
    assert ranked([failed, near, far]) == [far, near, failed]
    method = Genetic(seed=1, generations=9, population=10)
    method.tell([failed, near, far])
    mothers = Counter(method.propose(1, index, 0).parents[0] for index in range(100))
    assert mothers["0.1"] > 60
    assert method.elites() == [far]
    ended = Genetic(seed=1, generations=1, population=3)
    ended.tell(
        [Candidate("0.0", Proposal("3 - y * log(p)", "drawn"), [0.9]), Candidate("0.1", Proposal("y / p + 2", "drawn"))]
    )
    parents = [ended.propose(1, 0, attempt).parents for attempt in (0, 9, 10, 20)]
    assert parents == [("0.0",), ("0.0",), ("0.1",), ("0.0",)], "where moving one in vain, another's numbers are moved"
    assert NullSearch(1, 9, 10).propose(0, 0, 0).formula == "-y * log(p)"


# ---------------------------------------------------------------------- choice and test


def test_finalists_differ_in_more_than_their_numbers():
    searched = search.Searched(settings.read(ASKED))  # which asks for two
    formulas = ["exp(y * 2 - p)", "exp(y * 3 - p)", "y / p", "p - y"]
    members = [Candidate(f"0.{at}", Proposal(text, "drawn"), [0.9 - at / 10]) for at, text in enumerate(formulas)]
    searched.generations["genetic"] = [search.Generation(0, members, Counter())]
    assert [each.formula for each in searched.finalists("genetic")] == ["exp(y * 2 - p)", "y / p"]


def test_one_half_chooses_and_the_other_tests(sought, tmp_path):
    searched, finals, _, _ = sought()
    found = judged.judge(searched, finals, tmp_path)
    by_name = {each.name: each for each in found.finals}
    for name, runs in finals.items():
        scores = [judged._scored([run], "top1", tmp_path)[run.seed] for run in runs]
        halves = [[each[np.argsort(items)[half::2]].mean() for items, each in scores] for half in (0, 1)]
        assert by_name[name].chosen_by == pytest.approx(np.mean(halves[0]))
        assert by_name[name].tested == pytest.approx(np.mean(halves[1]))
    for method in ("genetic", "random"):
        finalists = [each for each in found.finals if each.method == method]
        assert [each.winner for each in finalists] == [True, False]
        assert finalists[0].chosen_by >= finalists[1].chosen_by
        assert finalists[0].against.family == len(finals) - 1
    assert by_name["cross_entropy"].against is None
    told = "\n".join(judged.told(found))
    assert "best of as many seeds" in told
    assert found.best.formula in told


def test_the_report_has_the_winner_its_family_and_the_null_search(sought, tmp_path):
    searched, finals, _, _ = sought()
    found = judged.judge(searched, finals, tmp_path)
    page = report.write(
        kept.Kept(found, 10, (*ASKED, "data.root=mine"), kept.made(searched, finals, tmp_path)), tmp_path
    )
    text = page.read_text()
    assert page == tmp_path / "sought" / "report" / "index.html"
    assert "By chance alone: the best of 12 seeds of cross-entropy" in text
    answer = report.answer(found)
    assert answer.startswith("The choice of genetic programming ")
    of_random = found.searched.metric.difference(found.winner("random").against)
    assert f"; that of random search: {of_random}" in answer, "which may be the better one"
    assert "trained with on digits, at trainer.epochs=4?" in text
    assert {path.stem for path in (page.parent / "figures").glob("*.svg")} == {"archive", "curves", "generations"}
    table = pd.read_csv(page.parent / "tables" / "candidates.csv")
    assert len(table) == len(searched.members("genetic")) + len(searched.members("random"))
    filters = pd.read_csv(page.parent / "tables" / "filters.csv").set_index("method")
    assert filters.loc["chance", "proposed"] == 12
    assert filters.loc["random", "proposed"] == 12 + filters.loc["random"].filter(like="refused").sum()
    own = tmp_path / "sought" / "conf" / "loss"
    assert f"formula: {found.best.formula}\n" in (own / "sought.yaml").read_text()
    assert f"formula: {found.winner('random').formula}\n" in (own / "sought_random.yaml").read_text()
    assert "axes.loss=[cross_entropy,ngl,sought,sought_random] axes.dataset=[digit_pair,fashion_mnist," in text


def test_a_formula_is_told_by_where_it_is_least():
    assert pictures.least_at("-y * log(p)", 10, "mean") == 1
    assert pictures.least_at("(p - 0.3) ** 2 * y", 10, "mean") == pytest.approx(0.3, abs=0.01)
    assert pictures.least_at("y * p", 10, "mean") == 0


@pytest.mark.parametrize(("higher", "words"), [(True, "2 further down"), (False, "2 further up")])
def test_an_axis_ends_before_the_few_that_are_far_off(higher, words):
    values = [70 + n / 10 for n in range(40)]
    axes = Figure().subplots()
    pictures._end_near(axes, values, higher_is_better=higher)
    assert not axes.texts
    far = [20.0, 30.0] if higher else [120.0, 130.0]
    pictures._end_near(axes, [*values, *far, math.nan], higher_is_better=higher)
    assert [text.get_text() for text in axes.texts] == [words]
    low, high = axes.get_ylim()
    assert low < 70 < 73.9 < high
    assert not any(low < value < high for value in far)


def test_a_search_whose_finals_all_failed_has_a_report(sought, tmp_path):
    searched, finals, _, _ = sought()
    for run in (run for runs in finals.values() for run in runs):
        shutil.rmtree(records.run_folder(run.key, tmp_path), ignore_errors=True)
    found = judged.judge(searched, finals, tmp_path)
    made = kept.made(searched, finals, tmp_path) | {"commit": None}
    ended = kept.Kept(found, 10, tuple(ASKED), made)
    kept.write(ended, tmp_path)
    kept.publish("sought", tmp_path)
    for each in (ended, kept.read("sought", tmp_path / "measured")):
        shown = report.compose(each)
        assert shown.answer == "No formula was trained to the end."
        assert shown.facts[-1] == "a CPU, torch 2.14, 2026-11-27"


def test_a_published_search_has_the_same_report(sought, tmp_path):
    searched, finals, _, _ = sought()
    found = judged.judge(searched, finals, tmp_path)
    ended = kept.Kept(found, 10, (*ASKED, f"data.root={tmp_path}"), kept.made(searched, finals, tmp_path))
    kept.write(ended, tmp_path)
    file = kept.publish("sought", tmp_path)
    assert file == tmp_path / "measured" / "searches" / "sought.json.gz"
    assert kept.published(tmp_path / "measured") == ["sought"]
    again = kept.read("sought", tmp_path / "measured")
    assert again.given == tuple(each for each in ASKED if each != "device=cpu"), (
        "what says where data lie is this machine's"
    )
    both = [report.compose(replace(each, given=())) for each in (ended, again)]
    assert len({each.answer for each in both}) == 1
    assert len({each.facts for each in both}) == 1
    assert both[0].tables() == both[1].tables()
    for one, other in zip(*(each.figures() for each in both), strict=True):
        drawn = [figure.draw() for figure in (one, other)]
        shown = [[line.get_xydata().tolist() for axes in each.axes for line in axes.lines] for each in drawn]
        assert json.dumps(shown[0]) == json.dumps(shown[1]), one.id
    with pytest.raises(UsageError, match="unknown search that has ended 'sougth': did you mean sought"):
        kept.publish("sougth", tmp_path)
    with pytest.raises(UsageError, match="no search has ended in"):
        kept.publish("sought", tmp_path / "elsewhere")


# ---------------------------------------------------------------------- what may be asked


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ("population=1", "population=1: use a whole number from 2 on"),
        ("generations=many", "generations=many: use a whole number"),
        ("seeds=[1,1]", "use different whole numbers"),
        ("seeds=[11]", "seeds and test_seeds share 11"),
        ("test_seeds=[]", "use a list of different whole numbers"),
        ("methods=[genetics]", "did you mean genetic"),
        ("short=0", "use a share of the epochs"),
        ("metric=nonsense", "unknown metric 'nonsense'"),
        ("margin=-1", "use a number from 0 on"),
        ("over_classes=median", "unknown over_classes"),
        ("dataset.split=by_seed", "a search needs dataset.split=fixed"),
        ("task=detection", "a search needs a task with one"),
        ("populaton=5", "populaton"),
        ("name=runs", "is taken"),
    ],
)
def test_a_wrong_command_is_refused_in_a_sentence(entry, why):
    others = [each for each in ASKED if each.split("=")[0] not in (entry.split("=")[0], "dataset", "model")]
    with pytest.raises(UsageError, match=why) as refused:
        settings.read([*others, entry])
    assert "\n" not in str(refused.value)
