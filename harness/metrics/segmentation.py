"""Metrics of segmentation: class by class over a whole data set, image by image, and at boundaries."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from datasets.splits import VOID
from harness.metrics import items
from losses.loss import Link

CALIBRATION_BINS = 15
TOLERANCE = 0.0075
"""Distance at which boundaries still agree, as a share of the image's diagonal."""


def of_confusion(confusion: Tensor, classes: tuple[str, ...]) -> dict[str, Tensor]:
    """Return the metrics that follow from the counts of a whole data set.

    Args:
        confusion: (C, C) counts, truth by row and prediction by column.
        classes: names; one called background is left out of ``foreground_iou``.

    Returns:
        ``miou``, ``dice`` (the macro-F1 of pixels), ``precision`` and ``recall``: means over the classes that occur in
        truth or prediction, of which one that is never predicted has precision 0 and one that never occurs has recall
        0; ``miou_all``, ``dice_all``: over all classes, 0 for those that do neither; ``foreground_iou``: as miou,
        without background; ``pixel_accuracy``: which is micro-averaged F1, precision and recall alike. All in [0, 1].
    """
    hits, actual, guessed = confusion.diag(), confusion.sum(1), confusion.sum(0)
    union = actual + guessed - hits
    present = union > 0
    iou, dice = hits / union.clamp_min(1), 2 * hits / (actual + guessed).clamp_min(1)

    def mean(values: Tensor, among: Tensor) -> Tensor:
        return (values * among).sum() / among.sum().clamp_min(1)

    foreground = torch.tensor([name != "background" for name in classes], device=confusion.device)
    return {
        "miou": mean(iou, present),
        "miou_all": iou.mean(),
        "foreground_iou": mean(iou, present & foreground),
        "dice": mean(dice, present),
        "dice_all": dice.mean(),
        "precision": mean(hits / guessed.clamp_min(1), present),
        "recall": mean(hits / actual.clamp_min(1), present),
        "pixel_accuracy": hits.sum() / confusion.sum().clamp_min(1),
    }


def item_scores(counts: Tensor, classes: tuple[str, ...]) -> dict[str, Tensor]:
    """Return the item scores of images for metrics of `of_confusion`: the metric's value plus the influence of each.

    The IoU of a class is a ratio of sums over images, I / U, on which an image that adds i and u to them has the
    influence n (i - (I / U) u) / U; the mean over classes passes it on. Dice and pixel accuracy likewise.

    Args:
        counts: float64 (3, N, C), hits, true and predicted pixels of each image and class.
        classes: names; one called background is left out of ``foreground_iou``.

    Returns:
        ``miou``, ``foreground_iou``, ``dice`` and ``pixel_accuracy``, (N,) each.
    """
    hits, actual, guessed = counts
    union = actual + guessed - hits
    there = union.sum(0) > 0
    foreground = torch.tensor([name != "background" for name in classes], device=counts.device)
    iou, dice = _ratios(hits, union), _ratios(2 * hits, actual + guessed)
    found = {"miou": iou[:, there], "foreground_iou": iou[:, there & foreground], "dice": dice[:, there]}
    named = {name: each.sum(1) / max(1, each.shape[1]) for name, each in found.items()}
    return named | {"pixel_accuracy": _ratios(hits.sum(1, keepdim=True), actual.sum(1, keepdim=True))[:, 0]}


def _ratios(over: Tensor, under: Tensor) -> Tensor:
    """Return the item scores (N, K) of ratios of sums over items, those of (N, K) over those of (N, K)."""
    total = under.sum(0).clamp_min(1)
    value = over.sum(0) / total
    return value + len(over) * (over - value * under) / total


