"""The other reading of *Hybrid nonlinear losses*: what if its L1 and L2 were penalties on the weights of a network?

It trains nothing: python -m scripts.weight_penalty measures it, and writes results/measured/hybrid_weight_penalty.csv.
"""

from __future__ import annotations

import math

import pandas as pd

from harness.paths import MEASURED
from harness.report.items import Column, Entry, Row, Table
from harness.text import count

LARGEST = 3.4028235e38
"""Of the numbers in which networks are trained (32 bits)."""


def tables() -> list[Table]:
    """Return the table, or none where it was not measured."""
    path = MEASURED / "hybrid_weight_penalty.csv"
    if not path.exists():
        return []
    found = pd.read_csv(path)
    columns = (
        Column("model", "model", note="untrained, with seed 1"),
        Column("over", "over weights"),
        Column("l1", "L1", "number"),
        Column("l2", "L2", "number"),
        Column("infinite", "beyond 32 bits", "number", "experiments whose added term is, before the first step"),
        Column("none", "no gradient", "number", "of the others"),
        Column("least", "least", "number", "gradient of the added term over that of cross-entropy, of the rest"),
        Column("most", "greatest", "number", "the same"),
    )
    rows = tuple(_row(group) for _, group in found.groupby(["model", "over"], sort=False))
    return [Table("hybrid-weights", "If L1 and L2 were penalties on weights", columns, rows, _caption(found))]


def _caption(found: pd.DataFrame) -> str:
    first = found.iloc[0]
    summed, averaged = (found[found["over"] == over] for over in ("sum", "mean"))
    beyond = summed[summed["value"].abs() > LARGEST]["experiment"].nunique()
    held = summed[summed["value"].abs() <= LARGEST]["ratio"].max()
    return (
        f"{found['experiment'].nunique()} experiments at A = {first['a']:g}, B = {first['b']:g}. The paper does not "
        "define L1 and L2; elsewhere these names mostly mean penalties on weights. As sums over weights, "
        f"{count(beyond, 'experiment')} could not take a first step, and the gradients of the others are up to "
        f"{held:.2g} times as long as that of cross-entropy; as means, the longest is {averaged['ratio'].max():.2g} of "
        "it. What the errors of probabilities that are trained here add to the gradient stands in the table of "
        "experiments."
    )


def _row(group: pd.DataFrame) -> Row:
    first = group.iloc[0]
    finite = group[group["value"].abs() <= LARGEST]
    moving = finite[finite["ratio"] > 0]["ratio"]
    beyond, still = len(group) - len(finite), len(finite) - len(moving)
    ends = (float(moving.min()), float(moving.max())) if len(moving) else (math.nan, math.nan)
    return Row(
        (
            Entry(str(first["model"])),
            Entry(str(first["over"])),
            *(Entry(f"{x:,.0f}" if x >= 100 else f"{x:.3g}", x) for x in map(float, (first["l1"], first["l2"]))),
            Entry(str(beyond), beyond),
            Entry(str(still), still),
            *(Entry(f"{end:.2g}", end) for end in ends),
        )
    )
