"""python -m scripts.bench_report: what reports of many runs cost, beside reading the same runs through MLflow.

Makes up a study of 10,000 runs with 20 metrics and 10 epochs each (18 losses and two controls, 10 cells), writes its
records as finished runs leave them, and fills MLflow's SQLite store with what the mirror would have written there.
Measured in processes of their own, in turn: load_study, with all epochs, as it is called again and again and for the
first time (no index yet); MLflow's search_runs into a data frame, all pages of it; and the way from records to the
complete folder of a report. Writes results/bench/report.csv.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness import hardware, paths, plan, records
from harness.address import Addresses
from harness.metrics.declared import share
from harness.plan import Run, Study
from harness.records import index
from scripts.bench_harness import Row, row

LOSSES = (
    "cross_entropy", "label_smoothing", "focal", "poly1", "ngl", "symmetric_cross_entropy", "bce_ovr", "focal_ovr",
    "brier", "mae_prob", "huber_prob", "hinge_ww", "hinge_ovr", "exponential_ovr", "dice", "tversky", "normface",
    "arcface",
)  # fmt: skip
MODELS = ("mlp", "cnn_micro", "resnet_small", "convnext_micro", "vit_micro")
METRICS = ("top1", "top5", "macro_f1", "nll", "ece", "precision", "recall", "brier", "auc", "kappa")  # test and valid
PER_SEED = (len(LOSSES) + 2) * len(MODELS) * 2  # runs: with the two controls, at two levels of label noise
EPOCHS = 10
PAGE_LIMIT = 5.0  # MB of a page with 1,000 runs


def big_study(count: int) -> Study:
    """Return a study of ``count`` runs, a multiple of :data:`PER_SEED`."""
    axes = {
        "loss": list(LOSSES),
        "model": list(MODELS),
        "stress.rate": [0, 0.2],
        "seed": list(range(1, 1 + count // PER_SEED)),
    }
    base = {"stress": "label_noise", "device": "cpu"}
    return Study("bench_report", "How long does a report take?", axes, base=base)


def made_up(run: Run, about: dict[str, Any], rng: np.random.Generator) -> tuple[dict[str, Any], pd.DataFrame]:
    """Return record and epochs of a run that never was; losses differ, and every seed moves all of them alike."""
    setting = run.setting
    worse = setting.role == "negative_control"
    number = 0 if worse else 1 + LOSSES.index(setting.choices["loss"])
    level = 0.9 - (number * 7 % 19) / 500 + 0.01 * np.sin(run.pair_seed) + rng.normal(0, 0.004)
    level -= 0.2 if worse else 0.0
    curve = level * (1 - np.exp(-0.6 * np.arange(1, EPOCHS + 1))) + rng.normal(0, 0.004, EPOCHS)
    history = pd.DataFrame(
        {"epoch": range(1, EPOCHS + 1), "step": np.arange(1, EPOCHS + 1) * 17, "lr": np.linspace(0.003, 0, EPOCHS),
         "train.loss": 2.3 - 2 * curve, "grad_norm": 1.0, "step_ms": 4.1 + rng.normal(0, 0.1, EPOCHS),
         **{f"valid.{name}": curve - 0.01 * i for i, name in enumerate(METRICS)}}
    )  # fmt: skip
    config = {name: value for name, value in setting.spec.content.items() if name not in ("device", "threads")}
    scores = {name: float(level - 0.01 * i + rng.normal(0, 0.001)) for i, name in enumerate(METRICS)}
    record = {
        "key": run.key, "choices": setting.choices, "seed": run.seed, "config": config, **about,
        "status": "done", "test": scores,
        "valid": {name: float(history[f"valid.{name}"].iloc[-1]) for name in METRICS}, "selected_epoch": EPOCHS,
        "loss_name": setting.label, "loss_family": "probability", "loss_link": "softmax", "loss_paper": "",
        "loss_evidence": "V", "metrics": [share(name, name).as_dict() for name in METRICS],
        "cost": {"train_s": 2.3, "eval_s": 0.1, "wall_s": 2.6, "data_s": 0.1, "step_ms": 4.1 + rng.normal(0, 0.1),
                 "peak_memory_mb": 41.5, "parameters": 93_000, "loss_parameters": 0},
        "data": {"train": 1077, "valid": 360, "test": 360, "checksum": "0123456789abcdef", "classes": 10},
    }  # fmt: skip
    return record, history


def fill(results: Path, count: int) -> None:
    """Write the records and the list of a made-up study of ``count`` runs."""
    study = big_study(count)
    addresses = Addresses(results / "data", results)
    runs = plan.runs(plan.settings(study), study, addresses)
    assert len(runs) == count
    rng = np.random.default_rng(0)
    about = {
        "env": {"commit": "0a1b2c3d4e5f", "dirty": False, "python": "3.11.2", "torch": "2.14.1", "platform": "Linux",
                "torchvision": "0.29.1", "timm": "1.0.31", "device": "cpu", "threads": 1, "device_name": "Some CPU"},
        "started": "2026-11-20T10:00:00+00:00", "finished": "2026-11-20T10:00:03+00:00",
    }  # fmt: skip
    for run in runs:
        own = about | {"identity": addresses.identity(run.setting.spec)}
        records.save(records.run_folder(run.key, results), *made_up(run, own, rng))
    records.write_study(study, runs, results)


def fill_mlflow(results: Path, uri: str) -> None:
    """Give MLflow the tags, parameters and last metrics that the mirror writes, straight into its tables.

    Through its client that would take most of an hour. The epochs stay out, because search_runs never reads them.
    """
    from harness.tracking.runs import groups, tracked_seed
    from harness.tracking.store import quiet

    quiet()
    from mlflow.tracking import MlflowClient

    study = records.load_study("bench_report", results)
    experiment = MlflowClient(uri, uri).create_experiment("bench_report")
    rows: dict[str, list[tuple[object, ...]]] = {"runs": [], "latest_metrics": [], "params": [], "tags": []}
    for identity, planned in groups(study.runs.to_dict("records")).items():  # pyright: ignore[reportArgumentType]
        for own in planned:
            entry, name = tracked_seed(own, (), identity), uuid.uuid4().hex
            begun = (entry.name, "LOCAL", "", "", "bench", "FINISHED", entry.start_ms, entry.end_ms, None, "", "active")
            rows["runs"].append((name, *begun, f"./mlruns/{name}", int(experiment)))
            rows["latest_metrics"] += [(p.name, p.value, p.time_ms, p.step, False, name) for p in entry.points]
            rows["params"] += [(key, value, name) for key, value in entry.params.items()]
            rows["tags"] += [(key, value, name) for key, value in {**entry.tags, "mlflow.runName": entry.name}.items()]
    columns = {
        "runs": "run_uuid, name, source_type, source_name, entry_point_name, user_id, status, start_time, end_time, "
        "deleted_time, source_version, lifecycle_stage, artifact_uri, experiment_id",
        "latest_metrics": "key, value, timestamp, step, is_nan, run_uuid",
        "params": "key, value, run_uuid",
        "tags": "key, value, run_uuid",
    }
    with sqlite3.connect(uri.removeprefix("sqlite:///")) as database:
        for table, values in rows.items():
            marks = ", ".join("?" * len(values[0]))
            database.executemany(f"INSERT INTO {table} ({columns[table]}) VALUES ({marks})", values)
    database.close()


TIMED = """
import json, sys, time
{before}
started = time.perf_counter()
{measured}
took = time.perf_counter() - started
{after}
print(json.dumps([took, told]))
"""
LOAD = {
    "before": "from pathlib import Path\nimport pandas\nfrom harness import records",
    "measured": "study = records.load_study('bench_report', Path(sys.argv[1]))",
    "after": "told = [len(study.runs), len(study.history)]",
}
SEARCH = {
    "before": "import pandas\nfrom harness.tracking.store import quiet\nquiet()\nimport mlflow\n"
    "mlflow.set_tracking_uri(sys.argv[1])\nmlflow.get_experiment_by_name('bench_report')",
    "measured": "frame = mlflow.search_runs(experiment_names=['bench_report'], max_results=50_000)",
    "after": "told = [len(frame), sum(name.startswith('metrics.') for name in frame)]",
}
BUILD = {
    "before": "from pathlib import Path",
    "measured": "from harness import records, report\n"
    "page = report.build(records.load_study('bench_report', Path(sys.argv[1])), Path(sys.argv[2]))",
    "after": "told = [page.stat().st_size, sum(f.stat().st_size for f in page.parent.rglob('*.*'))]",
}


def measured(part: dict[str, str], *arguments: object) -> tuple[float, list[int]]:
    """Carry out one part in a process of its own; return the seconds it took, without imports, and what it tells."""
    command = [sys.executable, "-c", TIMED.format(**part), *map(str, arguments)]
    done = subprocess.run(command, cwd=paths.ROOT, check=True, capture_output=True, text=True)
    took, told = json.loads(done.stdout.splitlines()[-1])
    return took, told


def forget(results: Path) -> None:
    """Delete whatever was derived from the records, so that the next look at them is the first."""
    for path in results.glob(f"*/{index.NAME}"):
        path.unlink()


def bench_loading(results: Path, uri: str, count: int, repeats: int) -> Iterator[Row]:
    """Load the study again, and for the first time, each in turn with MLflow's search_runs."""
    again, first, search = [], [], []
    for _ in range(repeats):
        forget(results)
        first.append(measured(LOAD, results)[0])
        took, told = measured(LOAD, results)
        assert told == [count, count * EPOCHS]
        again.append(took)
        took, (found, metrics) = measured(SEARCH, uri)
        assert found == count
        assert metrics >= 2 * len(METRICS)
        search.append(took)
    what = f"{count:,} runs: load_study / MLflow search_runs, "
    yield row("loading", f"{what}indexed", again, search, "s", "<= 0.05")
    yield row("loading", f"{what}first time", first, search, "s", "")


