"""The seam: a task turns data into pairs that losses compare, and evaluates what a model has learnt.

The loop knows neither data nor metrics nor kinds of models. A plain task says what its batches are and which pairs they
give; one with several objectives (critic and generator) also says in which order they are trained, and on what.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn

from harness.metrics.declared import Metric
from losses.kinds import Pairs
from losses.loss import Link

Config = Mapping[str, Any]
T = TypeVar("T")
Shift = Callable[..., Tensor]


class Batch(NamedTuple):
    """What a model is given, and what is compared with its answer."""

    inputs: tuple[Tensor, ...]
    target: Any


class Lazy(Mapping[str, T]):
    """A mapping of which each value is computed when it is first asked for: pairs that only some losses compare, or
    outputs that only some tasks evaluate.

    Args:
        makers: functions that return the values.
    """

    def __init__(self, makers: Mapping[str, Callable[[], T]]) -> None:
        self.makers, self.made = makers, dict[str, T]()

    def __getitem__(self, kind: str) -> T:
        """Return the value of a kind, computed at most once."""
        if kind not in self.made:
            self.made[kind] = self.makers[kind]()
        return self.made[kind]

    def __contains__(self, kind: object) -> bool:
        """Return whether there is a value of that kind, without computing it."""
        return kind in self.makers

    def __iter__(self) -> Iterator[str]:
        """Yield the kinds, without computing any value."""
        return iter(self.makers)

    def __len__(self) -> int:
        """Return how many kinds there are."""
        return len(self.makers)


class Objective(NamedTuple):
    """One backward pass and one step of the optimizer of that name."""

    name: str
    pairs: Pairs


class Seeds(NamedTuple):
    """Seeds of one epoch: of the order of the items, and of their augmentation."""

    order: int
    augment: int


@dataclass(frozen=True)
class Spec:
    """What a model must know of a task.

    Attributes:
        inputs: shape of one input: (C, H, W) of an image, (F,) of a row.
        outputs: how many numbers a head gives, by kind of output; empty for a model that is complete by itself.
        outputs_for: further heads, by the kind of pair that alone needs them (a variance beside a mean).
        dense: whether heads give them for every pixel.
        classes: number of classes, for losses that have class weights; 0: there are none.
        dimension: length of the features, which a linear layer makes; None: they are those of the model's body.
    """

    inputs: tuple[int, ...]
    outputs: Mapping[str, int] = field(default_factory=dict)
    outputs_for: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    dense: bool = False
    classes: int = 0
    dimension: int | None = None


@dataclass(frozen=True)
class Setup:
    """Which data a task is about, and how its batches are made.

    Attributes:
        dataset: config of the data set.
        data: ``root`` and ``download``.
        device: where batches are needed.
        batch_size: training items per batch.
        eval_batch_size: items per batch in evaluation.
        stress: what makes training harder, or None.
        feed: config of the feed that brings data to the device.
        channels_last: memory format of batches of images.
        seed: of the run; it draws the splits of data sets whose ``split`` is ``by_seed``, and nothing else here.
    """

    dataset: Config
    data: Config
    device: torch.device
    batch_size: int
    eval_batch_size: int
    stress: Config | None = None
    feed: Config = field(default_factory=lambda: {"_target_": "harness.feeds.resident.Resident"})
    channels_last: bool = False
    seed: int = 0


class Predict(Protocol):
    """A trained model: inputs to outputs, by kind, in float32. ``link`` says how its scores become probabilities."""

    link: Link

    def __call__(self, *inputs: Tensor) -> Any:
        """Return the outputs for a batch of inputs."""
        ...


class Task:
    """What the training loop asks of a task; the constructor takes a `Setup` and the task's own settings."""

    offers: ClassVar[frozenset[str]]
    """Kinds of pairs that its losses may compare."""
    evaluates: ClassVar[frozenset[str]]
    """Kinds that its metrics depend on: a loss that trains none of them by itself is refused."""
    metrics: ClassVar[tuple[Metric, ...]]
    """What `evaluate` returns; the first selects the epoch that is tested."""
    roles: ClassVar[Mapping[str, tuple[str, ...]]] = {"model": ()}
    """Names of the objectives, in the order of training, and the roles of the losses that each adds up; no role: the
    task has one loss."""
    role_kinds: ClassVar[Mapping[str, frozenset[str]]] = {}
    """Kinds that the loss of a role may compare, where that is not all that the task offers."""
    weights: Mapping[str, float] = {}
    """Factor on the loss of a role, where it is not 1; 0 leaves it out."""
    spec: Spec
    steps_per_epoch: int
    """Number of batches of an epoch."""

    @abstractmethod
    def epoch(self, seeds: Seeds, first: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from number ``first`` on; equal seeds give equal batches on any device."""

    def objectives(self, model: nn.Module, batch: Batch) -> Iterator[Objective]:
        """Yield what is trained on a batch, one objective after the other; the loop takes a step after each."""
        yield Objective("model", self.pairs(model(*batch.inputs), batch))

    def pairs(self, outputs: Any, batch: Batch) -> Pairs:
        """Return what losses compare, by kind, from what the model returned for a batch."""
        raise NotImplementedError(f"{type(self).__name__} defines neither pairs nor objectives")

    def parts(self, model: nn.Module) -> Mapping[str, nn.Module]:
        """Return the part of a model that each objective trains."""
        return {"model": model}

    def prepare(self, model: nn.Module, losses: Mapping[str, Any], seeds: Seeds) -> dict[str, float]:
        """Weigh the losses of several roles before anything is trained, where the data decide that, and return the
        weights; empty: they are what the config says.

        What it does depends on its arguments alone, so that a run that is resumed does the same again.

        Args:
            model: with its initial weights, in training; they stay as they are.
            losses: by objective.
            seeds: of the first epoch.

        Raises:
            UsageError: they cannot be weighed.
        """
        return {}

    def statistic(self, name: str) -> Any:
        """Return what a loss asks of the training set, such as ``class_counts``; None: there is no such thing."""
        return None

    def probe(self, count: int) -> Batch | None:
        """Return a batch of the first validation items, always the same; None: there is nothing to probe with."""
        return None

    @abstractmethod
    def evaluate(self, predict: Predict, split: str, shift: Shift | None = None) -> Mapping[str, Any]:
        """Return the metrics of a split (valid, test), adding up batch by batch.

        Where the task keeps what every test item scores, ``items`` has it, as `harness.metrics.items` defines it; it is
        no metric, and there is none for validation data.

        Raises:
            UsageError: this task's data cannot be shifted that way.
        """

    def examples(self, predict: Predict) -> dict[str, Any] | None:
        """Return arrays of a few test items and of what is predicted for them, or None: nothing to show."""
        return None

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return what the record says of the data: counts, classes, checksum."""


def class_statistic(name: str, counts: Tensor) -> list[float] | None:
    """Return what a loss asks of the classes of a training set, one number each; None: there is no such thing.

    Args:
        name: ``class_counts``, or ``class_weights``: inverse to the counts, with mean 1 over the training items (as
            scikit-learn's "balanced").
        counts: training items of each class, (C,).
    """
    if name == "class_counts":
        return counts.tolist()
    counts = counts.double()
    return (counts.sum() / (len(counts) * counts.clamp_min(1))).tolist() if name == "class_weights" else None
