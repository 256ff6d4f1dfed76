"""Precision over recall of detections: what COCO and Pascal VOC read off the curve, and what each image adds to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from harness.metrics.detection_matching import SIZES, THRESHOLDS, Bools, Floats, Found, Ints, Matches, Truth

RECALLS = np.linspace(0, 1, 101)
"""Recalls at which COCO reads the precision."""
FEW_RECALLS = np.arange(11) / 10
"""Those at which Pascal VOC read it until 2009."""


@dataclass(frozen=True)
class Curve:
    """Precision over recall of the detections of a class, known where it matters: at the H hits among D detections.

    Attributes:
        right, counts: whether a detection is right, and whether it counts at all, in descending order of scores, (D,).
        seen: how many count up to each hit, (H,).
        highest: the greatest precision at each hit or a later one, (H,).
        boxes: number of true boxes, one or more.
    """

    right: Bools
    counts: Bools
    seen: Ints
    highest: Floats
    boxes: int

    @classmethod
    def of(cls, right: Bools, counts: Bools, boxes: int) -> Curve:
        """Return the curve of detections in descending order of their scores."""
        seen = counts.cumsum()[right]
        highest = np.maximum.accumulate((np.arange(1, len(seen) + 1) / seen)[::-1])[::-1]
        return cls(right, counts, seen, highest, boxes)

    def read(self, recalls: Floats) -> float:
        """Return the mean over recalls of the greatest precision at each or a higher one; 0 beyond the last."""
        reached = np.searchsorted(np.arange(1, len(self.seen) + 1) / self.boxes, recalls)
        return float(np.append(self.highest, 0)[reached].mean())

    def area(self) -> float:
        """Return the area under the curve of greatest precision, at all points."""
        return float(self.highest.sum() / self.boxes)

    def influence(self, image: Ints, boxes: Ints) -> Floats:
        """Return the influence of each image on the area, float64 (N,), with mean 0.

        With weights of images, the area is the weighted sum over hits j of p(m_j), over the weights of the true boxes,
        where p(m) is the precision among the detections up to m, at the hit m_j not before j where it is greatest. A
        small change of the weights moves no m_j, so a detection adds to the area by being a hit, and to the precision
        at every m_j that does not come before it.

        Args:
            image: of each detection, from 0 on, (D,).
            boxes: true boxes of each image, (N,).
        """
        hits, images = len(self.seen), len(boxes)
        precision = np.arange(1, hits + 1) / self.seen
        greatest = np.where(precision > np.append(self.highest[1:], -1), np.arange(hits), hits)
        m = np.minimum.accumulate(greatest[::-1])[::-1]
        mass = np.bincount(m, minlength=hits) / self.seen
        gained, lost = (np.append(each[::-1].cumsum()[::-1], 0) for each in (mass, mass * precision))
        moved = -lost[self.right.cumsum() - self.right] * self.counts
        moved[self.right] += self.highest + gained[:-1]
        return images * (np.bincount(image, moved, images) - self.area() * boxes) / self.boxes


def averages(right: Bools, counts: Bools, boxes: int) -> Floats:
    """Return COCO's average precision of L lists of D detections, (L,): `Curve.read` at `RECALLS`, of all at once.

    Args:
        right, counts: as those of `Curve`, (L, D).
        boxes: number of true boxes, one or more.
    """
    hits, seen = (each.cumsum(1, dtype=np.int32) for each in (right, counts))
    most = int(hits.max(initial=0))
    row, place = np.nonzero(right)
    number = hits[row, place]
    precision = np.zeros((len(right), most + 1))  # at each hit, and 0 beyond the last
    precision[row, number - 1] = number / seen[row, place]
    highest = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    reached = np.searchsorted(np.arange(1, most + 1) / boxes, RECALLS)
    return np.take(highest, reached, axis=1).mean(1)


def of_classes(labels: Ints, ranking: Ints, classes: int) -> Iterator[tuple[int, Ints]]:
    """Yield each class and the places of its detections, in the order in which the ranking has them."""
    small = np.uint8 if classes < 256 else np.uint16  # sorted by their digits
    order = ranking[np.argsort(labels[ranking].astype(small), kind="stable")]
    ends = np.searchsorted(labels[order], np.arange(classes + 1))
    for label in range(classes):
        yield label, order[ends[label] : ends[label + 1]]


def mean(values: Floats) -> float | None:
    """Return the mean of values, without those that are NaN; None: there is none."""
    there = values[~np.isnan(values)]
    return float(there.mean()) if len(there) else None


def coco_figures(found: Found, truth: Truth, matches: Matches, classes: int) -> tuple[Floats, Floats]:
    """Return COCO's average precision and recall of every class, NaN where it has no true boxes.

    Returns:
        precision, float64 (sizes, thresholds, classes), and recall (sizes + 2, thresholds, classes), of which the last
        two are those of the most certain detection of each image and class, and of the ten most certain ones.

    Source:
        pycocotools 2.0.11, cocoeval.py, accumulate.
    """
    sizes, levels = len(SIZES), len(THRESHOLDS)
    precision = np.full((sizes, levels, classes), np.nan)
    recall = np.full((sizes + 2, levels, classes), np.nan)
    boxes = np.array([np.bincount(truth.label[wanted], minlength=classes) for wanted in matches.wanted])
    for label, rows in of_classes(found.label, found.ranking, classes):
        own = [each.take(rows, 1) for each in (matches.right, matches.counts)]
        for size in np.flatnonzero(boxes[:, label]):
            right, counts = (each[size * levels : (size + 1) * levels] for each in own)
            number = boxes[size, label]
            precision[size, :, label] = averages(right, counts, number)
            recall[size, :, label] = right.sum(1) / number
            for place, most in enumerate((1, 10), sizes):
                if size == 0:
                    recall[place, :, label] = right[:, found.rank[rows] < most].sum(1) / number
    return precision, recall


def voc_figures(found: Found, truth: Truth, right: Bools, counts: Bools, classes: int) -> tuple[Floats, Floats]:
    """Return the average precision of every class, (classes,), NaN where it has no true boxes: at all points of the
    curve, as Pascal VOC does since 2010, and at 11 recalls, as it did before.
    """
    areas, few = np.full(classes, np.nan), np.full(classes, np.nan)
    boxes = np.bincount(truth.label[truth.counts], minlength=classes)
    for label, rows in of_classes(found.label, found.ranking, classes):
        if boxes[label]:
            curve = Curve.of(right[rows], counts[rows], boxes[label])
            areas[label], few[label] = curve.area(), curve.read(FEW_RECALLS)
    return areas, few


def influences(found: Found, truth: Truth, matches: Matches, classes: int, images: int) -> Floats:
    """Return the influence of every image on the average precision at each threshold, float64 (thresholds, images).

    It is that on the area under the curve, at all points, and of its mean over classes: COCO's 101 recalls are an
    approximation of the area that has no derivative; they differ by less than a point.
    """
    levels = len(THRESHOLDS)
    total, occurring = np.zeros((levels, images)), 0
    for label, rows in of_classes(found.label, found.ranking, classes):
        own = np.bincount(truth.image[matches.wanted[0] & (truth.label == label)], minlength=images)
        if own.any():
            image, number = found.image[rows], own.sum()
            for level in range(levels):
                curve = Curve.of(matches.right[level, rows], matches.counts[level, rows], number)
                total[level] += curve.influence(image, own)
            occurring += 1
    return total / max(1, occurring)
