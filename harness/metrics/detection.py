"""Metrics of detections: COCO's and Pascal VOC's average precision, errors by kind, calibration, item scores."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from harness.metrics import items
from harness.metrics.declared import Metric, error, share
from harness.metrics.detection_curves import coco_figures, influences, mean, voc_figures
from harness.metrics.detection_errors import KINDS, calibration, costs_of, errors_of, never_found
from harness.metrics.detection_matching import (
    SIZES,
    UPRIGHT,
    Floats,
    Found,
    Ints,
    Matches,
    Pairs,
    Shape,
    Truth,
    coco_matches,
    pairs_of,
    voc_matches,
)

DETECTION: tuple[Metric, ...] = (
    share("ap", "AP"),
    share("ap50", "AP at IoU 0.5"),
    share("ap75", "AP at IoU 0.75"),
    *(share(f"ap_{size}", f"AP of {size} objects") for size in SIZES if size != "all"),
    *(share(f"ar{most}", f"recall of {most} detection{'s' * (most > 1)} per image") for most in (1, 10, 100)),
    *(share(f"ar_{size}", f"recall of {size} objects") for size in SIZES if size != "all"),
    share("voc_ap50", "AP of Pascal VOC"),
    share("voc07_ap50", "AP of Pascal VOC at 11 recalls"),
    share("matched_iou", "IoU of found boxes"),
    share("never_found", "boxes never found", higher_is_better=False),
    share("calibration", "calibration error of scores", higher_is_better=False),
    *(error(f"errors_{kind}", f"errors per image: {kind}") for kind in KINDS),
    *(share(f"lost_{kind}", f"AP at IoU 0.5 lost: {kind}", higher_is_better=False, low=-1.0) for kind in KINDS),
)


def pairwise_iou(first: Tensor, second: Tensor) -> Tensor:
    """Return the overlaps (..., P, Q) of boxes (..., P, 4) and (..., Q, 4), corners x1, y1, x2, y2; 0 without area."""
    first, second = first.unsqueeze(-2), second.unsqueeze(-3)
    low, high = torch.maximum(first[..., :2], second[..., :2]), torch.minimum(first[..., 2:], second[..., 2:])
    shared = (high - low).clamp_min(0).prod(-1)
    areas = [(boxes[..., 2:] - boxes[..., :2]).clamp_min(0).prod(-1) for boxes in (first, second)]
    return shared / (areas[0] + areas[1] - shared).clamp_min(1e-12)


class DetectionMetrics:
    """Detections and true boxes of a split, kept where they lie; the host is asked once, at the end.

    Args:
        classes: number of classes.
        device: where detections lie.
        shape: how two boxes are compared; `UPRIGHT` takes corners x1, y1, x2, y2.
    """

    def __init__(self, classes: int, device: torch.device, shape: Shape = UPRIGHT) -> None:
        self.classes, self.device, self.shape = classes, device, shape
        self.images = 0
        self.kept: list[tuple[Tensor, ...]] = []  # of detections: image, label, score, box
        self.true: list[tuple[Tensor, ...]] = []  # of true boxes: image, label, ignored, area, box

    def add(
        self,
        boxes: Tensor,
        scores: Tensor,
        labels: Tensor,
        truth: Tensor,
        true_labels: Tensor,
        ignored: Tensor | None = None,
        areas: Tensor | None = None,
    ) -> None:
        """Take a batch.

        Args:
            boxes: detections (N, D, 4), in any order; at most 100 of a class in an image count.
            scores: (N, D); one that is no number is the lowest.
            labels: their classes, (N, D); -1: no detection.
            truth: true boxes (N, M, 4).
            true_labels: their classes, (N, M); -1: no box.
            ignored: of true boxes, (N, M): 0 counts, 1 difficult, 2 a crowd; None: all count.
            areas: of true boxes in square pixels, (N, M), by which they are small, medium or large: COCO takes those
                of the outlines of objects; None: those of the boxes.
        """
        images = self.images + torch.arange(len(boxes), device=labels.device).unsqueeze(1)
        self.images += len(boxes)
        ignored = torch.zeros_like(true_labels) if ignored is None else ignored
        areas = torch.full_like(true_labels, -1) if areas is None else areas
        found = (images.expand_as(labels), labels, scores.double(), boxes.double())
        true = (images.expand_as(true_labels), true_labels, ignored, areas.double(), truth.double())
        self.kept.append(tuple(values.flatten(0, 1) for values in found))
        self.true.append(tuple(values.flatten(0, 1) for values in true))

    @functools.cached_property
    def matched(self) -> Matched:
        """What was added, matched by the rule of COCO; nothing may be added after."""
        image, label, score, boxes = _on_host(self.kept)
        found = Found.of(image.numpy(), label.numpy(), score.numpy(), boxes)
        image, label, ignored, areas, boxes = _on_host(self.true)
        areas = torch.where(areas < 0, self.shape.area(boxes), areas)
        truth = Truth(image.numpy(), label.numpy(), ignored.numpy(), areas.numpy(), boxes)
        pairs = pairs_of(found, truth, self.shape)
        return Matched(found, truth, pairs, coco_matches(found, truth, pairs, self.shape))

    @functools.cached_property
    def figures(self) -> tuple[Floats, Floats]:
        """Average precision and recall of every class, as `coco_figures` returns them."""
        return coco_figures(self.matched.found, self.matched.truth, self.matched.matches, self.classes)

    def scores(self) -> dict[str, Any]:
        """Return all metrics; those that have nothing to be the mean of are None.

        Returns:
            COCO's twelve figures, means over the classes that have true boxes (of that size): ``ap`` over `THRESHOLDS`,
            ``ap50`` and ``ap75`` at one of them, ``ap_small``, ``ap_medium`` and ``ap_large`` by area (`SIZES`);
            ``ar1``, ``ar10``, ``ar100``, recall by so many detections of each class and image, mean over thresholds,
            ``ar_small`` to ``ar_large``. ``voc_ap50`` and ``voc07_ap50`` (`voc_figures`). ``matched_iou``, the mean
            overlap of the hits at 0.5. ``never_found``, the share of true boxes that no detection of any class overlaps
            by 0.5. ``calibration``. ``errors_...``, errors of a kind (`errors_of`) in an image, and ``lost_...``, what
            they cost (`costs_of`). ``per_class``, ``ap`` of each class (NaN: it has no true boxes).
        """
        found, truth, pairs, matches = self.matched
        precision, recall = self.figures
        voc = voc_figures(found, truth, *voc_matches(found, truth, pairs), self.classes)
        errors = errors_of(found, truth, pairs, matches)
        number = errors.each(found.image, truth.image, self.images).mean(1).tolist()
        whole, *sizes = map(mean, recall[: len(SIZES)])
        overlaps = np.where(matches.truth >= 0, matches.overlap, np.nan)
        lost = np.where(truth.counts, never_found(truth, pairs), np.nan)
        values = (
            *(mean(values) for values in (precision[0], precision[0, 0], precision[0, 5], *precision[1:])),
            *(mean(values) for values in recall[len(SIZES) :]),
            whole,
            *sizes,
            *map(mean, voc),
            mean(overlaps),
            mean(lost),
            calibration(found, matches),
            *number,
            *costs_of(found, truth, matches, errors, self.classes),
        )
        each = dict(zip((metric.key for metric in DETECTION), values, strict=True))
        return each | {"per_class": precision[0].mean(0).tolist()}

    def items(self, index: Tensor) -> dict[str, np.ndarray]:
        """Return the item scores of every image, in the order in which they came (`harness.metrics.items.of_scores`).

        Those of ``ap``, ``ap50`` and ``ap75`` are the value plus the influence of each image on it (`influences`);
        ``matched_iou`` and ``never_found`` are ratios of sums over images, and have that of a ratio.

        Args:
            index: (N,) position of each in the official file.
        """
        found, truth, pairs, matches = self.matched
        moved = influences(found, truth, matches, self.classes, self.images)
        precision, hit = self.figures[0][0], matches.truth >= 0
        lost = never_found(truth, pairs)[truth.counts]
        named = {
            "ap": (mean(precision), moved.mean(0)),
            "ap50": (mean(precision[0]), moved[0]),
            "ap75": (mean(precision[5]), moved[5]),
            "matched_iou": self._ratio(found.image[hit], matches.overlap[hit]),
            "never_found": self._ratio(truth.image[truth.counts], lost.astype(np.float64)),
        }
        known = {name: value + more for name, (value, more) in named.items() if value is not None}
        return items.of_scores(index.numpy(), known)

    def _ratio(self, image: Ints, values: Floats) -> tuple[float | None, Floats]:
        """Return the mean of the values of boxes, and the influence of each image on it, (N,), from their images."""
        value = mean(values)
        if value is None:
            return None, np.zeros(self.images)
        return value, self.images * np.bincount(image, values - value, self.images) / len(values)


class Matched(NamedTuple):
    """Detections and true boxes, the pairs of them that overlap, and which detections are hits."""

    found: Found
    truth: Truth
    pairs: Pairs
    matches: Matches


def _on_host(batches: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Return the columns of boxes, batch after batch, without those of no class (the second column)."""
    columns = [torch.cat(parts) for parts in zip(*batches, strict=True)]
    return tuple(column[columns[1] >= 0].detach().cpu() for column in columns)
