"""Data sets of detection: files that are written and read again, benchmarks, padding, and both feeds."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from datasets.boxed.fitted import GREY, within
from datasets.boxes import CROWD, DIFFICULT, BoxSplits
from datasets.decoded import in_memory
from datasets.sources.boxes import boxes
from datasets.sources.coco_boxes import coco_boxes
from datasets.sources.crowded_scenes import crowded_scenes
from datasets.sources.voc_boxes import CLASSES, voc_boxes
from datasets.splits import Images, MissingData
from harness.look.understood import understand
from harness.tasks import Seeds
from harness.training.loop import Loop
from scripts import write_scenes

OWN = {"grey": False, "damaged": "stop", "train_size": None, "valid_size": None, "test_size": None, "split_seed": 0}
OFFICIAL = {"size": [40, 40], "fit": "pad", "damaged": "stop", "train_size": None, "test_size": None, "split_seed": 0}
FEEDS = {
    "resident": {"_target_": "harness.feeds.resident.Resident"},
    "streaming": {"_target_": "harness.feeds.streaming.Streaming", "workers": 2, "prefetch": 3},
}


NOTHING = torch.tensor([0.0, 0, 0, 0, -1, 0])


@pytest.fixture(scope="module")
def few():
    """Scenes with an empty image, a difficult object and a crowd."""
    made = crowded_scenes(
        size=[48, 64], digits=[0, 1], objects=[1, 4], sides=[12, 24], overlap=0.2, train_size=12, valid_size=4,
        test_size=5, split_seed=0,
    )  # fmt: skip
    targets = made.train.targets.clone()
    targets[0] = NOTHING
    targets[1, 0, 5], targets[2, 0, 5] = DIFFICULT, CROWD
    return BoxSplits(Images(made.train.images, targets, made.train.index), made.valid, made.test, made.classes)


def read(home, **changes):
    return boxes(
        home.parent, path=home.name, classes=None, group=None, **{**OWN, "size": [48, 64], "fit": "pad", **changes}
    )


def rows_of(targets):
    return [target[target[:, 4] >= 0] for target in targets]


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("form", write_scenes.FORMS)
def test_scenes_that_are_written_are_read_again_as_they_were(form, few, tmp_path):
    write_scenes.FORMS[form](few, tmp_path / "mine")
    again = read(tmp_path / "mine")
    assert again.classes == few.classes
    for name, part in few.parts.items():
        found = again.parts[name]
        assert torch.equal(in_memory(found.images), part.images)
        for one, other in zip(rows_of(found.targets), rows_of(part.targets), strict=True):
            told = other.clone()
            if form == "yolo":
                told = told[told[:, 5] == 0]
            told[:, 5] *= told[:, 5] == {"voc": DIFFICULT, "coco": CROWD, "yolo": 0}[form]
            assert torch.equal(one, told)
    said = " ".join(again.notes)
    assert ("marked as difficult" in said) == (form == "voc")
    assert ("hold a crowd" in said) == (form == "coco")
    assert "of 21 images have no object that counts" in said


def test_what_is_written_for_coco_is_read_by_its_own_program(few, tmp_path):
    write_scenes.coco(few, tmp_path)
    official = COCO(str(tmp_path / "annotations" / "instances_train.json"))
    assert min(official.getAnnIds()) == 1
    for number, target in enumerate(rows_of(few.train.targets), 1):
        found = official.loadAnns(official.getAnnIds(imgIds=[number]))
        corners = [[x, y, x + w, y + h] for x, y, w, h in (each["bbox"] for each in found)]
        assert corners == target[:, :4].tolist()
        assert [each["iscrowd"] for each in found] == (target[:, 5] == CROWD).int().tolist()


def test_the_command_writes_and_refuses(tmp_path, capsys):
    home = tmp_path / "mine"
    sizes = ["dataset.train_size=3", "dataset.valid_size=1", "dataset.test_size=1"]
    assert write_scenes.main([str(home), "--form", "yolo", *sizes]) == 0
    assert len(list(home.glob("images/*/*.png"))) == len(list(home.glob("labels/*/*.txt"))) == 5
    assert f"python -m harness.look data={home}" in capsys.readouterr().out
    assert write_scenes.main([str(home), *sizes]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert write_scenes.main([str(tmp_path / "other"), "dataset=scenes"]) == 2
    assert "has a class for every pixel" in capsys.readouterr().err


def test_look_counts_what_counts_and_says_what_does_not(few, tmp_path):
    write_scenes.coco(few, tmp_path / "mine")
    seen = understand(tmp_path / "mine")
    assert seen.task == "detection"
    assert seen.overrides["dataset.size"] == [48, 64]
    assert "1 boxes hold a crowd" in " ".join(seen.facts)
    assert any("images have no object that counts" in fact for fact in seen.facts)
    targets = few.train.targets
    counted = [int(((targets[..., 4] == label) & (targets[..., 5] != CROWD)).sum()) for label in (0, 1)]
    assert [(name, training) for name, training, *_ in seen.classes] == [("0", str(counted[0])), ("1", str(counted[1]))]
    rare = [
        replace(part, targets=torch.where(part.targets[..., 4:5] == 1, NOTHING, part.targets))
        for part in few.parts.values()
    ]
    rare[0].targets[3, 0] = torch.tensor([1.0, 1, 9, 9, 1, 0])
    write_scenes.coco(BoxSplits(*rare, few.classes), tmp_path / "rare")
    assert any("AP counts every class alike" in warning for warning in understand(tmp_path / "rare").warnings)


# ---------------------------------------------------------------- sizes


def test_padding_keeps_the_aspect_ratio():
    assert within((40, 20), (30, 30), "pad") == (15, 30)
    assert within((20, 40), (30, 60), "pad") == (30, 15)
    assert within((1000, 1), (32, 32), "pad") == (1, 32)
    assert within((40, 20), (30, 50), "stretch") == (30, 50)
    with pytest.raises(ValueError, match=r"dataset\.fit is crop; it must be pad or stretch"):
        within((40, 20), (30, 50), "crop")


def test_a_padded_image_lies_at_the_top_left_and_its_boxes_scale_by_one_factor(tmp_path):
    many_sizes(tmp_path / "mine")
    found = read(tmp_path / "mine", size=[32, 32])
    images = in_memory(found.train.images)
    shapes = set()
    for image, target in zip(images, rows_of(found.train.targets), strict=True):
        inside = (image != GREY).any(0)
        height, width = int(inside.any(1).sum()), int(inside.any(0).sum())
        shapes.add((height, width))
        assert max(height, width) == 32
        assert inside[:height, :width].all()
        square = target[0, 2:4] - target[0, :2]  # in the file as wide as high
        assert abs(float(square[0] / square[1]) - 1) < 0.06
        assert (target[0, :4] <= torch.tensor([width, height, width, height])).all()
    assert len(shapes) > 2


# ---------------------------------------------------------------- feeds


def many_sizes(home, count=10):
    """Write YOLO's layout with images of several sizes, a square box in each."""
    draw = np.random.default_rng(0)
    for number in range(count):
        width, height = 40 + 8 * (number % 3), 32 + 16 * (number % 2)
        for folder in ("images", "labels"):
            (home / folder).mkdir(parents=True, exist_ok=True)
        pixels = draw.integers(150, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(home / "images" / f"{number}.png")
        side = 12 + number % 10
        text = f"{number % 2} {(side / 2 + 4) / width} {(side / 2 + 2) / height} {side / width} {side / height}\n"
        (home / "labels" / f"{number}.txt").write_text(text)


def test_resident_and_streamed_boxes_give_the_same_bits(tmp_path, spec, job):
    many_sizes(tmp_path / "mine", 24)
    wanted = (
        "task=detection", "dataset=boxes", "dataset.path=mine", "dataset.size=[32,32]", "trainer.batch_size=4",
        "dataset.augment={zoom: [0.6, 1.6], flip: true, colour: 0.3}",
    )  # fmt: skip
    made = {
        name: Loop(job(spec(*wanted), feed=feed, data={"root": str(tmp_path), "download": False}))
        for name, feed in FEEDS.items()
    }
    resident, streamed = (list(made[name].task.epoch(Seeds(1, 2))) for name in FEEDS)
    assert len(resident) > 2
    for one, other in zip(resident, streamed, strict=True):
        assert torch.equal(one.inputs[0], other.inputs[0])
        assert torch.equal(one.target, other.target)
    task = made["resident"].task
    assert sum(task.describe()["class_counts"]) == len(task.splits.train)  # one box in each
    later = list(made["streaming"].task.epoch(Seeds(1, 2), first=2))
    assert torch.equal(later[0].inputs[0], resident[2].inputs[0])
    records = {name: loop.run(tmp_path / name, lambda: False, lambda *_: None)[0] for name, loop in made.items()}
    assert records["resident"]["test"] == records["streaming"]["test"]
    weights = [made[name].model.state_dict() for name in FEEDS]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_difficult_objects_are_no_training_boxes(few, tmp_path, spec, job):
    write_scenes.voc(few, tmp_path / "mine")
    wanted = ("task=detection", "dataset=boxes", "dataset.path=mine", "dataset.size=[48,64]", "trainer.batch_size=4")
    task = Loop(job(spec(*wanted), data={"root": str(tmp_path), "download": False})).task
    boxes = torch.cat(rows_of(few.train.targets))
    easy = boxes[boxes[:, 5] != DIFFICULT]
    assert len(easy) == len(boxes) - 1
    assert task.describe()["class_counts"] == easy[:, 4].long().bincount().tolist()
    mean = (easy[:, 2:4] - easy[:, :2]).prod(1).sqrt().mean()
    assert task.statistic("object_size") == pytest.approx(float(mean))
    whole = [int((batch.target[..., 5] == DIFFICULT).sum()) for batch in task.epoch(Seeds(1, 2))]
    assert sum(whole) == 1  # still there for the assignment, which then asks no cell for it


# ---------------------------------------------------------------- benchmarks


def picture(file: Path, width=40, height=20):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), 200, np.uint8)).save(file)


