"""Images with boxes of one's own, as COCO, Pascal VOC and YOLO write them: the same boxes come out of each."""

import json

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from datasets.boxes import CROWD, DIFFICULT
from datasets.sources.boxes import boxes, proposed
from datasets.splits import MissingData
from tests.conftest import ROOT

COUNT, WIDTH, HEIGHT = 8, 40, 20
NAMES = ("cat", "dog")


def truth(number):
    """Boxes of an image in pixels, and their classes; the last image has none."""
    found = [(2, 4, 12 + number, 14, 0), (20, 0, 40, 10, number % 2)]
    return found[: 0 if number == COUNT - 1 else 1 + number % 2]


def part_of(number):
    return "train" if number < 4 else "val" if number < 6 else "test"


def write_image(path, number):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((HEIGHT, WIDTH, 3), 20 * number, np.uint8)).save(path)


def write_coco(home, parts=True):
    lists = {}
    for number in range(COUNT):
        part = part_of(number) if parts else "all"
        content = lists.setdefault(part, {"images": [], "annotations": [], "categories": []})
        write_image(home / (f"{part}2017" if parts else "images") / f"{number:04}.png", number)
        about = {"id": 10 + number, "file_name": f"{number:04}.png", "width": WIDTH, "height": HEIGHT}
        content["images"].append(about)
        content["categories"] = [{"id": 7, "name": "cat"}, {"id": 9, "name": "dog"}, {"id": 11, "name": "unicorn"}]
        for x1, y1, x2, y2, label in truth(number):
            entry = {"image_id": 10 + number, "category_id": (7, 9)[label], "bbox": [x1, y1, x2 - x1, y2 - y1]}
            content["annotations"].append({**entry, "iscrowd": 0})
    (home / "annotations").mkdir()
    for part, content in lists.items():
        (home / "annotations" / f"instances_{part}2017.json").write_text(json.dumps(content))
    return home / "annotations" / "instances_all2017.json"


def write_voc(home, parts=True):
    for number in range(COUNT):
        write_image(home / "JPEGImages" / f"{number:04}.png", number)
        found = "".join(
            f"<object><name>{NAMES[label]}</name><difficult>0</difficult><bndbox><xmin>{x1 + 1}</xmin>"
            f"<ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
            for x1, y1, x2, y2, label in truth(number)
        )
        size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
        file = home / "Annotations" / f"{number:04}.xml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"<annotation><filename>{number:04}.png</filename>{size}{found}</annotation>")
        if parts:
            file = home / "ImageSets" / "Main" / f"{part_of(number)}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("a") as names:
                names.write(f"{number:04}\n")
    return home / "Annotations"


def write_yolo(home, parts=True):
    for number in range(COUNT):
        part = part_of(number) if parts else "."
        write_image(home / "images" / part / f"{number:04}.png", number)
        text = home / "labels" / part / f"{number:04}.txt"
        text.parent.mkdir(parents=True, exist_ok=True)
        rows = [
            f"{label} {(x1 + x2) / 2 / WIDTH} {(y1 + y2) / 2 / HEIGHT} {(x2 - x1) / WIDTH} {(y2 - y1) / HEIGHT}\n"
            for x1, y1, x2, y2, label in truth(number)
        ]
        if rows or number != COUNT - 1:
            text.write_text("".join(rows))
    where = "path: /of/somebody/else\ntrain: images/train\nval: ../images/val\ntest: images/test\n" if parts else ""
    (home / "data.yaml").write_text(where + "names: [cat, dog]\n")
    return home / "labels"


FORMS = {"COCO": write_coco, "VOC": write_voc, "YOLO": write_yolo}


def read(home, **changes):
    default = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "dataset" / "boxes.yaml"))
    own = {name: value for name, value in default.items() if name not in ("_target_", "split", "augment")}
    return boxes(home.parent, **{**own, "path": home.name, "size": [10, 10], "fit": "stretch", **changes})


@pytest.fixture
def home(tmp_path):
    (tmp_path / "mine").mkdir()
    return tmp_path / "mine"


