"""Figures of the hybrid losses that need no run: the formulas themselves, drawn. torch is imported when they are made.

In all of them R(L1, L2) is `losses.hybrid.added`, the term that a hybrid loss adds to cross-entropy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from harness.report.figures import BLUE, FAINT, INK, MUTED, ORANGE, PAPER, STYLE, TEAL

# the six panels of the paper's analyses: title, and settings of `losses.hybrid.added`
PANELS: dict[str, dict[str, Any]] = {
    "(a) none": {"term": "none"},
    "(b) L1 and L2": {"term": "comb"},
    "(c) exponential": {"term": "ne"},
    "(d) exponential, L1, L2": {"term": "hybrid1"},
    "(e) moving average": {"term": "ema"},
    "(f) average, exponential": {"term": "hybrid2"},
}
# the nine equations, as printed: settings of `losses.hybrid.added`
EQUATIONS: dict[int, dict[str, Any]] = {
    1: {"term": "comb", "coefficients": "convex"},
    2: {"term": "comb", "coefficients": "linear"},
    3: {"term": "ne", "coefficients": "convex"},
    4: {"term": "ema", "coefficients": "linear"},
    5: {"term": "ema", "coefficients": "convex"},
    6: {"term": "hybrid2", "coefficients": "convex"},
    7: {"term": "hybrid2", "coefficients": "linear"},
    8: {"term": "hybrid2", "coefficients": "linear", "filter": "relu"},
    9: {"term": "hybrid2", "coefficients": "linear", "filter": "bielu"},
}
BLUES = LinearSegmentedColormap.from_list("page", [PAPER, "#9cc3e0", BLUE, "#062c4a"])
SIGNED = LinearSegmentedColormap.from_list("signed", [ORANGE, PAPER, BLUE])
FIELDS = ("unbalanced", "balanced")  # the rows of figures 4 and 5
ZERO = 0.05  # what is nearer to 0 counts as at zero
Values = np.ndarray[Any, Any]


def term(l1: Values, l2: Values, a: float, b: float, **settings: Any) -> Values:
    """Return R(L1, L2), elementwise."""
    import torch

    from losses.hybrid import added

    settings = {"coefficients": "convex", **settings}
    return added(torch.as_tensor(l1), torch.as_tensor(l2), a=a, b=b, **settings).numpy()


def _grid(low: float, high: float, points: int = 40) -> tuple[Values, Values]:
    x, y = np.meshgrid(np.linspace(low, high, points), np.linspace(low, high, points))
    return x, y


def _field(x: Values, y: Values) -> Values:
    return np.sin(x) ** 10 + np.cos(10 + y * x) * np.cos(x)


def _applied(f: Values, a: float, b: float, settings: dict[str, Any]) -> Values:
    return f + term(np.abs(f), f**2, a, b, **settings)


def _panels(rows: Sequence[str], height: float, **more: Any) -> tuple[Figure, Any]:
    figure = Figure(figsize=(10.2, height * len(rows) + 0.5), layout="constrained")
    grid = figure.subplots(len(rows), len(PANELS), squeeze=False, **more)
    for axes, title in zip(grid[0], PANELS, strict=True):
        axes.set_title(title, fontsize=8)
    for axes, row in zip(grid[:, 0], rows, strict=True):
        axes.set_ylabel(row)
    return figure, grid


def _two_fields(a: float, b: float) -> Iterator[tuple[int, int, Values, Values, Values]]:
    for row, (low, high) in enumerate(((0, 5), (-5, 5))):
        x, y = _grid(low, high)
        for column, settings in enumerate(PANELS.values()):
            yield row, column, x, y, _applied(_field(x, y), a, b, settings)


class Range(NamedTuple):
    """Least and greatest value of a panel, and the share of its values (0 to 1) within `ZERO` of zero."""

    low: float
    high: float
    at_zero: float


def field_ranges(a: float, b: float) -> dict[tuple[str, str], Range]:
    """Return what values figures 4 and 5 show, by row (unbalanced, balanced) and panel (a title of `PANELS`)."""
    titles = list(PANELS)
    return {
        (FIELDS[row], titles[column]): Range(
            float(values.min()), float(values.max()), float((np.abs(values) < ZERO).mean())
        )
        for row, column, _, _, values in _two_fields(a, b)
    }


def surface2(a: float, b: float) -> Figure:
    """Return figure 2: contours of the paper's quadratic surface under each loss."""
    with mpl.rc_context(STYLE):
        figure, grid = _panels(["y"], 1.75, sharex=True, sharey=True)
        x, y = np.meshgrid(np.linspace(-7, 3, 60), np.linspace(-2, 8, 60))
        z = x**2 + 4 * x + y**2 - 6 * y
        for axes, settings in zip(grid[0], PANELS.values(), strict=True):
            # the exponential of z^2 is beyond any scale: the surface is brought to between -1 and 1 first
            filled = axes.contourf(x, y, _applied(z / np.abs(z).max(), a, b, settings), 20, cmap=BLUES)
            filled.set_rasterized(True)
            axes.set_xlabel("x")
        return figure


