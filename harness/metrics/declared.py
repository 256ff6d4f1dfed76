"""Every metric, declared once: its name, unit, direction and bounds. Nothing heavy is imported here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from harness.errors import unknown
from harness.text import number

if TYPE_CHECKING:
    from harness.analysis.stats import Comparison, Interval

SPLITS = {"test": "test", "valid": "validation", "train": "training"}


@dataclass(frozen=True)
class Metric:
    """A number by which a run is evaluated.

    Attributes:
        key: its name in records, without the split (``top1``) or with it (``test.top1``).
        title: what people call it.
        unit: written beside values.
        difference_unit: written beside differences.
        scale: factor from the recorded value to the written one.
        digits: decimals of the written value.
        higher_is_better: direction.
        low, high: bounds of the recorded value; None: none.
        links: how predictions must become probabilities for it to mean anything; empty: it always does.
        grain: ``item`` where the value moves in steps of 1 / number of test items (or of images, or boxes); empty: it
            may take any value.
    """

    key: str
    title: str
    unit: str = ""
    difference_unit: str = ""
    scale: float = 1.0
    digits: int = 3
    higher_is_better: bool = True
    low: float | None = None
    high: float | None = None
    links: tuple[str, ...] = ()
    grain: str = ""

    def number(self, value: float, *, sign: bool = False) -> str:
        """Return ``value`` scaled and rounded, without unit."""
        return number(value * self.scale, self.digits, sign=sign)

    def interval(self, found: Interval) -> str:
        """Return mean ± half width, or the bare mean where there is no interval."""
        if found.n < 2:
            return self.number(found.mean)
        return f"{self.number(found.mean)} ± {self.number(max(found.high - found.mean, found.mean - found.low))}"

    def difference(self, found: Comparison) -> str:
        """Return the difference with its interval, signs always shown, in as many decimals (two more at most) as show
        that a decided interval does not end at 0.
        """
        if found.n < 2 or not math.isfinite(found.low):
            return self.number(found.difference, sign=True)
        digits = self.digits
        if found.verdict in ("better", "worse"):
            nearest = self.scale * min(abs(found.low), abs(found.high))
            digits = next((more for more in (digits, digits + 1, digits + 2) if round(nearest, more)), digits)
        finer = replace(self, digits=digits)
        mean, low, high = (finer.number(value, sign=True) for value in (found.difference, found.low, found.high))
        return f"{mean} [{low}, {high}]"

    def with_unit(self, value: float) -> str:
        """Return ``value`` with the unit of differences, for sentences."""
        return f"{self.number(value)} {self.difference_unit}".strip()

    def as_dict(self) -> dict[str, Any]:
        """Return it as records keep it."""
        return asdict(self)


def from_dict(content: Mapping[str, Any]) -> Metric:
    """Return a metric as a record has it."""
    return Metric(**{**content, "links": tuple(content.get("links", ()))})


def share(key: str, title: str, **more: Any) -> Metric:
    """Return a metric between 0 and 1 that is written in percent."""
    bounds = {"low": 0.0, "high": 1.0}
    return Metric(key, title, "%", "points", 100.0, 2, **{**bounds, **more})


def error(key: str, title: str, **more: Any) -> Metric:
    """Return a metric from 0 on of which less is better, with two decimals."""
    return Metric(key, title, digits=2, higher_is_better=False, low=0.0, **more)


LIKELIHOOD = Metric(
    "nll", "negative log-likelihood", "nats", "nats", higher_is_better=False, low=0.0, links=("softmax",)
)
OVERCONFIDENCE = share(
    "confidence_gap", "confidence minus accuracy", higher_is_better=False, low=-1.0, links=("softmax", "sigmoid")
)
CALIBRATION = share("ece", "calibration error", higher_is_better=False, links=("softmax", "sigmoid"))

CLASSIFICATION = (
    share("top1", "top-1 accuracy", grain="item"),
    share("top5", "top-5 accuracy", grain="item"),
    share("macro_f1", "macro-F1"),
    share("balanced_accuracy", "balanced accuracy"),
    share("gmean", "G-mean"),
    share("auc", "area under ROC"),
    share("minority_recall", "minority recall"),
    LIKELIHOOD,
    CALIBRATION,
    OVERCONFIDENCE,
)
AFTER = "after temperature scaling"
SCALED_CLASSIFICATION = (
    *CLASSIFICATION,
    Metric("temperature", "temperature found on validation data", digits=2, higher_is_better=False, low=0.0),
    replace(LIKELIHOOD, key="scaled_nll", title=f"{LIKELIHOOD.title} {AFTER}"),
    replace(CALIBRATION, key="scaled_ece", title=f"{CALIBRATION.title} {AFTER}"),
    replace(OVERCONFIDENCE, key="scaled_confidence_gap", title=f"{OVERCONFIDENCE.title} {AFTER}"),
)
SCALED = tuple(metric.key for metric in SCALED_CLASSIFICATION[len(CLASSIFICATION) :])
SEGMENTATION = (
    share("miou", "mean IoU"),
    share("miou_all", "mean IoU, absent classes 0"),
    share("foreground_iou", "mean IoU without background"),
    share("dice", "mean Dice"),
    share("dice_all", "Dice, absent classes 0"),
    share("precision", "mean precision"),
    share("recall", "mean recall"),
    share("pixel_accuracy", "pixel accuracy"),
    share("miou_image", "mean IoU per image"),
    share("dice_image", "mean Dice per image"),
    share("boundary_f1", "boundary F1"),
    LIKELIHOOD,
    CALIBRATION,
)
MULTILABEL = (
    share("map", "mean average precision"),
    share("macro_f1", "macro-F1"),
    share("micro_f1", "micro-F1"),
    share("exact_match", "exact matches", grain="item"),
    share("label_accuracy", "accuracy of labels"),
    Metric("nll", "negative log-likelihood", "nats", "nats", higher_is_better=False, low=0.0, links=("sigmoid",)),
)
REGRESSION = (
    Metric("r2", "R²", high=1.0),
    error("rmse", "root mean squared error"),
    error("mae", "mean absolute error"),
    error("mdae", "median absolute error"),
)
LOCALISATION = (
    share("iou", "IoU of boxes"),
    share("found50", "boxes found at IoU 0.5", grain="item"),
    share("found75", "boxes found at IoU 0.75", grain="item"),
    error("corner_error", "error of an edge in pixels"),
)
BY_TASK: Mapping[str, tuple[Metric, ...]] = {
    "harness.tasks.classification.Classification": CLASSIFICATION,
    "harness.tasks.mixed_classification.MixedClassification": CLASSIFICATION,
    "harness.tasks.scaled_classification.ScaledClassification": SCALED_CLASSIFICATION,
    "harness.tasks.table_classification.TableClassification": CLASSIFICATION,
    "harness.tasks.segmentation.Segmentation": SEGMENTATION,
    "harness.tasks.regression.Regression": REGRESSION,
    "harness.tasks.localisation.Localisation": LOCALISATION,
}
"""The metrics of tasks, by their classes, where they are known without importing the task, and torch with it."""
KNOWN: Mapping[str, Metric] = {
    metric.key: metric for metric in (*MULTILABEL, *SCALED_CLASSIFICATION, *SEGMENTATION, *REGRESSION, *LOCALISATION)
}

FALLBACKS: Mapping[str, str] = {
    "gmean": "balanced_accuracy",
    "minority_recall": "balanced_accuracy",
    "balanced_accuracy": "top1",
    "miou": "pixel_accuracy",
    "foreground_iou": "miou",
    "found75": "found50",
    "found50": "iou",
    "ap75": "ap50",
    "ap": "ap50",
    "ap50": "matched_iou",
}
"""What a search looks at where a metric is as bad as can be in every trial."""
TIE_BREAKERS = ("nll", "auc", "miou_image", "dice_image", "iou", "rmse", "mae", "corner_error", "matched_iou")
"""What tells equal trials of a search apart, the first that they recorded first: the likelihood where a loss has one,
else what is smoother than counts of items."""


def check_metric(metric: str, names: Iterable[str], shifts: Iterable[str] = ()) -> None:
    """Raise a UsageError with the nearest metrics unless ``metric``, with its split, is one that runs record.

    Args:
        metric: such as ``test.top1``.
        names: of the metrics of the task, without a split.
        shifts: the shifts that its runs are also tested under.
    """
    splits = ["test", "valid", *(f"shifted.{shift}" for shift in shifts)]
    known = [f"{split}.{name}" for split in splits for name in names]
    if metric not in known:
        raise unknown("metric", metric, known)


def metric_of(key: str, declared: Iterable[Metric] = ()) -> Metric:
    """Return the metric that a column of records holds: ``test.top1``, ``valid.miou``, ``shifted.blur.top1``.

    Args:
        key: split, for shifted test data also the shift, and name.
        declared: metrics that records brought along; they come before those of this module.

    Raises:
        UsageError: nobody declared it.

    >>> metric_of("shifted.blur.top1").title
    'test top-1 accuracy under blur'
    """
    split, _, name = key.rpartition(".")
    known = {**KNOWN, **{metric.key: metric for metric in declared}}
    if name not in known:
        raise unknown("metric", key, (f"{split}.{each}".strip(".") for each in known))
    found = known[name]
    if split.startswith("shifted."):
        return replace(found, key=key, title=f"test {found.title} under {split.partition('.')[2]}")
    return replace(found, key=key, title=f"{SPLITS.get(split, split)} {found.title}".strip())
