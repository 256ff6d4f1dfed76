"""The site: every link leads somewhere, and it says what the facts say; the facts and the README's table are fresh."""

import dataclasses
import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

from harness.analysis import found
from harness.analysis.cells import Analysis
from harness.analysis.claims import read_claims
from harness.analysis.stats import Comparison
from harness.catalogue import entries
from harness.compose import options
from harness.errors import UsageError
from harness.evolution import asked as settings
from harness.evolution import kept, report
from harness.evolution.judged import Final, Judged
from harness.evolution.kept import Kept
from harness.evolution.methods import Candidate, Proposal
from harness.evolution.search import REFERENCES, Generation, Searched
from harness.metrics.declared import share
from harness.paths import CONF
from harness.site import build, papers
from harness.site.claims import ClaimFacts
from scripts import found as table
from tests import synthetic

ROOT = Path(__file__).resolve().parent.parent
LOSSES = ("cross_entropy", "focal", "ngl", "mae_prob")
OTHERS = ("dice", "mse")  # measured nowhere


class Page(HTMLParser):
    """The addresses that a page leads to, its anchors, and its text."""

    def __init__(self, file):
        super().__init__()
        self.links, self.anchors, self.text = [], set(), ""
        self.feed(file.read_text())

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.links += [given[name] for name in ("href", "src") if given.get(name)]
        self.anchors |= {given["id"]} if given.get("id") else set()

    def handle_data(self, data):
        self.text += data


class Made:
    """Studies made up for the test, in place of published ones."""

    def __init__(self):
        self.asked = []
        self.digests = {"made_up": "0" * 16}

    def __call__(self, study):
        self.asked.append(study)
        made = synthetic.study(seeds=(1, 2, 3, 4), losses=LOSSES, models=("cnn_micro",), history=False, mishaps=False)
        return Analysis(made)

    def digest(self, study):
        return self.digests[study]


def sought():
    """A search of one generation, in place of a published one."""
    asked = settings.read(["dataset=digits", "model=mlp", "device=cpu", "name=bred", "methods=[genetic,chance]"])
    formula = "(y - p) ** 2"
    members = {"genetic": [Candidate("0.0", Proposal(formula, "drawn"), [0.9, 0.92])],
               "chance": [Candidate("0.0", Proposal("-y * log(p)", "other seeds"), [0.91, 0.93])]}  # fmt: skip
    generations = {name: [Generation(0, each, Counter(leaves=7))] for name, each in members.items()}
    references = {name: Candidate("0.0", Proposal(text, "reference"), [0.9, 0.91]) for name, text in REFERENCES.items()}
    finals = [Final(name, "", text, 0.91, 0.9, 0.9, None, False, ()) for name, text in REFERENCES.items()]
    against = Comparison(6, 0.01, -0.01, 0.03, -0.005, 0.02, 0.01, 0.4, "not decidable", "new items", 2)
    finals.append(Final(formula, "genetic", formula, 0.92, 0.91, 0.91, against, True, ()))
    searched = Searched(asked, generations, references, share("top1", "accuracy"), [], 40)
    made = {"finished": "2026-11-27", "device_name": "a CPU", "torch": "2.14", "commit": "0123"}
    return Kept(Judged(searched, finals), 10, ("dataset=digits", "model=mlp", "name=bred"), made)


@pytest.fixture(scope="module")
def losses():
    every = {entry.id: entry for entry in entries.entries()}
    return [every[name] for name in (*LOSSES, *OTHERS)]


@pytest.fixture(scope="module")
def site(tmp_path_factory, losses):
    folder = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(entries, "entries", lambda: losses)  # drawing all of them is for the catalogue's tests
        made = Made()
        build.compose(folder, ["made_up"], made, "this code", lambda line: None, [sought()])
        yield folder, made


@pytest.fixture(scope="module")
def pages(site):
    return {path.resolve(): Page(path) for path in site[0].rglob("*.html")}


def test_every_page_has_a_permanent_address(site):
    folder, _ = site
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*.html")}
    assert {f"loss/{name}.html" for name in (*LOSSES, *OTHERS)} <= names
    assert {"index.html", "task/segmentation.html", "study/made_up.html", "report/made_up/index.html"} <= names
    assert {"ledger/index.html", "catalogue.html", "losses.html", "studies.html"} <= names
    assert (folder / ".nojekyll").exists()


def test_every_link_inside_leads_to_something(pages):
    checked = 0
    for file, page in pages.items():
        for link in page.links:
            if link.startswith(("http:", "https:", "data:")):
                continue
            address, _, anchor = link.partition("#")
            assert not address.startswith("/"), f"{file.name}: {link} is not relative"
            target = (file.parent / unquote(address)).resolve() if address else file
            assert target.is_file(), f"{file}: {link}"
            if anchor:
                assert unquote(anchor) in pages[target].anchors, f"{file}: {link}"
            checked += 1
    assert checked > 300


