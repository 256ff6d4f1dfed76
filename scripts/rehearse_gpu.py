"""python -m scripts.rehearse_gpu [--task NAME] [--precision NAME]: the GPU rehearsed on a machine without one.

Steps of every task are taken with every loss that fits it, on a pretended device (`scripts.pretended_cuda`): data,
augmentation, forward pass, loss, backward pass, gradient norm, clipping, step of the optimizer. The table,
results/measured/gpu_rehearsal.csv, has a row for each task, model, precision, role and loss, with what a GPU would have
refused, waited for or copied; empty cells: nothing. Exit code 1 if a cell is not empty. Whole runs, evaluation and
resumption included, are those of tests/test_pretended_cuda.py.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
import torch
from torch import nn

from harness import compose
from harness.address import RunSpec, _expanded, spec_of
from harness.catalogue.entries import build as built_loss
from harness.errors import UsageError
from harness.paths import MEASURED
from harness.tasks import Seeds
from harness.training import build
from harness.training.job import Job
from harness.training.loop import Loop
from harness.training.meter import Meter
from scripts.pretended_cuda import Tally, pretended

STEPS = 2
"""Steps of each rehearsal: in the second, what losses and optimizers keep is there."""
EXACT = "one number for each class, exact"
HUNGARIAN = "SciPy matches boxes and queries on the host"
BY_DESIGN = {
    "copy: cpu to cuda at losses/shared.py _kept": "constants of a loss are copied once, in its first step",
    "dtype: float64 at losses/imbalance.py _counts": EXACT,
    "dtype: float64 at losses/imbalance.py _margins": EXACT,
    "dtype: float64 at losses/imbalance.py class_balanced": EXACT,
    "dtype: float64 at losses/imbalance.py logit_adjustment": EXACT,
    "copy: cuda to cpu at tasks/set_detection.py hungarian": HUNGARIAN,
    "copy: cpu to cuda at tasks/set_detection.py hungarian": HUNGARIAN,
    "wait: nonzero at tasks/rotated_detection.py RotatedDetection.pairs": "losses compare boxes that are asked for",
}
"""What a step does all the same, and why."""
STEP = ("forward", "loss", "rest of the step")
FORMATS = {"bf16": "bfloat16", "fp32": "float32"}
FEW = ("dataset.train_size=24", "dataset.valid_size=12", "dataset.test_size=12")
IMAGES = ("dataset.augment.shift=1", "dataset.augment.flip=true", "dataset.augment.cutout=2")
MASKS = ("dataset.size=[32,32]", "dataset.augment.zoom=[0.8,1.2]", "dataset.augment.flip=true")
SAMPLED = ("dataset.train_size=64", "dataset.valid_size=60", "dataset.test_size=60", "task.samples=20", "task.passes=1")
SMALL: Mapping[str, tuple[str, ...]] = {
    "classification": ("dataset.train_size=64", "dataset.valid_size=30", "dataset.test_size=30", *IMAGES),
    "multilabel": (*FEW, *IMAGES),
    "segmentation": (*FEW, *MASKS),
    "segmentation_windows": (*FEW, *MASKS, "task.crop=[16,16]", "task.mirror=true", "task.scales=[0.5,1.0]"),
    "localisation": (*FEW, *MASKS),
    "embedding": ("dataset.images_per_class=4", "trainer.batch_size=16", "trainer.eval_batch_size=50", *IMAGES),
    **dict.fromkeys(
        ("detection", "set_detection", "two_stage_detection", "anchor_detection"),
        (*FEW, "+dataset.augment.zoom=[0.8,1.2]", "+dataset.augment.flip=true"),
    ),
    "rotated_detection": FEW,
    **dict.fromkeys(("adversarial", "autoencoding", "diffusion"), SAMPLED),
    **dict.fromkeys(("regression", "table_classification"), ("trainer.batch_size=64", "trainer.eval_batch_size=50")),
}
"""Overrides by which a task's data are few, and varied in every way that it knows."""
SHIFTED: Mapping[str, tuple[str, ...]] = {
    "classification": ("shift=[noise,blur,fade,attack]",),
    "segmentation": ("shift=[noise,blur,fade]",),
    "detection": ("shift=[noise]",),
}
"""Overrides by which test data of a task are shifted."""
EVERY: Mapping[str, tuple[str, ...]] = {
    "adversarial": ("task.weights.penalty=10", "task.weights.matching=1"),
    "autoencoding": ("task.weights.features=1",),
    "detection": ("task.balance=fixed",),
    "rotated_detection": ("task.balance=fixed",),
    "set_detection": ("task.balance=fixed",),
    "two_stage_detection": ("task.balance=fixed",),
    "anchor_detection": ("task.balance=fixed",),
}
"""Overrides by which every role of a task has a weight that does not depend on the losses."""
MODELS: Mapping[str, tuple[str, ...]] = {
    "classification": ("cnn_micro", "vit_nano"),
    "multilabel": ("cnn_micro", "vit_nano"),
    "embedding": ("cnn_micro", "vit_nano"),
    "localisation": ("cnn_grid", "vit_nano"),
    "segmentation": ("unet_micro", "vit_seg_micro"),
    "segmentation_windows": ("unet_micro",),
    "detection": ("detector_micro", "vit_detector_micro"),
    "rotated_detection": ("detector_micro", "vit_detector_micro"),
}
"""Models of a task, a small convolutional one and a vision transformer; elsewhere the task's own."""


