"""What many runs scored on every test item, in few small files: what is equal in several runs is stored once.

A file is an .npz. Runs whose arrays have the same names, shapes and types are a group of it, numbered from 0:

    <group>/key          keys of its runs
    <group>/<name>       the distinct arrays of this name, stacked
    <group>/<name>/row   for each run, which of them is its own
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    Arrays = Mapping[str, np.ndarray]


def pack(runs: Mapping[str, Arrays], limit: int) -> list[bytes] | None:
    """Return the arrays of runs, by key and name, as files of at most ``limit`` bytes; None if one run needs more."""
    if not runs:
        return []
    keys = sorted(runs, key=lambda key: (_signature(runs[key]), _first(runs[key]), key))  # what may be shared together
    return _parts({key: runs[key] for key in keys}, limit)


def _first(arrays: Arrays) -> bytes:
    return next((arrays[name].tobytes() for name in sorted(arrays) if name.endswith("/item")), b"")


def _signature(arrays: Arrays) -> tuple[tuple[str, str, tuple[int, ...]], ...]:
    return tuple(sorted((name, array.dtype.str, array.shape) for name, array in arrays.items()))


def _parts(runs: Mapping[str, Arrays], limit: int) -> list[bytes] | None:
    content = _content(runs)
    if len(content) <= limit:
        return [content]
    if len(runs) == 1:
        return None
    keys = list(runs)
    halves = keys[: len(keys) // 2], keys[len(keys) // 2 :]
    parts = [_parts({key: runs[key] for key in half}, limit) for half in halves]
    return None if None in parts else [part for half in parts if half for part in half]


def _content(runs: Mapping[str, Arrays]) -> bytes:
    import numpy as np

    groups: dict[object, list[str]] = {}
    for key, arrays in runs.items():
        groups.setdefault(_signature(arrays), []).append(key)
    stored: dict[str, np.ndarray] = {}
    for number, keys in enumerate(groups.values()):
        stored[f"{number}/key"] = np.array(keys)
        for name in runs[keys[0]]:
            rows: dict[bytes, int] = {}
            own = [rows.setdefault(runs[key][name].tobytes(), len(rows)) for key in keys]
            first = [own.index(row) for row in range(len(rows))]
            stored[f"{number}/{name}"] = np.stack([runs[keys[index]][name] for index in first])
            stored[f"{number}/{name}/row"] = np.array(own, np.int32)
    out = io.BytesIO()
    np.savez_compressed(out, **stored)  # pyright: ignore[reportArgumentType]
    return out.getvalue()


def unpack(content: bytes) -> dict[str, dict[str, np.ndarray]]:
    """Return the arrays of runs, by key and name, from one of the files of `pack`."""
    import numpy as np

    found: dict[str, dict[str, np.ndarray]] = {}
    with np.load(io.BytesIO(content)) as stored:
        arrays = {name: stored[name] for name in stored.files}
    for group in {name.partition("/")[0] for name in arrays}:
        named = {
            name.removeprefix(f"{group}/").removesuffix("/row"): (arrays[name.removesuffix("/row")], rows)
            for name, rows in arrays.items()
            if name.startswith(f"{group}/") and name.endswith("/row")
        }
        for index, key in enumerate(arrays[f"{group}/key"].tolist()):
            found[key] = {name: values[rows[index]] for name, (values, rows) in named.items()}
    return found
