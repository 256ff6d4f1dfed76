"""What a race found (``python -m harness choose``): which losses are left, how sure that is, and what each means."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from harness.analysis import race, stats
from harness.analysis.cells import Analysis
from harness.analysis.race import Standing
from harness.report.items import Code, Column, Entry, Prose, Row, Section, Table
from harness.report.sections import reproduce
from harness.report.sections.common import dash, loss_entry, loss_filters, remarks
from harness.text import count, joined, number

NAMED, LEADING = 8, 3
"""Losses that a sentence names at most, and how many of more."""
COLUMNS: Mapping[str, str] = {
    "test.ece": "calibration error (%)",
    "worst class": "worst class (%)",
    "test.minority_recall": "rare classes (%)",
    "cost.step_ms": "ms per step",
    "lr": "learning rate",
}
"""What else is told of a loss: the mean over its runs, by column of the records."""


def is_race(a: Analysis) -> bool:
    """Return whether these are the records of a race."""
    return a.study.spec.get("until") == "chosen"


def section(a: Analysis) -> Section:
    """Return the losses that may be the best, and how every one stood."""
    if not (found := standings(a)):
        return Section("answer", "The answer", (Prose((sentence(a),)),))
    told = (
        "A loss is dropped when another is shown to be better than it, by a bound that holds at every number of seeds "
        "and over all losses together; it is meant to drop the best one in no more than one race of twenty "
        "(docs/choosing.md: what was measured)."
    )
    if sum(each.open for each in found) > 1 and not race.equivalent(found, a.margin):
        told += " The losses that are left are not shown to be alike: more seeds may still tell them apart."
    items = [
        Prose((told, *limits(a))),
        _table(a, found),
        Code(next_steps(a), "What to do next"),
    ]
    return Section("answer", "The answer", tuple(items))


def standings(a: Analysis) -> list[Standing]:
    """Return how the losses stand, the best mean first."""
    return race.of_cell(a, a.cells[0]) if a.cells else []


def sentence(a: Analysis, *, names: bool = True) -> str:
    """Return the answer in one sentence, with its certainty.

    Args:
        a: the records.
        names: losses by name; else as the command line calls them.
    """
    if not (found := standings(a)):
        return "No answer yet: it takes two completed runs of two losses."
    called = a.called if names else a.display
    left = [each for each in found if each.open]
    sure = "with 95 % certainty, over all losses and however often it was looked"
    seeds = count(max(each.n for each in left), "seed")
    raced = len(a.labels)
    if len(left) == 1:
        text = f"{called(left[0].label)}: of {raced} losses it is the best after {seeds}, {sure}."
        return f"{text[0].upper()}{text[1:]}" if names else text
    first = [called(each.label) for each in left]
    listed = joined(first) if len(first) <= NAMED else f"{first[0]} leads, then {joined(first[1:LEADING])}"
    listed += _default(a, left, called(a.baseline))
    alike = race.equivalent(found, a.margin)
    within = f" They lie within {a.metric.with_unit(a.margin)} of the best: take any." if alike else ""
    every = "Both" if raced == 2 else f"All {raced}"
    size = every if len(left) == raced else f"{len(left)} of {raced}"
    return f"{size} losses may be the best after {seeds}, {sure}: {listed}.{within}"


def _default(a: Analysis, left: Sequence[Standing], name: str) -> str:
    """Return how many of the losses that are left did not learn in any run, and whether the task's default may be the
    best, as far as that is not said by its name.
    """
    labels = [each.label for each in left]
    never = [label for label in labels if a.outcomes[a.cells[0], label].unlearnt == len(a.done[a.cells[0], label])]
    named = labels[: NAMED if len(labels) <= NAMED else LEADING]
    parts = [f"{len(never)} of them did not learn in any run"] if never else []
    if never == [a.baseline]:
        parts = [f"{name}, the default, did not learn in any run"]
    elif a.baseline in never:
        parts = [f"{len(never)} of them, with {name}, the default, did not learn in any run"]
    elif a.baseline not in named:
        parts.append(f"{name}, the default, is {'one' if a.baseline in labels else 'not one'} of the {len(labels)}")
    return "".join(f"; {part}" for part in parts)


def limits(a: Analysis) -> list[str]:
    """Return what the certainty does not cover, in a sentence; nothing where every seed has its own data."""
    if a.study.spec.get("base", {}).get("dataset.split") == "by_seed":
        return []
    return ["The test part is the same for every seed: the certainty is about these test items, not new ones."]


def next_steps(a: Analysis) -> str:
    """Return the commands that train the leading loss, and that go on with the race."""
    again = reproduce.command(a.study).replace("budget=1h", "budget=2h")
    folder = shlex.quote(f"results/{a.study.name}")
    return (
        f"python -m harness.run --config-dir {folder} --config-name choice  # train the loss that leads\n"
        f"{again}  # go on where the race ended, with a larger budget"
    )


def facts(a: Analysis, label: str) -> dict[str, float]:
    """Return what the records say of a loss beside the metric, by title in `COLUMNS`: means over its runs."""
    outcome = a.outcomes[a.cells[0], label]
    runs, found = a.records(outcome), {}
    for name, title in COLUMNS.items():
        values = _worst(runs) if name == "worst class" else [float(v) for v in a.measured(outcome, name).dropna()]
        if values:
            found[title] = sum(values) / len(values) * (100 if title.endswith("(%)") else 1)
    return found


def scored(a: Analysis, label: str) -> stats.Interval:
    """Return the mean over the runs of a loss that are compared, those that learnt, with its 95 % t interval."""
    return stats.metric_interval(a.compared(a.cells[0], label)["value"], a.metric)


def told_score(a: Analysis, score: stats.Interval) -> str:
    """Return a mean with its interval, where there is one."""
    ends = f" [{a.metric.number(score.low)}, {a.metric.number(score.high)}]" if math.isfinite(score.low) else ""
    return f"{a.metric.number(score.mean)}{ends}"


def written(title: str, value: float) -> str:
    """Return a number under a title of `COLUMNS`."""
    return number(value, 1) if title.endswith("(%)") else f"{value:.3g}"


def _table(a: Analysis, found: Sequence[Standing]) -> Table:
    metric, unit = a.metric, a.metric.difference_unit or a.metric.title
    known = {each.label: facts(a, each.label) for each in found}
    titles = [title for title in COLUMNS.values() if any(title in facts for facts in known.values())]
    columns = (
        Column("loss", "loss"),
        Column("id", "name on the command line", "code", detail=True),
        Column("state", "in the race", note="or since how many seeds not, and which loss beats it"),
        Column("mean", _headed(metric.title, metric.unit), "number", "mean over its seeds, with a 95 % t interval"),
        Column("behind", f"behind ({unit})", "number", "the leader, on the seeds that both have"),
        Column("by", f"by at least ({unit})", "number", "which it is worse than the loss that beats it"),
        *(Column(title.partition(" (")[0].replace(" ", "_"), title, "number") for title in titles),
    )
    rows = []
    for each in found:
        outcome, score = a.outcomes[a.cells[0], each.label], scored(a, each.label)
        ends = (score.low, score.high) if math.isfinite(score.low) else (None, None)
        state = "yes" if each.open else f"out after {count(each.n, 'seed')}: {a.display(each.beaten_by)}"
        lost = [remark for remark in remarks(outcome) if not remark.endswith("compared")]
        entries = [
            loss_entry(a, each.label),
            Entry(each.label),
            Entry("; ".join([state, *lost]), tone="" if each.open else "worse"),
            Entry(told_score(a, score), score.mean, *ends, outcome.keys),
            Entry(metric.number(each.behind), each.behind),
            dash("no loss is shown to be better") if each.open else Entry(metric.number(each.by), each.by),
        ]
        entries += [
            Entry(written(title, value), value) if (value := known[each.label].get(title)) is not None
            else dash("not recorded")
            for title in titles
        ]  # fmt: skip
        rows.append(Row(tuple(entries), filters=loss_filters(a, each.label)))
    caption = (
        f"Every loss of the race, the best mean first. Differences are paired by seed. {_spent(a)} Losses that ran on "
        "fewer seeds were dropped, or some of their runs did not learn, and their means are of the seeds that are left."
    )
    return Table("race", "Every loss", columns, tuple(rows), caption)


def _headed(title: str, unit: str) -> str:
    return f"{title} ({unit})" if unit else title


def _spent(a: Analysis) -> str:
    roles = a.all["role"].value_counts().to_dict()
    return (
        f"{count(int(roles.get('search', 0)), 'run')} went into learning rates, {int(roles.get('run', 0))} into this."
    )


def _worst(runs: Any) -> list[float]:
    """Return the recall of the worst class of every run; none where recalls were not kept."""
    texts = runs["test.per_class"].dropna() if "test.per_class" in runs else []
    lists = [json.loads(text) if isinstance(text, str) else text for text in texts]
    known = [[value for value in each if value is not None] for each in lists]
    return [min(each) for each in known if each]
