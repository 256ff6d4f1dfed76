"""The MLflow mirror: what records say, once more where people like to browse.

Records are the truth and MLflow is fed from them, so a slow, lost or deleted tracking server costs no result, and
mirroring can be repeated at any time: what is there already and unchanged is left alone.

    experiment  a study
    run         a setting (everything but the seed): mean, sd, n and 95 % t interval of every test metric,
                and the verdict on it: difference from the baseline, its simultaneous interval, what withholds it
                and its mean learning curves; the data set is an input of every run
    nested run  a seed: configuration, learning curves, final metrics; found again by the tags lossbench.key and .role
    run report  the report of the study, as an artifact

``python -m harness.tracking STUDY [--uri URI]`` mirrors a study now, ``python -m harness.tracking ui`` opens the
dashboard, and a sweep mirrors itself while it runs through ``LiveMirror``.
"""

from __future__ import annotations

from harness.tracking.live import LiveMirror

__all__ = ["LiveMirror"]
