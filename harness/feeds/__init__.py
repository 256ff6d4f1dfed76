"""Feeds bring data to the device: a resident one holds all of it there, a streamed one what the next batches need."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from hydra.utils import get_class, get_method
from torch import Tensor

from datasets.redraw import combined, redrawn
from datasets.splits import Splits
from harness.errors import UsageError, unknown

if TYPE_CHECKING:
    from harness.tasks import Setup


class Feed(Protocol):
    """Where the images of a data set and their targets come from, batch by batch, on the device."""

    splits: Splits

    def shuffled(self, order: Tensor, size: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield whole batches of training images and targets in an order (N,), from batch ``first`` on."""
        ...

    def ordered(self, split: str, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield all images and targets of a split in their order; the last batch may be smaller."""
        ...

    def rows(self, split: str, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images and targets of a few rows of a split."""
        ...


def whole_batches(order: Tensor, size: int, first: int = 0) -> Iterator[Tensor]:
    """Yield the parts (size,) of an order (N,) from batch ``first`` on; a remainder is left out, unless it is all."""
    for start in range(first * size, max(1, len(order) // size) * size, size):
        yield order[start : start + size]


def feed_for(setup: Setup) -> Feed:
    """Return the feed of a data set of images, the same one for equal settings."""
    return _feed(*_arguments(setup), json.dumps(setup.feed), str(setup.device))


def splits_for(setup: Setup) -> Any:
    """Return the splits of a data set, of images or of rows, the same ones for equal settings."""
    return _splits(*_arguments(setup))


def check_suited(splits: Any, task: str, setup: Setup) -> None:
    """Check that splits are made for a task.

    Raises:
        UsageError: they are made for another one.
    """
    if splits.made_for != task:
        name = setup.dataset["_target_"].rpartition(".")[2]
        raise UsageError(f"the data set {name} has {splits.content}: use task={splits.made_for}.")


SPLITS = ("fixed", "by_seed")


def _arguments(setup: Setup) -> tuple[str, str, bool, str, int | None]:
    dataset = {name: value for name, value in setup.dataset.items() if name != "augment"}
    split = dataset.pop("split", "fixed")
    if split not in SPLITS:
        raise unknown("dataset.split", split, SPLITS)
    seed = setup.seed if split == "by_seed" else None  # what does not depend on the seed is kept for all seeds
    return json.dumps(dataset), str(setup.data["root"]), bool(setup.data["download"]), json.dumps(setup.stress), seed


# a warm worker meets the same data again and again
@functools.lru_cache(maxsize=2)
def _feed(dataset: str, root: str, download: bool, stress: str, seed: int | None, feed: str, device: str) -> Feed:
    settings: Mapping[str, Any] = json.loads(feed)
    own = {name: value for name, value in settings.items() if name != "_target_"}
    splits = _splits(dataset, root, download, stress, seed)
    return get_class(settings["_target_"])(splits, torch.device(device), **own)


@functools.lru_cache(maxsize=2)
def _splits(dataset: str, root: str, download: bool, stress: str, seed: int | None) -> Any:
    """Return the splits of a data set, made harder if asked for; ``seed`` of a run draws both anew."""
    splits, harder = _as_read(dataset, root, download), json.loads(stress)
    if seed is not None:
        function = get_method(json.loads(dataset)["_target_"])
        if getattr(function, "official", False):
            raise UsageError(
                f"the data set {function.__name__} has an official test part, which stays what it is: use "
                "dataset.split=fixed."
            )
        own = getattr(splits, "redrawn", None)  # such as whole groups
        splits = redrawn(splits, seed) if own is None else own(seed)
    if harder is None:
        return splits
    if seed is not None:
        harder["seed"] = combined(harder["seed"], seed)
    return get_method(harder.pop("_target_"))(splits, **harder)


@functools.lru_cache(maxsize=2)
def _as_read(dataset: str, root: str, download: bool) -> Any:
    named = json.loads(dataset)
    splits = get_method(named.pop("_target_"))(Path(root), download=download, **named)
    _unsaid.extend(notes_of(splits))
    return splits


_unsaid: list[str] = []


def notes_of(splits: Any) -> list[str]:
    """Return what a data set says of itself, or that files were left out of it."""
    notes: list[str] = list(getattr(splits, "notes", ()))
    skipped: Sequence[str] = getattr(splits, "skipped", ())
    if skipped and not notes:
        shown = " ".join(skipped[:3]) + (f" And {len(skipped) - 3} more." if len(skipped) > 3 else "")
        notes.append(f"{len(skipped)} images were left out: {shown}")
    return notes


def notes() -> list[str]:
    """Return, once, what is to be said of the data sets that this process has read: sentences for the terminal."""
    said = list(dict.fromkeys(_unsaid))
    _unsaid.clear()
    return said
