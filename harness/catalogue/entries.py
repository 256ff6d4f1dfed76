"""What the catalogue knows of every loss: read from conf/loss, from the functions, and from results/published."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from hydra.utils import get_object, instantiate
from omegaconf import OmegaConf

from harness import compose, paths
from losses.compound import Sum
from losses.loss import About, Loss, instantiate_with_sizes

PUBLISHED = paths.ROOT / "results" / "published"
PROBE = {"num_classes": 2, "num_features": 2}  # enough to build a loss with weights and to draw it


@dataclass(frozen=True)
class Entry:
    """One loss of the registry.

    Attributes:
        id: name on the command line, and of the file in conf/loss.
        about: what stands beside the function.
        settings: its settings with their defaults, an adapter's base among them.
        summary: first line of the docstring.
        details: the rest of it, without its example.
        code: dotted name of the function or class.
        formula: in the part of TeX that matplotlib sets, without dollar signs; empty: see details.
        use, avoid: when the loss is a good choice and when it is not; empty: nothing is written about it.
    """

    id: str
    about: About
    settings: dict[str, Any]
    summary: str
    details: str
    code: str
    formula: str
    use: str
    avoid: str


@functools.cache
def guide() -> dict[str, dict[str, str]]:
    """Return what guide.yaml says of losses, by name."""
    return OmegaConf.to_container(OmegaConf.load(Path(__file__).parent / "guide.yaml"))  # pyright: ignore[reportReturnType]


def entries() -> list[Entry]:
    """Return all losses, by family and name."""
    found = [_entry(name) for name in compose.options("loss")]
    return sorted(found, key=lambda entry: (entry.about.family, entry.id))


def _entry(name: str) -> Entry:
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
    said = {"formula": "", "use": "", "avoid": "", **guide().get(name, {})}
    return Entry(name, build(name).about, settings, summary, details, code, **said)


@functools.cache
def build(name: str) -> Loss | Sum:
    """Return the loss ``name`` for two classes and two features, in float64."""
    config = compose.option("loss", name)
    if "terms" in config:
        return Sum({term: build(term) for term in config["terms"]}, config["terms"])
    torch.manual_seed(0)
    return Loss(instantiate_with_sizes(instantiate(config), **PROBE)).double()


def for_classification() -> list[str]:
    """Return the names of all losses that can train a classifier by themselves."""

    def suits(loss: Loss | Sum) -> bool:
        kinds = set(loss.about.kinds)
        judged = "class_logits" in kinds or loss.is_head
        return kinds <= {"class_logits", "features"} and judged and not loss.about.untrainable

    return [name for name in compose.options("loss") if suits(build(name))]


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


def places(name: str) -> list[str]:
    """Return where the documents treat or use a loss."""
    sections = taxonomy().query("loss == @name")["section"].unique()
    tables = methods().query("loss == @name")["place"].unique()
    frame = pd.read_csv(PUBLISHED / "papers.csv")
    others = frame[[name in losses.split() for losses in frame["losses"]]]
    return [
        *(f"survey {section}" for section in sections),
        *(f"review {table}" for table in tables),
        *(f"{short}, {place}" for short, place in zip(others["short"], others["place"], strict=True)),
    ]


def table(found: Sequence[Entry]) -> pd.DataFrame:
    """Return the catalogue as one row per loss."""
    return pd.DataFrame(
        [
            {
                "loss": entry.id,
                "name": entry.about.name,
                "family": entry.about.family,
                "takes": entry.about.takes,
                "settings": ", ".join(f"{key}={value}" for key, value in entry.settings.items()),
                "paper": entry.about.paper,
                "evidence": entry.about.evidence,
                "documents": ", ".join(places(entry.id)),
            }
            for entry in found
        ]
    )