def test_what_can_be_searched_for_exists(site, pages):
    folder, _ = site
    first, _, _ = (folder / "search.js").read_text().partition("\n")
    index = json.loads(first.removeprefix("const INDEX = ").removesuffix(";"))
    assert {"loss · focal", "task", "study · made_up"} <= {kind for _, kind, _, _ in index}
    for title, _, address, _ in index:
        file, _, anchor = address.partition("#")
        page = pages[(folder / file).resolve()]
        assert title
        assert not anchor or anchor in page.anchors, address


def test_pages_say_what_was_measured(site, pages):
    folder, made = site
    facts = found.summarise(made("made_up"))
    (worse,) = (one for one in facts.measured if one.label == "mae_prob")
    assert worse.verdict == "worse"
    for name in ("loss/mae_prob.html", "study/made_up.html", "task/classification.html"):
        assert worse.effect.removesuffix(" points") in pages[(folder / name).resolve()].text, name
    for name in ("report/made_up/index.html", "ledger/index.html", "catalogue.html"):  # pages of their own elsewhere
        root = "../" * name.count("/")
        assert f"{root}losses.html" in pages[(folder / name).resolve()].links, name
    assert "No published study measures this loss." in pages[(folder / "loss/dice.html").resolve()].text


# ---------------------------------------------------------------------------- publications


def claim(identity, verdict="supported", effect=""):
    return ClaimFacts(identity, "paper", "abstract", "says", verdict, verdict, effect, "", "", ())


def paper_of(folder, *parts, claims=(), studies=()):
    (folder / "one.yaml").write_text(yaml.safe_dump({"document": "One (2024)", "short": "one", "parts": parts}))
    (found,) = papers.papers(claims, studies, folder)
    return found


@pytest.mark.parametrize(
    ("known", "state"),
    [
        ({"claims": ["a", "b"]}, "measured"),
        ({"claims": ["c"]}, "not run here"),
        ({"claims": ["b"]}, "not possible"),
        ({"claims": ["b"], "quoted": "its text"}, "quoted"),
        ({"shown": [{"study": "made_up", "at": "answer"}]}, "shown"),
        ({"shown": [{"study": "unpublished", "at": "answer"}], "because": "no data"}, "not run here"),
        ({"because": "no data"}, "not possible"),
        ({"table": "ngl_table.csv"}, "quoted"),
        ({"run": "python -m harness study=demo", "because": "no time"}, "not run here"),
    ],
)
def test_a_part_of_a_publication_is_in_the_best_of_its_states(tmp_path, known, state):
    part = {"at": "abstract", "kind": "sentence", "says": "It helps."}
    claims = (claim("a", effect="+1 point"), claim("b", "cannot be tested"), claim("c", "withheld"))
    assert paper_of(tmp_path, part | known, claims=claims, studies=["made_up"]).counts() == {state: 1}


@pytest.mark.parametrize(
    ("part", "sentence"),
    [
        ({"at": "abstract", "says": "It helps."}, "the part of one.yaml at abstract has no kind: write one."),
        ({"at": "abstract", "kind": "sentence", "says": "It."}, "does not say what is known of it"),
        ({"at": "abstract", "kind": "poem", "says": "It.", "run": "x"}, "unknown kind of the part"),
        ({"at": "abstract", "kind": "table", "says": "It.", "claims": ["zz"]}, "unknown claim of the part"),
        ({"at": "abstract", "kind": "table", "says": "It.", "shwon": []}, "unknown field of the part"),
    ],
)
def test_a_part_that_cannot_be_understood_is_refused(tmp_path, part, sentence):
    with pytest.raises(UsageError, match=re.escape(sentence)):
        paper_of(tmp_path, part)


def test_every_claim_of_a_publication_has_its_place_on_the_page():
    every = read_claims()
    for paper in papers.papers([claim(each.id) for each in every], options("study")):
        placed = {each.id for part in paper.parts for each in part.claims}
        assert placed == {each.id for each in every if each.short == paper.short}, paper.short


