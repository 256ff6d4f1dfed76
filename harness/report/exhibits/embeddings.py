"""Losses of features on classes never seen: neighbours and pairs beside the floors, what collapsed, and pictures."""

from __future__ import annotations

import functools
import math

import pandas as pd

from harness import records
from harness.analysis.cells import Analysis, Cell
from harness.analysis.frames import column, numbers
from harness.report.exhibits import embeddings_drawn as drawn
from harness.report.items import Column, Entry, Figure, Item, Prose, Row, Section, Table
from harness.report.sections.common import cell_filters, dash, loss_entry, loss_filters
from harness.text import joined, slug

FLOORS = {"raw_pixels": "raw pixels", "untrained_network": "the network before training"}
FELL = 1e-3
"""Mean of 1 - cosine over all pairs of embeddings below which they have fallen together."""
AT_MARGIN = 0.02
"""How far from its margin, as a share of it, the last training value of a hinge counts as resting there."""
SHOWN = (
    "map_at_r",
    "recall_at_1",
    "recall_at_5",
    "r_precision",
    "verification_auc",
    "tar_at_far_1e2",
    "tar_at_far_1e3",
)
CAMERAS = ("mean_ap", "cmc_1", "cmc_5", "cmc_10")


def section(a: Analysis) -> Section:
    """Return a table of all metrics for each cell, floors included, with what collapsed, and the pictures."""
    intro = (
        "Models are judged on classes that they were never trained on: by the nearest neighbours of each test item, "
        "and by pairs, of which a threshold on the cosine says whether they are of one class (TAR: genuine pairs "
        "accepted; FAR: impostors accepted). Floors are what the pixels themselves and the network before training "
        "reach; chance would be far below. A loss whose embeddings fall together, or whose training value rests at its "
        "margin, has collapsed: it learnt to say nothing.",
    )
    items: list[Item] = [Prose(intro)]
    for cell in a.cells:
        items += [_table(a, cell), *_figures(a, cell)]
    return Section("exhibit-embeddings", "Chapter 5: losses of features on unseen classes", tuple(items))


def collapsed(runs: pd.DataFrame, histories: pd.DataFrame) -> str:
    """Return in which way most runs of a loss collapsed, in words; empty where they did not.

    Args:
        runs: its records.
        histories: their epochs, with ``key``, ``epoch`` and ``train.loss``.
    """
    if len(runs) and float((numbers(runs, "test.spread") < FELL).mean()) > 0.5:
        return "its embeddings fall together"
    margins = numbers(runs, "config.loss.margin")
    soft = column(runs, "config.loss.soft").map(lambda value: value is True or value == "True")
    hinges = column(runs, "config.loss._target_").map(lambda name: str(name).rpartition(".")[2].startswith("triplet"))
    if not len(runs) or not bool((hinges & ~soft & (margins > 0)).all()) or "train.loss" not in histories.columns:
        return ""
    last = histories.sort_values("epoch").groupby("key")["train.loss"].last()
    rests = [
        abs(last.get(key, math.nan) / margin - 1) < AT_MARGIN for key, margin in zip(runs["key"], margins, strict=True)
    ]
    return "its value rests at its margin" if sum(rests) > len(rests) / 2 else ""


def _table(a: Analysis, cell: Cell) -> Table:
    known = [key for key in (*SHOWN, *CAMERAS) if any(_means(a, cell, label, f"test.{key}") for label in a.labels)]
    titles = {metric.key: metric.title for metric in a.study.metrics}
    columns = (
        Column("loss", "loss"),
        *(Column(key, titles.get(key, key), "number") for key in known),
        Column("spread", "spread", "number", "mean of 1 - cosine over all pairs"),
        Column("remark", "remark"),
    )
    rows = [_floor(a, cell, floor, name, [*known, "spread"]) for floor, name in FLOORS.items()]
    for label in a.labels:
        outcome = a.outcomes.get((cell, label))
        if outcome is None or not outcome.keys:
            continue
        said = collapsed(a.records(outcome), a.histories(outcome))
        entries = [_entry(a, _means(a, cell, label, f"test.{key}"), key, outcome.keys) for key in (*known, "spread")]
        remark = Entry(f"collapsed: {said}", tone="alarm") if said else Entry("")
        filters = (*cell_filters(a, cell.values), *loss_filters(a, label))
        rows.append(Row((loss_entry(a, label), *entries, remark), reference=label == a.baseline, filters=filters))
    caption = f"Means over completed runs on {cell.title}, in % but for the spread; the first rows are floors."
    return Table(f"embeddings-{slug(cell.title)}", f"Neighbours and pairs, {cell.short}", columns, tuple(rows), caption)


def _means(a: Analysis, cell: Cell, label: str, name: str) -> list[float]:
    """Return the values of a column over the completed runs of a loss."""
    outcome = a.outcomes.get((cell, label))
    return [] if outcome is None or not outcome.keys else numbers(a.records(outcome), name).dropna().tolist()


def _entry(a: Analysis, values: list[float], key: str, runs: tuple[str, ...] = ()) -> Entry:
    if not values:
        return dash("not recorded")
    value = sum(values) / len(values)
    return Entry(f"{value:.3f}" if key == "spread" else f"{100 * value:.1f}", value, runs=runs)


def _floor(a: Analysis, cell: Cell, floor: str, name: str, keys: list[str]) -> Row:
    """Return the row of a floor, averaged over all runs of a cell, whose first weights differ by seed alone."""
    found = {
        key: [x for label in a.labels for x in _means(a, cell, label, f"data.floors.{floor}.{key}")] for key in keys
    }
    entries = (_entry(a, found[key], key) for key in keys)
    return Row((Entry(f"floor: {name}"), *entries, Entry("")), filters=cell_filters(a, cell.values))


def _figures(a: Analysis, cell: Cell) -> list[Item]:
    """Return the pictures of a cell, of the first seed of every loss that kept examples."""
    kept: drawn.Kept = {}
    for label in a.labels:
        outcome = a.outcomes.get((cell, label))
        keys = outcome.keys if outcome else ()
        found = next((x for key in keys if (x := records.examples(key)) is not None and "neighbours" in x), None)
        if found is not None:
            kept[a.name(label)] = found
    if not kept:
        return []
    right = joined(f"{label} {found['right'].mean():.0%}" for label, found in kept.items())
    parts = {
        "neighbours": (
            "Nearest neighbours",
            "test items (left) and their nearest neighbours among all others by each loss, nearest first; framed in "
            "blue where they are of the class, in orange where not",
            f"Of the neighbours shown are of the class: {right}.",
        ),
        "similarities": (
            "Genuine and impostor pairs",
            "how often each cosine occurs among all genuine pairs (blue) and impostors (orange) of the test",
            "The less the two overlap, the better.",
        ),
        "roc": (
            "ROC",
            "share of genuine pairs that are accepted, by the share of impostors, on a logarithmic axis",
            "Higher is better.",
        ),
        "plane": (
            "Embeddings in a plane",
            "embeddings of a few test classes, a colour each, along their two main directions",
            "Classes that stay together form heaps.",
        ),
    }
    figures: list[Item] = []
    for part, (title, what, said) in parts.items():
        caption = f"{cell.title}: {what}; one seed, which shows what a loss does, not which is better."
        figures.append(
            Figure(
                f"embeddings-{part}-{slug(cell.title)}", f"{title}, {cell.short}", caption, f"{caption} {said}",
                functools.partial(drawn.DRAWERS[part], kept), True, cell_filters(a, cell.values),
            )
        )  # fmt: skip
    return figures
