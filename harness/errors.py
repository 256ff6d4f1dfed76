"""Errors that a user can mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from harness.text import visible


class UsageError(ValueError):
    """A request that cannot be carried out as written: one sentence, printed without a traceback, exit code 2."""

    def __str__(self) -> str:
        return visible(super().__str__(), lines=True)


def unknown(kind: str, name: object, known: Iterable[str]) -> UsageError:
    """Return the error for a name that does not exist, with the nearest names or, if none is near, all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(names)}."
    return UsageError(f"unknown {kind} '{name}': {hint}")
