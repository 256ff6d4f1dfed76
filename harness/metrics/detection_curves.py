"""Precision over recall of detections: what COCO and Pascal VOC read off the curve, and what each image adds to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from harness.metrics.detection_matching import SIZES, THRESHOLDS, Bools, Floats, Found, Ints, Matches, Truth

RECALLS = np.linspace(0, 1, 101)
"""Recalls at which COCO reads the precision."""
FEW_RECALLS = np.linspace(0, 1, 11)
"""Those at which Pascal VOC read it until 2009."""


@dataclass(frozen=True)
class Curves:
    """C curves over the same detections of one class, in descending order of their scores.

    Attributes:
        right, counts: of each detection, bool (C, D), as `Matches` has them.
        recall: share of the true boxes that are found by the detections up to each, (C, D).
        precision: share of these detections that are right, (C, D).
        highest: the greatest precision at this detection or a later one, (C, D).
        boxes: number of true boxes, one or more, (C,).
    """

    right: Bools
    counts: Bools
    recall: Floats
    precision: Floats
    highest: Floats
    boxes: Ints

    @classmethod
    def of(cls, right: Bools, counts: Bools, boxes: Ints) -> Curves:
        """Return the curves of detections in descending order of their scores."""
        hits = right.cumsum(1, dtype=np.float64)
        precision = hits / np.maximum(counts.cumsum(1), 1)
        highest = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
        return cls(right, counts, hits / boxes[:, None], precision, highest, boxes)

    def read(self, recalls: Floats) -> Floats:
        """Return the mean over recalls of the greatest precision at each or a higher one, (C,); 0 beyond the last."""
        padded = np.pad(self.highest, ((0, 0), (0, 1)))
        places = [np.searchsorted(row, recalls) for row in self.recall]
        return np.array([row[place].mean() for row, place in zip(padded, places, strict=True)])

    def area(self) -> Floats:
        """Return the area under the curves of greatest precision, at all points, (C,)."""
        return (self.highest * self.right).sum(1) / self.boxes

    def influence(self, image: Ints, boxes: Ints) -> Floats:
        """Return the influence of each image on the areas, float64 (C, N), with mean 0.

        With weights w of images, the area is sum_j w_j y_j p(m_j) / sum of the weights of boxes, where y_j says whether
        detection j is right, and p(m) is the precision among the detections up to m, at the one m_j >= j where it is
        greatest. A small change of the weights moves no m_j, so a detection adds to the area by being right, and to the
        precision at every m_j that does not come before it.

        Args:
            image: of each detection, from 0 on, (D,).
            boxes: true boxes of each image, (C, N).
        """
        detections, images = self.right.shape[1], boxes.shape[1]
        after = np.pad(self.highest[:, 1:], ((0, 0), (0, 1)), constant_values=-1)
        at = np.where(self.precision > after, np.arange(detections), detections)
        at = np.minimum.accumulate(at[:, ::-1], 1)[:, ::-1]  # m_j
        seen = np.maximum(self.counts.cumsum(1), 1)
        found = []
        for c in range(len(at)):
            mass = np.bincount(at[c], self.right[c], detections) / seen[c]
            later = [each[::-1].cumsum()[::-1] for each in (mass, mass * self.precision[c])]
            moved = self.right[c] * (self.highest[c] + later[0]) - self.counts[c] * later[1]
            found.append(np.bincount(image, moved, images))
        value, total = self.area()[:, None], self.boxes[:, None]
        return images * (np.array(found) - value * boxes) / total


def of_classes(labels: Ints, scores: Floats, classes: int) -> Iterator[tuple[int, Ints]]:
    """Yield each class and the places of its detections in descending order of their scores, equals in their order."""
    order = np.lexsort((-scores, labels))
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
    for label, rows in of_classes(found.label, found.score, classes):
        there = np.flatnonzero(boxes[:, label])
        columns = (there[:, None] * levels + np.arange(levels)).ravel()
        if not len(there):
            continue
        right, number = matches.right[np.ix_(columns, rows)], np.repeat(boxes[there, label], levels)
        curves = Curves.of(right, matches.counts[np.ix_(columns, rows)], number)
        precision[there, :, label] = curves.read(RECALLS).reshape(-1, levels)
        recall[there, :, label] = (right.sum(1) / number).reshape(-1, levels)
        if boxes[0, label]:
            for place, most in enumerate((1, 10), sizes):
                among = right[:levels] & (found.rank[rows] < most)
                recall[place, :, label] = among.sum(1) / boxes[0, label]
    return precision, recall


def voc_figures(found: Found, truth: Truth, right: Bools, counts: Bools, classes: int) -> tuple[Floats, Floats]:
    """Return the average precision of every class, (classes,), NaN where it has no true boxes: at all points of the
    curve, as Pascal VOC does since 2010, and at 11 recalls, as it did before.
    """
    areas, few = np.full(classes, np.nan), np.full(classes, np.nan)
    boxes = np.bincount(truth.label[truth.counts], minlength=classes)
    for label, rows in of_classes(found.label, found.score, classes):
        if boxes[label]:
            curves = Curves.of(right[None, rows], counts[None, rows], boxes[[label]])
            areas[label], few[label] = curves.area()[0], curves.read(FEW_RECALLS)[0]
    return areas, few


def influences(found: Found, truth: Truth, matches: Matches, classes: int, images: int) -> Floats:
    """Return the influence of every image on the average precision at each threshold, float64 (thresholds, images).

    It is that on the area under the curve, at all points, and of its mean over classes: COCO's 101 recalls are an
    approximation of the area that has no derivative; they differ by less than a point.
    """
    levels = len(THRESHOLDS)
    total, occurring = np.zeros((levels, images)), 0
    wanted = matches.wanted[0]
    for label, rows in of_classes(found.label, found.score, classes):
        own = np.bincount(truth.image[wanted & (truth.label == label)], minlength=images)
        if own.any():
            number = np.full(levels, own.sum())
            curves = Curves.of(matches.right[:levels, rows], matches.counts[:levels, rows], number)
            total += curves.influence(found.image[rows], np.tile(own, (levels, 1)))
            occurring += 1
    return total / max(1, occurring)