@dataclass(frozen=True)
class Row:
    """What came of one rehearsal; the last three are empty where all is well.

    Attributes:
        task, model, precision: of the run.
        role: of the loss; empty where the task has one loss.
        loss: its name.
        error: what the device would have refused.
        step: waits, copies and wrong formats inside the step, ``what at place``.
        feed: the same while the next batch is made.
    """

    task: str
    model: str
    precision: str
    role: str
    loss: str
    error: str = ""
    step: str = ""
    feed: str = ""

    @property
    def well(self) -> bool:
        """Whether nothing was found."""
        return not (self.error or self.step or self.feed)


def loop_of(overrides: Sequence[str], feed: str = "resident", seed: int = 1) -> Loop:
    """Return a run in memory that is as small as the task allows.

    Args:
        overrides: as on the command line; ``device`` among them.
        feed: option of conf/feed.
        seed: of the run.

    Raises:
        UsageError: they do not fit together.
    """
    return Loop(job_of(overrides, feed, seed))


def job_of(overrides: Sequence[str], feed: str = "resident", seed: int = 1, folder: str = "nowhere") -> Job:
    """Return the run that `loop_of` builds, to be carried out in a folder."""
    spec = spec_of(compose.compose_run(list(overrides)).config)
    data = {"root": "nowhere", "download": False}
    return Job(
        "0" * 16, {}, "rehearsed", "run", spec, seed, data, compose.option("feed", feed), folder, 1e9, {}, {}
    )  # fmt: skip


def overrides_of(task: str, model: str = "", precision: str = "") -> list[str]:
    """Return the command of a small run of a task, without its losses."""
    asked = ["trainer.batch_size=8", "trainer.eval_batch_size=6", *SMALL.get(task, ()), *EVERY.get(task, ())]
    asked += [f"model={model}"] if model else []
    asked += [f"trainer.precision={precision}"] if precision else []
    return [f"task={task}", "device=cuda", "trainer.epochs=1", "trainer.clip_norm=1", *asked]


# ---------------------------------------------------------------- one rehearsal


def rehearsed(loop: Loop, tally: Tally, steps: int = STEPS) -> dict[str, list[str]]:
    """Take steps and return what was found inside them (``step``) and between them (``feed``): ``what at place``.

    Raises:
        RuntimeError: the device refused something.
    """
    tally.found.clear()
    loop._mode(train=True)
    with staged(loop, tally):
        batches = itertools.chain.from_iterable(loop.task.epoch(Seeds(number, number)) for number in itertools.count())
        batch = next(batches)
        for _ in range(steps):
            with tally.during("rest of the step"):
                loop.step(batch)
            with tally.during("feed"):
                batch = next(batches)
    return {
        "step": problems(tally, STEP, FORMATS[loop.recipe["precision"]]),
        "feed": problems(tally, ("feed",)),
    }


@contextlib.contextmanager
def staged(loop: Loop, tally: Tally) -> Iterator[None]:
    """Let the tally know, inside the block, when a step is in its forward pass, and when in a loss."""

    def of(stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with tally.during(stage):
                return function(*args, **kwargs)

        return call

    @contextlib.contextmanager
    def forward(autocast: Callable[[], contextlib.AbstractContextManager[Any]] = loop._autocast) -> Iterator[None]:
        with tally.during("forward"), autocast():
            yield

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(loop, "_autocast", forward))
        for loss in loop.losses.values():
            stack.enter_context(mock.patch.object(loss, "forward", of("loss", loss.forward)))
        yield


def problems(tally: Tally, stages: Sequence[str], products: str = "") -> list[str]:
    """Return what a GPU would have waited for or copied in these stages, and in which format it should not compute.

    Args:
        tally: what was asked of the device.
        stages: those that are looked at.
        products: format of the matrix products and convolutions of a forward pass.
    """
    found = []
    for stage, what, where in tally.found:
        kind, _, rest = what.partition(": ")
        wrong = {
            "wait": True,
            "copy": rest != "pinned cpu to cuda",
            "product": stage == "forward" and rest.split()[0] != products,
            "dtype": rest == "float64" or stage == "loss",
        }[kind]
        if stage in stages and wrong and f"{what} at {where}" not in BY_DESIGN:
            found.append(f"{what} at {where}")
    return sorted(set(found))


# ---------------------------------------------------------------- every loss of a task


