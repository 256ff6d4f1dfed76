"""CIFAR-10: 60,000 colour photographs of 32x32 pixels in 10 classes."""

from pathlib import Path
from typing import Unpack

from torchvision.datasets import CIFAR10

from datasets.files import official, reads
from datasets.official import Source, cifar_checksums, read_official
from datasets.splits import Splits, SplitSettings

SOURCE = Source("CIFAR-10", "cifar10", CIFAR10, lambda: cifar_checksums(CIFAR10))


@official
@reads(
    ("cifar10/cifar-10-batches-py/data_batch_[1-5]", "cifar-10-batches-py/data_batch_[1-5]"),
    ("cifar10/cifar-10-batches-py/test_batch", "cifar-10-batches-py/test_batch"),
    ("cifar10/cifar-10-batches-py/batches.meta", "cifar-10-batches-py/batches.meta"),
)
def cifar10(root: Path, *, download: bool = False, **common: Unpack[SplitSettings]) -> Splits:
    """Animals and vehicles in 32x32 pixels with three channels, 10 classes.

    Args:
        root: Folder of all data sets; the files lie in `root/cifar10/cifar-10-batches-py`.
        download: Whether to fetch what is absent or damaged.
        common: Settings as in `splits.SplitSettings`.

    Raises:
        MissingData: The files are absent or damaged, or could not be downloaded.
        ValueError: A size cannot be had.

    Source:
        Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
    """
    return read_official(SOURCE, root, download=download, **common)
