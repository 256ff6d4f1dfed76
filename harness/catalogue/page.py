"""The catalogue as one HTML page that needs no network."""

from __future__ import annotations

import contextlib
import functools
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import matplotlib as mpl
import pandas as pd
from markupsafe import Markup, escape
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from harness.analysis import found
from harness.analysis.found import Found, Measured
from harness.catalogue import costs, curves, entries, figures, tasks
from harness.catalogue.entries import LossEntry
from harness.records.store import write_text
from harness.report import figures as style
from harness.text import count
from losses.loss import Link

HERE = Path(__file__).parent
EVIDENCE = {
    "V": "agrees with an independent implementation",
    "H": "computed by hand from the standard definition",
    "M": "settings from general knowledge of the paper",
    "R": "reconstruction: the source could not be read or contradicts itself",
}
LINKS: dict[Link, str] = {
    "softmax": "softmax",
    "sigmoid": "sigmoid",
    None: "none: likelihood and calibration mean little",
}


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.globals |= {
        "formula": lambda entry: _formula(entry.formula),
        "number": number,
        "curve": lambda entry: _curve(entry.id, entry.about.name),
        "methods": _methods,
        "references": entries.references,
        "evidence": EVIDENCE,
        "links": LINKS,
        "count": count,
        "linked": linked,
    }
    return environment


def write(path: Path, facts: Sequence[Found] | None = None) -> Path:
    """Write the page and return its path.

    Args:
        path: the file.
        facts: what studies found; None: what results/found.json says of the published ones.
    """
    losses = entries.entries()
    known = found.published() if facts is None else facts
    text = (
        _environment()
        .get_template("page.html.j2")
        .render(
            families={family: [e for e in losses if e.about.family == family] for family in _families(losses)},
            names={entry.id for entry in losses},
            tasks=tasks.tasks(losses, known),
            verdicts=("better", "worse", "equivalent", "not decidable", "withheld"),
            card=lambda entry: card(entry, found.by_loss(known).get(entry.id, ())),
            measured=costs.table().to_dict("records"),
            agreements=costs.agreements(),
            rankings=[
                svg(
                    figures.cost_ranking(costs.ranked(one.aspect), *costs.ASPECTS[one.aspect]), f"measured {one.aspect}"
                )
                for one in costs.agreements()
            ],
            overview=_overview(),
            style=Markup(stylesheet()),
            script=Markup((HERE / "page.js").read_text()),
        )
    )
    write_text(path, text)
    return path


def stylesheet() -> str:
    """Return the style of pages with cards: that of reports, and what cards add."""
    return (HERE.parent / "report" / "templates" / "page.css").read_text() + (HERE / "page.css").read_text()


def card(entry: LossEntry, measured: Sequence[tuple[Found, Measured]] = ()) -> Markup:
    """Return all that the catalogue says of a loss but its name, as part of a page.

    Args:
        entry: the loss.
        measured: where it was measured; its verdicts are counted.
    """
    table = costs.measured().set_index("loss")
    cost = table.loc[entry.id].to_dict() if entry.id in table.index else {}
    verdicts = Counter(one.verdict for _, one in measured if one.verdict != "baseline")
    text = _environment().get_template("card.html.j2").render(entry=entry, cost=cost, verdicts=verdicts)
    return Markup(text)


def linked(text: str, before: str, after: str = "") -> Markup:
    """Return a text with every loss in backticks as a link to its page.

    Args:
        text: of one or several sentences.
        before, after: what stands before and after a loss's name in its address.
    """
    parts = text.split("`")
    found = (
        Markup('<a href="{0}{1}{2}">{1}</a>').format(before, part, after) if inside % 2 else escape(part)
        for inside, part in enumerate(parts)
    )
    return Markup("").join(found)


def number(value: float) -> str:
    """Return a number to three digits; empty where nothing was measured (nan)."""
    return f"{value:.3g}" if value == value else ""


def _overview() -> list[tuple[str, Markup]]:
    sections, uses = entries.taxonomy(), "number of methods in the review by task and loss"
    return [
        ("The survey's taxonomy", svg(figures.taxonomy(sections), "tree of losses by task and family")),
        ("When they appeared", svg(figures.timeline(sections), "years of the losses' papers by family")),
        (
            "Which task uses which loss",
            svg(figures.task_map(entries.methods()), uses),
        ),
    ]


def _families(found: Sequence[LossEntry]) -> list[str]:
    return list(dict.fromkeys(entry.about.family for entry in found))


def _methods(name: str) -> pd.DataFrame:
    return entries.methods().query("loss == @name")


@functools.cache  # the site shows every drawing twice
def _curve(loss: str, name: str) -> Markup:
    """Return the drawing of a loss, empty if it cannot be drawn."""
    sampled = curves.sampled(entries.build(loss))
    return svg(curves.draw(*sampled), f"value and slope of {name}") if sampled else Markup("")


@functools.cache
def _formula(tex: str) -> Markup:
    return svg(formula(tex), tex)


def formula(tex: str) -> Figure:
    """Return a formula as a figure, set by matplotlib.

    Raises:
        ValueError: matplotlib cannot set it.
    """
    figure = Figure(figsize=(6, 0.5))
    canvas = FigureCanvasAgg(figure)
    text = figure.text(0, 0.5, f"${tex}$", fontsize=13, va="center", math_fontfamily="cm")
    extent = text.get_window_extent(canvas.get_renderer())
    figure.set_size_inches(extent.width / figure.dpi + 0.1, extent.height / figure.dpi + 0.14)
    return figure


def svg(figure: Figure, alt: str) -> Markup:
    """Return a figure as an element of the page, at its own size; letters as outlines, which need no font."""
    file = io.StringIO()
    # every drawing has names of its own: they share one page
    settings: Any = {**style.STYLE, "svg.hashsalt": alt, "svg.fonttype": "path"}
    with mpl.rc_context(settings), contextlib.closing(file):
        figure.savefig(file, format="svg", metadata={"Date": None}, transparent=True)
        text = style.inline(file.getvalue(), alt)
    width, height = figure.get_size_inches()
    return Markup(text.replace("<svg ", f'<svg style="width:{width:.2f}in;aspect-ratio:{width / height:.4f}" ', 1))
