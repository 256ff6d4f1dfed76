"""python -m scripts.bench_engines [PART ...]: what engines cost beside the runs themselves, which only wait here.

Parts (default: the first two):
    many   10,000 runs of 10 s on 100 workers of the local engine: planned, leased, recorded, reported
    ray    the same runs through Ray and the local engine, 30 on 2 workers each, in turn
    slurm  the same through Slurm, where there is one (``python -m tests.slurm_cluster COMMAND`` starts one)

A run of ``--seconds`` waits a second an epoch, reports each and leaves a record, a history and no weights; everything
else (plan, checks, keys, leases, events, records, report) is as in any sweep. ``ideal`` is what the runs alone take on
so many workers, from the first that begins; the time until then is said apart. ``--runs``, ``--seconds`` and
``--workers`` make a small trial of it.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import hardware
from scripts.idle import EPOCH_S

LOSSES = ("cross_entropy", "label_smoothing", "focal", "poly1", "ngl", "symmetric_cross_entropy", "bce_ovr", "brier",
          "mae_prob", "hinge_ww")  # fmt: skip
LIMITS = {"many": 1.02, "report": 10.0, "ray": 1.05, "slurm": 1.05}


@dataclass(frozen=True)
class Measured:
    """What a sweep of runs that wait took, in seconds.

    Attributes:
        start: until the first run began: plan, checks, workers.
        wall: from then to the end.
        ideal: what the runs alone take on so many workers.
        report: from records to the complete report.
    """

    start: float
    wall: float
    ideal: float
    report: float

    @property
    def ratio(self) -> float:
        """Return wall / ideal."""
        return self.wall / self.ideal


def measured(engine: str, runs: int, seconds: int, workers: int, address: str | None = None) -> Measured:
    """Return what ``runs`` runs of so many whole seconds take on ``workers`` workers of an engine.

    Args:
        engine: option of conf/engine.
        runs: a multiple of the number of losses.
        seconds: of each.
        workers: at once.
        address: of a Ray cluster.
    """
    from harness import compose, records, report  # not above: every worker of the local engine imports this module
    from harness.plan import Study
    from harness.studies import sweep

    seeds = runs // len(LOSSES)
    study = Study(
        "bench_engines",
        "What does an engine cost?",
        {"loss": list(LOSSES), "seed": list(range(seeds))},
        base={"trainer._target_": "scripts.idle.Idle", "trainer.epochs": seconds, "device": "cpu"},
        controls={"baseline_repeat": False, "negative_control": None},
    )
    where = [f"engine.address={address}"] if address else []
    options = compose.compose_run(["device=cpu", f"engine={engine}", f"engine.workers={workers}", *where]).config
    begun: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder)
        with contextlib.redirect_stdout(io.StringIO()):
            # whoever first runs new code observes what it does, for about a second: once, as in any other study
            sweep.sweep(study.on([seeds]), options, lambda: None, results)
            asked = time.monotonic()
            outcome = sweep.sweep(study, options, lambda: begun.append(time.monotonic()), results)
        ended = time.monotonic()
        assert not outcome.failed, outcome.failed[:3]
        report.build(records.load_study(study.name, results), results / study.name / "report")
        took = time.monotonic() - ended
    ideal = math.ceil(outcome.planned / workers) * seconds * EPOCH_S
    return Measured(begun[0] - asked, ended - begun[0], ideal, took)


def _whole(runs: int) -> int:
    """Return a number of runs rounded up to whole seeds of all losses."""
    return math.ceil(runs / len(LOSSES)) * len(LOSSES)


def many(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the rows of many runs on many workers of the local engine."""
    runs, workers = _whole(given.runs or 10_000), given.workers or 100
    found = measured("local", runs, given.seconds, workers)
    what = f"{runs:,} runs of {given.seconds} s on {workers} workers"
    yield {"what": f"{what}: wall / ideal", "value": found.ratio, "limit": LIMITS["many"], "start_s": found.start}
    yield {"what": f"report of {runs:,} runs, in seconds", "value": found.report, "limit": LIMITS["report"]}


def beside_local(engine: str, given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the row of an engine beside the local one."""
    runs, workers = _whole(given.runs or 30), given.workers or 2
    ours = measured("local", runs, given.seconds, workers)
    theirs = measured(engine, runs, given.seconds, workers, given.address)
    yield {
        "what": f"{runs} runs of {given.seconds} s on {workers} workers: {engine} / local",
        "value": theirs.wall / ours.wall,
        "limit": LIMITS[engine],
        "start_s": theirs.start,
        "start_local_s": ours.start,
    }


PARTS = {
    "many": many,
    "ray": functools.partial(beside_local, "ray"),
    "slurm": functools.partial(beside_local, "slurm"),
}


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and write results/bench/engines.json; return 1 if a limit is exceeded, else 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--runs", type=int, help="how many")
    parser.add_argument("--seconds", type=int, default=10, help="of each, whole")
    parser.add_argument("--workers", type=int, help="how many at once")
    parser.add_argument("--address", help="of a Ray cluster; by default one of this machine")
    given = parser.parse_args(arguments)
    rows = [row for part in given.parts or ("many", "ray") for row in PARTS[part](given)]
    for row in rows:
        started = "".join(f", {name} {row[name]:.1f}" for name in ("start_s", "start_local_s") if name in row)
        print(f"{row['what']}: {row['value']:.3f} (at most {row['limit']}{started})")
    from harness import records

    about = {"cpu": hardware.cpu_name(), "cores": hardware.cores(), "rows": rows}
    records.write_text(records.RESULTS / "bench" / "engines.json", json.dumps(about, indent=1))
    return int(any(row["value"] > row["limit"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
