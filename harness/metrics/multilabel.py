"""Metrics of several labels for each item: ranking, right labels and right sets of them, likelihood."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from harness.metrics import items
from harness.metrics.classification import Rows
from losses.loss import Link


class MultilabelMetrics:
    """Scores and labels of a split, kept on the device; the host is asked once, at the end.

    Args:
        link: ``sigmoid``: scores are logits of probabilities, so that there is a likelihood; None: they only rank.
    """

    def __init__(self, link: Link) -> None:
        self.link = link
        self.rows = Rows()

    def add(self, logits: Tensor, target: Tensor) -> None:
        """Keep a batch: logits (N, K), of which those above 0 are predicted, and labels 0 or 1 (N, K)."""
        self.rows.add(torch.stack([logits.float(), target.float()], 1))

    def scores(self) -> dict[str, Any]:
        """Return all metrics.

        Returns:
            ``map``, the mean over labels that occur of the average precision; ``macro_f1``, the mean of F1 over labels
            that occur or are predicted, and ``micro_f1``, of all labels together; ``exact_match``, the share of items
            of which every label is right; ``label_accuracy``, the share of labels that are right; ``nll``, in nats, the
            mean binary cross-entropy of a label, or None; ``per_class``, average precision of each label (NaN: it does
            not occur).
        """
        logits, target = self.rows.values.unbind(1)
        guessed, truth = logits > 0, target > 0
        hits, positives = (guessed & truth).sum(0).double(), (guessed.sum(0) + truth.sum(0)).double()
        right = guessed == truth
        found = {
            "macro_f1": (2 * hits / positives)[positives > 0].mean() if (positives > 0).any() else positives.sum(),
            "micro_f1": 2 * hits.sum() / positives.sum().clamp_min(1),
            "exact_match": right.all(1).double().mean(),
            "label_accuracy": right.double().mean(),
        }
        if self.link == "sigmoid":
            found["nll"] = functional.binary_cross_entropy_with_logits(logits.double(), target.double())
        values = {name: float(value) for name, value in found.items()}
        each = _average_precision(logits.cpu().numpy(), truth.cpu().numpy())
        precision = [math.nan if scores is None else float(scores.mean()) for scores in each]
        occurring = [value for value in precision if not math.isnan(value)]
        mean = sum(occurring) / max(1, len(occurring))
        return {"map": mean, "nll": None} | values | {"per_class": precision}

    def items(self, index: Tensor) -> dict[str, np.ndarray]:
        """Return what is kept of every item: whether all of its labels were right, the share that was, and the item
        scores of the mean average precision (see `harness.metrics.items`).

        Args:
            index: (N,) position of each in the official file.
        """
        logits, target = self.rows.values.unbind(1)
        right = ((logits > 0) == (target > 0)).double()
        kept = {"exact_match": right.amin(1).cpu().numpy(), "label_accuracy": right.mean(1).cpu().numpy()}
        each = _average_precision(logits.cpu().numpy(), (target > 0).cpu().numpy())
        found = [scores for scores in each if scores is not None]
        ranking = {"map": np.mean(found, axis=0)} if found else {}
        return items.of_scores(index.numpy(), kept | ranking)


def _average_precision(scores: np.ndarray, truth: np.ndarray) -> list[np.ndarray | None]:
    """Return the item scores of the average precision of each label (K,), None where it does not occur."""
    columns = zip(_ranked(scores).T, truth.T, strict=True)
    return [average_precision_of_items(*column) if column[1].any() else None for column in columns]


def _ranked(scores: np.ndarray) -> np.ndarray:
    """Return scores of which all are finite, in the same order; what is no number comes last."""
    bounds = np.finfo(np.float32)
    return np.nan_to_num(scores, nan=bounds.min, neginf=bounds.min, posinf=bounds.max)


def average_precision_of_items(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the item scores of the average precision of one label, float64 (N,), whose mean it is.

    With weights w, AP = sum_i w_i y_i p_i / sum_i w_i y_i, where p_i is the precision among all that are ranked no
    lower than i. An item moves it as a positive, and through the precision at every positive that is ranked no higher.

    Args:
        scores: finite, (N,).
        truth: bool (N,), True for one item at least.
    """
    order = np.argsort(-scores, kind="stable")
    y, ranked = truth[order].astype(np.float64), -scores[order]
    seen = np.searchsorted(ranked, ranked, side="right")  # how many are ranked no lower, ties included
    precision = np.cumsum(y)[seen - 1] / seen
    first = np.searchsorted(ranked, ranked, side="left")  # the positives from here on are ranked no higher
    later = [np.append(np.cumsum((y * each)[::-1])[::-1], 0)[first] for each in (1 / seen, precision / seen)]
    positives = y.sum()
    value = (y * precision).sum() / positives
    moved = (y * (precision - value) + y * later[0] - later[1]) / positives
    found = np.empty(len(y))
    found[order] = value + len(y) * moved
    return found
