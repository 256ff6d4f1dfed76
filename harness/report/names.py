"""Losses in tables are called what people call them; in code, commands and CSV what lossbench calls them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from harness.analysis.cells import Analysis
from harness.report.items import Entry, Item, Row, Section, Table
from harness.text import mid_sentence

AS_CODE = ("config",)
"""Tables of settings, whose values are those of the command line."""
LISTED = re.compile("(, | and )")
"""What stands between the labels of a list, as `harness.text.joined` writes it."""
ROLES = {
    "search_repeat": "search, other seeds",
    "baseline_repeat": "baseline, other seeds",
    "negative_control": "negative control",
}


def with_names(a: Analysis, sections: Iterable[Section]) -> tuple[Section, ...]:
    """Return sections in whose tables losses are read by name.

    An entry that is a label, or that lists labels and nothing else, is read as names of losses. In longer texts, and
    above columns, names stand for those labels alone that have an underscore: others, such as `focal`, are words as
    well.
    """
    whole = dict(_names(a))
    inner = {label: mid_sentence(name) for label, name in whole.items() if "_" in label}
    longest_first = sorted(inner, key=len, reverse=True)
    found = re.compile(rf"(?<![\w.=])(?:{'|'.join(map(re.escape, longest_first))})(?![\w=])") if inner else None

    def named(text: str) -> str:
        return found.sub(lambda match: inner[match[0]], text) if found else text

    return tuple(replace(each, items=tuple(_item(item, whole, named) for item in each.items)) for each in sections)


def _names(a: Analysis) -> Iterator[tuple[str, str]]:
    """Yield what each label is called, as it is displayed and by itself."""
    for label in a.loss_facts:
        name = a.name(label)
        yield label, name
        yield a.display(label), name


def _item(item: Item, whole: Mapping[str, str], named: Callable[[str], str]) -> Item:
    if not isinstance(item, Table) or item.id in AS_CODE:
        return item
    columns = tuple(replace(column, title=named(column.title)) for column in item.columns)
    kinds = [(column.kind, column.key) for column in columns]
    return replace(item, columns=columns, rows=tuple(_row(row, kinds, whole, named) for row in item.rows))


def _row(row: Row, kinds: list[tuple[str, str]], whole: Mapping[str, str], named: Callable[[str], str]) -> Row:
    entries = (
        _entry(entry, ROLES if key == "role" else whole, named) if kind == "text" else entry
        for entry, (kind, key) in zip(row.entries, kinds, strict=True)
    )
    return replace(row, entries=tuple(entries))


def _entry(entry: Entry, whole: Mapping[str, str], named: Callable[[str], str]) -> Entry:
    listed = LISTED.split(entry.text)
    if all(part in whole for part in listed[::2]) and len(listed) > 1:
        shown = "".join(mid_sentence(whole[part]) if part in whole else part for part in listed)
    else:
        shown = whole.get(entry.text) or named(entry.text)
    return entry if shown == entry.text else replace(entry, shown=shown)
