"""What runs leave behind: written once, atomically, and readable with pandas alone.

    results/runs/<key>/record.json   a finished run (done or diverged); its presence means: never run again
    results/runs/<key>/history.csv   one row per epoch
    results/runs/<key>/failure.json  a run that raised; the next sweep tries it again
    results/<study>/study.json       the study as it was asked
    results/<study>/runs.csv         its runs: key, role, label, seed, ...
    results/<study>/records.index    what their records say, only to be quicker (see harness.index)
    results/measured/<study>.csv     the same evidence as flat rows, committed; <study>_history.csv its epochs

``python -m harness.records publish STUDY | import FILE... | merge FOLDER...``
"""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import math
import os
import shutil
import sys
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import index
from harness.compose import RESULTS
from harness.errors import UsageError
from harness.plan import Run, Study, as_dict

if TYPE_CHECKING:  # importing it takes longer than planning ten thousand runs
    import pandas as pd

SCHEMA = 1
MEASURED_LIMIT = 1 << 20  # bytes: evidence is committed, so it stays small
SHARED = ("config.", "data.", "env.", "numerics.")  # columns that are published once where all runs agree
LISTED = ("key", "role", "label", "seed", "pair_seed", "setting")


@dataclass(frozen=True)
class StudyData:
    """Everything a report needs: ``runs`` has one row per planned run, ``history`` one per run and epoch."""

    name: str
    spec: dict[str, Any]
    runs: pd.DataFrame
    history: pd.DataFrame


def run_folder(key: str, results: Path = RESULTS) -> Path:
    """Return the folder of the run ``key``."""
    return results / "runs" / key


def write_text(path: Path, text: str) -> None:
    """Write a file so that it exists whole or not at all, whenever the process is killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(text)
    part.replace(path)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write ``content`` as JSON, atomically; not-a-number becomes null."""
    write_text(path, json.dumps(_finite(content), indent=1))


