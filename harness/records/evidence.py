"""Evidence that is committed: the published files of one study, believed only as a whole.

results/measured/<study>.json            the manifest: the study as it was asked, what all rows share, the metrics that
                                         they declare, and the names of the other files with their SHA-256
results/measured/<study>.csv             one row per finished run; <study>.csv.gz where there are very many
results/measured/<study>_settings.csv    what the runs of one setting share, one row per ``setting``
results/measured/<study>_unfinished.csv  runs that failed or are missing, if there are any
results/measured/<study>_history.csv.gz  one row per compared run and epoch
results/measured/<study>_items_1.npz     what runs scored on every test item (see `harness.records.packed`), in parts

Renaming the manifest is the one step that replaces evidence. Files with new content lie ready beside the old ones by
then, under names with their digest, and take their place afterwards; a reader takes a file from either place, but only
with the content that the manifest names.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.address import COMPONENTS
from harness.errors import UsageError
from harness.metrics.declared import Metric, from_dict
from harness.records.packed import unpack
from harness.records.store import GARBLED, brief, say, whole

if TYPE_CHECKING:  # importing it takes longer than planning ten thousand runs
    import numpy as np
    import pandas as pd

CODES = tuple(f"identity.code.{component}" for component in COMPONENTS)
TEXTS = ("key", "setting", "label", "env.commit", "data.checksum", "identity.data", *CODES)  # also where all are digits
OWN = ("shared", "metrics", "files")
"""What a manifest holds beside the study as it was asked."""


@dataclass(frozen=True)
class Evidence:
    """The published files of a study.

    Attributes:
        folder: where they lie.
        name: of the study.
        manifest: content of <study>.json.
    """

    folder: Path
    name: str
    manifest: Mapping[str, Any]

    @property
    def spec(self) -> dict[str, Any]:
        """The study as it was asked."""
        return {key: value for key, value in self.manifest.items() if key not in OWN}

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics that the rows declare."""
        return tuple(map(from_dict, self.manifest["metrics"]))

    @property
    def rows(self) -> pd.DataFrame:
        """One row per run, with what its setting and what all runs share; those that failed or are missing last.

        Raises:
            UsageError: the files that hold finished runs are not those that were published.
        """
        import pandas as pd

        plain, packed = f"{self.name}.csv", f"{self.name}.csv.gz"
        rows = self._table(packed if packed in self.manifest["files"] else plain)
        settings = self._table(f"{self.name}_settings.csv")
        if not settings.empty:
            rows = rows.merge(settings, on="setting", how="left")
        shared = pd.DataFrame(self.manifest["shared"], index=rows.index)
        unfinished = self._without(f"{self.name}_unfinished.csv")
        finished = pd.concat([rows, shared], axis=1)
        runs = finished.copy() if unfinished.empty else pd.concat([finished, unfinished], ignore_index=True)
        return runs.assign(source="measured")

    @property
    def history(self) -> pd.DataFrame:
        """One row per run and epoch; empty if none were published, or if they are damaged, which is then said."""
        return self._without(f"{self.name}_history.csv.gz")

    @functools.cached_property
    def item_arrays(self) -> dict[str, dict[str, np.ndarray]]:
        """What runs scored on every test item, by key; without what was not published, or is damaged, which is said."""
        found: dict[str, dict[str, np.ndarray]] = {}
        for file in self.manifest["files"]:
            if file.startswith(f"{self.name}_items_"):
                try:
                    found |= unpack(self._content(file))
                except (UsageError, *GARBLED) as error:
                    say(str(error))
        return found

    def check(self) -> None:
        """Read every file.

        Raises:
            UsageError: one of them is not the one that was published.
        """
        for file in self.manifest["files"]:
            self._content(file)

    def _without(self, file: str) -> pd.DataFrame:
        """Return a table that a report can do without: empty if it is damaged, which is then said."""
        try:
            return self._table(file)
        except (UsageError, *GARBLED) as error:
            say(str(error))
            return empty()

    def _table(self, file: str) -> pd.DataFrame:
        content = self._content(file) if file in self.manifest["files"] else b""
        compression = "gzip" if file.endswith(".gz") else None
        return parsed(io.BytesIO(content), compression) if content else empty()

    def _content(self, file: str) -> bytes:
        """Return a file with the content that the manifest names.

        Raises:
            UsageError: it is not there.
        """
        digest, path = self.manifest["files"][file], self.folder / file
        for each in (path, _ready(path, digest), path):  # it may be put in its place between two looks
            with contextlib.suppress(OSError):
                content = _read(each)
                if hashlib.sha256(content).hexdigest() == digest:
                    return content
        raise UsageError(
            f"{path} is not what was published with {self.name}.json: fetch both anew, or publish the study again."
        )


