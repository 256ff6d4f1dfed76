"""CIFAR-100 divided by class: some of its 100 classes are trained on, others tested."""

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datasets.by_class import ClassSplits, split_by_class
from datasets.files import official, reads
from datasets.official import fetch
from datasets.sources.cifar100 import SOURCE
from datasets.splits import MissingData

ALLOWED = {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}
"""What the official files, which are pickles, may ask for, beside numpy's own function that builds an array."""


@official
@reads(
    ("cifar100/cifar-100-python/train", "cifar-100-python/train"),
    ("cifar100/cifar-100-python/test", "cifar-100-python/test"),
    ("cifar100/cifar-100-python/meta", "cifar-100-python/meta"),
)
def cifar100_by_class(
    root: Path, *, download: bool = False, classes: Sequence[int], subset: bool, split_seed: int
) -> ClassSplits:
    """Things, plants and animals in 32x32 pixels with three channels; both official parts of a class stay together.

    Args:
        root: Folder of all data sets; the files lie in ``root/cifar100/cifar-100-python``.
        download: Whether to fetch what is absent or damaged.
        classes: Number of training, validation and test classes, 100 in all at most.
        subset: Whether files of the official format that hold fewer images are taken too; else checksums must be right.
        split_seed: Chooses the classes of each part; at least 0.

    Raises:
        MissingData: The files are absent or damaged.
        ValueError: There are not so many classes.
    """
    problem = SOURCE.problem(SOURCE.home(root))
    if download and problem and not subset:
        fetch(SOURCE, root)
    elif problem and not (subset and problem.startswith("damaged") and "missing" not in problem):
        hint = " (dataset.subset=true takes files of fewer images)" if problem.startswith("damaged") else ""
        raise SOURCE.missing(root, f"is {problem}{hint} in")
    home = SOURCE.home(root) / "cifar-100-python"
    parts = [_read(home / name) for name in ("train", "test")]
    names = _read(home / "meta")["fine_label_names"]
    images = torch.from_numpy(np.concatenate([part["data"] for part in parts]).reshape(-1, 3, 32, 32))
    targets = torch.tensor([label for part in parts for label in part["fine_labels"]])
    order = np.argsort(np.random.PCG64(split_seed).random_raw(len(names)), kind="stable")
    rank = torch.from_numpy(np.argsort(order))
    train, valid, test = classes
    return split_by_class("CIFAR-100", images, rank[targets], [names[at] for at in order], (train, valid, test))


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
