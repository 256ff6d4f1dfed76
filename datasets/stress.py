"""What makes a training split harder on purpose: wrong labels, rare classes, few images, boxes drawn wrongly.

Validation and test stay as they are. A stronger stress changes what a weaker one changed, and more.
"""

import math
from dataclasses import replace

import numpy as np
from torch import Tensor, cat, from_numpy, stack, tensor, where

from datasets.boxes import BoxSplits
from datasets.decoded import in_memory
from datasets.rotated import RotatedSplits
from datasets.splits import Images, Splits, stratified_order

NOISES = ("symmetric", "next")
PROFILES = ("tail", "step")


def label_noise(splits: Splits, *, rate: float, kind: str, seed: int) -> Splits:
    """Return the same splits with some training labels wrong; a higher rate keeps the wrong labels of a lower one.

    Args:
        splits: Images with a class each.
        rate: Share of training labels that are wrong, at least 0 and below 1.
        kind: `symmetric` (any other class) or `next` (the class after it, as in Patrini et al., CVPR 2017).
        seed: Chooses which images; at least 0.

    Raises:
        ValueError: A setting is out of its range, or the data are not images with a class each.
    """
    train, classes = _labelled(splits), len(splits.classes)
    _check("rate", rate, 0 <= rate < 1, "at least 0 and below 1")
    _check("kind", kind, kind in NOISES, " or ".join(NOISES))
    return replace(splits, train=_mislabelled(train, classes, rate, kind, seed))


def imbalance(splits: Splits, *, ratio: float, profile: str, seed: int) -> Splits:
    """Return the same splits with rare classes among the training images.

    Args:
        splits: Images with a class each.
        ratio: How many times fewer images the rarest class keeps than the most frequent one, 1 or more.
        profile: `tail` (class c keeps ratio^(-c / (C - 1)) of the most frequent class's number; Cao et al., LDAM,
            NeurIPS 2019) or `step` (the second half of the classes keeps 1 / ratio of it).
        seed: Chooses which images; at least 0.

    Raises:
        ValueError: A setting is out of its range, or the data are not images with a class each.
    """
    train = _labelled(splits)
    _check("ratio", ratio, ratio >= 1, "1 or more")
    _check("profile", profile, profile in PROFILES, " or ".join(PROFILES))
    return replace(splits, train=_imbalanced(train, len(splits.classes), ratio, profile, seed))


def imbalance_outliers(splits: Splits, *, ratio: float, profile: str, outliers: float, seed: int) -> Splits:
    """Return the same splits with rare classes, of whose training images a share shows a frequent class.

    As many images as there are outliers leave a rare class for them, so classes are as rare as with `imbalance`. A
    class is rare that keeps less than half as many images as the most frequent one.

    Args:
        splits: Images with a class each.
        ratio, profile: As for `imbalance`.
        outliers: Share of the images of a rare class that are outliers, at least 0 and below 1, rounded to whole
            images; more of them keep those that were fewer.
        seed: Chooses which images; at least 0.

    Raises:
        ValueError: A setting is out of its range, or the data are not images with a class each.
    """
    _check("outliers", outliers, 0 <= outliers < 1, "at least 0 and below 1")
    rare = imbalance(splits, ratio=ratio, profile=profile, seed=seed)
    return replace(rare, train=_with_outliers(rare.train, len(splits.classes), outliers, seed))


def few(splits: Splits, *, share: float, seed: int) -> Splits:
    """Return the same splits with a stratified part of the training images.

    Args:
        splits: Images with a class each.
        share: Share of the training images that is kept, above 0 and at most 1.
        seed: Chooses which images; at least 0.

    Raises:
        ValueError: The share is out of its range, or the data are not images with a class each.
    """
    train = _labelled(splits)
    _check("share", share, 0 < share <= 1, "above 0 and at most 1")
    order = stratified_order(in_memory(train.targets).numpy(), seed)
    return replace(splits, train=train.take(order[: max(len(splits.classes), round(share * len(train)))]))


