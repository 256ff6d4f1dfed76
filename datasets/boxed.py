"""Boxes as files hold them: COCO's JSON, Pascal VOC's XML, and the texts of YOLO, without opening an image."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any
from xml.etree import ElementTree

import yaml

from datasets.listings import PARTS
from datasets.parts import at_end, image_files, listed, tails
from datasets.pixels import some
from datasets.splits import MissingData

LISTS = ("", "ImageSets/Main", "ImageSets", "splits", "split", "lists")
"""Folders in which a list of each part may lie."""
OBJECTS = "instances"
"""In the name of COCO's own list of objects."""
DEEP = 3
"""Folders below which no list of COCO's is looked for."""
NAME_FILES = ("classes.txt", "labels/classes.txt", "obj.names", "data/obj.names")
"""Where YOLO's names of classes may lie, one a line."""

Box = tuple[float, float, float, float, str]
"""Left, top, right, bottom, and the name of the class."""


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
    """What a folder holds.

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


def find(home: Path) -> Found:
    """Return the images below a folder and the boxes in them, whichever format these have.

    Raises:
        MissingData: there is no such folder, no boxes in it, or a file is damaged.
    """
    if not home.is_dir():
        raise MissingData(f"there is no folder {home.resolve()}; name one in dataset.path.")
    found = next((found for read in (coco, voc, yolo) if (found := read(home)) is not None), None)
    if found is None:
        raise MissingData(
            f"{home.resolve()} has no boxes that are understood: it needs COCO's JSON (images, annotations, "
            "categories), an XML file of Pascal VOC for each image, or labels of YOLO (labels/NAME.txt for "
            "images/NAME.jpg)."
        )
    if "train" not in found.parts:
        raise MissingData(f"{home.resolve()} has no training images, only those of {' and '.join(found.parts)}.")
    return found


def _part(path: Path, home: Path) -> str:
    """Return the part that the folders of a file say, or nothing: `train` of `train2017/1.jpg`."""
    folders = (re.sub(r"[ _-]?\d*$", "", name.lower()) for name in path.relative_to(home).parts[:-1])
    return next((PARTS[folder] for folder in folders if folder in PARTS), "")


def _part_of_list(file: Path, home: Path) -> str:
    """Return the part that the name of a list or its folders say, or nothing: `valid` of `instances_val2017.json`."""
    words = re.findall(r"[a-z]+", file.stem.lower())
    return next((PARTS[word] for word in words if word in PARTS), "") or _part(file, home)


# ---------------------------------------------------------------- COCO


def coco(home: Path) -> Found | None:
    """Return what JSON files in the format of COCO say, None if there is none.

    Crowds (`iscrowd`), which are no single objects, are left out.
    """
    files = [file for deep in range(DEEP) for file in sorted(home.glob("*/" * deep + "*.json"))]
    read = {file: content for file in files if (content := _coco_content(file)) is not None}
    by_part: dict[str, Path] = {}
    for file in read:
        part = _part_of_list(file, home) or "train"
        if part in by_part and OBJECTS in by_part[part].name and OBJECTS not in file.name:
            continue  # beside it lies one of key points, say, of the same images
        if part in by_part:
            both = f"{by_part[part].relative_to(home)} and {file.relative_to(home)}"
            raise MissingData(f"{both} both list images of the part {part}; take one of them away.")
        by_part[part] = file
    if not by_part:
        return None
    known, names, crowds, parts = tails(home, image_files(home)), {}, 0, {}
    for part, file in by_part.items():
        content = read[file]
        try:
            names |= {entry["id"]: str(entry["name"]) for entry in content["categories"]}
            crowds += sum(bool(entry.get("iscrowd")) for entry in content["annotations"])
            parts[part] = _coco_images(file, content, names, known)
        except KeyError as error:
            raise MissingData(f"{file} has an entry without {error}, which the format of COCO asks for.") from None
    classes = tuple(dict.fromkeys(names[number] for number in sorted(names)))
    notes = [f"{crowds} crowds are left out, as their boxes hold no single object."] if crowds else []
    return Found("COCO", parts, classes, notes)


def _coco_content(file: Path) -> dict[str, Any] | None:
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


def _coco_images(
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
        elif not entry.get("iscrowd"):
            left, top, width, height = box
            boxes[image].append((left, top, left + width, top + height, names[entry["category_id"]]))
    return [
        Boxed(
            next(iter(_nearest(entry["file_name"], file, known)), file.parent / entry["file_name"]),
            tuple(boxes[entry["id"]]),
            (entry["width"], entry["height"]) if entry.get("width") and entry.get("height") else None,
            problem=wrong.get(entry["id"]),
        )
        for entry in content["images"]
    ]


def _nearest(name: str, file: Path, known: Mapping[str, list[Path]]) -> list[Path]:
    """Return the images that a file of boxes means by a name: of several, those whose folder is named most like it."""
    found = at_end(name, known)
    words = set(re.findall(r"[a-z]+", file.as_posix().lower()))

    def likeness(path: Path) -> int:
        return len(words & set(re.findall(r"[a-z]+", path.parent.as_posix().lower())))

    best = max(map(likeness, found), default=0)
    return [path for path in found if likeness(path) == best]


# ---------------------------------------------------------------- Pascal VOC


def voc(home: Path) -> Found | None:
    """Return what XML files in the format of Pascal VOC say, None if there is none.

    Pixels are counted from 1 there. Objects that are marked as difficult are left out, as its evaluation leaves them.
    """
    files = sorted(file for file in home.rglob("*.xml") if not file.name.startswith("."))
    read = [(file, root) for file in files if (root := _voc_root(file)) is not None]
    if not read:
        return None
    pictures = image_files(home)
    known, difficult, by_image = tails(home, pictures), 0, {}
    for file, root in read:
        name = root.findtext("filename") or ""
        image = [*_nearest(name, file, known), *_nearest(file.stem, file, known), file.with_name(name or file.stem)][0]
        objects = root.findall("object")
        easy = [each for each in objects if (each.findtext("difficult") or "0").strip() != "1"]
        difficult += len(objects) - len(easy)
        by_image[image] = _voc_image(image, root, easy)
    parts: dict[str, list[Boxed]] = {}
    if lists := listed(home, [*by_image], LISTS):
        parts = {part: [by_image[path] for path in paths] for part, paths in lists.items()}
    else:
        for image, boxed in by_image.items():
            parts.setdefault(_part(image, home) or "train", []).append(boxed)
    classes = tuple(sorted({box[4] for boxed in by_image.values() for box in boxed.boxes}))
    notes = [f"{difficult} objects that are marked as difficult are left out."] if difficult else []
    folders = {path.parent for path in by_image}  # others hold something else, such as masks
    if rest := [path.name for path in pictures if path not in by_image and path.parent in folders]:
        notes.append(f"{len(rest)} images have no XML file and are left out: {some(rest)}.")
    return Found("VOC", parts, classes, notes)


def _voc_root(file: Path) -> ElementTree.Element | None:
    content = file.read_bytes()
    if b"<annotation" not in content:
        return None
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise MissingData(f"{file} cannot be read as XML ({error}); mend or remove it.") from None
    return root if root.tag == "annotation" else None


def _voc_image(image: Path, root: ElementTree.Element, objects: Sequence[ElementTree.Element]) -> Boxed:
    boxes, problem = [], None
    for each in objects:
        try:
            left, top, right, bottom = (float(each.findtext(f"bndbox/{name}") or "") for name in VOC_SIDES)
        except ValueError:
            problem = f"has an object {each.findtext('name')} without a box"
            continue
        boxes.append((left - 1, top - 1, right, bottom, (each.findtext("name") or "object").strip()))
    try:
        width, height = (int(root.findtext(f"size/{name}") or 0) for name in ("width", "height"))
    except ValueError:
        width = height = 0
    return Boxed(image, tuple(boxes), (width, height) if width and height else None, problem=problem)


VOC_SIDES = ("xmin", "ymin", "xmax", "ymax")

# ---------------------------------------------------------------- YOLO


def yolo(home: Path) -> Found | None:
    """Return what texts in the format of YOLO say, None if there is none: class, centre, width and height in shares.

    A line with more numbers holds the corners of an outline, whose box is taken. An image without a text has no boxes.
    """
    pictures = image_files(home)
    texts = {picture: text for picture in pictures if (text := _yolo_text(picture)) is not None}
    if not any(_is_yolo(text) for text in texts.values()):
        return None
    file, content = _yolo_yaml(home)
    names = _yolo_names(home, content)
    read, most = {}, -1
    for picture in pictures:
        boxes, problem, numbers = _yolo_boxes(texts.get(picture), names)
        read[picture] = Boxed(picture, tuple(boxes), shares=True, problem=problem)
        most = max(most, *numbers, -1)
    notes = []
    if not names:
        notes.append("no data.yaml or classes.txt names the classes, so they have numbers.")
    if bare := [picture.name for picture in pictures if picture not in texts]:
        notes.append(f"{len(bare)} images have no label file and count as images without objects: {some(bare)}.")
    parts = _yolo_parts(home, file, content, read, notes)
    return Found("YOLO", parts, names or tuple(f"class_{number}" for number in range(most + 1)), notes)


def _yolo_text(picture: Path) -> Path | None:
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


def _yolo_yaml(home: Path) -> tuple[Path | None, dict[str, Any]]:
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


def _yolo_names(home: Path, content: Mapping[str, Any]) -> tuple[str, ...]:
    names = content.get("names")
    if isinstance(names, Mapping):
        return tuple(str(names.get(number, f"class_{number}")) for number in range(max(map(int, names)) + 1))
    if names:
        return tuple(map(str, names))
    file = next((home / name for name in NAME_FILES if (home / name).is_file()), None)
    lines = file.read_text(encoding="utf-8-sig").splitlines() if file else []
    return tuple(line.strip() for line in lines if line.strip())


def _yolo_boxes(text: Path | None, names: Sequence[str]) -> tuple[list[Box], str | None, list[int]]:
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
            boxes.append((across - width / 2, down - height / 2, across + width / 2, down + height / 2, name))
        else:
            boxes.append((min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2]), name))
    return boxes, None, numbers


def _yolo_parts(
    home: Path, file: Path | None, content: Mapping[str, Any], read: Mapping[Path, Boxed], notes: list[str]
) -> dict[str, list[Boxed]]:
    """Return images by part: as the YAML file names folders or lists, else as folders are named."""
    parts: dict[str, list[Boxed]] = {}
    taken: dict[Path, str] = {}
    for key in ("train", "val", "valid", "test") if file else ():
        entries = content.get(key) or []
        paths = [path for entry in _strings(entries) for path in _yolo_entry(home, content, entry, key, read)]
        if paths and (first := next((taken[path] for path in paths if path in taken), None)):
            notes.append(f"{key} and {first} share images in {file and file.name}, so {key} is not used.")
            continue
        taken |= dict.fromkeys(paths, key)
        if paths:
            parts[PARTS[key]] = [read[path] for path in paths]
    if not parts:
        for path, boxed in read.items():
            parts.setdefault(_part(path, home) or "train", []).append(boxed)
    elif rest := [path.name for path in read if path not in taken]:
        notes.append(f"{len(rest)} images are in no part that is named and left out: {some(rest)}.")
    return parts


def _strings(entries: Any) -> Iterable[str]:
    return [entries] if isinstance(entries, str) else map(str, entries)


def _yolo_entry(home: Path, content: Mapping[str, Any], entry: str, key: str, read: Mapping[Path, Boxed]) -> list[Path]:
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
        return [path for path in read if path.resolve().is_relative_to(place)]
    known = tails(home, list(read))
    lines = [line for line in place.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    found = {line: at_end(line, known) for line in lines}
    if missing := [line for line, paths in found.items() if not paths]:
        raise MissingData(f"{place} lists {len(missing)} images that are absent ({some(missing)}); mend the list.")
    return [paths[0] for paths in found.values()]
