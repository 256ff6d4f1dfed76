"""Boxes as files hold them, one module a format (COCO, Pascal VOC, YOLO), without opening an image."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from datasets.listings import PARTS
from datasets.parts import at_end


class Box(NamedTuple):
    """The box of an object.

    Attributes:
        left, top, right, bottom: its edges, in pixels or in shares of the width and height of the image.
        label: name of its class.
        ignored: 0 counts, else `datasets.boxes.DIFFICULT` or `datasets.boxes.CROWD`.
    """

    left: float
    top: float
    right: float
    bottom: float
    label: str
    ignored: int = 0


@dataclass(frozen=True)
class Boxed:
    """An image and its boxes.

    Attributes:
        image: its file.
        boxes: in pixels, or in shares of the width and height of the image.
        size: width and height that the boxes are for, in pixels; None: they are shares, or it is not said.
        shares: whether boxes are shares.
        problem: what is wrong with the annotation, if anything.
    """

    image: Path
    boxes: tuple[Box, ...]
    size: tuple[int, int] | None = None
    shares: bool = False
    problem: str | None = None


@dataclass
class Found:
    """What files of boxes hold.

    Attributes:
        form: `COCO`, `VOC` or `YOLO`.
        parts: images by part; `train` alone where none is named.
        classes: all names, in the order of their numbers.
        notes: sentences on what was left out.
    """

    form: str
    parts: dict[str, list[Boxed]]
    classes: tuple[str, ...]
    notes: list[str] = field(default_factory=list)

    @property
    def images(self) -> list[Boxed]:
        """All images, whatever part they lie in."""
        return [each for part in self.parts.values() for each in part]


def part_of(path: Path, home: Path) -> str:
    """Return the part that the folders of a file say, or nothing: `train` of `train2017/1.jpg`."""
    folders = (re.sub(r"[ _-]?\d*$", "", name.lower()) for name in path.relative_to(home).parts[:-1])
    return next((PARTS[folder] for folder in folders if folder in PARTS), "")


def part_of_list(file: Path, home: Path) -> str:
    """Return the part that the name of a list or its folders say, or nothing: `valid` of `instances_val2017.json`."""
    words = re.findall(r"[a-z]+", file.stem.lower())
    return next((PARTS[word] for word in words if word in PARTS), "") or part_of(file, home)


def nearest(name: str, file: Path, known: Mapping[str, list[Path]]) -> list[Path]:
    """Return the images that a file of boxes means by a name: of several, those whose folder is named most like it."""
    found = at_end(name, known)
    words = set(re.findall(r"[a-z]+", file.as_posix().lower()))

    def likeness(path: Path) -> int:
        return len(words & set(re.findall(r"[a-z]+", path.parent.as_posix().lower())))

    best = max(map(likeness, found), default=0)
    return [path for path in found if likeness(path) == best]