def box_noise(splits: BoxSplits | RotatedSplits, *, rate: float, seed: int) -> BoxSplits | RotatedSplits:
    """Return the same splits with some training boxes drawn wrongly; a higher rate keeps the wrong ones of a lower one.

    A wrong box is moved by up to half its sides, each of these is up to twice as long or as short, and a rotated one is
    turned by any angle. An upright one is cut at the edge of the image. Classes stay right.

    Args:
        splits: Images with boxes, upright or rotated.
        rate: Share of training boxes that are wrong, at least 0 and below 1.
        seed: Chooses which boxes; at least 0.

    Raises:
        ValueError: A setting is out of its range, or the data have no boxes.
    """
    rotated = isinstance(splits, RotatedSplits)
    if not rotated and not isinstance(splits, BoxSplits):
        raise ValueError("stress=box_noise changes boxes, which these data do not have: use another stress.")
    _check("rate", rate, 0 <= rate < 1, "at least 0 and below 1")
    train, targets = splits.train, in_memory(splits.train.targets).clone()
    words = np.random.PCG64(seed).random_raw(6 * targets[..., 0].numel()).reshape(*targets.shape[:2], 6)
    wrong, *shift, across, down, turn = from_numpy((words >> np.uint64(11)) / 2.0**53).float().unbind(2)
    wrong = ((wrong < rate) & (targets[..., 5 if rotated else 4] >= 0)).unsqueeze(2)
    boxes = targets[..., :4] if rotated else _centred(targets[..., :4])
    centre, sides = boxes.split(2, 2)
    centre = centre + (stack(shift, 2) - 0.5) * sides
    sides = sides * 4 ** (stack([across, down], 2) - 0.5)
    if rotated:
        angle = targets[..., 4] + math.pi * turn
        angle = angle - math.pi * (angle >= math.pi / 2)
        boxes = cat([centre, sides, angle.unsqueeze(2)], 2)
    else:
        _, height, width = train.shape
        edge = tensor([width, height, width, height])
        boxes = cat([centre - sides / 2, centre + sides / 2], 2).clamp_min(0).minimum(edge)
    count = boxes.shape[2]
    targets[..., :count] = where(wrong, boxes, targets[..., :count])
    return replace(splits, train=replace(train, targets=targets))


def _centred(boxes: Tensor) -> Tensor:
    """Return boxes (..., 4), corners, as centre x and y, width and height."""
    low, high = boxes.split(2, -1)
    return cat([(low + high) / 2, high - low], -1)


def _labelled(splits: Splits) -> Images:
    targets = getattr(splits.train, "targets", None)  # rows of tables may have them too
    if getattr(targets, "ndim", 0) != 1:
        raise ValueError("stress changes items with a class each, which these data are not: use stress=none.")
    return splits.train


def _check(name: str, value: object, right: bool, allowed: str) -> None:
    if not right:
        raise ValueError(f"stress.{name} is {value}; it must be {allowed}.")


def _imbalanced(train: Images, classes: int, ratio: float, profile: str, seed: int) -> Images:
    if ratio == 1:
        return train
    place = np.arange(classes)
    fading = (
        ratio ** (-place / max(1, classes - 1)) if profile == "tail" else np.where(place < classes / 2, 1, 1 / ratio)
    )
    targets = in_memory(train.targets).numpy()
    most = np.maximum(1, np.rint(np.bincount(targets, minlength=classes).max() * fading)).astype(np.int64)
    order = stratified_order(targets, seed)
    kept = [order[targets[order] == label][: most[label]] for label in range(classes)]
    return train.take(np.concatenate(kept))


def _with_outliers(train: Images, classes: int, outliers: float, seed: int) -> Images:
    targets = in_memory(train.targets).numpy()
    counts = np.bincount(targets, minlength=classes)
    rare = np.flatnonzero((counts > 0) & (2 * counts < counts.max()))
    order = np.argsort(np.random.PCG64([seed, 2]).random_raw(len(targets)), kind="stable")
    frequent = order[~np.isin(targets[order], rare)]
    wanted = np.rint(outliers * counts[rare]).astype(np.int64)
    # each rare class draws from a stretch of its own, as long as the class, so that more outliers keep the fewer
    starts = np.concatenate([[0], np.cumsum(counts[rare])[:-1]]).astype(np.int64)
    labels, gone = targets.copy(), []
    for label, start, number in zip(rare, starts, wanted, strict=True):
        chosen = frequent[start : start + number]
        labels[chosen] = label
        gone.append(order[targets[order] == label][: len(chosen)])
    kept = np.setdiff1d(np.arange(len(targets)), np.concatenate([[], *gone]).astype(np.int64))
    return replace(train, targets=from_numpy(labels)).take(kept)


def _mislabelled(train: Images, classes: int, label_noise: float, noise: str, seed: int) -> Images:
    if not label_noise:
        return train
    # two numbers for each place in the official file, so that an image is mislabelled alike in every subset
    lottery = np.random.PCG64([seed, 1]).random_raw(2 * int(train.index.max() + 1)).reshape(-1, 2)
    chance, other = lottery[train.index.numpy()].T
    step = 1 + other % np.uint64(classes - 1) if noise == "symmetric" else np.ones_like(other)
    targets = in_memory(train.targets).numpy()
    wrong = (targets + step.astype(np.int64)) % classes
    return replace(train, targets=from_numpy(np.where(chance / 2.0**64 < label_noise, wrong, targets)))
