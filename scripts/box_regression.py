"""The protocol of the simulation of the Distance-IoU paper: its cases, and the descent of each to its target.

Boxes are centre x, y, width and height, in (4, N), and so are their gradients.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from losses import geometric, quantity
from scripts import authors_gradients

POINTS = 5000
CENTRE, RADIUS = 10.0, 3.0
"""Of the disc in which boxes start, uniformly; the targets lie in its centre."""
SCALES = (0.5, 0.67, 0.75, 1.0, 1.33, 1.5, 2.0)
"""Areas of the boxes that start; targets have area 1."""
RATIOS = (1 / 4, 1 / 3, 1 / 2, 1.0, 2.0, 3.0, 4.0)
"""Width over height, of targets and of boxes that start."""
STEPS = 200
RATE = 0.1
CASES = len(RATIOS) * len(SCALES) * len(RATIOS)
"""Cases of one point: 343."""
CHUNK = 40
"""Points that are moved together; their tensors stay in a core's cache. GHM-R takes such a chunk for its batch."""
EVERY = 50
"""The quantiles after each step are those of every 50th case; 50 and 343 have no common factor, so all kinds appear."""
SOLVED = 0.1
"""Final error from which on a case counts as unsolved: a tenth of a target's mean side, summed over four numbers."""
Way = Callable[[Tensor, Tensor], Tensor]
"""Boxes and targets (4, N) -> one value per box, or the direction (4, N) in which boxes are moved."""


@dataclass(frozen=True)
class Trial:
    """One descent of all cases; ``settings`` are those of the loss that differ from its defaults."""

    panel: str
    label: str
    loss: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    rate: float = RATE
    gradients: str = "true"
    """``true``; ``doubled``: true, and twice as large in width and height; ``authors``, or ``authors `` and what of
    theirs is mended."""


@dataclass(frozen=True)
class Outcome:
    """How a trial ended; errors are sums of four absolute differences, in sides of the square target.

    ``final`` (cases,): after the last step; ``curves`` (steps + 1, 3): mean, median and 99th percentile before the
    first and after every step; ``summed``: the errors of all steps of a case, on average.
    """

    final: NDArray[np.float32]
    curves: NDArray[np.float64]
    summed: float
    seconds: float


def points(number: int, seed: int = 0) -> NDArray[np.float32]:
    """Return the first ``number`` of the points (number, 2) of a seed, uniform in the disc."""
    rng = np.random.default_rng([1911, 8287, seed])
    radius, angle = RADIUS * np.sqrt(rng.random(max(number, POINTS))), 2 * math.pi * rng.random(max(number, POINTS))
    found = CENTRE + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    return found[:number].astype(np.float32)


def cases(starts: NDArray[np.float32]) -> tuple[Tensor, Tensor]:
    """Return boxes and targets (4, points x 343): every target, scale and ratio at every point.

    A column is a box, so that a number of all boxes lies in one piece.
    """
    grid = np.meshgrid(RATIOS, SCALES, RATIOS, indexing="ij")
    target, scale, ratio = (torch.from_numpy(each).flatten() for each in grid)
    centre = torch.full((2, CASES), CENTRE, dtype=torch.float64)
    targets = torch.cat([centre, torch.stack([target.sqrt(), target.rsqrt()])])
    shapes = torch.stack([(scale * ratio).sqrt(), (scale / ratio).sqrt()])
    where = torch.from_numpy(starts).t().repeat_interleave(CASES, 1)
    number = len(starts)
    return torch.cat([where, shapes.float().repeat(1, number)]), targets.float().repeat(1, number)


def rates(first: float) -> list[float]:
    """Return the learning rate of every step: a tenth after 80 % of the steps, a hundredth after 90 %."""
    slow, slower = STEPS * 8 // 10, STEPS * 9 // 10
    return [first] * slow + [first / 10] * (slower - slow) + [first / 100] * (STEPS - slower)


def corners(boxes: Tensor) -> Tensor:
    """Return x1, y1, x2, y2 (N, 4) of boxes (4, N) in centre x, y, width, height."""
    x, y, width, height = boxes
    return torch.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2]).t()


def values(name: str, settings: Mapping[str, Any]) -> Way:
    """Return a loss as a function of boxes and targets (4, N) that gives one value per box.

    Losses of numbers take the sum over x, y, w and h; those of rotated boxes an angle of 0, which stays.
    """
    if hasattr(quantity, name):
        loss = functools.partial(getattr(quantity, name), **settings)
        return lambda boxes, target: loss(boxes, target).sum(0)
    loss = functools.partial(getattr(geometric, name), **settings)
    if getattr(geometric, name).about.kinds == ("rotated_boxes",):
        return lambda boxes, target: loss(_upright(boxes), _upright(target))
    return lambda boxes, target: loss(corners(boxes), corners(target))


