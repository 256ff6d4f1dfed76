"""What the records show about sentences of publications: a verdict on each, and why."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from harness.analysis import deciding, reasons
from harness.analysis.cells import Analysis
from harness.analysis.claims import Claim
from harness.analysis.deciding import Decision, margin_of
from harness.analysis.weighing import Evidence, Place
from harness.metrics.declared import KNOWN, Metric
from harness.report.items import Column, Entry, Item, Point, Points, Prose, Row, Scale, Section, Table, Tone
from harness.report.sections.common import dash
from harness.text import count, joined, number, significant, slug

TONES: dict[str, Tone] = {
    "supported": "better",
    "contradicted": "worse",
    "depends on": "equivalent",
    "not decidable": "undecided",
    "withheld": "undecided",
    "cannot be tested": "",
    "retired": "",
}
"""Verdicts in the order in which they are shown."""
ANSWERS: dict[str, Tone] = {"yes": "better", "no": "worse", "open": "undecided"}
SHARE = Metric("share", "share of runs", "%", "points", 100.0, 1)
DRAWN = 6.0  # margins on either side of the drawn axis
EXPECTED = {
    "more": "above 0",
    "less": "below 0",
    "at least": "above minus the margin",
    "at most": "below the margin",
    "different": "away from 0",
}
WHY = {
    "not decidable": "tested, with too few seeds for the differences found, or with measures that disagree",
    "cannot be tested": "for want of a task, of data, or of a study",
    "retired": "no longer tested, for the reason named beside each",
}
KINDS = {
    "steps": "steps to {share:.0%} of the other side's final {metric}",
    "roughness": "roughness of the curve of {metric}",
    "rate": "share of runs that diverged or did not learn",
    "cost": "{metric} of the loss alone",
    "sign": "{metric}",
}


def section(a: Analysis) -> Section:
    """Return the claims that this study's records are to decide, or an empty section if there are none."""
    decisions = deciding.ledger(lambda _: a, only=a.study.name)
    return Section("claims", "What publications claim", tuple(overview(decisions) if decisions else ()))


def overview(decisions: Sequence[Decision]) -> list[Item]:
    """Return how many claims were decided and how, and for each publication a table of claims and one of places."""
    items: list[Item] = [Prose(_method(decisions)), Points(tuple(_points(decisions)))]
    documents = dict.fromkeys(decision.claim.short for decision in decisions)
    one_study = len({decision.claim.study for decision in decisions}) == 1  # whose report this is
    for short in documents:
        own = [decision for decision in decisions if decision.claim.short == short]
        items.append(_table(own, one_study))
        if any(decision.evidence.places and not decision.same_as for decision in own):
            items.append(_places(own))
    return items


def _method(decisions: Sequence[Decision]) -> tuple[str, ...]:
    families = {d.claim.short: d.family for d in decisions if d.family}
    named = joined(f"{short} {n}" for short, n in families.items())
    levels = f" ({named})" if families else ""
    return (
        f"{_counted(decisions)} Each is a sentence of a publication: its decisive words, what it says in our words, "
        "the runs that test it, a direction, and a margin below which a difference does not matter. A claim is tested "
        "in every case that it covers: each data set, model and condition, and each loss of a list where the "
        "sentence says so. Nothing is averaged over cases.",
        "It is supported if it holds in every case, contradicted if it is contradicted in every case, and depends on "
        "what separates the cases that disagree. A case is decided by its interval: a claim of a difference holds "
        "if the interval lies on its side of 0 and not inside the margin, and is contradicted if it lies on the other "
        "side or inside the margin; a claim of being no worse holds if the interval does not fall short by a margin. "
        f"The intervals of all tested claims of one publication{levels} hold simultaneously at 95 % (Bonferroni).",
        "A verdict is withheld where its evidence cannot carry one, whatever the interval: no runs, a failed control, "
        "a search that ended at its edge. Exploratory: the test was written after its first run had started. "
        "Reconstruction: a loss in it is our reading of an incomplete source. Verdicts hold for the data, models and "
        "training of the study named, not for the sentence in general.",
    )


