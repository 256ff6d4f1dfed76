"""What data say of themselves once they are read: sizes, classes and their counts, and what looks wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datasets.boxes import BoxSplits
from datasets.rotated import RotatedSplits
from datasets.splits import Images, Splits
from datasets.tables import TableSplits
from harness.errors import UsageError
from harness.feeds import notes, notes_of, splits_for
from harness.look import sizes, wrong_labels
from harness.tasks import Setup
from harness.text import count, joined, significant

PARTS = ("train", "valid", "test")
FEW = 10
"""Items of a class in a test below which a comparison of losses says little."""
IMBALANCED = 5
"""How many times as frequent as the rarest class the most frequent one may be without a word."""
FAR = 6
"""Distance from the median, in standard deviations as quartiles give them, beyond which a number is a gross one."""


@dataclass(frozen=True)
class Told:
    """What there is to say of data.

    Attributes:
        facts: sentences.
        warnings: sentences, each with what to do.
        heads: what the columns of ``classes`` are.
        classes: of each class, its name and a text for each head.
    """

    facts: tuple[str, ...]
    warnings: tuple[str, ...]
    heads: tuple[str, ...] = ()
    classes: tuple[tuple[str, ...], ...] = ()


def written(value: object) -> str:
    """Return a value as Hydra's command line reads it.

    >>> written(["a b", 1]), written("my data/x.csv"), written(None)
    ('["a b",1]', '"my data/x.csv"', 'null')
    """
    if isinstance(value, str) and value and all(c.isascii() and (c.isalnum() or c in "_-./") for c in value):
        plain = value[0].isalpha() or value[0] == "/"
        if plain and value.lower() not in ("null", "true", "false", "none", "nan", "inf"):
            return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def loaded(config: Mapping[str, Any]) -> Any:
    """Return the splits of the data set of a composed run.

    Raises:
        UsageError: they cannot be had; the sentence of the data set.
    """
    setup = Setup(config["dataset"], config["data"], torch.device("cpu"), 1, 1, seed=config["seed"])
    try:
        return splits_for(setup)
    except (ValueError, FileNotFoundError) as error:
        raise UsageError(str(error)) from error


def told(splits: Any) -> Told:
    """Return what there is to say of the data of a run, as `loaded` returns them.

    Raises:
        UsageError: a file of theirs cannot be read.
    """
    said = notes_of(splits)
    notes()  # which need not be said again where the data are trained on
    items = [len(getattr(splits, name)) for name in PARTS]
    if isinstance(splits, Splits):
        channels, height, width = splits.train.shape
        what, about = "images", f"Images are {height}x{width} pixels with {count(channels, 'channel')} when trained on."
    else:
        what, about = "rows", f"{count(len(splits.names), 'feature')}: {_some(splits.names)}."
    train, valid, test = items
    total = f"{sum(items):,} {what}: {train:,} to train on, {valid:,} for validation, {test:,} for the test."
    facts, warnings = [total, about, *said], list[str]()
    if isinstance(splits, TableSplits):
        warnings += _of_numbers(splits, facts)
        return Told(tuple(facts), tuple(warnings))
    try:
        heads, counts = _counts(splits)
    except (ValueError, FileNotFoundError) as error:  # a mask that cannot be read
        raise UsageError(str(error)) from error
    facts += sizes.told(splits)
    warnings += _of_classes(counts, heads[0])
    for known, of_labels in zip((facts, warnings), wrong_labels.told(splits), strict=True):
        known += of_labels
    return Told(tuple(facts), tuple(warnings), heads, tuple(_shown(counts, heads[0])))


def _some(names: Sequence[str], most: int = 8) -> str:
    return joined(names) if len(names) <= most else f"{', '.join(names[:most])} and {len(names) - most} more"


def _of_numbers(splits: TableSplits, facts: list[str]) -> Iterator[str]:
    """Add what the numbers to predict are; yield what looks wrong with them."""
    low, first, middle, third, high = np.quantile(splits.clean.values, (0, 0.25, 0.5, 0.75, 1))
    facts.append(
        f"Numbers to predict go from {significant(low)} to {significant(high)}, half of them from {significant(first)} "
        f"to {significant(third)}, with the median {significant(middle)}."
    )
    spread = (third - first) / 1.349
    gross = int((np.abs(splits.clean.values - middle) > FAR * spread).sum()) if spread > 0 else 0
    if gross:
        yield (
            f"{count(gross, 'number')} to train on {'lies' if gross == 1 else 'lie'} more than {FAR} deviations from "
            "the median (as quartiles give them): losses that gross errors move little (huber, mae, log_cosh) are "
            "worth comparing."
        )
    if len(splits.test) < 50:
        yield _small(len(splits.test), "rows")


def _small(items: int, what: str) -> str:
    return (
        f"The test has {items} {what}, too few to tell losses apart: dataset.split=by_seed draws the parts anew for "
        "every seed, so that all of them are tested on."
    )


def _counts(splits: Any) -> tuple[tuple[str, ...], dict[str, list[float]]]:
    """Return heads, and for every class a number for each: items, boxes, or shares of pixels, by part."""
    parts, classes = [getattr(splits, name) for name in PARTS], splits.classes
    rotated = isinstance(splits, RotatedSplits)
    boxes = rotated or isinstance(splits, BoxSplits)
    if not boxes and isinstance(parts[0], Images) and parts[0].masked:
        heads = ("share of pixels, training", "validation", "test")
        columns = [_of_masks(part, len(classes)) for part in parts]
    else:
        labels = [_of_boxes(part.targets, rotated) if boxes else part.targets for part in parts]
        heads = ("boxes, training" if boxes else "training", "validation", "test")
        columns = [_of_labels(each, len(classes)) for each in labels]
    return heads, {name: [column[number] for column in columns] for number, name in enumerate(classes)}


def _of_boxes(targets: Tensor, rotated: bool) -> Tensor:
    """Return the class of every box that counts, (K,): not of difficult ones and crowds."""
    label = targets[..., 5 if rotated else 4]
    there = label >= 0 if rotated else (label >= 0) & (targets[..., 5] == 0)
    return label[there].long()


def _of_labels(targets: Tensor, classes: int) -> list[float]:
    """Return how many items, or boxes, each class has; of several labels each counts."""
    if targets.ndim == 2:  # several labels of an image, 0 or 1 each
        return targets.sum(0).tolist()
    return torch.bincount(targets, minlength=classes).tolist()


def _of_masks(part: Images, classes: int) -> list[float]:
    """Return the share of pixels of each class, void left out, in evenly spaced masks."""
    masks = sizes.some_masks(part)
    pixels = torch.bincount(masks.flatten().long(), minlength=256)[:classes].double()
    return (pixels / pixels.sum().clamp_min(1)).tolist()


def _shown(counts: Mapping[str, Sequence[float]], head: str) -> Iterator[tuple[str, ...]]:
    for name, numbers in counts.items():
        yield name, *(f"{100 * n:.2f} %" if "pixels" in head else f"{n:,.0f}" for n in numbers)


def _of_classes(counts: Mapping[str, Sequence[float]], head: str) -> Iterator[str]:
    training = {name: numbers[0] for name, numbers in counts.items()}
    if absent := [name for name, number in training.items() if not number]:
        seen = " in the masks that were looked at" if "pixels" in head else ""
        yield f"No training item has {joined(absent[:5])}{seen}: what is never seen cannot be learnt."
    rarest = min((name for name in training if training[name]), key=training.__getitem__, default="")
    commonest = max(training, key=training.__getitem__)
    if rarest and training[commonest] > IMBALANCED * training[rarest]:
        judge = "IoU of each class" if "pixels" in head else "G-mean or macro-F1"
        ratio = f"{commonest} is {training[commonest] / training[rarest]:,.0f} times as frequent as {rarest}"
        if "boxes" in head:
            yield f"{ratio}: AP counts every class alike, so the rare ones decide as much as the frequent ones."
        else:
            yield f"{ratio}: judge by {judge}, not by accuracy alone."
    if "pixels" not in head and (scarce := [name for name, numbers in counts.items() if numbers[2] < FEW]):
        yield (
            f"The test has fewer than {FEW} of {joined(scarce[:5])}{' and others' if len(scarce) > 5 else ''}, too few "
            "to tell losses apart by them: dataset.split=by_seed draws the parts anew for every seed."
        )
