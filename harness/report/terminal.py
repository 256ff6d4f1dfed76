"""The table of results for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from harness.analysis.cells import Analysis, Cell, Outcome
from harness.report.sections.reproduce import asked
from harness.report.sections.verdicts import notices
from harness.text import DASH

WIDTH = 100


def summary_of(a: Analysis) -> str:
    """Return one block per cell, the best mean first, then what qualifies the verdicts."""
    head = f"{a.study.name} ({changed})" if (changed := asked(a.study)) else a.study.name
    blocks = [textwrap.fill(f"{head}: {a.metric.title} against {a.baseline}", WIDTH)]
    blocks += [_block(a, cell) for cell in a.cells]
    marked = (f"{'!' if notice.tone == 'alarm' else '*'} {notice.text}" for notice in notices(a))
    qualified = "\n".join(map(filled, marked))
    return "\n\n".join([*blocks, qualified]).strip()


def _block(a: Analysis, cell: Cell) -> str:
    unit = f" ({a.metric.unit})" if a.metric.unit else ""
    difference_unit = f" ({a.metric.difference_unit})" if a.metric.difference_unit else ""
    lines = [("loss", f"mean{unit}", f"difference{difference_unit}", "n", "verdict")]
    outcomes = [a.outcomes[cell, label] for label in a.labels if (cell, label) in a.outcomes]
    sign = -1 if a.metric.higher_is_better else 1
    outcomes.sort(key=lambda o: (o.values.n == 0, sign * o.values.mean if o.values.n else 0.0))
    lines += [_line(a, outcome) for outcome in outcomes]
    return "\n".join([cell.title, *lined(lines)])


def lined(lines: Sequence[Sequence[str]]) -> list[str]:
    """Return a table that fits the terminal, with a rule below its head; the first column gives way."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    widths[0] -= max(0, sum(widths) + 2 * (len(widths) - 1) - WIDTH)
    rows = ["  ".join(_fitted(line, widths)).rstrip() for line in lines]
    return [rows[0], "-" * max(map(len, rows)), *rows[1:]]


def filled(text: str) -> str:
    """Return a paragraph broken into lines that fit the terminal, all but the first a little to the right."""
    return textwrap.fill(text, WIDTH, subsequent_indent="  ")


def _line(a: Analysis, outcome: Outcome) -> tuple[str, str, str, str, str]:
    found = a.comparisons.get((outcome.cell, outcome.label))
    name, mean = a.display(outcome.label), a.metric.interval(outcome.values)
    if found is None:
        return (name, mean, DASH, str(outcome.values.n), "baseline")
    verdict = found.verdict
    if outcome.diverged:
        verdict += f", {outcome.diverged}/{outcome.planned} diverged"
    elif found.seeds_needed:
        verdict += f" (needs {found.seeds_needed:,})"
    return (name, mean, a.metric.difference(found), str(found.n), verdict)


def _fitted(words: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    for i, (word, width) in enumerate(zip(words, widths, strict=True)):
        short = word if len(word) <= width else f"{word[: width - 1]}…"
        yield short.ljust(width) if i in (0, len(words) - 1) else short.rjust(width)
