"""Evidence that is committed: finished runs of studies, written, read and joined.

results/measured/<study>.json, ...    a study (see harness.records.evidence)
results/measured/behaviours.jsonl     what the code of published runs does (see harness.behaviour)
"""

from __future__ import annotations

import gzip
import json
import math
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness import behaviour
from harness.errors import UsageError
from harness.journal import append, entries
from harness.paths import RESULTS
from harness.records import evidence
from harness.records.packed import pack
from harness.records.store import (
    GARBLED,
    KEY,
    SLACK,
    STATUSES,
    finished,
    finite,
    load_arrays,
    problem,
    read,
    run_folder,
    whole,
    write_json,
    write_text,
)
from harness.records.study import StudyData, defused, distinct, epochs_of, is_study, load_study, read_list
from harness.text import slug

if TYPE_CHECKING:
    import pandas as pd

MEASURED_LIMIT = 1 << 20  # bytes: evidence is committed, so it stays small
ITEMS_LIMIT = 8 << 20  # bytes, of all files of a study with what its runs scored on test items
OF_RUN = ("history.csv", "examples.npz", "items.npz", "record.json")
"""The files that a finished run leaves, in the order in which they are written."""
DESCRIBED = ("config.", "data.", "env.", "identity.", "loss_")
"""Columns that are published once where all runs agree, or all of a setting."""


@dataclass(frozen=True)
class Publication:
    """What `publish` wrote.

    Attributes:
        files: the written files, the manifest last.
        runs: how many runs they hold.
        epochs: ``all``, or which of them, such as ``every 3rd``.
        items: whether what runs scored on every test item is among them; None: no run kept it.
    """

    files: tuple[Path, ...]
    runs: int
    epochs: str
    items: bool | None

    def __str__(self) -> str:
        sizes = [(path, path.stat().st_size) for path in self.files]
        said = {
            None: "No run kept what it scored on every test item.",
            False: f"Scores on test items would take more than {ITEMS_LIMIT >> 20} MiB: published without them.",
            True: "",
        }
        lines = [f"wrote {os.path.relpath(path)} ({(size + 1023) >> 10} KiB)" for path, size in sizes]
        lines.append(f"{self.runs} runs, {self.epochs}, {sum(size for _, size in sizes) >> 10} KiB in all.")
        return "\n".join([*lines, *filter(None, [said[self.items]])])


def publish(name: str, results: Path = RESULTS) -> Publication:
    """Write the finished runs of a study to results/measured/, together with what earlier machines published, and which
    runs failed or are missing, so that nobody takes the study for complete.

    Numbers are written exactly, and all files in one step (see `harness.records.evidence`). Accuracies per class are
    published for test data alone; the others stay in the runs' own record.json and history.csv. Where epochs take more
    than 1 MiB, only every second (third ...) is published, and the first and last of each run. What runs, other than
    trials of a search, scored on test items is left out where it takes more than 8 MiB.

    Raises:
        UsageError: the study has no finished run, or a file would exceed 1 MiB.
    """
    if (before := evidence.find(name, [results / "measured"])) is not None:
        before.check()  # else what earlier machines published would be lost
    study = load_study(name, results)
    found = publish_tables(study, results / "measured")
    _publish_behaviours(study.runs.loc[study.runs["source"] == "local", "key"], results)
    return found


