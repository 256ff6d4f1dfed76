"""The mirrors: what records say, once more where people like to browse: MLflow, TensorBoard, Weights & Biases.

Records are the truth and mirrors are fed from them, so a slow, lost or deleted tracking server costs no result, and
mirroring can be repeated at any time: what is there already and unchanged is left alone. In MLflow:

    experiment  a study
    run         a setting (everything but the seed): mean, sd, n and 95 % t interval of every test metric,
                and the verdict on it: difference from the baseline, its simultaneous interval, what withholds it
                and its mean learning curves; the data set is an input of every run
    nested run  a seed: configuration, learning curves, final metrics; found again by the tags lossbench.key and .role
    run report  the report of the study, as an artifact; every setting has a link to it

TensorBoard has a folder of curves and hyperparameters for each seed, and one for each setting, in
results/STUDY/tensorboard. Weights & Biases has a run for each, grouped by setting, in results/STUDY/wandb: written
offline, unless WANDB_MODE says otherwise, and sent by ``wandb sync``.

``python -m harness.tracking STUDY [--to MIRROR] [--uri URI]`` mirrors a study now, ``python -m harness.tracking ui``
opens MLflow's dashboard, and a sweep mirrors itself while it runs through ``LiveMirror``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.errors import UsageError
from harness.tracking.copies import KINDS, lacking
from harness.tracking.live import LiveMirror

__all__ = ["LiveMirror", "check"]


def check(options: Mapping[str, Any]) -> None:
    """Raise a UsageError, before anything runs, if a mirror is asked for whose package is not installed.

    Args:
        options: the config group ``tracking``.
    """
    if options["enabled"]:
        for name in options["mirrors"]:
            if name in KINDS and (reason := lacking(name)):
                raise UsageError(f"tracking.mirrors: {reason}")
