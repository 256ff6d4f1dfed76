"""What the files of a data set hold, as one digest: of names and bytes, wherever the files lie."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from harness import journal
from harness.paths import RESULTS

SETTLED = 2.0
"""Seconds after which a changed file is taken to be at rest: a second change in the same tick would go unseen."""
Pattern = str | tuple[str, ...]


class Digests:
    """Digests of files and folders, kept by path, sizes, times of change and inodes, so that they are read once.

    Args:
        results: the journal ``digests.jsonl`` lies here.
    """

    def __init__(self, results: Path = RESULTS) -> None:
        self.journal = results / "digests.jsonl"
        self._known: dict[str, tuple[str, str]] | None = None

    @property
    def known(self) -> dict[str, tuple[str, str]]:
        """State and digest by path, as last found."""
        if self._known is None:
            found = journal.entries(self.journal)
            self._known = {str(e.get("path")): (str(e.get("state")), str(e.get("digest"))) for e in found}
        return self._known

    def of(self, root: Path, patterns: Iterable[Pattern], settings: Mapping[str, Any]) -> str | None:
        """Return 16 hexadecimal digits of all files that a data set reads, None if there are none.

        Args:
            root: folder of all data sets.
            patterns: as `datasets.files.reads` takes them.
            settings: of the data set, for names in braces.
        """
        digest, found = hashlib.sha256(), False
        for pattern in patterns:
            for choice in (pattern,) if isinstance(pattern, str) else pattern:
                paths = sorted(_matches(root, choice.format_map(_Settings(settings))))
                if paths:
                    break
            else:
                continue
            for path in paths:
                found = True
                digest.update(f"{path.name} {self.of_path(path)}\n".encode())
        return digest.hexdigest()[:16] if found else None

    def of_path(self, path: Path) -> str:
        """Return the digest of a file, or of everything in a folder with its names."""
        files = sorted(_files(path))
        state, newest = hashlib.sha256(), 0.0
        for name, about in files:
            state.update(f"{name}\0{about.st_size} {about.st_mtime_ns} {about.st_ino}\n".encode())
            newest = max(newest, about.st_mtime)
        key, seen = str(path.resolve()), state.hexdigest()[:32]
        if self.known.get(key, ("", ""))[0] == seen:
            return self.known[key][1]
        settled = newest < time.time() - SETTLED
        digest = _hashed(path, [name for name, _ in files])
        if settled:
            self.known[key] = (seen, digest)
            journal.append(self.journal, {"path": key, "state": seen, "digest": digest})
        return digest


class _Settings(dict[str, Any]):
    """Settings of a data set; one that it does not have stands for nothing."""

    def __missing__(self, key: str) -> str:
        return ""


def _matches(root: Path, pattern: str) -> Iterator[Path]:
    """Yield the files and folders of a pattern, which may be an absolute path."""
    if not any(mark in pattern for mark in "*?["):
        yield from [root / pattern] if (root / pattern).exists() else []
        return
    yield from root.glob(pattern)


def _files(path: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield all files below a folder, by name relative to it, or the file itself; hidden ones are not data."""
    if path.is_file():
        yield "", path.stat()
        return
    waiting = [(str(path), "")]
    while waiting:
        folder, inside = waiting.pop()
        with os.scandir(folder) as found:
            for entry in found:
                if entry.name.startswith("."):
                    continue
                name = f"{inside}{entry.name}"
                if entry.is_dir():
                    waiting.append((entry.path, f"{name}/"))
                elif entry.is_file():  # a link that leads nowhere is none
                    yield name, entry.stat()


def _hashed(path: Path, names: list[str]) -> str:
    def one(name: str) -> str:
        with (path / name if name else path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    digest = hashlib.sha256()
    with ThreadPoolExecutor(min(8, len(names) or 1)) as pool:  # hashing and reading leave the interpreter free
        for name, content in zip(names, pool.map(one, names), strict=True):
            digest.update(f"{name}\0{content}\n".encode())
    return digest.hexdigest()[:32]