class ConfusionMetrics:
    """Counts of a split, added up on the device; the host is asked once, at the end.

    Args:
        classes: number of classes.
        link: ``softmax`` (likelihood and calibration), ``sigmoid`` and None (neither).
        boundaries: whether to evaluate boundaries too.
        device: where predictions lie.
        keep: whether to keep what every image contributes.
    """

    def __init__(self, classes: int, link: Link, *, boundaries: bool, device: torch.device, keep: bool = False) -> None:
        self.classes, self.link, self.boundaries, self.keep = classes, link, boundaries, keep
        self.kept: list[Tensor] = []  # (3, B, C): hits, true and predicted pixels of each image and class
        self.confusion = torch.zeros(classes, classes, dtype=torch.int64, device=device)
        self.images: list[Tensor] = []  # (B, 2): mean IoU and mean Dice of each image
        self.edges: list[Tensor] = []  # (B,): boundary F1 of each image
        self.nll = torch.zeros((), dtype=torch.float64, device=device)
        self.bins = torch.zeros(3, CALIBRATION_BINS + 1, dtype=torch.float64, device=device)

    def add(self, logits: Tensor, target: Tensor) -> None:
        """Count a batch: logits (B, C, H, W) and target (B, H, W) with 255 for void."""
        counts = _confusions(logits.argmax(1), target, self.classes)
        self.confusion += counts.sum(0)
        hits, actual, guessed = counts.diagonal(dim1=1, dim2=2), counts.sum(2), counts.sum(1)
        if self.keep:
            self.kept.append(torch.stack([hits, actual, guessed]))
        union = actual + guessed - hits
        present = (union > 0).double()
        scores = torch.stack([hits / union.clamp_min(1), 2 * hits / (actual + guessed).clamp_min(1)])
        self.images.append(((scores * present).sum(2) / present.sum(1).clamp_min(1)).T)
        if self.link == "softmax":
            self._calibrate(logits, target)
        if self.boundaries:
            self.edges.append(boundary_f1(logits.argmax(1), target, self.classes))

    def _calibrate(self, logits: Tensor, target: Tensor) -> None:
        log_p = logits.log_softmax(1)
        counted = target != VOID
        true = log_p.gather(1, target.long().where(counted, 0).unsqueeze(1)).squeeze(1)
        self.nll -= torch.where(counted, true, 0).sum(dtype=torch.float64)
        best, predicted = log_p.max(1)
        confidence = best.exp()
        place = (confidence * CALIBRATION_BINS).ceil().long().clamp(1, CALIBRATION_BINS) - 1
        place = place.where(counted, CALIBRATION_BINS).flatten()  # void falls into a bin of its own
        for row, values in enumerate((torch.ones_like(confidence), predicted == target, confidence)):
            self.bins[row].scatter_add_(0, place, values.flatten().double())

    def items(self, index: Tensor, classes: tuple[str, ...]) -> dict[str, np.ndarray]:
        """Return the item scores of every image, in the order in which they came (`harness.metrics.items.of_scores`).

        Args:
            index: (N,) position of each in the official list.
            classes: names, as `scores` takes them.
        """
        each = torch.cat(self.images).T
        named = item_scores(torch.cat(self.kept, 1).double(), classes)
        named |= {"miou_image": each[0], "dice_image": each[1]}
        return items.of_scores(index.numpy(), {name: values.cpu().numpy() for name, values in named.items()})

    def scores(self, classes: tuple[str, ...]) -> dict[str, Any]:
        """Return all metrics.

        Returns:
            those of `of_confusion`; ``miou_image`` and ``dice_image``: mean over the classes that occur in an image's
            truth or prediction, then over images; ``boundary_f1`` (see there; None on validation data); ``nll`` in nats
            per pixel and ``ece`` over 15 equal bins, or None; ``per_class`` IoU (NaN: neither occurs nor is predicted);
            the Dice of a class is 2 IoU / (1 + IoU).
        """
        confusion = self.confusion.double()
        named = of_confusion(confusion, classes)
        each = torch.cat(self.images).mean(0)
        named |= {"miou_image": each[0], "dice_image": each[1]}
        if self.boundaries:
            named["boundary_f1"] = torch.cat(self.edges).nanmean()
        if self.link == "softmax":
            counts, correct, confidence = self.bins[:, :CALIBRATION_BINS]
            total = counts.sum().clamp_min(1)
            named |= {"nll": self.nll / total, "ece": (correct - confidence).abs().sum() / total}
        iou = confusion.diag() / (confusion.sum(0) + confusion.sum(1) - confusion.diag())
        values = torch.cat([torch.stack([value.double() for value in named.values()]), iou]).tolist()
        found: dict[str, Any] = dict(zip(named, values, strict=False))
        absent = {name: None for name in ("boundary_f1", "nll", "ece") if name not in found}
        return found | absent | {"per_class": values[len(named) :]}


def _confusions(predicted: Tensor, target: Tensor, classes: int) -> Tensor:
    """Return the counts of each image, int64 (B, C, C), truth by row; void is left out."""
    images, cells = len(target), classes * classes
    place = target.long() * classes + predicted + cells * torch.arange(images, device=target.device).view(-1, 1, 1)
    place = place.where(target != VOID, images * cells).flatten()
    if place.device.type == "cpu":
        counts = torch.bincount(place, minlength=images * cells + 1)
    else:  # bincount waits for the device
        counts = place.new_zeros(images * cells + 1).scatter_add_(0, place, torch.ones_like(place))
    return counts[:-1].view(images, classes, classes)


def boundary_f1(predicted: Tensor, target: Tensor, classes: int) -> Tensor:
    """Return how well boundaries agree in each image (B,): F1 of boundary pixels, averaged over its classes.

    A boundary pixel of one matches if the other has a boundary pixel of that class within 0.75 % of the diagonal, along
    rows and columns. Void is no boundary. Images without any boundary give NaN. predicted, target: (B, H, W).

    Source:
        Csurka et al., What is a good evaluation measure for semantic segmentation?, BMVC 2013.
    """
    counted = target != VOID
    reach = max(1, round(TOLERANCE * (target.shape[-2] ** 2 + target.shape[-1] ** 2) ** 0.5))
    total = torch.zeros(len(target), dtype=torch.float64, device=target.device)
    number = torch.zeros_like(total)
    for label in range(classes):  # one class after the other keeps memory small
        found, true = (_boundary((x == label) & counted, counted) for x in (predicted, target))
        matched = found.logical_and(_grown(true, reach)).sum((1, 2))
        recovered = true.logical_and(_grown(found, reach)).sum((1, 2))
        guessed, actual = found.sum((1, 2)), true.sum((1, 2))
        precision, recall = matched / guessed.clamp_min(1), recovered / actual.clamp_min(1)
        total += 2 * precision * recall / (precision + recall).clamp_min(1e-12)
        number += (guessed + actual) > 0
    return torch.where(number > 0, total / number.clamp_min(1), torch.nan)


def _boundary(inside: Tensor, counted: Tensor) -> Tensor:
    """Return the pixels inside that touch a counted pixel outside, up, down, left or right."""
    outside = (~inside & counted).to(torch.float32).unsqueeze(1)
    across = functional.max_pool2d(outside, (1, 3), 1, (0, 1)) + functional.max_pool2d(outside, (3, 1), 1, (1, 0))
    return inside & (across.squeeze(1) > 0)


def _grown(pixels: Tensor, reach: int) -> Tensor:
    side = 2 * reach + 1
    grown = functional.max_pool2d(pixels.to(torch.float32).unsqueeze(1), (1, side), 1, (0, reach))
    return functional.max_pool2d(grown, (side, 1), 1, (reach, 0)).squeeze(1) > 0
