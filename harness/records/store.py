"""What a run leaves behind: written once, atomically, and readable with pandas alone.

results/runs/<key>/record.json   a finished run (done or diverged); its presence means: never run again
results/runs/<key>/history.csv   one row per epoch
results/runs/<key>/items.npz     what it scored on every test item
results/runs/<key>/failure.json  a run that raised; the next sweep tries it again
results/runs/<key>/lease.json    a run that is being trained (see `harness.records.lease`)
results/runs/<key>/*.damaged     what was found not to be what it should be, set aside until the run is finished again
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from harness.address import canonical, key_of
from harness.errors import UsageError
from harness.paths import RESULTS
from harness.text import visible

if TYPE_CHECKING:  # importing it takes longer than planning ten thousand runs
    import pandas as pd

SCHEMA = 2
STATUSES = ("done", "diverged")
FAILED = ("failed", "timeout")
"""What a run that has no result may be: it raised, or was silent for so long that it was ended."""
SLACK = 1e-6
"""How far rounding may carry a metric over the end of its range."""
KEY = re.compile(r"\w[\w-]*")
"""What a key may look like: the name of a folder, which no dot or slash leads elsewhere; any other leads to no file."""
GARBLED = (ValueError, EOFError, KeyError, TypeError, RecursionError, zipfile.BadZipFile, zlib.error, struct.error)
"""What readers of JSON, CSV and npz raise where a file is not what it should be."""
NO_ROOM = {
    errno.ENOSPC: "its disk has no room or no inodes left",
    errno.EDQUOT: "its quota is used up",
    errno.EROFS: "it is on a read-only file system",
    errno.EACCES: "this user may not write there",
    errno.EPERM: "this user may not write there",
    errno.EMFILE: "this process may open no more files (ulimit -n)",
    errno.ENFILE: "this machine can open no more files",
    errno.EIO: "its disk reports an error",
}
"""Why nothing can be written to a folder, by number of the error."""
damaged: list[str] = []
"""What was found damaged in this process, a sentence each."""


def run_folder(key: str, results: Path = RESULTS) -> Path:
    """Return the folder of the run ``key``."""
    return results / "runs" / key


def write_text(path: Path, text: str) -> None:
    """Write a file so that it exists whole or not at all, whenever the process is killed or the power fails."""
    with whole(path) as file:
        file.write(text.encode())


@contextlib.contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """Open a file beside ``path`` that takes its place when everything is on disk, and is gone if writing fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")  # hosts that share a folder may share ids
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # else a power failure may leave the new name without its content
        part.replace(path)
        _sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    """Make the names in a folder outlast a power failure, where its file system offers that."""
    with contextlib.suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


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
    """Return the keys of all finished runs: those with a record that is not empty.

    Raises:
        UsageError: the results are no folder.
    """
    found = set()
    try:
        folders = os.scandir(results / "runs")
    except FileNotFoundError:
        return found
    except NotADirectoryError as error:
        raise UsageError(f"{results} is no folder: name another in LOSSBENCH_RESULTS.") from error
    with folders:
        for entry in folders:
            with contextlib.suppress(OSError):
                if os.stat(os.path.join(entry.path, "record.json")).st_size:
                    found.add(entry.name)
    return found


def save(
    folder: Path,
    record: Mapping[str, Any],
    history: pd.DataFrame,
    examples: Mapping[str, Any] | None = None,
    scored: Mapping[str, Any] | None = None,
) -> None:
    """Write a finished run. The record comes last, because its presence means that everything is there.

    examples: arrays of a few test items and what the run predicts for them, for the report to show.
    scored: what it scored on every test item, by test set and name (`harness.records.items`).
    """
    write_text(folder / "history.csv", history.to_csv(index=False))
    if examples:
        import numpy as np

        with whole(folder / "examples.npz") as file:
            np.savez_compressed(file, **examples)
    if scored:
        from harness.records import items  # with numpy, which takes longer than planning

        items.save(folder, scored)
    write_json(folder / "record.json", sealed({"schema": SCHEMA, **record}))
    for name in ("checkpoint.pt", "failure.json", *(path.name for path in folder.glob("*.damaged"))):
        (folder / name).unlink(missing_ok=True)


def save_failure(folder: Path, record: Mapping[str, Any]) -> None:
    """Write what is known of a run that raised, or, with another ``status`` of `FAILED`, that was ended."""
    write_json(folder / "failure.json", {"status": "failed", **record, "schema": SCHEMA})


def examples(key: str, results: Path = RESULTS) -> dict[str, Any] | None:
    """Return the arrays that a run kept of a few test items, or None if it kept none or they are damaged."""
    return load_arrays(run_folder(key, results) / "examples.npz")


def load_arrays(path: Path) -> dict[str, Any] | None:
    """Return the arrays of an npz file, or None if there is none; a damaged one is named in `damaged`."""
    import numpy as np

    try:
        with path.open("rb") as file, np.load(file) as kept:
            return {name: kept[name] for name in kept.files}
    except OSError as error:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            say(f"{path} cannot be read ({error.strerror}): the report does without.")
    except (*GARBLED, AttributeError, NotImplementedError) as error:
        say(f"{path} is damaged ({brief(error)}): the report does without.")
    return None


