"""What data sets with rotated boxes hand over."""

from torch import Tensor

from datasets.grouped import OwnSplits
from datasets.splits import check_classes


class RotatedSplits(OwnSplits):
    """Images with rotated boxes: targets are float32 (N, M, 6), centre x and y, width, height, angle, and class.

    Lengths are pixels, y points down, and the angle in radians from -pi/2 on and below pi/2 leads from the x axis to
    the side that is the width, so that a positive one turns clockwise on the screen. Classes count from 0; a row whose
    class is -1 is no box, and holds 0 otherwise. M is the largest number of boxes in an image.
    """

    def __post_init__(self) -> None:
        """Refuse boxes that belong to no class.

        Raises:
            ValueError: The class of a box is none.
        """
        for name, part in self.parts.items():
            if isinstance(part.targets, Tensor):
                labels = part.targets[..., 5].flatten()
                check_classes(labels[labels != -1], len(self.classes), name)

    @property
    def made_for(self) -> str:
        """Name of the task that these data are for."""
        return "rotated_detection"

    @property
    def content(self) -> str:
        """What a target is, for messages."""
        return "rotated boxes with a class each in every image"