def _points(decisions: Sequence[Decision]) -> list[Point]:
    found = []
    for verdict, tone in TONES.items():
        own = [d for d in decisions if d.verdict == verdict and not d.same_as]
        if not own:
            continue
        if verdict == "withheld":
            lines = _withheld(own)
        elif verdict in WHY:
            lines = [(f"{len(own)}", WHY[verdict])]
        else:
            lines = [(d.claim.says.rstrip("."), _brief(d)) for d in own]
        found.append(Point(f"{verdict.capitalize()} ({len(own)})", tone, tuple(lines)))
    return found


def _withheld(decisions: Sequence[Decision]) -> list[tuple[str, str]]:
    """Return for how many claims each kind of reason stands in the way; a claim may have several."""
    found: Counter[str] = Counter()
    for decision in decisions:
        headings = [heading for place in decision.evidence.places for heading in place.headings]
        found.update(list(dict.fromkeys(headings or [reasons.NONE.heading])))
    return [(str(n), kind) for kind, n in found.most_common()]


def _because(decision: Decision) -> str:
    """Return why a verdict is what it is, in few words: the kinds of reasons where it is withheld, with how many of its
    places they concern.
    """
    places = decision.evidence.places
    if decision.verdict != "withheld" or not places:
        return decision.because
    found = Counter(heading for place in places for heading in place.headings)
    several = len(places) > 1
    return "; ".join(f"{kind} ({n} of {len(places)} cases)" if several else kind for kind, n in found.most_common())


def _brief(decision: Decision) -> str:
    marks = f" ({joined(_marks(decision))})" if _marks(decision) else ""
    if decision.verdict == "depends on":
        return f"{decision.because}{marks}"
    return effect(decision, unit=True) + marks


def _marks(decision: Decision) -> list[str]:
    return [
        word
        for word, given in (
            ("exploratory", decision.exploratory),
            ("reconstruction", decision.evidence.reconstruction),
            (f"the same as {decision.same_as}", bool(decision.same_as)),
        )
        if given
    ]


def verdict_text(decision: Decision) -> str:
    """Return the verdict with what limits it: ``supported (exploratory, reconstruction)``."""
    marks = _marks(decision)
    return f"{decision.verdict} ({', '.join(marks)})" if marks else decision.verdict


# ---------------------------------------------------------------- effects in words


def effect(decision: Decision, *, unit: bool = False) -> str:
    """Return the effect with its interval in the unit in which it is read, which is written out where ``unit`` says so;
    of several places, the range of effects.
    """
    found, places = decision.evidence, decision.evidence.places
    metric = _metric(found)
    words = f" {metric.difference_unit}" if unit and metric and metric.difference_unit else ""
    if len(places) == 1 and places[0].sample.n:
        low, high = decision.interval(places[0])
        return f"{_amount(found, places[0].sample.estimate)} [{_amount(found, low)}, {_amount(found, high)}]{words}"
    known = [place.sample.estimate for place in places if math.isfinite(place.sample.estimate)]
    if not known:
        return ""
    ends = dict.fromkeys(_amount(found, value) for value in (min(known), max(known)))
    return f"{' to '.join(ends)}{words} in {count(len(places), 'case')}"


def _metric(found: Evidence) -> Metric | None:
    return SHARE if found.claim.test == "rate" else found.metric


def _amount(found: Evidence, value: float) -> str:
    metric = _metric(found)
    if not math.isfinite(value):
        return "not bounded" if math.isinf(value) else number(value, 1)
    if metric is None:
        return f"{number(100 * math.expm1(value), 1, sign=True)} %"
    return metric.number(value, sign=True)


def _what(found: Evidence) -> str:
    """Return what is compared: top-1 accuracy, steps to 90 % of the other side's final mean IoU."""
    claim, metric = found.claim, _metric(found)
    if metric is None and claim.metric.rpartition(".")[2] in KNOWN:
        metric = KNOWN[claim.metric.rpartition(".")[2]]
    title = metric.title.removeprefix("test ") if metric else claim.metric.rpartition(".")[2].replace("_", " ")
    return KINDS.get(claim.test, "{metric}").format(metric=title, share=claim.share)


def _unit(found: Evidence) -> str:
    metric = _metric(found)
    unit = "ratio" if metric is None else metric.difference_unit
    return f"{_what(found)}, {unit}" if unit else _what(found)


