"""The report of a search, in the form of every report here, and the choice of each method as a config of its own."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Sequence
from pathlib import Path

from harness import plan
from harness.evolution import pictures, trees
from harness.evolution.asked import DEFAULTS, OF_SWEEP
from harness.evolution.judged import BASELINE, Final, Judged
from harness.evolution.kept import Kept
from harness.evolution.methods import METHODS, Candidate
from harness.evolution.sieve import STAGES
from harness.paths import RESULTS
from harness.records.store import write_text
from harness.report.items import Code, Column, Entry, Figure, Item, Prose, Report, Row, Section, Table
from harness.report.writing import save
from harness.text import count, joined
from losses.formulas import height, latex, parse

UNSEEN = "ngl_classes"
"""Study of several data sets, on which choices are compared next."""
CALLED = {"genetic": "genetic programming", "random": "random search"}
"""Methods that search formulas, as a sentence names them."""


def write(kept: Kept, results: Path = RESULTS) -> Path:
    """Write the report of a search and the choice of each method as a loss, and return the page.

    Args:
        kept: the search.
        results: the folder of all results.
    """
    asked = kept.found.searched.asked
    folder = results / asked.name
    for name, each in losses(kept.found).items():
        write_text(folder / "conf" / "loss" / f"{name}.yaml", yaml_of(each, asked.over_classes))
    return save(compose(kept), folder / "report")


def compose(kept: Kept) -> Report:
    """Return what the report of a search says, in no format yet."""
    found, searched = kept.found, kept.found.searched
    asked, choices = searched.asked, searched.asked.base.choices
    made = kept.made
    commit = made["commit"] and f"commit {made['commit']}"  # there is none without git
    facts = (
        f"{choices['dataset']}, {choices['model']}, {asked.epochs} epochs",
        count(searched.trained, "run"),
        f"seeds {joined(map(str, asked.seeds))}; test seeds {joined(map(str, asked.test_seeds))}",
        ", ".join(filter(None, (made["device_name"], f"torch {made['torch']}", commit, made["finished"]))),
    )
    sections = [_finals(found), *([_formula(found, found.best, kept.classes)] if found.best else []), _fitness(found)]
    sections += [_archive(found), *_family(found), _again(found, kept.given)]
    return Report(asked.name, title(kept), facts, tuple(sections), answer=answer(found), kind="search")


def title(kept: Kept) -> str:
    """Return the question that a search answers."""
    choices, named = kept.found.searched.asked.base.choices, {*DEFAULTS, "dataset", "model"}
    other = [each for each in kept.given if each.partition("=")[0] not in named and not each.startswith(OF_SWEEP)]
    where = f", at {joined(other)}" if other else ""
    return f"Which formula should {choices['model']} be trained with on {choices['dataset']}{where}?"


def losses(found: Judged) -> dict[str, Final]:
    """Return the choice of each method by the name that it has as a loss: the best has that of the search."""
    name = found.searched.asked.name
    chosen = [each for each in found.finals if each.winner]
    return {name if each is found.best else f"{name}_{each.method}": each for each in chosen}


def yaml_of(best: Final, over_classes: str) -> str:
    """Return a loss as the text of a file of conf/loss/."""
    return (
        f"_target_: losses.symbolic.Symbolic\n_partial_: true\nformula: {best.formula}\nover_classes: {over_classes}\n"
    )


def answer(found: Judged) -> str:
    """Return what came of a search in a sentence or two."""
    best, metric = found.best, found.searched.metric
    if best is None or best.against is None:
        return "No formula was trained to the end."
    fell = f"its score went from {metric.number(best.searched)} (search) to {metric.number(best.tested)} (test)"
    verdict = {"better": "is better than", "worse": "is worse than", "equivalent": "is equivalent to"}.get(
        best.against.verdict, "cannot be told from"
    )

    def shown(each: Final) -> str:
        return f"{metric.difference(each.against)} {metric.difference_unit}".strip() if each.against else "not tested"

    others = [each for each in found.finals if each.winner and each is not best]
    beside = "".join(f"; that of {CALLED[each.method]}: {shown(each)}" for each in others)
    return (
        f"The choice of {CALLED[best.method]} {verdict} cross-entropy on test items that chose nothing: {shown(best)}; "
        f"{fell}{beside}. {_null_sentence(found)}".rstrip()
    )


def _null_sentence(found: Judged) -> str:
    searched, metric = found.searched, found.searched.metric
    for name in (name for name in searched.generations if METHODS[name].fixed):
        members = searched.members(name)
        tested = next(each.tested for each in found.finals if each.name == BASELINE)
        best = searched.value(members[0].fitness[1])
        return (
            f"By chance alone: the best of {count(len(members), 'seed')} of cross-entropy went from "
            f"{metric.number(best)} to {metric.number(tested)}."
        )
    return ""


def _finals(found: Judged) -> Section:
    metric = found.searched.metric
    columns = (
        Column("loss", "loss", "code"),
        Column("method", "method"),
        Column("nodes", "nodes", "number"),
        Column("searched", "search", "number", "validation score, on the seeds of the search"),
        Column("chosen_by", "choice", "number", "on the half of the test items that chooses, mean over the test seeds"),
        Column("tested", "test", "number", "on the other half, on the same seeds"),
        Column(
            "change",
            "test minus search",
            "number",
            "of a finalist, chosen for a high score, it is expected to be below 0",
        ),
        Column("difference", "test against cross_entropy", "number", "with a 95 % interval, over seeds and new items"),
        Column("verdict", "verdict"),
    )
    rows = tuple(_final_row(found, each) for each in found.finals)
    text = (
        "The search sees validation data alone. Among the finalists of each method one half of the test items chooses, "
        "on seeds of their own; the other half tests. The first finalist of each method is its choice; a finalist was "
        "chosen for a high score, so some fall is to be expected of all of them, and none of the references."
    )
    unit = f" ({metric.unit})" if metric.unit else ""
    words = tuple(filter(None, (text, _null_sentence(found))))
    table = Table("finals", f"{metric.title} from search to test{unit}", columns, rows)
    return Section("finals", "From search to test", (Prose(words), table))


def _final_row(found: Judged, each: Final) -> Row:
    metric = found.searched.metric
    numbers = [Entry(metric.number(value), value) for value in (each.searched, each.chosen_by, each.tested)]
    change = each.tested - each.searched
    entries = [
        Entry(each.name),
        Entry(each.method or "reference"),
        Entry(str(trees.size(parse(each.formula))), trees.size(parse(each.formula))),
        *numbers,
        Entry(metric.number(change, sign=True), change),
        Entry(metric.difference(each.against), each.against.difference) if each.against else Entry("–"),
        Entry(each.against.verdict if each.against else "–"),
    ]
    return Row(tuple(entries), reference=not each.method)


def _formula(found: Judged, best: Final, classes: int) -> Section:
    asked = found.searched.asked
    over = r"\sum_c" if asked.over_classes == "sum" else r"\frac{1}{C} \sum_c"
    ngl = next(each.formula for each in found.finals if each.name == "ngl")
    drawn = {"the choice": best.formula, "ngl": ngl, BASELINE: "-y * log(p)"}
    least = [(name, pictures.least_at(text, classes, asked.over_classes)) for name, text in drawn.items()]
    draw = functools.partial(pictures.curves, drawn, classes, asked.over_classes)
    figure = Figure(
        "curves",
        "The choice beside cross-entropy and NGL",
        f"For {classes} classes, of which all but the true one are equally probable. The value is least where the true "
        f"class has a probability of {joined(f'{at:.2g} ({name})' for name, at in least)}.",
        "Value and slope of three losses over the probability of the true class.",
        draw,
        wide=True,
    )
    text = rf"L = {over} \left[ {latex(parse(best.formula))} \right]"
    items: tuple[Item, ...] = (Code(best.formula, "As text"), Code(text, "In TeX"), figure)
    return Section("formula", f"The choice of {CALLED[best.method]}", items)


def _fitness(found: Judged) -> Section:
    searched = found.searched
    figure = Figure(
        "generations",
        "Fitness over generations",
        "The best so far after a full training on the first seed of the search, on validation data.",
        "The best score so far of every method, by generation.",
        functools.partial(pictures.generations, searched),
    )
    done = "how many candidates completed it"
    stages = [f"{count(epochs, 'epoch')}, {count(len(seeds), 'seed')}" for epochs, seeds in searched.asked.stages]
    columns = (
        Column("method", "method"),
        Column("proposed", "proposed", "number"),
        *(Column(f"refused_{stage}", f"refused: {stage}", "number") for stage in STAGES),
        *(Column(f"stage_{n}", stage, "number", done) for n, stage in enumerate(stages, 1)),
    )
    rows = []
    for name, generations in searched.generations.items():
        members = searched.members(name)
        refused = [sum(each.refused[stage] for each in generations) for stage in STAGES]
        reached = [sum(len(each.scores) > n for each in members) for n in range(len(stages))]
        numbers = [sum(refused) + len(members), *refused, *reached]
        rows.append(Row((Entry(name), *(Entry(f"{value:,}", value) for value in numbers))))
    caption = (
        "Filters in the order of their cost. leaves: no prediction, or no target. finite: a value or gradient is not, "
        "or there is none. learns: steps on free scores do not make them right. new: gradients are those of another "
        "candidate before, up to a factor."
    )
    table = Table("filters", "What became of the proposals", columns, tuple(rows), caption)
    return Section("generations", "The search", (figure, table))


def _archive(found: Judged) -> Section:
    searched = found.searched
    chosen = [each.formula for each in found.finals if each.winner]
    figure = Figure(
        "archive",
        "The archive as a map",
        "Every formula that was fully trained, on the first seed of the search; the choices are ringed.",
        "Scores of formulas over the number of their nodes.",
        functools.partial(pictures.archive, searched, chosen),
    )
    columns = (
        Column("method", "method"),
        Column("name", "name"),
        Column("formula", "formula", "code"),
        Column("how", "how"),
        Column("parents", "parents"),
        Column("nodes", "nodes", "number"),
        Column("height", "height", "number"),
        Column("stage", "stage", "number"),
        Column("score", "score there", "number"),
    )
    rows = []
    for name in (name for name in searched.generations if not METHODS[name].fixed):
        rows += [Row((Entry(name), *_candidate(found, each))) for each in searched.members(name)]
    caption = "A row for each, with its parents, the last stage of training that it reached, and its score there."
    table = Table("candidates", "All candidates", columns, tuple(rows), caption, in_csv_only=True)
    return Section("archive", "The archive", (figure, table))


def _candidate(found: Judged, each: Candidate) -> list[Entry]:
    tree, stage = parse(each.formula), len(each.scores)
    value = found.searched.value(each.fitness[1])
    return [
        Entry(each.name),
        Entry(each.formula),
        Entry(each.proposal.how),
        Entry(" ".join(each.proposal.parents)),
        Entry(str(trees.size(tree)), trees.size(tree)),
        Entry(str(height(tree)), height(tree)),
        Entry(str(stage), stage),
        Entry(found.searched.metric.number(value), value) if stage else Entry("–"),
    ]


def _family(found: Judged) -> list[Section]:
    """Return the ancestors of the first choice, if it has any."""
    best = found.best
    if best is None:
        return []
    members = {each.name: each for each in found.searched.members(best.method)}
    waiting, seen = [each for each in members.values() if each.formula == best.formula][:1], dict[str, Candidate]()
    while waiting:
        each = waiting.pop(0)
        if each.name not in seen:
            seen[each.name] = each
            waiting += [members[name] for name in each.proposal.parents if name in members]
    columns = ("name", "formula", "how", "parents", "nodes", "height", "stage", "score")
    kinds = {"formula": "code", "nodes": "number", "height": "number", "stage": "number", "score": "number"}
    made = tuple(Column(name, name, kinds.get(name, "text")) for name in columns)  # pyright: ignore[reportArgumentType]
    rows = tuple(Row(tuple(_candidate(found, each))) for each in seen.values())
    caption = "Names are generation.index. A score is that of the last stage of training that the formula reached."
    return [Section("family", "Where this choice comes from", (Table("family", "Ancestors", made, rows, caption),))]


def _again(found: Judged, given: Sequence[str]) -> Section:
    name = found.searched.asked.name
    words = " ".join(map(shlex.quote, given))
    text = (
        "Nothing here is about other data or models. To compare the choices of all methods like "
        "any other loss, with rates tuned alike and seeds until it is decided, on data that the search never saw:"
    )
    compared = ("cross_entropy", "ngl", *losses(found))
    seen = found.searched.asked.base.choices["dataset"]
    unseen = [name for name in plan.read_study(UNSEEN).axes["dataset"] if name != seen]
    own = f"LOSSBENCH_RESULTS=results python -m harness --config-dir results/{name}"
    study = f"{own} study={UNSEEN} axes.loss=[{','.join(compared)}] axes.dataset=[{','.join(unseen)}]"
    study += " until=decided max_seeds=24"
    return Section(
        "reproduce", "How to go on", (Code(f"python -m harness.evolution {words}"), Prose((text,)), Code(study))
    )
