"""What data sets with several boxes in an image hand over."""

from datasets.splits import Splits


class BoxSplits(Splits):
    """Images with boxes: targets are float32 (N, M, 5), x1, y1, x2, y2 in pixels and the class from 0 on.

    M is the largest number of boxes in an image; a row whose class is -1 is no box, and holds 0 otherwise.
    """

    @property
    def made_for(self) -> str:
        """Name of the task that these data are for."""
        return "detection"

    @property
    def content(self) -> str:
        """What a target is, for messages."""
        return "boxes with a class each in every image"
