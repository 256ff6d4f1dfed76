"""Detection in two stages: regions are proposed, then named and put right (Faster R-CNN)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from harness.errors import UsageError
from harness.models.shifts import moved
from harness.tasks import Batch, Lazy, Setup, Spec
from harness.tasks.assignment import Cells
from harness.tasks.detection import PRIOR, Detection, Maps, upright, with_background
from harness.tasks.matching import NOTHING, by_overlap, sampled, units, within
from losses.kinds import Pair, Pairs
from losses.loss import Link

ALIKE, UNLIKE = 0.7, 0.3
"""Overlaps from which on an anchor is to find a box, and below which it is to find none; others do not count."""
FOUND = 0.5
"""Overlap from which on a region is to find a box, else the background."""
SAMPLED, SHARE = 256, 0.5
"""Anchors of an image that count at most, and the share of those that are to find a box."""


class TwoStageDetection(Detection):
    """Images with boxes, found in two stages. The first scores anchors, boxes of a few shapes everywhere in an image,
    and moves them onto things; the likeliest are regions, which the second stage names and moves once more.

    There are three seats. Losses of ``classes`` see the regions, with the background as one more class; those of
    ``boxes`` the boxes of both stages; those of ``proposals`` whether an anchor is to find a box. In the first stage
    anchors are sampled, at most half of them such that are to find a box; in the second all regions count.

    Args:
        setup: which data, and where.
        weights: of the losses of the roles.
        nms: overlap from which on the less certain of two detections of a class is dropped.
        balance: as for `Detection`.

    Source:
        Ren et al., Faster R-CNN, NeurIPS 2015, arXiv:1506.01497, section 3.1.2, whose thresholds and sampling the first
        stage has; Girshick, Fast R-CNN, ICCV 2015, arXiv:1504.08083, section 2.3, for the second.
    """

    offers = frozenset({"binary_logits", "class_logits", "boxes", "values", "rotated_boxes"})
    evaluates = frozenset({"class_logits", "boxes", "values", "rotated_boxes"})
    roles: ClassVar[Mapping[str, tuple[str, ...]]] = {"model": ("classes", "boxes", "proposals")}
    role_kinds: ClassVar[Mapping[str, frozenset[str]]] = {
        "classes": frozenset({"class_logits"}),
        "boxes": frozenset({"boxes", "values", "rotated_boxes"}),
        "proposals": frozenset({"binary_logits"}),
    }

    def __init__(self, setup: Setup, weights: Mapping[str, float], nms: float, balance: str) -> None:
        super().__init__(setup, weights, nms, assignment="atss", balance=balance)
        self.spec = Spec(self.spec.inputs, {"objects": self.classes, "shifts": 4}, dense=True, classes=self.classes)

    def cells(self, outputs: Maps) -> tuple[Tensor, Tensor, Cells]:
        """Return scores (N,P,C) and boxes (N,P,4) of the regions. They have no place that is the same in all images."""
        if "regions" not in outputs:
            raise UsageError(
                "this model proposes no regions: choose model=faster_rcnn_micro, model=torchvision_faster_rcnn, or "
                "task=detection."
            )
        (scores,), (regions,), (shifts,) = outputs["objects"], outputs["regions"], outputs["shifts"]
        nowhere = torch.full((scores.shape[1], 2), -1.0, device=scores.device)
        return scores + PRIOR, moved(regions.detach(), shifts), Cells(nowhere, nowhere[:, 0], (scores.shape[1],))

    def found(self, outputs: Maps, link: Link = "softmax") -> tuple[Tensor, Tensor, Tensor]:
        """Return detections as `Detection.found` does; classes and background are alternatives, whatever the loss."""
        return super().found(outputs, "softmax")

    def pairs(self, outputs: Maps, batch: Batch) -> Pairs:
        """Return the scores of the sampled anchors with 0 or 1 (N,A,1), those of the regions with their classes, and
        the boxes of those of both that are to find one.
        """
        truth, labels, ignored = batch.target[..., :4], batch.target[..., 4].long(), batch.target[..., 5] > 0
        there = (labels >= 0) & ~ignored
        scores, boxes, _ = self.cells(outputs)
        (anchors,), (proposed,), (shifts,) = outputs["anchors"], outputs["proposed"], outputs["first_shifts"]
        anchors, regions = anchors.detach(), outputs["regions"][0].detach()
        first = by_overlap(truth, there, anchors, ALIKE, UNLIKE)
        second = by_overlap(truth, there, regions, FOUND, FOUND)
        left_out = [within(base, truth, ignored) for base in (anchors, regions)]
        asked = sampled(first >= 0, (first == NOTHING) & ~left_out[0], SAMPLED, SHARE)
        wanted, named = asked & (first >= 0), second >= 0
        label = labels.gather(1, second.clamp_min(0)).clamp_min(0)
        prediction = torch.cat([moved(anchors, shifts), boxes], 1)
        place = torch.cat([first, second], 1).clamp_min(0).unsqueeze(2).expand(-1, -1, 4)
        pair = Pair(
            prediction.flatten(0, 1), truth.gather(1, place).flatten(0, 1), torch.cat([wanted, named], 1).flatten()
        )
        side = units(torch.cat([anchors, regions], 1))
        return Lazy(
            {
                "binary_logits": lambda: Pair(proposed, wanted.unsqueeze(2).to(proposed.dtype), asked.unsqueeze(2)),
                "class_logits": lambda: with_background(scores, named, label, named | ~left_out[1]),
                "boxes": lambda: pair,
                "values": lambda: Pair(pair.prediction / side, pair.target / side, pair.mask),
                "rotated_boxes": lambda: Pair(upright(pair.prediction), upright(pair.target), pair.mask),
            }
        )
