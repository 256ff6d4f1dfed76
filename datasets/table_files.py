"""Tables in files as they come: CSV of any separator, decimal sign and encoding, with or without header; parquet."""

import codecs
import csv
import io
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from datasets.splits import MissingData

SEPARATORS = (",", ";", "tab", "|")
PARQUET = (".parquet", ".pq")
SUFFIXES = (".csv", ".tsv", ".txt", ".tab", ".data", *PARQUET)
MISSING = frozenset({"", "?", "-", "na", "n/a", "#n/a", "nan", "null", "none", "."})
"""What stands for a missing value, in small letters."""
SAMPLE = 1 << 16
"""Characters of a file by which its form is found out."""
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
WITH_COMMA = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?")
WITH_POINT = re.compile(r"[+-]?\d*\.\d+(?:[eE][+-]?\d+)?")


@dataclass(frozen=True)
class Form:
    """How a table is written; what is None is found out.

    Attributes:
        separator: Between the cells of a row: `,`, `;`, `|` or `tab`.
        decimal: `.` or `,`.
        header: Whether the first row has the names of the columns.
        encoding: As Python calls it.
    """

    separator: str | None = None
    decimal: str | None = None
    header: bool | None = None
    encoding: str | None = None

    @property
    def words(self) -> str:
        """The form as part of a sentence."""
        named = {"tab": "tabs", ";": "semicolons", ",": "commas", "|": "bars"}
        head = "a header" if self.header else "no header"
        comma = ", decimal commas" if self.decimal == "," else ""
        return f"{named[self.separator]} between cells{comma}, {head}, {self.encoding}" if self.separator else "parquet"


def is_number(cell: str) -> bool:
    """Whether a cell is a number as Python reads it.

    >>> is_number("1e-3"), is_number("1,5"), is_number("n/a")
    (True, False, False)
    """
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def read(file: Path, form: Form) -> tuple[pd.DataFrame, Form]:
    """Return the cells of a table, texts in a CSV file and values in a parquet one, and the form that was found.

    Texts are stripped; where the decimal sign is a comma it has become a point in numbers. Missing cells are NA.

    Args:
        file: The table.
        form: What is known of how it is written.

    Raises:
        MissingData: There is no such file, or it is no table.
    """
    if not file.is_file():
        what = "is a folder, not a table" if file.is_dir() else "does not exist"
        raise MissingData(f"the table {file} {what}: give dataset.path, relative to data.root or absolute.")
    if file.suffix.lower() in PARQUET:
        return _parquet(file), Form(None, ".", True, "parquet")
    raw = file.read_bytes()
    form = Form(form.separator, form.decimal, form.header, form.encoding or _encoding(raw))
    try:
        text = raw.decode(form.encoding or "utf-8")
    except (UnicodeDecodeError, LookupError) as error:
        raise MissingData(
            f"{file} cannot be read as {form.encoding} ({error}): set dataset.encoding, or null to find out."
        ) from None
    if not text.strip():
        raise MissingData(f"{file} is empty.")
    if "\0" in text[:SAMPLE]:
        raise MissingData(f"{file} is no text: give a CSV, TSV or parquet file.")
    return _text(file, text, form)


def _parquet(file: Path) -> pd.DataFrame:
    try:
        frame = pd.read_parquet(file)
    except (OSError, ValueError, NotImplementedError) as error:
        raise MissingData(f"{file} cannot be read as parquet ({error}).") from None
    frame.columns = [str(name) for name in frame.columns]
    _check_names(file, list(frame.columns))
    return frame.reset_index(drop=True)


def _encoding(raw: bytes) -> str:
    for mark, name in BYTE_ORDER_MARKS:
        if raw.startswith(mark):
            return name
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        start = raw[:SAMPLE]
        if start[1::2].count(0) > len(start) // 4:
            return "utf-16-le"
        return "latin-1"
    return "utf-8"


def _text(file: Path, text: str, form: Form) -> tuple[pd.DataFrame, Form]:
    sample = text if len(text) <= SAMPLE else text[: text.rfind("\n", 0, SAMPLE) + 1 or SAMPLE]
    separator = form.separator or _separator(sample)
    first = next(row for row in csv.reader(io.StringIO(sample), delimiter=_letter(separator)) if any(row))
    names = [cell.strip() for cell in first]
    try:
        cells = pd.read_csv(
            io.StringIO(text), sep=_letter(separator), header=None, dtype=str, keep_default_na=False, na_filter=False,
            index_col=False,
        )  # fmt: skip
    except (pd.errors.ParserError, ValueError) as error:
        reason = str(error).replace("Error tokenizing data. C error: ", "").strip().rstrip(".")
        raise MissingData(f"{file} is no table with cells between {separator!r}: {reason}.") from None
    header = form.header if form.header is not None else not any(map(is_number, (n.replace(",", ".") for n in names)))
    if header:
        _check_names(file, names)
        cells = cells.iloc[1:].reset_index(drop=True)
    else:
        names = [f"column_{number}" for number in range(1, cells.shape[1] + 1)]
    cells.columns = names
    if not len(cells):
        raise MissingData(f"{file} has a header and no row.")
    cells = cells.apply(lambda column: column.fillna("").str.strip())
    decimal = form.decimal or ("," if separator != "," and _decimal_comma(cells) else ".")
    if decimal == ",":
        cells = cells.apply(
            lambda column: column.where(~column.str.fullmatch(WITH_COMMA), column.str.replace(",", "."))
        )
    return cells.mask(cells.apply(lambda column: column.str.lower().isin(MISSING))), Form(
        separator, decimal, header, form.encoding
    )


def _separator(sample: str) -> str:
    """Return what divides most rows into the same number of cells, two at least; a comma where nothing does."""

    def quality(separator: str) -> tuple[float, int]:
        try:
            widths = Counter(len(row) for row in csv.reader(io.StringIO(sample), delimiter=_letter(separator)) if row)
        except csv.Error:
            return 0.0, 0
        width, rows = widths.most_common(1)[0]
        return (rows / widths.total(), width) if width > 1 else (0.0, 0)

    return max(SEPARATORS, key=quality)


def _letter(separator: str) -> str:
    return "\t" if separator == "tab" else separator


def _decimal_comma(cells: pd.DataFrame) -> bool:
    some = cells.head(200)
    commas, points = (
        sum(int(some[name].str.fullmatch(pattern).sum()) for name in some) for pattern in (WITH_COMMA, WITH_POINT)
    )
    return commas > points


def _check_names(file: Path, names: list[str]) -> None:
    """Raise MissingData unless every column has a name of its own."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        what = f"several columns called {twice[0]}" if twice[0] else "several columns without a name"
        raise MissingData(
            f"{file} has {what}: give each a name of its own, or dataset.header=false if it has no header."
        )
