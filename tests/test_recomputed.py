"""Every published verdict, recomputed by code that shares nothing with the harness, agrees to 1e-9."""

import ast
import math
from pathlib import Path

import pytest

from harness import records
from harness.analysis.cells import Analysis
from harness.paths import MEASURED
from tests import recomputed

STUDIES = sorted(path.stem for path in MEASURED.glob("*.json"))


def test_the_second_way_imports_nothing_of_the_harness():
    tree = ast.parse(Path(recomputed.__file__).read_text())
    names = {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not {name.split(".")[0] for name in names} & {"harness", "losses", "datasets", "torch"}


@pytest.mark.parametrize("name", STUDIES)
def test_published_verdicts_agree_with_their_recomputation(name):
    analysis = Analysis(records.load_study(name))
    by_cell = {cell.values: cell for cell in analysis.cells}
    found = list(recomputed.verdicts(MEASURED, name))
    assert len(found) == len(analysis.estimated) > 0
    ordered = {
        label: [c for (cell, other), c in analysis.estimated.items() if other == label]
        for _, label in analysis.estimated
    }
    assert by_cell
    for _, label, difference, low, high, word in found:
        close = [
            c
            for c in ordered[label]
            if all(
                (math.isnan(a) and math.isnan(b)) or a == pytest.approx(b, rel=1e-9, abs=1e-9)
                for a, b in ((c.difference, difference), (c.low, low), (c.high, high))
            )
        ]
        assert close, f"{label}: {difference} [{low}, {high}] is in no cell of the report"
        assert word in {c.verdict for c in close}
