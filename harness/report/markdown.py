"""The report as Markdown that forges render."""

from __future__ import annotations

import re

from harness.report.items import Code, Figure, Item, Notice, Points, Prose, Report, Table


def text(report: Report) -> str:
    """Return the whole report; figures are linked from the folder figures/ beside it."""
    head = [
        f"# {escape(report.title)}",
        f"**{escape(report.answer)}**" if report.answer else "",
        escape(" · ".join(report.facts)),
    ]
    parts = [part for part in head if part]
    for section in report.sections:
        parts += [f"## {escape(section.title)}", *(_item(item) for item in section.items)]
    return "\n\n".join(parts) + "\n"


def table(item: Table) -> str:
    """Return a pipe table, numbers to the right."""
    if item.in_csv_only:
        return f"### {escape(item.title)}\n\n{escape(item.caption)}"
    item = item.for_reading()
    head = [escape(column.title) for column in item.columns]
    rule = ["--:" if column.kind == "number" else "---" for column in item.columns]
    body = []
    for row in item.rows:
        texts = [
            _code(entry.text) if column.kind == "code" else escape(entry.text)
            for column, entry in zip(item.columns, row.entries, strict=True)
        ]
        if row.reference:
            texts = [f"**{word}**" if word else "" for word in texts]
        body.append(texts)
    lines = [f"| {' | '.join(words)} |" for words in [head, rule, *body]]
    caption = f"\n\n{escape(item.caption)}" if item.caption else ""
    return f"### {escape(item.title)}\n\n" + "\n".join(lines) + caption


def _item(item: Item) -> str:
    match item:
        case Table():
            return table(item)
        case Figure():
            return f"![{escape(item.alt)}](figures/{item.id}.svg)\n\n{escape(item.caption)}"
        case Prose():
            return "\n\n".join(escape(paragraph) for paragraph in item.paragraphs)
        case Points():
            lines = [f"### {escape(item.title)}\n"] if item.title else []
            for point in item.points:
                lines.append(f"- **{escape(point.term)}**" + ("" if point.lines else ": none"))
                lines += [
                    f"  - **{escape(name)}** {escape(words)}" if name else f"  - {escape(words)}"
                    for name, words in point.lines
                ]
            return "\n".join(lines)
        case Notice():
            word = "Alarm" if item.tone == "alarm" else "Note"
            return f"> **{word}.** {escape(item.text)}"
        case Code():
            title = f"{escape(item.title)}:\n\n" if item.title else ""
            fence = "`" * max(3, 1 + max(map(len, re.findall("`+", item.text)), default=0))
            return f"{title}{fence}\n{item.text}\n{fence}"


def escape(words: str) -> str:
    """Return text in which Markdown and HTML see no markup.

    >>> escape("a|b <c> *d* gamma_1")
    'a\\\\|b \\\\<c\\\\> \\\\*d\\\\* gamma_1'
    """
    known = re.sub(r"([\\`*\[\]<>|]|&(?=#?\w+;)|^[#+-](?=\s))", r"\\\1", words)
    return known.replace("\n", " ")


def _code(words: str) -> str:
    """Return text as code within a table."""
    return f"`{words}`" if words and not re.search(r"[`|\\]", words) else escape(words)
