"""What a run leaves behind: written once, atomically, and readable with pandas alone.

results/runs/<key>/record.json   a finished run (done or diverged); its presence means: never run again
results/runs/<key>/history.csv   one row per epoch
results/runs/<key>/failure.json  a run that raised; the next sweep tries it again
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UsageError
from harness.paths import RESULTS

if TYPE_CHECKING:  # importing it takes longer than planning ten thousand runs
    import pandas as pd

SCHEMA = 1


def run_folder(key: str, results: Path = RESULTS) -> Path:
    """Return the folder of the run ``key``."""
    return results / "runs" / key


def write_text(path: Path, text: str) -> None:
    """Write a file so that it exists whole or not at all, whenever the process is killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(text)
    part.replace(path)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write ``content`` as JSON, atomically; not-a-number becomes null."""
    write_text(path, json.dumps(finite(content), indent=1))


def finite(content: Any) -> Any:
    """Return nested data with every number that JSON cannot hold as None."""
    if isinstance(content, Mapping):
        return {str(key): finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite(value) for value in content]
    if isinstance(content, float) and (content != content or content in (float("inf"), float("-inf"))):
        return None
    return content


def finished(results: Path = RESULTS) -> set[str]:
    """Return the keys of all finished runs."""
    try:
        with os.scandir(results / "runs") as folders:
            return {entry.name for entry in folders if os.path.exists(os.path.join(entry.path, "record.json"))}
    except FileNotFoundError:
        return set()


def save(
    folder: Path, record: Mapping[str, Any], history: pd.DataFrame, examples: Mapping[str, Any] | None = None
) -> None:
    """Write a finished run. The record comes last, because its presence means that everything is there.

    examples: arrays of a few test items and what the run predicts for them, for the report to show.
    """
    write_text(folder / "history.csv", history.to_csv(index=False))
    if examples:
        import numpy as np

        with (folder / "examples.npz").open("wb") as file:
            np.savez_compressed(file, **examples)
    write_json(folder / "record.json", {"schema": SCHEMA, **record})
    (folder / "checkpoint.pt").unlink(missing_ok=True)
    (folder / "failure.json").unlink(missing_ok=True)


def save_failure(folder: Path, record: Mapping[str, Any]) -> None:
    """Write what is known of a run that raised."""
    write_json(folder / "failure.json", {"schema": SCHEMA, **record, "status": "failed"})


def examples(key: str, results: Path = RESULTS) -> dict[str, Any] | None:
    """Return the arrays that a run kept of a few test items, or None if it kept none or they are damaged."""
    import numpy as np

    try:
        with (run_folder(key, results) / "examples.npz").open("rb") as file, np.load(file) as kept:
            return {name: kept[name] for name in kept.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None


def read(key: str, results: Path = RESULTS) -> dict[str, Any] | None:
    """Return the record of a run, else its failure, else None.

    Raises:
        UsageError: a file is damaged or was written by a newer version.
    """
    for name in ("record.json", "failure.json"):
        path = run_folder(key, results) / name
        try:
            record = json.loads(path.read_text())
        except FileNotFoundError:
            continue
        except ValueError as error:
            raise UsageError(
                f"{path} is damaged ({error}): delete the folder {key} and run the study again."
            ) from error
        if record.get("schema", 0) > SCHEMA:
            raise UsageError(
                f"{path} was written by a newer lossbench (schema {record['schema']}): update this checkout."
            )
        return record
    return None


def flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a record as one row: nested names joined by dots, lists as JSON text."""
    row: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, dict):  # as JSON gives them; asking for any mapping takes ten times as long
            row.update(flat(value, f"{prefix}{name}."))
        else:
            row[f"{prefix}{name}"] = cell(value) if isinstance(value, list) else value
    return row


def cell(value: Any) -> Any:
    """Return ``value`` as a table can hold it: a list becomes JSON text, with six decimals, not-a-number as null."""
    if not isinstance(value, list):
        return value
    return json.dumps([round(part, 6) if isinstance(part, float) else part for part in finite(value)])
