"""What was understood, as text for a terminal."""

from __future__ import annotations

import shlex

from harness.look.facts import written
from harness.look.understood import Understood


def command(understood: Understood) -> str:
    """Return the command line that trains once on what was understood, ready to be pasted into a shell."""
    words = (shlex.quote(f"{key}={written(value)}") for key, value in understood.overrides.items())
    return f"python -m harness.run {' '.join(words)}"


def shown(understood: Understood) -> str:
    """Return the whole of it as text."""
    lines = [f"task: {understood.task}", *understood.facts, *(f"! {each}" for each in understood.warnings)]
    return "\n".join([*lines, command(understood)])
