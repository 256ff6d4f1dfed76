"""From a path to the settings that train on what lies there: the task, the data set, and what is worth knowing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets.sources import boxes, folder, images, labelled_table, table
from harness import compose
from harness.errors import UsageError
from harness.look import facts

Settings = dict[str, Any]


@dataclass(frozen=True)
class Understood:
    """What was understood of data of one's own.

    Attributes:
        task: an option of conf/task/.
        overrides: of conf/run.yaml, by path: ``{"task": "segmentation", "dataset": "folder", "dataset.path": ...}``.
        facts: sentences with sizes, classes and their counts, and splits.
        warnings: sentences on what looks wrong, each with what to do about it.
        heads: what the columns of ``classes`` are.
        classes: of each class, its name and a text for each head; none where numbers are predicted.
    """

    task: str
    overrides: Settings
    facts: tuple[str, ...]
    warnings: tuple[str, ...]
    heads: tuple[str, ...] = ()
    classes: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Source:
    """A data set of conf/dataset/ that reads files of one's own.

    Attributes:
        task: what it is for, as long as neither the user nor the data say otherwise.
        dataset: its name.
        proposed: returns its settings for a path and what is given of them, None where the path holds nothing of its
            kind; raises FileNotFoundError or ValueError where it does, but damaged.
    """

    task: str
    dataset: str
    proposed: Callable[[Path, Settings], Mapping[str, Any] | None]


SOURCES = (
    Source("detection", "boxes", lambda path, _: boxes.proposed(path)),
    Source("segmentation", "folder", lambda path, _: folder.proposed(path)),
    Source("classification", "images", lambda path, _: images.proposed(path)),
    Source("regression", "table", table.proposed),
    Source("table_classification", "labelled_table", labelled_table.proposed),
)
"""In the order in which they are asked; the first that knows what lies at a path has it."""
LIKE: Mapping[str, str] = {
    "segmentation_windows": "segmentation",
    "embedding": "classification",
    "multilabel": "classification",
}
"""Further tasks, by the one whose data they take."""


def understand(path: Path, task: str | None = None, given: Mapping[str, Any] | None = None) -> Understood:
    """Return what the files at a path are understood to be.

    Args:
        path: a folder, or a table in a file.
        task: what they are for; None: what their layout says.
        given: settings of the data set that need not be guessed, such as ``{"dataset.target": "price"}``.

    Raises:
        UsageError: nothing there is understood, or the data cannot be split; one sentence.
    """
    return with_data(path, task, given)[0]


def with_data(path: Path, task: str | None = None, given: Mapping[str, Any] | None = None) -> tuple[Understood, Any]:
    """Return what `understand` returns, and the splits that were read for it."""
    overrides = settings_for(path, task, given or {})
    splits = facts.loaded(composed(overrides))
    told = facts.told(splits)
    said = (*told.facts, *([MASKS] if task is None and overrides["dataset"] == "boxes" and _has_masks(path) else []))
    return Understood(overrides["task"], overrides, said, told.warnings, told.heads, told.classes), splits


MASKS = "There are masks, too: task=segmentation reads these."


def _has_masks(path: Path) -> bool:
    try:
        return folder.proposed(path.expanduser()) is not None
    except (FileNotFoundError, ValueError):  # masks that cannot be read are no offer
        return False


def composed(overrides: Mapping[str, Any]) -> compose.Config:
    """Return the run that these overrides describe.

    Raises:
        UsageError: one of them names something that does not exist.
    """
    return compose.compose_run([f"{key}={facts.written(value)}" for key, value in overrides.items()]).config


def settings_for(path: Path, task: str | None, given: Mapping[str, Any]) -> Settings:
    """Return the overrides that choose a data set and its settings.

    Raises:
        UsageError: there is no such path, or nothing there is understood.
    """
    if task is not None:
        compose.option("task", task)  # refuses a name that does not exist
    path = path.expanduser()
    if not path.exists():
        raise UsageError(f"there is nothing at {path}: give data=PATH, a folder or a table in a file.")
    own = {name.removeprefix("dataset."): value for name, value in given.items()}
    for source in (source for source in SOURCES if task in (None, source.task) or LIKE.get(task or "") == source.task):
        try:
            found = source.proposed(path, own)
        except (FileNotFoundError, ValueError) as error:
            if path.is_file() and source.dataset == "images" and task is None:  # it lists no images: a table, then
                continue
            raise UsageError(str(error)) from error
        if found is not None:
            return _overrides(source, task, path, found) | dict(given)
    raise UsageError(f"{path} holds nothing that is understood{f' for task={task}' if task else ''}: {LAYOUTS}")


def _overrides(source: Source, task: str | None, path: Path, found: Mapping[str, Any]) -> Settings:
    """Return all overrides; a source may leave out the words that all of them share."""
    own = {name if name.startswith("dataset.") else f"dataset.{name}": value for name, value in found.items()}
    own = {name: value for name, value in own.items() if name not in ("dataset.task", "dataset.dataset")}
    chosen = task or found.get("task") or source.task  # images with several labels each are for another task
    return {"task": chosen, "dataset": source.dataset, "dataset.path": str(path.resolve()), **own}


LAYOUTS = (
    "it should be a table (CSV, TSV or parquet), a folder of images for each class, a table of files and labels with "
    "its images, images with masks, or images with boxes (COCO, Pascal VOC or YOLO)."
)
