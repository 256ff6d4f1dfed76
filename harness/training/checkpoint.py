"""Checkpoints: everything that a run needs to go on bit for bit, whole or not there at all."""

from __future__ import annotations

import contextlib
import errno
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from harness.records import store

NAME = "checkpoint.pt"


class Damaged(Exception):
    """A checkpoint is not what a run saved; it was set aside, so that the run starts anew."""


def save(folder: Path, state: Mapping[str, Any]) -> None:
    """Write tensors and plain data; a process that is killed meanwhile leaves the checkpoint before.

    Raises:
        OSError: it cannot be written.
    """
    try:
        with store.whole(folder / NAME) as file:
            torch.save(dict(state), file)
    except RuntimeError as error:  # so torch calls a disk that is full
        raise OSError(errno.EIO, "it could not be written") from error


@contextlib.contextmanager
def opened(folder: Path, device: torch.device) -> Iterator[dict[str, Any] | None]:
    """Yield what was saved, tensors on the device, or None; meant for the block that takes it over.

    Raises:
        Damaged: the checkpoint cannot be read, or not be taken over.
    """
    path = folder / NAME
    if not path.is_file():
        yield None
        return
    try:
        with zipfile.ZipFile(path) as archive:  # torch does not look at the checksums that it writes
            if name := archive.testzip():
                raise zipfile.BadZipFile(f"{name} does not have its checksum")
        yield torch.load(path, map_location=device, weights_only=True)
    except (OSError, MemoryError, torch.OutOfMemoryError):
        raise  # says nothing of the checkpoint
    except Exception as error:
        store.set_aside(path, f"it is no checkpoint of this run ({store.brief(error)})", "the run starts anew")
        raise Damaged(store.damaged[-1]) from error
