"""Semantic segmentation: one label per pixel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from datasets import joint
from datasets.splits import VOID
from harness.errors import UsageError
from harness.tasks import DataSetup, views
from harness.tasks.loading import OnDevice
from harness.tasks.views import Predict

CALIBRATION_BINS = 15
EXAMPLES = 4
"""Test images that a run keeps for the report to show."""
TOLERANCE = 0.0075
"""Distance at which boundaries still agree, as a share of the image's diagonal."""


class Segmentation(OnDevice):
    """Images with a mask each, cropped, zoomed, mirrored and tinted on the device in batches.

    Args:
        setup: which data, and where.
        crop: height and width on which the model is trained, cut out at random places; whole images are then judged
            by windows of this size that slide over them. None takes whole images in both.
        overlap: least share of such a window that its neighbour sees too.
        scales: factors at which test images are looked at, and averaged.
        mirror: whether test images are also looked at in the mirror, and averaged.

    Raises:
        UsageError: one of these is out of its range, or the data set has a class for every image.
    """

    takes = frozenset({"class_logits"})
    judges = frozenset({"class_logits"})
    selects = "miou"
    masked = dense = True

    def __init__(
        self,
        setup: DataSetup,
        crop: Sequence[int] | None = None,
        overlap: float = 1 / 3,
        scales: Sequence[float] = (1.0,),
        mirror: bool = False,
        robustness: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(setup)
        if robustness is not None:
            raise UsageError("robustness is measured for image classifiers; leave out the robustness settings here.")
        channels, *self.size = self.splits.train.images.shape[1:]
        self.crop = None if crop is None else _checked_crop(crop, self.size)
        self.overlap, self.scales, self.mirror = overlap, scales, mirror
        if not 0 <= overlap < 1:
            raise UsageError(f"task.overlap is {overlap}; it must be at least 0 and below 1.")
        if not scales or min(scales) <= 0:
            raise UsageError(f"task.scales is {list(scales)}; it must have one factor or more, all above 0.")
        self.model_shape = {"in_channels": channels, "image_size": self.window, "num_classes": self.classes}
        shrinks = min(self.augment.get("zoom") or (1.0,)) < 1  # surrounds an image with void
        self.has_void = shrinks or any(bool((target == VOID).any()) for target in self.targets.values())

    @property
    def window(self) -> tuple[int, ...]:
        """Height and width of what the model sees."""
        return tuple(self.size if self.crop is None else self.crop)

    def epoch(
        self, batch_size: int, order_seed: int, augment_seed: int, first: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images, masks) in a new order; the remainder that fills no batch is left out of this epoch."""
        images, targets, order = self.images["train"], self.targets["train"], self.order(order_seed)
        generator = torch.Generator().manual_seed(augment_seed)
        draws = joint.draw(len(targets), self.augment, generator, self.size, self.crop)
        draws = None if draws is None else draws.to(self.device)
        for step in range(first, self.steps_per_epoch(batch_size)):
            place = slice(step * batch_size, (step + 1) * batch_size)
            chosen = order[place]
            batch, masks = self.normalised(images.index_select(0, chosen)), targets.index_select(0, chosen)
            batch, masks = joint.apply(batch, masks, None if draws is None else draws[place], self.crop)
            yield batch.contiguous(memory_format=self.format), masks.long()

    def probe(self, count: int) -> tuple[Tensor, Tensor]:
        """Return the first ``count`` validation images, what a model sees of them, and their masks."""
        seen = [
            slice((whole - side) // 2, (whole + side) // 2) for whole, side in zip(self.size, self.window, strict=True)
        ]
        images, masks = self.images["valid"][:count], self.targets["valid"][:count]
        return self.ready(images[..., *seen]), masks[..., *seen].long()

    def mask(self, target: Tensor) -> Tensor | None:
        """Return True where a pixel has a class; None if all pixels of the data set have one."""
        return target != VOID if self.has_void else None

    def _seen(self, predict: Predict, split: str, link: str) -> Predict:
        """Return ``predict`` from all views of an image; scales and mirror, which cost most, only for the test."""

        def whole(images: Tensor) -> Tensor:
            return views.windowed(predict, images, self.window, self.overlap)

        if split != "test":
            return whole
        return lambda images: views.averaged(whole, images, self.scales, self.mirror, link)

    def evaluate(self, split: str, predict: Predict, link: str, batch_size: int) -> dict[str, Any]:
        """Return the metrics of `Tally`; boundaries, which cost most, on the test split only."""
        images, targets = self.images[split], self.targets[split]
        predict = self._seen(predict, split, link)
        tally = Tally(self.classes, link, boundaries=split == "test", device=self.device)
        for part, target in zip(images.split(batch_size), targets.split(batch_size), strict=True):
            tally.add(predict(self.ready(part)), target)
        return tally.scores(self.splits.classes)

    def _shown(self) -> Tensor:
        """Return the places of the test images that a run keeps."""
        count = len(self.images["test"])
        return torch.linspace(0, count - 1, min(EXAMPLES, count), device=self.device).round().long()

    def examples(self, predict: Predict) -> dict[str, Any]:
        """Return a few test images, evenly spaced in the list, their masks and the predicted ones, all uint8."""
        images, targets = self.images["test"], self.targets["test"]
        predict = self._seen(predict, "test", "none")
        place = self._shown()
        predicted = predict(self.ready(images[place])).argmax(1)
        kept = {"images": images[place], "truth": targets[place], "prediction": predicted.to(torch.uint8)}
        return {name: values.cpu().numpy() for name, values in kept.items()}

    def describe(self) -> dict[str, Any]:
        """Return sizes of the splits, classes, checksum, files left out, and what the trivial prediction scores."""
        seen = {"window": list(self.window), "scales": list(self.scales), "mirror": self.mirror}
        return {
            **super().describe(),
            "image_size": list(self.size),
            **(seen if self.crop is not None or self.mirror or list(self.scales) != [1] else {}),
            "skipped": len(self.splits.skipped),
            "trivial": self._trivial(),
        }

    def _trivial(self) -> dict[str, float]:
        """Return what it scores on the test split to call every pixel by the most frequent class of training."""
        train, test = (self.targets[split].flatten() for split in ("train", "test"))
        frequent = torch.bincount(train, minlength=VOID + 1)[: self.classes].argmax()
        confusion = torch.zeros(self.classes, self.classes, dtype=torch.float64, device=self.device)
        confusion[:, frequent] = torch.bincount(test, minlength=VOID + 1)[: self.classes].double()
        found = {name: float(value) for name, value in of_confusion(confusion, self.splits.classes).items()}
        return {name: found[name] for name in ("miou", "foreground_iou", "pixel_accuracy") if name in found}


def _checked_crop(crop: Sequence[int], size: Sequence[int]) -> tuple[int, int]:
    if len(crop) != 2 or not all(1 <= side <= whole for side, whole in zip(crop, size, strict=True)):
        raise UsageError(
            f"task.crop is {list(crop)}; it must be a height and a width in pixels, at most {size[0]} and {size[1]}, "
            "the size of the images (dataset.size)."
        )
    return crop[0], crop[1]


def of_confusion(confusion: Tensor, classes: tuple[str, ...]) -> dict[str, Tensor]:
    """Judge by the counts of a whole data set.

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


class Tally:
    """Counts of a split, added up on the device; the host is asked once, at the end.

    Args:
        classes: number of classes.
        link: ``softmax`` (likelihood and calibration), ``sigmoid`` and ``none`` (neither).
        boundaries: whether to judge boundaries too.
        device: where predictions lie.
    """

    def __init__(self, classes: int, link: str, *, boundaries: bool, device: torch.device) -> None:
        self.classes, self.link, self.boundaries = classes, link, boundaries
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
