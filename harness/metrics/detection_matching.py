"""Which detection finds which true box: by COCO's rule, at many overlaps and sizes at once, and by Pascal VOC's.

Detections and true boxes of all images lie one after the other, so that nothing loops over images, and a true box is
compared with the detections of its own image alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

THRESHOLDS = tuple((50 + 5 * step) / 100 for step in range(10))
"""Overlaps (IoU) from 0.5 to 0.95 from which on a detection matches; AP is the mean over them, as in COCO."""
SIZES = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
"""Least and greatest area of COCO's ranges of sizes, in square pixels, both included."""
MOST = 100
"""Detections of a class in an image that count, the most certain first."""
NEAR = 0.1
"""Overlap up to which a detection has nothing to do with a true box."""
AT_ONCE = 1 << 20
"""Pairs of boxes that are compared at a time."""


class Shape(NamedTuple):
    """How boxes (P, K) are compared, row by row: the area that two of them share, and the area of each, (P,)."""

    shared: Callable[[Tensor, Tensor], Tensor]
    area: Callable[[Tensor], Tensor]


def _shared(first: Tensor, second: Tensor) -> Tensor:
    low, high = torch.maximum(first[:, :2], second[:, :2]), torch.minimum(first[:, 2:], second[:, 2:])
    return _product((high - low).clamp_min(0))


def _area(boxes: Tensor) -> Tensor:
    return _product((boxes[:, 2:] - boxes[:, :2]).clamp_min(0))


def _product(sides: Tensor) -> Tensor:
    return sides[:, 0] * sides[:, 1]  # several times faster than `prod` over two


UPRIGHT = Shape(_shared, _area)
"""Boxes with corners x1, y1, x2, y2. A side is x2 - x1: the devkit of Pascal VOC adds 1, because its corners are whole
pixels that both belong to the box."""


@dataclass(frozen=True)
class Found:
    """D detections, ordered by class, image and descending score.

    Attributes:
        image, label: of each, (D,).
        score: (D,); one that is no number is the lowest, minus infinity.
        rank: its place among those of its class in its image, from 0 on.
        ranking: the places of all in descending order of their scores, (D,); equals keep their order.
        boxes: float64 (D, K).
    """

    image: Ints
    label: Ints
    score: Floats
    rank: Ints
    ranking: Ints
    boxes: Tensor

    @classmethod
    def of(cls, image: Ints, label: Ints, score: Floats, boxes: Tensor) -> Found:
        """Return detections in order, of each class and image the `MOST` most certain; equals keep their order."""
        score = np.where(np.isnan(score), -np.inf, score)
        order = np.lexsort((image, label))
        if not _descending(score[order], image[order], label[order]):  # as they come from suppression
            order = np.lexsort((-score, image, label))
        rank = _places(image[order], label[order])
        kept = rank < MOST
        order, rank = order[kept], rank[kept]
        score = score[order]
        ranking = np.argsort(-score, kind="stable")
        return cls(image[order], label[order], score, rank, ranking, boxes[torch.from_numpy(order)])


@dataclass(frozen=True)
class Truth:
    """G true boxes, ordered by image.

    Attributes:
        image, label: of each, (G,).
        ignored: 0: it counts; 1: difficult; 2: a crowd.
        area: by which its range of sizes is told, (G,).
        boxes: float64 (G, K).
    """

    image: Ints
    label: Ints
    ignored: Ints
    area: Floats
    boxes: Tensor

    @property
    def counts(self) -> Bools:
        """Whether each has to be found, (G,)."""
        return self.ignored == 0


