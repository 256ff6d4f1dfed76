"""Images of one's own as people have them: tables of any kind, the hub's files, groups, copies, deep images."""

import io
import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from datasets.grouped import entries
from datasets.sources.images import proposed
from datasets.splits import MissingData
from tests.datasets.test_images_folder import picture, read

COUNT = 24
NAMES = [f"p{number // 3}_{number:02}.png" for number in range(COUNT)]
LABELS = [("cat", "dog")[number % 2] for number in range(COUNT)]


@pytest.fixture
def home(tmp_path):
    """24 images in a folder below the data set's, of 8 patients."""
    home = tmp_path / "mine" / "photos"
    home.mkdir(parents=True)
    for number, name in enumerate(NAMES):
        picture(number, size=(12, 10)).save(home / name)
    return home.parent


def labelled(splits):
    """Return the label of each file of all parts."""
    return {
        entry.path.name: splits.classes[int(label)]
        for part in splits.parts.values()
        for entry, label in zip(part.images.items, part.labels, strict=True)
    }


EXPECTED = dict(zip(NAMES, LABELS, strict=True))


def rows(*columns):
    return [list(row) for row in zip(*columns, strict=True)]


@pytest.mark.parametrize(
    ("separator", "encoding", "name"),
    [(",", "utf-8", "a.csv"), (";", "utf-8-sig", "a.csv"), ("\t", "utf-16", "a.tsv"), ("|", "latin-1", "labels.csv")],
)
def test_any_separator_and_encoding_is_read(home, separator, encoding, name):
    lines = [["Größe", "Filename", "Species"], *rows(["7"] * COUNT, [f"photos/{name}" for name in NAMES], LABELS)]
    (home / name).write_bytes("\n".join(separator.join(line) for line in lines).encode(encoding))
    splits = read(home.parent)
    assert labelled(splits) == EXPECTED
    assert splits.notes == (f"read from {name}: images in the column 'Filename', labels in 'Species'.",)


def csv_of(home, columns, *values, name="list.csv"):
    (home / name).write_text("\n".join(map(",".join, [columns, *rows(*values)])))


def test_names_may_lack_folder_and_suffix_and_the_columns_any_name(home):
    csv_of(home, ["x", "what"], [name.removesuffix(".png") for name in NAMES], LABELS)
    assert labelled(read(home.parent)) == EXPECTED
    csv_of(home, ["x", "what", "score"], NAMES, LABELS, ["3"] * COUNT)
    with pytest.raises(MissingData, match=r"name one of what, score in dataset\.label"):
        read(home.parent)
    assert labelled(read(home.parent, label="what")) == EXPECTED
    with pytest.raises(MissingData, match=r"dataset.label=whale: .* has the columns x, what, score"):
        read(home.parent, label="whale")


def test_columns_of_marks_are_classes_if_each_image_has_one(home):
    marks = [["1.0" if label == of else "0.0" for label in LABELS] for of in ("dog", "cat")]
    csv_of(home, ["image", "dog", "cat"], NAMES, *marks)
    splits = read(home.parent)
    assert labelled(splits) == EXPECTED
    assert splits.classes == ("dog", "cat")


def test_a_column_or_a_table_for_each_part_divides(home):
    parts = ["train"] * 12 + ["VAL"] * 6 + ["Test"] * 6
    csv_of(home, ["image", "label", "fold_set", "split"], NAMES, LABELS, ["a"] * COUNT, parts)
    assert [len(part) for part in read(home.parent).parts.values()] == [12, 6, 6]
    (home / "list.csv").unlink()
    for name, chosen in {"train": slice(0, 14), "val": slice(14, 18), "test": slice(18, 24)}.items():
        csv_of(home, ["image", "label"], NAMES[chosen], LABELS[chosen], name=f"{name}.csv")
    splits = read(home.parent)
    assert [len(part) for part in splits.parts.values()] == [14, 4, 6]
    assert labelled(splits) == EXPECTED


