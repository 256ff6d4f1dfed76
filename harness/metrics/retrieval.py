"""Metrics of embeddings: whether the nearest neighbours of an item are of its class."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from harness.metrics.declared import Metric, share

RETRIEVAL: tuple[Metric, ...] = (
    share("map_at_r", "MAP@R"),
    share("recall_at_1", "recall@1", grain="item"),
    share("r_precision", "R-precision"),
)
QUERIES = 1024
"""Items that are compared with all others at a time."""


class RetrievalMetrics:
    """Features of a split; every item is a query among all others, compared by cosine similarity."""

    def __init__(self) -> None:
        self.kept: list[tuple[Tensor, Tensor]] = []

    def add(self, features: Tensor, target: Tensor) -> None:
        """Take a batch: features (N,F) and classes (N,)."""
        self.kept.append((functional.normalize(features), target))

    def scores(self) -> dict[str, float]:
        """Return all metrics, each the mean over the items that are not alone in their class; NaN if all are.

        Returns:
            ``map_at_r``: with R the number of other items of the query's class, the mean over ranks k = 1 to R of the
            precision among the first k neighbours where the k-th is of the class, and 0 where it is not;
            ``recall_at_1``: share of items whose nearest neighbour is of their class; ``r_precision``: share of their
            class among the R nearest.

        Source:
            Musgrave, Belongie and Lim, A Metric Learning Reality Check, ECCV 2020, arXiv:2003.08505.
        """
        features, target = (torch.cat(parts) for parts in zip(*self.kept, strict=True))
        _, class_of, counts = target.unique(return_inverse=True, return_counts=True)
        others = counts[class_of] - 1
        most = int(others.max())
        if most == 0:
            return {metric.key: float("nan") for metric in RETRIEVAL}
        found = []
        for queries in torch.arange(len(target), device=target.device).split(QUERIES):
            similar = features[queries] @ features.T
            similar.scatter_(1, queries.unsqueeze(1), -torch.inf)  # an item is not its own neighbour
            nearest = similar.topk(most).indices
            found.append(_of_ranking(class_of[nearest] == class_of[queries, None], others[queries]))
        scores = torch.cat(found, 1)[:, others > 0].mean(1)
        return dict(zip((metric.key for metric in RETRIEVAL), scores.tolist(), strict=True))


def _of_ranking(right: Tensor, others: Tensor) -> Tensor:
    """Return MAP@R, recall@1 and R-precision, float64 (3,N).

    Args:
        right: bool (N,K), whether the k-th neighbour is of the query's class; K is at least every R.
        others: (N,), R of each query.
    """
    rank = torch.arange(1, right.shape[1] + 1, device=right.device)
    counted = (right & (rank <= others[:, None])).double()
    precision = counted.cumsum(1) / rank
    wanted = others.clamp_min(1)
    return torch.stack([(precision * counted).sum(1) / wanted, right[:, 0].double(), counted.sum(1) / wanted])
