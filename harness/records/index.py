"""The records of a study as two tables in one file: opening tens of thousands of small files takes far longer.

    results/<study>/records.index

Only ever derived: it counts as long as the study's list and every record in it are those it was made from, as shown by
their times of change, sizes and inodes; else the records are read and it is written again. Deleting it costs nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.records.store import whole

if TYPE_CHECKING:  # pandas is imported by whoever has tables
    import pandas as pd

    Tables = tuple[pd.DataFrame, pd.DataFrame]

NAME = "records.index"
VERSION = 3  # raised when the tables are made otherwise


def cached(path: Path, state: str, read: Callable[[], Tables]) -> Tables:
    """Return runs and epochs from the index at ``path`` if it was made in this ``state``, else from ``read``.

    Args:
        path: where the index lies, or shall lie; a folder that cannot be written stays without.
        state: what identifies the records, taken before they are read; see :func:`state_of`.
        read: reads the records themselves.
    """
    found = _load(path, state)
    if found is None:
        found = read()
        with contextlib.suppress(OSError):
            _save(path, state, found)
    return found


def state_of(listed: bytes, keys: Iterable[str], runs: str) -> str:
    """Return what changes whenever a record in the folder ``runs`` is new, replaced or gone.

    Args:
        listed: content of the list of runs.
        keys: names of the runs.
        runs: folder of all runs.
    """
    import pandas as pd

    state = hashlib.sha256(f"{VERSION} {pd.__version__} ".encode() + listed)
    for key in keys:  # epochs are written right before the record, so its stamp is theirs too
        folder = f"{runs}/{key}/"
        state.update(f"{_stamp(f'{folder}record.json') or _stamp(f'{folder}failure.json')}\n".encode())
    return state.hexdigest()


def _stamp(path: str) -> tuple[str, int, int, int] | None:
    try:
        about = os.stat(path)
    except OSError:
        return None
    return path[-11:], about.st_mtime_ns, about.st_size, about.st_ino


def holds(path: Path, state: str) -> bool:
    """Return whether the index at ``path`` was made in this ``state``: all that it was made from was believed then."""
    return _body(path, state) is not None


def _body(path: Path, state: str) -> tuple[dict[str, Any], bytes] | None:
    """Return head and body; None if there are none, if they are of another state, or damaged."""
    try:
        head, _, body = path.read_bytes().partition(b"\n")
        about = json.loads(head)
        if about["state"] != state or about["crc32"] != zlib.crc32(body):
            return None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return about, body


def _load(path: Path, state: str) -> Tables | None:
    found = _body(path, state)
    if found is None:
        return None
    about, body = found
    size = about["size"]
    return _table(body[:size], about["json"][0]), _table(body[size:], about["json"][1])


def _save(path: Path, state: str, tables: Tables) -> None:
    parts = [_bytes(table) for table in tables]
    body = b"".join(content for content, _ in parts)
    about = {"state": state, "crc32": zlib.crc32(body), "size": len(parts[0][0]), "json": [texts for _, texts in parts]}
    with whole(path) as file:
        file.write(json.dumps(about).encode() + b"\n" + body)


def _bytes(table: pd.DataFrame) -> tuple[bytes, list[str]]:
    """Return a table in Arrow's format, and the columns whose cells, of several types, are in it as JSON."""
    mixed = [name for name, kind in zip(table.columns, map(str, table.dtypes), strict=True) if kind == "object"]
    out = io.BytesIO()
    table.assign(**{name: [json.dumps(value) for value in table[name]] for name in mixed}).to_feather(out)
    return out.getvalue(), mixed


def _table(content: bytes, mixed: list[str]) -> pd.DataFrame:
    import pandas as pd

    table = pd.read_feather(io.BytesIO(content))
    for name in mixed:
        values = {text: json.loads(text) for text in table[name].unique()}
        table[name] = pd.Series([values[text] for text in table[name]], dtype=object)
    return table