def write_voc(home, lists):
    for name, images in lists.items():
        (home / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
        (home / "ImageSets" / "Main" / f"{name}.txt").write_text("".join(f"{each}\n" for each in images))
        for each in images:
            picture(home / "JPEGImages" / f"{each}.jpg")
            (home / "Annotations").mkdir(exist_ok=True)
            found = "".join(
                f"<object><name>{label}</name><difficult>{difficult}</difficult><bndbox><xmin>3</xmin><ymin>5</ymin>"
                "<xmax>12</xmax><ymax>14</ymax></bndbox></object>"
                for label, difficult in (("tvmonitor", 0), ("aeroplane", 1))
            )
            size = "<size><width>40</width><height>20</height></size>"
            (home / "Annotations" / f"{each}.xml").write_text(f"<annotation>{size}{found}</annotation>")


def test_voc_is_read_by_its_lists(tmp_path):
    write_voc(tmp_path / "VOCdevkit" / "VOC2007", {"trainval": ["000001", "000002"], "test": ["000003"]})
    lists = {"train": ["2008_1", "2008_2"], "val": ["2008_3"], "trainval": ["2008_1", "2008_2", "2008_3"]}
    write_voc(tmp_path / "VOCdevkit" / "VOC2012", lists)
    counts = {}
    for name in ("voc2012", "voc2007", "voc0712"):
        found = voc_boxes(tmp_path, lists=name, valid_size=1, **OFFICIAL)
        counts[name] = [len(part) for part in found.parts.values()]
        assert found.classes == CLASSES
        assert found.test.targets[0].tolist() == [[2, 4, 12, 14, 19, 0], [2, 4, 12, 14, 0, DIFFICULT]]
    assert counts == {"voc2012": [1, 1, 1], "voc2007": [1, 1, 1], "voc0712": [4, 1, 1]}
    assert (len(CLASSES), CLASSES[0], CLASSES[-1]) == (20, "aeroplane", "tvmonitor")
    with pytest.raises(ValueError, match=r"dataset\.lists is voc2010; it must be voc2012, voc2007, voc0712"):
        voc_boxes(tmp_path, lists="voc2010", valid_size=1, **OFFICIAL)
    (tmp_path / "VOCdevkit" / "VOC2012" / "Annotations" / "2008_1.xml").unlink()
    with pytest.raises(MissingData, match=r"1 of 3 images .*: 2008_1\.jpg has no Annotations/2008_1\.xml"):
        voc_boxes(tmp_path, lists="voc2012", valid_size=1, **OFFICIAL)


def test_voc_that_is_absent_is_said_with_the_way_to_get_it(tmp_path):
    with pytest.raises(MissingData, match=r"VOC2012 \(no ImageSets/Main/train\.txt\); get it with data\.download=true"):
        voc_boxes(tmp_path, lists="voc2012", valid_size=1, **OFFICIAL)


def write_coco(home, part, annotations, count=3):
    (home / "annotations").mkdir(parents=True, exist_ok=True)
    images = [{"id": 5 + n, "file_name": f"{n:012}.jpg", "width": 40, "height": 20} for n in range(count)]
    for image in images:
        picture(home / part / image["file_name"])
    names = [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}, {"id": 13, "name": "stop sign"}]
    content = {"images": images, "annotations": annotations, "categories": names}
    (home / "annotations" / f"instances_{part}.json").write_text(json.dumps(content))


