"""The results for a terminal: a table per cell, what qualifies it, and at the end, before the prompt, the answer."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Sequence

from harness.analysis.cells import Analysis, Cell, Outcome
from harness.analysis.reasons import Reason
from harness.report.sections import answer, best, controls, race
from harness.report.sections.common import looking, scopes, simultaneous
from harness.report.sections.reproduce import asked
from harness.report.sections.verdicts import notices, over_all_cells
from harness.text import DASH

NARROW, USUAL, WIDE = 40, 100, 120  # letters of a line: the least, those of a file or pipe, the most
NUMBERS = (2, 3, 4)  # columns that end at the right
MARKS = {"better": "▲", "worse": "▼", "equivalent": "■", "not decidable": "○", "withheld": "◇"}
LEAST = 16  # letters of the first column before others are left out


def width() -> int:
    """Return how many letters fit a line of the terminal; 100 where there is none."""
    return min(max(shutil.get_terminal_size((USUAL, 24)).columns, NARROW), WIDE)


def summary_of(a: Analysis) -> str:
    """Return a block per cell, the best mean first, what qualifies it, and the answer: what stands on the first screen
    of the page.
    """
    if race.is_race(a):
        return "\n\n".join([filled(race.sentence(a)), *map(filled, race.limits(a)), race.next_steps(a)])
    head = f"{a.study.name} ({changed})" if (changed := asked(a.study)) else a.study.name
    about = (
        f"{head}: {a.metric.title} against {a.reference}, with {simultaneous(len(a.challengers))}, over "
        f"{scopes(a.comparisons.values())}. {looking(a)}"
    )
    blocks = [filled(about.strip(), ""), *(_block(a, cell) for cell in a.cells)]
    if a.across:
        blocks.append("\n".join(map(filled, over_all_cells(a))))
    blocks.append("\n".join(filled(f"* {notice.text}") for notice in notices(a)))
    return "\n\n".join(block for block in (*blocks, *_answer(a)) if block).strip()


def _answer(a: Analysis) -> list[str]:
    """Return the answer with its question, the losses worth considering, and what to try next: a block each."""
    lines = [f"Question: {question}"] if (question := a.study.spec.get("question")) and not asked(a.study) else []
    lines += [
        f"Answer: {answer.sentence(a)}",
        *(f"! {alarm}" for alarm in controls.alarms(a)),
        *best.in_short(a),
        *answer.limits(a),
    ]
    found = answer.choices(a)
    choices = [filled(f"{a.name(label)} ({_chosen(a, label)}): {text}") for label, text in found]
    steps = [filled(step, "    ") for step in answer.next_steps(a).splitlines()]
    blocks = (lines and map(filled, lines), choices and ["If you must choose now:", *choices], ["Next:", *steps])
    return ["\n".join(block) for block in blocks if block]


def _chosen(a: Analysis, label: str) -> str:
    """Return how a loss is chosen on the command line, in each seat where it is not the baseline."""
    own = a.seats.get(label, {})
    return ", ".join(f"loss.{seat}={own[seat]}" for seat in a.varied_seats) or f"loss={label.partition(' ')[0]}"


def _block(a: Analysis, cell: Cell) -> str:
    unit = f" ({a.metric.unit})" if a.metric.unit else ""
    difference_unit = f" ({a.metric.difference_unit})" if a.metric.difference_unit else ""
    lines = [("loss", "verdict", f"difference{difference_unit}", f"mean{unit}", "n", "remarks")]
    outcomes = [a.outcomes[cell, label] for label in a.labels if (cell, label) in a.outcomes]
    sign = -1 if a.metric.higher_is_better else 1
    outcomes.sort(key=lambda o: (o.values.n == 0, sign * o.values.mean if o.values.n else 0.0))
    reasons: dict[str, int] = {}
    lines += [_line(a, outcome, reasons) for outcome in outcomes]
    notes = [filled(f"{number} {reason}") for reason, number in reasons.items()]
    notes += [filled(f"{a.display(o.label)}: {said}") for o in outcomes if (said := _failures(o))]
    return "\n".join([filled(cell.title), *lined(lines), *notes])


def lined(lines: Sequence[Sequence[str]]) -> list[str]:
    """Return a table that fits the terminal, with a rule below its head: the first column gives way, then the last ones
    are left out.
    """
    kept = len(lines[0])
    while True:
        widths = [max(len(line[i]) for line in lines) for i in range(kept)]
        over = sum(widths) + 2 * (kept - 1) - width()
        if over <= max(0, widths[0] - LEAST) or kept == 2:
            break
        kept -= 1
    widths[0] = max(1, widths[0] - max(0, over))
    rows = ["  ".join(_fitted(line[:kept], widths)).rstrip() for line in lines]
    return [rows[0], "-" * max(map(len, rows)), *rows[1:]]


def filled(text: str, indent: str = "  ") -> str:
    """Return a paragraph broken into lines that fit the terminal, all but the first a little to the right."""
    return textwrap.fill(text, width(), subsequent_indent=indent)


def _line(a: Analysis, outcome: Outcome, reasons: dict[str, int]) -> tuple[str, ...]:
    """Return a row; reasons that withhold verdicts get numbers, to be explained below the table."""
    found = a.comparisons.get((outcome.cell, outcome.label))
    name, mean = a.display(outcome.label), a.metric.interval(outcome.values)
    if found is None:
        return (name, "baseline", DASH, mean, str(outcome.values.n), "")
    word = f"{MARKS[found.verdict]} {answer.WORDS.get(found.verdict, found.verdict)}"
    if found.because:
        named = dict.fromkeys(_named(reason) for reason in found.because)
        word += f" [{','.join(str(reasons.setdefault(reason, len(reasons) + 1)) for reason in named)}]"
    needed = f"needs about {found.seeds_needed:,} seeds" if found.seeds_needed and not found.because else ""
    return (name, word, a.metric.difference(found), mean, str(found.n), needed)


def _failures(outcome: Outcome) -> str:
    """Return how many runs diverged or did not learn; these stand below the table, which gives way to the terminal."""
    counts = ((outcome.diverged, "diverged"), (outcome.unlearnt, "did not learn"))
    return ", ".join(f"{n}/{outcome.planned} {what}" for n, what in counts if n)


def _named(reason: Reason) -> str:
    """Return the kind of a reason, and whose it is where it is the baseline's."""
    return f"{reason.whose}: {reason.kind.what}" if reason.whose else reason.kind.what


def _fitted(words: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    for i, (word, most) in enumerate(zip(words, widths, strict=True)):
        short = word if len(word) <= most else f"{word[: most - 1]}…"
        yield short.rjust(most) if i in NUMBERS else short.ljust(most)
