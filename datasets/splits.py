"""What every data set hands over: three fixed, stratified splits, in memory or in files that are decoded when needed.

A split is a matter of the data set and `split_seed` alone: it never depends on a run's seed, on a global random stream
or on the version of a library (the only random numbers are raw PCG64 words, whose stream numpy guarantees).
"""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypedDict, Unpack

import numpy as np
import torch
from torch import Tensor

from datasets.decoded import Array, Decoded, Summary, in_memory, summary

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
    """Labelled images, in memory or in files.

    Attributes:
        images: uint8 (N, C, H, W), pixels 0..255.
        targets: int64 (N,), class of each image; or uint8 (N, H, W), class of each pixel, 255 for void.
        index: int64 (N,), position of each image in the official file, ascending.
    """

    images: Array
    targets: Array
    index: Tensor

    def __len__(self) -> int:
        return len(self.index)

    def take(self, rows: np.ndarray) -> "Images":
        """The images in these rows (distinct, any order), in the order of the official file."""
        chosen = torch.from_numpy(np.sort(rows))
        return Images(self.images[chosen], self.targets[chosen], self.index[chosen])

    def in_memory(self) -> "Images":
        """The same images, decoded.

        Raises:
            MemoryError: They do not fit.
            MissingData: A file is missing or damaged.
        """
        return Images(in_memory(self.images), in_memory(self.targets), self.index)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    @property
    def labels(self) -> Tensor:
        """Class of each image, int64 (N,)."""
        return in_memory(self.targets)

    @property
    def masked(self) -> bool:
        """Whether every pixel has a class, not every image."""
        return self.targets.ndim == 3

    @cached_property
    def image_summary(self) -> Summary:
        """How often each value occurs in each channel, (C, 256), and the digest of the pixels; decodes all images."""
        return summary(self.images)

    @cached_property
    def target_summary(self) -> Summary:
        """How many images, or pixels of masks, have each class, and the digest of targets; decodes all masks."""
        return summary(self.targets)

    def class_counts(self, classes: int) -> Tensor:
        """How many images, or pixels of masks, each class has, void left out: int64 (classes,)."""
        found = torch.zeros(classes, dtype=torch.int64)
        counts = self.target_summary.counts[:classes]
        found[: len(counts)] = counts
        return found

    @property
    def has_void(self) -> bool:
        """Whether a pixel of a mask belongs to no class."""
        return self.masked and bool(self.target_summary.counts[VOID])


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

    def __post_init__(self) -> None:
        """Refuse targets that are in memory and belong to no class; those of files are looked at when decoded.

        Raises:
            ValueError: A target is neither a class nor, in a mask, void.
        """
        for name, part in self.parts.items():
            if isinstance(part.targets, Tensor):
                check_classes(part.targets, len(self.classes), name)

    @property
    def made_for(self) -> str:
        """Name of the task that these data are for."""
        return "segmentation" if self.train.masked else "classification"

    @property
    def content(self) -> str:
        """What a target is, for messages."""
        return (
            "a class for every pixel, not every image"
            if self.train.masked
            else "a class for every image, not every pixel"
        )

    @property
    def parts(self) -> dict[str, Images]:
        """Training, validation and test images by the name of their part."""
        return {"train": self.train, "valid": self.valid, "test": self.test}

    def in_memory(self) -> "Splits":
        """The same splits, decoded.

        Raises:
            MemoryError: They do not fit.
            MissingData: A file is missing or damaged.
        """
        return replace(self, **{name: part.in_memory() for name, part in self.parts.items()})

    @cached_property
    def _moments(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        means, deviations = [], []
        for counts in self.train.image_summary.counts:
            # Counting the 256 values is exact and needs no float copy of the images.
            share = counts.double() / counts.sum()
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
        """16 hex digits that change when any split gains, loses, relabels or changes an image, wherever it lies."""
        digest = hashlib.sha256()
        for part in self.parts.values():
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part.index.numpy().astype("<i8").tobytes())
            digest.update(part.target_summary.digest + part.image_summary.digest)
        return digest.hexdigest()[:16]


def check_classes(targets: Tensor, classes: int, name: str) -> None:
    """Refuse targets that are no class.

    Args:
        targets: Integers, (N,) classes of images or (N, H, W) masks, in which 255 is void.
        classes: Number of classes.
        name: What an error message calls the part.

    Raises:
        ValueError: A target is below 0, or as large as the number of classes or larger.
    """
    wrong = (targets < 0) | (targets >= classes)
    if targets.ndim > 1:
        wrong &= targets != VOID
    if wrong.any():
        void = f", and {VOID} for void" if targets.ndim > 1 else ""
        raise ValueError(
            f"the {name} targets hold the class {int(targets[wrong][0])}; allowed are 0 to {classes - 1}{void}: give "
            "every target the number of its class, from 0 on."
        )


def numbered(images: np.ndarray | Array, targets: np.ndarray | Tensor | list[int]) -> Images:
    """Images in the order of their official file: uint8 (N, C, H, W) and their classes (N,)."""
    pixels = images if isinstance(images, Decoded) else torch.as_tensor(images)
    return Images(pixels, torch.as_tensor(targets, dtype=torch.int64), torch.arange(len(targets)))


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
    valid_size, train_size = common["valid_size"], common["train_size"]
    check_size(name, "valid_size", valid_size, len(classes), len(pool) - len(classes))
    train_size = len(pool) - valid_size if train_size is None else train_size
    check_size(name, "train_size", train_size, len(classes), len(pool) - valid_size)
    order = stratified_order(pool.labels.numpy(), common["split_seed"])
    return Splits(
        train=pool.take(order[len(order) - train_size :]),
        valid=pool.take(order[:valid_size]),
        test=part(name, "test_size", test, common["test_size"], classes, common["split_seed"]),
        classes=classes,
    )


def part(name: str, setting: str, images: Images, size: int | None, classes: tuple[str, ...], seed: int) -> Images:
    """The beginning of a stratified order: ``size`` images, or all.

    Raises:
        ValueError: The size, which a message calls ``setting``, is below one image per class or above what there is.
    """
    size = len(images) if size is None else size
    check_size(name, setting, size, len(classes), len(images))
    return images.take(stratified_order(images.labels.numpy(), seed)[:size])


def check_size(name: str, which: str, size: int, least: int, most: int) -> None:
    """Refuse a size of a split that a data set does not allow.

    Raises:
        ValueError: It is below one image per class or above what the data set has.
    """
    if not least <= size <= most:
        raise ValueError(f"{which} is {size}, but {name} allows {least} (one image per class) to {most} here.")
