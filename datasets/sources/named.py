"""Images with a class each that torchvision knows by name and gets from where their authors keep them."""

import functools
import http.client
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from PIL import Image
from torchvision import datasets as known

from datasets import pixels
from datasets.decoded import BROKEN, Decoded
from datasets.divided import Sizes, divided
from datasets.files import reads
from datasets.grouped import OwnSplits
from datasets.official import downloading
from datasets.splits import MissingData, numbered


@dataclass(frozen=True)
class Known:
    """How torchvision calls a data set and its parts.

    Attributes:
        kind: its class.
        parts: what its class is given for ``train``, ``valid`` and ``test``; what has no official part is drawn from
            ``train``.
        classes: their names, where torchvision has none; empty where numbers will do.
        fetched: whether torchvision still knows where to download it.
    """

    kind: str
    parts: Mapping[str, Mapping[str, Any]]
    classes: tuple[str, ...] = ()
    fetched: bool = True


ALL: dict[str, Mapping[str, Any]] = {"train": {}}
TRAIN_TEST = {"train": {"split": "train"}, "test": {"split": "test"}}
TRAIN_VAL_TEST = {**TRAIN_TEST, "valid": {"split": "val"}}
# the official test part of these two is without labels, or not there: validation tests
TRAIN_VAL = {"train": {"split": "train"}, "test": {"split": "val"}}
FLAG = {"train": {"train": True}, "test": {"train": False}}

KNOWN = {
    "caltech101": Known("Caltech101", ALL),
    "caltech256": Known("Caltech256", ALL),
    "country211": Known("Country211", {**TRAIN_TEST, "valid": {"split": "valid"}}),
    "dtd": Known("DTD", TRAIN_VAL_TEST),
    "eurosat": Known("EuroSAT", ALL),
    "fgvc_aircraft": Known("FGVCAircraft", TRAIN_VAL_TEST),
    "flowers102": Known("Flowers102", TRAIN_VAL_TEST),
    "food101": Known("Food101", TRAIN_TEST),
    "gtsrb": Known("GTSRB", TRAIN_TEST),
    "imagenet": Known("ImageNet", TRAIN_VAL, fetched=False),
    "imagenette": Known("Imagenette", TRAIN_VAL),
    "kmnist": Known("KMNIST", FLAG),
    "mnist": Known("MNIST", FLAG),
    "oxford_pets": Known("OxfordIIITPet", {"train": {"split": "trainval"}, "test": {"split": "test"}}),
    "pcam": Known("PCAM", TRAIN_VAL_TEST, ("normal", "tumour")),
    "rendered_sst2": Known("RenderedSST2", TRAIN_VAL_TEST),
    "stl10": Known("STL10", TRAIN_TEST),
    "sun397": Known("SUN397", ALL),
    "svhn": Known("SVHN", TRAIN_TEST),
    "stanford_cars": Known("StanfordCars", TRAIN_TEST, fetched=False),
    "usps": Known("USPS", FLAG),
}
"""By the names of their options, which are those of their folders, too."""
TROUBLE = (OSError, RuntimeError, ValueError, http.client.HTTPException)
"""What torchvision raises where files are absent, damaged or cannot be had."""


