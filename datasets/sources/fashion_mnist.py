"""Fashion-MNIST: 70,000 grey pictures of clothes of 28x28 pixels in 10 classes."""

from pathlib import Path
from typing import Unpack

from torchvision.datasets import FashionMNIST

from datasets.files import official, reads
from datasets.official import Source, read_official
from datasets.splits import Splits, SplitSettings

CHECKSUMS = {
    "FashionMNIST/raw/train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "FashionMNIST/raw/train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "FashionMNIST/raw/t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "FashionMNIST/raw/t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
}
"""md5 of the unpacked files: torchvision checks the packed ones only, and only after a download."""

SOURCE = Source("Fashion-MNIST", "fashion_mnist", FashionMNIST, lambda: CHECKSUMS)


@official
@reads(("fashion_mnist/FashionMNIST/raw/*-ubyte", "FashionMNIST/raw/*-ubyte"))
def fashion_mnist(root: Path, *, download: bool = False, **common: Unpack[SplitSettings]) -> Splits:
    """Clothes, shoes and bags in 28x28 pixels with one channel, 10 classes.

    Args:
        root: Folder of all data sets; the files lie in `root/fashion_mnist/FashionMNIST/raw`.
        download: Whether to fetch what is absent or damaged.
        common: Settings as in `splits.SplitSettings`.

    Raises:
        MissingData: The files are absent or damaged, or could not be downloaded.
        ValueError: A size cannot be had.

    Source:
        Xiao, Rasul and Vollgraf, Fashion-MNIST: a Novel Image Dataset, arXiv:1708.07747.
    """
    return read_official(SOURCE, root, download=download, **common)
