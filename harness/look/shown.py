"""What was understood, as text for a terminal."""

from __future__ import annotations

import shlex

from harness.look.facts import written
from harness.look.understood import Understood


def command(understood: Understood, module: str = "harness.run") -> str:
    """Return the command line that trains once on what was understood, or that of another module that takes the same
    settings, ready to be pasted into a shell.
    """
    words = (shlex.quote(f"{key}={written(value)}") for key, value in understood.overrides.items())
    return f"python -m {module} {' '.join(words)}"


def shown(understood: Understood) -> str:
    """Return the whole of it as text; it ends with the commands that find a loss for these data, and train once."""
    lines = [f"task: {understood.task}", *understood.facts, *_classes(understood)]
    lines += (f"! {each}" for each in understood.warnings)
    if understood.task != "detection":  # of its two losses one must be named that races
        lines.append(f"{command(understood, 'harness choose')} budget=1h")
    return "\n".join([*lines, command(understood)])


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