def contours(a: float, b: float) -> Figure:
    """Return figure 4."""
    with mpl.rc_context(STYLE):
        figure, grid = _panels(FIELDS, 1.7)
        for row, column, x, y, values in _two_fields(a, b):
            filled = grid[row, column].contourf(x, y, values, 20, cmap=SIGNED, vmin=-3, vmax=3)
            filled.set_rasterized(True)  # thousands of corners that nobody enlarges
        return figure


def histograms(a: float, b: float) -> Figure:
    """Return figure 5."""
    with mpl.rc_context(STYLE):
        figure, grid = _panels(FIELDS, 1.5, sharey="row")
        for row, column, _, _, values in _two_fields(a, b):
            grid[row, column].hist(values.ravel(), 30, color=BLUE)
            grid[row, column].grid(axis="y", color=FAINT, lw=0.5)
        figure.supxlabel("value", fontsize=9)
        return figure


def _probabilities(points: int = 1500) -> tuple[Values, Values]:
    """Return noisy and noise-free probabilities of the group-lasso package's logistic example."""
    random = np.random.default_rng(0)
    sizes = random.integers(10, 20, 50)
    active = np.repeat(random.integers(0, 2, 50), sizes)
    weights = random.standard_normal(sizes.sum()) * active
    clean = random.standard_normal((points, sizes.sum())) @ weights + 2
    noisy = clean + random.standard_normal(points)
    first, second = (1 / (1 + np.exp(-logits)) for logits in (noisy, clean))
    return first, second


def scatter(a: float, b: float) -> Figure:
    """Return figure 6."""
    with mpl.rc_context(STYLE):
        figure, grid = _panels(["noise-free"], 1.75, sharex=True, sharey=True)
        noisy, clean = _probabilities()
        error = np.abs(noisy - clean)
        for axes, settings in zip(grid[0], PANELS.values(), strict=True):
            moved = noisy + term(error, error**2, a, b, **settings)
            axes.plot(moved, clean, ".", ms=1.2, color=BLUE, alpha=0.5, rasterized=True)
            axes.set_xlabel("noisy")
        return figure


def _equations(a: float, b: float) -> Iterator[tuple[int, Values, Values, Values]]:
    x, y = np.meshgrid(np.linspace(0, 1, 50), np.linspace(0, 1, 50))
    for equation, settings in EQUATIONS.items():
        yield equation, x, y, term(x, y, a, b, mode="printed", **settings)


