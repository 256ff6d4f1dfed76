"""Image classification whose probabilities are evaluated a second time, after temperature scaling."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from harness.metrics import declared
from harness.metrics.classification import ClassificationMetrics
from harness.metrics.scaling import temperature
from harness.tasks import Predict, Shift
from harness.tasks.classification import Classification
from losses.loss import Link

SCALED = tuple(name for name in declared.SCALED if name != "temperature")


class ScaledClassification(Classification):
    """Classification with likelihood and calibration before and after temperature scaling.

    The temperature is found on all validation images with the weights that are tested; the scores of validation images
    themselves are in hindsight. There is none where a loss makes no probabilities by softmax, nor for shifted images.
    """

    metrics = declared.SCALED_CLASSIFICATION

    def evaluate(self, predict: Predict, split: str, shift: Shift | None = None) -> dict[str, Any]:
        """Return what `Classification.evaluate` does, the temperature, and likelihood and calibration at it."""
        if shift is not None or predict.link != "softmax":
            return super().evaluate(predict, split, shift) | dict.fromkeys(declared.SCALED)
        seen = _Scores(predict)
        found = super().evaluate(seen, split)
        logits, target = seen.logits, self._labels(split)
        divisor = temperature(logits, target) if split == "valid" else self._of_validation(predict)
        scaled = ClassificationMetrics(self.classes, predict.link, self.class_counts, self.device)
        scaled.add(logits / divisor, target)
        after = scaled.scores()
        return found | {"temperature": divisor} | {name: after[name.removeprefix("scaled_")] for name in SCALED}

    def _of_validation(self, predict: Predict) -> float:
        seen = _Scores(predict)
        for images, _ in self.judged("valid", seen, None):
            seen(images)
        return temperature(seen.logits, self._labels("valid"))

    def _labels(self, split: str) -> Tensor:
        return self.splits.parts[split].labels.to(self.device)


class _Scores:
    """A model that keeps the class scores of all that it was asked."""

    def __init__(self, predict: Predict) -> None:
        self.predict = predict
        self.link: Link = predict.link
        self.kept: list[Tensor] = []

    def __call__(self, *inputs: Tensor) -> Any:
        outputs = self.predict(*inputs)
        self.kept.append(outputs["class_logits"])
        return outputs

    @property
    def logits(self) -> Tensor:
        """All scores, (N,C)."""
        return torch.cat(self.kept)
