"""Tables as LaTeX with booktabs, and a document that shows them all."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Sequence
from dataclasses import replace

from harness.report.items import Column, Entry, Report, Row, Table

SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "−": r"$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "–": "--",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
}
FOUND = re.compile("|".join(map(re.escape, SPECIAL)))
SHRINK = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}"  # only what is wider than the line
PAGE = 48  # lines that fit a page at the usual size
HEAD, LINE = 14, 40  # letters of a line in a title, and in a text
LONG = 48  # letters of a text that is not yet broken into lines
LINES = r">{\raggedright\arraybackslash}p{7cm}"


def escape(words: str) -> str:
    r"""Return text that LaTeX prints as it is.

    >>> escape("50 % of a_b, −0.3 ± 0.1")
    '50 \\% of a\\_b, $-$0.3 $\\pm$ 0.1'
    """
    known = FOUND.sub(lambda found: SPECIAL[found.group()], words)
    return re.sub(r"[^\x00-\u024f]", "?", known)  # what the usual fonts lack


def table(item: Table) -> str:
    """Return table environments that fit a page each, without empty columns; needs array, booktabs, graphicx."""
    item = item.for_reading()
    kept = [i for i in range(len(item.columns)) if not item.rows or any(row.entries[i].text for row in item.rows)]
    rows = tuple(replace(row, entries=tuple(row.entries[i] for i in kept)) for row in item.rows)
    item = replace(item, columns=tuple(item.columns[i] for i in kept), rows=rows)
    pages: list[list[Row]] = [[]]
    left = PAGE
    for row in rows:
        lines = max(math.ceil(len(entry.text) / LINE) for entry in (*row.entries, Entry("x")))
        if lines > left and pages[-1]:
            pages.append([])
            left = PAGE
        pages[-1].append(row)
        left -= lines
    return "\n".join(_environment(item, page, continued=number > 0) for number, page in enumerate(pages))


def _environment(item: Table, rows: Sequence[Row], continued: bool) -> str:
    head = " & ".join(_title(column) for column in item.columns)
    lines = []
    for row in rows:
        texts = [
            rf"\texttt{{{escape(entry.text)}}}" if column.kind == "code" else escape(entry.text)
            for column, entry in zip(item.columns, row.entries, strict=True)
        ]
        lines.append(" & ".join(rf"\textit{{{text}}}" if row.reference and text else text for text in texts) + r" \\")
    body = "\n".join(
        [
            rf"\begin{{tabular}}{{{''.join(_align(item))}}}",
            r"\toprule",
            rf"{head} \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
        ]
    )
    caption = f"{item.title} (continued)." if continued else f"{item.title}. {item.caption}".strip()
    return "\n".join(
        [
            r"\begin{table}[htbp]",
            r"\centering",
            rf"\caption{{{escape(caption)}}}",
            *([] if continued else [rf"\label{{tab:{item.id}}}"]),
            f"{SHRINK}{{%\n{body}}}",
            r"\end{table}",
            "",
        ]
    )


def _align(item: Table) -> list[str]:
    """Return how each column is set: numbers to the right, long texts in lines of their own width."""
    longest = [max((len(row.entries[i].text) for row in item.rows), default=0) for i in range(len(item.columns))]
    return [
        "r" if column.kind == "number" else LINES if column.kind == "text" and most > LONG else "l"
        for column, most in zip(item.columns, longest, strict=True)
    ]


def _title(column: Column) -> str:
    """Return the title above a column, in lines if it is long: titles, not numbers, make most tables wide."""
    side = "r" if column.kind == "number" else "l"
    lines = textwrap.wrap(column.title, HEAD, break_long_words=False) or [""]
    words = r" \\ ".join(rf"\textbf{{{escape(line)}}}" for line in lines)
    return words if len(lines) == 1 else rf"\begin{{tabular}}[b]{{@{{}}{side}@{{}}}}{words}\end{{tabular}}"


def document(report: Report) -> str:
    """Return a document that inputs every table that is not folded away in the page."""
    shown = [item for item in report.tables() if not item.folded]
    inputs = "\n".join(rf"\input{{tables/{item.id}.tex}}" for item in shown)
    return rf"""\documentclass{{article}}
\usepackage[utf8]{{inputenc}}
\usepackage[T1]{{fontenc}}
\usepackage[margin=2cm]{{geometry}}
\usepackage{{array}}
\usepackage{{booktabs}}
\usepackage{{graphicx}}
\title{{{escape(report.title)}}}
\author{{lossbench, {escape(report.kind)} \texttt{{{escape(report.name)}}}}}
\date{{}}
\begin{{document}}
\maketitle
{inputs}
\end{{document}}
"""
