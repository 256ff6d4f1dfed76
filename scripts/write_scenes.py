"""python -m scripts.write_scenes FOLDER --form coco|voc|yolo [dataset.train_size=200 ...]: images with boxes as files.

What is written is the data set of task=detection, scenes of many digits unless dataset=NAME says otherwise, in a layout
that dataset=boxes and other programs read: an example of how a folder of one's own may look.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
import yaml
from PIL import Image

from datasets.boxes import CROWD, DIFFICULT, BoxSplits
from datasets.decoded import chunks, in_memory

NAMES = {"train": "train", "valid": "val", "test": "test"}
"""What the formats call the parts."""


class Scene(NamedTuple):
    """An image and its boxes.

    Attributes:
        name: of its file, without suffix.
        image: uint8 (C, H, W).
        boxes: left, top, right, bottom in pixels, class and `ignored`.
    """

    name: str
    image: np.ndarray
    boxes: list[tuple[float, float, float, float, int, int]]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.image.shape[2], self.image.shape[1]


def scenes(splits: BoxSplits, part: str) -> Iterator[Scene]:
    """Yield the images of a part in their order, with their boxes."""
    images = (image for chunk in chunks(splits.parts[part].images) for image in chunk.numpy())
    for row, (image, target) in enumerate(zip(images, in_memory(splits.parts[part].targets).tolist(), strict=True)):
        boxes = [(*box[:4], int(box[4]), int(box[5])) for box in target if box[4] >= 0]
        yield Scene(f"{NAMES[part]}_{row:05}", image, boxes)


def coco(splits: BoxSplits, home: Path) -> None:
    """Write COCO's layout: ``annotations/instances_train.json`` and images in ``train``, and so on.

    All ids count from 1, as COCO's evaluator takes the id 0 of a box for none. Crowds have `iscrowd`.
    """
    (home / "annotations").mkdir(parents=True, exist_ok=True)
    categories = [{"id": number, "name": name} for number, name in enumerate(splits.classes, 1)]
    for part, name in NAMES.items():
        content: dict[str, list[Any]] = {"images": [], "annotations": [], "categories": categories}
        for number, scene in enumerate(scenes(splits, part), 1):
            width, height = scene.size
            file = _saved(scene, home / name).name
            content["images"].append({"id": number, "file_name": file, "width": width, "height": height})
            for left, top, right, bottom, label, ignored in scene.boxes:
                box = [left, top, right - left, bottom - top]
                about = {"id": len(content["annotations"]) + 1, "image_id": number, "category_id": label + 1}
                crowd = {"area": box[2] * box[3], "iscrowd": int(ignored == CROWD)}
                content["annotations"].append({**about, "bbox": box, **crowd})
        (home / "annotations" / f"instances_{name}.json").write_text(json.dumps(content))


def voc(splits: BoxSplits, home: Path) -> None:
    """Write Pascal VOC's layout: ``JPEGImages`` (as PNG), ``Annotations``, and lists in ``ImageSets/Main``.

    Pixels count from 1 there. Difficult objects are marked.
    """
    for folder in ("Annotations", "ImageSets/Main"):
        (home / folder).mkdir(parents=True, exist_ok=True)
    for part, name in NAMES.items():
        listed = []
        for scene in scenes(splits, part):
            root = ElementTree.Element("annotation")
            ElementTree.SubElement(root, "filename").text = _saved(scene, home / "JPEGImages").name
            _children(ElementTree.SubElement(root, "size"), zip(("width", "height"), scene.size, strict=True))
            for left, top, right, bottom, label, ignored in scene.boxes:
                entry = ElementTree.SubElement(root, "object")
                _children(entry, [("name", splits.classes[label]), ("difficult", int(ignored == DIFFICULT))])
                edges = zip(("xmin", "ymin", "xmax", "ymax"), (left + 1, top + 1, right, bottom), strict=True)
                _children(ElementTree.SubElement(entry, "bndbox"), edges)
            ElementTree.indent(root)
            ElementTree.ElementTree(root).write(home / "Annotations" / f"{scene.name}.xml")
            listed.append(f"{scene.name}\n")
        (home / "ImageSets" / "Main" / f"{name}.txt").write_text("".join(listed))


def yolo(splits: BoxSplits, home: Path) -> None:
    """Write YOLO's layout: ``images/train``, ``labels/train`` and so on, and ``data.yaml``.

    A label is the class, then centre, width and height in shares of the image. Crowds and difficult objects, which the
    format does not know, are left out.
    """
    for part, name in NAMES.items():
        (home / "labels" / name).mkdir(parents=True, exist_ok=True)
        for scene in scenes(splits, part):
            _saved(scene, home / "images" / name)
            width, height = scene.size
            rows = [
                f"{label} {(left + right) / 2 / width} {(top + bottom) / 2 / height} "
                f"{(right - left) / width} {(bottom - top) / height}\n"
                for left, top, right, bottom, label, ignored in scene.boxes
                if not ignored
            ]
            (home / "labels" / name / f"{scene.name}.txt").write_text("".join(rows))
    content = {**{name: f"images/{name}" for name in NAMES.values()}, "names": list(splits.classes)}
    (home / "data.yaml").write_text(yaml.safe_dump(content, sort_keys=False))


FORMS: dict[str, Callable[[BoxSplits, Path], None]] = {"coco": coco, "voc": voc, "yolo": yolo}


def _saved(scene: Scene, folder: Path) -> Path:
    """Write the image of a scene as PNG; return its file."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = scene.image.transpose(1, 2, 0)
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(folder / f"{scene.name}.png")
    return folder / f"{scene.name}.png"


def _children(parent: ElementTree.Element, values: Any) -> None:
    for name, value in values:
        ElementTree.SubElement(parent, name).text = f"{value:.17g}" if isinstance(value, float) else str(value)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the data set into a folder that is empty or absent; return the exit code: 0, or 2 if it cannot be."""
    parser = argparse.ArgumentParser(prog="python -m scripts.write_scenes", description=__doc__)
    parser.add_argument("folder", type=Path, help="where to write; it must be empty or absent")
    parser.add_argument("--form", choices=[*FORMS], default="coco", help="of the files (coco)")
    parser.add_argument("overrides", nargs="*", metavar="dataset.SETTING=VALUE", help="settings of the data set")
    options = parser.parse_intermixed_args(arguments)

    # these take seconds to import, so a wrong form is told first
    from harness.compose import compose_run
    from harness.errors import UsageError
    from harness.look.facts import loaded

    try:
        if options.folder.exists() and any(options.folder.iterdir()):
            raise UsageError(f"{options.folder} is not empty: name a folder that is, or that does not exist yet.")
        splits = loaded(compose_run(["task=detection", *options.overrides]).config)
        if not isinstance(splits, BoxSplits):
            raise UsageError(f"this data set has {splits.content}: name one with boxes, such as crowded_scenes.")
        FORMS[options.form](splits, options.folder)
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    counts = ", ".join(f"{len(splits.parts[part])} in {name}" for part, name in NAMES.items())
    print(f"{options.folder} holds images with boxes ({counts}): python -m harness.look data={options.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
