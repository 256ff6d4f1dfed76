"""From a path to the settings that train on what lies there: the task, the data set, and what is worth knowing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets.sources import labelled_table, table
from datasets.splits import MissingData
from harness import compose
from harness.errors import UsageError
from harness.look import facts, layouts

Settings = dict[str, Any]


@dataclass(frozen=True)
class Understood:
    """What was understood of data of one's own.

    Attributes:
        task: an option of conf/task/.
        overrides: of conf/run.yaml, by path: ``{"task": "segmentation", "dataset": "folder", "dataset.path": ...}``.
        facts: sentences with sizes, classes and their counts, and splits.
        warnings: sentences on what looks wrong, each with what to do about it.
    """

    task: str
    overrides: Settings
    facts: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """A data set of conf/dataset/ that reads files of one's own.

    Attributes:
        task: what it is for.
        dataset: its name.
        proposed: returns its settings for a path, None where the path holds nothing of its kind.
    """

    task: str
    dataset: str
    proposed: Callable[[Path], Mapping[str, Any] | None]


SOURCES = (
    Source("regression", "table", table.proposed),
    Source("table_classification", "labelled_table", labelled_table.proposed),
    Source("segmentation", "folder", layouts.masks),
    Source("classification", "images", layouts.images),
)
"""In the order in which they are asked; the first that knows what lies at a path has it."""


def understand(path: Path, task: str | None = None, given: Mapping[str, Any] | None = None) -> Understood:
    """Return what the files at a path are understood to be.

    Args:
        path: a folder, or a table in a file.
        task: what they are for; None: what their layout says.
        given: settings of the data set that need not be guessed, such as ``{"dataset.target": "price"}``.

    Raises:
        UsageError: nothing there is understood, or the data cannot be split; one sentence.
    """
    overrides = settings_for(path, task, given or {})
    config = compose.compose_run([f"{key}={facts.written(value)}" for key, value in overrides.items()]).config
    told = facts.told(config)
    return Understood(overrides["task"], overrides, told.facts, told.warnings)


def settings_for(path: Path, task: str | None, given: Mapping[str, Any]) -> Settings:
    """Return the overrides that choose a data set and its settings.

    Raises:
        UsageError: there is no such path, or nothing there is understood.
    """
    if task is not None:
        compose.option("task", task)  # refuses a name that does not exist
    if not path.exists():
        raise UsageError(f"there is nothing at {path}: give data=PATH, a folder or a table in a file.")
    for source in (source for source in SOURCES if task in (None, source.task)):
        try:
            found = source.proposed(path)
        except MissingData as error:
            raise UsageError(str(error)) from error
        if found is not None:
            own = {f"dataset.{name}": value for name, value in found.items()}
            where = {"dataset.path": str(path.resolve())}
            return {"task": source.task, "dataset": source.dataset, **own, **where, **given}
    raise UsageError(f"{path} holds nothing that is understood{f' for task={task}' if task else ''}: {LAYOUTS}")


LAYOUTS = (
    "it should be a table (CSV, TSV or parquet), a folder of images for each class, or the folders images and masks."
)
