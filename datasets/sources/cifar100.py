"""CIFAR-100: 60,000 colour photographs of 32x32 pixels in 100 classes."""

import pickle
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from torchvision.datasets import CIFAR100

from datasets.files import official, reads
from datasets.official import Source, cifar_checksums, fetch
from datasets.splits import Images, MissingData, Splits, SplitSettings, numbered, split

SOURCE = Source("CIFAR-100", "cifar100", CIFAR100, lambda: cifar_checksums(CIFAR100))

ALLOWED = {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}
"""What the official files, which are pickles, may ask for, beside numpy's own function that builds an array."""


@official
@reads(
    ("cifar100/cifar-100-python/train", "cifar-100-python/train"),
    ("cifar100/cifar-100-python/test", "cifar-100-python/test"),
    ("cifar100/cifar-100-python/meta", "cifar-100-python/meta"),
)
def cifar100(root: Path, *, download: bool = False, subset: bool, **common: Unpack[SplitSettings]) -> Splits:
    """Things, plants and animals in 32x32 pixels with three channels, 100 (fine) classes.

    Args:
        root: Folder of all data sets; the files lie in `root/cifar100/cifar-100-python`.
        download: Whether to fetch what is absent or damaged.
        subset: Whether files of the official format that hold fewer images are taken too; else checksums must be right.
        common: Settings as in `splits.SplitSettings`.

    Raises:
        MissingData: The files are absent or damaged, or could not be downloaded.
        ValueError: A size cannot be had.

    Source:
        Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
    """
    train, test, classes = read_parts(root, download=download, subset=subset)
    return split(SOURCE.title, train, test, classes, **common)


def read_parts(root: Path, *, download: bool, subset: bool) -> tuple[Images, Images, tuple[str, ...]]:
    """Read the official training and test part, and the names of the classes.

    Args:
        root: Folder of all data sets.
        download: Whether to fetch what is absent or damaged.
        subset: Whether files of the official format that hold fewer images are taken too.

    Raises:
        MissingData: The files are absent or damaged, or could not be downloaded.
    """
    problem = SOURCE.problem(SOURCE.home(root))
    if download and problem and not subset:
        fetch(SOURCE, root)
    elif problem and not (subset and problem.startswith("damaged") and "missing" not in problem):
        hint = " (dataset.subset=true takes files of fewer images)" if problem.startswith("damaged") else ""
        raise SOURCE.missing(root, f"is {problem}{hint} in")
    home = SOURCE.home(root) / "cifar-100-python"
    train, test = (_read(home / name) for name in ("train", "test"))
    return _images(train), _images(test), tuple(_read(home / "meta")["fine_label_names"])


class _Careful(pickle.Unpickler):
    """Unpickles arrays, lists and strings alone: a file that is not the official one may hold anything."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what the file asks for, if arrays need it."""
        if (module, name) not in ALLOWED and not (module.endswith("core.multiarray") and name == "_reconstruct"):
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module, name)


def _read(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as opened:
            return _Careful(opened, encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError, ValueError, KeyError) as error:
        raise MissingData(f"{file} is no file of CIFAR-100 ({error}): fetch it anew.") from error


def _images(part: dict[str, Any]) -> Images:
    return numbered(np.ascontiguousarray(part["data"].reshape(-1, 3, 32, 32)), part["fine_labels"])
