"""Samplers: in which order the training items of an epoch come, as a function of a seed."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.errors import UsageError


def shuffled(targets: Tensor, seed: int) -> Tensor:
    """Return every item once, int64 (N,), in a random order.

    Args:
        targets: (N,), one for each item; only their number matters.
        seed: Chooses the order.
    """
    return torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed))


def balanced(targets: Tensor, seed: int, *, classes: int, images: int) -> Tensor:
    """Return batches of P different classes with K different items each, one after the other: int64 (B * P * K,).

    There are as many batches as the items fill, B = N // (P K), at least one. Each batch draws its classes anew; a
    class goes through all its items, in an order of its own, before any of them comes again.

    Args:
        targets: int64 (N,) on the CPU, class of each item.
        seed: Chooses the classes and the order.
        classes: P, classes of a batch.
        images: K, items of each of them.

    Raises:
        UsageError: there are not so many classes, or one has not so many items.

    Source:
        Hermans, Beyer and Leibe, In Defense of the Triplet Loss, arXiv:1703.07737, section 2.
    """
    counts = torch.bincount(targets)
    labels = counts.nonzero()[:, 0]
    least = int(counts[labels].min())
    if classes > len(labels):
        raise UsageError(
            f"batches of {classes} classes x {images} images were asked for, but there are {len(labels)} training "
            "classes: set task.images_per_class higher or trainer.batch_size lower."
        )
    if images > least:
        raise UsageError(
            f"batches of {classes} classes x {images} images were asked for, but a class has only {least} training "
            "images: set task.images_per_class lower."
        )
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(targets), generator=generator)
    members = order[targets[order].argsort(stable=True)]  # by class, each in a random order
    begin = counts.cumsum(0) - counts
    batches = max(1, len(targets) // (classes * images))
    chosen = labels[torch.rand(batches, len(labels), generator=generator).argsort(1)[:, :classes]]  # (B, P)
    drawn = torch.zeros(batches, len(counts), dtype=torch.int64).scatter_(1, chosen, 1)
    before = (drawn.cumsum(0) - drawn).gather(1, chosen) * images  # items of the class that earlier batches had
    turn = before.unsqueeze(2) + torch.arange(images)
    return members[(begin[chosen].unsqueeze(2) + turn % counts[chosen].unsqueeze(2)).flatten()]
