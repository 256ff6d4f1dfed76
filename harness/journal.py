"""Journals: files of JSON lines that several processes add to and nobody rewrites, for what can be worked out again."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def entries(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the entries of a journal, in order; none if there is no such file. Damaged lines are passed over."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return
    for line in lines:
        with contextlib.suppress(ValueError, RecursionError):
            entry = json.loads(line)
            if isinstance(entry, dict):
                yield entry


def append(path: Path, entry: Mapping[str, Any]) -> None:
    """Add an entry in one write; a folder that cannot be written stays without it."""
    line = json.dumps(entry, separators=(",", ":")).encode()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(file, b"\n" + line + b"\n")  # a line cut short by a full disk ends here, not in this entry
        finally:
            os.close(file)