def publish_tables(study: StudyData, folder: Path) -> Publication:
    """Replace the evidence of a study in ``folder`` by its runs; see `publish`.

    Raises:
        UsageError: it has no finished run, or a file would exceed 1 MiB.
    """
    runs, name = study.runs.sort_values(["role", "label", "key"]), study.name
    unpublished = [column for column in runs if str(column).endswith(".per_class") and column != "test.per_class"]
    runs = runs.drop(columns=["source", "traceback", "error", *unpublished], errors="ignore")  # errors name local paths
    runs = runs[sorted(runs, key=lambda column: (_described(column), column if _described(column) else ""))]
    runs, unfinished = _halves(runs)
    if runs.empty:
        raise UsageError(f"the study {name} has no finished run yet: run python -m harness study={name} first.")
    compared = runs.loc[~runs["role"].str.startswith("search"), "key"]
    history = epochs_of(study.history, set(compared)).drop(columns="valid.per_class", errors="ignore")
    shared = [str(column) for column in runs if _described(column) and runs[column].nunique(dropna=False) == 1]
    settings = _of_settings(runs.drop(columns=shared))
    epochs, step = _epochs_that_fit(history.sort_values(["key", "epoch"]))
    scored = {key: arrays for key in compared if (arrays := study.arrays(key))}
    parts = pack(scored, MEASURED_LIMIT)
    fits = parts is not None and sum(map(len, parts)) <= ITEMS_LIMIT
    table = _csv(runs.drop(columns=[*shared, *settings[1:]]))
    large = len(table) > MEASURED_LIMIT
    files = {
        f"{name}.csv.gz" if large else f"{name}.csv": gzip.compress(table, mtime=0) if large else table,
        f"{name}_settings.csv": _csv(runs[settings].drop_duplicates("setting")),
        **({} if unfinished.empty else {f"{name}_unfinished.csv": _csv(unfinished)}),
        f"{name}_history.csv.gz": epochs,
        **{f"{name}_items_{n}.npz": part for n, part in enumerate(parts if parts and fits else (), 1)},
    }
    for file, content in files.items():
        if len(content) > MEASURED_LIMIT:
            raise UsageError(
                f"{file} would have {len(content) >> 10} KiB, over the limit of {MEASURED_LIMIT >> 10} KiB for "
                "committed evidence: publish fewer runs."
            )
    about = {"shared": {column: runs[column].tolist()[0] for column in shared}}  # as types of Python
    about |= {"metrics": [metric.as_dict() for metric in study.metrics]}
    evidence.write(folder, name, files, finite(study.spec) | finite(about))
    written = tuple(folder / file for file in (*files, f"{name}.json"))
    return Publication(
        written, len(runs), "all epochs" if step == 1 else f"one of {step} epochs", fits if scored else None
    )


