"""Sums of losses."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from losses.kinds import Pairs
from losses.loss import About, Link, Loss

SCORELESS = frozenset({"features", "boxes", "rotated_boxes", "values"})
"""Kinds without class scores."""


class Sum(nn.Module):
    """A weighted sum of losses, itself used like `losses.loss.Loss`.

    L = sum_k weight_k loss_k, each term reduced on its own before it is added.

    losses: name -> Loss; weights: the same names -> factor. At most one of the losses is a head.
    """

    def __init__(self, losses: "Mapping[str, Loss | Sum]", weights: Mapping[str, float]) -> None:
        super().__init__()
        if not losses or set(losses) != set(weights):
            raise ValueError(f"weights={dict(weights)}: allowed is one weight for each of the losses {list(losses)}")
        heads = [name for name, loss in losses.items() if loss.is_head]
        if len(heads) > 1:
            raise ValueError(f"losses={list(losses)}: at most one may be a head, but {' and '.join(heads)} are")
        self.losses = nn.ModuleDict(losses)
        self.weights = {name: weights[name] for name in losses}
        self.is_head = bool(heads)
        self.about = about_sum([(weights[name], loss.about) for name, loss in losses.items()])
        self._head = heads[0] if heads else ""

    def logits(self, features: Tensor) -> Tensor:
        """Return the class scores (N,C) of the head among the losses, from features (N,F)."""
        return self.losses[self._head].logits(features)  # pyright: ignore[reportCallIssue]

    def extra_repr(self) -> str:
        """Return the weights, for what is printed of the sum."""
        return f"weights={self.weights}"

    def forward(
        self, data: Pairs | Tensor, target: Tensor | None = None, mask: Tensor | None = None,
        *, weight: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Return the scalar loss of a batch; arguments as in `losses.loss.Loss.forward`.

        Raises:
            ValueError: a prediction is given by itself, and the losses compare several kinds.
        """
        if isinstance(data, Tensor) and len(self.about.kinds) > 1:
            raise ValueError(f"data: a tensor, allowed are pairs by kind, here of {' and '.join(self.about.kinds)}")
        terms = [factor * self.losses[name](data, target, mask, weight=weight) for name, factor in self.weights.items()]
        return torch.stack(terms).sum()


def about_sum(parts: Sequence[tuple[float, About]]) -> About:
    """Return what is known about a weighted sum of losses.

    Its family is that of the last term, what the sum adds to an ordinary loss; its link is what the terms that see
    logits agree on, if they do; its evidence is that of the weakest term.
    """
    abouts = [about for _, about in parts]
    links: set[Link] = {about.link for about in abouts if about.link or not set(about.kinds) <= SCORELESS}
    return About(
        name=" + ".join(about.name if factor == 1 else f"{factor:g} {about.name}" for factor, about in parts),
        family=abouts[-1].family,
        kinds=tuple(dict.fromkeys(kind for about in abouts for kind in about.kinds)),
        link=links.pop() if len(links) == 1 else None,
        paper="; ".join(about.paper for about in abouts),
        whole_batch=any(about.whole_batch for about in abouts),
        per_image=any(about.per_image for about in abouts),
        detached=any(about.detached for about in abouts),
        evidence=max((about.evidence for about in abouts), key="VHMR".index),
    )
