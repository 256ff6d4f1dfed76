"""What the parts of the check on a GPU share: findings, and where and at what size a part is carried out."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Record = dict[str, Any]
"""What a run leaves, as `harness.records` reads it."""
COMPARE = {"<=": operator.le, ">=": operator.ge}


@dataclass(frozen=True)
class Finding:
    """One thing that a part has found.

    Attributes:
        what: what was looked at.
        value: a number, or words.
        unit: of the number.
        goal: what the number should be, such as ``<= 1.03``; empty: nothing is asked of it.
    """

    what: str
    value: float | str
    unit: str = ""
    goal: str = ""

    @property
    def held(self) -> bool | None:
        """Whether the goal is met; None if there is none."""
        if not self.goal:
            return None
        sign, _, limit = self.goal.partition(" ")
        return bool(COMPARE[sign](float(self.value), float(limit)))


@dataclass(frozen=True)
class Place:
    """Where a part is carried out: ``device`` is cuda, or cpu in a rehearsal; ``folder`` takes its files."""

    device: str
    folder: Path

    def size(self, full: Any, tiny: Any) -> Any:
        """Return what is wanted on a GPU, or what stands for it in a rehearsal."""
        return full if self.device == "cuda" else tiny


class Left(Exception):
    """A part cannot be carried out here, for the reason given; that is no failure."""
