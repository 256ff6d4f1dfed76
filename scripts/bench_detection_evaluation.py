"""python -m scripts.bench_detection_evaluation [REPEATS]: what it costs to evaluate a small detector on 500 scenes.

Evaluation (forward pass, detections, suppression, all metrics) stands beside the bare forward pass on the same images,
in turn on the same machine, for models that have been trained for half a minute, so that they find what there is to be
found; the ratio is the median over pairs, with its quartiles. It should be at most 1.3 on a CPU, where it is one of
processor time: other programs then matter less.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import torch

from harness import compose
from harness.address import spec_of
from harness.tasks import Seeds
from harness.training.loop import Loop
from scripts.bench_harness import Row, Seconds, loop_of, paired, row

MODELS = ("detector_micro", "vit_detector_micro")
SCENES = ("dataset.size=[96,96]", "dataset.objects=[1,8]", "dataset.sides=[12,48]", "dataset.valid_size=500")
EPOCHS = 5


def trained(model: str) -> Loop:
    """Return a loop that has been through `EPOCHS` epochs of 800 scenes of 96x96."""
    asked = ["task=detection", f"model={model}", "dataset.train_size=800", "dataset.test_size=8", *SCENES]
    loop = loop_of(spec_of(compose.compose_run([*asked, f"trainer.epochs={EPOCHS}"]).config))
    loop.model.train()
    for epoch in range(EPOCHS):
        for batch in loop.task.epoch(Seeds(epoch, epoch)):
            loop.step(batch)
    loop.model.eval()
    return loop


def contest(loop: Loop, what: str, repeats: int) -> Row:
    """Time evaluation and the bare forward pass on the validation images, both in milliseconds."""
    task: Any = loop.task
    parts = [task.ready(images) for images, _ in task.feed.ordered("valid", task.setup.eval_batch_size)]

    clock = time.process_time if loop.device.type == "cpu" else loop._clock

    def bare() -> Seconds:
        started = clock()
        with torch.inference_mode(), loop._autocast():
            for part in parts:
                loop.model(part)
        return clock() - started

    def evaluated() -> Seconds:
        started = clock()
        loop.evaluate("valid")
        return clock() - started

    mine, theirs = ([1000 * seconds for seconds in side] for side in paired(evaluated, bare, repeats))
    return row("detection", what, mine, theirs, "ms", "<= 1.3")


def main(repeats: int = 20) -> None:
    """Print a row for every model."""
    for model in MODELS:
        loop = trained(model)
        ap50 = loop.evaluate("valid")["ap50"]
        found = contest(loop, f"{model}, 500 scenes of 96x96, AP50 {ap50:.2f}, {loop.device}", repeats)
        print(
            f"{found.what}: evaluation {found.ours:.0f} ms, forward pass {found.other:.0f} ms, ratio {found.ratio:.2f} "
            f"({found.low:.2f}-{found.high:.2f}), goal {found.goal}",
            flush=True,
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
