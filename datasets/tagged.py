"""Images with any number of labels each: several, one, or none."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from datasets.decoded import in_memory
from datasets.grouped import OwnSplits
from datasets.splits import Images


@dataclass(frozen=True)
class TaggedImages(Images):
    """Images of which each has any number of labels.

    Attributes:
        targets: uint8 (N, K), 1 where an image has a label, else 0.
    """

    def take(self, rows: np.ndarray) -> "TaggedImages":
        """The images in these rows (distinct, any order), in the order of the official file."""
        chosen = torch.from_numpy(np.sort(rows))
        return TaggedImages(self.images[chosen], self.marks[chosen], self.index[chosen])

    def in_memory(self) -> "TaggedImages":
        """The same images, decoded.

        Raises:
            MemoryError: They do not fit.
            MissingData: A file is missing or damaged.
        """
        return TaggedImages(in_memory(self.images), self.marks, self.index)

    @property
    def marks(self) -> Tensor:
        """Labels of each image, uint8 (N, K)."""
        return in_memory(self.targets)

    def class_counts(self, classes: int) -> Tensor:
        """How many images have each label: int64 (K,)."""
        return self.marks.sum(0, dtype=torch.int64)

    @property
    def strata(self) -> np.ndarray:
        """The rarest label of each image, K where it has none, int64 (N,): by it parts are drawn alike."""
        marks = self.marks.numpy().astype(bool)
        rank = np.argsort(np.argsort(marks.sum(0), kind="stable"), kind="stable")
        ranked = np.where(marks, rank, marks.shape[1])
        return ranked.min(1, initial=marks.shape[1]).astype(np.int64)


@dataclass(frozen=True)
class TaggedSplits(OwnSplits):
    """Training, validation and test images with any number of labels each; ``classes`` are the names of the labels."""

    def __post_init__(self) -> None:
        """Refuse labels that are neither there nor not.

        Raises:
            ValueError: A target is not 0 or 1, or there is not one for each label.
        """
        for name, part in self.parts.items():
            marks = in_memory(part.targets)
            if marks.ndim != 2 or marks.shape[1] != len(self.classes) or (marks > 1).any():
                raise ValueError(
                    f"the {name} targets must be 0 or 1 for each image and each of the {len(self.classes)} labels."
                )

    @property
    def made_for(self) -> str:
        """Name of the task that these data are for."""
        return "multilabel"

    @property
    def content(self) -> str:
        """What a target is, for messages."""
        return "any number of labels for every image"