def _margin(found: Evidence) -> str:
    metric = _metric(found)
    if metric is None:
        return f"{100 * found.claim.margin:g} %"
    return significant(found.claim.margin * metric.scale, 2).rstrip("0").rstrip(".")


def _least(found: Evidence) -> str:
    """Return the margin in words: 0.5 points of top-1 accuracy, 5 % of time of the loss alone."""
    metric, margin = _metric(found), _margin(found)
    what = _what(found)
    if metric is None:
        return f"{margin} of {what}"
    unit = metric.difference_unit.removesuffix("s") if margin == "1" else metric.difference_unit
    return " ".join(f"{margin} {unit} of {what}".split())


# ---------------------------------------------------------------- tables


def _table(decisions: Sequence[Decision], one_study: bool) -> Table:
    first = decisions[0].claim
    columns = (
        Column("claim", "claim", note="in our words, and what is compared here; the words of the publication, the "
               "claim's name and what it expects show on hover"),
        Column("source", "where"),
        Column("verdict", "verdict"),
        _effect_column(),
        Column("because", "because", note="the full reasons show on hover, and stand in the table of cases"),
        Column("says", "what the publication says", detail=True),
        Column("tests", "what is compared here", detail=True),
        Column("metric", "in", detail=True),
        Column("expected", "expected", note="where the claim puts the difference", detail=True),
        Column("least", "margin", note="differences below it do not matter; in the unit of the effect"),
        Column("margin", "margin", "number", detail=True),
        Column("n", "n", "number", "seeds (or losses, or measures) compared, in the case with the fewest"),
        Column("study", "study", detail=one_study),
        Column("id", "id", "code", detail=True),
        Column("written", "written", detail=True),
        Column("definition", "definition", "code", detail=True),
        Column("reasons", "reasons", detail=True),
        Column("words", "words", note="of the publication", detail=True),
        Column("keys", "keys", detail=True),
    )  # fmt: skip
    order = list(TONES)
    ranked = sorted(decisions, key=lambda d: (order.index(d.verdict), bool(d.same_as)))
    caption = (
        "Triangle up: supported; down: contradicted; the band is the claim's margin. A pointer at the edge stands for "
        "an effect of more than six margins. Where there are several cases the bar spans all their intervals; the "
        "table of cases has each of them."
    )
    return Table(f"claims-{slug(first.short)}", first.document, columns, tuple(map(_row, ranked)), caption)


def _effect_column() -> Column:
    scale = Scale(-DRAWN, DRAWN, 1.0, f"{-DRAWN:.0f}", f"+{DRAWN:.0f}")
    note = "with its interval, simultaneous over the publication's claims; drawn in units of the claim's margin"
    return Column("effect", "effect, in margins", "number", note, scale)


def _hint(claim: Claim) -> str:
    words = f"“{claim.words}” " if claim.words else ""
    expected = f": the claim puts the difference {EXPECTED[claim.expect]}" if claim.tested else ""
    return f"{words}{claim.id}{expected}"


def _row(decision: Decision) -> Row:
    claim, found = decision.claim, decision.evidence
    tone = TONES[decision.verdict]
    here = f" Tested here: {claim.tests}" if claim.tests else ""
    told = Entry(f"{claim.says}{here}", note=_hint(claim))
    head = (told, Entry(claim.source), Entry(verdict_text(decision), tone=tone))
    stamp = (Entry(claim.written), Entry(claim.definition), Entry(decision.because), Entry(claim.words))
    tail = (Entry(claim.study), Entry(claim.id), *stamp)
    because = Entry(_because(decision), note=decision.because)
    paraphrase = (Entry(claim.says), Entry(claim.tests))
    shown = [place for place in found.places if place.sample.n]
    if not shown or decision.same_as:
        nothing = dash("see the claim that it is the same as" if decision.same_as else "not tested")
        middle = (nothing, because, *paraphrase, *(nothing,) * 4, Entry("0", 0))
        return Row((*head, *middle, *tail, Entry("")))
    ends = [decision.interval(place) for place in shown]
    centre = shown[0].sample.estimate if len(shown) == 1 else math.nan
    middle_value = centre if math.isfinite(centre) else sum(p.sample.estimate for p in shown) / len(shown)
    value, low, high = _drawn(claim, middle_value, min(low for low, _ in ends), max(high for _, high in ends))
    interval = Entry(effect(decision), value, low, high, found.keys, tone=tone)
    least = (Entry(_least(found)), Entry(_margin(found), claim.margin))
    words = (Entry(_unit(found)), Entry(EXPECTED[claim.expect]), *least)
    n = Entry(str(found.n), found.n)
    return Row((*head, interval, because, *paraphrase, *words, n, *tail, Entry(" ".join(found.keys))))


