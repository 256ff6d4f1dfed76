"""Data divided by class: made characters, folders, faces with pairs, cameras, official lists, CIFAR-100."""

import pickle

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from datasets.by_class import held_out
from datasets.sources.cars196 import cars196
from datasets.sources.cifar100 import cifar100
from datasets.sources.cifar100_by_class import cifar100_by_class
from datasets.sources.class_folders import class_folders
from datasets.sources.cub200 import cub200
from datasets.sources.face_pairs import face_pairs
from datasets.sources.glyphs import glyphs
from datasets.sources.online_products import online_products
from datasets.sources.reidentification import reidentification
from datasets.splits import MissingData

SIZE = {"size": [6, 4], "split_seed": 0}


def draw(*files, size=(9, 9)):
    for number, file in enumerate(files):
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (number * 7 % 256, 30, 200)).save(file)


def disjoint(splits):
    names = [*splits.classes, *splits.unseen["valid"], *splits.unseen["test"]]
    assert len(names) == len(set(names))
    labels = [set(part.labels.tolist()) for part in splits.parts.values()]
    assert [len(each) for each in labels] == [len(splits.classes), *map(len, splits.unseen.values())]
    assert sorted(set.union(*labels)) == list(range(len(names)))
    return splits


# ---------------------------------------------------------------- made characters


GLYPHS = {"classes": [6, 2, 3], "images_per_class": 5, "size": 12, "shake": 0.05, "split_seed": 0}


def test_glyphs_are_drawn_alike_everywhere_and_differently_by_seed():
    splits = disjoint(glyphs(**GLYPHS))
    assert splits.train.images.shape == (30, 1, 12, 12)
    assert splits.checksum == glyphs(**GLYPHS).checksum != glyphs(**{**GLYPHS, "split_seed": 1}).checksum
    assert len(splits.test.images.flatten(1).unique(dim=0)) == 15  # no drawing comes twice
    assert (splits.train.images.amax((1, 2, 3)) > 100).all()


def test_drawings_of_a_glyph_are_nearer_to_each_other():
    images = glyphs(**{**GLYPHS, "classes": [20, 2, 2], "images_per_class": 8, "size": 20}).train.images
    pixels = images.double().flatten(1).view(20, 8, -1)
    centres = pixels.mean(1)
    within = (pixels - centres[:, None]).square().sum(2).mean()
    assert (centres[:, None] - centres).square().sum(2).sum() / (20 * 19) > 2 * within / 8


def test_glyphs_refuse_what_cannot_be_drawn():
    with pytest.raises(ValueError, match="they must be at least 2, 8, 0 and 0"):
        glyphs(**{**GLYPHS, "size": 4})
    with pytest.raises(ValueError, match="each part needs two or more"):
        glyphs(**{**GLYPHS, "classes": [6, 1, 3]})


# ---------------------------------------------------------------- folders


def test_any_folder_of_classes_is_divided_by_class(tmp_path):
    draw(*(tmp_path / "mine" / f"class{c}" / f"{i}.png" for c in range(9) for i in range(3)))
    draw(tmp_path / "mine" / "rare" / "0.png")
    asked = {"path": "mine", "valid_classes": 2, "test_classes": 3, "least": 2, "channels": 1, **SIZE}
    splits = disjoint(class_folders(tmp_path, **asked))
    assert [len(part) for part in splits.parts.values()] == [12, 6, 9]
    assert splits.in_memory().train.images.shape == (12, 1, 6, 4)
    assert class_folders(tmp_path, **{**asked, "split_seed": 1}).unseen != splits.unseen
    with pytest.raises(ValueError, match="2 and 8 classes of 9 were to be held out"):
        class_folders(tmp_path, **{**asked, "test_classes": 8})
    with pytest.raises(MissingData, match="has no folders with images"):
        class_folders(tmp_path, **{**asked, "path": "elsewhere"})


def test_classes_that_are_held_out_do_not_meet():
    valid, test = held_out([*"abcdefgh"], (2, 3), 5)
    assert (len(valid), len(test), valid & test) == (2, 3, set())
    assert held_out([*"hgfedcba"], (2, 3), 5) == (valid, test)


@pytest.fixture
def faces(tmp_path):
    draw(*(tmp_path / "lfw" / n / f"{n}_{i:04}.jpg" for n in ("Ann", "Bob", "Cy", "Di", "Ed", "Flo") for i in (1, 2)))
    (tmp_path / "pairs.txt").write_text("1\t2\nAnn\t1\t2\nBob\t2\t1\nAnn\t1\tBob\t2\nBob\t1\tAnn\t2\n")
    return tmp_path


FACES = {"path": "lfw", "pairs": "pairs.txt", "valid_classes": 2, "least": 2, "channels": 3, **SIZE}


def test_who_occurs_in_a_file_of_pairs_is_tested(faces):
    splits = disjoint(face_pairs(faces, **FACES))
    assert splits.unseen["test"] == ("Ann", "Bob")
    assert splits.protocols["test"].pairs.tolist() == [[0, 1], [3, 2], [0, 3], [2, 1]]
    assert len(splits.train) == len(splits.valid) == 4


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Ann 1 9", "names the image Ann_0009, which is not in"),
        ("Zed 1 2", "names Zed, who has no folder"),
        ("Ann one 2", "line 1 of .* is no pair: write NAME I J"),
        ("10 300", "lists no pairs"),
    ],
)
def test_pairs_that_cannot_be_are_refused(faces, line, message):
    (faces / "pairs.txt").write_text(line)
    with pytest.raises(MissingData, match=message):
        face_pairs(faces, **FACES)


