"""The protocol of the simulation of the Distance-IoU paper: its cases, and the descent of each to its target.

Boxes are centre x, y, width and height, and so are their gradients.
"""

from __future__ import annotations

import functools
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
"""Boxes and targets (N, 4) -> the direction (N, 4) in which boxes are moved."""


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
    """Return boxes and targets (points x 343, 4): every target, scale and ratio at every point."""
    target, scale, ratio = (
        torch.tensor(each).flatten()
        for each in np.meshgrid(RATIOS, SCALES, RATIOS, indexing="ij")
    )
    shapes = torch.stack([(scale * ratio).sqrt(), (scale / ratio).sqrt()], 1)
    targets = torch.cat([torch.full((CASES, 2), CENTRE), torch.stack([target.sqrt(), target.rsqrt()], 1)], 1)
    where = torch.from_numpy(starts).repeat_interleave(CASES, 0)
    boxes = torch.cat([where, shapes.float().repeat(len(starts), 1)], 1)
    return boxes, targets.float().repeat(len(starts), 1)


def rates(first: float) -> list[float]:
    """Return the learning rate of every step: a tenth after 80 % of the steps, a hundredth after 90 %."""
    return [first if 10 * step < 8 * STEPS else first / 10 if 10 * step < 9 * STEPS else first / 100 for step in range(STEPS)]


def corners(boxes: Tensor) -> Tensor:
    """Return x1, y1, x2, y2 of boxes in centre x, y, width, height."""
    half = boxes[:, 2:] / 2
    return torch.cat([boxes[:, :2] - half, boxes[:, :2] + half], 1)


def values(name: str, settings: Mapping[str, Any]) -> Way:
    """Return a loss as a function of boxes and targets (N, 4) that gives one value per box.

    Losses of numbers take the sum over x, y, w and h; those of rotated boxes an angle of 0, which stays.
    """
    if hasattr(quantity, name):
        loss = functools.partial(getattr(quantity, name), **settings)
        return lambda boxes, target: loss(boxes, target).sum(1)
    loss = functools.partial(getattr(geometric, name), **settings)
    if getattr(geometric, name).about.kinds == ("rotated_boxes",):
        return lambda boxes, target: loss(_upright(boxes), _upright(target))
    return lambda boxes, target: loss(corners(boxes), corners(target))


def _upright(boxes: Tensor) -> Tensor:
    return torch.cat([boxes, torch.zeros_like(boxes[:, :1])], 1)


def way(trial: Trial) -> Way:
    """Return how a trial moves boxes: against a gradient, without rate and factor."""
    kind, _, mended = trial.gradients.partition(" ")
    if kind == "authors":
        return functools.partial(authors_gradients.direction, trial.loss, mended=mended)
    loss = values(trial.loss, trial.settings)
    weights = torch.tensor([1.0, 1, 2, 2] if kind == "doubled" else [1.0, 1, 1, 1])

    def down(boxes: Tensor, target: Tensor) -> Tensor:
        with torch.enable_grad():
            moved = boxes.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(loss(moved, target).sum(), moved)
        return gradient * -weights

    return down


@torch.no_grad()
def descend(way: Way, boxes: Tensor, target: Tensor, first: float = RATE) -> Iterator[Tensor]:
    """Yield the boxes after every step: B + rate (2 - IoU) direction, IoU that of B, without a gradient."""
    there = corners(target)
    for rate in rates(first):
        factor = 1 + geometric.iou(corners(boxes), there)  # 2 - IoU
        boxes = boxes + (rate * factor)[:, None] * way(boxes, target)
        yield boxes


@torch.no_grad()
def simulate(trial: Trial, starts: NDArray[np.float32], said: Callable[[float], None] = lambda share: None) -> Outcome:
    """Return how a trial ends from these points; ``said`` hears the share that is done. What diverges has error inf."""
    began = time.perf_counter()
    finals, means, kept = [], np.zeros(STEPS + 1), []
    for first in range(0, len(starts), CHUNK):
        boxes, target = cases(starts[first : first + CHUNK])
        picked = slice(-(first * CASES) % EVERY, None, EVERY)
        sums, quantiles, error = [], [], torch.empty(0)
        for each in itertools.chain([boxes], descend(way(trial), boxes, target, trial.rate)):
            error = (each - target).abs().sum(1).nan_to_num_(nan=math.inf)
            sums.append(error.sum(dtype=torch.float64))
            quantiles.append(error[picked].clone())
        finals.append(error.numpy())
        means += torch.stack(sums).numpy()
        kept.append(torch.stack(quantiles).numpy())
        said(min(1.0, (first + CHUNK) / len(starts)))
    final, sample = np.concatenate(finals), np.concatenate(kept, 1)
    means /= len(final)
    middle, high = np.quantile(sample, (0.5, 0.99), axis=1, method="higher")
    seconds = time.perf_counter() - began
    return Outcome(final, np.stack([means, middle, high], 1), float(means[1:].sum()), seconds)


def summary(outcome: Outcome) -> dict[str, float | int | None]:
    """Return the figures of a row: errors at the end, and when the mean error fell below half and a tenth of the first."""
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
