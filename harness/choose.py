"""python -m harness choose data=PATH budget=1h [losses=[...]] [model=NAME] [KEY=VALUE]

Which loss for your data? All losses that fit race; those shown to be worse are dropped, the budget goes to the rest.

  data=PATH               your images, masks or table, as python -m harness.look shows them; or dataset=NAME
  task=NAME               what they are for, where their layout does not say
  budget=1h               time on this machine (20m, 300s), or runs=500; more of it later goes on from there
  losses=[focal,dice]     race these alone (default: every loss that the task can train)
  losses.boxes=[giou,iou] in a task with several losses: race these in one role, with the others as they are
  model=NAME              and any other setting of conf/run.yaml: trainer.epochs=30
  metric=test.top1        what is compared (default: the task's first metric), margin=0.005: what is too small to matter
  max_seeds=30            seeds at most
  name=NAME               folder of the results

It ends with the losses that cannot be told from the best, and results/NAME/choice.yaml, ready to train with. Stop with
Ctrl-C whenever you like: the same command goes on. docs/choosing.md says how it decides, and how sure that is.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import compose, plan, records, schema
from harness.errors import UsageError
from harness.plan import Study
from harness.records.store import write_text
from harness.studies import race
from harness.studies.race import Budget, Ended, Judgement
from harness.text import count, joined

if TYPE_CHECKING:
    from harness.analysis.cells import Analysis
    from harness.analysis.race import Standing
    from harness.records.study import StudyData

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "min": 60.0}
OF_SWEEP = ("data.", "feed", "engine", "reuse=", "tracking", "device=", "threads=")
OWN = ("data", "budget", "runs", "losses", "metric", "margin", "max_seeds", "name")
SEARCH = {"seeds": [7001], "most_seeds": 3}
"""One seed for the rates of all losses; three for those of losses that are left."""
MOST_SEEDS = 30
NO_CANDIDATES = ("negative_control", "symbolic")
"""Losses that do not race unless they are named: the controls, and what is whatever its formula says."""


@dataclass(frozen=True)
class Asked:
    """A command line of a race, read: what is raced, on what, and what it may cost."""

    study: Study
    options: dict[str, Any]
    budget: Budget
    facts: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def main(given: Sequence[str]) -> int:
    """Carry out the command line after ``choose``; return the exit code."""
    if not given or {"-h", "--help"} & set(given):
        print(__doc__)
        return 0
    asked = read(given)
    for line in (f"{asked.study.name}: {asked.study.question}", *asked.facts):
        print(line, flush=True)
    for warning in asked.warnings:
        print(warning, file=sys.stderr)
    return _race_and_report(asked)


# ---------------------------------------------------------------- what is asked


def read(given: Sequence[str]) -> Asked:
    """Read the command line of a race.

    Raises:
        UsageError: something in it does not exist, or has a value that it cannot have.
    """
    from harness.look.facts import loaded, told

    of_sweep = [entry for entry in given if entry.startswith(OF_SWEEP)]
    pairs = dict(plan.parsed(entry) for entry in given if entry not in of_sweep)
    own = {key: pairs.pop(key) for key in (*OWN, *_of_roles(pairs)) if key in pairs}
    base = {key.removeprefix("base."): value for key, value in pairs.items()}
    options, budget = compose.compose_run(of_sweep).config, _budget(own)
    base |= {key: options[key] for key in ("device", "threads") if any(e.startswith(f"{key}=") for e in of_sweep)}
    base = _with_data(own.get("data"), base)
    of_data = [entry for entry in of_sweep if entry.startswith("data.")]
    composed = _composed(base, of_data)
    if "split" in composed.config["dataset"] and "dataset.split" not in base:
        base["dataset.split"] = "by_seed"
        composed = _composed(base, of_data)
    known = told(loaded(composed.config))
    task = composed.choices["task"]
    role = _role(task, own, composed)
    losses, left_out = _losses(task, role, own.get(role.replace("loss", "losses", 1)), composed)
    study = _study(given, own, base, composed, {role: losses})
    schema.check_study("choose", _as_file(study))
    return Asked(study, options, budget, (*known.facts, *left_out), known.warnings)


def _with_data(path: object, base: dict[str, Any]) -> dict[str, Any]:
    """Return the settings with those that the user's own data ask for."""
    if path is None:
        if not base.keys() & {"task", "dataset"}:
            raise UsageError("give data=PATH, or dataset=NAME for a data set that lossbench knows.")
        return base
    from harness.look.understood import settings_for

    known = {key: value for key, value in base.items() if key.startswith("dataset.")}
    return {**settings_for(Path(str(path)).expanduser(), base.get("task"), known), **base}


