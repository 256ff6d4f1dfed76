"""The answer, ahead of all else: what to use, which losses may be the best, and what that means for who must choose."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace

from harness.analysis import advice, stats
from harness.analysis.advice import Advice
from harness.analysis.cells import Analysis, Cell
from harness.analysis.frames import numbers
from harness.analysis.stats import Comparison
from harness.metrics.declared import Metric
from harness.report.items import Code, Column, Entry, Item, Notice, Point, Points, Prose, Row, Section, Table, Tone
from harness.report.sections import best, controls, reproduce
from harness.report.sections.common import TONES, dash, loss_filters, reason, step_ratios, where_words
from harness.report.sections.results import scale_of
from harness.text import DASH, count, joined, number

NAMED = 3  # losses to use, and to avoid, that are named with their effects; one more rather than "1 other"
WIDE = 20  # rows from which a matrix of one or two cells stands in several parts side by side
MOST_SEEDS = 20  # that are suggested where something is undecided
UNUSABLE = 0.1  # an error of calibration greater by this much makes probabilities unusable as they are
QUALITY = {
    "better": "better",
    "worse": "worse",
    "equivalent": "as good",
    "not decidable": "may be as good",
    "withheld": "withheld",
}
CALIBRATION = {
    "unusable": "its probabilities are unusable as they are",
    "worse": "less well calibrated",
    "better": "better calibrated",
}
WORDS = {"not decidable": "undecided"}


def section(a: Analysis) -> Section:
    """Return the confidence set, the losses worth considering, and every verdict with its effect; the sentence itself
    (:func:`sentence`) stands below the title of the report.
    """
    items: list[Item] = [Notice(text, "alarm") for text in controls.alarms(a)]
    items.append(Prose((*best.in_short(a), *limits(a))))
    if lines := choices(a):
        points = (
            Point(a.name(label), _tone(a, label), (("", text),), (loss_filters(a, label),)) for label, text in lines
        )
        items.append(Points(tuple(points), "If you must choose now"))
    if a.comparisons:
        items.append(matrix(a))
    items.append(Code(next_steps(a), "What to try next"))
    return Section("answer", "The answer", tuple(items))


def sentence(a: Analysis) -> str:
    """Return the answer in one sentence that a person can act on."""
    found = advice.advice(a)
    if not found or not a.comparisons:
        return "No answer yet: it takes completed runs of the baseline and of another loss."
    parts = [_advised(a, each, last=each is found[-1] and len(found) > 1) for each in found]
    if avoid := _avoid(a):
        parts.append(avoid)
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _advised(a: Analysis, piece: Advice, last: bool) -> str:
    """Return one piece of advice as a clause."""
    where = " elsewhere" if last and 1 < len(piece.cells) < len(a.cells) else where_words(a, piece.cells)
    base = a.called(a.baseline)
    held = sum(a.comparisons[at].verdict == "withheld" for at in a.comparisons if at[0] in piece.cells)
    if piece.kind == "silent":
        kinds = dict.fromkeys(
            (why.kind.what, why.kind.remedy) for at, c in a.comparisons.items() if at[0] in piece.cells
            for why in c.because
        )  # fmt: skip
        if not kinds:
            return f"no advice{where}: no pair of runs to compare"
        what, remedy = next(iter(kinds))
        more = f", and {count(len(kinds) - 1, 'further reason')}" if len(kinds) > 1 else ""
        return f"no advice{where}: every verdict is withheld, because {what}{more} (remedy: {remedy})"
    if piece.kind == "better":
        named = [
            f"{a.called(label)} ({effect(a, label, piece.cells)}{_caveat(a, label, piece.cells)})"
            for label in (piece.use, *piece.also)
        ]
        more = [f"one of {len(named) - NAMED} others"] if len(named) > NAMED + 1 else []
        return f"use {joined([*named[: NAMED if more else None], *more], 'or')}{where}"
    n = sum(any((cell, label) in a.comparisons for cell in piece.cells) for label in a.challengers)
    alternatives = f"none of {n} alternatives" if n > 1 else "the alternative"
    text = f"{'keep' if last else 'use'} {base}{where}: {alternatives} is {'' if n > 1 else 'not '}shown to be better"
    equal = sum(_among(a, label, piece.cells, ("equivalent",)) for label in a.challengers)
    good = sum(_among(a, label, piece.cells, ("equivalent", "not decidable")) for label in a.challengers)
    every = {1: "it", 2: "both"}.get(n, f"all {n}")
    if equal == n:
        text += f", {every} {'is' if n == 1 else 'are'} as good (within ±{brief(a).with_unit(a.margin)})"
    elif good and n > 1:
        text += f", {every if good == n else good} may be as good"
    if held:
        text += f", and {count(held, 'verdict is', 'verdicts are')} withheld"
    return text


def _avoid(a: Analysis) -> str:
    """Return which losses to avoid, the worst first, with their effects; empty where there is none."""
    labels = advice.to_avoid(a)
    named = []
    for label in labels if len(labels) == NAMED + 1 else labels[:NAMED]:
        cells = [cell for cell in a.cells if (c := a.comparisons.get((cell, label))) and c.verdict == "worse"]
        named.append(f"{a.called(label)} ({effect(a, label, cells)})")
    if len(labels) > len(named):
        named.append(f"{len(labels) - len(named)} more")
    return f"avoid {joined(named)}" if named else ""


def effect(a: Analysis, label: str, cells: Sequence[Cell]) -> str:
    """Return the difference of a loss from the baseline with its unit: from the least to the greatest of the cells."""
    found = sorted(a.comparisons[cell, label].difference for cell in cells)
    ends = dict.fromkeys(brief(a).number(value, sign=True) for value in (found[0], found[-1]))
    return f"{' to '.join(ends)} {a.metric.difference_unit}".strip()


def _caveat(a: Analysis, label: str, cells: Sequence[Cell]) -> str:
    """Return that a loss is better at the cost of its probabilities, if it is so in some of these cells."""
    spoilt = [cell for cell in _calibrated(a, label).get("unusable", []) if cell in cells]
    where = extent(a, spoilt) if len(spoilt) < len(cells) else ""
    return f"; {CALIBRATION['unusable']}{where}" if spoilt else ""


def extent(a: Analysis, cells: Sequence[Cell]) -> str:
    """Return where something holds, in few words: which one or two cells, how many of more, nothing for all."""
    if len(cells) <= 2 or len(cells) == len(a.cells):
        return where_words(a, cells)
    return f" in {len(cells)} of {len(a.cells)} cells"


def _among(a: Analysis, label: str, cells: Sequence[Cell], verdicts: Sequence[str]) -> bool:
    found = [c.verdict for cell in cells if (c := a.comparisons.get((cell, label)))]
    return bool(found) and all(verdict in verdicts for verdict in found)


def _tone(a: Analysis, label: str) -> Tone:
    """Return how a loss is marked: by the verdict that all cells share, else as better where it is so in some."""
    found = {c.verdict for cell in a.cells if (c := a.comparisons.get((cell, label)))}
    if len(found) == 1:
        return TONES[found.pop()]
    return "better" if "better" in found and "worse" not in found else ""


# ---------------------------------------------------------------------------- who must choose now


def choices(a: Analysis) -> list[tuple[str, str]]:
    """Return the few losses worth considering, each with what it means to choose it: quality, calibration, cost of a
    step and runs lost, as far as the records show any of them.
    """
    labels = advice.contenders(a)
    if labels in ((), (a.baseline,)) and len(a.challengers) > 0:
        return []  # every verdict is withheld: there is nothing to choose from
    found = []
    for label in labels:
        parts = [_quality(a, label), _calibration(a, label), _cost(a, label), _lost(a, label)]
        text = "; ".join(filter(None, parts))
        found.append((label, f"{text[0].upper()}{text[1:]}"))
    return found


def _quality(a: Analysis, label: str) -> str:
    """Return how good a loss is: as the baseline the value itself, otherwise its verdicts with their effects."""
    if label == a.baseline:
        values = [a.outcomes[cell, label].values for cell in a.cells if (cell, label) in a.outcomes]
        known = [value.mean for value in values if value.n]
        if not known:
            return "the baseline, of which no run completed"
        return f"the baseline: {a.metric.title} {_span(brief(a), known)} {a.metric.unit}".strip()
    parts = []
    for verdict, word in QUALITY.items():
        cells = [cell for cell in a.cells if (c := a.comparisons.get((cell, label))) and c.verdict == verdict]
        if not cells:
            continue
        one = a.comparisons[cells[0], label]
        how = brief(a).difference(one) if len(a.cells) == 1 and one.n else _effects(a, label, cells)
        parts.append(f"{word}{extent(a, cells)} ({how})" if how else f"{word}{extent(a, cells)}")
    return ", ".join(parts)


def _effects(a: Analysis, label: str, cells: Sequence[Cell]) -> str:
    known = [cell for cell in cells if a.comparisons[cell, label].n]
    return effect(a, label, known) if known else ""


def _calibration(a: Analysis, label: str) -> str:
    """Return how far a loss's probabilities can be taken at their word, beside the baseline's, if recorded: where that
    differs in one or two cells, otherwise the range over cells.
    """
    key = _calibration_key(a)
    if not key:
        return ""
    metric = replace(a.metric_of(key), digits=1)
    if a.loss_facts[label].link not in metric.links:
        return "its scores are not probabilities"
    pairs = _calibration_pairs(a, label)
    if not pairs:
        return ""
    if label == a.baseline:
        return (
            f"calibration error {_span(metric, [statistics.fmean(y for _, y in found) for found in pairs.values()])} %"
        )
    parts = [
        f"{CALIBRATION[word]}{extent(a, cells)} ({_beside(metric, [pairs[cell] for cell in cells])})"
        for word, cells in _calibrated(a, label).items()
        if word in CALIBRATION
    ]
    return ", ".join(parts) or _beside(metric, list(pairs.values()))


def _calibration_key(a: Analysis) -> str:
    """Return the column of calibration errors; empty where there is none, or where it is what decides."""
    key = f"{a.metric.key.partition('.')[0]}.ece"
    return key if key != a.metric.key and numbers(a.main, key).notna().any() else ""


def _calibration_pairs(a: Analysis, label: str) -> dict[Cell, list[tuple[float, float]]]:
    key = _calibration_key(a)
    if not key or a.loss_facts[label].link not in a.metric_of(key).links:
        return {}
    return {cell: found for cell in a.cells if (found := _pairs(a, cell, label, key))}


def _calibrated(a: Analysis, label: str) -> dict[str, list[Cell]]:
    """Return in which cells a loss is better or worse calibrated than the baseline, and where so much worse that its
    probabilities are ``unusable``.
    """
    pairs = _calibration_pairs(a, label)
    family, scale = len(a.challengers) * len(pairs), stats.Scale(higher_is_better=False)
    words: dict[str, list[Cell]] = {}
    for cell, found in pairs.items():
        compared = stats.compare([x - y for x, y in found], scale, family=family)
        unusable = compared.verdict == "worse" and compared.low > UNUSABLE
        words.setdefault("unusable" if unusable else compared.verdict, []).append(cell)
    return words


def _beside(metric: Metric, pairs: Sequence[Sequence[tuple[float, float]]]) -> str:
    own, base = (_span(metric, [statistics.fmean(p[side] for p in found) for found in pairs]) for side in (0, 1))
    return f"calibration error {own} beside {base} %"


def _span(metric: Metric, values: Sequence[float]) -> str:
    """Return the least and the greatest of some values as a range, one number where they read alike."""
    return " to ".join(dict.fromkeys(metric.number(value) for value in (min(values), max(values))))


def _pairs(a: Analysis, cell: Cell, label: str, key: str) -> list[tuple[float, float]]:
    """Return a metric of a loss and of the baseline, seed by seed, where both completed in a cell."""
    sides = []
    for each in (label, a.baseline):
        outcome = a.outcomes.get((cell, each))
        if outcome is None:
            return []
        seeds = a.measured(outcome, "seed")
        sides.append({int(seed): float(v) for seed, v in zip(seeds, a.measured(outcome, key), strict=True)})
    own, base = sides
    shared = sorted(own.keys() & base.keys())
    return [(own[s], base[s]) for s in shared if math.isfinite(own[s]) and math.isfinite(base[s])]


def _cost(a: Analysis, label: str) -> str:
    """Return how much longer a step takes than the baseline's, where that is beyond what the baseline's own times vary
    by; empty otherwise.
    """
    ratios: list[float] = []
    spread = 1.0
    for cell in a.cells:
        own, base = (a.outcomes.get((cell, each)) for each in (label, a.baseline))
        ratios += step_ratios(a, own, base) if own and base else []
        spread = max(spread, _spread(a, cell))
    if label == a.baseline or not ratios:
        return ""
    ratio = statistics.median(ratios)
    if 1 / spread <= ratio <= spread:
        return ""
    return f"a step takes {number(ratio, 1)} times as long"


def _spread(a: Analysis, cell: Cell) -> float:
    outcome = a.outcomes.get((cell, a.baseline))
    times = a.measured(outcome, "cost.step_ms").dropna() if outcome else ()
    return float(times.max() / times.min()) if len(times) > 1 and times.min() > 0 else math.inf


def _lost(a: Analysis, label: str) -> str:
    """Return how many runs did not end well; empty where all did."""
    outcomes = [a.outcomes[cell, label] for cell in a.cells if (cell, label) in a.outcomes]
    planned = sum(outcome.planned for outcome in outcomes)
    counts = {
        "did not learn": sum(outcome.unlearnt for outcome in outcomes),
        "diverged": sum(outcome.diverged for outcome in outcomes),
        "failed": sum(outcome.failed for outcome in outcomes),
    }
    return ", ".join(f"{n} of {planned} runs {what}" for what, n in counts.items() if n)


def limits(a: Analysis) -> list[str]:
    """Return what the answer takes for granted, in a sentence; nothing where each loss had a search of its own."""
    if a.study.spec.get("track", "fixed") != "fixed" or len(a.labels) < 2:
        return []
    return [
        "Every loss ran at the learning rate of its model, which may suit one better than another: track=lr searches "
        "one for each, and conclusions should be drawn from that."
    ]


def next_steps(a: Analysis) -> str:
    """Return commands to try next, a line each: a search where there was none, more seeds where something is undecided,
    then the reader's own data.
    """
    lines = {
        "python -m harness.look data=DIR": "what your own images, masks or table are understood to be",
        "python -m harness choose data=DIR budget=1h": "which losses may be the best for them",
    }
    if not a.sequential and any(c.verdict == "not decidable" and c.n > 1 for c in a.comparisons.values()):
        more = f"{reproduce.command(a.study)} until=decided max_seeds={max(MOST_SEEDS, 2 * len(a.seeds))}"
        lines = {more: "more seeds, where it is undecided"} | lines
    if limits(a):
        lines = {f"{reproduce.command(a.study)} track=lr": "a learning rate searched for every loss"} | lines
    return "\n".join(f"{command}  # {why}" for command, why in lines.items())


# ---------------------------------------------------------------------------- every verdict


def matrix(a: Analysis) -> Table:
    """Return every loss by every cell: verdict, effect and interval; the baseline first, then the best mean effect."""
    several, metric = len(a.cells) > 1, brief(a)
    compared = [c for c in a.comparisons.values() if c.n]
    scale = scale_of(a, compared) if len(a.cells) == 1 and len(a.labels) < WIDE else None
    columns = [
        Column(f"cell_{i + 1}", cell.short if several else "verdict and difference", note=cell.title, scale=scale)
        for i, cell in enumerate(a.cells)
    ]
    order = sorted(a.challengers, key=lambda label: -advice.gain(a, label, a.cells))
    rows = [_matrix_row(a, metric, label) for label in (a.baseline, *order)]
    unit = a.metric.difference_unit or a.metric.title
    caption = f"Difference from {a.called(a.baseline)} ({unit}) with its interval."
    caption += f" All others with {a.shared_settings}." if a.shared_settings else ""
    if a.margin:
        caption += f" Equivalent: within ±{metric.with_unit(a.margin)}, the margin declared before the runs."
    words = {c.verdict for c in a.comparisons.values()}
    caption += " Undecided: with these seeds." if "not decidable" in words else ""
    caption += " Withheld: more seeds would not help; the reasons stand below." if "withheld" in words else ""
    parts = 3 if len(a.cells) == 1 and len(rows) > WIDE else 2 if len(a.cells) == 2 and len(rows) > WIDE else 1
    head = (Column("loss", "loss"), Column("id", "name on the command line", "code", detail=True))
    return Table("verdicts", "Every loss", (*head, *columns), tuple(rows), caption, parts=parts)


def brief(a: Analysis) -> Metric:
    """Return the metric as the first screen writes it: percentages with one decimal."""
    return replace(a.metric, digits=1) if a.metric.scale == 100 else a.metric


def _matrix_row(a: Analysis, metric: Metric, label: str) -> Row:
    facts = a.loss_facts[label]
    known = " · ".join(part for part in (label, facts.paper) if part)
    name = f"{a.name(label)} (baseline)" if label == a.baseline else a.name(label)
    entries = [Entry(name, note=known), Entry(label)]
    for cell in a.cells:
        outcome, found = a.outcomes.get((cell, label)), a.comparisons.get((cell, label))
        if outcome is None:
            entries.append(dash("not planned here"))
        elif found is None:
            text = f"{metric.interval(outcome.values)} {metric.unit}".strip() if outcome.values.n else DASH
            entries.append(Entry(text, runs=outcome.keys))
        else:
            entries.append(_verdict(metric, found, outcome.paired_keys))
    return Row(tuple(entries), reference=label == a.baseline, filters=loss_filters(a, label))


def _verdict(metric: Metric, found: Comparison, runs: tuple[str, ...]) -> Entry:
    word = WORDS.get(found.verdict, found.verdict)
    text = f"{word} {metric.difference(found)}" if found.n else word
    low, high = (found.low, found.high) if found.n and math.isfinite(found.low) else (None, None)
    value = found.difference if found.n else None
    return Entry(text, value, low, high, runs, reason(found), TONES[found.verdict])
