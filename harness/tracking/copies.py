"""Mirrors beside MLflow, TensorBoard and Weights & Biases: runs are copied to them one by one, as they finish.

Which run was copied, and what it then held, stands in a journal beside the copies: what is there and unchanged is left
alone. What sums a setting up follows in the last round of a sweep, because neither mirror can take a sum back.
"""

from __future__ import annotations

import importlib.util
import os
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from harness import journal
from harness.tracking import tensorboard, weights_biases
from harness.tracking.runs import TrackedRun
from harness.tracking.settings import Setting, settings
from harness.tracking.store import alone, sentence

if TYPE_CHECKING:
    from harness.records.study import StudyData

JOURNAL = "copied.jsonl"


class Kind(NamedTuple):
    """A mirror: its ``title``, the ``package`` that it needs, what ``put``s a run below a folder, and the command that
    shows, or sends, what lies in that folder, ``{}``.
    """

    title: str
    package: str
    put: Callable[[Path, str, TrackedRun, TrackedRun], None]
    command: str


KINDS: Mapping[str, Kind] = {
    "tensorboard": Kind("TensorBoard", "tensorboard", tensorboard.put, "tensorboard --logdir {}"),
    "wandb": Kind("Weights & Biases", "wandb", weights_biases.put, "wandb sync {}/wandb/offline-run-*"),
}
"""By what the setting ``tracking.mirrors`` calls them."""


class Copied(NamedTuple):
    """What a round did: counts of runs, settings included, and why it ended early, if it did."""

    new: int = 0
    updated: int = 0
    unchanged: int = 0
    reason: str = ""


def lacking(name: str) -> str:
    """Return, in one sentence, that the package of a mirror is not installed; empty if it is."""
    kind = KINDS[name]
    if importlib.util.find_spec(kind.package):
        return ""
    return f"{kind.title} needs the package {kind.package}, which is not installed: pip install {kind.package}."


def folder_of(name: str, results: Path, study: str) -> Path:
    """Return the folder of the copies of a study's runs in one mirror."""
    return results / study / name


def copy(name: str, study: StudyData, results: Path, last: bool = True) -> Copied:
    """Bring the copies in one mirror up to the records of a study; never raises for what is wrong with the mirror.

    Args:
        name: of the mirror, in ``KINDS``.
        study: the records.
        results: the folder below which that of the study lies.
        last: whether settings are summed up, too.
    """
    kind, folder, count = KINDS[name], folder_of(name, results, study.name), Counter[str]()
    again = f"no result is lost, python -m harness.tracking {study.name} --to {name} tries again"
    try:
        if reason := lacking(name):
            return Copied(reason=f"{reason} Then python -m harness.tracking {study.name} --to {name} writes it.")
        with alone(str(folder.resolve()), ""):
            known = {str(entry.get("run")): entry.get("digest") for entry in journal.entries(folder / JOURNAL)}
            for setting in settings(study):
                for run in _runs(setting, last):
                    count[_put(kind, folder, study.name, setting.tracked, run, known)] += 1
    except Exception as error:  # whatever the mirror's library raises
        return _copied(count, f"{kind.title} could not be written ({sentence(error)}); {again}.")
    return _copied(count)


def _copied(count: Mapping[str, int], reason: str = "") -> Copied:
    return Copied(count.get("new", 0), count.get("updated", 0), count.get("unchanged", 0), reason)


def _runs(setting: Setting, last: bool) -> list[TrackedRun]:
    return [*([setting.tracked] if last else []), *(setting.seed(row) for row in setting.rows)]


def _put(
    kind: Kind, folder: Path, study: str, setting: TrackedRun, run: TrackedRun, known: Mapping[str, object]
) -> str:
    """Copy a run unless it is known; return what that took."""
    identity = " ".join(run.identity)
    if known.get(identity) == run.digest:
        return "unchanged"
    kind.put(folder, study, setting, run)
    journal.append(folder / JOURNAL, {"run": identity, "digest": run.digest})
    return "updated" if identity in known else "new"


def told(name: str, study: str, results: Path, copied: Copied) -> str:
    """Return in words what was copied, and the command that shows it."""
    if copied.reason:
        return copied.reason
    command = KINDS[name].command.format(os.path.relpath(folder_of(name, results, study)))
    counts = f"{copied.new} new, {copied.updated} updated, {copied.unchanged} unchanged"
    return f"{KINDS[name].title} has the study {study}: {counts} ({command})."