def _upright(boxes: Tensor) -> Tensor:
    return torch.cat([boxes, torch.zeros_like(boxes[:1])]).t()


def way(trial: Trial) -> Way:
    """Return how a trial moves boxes: against a gradient, without rate and factor."""
    kind, _, mended = trial.gradients.partition(" ")
    if kind == "authors":
        return lambda boxes, target: authors_gradients.direction(trial.loss, boxes.t(), target.t(), mended).t()
    loss = values(trial.loss, trial.settings)

    def down(boxes: Tensor, target: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            gradient = torch.func.grad(lambda moved: loss(moved, target).sum())(boxes)
        else:  # quicker by a third
            with torch.enable_grad():
                moved = boxes.detach().requires_grad_()
                (gradient,) = torch.autograd.grad(loss(moved, target).sum(), moved)
        return -torch.cat([gradient[:2], 2 * gradient[2:]]) if kind == "doubled" else -gradient

    return down


def step(way: Way, boxes: Tensor, target: Tensor, rate: Tensor) -> tuple[Tensor, Tensor]:
    """Return the boxes (4, N) after a step and their errors: B + rate (2 - IoU) direction, IoU that of B, detached."""
    factor = 1 + geometric.iou(corners(boxes), corners(target))  # 2 - IoU
    moved = boxes + rate * factor * way(boxes, target)
    return moved, (moved - target).abs().sum(0)


@torch.no_grad()
def simulate(
    trial: Trial,
    starts: NDArray[np.float32],
    *,
    compiled: bool = False,
    every: int = 1,
    said: Callable[[float], None] = lambda share: None,
) -> Outcome:
    """Return how a trial ends from these points.

    Args:
        trial: what moves the boxes.
        starts: (points, 2).
        compiled: the step becomes machine code by torch's compiler, which takes seconds once and pays from 100,000
            cases on; its rounding differs.
        every: take only every so many cases.
        said: hears the share that is done.

    What diverges has the error inf.
    """
    began = time.perf_counter()
    move = functools.partial(step, way(trial))
    if compiled:
        torch.compiler.reset()
        move = torch.compile(move, fullgraph=True, dynamic=False)
    finals, means, kept = [], torch.zeros(STEPS + 1, dtype=torch.float64), []
    for first in range(0, len(starts), CHUNK):
        boxes, target = (each[:, ::every].contiguous() for each in cases(starts[first : first + CHUNK]))
        picked = slice(-(first * CASES) % EVERY, None, EVERY)
        error = (boxes - target).abs().sum(0)
        sums, sample = [error.sum(dtype=torch.float64)], [error[picked].clone()]
        for rate in rates(trial.rate):
            boxes, error = move(boxes, target, torch.tensor(rate))
            error = error.nan_to_num(nan=math.inf)
            sums.append(error.sum(dtype=torch.float64))
            sample.append(error[picked].clone())
        finals.append(error)
        means += torch.stack(sums)
        kept.append(torch.stack(sample))
        said(min(1.0, (first + CHUNK) / len(starts)))
    final, mean = torch.cat(finals).numpy(), means.numpy() / sum(map(len, finals))
    middle, high = np.quantile(torch.cat(kept, 1).numpy(), (0.5, 0.99), axis=1, method="higher")
    return Outcome(final, np.stack([mean, middle, high], 1), float(mean[1:].sum()), time.perf_counter() - began)


def summary(outcome: Outcome) -> dict[str, float | int | None]:
    """Return the figures of a row: errors at the end, and when the mean fell below half and a tenth of the first."""
    final, mean = outcome.final.astype(np.float64), outcome.curves[:, 0]
    middle, high = np.quantile(final, (0.5, 0.99), method="higher")
    return {
        "cases": len(final),
        "start": mean[0],
        "mean": mean[-1],
        "median": middle,
        "p99": high,
        "worst": final.max(),
        "unsolved": float((final > SOLVED).mean()),
        "summed": outcome.summed,
        "half_after": _first(mean, mean[0] / 2),
        "tenth_after": _first(mean, mean[0] / 10),
        "seconds": outcome.seconds,
    }


def _first(errors: NDArray[np.float64], limit: float) -> int | None:
    """Return after how many steps the error is below a limit for the first time; None: never."""
    below: Sequence[int] = np.flatnonzero(errors < limit).tolist()
    return below[0] if below else None
