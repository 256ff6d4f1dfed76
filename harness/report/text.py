"""How numbers and lists are written, the same in every format."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a search asks which metrics are better when lower, and needs no statistics for it
    from harness.stats import Comparison, Interval

DASH = "–"
MINUS = "−"


@dataclass(frozen=True)
class Metric:
    """How a metric is named, scaled and judged; ``difference_unit`` names the unit of differences."""

    key: str
    title: str
    unit: str = ""
    difference_unit: str = ""
    scale: float = 1.0
    digits: int = 3
    higher_is_better: bool = True

    def number(self, value: float, *, sign: bool = False) -> str:
        """Return ``value`` scaled and rounded, without unit."""
        return number(value * self.scale, self.digits, sign=sign)

    def interval(self, found: Interval) -> str:
        """Return mean ± half width, or the bare mean where there is no interval."""
        if found.n < 2:
            return self.number(found.mean)
        return f"{self.number(found.mean)} ± {self.number(found.high - found.mean)}"

    def difference(self, found: Comparison) -> str:
        """Return the difference with its interval, signs always shown."""
        text = self.number(found.difference, sign=True)
        if found.n < 2 or not math.isfinite(found.low):
            return text
        return f"{text} [{self.number(found.low, sign=True)}, {self.number(found.high, sign=True)}]"

    def with_unit(self, value: float) -> str:
        """Return ``value`` with the unit of differences, for sentences."""
        return f"{self.number(value)} {self.difference_unit}".strip()


def metric_of(key: str) -> Metric:
    """Return how the metric ``key`` (``test.top1``) is written; what is not known is taken as higher is better."""
    percent = {"unit": "%", "difference_unit": "points", "scale": 100.0, "digits": 2}
    split, _, name = key.rpartition(".")
    known = {
        "top1": Metric(key, "top-1 accuracy", **percent),
        "top5": Metric(key, "top-5 accuracy", **percent),
        "macro_f1": Metric(key, "macro-F1", **percent),
        "balanced_accuracy": Metric(key, "balanced accuracy", **percent),
        "gmean": Metric(key, "G-mean", **percent),
        "auc": Metric(key, "area under ROC", **percent),
        "minority_recall": Metric(key, "minority recall", **percent),
        "noisy_top1": Metric(key, "top-1 under noise", **percent),
        "blurred_top1": Metric(key, "top-1 under blur", **percent),
        "faded_top1": Metric(key, "top-1 at less contrast", **percent),
        "attacked_top1": Metric(key, "top-1 under attack", **percent),
        "r2": Metric(key, "R²", difference_unit="", digits=3),
        "rmse": Metric(key, "root mean squared error", digits=2, higher_is_better=False),
        "mae": Metric(key, "mean absolute error", digits=2, higher_is_better=False),
        "mdae": Metric(key, "median absolute error", digits=2, higher_is_better=False),
        "iou": Metric(key, "IoU of boxes", **percent),
        "found50": Metric(key, "boxes found at IoU 0.5", **percent),
        "found75": Metric(key, "boxes found at IoU 0.75", **percent),
        "corner_error": Metric(key, "error of an edge in pixels", digits=2, higher_is_better=False),
        "miou": Metric(key, "mean IoU", **percent),
        "miou_all": Metric(key, "mean IoU, absent classes 0", **percent),
        "dice_all": Metric(key, "Dice, absent classes 0", **percent),
        "foreground_iou": Metric(key, "mean IoU without background", **percent),
        "dice": Metric(key, "mean Dice", **percent),
        "precision": Metric(key, "mean precision", **percent),
        "recall": Metric(key, "mean recall", **percent),
        "pixel_accuracy": Metric(key, "pixel accuracy", **percent),
        "miou_image": Metric(key, "mean IoU per image", **percent),
        "dice_image": Metric(key, "mean Dice per image", **percent),
        "boundary_f1": Metric(key, "boundary F1", **percent),
        "ece": Metric(key, "calibration error", **percent, higher_is_better=False),
        "nll": Metric(key, "negative log-likelihood", "nats", "nats", higher_is_better=False),
    }
    found = known.get(name, Metric(key, name.replace("_", " ")))
    return found if not split else Metric(**{**found.__dict__, "title": f"{split} {found.title}"})


def number(value: float | None, digits: int, *, sign: bool = False) -> str:
    """Return a number with a real minus sign, a dash where there is none.

    >>> number(-0.004, 2), number(1.5, 1, sign=True), number(None, 2)
    ('0.00', '+1.5', '–')
    """
    if value is None or not math.isfinite(value):
        return DASH
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return text
    return (MINUS if value < 0 else "+" if sign else "") + text


def p_value(p: float) -> str:
    """Return a p value as it is printed.

    >>> p_value(0.00001), p_value(0.0234), p_value(0.3), p_value(1.0)
    ('< 0.001', '0.023', '0.30', '1')
    """
    if not math.isfinite(p):
        return DASH
    if p < 0.001:
        return "< 0.001"
    return "1" if p > 0.995 else f"{p:.3f}" if p < 0.095 else f"{p:.2f}"


def significant(value: float | None, digits: int = 3) -> str:
    """Return a number with so many significant digits and no exponent in everyday sizes.

    >>> significant(1234.5), significant(0.01234), significant(7.0), significant(5e-06)
    ('1,230', '0.0123', '7.00', '5e-06')
    """
    if value is None or not math.isfinite(value):
        return DASH
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e9:
        return f"{value:.{digits}g}".replace("-", MINUS, 1) if value < 0 else f"{value:.{digits}g}"
    before = math.floor(math.log10(abs(value)))
    rounded = round(value, digits - 1 - before)
    return f"{rounded:,.{max(0, digits - 1 - before)}f}".replace("-", MINUS)


def plain(value: object) -> str:
    """Return a config value as one would type it: integers without a decimal point, nothing as a dash.

    >>> plain(3.0), plain(0.001), plain(float("nan")), plain("adamw"), plain(True)
    ('3', '0.001', '–', 'adamw', 'true')
    """
    if isinstance(value, bool):
        return str(value).lower()
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return DASH
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() and abs(value) < 1e15 else f"{value:.6g}"
    return str(value)


def duration(seconds: float) -> str:
    """Return seconds in the unit one would say.

    >>> duration(41), duration(700), duration(9000)
    ('41 s', '12 min', '2.5 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def joined(words: Iterable[str], last: str = "and") -> str:
    """Return words as a list in a sentence.

    >>> joined(["a"]), joined(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    *head, tail = list(words) or [""]
    return f"{', '.join(head)} {last} {tail}" if head else tail


def count(n: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun.

    >>> count(1, "run"), count(1200, "loss", "losses")
    ('1 run', '1,200 losses')
    """
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def axis_title(column: str) -> str:
    """Return how an axis of a study is called by its column of the records.

    >>> axis_title("axis.stress.label_noise")
    'label noise'
    """
    return column.removeprefix("axis.").rpartition(".")[2].replace("_", " ")


def slug(text: str) -> str:
    """Return a text as a name for files and anchors.

    >>> slug("digits · cnn micro, gamma=0.5")
    'digits-cnn-micro-gamma-0.5'
    """
    return re.sub(r"[^\w.]+", "-", text).strip("-.") or "x"
