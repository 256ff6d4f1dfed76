"""What data sets with several boxes in an image hand over."""

from torch import Tensor

from datasets.grouped import OwnSplits
from datasets.splits import check_classes

DIFFICULT, CROWD = 1, 2
"""What a box is that does not count: Pascal VOC's `difficult`, neither a hit nor a miss, or COCO's `iscrowd`."""


class BoxSplits(OwnSplits):
    """Images with boxes: targets are float32 (N, M, 6), x1, y1, x2, y2 in pixels, the class from 0 on, and `ignored`.

    `ignored` is 0 for a box that counts; `DIFFICULT` and `CROWD` are not trained on. M is the largest number of boxes
    in an image; a row whose class is -1 is no box, and holds 0 otherwise.
    """

    def __post_init__(self) -> None:
        """Refuse boxes that belong to no class, or are ignored for no known reason.

        Raises:
            ValueError: The class of a box is none, or its `ignored` is not 0, 1 or 2.
        """
        for name, part in self.parts.items():
            if isinstance(part.targets, Tensor):
                labels, ignored = part.targets[..., 4], part.targets[..., 5]
                check_classes(labels[labels != -1], len(self.classes), name)
                if not ((ignored == 0) | (ignored == DIFFICULT) | (ignored == CROWD)).all():
                    raise ValueError(f"the sixth column of the {name} boxes must be 0, {DIFFICULT} or {CROWD}.")

    @property
    def made_for(self) -> str:
        """Name of the task that these data are for."""
        return "detection"

    @property
    def content(self) -> str:
        """What a target is, for messages."""
        return "boxes with a class each in every image"
