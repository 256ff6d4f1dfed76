"""Columns of a table as numbers: what each is, what is odd about it, and the features that it becomes."""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

Kind = Literal["numbers", "words", "odd", "id", "running", "date", "constant", "many", "empty", "nested"]
MOSTLY = 0.6
"""Share of cells that are numbers from which on the others are taken for mistakes."""
MOST_WORDS = 50
"""Different words of a column, each of which becomes a column of its own, without a question."""
FEW_ROWS = 10
"""In fewer rows, different texts, running numbers and equal cells may be so by chance."""
DATE = re.compile(
    r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}([ T].*)?|\d{1,2}[-/.]\d{1,2}[-/.]\d{4}([ T].*)?|\d{1,2}:\d{2}(:\d{2})?"
)
PROBLEMS: dict[Kind, str] = {
    "id": "has a different text in every row",
    "running": "numbers the rows",
    "date": "holds dates",
    "constant": "has the same value in every row",
    "empty": "is empty",
    "nested": "holds lists or records",
}
"""What is the matter with a column that is no feature as it is."""


@dataclass(frozen=True)
class Column:
    """A column and what it is.

    Attributes:
        name: Its name.
        kind: `numbers` and `words` can be used as they are, `empty` and `nested` not at all, others if it is kept.
        cells: Numbers (float64, NaN where missing), or texts (NA where missing).
        missing: How many cells are.
        remark: What an odd cell is and where, or how many words there are; empty for other kinds.
    """

    name: str
    kind: Kind
    cells: pd.Series
    missing: int
    remark: str = ""

    @property
    def problem(self) -> str:
        """What is the matter with it, as the end of a sentence that begins with its name; empty: nothing."""
        return "" if self.kind in ("numbers", "words") else self.remark or PROBLEMS[self.kind]


def column(name: str, cells: pd.Series) -> Column:
    """Return a column with what it is.

    Args:
        name: Its name.
        cells: Texts or values, NA where missing.
    """
    missing, rows = int(cells.isna().sum()), len(cells)
    present = cells.dropna()
    if present.empty:
        return Column(name, "empty", cells, missing)
    if pd.api.types.is_datetime64_any_dtype(cells) or pd.api.types.is_timedelta64_dtype(cells):
        return Column(name, "date", cells.astype(str), missing)
    if pd.api.types.is_bool_dtype(present) or pd.api.types.is_numeric_dtype(cells):
        return _numbers(name, cells.astype("float64"), missing)
    if any(not isinstance(cell, str) for cell in present.head(20)):
        if all(np.isscalar(cell) for cell in present):
            cells, present = cells.astype("str"), present.astype("str")
        else:
            return Column(name, "nested", cells, missing)
    numbers = pd.Series(pd.to_numeric(present, errors="coerce"), dtype="float64")
    good = np.isfinite(numbers)
    if good.all():
        return _numbers(name, numbers.reindex(cells.index), missing)
    if good.mean() >= MOSTLY:
        wrong = present[~good]
        return Column(
            name,
            "odd",
            cells,
            missing,
            f"holds numbers but for {len(wrong)} of {rows} cells, the first {wrong.iloc[0]!r} in row "
            f"{int(wrong.index[0]) + 1}",
        )
    return _words(name, cells, present, missing)


def _numbers(name: str, cells: pd.Series, missing: int) -> Column:
    values = cells.dropna().to_numpy()
    if len(values) >= FEW_ROWS and not missing:
        if (values == values[0]).all():
            return Column(name, "constant", cells, missing)
        if (np.diff(values) == 1).all():
            return Column(name, "running", cells, missing)
    return Column(name, "numbers", cells, missing)


def _words(name: str, cells: pd.Series, present: pd.Series, missing: int) -> Column:
    different = present.nunique()
    if present.head(200).str.fullmatch(DATE).mean() > MOSTLY:
        return Column(name, "date", cells, missing)
    if len(present) >= FEW_ROWS and different == len(present):
        return Column(name, "id", cells, missing)
    if len(present) >= FEW_ROWS and different == 1 and not missing:
        return Column(name, "constant", cells, missing)
    if different > MOST_WORDS:
        return Column(
            name, "many", cells, missing, f"has {different:,} different words, each of which would be a column"
        )
    return Column(name, "words", cells, missing)


def check(file: object, columns: Sequence[Column], keep: Collection[str], missing: str) -> None:
    """Raise a ValueError unless all columns can be features; the sentence names what is wrong and the settings for it.

    Args:
        file: What the sentence calls the table.
        columns: Those that are to be features.
        keep: Names of columns whose oddity is intended.
        missing: `stop`, `drop` or `fill`.
    """
    if odd := [each for each in columns if each.kind == "odd"]:
        raise ValueError(
            f"the column {odd[0].name} of {file} {odd[0].remark}: mend it, say what means a missing value "
            f"(dataset.missing_words=[...]), or leave the column out (dataset.drop=[{odd[0].name}])."
        )
    if wrong := [
        each for each in columns if each.problem and (each.name not in keep or each.kind in ("empty", "nested"))
    ]:
        said = "; ".join(f"{each.name} {each.problem}" for each in wrong[:4])
        more = f"; and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        names = ",".join(each.name for each in wrong)
        raise ValueError(
            f"columns of {file} that are no features as they are: {said}{more}. Leave them out with "
            f"dataset.drop=[{names}], or use them all the same with dataset.keep=[...]."
        )
    if missing == "stop" and (lacking := [each for each in columns if each.missing]):
        rows = len(lacking[0].cells)
        without = int(pd.concat([each.cells.isna() for each in lacking], axis=1).any(axis=1).sum())
        raise ValueError(
            f"{without} of {rows} rows of {file} lack a value, {lacking[0].missing} of them in {lacking[0].name}: "
            "leave such rows out with dataset.missing=drop, or fill the gaps with dataset.missing=fill (the median and "
            "a column that says where)."
        )


def features(columns: Sequence[Column]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return features, float32 (N, F), and the name of each.

    A column of numbers is given in units of its standard deviation and from its mean, computed in float64, because
    float32 cannot hold small differences between large numbers; missing numbers are the median of all rows, and a
    further column says where they are. Columns of words become one column of 0 and 1 for each word, one of them for
    missing cells.
    """
    parts = list(_features(columns))
    if not parts:
        raise ValueError("no column is left to predict from: drop fewer.")
    return np.column_stack([values for _, values in parts]).astype(np.float32), tuple(name for name, _ in parts)


def _features(columns: Sequence[Column]) -> Iterator[tuple[str, np.ndarray]]:
    for each in columns:
        lacks = each.cells.isna().to_numpy()
        if pd.api.types.is_numeric_dtype(each.cells):
            values = each.cells.fillna(each.cells.median()).to_numpy(dtype=np.float64)
            # in steps that neither overflow nor vanish
            largest = np.abs(values).max() or 1.0
            shares = values / largest
            shares = shares - shares.mean()
            yield each.name, shares / (shares.std() or 1.0)
        else:
            for word in sorted(each.cells.dropna().unique()):
                yield f"{each.name}_{word}", (each.cells == word).fillna(False).to_numpy(dtype=np.float64)
        if lacks.any():
            yield f"{each.name} is missing", lacks.astype(np.float64)
