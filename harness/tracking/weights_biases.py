"""One run in Weights & Biases: written offline, in a folder of its own, unless WANDB_MODE asks for something else."""

from __future__ import annotations

import hashlib
import importlib
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

from harness.tracking.runs import TrackedRun, grouped, value
from harness.tracking.store import ANSWER_S, cut_off


def put(root: Path, study: str, setting: TrackedRun, run: TrackedRun) -> None:
    """Write a run, or what has changed of it: a run of one study has one id for ever, as far as the server knows it.

    Nothing leaves this machine unless the user has said so: ``wandb sync``, or WANDB_MODE=online.

    Args:
        root: folder in which the package makes its own, ``wandb``.
        study: the project.
        setting: what sums the seeds of the run's setting up, which may be the run itself: the group.
        run: what is written.

    Raises:
        OSError: it cannot be written there; also TimeoutError, where a server does not answer.
    """
    wandb: Any = importlib.import_module("wandb")  # which an installation need not have
    root.mkdir(parents=True, exist_ok=True)
    settings = {name: value(text) for name, text in run.params.items()}
    if run.data:
        settings |= dict(zip(("data.name", "data.digest"), run.data, strict=True))
    with cut_off(ANSWER_S):
        made = wandb.init(
            project=study,
            dir=str(root),
            id=hashlib.sha256("\0".join((study, *run.identity)).encode()).hexdigest()[:16],
            name=run.name,
            group=setting.name,
            job_type="setting" if run is setting else setting.identity[1],
            notes=run.tags.get("mlflow.note.content"),
            config=settings,
            mode=os.environ.get("WANDB_MODE", "offline"),
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(
                silent=True, console="off", disable_git=True, disable_code=True, x_disable_stats=True
            ),
        )
        epochs: dict[int, dict[str, float]] = defaultdict(dict)
        for point in run.points:
            epochs[point.step][grouped(point.name)] = point.value
        finals = epochs.pop(0, {})
        for epoch, values in sorted(epochs.items()):
            made.log(values, step=epoch)
        made.summary.update(finals | {name: text for name, text in run.tags.items() if name.startswith("lossbench.")})
        made.finish(exit_code=0 if run.status == "FINISHED" else 1, quiet=True)
