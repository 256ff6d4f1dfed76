"""Two studies side by side: what changed, whether beyond noise, and what else differs between them.

``python -m harness.report compare A B``. Each loss in each cell that both have is compared in the metric of A: B minus
A, by seed where at least two seeds are shared, else as two samples (Welch's t). All comparisons are one family: their
intervals hold together, and verdicts are read off them as :mod:`harness.analysis.stats` does; a gate on either side
withholds them (but older code does not: comparing with it is what this is for).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness import records
from harness.analysis import gates, reasons, stats
from harness.analysis.cells import Analysis, Cell, Outcome, tally
from harness.analysis.estimates import Items, Scope
from harness.analysis.frames import column
from harness.analysis.reasons import Reason
from harness.analysis.stats import Interval, Verdict
from harness.errors import UsageError
from harness.metrics.declared import Metric
from harness.records.store import write_text
from harness.records.study import StudyData
from harness.report import html, markdown, table_csv
from harness.report.items import Column, Entry, Item, Notice, Prose, Report, Row, Section, Table
from harness.report.sections.common import SCOPES, TONES, simultaneous
from harness.report.sections.runs import MOST
from harness.text import DASH, count, joined, number, p_value, plain, slug

Contender = tuple[tuple[tuple[str, str], ...], str]  # named values of a cell, and a loss
ORDER = ("better", "worse", "not decidable", "withheld", "equivalent", "identical")
ENVIRONMENT = {
    "env.device": "device", "env.device_name": "processor", "env.threads": "threads per run", "env.torch": "torch",
    "env.torchvision": "torchvision", "env.timm": "timm", "env.python": "Python", "env.platform": "platform",
    "env.commit": "commit", "env.dirty": "uncommitted changes", "data.checksum": "data checksum",
}  # fmt: skip


@dataclass(frozen=True)
class Change:
    """One loss in one cell, on both sides.

    Attributes:
        cell, label: title of the cell, and the loss as it is displayed.
        a, b: its scores on either side.
        paired: whether it was compared seed by seed, else as two samples.
        difference, low, high: B minus A, with its interval at level 1 - 0.05 / ``family``.
        p: of no difference, times ``family``.
        scope: what the interval speaks of.
        family: number of comparisons that the intervals hold for together.
        verdict: read off the interval; withheld where a gate says why (``because``).
        pairs: the shared seeds: (seed, key in A, key in B, value in A, value in B).
        identical: how many pairs have one key and one value.
        remarks: how many runs diverged or failed, where that changed.
        because: why the verdict is withheld, naming the side.
    """

    cell: str
    label: str
    a: Interval
    b: Interval
    paired: bool
    difference: float
    low: float
    high: float
    p: float
    scope: Scope
    family: int
    verdict: Verdict
    pairs: tuple[tuple[int, str, str, float, float], ...]
    identical: int
    remarks: str
    because: tuple[Reason, ...] = ()

    @property
    def unchanged(self) -> bool:
        """Whether both sides are the very same runs."""
        return 0 < self.identical == len(self.pairs) == self.a.n == self.b.n

    @property
    def word(self) -> str:
        """The verdict, or that both sides are identical."""
        return "identical" if self.unchanged else self.verdict


@dataclass(frozen=True)
class Difference:
    """How two studies differ."""

    names: tuple[str, str]
    metric: Metric
    margin: float
    changes: tuple[Change, ...]
    only: tuple[tuple[str, str, str, int], ...]
    environment: tuple[tuple[str, str, str], ...]
    settings: tuple[tuple[str, str, str], ...]
    asked: tuple[tuple[str, str, str], ...]


def read_side(given: str, other: str = "", results: Path = records.RESULTS) -> StudyData:
    """Return the study that ``given`` names.

    Args:
        given: a study run here or published; a published CSV; a study's folder, or a results folder, of elsewhere.
        other: the other side, which names the study in a results folder that holds several.
        results: the results folder of names.

    Raises:
        UsageError: there is no such study.
    """
    path = Path(given)
    if path.suffix == ".csv":
        return records.load_published(path)
    named = [results / given / "runs.csv", *(at / f"{given}.json" for at in records.evidence_folders(results))]
    if path.name == given and (not path.is_dir() or any(listed.exists() for listed in named)):
        return records.load_study(given, results)
    if not path.is_dir():
        raise UsageError(f"{given} is neither a published CSV nor a folder of results.")
    if (path / "runs.csv").exists():
        return records.load_study(path.resolve().name, path.resolve().parent)
    there = sorted(listed.parent.name for listed in path.glob("*/runs.csv"))
    name = Path(other).stem if Path(other).stem in there else there[0] if len(there) == 1 else ""
    if not name:
        found = f"it holds {joined(there)}: give FOLDER/STUDY" if there else "it holds no study"
        raise UsageError(f"{given} does not say which study is meant: {found}.")
    return records.load_study(name, path)


def short_names(a: str, b: str) -> tuple[str, str]:
    """Return names for the two sides: as short as tells them apart.

    >>> short_names("a/demo.csv", "b/camvid.csv"), short_names("b/old/demo", "b/new/demo"), short_names("x", "x")
    (('demo', 'camvid'), ('old/demo', 'new/demo'), ('x (A)', 'x (B)'))
    """
    sides = Path(a), Path(b)
    if sides[0].stem != sides[1].stem:
        return sides[0].stem, sides[1].stem
    if sides[0].parent.name != sides[1].parent.name:
        return f"{sides[0].parent.name}/{sides[0].stem}".strip("/"), f"{sides[1].parent.name}/{sides[1].stem}".strip(
            "/"
        )
    return (a, b) if a != b else (f"{a} (A)", f"{b} (B)")


def difference(a: StudyData, b: StudyData, names: tuple[str, str] = ("A", "B")) -> Difference:
    """Return what changed from ``a`` to ``b``.

    Raises:
        UsageError: they share no loss in any cell, or saw different content of one data set.
    """
    records.check_content(" and ".join(names), a.runs, b.runs)
    asked = {field: a.spec.get(field, b.spec.get(field)) for field in ("metric", "margin")}
    sides = [Analysis(replace(s, spec={**s.spec, **{k: v for k, v in asked.items() if v}}), mix=True) for s in (a, b)]
    found = [_outcomes(side) for side in sides]
    shared = [contender for contender in found[0] if contender in found[1]]
    if not shared:
        raise UsageError(f"{names[0]} and {names[1]} have no loss in a common cell: there is nothing to compare.")
    metric, margin = sides[0].metric, sides[0].margin
    family = len(shared)
    changes = [
        _gated(_change(found[0][x], found[1][x], sides[0], sides[1], family), found[0][x], found[1][x], sides, names)
        for x in shared
    ]
    only = [
        (name, outcome.cell.title, side.display(outcome.label), outcome.planned)
        for name, side, own, others in zip(names, sides, found, found[::-1], strict=True)
        for contender, outcome in own.items()
        if contender not in others
    ]
    return Difference(
        names, metric, margin, tuple(changes), tuple(only), tuple(_environment(sides[0], sides[1])),
        tuple(_settings(shared, sides[0], sides[1], found[0], found[1])), tuple(_asked(a, b)),
    )  # fmt: skip


def _outcomes(a: Analysis) -> dict[Contender, Outcome]:
    columns = a.cell_columns

    def named(cell: Cell) -> tuple[tuple[str, str], ...]:
        return tuple((n, v) for n, v in zip(columns, cell.values, strict=True) if v != DASH)

    return {(named(cell), label): outcome for (cell, label), outcome in a.outcomes.items()}


def _change(a: Outcome, b: Outcome, of_a: Analysis, of_b: Analysis, family: int) -> Change:
    first, second = (x.completed(x.planned[o.cell, o.label]) for x, o in ((of_a, a), (of_b, b)))
    joint = first.merge(second, on="seed", suffixes=("_a", "_b")).sort_values("seed")
    pairs = tuple(
        (int(seed), str(key_a), str(key_b), float(x), float(y))
        for seed, key_a, key_b, x, y in joint[["seed", "key_a", "key_b", "value_a", "value_b"]].itertuples(index=False)
    )
    scale, scope = of_a.scale(a.cell), "seeds"
    if paired := len(pairs) >= 2:
        items = _items(of_a, of_b, pairs)
        found = stats.compare([pair[4] - pair[3] for pair in pairs], scale, family=family, items=items)
        mean, low, high, p, scope = found.difference, found.low, found.high, found.p, found.scope
    else:
        mean, low, high, p = stats.welch(column(first, "value"), column(second, "value"), stats.ALPHA / family)
        low, high, p = max(low, scale.low), min(high, scale.high), min(family * p, 1.0)
    ended = [
        f"{what}: {x} of {a.planned} before, {y} of {b.planned} now"
        for what, x, y in (
            ("diverged", a.diverged, b.diverged),
            ("failed", a.failed, b.failed),
            ("did not learn", a.unlearnt, b.unlearnt),
        )
        if x != y
    ]
    return Change(
        a.cell.title, of_a.display(a.label), a.values, b.values, paired, mean, low, high, p, scope, family,
        stats.verdict(low, high, scale), pairs, sum(x[1] == x[2] and x[3] == x[4] for x in pairs), "; ".join(ended),
    )  # fmt: skip


def _gated(change: Change, a: Outcome, b: Outcome, sides: Sequence[Analysis], names: tuple[str, str]) -> Change:
    """Return the change with its verdict withheld where the runs of a side cannot be used."""
    because = tuple(
        reason.of(name)
        for name, side, outcome in zip(names, sides, (a, b), strict=True)
        for reason in gates.of_runs(side, outcome.cell, outcome.label)
        if reason.kind is not reasons.OLD
    )
    return replace(change, verdict="withheld", because=because) if because and not change.unchanged else change


def _items(a: Analysis, b: Analysis, pairs: Iterable[tuple[int, str, str, float, float]]) -> Items | None:
    """Return the differences on every test item, pair by pair; None where a side lacks them, or has other items."""
    found = []
    for _, key_a, key_b, _, _ in pairs:
        sides = a.study.item_scores(key_a, a.metric.key), b.study.item_scores(key_b, b.metric.key)
        before, now = sides
        if before is None or now is None or not np.array_equal(before[0], now[0]):
            return None
        found.append((before[0], now[1] - before[1]))
    return found


def _environment(a: Analysis, b: Analysis) -> Iterable[tuple[str, str, str]]:
    for name, what in ENVIRONMENT.items():
        if _distinct(a.main, name) != _distinct(b.main, name):
            yield what, tally(column(a.main, name)), tally(column(b.main, name))


def _distinct(runs: pd.DataFrame, name: str) -> frozenset[str]:
    return frozenset(plain(value) for value in column(runs, name).unique()) - {DASH}


def _settings(
    shared: Iterable[Contender],
    a: Analysis,
    b: Analysis,
    in_a: dict[Contender, Outcome],
    in_b: dict[Contender, Outcome],
) -> Iterable[tuple[str, str, str]]:
    """Yield what differs in the settings of runs that go by one name: cell, loss, keys with both values."""
    for contender in shared:
        runs = [x.planned[o.cell, o.label] for x, o in ((a, in_a[contender]), (b, in_b[contender]))]
        if _distinct(runs[0], "setting") == _distinct(runs[1], "setting"):
            continue
        names = sorted({str(n) for x in runs for n in x.columns if str(n).startswith(("config.", "identity."))})
        values = ((n.removeprefix("config."), *(_distinct(x, n) for x in runs)) for n in names)
        differing = [f"{n}: {_any(x)} → {_any(y)}" for n, x, y in values if x != y]
        yield in_a[contender].cell.title, a.display(contender[1]), "; ".join(differing) or "nothing that was recorded"


def _any(values: frozenset[str]) -> str:
    return " or ".join(sorted(values)) or DASH


def _asked(a: StudyData, b: StudyData) -> Iterable[tuple[str, str, str]]:
    for field in ("baseline", "metric", "margin", "track"):
        before, now = (plain(study.spec.get(field)) for study in (a, b))
        if before != now and DASH not in (before, now):
            yield f"study: {field}", before, now


# ---------------------------------------------------------------------------- in words and tables


def lead(d: Difference) -> str:
    """Return what changed, in two or three sentences."""
    runs, identical = sum(len(c.pairs) for c in d.changes), sum(c.identical for c in d.changes)
    compared = f"{d.names[1]} against {d.names[0]}, in {d.metric.title}"
    if all(change.unchanged for change in d.changes):
        return f"{compared}: nothing changed. All {count(runs, 'run')} that both have are identical to the last bit."
    verdicts = Counter(change.word for change in d.changes)
    decided = [f"{verdicts[word]} {word}" for word in ("better", "worse", "equivalent", "identical") if verdicts[word]]
    text = f"{compared}: of {count(len(d.changes), 'comparison')}, {', '.join(decided) or 'none is beyond noise'}"
    if open_ := verdicts["not decidable"]:
        text += f"; {open_} not decidable, as noise alone would be"
    if held := verdicts["withheld"]:
        text += f"; {held} withheld"
    text += "."
    if runs:
        text += f" Of {count(runs, 'pair')} of runs with one seed, {identical} are identical to the last bit."
    return text


def report(d: Difference) -> Report:
    """Return the comparison as a report, in no format yet."""
    a, b = d.names
    method = (
        f"Differences are {b} minus {a}: by seed where at least two seeds are shared, else as two samples (Welch's t), "
        f"with {simultaneous(len(d.changes), 'comparisons here')}. The verdict is read off the interval: better or "
        "worse where it excludes 0"
        + (f", equivalent where it lies within ±{d.metric.with_unit(d.margin)}" if d.margin else "")
        + ". Identical runs have one key and one value, to the last bit."
    )
    warning = _notice(d)
    items: list[Item] = [Prose((lead(d),)), *([Notice(warning)] if warning else []), _changes(d), Prose((method,))]
    sections = [Section("changes", "What changed", tuple(items))]
    if d.only:
        table = _plain_table("only", "On one side only", ("side", "cell", "loss", "runs planned"), d.only)
        sections.append(Section("only", "On one side only", (table,)))
    if pairs := [*d.asked, *d.environment]:
        table = _plain_table("environment", "What the runs were made with", ("what", a, b), pairs)
        sections.append(Section("environment", "Environment", (table,)))
    if d.settings:
        heads = ("cell", "loss", f"what differs ({a} → {b})")
        table = _plain_table("settings", "Same name, another setting", heads, d.settings)
        sections.append(Section("settings", "Settings", (table,)))
    if any(change.pairs for change in d.changes):
        sections.append(Section("runs", "Runs", (_pairs(d),)))
    facts = (count(len(d.changes), "comparison"), f"{len(d.only)} on one side only", d.metric.title)
    return Report(f"{a} and {b}", f"What changed from {a} to {b}", facts, tuple(sections), kind="comparison of")


def _notice(d: Difference) -> str:
    """Return what stands in the way of comparing at all, if anything does."""
    parts = []
    if d.settings:
        parts.append(f"{len(d.settings)} of {count(len(d.changes), 'comparison')} are of different settings")
    if changed := [what for what, _, _ in d.environment if what in ("device", "torch", "data checksum")]:
        parts.append(f"the two differ in {joined(changed)}")
    return f"Not like with like: {' and '.join(parts)}; details follow." if parts else ""


def _interval(d: Difference, found: Interval) -> Entry:
    ends = (found.low, found.high) if found.n > 1 else (None, None)
    return Entry(d.metric.interval(found), found.mean if found.n else None, *ends)


def _changes(d: Difference) -> Table:
    a, b = d.names
    unit = f" ({d.metric.unit})" if d.metric.unit else ""
    apart = f" ({d.metric.difference_unit})" if d.metric.difference_unit else ""
    columns = (
        Column("cell", "cell"), Column("loss", "loss"), Column("verdict", "verdict", note=f"{b} against {a}"),
        Column("a", f"{a}{unit}", "number"), Column("b", f"{b}{unit}", "number"),
        Column("difference", f"difference{apart}", "number", simultaneous(len(d.changes), "comparisons here")),
        Column("scope", "interval over"),
        Column("p", "p", "number", f"of no difference, times {len(d.changes):,}"),
        Column("pairs", "pairs", "number", "seeds that both completed"),
        Column("identical", "identical", "number", "one key and one value"), Column("remarks", "remarks"),
    )  # fmt: skip
    rows = []
    for c in d.changes:
        known = c.low == c.low
        text = d.metric.number(c.difference, sign=True)
        text += f" [{d.metric.number(c.low, sign=True)}, {d.metric.number(c.high, sign=True)}]" if known else ""
        ends = (c.low, c.high) if known else (None, None)
        value = c.difference if c.difference == c.difference else None
        p = Entry(p_value(c.p), c.p if c.p == c.p else None)
        scope = Entry(f"{SCOPES[c.scope]}{'' if c.paired else ', unpaired'}" if known else DASH)
        verdict = Entry(c.word, tone="" if c.unchanged else TONES[c.verdict], note="; ".join(c.because))
        counts = [Entry(str(n), n) for n in (len(c.pairs), c.identical)]
        values = (_interval(d, c.a), _interval(d, c.b), Entry(text, value, *ends), scope, p)
        rows.append(
            Row(
                (
                    Entry(c.cell),
                    Entry(c.label),
                    verdict,
                    *values,
                    *counts,
                    Entry("; ".join(filter(None, (c.remarks, *c.because)))),
                )
            )
        )
    return Table("changes", "Every loss in every cell that both have", columns, tuple(rows))


def _plain_table(identity: str, title: str, heads: tuple[str, ...], lines: Iterable[tuple[Any, ...]]) -> Table:
    columns = tuple(Column(slug(head).replace("-", "_"), head) for head in heads)
    return Table(identity, title, columns, tuple(Row(tuple(Entry(str(word)) for word in line)) for line in lines))


def _pairs(d: Difference) -> Table:
    heads = ("cell", "loss", "seed", "run_a", "run_b", "value_a", "value_b", "difference")
    kinds: tuple[Any, ...] = ("text", "text", "number", "code", "code", "number", "number", "number")
    columns = tuple(Column(head, head.replace("_", " "), kind) for head, kind in zip(heads, kinds, strict=True))
    rows = []
    for c in d.changes:
        for seed, key_a, key_b, x, y in c.pairs:
            values = (Entry(number(v * d.metric.scale, d.metric.digits + 2), v) for v in (x, y, y - x))
            head = (Entry(c.cell), Entry(c.label), Entry(str(seed), seed), Entry(key_a), Entry(key_b))
            rows.append(Row((*head, *values)))
    long = len(rows) > MOST
    caption = f"{count(len(rows), 'pair')} of runs: tables/pairs.csv lists them." if long else ""
    return Table("pairs", "Runs with one seed", columns, tuple(rows), caption, folded=True, in_csv_only=long)


def write(d: Difference, folder: Path) -> Path:
    """Write index.html, report.md and tables/*.csv into ``folder`` and return the page."""
    made = report(d)
    for table in made.tables():
        write_text(folder / "tables" / f"{table.id}.csv", table_csv.text(table))
    write_text(folder / "report.md", markdown.text(made))
    write_text(folder / "index.html", html.page(made, {}))
    return folder / "index.html"


def summary(d: Difference, most: int = 30) -> str:
    """Return what changed as plain text that fits the terminal: what is decided first."""
    from harness.report.terminal import filled, lined

    order = sorted(d.changes, key=lambda c: ORDER.index(c.word))
    unit = f" ({d.metric.difference_unit})" if d.metric.difference_unit else ""
    cells = len({c.cell for c in d.changes})
    lines = [("loss and cell" if cells > 1 else "loss", "verdict", f"difference{unit}", "n", "identical")]
    for c in order[:most]:
        n = str(len(c.pairs)) if c.paired else f"{c.a.n}+{c.b.n}"
        name = f"{c.label} · {c.cell}" if cells > 1 else c.label
        lines.append((name, c.word, d.metric.number(c.difference, sign=True), n, str(c.identical)))
    notes = [f"* {_notice(d)}"] if _notice(d) else []
    notes += [f"* {what}: {x} → {y}" for what, x, y in (*d.asked, *d.environment)]
    notes += [f"* {cell}, {label}: {differing}" for cell, label, differing in d.settings[:most]]
    kinds = Counter(
        f"{reason.whose}: {reason.kind.what}" if reason.whose else reason.kind.what
        for c in d.changes
        for reason in c.because
    )
    notes += [f"* withheld: {kind} ({count(n, 'comparison')})" for kind, n in kinds.most_common()]
    notes += [f"* only in {side}: {label} on {cell} ({count(n, 'run')})" for side, cell, label, n in d.only[:most]]
    if (hidden := len(order) - most) > 0:
        notes.append(f"{count(hidden, 'more comparison')} in the report.")
    return "\n\n".join([filled(lead(d)), "\n".join(lined(lines)), "\n".join(map(filled, notes))]).strip()
