"""The report as one HTML page that needs no network: style, script and figures are inside."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import jinja2
from markupsafe import Markup, escape

from harness.report.items import Entry, Filters, Points, Report, Scale
from harness.text import count

HERE = Path(__file__).parent
LONG = 60  # rows of a folded table that is not printed unless the reader opened it
STRIP_WIDTH, STRIP_HEIGHT = 120, 20
# shapes around (0, 0), so that verdicts can be distinguished without colour
MARKS = {
    "better": '<path class="m better" d="M-4.5 3.8 0 -4.4 4.5 3.8z"/>',
    "worse": '<path class="m worse" d="M-4.5 -3.8 0 4.4 4.5 -3.8z"/>',
    "equivalent": '<path class="m equal" d="M-3.6 -3.6h7.2v7.2h-7.2z"/>',
    "undecided": '<circle class="m open" r="3.7"/>',
    "withheld": '<path class="m open" d="M0 -4.6 4.6 0 0 4.6 -4.6 0z"/>',
}


class RunSets:
    """The distinct sets of runs behind the numbers of a page, each with an anchor of its own.

    ``listed``: whether every run has a row on the page, to which its key leads.
    """

    def __init__(self, listed: bool = True) -> None:
        self.listed = listed
        self._names: dict[tuple[str, ...], str] = {}

    def anchor(self, runs: tuple[str, ...]) -> str:
        """Return where a number leads that comes from ``runs``."""
        distinct = tuple(dict.fromkeys(runs))
        if len(distinct) == 1 and self.listed:
            return f"run-{distinct[0]}"
        return self._names.setdefault(distinct, f"set-{len(self._names) + 1}")

    def all(self) -> list[tuple[str, tuple[str, ...]]]:
        """Return (anchor, keys) of all sets handed out so far."""
        return [(name, keys) for keys, name in self._names.items()]


class FilterChoices:
    """What the rows and figures of a page can be filtered by: for each kind (model, family) its values.

    Each value gets a short name, ``2.1`` for the second value of the third kind, which rows and figures carry.
    """

    def __init__(self, report: Report) -> None:
        self._values: dict[str, list[str]] = {}
        for filters in _all_filters(report):
            for kind, value in filters:
                known = self._values.setdefault(kind, [])
                if value not in known:
                    known.append(value)
        several = [kind for kind, values in self._values.items() if len(values) > 1]
        self._kinds = sorted(several, key=("family", "loss").__contains__)  # losses last
        self._names = {
            (kind, value): f"{number}.{index}"
            for number, kind in enumerate(self._kinds)
            for index, value in enumerate(self._values[kind])
        }

    def kinds(self) -> list[tuple[str, int, list[tuple[str, str]]]]:
        """Return every kind with more than one value: its title, its number, and its values with their names."""
        return [
            (kind, number, [(self._names[kind, value], value) for value in self._values[kind]])
            for number, kind in enumerate(self._kinds)
        ]

    def names(self, filters: Filters) -> str:
        """Return the short names of the values, separated by blanks; kinds with a single value are left out."""
        return " ".join(self._names[pair] for pair in filters if pair in self._names)


def _all_filters(report: Report) -> Iterator[Filters]:
    for section in report.sections:
        for item in section.items:
            if isinstance(item, Points):
                for point in item.points:
                    yield from point.filters
    for table in report.tables():
        yield from (row.filters for row in table.rows)
    yield from (figure.filters for figure in report.figures())


def page(report: Report, drawings: Mapping[str, str]) -> str:
    """Return the page.

    Args:
        report: what it says.
        drawings: inline SVG by figure id.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters["breakable"] = breakable
    environment.filters["kind"] = lambda item: type(item).__name__
    return environment.get_template("page.html.j2").render(
        report=report,
        drawings={name: Markup(svg) for name, svg in drawings.items()},
        sets=RunSets(not any(table.in_csv_only for table in report.tables())),
        choices=FilterChoices(report),
        strip=strip,
        count=count,
        LONG=LONG,
        style=Markup((HERE / "templates" / "page.css").read_text()),
        script=Markup((HERE / "templates" / "page.js").read_text()),
    )


def breakable(text: str) -> Markup:
    """Return text that a narrow column may break after an underscore, but never within an interval.

    >>> breakable("better +1.2 [+0.3, +2.1]"), breakable("a_b")
    (Markup('better +1.2 [+0.3,\xa0+2.1]'), Markup('a_<wbr>b'))
    """
    whole = re.sub(r"\[(\S+), (\S+)\]", "[\\1,\u00a0\\2]", text)
    return escape(whole).replace("_", Markup("_<wbr>"))


def strip(entry: Entry, scale: Scale) -> Markup:
    """Return the interval of ``entry`` drawn on ``scale`` as a small picture, where it has a value."""

    def x(value: float) -> float:
        share = (value - scale.low) / (scale.high - scale.low)
        return round(min(max(share, 0.0), 1.0) * STRIP_WIDTH, 1)

    middle, left = STRIP_HEIGHT / 2, x(-scale.band)
    parts = [
        f'<svg class="strip" viewBox="0 0 {STRIP_WIDTH} {STRIP_HEIGHT}" width="{STRIP_WIDTH}" height="{STRIP_HEIGHT}" '
        'aria-hidden="true" focusable="false">',
        f'<rect class="band" x="{left}" width="{x(scale.band) - left:.1f}" height="{STRIP_HEIGHT}"/>',
        f'<path class="zero" d="M{x(0)} 0V{STRIP_HEIGHT}"/>',
    ]
    tone = entry.tone or "undecided"
    name = {"equivalent": "equal", "undecided": "open", "withheld": "open"}.get(tone, tone)
    if entry.value is None:
        return Markup("".join([*parts, "</svg>"]))
    if not scale.low <= entry.value <= scale.high:
        edge, turn = (7, 0) if entry.value < scale.low else (STRIP_WIDTH - 7, 180)
        parts.append(
            f'<path class="m {name} far" d="M-5 0 4 -4.5V4.5z" transform="translate({edge} {middle}) rotate({turn})"/>'
        )
    else:
        if entry.low is not None and entry.high is not None:
            parts.append(f'<path class="bar {name}" d="M{x(entry.low)} {middle}H{x(entry.high)}"/>')
        parts.append(f'<g transform="translate({x(entry.value)} {middle})">{MARKS[tone]}</g>')
    return Markup("".join([*parts, "</svg>"]))
