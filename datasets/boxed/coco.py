"""Boxes in COCO's JSON: left, top, width and height in pixels, from 0 on."""

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets.boxed import Box, Boxed, Found, nearest, part_of_list
from datasets.boxes import CROWD
from datasets.parts import image_files, tails
from datasets.splits import MissingData

OBJECTS = "instances"
"""In the name of COCO's own list of objects."""
DEEP = 3
"""Folders below which no list of COCO's is looked for."""


def read(home: Path) -> Found | None:
    """Return what JSON files in the format of COCO say, None if there is none.

    Crowds (`iscrowd`), which are no single objects, are ignored boxes.
    """
    files = [file for deep in range(DEEP) for file in sorted(home.glob("*/" * deep + "*.json"))]
    contents = {file: content for file in files if (content := content_of(file)) is not None}
    by_part: dict[str, Path] = {}
    for file in contents:
        part = part_of_list(file, home) or "train"
        if part in by_part and OBJECTS in by_part[part].name and OBJECTS not in file.name:
            continue  # beside it lies one of key points, say, of the same images
        if part in by_part:
            both = f"{by_part[part].relative_to(home)} and {file.relative_to(home)}"
            raise MissingData(f"{both} both list images of the part {part}; take one of them away.")
        by_part[part] = file
    if not by_part:
        return None
    return found_in({part: (file, contents[file]) for part, file in by_part.items()}, tails(home, image_files(home)))


def content_of(file: Path) -> dict[str, Any] | None:
    """Return what a JSON file holds, with those of its annotations that have a box, None if it is no list of boxes.

    Raises:
        MissingData: it looks like one, and is no JSON.
    """
    text = file.read_text(encoding="utf-8-sig", errors="replace")
    if '"annotations"' not in text:
        return None
    try:
        content = json.loads(text)
    except ValueError as error:
        raise MissingData(f"{file} cannot be read as JSON ({error}); mend or remove it.") from None
    wanted = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(name), list) for name in wanted):
        return None
    boxes = [entry for entry in content["annotations"] if "bbox" in entry]
    return {**content, "annotations": boxes} if boxes or not content["annotations"] else None


def found_in(lists: Mapping[str, tuple[Path, Mapping[str, Any]]], known: Mapping[str, list[Path]]) -> Found:
    """Return the images and boxes of lists, by part: each a file and its content.

    Classes are in the order of their ids, which may have gaps. Boxes of images that the same list does not have are
    left out, and counted.

    Args:
        lists: by part.
        known: image files by the ends of their paths, as `datasets.parts.tails` gives them.

    Raises:
        MissingData: an entry lacks what the format asks for.
    """
    names: dict[Any, str] = {}
    parts: dict[str, list[Boxed]] = {}
    homeless = 0
    for part, (file, content) in lists.items():
        try:
            names |= {entry["id"]: str(entry["name"]) for entry in content["categories"]}
            there = {entry["id"] for entry in content["images"]}
            homeless += sum(entry["image_id"] not in there for entry in content["annotations"])
            parts[part] = _images(file, content, names, known)
        except KeyError as error:
            raise MissingData(f"{file} has an entry without {error}, which the format of COCO asks for.") from None
    classes = tuple(dict.fromkeys(names[number] for number in sorted(names)))
    notes = [f"{homeless} boxes belong to images that their list does not have, and are left out."] if homeless else []
    return Found("COCO", parts, classes, notes)


def _images(
    file: Path, content: Mapping[str, Any], names: Mapping[Any, str], known: Mapping[str, list[Path]]
) -> list[Boxed]:
    boxes: dict[Any, list[Box]] = defaultdict(list)
    wrong: dict[Any, str] = {}
    for entry in content["annotations"]:
        image, box = entry["image_id"], entry["bbox"]
        if entry["category_id"] not in names:
            wrong[image] = f"has a box of the class {entry['category_id']}, which {file.name} does not name"
        elif len(box) != 4 or not all(isinstance(value, int | float) for value in box):
            wrong[image] = f"has the box {box}, which is not left, top, width and height"
        else:
            left, top, width, height = box
            ignored = CROWD if entry.get("iscrowd") else 0
            boxes[image].append(Box(left, top, left + width, top + height, names[entry["category_id"]], ignored))
    return [
        Boxed(
            next(iter(nearest(entry["file_name"], file, known)), file.parent / entry["file_name"]),
            tuple(boxes[entry["id"]]),
            (entry["width"], entry["height"]) if entry.get("width") and entry.get("height") else None,
            problem=wrong.get(entry["id"]),
        )
        for entry in content["images"]
    ]
