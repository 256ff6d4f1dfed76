"""What a report is made of, before it has any form: sections of prose, tables and figures.

Writers turn these into HTML, Markdown, LaTeX and CSV; nothing here knows a format.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from matplotlib.figure import Figure as Drawing

FEW = 3  # rows from which on a column that reads alike in all of them is left out
Tone = Literal["", "better", "worse", "equivalent", "undecided", "withheld", "alarm", "good"]
Filters = tuple[tuple[str, str], ...]
"""What the reader can filter by, as pairs of kind and value: ("model", "vit_nano"), ("family", "margin")."""


@dataclass(frozen=True)
class Entry:
    """One cell of a table: what is read, what is sorted by, and the runs it comes from.

    ``value``, ``low`` and ``high`` are in the metric's own unit; ``text`` is rounded and scaled for reading. ``note``
    explains the entry (why there is a dash, say). ``shown`` is read instead of ``text`` everywhere but in CSV.
    """

    text: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    runs: tuple[str, ...] = ()
    note: str = ""
    tone: Tone = ""
    shown: str = ""

    def as_shown(self) -> Entry:
        """Return the entry whose text is what is read."""
        return replace(self, text=self.shown, shown="") if self.shown else self


@dataclass(frozen=True)
class Scale:
    """The common axis on which a column draws its intervals: from ``low`` to ``high``, 0 marked, ``band`` shaded."""

    low: float
    high: float
    band: float
    low_text: str
    high_text: str


@dataclass(frozen=True)
class Column:
    """A column: ``key`` names it in CSV, ``title`` above it; ``note`` says what it holds; CSV alone has ``detail``."""

    key: str
    title: str
    kind: Literal["text", "number", "code"] = "text"
    note: str = ""
    scale: Scale | None = None
    detail: bool = False


@dataclass(frozen=True)
class Row:
    """A row; ``anchor`` lets others point at it, ``reference`` marks the baseline, ``filters`` find it."""

    entries: tuple[Entry, ...]
    anchor: str = ""
    reference: bool = False
    filters: Filters = ()


@dataclass(frozen=True)
class Table:
    """A table with a name of its own (``id``: file name and anchor); ``folded`` ones start closed in HTML.

    One ``in_csv_only`` is too long to be read: every other format says where its rows are. ``parts``: into how many
    pieces side by side the page cuts it.
    """

    id: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    caption: str = ""
    folded: bool = False
    in_csv_only: bool = False
    parts: int = 1

    def for_reading(self) -> Table:
        """Return the table as it is shown, without the columns, or rows, that only CSV has, and without columns that
        say the same in every row: the caption has what they say.
        """
        found = () if self.in_csv_only else self.rows
        same = [i for i, column in enumerate(self.columns) if not column.detail and self._constant(i)]
        kept = [i for i, column in enumerate(self.columns) if not column.detail and i not in same]
        shown = (replace(row, entries=tuple(row.entries[i].as_shown() for i in kept)) for row in found)
        said = [(self.columns[i].title, self.rows[0].entries[i].as_shown().text) for i in same]
        words = "; ".join(f"{title} {text}" for title, text in said if text not in ("", "–"))
        caption = f"{self.caption} In every row: {words}.".strip() if words else self.caption
        return replace(self, columns=tuple(self.columns[i] for i in kept), rows=tuple(shown), caption=caption)

    def _constant(self, index: int) -> bool:
        """Return whether a column other than the first reads alike in all of several rows."""
        if index == 0 or len(self.rows) < FEW or self.columns[index].scale:
            return False
        return len({row.entries[index].text for row in self.rows}) == 1

    def cut(self) -> list[tuple[Row, ...]]:
        """Return the rows of each of its ``parts``, as equal as can be."""
        size = -(-len(self.rows) // self.parts)
        return [self.rows[start : start + size] for start in range(0, len(self.rows), max(1, size))]


@dataclass(frozen=True)
class Figure:
    """A figure; ``alt`` says in words what it shows; ``wide`` ones take the whole page."""

    id: str
    title: str
    caption: str
    alt: str
    draw: Callable[[], Drawing]
    wide: bool = False
    filters: Filters = ()


@dataclass(frozen=True)
class Prose:
    """Paragraphs of plain text."""

    paragraphs: tuple[str, ...]


@dataclass(frozen=True)
class Point:
    """A term with its lines, each a name and a text; ``tone`` marks the term, ``filters`` find each line."""

    term: str
    tone: Tone
    lines: tuple[tuple[str, str], ...]
    filters: tuple[Filters, ...] = ()


@dataclass(frozen=True)
class Points:
    """A list of terms, below a title if it has one."""

    points: tuple[Point, ...]
    title: str = ""


@dataclass(frozen=True)
class Notice:
    """Something the reader must not miss."""

    text: str
    tone: Literal["alarm", "undecided"] = "undecided"


@dataclass(frozen=True)
class Code:
    """Text to be copied: commands, settings."""

    text: str
    title: str = ""
    folded: bool = False


Item = Table | Figure | Prose | Points | Notice | Code


@dataclass(frozen=True)
class Section:
    """A part of the report with a heading."""

    id: str
    title: str
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Report:
    """The whole report: ``answer`` in one sentence and ``facts`` (runs, seeds, dates) stand below its title;
    ``runs_at`` is where a filter of MLflow,
    appended to it, shows its runs, empty where that is not known; ``kind`` says what ``name`` names.
    """

    name: str
    title: str
    facts: tuple[str, ...]
    sections: tuple[Section, ...] = field(default_factory=tuple)
    runs_at: str = ""
    answer: str = ""
    kind: str = "study"

    @property
    def called(self) -> str:
        """What it is of, as it stands above the title: ``study demo``."""
        return f"{self.kind} {self.name}".strip()

    def tables(self) -> list[Table]:
        """Return all tables, in order."""
        return [item for section in self.sections for item in section.items if isinstance(item, Table)]

    def figures(self) -> list[Figure]:
        """Return all figures, in order."""
        return [item for section in self.sections for item in section.items if isinstance(item, Figure)]
