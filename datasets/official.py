"""Image sets in their official files: where they lie, whether they are whole, how they get there.

torchvision downloads and reads them. A download is put together beside its destination and moved there when its
checksums are right, so one that is interrupted at any moment harms nothing and goes on when it is asked for again.
"""

import contextlib
import fcntl
import http.client
import os
import shlex
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from torch import Tensor
from torchvision.datasets import CIFAR10
from torchvision.datasets.utils import check_integrity

from datasets.splits import Images, MissingData, Splits, SplitSettings, numbered, split

PATIENCE = 60
"""Seconds without a byte after which a download gives up."""


@dataclass(frozen=True)
class Source:
    """A data set that torchvision knows.

    Attributes:
        title: How people call it.
        name: How the command line calls it; also its folder below the data root.
        kind: torchvision's class.
        checksums: Official md5 of every file, by path below the set's folder.
    """

    title: str
    name: str
    kind: Callable[..., Any]
    checksums: Callable[[], Mapping[str, str]]

    def home(self, root: Path) -> Path:
        """The folder that torchvision calls root: `root/name`, or `root` itself where it holds the files."""
        first = Path(next(iter(self.checksums()))).parts[0]
        return root if (root / first).is_dir() and not (root / self.name).is_dir() else root / self.name

    def problem(self, home: Path) -> str | None:
        """What is wrong with the files in this folder, or None: 'absent', or 'damaged' and the first file at fault."""
        checksums = self.checksums()
        missing = [file for file in checksums if not (home / file).is_file()]
        if len(missing) == len(checksums):
            return "absent"
        if missing:
            return f"damaged ({missing[0]} is missing)"
        wrong = next((file for file, md5 in checksums.items() if not check_integrity(home / file, md5)), None)
        return wrong and f"damaged ({wrong} does not match its official checksum)"

    def missing(self, root: Path, trouble: str) -> MissingData:
        """The error that says what is wrong in which folder, and what to do."""
        return MissingData(
            f"{self.title} {trouble} {self.home(root).resolve()}; get it with "
            f"`python -m scripts.fetch {self.name} --root {shlex.quote(str(root))}`, "
            f"or name the folder that has it in LOSSBENCH_DATA or data.root."
        )


def cifar_checksums(kind: type[CIFAR10]) -> dict[str, str]:
    """torchvision's table for CIFAR-10 and CIFAR-100: md5 by path."""
    listed = [*kind.train_list, *kind.test_list, [kind.meta["filename"], kind.meta["md5"]]]
    return {f"{kind.base_folder}/{file}": md5 for file, md5 in listed}


def read_official(source: Source, root: Path, *, download: bool, **common: Unpack[SplitSettings]) -> Splits:
    """Read a data set and divide it as ``splits.split`` does.

    Args:
        source: Which one.
        root: Folder of all data sets.
        download: Whether to fetch what is absent or damaged.
        common: Settings as in `splits.SplitSettings`.

    Raises:
        MissingData: The files are absent or damaged, or could not be downloaded.
        ValueError: A size cannot be had.
    """
    problem = source.problem(source.home(root))
    if problem and download:
        fetch(source, root)
    elif problem:
        raise source.missing(root, f"is {problem} in")
    train, test = (source.kind(source.home(root), train=train) for train in (True, False))
    return split(source.title, _images(train), _images(test), tuple(train.classes), **common)


def _images(official: Any) -> Images:
    pixels: np.ndarray | Tensor = official.data
    # CIFAR is (N, H, W, 3) in numpy, the MNIST family (N, H, W) in torch
    pixels = (
        np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)) if isinstance(pixels, np.ndarray) else pixels.unsqueeze(1)
    )
    return numbered(pixels, official.targets)


def fetch(source: Source, root: Path) -> Path:
    """Download a data set with a progress bar, unless it is there and whole; return its folder.

    Raises:
        MissingData: It could not be downloaded.
    """
    home = source.home(root)
    staging = home / ".download"
    if source.problem(home):
        try:
            with _alone(home), _impatient():
                if source.problem(home):  # no other process has fetched it meanwhile
                    _download(source, staging, home)
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise source.missing(root, f"could not be downloaded ({reason}) into") from error
    shutil.rmtree(staging, ignore_errors=True)
    return home


def _download(source: Source, staging: Path, home: Path) -> None:
    # torchvision trusts an unpacked file of the right name, which an interruption may have cut short
    for file, md5 in source.checksums().items():
        if not check_integrity(staging / file, md5):
            (staging / file).unlink(missing_ok=True)
    source.kind(staging, train=False, download=True)
    if problem := source.problem(staging):
        raise RuntimeError(f"what came is {problem}")
    for file in source.checksums():
        (home / file).parent.mkdir(parents=True, exist_ok=True)
        (staging / file).replace(home / file)


@contextlib.contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Wait until no other process downloads into this folder; a process that dies lets go by itself."""
    home.mkdir(parents=True, exist_ok=True)
    opened = os.open(home / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)  # no file of another behind a link
    with os.fdopen(opened, "r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _impatient() -> Iterator[None]:
    """Give up on a server that falls silent; torchvision would wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


@contextlib.contextmanager
def downloading(home: Path) -> Iterator[None]:
    """Download into a folder while no other process does, and give up on a server that falls silent."""
    with _alone(home), _impatient():
        yield
