"""What makes a training split harder on purpose: wrong labels, rare classes, few images.

Validation and test stay as they are. A stronger stress changes what a weaker one changed, and more.
"""

from dataclasses import replace

import numpy as np
from torch import from_numpy

from datasets.splits import Images, Splits, stratified_order

NOISES = ("symmetric", "next")
PROFILES = ("tail", "step")


def applied(
    splits: Splits, *, share: float, imbalance_ratio: float, imbalance: str, label_noise: float, noise: str, seed: int
) -> Splits:
    """Return the same splits with another training part; rare classes are drawn first, labels are changed last.

    Args:
        splits: Images with a class each.
        share: Share of the training images that is kept, stratified, above 0 and at most 1.
        imbalance_ratio: How many times fewer images the rarest class keeps than the most frequent one, 1 or more.
        imbalance: `tail` (class c keeps ratio^(-c / (C - 1)) of the most frequent class's number; Cao et al., LDAM,
            NeurIPS 2019) or `step` (the second half of the classes keeps 1 / ratio of it).
        label_noise: Share of training labels that are wrong, at least 0 and below 1.
        noise: `symmetric` (any other class) or `next` (the class after it, as in Patrini et al., CVPR 2017).
        seed: Chooses which images; at least 0.

    Raises:
        ValueError: A setting is out of its range, or the images have masks.
    """
    _check(splits, share, imbalance_ratio, imbalance, label_noise, noise)
    train, classes = splits.train, len(splits.classes)
    train = _imbalanced(train, classes, imbalance_ratio, imbalance, seed)
    if share < 1:
        order = stratified_order(train.targets.numpy(), seed)
        train = train.take(order[: max(classes, round(share * len(train)))])
    return replace(splits, train=_mislabelled(train, classes, label_noise, noise, seed))


def _check(splits: Splits, share: float, ratio: float, imbalance: str, label_noise: float, noise: str) -> None:
    if splits.train.targets.ndim != 1:
        raise ValueError("stress changes labels of images, but this data set has masks; leave out the stress settings.")
    for name, value, right, allowed in (
        ("share", share, 0 < share <= 1, "above 0 and at most 1"),
        ("imbalance_ratio", ratio, ratio >= 1, "1 or more"),
        ("label_noise", label_noise, 0 <= label_noise < 1, "at least 0 and below 1"),
        ("imbalance", imbalance, imbalance in PROFILES, " or ".join(PROFILES)),
        ("noise", noise, noise in NOISES, " or ".join(NOISES)),
    ):
        if not right:
            raise ValueError(f"stress.{name} is {value}; it must be {allowed}.")


def _imbalanced(train: Images, classes: int, ratio: float, profile: str, seed: int) -> Images:
    if ratio == 1:
        return train
    place = np.arange(classes)
    fading = (
        ratio ** (-place / max(1, classes - 1)) if profile == "tail" else np.where(place < classes / 2, 1, 1 / ratio)
    )
    targets = train.targets.numpy()
    most = np.maximum(1, np.rint(np.bincount(targets, minlength=classes).max() * fading)).astype(np.int64)
    order = stratified_order(targets, seed)
    kept = [order[targets[order] == label][: most[label]] for label in range(classes)]
    return train.take(np.concatenate(kept))


def _mislabelled(train: Images, classes: int, label_noise: float, noise: str, seed: int) -> Images:
    if not label_noise:
        return train
    # two numbers for each place in the official file, so that an image is mislabelled alike in every subset
    lottery = np.random.PCG64([seed, 1]).random_raw(2 * int(train.index.max() + 1)).reshape(-1, 2)
    chance, other = lottery[train.index.numpy()].T
    step = 1 + other % np.uint64(classes - 1) if noise == "symmetric" else np.ones_like(other)
    targets = train.targets.numpy()
    wrong = (targets + step.astype(np.int64)) % classes
    return replace(train, targets=from_numpy(np.where(chance / 2.0**64 < label_noise, wrong, targets)))
