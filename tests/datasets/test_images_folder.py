"""Images of one's own: folders of classes, with parts or without, a list of labels, and what is wrong with files."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.decoded import Decoded
from datasets.sources.digits import digits
from datasets.sources.images import images
from datasets.splits import MissingData

DEFAULTS = {
    "path": "mine", "table": None, "file": None, "label": None, "group": None, "channels": 3, "size": None,
    "range": None, "damaged": "stop", "duplicates": "warn", "train_size": None, "valid_size": None, "test_size": None,
    "split_seed": 0,
}  # fmt: skip


def read(root, **changes):
    return images(root, **{**DEFAULTS, **changes})


def picture(number, size=(6, 4), mode="RGB"):
    values = np.random.PCG64(number).random_raw(size[0] * size[1] * 3).astype(np.uint8)
    return Image.fromarray(values.reshape(size[1], size[0], 3)).convert(mode)


def fill(home, count, label, start=0, **how):
    home = home / label
    home.mkdir(parents=True, exist_ok=True)
    for number in range(start, start + count):
        picture(number, **how).save(home / f"{number:03}.png")
    return home


@pytest.fixture
def classes(tmp_path):
    """Two classes of 30 and 10 images in one folder."""
    fill(tmp_path / "mine", 30, "cat")
    fill(tmp_path / "mine", 10, "ant", 100)
    return tmp_path


def test_folders_of_classes_give_stratified_splits(classes):
    splits = read(classes)
    assert splits.classes == ("ant", "cat")
    assert [len(part) for part in splits.parts.values()] == [26, 6, 8]  # a fifth of 40, a fifth of 32
    for part in splits.parts.values():
        assert isinstance(part.images, Decoded)
        assert part.shape == (3, 4, 6)
        assert float(part.labels.double().mean()) == pytest.approx(0.75, abs=0.1)
    indices = torch.cat([part.in_memory().images.flatten(1).sum(1) for part in splits.parts.values()])
    assert len(indices) == 40


def test_sizes_are_shares_or_numbers(classes):
    assert [len(part) for part in read(classes, valid_size=0.25, test_size=10).parts.values()] == [22, 8, 10]
    assert len(read(classes, train_size=12).train) == 12
    with pytest.raises(ValueError, match="test_size is 39, but mine allows 2"):
        read(classes, test_size=39)
    with pytest.raises(ValueError, match="train_size is 100, but mine allows 2"):
        read(classes, train_size=100)


def test_pixels_are_those_of_the_files(classes):
    splits = read(classes).in_memory()
    paths = [entry.path for entry in read(classes).test.images.items]
    for path, image, label in zip(paths, splits.test.images, splits.test.labels, strict=True):
        np.testing.assert_array_equal(image.permute(1, 2, 0), np.asarray(Image.open(path)))
        assert splits.classes[int(label)] == path.parent.name


@pytest.mark.parametrize("valid", ["val", "valid", "validation"])
def test_parts_in_folders_of_their_own_are_kept(tmp_path, valid):
    for place, (part, count) in enumerate({"train": 9, valid: 4, "test": 5}.items()):
        for label in ("ant", "cat"):
            fill(tmp_path / "mine" / part, count, label, 100 * place)
    splits = read(tmp_path)
    assert [len(part) for part in splits.parts.values()] == [18, 8, 10]
    for name, part in zip(("train", valid, "test"), splits.parts.values(), strict=True):
        assert {entry.path.parents[1].name for entry in part.images.items} == {name}
    fewer = read(tmp_path, train_size=6, valid_size=0.5, test_size=4)
    assert [len(part) for part in fewer.parts.values()] == [6, 4, 4]
    assert set(fewer.train.index.tolist()) < set(splits.train.index.tolist())


def test_what_has_no_folder_is_drawn_from_training(tmp_path):
    for part, count in {"train": 20, "test": 5}.items():
        for label in ("ant", "cat"):
            fill(tmp_path / "mine" / part, count, label)
    assert [len(part) for part in read(tmp_path).parts.values()] == [32, 8, 10]
    assert {entry.path.parents[1].name for entry in read(tmp_path).valid.images.items} == {"train"}


def test_a_list_fixes_order_labels_and_splits(tmp_path):
    """Digits in one folder and a list, in the order of scikit-learn: the same data set to the last bit."""
    official = digits(train_size=200, valid_size=50, test_size=60, split_seed=0)
    home = tmp_path / "mine"
    home.mkdir()
    rows = []
    for name, part in official.parts.items():
        for number, (image, label) in enumerate(zip(part.images, part.labels, strict=True)):
            file = f"{(number * 37) % 1000}_{name}.png"
            Image.fromarray(image[0].numpy()).save(home / file)
            rows.append([file, str(int(label)), name])
    write_list(home, ["file", "label", "split"], rows)
    listed = read(tmp_path, channels=1)
    assert listed.classes == official.classes
    for part, other in zip(official.parts.values(), listed.in_memory().parts.values(), strict=True):
        assert torch.equal(part.images, other.images)
        assert torch.equal(part.labels, other.labels)
    assert (listed.mean, listed.std) == (official.mean, official.std)


def write_list(home, columns, rows):
    with (home / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def test_a_list_without_splits_is_divided(classes):
    rows = [[f"cat/{number:03}.png", "even" if number % 2 == 0 else "odd"] for number in range(30)]
    write_list(classes / "mine", ["file", "label"], rows)
    splits = read(classes)
    assert splits.classes == ("even", "odd")
    assert sum(map(len, splits.parts.values())) == 30


@pytest.mark.parametrize(
    ("columns", "row", "sentence"),
    [
        (
            ["nr", "label"],
            ["000.jpeg", "a"],
            r"no column of .* names images of .*mine \(it has nr, label\).*dataset.file",
        ),
        (
            ["file", "label"],
            ["cat/none.png", "a"],
            r"1 of 2 rows .* name no image .*line 3, 'cat/none.png'.*damaged=skip",
        ),
        (["file", "label", "split"], ["cat/000.png", "a", "later"], "line 3, has 'later' in the column 'split'"),
        (["file", "label"], ["cat/000.png", ""], "line 3, needs a label in the column 'label'"),
        (["file", "label"], ["cat/000.png", "b"], "too few classes"),
        (["file", "x", "y2"], ["cat/000.png", "b", "c"], r"which of its columns holds the labels: name one of x, y2"),
        (["file", "label"], ["cat/000.png", "a", "b"], "line 3 has 3 values, but there are 2 column names"),
    ],
)
def test_what_is_wrong_with_a_list_is_named(classes, columns, row, sentence):
    first = "001.jpeg" if columns[0] == "nr" else "cat/001.png"
    write_list(classes / "mine", columns, [[first, "b", "train"][: len(columns)], row])
    with pytest.raises(MissingData, match=sentence):
        read(classes)


def test_images_are_upright_and_of_the_asked_channels(classes):
    home = classes / "mine"
    wide = picture(7)
    turned = Image.Exif()
    turned[0x0112] = 6  # must be turned by 90 degrees to be seen upright
    tall = wide.transpose(Image.Transpose.ROTATE_90)  # as a camera stores what is wide
    tall.save(home / "cat" / "000.png", exif=turned)
    picture(8, mode="L").save(home / "cat" / "001.png")
    picture(9, mode="RGBA").save(home / "cat" / "002.png")
    picture(10, mode="P").save(home / "cat" / "003.png")
    splits = read(classes)
    found = {
        entry.path.name: image.read(entry)
        for image in (part.images for part in splits.parts.values())
        for entry in image.items
        if entry.path.parent.name == "cat"
    }
    np.testing.assert_array_equal(found["000.png"].transpose(1, 2, 0), np.asarray(wide))
    np.testing.assert_array_equal(found["001.png"][0], found["001.png"][2])
    assert all(image.shape == (3, 4, 6) and image.dtype == np.uint8 for image in found.values())
    assert read(classes, channels=1).in_memory().train.images.shape[1:] == (1, 4, 6)


def test_hidden_files_and_other_files_are_ignored(classes):
    home = classes / "mine"
    for name in ("._001.png", ".hidden.png", "notes.txt", "Thumbs.db"):
        (home / "cat" / name).write_text("no image")
    (home / ".cache").mkdir()
    (home / "readme.txt").write_text("no image")
    assert sum(len(part) for part in read(classes).in_memory().parts.values()) == 40


def test_folders_below_a_class_belong_to_it(classes):
    fill(classes / "mine" / "ant", 5, "more", 200)
    assert sum(map(len, read(classes).parts.values())) == 45


def test_all_images_are_brought_to_one_size_on_request(classes):
    picture(1, size=(12, 8)).save(classes / "mine" / "cat" / "029.png")
    with pytest.raises(MissingData, match=r"2 sizes, from 4x6 to 8x12 pixels .*such as dataset\.size=\[32,32\]"):
        read(classes)
    assert read(classes, size=[5, 7]).in_memory().train.images.shape[1:] == (3, 5, 7)


def broken(file):
    file.write_bytes(file.read_bytes()[:70])


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (broken, r"cat/005\.png cannot be read as an image"),
        (lambda file: file.write_text("hello"), r"cat/005\.png cannot be read as an image"),
    ],
    ids=["cut short", "text"],
)
def test_a_file_that_cannot_be_used_is_named_or_left_out(classes, break_it, sentence):
    break_it(classes / "mine" / "cat" / "005.png")
    with pytest.raises(MissingData, match=f"{sentence}.*dataset.damaged=skip"):
        read(classes)
    splits = read(classes, damaged="skip")
    assert sum(map(len, splits.in_memory().parts.values())) == 39
    assert splits.notes == ("1 of 40 images cannot be read and were left out: 005.png.",)
    assert len(splits.skipped) == 1


def test_a_folder_without_classes_says_what_it_should_hold(tmp_path):
    with pytest.raises(MissingData, match=r"there is no folder .*mine; .*a folder of images for each class"):
        read(tmp_path)
    fill(tmp_path / "mine", 3, "ant")
    with pytest.raises(MissingData, match="no folders of two or more classes"):
        read(tmp_path)
    fill(tmp_path / "mine", 3, "cat")
    (tmp_path / "mine" / "bee").mkdir()
    with pytest.raises(MissingData, match=r"bee has no image \(\.png"):
        read(tmp_path)


def test_a_class_that_is_only_tested_is_refused(tmp_path):
    for label in ("ant", "cat"):
        fill(tmp_path / "mine" / "train", 9, label)
        fill(tmp_path / "mine" / "test", 4, label)
    fill(tmp_path / "mine" / "test", 4, "dog")
    with pytest.raises(MissingData, match="no training image of dog, but test has images of it"):
        read(tmp_path)


@pytest.mark.parametrize("change", [{"channels": 4}, {"size": [0, 3]}, {"size": [3]}, {"size": 32}])
def test_settings_out_of_range_are_refused(classes, change):
    with pytest.raises(ValueError, match="a height and a width"):
        read(classes, **change)


def test_the_checksum_covers_pixels_labels_and_order_not_files(classes):
    first = read(classes)
    before = first.checksum
    assert before == first.in_memory().checksum
    file = classes / "mine" / "cat" / "003.png"
    Image.open(file).save(file, compress_level=1)  # other bytes, the same pixels
    assert read(classes).checksum == before
    picture(999).save(file)
    assert read(classes).checksum != before
