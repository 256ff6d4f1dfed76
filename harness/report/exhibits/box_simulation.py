"""*Distance-IoU Loss* (Zheng et al., AAAI 2020): its simulation of box regression, with every loss of boxes.

It trains nothing: its figures are those of results/measured/box_simulation*, by python -m scripts.simulate_boxes.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing

from harness.analysis.cells import Analysis
from harness.paths import MEASURED
from harness.report.exhibits.drawings import LINES
from harness.report.figures import FAINT, INK, MUTED, STYLE
from harness.report.items import Column, Entry, Figure, Item, Prose, Row, Section, Table
from harness.text import count, plain, significant

COMMAND = "python -m scripts.simulate_boxes"
ID, TITLE = "exhibit-box-simulation", "The paper: simulation of box regression"
PANELS = {
    "true": "with the losses' own gradients and the paper's learning rate of 0.1",
    "authors": "with the gradients of the authors' program, and with one thing in them put right",
    "searched": "with learning rate and own size searched on other points",
}
NAMED = ("giou", "diou", "ciou", "eiou", "mpdiou 3", "nwd 1")
"""Losses that the curves name: no more than there are kinds of lines."""
MAPPED = ("iou", "giou", "diou", "ciou", "eiou", "siou", "mpdiou 640", "nwd 12.8")
LEAST = 1e-4
"""Error below which the axes and colours end: float32 holds a coordinate near 10 to a millionth."""
MENDED = {
    "doubled": "the true gradients, twice as large in width and height",
    "authors": "as in the authors' program",
    "authors halved": "the factor 1/2 put back into the sides",
    "authors distance": "the distance's own gradient",
    "authors overlap": "no negative overlap of boxes that are apart",
}


def section(a: Analysis) -> Section:
    """Return the curves, the maps and a table per panel; where nothing was simulated yet, the command."""
    del a
    if not (MEASURED / "box_simulation.csv").exists():
        return Section(ID, TITLE, (Prose((f"It has not been carried out here: {COMMAND}.",)),))
    table = pd.read_csv(
        MEASURED / "box_simulation.csv", keep_default_na=False, na_values={"half_after": "", "tried": ""}
    )
    items: list[Item] = [Prose((*_intro(table),))]
    if (MEASURED / "box_simulation_curves.csv.gz").exists():
        items.append(_curves(pd.read_csv(MEASURED / "box_simulation_curves.csv.gz")))
    if (MEASURED / "box_simulation_map.npz").exists():
        items += _maps()
    items += [_table(panel, rows) for panel in PANELS if len(rows := table[table["panel"] == panel])]
    return Section(ID, TITLE, tuple(items))


def _intro(table: pd.DataFrame) -> list[str]:
    cases = ", ".join(f"{number:,}" for number in sorted({int(each) for each in table["cases"]}))
    return [
        "Boxes are moved to their targets by gradient descent on their centre, width and height, without any network: "
        "5,000 points in a disc of radius 3, at each 7 scales and 7 ratios of boxes and 7 ratios of targets of area 1 "
        f"in the centre, 200 steps. Cases of each row here: {cases}. The error of a case is the sum of four absolute "
        "differences, in sides of a square target.",
        "The mean is moved by few cases that never arrive, so the median and the 99th percentile stand beside it. "
        "What wins here need not win in training: here no box depends on another, and every box starts far away.",
    ]


def _name(label: str) -> str:
    return label.replace("_", " ")


def _curves(found: pd.DataFrame) -> Figure:
    own = found[found["panel"] == "true"]
    labels = list(dict.fromkeys(own["label"]))
    named = [label for label in NAMED if label in labels]
    values = {label: own[own["label"] == label] for label in labels}
    caption = (
        "Error after every step, with the losses' own gradients. The learning rate falls to a tenth after step 160 and "
        f"to a hundredth after 180. Other losses are thin and grey. Below {LEAST:g} lines run off."
    )
    alt = "; ".join(
        f"{_name(label)} ends at mean {rows['mean'].iloc[-1]:.3g}, median {rows['median'].iloc[-1]:.3g}"
        for label, rows in values.items()
    )
    draw = functools.partial(_draw_curves, values, named)
    return Figure("box-simulation-curves", "Error after every step", caption, alt, draw, wide=True)


def _draw_curves(values: dict[str, pd.DataFrame], named: Sequence[str]) -> Drawing:
    with mpl.rc_context(STYLE):
        figure = Drawing(figsize=(10.2, 3.6), layout="constrained")
        for axes, (key, title) in zip(
            figure.subplots(1, 3, sharey=True), (("mean", "mean"), ("median", "median"), ("p99", "99th percentile")),
            strict=True,
        ):  # fmt: skip
            for label, rows in values.items():
                line = rows[key].clip(lower=LEAST / 2)
                if label not in named:
                    axes.plot(rows["step"], line, color=MUTED, lw=0.5, alpha=0.6)
                    continue
                dash, colour = LINES[named.index(label) % len(LINES)]
                axes.plot(rows["step"], line, color=colour, ls=dash, lw=1.5, label=_name(label))
            axes.set_yscale("log")
            axes.set_ylim(LEAST, 20)
            axes.set_title(title)
            axes.set_xlabel("step")
            axes.grid(axis="y", color=FAINT, lw=0.5)
        figure.axes[0].set_ylabel("error")
        handles, names = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=6, frameon=False, fontsize=8)
        return figure


def _maps() -> list[Item]:
    with np.load(MEASURED / "box_simulation_map.npz") as found:
        points = found["points"]
        shown = {label: found[f"true {label}"].astype(float) for label in MAPPED if f"true {label}" in found}
    if not shown:
        return []
    caption = (
        "Mean final error of the 343 cases that start at a point, by where it lies around the target's centre; darker "
        "is worse, on one logarithmic scale."
    )
    alt = "; ".join(f"{_name(label)} from {each.min():.3g} to {each.max():.3g}" for label, each in shown.items())
    draw = functools.partial(_draw_maps, points, shown)
    return [Figure("box-simulation-maps", "Where boxes do not arrive", caption, alt, draw, wide=True)]


def _draw_maps(points: Any, shown: dict[str, Any]) -> Drawing:
    with mpl.rc_context(STYLE):
        rows = math.ceil(len(shown) / 4)
        figure = Drawing(figsize=(10.2, 2.7 * rows), layout="constrained")
        grid = figure.subplots(rows, 4, squeeze=False)
        for axes, (label, errors) in zip(grid.flat, shown.items(), strict=False):
            axes.hexbin(
                *(points - 10).T, np.maximum(errors, 1e-3), gridsize=24, linewidths=0, cmap="cividis_r", norm="log",
                vmin=1e-3, vmax=10,
            )  # fmt: skip
            axes.set_title(_name(label))
            axes.set_aspect("equal")
        for axes in grid.flat[len(shown) :]:
            axes.axis("off")
        bar = figure.colorbar(grid.flat[0].collections[0], ax=grid, shrink=0.8, label="mean final error")
        bar.outline.set_edgecolor(INK)  # pyright: ignore[reportCallIssue]
        return figure


def _table(panel: str, rows: pd.DataFrame) -> Table:
    columns = (
        Column("loss", "loss"),
        Column("settings", "settings"),
        Column("rate", "learning rate", "number"),
        Column("mean", "mean", "number"),
        Column("median", "median", "number"),
        Column("p99", "99 %", "number", "99th percentile of the final errors"),
        Column("unsolved", "unsolved (%)", "number", "share of cases that end with an error above 0.1"),
        Column("half_after", "half after", "number", "steps until the mean error is half of what it was at the start"),
    )
    ordered = rows.sort_values("mean", kind="stable")
    found = tuple(Row(_entries(row)) for row in ordered.to_dict("records"))
    caption = f"Errors after 200 steps {PANELS[panel]}; {count(len(found), 'row')}, the smallest mean first."
    if panel == "searched":
        caption += " An asterisk: the best value is the last that was tried."
    return Table(f"box-simulation-{panel}", f"Final errors, {panel} gradients" if panel != "searched" else
                 "Final errors, searched", columns, found, caption, folded=panel != "true")  # fmt: skip


def _entries(row: Mapping[Any, Any]) -> tuple[Entry, ...]:
    settings = json.loads(row["settings"])
    gradients = row["gradients"]
    words = MENDED.get(gradients) or ", ".join(f"{name} {plain(value)}" for name, value in settings.items())
    ends = str(row["at_edge"]).split()
    after = row["half_after"]
    return (
        Entry(_name(row["label"] if gradients == "true" else row["loss"])),
        Entry(words + ("*" if set(ends) - {"rate"} else "")),
        Entry(f"{row['rate']:g}" + ("*" if "rate" in ends else ""), row["rate"]),
        *(Entry(significant(row[key]), row[key]) for key in ("mean", "median", "p99")),
        Entry(f"{100 * row['unsolved']:.2f}", row["unsolved"]),
        Entry("never", None) if after is None or math.isnan(after) else Entry(f"{after:.0f}", after),
    )
