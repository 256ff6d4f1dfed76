"""Metrics of embeddings: whether the nearest neighbours of an item are of its class, exact over all pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from datasets.by_class import Protocol
from harness.metrics import items
from harness.metrics.declared import Metric, share
from harness.metrics.verification import VERIFICATION, Similarities

RANKED: tuple[Metric, ...] = (
    share("map_at_r", "MAP@R"),
    share("recall_at_1", "recall@1", grain="item"),
    share("recall_at_5", "recall@5", grain="item"),
    share("r_precision", "R-precision"),
)
SPREAD = Metric("spread", "spread of the embeddings", digits=4, low=0.0, high=2.0)
"""Mean of 1 - cosine over all pairs: 0 where the embeddings have fallen together."""
RETRIEVAL: tuple[Metric, ...] = (*RANKED, *VERIFICATION, SPREAD)
REIDENTIFICATION: tuple[Metric, ...] = (
    share("mean_ap", "mAP"),
    share("cmc_1", "CMC rank 1", grain="item"),
    share("cmc_5", "CMC rank 5", grain="item"),
    share("cmc_10", "CMC rank 10", grain="item"),
)
"""Of data with cameras, under whose rule all other metrics are computed too."""
AT_A_TIME = 2**22
"""Pairs that are compared at a time, so that memory does not grow with the number of pairs."""
DEPTHS = {"recall_at_1": 1, "recall_at_5": 5, "cmc_1": 1, "cmc_5": 5, "cmc_10": 10}


class RetrievalMetrics:
    """Features of a split, compared by cosine similarity.

    Args:
        protocol: which items are compared.
    """

    def __init__(self, protocol: Protocol | None = None) -> None:
        self.kept: list[tuple[Tensor, Tensor]] = []
        self.protocol = protocol or Protocol()

    def add(self, features: Tensor, target: Tensor) -> None:
        """Take a batch in the order of the split: features (N,F), with 0 for NaN and infinity, and classes (N,)."""
        self.kept.append((functional.normalize(features.nan_to_num(0, 0, 0)), target))

    def joined(self) -> tuple[Tensor, Tensor]:
        """Return all features, of length 1 (N,F), and all classes (N,)."""
        features, target = (torch.cat(parts) for parts in zip(*self.kept, strict=True))
        return features, target

    def scores(self) -> dict[str, float]:
        """Return the metrics of `found`."""
        return self.found()[0]

    def found(self) -> tuple[dict[str, float], dict[str, np.ndarray], Similarities]:
        """Return all metrics, what every class scores, and how often each similarity occurs.

        Metrics of ranking are means over the queries that have an item of their class in their gallery; NaN if none
        has. A class is an item here, because the question is about new classes, and queries of one class share their
        neighbours: its score is the metric plus its influence, as `harness.metrics.items` defines it.

        Returns:
            ``map_at_r``: with R the number of items of the query's class in its gallery, the mean over ranks k = 1 to R
            of the precision among the first k neighbours where the k-th is of the class, and 0 where it is not;
            ``recall_at_1``, ``recall_at_5``: share of queries with one of their class among the nearest;
            ``r_precision``: share of their class among the R nearest; those of verification; ``spread``. With cameras
            also ``mean_ap``, the mean over the items of the query's class of the precision down to their rank, and
            ``cmc_1``, ``cmc_5``, ``cmc_10``.

        Source:
            Musgrave, Belongie and Lim, A Metric Learning Reality Check, ECCV 2020, arXiv:2003.08505; the rule of
            cameras: Zheng et al., Scalable Person Re-identification: A Benchmark, ICCV 2015.
        """
        features, target = self.joined()
        rows = self.protocol.queries(len(target)).to(target.device)
        similarities, found = Similarities(), dict[str, list[Tensor]]()
        for part in rows.split(max(1, AT_A_TIME // len(target))):
            compared = self.protocol.compared(part, target)
            same = (target[part, None] == target) & compared
            similar = (features[part] @ features.T).masked_fill_(~compared, -torch.inf)
            if self.protocol.pairs is None:
                similarities.add(similar, same)
            for name, values in self._of_queries(similar, same).items():
                found.setdefault(name, []).append(values)
        if self.protocol.pairs is not None:
            first, second = self.protocol.pairs.to(target.device).unbind(1)
            similarities.add((features[first] * features[second]).sum(1), target[first] == target[second])
        joined = {name: torch.cat(parts).double() for name, parts in found.items()}
        counts = joined.pop("others") > 0
        kept = {name: values[counts].cpu().numpy() for name, values in joined.items()}
        means = {name: float(values.mean()) if len(values) else float("nan") for name, values in kept.items()}
        scores = {**means, **similarities.scores(), "spread": _spread(features)}
        metrics = (*RETRIEVAL, *(REIDENTIFICATION if self.protocol.camera is not None else ()))
        ordered = {metric.key: scores[metric.key] for metric in metrics}
        return ordered, _of_classes(target[rows][counts].cpu().numpy(), kept), similarities

    def _of_queries(self, similar: Tensor, same: Tensor) -> dict[str, Tensor]:
        """Return the metrics of ranking of each query, (Q,), and ``others``, R of each.

        Args:
            similar: (Q,N), -inf where a query is not compared with an item.
            same: bool (Q,N), whether it is, and their class is one.
        """
        others = same.sum(1)
        nearest = similar.topk(min(max(int(others.max()), *DEPTHS.values()), similar.shape[1])).indices
        found = _of_ranking(same.gather(1, nearest), others)
        names = ["recall_at_1", "recall_at_5"]
        if self.protocol.camera is not None:
            names += ["cmc_1", "cmc_5", "cmc_10"]
            found["mean_ap"] = torch.stack(list(map(_average_precision, similar, same)))
        hits = same.gather(1, nearest)
        return {**found, **{name: hits[:, : DEPTHS[name]].any(1).double() for name in names}, "others": others}


def neighbours(features: Tensor, target: Tensor, rows: Tensor, count: int, protocol: Protocol | None = None) -> Tensor:
    """Return the nearest items of a few queries, nearest first: int64 (Q, count), rows of the split.

    Args:
        features: (N,F).
        target: int64 (N,), class of each.
        rows: int64 (Q,), the queries.
        count: how many.
        protocol: which items are compared.
    """
    directions = functional.normalize(features)
    compared = (protocol or Protocol()).compared(rows, target)
    similar = (directions[rows] @ directions.T).masked_fill(~compared, -torch.inf)
    return similar.topk(min(count, len(target))).indices


def main_directions(features: Tensor) -> Tensor:
    """Return the two main directions of directions (N,F), (N,2): the greatest principal components, each with its
    largest weight above 0.
    """
    directions = functional.normalize(features).double()
    centred = directions - directions.mean(0)
    axes = torch.linalg.svd(centred, full_matrices=False).Vh[:2]
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
    return functional.pad(centred @ (axes * largest.sign()).T, (0, 2 - len(axes)))


def _of_ranking(right: Tensor, others: Tensor) -> dict[str, Tensor]:
    """Return MAP@R and R-precision, float64 (Q,).

    Args:
        right: bool (Q,K), whether the k-th neighbour is of the query's class; K is at least every R.
        others: (Q,), R of each query.
    """
    rank = torch.arange(1, right.shape[1] + 1, device=right.device)
    counted = (right & (rank <= others[:, None])).double()
    precision = counted.cumsum(1) / rank
    wanted = others.clamp_min(1)
    return {"map_at_r": (precision * counted).sum(1) / wanted, "r_precision": counted.sum(1) / wanted}


def _average_precision(similar: Tensor, same: Tensor) -> Tensor:
    """Return the mean precision down to each item of the class, a float64 scalar; 0 if there is none."""
    wanted = similar[same].sort(descending=True).values
    if not len(wanted):
        return torch.zeros((), dtype=torch.float64, device=similar.device)
    # items at least as similar; the whole ranking need not be sorted
    rank = len(similar) - torch.searchsorted(similar.sort().values, wanted)
    return (torch.arange(1, len(wanted) + 1, device=similar.device) / rank.double()).mean()


def _spread(features: Tensor) -> float:
    """Return the mean of 1 - cosine over all pairs of directions (N,F), by the length of their sum."""
    count = len(features)
    squares = features.double().sum(0).square().sum() - features.double().square().sum()
    return float((1 - squares / (count * (count - 1))).clamp_min(0)) if count > 1 else float("nan")


def _of_classes(target: np.ndarray, scores: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the item scores of classes from those of their queries, (Q,) each: the metric plus the influence."""
    labels, place, counts = np.unique(target, return_inverse=True, return_counts=True)
    if not len(labels):
        return {}
    weight = len(labels) / len(target)
    kept = {
        name: values.mean() + weight * (np.bincount(place, values) - counts * values.mean())
        for name, values in scores.items()
    }
    return items.of_scores(labels, kept)
