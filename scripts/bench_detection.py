"""python -m scripts.bench_detection [REPEATS]: a step of a small detector through the harness and written by hand.

Both sides train the same model on the same scenes, with the same rule of assignment, in turn on the same machine; the
ratio is the median over pairs, with its quartiles. It should be at most 1.02 on a CPU.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from harness import compose
from harness.address import spec_of
from harness.tasks.assignment import Cells, atss
from harness.training.loop import Loop
from scripts.bench_harness import loop_of, paired, row, step_of

MODELS = ("detector_micro", "vit_detector_micro")
PAIRS = 30
"""Pairs of steps that are timed for every repeat: many short turns, as a shared CPU drifts within seconds."""


def by_hand(loop: Loop) -> Callable[[slice, Tensor, Tensor], None]:
    """Return one step as one would write it by hand, on the model and the data of a loop.

    It takes which items of an order are the batch, the order (N,), and what changes contrast and brightness (N,2).
    """
    task, model = loop.task, loop.model
    splits: Any = task.splits  # pyright: ignore[reportAttributeAccessIssue]
    images, targets = (x.to(loop.device) for x in (splits.train.images, splits.train.targets))
    mean, std = (torch.tensor(x, device=loop.device).view(1, -1, 1, 1) for x in (splits.mean, splits.std))
    memory = torch.channels_last if loop.job.spec.model["channels_last"] else torch.contiguous_format
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10_000)
    height, width = images.shape[2:]
    side = 8.0
    line = side * (torch.arange(width // side, device=loop.device) + 0.5)
    down = side * (torch.arange(height // side, device=loop.device) + 0.5)
    centres = torch.cartesian_prod(down, line).flip(1)
    cells = Cells(centres, torch.full((len(centres),), side, device=loop.device), (len(centres),))

    def step(place: slice, order: Tensor, tint: Tensor) -> None:
        chosen = order[place]
        contrast, brightness = tint[place].view(-1, 2, 1, 1, 1).unbind(1)
        batch = ((images[chosen].float() / 255 - mean) / std * (1 + contrast) + brightness).contiguous(
            memory_format=memory
        )
        truth, labels = targets[chosen, :, :4], targets[chosen, :, 4].long()
        outputs = model(batch)
        scores = outputs["objects"][0].flatten(2).transpose(1, 2) - 4.595
        edges = side * outputs["sides"][0].flatten(2).transpose(1, 2).clamp_max(2.5).exp()
        boxes = torch.cat([centres - edges[..., :2], centres + edges[..., 2:]], 2)
        found = atss(truth, labels >= 0, cells)
        image, cell = (found >= 0).nonzero(as_tuple=True)
        box = found[image, cell]
        wanted = torch.zeros_like(scores)
        wanted[image, cell, labels[image, box]] = 1
        loss = 50 * sigmoid_focal_loss(scores, wanted, reduction="mean")
        loss = loss + 2 * generalized_box_iou_loss(boxes[image, cell], truth[image, box], reduction="mean")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        schedule.step()

    return step


def turns(loop: Loop, other: Loop) -> tuple[Callable[[], float], Callable[[], float]]:
    """Return functions that take one step of either side, after one that does not count, and return its seconds.

    What an epoch draws is drawn before, on both sides.
    """
    step, count = by_hand(other), loop.recipe["batch_size"]

    def hand() -> float:
        other.model.train()
        total = other.task.steps_per_epoch * count
        order = torch.randperm(total).to(other.device)
        tint = (0.4 * torch.rand(total, 2) - 0.2).to(other.device)
        step(slice(0, count), order, tint)
        started = other._clock()
        step(slice(count, 2 * count), order, tint)
        return other._clock() - started

    return step_of(loop), hand


def main(repeats: int = 2) -> None:
    """Print a row for every model."""
    for model in MODELS:
        spec = spec_of(compose.compose_run(["task=detection", f"model={model}"]).config)
        pair = turns(loop_of(spec), loop_of(spec))
        mine, theirs = ([1000 * seconds for seconds in side] for side in paired(*pair, PAIRS * repeats))
        what = f"step of {model}, batch {spec.trainer['batch_size']}, {spec.device}: harness / by hand"
        found = dataclasses.asdict(row("detection", what, mine, theirs, "ms", "<= 1.02"))
        print("  ".join(f"{k} {v:.3f}" if isinstance(v, float) else str(v) for k, v in found.items()), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