def test_missing_files_are_counted_and_may_be_left_out(home):
    csv_of(home, ["image", "label"], [*NAMES[:-2], "none.png", "../a.png"], LABELS)
    (home.parent / "a.png").write_bytes((home / "photos" / NAMES[0]).read_bytes())
    sentence = r"2 of 24 rows of list.csv name no image of .*: line 24, 'none.png', line 25, '../a.png'"
    with pytest.raises(MissingData, match=sentence):
        read(home.parent)
    splits = read(home.parent, damaged="skip")
    assert len(labelled(splits)) == COUNT - 2
    assert "they were left out" in splits.notes[1]


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_metadata_of_the_hub_lie_beside_the_files_of_each_part(tmp_path, suffix):
    for part, count in {"train": 16, "validation": 4, "test": 4}.items():
        folder = tmp_path / "mine" / part
        folder.mkdir(parents=True)
        for number in range(count):
            picture(number + 100 * len(part), size=(12, 10)).save(folder / f"{number}.png")
        table = {"file_name": [f"{number}.png" for number in range(count)], "label": [n % 2 for n in range(count)]}
        if suffix == "jsonl":
            lines = (json.dumps(dict(zip(table, row, strict=True))) for row in zip(*table.values(), strict=True))
            (folder / "metadata.jsonl").write_text("\n".join(lines))
        elif suffix == "csv":
            csv_of(
                folder, list(table), *([str(value) for value in each] for each in table.values()), name="metadata.csv"
            )
        else:
            parquet.write_table(pa.table(table), folder / "metadata.parquet")
    splits = read(tmp_path)
    assert [len(part) for part in splits.parts.values()] == [16, 4, 4]
    assert splits.classes == ("0", "1")
    for part in splits.parts.values():
        assert [int(entry.path.stem) % 2 for entry in part.images.items] == part.labels.tolist()


def packed(numbers, names):
    """Return a table as the hub stores it: bytes and path of each image, and the names of classes in the metadata."""
    images = []
    for number in numbers:
        held = io.BytesIO()
        picture(number, size=(12, 10)).save(held, "PNG")
        images.append({"bytes": held.getvalue(), "path": f"{number}.png"})
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(images, kind), "label": [number % 3 for number in numbers]})
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def test_packed_images_are_those_of_files(tmp_path):
    home, names = tmp_path / "mine" / "data", ["zebra", "ant", "cow", "never"]
    home.mkdir(parents=True)
    for file, numbers in {
        "train-00000-of-00002": range(10), "train-00001-of-00002": range(10, 20), "test-00000-of-00001": range(20, 26),
    }.items():  # fmt: skip
        parquet.write_table(packed(numbers, names), home / f"{file}.parquet", row_group_size=4)
    splits = read(tmp_path)
    assert splits.classes == ("zebra", "ant", "cow")
    assert [len(part) for part in splits.parts.values()] == [16, 4, 6]
    for part in splits.parts.values():
        for entry, image, label in zip(part.images.items, part.in_memory().images, part.labels, strict=True):
            number = int(entry.path.stem)
            assert int(label) == number % 3
            np.testing.assert_array_equal(image.permute(1, 2, 0), np.asarray(picture(number, size=(12, 10))))
    damaged = packed(range(6), names).to_pylist()
    damaged[2]["image"]["bytes"] = b"no image"
    parquet.write_table(pa.Table.from_pylist(damaged), home / "test-00000-of-00001.parquet")
    with pytest.raises(MissingData, match=r"test-00000-of-00001.parquet/2.png cannot be read as an image"):
        read(tmp_path)


def groups_by_part(splits):
    items = (
        [item if hasattr(item, "group") else item[1] for item in entries([part])] for part in splits.parts.values()
    )
    return [{entry.group for entry in part} for part in items]


@pytest.mark.parametrize("group", [r"regex:^(\w+)_", "patient"])
def test_no_group_stands_in_two_parts_however_they_are_drawn(home, group):
    csv_of(home, ["image", "label", "patient"], NAMES, LABELS, [f"{number // 3}" for number in range(COUNT)])
    splits = read(home.parent, group=group)
    seen = []
    for drawn in (splits, *(splits.redrawn(seed) for seed in range(3))):
        train, valid, test = groups_by_part(drawn)
        assert (len(train | valid | test), len(train) + len(valid) + len(test)) == (8, 8)
        assert sum(map(len, drawn.parts.values())) == COUNT
        assert sorted(len(part) for part in drawn.parts.values()) in ([3, 3, 18], [3, 6, 15])
        seen.append(frozenset(test))
    assert len(set(seen)) > 1
    assert f"24 images form 8 groups by {group}; none stands in two parts." in splits.notes


