"""Which published runs were made by code that today's would not repeat."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from harness import plan
from harness.address import Addresses
from harness.errors import UsageError
from harness.paths import RESULTS

if TYPE_CHECKING:
    import pandas as pd

CODE = "identity.code."
SEARCHES = {"run": "search", "negative_control": "search", "baseline_repeat": "search_repeat"}
"""Roles of runs, and of the trials that choose a learning rate for them."""
Place = tuple[str, ...]  # role, loss and cell


def outdated(rows: pd.DataFrame, name: str, results: Path = RESULTS) -> list[bool]:
    """Return for each published run whether any part of its code does something else today, or is asked no more.

    The identities that rows carry are compared with those of the study as it would be planned now, so a known edit that
    changes nothing counts for nothing. Of a study that no file asks nothing is known: none of its runs is outdated.

    Args:
        rows: published rows of one study.
        name: of the study.
        results: where behaviours of code are kept.
    """
    try:
        planned = dict(_planned(name, results))
    except UsageError:
        return [False] * len(rows)
    axes = sorted(str(column) for column in rows if str(column).startswith("axis."))
    codes = [str(column) for column in rows if str(column).startswith(CODE)]
    found = []
    for row in cast(list[dict[str, Any]], rows.to_dict("records")):
        expected = planned.get(_place(row["role"], row["label"], row, [row.get(axis) for axis in axes]))
        own = {code.removeprefix(CODE): row[code] for code in codes if isinstance(row[code], str)}
        found.append(expected is None or any(expected.get(part, code) != code for part, code in own.items()))
    return found


def _planned(name: str, results: Path) -> Iterator[tuple[Place, Mapping[str, str]]]:
    study = plan.read_study(name)
    addresses = Addresses(Path(os.environ.get("LOSSBENCH_DATA", "data")), results)
    for setting in plan.settings(study):
        identity = addresses.identity(setting.spec)
        code = dict(identity["code"])
        if identity["data"] is None:  # without its files, what a data set does cannot be told from its tree
            code.pop("dataset", None)
        axes = [value for _, value in sorted((f"axis.{key}", value) for key, value in setting.axes.items())]
        for role in (setting.role, SEARCHES[setting.role]):
            yield _place(role, setting.label, setting.choices, axes), code


def _place(role: str, label: str, choices: Mapping[str, Any], axes: list[Any]) -> Place:
    return (role, label, str(choices["dataset"]), str(choices["model"]), *map(_text, axes))


def _text(value: Any) -> str:
    """Return a value of an axis as text, numbers alike however they were written; empty where there is none.

    >>> _text(0), _text(0.0), _text("tail"), _text(float("nan"))
    ('0', '0', 'tail', '')
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    return f"{number:g}" if number == number else ""
