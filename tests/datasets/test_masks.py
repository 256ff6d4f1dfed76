"""Images and masks from files: layouts of VOC, CamVid, SIRST and any folder, written here and read by the real code."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.sources.camvid import camvid
from datasets.sources.coco import coco
from datasets.sources.folder import folder
from datasets.sources.mstar import CLASSES as CHIPS
from datasets.sources.mstar import mstar
from datasets.sources.scenes import scenes
from datasets.sources.sirst import sirst
from datasets.sources.voc import voc
from datasets.splits import MissingData

SIZES = {"train_size": None, "valid_size": None, "test_size": None, "split_seed": 0, "damaged": "stop"}


@pytest.fixture(scope="module")
def drawn():
    """Real scenes: what the files below hold, and what reading them must give back."""
    return scenes(size=[32, 48], digits=[0, 1], train_size=6, valid_size=3, test_size=4, split_seed=0)


def write(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(values)
    if values.ndim == 2 and path.suffix == ".png":
        picture = picture.convert("P")
    picture.save(path)


def pixels(image):
    return image.permute(1, 2, 0).numpy()


@pytest.fixture
def as_voc(drawn, tmp_path):
    """Scenes in the layout of Pascal VOC; images as PNG under the name .jpg, so that they are read back exactly."""
    home = tmp_path / "voc" / "VOCdevkit" / "VOC2012"
    lists = {"train": drawn.train, "val": drawn.test}
    for name, part in lists.items():
        for number in range(len(part)):
            (home / "JPEGImages").mkdir(parents=True, exist_ok=True)
            with (home / "JPEGImages" / f"{name}_{number}.jpg").open("wb") as file:
                Image.fromarray(pixels(part.images[number])).save(file, format="png")
            write(home / "SegmentationClass" / f"{name}_{number}.png", part.targets[number].numpy())
        file = home / "ImageSets" / "Segmentation" / f"{name}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{name}_{number}\n" for number in range(len(part))))
    return home


def read_voc(home, **changes):
    settings = {**SIZES, "size": [32, 48], "training_list": "official", "valid_size": 2, **changes}
    return voc(home.parents[2], **settings).in_memory()


def test_voc_gives_back_what_was_written(as_voc, drawn):
    read = read_voc(as_voc)
    assert (len(read.train), len(read.valid), len(read.test)) == (4, 2, 4)
    assert torch.equal(read.test.images, drawn.test.images)
    assert torch.equal(read.test.targets, drawn.test.targets)
    assert len(read.classes) == 21
    together = sorted([*read.train.targets.flatten(1).sum(1).tolist(), *read.valid.targets.flatten(1).sum(1).tolist()])
    assert together == sorted(drawn.train.targets.flatten(1).sum(1).tolist())


def test_smaller_splits_are_part_of_larger_ones(as_voc):
    whole, part = read_voc(as_voc, train_size=4), read_voc(as_voc, train_size=2)
    assert set(part.train.index.tolist()) < set(whole.train.index.tolist())
    assert torch.equal(part.valid.images, whole.valid.images)


def test_a_smaller_size_keeps_classes_and_void(as_voc):
    small = read_voc(as_voc, size=[16, 24])
    assert small.train.images.shape[1:] == (3, 16, 24)
    assert set(small.train.targets.unique().tolist()) <= {0, 1, 2, 255}


BREAKS = {
    "a missing image": (lambda home: (home / "JPEGImages/val_0.jpg").unlink(), "val_0.jpg is missing, but .*val.txt"),
    "a missing mask": (lambda home: (home / "SegmentationClass/val_0.png").unlink(), "val_0.png is missing"),
    "a damaged image": (
        lambda home: (home / "JPEGImages/val_0.jpg").write_bytes((home / "JPEGImages/val_0.jpg").read_bytes()[:200]),
        "val_0.jpg cannot be read as an image",
    ),
    "not an image": (lambda home: (home / "JPEGImages/val_0.jpg").write_text("hello"), "cannot be read as an image"),
    "a class out of range": (
        lambda home: write(home / "SegmentationClass/val_0.png", np.full((32, 48), 21, np.uint8)),
        "val_0.png holds the class 21, allowed are 0 to 20 and 255",
    ),
    "a mask of another size": (
        lambda home: write(home / "SegmentationClass/val_0.png", np.zeros((32, 40), np.uint8)),
        r"differ in size \(40x32 and 48x32\)",
    ),
    "a coloured mask": (
        lambda home: write(home / "SegmentationClass/val_0.png", np.eye(3, dtype=np.uint8)[np.zeros((32, 48), int)]),
        "holds colours",
    ),
}


@pytest.mark.parametrize(("break_it", "sentence"), BREAKS.values(), ids=BREAKS)
def test_what_is_wrong_with_a_file_is_said_with_its_path(as_voc, break_it, sentence):
    break_it(as_voc)
    with pytest.raises(MissingData, match=sentence) as raised:
        read_voc(as_voc)
    assert "dataset.damaged=skip" in str(raised.value)
    assert str(as_voc) in str(raised.value)


@pytest.mark.parametrize(("break_it", "sentence"), BREAKS.values(), ids=BREAKS)
def test_what_is_wrong_is_left_out_and_counted_on_request(as_voc, drawn, break_it, sentence):
    break_it(as_voc)
    read = read_voc(as_voc, damaged="skip")
    assert len(read.skipped) == 1
    assert torch.equal(read.test.images, drawn.test.images[1:])
    assert torch.equal(read.test.targets, drawn.test.targets[1:])


def test_files_are_opened_when_they_are_decoded(as_voc):
    for image in (as_voc / "JPEGImages").iterdir():
        image.write_bytes(b"not read yet")
    settings = {**SIZES, "size": [32, 48], "training_list": "official", "valid_size": 2}
    assert len(voc(as_voc.parents[2], **settings).train) == 4
    with pytest.raises(MissingData, match="cannot be read as an image"):
        read_voc(as_voc)


def test_a_split_with_nothing_left_is_refused(as_voc):
    for number in range(4):
        (as_voc / f"JPEGImages/val_{number}.jpg").unlink()
    with pytest.raises(MissingData, match="no usable image for test"):
        read_voc(as_voc, damaged="skip")


def test_camvid_reads_segnets_lists_and_takes_class_11_as_void(drawn, tmp_path):
    home = tmp_path / "camvid" / "CamVid"
    for name, part in {"train": drawn.train, "val": drawn.valid, "test": drawn.test}.items():
        rows = []
        for number in range(len(part)):
            write(home / name / f"{number}.png", pixels(part.images[number]))
            mask = part.targets[number].numpy().copy()
            mask[mask == 255] = 11
            write(home / f"{name}annot" / f"{number}.png", mask)
            rows.append(f"/SegNet/CamVid/{name}/{number}.png /SegNet/CamVid/{name}annot/{number}.png\n")
        (home / f"{name}.txt").write_text("".join(rows))
    read = camvid(tmp_path, **{**SIZES, "size": [32, 48]}).in_memory()
    assert torch.equal(read.valid.images, drawn.valid.images)
    assert torch.equal(read.valid.targets, drawn.valid.targets)


def test_a_line_that_names_one_file_is_refused(tmp_path):
    home = tmp_path / "camvid" / "CamVid"
    home.mkdir(parents=True)
    (home / "train.txt").write_text("train/0.png\n")
    with pytest.raises(MissingData, match="a line names an image and a mask"):
        camvid(tmp_path, **{**SIZES, "size": [32, 48]})


def test_sirst_reads_grey_images_and_any_value_as_target(drawn, tmp_path):
    home = tmp_path / "sirst"
    for name, part in {"train": drawn.train, "val": drawn.valid, "test": drawn.test}.items():
        for number in range(len(part)):
            write(home / "images" / f"{name}{number}.png", pixels(part.images[number]))
            write(
                home / "masks" / f"{name}{number}_pixels0.png",
                (part.targets[number].numpy() == 1).astype(np.uint8) * 200,
            )
        (home / f"{name}.txt").write_text("".join(f"{name}{number}\n" for number in range(len(part))))
    read = sirst(tmp_path, **{**SIZES, "size": [32, 48]}).in_memory()
    assert read.train.images.shape == (6, 1, 32, 48)
    assert torch.equal(read.test.targets, (drawn.test.targets == 1).to(torch.uint8))


def test_any_folder(drawn, tmp_path):
    for number, (image, mask) in enumerate(zip(drawn.train.images, drawn.train.targets, strict=True)):
        write(tmp_path / "mine" / "pictures" / f"{number}.png", pixels(image))
        write(tmp_path / "mine" / "labels" / f"{number}_mask.png", mask.numpy())
    settings = {
        "path": "mine", "images": "pictures", "masks_in": "labels", "mask_suffix": "_mask.png",
        "classes": ["background", "zero", "one"], "grey": False, "binary": False, "void": [], "size": [32, 48],
        "damaged": "stop", "train_size": None, "valid_size": 2, "test_size": 1, "split_seed": 0,
        "colours": None, "tolerance": None, "group": None,
    }  # fmt: skip
    read = folder(tmp_path, **settings)
    assert (len(read.train), len(read.valid), len(read.test)) == (3, 2, 1)
    with pytest.raises(ValueError, match="valid_size is 2"):
        folder(tmp_path, **{**settings, "test_size": 4})
    with pytest.raises(MissingData, match="there is no folder"):
        folder(tmp_path, **{**settings, "path": "yours"})


@pytest.mark.parametrize("load", [camvid, coco, sirst, voc], ids=lambda load: load.__name__)
def test_an_absent_set_is_named_with_the_folder_and_what_to_do(load, tmp_path):
    more = {
        voc: {"training_list": "official"},
        coco: {"annotations": "panoptic", "train_part": "train2017", "test_part": "val2017"},
    }.get(load, {})
    with pytest.raises(MissingData, match=r"is absent in .*(clone|data.download=true|unpack).*LOSSBENCH_DATA"):
        load(tmp_path, **{**SIZES, "size": [32, 48], **more})


def test_scenes_are_the_same_whatever_the_sizes_of_splits():
    settings = {"size": [32, 32], "digits": [0, 1, 4], "valid_size": 2, "split_seed": 0}
    small, large = (scenes(**settings, train_size=n, test_size=n) for n in (3, 5))
    assert torch.equal(small.train.images, large.train.images[:3])
    assert torch.equal(small.test.targets, large.test.targets[:3])
    other = scenes(**{**settings, "split_seed": 1}, train_size=3, test_size=3)
    assert not torch.equal(other.train.images, small.train.images)
    assert set(large.train.targets.unique().tolist()) <= {0, 1, 2, 3, 255}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [({"digits": [3]}, "two or more"), ({"size": [8, 8]}, "16 pixels"), ({"train_size": None}, "made to order")],
)
def test_scenes_refuse_what_cannot_be(change, sentence):
    settings = {"size": [32, 32], "digits": [0, 1], "train_size": 2, "valid_size": 2, "test_size": 2, "split_seed": 0}
    with pytest.raises(ValueError, match=sentence):
        scenes(**{**settings, **change})


def coloured(mask, segments):
    """A panoptic mask: each class one segment, coloured by its id; void stays black."""
    ids = np.zeros(mask.shape, np.int64)
    for label, number in segments.items():
        ids[mask == label] = number
    return np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)


def test_coco_merges_panoptic_segments_by_category(drawn, tmp_path):
    home, ids = tmp_path / "coco", {0: 7, 1: 300, 2: 70000}  # ids of one, two and three bytes
    categories = [{"id": 200, "name": "one"}, {"id": 1, "name": "wall"}, {"id": 90, "name": "zero"}]
    category = {0: 1, 1: 90, 2: 200}
    for name, part in {"train2017": drawn.train, "val2017": drawn.test}.items():
        content = {"categories": categories, "images": [], "annotations": []}
        for number in range(len(part)):
            write(home / name / f"{number}.png", pixels(part.images[number]))
            write(
                home / "annotations" / f"panoptic_{name}" / f"{number}.png", coloured(part.targets[number].numpy(), ids)
            )
            content["images"].append({"id": number, "file_name": f"{number}.png"})
            segments = [{"id": ids[label], "category_id": category[label]} for label in ids]
            content["annotations"].append({"image_id": number, "file_name": f"{number}.png", "segments_info": segments})
        (home / "annotations" / f"panoptic_{name}.json").write_text(json.dumps(content))
    settings = {**SIZES, "size": [32, 48], "annotations": "panoptic", "train_part": "train2017", "test_part": "val2017"}
    read = coco(tmp_path, **{**settings, "valid_size": 2}).in_memory()
    assert read.classes == ("wall", "zero", "one")
    assert torch.equal(read.test.targets, drawn.test.targets)
    with pytest.raises(MissingData, match="has no masks"):
        coco(tmp_path, **{**settings, "valid_size": 2, "annotations": "stuff"})
    for name, part in {"train2017": drawn.train, "val2017": drawn.test}.items():
        for number in range(len(part)):
            write(home / "stuffthingmaps" / name / f"{number}.png", part.targets[number].numpy())
            (home / name / f"{number}.png").rename(home / name / f"{number}.jpg")
    stuff = coco(tmp_path, **{**settings, "valid_size": 2, "annotations": "stuff"}).in_memory()
    assert len(stuff.classes) == 182
    assert torch.equal(stuff.test.targets, drawn.test.targets)


def test_mstar_cuts_the_middle_so_that_the_size_of_a_chip_tells_nothing(tmp_path):
    for part, count in (("train", 6), ("test", 2)):
        for label, name in enumerate(CHIPS):
            for number in range(count):
                chip = np.full((128 + 8 * label, 129 + 8 * label), 10 * label, np.uint8)
                write(tmp_path / "mstar" / part / name / f"{number}.jpeg", chip)
    read = mstar(tmp_path, crop=96, size=24, train_size=None, valid_size=10, test_size=None, split_seed=0)
    assert (len(read.train), len(read.valid), len(read.test)) == (50, 10, 20)
    assert read.train.images.shape[1:] == (1, 24, 24)
    assert torch.equal(read.test.images.float().mean((1, 2, 3)).round(), 10.0 * read.test.targets)
    (tmp_path / "mstar" / "test" / "T72" / "0.jpeg").write_text("no image")
    with pytest.raises(MissingData, match=r"0\.jpeg cannot be read"):
        mstar(tmp_path, crop=96, size=24, train_size=None, valid_size=10, test_size=None, split_seed=0)
