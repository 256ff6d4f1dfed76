"""CIFAR-10: 60,000 colour photographs of 32x32 pixels in 10 classes."""

from pathlib import Path

from torchvision.datasets import CIFAR10

from datasets.official import Source, cifar_checksums, load
from datasets.splits import Splits

SOURCE = Source("CIFAR-10", "cifar10", CIFAR10, lambda: cifar_checksums(CIFAR10))


def cifar10(
    root: Path,
    *,
    download: bool = False,
    train_size: int | None,
    valid_size: int,
    test_size: int | None,
    split_seed: int,
) -> Splits:
    """Animals and vehicles in 32x32 pixels with three channels, 10 classes.

    Args:
        root: Folder of all data sets; the files lie in `root/cifar10/cifar-10-batches-py`.
        download: Whether to fetch what is absent or damaged.
        train_size: Number of training images; None takes all of the 50,000 that validation leaves.
        valid_size: Number of validation images, taken from the official training images.
        test_size: Number of test images; None takes all 10,000.
        split_seed: Chooses which images; at least 0.

    Raises:
        MissingData: The files are absent or damaged, or could not be downloaded.
        ValueError: A size cannot be had.

    Source:
        Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
    """
    return load(
        SOURCE,
        root,
        download=download,
        train_size=train_size,
        valid_size=valid_size,
        test_size=test_size,
        split_seed=split_seed,
    )
