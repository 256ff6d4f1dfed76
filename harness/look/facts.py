"""What data say of themselves once they are read: sizes, classes and their counts, and what looks wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from datasets.splits import Splits
from harness.errors import UsageError
from harness.feeds import splits_for
from harness.tasks import Setup
from harness.text import count, joined

PARTS = ("train", "valid", "test")
FEW = 10
"""Items of a class below which a comparison of losses says little."""
IMBALANCED = 5
"""How many times as frequent as the rarest class the most frequent one may be without a word."""
MOST_MASKS = 200
"""Masks of training that are decoded to count their pixels."""


@dataclass(frozen=True)
class Told:
    """Facts and warnings, sentences each, and the classes with their number in training, validation and test."""

    facts: tuple[str, ...]
    warnings: tuple[str, ...]
    classes: Mapping[str, Sequence[int]]


def written(value: object) -> str:
    """Return a value as Hydra's command line reads it.

    >>> written(["a b", 1]), written("my data/x.csv"), written(None)
    ('["a b",1]', '"my data/x.csv"', 'null')
    """
    if isinstance(value, str) and value and all(c.isalnum() or c in "_-./" for c in value):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def loaded(config: Mapping[str, Any]) -> Any:
    """Return the splits of the data set of a composed run.

    Raises:
        UsageError: they cannot be had; the sentence of the data set.
    """
    setup = Setup(config["dataset"], config["data"], torch.device("cpu"), 1, 1)
    try:
        return splits_for(setup)
    except (ValueError, FileNotFoundError) as error:
        raise UsageError(str(error)) from error


def told(config: Mapping[str, Any]) -> Told:
    """Return what there is to say of the data set of a composed run.

    Raises:
        UsageError: it cannot be read or divided.
    """
    splits = loaded(config)
    sizes = [len(getattr(splits, name)) for name in PARTS]
    kind = "images" if isinstance(splits, Splits) else "rows"
    facts = [
        f"{sum(sizes):,} {kind}: {sizes[0]:,} to train on, {sizes[1]:,} for validation, {sizes[2]:,} for the test."
    ]
    warnings: list[str] = []
    if isinstance(splits, Splits):
        channels, height, width = splits.train.shape
        facts.append(f"Images are brought to {height}x{width} pixels with {count(channels, 'channel')}.")
        warnings += _left_out(splits)
    else:
        facts.append(f"{count(len(splits.names), 'feature')}: {_some(splits.names)}.")
    counts = _counts(splits)
    return Told(tuple(facts), (*warnings, *_of_classes(counts)), counts)


def _left_out(splits: Splits) -> list[str]:
    if not splits.skipped:
        return []
    return [f"{count(len(splits.skipped), 'file')} left out, the first because: {splits.skipped[0]}"]


def _some(names: Sequence[str], most: int = 8) -> str:
    shown = list(names[:most])
    return joined(shown) if len(names) <= most else f"{', '.join(shown)} and {len(names) - most} more"


def _counts(splits: Any) -> dict[str, list[int]]:
    """Return how many items each class has in each part; nothing where items have no single class."""
    classes = getattr(splits, "classes", ())
    targets = [getattr(getattr(splits, name), "targets", None) for name in PARTS]
    if not classes or any(not isinstance(each, torch.Tensor) or each.ndim != 1 for each in targets):
        return {}
    counted = [torch.bincount(each, minlength=len(classes)).tolist() for each in targets if each is not None]
    return {name: [part[number] for part in counted] for number, name in enumerate(classes)}


def _of_classes(counts: Mapping[str, Sequence[int]]) -> list[str]:
    if not counts:
        return []
    found = []
    training = {name: of_parts[0] for name, of_parts in counts.items()}
    rarest, commonest = min(training, key=training.__getitem__), max(training, key=training.__getitem__)
    if training[commonest] > IMBALANCED * training[rarest]:
        ratio = training[commonest] / max(1, training[rarest])
        found.append(
            f"{commonest} is {ratio:.0f} times as frequent as {rarest}: judge by G-mean or macro-F1 "
            "(metric=test.gmean), not by accuracy alone."
        )
    if scarce := [name for name, parts in counts.items() if parts[2] < FEW]:
        found.append(
            f"the test has fewer than {FEW} items of {joined(scarce[:5])}: what it says of them is hardly more than "
            "chance; dataset.split=by_seed draws the parts anew for every seed."
        )
    return found
