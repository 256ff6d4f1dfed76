"""Boxes in the texts of YOLO, one for each image: class, centre, width and height in shares."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import yaml

from datasets.boxed import Box, Boxed, Found, part_of
from datasets.listings import PARTS
from datasets.parts import at_end, image_files, tails
from datasets.pixels import some
from datasets.splits import MissingData

NAME_FILES = ("classes.txt", "labels/classes.txt", "obj.names", "data/obj.names")
"""Where names of classes may lie, one a line."""


def read(home: Path) -> Found | None:
    """Return what texts in the format of YOLO say, None if there is none: class, centre, width and height in shares.

    A line with more numbers holds the corners of an outline, whose box is taken. An image without a text has no boxes.
    """
    pictures = image_files(home)
    texts = {picture: text for picture in pictures if (text := _text(picture)) is not None}
    if not any(_is_yolo(text) for text in texts.values()):
        return None
    file, content = _yaml(home)
    names = _names(home, content)
    images: dict[Path, Boxed] = {}
    most = -1
    for picture in pictures:
        boxes, problem, numbers = _boxes(texts.get(picture), names)
        images[picture] = Boxed(picture, tuple(boxes), shares=True, problem=problem)
        most = max(most, *numbers, -1)
    notes = []
    if not names:
        notes.append("no data.yaml or classes.txt names the classes, so they have numbers.")
    if bare := [picture.name for picture in pictures if picture not in texts]:
        notes.append(f"{len(bare)} images have no label file and count as images without objects: {some(bare)}.")
    parts = _parts(home, file, content, images, notes)
    return Found("YOLO", parts, names or tuple(f"class_{number}" for number in range(most + 1)), notes)


def _text(picture: Path) -> Path | None:
    """Return the labels of an image: in the folder labels that stands for its folder images, or beside it."""
    places = [place for place, name in enumerate(picture.parts) if name.lower() == "images"]
    texts = [Path(*picture.parts[:place], "labels", *picture.parts[place + 1 :]) for place in places[-1:]]
    return next((t for text in (*texts, picture) if (t := text.with_suffix(".txt")).is_file()), None)


def _is_yolo(text: Path) -> bool:
    """Return whether a text begins as the labels of YOLO do: with a whole number and four others, or more, up to 1."""
    with text.open(encoding="utf-8", errors="replace") as file:
        numbers = file.readline().split()
    try:
        return len(numbers) >= 5 and int(numbers[0]) >= 0 and all(float(value) < 2 for value in numbers[1:])
    except ValueError:
        return False


def _yaml(home: Path) -> tuple[Path | None, dict[str, Any]]:
    """Return the YAML file that describes a data set of YOLO, and its content."""
    for file in sorted(file for end in ("yaml", "yml") for file in home.glob(f"*.{end}")):
        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
        except yaml.YAMLError as error:
            where = " ".join(str(error).split())
            raise MissingData(f"{file} cannot be read as YAML ({where}); mend or remove it.") from None
        if isinstance(content, dict) and "names" in content:
            return file, content
    return None, {}


def _names(home: Path, content: Mapping[str, Any]) -> tuple[str, ...]:
    names = content.get("names")
    if isinstance(names, Mapping):
        return tuple(str(names.get(number, f"class_{number}")) for number in range(max(map(int, names)) + 1))
    if names:
        return tuple(map(str, names))
    file = next((home / name for name in NAME_FILES if (home / name).is_file()), None)
    lines = file.read_text(encoding="utf-8-sig").splitlines() if file else []
    return tuple(line.strip() for line in lines if line.strip())


def _boxes(text: Path | None, names: Sequence[str]) -> tuple[list[Box], str | None, list[int]]:
    """Return the boxes in a label file, what is wrong with it, and the numbers of the classes."""
    boxes, numbers = [], []
    for number, line in enumerate(text.read_text(encoding="utf-8-sig").splitlines() if text else [], 1):
        if not line.strip():
            continue
        where = f"has labels whose line {number}"
        try:
            label, *values = (float(value) for value in line.split())
        except ValueError:
            return boxes, f"{where} holds no numbers ({line[:40]})", numbers
        if label != int(label) or label < 0 or (names and label >= len(names)):
            return boxes, f"{where} has the class {label:g}, and there are {len(names)} names", numbers
        if len(values) < 4 or (len(values) > 5 and len(values) % 2):
            return boxes, f"{where} has {len(values) + 1} numbers instead of 5", numbers
        numbers.append(int(label))
        name = names[int(label)] if names else f"class_{int(label)}"
        if len(values) <= 5:  # of five, the last is how certain a model was
            across, down, width, height = values[:4]
            boxes.append(Box(across - width / 2, down - height / 2, across + width / 2, down + height / 2, name))
        else:
            boxes.append(Box(min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2]), name))
    return boxes, None, numbers


def _parts(
    home: Path, file: Path | None, content: Mapping[str, Any], images: Mapping[Path, Boxed], notes: list[str]
) -> dict[str, list[Boxed]]:
    """Return images by part: as the YAML file names folders or lists, else as folders are named."""
    parts: dict[str, list[Boxed]] = {}
    taken: dict[Path, str] = {}
    for key in ("train", "val", "valid", "test") if file else ():
        entries = content.get(key) or []
        paths = [path for entry in _strings(entries) for path in _entry(home, content, entry, key, images)]
        if paths and (first := next((taken[path] for path in paths if path in taken), None)):
            notes.append(f"{key} and {first} share images in {file and file.name}, so {key} is not used.")
            continue
        taken |= dict.fromkeys(paths, key)
        if paths:
            parts[PARTS[key]] = [images[path] for path in paths]
    if not parts:
        for path, boxed in images.items():
            parts.setdefault(part_of(path, home) or "train", []).append(boxed)
    elif rest := [path.name for path in images if path not in taken]:
        notes.append(f"{len(rest)} images are in no part that is named and left out: {some(rest)}.")
    return parts


def _strings(entries: Any) -> Iterable[str]:
    return [entries] if isinstance(entries, str) else map(str, entries)


def _entry(home: Path, content: Mapping[str, Any], entry: str, key: str, images: Mapping[Path, Boxed]) -> list[Path]:
    """Return the images in a folder or a list that the YAML file names, whose paths may be those of another machine."""
    own = PurePath(entry.replace("\\", "/"))
    inner = PurePath(*[part for part in own.parts if part not in ("..", ".", "/")])
    ends = [PurePath(*inner.parts[start:]) for start in range(len(inner.parts))] or [PurePath()]
    places = [home / own, home / str(content.get("path") or "") / own, *(home / end for end in ends)]
    place = next((place.resolve() for place in places if place.exists()), None)
    if place is None:
        if key == "test":  # as a rule not handed out
            return []
        raise MissingData(f"{home / entry} is named as {key} in the YAML file of {home}, but absent; mend the file.")
    if place.is_dir():
        return [path for path in images if path.resolve().is_relative_to(place)]
    known = tails(home, list(images))
    lines = [line for line in place.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    found = {line: at_end(line, known) for line in lines}
    if missing := [line for line, paths in found.items() if not paths]:
        raise MissingData(f"{place} lists {len(missing)} images that are absent ({some(missing)}); mend the list.")
    return [paths[0] for paths in found.values()]