def surfaces(a: float, b: float) -> Figure:
    """Return figure 7."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.2, 7.6))
        figure.subplots_adjust(0.01, 0.04, 0.97, 0.95, 0.1, 0.16)
        for equation, x, y, values in _equations(a, b):
            axes: Any = figure.add_subplot(3, 3, equation, projection="3d")
            axes.plot_surface(x, y, values, cmap=BLUES, rcount=20, ccount=20, lw=0.2, edgecolor=MUTED, rasterized=True)
            axes.set_title(f"equation ({equation})", fontsize=8)
            axes.set_xlabel("L1", fontsize=7, labelpad=-5)
            axes.set_ylabel("L2", fontsize=7, labelpad=-5)
            axes.tick_params(labelsize=6, pad=-2)
        return figure


def heat_maps(a: float, b: float) -> Figure:
    """Return figure 8."""
    with mpl.rc_context(STYLE):
        found = list(_equations(a, b))
        most = max(float(values.max()) for *_, values in found)
        figure = Figure(figsize=(7.4, 6.6), layout="constrained")
        grid = figure.subplots(3, 3, sharex=True, sharey=True).ravel()
        image: Any = None
        for axes, (equation, *_, values) in zip(grid, found, strict=True):
            image = axes.imshow(values, origin="lower", extent=(0, 1, 0, 1), cmap=BLUES, vmin=0, vmax=most)
            axes.set_title(f"equation ({equation})", fontsize=8)
        figure.colorbar(image, ax=grid.tolist(), shrink=0.6, label="R(L1, L2)")
        figure.supxlabel("L1", fontsize=9)
        figure.supylabel("L2", fontsize=9)
        return figure


def bars(panels: Mapping[str, Sequence[tuple[int, float, float]]]) -> Figure:
    """Return figure 9: mean and standard deviation by number of the experiment, the first as reference.

    panels: by what the axis measures, (experiment, mean, standard deviation or nan).
    """
    shown = {axis: found for axis, found in panels.items() if any(math.isfinite(mean) for _, mean, _ in found)}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.2, 0.4 + 2.0 * len(shown)), layout="constrained")
        grid = figure.subplots(max(1, len(shown)), 1, squeeze=False, sharex=True)[:, 0]
        for axes, (axis, found) in zip(grid, shown.items(), strict=False):
            spreads = [0.0 if math.isnan(sd) else sd for _, _, sd in found]
            axes.bar([n for n, *_ in found], [mean for _, mean, _ in found], yerr=spreads, width=0.7,
                     color=[MUTED if n == 1 else BLUE for n, *_ in found], ecolor=INK, capsize=2)  # fmt: skip
            low = min(mean - sd for (_, mean, _), sd in zip(found, spreads, strict=True))
            high = max(mean + sd for (_, mean, _), sd in zip(found, spreads, strict=True))
            axes.set_ylim(max(0.0, low - (high - low)), high + 0.1 * (high - low) + 1e-9)
            axes.axhline(found[0][1], color=ORANGE, lw=0.9, ls=(0, (3, 2)))
            axes.set(ylabel=axis, xticks=range(1, 28), xlim=(0.3, 27.7))
        grid[-1].set_xlabel("experiment (the axes do not begin at 0)")
        return figure


def covariate_bars(
    panels: Mapping[str, Sequence[tuple[str, float, float]]], reference: float | None, axis: str
) -> Figure:
    """Return a panel for each experiment, a bar for each pair of covariates.

    panels: by title, (pair, mean, standard deviation or nan); reference: mean of the baseline, a dashed line.
    """
    found = [(mean, 0.0 if math.isnan(sd) else sd) for bars in panels.values() for _, mean, sd in bars]
    means = [*(mean for mean, _ in found), *([] if reference is None else [reference])]
    low, high = min(mean - sd for mean, sd in found), max(mean + sd for mean, sd in found)
    room = high - low
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.2, 2.6), layout="constrained")
        for axes, (title, bars) in zip(
            figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels.items(), strict=True
        ):
            spreads = [0.0 if math.isnan(sd) else sd for *_, sd in bars]
            axes.bar([pair for pair, *_ in bars], [mean for _, mean, _ in bars], yerr=spreads, width=0.7, color=BLUE,
                     ecolor=INK, capsize=2)  # fmt: skip
            if reference is not None:
                axes.axhline(reference, color=ORANGE, lw=0.9, ls=(0, (3, 2)))
            axes.set_title(title)
            axes.set_ylim(max(0.0, min(low, *means) - 0.5 * room), max(high, *means) + 0.1 * room + 1e-9)
        figure.axes[0].set_ylabel(axis)
        return figure


# ---------------------------------------------------------------- gradients


def descent(a: float, b: float) -> Figure:
    """Return gradient descent on a small problem: the way of two weights, and the length of each step."""
    paths = {title: _path(a, b, settings) for title, settings in PANELS.items()}
    styles = zip([INK, BLUE, ORANGE, TEAL, MUTED, BLUE], ["-", "-", "-", "-", "-", "--"], strict=True)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.2, 2.9), layout="constrained")
        way, length = figure.subplots(1, 2)
        for (title, path), (colour, line) in zip(paths.items(), styles, strict=True):
            way.plot(path[:, 0], path[:, 1], color=colour, ls=line, lw=1.2, label=title, marker="o", ms=3, markevery=50)
            length.plot(np.linalg.norm(np.diff(path, axis=0), axis=1), color=colour, ls=line, lw=1.2)
        way.set(xlabel="first weight", ylabel="second weight")
        length.set(xlabel="step", ylabel="length of the step", yscale="log")
        way.legend(frameon=False, fontsize=7)
        return figure


def _path(a: float, b: float, settings: dict[str, Any], steps: int = 200, rate: float = 0.5) -> Values:
    """Return the weights (steps + 1, 3) of a logistic regression under cross-entropy with an added term."""
    import torch

    from losses.hybrid import added

    draw = torch.Generator().manual_seed(0)
    x = torch.cat([torch.randn(40, 2, generator=draw, dtype=torch.float64), torch.ones(40, 1, dtype=torch.float64)], 1)
    y = (x @ torch.tensor([1.5, -1.0, 0.3], dtype=torch.float64) > torch.randn(40, generator=draw)).double()
    w = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    path = [w.detach().clone()]
    for _ in range(steps):
        logits = x @ w
        error = (logits.sigmoid() - y).abs()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, y)
        loss = loss + added(error.mean(), error.square().mean(), a=a, b=b, **{"coefficients": "convex", **settings})
        (gradient,) = torch.autograd.grad(loss, w)
        w = (w - rate * gradient).detach().requires_grad_()
        path.append(w.detach().clone())
    return torch.stack(path).numpy()


def printed_gradients(a: float, b: float) -> list[tuple[int, int, float]]:
    """Return (equation, equation it should be the gradient of, greatest relative deviation) for (10) to (18).

    L1 and L2 are functions of one weight w here, with slopes d1 and d2, all drawn at random: a formula that is the
    derivative is it for all of them.
    """
    import torch

    from losses.hybrid import added

    draw = torch.Generator().manual_seed(0)
    l1, l2, d1, d2 = torch.rand(4, 400, generator=draw, dtype=torch.float64)
    w = torch.zeros(400, dtype=torch.float64, requires_grad=True)
    found = []
    for equation, settings in EQUATIONS.items():
        value = added(l1 + d1 * w, l2 + d2 * w, a=a, b=b, mode="printed", **settings)
        (true,) = torch.autograd.grad(value.sum(), w)
        printed = PRINTED_GRADIENTS[equation](a, b, l1, l2, d1, d2)
        found.append((9 + equation, equation, float(((printed - true).abs() / true.abs().clamp_min(1e-9)).max())))
    return found


def _root(a: float, b: float, l1: Any, l2: Any, d1: Any, d2: Any) -> Any:
    step1, slope1 = a * l1 - (1 - a) * l1 - b * l2, a * d1 - (1 - a) * d1 - b * d2
    inside = (a * step1 + (1 - a) * l2).clamp_min(0).sqrt()
    return (a * slope1 + (1 - a) * d2) / (2 * inside)


def _filtered(a: float, b: float, l1: Any, l2: Any, d1: Any, d2: Any) -> Any:
    """Equations (17) and (18): the slope of ReLU(u), printed in place of ReLU'(u), multiplies the slope of u again."""
    step1, slope1 = a * l1 - b * l1 - b * l2, a * d1 - b * d1 - b * d2
    slope = (a * slope1 + b * d2) * (a * step1 + b * l2 > 0)
    return a * slope * slope1 + b * d2 * slope


PRINTED_GRADIENTS: dict[int, Callable[..., Any]] = {
    1: lambda a, b, l1, l2, d1, d2: a * d1 + (1 - a) * d2,
    2: lambda a, b, l1, l2, d1, d2: a * d1 + b * d2,
    3: lambda a, b, l1, l2, d1, d2: a * l1 * ((1 - a) * l2).exp() * (1 - a) * d2,
    4: lambda a, b, l1, l2, d1, d2: a * (a * d1 - (1 - a) * d1 - b * d2) + b * d2,
    5: lambda a, b, l1, l2, d1, d2: a * (a * d1 - (1 - a) * d1 - b * d2) + (1 - a) * d2,
    6: _root,
    7: lambda a, b, l1, l2, d1, d2: a * (a * d1 - b * d1 - b * d2) + b * d2,
    8: _filtered,
    9: _filtered,
}
