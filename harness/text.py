"""How numbers, lists and the words of others are written, the same in every format."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

DASH = "–"
MINUS = "−"


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


UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e0fff]"
)
"""Characters that are not seen and change what is: controls, escapes of terminals, marks that turn the direction of
text, blanks without width, and halves of characters, which no file can hold.
"""
FORMULA = ("=", "+", "-", "@")


def visible(words: str, *, lines: bool = False) -> str:
    """Return text with every character that is not seen written out, so that what is read is what is there.

    Args:
        words: any text; a record, a study and an error may come from anybody.
        lines: whether line breaks and tabs stay as they are.

    >>> visible("focal\\x1b[2J"), visible("a\\u202eb"), visible("γ = ½\\n"), visible("a\\n", lines=True)
    ('focal\\\\x1b[2J', 'a\\\\u202eb', 'γ = ½\\\\n', 'a\\n')
    """

    def written_out(found: re.Match[str]) -> str:
        kept = lines and found[0] in "\n\t"
        return found[0] if kept else found[0].encode("unicode_escape").decode()

    return UNSEEN.sub(written_out, words)


def all_visible(content: Any) -> Any:
    """Return nested data with all texts visible, names included; lines stay."""
    if isinstance(content, str):
        return visible(content, lines=True)
    if isinstance(content, Mapping):
        return {all_visible(key): all_visible(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [all_visible(value) for value in content]
    return content


def csv_text(words: str) -> str:
    """Return text as a cell of a CSV file that no spreadsheet takes for a formula: one that would be gets a quote.

    >>> csv_text("=1+1"), csv_text("-0.5"), csv_text("focal"), csv_text("@x")
    ("'=1+1", '-0.5', 'focal', "'@x")
    """
    if not words.startswith(FORMULA):
        return words
    try:
        float(words)
    except ValueError:
        return f"'{words}"
    return words


AXES = {
    "axis.stress.rate": "wrong labels",
    "axis.stress.ratio": "imbalance ratio",
    "axis.stress.profile": "imbalance profile",
    "axis.stress.share": "share of images",
    "axis.stress.outliers": "outliers in rare classes",
}


PATH = "axis.dataset.path"
"""Column of an axis whose values are files or folders."""


def axis_title(column: str) -> str:
    """Return how an axis of a study is called by its column of the records.

    >>> axis_title("axis.stress.rate"), axis_title("axis.trainer.batch_size")
    ('wrong labels', 'batch size')
    """
    return AXES.get(column) or column.removeprefix("axis.").rpartition(".")[2].replace("_", " ")


PROPER = (
    "Dice", "Jaccard", "Tversky", "Huber", "Wasserstein", "Poly", "Gaussian", "Lovász", "Charbonnier", "Brier",
    "Kullback", "Mahalanobis", "Euclidean", "Gini",
)  # fmt: skip
"""First words of names that keep their capital within a sentence."""


def mid_sentence(name: str) -> str:
    """Return a name as it stands within a sentence: a capital stays in proper names and abbreviations alone, and what
    follows a comma is put in brackets, so that names can be listed.

    >>> mid_sentence("Cross-entropy"), mid_sentence("ArcFace"), mid_sentence("Dice"), mid_sentence("Poly-1")
    ('cross-entropy', 'ArcFace', 'Dice', 'Poly-1')
    >>> mid_sentence("Hinge, one-vs-rest + Dice")
    'hinge (one-vs-rest) + Dice'
    >>> mid_sentence("Kullback-Leibler divergence of boxes")
    'Kullback-Leibler divergence of boxes'
    """
    name = re.sub(r", ([^+,]+?)(?= \+|$)", r" (\1)", name)
    first = re.split("[^A-Za-zÀ-ž]", name, maxsplit=1)[0]
    proper = first in PROPER or len(first) < 2 or any(letter.isupper() for letter in first[1:])
    return name if proper else f"{name[:1].lower()}{name[1:]}"


def axis_value(column: str, value: str) -> str:
    """Return a value of an axis of a study as words.

    >>> axis_value("axis.stress.rate", "0.4"), axis_value("axis.stress.rate", "0"), axis_value("axis.loss.gamma", "2")
    ('40 % wrong labels', 'clean labels', 'gamma 2')
    >>> axis_value("axis.stress.ratio", "50"), axis_value("axis.stress.profile", "tail")
    ('imbalance 1:50', 'tail profile')
    >>> axis_value("axis.stress", "none"), axis_value("axis.stress", "label_noise")
    ('clean data', 'label noise')
    >>> axis_value("axis.dataset.path", "oil-spill.csv")
    'oil-spill.csv'
    """
    if column == PATH:
        return value
    if column == "axis.stress.profile":
        return f"{value} profile"
    if column == "axis.stress":
        return "clean data" if value == "none" else value.replace("_", " ")
    if re.fullmatch(r"[0-9.]+", value):
        if column == "axis.stress.rate":
            return f"{100 * float(value):g} % wrong labels" if float(value) else "clean labels"
        if column == "axis.stress.ratio":
            return f"imbalance 1:{value}" if float(value) > 1 else "balanced classes"
        if column == "axis.stress.share":
            return f"{100 * float(value):g} % of the images"
        if column == "axis.stress.outliers":
            return f"{100 * float(value):g} % outliers in rare classes" if float(value) else "no outliers"
    return f"{axis_title(column)} {value}"


def file_names(paths: Iterable[str]) -> dict[str, str]:
    """Return what distinguishes paths: their last part where they lie in one folder, else all of each.

    >>> file_names(["tables/a.csv", "tables/b.csv"]), file_names(["a/train.csv", "b/train.csv"])
    ({'tables/a.csv': 'a.csv', 'tables/b.csv': 'b.csv'}, {'a/train.csv': 'a/train.csv', 'b/train.csv': 'b/train.csv'})
    """
    split = {path: path.rpartition("/") for path in paths}
    together = len({folder for folder, _, _ in split.values()}) == 1
    return {path: name if together else path for path, (_, _, name) in split.items()}


def slug(text: str) -> str:
    """Return a text as a name for files and anchors.

    >>> slug("digits · cnn micro, gamma=0.5")
    'digits-cnn-micro-gamma-0.5'
    """
    return re.sub(r"[^\w.]+", "-", text).strip("-.") or "x"
