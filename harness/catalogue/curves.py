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
from losses.kinds import Pair
from losses.loss import Loss

POINTS = 121


@dataclass(frozen=True)
class Line:
    """The line along which a loss is drawn: ``x`` from ``low`` to ``high``, the label of its ``axis``, and the
    prediction and target at x."""

    axis: str
    low: float
    high: float
    item: Callable[[Tensor], tuple[Tensor, Tensor]]


def _row(*values: Tensor | float) -> Tensor:
    return torch.stack([torch.as_tensor(value, dtype=torch.float64) for value in values])[None]


CLASS = torch.tensor([0])
BOX = _row(0.0, 0.0, 10.0, 10.0)
ROTATED = _row(16.0, 16.0, 10.0, 6.0, 0.0)
LINES = {
    "class_logits": Line("logit of the true class, the other at 0", -6, 6, lambda x: (_row(x, 0 * x), CLASS)),
    "binary_logits": Line("logit of a positive", -4, 4, lambda x: (x[None], torch.ones_like(x)[None])),
    "values": Line("error", -3, 3, lambda x: (x[None] + 4, torch.full_like(x, 4)[None])),
    "critic_scores": Line("score of a real item", -4, 4, lambda x: (x[None], torch.ones_like(x)[None])),
    "boxes": Line("shift of a box of side 10", -15, 15, lambda x: (_row(x, 0 * x, x + 10, 10 + 0 * x), BOX)),
    "rotated_boxes": Line(
        "angle", -math.pi / 2, math.pi / 2, lambda x: (torch.cat([ROTATED[:, :4], x.view(1, 1)], 1), ROTATED)
    ),
    "features": Line("angle to the class weight", 0, math.pi, lambda x: (_row(x.cos(), x.sin()), CLASS)),
}
"""By kind."""
CENTRE = Line("distance to the centre", -3, 3, lambda x: (_row(x, 0 * x), CLASS))


def line_of(loss: Loss | Sum) -> Line | None:
    """Return the line along which a loss can be drawn, or None: it compares images, needs a whole batch, or has
    several kinds or several centres per class."""
    if len(loss.about.kinds) != 1:
        return None
    kind = loss.about.kinds[0]
    if kind != "features" or isinstance(loss, Sum):
        return LINES.get(kind)
    held = dict(loss.function.named_parameters()) if isinstance(loss.function, torch.nn.Module) else {}
    if loss.is_head:
        if held["weight"].shape != (2, 2):  # several centres per class
            return None
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
        value = loss({loss.about.kinds[0]: Pair(*line.item(x))})
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