@pytest.mark.parametrize("parts", [True, False], ids=["parts", "drawn"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_boxes_scaled_with_the_images(form, parts, home):
    FORMS[form](home, parts)
    splits = read(home)
    assert splits.classes == NAMES
    assert splits.notes[0].startswith(f"{form} boxes: 2 classes")
    assert [len(part) for part in splits.parts.values()] == ([4, 2, 2] if parts else [5, 1, 2])
    seen = []
    for part in splits.in_memory().parts.values():
        for pixels, found in zip(part.images, part.targets, strict=True):
            seen.append(number := int(pixels[0, 0, 0]) // 20)
            wanted = [(x1 / 4, y1 / 2, x2 / 4, y2 / 2, label, 0) for x1, y1, x2, y2, label in truth(number)]
            assert torch.allclose(found[found[:, 4] >= 0], torch.tensor(wanted).reshape(-1, 6))
            assert (found[len(wanted) :] == torch.tensor([0.0, 0, 0, 0, -1, 0])).all()
    assert sorted(seen) == list(range(COUNT))
    assert proposed(home) == {"size": [24, 40]}  # the images are 40 wide and 20 high


def test_parts_drawn_by_seed_keep_boxes_with_their_images(home):
    write_coco(home)
    drawn = read(home).redrawn(3).in_memory()
    for pixels, found in zip(drawn.train.images, drawn.train.targets, strict=True):
        assert int((found[:, 4] >= 0).sum()) == len(truth(int(pixels[0, 0, 0]) // 20))


def test_classes_are_chosen_and_those_without_boxes_said(home):
    write_coco(home)
    assert any("1 classes without a training box are left out: unicorn." in note for note in read(home).notes)
    dogs = read(home, classes=["dog"])
    assert set(dogs.train.targets[..., 4].unique().tolist()) == {-1, 0}
    assert any("that dataset.classes does not name are left out: cat" in note for note in dogs.notes)
    with pytest.raises(ValueError, match=r"dataset\.classes names bird, but mine has boxes of cat, dog only"):
        read(home, classes=["bird", "cat"])


def set_box(file, values):
    """Give the first box of COCO's list other values."""
    content = json.loads(file.read_text())
    content["annotations"][0] |= values
    file.write_text(json.dumps(content))


WRONG = {
    "outside": ({"bbox": [30, 4, 20, 10]}, r"has a box \(cat\) that reaches out of it"),
    "no area": ({"bbox": [3, 4, 0, 10]}, r"has a box \(cat\) without an area"),
    "unknown class": ({"category_id": 4}, "has a box of the class 4, which instances_all2017.json does not name"),
    "no box": ({"bbox": [1, 2, "x", 3]}, r"has the box \[1, 2, 'x', 3\], which is not left, top, width and height"),
}


@pytest.mark.parametrize(("values", "sentence"), WRONG.values(), ids=WRONG)
def test_a_wrong_box_is_said_with_its_image_or_left_out_with_it(values, sentence, home):
    set_box(write_coco(home, parts=False), values)
    with pytest.raises(MissingData, match=rf"1 of 8 images cannot be used: 0000\.png {sentence}"):
        read(home)
    splits = read(home, damaged="skip")
    assert sum(map(len, splits.parts.values())) == COUNT - 1
    assert any("dataset.damaged=skip left out 1 of 8 images: 0000.png" in note for note in splits.notes)


def test_a_box_that_reaches_out_by_rounding_is_cut_at_the_edge(home):
    set_box(write_coco(home, parts=False), {"bbox": [-0.4, 4, 40.8, 10]})
    rows = read(home).in_memory()
    widths = [box[2] for part in rows.parts.values() for box in part.targets.flatten(0, 1)]
    assert max(widths) == 10
    assert min(box[0] for part in rows.parts.values() for box in part.targets.flatten(0, 1)) == 0


def test_an_entry_that_lacks_something_is_said_with_its_file(home):
    file = write_coco(home, parts=False)
    content = json.loads(file.read_text())
    del content["annotations"][1]["bbox"], content["annotations"][2]["image_id"]
    file.write_text(json.dumps(content))
    with pytest.raises(MissingData, match=r"instances_all2017\.json has an entry without 'image_id'"):
        read(home)


def test_missing_and_resized_images_are_counted(home):
    write_coco(home, parts=False)
    (home / "images" / "0001.png").unlink()
    Image.new("RGB", (80, 40)).save(home / "images" / "0002.png")
    with pytest.raises(MissingData, match=r"2 of 8 .*0001\.png is missing, 0002\.png has 80x40 .*boxes are for 40x20"):
        read(home)


TEXTS = {
    "unknown class": ("2 0.5 0.5 0.1 0.1", "line 1 has the class 2, and there are 2 names"),
    "too few numbers": ("0 0.5 0.5", "line 1 has 3 numbers instead of 5"),
    "words": ("0 0.5 0.5 0.1 0.1\ncat 0.5 0.5 0.1 0.1", "line 2 holds no numbers"),
    "pixels": ("0 20 10 8 8", "that reaches out of it"),
}


@pytest.mark.parametrize(("text", "sentence"), TEXTS.values(), ids=TEXTS)
def test_a_wrong_label_file_of_yolo_is_said(text, sentence, home):
    (write_yolo(home, parts=False) / "0003.txt").write_text(text)
    with pytest.raises(MissingData, match=rf"0003\.png .*{sentence}"):
        read(home)


def test_outlines_of_yolo_become_the_boxes_around_them(home):
    (write_yolo(home, parts=False) / "0003.txt").write_text("1 0.1 0.2 0.6 0.2 0.3 0.9\n")
    splits = read(home, test_size=1, valid_size=1).in_memory()
    found = [
        target for part in splits.parts.values() for image, target in zip(part.images, part.targets, strict=True)
        if int(image[0, 0, 0]) == 60
    ]  # fmt: skip
    assert torch.allclose(found[0][0], torch.tensor([1.0, 2.0, 6.0, 9.0, 1.0, 0.0]))


def test_the_same_folder_for_training_and_validation_is_no_validation(home):
    write_yolo(home, parts=False)
    (home / "data.yaml").write_text("train: images\nval: images\nnames: {0: cat, 1: dog}\n")
    splits = read(home)
    assert [len(part) for part in splits.parts.values()] == [5, 1, 2]
    assert any("val and train share images" in note for note in splits.notes)
    (home / "data.yaml").write_text("train: pictures\nval: images\nnames: {0: cat, 1: dog}\n")
    with pytest.raises(MissingData, match="is named as train in the YAML file"):
        read(home)


def test_crowds_and_difficult_objects_do_not_count_and_are_said(home, tmp_path):
    set_box(write_coco(home, parts=False), {"iscrowd": 1})
    crowds = read(home)
    assert any("1 boxes hold a crowd" in note for note in crowds.notes)
    assert sum(int((part.targets[..., 5] == CROWD).sum()) for part in crowds.parts.values()) == 1
    other = tmp_path / "other"
    file = write_voc(other) / "0000.xml"
    file.write_text(file.read_text().replace("<difficult>0", "<difficult>1"))
    difficult = read(other)
    assert difficult.train.targets[0, 0, 5] == DIFFICULT
    said = " ".join(difficult.notes)
    assert "5 boxes to train on. 1 objects are marked as difficult" in said
    assert "2 of 8 images have no object that counts" in said


def test_groups_stay_in_one_part(home):
    write_coco(home, parts=False)
    splits = read(home, group=r"regex:^\d\d\d(\d)")
    assert all(item.group == item.image.stem[-1] for item in splits.train.images.items)
    assert any("8 images form 8 groups" in note for note in splits.notes)


def test_what_is_no_such_folder_is_said(home):
    assert proposed(home) is None
    with pytest.raises(MissingData, match="has no boxes that are understood"):
        read(home)
    with pytest.raises(MissingData, match=r"there is no folder .*name one in dataset\.path"):
        read(home / "nowhere")
    (home / "broken.json").write_text("{")
    assert proposed(home) is None
    (home / "broken.json").write_text('{"annotations": [')
    with pytest.raises(MissingData, match=r"broken\.json cannot be read as JSON"):
        read(home)
    (home / "broken.json").write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    with pytest.raises(MissingData, match="no image of the part train"):
        read(home)


def test_two_lists_of_one_part_are_refused_unless_one_is_that_of_objects(home):
    file = write_coco(home, parts=False)
    (file.parent / "person_keypoints_all2017.json").write_text(file.read_text())
    assert len(read(home).train) == 5
    file.rename(file.with_name("labels_all2017.json"))
    with pytest.raises(MissingData, match="both list images of the part train"):
        read(home)
