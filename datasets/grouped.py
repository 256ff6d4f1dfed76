"""Parts that share no group: a patient, a scene or a camera is trained on or tested on, not both."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from datasets.decoded import Decoded
from datasets.redraw import combined, pooled, redrawn
from datasets.splits import Splits

TRIES = 20
"""Orders in which groups are dealt out; the one that meets the shares best is kept."""


def deal(groups: np.ndarray, labels: np.ndarray, shares: tuple[float, ...], seed: int) -> np.ndarray:
    """Return the part of each item, int64 (N,): whole groups, with nearly these shares of every class.

    Groups come in a random order; each goes to the part that it fills least (D'Hondt's rule, by class). Of several
    orders the one is kept after which the first part lacks the fewest classes, then no part lacks items, and then
    shares are met best.

    Args:
        groups: number of the group of each item, int64 (N,), from 0 on.
        labels: class of each item, int64 (N,), from 0 on.
        shares: of the parts, each above 0; the first is that which trains.
        seed: chooses; at least 0.
    """
    counts = np.zeros((groups.max() + 1, labels.max() + 1))
    np.add.at(counts, (groups, labels), 1)
    total, wanted = counts.sum(0), np.asarray(shares)[:, None] / np.sum(shares) * counts.sum(0)
    stream, best = np.random.PCG64(seed), (np.inf, np.inf, np.inf)
    chosen = np.zeros(len(counts), dtype=np.int64)
    for _ in range(max(1, min(TRIES, 100_000 // len(counts)))):
        parts, held = np.zeros(len(counts), dtype=np.int64), np.zeros_like(wanted)
        for group in np.argsort(stream.random_raw(len(counts)), kind="stable"):
            filled = ((held + counts[group]) / np.maximum(wanted, 1e-9)) @ (counts[group] / total)
            parts[group] = np.argmin(filled)
            held[parts[group]] += counts[group]
        lacking = float((held[0] == 0).sum())
        score = (lacking, float((held.sum(1) == 0).sum()), float(np.abs(held - wanted).sum()))
        if score < best:
            best, chosen = score, parts
    return chosen[groups]


@dataclass(frozen=True)
class OwnSplits(Splits):
    """Splits of a data set of one's own.

    Attributes:
        notes: What was understood and what was left out, in sentences for the terminal.
        groups: Whether each item has a group, which stays in one part where parts are drawn anew.
    """

    notes: tuple[str, ...] = ()
    groups: bool = False

    def redrawn(self, seed: int) -> "OwnSplits":
        """Return the same splits with items drawn anew out of all of theirs; whole groups, where there are groups."""
        if not self.groups:
            return redrawn(self, seed)
        parts = list(self.parts.values())
        pool, sizes = pooled(parts), tuple(map(float, map(len, parts)))
        where = deal(numbers(entries(parts)), strata(pool), sizes, combined(seed, 0))
        train, valid, test = (pool.take(np.flatnonzero(where == part)) for part in range(3))
        return replace(self, train=train, valid=valid, test=test)


def strata(images: Any) -> np.ndarray:
    """Return what parts are to have the same shares of, int64 (N,): classes, or what images of several labels say
    themselves; all 0 for images with masks or boxes.
    """
    if (found := getattr(images, "strata", None)) is not None:
        return found
    return images.labels.numpy() if images.targets.ndim == 1 else np.zeros(len(images), dtype=np.int64)


def entries(parts: list[Any]) -> list[Any]:
    """Return what lists each image of several parts, which are decoded when needed."""
    return [item for part in parts if isinstance(part.images, Decoded) for item in part.images.items]


def numbers(listed: list[Any]) -> np.ndarray:
    """Return the number of the group of each entry, int64 (N,), in the order of their names."""
    return np.unique([entry.group for entry in listed], return_inverse=True)[1].astype(np.int64)
