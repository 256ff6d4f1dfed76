"""Metrics of several labels for each item: ranking, right labels and right sets of them, likelihood."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.metrics import average_precision_score
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
        precision = _average_precision(logits.cpu().numpy(), truth.cpu().numpy())
        mean = float(np.nanmean(precision)) if np.isfinite(precision).any() else 0.0
        return {"map": mean, "nll": None} | values | {"per_class": precision.tolist()}

    def items(self, index: Tensor) -> dict[str, np.ndarray]:
        """Return what is kept of every item: whether all of its labels were right, and the share that was.

        Args:
            index: (N,) position of each in the official file.
        """
        logits, target = self.rows.values.unbind(1)
        right = ((logits > 0) == (target > 0)).double()
        kept = {"exact_match": right.amin(1), "label_accuracy": right.mean(1)}
        return items.of_scores(index.numpy(), {name: value.cpu().numpy() for name, value in kept.items()})


def _average_precision(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the average precision of each label, (K,), NaN where it does not occur; no number ranks last."""
    ranked = np.nan_to_num(scores, nan=-np.inf, neginf=np.finfo(np.float32).min, posinf=np.finfo(np.float32).max)
    ranked = np.maximum(ranked, np.finfo(np.float32).min)
    occurs = truth.any(0)
    found = np.full(truth.shape[1], np.nan)
    if occurs.any():
        found[occurs] = average_precision_score(truth[:, occurs], ranked[:, occurs], average=None)
    return found
