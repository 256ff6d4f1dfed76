"""Tables as LaTeX with booktabs, and a document that shows them all."""

from __future__ import annotations

import re

from harness.report.items import Report, Table

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
SHRINK = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}"  # only what is wider than the line


def escape(words: str) -> str:
    r"""Return text that LaTeX prints as it is.

    >>> escape("50 % of a_b, −0.3 ± 0.1")
    '50 \\% of a\\_b, $-$0.3 $\\pm$ 0.1'
    """
    known = re.sub("|".join(map(re.escape, SPECIAL)), lambda found: SPECIAL[found.group()], words)
    return re.sub(r"[^\x00-\u024f]", "?", known)  # what the usual fonts lack


def table(item: Table) -> str:
    """Return one table environment; needs booktabs and graphicx."""
    item = item.for_reading()
    align = "".join("r" if column.kind == "number" else "l" for column in item.columns)
    head = " & ".join(rf"\textbf{{{escape(column.title)}}}" for column in item.columns)
    lines = []
    for row in item.rows:
        texts = [
            rf"\texttt{{{escape(entry.text)}}}" if column.kind == "code" else escape(entry.text)
            for column, entry in zip(item.columns, row.entries, strict=True)
        ]
        lines.append(" & ".join(rf"\textit{{{text}}}" if row.reference and text else text for text in texts) + r" \\")
    body = "\n".join(
        [
            rf"\begin{{tabular}}{{{align}}}",
            r"\toprule",
            rf"{head} \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
        ]
    )
    body = f"{SHRINK}{{%\n{body}}}"
    caption = escape(f"{item.title}. {item.caption}".strip())
    return "\n".join(
        [
            r"\begin{table}[htbp]",
            r"\centering",
            rf"\caption{{{caption}}}",
            rf"\label{{tab:{item.id}}}",
            body,
            r"\end{table}",
            "",
        ]
    )


def document(report: Report) -> str:
    """Return a document that inputs every table that is not folded away in the page."""
    shown = [item for item in report.tables() if not item.folded]
    inputs = "\n".join(rf"\input{{tables/{item.id}.tex}}" for item in shown)
    return rf"""\documentclass{{article}}
\usepackage[utf8]{{inputenc}}
\usepackage[T1]{{fontenc}}
\usepackage[margin=2cm]{{geometry}}
\usepackage{{booktabs}}
\usepackage{{graphicx}}
\title{{{escape(report.title)}}}
\author{{lossbench, study \texttt{{{escape(report.name)}}}}}
\date{{}}
\begin{{document}}
\maketitle
{inputs}
\end{{document}}
"""