def _halves(runs: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the runs that are finished and those that failed or are missing, each with the columns that it fills."""
    done = runs["status"].isin(STATUSES)
    return runs[done].dropna(axis="columns", how="all"), runs[~done].dropna(axis="columns", how="all")


def _described(column: object) -> bool:
    return str(column).startswith(DESCRIBED)


def _of_settings(runs: pd.DataFrame) -> list[str]:
    """Return ``setting`` and the columns that describe runs of one setting alike."""
    described = [str(column) for column in runs if _described(column)]
    counts = runs.groupby("setting")[described].nunique(dropna=False).max() if described else {}
    return ["setting", *(column for column in described if counts[column] == 1)]


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


def _csv(table: pd.DataFrame) -> bytes:
    return table.to_csv(index=False).encode()  # floats as the shortest text that is read back to the same


def _epochs_that_fit(history: pd.DataFrame) -> tuple[bytes, int]:
    """Return epochs as compressed CSV: every one, or evenly fewer, so that their file stays below the limit; and of how
    many one is there.
    """
    ends = (history["epoch"] == 1) | (history["epoch"] == history.groupby("key")["epoch"].transform("max"))
    content, step = _compressed(history), 1
    while len(content) > MEASURED_LIMIT and step < history["epoch"].max():
        step = max(step + 1, math.ceil(step * len(content) / MEASURED_LIMIT * 0.9))
        content = _compressed(history[ends | (history["epoch"] % step == 0)])
    return content, step


def _compressed(history: pd.DataFrame) -> bytes:
    return gzip.compress(_csv(history), mtime=0)


def load_published(file: Path) -> StudyData:
    """Read a published <study>.csv wherever it lies with the files that its <study>.json names.

    Raises:
        UsageError: it does not exist, is no published study, or a file is not the one that was published.
    """
    found = evidence.find(file.stem, [file.parent])
    if found is None or file.suffix != ".csv":
        raise UsageError(
            f"{file} is not a published study: give a <study>.csv that `publish` wrote, with the files beside it."
        )
    found.check()
    if reason := _unbelievable(found):
        raise UsageError(f"{file} is not believed, because {reason}.")
    return defused(StudyData(file.stem, found.spec, found.rows, found.history, found.metrics, found.item_arrays.get))


def _unbelievable(found: evidence.Evidence) -> str | None:
    """Return why published rows are not those of runs, None if they may be."""
    rows = found.rows
    if missing := {"key", "role", "label", "seed", "setting", "status"} - set(rows):
        return f"it has no column {min(missing)}"
    finished_rows, _ = _halves(rows)
    if finished_rows.empty or not rows["key"].astype(str).str.fullmatch(KEY.pattern).all():
        return "some of its rows have no key of a run"
    if finished_rows.duplicated(["key", "role"]).any():
        return "it has some runs twice"
    for metric in found.metrics:
        for column in (name for name in finished_rows if str(name).rpartition(".")[2] == metric.key):
            values = finished_rows[column].dropna()
            low, high = (end if end is not None else math.nan for end in (metric.low, metric.high))
            if values.dtype == object or (values < low - SLACK).any() or (values > high + SLACK).any():
                return f"{column} leaves its range from {metric.low} to {metric.high}"
    return None


def import_files(files: Iterable[Path], results: Path = RESULTS) -> dict[str, int]:
    """Add rows published elsewhere to results/measured/; return how many were new, by study.

    Rows are joined by key; epochs and scores on test items come along. What is here stays as it is.

    Raises:
        UsageError: a file does not exist or is no published study, or one of ours would exceed 1 MiB.
    """
    added: dict[str, int] = {}
    for file in files:
        new, folder = load_published(file), results / "measured"
        here = evidence.find(file.stem, [folder])
        if here is None:
            publish_tables(new, folder)
            added[file.stem] = len(_halves(new.runs)[0])
            continue
        done, rest = zip(_halves(here.rows), _halves(new.runs), strict=True)
        joined = StudyData(
            file.stem,
            here.spec,
            _joined(_joined(*done, ["key", "role"]), _joined(*rest, ["key", "role"]), ["key", "role"]),
            _joined(here.history, new.history, ["key", "epoch"]),
            distinct([*here.metrics, *new.metrics]),
            lambda key, here=here, new=new: here.item_arrays.get(key) or new.arrays(key),
        )
        publish_tables(joined, folder)
        added[file.stem] = len(_halves(joined.runs)[0]) - len(done[0])
    return added


def _joined(old: pd.DataFrame, new: pd.DataFrame, on: list[str]) -> pd.DataFrame:
    import pandas as pd

    filled = [frame for frame in (old, new) if not frame.empty]
    return pd.concat(filled, ignore_index=True).drop_duplicates(on, keep="first") if filled else old


def merge(folders: Iterable[Path], results: Path = RESULTS) -> dict[str, int]:
    """Copy the finished runs and study lists of other results folders into this one; return counts.

    Only the files that a run leaves are taken, and links are not followed. Records, lists and arrays that are not
    believed stay where they are, counted as damaged.

    Raises:
        UsageError: a folder holds no runs.
    """
    counts = Counter({"copied": 0, "already here": 0, "studies": 0})
    for folder in folders:
        if not (folder / "runs").is_dir():
            raise UsageError(f"{folder} is not a results folder: it has no folder runs in it.")
        here = finished(results)
        for key in sorted(finished(folder)):
            counts["already here" if key in here else _copied(key, folder, results)] += 1
        for listed in sorted(folder.glob("*/runs.csv")):
            counts["studies" if _joined_list(listed, results) else "damaged"] += 1
    return dict(counts)


def _copied(key: str, folder: Path, results: Path) -> str:
    """Copy a run if its record is believed; return "copied" or "damaged"."""
    source = run_folder(key, folder)
    try:
        found = {name: _content(source / name) for name in OF_RUN}
        record = json.loads(found["record.json"] or b"")
    except GARBLED:
        return "damaged"
    if not KEY.fullmatch(key) or source.is_symlink() or problem(record, key) is not None:
        return "damaged"
    for name, content in found.items():  # the record last: its presence means that everything is there
        if content is not None and (not name.endswith(".npz") or load_arrays(source / name) is not None):
            with whole(run_folder(key, results) / name) as file:
                file.write(content)
    return "copied"


def _content(path: Path) -> bytes | None:
    """Return what is in a file, None if there is none or it is a link."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            return file.read()
    except OSError:
        return None


def _joined_list(listed: Path, results: Path) -> bool:
    """Join another folder's list of runs of a study with ours; return whether it was believed."""
    name, target = listed.parent.name, results / listed.parent.name
    asked, found = _content(listed.with_name("study.json")), read_list(listed)
    try:
        spec = json.loads(asked or b"")
    except GARBLED:
        return False
    if listed.is_symlink() or listed.parent.is_symlink() or found.empty or not is_study(spec) or slug(name) != name:
        return False
    joined = _joined(read_list(target / "runs.csv"), found, ["key", "role"])
    write_text(target / "runs.csv", joined.to_csv(index=False))
    if not (target / "study.json").exists():
        write_json(target / "study.json", spec)
    return True
