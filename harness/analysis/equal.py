"""Losses that are one function in a cell: their runs are equal to the last digit."""

from __future__ import annotations

import pandas as pd

from harness.analysis.cells import Analysis, Cell
from harness.analysis.frames import numbers


def equal_losses(a: Analysis) -> dict[tuple[str, ...], list[Cell]]:
    """Return losses whose runs agree in every test metric with every seed, two or more together, and in which cells.

    Formulas may differ all the same: a filter that nothing reaches, a smoothing of 0. What is found of one of them is
    found of all, and is one finding.
    """
    names = [str(name) for name in a.main if str(name).startswith("test.")]
    scores = pd.DataFrame({name: numbers(a.main, name) for name in names}, index=a.main.index)
    scores = scores.dropna(axis="columns", how="all")  # texts, such as scores by class
    together: dict[tuple[str, ...], list[Cell]] = {}
    for cell in a.cells:
        groups: dict[tuple[object, ...], list[str]] = {}
        for label in a.labels:
            if (outcome := a.outcomes.get((cell, label))) and len(outcome.keys) > 1:
                runs = a.records(outcome).sort_values("seed")
                same = (*runs["seed"], scores.loc[runs.index].to_numpy().tobytes())
                groups.setdefault(same, []).append(label)
        for labels in groups.values():
            if len(labels) > 1:
                together.setdefault(tuple(labels), []).append(cell)
    return together
