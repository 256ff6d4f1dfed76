"""Splits that share no class: what is learnt on some classes is evaluated on others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from datasets.splits import Images, Splits, check_classes


@dataclass(frozen=True)
class Protocol:
    """Which items are compared with which; by default every item is a query, and all others are its gallery.

    Attributes:
        camera: int64 (N,), or None. With cameras a query is not compared with items of its class from its own camera.
        query: bool (N,), or None: every item is a query and in the gallery. Else queries are compared with the rest.
        distractor: bool (N,), or None: items of the gallery that are of no class.
        pairs: int64 (M,2), or None: the only pairs that verification is about; None: all that retrieval compares.
    """

    camera: Tensor | None = None
    query: Tensor | None = None
    distractor: Tensor | None = None
    pairs: Tensor | None = None

    def queries(self, count: int) -> Tensor:
        """Return the rows that are queries, int64 (Q,), of ``count`` items."""
        chosen = torch.ones(count, dtype=torch.bool) if self.query is None else self.query.clone()
        if self.distractor is not None:
            chosen &= ~self.distractor
        return chosen.nonzero()[:, 0]

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
        protocols: Which items of validation and test are compared, by split, where it is not every item with all others.
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
    return ClassSplits(**parts, classes=named.pop("train"), unseen=named)
