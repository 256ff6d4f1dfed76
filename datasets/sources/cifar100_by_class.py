"""CIFAR-100 divided by class: some of its 100 classes are trained on, others tested."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from datasets.by_class import ClassSplits, split_by_class
from datasets.files import official, reads
from datasets.sources.cifar100 import read_parts


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
    train, test, names = read_parts(root, download=download, subset=subset)
    images = torch.cat([torch.as_tensor(part.images) for part in (train, test)])
    targets = torch.cat([torch.as_tensor(part.targets) for part in (train, test)])
    order = np.argsort(np.random.PCG64(split_seed).random_raw(len(names)), kind="stable")
    rank = torch.from_numpy(np.argsort(order))
    training, valid, testing = classes
    return split_by_class("CIFAR-100", images, rank[targets], [names[at] for at in order], (training, valid, testing))
