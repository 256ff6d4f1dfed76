"""python -m scripts.try_wrong_labels [DATASET ...]: how well wrong labels are estimated, where their number is known.

For each data set (default: digits, Fashion-MNIST, a table, CIFAR-10), labels are made wrong, and what `harness.look`
would say of them is written to results/measured/wrong_labels.csv, and printed as the table of
docs/own-data.md. A data set that is not there is left out and named. One draw of wrong labels a row.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from datasets.labelled_tables import LabelledTable
from harness.errors import UsageError
from harness.look import facts, understood, wrong_labels
from harness.paths import MEASURED

DATA = ("digits", "fashion_mnist", "breast_cancer", "cifar10")
RATES = (0.1, 0.3)
SEED = 1
WORDS = {"none": "none", "symmetric": "to any other class", "next": "to the next class"}


def rows(name: str) -> Iterator[dict[str, Any]]:
    """Yield what is estimated of one data set, clean and with wrong labels of every kind and rate.

    Raises:
        UsageError: it is not there.
    """
    chosen = {"dataset": name} | ({"task": "table_classification"} if name == "breast_cancer" else {})
    splits = facts.loaded(understood.composed(chosen))
    found = wrong_labels.items_of(splits)
    assert found is not None
    features, right = found
    kinds = ("symmetric",) if len(splits.classes) == 2 else ("symmetric", "next")
    for kind, rate in [("none", 0.0), *((kind, rate) for kind in kinds for rate in RATES)]:
        labels = right if kind == "none" else _made_wrong(right, len(splits.classes), rate, kind)
        estimate = wrong_labels.estimated(features, labels)
        assert estimate is not None
        yield {
            "dataset": name, "items": len(labels), "rows": isinstance(splits, LabelledTable), "kind": kind,
            "true": float((labels != right).mean()), "estimated": estimate.share, "low": estimate.low,
            "high": estimate.high, "possible": estimate.possible,
        }  # fmt: skip


def _made_wrong(labels: np.ndarray, classes: int, rate: float, kind: str) -> np.ndarray:
    """Return labels of which about such a share is wrong: any other class, or the one after it."""
    draw = np.random.default_rng(SEED)
    step = draw.integers(1, classes, len(labels)) if kind == "symmetric" else 1
    return np.where(draw.random(len(labels)) < rate, (labels + step) % classes, labels)


def table(measured: pd.DataFrame) -> str:
    """Return the table of docs/own-data.md."""
    lines = ["| data | labels made wrong | of them, in truth (%) | estimated (%) | interval (%) |",
             "|---|---|---:|---:|---|"]  # fmt: skip
    for name, found in measured.groupby("dataset", sort=False):
        first = f"`{name}`, {found['items'].iloc[0]:,} {'rows' if found['rows'].iloc[0] else 'images'}"
        for row in found.to_dict("records"):
            true, share, low, high = (f"{100 * row[key]:.1f}" for key in ("true", "estimated", "low", "high"))
            said = f"{share} | [{low}, {high}]" if row["possible"] else "cannot be estimated | "
            lines.append(f"| {first} | {WORDS[row['kind']]} | {true} | {said} |")
            first = ""
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, print; return the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if {"-h", "--help"} & set(given):
        print(__doc__)
        return 0
    found: list[dict[str, Any]] = []
    for name in given or DATA:
        try:
            found += rows(name)
        except UsageError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
    if not found:
        return 2
    measured = pd.DataFrame(found)
    measured.to_csv(MEASURED / "wrong_labels.csv", index=False)
    print(table(measured))
    return 0


if __name__ == "__main__":
    sys.exit(main())
