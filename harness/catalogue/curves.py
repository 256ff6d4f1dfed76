"""A loss along one line through what it compares: its value, and the slope that training follows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from torch import Tensor

from harness.report.figures import BLUE, FAINT, INK, STYLE
from losses.compound import Sum
from losses.loss import Loss, Output

POINTS = 121
Parts = tuple[Output, Tensor]


@dataclass(frozen=True)
class Line:
    """Where a loss is drawn: ``x`` from ``low`` to ``high``, what ``axis`` says of it, and the item at x."""

    axis: str
    low: float
    high: float
    item: Callable[[Tensor], Parts]


def _tensor(*values: Tensor | float) -> Tensor:
    return torch.stack([torch.as_tensor(value, dtype=torch.float64) for value in values])[None]


def _prediction(low: float, high: float, axis: str, item: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Line:
    def at(x: Tensor) -> Parts:
        prediction, target = item(x)
        return Output(None, prediction), target

    return Line(axis, low, high, at)


CLASS = torch.tensor([0])
BOX = _tensor(0.0, 0.0, 10.0, 10.0)
ROTATED = _tensor(16.0, 16.0, 10.0, 6.0, 0.0)
LINES = {
    "class_logits": _prediction(-6, 6, "logit of the true class, the other at 0", lambda x: (_tensor(x, 0 * x), CLASS)),
    "binary_logits": _prediction(-4, 4, "logit of a positive", lambda x: (x[None], torch.ones(1, dtype=x.dtype))),
    "values": _prediction(-3, 3, "error", lambda x: (x[None] + 4, torch.full((1,), 4.0, dtype=x.dtype))),
    "critic_scores": _prediction(-4, 4, "score of a real item", lambda x: (x[None], torch.ones(1, dtype=x.dtype))),
    "boxes": _prediction(-15, 15, "shift of a box of side 10", lambda x: (_tensor(x, 0 * x, x + 10, 10 + 0 * x), BOX)),
    "rotated_boxes": _prediction(
        -math.pi / 2, math.pi / 2, "angle", lambda x: (torch.cat([ROTATED[:, :4], x.view(1, 1)], 1), ROTATED)
    ),
    "features": Line(
        "angle to the class weight", 0, math.pi, lambda x: (Output(_tensor(x.cos(), x.sin()), None), CLASS)
    ),
}
CENTRE = Line("distance to the centre", -3, 3, lambda x: (Output(_tensor(x, 0 * x), None), CLASS))


def line_of(loss: Loss | Sum) -> Line | None:
    """Return the line along which a loss can be drawn, or None: it compares images, or needs a whole batch."""
    takes = loss.about.takes
    if isinstance(loss, Sum):
        return LINES["class_logits"] if takes == "class_logits" else None
    if takes != "features":
        return LINES.get(takes)
    held = dict(loss.function.named_parameters()) if isinstance(loss.function, torch.nn.Module) else {}
    if loss.is_head and held["weight"].shape == (2, 2):
        held["weight"].data = torch.eye(2, dtype=torch.float64)
        return LINES["features"]
    return None if loss.about.whole_batch else CENTRE


def sampled(loss: Loss | Sum) -> tuple[str, list[float], list[float], list[float]] | None:
    """Return (axis, x, value, slope), NaN where they are not finite; None if the loss cannot be drawn."""
    line = line_of(loss)
    if line is None:
        return None
    loss.eval()
    xs, values, slopes = [], [], []
    for position in torch.linspace(line.low, line.high, POINTS, dtype=torch.float64).tolist():
        x = torch.tensor(position, dtype=torch.float64, requires_grad=True)
        value = loss(*line.item(x))
        (slope,) = torch.autograd.grad(value, x, allow_unused=True) if value.requires_grad else (None,)
        xs.append(position)
        values.append(value.item())
        slopes.append(0.0 if slope is None else slope.item())
    return line.axis, xs, values, slopes


def draw(axis: str, xs: list[float], values: list[float], slopes: list[float]) -> Figure:
    """Return the figure: the value as a full line, its slope as a broken one."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.0, 1.9))
        axes = figure.subplots()
        figure.subplots_adjust(0.13, 0.22, 0.97, 0.9)
        axes.axhline(0, color=FAINT, lw=0.8)
        axes.plot(xs, slopes, color=BLUE, lw=1.2, ls=(0, (4, 2)))
        axes.plot(xs, values, color=INK, lw=1.6)
        axes.set_xlabel(axis, fontsize=8)
        finite = sorted(number for number in values + slopes if math.isfinite(number))
        # a barrier that shoots up would flatten everything else
        low, high = finite[len(finite) // 50], finite[-1 - len(finite) // 50]
        if high > low:
            axes.set_ylim(low - 0.08 * (high - low), high + 0.08 * (high - low))
        axes.margins(x=0)
        axes.locator_params(nbins=5)
        return figure