def _drawn(claim: Claim, *values: float) -> list[float | None]:
    """Return values in margins; what is not bounded is drawn to the edge."""
    scaled = (value / margin_of(claim) for value in values)
    return [None if math.isnan(value) else max(-1e6, min(1e6, value)) for value in scaled]


def _places(decisions: Sequence[Decision]) -> Table:
    first = decisions[0].claim
    columns = (
        Column("id", "claim", "code"),
        Column("place", "case"),
        Column("answer", "answer", note="what this case alone says"),
        _effect_column(),
        Column("n", "n", "number"),
        Column("scope", "interval over", note="seeds on these test items, or new items too"),
        Column("withheld", "withheld because, notes"),
        Column("estimate", "estimate", "number", "in the metric's own unit (logarithm of a ratio)", detail=True),
        Column("estimate_low", "low", "number", detail=True),
        Column("estimate_high", "high", "number", detail=True),
        Column("keys", "keys", detail=True),
    )
    rows = [_place(d, place) for d in decisions if not d.same_as for place in d.evidence.places]
    title = f"{first.document}: every case of every claim"
    return Table(f"claims-{slug(first.short)}-places", title, columns, tuple(rows), folded=True)


def _place(decision: Decision, place: Place) -> Row:
    found, sample = decision.evidence, place.sample
    said = decision.answer(place)
    words = {"yes": "holds", "no": "does not hold", "open": "open"}[said] if not place.withheld else "withheld"
    tone = ANSWERS[said]
    head = (Entry(decision.claim.id), Entry(place.title), Entry(words, tone=tone))
    n, keys = Entry(str(sample.n), sample.n), Entry(" ".join(place.keys))
    why = Entry("; ".join([*place.withheld, *place.notes]))
    if sample.n < 2 and not math.isfinite(sample.estimate):
        nothing = dash("not tested")
        return Row((*head, nothing, n, nothing, why, nothing, nothing, nothing, keys))
    low, high = decision.interval(place)
    text = f"{_amount(found, sample.estimate)} [{_amount(found, low)}, {_amount(found, high)}]"
    drawn = _drawn(decision.claim, sample.estimate, low, high)
    interval = Entry(text, drawn[0], drawn[1], drawn[2], place.keys, tone=tone)
    ends = (Entry(f"{x:.17g}", float(x)) for x in (sample.estimate, low, high))
    return Row((*head, interval, n, Entry(sample.scope), why, *ends, keys))


# ---------------------------------------------------------------- in one sentence


def summary(decisions: Sequence[Decision]) -> str:
    """Return the ledger in a few sentences."""
    counted = [d for d in decisions if d.counted]
    decided = [d for d in counted if d.decided]
    parts = [
        (sum(d.exploratory for d in decided), "exploratory (written after their runs)"),
        (sum(d.evidence.reconstruction for d in decided), "of reconstructions"),
    ]
    marked = [f"{n} {words}" for n, words in parts if n]
    left = [
        (sum(bool(d.same_as) for d in decisions), "of equal functions counted once"),
        (sum(d.verdict == "retired" for d in decisions), "retired"),
    ]
    beside = [f"{n} {words}" for n, words in left if n]
    return " ".join(
        [
            _counted(decisions),
            *([f"Of the {len(decided)} decided, {joined(marked)}."] if marked else []),
            *([f"Beside them {joined(beside)}."] if beside else []),
        ]
    )


def _counted(decisions: Sequence[Decision]) -> str:
    counted = [d for d in decisions if d.counted]
    by_verdict = [(sum(d.verdict == verdict for d in counted), verdict) for verdict in TONES if verdict != "retired"]
    return f"{count(len(counted), 'claim')}: {joined(f'{n} {verdict}' for n, verdict in by_verdict if n) or 'none'}."
