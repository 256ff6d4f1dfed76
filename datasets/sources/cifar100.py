"""CIFAR-100: 60,000 colour photographs of 32x32 pixels in 100 classes."""

from pathlib import Path
from typing import Unpack

from torchvision.datasets import CIFAR100

from datasets.files import official, reads
from datasets.official import Source, cifar_checksums, read_official
from datasets.splits import Splits, SplitSettings

SOURCE = Source("CIFAR-100", "cifar100", CIFAR100, lambda: cifar_checksums(CIFAR100))


@official
@reads(
    ("cifar100/cifar-100-python/train", "cifar-100-python/train"),
    ("cifar100/cifar-100-python/test", "cifar-100-python/test"),
    ("cifar100/cifar-100-python/meta", "cifar-100-python/meta"),
)
def cifar100(root: Path, *, download: bool = False, **common: Unpack[SplitSettings]) -> Splits:
    """Things, plants and animals in 32x32 pixels with three channels, 100 (fine) classes.

    Args:
        root: Folder of all data sets; the files lie in `root/cifar100/cifar-100-python`.
        download: Whether to fetch what is absent or damaged.
        common: Settings as in `splits.SplitSettings`.

    Raises:
        MissingData: The files are absent or damaged, or could not be downloaded.
        ValueError: A size cannot be had.

    Source:
        Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
    """
    return read_official(SOURCE, root, download=download, **common)
