"""What was understood, as text for a terminal."""

from __future__ import annotations

import shlex

from harness.look.facts import written
from harness.look.understood import Understood

RACED = {"detection": " 'losses.boxes=[giou,ciou,nwd,smooth_l1]'"}
"""Of a task with several losses, the role in which they race, with some to begin with."""


def commands(understood: Understood) -> tuple[str, str]:
    """Return the command lines that find a loss for what was understood, and that train on it once, ready to be pasted
    into a shell.
    """
    words = " ".join(shlex.quote(f"{key}={written(value)}") for key, value in understood.overrides.items())
    raced = RACED.get(understood.task, "")
    return f"python -m harness choose {words}{raced} budget=1h", f"python -m harness.run {words}"


def shown(understood: Understood) -> str:
    """Return the whole of it as text; it ends with the commands that find a loss for these data, and train once."""
    lines = [f"task: {understood.task}", *understood.facts, *_classes(understood)]
    lines += (f"! {each}" for each in understood.warnings)
    return "\n".join([*lines, *commands(understood)])


MOST_CLASSES = 30
"""Classes that are shown, those with the most training items if there are more."""


def _classes(understood: Understood) -> list[str]:
    """Return the counts of classes as the lines of a table; none where numbers are predicted."""
    if not understood.classes:
        return []
    rows = [("class", *understood.heads), *understood.classes[:MOST_CLASSES]]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    left = len(understood.classes) - MOST_CLASSES
    return [*lines, *([f"and {left} more"] if left > 0 else [])]
