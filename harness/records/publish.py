"""Evidence that is committed: flat rows of finished runs, written, read and joined.

results/measured/<study>.csv          one row per run
results/measured/<study>_history.csv  its epochs
results/measured/<study>.json         the study as it was asked, what all rows share, and the metrics they declare
results/measured/behaviours.jsonl     what the code of published runs does (see harness.behaviour)
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from harness import behaviour
from harness.errors import UsageError
from harness.journal import append, entries
from harness.paths import RESULTS
from harness.records.store import finished, finite, problem, read, run_folder, write_text
from harness.records.study import StudyData, asked_of, load_study, published_metrics, published_rows, read_csv

if TYPE_CHECKING:
    import pandas as pd

MEASURED_LIMIT = 1 << 20  # bytes: evidence is committed, so it stays small
SHARED = ("config.", "data.", "env.", "identity.")  # columns that are published once where all runs agree


def publish(name: str, results: Path = RESULTS) -> list[Path]:
    """Write the finished runs of a study to results/measured/, together with what earlier machines published.

    Accuracies per class are published for test data alone; the others stay in the runs' own record.json and
    history.csv. Where epochs take more than 1 MiB, only every second (third ...) is published, and the first and last
    of each run.
    What configuration, data and environment of all runs have in common is written once, in the .json.

    Raises:
        UsageError: the study has no finished run, or a file would exceed 1 MiB.
    """
    study = load_study(name, results)
    runs = study.runs[study.runs["status"].isin(["done", "diverged"])]
    unpublished = [column for column in runs if str(column).endswith(".per_class") and column != "test.per_class"]
    runs = runs.drop(columns=["source", "traceback", "error", *unpublished], errors="ignore")
    if runs.empty:
        raise UsageError(f"the study {name} has no finished run yet: run python -m harness study={name} first.")
    history = study.history[study.history["key"].isin(runs["key"])].drop(columns="valid.per_class", errors="ignore")
    runs = runs.dropna(axis="columns", how="all")
    alike = [str(name) for name in runs if str(name).startswith(SHARED) and runs[name].nunique(dropna=False) == 1]
    shared = {name: runs[name].tolist()[0] for name in alike}  # as types of Python
    metrics = [metric.as_dict() for metric in study.metrics]
    written = {
        f"{name}.csv": _csv(runs.drop(columns=list(shared)).sort_values(["role", "label", "key"])),
        f"{name}_history.csv": _epochs_that_fit(history.sort_values(["key", "epoch"])),
        f"{name}.json": json.dumps(finite(study.spec) | {"shared": finite(shared), "metrics": metrics}, indent=1)
        + "\n",
    }
    for file, text in written.items():
        if len(text.encode()) > MEASURED_LIMIT:
            raise UsageError(
                f"{file} would have {len(text) >> 10} KiB, over the limit of 1024 KiB for committed evidence: "
                "publish fewer runs."
            )
    for file, text in written.items():
        write_text(results / "measured" / file, text)
    _publish_behaviours(study.runs.loc[study.runs["source"] == "local", "key"], results)
    return [results / "measured" / file for file in written]


def _publish_behaviours(keys: Iterable[str], results: Path) -> None:
    """Add what the code of published runs does, by their records, to the journal that is committed."""
    journal = results / "measured" / behaviour.NAME
    known = {tuple(entry.get(name) for name in ("component", "spec", "tree")) for entry in entries(journal)}
    for key in keys:
        for entry in (read(key, results) or {}).get("behaviour", ()):
            what = (entry["component"], entry["spec"], entry["tree"])
            if what not in known and "fingerprint" in entry:
                known.add(what)
                append(journal, entry)


def _csv(table: pd.DataFrame) -> str:
    return table.to_csv(float_format="%.6g", index=False)


def _epochs_that_fit(history: pd.DataFrame) -> str:
    """Return epochs as CSV: all, or evenly fewer of them, so that their file stays below the limit."""
    ends = (history["epoch"] == 1) | (history["epoch"] == history.groupby("key")["epoch"].transform("max"))
    text, step = _csv(history), 1
    while len(text) > MEASURED_LIMIT and step < history["epoch"].max():
        step = max(step + 1, math.ceil(step * len(text) / MEASURED_LIMIT * 0.9))
        text = _csv(history[ends | (history["epoch"] % step == 0)])
    return text


def load_published(file: Path) -> StudyData:
    """Read a published <study>.csv wherever it lies, with the .json beside it if there is one; without its epochs.

    Raises:
        UsageError: it does not exist or is no published study.
    """
    import pandas as pd

    runs = _checked_rows(file)
    beside = file.with_suffix(".json")
    spec = asked_of(json.loads(beside.read_text())) if beside.exists() else {}
    return StudyData(file.stem, spec, runs, pd.DataFrame(columns=["key", "epoch"]), published_metrics(file))


def _checked_rows(file: Path) -> pd.DataFrame:
    rows = published_rows(file)
    if rows.empty or not {"key", "status", "setting", "label"} <= set(rows.columns):
        raise UsageError(f"{file} is not a published study: give a <study>.csv that `publish` wrote.")
    return rows


def import_files(files: Iterable[Path], results: Path = RESULTS) -> dict[str, int]:
    """Add rows published elsewhere to results/measured/; return how many were new, by study.

    Rows are joined by key. Give the <study>.csv; its _history.csv and .json beside it come along.

    Raises:
        UsageError: a file does not exist or is no published study.
    """
    added = {}
    for file in files:
        rows = _checked_rows(file).drop(columns="source", errors="ignore")
        target = results / "measured"
        before = published_rows(target / file.name).drop(columns="source", errors="ignore")
        joined = _joined(before, rows, ["key", "role"])
        write_text(target / file.name, joined.to_csv(index=False))
        beside = f"{file.stem}_history.csv"
        if not (history := read_csv(file.with_name(beside))).empty:
            write_text(
                target / beside, _joined(read_csv(target / beside), history, ["key", "epoch"]).to_csv(index=False)
            )
        if (spec := file.with_suffix(".json")).exists() and not (target / spec.name).exists():
            write_text(target / spec.name, spec.read_text())
        added[file.stem] = len(joined) - len(before)
    return added


def _joined(old: pd.DataFrame, new: pd.DataFrame, on: list[str]) -> pd.DataFrame:
    import pandas as pd

    return pd.concat([frame for frame in (old, new) if not frame.empty], ignore_index=True).drop_duplicates(
        on, keep="first"
    )


def merge(folders: Iterable[Path], results: Path = RESULTS) -> dict[str, int]:
    """Copy the finished runs and study lists of other results folders into this one; return counts.

    Records that are not believed stay where they are.

    Raises:
        UsageError: a folder holds no runs.
    """
    counts = {"copied": 0, "already here": 0, "studies": 0}
    for folder in folders:
        if not (folder / "runs").is_dir():
            raise UsageError(f"{folder} is not a results folder: it has no folder runs in it.")
        here = finished(results)
        for key in sorted(finished(folder)):
            if key in here:
                counts["already here"] += 1
                continue
            if (reason := _problem(key, folder)) is not None:
                counts[reason] = counts.get(reason, 0) + 1
                continue
            part = run_folder(f".{key}.{os.getpid()}.part", results)
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(run_folder(key, folder), part)
            shutil.rmtree(run_folder(key, results), ignore_errors=True)
            part.rename(run_folder(key, results))
            counts["copied"] += 1
        for listed in sorted(folder.glob("*/runs.csv")):
            target = results / listed.parent.name
            write_text(
                target / "runs.csv",
                _joined(read_csv(target / "runs.csv"), read_csv(listed), ["key", "role"]).to_csv(index=False),
            )
            if not (target / "study.json").exists():
                write_text(target / "study.json", listed.with_name("study.json").read_text())
            counts["studies"] += 1
    return counts


def _problem(key: str, results: Path) -> str | None:
    """Return "damaged" if the record of a run is not believed; nothing is changed."""
    try:
        record = json.loads((run_folder(key, results) / "record.json").read_bytes())
    except (OSError, ValueError):
        return "damaged"
    return None if problem(record, key) is None else "damaged"