def entry(box, image=5, category=90, **more):
    return {"id": 0, "image_id": image, "category_id": category, "bbox": box, "iscrowd": 0, **more}


PARTS = {"train_part": "train2017", "test_part": "val2017"}


def test_coco_is_read_as_its_benchmark_defines(tmp_path):
    """Ids with gaps become numbers; boxes are cut at the edge, and left out without an area; crowds do not count."""
    annotations = [
        entry([4, 2, 10, 10]),
        entry([30, 5, 20, 10], category=13),
        entry([3, 3, 0, 5]),
        entry([50, 3, 5, 5]),
        entry([0, 0, 40, 20], image=6, category=1, iscrowd=1),
        entry([0, 0, 4, 4], image=99),
    ]
    for part in PARTS.values():
        write_coco(tmp_path / "coco", part, annotations)
    found = coco_boxes(tmp_path, **PARTS, valid_size=1, **OFFICIAL)
    assert found.classes == ("person", "stop sign", "toothbrush")
    assert [len(part) for part in found.parts.values()] == [2, 1, 3]
    assert [each.tolist() for each in rows_of(found.test.targets)] == [
        [[4, 2, 14, 12, 2, 0], [30, 5, 40, 15, 1, 0]],
        [[0, 0, 40, 20, 0, CROWD]],
        [],
    ]
    said = " ".join(found.notes)
    assert "4 boxes without an area within their image are left out" in said
    assert "2 boxes belong to images that their list does not have" in said
    assert "2 boxes hold a crowd" in said
    assert "4 of 6 images have no object that counts" in said


def test_coco_that_is_absent_is_said_with_the_way_to_get_it(tmp_path):
    with pytest.raises(MissingData, match=r"COCO is absent in .*train2017; get its images .*cocodataset\.org"):
        coco_boxes(tmp_path, **PARTS, valid_size=1, **OFFICIAL)
    write_coco(tmp_path / "coco", "train2017", [])
    write_coco(tmp_path / "coco", "val2017", [])
    (tmp_path / "coco" / "annotations" / "instances_val2017.json").write_text("{}")
    with pytest.raises(MissingData, match=r"instances_val2017\.json holds no boxes"):
        coco_boxes(tmp_path, **PARTS, valid_size=1, **OFFICIAL)