def test_groups_that_cannot_be_are_refused(home):
    parts = ["train"] * 13 + ["valid"] * 5 + ["test"] * 6
    csv_of(home, ["image", "label", "split", "patient"], NAMES, LABELS, parts, [f"{n // 3}" for n in range(COUNT)])
    with pytest.raises(MissingData, match=r"group=patient: the group 4 stands in two parts \(train and valid\)"):
        read(home.parent, group="patient")
    with pytest.raises(MissingData, match=r"group=person: there is no such column \(the table has patient beside\)"):
        read(home.parent, group="person")
    with pytest.raises(MissingData, match=r"\^q is not found in the names of 24 files \(p0_00.png, p0_01.png"):
        read(home.parent, group="regex:^q")
    with pytest.raises(MissingData, match="is no regular expression"):
        read(home.parent, group="regex:(")
    (home / "list.csv").unlink()
    csv_of(home, ["image", "label", "patient"], NAMES, LABELS, LABELS)
    with pytest.raises(MissingData, match="2 groups for 3 parts"):
        read(home.parent, group="patient")


def test_copies_in_two_parts_are_said_or_dropped(home):
    """Smooth pictures, as photographs are; three of the test are in training, one of them as another class."""
    for place, part in enumerate(("train", "test")):
        for number in range(12):
            folder = home / part / ("cat", "dog")[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            picture(100 * place + number, size=(6, 5)).resize((48, 40), Image.Resampling.BICUBIC).save(
                folder / f"{part}{number}.png"
            )
    for number in range(3):
        copy = Image.open(home / "train" / ("cat", "dog")[number % 2] / f"train{number}.png")
        copy.save(home / "test" / "cat" / f"copy{number}.jpg", quality=70)
    splits = read(home.parent)
    assert splits.notes == (
        "2 images have copies of another class: copy1.jpg, train1.png; one of the labels is wrong.",
        "3 of 15 test images are nearly the same as training images: copy0.jpg, copy1.jpg, copy2.jpg; "
        "dataset.duplicates=drop leaves copies out.",
    )
    dropped = read(home.parent, duplicates="drop")
    assert len(dropped.test) == 15  # the test stays as it was
    assert len(dropped.train) + len(dropped.valid) == 9
    assert any(note.startswith("3 images are copies of others and were left out: train0.png") for note in dropped.notes)
    assert read(home.parent, duplicates="allow").notes == ()


def test_deep_images_and_several_frames_are_said(home):
    (home / "cat").mkdir()
    (home / "dog").mkdir()
    for number in range(COUNT):
        values = np.random.PCG64(number).random_raw(120).astype(np.uint16).reshape(10, 12) % 4000
        Image.fromarray(values).save(home / LABELS[number] / f"{number}.png")
    frames = [picture(900 + number, size=(12, 10)) for number in range(2)]
    frames[0].save(home / "dog" / "moving.gif", save_all=True, append_images=frames[1:])
    for path in (home / "photos").iterdir():
        path.unlink()
    (home / "photos").rmdir()
    splits = read(home.parent, channels=1)
    assert splits.notes == (
        "images have more than 8 bits: 0 to 4095 become 0 to 255; dataset.range=[0,4095] keeps it so.",
        "1 files have several images, of which the first is used: moving.gif.",
    )
    narrow = read(home.parent, channels=1, range=[0, 1000])
    assert float(narrow.in_memory().train.images.double().mean()) > float(
        splits.in_memory().train.images.double().mean()
    )


def test_what_look_proposes_reads_the_data(home):
    assert proposed(home) is None
    csv_of(home, ["image", "species"], NAMES, LABELS)
    found = proposed(home / "list.csv")
    assert found == {
        "task": "classification", "dataset": "images", "dataset.path": str(home), "dataset.table": "list.csv",
        "dataset.file": "image", "dataset.label": "species",
    }  # fmt: skip
    settings = {name.removeprefix("dataset."): value for name, value in found.items() if "." in name}
    assert labelled(read(home.parent, **settings)) == EXPECTED
    picture(3, size=(70, 90)).save(home / "photos" / NAMES[0])
    assert proposed(home)["dataset.size"] == [32, 32]


def test_the_checksum_is_that_of_the_decoded_images(home):
    csv_of(home, ["image", "species"], NAMES, LABELS)
    splits = read(home.parent)
    assert splits.checksum == splits.in_memory().checksum
    assert torch.cat([part.labels for part in splits.parts.values()]).bincount().tolist() == [12, 12]