def test_reports_to_which_parts_lead_have_these_exhibits():
    known = [*options("study"), *kept.published()]
    found = [each for paper in papers.papers([claim(c.id) for c in read_claims()], known)
             for part in paper.parts for each in part.shown]  # fmt: skip
    assert len(found) > 15
    for each in found:
        if each["study"] in kept.published():
            sections = report.compose(kept.read(each["study"])).sections
            assert each["at"] in [section.id for section in sections], each
            continue
        exhibits = yaml.safe_load((CONF / "study" / f"{each['study']}.yaml").read_text()).get("exhibits", [])
        kind = each["at"].removeprefix("exhibit-").removeprefix("table-").partition("-")[0]
        assert kind in [*exhibits, "verdicts"], each  # every report has the last


def test_pages_of_publications_say_what_is_printed_and_what_is_known(site, pages):
    page = pages[(site[0] / "paper" / "ngl.html").resolve()]
    for text in ("-62.45", "68.2", "not possible", "the whole text is not at hand", "ngl_segmentation"):
        assert text in page.text, text
    assert "paper/ngl.html" in pages[(site[0] / "index.html").resolve()].links


def test_a_search_for_a_loss_is_listed_with_its_answer_and_its_report(site, pages):
    difference = "+1.00 [\N{MINUS SIGN}1.00, +3.00] points"
    for name in ("index.html", "studies.html"):
        page = pages[(site[0] / name).resolve()]
        assert "report/bred/index.html" in page.links
        assert f"cannot be told from cross-entropy on test items that chose nothing: {difference}" in page.text
    page = pages[(site[0] / "report" / "bred" / "index.html").resolve()]
    assert "../../index.html" in page.links
    assert "(y - p) ** 2" in page.text
    assert "search bred" in page.text
    assert '["Which formula should mlp be trained with on digits?"' in (site[0] / "search.js").read_text()


# ---------------------------------------------------------------------------- again


def test_only_what_changed_is_worked_out_again(site):
    folder, made = site

    def again(code="this code"):
        before, lines = len(made.asked), []
        build.compose(folder, ["made_up"], made, code, lines.append)
        return len(made.asked) - before, len(lines)

    page = folder / "report" / "made_up" / "index.html"
    first = page.read_text()
    assert again() == (0, 0)
    made.digests["made_up"] = "1" * 16
    looked, said = again()
    assert looked
    assert said == 2  # the study, and the ledger
    assert page.read_text() == first
    assert again("other code")[1] == 2


def test_search_in_a_browser_without_a_server(site, browser):
    folder, _ = site
    tab = browser.new_page(viewport={"width": 390, "height": 800})
    trouble = []
    tab.on("pageerror", lambda error: trouble.append(error))
    for page in ("index.html", "loss/focal.html", "study/made_up.html", "task/classification.html", "losses.html"):
        tab.goto((folder / page).as_uri())
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390, page
    tab.fill("input[type=search]", "focal")
    assert tab.locator("#hits a").first.get_attribute("href") == "loss/focal.html"
    tab.fill("input[type=search]", "no such thing")
    assert tab.locator("#hits").inner_text() == "nothing found"
    tab.fill("input[type=search]", "mae_prob")
    tab.press("input[type=search]", "Enter")
    tab.wait_for_url("**/loss/mae_prob.html")
    assert not trouble
    tab.close()


# ---------------------------------------------------------------- facts


def test_facts_survive_their_file():
    facts = found.summarise(Made()("made_up"), "0" * 16)
    assert found.from_text(found.as_text([facts, facts])) == (facts, facts)
    kinds = {one.verdict for one in facts.measured}
    assert {"baseline", "worse"} <= kinds
    assert sum(found.counted([facts]).values()) == len(facts.measured) - len(facts.cells)


def test_a_loss_stands_where_its_verdicts_put_it():
    facts = found.summarise(Made()("made_up"))
    order = [standing.loss for standing in found.standings([facts])]
    assert order[-1] == "mae_prob"
    better = dataclasses.replace(facts, measured=tuple(_with(one, "focal", "better") for one in facts.measured))
    assert found.standings([facts, better])[0].loss == "focal"


def _with(one, loss, verdict):
    return dataclasses.replace(one, verdict=verdict) if one.loss == loss else one


AGAIN = "evidence was published since: run python -m scripts.found"


def test_the_facts_are_those_of_the_published_evidence():
    facts = found.published()
    assert [each.study for each in facts] == found.studies(), AGAIN
    for each in facts:
        assert each.digest == found.digest(each.study), f"{each.study}: {AGAIN}"


def test_the_table_of_the_readme_is_made_of_the_facts():
    readme = (ROOT / "README.md").read_text()
    assert table.BLOCK.search(readme)
    assert table.with_table(readme, found.published()) == readme, "run python -m scripts.found"
    decided = [each for each in found.published() if each.of("better") or each.of("worse")]
    assert decided
    for each in decided:
        assert f"`{each.study}`" in table.BLOCK.search(readme)[0]