def _composed(base: Mapping[str, Any], more: Sequence[str]) -> compose.Composed:
    from harness.look.facts import written

    return compose.compose_run([*(f"{key}={written(value)}" for key, value in base.items()), *more])


def _budget(own: Mapping[str, Any]) -> Budget:
    """Return what a race may cost.

    >>> _budget({"budget": "20m"}).seconds, _budget({"runs": 300}).runs
    (1200.0, 300.0)
    """
    given, runs = own.get("budget"), own.get("runs")
    if runs is not None and (not isinstance(runs, int) or runs < 1):
        raise UsageError(f"runs={runs} is no number of runs: write runs=500.")
    if given is None:
        if runs is None:
            raise UsageError("say what the answer may cost: budget=1h (or 20m, 300s), or runs=500.")
        return Budget(runs=float(runs))
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|min|h)", str(given))
    if not found or not float(found[1]):
        raise UsageError(f"budget={given} is no time: write budget=1h, budget=20m or budget=300s.")
    return Budget(float(found[1]) * UNITS[found[2]], math.inf if runs is None else float(runs))


def _of_roles(pairs: Mapping[str, Any]) -> list[str]:
    return [key for key in pairs if key.startswith("losses.")]


def _role(task: str, own: Mapping[str, Any], composed: compose.Composed) -> str:
    """Return the axis along which losses race: ``loss``, or ``loss.ROLE`` in a task with several.

    Raises:
        UsageError: it is not clear which role, or there is none of that name.
    """
    known = [key for key in composed.choices if key.startswith("loss.")]
    asked = [key.replace("losses", "loss", 1) for key in _of_roles(own)]
    if not known:
        if asked:
            raise UsageError(f"the task {task} has one loss: write losses=[...], not {_of_roles(own)[0]}.")
        return "loss"
    if len(asked) != 1 or asked[0] not in known or "losses" in own:
        which = joined([f"{key.replace('loss', 'losses', 1)}=[...]" for key in known], "or")
        raise UsageError(
            f"task={task} adds up losses of several roles, and one of them can race at a time: give {which} with the "
            f"losses to compare; the others keep theirs ({known[-1]}={composed.choices[known[-1]]})."
        )
    return asked[0]


def _losses(task: str, role: str, given: object, composed: compose.Composed) -> tuple[list[str], list[str]]:
    """Return the losses to race, the task's own and the most used ones first, and sentences on those left out."""
    from harness.catalogue import entries, shortlist

    own = composed.choices[role]
    if given is not None:
        if not isinstance(given, list) or not given:
            raise UsageError(f"losses={given} is no list of losses: write losses=[cross_entropy,focal].")
        for name in given:
            compose.option("loss", str(name))
        return list(dict.fromkeys([own, *map(str, given)])), []
    fitting = [name for name in entries.for_task(task) if not name.startswith(NO_CANDIDATES)]
    first = dict.fromkeys([own, *shortlist.of(task), *fitting])
    kept, same = _distinct([name for name in first if name in fitting or name == own])
    said = [f"{count(len(kept), 'loss', 'losses')} of the task {task} race."]
    if same:
        pairs = [f"{name} ({other})" for name, other in same.items()]
        said.append(f"Losses that are the same function race once; left out: {joined(_first(pairs, 3))}.")
    return kept, said


def _first(names: Sequence[str], most: int) -> list[str]:
    """Return the first names, and how many there are besides."""
    rest = len(names) - most
    return [*names[:most], count(rest, "other")] if rest > 1 else list(names)


