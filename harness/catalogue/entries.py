"""The facts about every loss: read from conf/loss, from the functions, and from results/published."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from hydra.utils import get_class, get_object, instantiate
from omegaconf import OmegaConf

from harness import compose, paths
from harness.tasks import Task
from losses.compound import Sum
from losses.loss import About, Loss, instantiate_with_sizes

PUBLISHED = paths.ROOT / "results" / "published"
PROBE = {"num_classes": 2, "num_features": 2}  # enough to build a loss with weights and to draw it


@dataclass(frozen=True)
class LossEntry:
    """One loss of the registry.

    Attributes:
        id: name on the command line, and of the file in conf/loss.
        about: what is declared beside the function.
        settings: its settings with their defaults, those of an adapter's base included.
        summary: first line of the docstring.
        details: the rest of it, without its example.
        code: dotted name of the function or class.
        tasks: options of conf/task/ in which it can be trained.
        formula: in the part of TeX that matplotlib sets, without dollar signs; empty: see details.
        use, avoid: when the loss is a good choice and when it is not; empty: not documented.
    """

    id: str
    about: About
    settings: dict[str, Any]
    summary: str
    details: str
    code: str
    tasks: tuple[str, ...]
    formula: str
    use: str
    avoid: str

    @property
    def command(self) -> str:
        """A command that trains with it, in the first of its tasks; empty where there is none.

        In a task with seats for several losses, the loss takes the seat that suits it.
        """
        if not self.tasks:
            return ""
        seats = [
            seat for seat, kinds in _task_classes()[self.tasks[0]].role_kinds.items() if {*self.about.kinds} <= kinds
        ]
        return f"python -m harness.run task={self.tasks[0]} loss{f'.{seats[0]}' if seats else ''}={self.id}"


@functools.cache
def guide() -> dict[str, dict[str, str]]:
    """Return the formula, use and avoid of losses from guide.yaml, by name."""
    return OmegaConf.to_container(OmegaConf.load(Path(__file__).parent / "guide.yaml"))  # pyright: ignore[reportReturnType]


def entries() -> list[LossEntry]:
    """Return all losses, by family and name."""
    found = [_entry(name) for name in compose.options("loss")]
    return sorted(found, key=lambda entry: (entry.about.family, entry.id))


def _entry(name: str) -> LossEntry:
    config = compose.option("loss", name)
    base = config.get("base", {})
    code = base.get("_target_", config["_target_"])
    if "terms" in config:
        terms = " + ".join(f"{weight:g} {term}" for term, weight in config["terms"].items())
        summary, details = f"The weighted sum {terms}.", ""
    else:
        summary, _, details = (inspect.getdoc(get_object(code)) or "").partition("\n")
        details = details.split(">>>")[0].strip()
    settings = {key: value for key, value in {**config, **base}.items() if key not in ("_target_", "_partial_", "base")}
    texts = {"formula": "", "use": "", "avoid": "", **guide().get(name, {})}
    return LossEntry(name, build(name).about, settings, summary, details, code, tasks_of(name), **texts)


@functools.cache
def build(name: str, **settings: Any) -> Loss | Sum:
    """Return the loss ``name`` for two classes and two features, in float64, with settings beside its defaults."""
    config = {**compose.option("loss", name), **settings}
    if "terms" in config:
        given = config.get("parts", {})
        return Sum({term: build(term, **given.get(term, {})) for term in config["terms"]}, config["terms"])
    torch.manual_seed(0)
    return Loss(instantiate_with_sizes(instantiate(config), **PROBE)).double()


@functools.cache
def _task_classes() -> dict[str, type[Task]]:
    """Return the classes of all tasks by name, each before those that are made from it."""
    found = {name: get_class(compose.option("task", name)["_target_"]) for name in compose.options("task")}
    return dict(sorted(found.items(), key=lambda item: sum(issubclass(item[1], other) for other in found.values())))


def trains(loss: Loss | Sum, task: type[Task]) -> bool:
    """Return whether a loss can be trained in a task.

    The task must offer all its kinds; a task with one loss must also evaluate one of them, unless the loss is a head.
    A task whose losses have roles adds losses up, so any kind that it offers will do.
    """
    kinds = set(loss.about.kinds)
    if loss.about.untrainable or not kinds <= task.offers:
        return False
    return loss.is_head or bool(kinds & task.evaluates) or any(task.roles.values())


def tasks_of(name: str) -> tuple[str, ...]:
    """Return the options of conf/task/ in which the loss ``name`` can be trained."""
    return tuple(task for task, its_class in _task_classes().items() if trains(build(name), its_class))


def for_task(task: str) -> list[str]:
    """Return the names of all losses that can be trained in an option of conf/task/."""
    return [name for name in compose.options("loss") if task in tasks_of(name)]


@functools.cache
def methods() -> pd.DataFrame:
    """Return the methods of the review's tables, one row for each loss that a method uses."""
    frame = pd.read_csv(PUBLISHED / "review_methods.csv", keep_default_na=False, dtype=str)
    return frame.assign(loss=frame["losses"].str.split()).explode("loss").dropna(subset="loss")


@functools.cache
def taxonomy() -> pd.DataFrame:
    """Return the sections of the survey, one row for each loss that a section treats; ``year`` NaN: no one paper."""
    frame = pd.read_csv(PUBLISHED / "survey_taxonomy.csv", dtype={"section": str, "losses": str})
    return frame.assign(loss=frame["losses"].str.split()).explode("loss")


def references(name: str) -> list[str]:
    """Return the sections and tables of the documents that treat or use a loss."""
    sections = taxonomy().query("loss == @name")["section"].unique()
    tables = methods().query("loss == @name")["place"].unique()
    frame = pd.read_csv(PUBLISHED / "papers.csv")
    others = frame[[name in losses.split() for losses in frame["losses"]]]
    return [
        *(f"survey {section}" for section in sections),
        *(f"review {table}" for table in tables),
        *(f"{short}, {place}" for short, place in zip(others["short"], others["place"], strict=True)),
    ]


def table(found: Sequence[LossEntry]) -> pd.DataFrame:
    """Return the catalogue as one row per loss."""
    return pd.DataFrame(
        [
            {
                "loss": entry.id,
                "name": entry.about.name,
                "family": entry.about.family,
                "tasks": ", ".join(entry.tasks),
                "input kind": " + ".join(entry.about.kinds),
                "settings": ", ".join(f"{key}={value}" for key, value in entry.settings.items()),
                "paper": entry.about.paper,
                "evidence": entry.about.evidence,
                "documents": ", ".join(references(entry.id)),
            }
            for entry in found
        ]
    )
