"""Data sets of torchvision by name, made small in the layouts of their authors."""

import csv
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from torchvision import datasets as known

from datasets.official import downloading
from datasets.sources.named import KNOWN, named
from datasets.splits import MissingData

COUNT = 6
"""Images of each class in each part."""


def read(root, name, **settings):
    given = {"channels": 3, "size": [8, 8], "split_seed": 0}
    sizes = dict.fromkeys(("train_size", "valid_size", "test_size"))
    return named(root, name=name, **{**given, **sizes, **settings})


def picture(path, shade):
    path.parent.mkdir(parents=True, exist_ok=True)
    # of another size each, and without losses, so that its shade can be found again
    image = Image.new("RGB", (9 + shade % 3, 12), (shade, shade, shade))
    image.save(path, format="PNG")


def folders(home, classes, suffix=".jpg", shade=0, prefix=""):
    for place, name in enumerate(classes):
        for number in range(1, COUNT + 1):
            picture(home / name / f"{prefix}{number:04d}{suffix}", 10 * place + shade)


def eurosat(root):
    folders(root / "eurosat" / "2750", ("Forest", "River"))


def caltech101(root):
    folders(root / "caltech101" / "101_ObjectCategories", ("ant", "crab"), prefix="image_")
    (root / "caltech101" / "101_ObjectCategories" / "BACKGROUND_Google").mkdir()


def caltech256(root):
    home = root / "caltech256" / "256_ObjectCategories"
    for place, name in enumerate(("001.ak47", "002.flag")):
        folders(home, (name,), shade=10 * place, prefix=f"{place + 1:03d}_")


def country211(root):
    for part, shade in (("train", 0), ("valid", 1), ("test", 2)):
        folders(root / "country211" / part, ("AD", "AE"), shade=shade)


def rendered_sst2(root):
    for part, shade in (("train", 0), ("valid", 1), ("test", 2)):
        folders(root / "rendered-sst2" / part, ("negative", "positive"), ".png", shade)


def dtd(root):
    home = root / "dtd" / "dtd"
    (home / "labels").mkdir(parents=True)
    for shade, part in enumerate(("train", "val", "test")):
        names = [f"{name}/{part}_{number:04d}.jpg" for name in ("banded", "dotted") for number in range(COUNT)]
        for name in names:
            picture(home / "images" / name, 10 * name.startswith("dotted") + shade)
        (home / "labels" / f"{part}1.txt").write_text("\n".join(names) + "\n")


def oxford_pets(root):
    home = root / "oxford-iiit-pet"
    (home / "annotations").mkdir(parents=True)
    for shade, part in enumerate(("trainval", "test")):
        lines = []
        for place, name in enumerate(("Abyssinian", "beagle")):
            for number in range(COUNT):
                picture(home / "images" / f"{name}_{part}{number}.jpg", 10 * place + shade)
                lines.append(f"{name}_{part}{number} {place + 1} 1 1")
        (home / "annotations" / f"{part}.txt").write_text("\n".join(lines) + "\n")


def food101(root):
    home = root / "food-101"
    (home / "meta").mkdir(parents=True)
    for shade, part in enumerate(("train", "test")):
        listed = {name: [f"{name}/{part}{n}" for n in range(COUNT)] for name in ("pho", "ramen")}
        for place, names in enumerate(listed.values()):
            for name in names:
                picture(home / "images" / f"{name}.jpg", 10 * place + shade)
        (home / "meta" / f"{part}.json").write_text(json.dumps(listed))


def fgvc_aircraft(root):
    home = root / "fgvc-aircraft-2013b" / "data"
    home.mkdir(parents=True)
    (home / "variants.txt").write_text("707-320\nTu-154\n")
    for shade, part in enumerate(("train", "val", "test")):
        lines = []
        for place, name in enumerate(("707-320", "Tu-154")):
            for number in range(COUNT):
                stem = f"{1000 * place + 100 * shade + number:07d}"
                picture(home / "images" / f"{stem}.jpg", 10 * place + shade)
                lines.append(f"{stem} {name}")
        (home / f"images_variant_{part}.txt").write_text("\n".join(lines) + "\n")


def gtsrb(root):
    home = root / "gtsrb"
    folders(home / "GTSRB" / "Training", ("00000", "00001"), ".ppm")
    rows = [(f"{number:05d}.ppm", number % 2) for number in range(2 * COUNT)]
    for name, label in rows:
        picture(home / "GTSRB" / "Final_Test" / "Images" / name, 10 * label + 1)
    with (home / "GT-final_test.csv").open("w", newline="") as file:
        csv.writer(file, delimiter=";").writerows([("Filename", "ClassId"), *rows])


def imagenette(root):
    for shade, part in enumerate(("train", "val")):
        folders(root / "imagenette2" / part, ("n01440764", "n02102040"), ".JPEG", shade)


def imagenet(root):
    for shade, part in enumerate(("train", "val")):
        folders(root / part, ("n02012849", "n03126707"), ".JPEG", shade)
    torch.save(({"n02012849": ("crane",), "n03126707": ("crane",)}, []), root / "meta.bin")


def sun397(root):
    home = root / "SUN397"
    folders(home / "a", ("abbey", "alley"), prefix="sun_")
    (home / "ClassName.txt").write_text("/a/abbey\n/a/alley\n")