@dataclass(frozen=True)
class Pairs:
    """Detections and true boxes of the same image that overlap by `NEAR` or more, ordered by detection and true box.

    Attributes:
        found, truth: the place of each, (P,).
        overlap: intersection over union, up to 1; over the area of the detection where the true box is a crowd.
        same: whether the classes are equal.
    """

    found: Ints
    truth: Ints
    overlap: Floats
    same: Bools

    def best(self, among: Bools, detections: int) -> tuple[Floats, Ints]:
        """Return the greatest overlap of each detection among some of the pairs, (D,), and with which true box.

        The first of equals is taken; 0 and -1 where there is none.
        """
        rows = np.flatnonzero(among)[::-1]  # of equals, the last one written stands
        overlap, truth = np.zeros(detections), np.full(detections, -1)
        np.maximum.at(overlap, self.found[rows], self.overlap[rows])
        rows = rows[self.overlap[rows] == overlap[self.found[rows]]]
        truth[self.found[rows]] = self.truth[rows]
        return overlap, truth


def pairs_of(found: Found, truth: Truth, shape: Shape = UPRIGHT) -> Pairs:
    """Return all pairs of a detection and a true box of its image that overlap by `NEAR` or more."""
    first = np.searchsorted(truth.image, found.image)
    partners = np.searchsorted(truth.image, found.image, side="right") - first
    starts = partners.cumsum() - partners
    kept: list[tuple[Ints, Ints, Floats]] = []
    areas = [shape.area(boxes).numpy() for boxes in (found.boxes, truth.boxes)]
    cuts = np.searchsorted(starts, np.arange(AT_ONCE, partners.sum(), AT_ONCE))
    for rows in np.split(np.arange(len(partners)), cuts):
        one = np.repeat(rows, partners[rows])
        other = np.arange(len(one)) - np.repeat(starts[rows] - starts[rows[:1]].sum(), partners[rows])
        other += first[one]
        places = torch.from_numpy(one), torch.from_numpy(other)
        shared = shape.shared(found.boxes[places[0]], truth.boxes[places[1]]).numpy()
        one, other, shared = (each[shared > 0] for each in (one, other, shared))
        crowd = truth.ignored[other] == 2
        overlap = shared / (areas[0][one] + np.where(crowd, 0, areas[1][other] - shared))
        near = overlap >= NEAR
        kept.append((one[near], other[near], overlap[near]))
    one, other, overlap = (np.concatenate(each) for each in zip(*kept, strict=True))
    return Pairs(one, other, overlap, found.label[one] == truth.label[other])


@dataclass(frozen=True)
class Matches:
    """What detections are, at C pairs of a range of sizes and a least overlap: `SIZES` times `THRESHOLDS`, in order.

    Attributes:
        right: bool (C, D), whether each finds a true box that counts.
        counts: bool (C, D), whether it is a hit or a miss: neither if it lies on a box that is ignored, or is of
            another size and finds nothing.
        truth: which true box each detection finds at the least overlap, of any size, (D,); -1: none that counts.
        overlap: with that box, (D,); 0: none.
        wanted: bool (sizes, G), which true boxes count in each range of sizes.
    """

    right: Bools
    counts: Bools
    truth: Ints
    overlap: Floats
    wanted: Bools


