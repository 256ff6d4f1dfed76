"""Runs that only wait, for `scripts.bench_engines`: in a module of their own, which a worker imports at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from harness.metrics.declared import share
from harness.tasks.classification import Classification
from harness.training.job import Job, Stopped

EPOCH_S = 1.0
SLICE_S = 0.25
"""How often a run that waits looks whether it is to stop."""


class Idle:
    """A learner that waits: in place of a trainer's own, it carries out a job without training.

    Args:
        job: the run; its ``trainer.epochs`` say how many seconds it takes.
    """

    task = Classification

    def __init__(self, job: Job) -> None:
        self.job = job

    def try_out(self) -> None:
        """Find nothing wrong."""

    def run(
        self, folder: Path, stop: Callable[[], bool], report: Callable[[int, int, Mapping[str, Any]], None]
    ) -> tuple[dict[str, Any], pd.DataFrame, None, dict[str, Any]]:
        """Wait; return record, history, examples and items as the training loop does.

        Raises:
            Stopped: ``stop`` returned True.
        """
        began, epochs, rows = time.monotonic(), self.job.spec.trainer["epochs"], []
        level = 0.5 + int(self.job.key[:4], 16) / 2**18
        for epoch in range(1, epochs + 1):
            while (left := began + epoch * EPOCH_S - time.monotonic()) > 0:
                time.sleep(min(left, SLICE_S))
                if stop():
                    raise Stopped
            rows.append({"epoch": epoch, "step": epoch, "train.loss": 1 / epoch, "valid.top1": level})
            report(epoch, epochs, rows[-1])
        wall = time.monotonic() - began
        record = {
            "status": "done", "loss_name": self.job.label, "loss_family": "probability", "loss_link": "softmax",
            "loss_paper": "", "loss_evidence": "V", "metrics": [share("top1", "accuracy").as_dict()],
            "test": {"top1": level}, "valid": {"top1": level}, "selected_epoch": epochs, "epochs_trained": epochs,
            "stopped": "limit", "diverged_step": None, "last_finite_loss": None,
            "cost": {"train_s": wall, "eval_s": 0.0, "wall_s": wall, "data_s": 0.0, "step_ms": 1.0,
                     "peak_memory_mb": 0.0, "parameters": 1, "loss_parameters": 0},
            "data": {"train": 1, "valid": 1, "test": 1, "checksum": "0", "classes": 10},
        }  # fmt: skip
        return record, pd.DataFrame(rows), None, {}
