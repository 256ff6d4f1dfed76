"""python -m scripts.found: what the published evidence shows, as results/found.json and as the table of the README.

The catalogue and the README speak of all studies without working them out; run this after publishing evidence.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from harness.analysis import found
from harness.analysis.found import Found, Measured
from harness.paths import ROOT
from harness.records.store import write_text
from harness.report.sections.answer import UNUSABLE
from harness.text import count, joined

README = ROOT / "README.md"
BLOCK = re.compile(r"(<!-- found: .*? -->\n).*?(<!-- /found -->)", re.DOTALL)
FORMULA = re.compile(r"symbolic formula=(.+?)(?:, over_classes=\w+)?")
NAMED = 3  # losses that a cell of the table names; the others are counted


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
    """Return what the studies found as Markdown: a row for each that shows a difference; sentences on the others."""
    differing = [each for each in facts if each.of("better") or each.of("worse")]
    rows = [
        "| question, and study | baseline, and metric | shown to be better | shown to be worse | other comparisons |",
        "|---|---|---|---|---|",
        *(_row(each) for each in differing),
    ]
    losses = {one.loss for each in facts for one in each.measured}
    runs = sum(each.runs for each in facts)
    text = [f"In all, {runs:,} runs of {len(losses)} losses in {count(len(facts), 'study', 'studies')}."]
    alike = [each for each in facts if each not in differing and (each.of("equivalent") or each.of("not decidable"))]
    if alike:
        text.append(f"No difference is shown in {_names(alike)}.")
    if withheld := [each for each in facts if each not in (*differing, *alike)]:
        whose = "All verdicts of" if len(withheld) > 1 else "Every verdict of"
        text.append(f"{whose} {_names(withheld)} are withheld: each report says why, and what would mend it.")
    return "\n".join([*rows, "", *text, ""])


def _names(facts: Sequence[Found]) -> str:
    return joined(f"`{each.study}`" for each in facts)


def _row(each: Found) -> str:
    rest = {verdict: len(each.of(verdict)) for verdict in ("equivalent", "not decidable", "withheld")}
    cells = [
        f"{each.question} `{each.study}`",
        f"`{each.baseline}`, {each.metric}",
        _better(each),
        _worse(each.of("worse")),
        ", ".join(f"{n} {verdict}" for verdict, n in rest.items() if n) or "none",
    ]
    return f"| {' | '.join(cells)} |"


def _better(each: Found) -> str:
    """Return the losses that are better, the largest effects first, and where, if the study has several settings."""
    by_setting: dict[str, list[Measured]] = {}
    for one in sorted(each.of("better"), key=lambda one: -abs(one.difference or 0)):
        by_setting.setdefault(one.where if len(each.cells) > 1 else "", []).append(one)
    texts = []
    for where, own in by_setting.items():
        named = [f"{_label(one)} {one.effect}{_caveat(each, one)}" for one in own[:NAMED]]
        more = [f"{len(own) - NAMED} more"] if len(own) > NAMED else []
        texts.append((f"{where}: " if where else "") + ", ".join([*named, *more]))
    return "; ".join(texts) or "none"


def _label(one: Measured) -> str:
    formula = FORMULA.fullmatch(one.label)  # which is read by itself
    return f"`{formula[1] if formula else one.label}`{' (reconstruction)' if one.reconstruction else ''}"


def _caveat(each: Found, one: Measured) -> str:
    """Return what a better score was bought with: probabilities that are far worse calibrated than the baseline's."""
    base = next(m.calibration for m in each.of("baseline") if m.cell == one.cell)
    if one.calibration is None or base is None or one.calibration - base <= UNUSABLE:
        return ""
    return f" (calibration error {one.calibration:.0%} beside {base:.0%})".replace("%", " %")


def _worse(measured: Sequence[Measured]) -> str:
    """Return the losses that are worse, those that are so in most settings first."""
    numbers = Counter(map(_label, measured))
    named = [label + (f" ({n} settings)" if n > 1 else "") for label, n in numbers.most_common(NAMED)]
    more = [f"{len(numbers) - NAMED} more"] if len(numbers) > NAMED else []
    return ", ".join([*named, *more]) or "none"


if __name__ == "__main__":
    sys.exit(main())
