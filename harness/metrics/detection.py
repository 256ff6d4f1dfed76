"""Metrics of detections: average precision at several overlaps, by a matcher and an integral of our own."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.metrics.declared import Metric, share

DETECTION: tuple[Metric, ...] = (
    share("ap", "AP"),
    share("ap50", "AP at IoU 0.5"),
    share("ap75", "AP at IoU 0.75"),
    share("matched_iou", "IoU of found boxes"),
)
THRESHOLDS = tuple((50 + 5 * step) / 100 for step in range(10))
"""Overlaps (IoU) from 0.5 to 0.95 from which on a detection matches; AP is the mean over them, as in COCO."""


def pairwise_iou(first: Tensor, second: Tensor) -> Tensor:
    """Return the overlaps (..., P, Q) of boxes (..., P, 4) and (..., Q, 4), corners x1, y1, x2, y2; 0 without area."""
    first, second = first.unsqueeze(-2), second.unsqueeze(-3)
    low, high = torch.maximum(first[..., :2], second[..., :2]), torch.minimum(first[..., 2:], second[..., 2:])
    shared = (high - low).clamp_min(0).prod(-1)
    areas = [(boxes[..., 2:] - boxes[..., :2]).clamp_min(0).prod(-1) for boxes in (first, second)]
    return shared / (areas[0] + areas[1] - shared).clamp_min(1e-12)


def matched(overlap: Tensor, thresholds: Tensor) -> Tensor:
    """Match detections to true boxes, each at most once: the more certain a detection, the earlier it chooses.

    A detection takes the box that it overlaps most among those that are still free, if the overlap reaches the
    threshold (as COCO's evaluation does).

    Args:
        overlap: (N, D, M), of D detections in descending order of their scores and M boxes; 0 where classes differ.
        thresholds: (T,), above 0.

    Returns:
        The overlap of each match, (N, D, T); 0: a detection has none.
    """
    images, detections, boxes = overlap.shape
    free = torch.ones(images, len(thresholds), boxes, dtype=torch.bool, device=overlap.device)
    found = []
    for each in range(detections):
        best, at = (overlap[:, each, None] * free).max(2)
        hit = best >= thresholds
        free &= ~torch.nn.functional.one_hot(at, boxes).bool() | ~hit.unsqueeze(2)
        found.append(best * hit)
    return torch.stack(found, 1)


def average_precision(scores: Tensor, right: Tensor, boxes: int) -> Tensor:
    """Return the area under the curve of precision over recall, at all its points, (T,).

    Precision at a recall is the greatest at this recall or a higher one (Pascal VOC since 2010).

    Args:
        scores: (D,), of the detections of a class in all images.
        right: bool (D, T), whether each of them matches a box.
        boxes: number of true boxes, one or more.
    """
    right = right[scores.argsort(descending=True, stable=True)].double()
    hits = right.cumsum(0)
    precision = hits / torch.arange(1, len(right) + 1, device=right.device).unsqueeze(1)
    highest = precision.flip(0).cummax(0).values.flip(0) if len(right) else precision
    return (highest * right).sum(0) / boxes


class DetectionMetrics:
    """Detections of a split: for each its score, its class, and the overlap with the box that it matches.

    Args:
        classes: number of classes.
        device: where detections lie.
    """

    def __init__(self, classes: int, device: torch.device) -> None:
        self.classes = classes
        self.thresholds = torch.tensor(THRESHOLDS, dtype=torch.float64, device=device)
        self.kept: list[tuple[Tensor, Tensor, Tensor]] = []
        self.boxes = torch.zeros(classes, dtype=torch.int64, device=device)

    def add(self, boxes: Tensor, scores: Tensor, labels: Tensor, truth: Tensor, true_labels: Tensor) -> None:
        """Take a batch.

        Args:
            boxes: detections (N, D, 4), in each image in descending order of their scores.
            scores: (N, D).
            labels: their classes, (N, D); -1: no detection.
            truth: true boxes (N, M, 4).
            true_labels: their classes, (N, M); -1: no box.
        """
        same = (labels.unsqueeze(2) == true_labels.unsqueeze(1)) & (labels >= 0).unsqueeze(2)
        overlap = matched(pairwise_iou(boxes.double(), truth.double()) * same, self.thresholds)
        there = labels >= 0
        self.kept.append((scores[there], labels[there], overlap[there]))
        self.boxes += torch.bincount(true_labels[true_labels >= 0], minlength=self.classes)

    def scores(self) -> dict[str, float | None]:
        """Return all metrics, means over the classes that occur.

        Returns:
            ``ap``: average precision, mean over `THRESHOLDS`; ``ap50`` and ``ap75``: at one of them; ``matched_iou``:
            mean overlap of the detections that match at 0.5 with their boxes, or None where none does.
        """
        scores, labels, overlap = (torch.cat(parts) for parts in zip(*self.kept, strict=True))
        right = overlap > 0
        each = [
            average_precision(scores[labels == label], right[labels == label], boxes)
            for label, boxes in enumerate(self.boxes.tolist())
            if boxes
        ]
        mean = torch.stack(each).mean(0)
        found = right[:, 0].sum()
        values = torch.stack([mean.mean(), mean[0], mean[5], overlap[:, 0].sum() / found.clamp_min(1), found.double()])
        *rest, iou, count = values.tolist()
        return dict(zip(("ap", "ap50", "ap75"), rest, strict=True)) | {"matched_iou": iou if count else None}
