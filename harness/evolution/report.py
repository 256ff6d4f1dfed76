"""The report of a search, in the form of every report here, and the winner as a config."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.evolution.judged import Judged
from harness.paths import RESULTS


def write(found: Judged, given: Sequence[str], results: Path = RESULTS) -> Path:
    """Write."""
    return results / found.searched.asked.name
