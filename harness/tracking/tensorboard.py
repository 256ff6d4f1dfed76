"""One run in TensorBoard: a folder of event files below that of its setting."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from harness.tracking.runs import TrackedRun, grouped, value


def folder_of(root: Path, setting: TrackedRun, run: TrackedRun) -> Path:
    """Return the folder of a run: named after its setting and its seed, and after their hashes, which tell it apart."""
    name = "all seeds" if run is setting else run.name.partition(" · ")[0]
    return root / _named(setting.name, setting.identity[0]) / _named(name, run.identity[0])


def _named(title: str, identity: str) -> str:
    return re.sub(r"[^\w .,=()·+-]", "_", f"{title} {identity[:6]}")


def put(root: Path, study: str, setting: TrackedRun, run: TrackedRun) -> None:
    """Write a run anew: its curves, and its configuration with its final metrics for the tab of hyperparameters.

    Args:
        root: folder of all runs of the study.
        study: its name.
        setting: what sums the seeds of the run's setting up, which may be the run itself.
        run: what is written.

    Raises:
        OSError: it cannot be written there.
    """
    from torch.utils.tensorboard import SummaryWriter

    folder = folder_of(root, setting, run)
    if folder.exists():
        shutil.rmtree(folder)
    with SummaryWriter(str(folder)) as writer:
        for point in run.points:
            if point.step:
                writer.add_scalar(grouped(point.name), point.value, point.step, walltime=point.time_ms / 1000 or None)
        settings = {name: value(text) for name, text in run.params.items()}
        finals = {grouped(point.name): point.value for point in run.points if not point.step}
        writer.add_hparams(settings, finals, run_name=".")  # by default it makes a folder named after the time
        lines = [f"**{name}** {text}" for name, text in {"study": study, **run.tags}.items()]
        writer.add_text("about", "\n\n".join(lines))