def _finite(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {str(key): _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    if isinstance(content, float) and (content != content or content in (float("inf"), float("-inf"))):
        return None
    return content


def finished(results: Path = RESULTS) -> set[str]:
    """Return the keys of all finished runs."""
    try:
        with os.scandir(results / "runs") as folders:
            return {entry.name for entry in folders if os.path.exists(os.path.join(entry.path, "record.json"))}
    except FileNotFoundError:
        return set()


def save(
    folder: Path, record: Mapping[str, Any], history: pd.DataFrame, examples: Mapping[str, Any] | None = None
) -> None:
    """Write a finished run. The record comes last, because its presence means that everything is there.

    examples: arrays of a few test items and what the run predicts for them, for the report to show.
    """
    write_text(folder / "history.csv", history.to_csv(index=False))
    if examples:
        import numpy as np

        with (folder / "examples.npz").open("wb") as file:
            np.savez_compressed(file, **examples)
    write_json(folder / "record.json", {"schema": SCHEMA, **record})
    (folder / "checkpoint.pt").unlink(missing_ok=True)
    (folder / "failure.json").unlink(missing_ok=True)


def save_failure(folder: Path, record: Mapping[str, Any]) -> None:
    """Write what is known of a run that raised."""
    write_json(folder / "failure.json", {"schema": SCHEMA, **record, "status": "failed"})


def examples(key: str, results: Path = RESULTS) -> dict[str, Any] | None:
    """Return the arrays that a run kept of a few test items, or None if it kept none or they are damaged."""
    import numpy as np

    try:
        with (run_folder(key, results) / "examples.npz").open("rb") as file, np.load(file) as kept:
            return {name: kept[name] for name in kept.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None


def read(key: str, results: Path = RESULTS) -> dict[str, Any] | None:
    """Return the record of a run, else its failure, else None.

    Raises:
        UsageError: a file is damaged or was written by a newer version.
    """
    for name in ("record.json", "failure.json"):
        path = run_folder(key, results) / name
        try:
            record = json.loads(path.read_text())
        except FileNotFoundError:
            continue
        except ValueError as error:
            raise UsageError(
                f"{path} is damaged ({error}): delete the folder {key} and run the study again."
            ) from error
        if record.get("schema", 0) > SCHEMA:
            raise UsageError(
                f"{path} was written by a newer lossbench (schema {record['schema']}): update this checkout."
            )
        return record
    return None


def flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a record as one row: nested names joined by dots, lists as JSON text."""
    row: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, dict):  # as JSON gives them; asking for any mapping takes ten times as long
            row.update(flat(value, f"{prefix}{name}."))
        else:
            row[f"{prefix}{name}"] = cell(value) if isinstance(value, list) else value
    return row


def cell(value: Any) -> Any:
    """Return ``value`` as a table can hold it: a list becomes JSON text, with six decimals, not-a-number as null."""
    if not isinstance(value, list):
        return value
    return json.dumps([round(part, 6) if isinstance(part, float) else part for part in _finite(value)])


def write_study(study: Study, runs: Sequence[Run], results: Path = RESULTS) -> None:
    """Write what a study asked and which runs answer it."""
    folder = results / study.name
    write_json(folder / "study.json", as_dict(study))
    rows = [
        {
            **dict(zip(LISTED, (run.key, s.role, s.label, run.seed, run.pair_seed, s.hash), strict=True)),
            **s.names,
            "track": study.track,
            "lr": s.described["optimizer"]["lr"],
            **{f"axis.{key}": value for key, value in s.axes.items()},
        }
        for run in runs
        for s in (run.setting,)
    ]
    table = io.StringIO()
    writer = csv.DictWriter(table, list(dict.fromkeys(itertools.chain(*rows))), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder / "runs.csv", table.getvalue())


def load_study(name: str, results: Path = RESULTS) -> StudyData:
    """Read a study's records, local and measured alike.

    Measured rows count when their setting is one of the study's (any, if the study was never run here).

    Raises:
        UsageError: there is neither a local nor a measured study of this name.
    """
    import pandas as pd

    listed = results / name / "runs.csv"
    local, history = _local(listed, results) if listed.exists() else (pd.DataFrame(), pd.DataFrame())
    measured = _measured(results / "measured" / f"{name}.csv")
    if local.empty and measured.empty:
        known = sorted(path.parent.name for path in results.glob("*/runs.csv")) + sorted(
            path.stem for path in (results / "measured").glob("*.csv") if not path.stem.endswith("_history")
        )
        raise UsageError(
            f"no records of a study '{name}': run python -m harness study={name} first"
            + (f" (there are records of {', '.join(dict.fromkeys(known))})." if known else ".")
        )
    if not local.empty and not measured.empty:
        answered = set(local.loc[local["status"] != "missing", "key"])
        measured = measured[measured["setting"].isin(local["setting"]) & ~measured["key"].isin(answered)]
        local = local[local["key"].isin(answered) | ~local["key"].isin(measured["key"])]
    runs = pd.concat([frame for frame in (local, measured) if not frame.empty], ignore_index=True)
    keys = set(runs.loc[runs["source"] == "local", "key"])
    epochs = [] if history.empty else [history[history["key"].isin(keys)]]
    published = _read_csv(results / "measured" / f"{name}_history.csv")
    if not published.empty:
        epochs.append(published[published["key"].isin(set(runs["key"]) - keys)])
    epochs = [frame for frame in epochs if not frame.empty]
    history = pd.concat(epochs, ignore_index=True) if epochs else pd.DataFrame(columns=["key", "epoch"])
    return StudyData(name, _spec(name, results), runs, history)


def _spec(name: str, results: Path) -> dict[str, Any]:
    for path in (results / name / "study.json", results / "measured" / f"{name}.json"):
        if path.exists():
            return {key: value for key, value in json.loads(path.read_text()).items() if key != "shared"}
    from harness import plan

    return as_dict(plan.load(name))


def _local(listed: Path, results: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the runs on a study's list with what their records say, and their epochs."""
    planned = _read_csv(listed)
    keys = [str(key) for key in planned.get("key", ())]
    state = index.state_of(listed.read_bytes(), keys, str(results / "runs"))
    return index.through(listed.with_name(index.NAME), state, lambda: _from_files(planned, results))


def _from_files(planned: pd.DataFrame, results: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    import pandas as pd

    rows, texts = [], {}
    for row in planned.to_dict("records"):
        key = str(row["key"])
        record = read(key, results)
        found = {} if record is None else flat({k: v for k, v in record.items() if k not in ("names", "schema")})
        rows.append({"status": "missing", **found, **row, "source": "local"})
        with contextlib.suppress(FileNotFoundError):
            texts[key] = (run_folder(key, results) / "history.csv").read_text()
    epochs = _histories(texts)
    return pd.DataFrame(rows), pd.concat(epochs, ignore_index=True) if epochs else pd.DataFrame()


def _histories(texts: Mapping[str, str]) -> list[pd.DataFrame]:
    """Return the epochs of many runs, those with equal columns parsed as one text: a parser for each takes a second
    for a thousand runs.
    """
    by_head: dict[str, dict[str, str]] = {}
    for key, text in texts.items():
        if len(text) > 1:
            head, _, body = text.partition("\n")
            by_head.setdefault(head, {})[key] = body if body.endswith("\n") else f"{body}\n"
    frames = []
    for head, bodies in by_head.items():
        lines = [body.count("\n") for body in bodies.values()]
        frame = _parsed(io.StringIO("".join([f"{head}\n", *bodies.values()])))
        if len(frame) == sum(lines):
            frame.insert(0, "key", [key for key, count in zip(bodies, lines, strict=True) for _ in range(count)])
            frames.append(frame)
            continue
        for key, body in bodies.items():  # a field with a line break, or an empty line
            frames.append(_parsed(io.StringIO(f"{head}\n{body}")))
            frames[-1].insert(0, "key", key)
    return frames


def _read_csv(path: Path) -> pd.DataFrame:
    import pandas as pd

    return _parsed(path) if path.exists() and path.stat().st_size > 1 else pd.DataFrame()


def _parsed(source: Path | io.StringIO) -> pd.DataFrame:
    import pandas as pd

    return pd.read_csv(
        source,
        dtype={"key": str, "setting": str, "label": str, "env.commit": str, "data.checksum": str},
        low_memory=False,
    )


def _measured(file: Path) -> pd.DataFrame:
    """Return the rows of a published <study>.csv, with what all of them share from the .json beside it."""
    import pandas as pd

    rows, beside = _read_csv(file), file.with_suffix(".json")
    given = json.loads(beside.read_text()).get("shared", {}) if beside.exists() else {}
    shared = {name: value for name, value in given.items() if name not in rows}
    return pd.concat([rows, pd.DataFrame(shared, index=rows.index)], axis=1).copy().assign(source="measured")


def publish(name: str, results: Path = RESULTS) -> list[Path]:
    """Write the finished runs of a study to results/measured/, together with what earlier machines published.

    Validation accuracies per class are not published; they stay in the runs' own record.json and history.csv. Where
    epochs take more than 1 MiB, only every second (third ...) is published, and the first and last of each run.
    What configuration, data and environment of all runs have in common is written once, in the .json.

    Raises:
        UsageError: the study has no finished run, or a file would exceed 1 MiB.
    """
    study = load_study(name, results)
    runs = study.runs[study.runs["status"].isin(["done", "diverged"])].drop(
        columns=["source", "traceback", "error", "valid.per_class"], errors="ignore"
    )
    if runs.empty:
        raise UsageError(f"the study {name} has no finished run yet: run python -m harness study={name} first.")
    history = study.history[study.history["key"].isin(runs["key"])].drop(columns="valid.per_class", errors="ignore")
    runs = runs.dropna(axis="columns", how="all")
    alike = [str(name) for name in runs if str(name).startswith(SHARED) and runs[name].nunique(dropna=False) == 1]
    shared = {name: runs[name].tolist()[0] for name in alike}  # as types of Python
    written = {
        f"{name}.csv": _csv(runs.drop(columns=list(shared)).sort_values(["role", "label", "key"])),
        f"{name}_history.csv": _epochs_that_fit(history.sort_values(["key", "epoch"])),
        f"{name}.json": json.dumps(_finite(study.spec) | {"shared": _finite(shared)}, indent=1) + "\n",
    }
    for file, text in written.items():
        if len(text.encode()) > MEASURED_LIMIT:
            raise UsageError(
                f"{file} would have {len(text) >> 10} KiB, over the limit of 1024 KiB for committed evidence: "
                "publish fewer runs."
            )
    for file, text in written.items():
        write_text(results / "measured" / file, text)
    return [results / "measured" / file for file in written]


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

    runs = _published_rows(file)
    beside = file.with_suffix(".json")
    spec = json.loads(beside.read_text()) if beside.exists() else {}
    spec.pop("shared", None)
    return StudyData(file.stem, spec, runs, pd.DataFrame(columns=["key", "epoch"]))


def _published_rows(file: Path) -> pd.DataFrame:
    rows = _measured(file)
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
        rows = _published_rows(file).drop(columns="source", errors="ignore")
        target = results / "measured"
        before = _measured(target / file.name).drop(columns="source", errors="ignore")
        joined = _joined(before, rows, ["key", "role"])
        write_text(target / file.name, joined.to_csv(index=False))
        beside = f"{file.stem}_history.csv"
        if not (history := _read_csv(file.with_name(beside))).empty:
            write_text(
                target / beside, _joined(_read_csv(target / beside), history, ["key", "epoch"]).to_csv(index=False)
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
                _joined(_read_csv(target / "runs.csv"), _read_csv(listed), ["key", "role"]).to_csv(index=False),
            )
            if not (target / "study.json").exists():
                write_text(target / "study.json", listed.with_name("study.json").read_text())
            counts["studies"] += 1
    return counts


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line of publish, import and merge; return the exit code."""
    import argparse

    parser = argparse.ArgumentParser(prog="python -m harness.records", description=(__doc__ or "").split("\n\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("publish", help="write a study's finished runs to results/measured/").add_argument("study")
    commands.add_parser("import", help="add files that another machine published").add_argument(
        "file", type=Path, nargs="+"
    )
    commands.add_parser("merge", help="copy the runs of other results folders into this one").add_argument(
        "folder", type=Path, nargs="+"
    )
    given = parser.parse_args(arguments)
    try:
        if given.command == "publish":
            for path in publish(given.study):
                print(f"wrote {os.path.relpath(path)} ({path.stat().st_size >> 10} KiB)")
        elif given.command == "import":
            for study, count in import_files(given.file).items():
                print(f"{study}: {count} new runs")
        else:
            print(", ".join(f"{count} {what}" for what, count in merge(given.folder).items()))
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