def bench_report(results: Path, folder: Path, count: int, repeats: int) -> Iterator[Row]:
    """Build the whole report; the ratio is to the 20 seconds that 10,000 runs may take, and to 5 MB for the page."""
    took, size, whole = [], 0, 0
    for _ in range(repeats):
        forget(results)
        seconds, (size, whole) = measured(BUILD, results, folder)
        took.append(seconds)
    what = f"{count:,} runs: no index, records to complete report ({whole / 1e6:.0f} MB) / 20 s"
    yield row("report", what, took, [20.0] * repeats, "s", "<= 1" if count == 10_000 else "")
    goal = "<= 1" if count == 1000 else ""
    yield row("report", f"{count:,} runs: the page / {PAGE_LIMIT:.0f} MB", [size / 1e6], [PAGE_LIMIT], "MB", goal)


def main() -> None:
    """Measure, print the table and write the CSV."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.bench_report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, nargs="*", default=[1000, 10_000], help=f"multiples of {PER_SEED}")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--publish", action="store_true", help="write to results/measured instead of results/bench")
    given = parser.parse_args()
    if wrong := [count for count in given.runs if count < 2 * PER_SEED or count % PER_SEED]:
        parser.error(f"--runs {wrong[0]}: give multiples of {PER_SEED}, from {2 * PER_SEED} on")
    rows: list[Row] = []
    machine = {"cpu": hardware.cpu_name(), "cores": hardware.cores(), "commit": hardware.commit()[0]}
    print(f"{machine['cpu']}, {machine['cores']} cores, {given.repeats} repeats")
    print(f"{'':70} {'ours':>9} {'other':>9} unit  ratio (quartiles)    goal")
    for count in given.runs:
        with tempfile.TemporaryDirectory() as folder:
            results, uri = Path(folder) / "results", f"sqlite:///{folder}/mlflow.db"
            fill(results, count)
            fill_mlflow(results, uri)
            parts = (bench_loading(results, uri, count, given.repeats),
                     bench_report(results, Path(folder) / "report", count, given.repeats))  # fmt: skip
            for found in (found for part in parts for found in part):
                rows.append(found)
                print(
                    f"{found.what[:70]:70} {found.ours:9.3f} {found.other:9.3f} {found.unit:4} {found.ratio:6.3f} "
                    f"({found.low:.3f}-{found.high:.3f}) {found.goal}",
                    flush=True,
                )
    folder = paths.ROOT / "results" / "measured" if given.publish else records.RESULTS / "bench"
    target = folder / ("report_benchmark.csv" if given.publish else "report.csv")
    table = pd.DataFrame([asdict(found) | machine for found in rows])
    records.write_text(target, table.to_csv(index=False, float_format="%.5g"))
    print(f"wrote {os.path.relpath(target)}")


if __name__ == "__main__":
    main()
