"""What is wrong with detections: kinds of error and their cost, calibration of scores, boxes that are never found.

Source:
    Bolya et al., TIDE: A General Toolbox for Identifying Object Detection Errors, ECCV 2020, arXiv:2008.08115.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.metrics.detection_curves import RECALLS, Curve, mean, of_classes
from harness.metrics.detection_matching import NEAR, THRESHOLDS, Bools, Floats, Found, Ints, Matches, Pairs, Truth

KINDS = ("localisation", "classification", "duplicate", "background", "both", "missed")
"""Kinds of error, in the order in which they are looked for; of those that fit the first counts."""
LOCALISATION, CLASSIFICATION, DUPLICATE, BACKGROUND, BOTH, MISSED = range(len(KINDS))
BINS = 10
"""Bins of scores in which calibration compares them with the share of hits."""


@dataclass(frozen=True)
class Errors:
    """What kind of error every miss is, at an overlap of 0.5.

    Attributes:
        kind: of each detection, its place in `KINDS`, or -1, no error, (D,).
        meant: the true box that it would be right for without the error, where this is one of place or class, (D,).
        missed: bool (G,), the true boxes that are not found, and that no such detection was meant for.
    """

    kind: Ints
    meant: Ints
    missed: Bools

    def each(self, image: Ints, of_truth: Ints, images: int) -> Floats:
        """Return how many errors of each kind an image has, (kinds, images), from the images of all boxes."""
        there = self.kind >= 0
        place = np.append(self.kind[there] * images + image[there], MISSED * images + of_truth[self.missed])
        return np.bincount(place, minlength=len(KINDS) * images).reshape(-1, images).astype(np.float64)


def errors_of(found: Found, truth: Truth, pairs: Pairs, matches: Matches) -> Errors:
    """Return the kind of error of every detection that is a miss.

    A miss is an error of *localisation* if it overlaps a box of its class by at least 0.1 and less than 0.5, of
    *classification* if it overlaps one of another class by at least 0.5, a *duplicate* if it overlaps one of its class
    that a more certain detection has found, *background* if it overlaps nothing by 0.1, else of *both*, place
    and class. Boxes that are ignored do not count.
    """
    size, least = len(found.score), THRESHOLDS[0]
    counted = truth.counts[pairs.truth]
    own, own_box = pairs.best(pairs.same & counted, size)
    other, other_box = pairs.best(~pairs.same & counted, size)
    kind = np.select(
        [(own >= NEAR) & (own < least), other >= least, own >= least, np.maximum(own, other) < NEAR],
        [LOCALISATION, CLASSIFICATION, DUPLICATE, BACKGROUND],
        BOTH,
    )
    kind[matches.right[0] | ~matches.counts[0]] = -1
    meant = np.select([kind == LOCALISATION, kind == CLASSIFICATION], [own_box, other_box], -1)
    missed = truth.counts.copy()
    for boxes in (matches.truth, meant):
        missed[boxes[boxes >= 0]] = False
    return Errors(kind, meant, missed)


def costs_of(found: Found, truth: Truth, matches: Matches, errors: Errors, classes: int) -> list[float | None]:
    """Return how much AP at 0.5 would gain without each kind of error, in the order of `KINDS`; None: no true boxes.

    The most certain detection that was meant for a box that is not found finds it, with its class and a place that is
    right; the others of that kind, and all duplicates and what lies on the background or is wrong in both, are left
    out; boxes that are missed have not to be found. Gains do not add up to what perfect detections would.
    """
    wanted = np.bincount(truth.label[matches.wanted[0]], minlength=classes)
    right, counts = matches.right[0], matches.counts[0]
    before = _ap50(found.label, found.ranking, right, counts, wanted)
    free = np.ones(len(truth.label), bool)
    free[matches.truth[matches.truth >= 0]] = False
    after = []
    for kind in range(MISSED):
        rows = found.ranking[errors.kind[found.ranking] == kind]
        mended, labels = right.copy(), found.label
        if kind in (LOCALISATION, CLASSIFICATION):
            able = rows[free[errors.meant[rows]]]
            able = able[np.unique(errors.meant[able], return_index=True)[1]]
            mended[able] = True
            labels = labels.copy()
            labels[able] = truth.label[errors.meant[able]]
        after.append(_ap50(labels, found.ranking, mended, counts & ((errors.kind != kind) | mended), wanted))
    left = wanted - np.bincount(truth.label[errors.missed], minlength=classes)
    after.append(_ap50(found.label, found.ranking, right, counts, left))
    return [None if before is None or each is None else each - before for each in after]


def _ap50(labels: Ints, ranking: Ints, right: Bools, counts: Bools, boxes: Ints) -> float | None:
    """Return the mean of COCO's average precision over the classes that have boxes."""
    found = [
        Curve.of(right[rows], counts[rows], boxes[label]).read(RECALLS)
        for label, rows in of_classes(labels, ranking, len(boxes))
        if boxes[label]
    ]
    return mean(np.array(found))


def calibration(found: Found, matches: Matches) -> float | None:
    """Return the expected calibration error of scores at an overlap of 0.5; None: there are no detections.

    The mean, over the detections that are hits or misses, of the distance between the mean score and the share of hits
    in their bin, one of ten of equal width.

    Source:
        Küppers et al., Multivariate Confidence Calibration for Object Detection, CVPR Workshops 2020, arXiv:2004.13546,
        with the score alone.
    """
    counts = matches.counts[0] & np.isfinite(found.score)
    scores = found.score[counts].clip(0, 1)
    place = np.minimum((scores * BINS).astype(np.int64), BINS - 1)
    apart = np.bincount(place, scores - matches.right[0][counts], BINS)
    return float(np.abs(apart).sum() / len(scores)) if len(scores) else None


def never_found(truth: Truth, pairs: Pairs) -> Bools:
    """Return which true boxes count and are overlapped by no detection of any class by 0.5 or more, bool (G,)."""
    lost = truth.counts.copy()
    lost[pairs.truth[pairs.overlap >= THRESHOLDS[0]]] = False
    return lost