def seats(task: str) -> dict[str, list[str]]:
    """Return the losses that may be tried in each role of a task; a task with one loss has the role ``""``."""
    found: dict[str, list[str]] = {}
    of_task = build.get_class(compose.option("task", task)["_target_"])
    for role in [role for roles in of_task.roles.values() for role in roles] or [""]:
        kinds = of_task.role_kinds.get(role, of_task.offers)
        found[role] = [name for name in compose.options("loss") if set(built_loss(name).about.kinds) <= kinds]
    return found


def with_loss(loop: Loop, spec: RunSpec) -> bool:
    """Give a loop the losses of another run, with new optimizers; False: they need another model.

    Raises:
        UsageError: they do not fit the task.
    """
    before = build._outputs(loop.task, loop.losses)
    torch.manual_seed(0)
    losses = build.objective_losses(spec.loss, loop.task, getattr(loop.model, "num_features", 0))
    if build._outputs(loop.task, losses) != before:
        return False
    loop.losses = nn.ModuleDict(losses).to(loop.device)
    parts = loop.task.parts(loop.model)
    loop.optimizers = {name: build.optimizer(spec.optimizer, parts[name], loss) for name, loss in loop.losses.items()}
    loop.parameters = {
        name: [p for group in optimizer.param_groups for p in group["params"]]
        for name, optimizer in loop.optimizers.items()
    }
    loop.meter = Meter(loop.losses)
    return True


def rehearsals(
    task: str, model: str, precision: str, tally: Tally, losses: Sequence[str] = (), steps: int = STEPS
) -> Iterator[Row]:
    """Rehearse every loss in every role of a task, with one model in one precision.

    Args:
        task: option of conf/task.
        model: option of conf/model; empty: the task's own.
        precision: bf16 or fp32.
        tally: of the device that is pretended now.
        losses: names to be rehearsed alone; empty: all that fit.
        steps: of each.
    """
    loops: list[Loop] = []
    base = job_of(overrides_of(task, model, precision))
    for role, names in seats(task).items():
        for name in names:
            if losses and name not in losses:
                continue
            row = Row(task, model, precision, role, name)
            try:
                loss = _expanded(compose.option("loss", name))
                loop = _loop(loops, replace(base, spec=base.spec.at({f"loss.{role}" if role else "loss": loss})))
                found = rehearsed(loop, tally, steps)
            except (UsageError, ValueError):  # this loss does not fit the task, or images as small as these
                continue
            except Exception as error:  # the device refuses what CUDA would refuse
                yield replace(row, error=f"{type(error).__name__}: {error}".splitlines()[0])
                loops.clear()
                continue
            yield replace(row, **{name: "; ".join(what) for name, what in found.items()})


def _loop(loops: list[Loop], job: Job) -> Loop:
    """Return a loop for a run: one that there is already, with other losses, or a new one."""
    for loop in loops:
        if with_loss(loop, job.spec):
            return loop
    loops.append(Loop(job))
    return loops[-1]


def table(task: str, losses: Sequence[str] = (), precisions: Sequence[str] = tuple(FORMATS)) -> pd.DataFrame:
    """Return the table of all rehearsals of a task, a `Row` each; what is found is printed."""
    rows = []
    with pretended() as tally:
        for model, precision in itertools.product(MODELS.get(task, ("",)), precisions):
            found = list(rehearsals(task, model, precision, tally, losses))
            bad = [row for row in found if not row.well]
            print(f"{task} {model} {precision}: {len(found)} losses, {len(bad)} with something found", flush=True)
            for row in bad:
                print(f"  {row.role} {row.loss}: {row.error} {row.step} {row.feed}", flush=True)
            rows += found
    return pd.DataFrame(rows, columns=[each.name for each in fields(Row)])


def store(found: pd.DataFrame, file: Path) -> None:
    """Write rows into a table, in place of those that it has of the same tasks and precisions."""
    if file.exists():
        before = pd.read_csv(file, keep_default_na=False)
        again = before.set_index(["task", "precision"]).index.isin(found.set_index(["task", "precision"]).index)
        found = pd.concat([before[~again], found])
    found.sort_values(["task", "precision", "model", "role", "loss"]).to_csv(file, index=False)


def main() -> int:
    """Rehearse, task by task, and write the table; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m scripts.rehearse_gpu", description=__doc__)
    parser.add_argument("--task", action="append", choices=compose.options("task"), metavar="NAME")
    parser.add_argument("--precision", action="append", choices=tuple(FORMATS))
    parser.add_argument(
        "--loss", action="append", choices=compose.options("loss"), metavar="NAME", help="nothing is written"
    )
    parser.add_argument("--out", type=Path, default=MEASURED / "gpu_rehearsal.csv")
    asked = parser.parse_args()
    well = True
    for task in asked.task or compose.options("task"):
        found = table(task, asked.loss or (), asked.precision or tuple(FORMATS))
        well = well and bool((found[["error", "step", "feed"]] == "").all(axis=None))
        if not asked.loss:
            store(found, asked.out)
    return int(not well)


if __name__ == "__main__":
    raise SystemExit(main())
