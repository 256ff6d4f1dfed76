"""Layouts of folders of images: a folder for each class, and images beside masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
SIDE = 64
"""Longest side of what small models are given, where images are larger or differ in size."""


def _images(folder: Path) -> list[Path]:
    return sorted(f for f in folder.rglob("*") if f.suffix.lower() in SUFFIXES and not f.name.startswith("."))


def images(path: Path) -> dict[str, Any] | None:
    """Return settings for a folder of images for each class; None: there is none."""
    if not path.is_dir():
        return None
    found = _images(path)
    if not found or len({file.parent for file in found}) < 2:
        return None
    sizes = {Image.open(file).size for file in found[:50]}
    if len(sizes) == 1 and max(max(size) for size in sizes) <= SIDE:
        return {}
    return {"size": [SIDE, SIDE]}


def masks(path: Path) -> dict[str, Any] | None:
    """Return settings for the folders images and masks; None: there are none."""
    if not (path / "images").is_dir() or not (path / "masks").is_dir():
        return None
    count = len(_images(path / "images"))
    return {"valid_size": max(1, count // 5), "test_size": max(1, count // 5)}
