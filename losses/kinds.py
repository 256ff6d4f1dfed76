"""What losses compare: pairs of a prediction and a target, by kind, with an example of each kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Shape = tuple[int, ...]
Items = Literal["elements", "pixels", "rows"]


class Pair(NamedTuple):
    """A prediction and its target; ``mask`` is False where the target does not count, None if all of it counts."""

    prediction: Tensor
    target: Tensor
    mask: Tensor | None = None


Pairs = Mapping[str, Pair]
"""Pairs by the name of their kind: a loss uses the pair of its kind, and each term of a sum that of its own."""


class Draw:
    """Reproducible random numbers for examples, in float64: the first dimension is the number of items.

    Args:
        count: number of items.
        classes: number of classes among the targets.
        seed: of the generator.
        spread: standard deviation of what is normal.
    """

    def __init__(self, count: int, classes: int, seed: int = 1, spread: float = 2.0) -> None:
        self.count, self.classes, self.spread = count, classes, spread
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        """Return normal numbers (count, *shape) of mean 0."""
        numbers = torch.randn(self.count, *shape, generator=self.generator, dtype=torch.float64)
        return self.spread * numbers

    def uniform(self, *shape: int) -> Tensor:
        """Return numbers (count, *shape) from 0 to 1."""
        return torch.rand(self.count, *shape, generator=self.generator, dtype=torch.float64)

    def labels(self, *shape: int) -> Tensor:
        """Return classes (count, *shape), int64."""
        return torch.randint(self.classes, (self.count, *shape), generator=self.generator)

    def boxes(self) -> Tensor:
        """Return boxes (count, 4) of some size, x1 y1 x2 y2, near each other."""
        corner, size = 8 * self.uniform(2), 2 + 8 * self.uniform(2)
        return torch.cat([corner, corner + size], 1)

    def rotated_boxes(self) -> Tensor:
        """Return boxes (count, 5): centre x and y, width, height, angle in radians."""
        return torch.cat([16 + 4 * self.uniform(2), 4 + 8 * self.uniform(2), 3 * self.uniform(1)], 1)


@dataclass(frozen=True)
class Kind:
    """One kind of pair.

    Attributes:
        prediction: what a prediction is, and its shape.
        target: what a target is, and its shape.
        shape: of one predicted item in an example, unless another is given.
        draw: makes prediction and target, given random numbers and the shape of a predicted item.
        items: what a mask may leave out: each element of the target; each pixel, all channels (N,C,...) of it at once;
            or each row, the first dimension.
    """

    prediction: str
    target: str
    shape: Shape
    draw: Callable[[Draw, Shape], tuple[Tensor, Tensor]]
    items: Items = "elements"


def _alike(draw: Draw, shape: Shape) -> tuple[Tensor, Tensor]:
    return draw.normal(*shape), draw.normal(*shape)


KINDS: Mapping[str, Kind] = {
    "class_logits": Kind("scores (N,C,...)", "classes (N,...)", (5,), lambda d, s: (d.normal(*s), d.labels(*s[1:]))),
    "features": Kind("features (N,F)", "classes (N,)", (6,), lambda d, s: (d.normal(*s), d.labels()), items="rows"),
    "class_probabilities": Kind(
        "scores (N,C,...)",
        "probabilities (N,C,...)",
        (5,),
        lambda d, s: (d.normal(*s), d.normal(*s).softmax(1)),
        items="pixels",
    ),
    "binary_logits": Kind(
        "scores (N,...)", "labels 0 to 1 (N,...)", (), lambda d, s: (d.normal(*s), d.uniform(*s).round())
    ),
    "quality_logits": Kind(
        "scores (N,...)",
        "quality from 0 to 1 (N,...), 0 for what is not there",
        (),
        lambda d, s: (d.normal(*s), d.uniform(*s) * d.uniform(*s).round()),
    ),
    "values": Kind("numbers (N,...)", "numbers (N,...)", (), _alike),
    "counts": Kind(
        "numbers from 0 on (N,...)",
        "numbers from 0 on (N,...)",
        (),
        lambda d, s: (5 * d.uniform(*s), 5 * d.uniform(*s)),
    ),
    "distributions": Kind(
        "mean and log-variance (N,2,...)",
        "numbers (N,...)",
        (2,),
        lambda d, s: (d.normal(*s), d.normal(*s[1:])),
    ),
    "boxes": Kind(
        "boxes (N,4): x1, y1, x2, y2", "boxes (N,4)", (4,), lambda d, _: (d.boxes(), d.boxes()), items="rows"
    ),
    "rotated_boxes": Kind(
        "boxes (N,5): centre x and y, width, height, angle in radians",
        "boxes (N,5)",
        (5,),
        lambda d, _: (d.rotated_boxes(), d.rotated_boxes()),
        items="rows",
    ),
    "images": Kind(
        "images (N,C,H,W) between 0 and 1",
        "images (N,C,H,W)",
        (3, 16, 16),
        lambda d, s: (d.uniform(*s), d.uniform(*s)),
        items="rows",
    ),
    "noise": Kind(
        "noise (N,C,H,W), as it was found in images",
        "noise that was added to them (N,C,H,W)",
        (3, 16, 16),
        _alike,
        items="rows",
    ),
    "feature_maps": Kind("features (N,C,H,W)", "features (N,C,H,W)", (4, 3, 3), _alike, items="rows"),
    "flows": Kind("motion (N,2,H,W) in pixels", "motion (N,2,H,W)", (2, 3, 3), _alike, items="pixels"),
    "attention": Kind(
        "weights (N,Q,K), rows summing to 1",
        "index of the key to attend to (N,)",
        (3, 4),
        lambda d, s: (d.normal(*s).softmax(2), (s[-1] * d.uniform()).floor()),
        items="rows",
    ),
    "embeddings": Kind("vectors (N,F)", "vectors (N,F), matched row by row", (6,), _alike, items="rows"),
    "score_pairs": Kind(
        "scores (N,2)",
        "1 where the first should be greater, else 0 (N,)",
        (2,),
        lambda d, s: (d.normal(*s), d.uniform().round()),
        items="rows",
    ),
    "critic_scores": Kind(
        "scores (N,)", "1 for real, 0 for generated (N,)", (), lambda d, s: (d.normal(*s), d.uniform(*s).round())
    ),
    "critic_slopes": Kind(
        "slopes of a critic (N,...)",
        "the lengths they should have (N,)",
        (2, 3),
        lambda d, s: (d.normal(*s), torch.ones(d.count, dtype=torch.float64)),
        items="rows",
    ),
    "latents": Kind(
        "means and log-variances (N,2,F)",
        "ignored (N,)",
        (2, 6),
        lambda d, s: (d.normal(*s), torch.zeros(d.count, dtype=torch.float64)),
        items="rows",
    ),
}
"""All kinds, by name."""


def example(kinds: Iterable[str], draw: Draw, shapes: Mapping[str, Shape] | None = None) -> Pairs:
    """Return an example of every kind, all of the same items; where several have classes, they have the same.

    Args:
        kinds: names in `KINDS`.
        draw: random numbers, and how many items.
        shapes: of one predicted item, by kind; what is left out has the kind's own.
    """
    shapes = {**{name: kind.shape for name, kind in KINDS.items()}, **(shapes or {})}
    found: dict[str, Pair] = {}
    asked = set(kinds)
    labelled = [name for name in ("features", "class_logits") if name in asked]
    if len(labelled) == 2:
        predictions = {name: draw.normal(*shapes[name]) for name in labelled}
        labels = draw.labels(*shapes["class_logits"][1:])
        found = {name: Pair(prediction, labels) for name, prediction in predictions.items()}
    latents_first = sorted(asked - found.keys(), key=lambda name: (name != "latents", name))
    return found | {name: Pair(*KINDS[name].draw(draw, shapes[name])) for name in latents_first}