def read(key: str, results: Path = RESULTS) -> dict[str, Any] | None:
    """Return the record of a run, else its failure, else None.

    A file that is damaged, or that does not hold together, is renamed to ``*.damaged``, and a sentence says so in
    `damaged`; the run then has no record.

    Raises:
        UsageError: a file was written by a newer version.
    """
    return read_folder(run_folder(key, results), key) if KEY.fullmatch(key) else None


def read_folder(folder: Path, key: str) -> dict[str, Any] | None:
    """Return the record in a folder if it is that of the run ``key``, else its failure, else None; see `read`."""
    for name in ("record.json", "failure.json"):
        path = folder / name
        try:
            record = json.loads(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            say(f"{path} cannot be read ({error.strerror}): the run counts as missing.")
            continue
        except GARBLED as error:
            set_aside(path, f"it is no JSON ({brief(error)})")
            continue
        if isinstance(record, dict) and isinstance(record.get("schema"), int) and record["schema"] > SCHEMA:
            raise UsageError(
                f"{path} was written by a newer lossbench (schema {record['schema']}): update this checkout."
            )
        reason = problem(record, key) if name == "record.json" else _no_failure(record)
        if reason is None:
            return record
        set_aside(path, reason)
    return None


def _no_failure(record: Any) -> str | None:
    known = isinstance(record, dict) and isinstance(record.get("status"), str) and record["status"] not in STATUSES
    return None if known else "it is no record of a failure"


def no_room(error: BaseException, folder: Path) -> str | None:
    """Return the sentence for an error that says that ``folder`` cannot be written, None for any other error."""
    why = NO_ROOM.get(error.errno or 0) if isinstance(error, OSError) else None
    return why and f"nothing can be written to {folder}, because {why}: mend that and give the same command again."


def writable(folder: Path) -> bool:
    """Return whether a file of a mebibyte can be written to ``folder``; it is removed."""
    try:
        with whole(folder / ".probe") as file:
            file.write(bytes(1 << 20))
        (folder / ".probe").unlink()
    except OSError:
        return False
    return True


def refusal(error: OSError, results: Path = RESULTS) -> str | None:
    """Return the sentence for an error that says that results cannot be written, None for one of anything else."""
    elsewhere = error.filename is not None and not Path(os.fsdecode(error.filename)).is_relative_to(results)
    return None if elsewhere else no_room(error, results)


def say(sentence: str) -> None:
    """Add a sentence to `damaged`, once."""
    if (sentence := visible(sentence)) not in damaged:
        damaged.append(sentence)


def brief(error: BaseException) -> str:
    """Return what an error says in its first line, and what kind it is where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def set_aside(path: Path, reason: str, then: str = "run the study again to replace it") -> None:
    """Rename a file that is not believed to ``*.damaged`` and say so; it is removed when its run is finished again."""
    say(f"{path} was set aside, because {reason}: {then}.")
    with contextlib.suppress(OSError):  # read-only results are not believed either
        path.rename(path.with_name(f"{path.name}.damaged"))


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record with the digest of everything else in it."""
    plain = finite({name: value for name, value in record.items() if name != "digest"})
    return {**plain, "digest": hashlib.sha256(canonical(plain).encode()).hexdigest()}


def problem(record: Any, key: str) -> str | None:
    """Return why a record is not believed to be that of the run ``key``, None if it is.

    It must have its own digest, the key of its folder, a seed, a known status, and metrics within their ranges; where
    it has an identity, its configuration must lead to the key.
    """
    if not isinstance(record, dict):
        return "it is no record"
    if sealed(record)["digest"] != record.get("digest"):
        return "its content does not have the digest that it was written with"
    if record.get("key") != key:
        return f"it has the key {record.get('key')}"
    if type(record.get("seed")) is not int:
        return f"its seed is {record.get('seed')}"
    if record.get("status") not in STATUSES:
        return f"its status is {record.get('status')}"
    if "identity" in record and _key_of(record) != key:
        return "its configuration belongs to another key"
    try:
        return _out_of_range(record)
    except (KeyError, TypeError, AttributeError):
        return "its scores are no record's"


def _key_of(record: Mapping[str, Any]) -> str | None:
    """Return the key of the run that a record describes, None if it describes none."""
    try:
        hardware = {name: record["env"][name] for name in ("device", "threads") if record["env"][name] is not None}
        return key_of({**record["config"], **hardware}, record["identity"], record["seed"])
    except (KeyError, TypeError, AttributeError):
        return None


def _out_of_range(record: Mapping[str, Any]) -> str | None:
    shifted = {f"shifted.{name}": scores for name, scores in (record.get("shifted") or {}).items()}
    for metric in record.get("metrics", ()):
        low, high = (metric.get(end) for end in ("low", "high"))
        for split, scores in {"test": record.get("test"), "valid": record.get("valid"), **shifted}.items():
            value = (scores or {}).get(metric["key"])
            if value is not None and (
                isinstance(value, str)
                or (low is not None and value < low - SLACK)
                or (high is not None and value > high + SLACK)
            ):
                return f"{split}.{metric['key']} is {value}, outside its range from {low} to {high}"
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
