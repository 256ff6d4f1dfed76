"""What data sets with several boxes in an image hand over."""

from torch import Tensor

from datasets.grouped import OwnSplits
from datasets.splits import check_classes


class BoxSplits(OwnSplits):
    """Images with boxes: targets are float32 (N, M, 6): x1, y1, x2, y2 in pixels, the class from 0 on, and `ignored`.

    `ignored` is 0 for a box that counts, 1 for one that is difficult (Pascal VOC), 2 for a crowd (COCO). M is the
    largest number of boxes in an image; a row whose class is -1 is no box, and holds 0 otherwise.
    """

    def __post_init__(self) -> None:
        """Refuse boxes that belong to no class.

        Raises:
            ValueError: The class of a box is none.
        """
        for name, part in self.parts.items():
            if isinstance(part.targets, Tensor):
                labels = part.targets[..., 4].flatten()
                check_classes(labels[labels != -1], len(self.classes), name)

    @property
    def made_for(self) -> str:
        """Name of the task that these data are for."""
        return "detection"

    @property
    def content(self) -> str:
        """What a target is, for messages."""
        return "boxes with a class each in every image"
