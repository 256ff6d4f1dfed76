"""Detection with anchors, boxes of a few sizes and shapes that are moved onto things (RetinaNet, SSD)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional

from harness.errors import UsageError
from harness.metrics.detection import pairwise_iou
from harness.models.shifts import moved
from harness.tasks import Batch, Lazy, Setup, Spec
from harness.tasks.assignment import Cells
from harness.tasks.detection import PRIOR, Detection, Maps, upright, with_background
from harness.tasks.matching import NOTHING, by_overlap, hardest, units, within
from losses.kinds import Pair, Pairs


class AnchorDetection(Detection):
    """Images with boxes, found from anchors: each has a score for every class, and is moved onto a thing.

    Which anchor is to find which box is decided by their overlap alone. Losses of ``classes`` see the anchors that
    count, those of ``boxes`` the boxes of those that are to find one.

    Args:
        setup: which data, and where.
        weights: of the losses of the roles.
        nms: overlap from which on the less certain of two detections of a class is dropped.
        balance: as for `Detection`.
        alike: overlap with a true box from which on an anchor is to find it; the one that overlaps it most is, too.
        unlike: overlap below which it is to find none; between the two it does not count.
        negatives: how many anchors that are to find none count for each of an image that is to find one, the hardest
            first; null: all.

    Raises:
        UsageError: a setting is out of its range, or the data set has no boxes.

    Source:
        Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, arXiv:1708.02002, section 4, with overlaps of 0.5
        and 0.4 and all negatives; Liu et al., SSD, ECCV 2016, arXiv:1512.02325, section 2.2, with 0.5 and three.
    """

    def __init__(
        self, setup: Setup, weights: Mapping[str, float], nms: float, balance: str, alike: float, unlike: float,
        negatives: float | None,
    ) -> None:  # fmt: skip
        super().__init__(setup, weights, nms, assignment="atss", balance=balance)
        if not 0 < unlike <= alike <= 1:
            raise UsageError(
                f"task.unlike is {unlike} and task.alike {alike}; they must be above 0 and at most 1, the first no "
                "greater than the second."
            )
        if negatives is not None and negatives <= 0:
            raise UsageError(f"task.negatives is {negatives}; it must be above 0, or null for all.")
        self.alike, self.unlike, self.negatives = alike, unlike, negatives
        self.spec = Spec(self.spec.inputs, {"objects": self.classes, "shifts": 4}, dense=True, classes=self.classes)

    def cells(self, outputs: Maps) -> tuple[Tensor, Tensor, Cells]:
        """Return scores (N,A,C) and boxes (N,A,4) of the anchors, and where these lie."""
        if "anchors" not in outputs or "regions" in outputs:
            raise UsageError(
                "this model has no anchors: choose model=retinanet_micro or model=torchvision_anchors, or "
                "task=detection."
            )
        (scores,), (anchors,), (shifts,) = outputs["objects"], outputs["anchors"], outputs["shifts"]
        low, high = anchors[0, :, :2], anchors[0, :, 2:]
        cells = Cells((low + high) / 2, (high - low).prod(1).sqrt(), (scores.shape[1],))
        return scores + PRIOR, moved(anchors, shifts), cells

    def pairs(self, outputs: Maps, batch: Batch) -> Pairs:
        """Return the scores of the anchors that count, as `Detection.pairs` does, and the boxes of those of them that
        are to find one.
        """
        truth, labels, ignored = batch.target[..., :4], batch.target[..., 4].long(), batch.target[..., 5] > 0
        scores, boxes, _ = self.cells(outputs)
        anchors = outputs["anchors"][0]
        found = by_overlap(truth, (labels >= 0) & ~ignored, anchors, self.alike, self.unlike)
        there = found >= 0
        empty = (found == NOTHING) & ~within(anchors, truth, ignored)
        if self.negatives is None:
            counts = there | empty
        else:
            counts = hardest(scores.detach().logsumexp(2), there, empty, self.negatives)
        found = found.clamp_min(0)
        label = labels.gather(1, found).clamp_min(0)
        wanted = functional.one_hot(label, self.classes) * there.unsqueeze(2)
        each = counts.unsqueeze(2).expand_as(scores)
        target = truth.gather(1, found.unsqueeze(2).expand(-1, -1, 4)).flatten(0, 1)
        pair = Pair(boxes.flatten(0, 1), target, there.flatten())
        side = units(anchors)

        def quality() -> Tensor:
            overlap = pairwise_iou(pair.prediction.detach().unsqueeze(1), target.unsqueeze(1)).view_as(there)
            return wanted * overlap.unsqueeze(2)

        return Lazy(
            {
                "binary_logits": lambda: Pair(scores, wanted.to(scores.dtype), each),
                "quality_logits": lambda: Pair(scores, quality(), each),
                "class_logits": lambda: with_background(scores, there, label, counts),
                "boxes": lambda: pair,
                "values": lambda: Pair(pair.prediction / side, pair.target / side, pair.mask),
                "rotated_boxes": lambda: Pair(upright(pair.prediction), upright(pair.target), pair.mask),
            }
        )
