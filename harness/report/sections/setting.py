"""The setting in full: whatever could have moved the numbers."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import pandas as pd

from harness.analysis.cells import Analysis, Outcome, class_count, group_of, tally
from harness.analysis.frames import column, numbers, rows, where
from harness.report.items import Code, Column, Entry, Filters, Item, Notice, Row, Section, Table
from harness.report.sections.common import cell_entry, cell_filters, dash, loss_entry, loss_filters
from harness.report.sections.reproduce import yaml_of
from harness.selection import Choice
from harness.text import DASH, count, joined, plain, significant

SEARCHED = {"lr": "learning rate", "tuned": "learning rate and the loss's own settings"}  # by track


def section(a: Analysis) -> Section:
    """Return data, model, optimizer, trainer, learning rates, machine, versions and dates; mixed values with counts."""
    items: list[Item] = [Notice(text) for text in _mixed(a)]
    items += [_summary(a), _data(a)]
    if rates := _rates(a):
        items.append(rates)
    if a.choices:
        items.append(_search(a))
    items += [_losses(a), _config(a)]
    if len(a.set_aside):
        items.append(_set_aside(a))
    items.append(Code(yaml_of(a.study.spec), "The study as it was asked", folded=True))
    return Section("setting", "Setting", tuple(items))


def _mixed(a: Analysis) -> list[str]:
    """Return a sentence for everything that should be the same in all compared runs and is not."""
    ran = rows(a.runs, column(a.runs, "status").isin(["done", "diverged"]))
    names = {
        "env.device": "device types",
        "env.torch": "versions of torch",
        "env.threads": "thread counts",
        "env.device_name": "processors",
        "env.commit": "commits",
    }
    found = []
    for name, what in names.items():
        if len({plain(value) for value in column(ran, name)} - {DASH}) > 1:
            found.append(f"The compared runs mix {what}: {tally(column(ran, name))}.")
    if old := int(column(ran, "old").sum()):
        found.append(
            f"{count(old, 'run')} {'was' if old == 1 else 'were'} made by older code than this checkout's; "
            "the remarks in Results say which. Running the study again replaces them."
        )
    if column(ran, "env.dirty").map(lambda value: str(value).lower() in ("true", "1", "1.0")).any():
        found.append(
            "Some runs were made from a checkout with uncommitted changes, so no commit describes them exactly."
        )
    return found


def _pairs_table(identity: str, title: str, pairs: Iterable[tuple[str, str]], folded: bool = False) -> Table:
    table_rows = tuple(Row((Entry(name), Entry(value))) for name, value in pairs)
    return Table(identity, title, (Column("what", "what"), Column("value", "value")), table_rows, folded=folded)


def _summary(a: Analysis) -> Table:
    ran = rows(a.runs, column(a.runs, "status").isin(["done", "diverged"]))
    dirty = column(ran, "env.dirty").map(lambda v: {"true": "dirty", "false": "clean"}.get(str(v).lower(), plain(v)))
    times = sorted(str(value) for name in ("started", "finished") for value in column(ran, name).dropna())
    status = " · ".join(f"{n} {name}" for name, n in a.all["status"].value_counts().items())
    pairs = [
        ("question", str(a.study.spec.get("question", DASH))),
        ("baseline, metric, margin", f"{a.baseline}, {a.metric.key}, {plain(a.margin)}"),
        ("seeds", ", ".join(map(str, a.seeds))),
        ("runs", status),
        ("model", tally(column(ran, "model"))),
        ("optimizer", tally(column(ran, "optimizer"))),
        ("trainer", tally(column(ran, "trainer"))),
        ("epochs", tally(column(ran, "config.trainer.epochs"))),
        ("batch size", tally(column(ran, "config.trainer.batch_size"))),
        ("selection of the checkpoint", tally(column(ran, "config.trainer.select"))),
        ("track", _track(a)),
        ("device", tally(column(ran, "env.device"))),
        ("processor", tally(column(ran, "env.device_name"))),
        ("threads per run", tally(column(ran, "env.threads"))),
        *((name, tally(column(ran, f"env.{name}"))) for name in ("python", "torch", "torchvision", "timm", "platform")),
        ("commit", tally(column(ran, "env.commit"))),
        ("checkout", tally(dirty)),
        ("source of records", tally(column(ran, "source"))),
        ("run between", f"{times[0]} and {times[-1]} (UTC)" if times else DASH),
    ]
    return _pairs_table("setting", "Setting", pairs)


def _track(a: Analysis) -> str:
    track = str(a.study.spec.get("track", "fixed"))
    if track in SEARCHED:
        trials = where(a.all, role="search")
        seeds = joined(sorted({plain(seed) for seed in trials["seed"]})) if len(trials) else DASH
        used = f"{count(len(trials), 'trial')} on seed {seeds}, not compared"
        return f"{track}: {SEARCHED[track]} chosen per loss on validation ({used})"
    return "fixed: every loss at the learning rate of its model" if track == "fixed" else track


def _data(a: Analysis) -> Table:
    names = ("train", "valid", "test", "classes", "image_size", "skipped", "checksum")
    # what only data with masks have is shown where there are some
    names = tuple(name for name in names if column(a.main, f"data.{name}").notna().any())
    titles = {"train": "training", "valid": "validation"}
    columns = (
        Column("dataset", "data set"),
        *(Column(name, titles.get(name, name.replace("_", " "))) for name in names),
    )
    table_rows = []
    for dataset in dict.fromkeys(a.main["dataset"]):
        runs = where(a.main, dataset=dataset)
        found = {name: list(column(runs, f"data.{name}")) for name in names}
        if "classes" in found:
            found["classes"] = [class_count(value) for value in found["classes"]]
        values = [Entry(tally(values)) for values in found.values()]
        table_rows.append(Row((Entry(str(dataset)), *values), filters=(("data", str(dataset)),)))
    caption = "Items per split, classes, and the checksum of indices and labels of the three splits."
    return Table("data", "Data", columns, tuple(table_rows), caption)


def _rates(a: Analysis) -> Table | None:
    """Return the learning rates at which losses were compared and, where they were searched, out of which; also the
    settings of the losses that were searched.
    """
    found = []
    searched = where(a.all, role="search")
    by_loss: dict[Any, pd.DataFrame] = dict(iter(searched.groupby(["cell", "label"], sort=False)))
    for outcome in a.outcomes.values():
        rates = _lr(a.planned[outcome.cell, outcome.label]).dropna()
        trials = by_loss.get((outcome.cell.values, outcome.label), searched.iloc[:0])
        if len(rates):
            found.append((outcome, rates, trials))
    if not found:
        return None
    tuned = a.study.spec.get("track") == "tuned"
    columns = (
        Column("cell", "cell"),
        Column("loss", "loss"),
        Column("lr", "learning rate", "number"),
        Column("grid", "chosen from"),
        *([Column("settings", "the loss's own settings", "text", "chosen (out of)")] if tuned else []),
    )
    table_rows = []
    for cell in a.cells:
        here = [entry for entry in found if entry[0].cell == cell]
        if len({tally(rates) for _, rates, _ in here}) == 1 and not any(len(trials) for *_, trials in here):
            table_rows.append(_rate_row(a, here[0], Entry("all losses"), (), tuned))
        else:
            table_rows += [
                _rate_row(a, entry, loss_entry(a, label), loss_filters(a, label), tuned)
                for entry in here
                for label in (entry[0].label,)
            ]
    return Table("learning-rates", "Learning rates", columns, tuple(table_rows))


def _rate_row(
    a: Analysis, found: tuple[Outcome, pd.Series, pd.DataFrame], loss: Entry, filters: Filters, tuned: bool
) -> Row:
    outcome, rates, trials = found
    grid = sorted(set(_lr(trials).dropna()))
    entries = (
        cell_entry(outcome.cell),
        loss,
        Entry(tally(rates), float(rates.iloc[0])),
        Entry(_tried(grid) or DASH),
        *([_own_settings(a.planned[outcome.cell, outcome.label], trials)] if tuned else []),
    )
    filters = (*cell_filters(a, outcome.cell.values), *filters)
    return Row(entries, reference=loss.text == a.display(a.baseline), filters=filters)


def _search(a: Analysis) -> Table:
    """Return what the search of each loss in each cell found, and how sure that is."""
    columns = (
        Column("cell", "cell"),
        Column("loss", "loss"),
        Column("lr", "learning rate", "number", "chosen"),
        Column("trials", "trials", "number", "settings that were tried"),
        Column("seeds", "seeds", "number", "of each trial"),
        Column("by", "chosen by", note="the validation metric that set it apart from the runner-up"),
        Column("lead", "lead", "number", "over the runner-up, in that metric"),
        Column("tied", "tied with", note="learning rates that nothing tells from the chosen one"),
        Column("contending", "not ruled out", note="rates that may be better by more than the margin"),
        Column("edge", "at the edge", note="the least or the greatest learning rate tried"),
    )
    trials = where(a.all, role="search")
    groups: dict[Any, pd.DataFrame] = dict(iter(trials.groupby(["cell", "label"], sort=False)))
    found = []
    for cell in a.cells:
        for label in a.labels:
            if (choice := a.choices.get((cell.values, label))) is None:
                continue
            runs = groups[cell.values, label]
            tried = int(column(runs, "setting").nunique())
            seeds = int(column(runs, "seed").nunique())
            entries = (
                cell_entry(cell), loss_entry(a, label), Entry(plain(choice.rate), choice.rate),
                Entry(str(tried), tried), Entry(str(seeds), seeds), Entry(choice.by or DASH), _lead(a, choice),
                Entry(", ".join(map(plain, choice.tied)), tone="withheld" if choice.tied else ""),
                Entry(", ".join(map(plain, choice.contending)), tone="withheld" if choice.contending else ""),
                Entry("yes" if choice.edge else "", tone="withheld" if choice.edge else ""),
            )  # fmt: skip
            filters = (*cell_filters(a, cell.values), *loss_filters(a, label))
            found.append(Row(entries, reference=label == a.baseline, filters=filters))
    caption = (
        "Validation alone decides, on seeds that are not compared. A tie, or an optimum at the edge of what was tried, "
        "withholds the loss's verdict: another rate might serve it better."
    )
    return Table("search", "What the search found", columns, tuple(found), caption)


def _lead(a: Analysis, choice: Choice) -> Entry:
    if not math.isfinite(choice.lead):
        return dash("no other trial finished" if choice.lead == math.inf else "there is no other trial")
    metric = a.metric_of(f"valid.{choice.by.split(' ')[0]}") if choice.by else a.metric
    text = metric.number(choice.lead)
    if float(f"{choice.lead:.3g}") and not any(digit in text for digit in "123456789"):
        text = significant(choice.lead * metric.scale, 2)
    return Entry(f"{text} {metric.difference_unit}".strip(), choice.lead)


def _tried(values: Sequence[Hashable]) -> str:
    """Return a few values as they are, many numbers by their ends.

    >>> _tried([0.1, 0.3, 1.0]), _tried([0.5, 1.0, 2.0, 3.0, 4.0, 5.0])
    ('0.1, 0.3, 1', '6 from 0.5 to 5')
    """
    if len(values) > 5 and all(isinstance(value, int | float) for value in values):
        return f"{len(values)} from {plain(values[0])} to {plain(values[-1])}"
    return ", ".join(map(plain, values))


def _own_settings(runs: pd.DataFrame, trials: pd.DataFrame) -> Entry:
    """Return the settings of a loss that differ among its trials, as the compared runs have them."""
    texts = []
    ended = rows(trials, column(trials, "status").isin(["done", "diverged"]))
    for name in (name for name in ended.columns if str(name).startswith("config.loss.")):
        values = {plain(value): value for value in column(ended, name)}
        if len(values) > 1:
            tried = sorted(values.values(), key=lambda value: (isinstance(value, str), value))
            title = str(name).removeprefix("config.loss.").removeprefix("base.")
            texts.append(f"{title} {tally(column(runs, name))} ({_tried(tried)})")
    return Entry("; ".join(texts) or DASH)


def _lr(runs: pd.DataFrame) -> pd.Series:
    return numbers(runs, "config.optimizer.lr").fillna(numbers(runs, "lr"))


def _losses(a: Analysis) -> Table:
    more = (Column(name, name) for name in ("name", "family", "link", "evidence", "paper"))
    columns = (Column("loss", "loss", "code"), *more)
    table_rows = tuple(
        Row(
            tuple(Entry(text or DASH) for text in (label, x.name, x.family, x.link, x.evidence, x.paper)),
            filters=loss_filters(a, label),
        )
        for label in a.labels
        for x in (a.loss_facts[label],)
    )
    return Table("losses", "The losses", columns, table_rows)


def _config(a: Analysis) -> Table:
    names = sorted(name for name in a.main.columns if str(name).startswith("config."))
    pairs = [(name.removeprefix("config."), tally(column(a.main, name))) for name in names]
    shown = [(name, value) for name, value in pairs if value != DASH]
    return _pairs_table("config", "Every setting (runs in brackets where it varies)", shown, folded=True)


def _set_aside(a: Analysis) -> Table:
    columns = (Column("made_on", "made on"), Column("runs", "runs", "number"), Column("losses", "losses"))
    group = group_of(a.set_aside)
    table_rows = []
    for name in dict.fromkeys(group):
        own = rows(a.set_aside, group == name)
        labels = joined(dict.fromkeys(map(str, own["label"])))
        table_rows.append(
            Row((Entry(name), Entry(significant(len(own)), len(own), runs=tuple(own["key"])), Entry(labels)))
        )
    caption = (
        "Runs of other device types or major versions of torch are not compared with the rest unless --mix is given."
    )
    return Table("set-aside", "Set aside", columns, tuple(table_rows), caption)
