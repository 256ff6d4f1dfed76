"""Splits that share no class: what is learnt on some classes is evaluated on others."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datasets import pixels
from datasets.decoded import Decoded
from datasets.splits import Images, Splits, check_classes, numbered


@dataclass(frozen=True)
class Protocol:
    """Which items are compared with which; by default every item is a query, and all others are its gallery.

    Attributes:
        camera: int64 (N,), or None. With cameras a query is not compared with items of its class from its own camera.
        query: bool (N,), or None: every item is a query and in the gallery. Else queries are compared with the rest.
        pairs: int64 (M,2), or None: the only pairs that verification is about; None: all that retrieval compares.
    """

    camera: Tensor | None = None
    query: Tensor | None = None
    pairs: Tensor | None = None

    def queries(self, count: int) -> Tensor:
        """Return the rows that are queries, int64 (Q,), of ``count`` items."""
        return torch.arange(count) if self.query is None else self.query.nonzero()[:, 0]

    def compared(self, rows: Tensor, target: Tensor) -> Tensor:
        """Return whether the queries in these rows (Q,) are compared with each of N items, bool (Q,N)."""
        allowed = torch.ones(len(rows), len(target), dtype=torch.bool, device=target.device)
        if self.query is not None:
            allowed &= ~self.query.to(target.device)
        if self.camera is not None:
            camera = self.camera.to(target.device)
            allowed &= (target[rows, None] != target) | (camera[rows, None] != camera)
        return allowed.scatter_(1, rows.unsqueeze(1), False)  # an item is not its own neighbour


@dataclass(frozen=True)
class ClassSplits(Splits):
    """Images whose validation and test classes do not occur in training.

    ``classes`` are the training classes, whose targets count from 0; targets of validation and test go on from there.

    Attributes:
        unseen: Names of the classes of validation and test, by split.
        protocols: Which items are compared, by split, where it is not every item with all others.
    """

    unseen: Mapping[str, tuple[str, ...]] | None = None
    protocols: Mapping[str, Protocol] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse targets that belong to no class of their part.

        Raises:
            ValueError: A training target is no training class, or one of validation or test is.
        """
        check_classes(self.train.labels, len(self.classes), "train")
        for name, labels in (("valid", self.valid.labels), ("test", self.test.labels)):
            if (labels < len(self.classes)).any():
                raise ValueError(
                    f"the {name} targets hold the class {int(labels.min())}, but 0 to "
                    f"{len(self.classes) - 1} are the training classes; count those of other parts from there."
                )

    @property
    def made_for(self) -> str:
        """Name of the task that these data are for."""
        return "embedding"

    @property
    def content(self) -> str:
        """What a target is, for messages."""
        return "other classes in validation and test than in training"


def split_by_class(
    name: str, images: Tensor, targets: Tensor, classes: Sequence[str], counts: tuple[int, int, int]
) -> ClassSplits:
    """Give the first classes to training, the next to validation and the last to the test, with all their images.

    Args:
        name: What an error message calls the data set.
        images: uint8 (N, C, H, W).
        targets: int64 (N,), class of each image.
        classes: Name of each class.
        counts: Number of training, validation and test classes, two or more each; the test takes the last ones, and
            what is left over between validation and test is not used.

    Raises:
        ValueError: There are not so many classes.
    """
    train, valid, test = counts
    if min(counts) < 2 or sum(counts) > len(classes):
        raise ValueError(
            f"{train} training, {valid} validation and {test} test classes were asked for, but {name} has "
            f"{len(classes)} in all, and each part needs two or more."
        )
    ranges = {"train": range(train), "valid": range(train, train + valid)}
    ranges["test"] = range(len(classes) - test, len(classes))
    parts = {}
    for part, labels in ranges.items():
        rows = ((targets >= labels.start) & (targets < labels.stop)).nonzero()[:, 0]
        parts[part] = Images(images[rows], targets[rows], rows)
    named = {part: tuple(classes[label] for label in labels) for part, labels in ranges.items()}
    return ClassSplits(parts["train"], parts["valid"], parts["test"], named.pop("train"), unseen=named)


def split_files(
    files: Mapping[str, Sequence[tuple[Path, str]]],
    size: tuple[int, int],
    channels: int,
    protocols: Mapping[str, Protocol] | None = None,
) -> ClassSplits:
    """Images in files, decoded when they are needed, of which the classes of each part are known.

    Args:
        files: Path and class of every image, by part (train, valid, test).
        size: Height and width to which all are brought.
        channels: 3 for colour, 1 for grey.
        protocols: Which images are compared, by part, where it is not every image with all others.

    Raises:
        ValueError: A part has fewer than two classes, or two parts share one.
    """
    names = {part: sorted({label for _, label in listed}) for part, listed in files.items()}
    for part, found in names.items():
        if len(found) < 2:
            raise ValueError(f"the part {part} has {len(found)} classes; each part needs two or more.")
        shared = [label for other, them in names.items() if other != part for label in them if label in set(found)]
        if shared:
            raise ValueError(f"the class {shared[0]} is in two parts; training, validation and test share none.")
    place = {
        label: at for at, label in enumerate(label for part in ("train", "valid", "test") for label in names[part])
    }
    read = functools.partial(read_file, size=size, channels=channels)
    parts = {
        part: numbered(
            Decoded(tuple(path for path, _ in listed), read, (channels, *size)), [place[c] for _, c in listed]
        )
        for part, listed in files.items()
    }
    unseen = {part: tuple(names[part]) for part in ("valid", "test")}
    return ClassSplits(
        parts["train"], parts["valid"], parts["test"], tuple(names["train"]), unseen=unseen, protocols=protocols or {}
    )


def read_file(path: Path, size: tuple[int, int], channels: int) -> np.ndarray:
    """Return the image in a file, uint8 (channels, *size), averaged down if it was larger.

    Raises:
        MissingData: The file cannot be used; the sentence names it.
    """
    image = pixels.eight_bit(pixels.opened(path), channels).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(*size, channels).transpose(2, 0, 1)


def held_out(classes: Sequence[str], counts: Sequence[int], seed: int) -> tuple[set[str], ...]:
    """Return as many classes as asked for, set by set, drawn without replacement; the rest is in none.

    Args:
        classes: All that may be drawn; their order does not matter.
        counts: How many each set has.
        seed: Chooses; at least 0.

    Raises:
        ValueError: A count is below 2, or fewer than two classes would be left.
    """
    if seed < 0 or min(counts) < 2 or sum(counts) > len(classes) - 2:
        raise ValueError(
            f"{' and '.join(map(str, counts))} classes of {len(classes)} were to be held out (split_seed {seed}); each "
            "part needs two or more, training too, and the seed must be at least 0."
        )
    ordered = sorted(classes)
    order = np.argsort(np.random.PCG64(seed).random_raw(len(ordered)), kind="stable")
    ends = np.cumsum(counts)
    return tuple({ordered[at] for at in chosen} for chosen in np.split(order[: ends[-1]], ends[:-1]))


def listed_images(folder: Path) -> list[Path]:
    """Return the images directly in a folder, in the order of their names."""
    return sorted(file for file in folder.glob("*") if pixels.is_image(file.relative_to(folder)))
