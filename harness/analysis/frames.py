"""Selections from data frames that keep their type: pandas' own annotations lose it."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any, cast

import pandas as pd


def column(frame: pd.DataFrame, name: str) -> pd.Series:
    """Return one column; where there is none, one of None."""
    if name not in frame.columns:
        return pd.Series([None] * len(frame), index=frame.index, dtype=object)
    return cast(pd.Series, frame[name])


def numbers(frame: pd.DataFrame, name: str) -> pd.Series:
    """Return one column as floats; what is absent or no number is nan."""
    return cast(pd.Series, pd.to_numeric(column(frame, name), errors="coerce")).astype(float)


def rows(frame: pd.DataFrame, which: pd.Series) -> pd.DataFrame:
    """Return the rows where ``which`` is true."""
    return cast(pd.DataFrame, frame[which.astype(bool)])


def where(frame: pd.DataFrame, **wanted: Hashable) -> pd.DataFrame:
    """Return the rows whose columns have the wanted values.

    >>> where(pd.DataFrame({"a": [1, 2], "b": [3, 4]}), a=2)["b"].tolist()
    [4]
    """
    for name, value in sorted(wanted.items(), key=lambda item: isinstance(item[1], tuple)):
        own = column(frame, name)
        alike = [x == value for x in own] if isinstance(value, tuple) else own == value  # pandas takes it for a column
        frame = rows(frame, pd.Series(alike, index=frame.index, dtype=bool))
    return frame


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows as dictionaries, not-a-number as None.

    >>> records(pd.DataFrame({"a": [1.5, float("nan")]}))
    [{'a': 1.5}, {'a': None}]
    """
    found = cast(list[dict[str, Any]], frame.to_dict("records"))
    return [{k: None if isinstance(v, float) and v != v else v for k, v in row.items()} for row in found]


def distinct(values: Iterable[Hashable]) -> list[Hashable]:
    """Return distinct values in order of appearance."""
    return list(dict.fromkeys(values))
