"""The table of results for a terminal."""

from __future__ import annotations

import textwrap

from harness.report.analysis import Analysis, Cell
from harness.report.sections.common import reason
from harness.report.sections.verdicts import notices
from harness.report.text import DASH

WIDTH = 100


def summary_of(a: Analysis) -> str:
    """Return one block per cell, the best mean first, then what qualifies the verdicts."""
    blocks = [textwrap.fill(f"{a.study.name}: {a.metric.title} against {a.baseline}", WIDTH)]
    blocks += [_block(a, cell) for cell in a.cells]
    blocks += [
        textwrap.fill(f"{'!' if n.tone == 'alarm' else '*'} {n.text}", WIDTH, subsequent_indent="  ")
        for n in notices(a)
    ]
    return "\n\n".join(blocks)


def _block(a: Analysis, cell: Cell) -> str:
    unit = f" ({a.metric.unit})" if a.metric.unit else ""
    difference_unit = f" ({a.metric.difference_unit})" if a.metric.difference_unit else ""
    head: tuple[str, ...] = ("loss", f"mean{unit}", f"difference{difference_unit}", "n", "verdict")
    outcomes = [a.outcomes[cell, label] for label in a.labels if (cell, label) in a.outcomes]
    sign = -1 if a.metric.higher_is_better else 1
    outcomes.sort(key=lambda o: (o.values.n == 0, sign * o.values.mean if o.values.n else 0.0))
    lines: list[tuple[str, ...]] = [head]
    for outcome in outcomes:
        found = a.comparisons.get((cell, outcome.label))
        mean = a.metric.interval(outcome.values)
        name = textwrap.shorten(outcome.label, 28, placeholder="…")
        if found is None:
            lines.append((name, mean, DASH, str(outcome.values.n), "baseline"))
            continue
        verdict = found.verdict
        if outcome.diverged:
            verdict += f", {outcome.diverged} of {outcome.planned} diverged"
        elif found.verdict == "not decidable" and found.seeds_needed:
            verdict += f" (needs {found.seeds_needed:,})"
        elif found.n < 2:
            verdict += f" ({textwrap.shorten(reason(found).split(':')[0], 20, placeholder='…')})"
        lines.append((name, mean, a.metric.difference(found), str(found.n), verdict))
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    texts = []
    for line in lines:
        cells = [
            word.ljust(width) if i in (0, 4) else word.rjust(width)
            for i, (word, width) in enumerate(zip(line, widths, strict=True))
        ]
        texts.append("  ".join(cells).rstrip()[:WIDTH])
    texts.insert(1, "-" * min(WIDTH, sum(widths) + 2 * (len(widths) - 1)))
    return "\n".join([cell.title, *texts])