def test_identity_and_camera_are_read_off_the_names_of_market_1501(tmp_path):
    home = tmp_path / "market"
    draw(*(home / "bounding_box_train" / f"{i:04}_c{c}s1_000001_00.jpg" for i in range(1, 7) for c in (1, 2)))
    draw(*(home / "query" / f"{i:04}_c1s1_000001_00.jpg" for i in (11, 12)))
    gallery = ("0011_c1s1_000002_00", "0011_c3s1_000001_00", "0012_c2s1_000001_00", "0000_c1s1_000001_00")
    draw(*(home / "bounding_box_test" / f"{name}.jpg" for name in (*gallery, "-1_c1s1_000001_00")))
    asked = {"path": "market", "valid_classes": 2, "channels": 3, **SIZE}
    splits = disjoint(reidentification(tmp_path, **asked))
    assert splits.unseen["test"] == ("000000", "000011", "000012")
    protocol = splits.protocols["test"]
    assert protocol.query.tolist() == [True] * 2 + [False] * 4
    assert sorted(protocol.camera.tolist()) == [1, 1, 1, 1, 2, 3]
    compared = protocol.compared(protocol.queries(6), splits.test.labels)
    # each of the two misses both queries, and the first also what its own camera saw of it
    assert compared.sum(1).tolist() == [3, 4]
    draw(home / "query" / "0001_c1s1_000009_00.jpg")
    with pytest.raises(MissingData, match="identity 1 is in bounding_box_train and among those tested"):
        reidentification(tmp_path, **asked)
    draw(home / "query" / "holiday.jpg")
    with pytest.raises(MissingData, match="does not begin with identity and camera"):
        reidentification(tmp_path, **asked)


# ---------------------------------------------------------------- official lists


def test_cub_trains_on_its_first_half(tmp_path):
    names = [f"{c:03}.Bird{c}/{i}.jpg" for c in range(1, 9) for i in range(2)]
    draw(*(tmp_path / "cub" / "images" / name for name in names))
    (tmp_path / "cub" / "images.txt").write_text("".join(f"{at} {name}\n" for at, name in enumerate(names, 1)))
    splits = disjoint(cub200(tmp_path, path="cub", valid_classes=2, **SIZE))
    assert splits.unseen["test"] == tuple(f"{c:03}.Bird{c}" for c in range(5, 9))
    (tmp_path / "cub" / "images.txt").write_text("1 two three\n")
    with pytest.raises(MissingData, match="has the line '1 two three', not 2 words"):
        cub200(tmp_path, path="cub", valid_classes=2, **SIZE)


def test_cars_are_read_from_their_list(tmp_path):
    kind = [("relative_im_path", object), ("class", int)]
    rows = np.array([(f"car_ims/{c}{i}.jpg", c) for c in range(1, 9) for i in range(2)], dtype=kind)
    draw(*(tmp_path / row["relative_im_path"] for row in rows))
    savemat(tmp_path / "cars_annos.mat", {"annotations": rows})
    splits = disjoint(cars196(tmp_path, path=".", valid_classes=2, **SIZE))
    assert splits.unseen["test"] == ("005", "006", "007", "008")
    with pytest.raises(MissingData, match="cannot be read as the list of Cars-196"):
        cars196(tmp_path, path="elsewhere", valid_classes=2, **SIZE)


def test_products_have_official_halves(tmp_path):
    head = "image_id class_id super_class_id path\n"
    for part, labels in (("train", range(1, 5)), ("test", range(5, 8))):
        lines = [f"{c} {c} 1 bicycle/{c}_{i}.JPG\n" for c in labels for i in range(2)]
        draw(*(tmp_path / line.split()[3] for line in lines))
        (tmp_path / f"Ebay_{part}.txt").write_text(head + "".join(lines))
    splits = disjoint(online_products(tmp_path, path=".", valid_classes=2, **SIZE))
    assert splits.unseen["test"] == ("00005", "00006", "00007")


def test_cifar_100_is_read_with_care_and_by_class_and_in_an_edition_of_fewer_images(tmp_path):
    home = tmp_path / "cifar100" / "cifar-100-python"
    home.mkdir(parents=True)
    labels = [*range(100)]
    content = {"data": np.zeros((200, 3072), np.uint8), "fine_labels": labels * 2}
    for name, held in (
        ("train", content),
        ("test", content),
        ("meta", {"fine_label_names": [f"c{i}" for i in labels]}),
    ):
        (home / name).write_bytes(pickle.dumps(held, protocol=2))
    asked = {"classes": [60, 10, 30], "split_seed": 0}
    with pytest.raises(MissingData, match=r"dataset\.subset=true takes files of fewer images"):
        cifar100_by_class(tmp_path, subset=False, **asked)
    splits = disjoint(cifar100_by_class(tmp_path, subset=True, **asked))
    assert [len(part) for part in splits.parts.values()] == [240, 40, 120]
    sizes = {"train_size": 100, "valid_size": 100, "test_size": 200, "split_seed": 0}
    with pytest.raises(MissingData, match=r"dataset\.subset=true takes files of fewer images"):
        cifar100(tmp_path, subset=False, **sizes)
    by_image = cifar100(tmp_path, subset=True, **sizes)
    assert [len(part) for part in (by_image.train, by_image.valid, by_image.test)] == [100, 100, 200]
    assert by_image.classes == tuple(f"c{i}" for i in labels)
    (home / "test").write_bytes(pickle.dumps(print))
    for read, settings in ((cifar100_by_class, asked), (cifar100, sizes)):
        with pytest.raises(MissingData, match="is no file of CIFAR-100"):
            read(tmp_path, subset=True, **settings)