def _read(path: Path) -> bytes:
    """Return the content of a file; a link is none, wherever it leads."""
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
        return file.read()


def find(name: str, folders: Iterable[Path]) -> Evidence | None:
    """Return the evidence of a study from the first of some folders that has any, None if none has.

    Raises:
        UsageError: there is a <study>.json that `write` did not write.
    """
    for folder in folders:
        path = folder / f"{name}.json"
        try:
            manifest = json.loads(_read(path))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, *GARBLED) as error:
            raise UsageError(
                f"{path} is no JSON ({brief(error)}): fetch it anew, or publish the study again."
            ) from error
        if not isinstance(manifest, dict) or not set(OWN) <= manifest.keys() or not _holds_together(manifest, name):
            raise UsageError(f"{path} names no files: publish the study again.")
        return Evidence(folder, name, manifest)
    return None


def _holds_together(manifest: Mapping[str, Any], name: str) -> bool:
    """Return whether a manifest names files of its own study with their digests, and metrics that are some."""
    files, shared = manifest["files"], manifest["shared"]
    try:
        tuple(map(from_dict, manifest["metrics"]))
        own = all(re.fullmatch(rf"{re.escape(name)}[\w.]*", file) for file in files)
        return own and isinstance(shared, dict) and all(len(files[file]) == 64 for file in files)
    except (KeyError, TypeError, AttributeError):
        return False


def write(folder: Path, name: str, files: Mapping[str, bytes], about: Mapping[str, Any]) -> None:
    """Replace the evidence of a study in one step: whenever this is killed, the old is there whole, or the new.

    Args:
        folder: where evidence lies.
        name: of the study.
        files: content by name.
        about: ``shared``, ``metrics`` and the study as it was asked.
    """
    digests = {file: hashlib.sha256(content).hexdigest() for file, content in files.items()}
    for file, content in files.items():
        _write(_ready(folder / file, digests[file]), content)
    _write(folder / f"{name}.json", (json.dumps({**about, "files": digests}, indent=1) + "\n").encode())
    for file, digest in digests.items():
        _ready(folder / file, digest).replace(folder / file)
    for path in _files_of(name, folder):
        if path.name not in files:
            path.unlink()


def _write(path: Path, content: bytes) -> None:
    with whole(path) as file:
        file.write(content)


def _ready(path: Path, digest: str) -> Path:
    """Return where new content of a file lies until the manifest names it."""
    return path.with_name(f".{path.name}.{digest[:16]}")


def _files_of(name: str, folder: Path) -> list[Path]:
    """Return all published files of a study but its manifest, and what a publication that was killed left of them."""
    published = (
        f"{name}.csv*",
        f"{name}_settings.csv",
        f"{name}_unfinished.csv",
        f"{name}_history.csv*",
        f"{name}_items_*.npz",
    )
    patterns = [pattern for own in published for pattern in (own, f".{own}.*", f"..{own}.*")]
    return [path for pattern in (*patterns, f".{name}.json.*.part") for path in folder.glob(pattern)]


def read_csv(path: Path) -> pd.DataFrame:
    """Return a table of records, empty if there is none."""
    return parsed(path) if path.exists() and path.stat().st_size > 1 else empty()


def parsed(source: Path | io.StringIO | io.BytesIO, compression: str | None = None) -> pd.DataFrame:
    """Return a table of records from CSV; numbers are those that were written, to the last bit."""
    import pandas as pd

    return pd.read_csv(
        source,
        compression=compression,  # pyright: ignore[reportArgumentType]
        dtype=dict.fromkeys(TEXTS, str),
        low_memory=False,
    )


def empty() -> pd.DataFrame:
    """Return a table without rows and columns."""
    import pandas as pd

    return pd.DataFrame()
