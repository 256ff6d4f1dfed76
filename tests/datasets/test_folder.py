"""Images and masks of one's own, in every layout and coding that people bring: the same pairs and masks come out."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from datasets import paired
from datasets.redraw import redrawn
from datasets.sources.folder import folder, proposed
from datasets.splits import MissingData
from tests.conftest import ROOT

COUNT, HEIGHT, WIDTH = 8, 24, 32
COLOURS = np.array([[0, 0, 0], [128, 64, 128], [70, 130, 180]], np.uint8)
NAMED = {"background": [0, 0, 0], "road": [128, 64, 128], "sky": [70, 130, 180]}


def mask(number):
    """A mask of three classes in blocks, other for every image."""
    values = np.zeros((HEIGHT, WIDTH), np.uint8)
    values[8:, : 8 + number] = 1
    values[:8, 16:] = 2
    return values


def image(number):
    return np.stack([np.full((HEIGHT, WIDTH), 20 * number + 5 * channel, np.uint8) for channel in range(3)], 2)


def write(path, values, mode=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(values)
    (picture if mode is None else picture.convert(mode)).save(path, **options)


def write_all(home, image_name, mask_name, code=lambda values: values, **options):
    """Write all images and their masks; names may say the number and the part."""
    for number in range(COUNT):
        part = "train" if number < 4 else "val" if number < 6 else "test"
        write(home / image_name.format(number, part=part), image(number))
        write(home / mask_name.format(number, part=part), code(mask(number)), **options)


def settings(home, **changes):
    default = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "dataset" / "folder.yaml"))
    own = {name: value for name, value in default.items() if name not in ("_target_", "split", "augment")}
    return {**own, "path": home.name, "size": [HEIGHT, WIDTH], **changes}


def read(home, **changes):
    return folder(home.parent, **settings(home, **changes)).in_memory()


def check(splits, code=lambda values: values):
    """Every mask lies with its image, whose first pixel says which one it is."""
    seen = []
    for part in splits.parts.values():
        for pixels, found in zip(part.images, part.targets, strict=True):
            number = round(int(pixels[0, 0, 0]) / 20)
            seen.append(number)
            assert np.array_equal(found.numpy(), code(mask(number)))
    assert sorted(seen) == list(range(COUNT))


@pytest.fixture
def home(tmp_path):
    return tmp_path / "mine"


LAYOUTS = {
    "two folders": ("images/{:02}.png", "masks/{:02}.png"),
    "other names and suffixes": ("JPEGImages/{:02}.bmp", "SegmentationClass/{:02}.tif"),
    "a word after the name": ("images/{:02}.png", "labels/{:02}_mask.png"),
    "a word after both names": ("leftImg8bit/{:02}_leftImg8bit.png", "gtFine/{:02}_gtFine_labelIds.png"),
    "a word before both names": ("images/img_{}.png", "masks/mask_{}.png"),
    "side by side": ("{:02}.bmp", "{:02}_mask.png"),
    "side by side in folders": ("x/{:02}_sat.bmp", "x/{:02}_mask.png"),
    "sub-folders": ("images/{part}/a/{:02}.png", "masks/{part}/a/{:02}.png"),
    "parts above": ("{part}/images/{:02}.png", "{part}/masks/{:02}.png"),
    "parts in the names of folders": ("{part}/{:02}.png", "{part}annot/{:02}.png"),
    "numbers that begin alike": ("images/{}.png", "masks/{}.png"),
}


@pytest.mark.parametrize(("images", "masks"), LAYOUTS.values(), ids=LAYOUTS)
def test_every_layout_gives_the_same_pairs(images, masks, home):
    write_all(home, images, masks)
    write(home / Path(images).parent.name / "._0.png", mask(0))
    (home / "Thumbs.db").write_text("of an operating system")
    splits = read(home)
    check(splits)
    assert splits.classes == ("class_0", "class_1", "class_2")
    assert "{part}" not in images or [len(part) for part in splits.parts.values()] == [4, 2, 2]


CODES = {
    "colours": (lambda values: COLOURS[values], "png", {}),
    "palette": (lambda values: values, "png", {"mode": "P"}),
    "numbers in RGB": (lambda values: np.stack([values] * 3, 2), "png", {}),
    "numbers in RGBA": (lambda values: np.dstack([values] * 3 + [np.full_like(values, 255)]), "png", {}),
    "numbers of 16 bits": (lambda values: values.astype(np.uint16), "png", {}),
    "numbers in GIF": (lambda values: values, "gif", {}),
    "numbers with gaps": (lambda values: np.array([0, 7, 33], np.uint8)[values], "png", {}),
    "colours on transparent ground": (
        lambda values: np.dstack([COLOURS[values], 255 * (values > 0).astype(np.uint8)]), "png", {},
    ),
    "grey values": (lambda values: np.array([0, 128, 255], np.uint8)[values], "png", {}),
}  # fmt: skip


@pytest.mark.parametrize(("code", "suffix", "options"), CODES.values(), ids=CODES)
def test_every_coding_is_understood(code, suffix, options, home):
    write_all(home, "images/{:02}.png", f"masks/{{:02}}.{suffix}", code, **options)
    splits = read(home)
    assert len(splits.classes) == 3
    order = [0, 2, 1] if "colour_" in splits.classes[1] else [0, 1, 2]  # colours are sorted
    check(splits, lambda values: np.array(order)[values])


def test_palettes_that_differ_are_looked_up(home):
    """Programs that pack colours number them anew in every file."""
    write_all(home, "images/{:02}.png", "masks/{:02}.png")
    for number in range(COUNT):
        order = [number % 3, (number + 1) % 3, (number + 2) % 3]
        packed = Image.fromarray(np.argsort(order).astype(np.uint8)[mask(number)], mode="P")
        packed.putpalette(COLOURS[order].tobytes())
        packed.save(home / "masks" / f"{number:02}.png")
    splits = read(home)
    check(splits, lambda values: np.array([0, 2, 1])[values])  # colours are sorted
    check(read(home, colours=NAMED))
    with pytest.raises(ValueError, match="masks hold colours"):
        read(home, classes=["background", "road", "sky"])


def test_a_gif_that_is_all_object_is_not_background(home):
    def code(values):
        return 255 * np.full_like(values, (values[-1] == 1).sum() % 2)

    write_all(home, "images/{:02}.png", "masks/{:02}.gif", code)
    check(read(home), lambda values: code(values) > 0)
    check(read(home, binary=True), lambda values: code(values) > 0)


def test_colours_are_named_by_a_table(home):
    write_all(home, "images/{:02}.png", "masks/{:02}.png", lambda values: COLOURS[values])
    splits = read(home, colours=NAMED)
    check(splits)
    assert splits.classes == ("background", "road", "sky")
    with_void = read(home, colours={"road": [128, 64, 128], "background": [0, 0, 0], "void": [70, 130, 180]})
    assert with_void.classes == ("road", "background")
    check(with_void, lambda values: np.array([1, 0, 255])[values])
    with pytest.raises(MissingData, match=r"the colour \[70, 130, 180\], which dataset.colours does not name"):
        read(home, colours={"background": [0, 0, 0], "road": [128, 64, 128]})
    with pytest.raises(ValueError, match="the same colour"):
        read(home, colours={"a": 0, "b": [0, 0, 0]})


def test_a_file_beside_the_masks_names_their_colours(home):
    write_all(home, "images/{:02}.png", "masks/{:02}.png", lambda values: COLOURS[values])
    (home / "class_dict.csv").write_text("name,r,g,b\nbackground,0,0,0\nroad,128,64,128\nsky,70,130,180\n")
    assert set(read(home).classes) == {"background", "road", "sky"}


def test_colours_without_names_are_proposed_in_words_that_can_be_pasted(home):
    write_all(home, "images/{:02}.png", "masks/{:02}.png", lambda values: COLOURS[values])
    with pytest.raises(ValueError, match="masks hold colours") as raised:
        read(home, classes=["background", "road", "sky"])
    (table,) = re.findall(r"'dataset.colours=(\{.*?\})'", str(raised.value))
    pasted = OmegaConf.to_container(OmegaConf.create(f"colours: {table}"))
    assert read(home, **pasted).classes == tuple(pasted["colours"])
    assert proposed(home)["colours"] == pasted["colours"]


def test_masks_of_0_and_255_are_one_object_and_never_void(home):
    write_all(home, "images/{:02}.png", "masks/{:02}.png", lambda values: 255 * (values == 1).astype(np.uint8))
    splits = read(home)
    assert splits.classes == ("background", "object")
    check(splits, lambda values: values == 1)
    check(read(home, classes=["background", "crack"], binary=True), lambda values: values == 1)
    with pytest.raises(ValueError, match=r"set dataset\.binary=true"):
        read(home, classes=["background", "crack"])
    assert proposed(home) == {"size": [32, 32], "classes": ["background", "object"], "binary": True}


@pytest.mark.parametrize("several", [False, True], ids=["one class", "colours"])
def test_jpeg_masks_take_the_nearest_value(several, home):
    def code(values):
        return COLOURS[values] if several else 255 * (values == 1).astype(np.uint8)

    write_all(home, "images/{:02}.png", "masks/{:02}.jpg", code, quality=80)
    splits = read(home, colours=NAMED if several else None)
    assert any("JPEG" in note for note in read(home).notes)
    for part in splits.parts.values():
        for pixels, found in zip(part.images, part.targets, strict=True):
            wanted = mask(round(int(pixels[0, 0, 0]) / 20))
            wanted = torch.from_numpy(wanted if several else (wanted == 1).astype(np.uint8))
            counted = found != 255
            assert counted.float().mean() > 0.8
            assert (found == wanted)[counted].float().mean() > 0.97


@pytest.mark.parametrize("name", ["masks/{:02}_{}.png", "masks/{1}/{0:02}.png"], ids=["names", "folders"])
def test_each_class_may_have_a_file_of_its_own(name, home):
    for number in range(COUNT):
        write(home / "images" / f"{number:02}.png", image(number))
        for label, layer in enumerate(("road", "sky"), 1):
            write(home / name.format(number, layer), 255 * (mask(number) == label).astype(np.uint8))
    splits = read(home)
    assert splits.classes == ("background", "road", "sky")
    check(splits)
    with pytest.raises(ValueError, match="their mask files show"):
        read(home, classes=["background", "road", "car"])


def test_files_of_several_objects_of_one_class_are_joined(home):
    for number in range(COUNT):
        write(home / "images" / f"{number:02}.png", image(number))
        for label in (1, 2):
            write(home / "masks" / f"{number:02}_mask_{label}.png", 255 * (mask(number) == label).astype(np.uint8))
    check(read(home), lambda values: values > 0)


def test_lists_name_the_parts(home):
    write_all(home, "images/{:02}.png", "masks/{:02}.png")
    for part, numbers in {"train": [0, 2, 4], "val": [1], "test": [3, 5]}.items():
        file = home / "ImageSets" / "Segmentation" / f"{part}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{number:02}\n" for number in numbers))
    splits = read(home)
    assert [len(part) for part in splits.parts.values()] == [3, 1, 2]
    assert any(note.startswith("2 images are in no list") for note in splits.notes)
    file.write_text("09\n03\n")
    with pytest.raises(MissingData, match=r"test\.txt lists 1 images that are absent \(09\)"):
        read(home)
    file.write_text("00\n")
    with pytest.raises(MissingData, match="is listed in"):
        read(home)


def test_a_test_part_without_masks_is_left_out_and_said(home):
    write_all(home, "{part}/images/{:02}.png", "{part}/masks/{:02}.png")
    for file in (home / "test" / "masks").iterdir():
        file.unlink()
    splits = read(home)
    assert [len(part) for part in splits.parts.values()] == [3, 2, 1]
    assert any("no image of the part test has a mask" in note for note in splits.notes)


def damage(home):
    """One image without a mask, one mask of another size, one broken image."""
    write_all(home, "images/{:02}.png", "masks/{:02}.png")
    (home / "masks" / "01.png").unlink()
    write(home / "masks" / "02.png", mask(2)[:, :20])
    (home / "images" / "03.png").write_text("no image")


def test_what_is_wrong_is_counted_with_the_first_names(home):
    damage(home)
    with pytest.raises(MissingData, match=r"1 of 8 images have no mask \(01\.png\)"):
        read(home)
    write(home / "masks" / "01.png", mask(1))
    with pytest.raises(
        MissingData, match=r"2 of 8 .*02\.png has 20x24 pixels, but 02\.png 32x24.*dataset\.damaged=skip"
    ):
        read(home)


def test_what_is_left_out_on_request_is_said(home):
    damage(home)
    splits = read(home, damaged="skip")
    assert sum(map(len, splits.parts.values())) == COUNT - 3
    (note,) = [note for note in splits.notes if "left out" in note]
    assert note.startswith("dataset.damaged=skip left out 3 of 8 images")
    assert "01.png has no mask" in note


def test_an_image_is_turned_as_its_camera_says_before_it_meets_its_mask(home):
    write_all(home, "images/{:02}.png", "masks/{:02}.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    for number in range(COUNT):
        values = np.array(image(number))
        values[:4] = 255  # the upper edge, as one looks at it
        write(home / "images" / f"{number:02}.png", np.ascontiguousarray(np.rot90(values)), exif=exif)
    splits = read(home)
    assert splits.train.images.shape[1:] == (3, HEIGHT, WIDTH)
    assert (splits.train.images[:, :, :4] == 255).all()
    assert not (splits.train.images[:, :, 4:] == 255).any()


def test_a_class_without_a_training_pixel_is_refused(home):
    write_all(home, "images/{:02}.png", "masks/{:02}.png")
    with pytest.raises(ValueError, match="none of the 5 training masks of mine shows car at 24x32"):
        read(home, classes=["background", "road", "sky", "car"])


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (lambda values: 0 * values, "the value 0 alone"),
        (lambda values: np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH), "too many to be classes"),
    ],
    ids=["nothing", "instances"],
)
def test_masks_that_show_no_classes_are_refused(code, sentence, home):
    write_all(home, "images/{:02}.png", "masks/{:02}.png", code)
    with pytest.raises(ValueError, match=sentence):
        read(home)
    with pytest.raises(MissingData, match=sentence):
        proposed(home)


def test_groups_stay_in_one_part_also_where_parts_are_drawn_anew(home):
    for number in range(16):
        write(home / "images" / f"p{number // 2}_{number}.png", image(number % COUNT))
        write(home / "masks" / f"p{number // 2}_{number}.png", mask(number % COUNT))
    splits = read(home, group=r"regex:^(p\d+)_")
    lazy = folder(home.parent, **settings(home, group=r"regex:^(p\d+)_"))
    for drawn in (lazy, lazy.redrawn(1), lazy.redrawn(2)):
        items = [
            [item[1] if isinstance(item, tuple) else item for item in part.images.items]
            for part in drawn.parts.values()
        ]
        groups = [{pair.group for pair in part} for part in items]
        assert sum(map(len, groups)) == len(set().union(*groups)) == 8
        assert all(groups)
    assert any("form 8 groups" in note for note in splits.notes)
    assert sum(map(len, redrawn(splits, 1).parts.values())) == 16


def test_what_is_no_such_folder_is_said(home):
    assert proposed(home) is None
    with pytest.raises(MissingData, match=r"there is no folder .*mine; name one in dataset\.path"):
        read(home)
    write(home / "images" / "a.png", image(0))
    with pytest.raises(MissingData, match="has no mask files"):
        read(home)
    write(home / "masks" / "b.png", mask(0))
    with pytest.raises(MissingData, match=r"none of the 1 masks .*is named after an image"):
        read(home)
    assert proposed(home) is None


def test_names_in_too_many_ways_are_no_classes(home):
    write(home / "images" / "a.png", image(0))
    for number in range(paired.MOST_LAYERS + 2):
        write(home / "masks" / f"a_{'x' * (number + 1)}.png", mask(0))
    with pytest.raises(MissingData, match=r"in 66 ways .*dataset\.mask_suffix"):
        paired.find(home)
    assert len(paired.find(home, mask_suffix="_x.png").pairs) == 1
