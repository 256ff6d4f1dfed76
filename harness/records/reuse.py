"""Runs that were published, as records of one's own: a sweep goes on from them and repeats none of them.

A published run has the key of the run that a sweep plans exactly where settings, seed, data, code and kind of device
are the same; with any other it has nothing to do.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.compose import GROUPS
from harness.plan import Run, Study
from harness.records import evidence
from harness.records.evidence import Evidence
from harness.records.store import GARBLED, KEY, STATUSES, run_folder, save
from harness.records.study import LISTED, evidence_folders

if TYPE_CHECKING:  # importing it takes longer than planning ten thousand runs
    import pandas as pd

    Parts = tuple[dict[str, Any], pd.DataFrame, Mapping[str, Any] | None]

PLANNED = (*GROUPS, "config", "identity", "axis", "choices", "key", "seed")
"""What the plan says of a run, and exactly: tables hold no difference between null and nothing."""
OF_A_TABLE = (*LISTED, "track", "lr", "source", "old", "metrics")
"""Columns of a study's table that are not from the record of the run."""


class Published:
    """The published runs of a study, each taken over once.

    Args:
        study: those of its own name count, and those of the file of conf/study that it is made from.
        results: where records go.
    """

    def __init__(self, study: Study, results: Path) -> None:
        self.results = results
        found = (evidence.find(name, evidence_folders(results)) for name in dict.fromkeys((study.name, study.study)))
        self.found = [each for each in found if each is not None]
        self.rows: dict[str, Parts] | None = None

    def keys(self) -> set[str]:
        """Return the keys of all finished runs that were published, read without pandas; none of a damaged file."""
        keys = set()
        for each in self.found:
            path = each.folder / f"{each.name}.csv"
            with (
                contextlib.suppress(OSError, *GARBLED),
                path.open("rt") if path.exists() else gzip.open(f"{path}.gz", "rt") as file,
            ):
                keys |= {row["key"] for row in csv.DictReader(file)}
        return keys

    def take(self, runs: Sequence[Run], about: Callable[[Run], Mapping[str, Any]]) -> int:
        """Write a record for every one of these runs that was published; return for how many.

        Args:
            runs: those without a record of their own.
            about: gives what a record says of a run before it was trained: choices, config and identity.

        Raises:
            UsageError: a published file is not the one that was published.
        """
        if self.rows is None:
            self.rows = {}
            for each in self.found:
                each.check()
                self.rows = _by_key(each) | self.rows
        published = [run for run in runs if run.key in self.rows]
        for run in published:
            record, history, scored = self.rows[run.key]
            record = {"key": run.key, "seed": run.seed, **about(run), **record}
            save(run_folder(run.key, self.results), record, history, None, scored)
        return len(published)


def _by_key(found: Evidence) -> dict[str, Parts]:
    """Return what is known of the finished runs: of the record all but what the plan says, epochs, scores on items."""
    rows, history, metrics = found.rows, found.history, [metric.as_dict() for metric in found.metrics]
    done = rows[rows["status"].isin(STATUSES) & rows["key"].astype(str).str.fullmatch(KEY.pattern)]
    known = [column for column in done if str(column).partition(".")[0] in PLANNED or column in OF_A_TABLE]
    epochs = dict(iter(history.groupby("key"))) if len(history) else {}
    none, items = history.iloc[:0], found.item_arrays
    return {
        key: (
            nested({str(name): value for name, value in row.items()}) | {"metrics": metrics},
            epochs.get(key, none).drop(columns="key", errors="ignore"),
            items.get(key),
        )
        for key, row in zip(done["key"], done.drop(columns=known).to_dict("records"), strict=True)
    }


def nested(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `harness.records.store.flat` made one row of; empty entries, which may be null or nothing, left out.

    >>> nested({"status": "done", "test.top1": 0.5, "data.image_size": "[8, 8]", "stopped": None})
    {'status': 'done', 'test': {'top1': 0.5}, 'data': {'image_size': [8, 8]}}
    """
    record: dict[str, Any] = {}
    for name, value in row.items():
        if value is None or value != value:  # not-a-number
            continue
        *path, last = str(name).split(".")
        place = record
        for part in path:
            place = place.setdefault(part, {})
        place[last] = json.loads(value) if isinstance(value, str) and value[:1] == "[" else value
    return record