MADE = {
    "caltech101": (caltech101, ("ant", "crab")),
    "caltech256": (caltech256, ("001.ak47", "002.flag")),
    "country211": (country211, ("AD", "AE")),
    "dtd": (dtd, ("banded", "dotted")),
    "eurosat": (eurosat, ("Forest", "River")),
    "fgvc_aircraft": (fgvc_aircraft, ("707-320", "Tu-154")),
    "food101": (food101, ("pho", "ramen")),
    "gtsrb": (gtsrb, ("0", "1")),
    "imagenet": (imagenet, ("crane (0)", "crane (1)")),
    "imagenette": (imagenette, ("tench", "English springer")),
    "oxford_pets": (oxford_pets, ("Abyssinian", "Beagle")),
    "rendered_sst2": (rendered_sst2, ("negative", "positive")),
    "sun397": (sun397, ("abbey", "alley")),
}


def test_every_name_has_an_option_and_is_one_of_torchvision():
    configs = Path(__file__).resolve().parents[2] / "conf" / "dataset"
    found = {path.stem: OmegaConf.load(path) for path in configs.glob("*.yaml")}
    named_here = {stem: config.name for stem, config in found.items() if config._target_.endswith(".named")}
    assert named_here == {name: name for name in KNOWN}
    assert all(callable(getattr(known, about.kind)) for about in KNOWN.values())


@pytest.mark.parametrize("name", MADE)
def test_images_labels_and_parts_are_those_of_the_authors(name, tmp_path):
    make, classes = MADE[name]
    make(tmp_path / name)
    splits = read(tmp_path, name)
    assert splits.classes == classes
    official = KNOWN[name].parts
    if set(official) == {"train"}:  # a fifth of all tests, a fifth of the rest validates
        assert [len(part) for part in splits.parts.values()] == [8, 2, 2]
    else:
        lengths = [len(part) for part in (splits.train, splits.test)]
        assert lengths == ([12, 12] if "valid" in official else [10, 12])
    for part, items in splits.parts.items():
        items = items.in_memory()
        shades = items.images.flatten(1).long()
        assert (shades == shades[:, :1]).all()
        assert (shades[:, 0] // 10 == items.targets).all()
        # the last digit tells of which official part an image is; those that are drawn are of the first
        place = sorted(official, key=("train", "valid", "test").index).index(part if part in official else "train")
        assert (shades[:, 0] % 10 == place).all()


@pytest.mark.parametrize("name", KNOWN)
def test_what_is_absent_is_said_with_its_place_and_what_to_do(name, tmp_path):
    with pytest.raises(MissingData) as caught:
        read(tmp_path, name)
    message = str(caught.value)
    assert f"{KNOWN[name].kind} is not in {tmp_path.resolve() / name} (" in message
    assert ("data.download=true" in message) == (name not in ("imagenet", "stanford_cars"))
    assert "data.root" in message


def test_a_failed_download_is_one_sentence(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(known.EuroSAT, "download", refuse)
    with pytest.raises(MissingData, match=r"EuroSAT could not be downloaded into .* \(no route to host\): get it from"):
        read(tmp_path, "eurosat", download=True)


def test_a_download_is_read_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(known.EuroSAT, "download", lambda self: eurosat(Path(self.root)))
    assert len(read(tmp_path, "eurosat", download=True).test) == 2
    with downloading(tmp_path / "eurosat"):
        pass  # nobody holds it any more


def test_a_broken_image_is_named_and_settings_are_checked(tmp_path):
    eurosat(tmp_path / "eurosat")
    for file in (tmp_path / "eurosat").rglob("*0003.jpg"):
        file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(MissingData, match="of EuroSAT cannot be read"):
        read(tmp_path, "eurosat").train.in_memory()
    with pytest.raises(ValueError, match=r"dataset\.name is EuroSAT; it must be one of caltech101"):
        named(
            tmp_path,
            name="EuroSAT",
            channels=3,
            size=[8, 8],
            train_size=1,
            valid_size=1,
            test_size=1,
            split_seed=0,
        )
    with pytest.raises(ValueError, match=r"dataset\.channels is 2"):
        read(tmp_path, "eurosat", channels=2)


def test_labels_of_patch_camelyon_come_from_their_own_file(tmp_path, monkeypatch):
    """With a stand-in for h5py, which keeps arrays in numpy's files."""

    class File(dict):
        def __init__(self, path):
            super().__init__(np.load(f"{path}.npz"))

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

    stand_in = types.ModuleType("h5py")
    stand_in.File = File
    monkeypatch.setitem(sys.modules, "h5py", stand_in)
    home = tmp_path / "pcam" / "pcam"
    home.mkdir(parents=True)
    for part in ("train", "val", "test"):
        images, targets = (known.PCAM._FILES[part][kind][0] for kind in ("images", "targets"))
        labels = np.arange(2 * COUNT) % 2
        for name, arrays in (
            (images, {"x": np.full((12, 96, 96, 3), 1, np.uint8) * labels[:, None, None, None].astype(np.uint8)}),
            (targets, {"y": labels[:, None, None, None]}),
        ):
            np.savez(home / f"{name}.npz", **arrays)
            (home / name).touch()
    splits = read(tmp_path, "pcam")
    assert splits.classes == ("normal", "tumour")
    images = splits.test.in_memory()
    assert (images.images[:, 0, 0, 0] == images.targets).all()