def _distinct(names: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return the losses that differ from those before them in values or gradients, and what the others equal."""
    from harness import fingerprints

    seen: dict[str, str] = {}
    kept, same = [], {}
    for name in names:
        found = fingerprints.of("loss", compose.option("loss", name), {})
        print_ = repr({key: value for key, value in found.items() if key != "use"}) if found else name
        if print_ in seen:
            same[name] = seen[print_]
        else:
            seen[print_] = name
            kept.append(name)
    return kept, same


def _study(
    given: Sequence[str],
    own: Mapping[str, Any],
    base: dict[str, Any],
    composed: compose.Composed,
    raced: dict[str, list[str]],
) -> Study:
    from hydra.utils import get_class

    asked = sorted(entry for entry in given if entry.split("=")[0] not in ("budget", "runs", "name") and _counts(entry))
    data = Path(str(own["data"])).name if "data" in own else composed.choices["dataset"]
    short = re.sub(r"[^\w.-]+", "-", data).strip(".-") or "data"
    default = f"choose-{short}-{hashlib.sha256(chr(10).join(asked).encode()).hexdigest()[:6]}"
    metrics = get_class(composed.config["task"]["_target_"]).metrics
    most = own.get("max_seeds", MOST_SEEDS)
    if not isinstance(most, int) or most < race.FIRST:
        raise UsageError(f"max_seeds={most} is too few to compare losses: write max_seeds={MOST_SEEDS}, for example.")
    return Study(
        name=plan.checked_name(str(own["name"])) if "name" in own else default,
        question=f"Which loss should {composed.choices['model']} be trained with on {data}?",
        axes={**raced, "seed": list(range(1, most + 1))},
        baseline=composed.choices[next(iter(raced))],
        metric=str(own.get("metric", f"test.{metrics[0].key}")),
        margin=own.get("margin", 0.005),
        track="lr",
        base=base,
        controls={"baseline_repeat": False, "negative_control": False},
        search=schema.SearchField().model_dump() | SEARCH,
        until="chosen",
        max_seeds=most,
        study="choose",
        overrides=[entry for entry in given if entry.split("=")[0] not in ("budget", "runs") and _counts(entry)],
    )


def _counts(entry: str) -> bool:
    """Return whether an override says what is raced, not how that is carried out."""
    return not entry.startswith(("feed", "engine", "reuse=", "tracking"))


def _as_file(study: Study) -> dict[str, Any]:
    """Return the fields of a study as a file of conf/study/ would have them, to be checked as one."""
    fields = ("question", "axes", "baseline", "metric", "margin", "track", "base", "controls", "search")
    return {name: getattr(study, name) for name in fields}


# ---------------------------------------------------------------- the race


def _race_and_report(asked: Asked) -> int:
    from harness import report, tracking
    from harness.analysis.cells import Analysis

    study, options = asked.study, asked.options
    say = functools.partial(print, flush=True)
    tracking.check(options["tracking"])
    mirrors: list[tracking.LiveMirror] = []
    with contextlib.ExitStack() as stack:

        def started() -> None:
            if options["tracking"]["enabled"] and not mirrors:
                of = options["tracking"]
                mirrors.append(stack.enter_context(tracking.LiveMirror(study.name, of["uri"], of["mirrors"])))

        ended = race.conduct(study, options, asked.budget, judge, say, started)
        for mirror in mirrors:
            mirror.finish()
        study = ended.study or study
        if ended.judgement is None:
            print(_undecided(ended, study))
            return 1
        data, folder = records.load_study(study.name), records.RESULTS / study.name
        page = report.build(data, folder / "report")
    a = Analysis(data)
    print("\n".join(answer(a, ended, study)))
    write_choice(a, study, folder / "choice.yaml", say)
    print(f"Report:    {os.path.relpath(page)}")
    for what, why in ended.failed:
        print(f"failed: {what}: {why}", file=sys.stderr)
    return 0


def _raced(study: Study) -> tuple[str, list[str]]:
    """Return what the losses of a race are values of, ``loss`` or ``loss.ROLE``, and the losses."""
    return next((key, list(values)) for key, values in study.axes.items() if key != "seed")


def _undecided(ended: Ended, study: Study) -> str:
    raced = len(_raced(study)[1]) - len(ended.refused)
    return (
        f"Nothing is decided yet: {count(raced, 'loss', 'losses')} need about {race.LEAST_RUNS * raced} runs before "
        f"the first judgement, and {ended.runs} are made. Give a larger budget, and the same command goes on; or fewer "
        "losses=[...]."
    )


def judge(data: StudyData) -> Judgement:
    """Say which losses of a race are left, from its records."""
    from harness.analysis.cells import Analysis
    from harness.analysis.race import equivalent, of_cell

    a = Analysis(data)
    found = of_cell(a, a.cells[0])
    left = [each for each in found if each.open]
    one, alike = len(left) == 1, equivalent(found, a.margin)
    told = f"{len(left)} of {len(a.labels)} losses may be the best"
    if left:
        told += f", {left[0].label} leads ({_value(a, left[0].mean)})"
    if alike and not one:
        told += ", all within the margin"
    return Judgement(frozenset(each.label for each in left), one or alike, told)


# ---------------------------------------------------------------- the answer


def answer(a: Analysis, ended: Ended, study: Study) -> list[str]:
    """Return the answer as lines: which losses may be the best, how sure, at what cost, and what became of the rest."""
    from harness.report.sections import race as told

    found = told.standings(a)
    left, out = [each for each in found if each.open], [each for each in found if not each.open]
    cost = f"{count(ended.runs, 'run')}, {ended.seconds / 60:.1f} minutes"
    lines = ["", f"Which loss? ({a.metric.title}, {cost}, {_why(ended)})", "", told.sentence(a, names=False)]
    lines += [*told.limits(a), *_table(a, left, study.baseline), ""]
    lines += [_beaten(a, out)] if out else []
    lines += _troubles(a, ended, study, {each.label for each in found})
    return lines


def _why(ended: Ended) -> str:
    return {"decided": "decided", "budget": "the budget is spent", "seeds": "all seeds are used"}[ended.why]


def _value(a: Analysis, score: float) -> str:
    return f"{a.metric.number(score if a.metric.higher_is_better else -score)} {a.metric.unit}".strip()


def _table(a: Analysis, left: Sequence[Standing], baseline: str) -> list[str]:
    """Return the losses that are left, and the baseline, with what else their records say, as a table."""
    from harness.report.sections.race import COLUMNS

    labels = list(dict.fromkeys([*(each.label for each in left[:12]), baseline]))
    rows = [row for label in labels if (row := _row(a, label)) is not None]
    names = [name for name in ("loss", _head(a), *COLUMNS.values()) if any(row.get(name) for row in rows)]
    cells = [names, *([row.get(name, "") for name in names] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    return [f"  {'  '.join(map(str.ljust, line, widths))}".rstrip() for line in cells]


def _head(a: Analysis) -> str:
    return f"{a.metric.title} ({a.metric.unit})" if a.metric.unit else a.metric.title


def _row(a: Analysis, label: str) -> dict[str, str] | None:
    from harness.report.sections.race import facts, scored, told_score, written

    outcome = a.outcomes.get((a.cells[0], label))
    if outcome is None or not outcome.keys:
        return None
    score = scored(a, label) if (a.cells[0], label) in a.done else outcome.values
    found = {"loss": a.display(label), _head(a): told_score(a, score)}
    return found | {title: written(title, value) for title, value in facts(a, label).items()}


def _beaten(a: Analysis, out: Sequence[Standing]) -> str:
    shown = [
        f"{each.label} (after {each.n} seeds, by {a.metric.with_unit(each.by)} at least, to {each.beaten_by})"
        for each in out[:6]
    ]
    more = f" and {len(out) - 6} more" if len(out) > 6 else ""
    return f"Dropped: {joined(shown) if not more else ', '.join(shown) + more}."


def _troubles(a: Analysis, ended: Ended, study: Study, compared: set[str]) -> list[str]:
    """Return what became of losses that could not be compared, or not in every run."""
    lines = [f"Left out: {name}: {why}" for name, why in sorted(ended.refused.items())]
    lines += [f"{name} is {other} on these data, and did not race." for name, other in ended.same.items()]
    if ended.waiting:
        lines.append(f"Not raced, because the budget is too small: {joined(_first(ended.waiting, 8))}.")
    for label in _raced(study)[1]:
        outcome = a.outcomes.get((a.cells[0], label))
        if label in ended.refused or outcome is None:
            continue
        counts = {"diverged": outcome.diverged, "failed": outcome.failed, "did not learn": outcome.unlearnt}
        parts = [f"{n} {what}" for what, n in counts.items() if n]
        if parts or label not in compared:
            lines.append(f"{label}: of {outcome.planned} runs {', '.join(parts) or 'none is finished'}.")
    return lines


def write_choice(a: Analysis, study: Study, file: Path, say: Callable[[str], None]) -> None:
    """Write the leading loss as a config that harness.run trains with, and say how; nothing where none leads."""
    import yaml

    from harness.analysis.race import of_cell
    from harness.look.facts import written

    left = [each for each in of_cell(a, a.cells[0]) if each.open]
    if not left:
        return
    best = left[0].label
    rates = a.measured(a.outcomes[a.cells[0], best], "lr").dropna()
    chosen = {**study.base, _raced(study)[0]: best, "optimizer.lr": float(rates.iloc[-1])}
    chosen.pop("dataset.split", None)
    groups = {key: value for key, value in chosen.items() if key in {*compose.GROUPS, *compose.roles()}}
    overriding = ({f"override /{compose.for_hydra([k])[0]}": v} for k, v in groups.items())
    content: dict[str, Any] = {"defaults": ["run", *overriding, "_self_"]}
    for path, value in chosen.items():
        if path not in groups:
            *parts, last = path.split(".")
            place = content
            for part in parts:
                place = place.setdefault(part, {})
            place[last] = value
    words = [f"{key}={written(value)}" for key, value in chosen.items()]
    line = " ".join(["python -m harness.run", *map(shlex.quote, words)])
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    folder = os.path.relpath(file.parent)
    again = f"python -m harness.run --config-dir {shlex.quote(folder)} --config-name choice"
    write_text(file, f"# {again}\n# {line}\n{text}")
    say(f"Train it:  {line}")
    say(f"           or {again}")