@reads("{name}")
def named(
    root: Path,
    *,
    download: bool = False,
    name: str,
    channels: int,
    size: Sequence[int],
    **sizes: Unpack[Sizes],
) -> OwnSplits:
    """Images in files, decoded when they are needed, in the parts that their authors made.

    Args:
        root: Folder of all data sets.
        download: Whether to fetch what is absent.
        name: Of the data set, see `KNOWN`, and of the folder in `root` that torchvision calls root.
        channels: 3 for colour, 1 for grey.
        size: Height and width to which all images are brought (averaged down).
        sizes: Of the parts; see `datasets.divided.Sizes`. Parts that the authors did not make are drawn from the
            training images, with the same share of every class.

    Raises:
        MissingData: The files are absent or damaged, or could not be downloaded.
        ValueError: A setting is out of its range.
    """
    if name not in KNOWN:
        raise ValueError(f"dataset.name is {name}; it must be one of {', '.join(KNOWN)}.")
    if channels not in (1, 3) or len(size) != 2 or min(size) < 1:
        raise ValueError(
            f"dataset.channels is {channels} and dataset.size {list(size)}; they must be 3 (colour) or 1 (grey), and a "
            "height and a width in pixels."
        )
    about, home = KNOWN[name], root / name
    official = {part: _opened(about, home, given, download and about.fetched) for part, given in about.parts.items()}
    labels = {part: _labels(each) for part, each in official.items()}
    classes = _classes(about, official["train"], labels["train"])
    parts = {}
    for part, each in official.items():
        if len(each) != len(labels[part]):
            raise MissingData(
                f"{about.kind} in {home.resolve()} has {len(each)} images and {len(labels[part])} labels."
            )
        read = functools.partial(_image, each, channels=channels, size=(size[0], size[1]))
        rows = _rows(each)
        decoded = Decoded(tuple(rows.tolist()), read, (channels, *size))
        parts[part] = numbered(decoded, torch.from_numpy(labels[part][rows]))
    return divided(name, parts, classes, sizes)


def _opened(about: Known, home: Path, given: Mapping[str, Any], download: bool) -> Any:
    """Return torchvision's data set; downloaded, if asked for and not there."""
    kind = getattr(known, about.kind)
    try:
        return kind(home, **given)
    except TROUBLE as error:
        trouble, failed = "is not in", error
    if download:
        try:
            with downloading(home):
                return kind(home, **given, download=True)
        except TROUBLE as error:
            trouble, failed = "could not be downloaded into", error
    # without torchvision's advice, which speaks of its own arguments
    reason = " ".join(str(failed).split()).partition(" You can use")[0].rstrip(".") or type(failed).__name__
    how = "data.download=true fetches it" if about.fetched and not download else "get it from its authors"
    raise MissingData(
        f"{about.kind} {trouble} {home.resolve()} ({reason}): {how}, or name the folder of all data sets in "
        "LOSSBENCH_DATA or data.root."
    ) from failed


def _labels(official: Any) -> np.ndarray:
    """Return the class of each image, int64 (N,), without opening the images."""
    if hasattr(official, "h5py"):  # PCAM keeps them in a file of their own
        file = official._base_folder / official._FILES[official._split]["targets"][0]
        with official.h5py.File(file) as kept:
            return np.asarray(kept["y"]).reshape(-1).astype(np.int64)
    for name in ("targets", "labels", "_labels", "y"):
        if (found := getattr(official, name, None)) is not None:
            return np.asarray(found, dtype=np.int64)
    return np.asarray([label for _, label in official._samples], dtype=np.int64)


def _rows(official: Any) -> np.ndarray:
    """Return where each image stands in torchvision's data set, in an order that no file system decides."""
    files = getattr(official, "_image_files", None)  # SUN397 lists them as they are found
    return np.arange(len(official)) if files is None else np.argsort(list(map(str, files)), kind="stable")


def _classes(about: Known, official: Any, labels: np.ndarray) -> tuple[str, ...]:
    """Return the names of the classes; numbers where nobody gave names."""
    found = about.classes or getattr(official, "classes", None) or getattr(official, "categories", None)
    if not found:
        return tuple(map(str, range(int(labels.max()) + 1)))
    names = [each if isinstance(each, str) else each[0] for each in found]
    # two classes of ImageNet are called crane
    return tuple(f"{name} ({place})" if names.count(name) > 1 else name for place, name in enumerate(names))


def _image(official: Any, row: int, *, channels: int, size: tuple[int, int]) -> np.ndarray:
    """Return an image, uint8 (C, H, W)."""
    try:
        image = pixels.eight_bit(official[row][0], channels, (0.0, 255.0))
    except BROKEN as error:
        where = f"image {row} of {type(official).__name__}"
        raise MissingData(f"{where} cannot be read ({error}); fetch the data set anew.") from error
    if (image.height, image.width) != size:
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(*size, channels).transpose(2, 0, 1)
