"""Checkpoints: everything that a run needs to go on bit for bit, whole or not there at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

NAME = "checkpoint.pt"


def save(folder: Path, state: Mapping[str, Any]) -> None:
    """Write tensors and plain data; a process that is killed meanwhile leaves the checkpoint before."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / ".checkpoint.part"
    torch.save(dict(state), part)
    part.replace(folder / NAME)


def load(folder: Path, device: torch.device) -> dict[str, Any] | None:
    """Return what was saved, tensors on the device, or None."""
    try:
        return torch.load(folder / NAME, map_location=device, weights_only=True)
    except FileNotFoundError:
        return None
