"""What every data set hands over: three fixed, stratified splits held in memory.

A split is a matter of the data set and `split_seed` alone: it never depends on a run's seed, on a global random stream
or on the version of a library (the only random numbers are raw PCG64 words, whose stream numpy guarantees).
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TypedDict, Unpack

import numpy as np
import torch
from torch import Tensor

VOID = 255
"""What a mask says of pixels that belong to no class: they are neither trained on nor judged."""


class SplitSettings(TypedDict):
    """What the settings of every set of images with a class each have in common.

    Attributes:
        train_size: Number of training images; None takes all that validation leaves.
        valid_size: Number of validation images, taken from the official training images.
        test_size: Number of test images; None takes all.
        split_seed: Chooses which images; at least 0.
    """

    train_size: int | None
    valid_size: int
    test_size: int | None
    split_seed: int


class MissingData(FileNotFoundError):
    """A data set that is absent or damaged; the message names the set, the folder and the command that gets it."""


@dataclass(frozen=True)
class Images:
    """Labelled images.

    Attributes:
        images: uint8 (N, C, H, W), pixels 0..255.
        targets: int64 (N,), class of each image; or uint8 (N, H, W), class of each pixel, 255 for void.
        index: int64 (N,), position of each image in the official file, ascending.
    """

    images: Tensor
    targets: Tensor
    index: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, rows: np.ndarray) -> "Images":
        """The images in these rows (distinct, any order), in the order of the official file."""
        chosen = torch.from_numpy(np.sort(rows))
        return Images(self.images[chosen], self.targets[chosen], self.index[chosen])


@dataclass(frozen=True)
class Splits:
    """Training, validation and test images of one data set, with the names of its classes.

    Attributes:
        skipped: What was wrong with each pair of files that was left out on request.
    """

    train: Images
    valid: Images
    test: Images
    classes: tuple[str, ...]
    skipped: tuple[str, ...] = ()

    @property
    def made_for(self) -> str:
        """Name of the task that these data are for."""
        return "segmentation" if self.train.targets.ndim == 3 else "classification"

    @property
    def content(self) -> str:
        """What a target is, for messages."""
        return (
            "a class for every pixel, not every image"
            if self.train.targets.ndim == 3
            else ("a class for every image, not every pixel")
        )

    @cached_property
    def _moments(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        means, deviations = [], []
        for channel in self.train.images.unbind(1):
            # Counting the 256 values is exact and needs no float copy of the images.
            share = torch.bincount(channel.flatten(), minlength=256).double() / channel.numel()
            value = torch.arange(256, dtype=torch.float64) / 255
            mean = float((share * value).sum())
            means.append(mean)
            deviations.append(float((share * (value - mean) ** 2).sum() ** 0.5))
        return tuple(means), tuple(deviations)

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of each channel over the training images, pixels scaled to [0, 1]."""
        return self._moments[0]

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation (of the population) of each channel over the training images, pixels scaled to [0, 1]."""
        return self._moments[1]

    @cached_property
    def checksum(self) -> str:
        """16 hex digits that change when any split gains, loses or relabels an image."""
        digest = hashlib.sha256()
        for part in (self.train, self.valid, self.test):
            for values in (part.index, part.targets):
                digest.update(len(values).to_bytes(8, "little"))
                plain = values.numpy()
                digest.update(plain.tobytes() if plain.dtype == np.uint8 else plain.astype("<i8").tobytes())
        return digest.hexdigest()[:16]


def numbered(images: np.ndarray | Tensor, targets: np.ndarray | Tensor | list[int]) -> Images:
    """Images in the order of their official file: uint8 (N, C, H, W) and their classes (N,)."""
    return Images(torch.as_tensor(images), torch.as_tensor(targets, dtype=torch.int64), torch.arange(len(targets)))


def stratified_order(targets: np.ndarray, seed: int) -> np.ndarray:
    """A random order (N,) of which every beginning and every end is stratified.

    Each class is shuffled and spread evenly over the whole order, so the first k items hold the same share of every
    class, up to one item. Subsets of different sizes are therefore nested, which drawing each anew would not give.
    """
    if seed < 0:
        raise ValueError(f"split_seed is {seed}; it must not be negative.")
    lottery = np.random.PCG64(seed).random_raw(len(targets))
    by_class = np.lexsort((lottery, targets))
    counts = np.bincount(targets)
    first = np.cumsum(counts) - counts
    rank = np.empty(len(targets), dtype=np.int64)
    rank[by_class] = np.arange(len(targets)) - np.repeat(first, counts)
    return np.lexsort((lottery, (rank + 0.5) / counts[targets]))


def split(
    name: str,
    pool: Images,
    test: Images,
    classes: tuple[str, ...],
    **common: Unpack[SplitSettings],
) -> Splits:
    """Divide the official training images into training and validation, and take a part of the test images.

    Validation comes from the beginning of one stratified order and training from its end, so the choice of one size
    does not move the other split, and a smaller training (or test) set is a part of every larger one.

    Args:
        name: What an error message calls the data set.
        pool: The official training images.
        test: The official test images.
        classes: Name of each class.
        common: Settings as in `SplitSettings`.

    Raises:
        ValueError: A size is below one image per class or above what the data set has.
    """
    valid_size, train_size, test_size = common["valid_size"], common["train_size"], common["test_size"]
    _check_size(name, "valid_size", valid_size, len(classes), len(pool) - len(classes))
    train_size = len(pool) - valid_size if train_size is None else train_size
    _check_size(name, "train_size", train_size, len(classes), len(pool) - valid_size)
    test_size = len(test) if test_size is None else test_size
    _check_size(name, "test_size", test_size, len(classes), len(test))
    order = stratified_order(pool.targets.numpy(), common["split_seed"])
    test_order = stratified_order(test.targets.numpy(), common["split_seed"])
    return Splits(
        train=pool.take(order[len(order) - train_size :]),
        valid=pool.take(order[:valid_size]),
        test=test.take(test_order[:test_size]),
        classes=classes,
    )


def _check_size(name: str, which: str, size: int, least: int, most: int) -> None:
    if not least <= size <= most:
        raise ValueError(f"{which} is {size}, but {name} allows {least} (one image per class) to {most} here.")
