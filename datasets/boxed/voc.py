"""Boxes in the XML files of Pascal VOC, one for each image: four edges in pixels that are counted from 1."""

from pathlib import Path
from xml.etree import ElementTree

from datasets.boxed import Box, Boxed, Found, nearest, part_of
from datasets.boxes import DIFFICULT
from datasets.parts import image_files, listed, tails
from datasets.pixels import some
from datasets.splits import MissingData

LISTS = ("", "ImageSets/Main", "ImageSets", "splits", "split", "lists")
"""Folders in which a list of each part may lie."""
SIDES = ("xmin", "ymin", "xmax", "ymax")


def read(home: Path) -> Found | None:
    """Return what XML files in the format of Pascal VOC say, None if there is none.

    Objects that are marked as difficult are ignored boxes.
    """
    files = sorted(file for file in home.rglob("*.xml") if not file.name.startswith("."))
    roots = [(file, root) for file in files if (root := root_of(file)) is not None]
    if not roots:
        return None
    pictures = image_files(home)
    known, by_image = tails(home, pictures), {}
    for file, root in roots:
        name = root.findtext("filename") or ""
        image = [*nearest(name, file, known), *nearest(file.stem, file, known), file.with_name(name or file.stem)][0]
        by_image[image] = image_of(image, root)
    parts: dict[str, list[Boxed]] = {}
    if lists := listed(home, [*by_image], LISTS):
        parts = {part: [by_image[path] for path in paths] for part, paths in lists.items()}
    else:
        for image, boxed in by_image.items():
            parts.setdefault(part_of(image, home) or "train", []).append(boxed)
    classes = tuple(sorted({box.label for boxed in by_image.values() for box in boxed.boxes}))
    notes = []
    folders = {path.parent for path in by_image}  # others hold something else, such as masks
    if rest := [path.name for path in pictures if path not in by_image and path.parent in folders]:
        notes.append(f"{len(rest)} images have no XML file and are left out: {some(rest)}.")
    return Found("VOC", parts, classes, notes)


def root_of(file: Path) -> ElementTree.Element | None:
    """Return the annotation in an XML file, None if it is something else.

    Raises:
        MissingData: it is damaged.
    """
    content = file.read_bytes()
    if b"<annotation" not in content:
        return None
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise MissingData(f"{file} cannot be read as XML ({error}); mend or remove it.") from None
    return root if root.tag == "annotation" else None


def image_of(image: Path, root: ElementTree.Element) -> Boxed:
    """Return an image with the boxes that its annotation says."""
    boxes, problem = [], None
    for each in root.findall("object"):
        try:
            left, top, right, bottom = (float(each.findtext(f"bndbox/{name}") or "") for name in SIDES)
        except ValueError:
            problem = f"has an object {each.findtext('name')} without a box"
            continue
        label = (each.findtext("name") or "object").strip()
        ignored = DIFFICULT if (each.findtext("difficult") or "0").strip() == "1" else 0
        boxes.append(Box(left - 1, top - 1, right, bottom, label, ignored))
    try:
        width, height = (int(root.findtext(f"size/{name}") or 0) for name in ("width", "height"))
    except ValueError:
        width = height = 0
    return Boxed(image, tuple(boxes), (width, height) if width and height else None, problem=problem)
