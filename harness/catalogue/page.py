"""The catalogue as one HTML page that needs no network."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import matplotlib as mpl
import pandas as pd
from markupsafe import Markup
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from harness.catalogue import costs, curves, entries, figures
from harness.catalogue.entries import LossEntry
from harness.records.store import write_text
from harness.report import figures as style
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


def write(path: Path) -> Path:
    """Write the page and return its path."""
    found = entries.entries()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    css = (HERE.parent / "report" / "templates" / "page.css").read_text()
    measured = costs.table().set_index("loss")
    text = environment.get_template("page.html.j2").render(
        families={family: [e for e in found if e.about.family == family] for family in _families(found)},
        count=len(found),
        formula=lambda entry: svg(formula(entry.formula), entry.formula),
        number=lambda value: f"{value:.3g}" if value == value else "",  # NaN where nothing was measured
        curve=_curve,
        methods=_methods,
        references=entries.references,
        cost=lambda name: measured.loc[name].to_dict() if name in measured.index else {},
        measured=measured.reset_index().to_dict("records"),
        agreements=costs.agreements(),
        rankings=[
            svg(figures.cost_ranking(costs.ranked(one.aspect), *costs.ASPECTS[one.aspect]), f"measured {one.aspect}")
            for one in costs.agreements()
        ],
        evidence=EVIDENCE,
        links=LINKS,
        overview=[
            ("The survey's taxonomy", svg(figures.taxonomy(entries.taxonomy()), "tree of losses by task and family")),
            ("When they appeared", svg(figures.timeline(entries.taxonomy()), "years of the losses' papers by family")),
            (
                "Which task uses which loss",
                svg(figures.task_map(entries.methods()), "number of methods in the review by task and loss"),
            ),
        ],
        style=Markup(css + (HERE / "page.css").read_text()),
        script=Markup((HERE / "page.js").read_text()),
    )
    write_text(path, text)
    return path


def _families(found: Sequence[LossEntry]) -> list[str]:
    return list(dict.fromkeys(entry.about.family for entry in found))


def _methods(name: str) -> pd.DataFrame:
    return entries.methods().query("loss == @name")


def _curve(entry: LossEntry) -> Markup:
    """Return the drawing of a loss, empty if it cannot be drawn."""
    found = curves.sampled(entries.build(entry.id))
    return svg(curves.draw(*found), f"value and slope of {entry.about.name}") if found else Markup("")


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
