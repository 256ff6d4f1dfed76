"""python -m scripts.found: what the published evidence shows, as results/found.json and as the table of the README.

The catalogue and the README speak of all studies without working them out; run this after publishing evidence.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from harness.analysis import found
from harness.analysis.found import Found, Measured
from harness.paths import ROOT
from harness.records.store import write_text
from harness.text import count, joined

README = ROOT / "README.md"
BLOCK = re.compile(r"(<!-- found: .*? -->\n).*?(<!-- /found -->)", re.DOTALL)
NAMED = 4  # losses that a cell of the table names; the others are counted


def main() -> int:
    """Write both; return the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        facts = [found.summarise(found.analysis(study, Path(folder)), found.digest(study)) for study in found.studies()]
    write_text(found.FILE, found.as_text(facts))
    write_text(README, with_table(README.read_text(), facts))
    print(f"{count(len(facts), 'study', 'studies')}: wrote {found.FILE.relative_to(ROOT)} and the table of README.md.")
    return 0


def with_table(readme: str, facts: Sequence[Found]) -> str:
    """Return the README with its table made of these facts, the rest as it is."""
    return BLOCK.sub(lambda block: block[1] + table(facts) + block[2], readme)


def table(facts: Sequence[Found]) -> str:
    """Return what the studies found as Markdown: those with a decided verdict a row each, the others in a sentence."""
    decided = [each for each in facts if any(each.of(verdict) for verdict in found.DECIDED)]
    rows = [
        "| study | better than the baseline | worse | equivalent | not decided |",
        "|---|---|---|---|---|",
        *(_row(each) for each in decided),
    ]
    rest = [f"`{each.study}`" for each in facts if each not in decided]
    runs = sum(each.runs for each in facts)
    text = f"{runs:,} runs in {count(len(facts), 'study', 'studies')}."
    if rest:
        text += f" Every verdict of {joined(rest)} is withheld: their reports say why."
    return "\n".join([*rows, "", text, ""])


def _row(each: Found) -> str:
    undecided = {"open": len(each.of("not decidable")), "withheld": len(each.of("withheld"))}
    cells = [
        f"`{each.study}`: {each.question}",
        _named(each, each.of("better"), effect=True),
        _named(each, each.of("worse"), effect=True),
        str(len(each.of("equivalent")) or "none"),
        ", ".join(f"{n} {word}" for word, n in undecided.items() if n) or "none",
    ]
    return f"| {' | '.join(cells)} |"


def _named(each: Found, measured: Sequence[Measured], *, effect: bool) -> str:
    """Return losses by name with their effects, the largest first, and where, if the study has several cells."""
    largest = sorted(measured, key=lambda one: -abs(one.difference or 0))
    texts = [
        f"`{one.label}` {one.effect}" + (f" ({one.where})" if len(each.cells) > 1 else "") for one in largest[:NAMED]
    ]
    more = [f"{len(largest) - NAMED} more"] if len(largest) > NAMED else []
    return "; ".join([*texts, *more]) or "none"


if __name__ == "__main__":
    sys.exit(main())