def coco_matches(found: Found, truth: Truth, pairs: Pairs, shape: Shape = UPRIGHT) -> Matches:
    """Match detections to true boxes of their class as COCO does: the more certain a detection, the earlier it chooses.

    It takes the box that it overlaps most among those that are free and count, if the overlap reaches the threshold,
    the last of equals; where there is none, one that is ignored, which makes it neither hit nor miss. Boxes that are
    of another size are ignored, and taken once; crowds and difficult boxes are free for any number of detections.

    Source:
        pycocotools 2.0.11, cocoeval.py, evaluateImg. COCO has no difficult boxes.
    """
    ends = np.array(list(SIZES.values()))
    area = shape.area(found.boxes).numpy()
    inside = (truth.area >= ends[:, :1]) & (truth.area <= ends[:, 1:])
    wanted = inside & truth.counts
    sizes, levels = len(ends), len(THRESHOLDS)
    least = np.tile(THRESHOLDS, sizes)
    right = np.zeros((len(area), sizes * levels), bool)
    touched = np.zeros_like(right)
    taken = np.zeros((len(truth.area), sizes * levels), bool)
    match, overlap = np.full(len(area), -1), np.zeros(len(area))
    counted, again = np.repeat(wanted.T, levels, 1), truth.ignored > 0
    for rows in _turns(found, pairs):
        box, score = pairs.truth[rows], pairs.overlap[rows]
        open_ = (~taken[box] | again[box, None]) & (score[:, None] >= least)
        place = np.arange(1, len(rows) + 1, dtype=np.int32)[:, None] + (len(rows) + 1) * counted[box].astype(np.int32)
        starts = np.flatnonzero(np.diff(pairs.found[rows], prepend=-1))
        best = np.maximum.reduceat(np.where(open_, place, 0), starts, axis=0)
        one, column = np.nonzero(best)
        chosen = box[best[one, column] % (len(rows) + 1) - 1]
        taken[chosen, column] = True
        detection = pairs.found[rows][starts][one]
        touched[detection, column] = True
        right[detection, column] = counted[chosen, column]
        first = (column == 0) & counted[chosen, column]
        match[detection[first]] = chosen[first]
        overlap[detection[first]] = score[best[one, column] % (len(rows) + 1) - 1][first]
    same_size = np.repeat((area[:, None] >= ends[:, 0]) & (area[:, None] <= ends[:, 1]), levels, 1)
    counts = right | (~touched & same_size)
    return Matches(np.ascontiguousarray(right.T), np.ascontiguousarray(counts.T), match, overlap, wanted)


def _turns(found: Found, pairs: Pairs) -> list[Ints]:
    """Return the pairs that can match, by turns: in each, of every class and image the next detection that has any,
    its pairs in ascending order of overlap, then of true boxes.
    """
    rows = np.flatnonzero(pairs.same & (pairs.overlap >= THRESHOLDS[0]))
    rows = rows[np.lexsort((pairs.truth[rows], pairs.overlap[rows], pairs.found[rows]))]
    if not len(rows):
        return []
    detections, of = np.unique(pairs.found[rows], return_inverse=True)
    turn = _places(found.image[detections], found.label[detections])[of]
    order = np.argsort(turn, kind="stable")
    return np.split(rows[order], np.flatnonzero(np.diff(turn[order])) + 1)


def _places(*keys: Ints) -> Ints:
    """Return the place of each item, from 0 on, in its stretch of equal keys, (N,)."""
    apart = np.zeros(len(keys[0]), bool)
    apart[:1] = True
    for key in keys:
        apart[1:] |= key[1:] != key[:-1]
    rows = np.arange(len(apart))
    return rows - np.maximum.accumulate(np.where(apart, rows, 0)) if len(rows) else rows


def _descending(values: Floats, *keys: Ints) -> bool:
    """Return whether values never rise within a stretch of equal keys."""
    within = np.logical_and.reduce([key[1:] == key[:-1] for key in keys])
    return not (within & (values[1:] > values[:-1])).any()


def voc_matches(found: Found, truth: Truth, pairs: Pairs) -> tuple[Bools, Bools]:
    """Return which detections are right, and which count, by the rule of Pascal VOC at an overlap of 0.5, bool (D,).

    A detection stands for the box of its class that it overlaps most, the first of equals. It is right if the overlap
    is at least 0.5 and no more certain one stood for the same box. On a box that is ignored it is neither hit nor miss.

    Source:
        Everingham et al., The Pascal Visual Object Classes Challenge: A Retrospective, IJCV 2015; devkit of 2012,
        VOCevaldet.m.
    """
    overlap, box = pairs.best(pairs.same, len(found.score))
    hit = overlap >= THRESHOLDS[0]
    counts = ~hit | ~(truth.ignored > 0)[box] if len(truth.ignored) else ~hit
    right = np.zeros_like(hit)
    candidates = np.flatnonzero(hit & counts)
    right[candidates[np.unique(box[candidates], return_index=True)[1]]] = True
    return right, counts
