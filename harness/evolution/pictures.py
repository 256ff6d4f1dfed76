"""The figures of a search: fitness over generations, the archive as a map, and the losses themselves as curves."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from harness.evolution import trees
from harness.evolution.methods import Candidate
from harness.evolution.search import Searched
from harness.report.figures import BLUE, FAINT, INK, MUTED, ORANGE, STYLE, TEAL, WIDTH
from losses.formulas import parse
from losses.symbolic import Symbolic

LINES = {"genetic": (BLUE, "-"), "random": (ORANGE, (0, (4, 2))), "chance": (MUTED, (0, (1, 1.5)))}
DOTS = {"genetic": (BLUE, "o"), "random": (ORANGE, "^")}
REFERENCES = {"cross_entropy": (TEAL, "-"), "ngl": (INK, (0, (5, 1.5, 1, 1.5)))}
POINTS = 199


def full(candidate: Candidate, searched: Searched) -> float | None:
    """Return the score of a candidate after a full training on the first seed, in the metric's own unit; None: it had
    none.
    """
    place = 0 if searched.asked.stages[0][0] == searched.asked.epochs else 1
    if len(candidate.scores) <= place:
        return None
    return (1 if searched.metric.higher_is_better else -1) * candidate.scores[place]


def generations(searched: Searched) -> Figure:
    """Return the best score so far after a full training on the first seed, generation by generation."""
    metric = searched.metric
    better = max if metric.higher_is_better else min
    with mpl.rc_context(STYLE):
        figure, axes = _axes()
        for name, found in searched.generations.items():
            best: list[float] = []
            for generation in found:
                known = [value for each in generation.members if (value := full(each, searched)) is not None]
                best.append(better([*best[-1:], *known], default=math.nan))
            colour, style = LINES[name]
            axes.plot(range(len(best)), [value * metric.scale for value in best], color=colour, ls=style, label=name)
        for name, each in searched.references.items():
            value = full(each, searched)
            if value is not None:
                colour, style = REFERENCES[name]
                axes.axhline(value * metric.scale, color=colour, ls=style, lw=1, label=name)
        axes.set(xlabel="generation", ylabel=f"best so far, {metric.title} {metric.unit}".strip())
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
        return figure


def archive(searched: Searched, chosen: Sequence[str]) -> Figure:
    """Return every candidate that was fully trained: nodes of its formula, and its score; ``chosen`` are ringed.

    An axis that had room for the worst would hide how the others differ: far ones are counted at its end.
    """
    metric = searched.metric
    every: list[float] = []
    with mpl.rc_context(STYLE):
        figure, axes = _axes()
        for name, (colour, marker) in DOTS.items():
            if name not in searched.generations:
                continue
            known = [(each.formula, full(each, searched)) for each in searched.members(name)]
            places = [
                (trees.size(parse(text)), value * metric.scale, text) for text, value in known if value is not None
            ]
            xs, ys = [x for x, _, _ in places], [y for _, y, _ in places]
            every += ys
            axes.plot(xs, ys, lw=0, marker=marker, ms=3.5, mew=0, alpha=0.5, color=colour, label=name)
            ringed = [(x, y) for x, y, text in places if text in chosen]
            axes.plot([x for x, _ in ringed], [y for _, y in ringed], lw=0, marker="o", ms=9, mfc="none", mec=INK)
        value = full(searched.references["cross_entropy"], searched)
        if value is not None:
            axes.axhline(value * metric.scale, color=REFERENCES["cross_entropy"][0], lw=1, label="cross_entropy")
        _end_near(axes, every, higher_is_better=metric.higher_is_better)
        axes.set(xlabel="nodes of the formula", ylabel=f"{metric.title} {metric.unit}".strip())
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
        return figure


def _end_near(axes: Axes, values: Sequence[float], *, higher_is_better: bool) -> None:
    """Let the vertical axis end before the values that lie far beyond the worst tenth, and write how many they are."""
    sign = 1 if higher_is_better else -1
    found = np.array([sign * value for value in values if math.isfinite(value)])
    if not found.size:
        return
    tenth, best = np.quantile(found, 0.1), found.max()
    end = tenth - (best - tenth)
    far = int((found < end).sum())
    if not far:
        return
    room = 0.05 * (best - end)
    axes.set_ylim(*sorted((sign * (end - room), sign * (best + room))))
    place = {"y": 0.02, "va": "bottom"} if higher_is_better else {"y": 0.98, "va": "top"}
    words = f"{far} further {'down' if higher_is_better else 'up'}"
    axes.text(0.98, s=words, ha="right", transform=axes.transAxes, fontsize=8, color=MUTED, **place)


def least_at(formula: str, classes: int, over_classes: str) -> float:
    """Return the probability of the true class, those of the others being equal, at which a formula is least."""
    shares, values, _ = sampled(formula, classes, over_classes)
    place = values.index(min(values))
    ends = {0: 0.0, POINTS - 1: 1.0}
    return ends.get(place, shares[place])


def curves(formulas: dict[str, str], classes: int, over_classes: str) -> Figure:
    """Return value and slope of losses over the probability of the true class, that of the others being equal.

    Each value is shown from 0 (least) to 1 (greatest), each slope, for the score of the true class, relative to its
    largest.
    """
    colours = (INK, BLUE, ORANGE, TEAL)
    styles = ("-", "-", (0, (4, 2)), (0, (1, 1.5)))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2 * WIDTH, 2.8))
        left, right = figure.subplots(1, 2)
        figure.subplots_adjust(0.06, 0.18, 0.98, 0.92, wspace=0.2)
        for (name, text), colour, style in zip(formulas.items(), colours, styles, strict=False):
            shares, values, slopes = sampled(text, classes, over_classes)
            left.plot(shares, values, color=colour, ls=style, lw=1.4, label=name)
            right.plot(shares, slopes, color=colour, ls=style, lw=1.4)
        right.axhline(0, color=FAINT, lw=0.8)
        left.set(xlabel="probability of the true class", title="value, from least to greatest")
        right.set(
            xlabel="probability of the true class", title="slope for the true class's score, relative to the largest"
        )
        left.legend(frameon=False, fontsize=8)
        return figure


def sampled(formula: str, classes: int, over_classes: str) -> tuple[list[float], list[float], list[float]]:
    """Return probabilities of the true class, and value and slope of a formula there, scaled as `curves` shows them."""
    shares = torch.linspace(0.005, 0.995, POINTS, dtype=torch.float64)
    scores = torch.zeros(POINTS, classes, dtype=torch.float64)
    scores[:, 0] = torch.log(shares / (1 - shares) * (classes - 1))
    scores.requires_grad_()
    loss = Symbolic(formula=formula, over_classes=over_classes)  # pyright: ignore[reportArgumentType]
    values = loss(scores, torch.zeros(POINTS, dtype=torch.int64))
    (gradient,) = torch.autograd.grad(values.sum(), scores)
    values = values.detach() - values.detach().min()
    slopes = gradient[:, 0]
    scaled = values / values.max().clamp(min=1e-300), slopes / slopes.abs().max().clamp(min=1e-300)
    return shares.tolist(), scaled[0].tolist(), scaled[1].tolist()


def _axes() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, 3.0))
    axes = figure.subplots()
    figure.subplots_adjust(0.14, 0.16, 0.72, 0.95)  # the legend stands on the right
    return figure, axes
