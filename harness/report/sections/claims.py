"""What the records show about sentences of publications: supported, contradicted, or not decidable and why."""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.analysis import claims, stats
from harness.analysis.cells import Analysis
from harness.analysis.claims import Claim, Decision, Evidence
from harness.report.items import Column, Entry, Item, Point, Points, Prose, Row, Scale, Section, Table, Tone
from harness.report.sections.common import dash
from harness.text import count, joined, number, p_value, significant, slug

TONES: dict[str, Tone] = {"supported": "better", "contradicted": "worse", "not decidable": "undecided"}
DRAWN = 6.0  # margins on either side of the drawn axis
EXPECTED = {
    "more": "above 0",
    "less": "below 0",
    "at least": "above minus the margin",
    "at most": "below the margin",
    "different": "away from 0",
}


def section(a: Analysis) -> Section:
    """Return the claims that this study's records are to decide, or an empty section if there are none."""
    own = a.study
    decisions = claims.ledger(lambda name: own if name == own.name else claims.recorded(name)) if _concerned(a) else []
    shown = [decision for decision in decisions if decision.claim.study == own.name]
    return Section("claims", "What publications claim", tuple(overview(shown) if shown else ()))


def _concerned(a: Analysis) -> bool:
    return any(claim.study == a.study.name for claim in claims.read_claims())


def overview(decisions: Sequence[Decision]) -> list[Item]:
    """Return how many claims were decided and how, and a table for each publication."""
    items: list[Item] = [Prose(_method(decisions)), Points(tuple(_points(decisions)))]
    documents = dict.fromkeys(decision.claim.document for decision in decisions)
    one_study = len({decision.claim.study for decision in decisions}) == 1  # whose report this is
    return [*items, *(_table([d for d in decisions if d.claim.document == name], one_study) for name in documents)]


def _method(decisions: Sequence[Decision]) -> tuple[str, ...]:
    tested = sum(decision.evidence.n >= 2 for decision in decisions)
    return (
        f"{count(len(decisions), 'claim')}, {tested} of them tested. Each is a sentence of a publication in our words, "
        "with the runs that decide it, a direction, and a margin below which a difference does not matter, written in "
        "conf/claims. Observations are differences between runs that share a seed (in a few claims, a loss), averaged "
        "over whatever the claim leaves open, with 95 % t intervals. The claims of one publication share an error rate "
        "of 5 % by Holm's correction.",
        "A claim of a difference is supported if the difference is shown and not shown to lie within the margin; it is "
        "contradicted by a difference in the other direction and by equivalence. A claim of being no worse is "
        "supported if the difference is shown not to fall short by more than the margin. The studies losses, cifar10, "
        "camvid and those of hybrid losses were run before their claims were written, with the same margins. "
        "Verdicts hold for the data, models and training of the study named, not for the sentence at large.",
    )


def _points(decisions: Sequence[Decision]) -> list[Point]:
    found = []
    for verdict, tone in TONES.items():
        lines = [(d.claim.says.rstrip("."), _brief(d)) for d in decisions if d.verdict == verdict]
        if verdict == "not decidable":
            open_ = [d for d in decisions if d.verdict == verdict]
            untested = sum(d.evidence.n < 2 for d in open_)
            lines = [(f"{len(open_) - untested} tested", "with too few seeds for the differences found")]
            lines += [(f"{untested} untested", "for want of a task or of runs")] if untested else []
            lines = lines if open_ else []
        found.append(
            Point(f"{verdict.capitalize()} ({sum(d.verdict == verdict for d in decisions)})", tone, tuple(lines))
        )
    return found


def _brief(decision: Decision) -> str:
    unit = decision.evidence.metric.difference_unit if decision.evidence.metric else ""
    return f"{effect(decision)} {unit}".rstrip() + f" (n = {decision.evidence.n})"


def effect(decision: Decision) -> str:
    """Return the effect with its interval, in the unit in which it is read."""
    found = decision.evidence
    return f"{_amount(found, found.estimate)} [{_amount(found, found.low)}, {_amount(found, found.high)}]"


def _amount(found: Evidence, value: float) -> str:
    if found.metric is None:
        return f"{number(100 * math.expm1(value), 1, sign=True)} %"
    return found.metric.number(value, sign=True)


def _unit(found: Evidence) -> str:
    if found.metric is None:
        return f"{_recorded(found.claim)}, ratio"
    title = found.metric.title.removeprefix("test ")
    return f"{title}, {found.metric.difference_unit}" if found.metric.difference_unit else title


def _recorded(claim: Claim) -> str:
    """Return what is recorded under a name that is no metric: ``cost.step_ms`` is the step ms."""
    return claim.metric.rpartition(".")[2].replace("_", " ")


def _margin(found: Evidence) -> str:
    if found.metric is None:
        return f"{100 * found.claim.margin:g} %"
    return significant(found.claim.margin * found.metric.scale, 2).rstrip("0").rstrip(".")


def _least(found: Evidence) -> str:
    """Return the margin in words: 0.5 points of top-1 accuracy, 5 % of step ms."""
    margin = _margin(found)
    if found.metric is None:
        return f"{margin} of {_recorded(found.claim)}"
    unit = found.metric.difference_unit.removesuffix("s") if margin == "1" else found.metric.difference_unit
    return " ".join(f"{margin} {unit} of {found.metric.title.removeprefix('test ')}".split())


def _table(decisions: Sequence[Decision], one_study: bool) -> Table:
    first = decisions[0].claim
    columns = (
        Column("claim", "claim", note="in our words; its name in conf/claims and what it expects show on hover"),
        Column("source", "where"),
        Column("verdict", "verdict"),
        Column(
            "effect", "effect, in margins", "number",
            "difference with its 95 % t interval; drawn in units of the claim's margin, which is the shaded band",
            Scale(-DRAWN, DRAWN, 1.0, f"{-DRAWN:.0f}", f"+{DRAWN:.0f}"),
        ),
        Column("metric", "in", detail=True),
        Column("expected", "expected", note="where the claim puts the difference", detail=True),
        Column("least", "margin", note="differences below it do not matter; in the unit of the effect"),
        Column("margin", "margin", "number", detail=True),
        Column("n", "n", "number", "seeds (or losses) compared"),
        Column("p", "p (Holm)", "number", "that the claim holds, corrected over the publication's claims"),
        Column("p_against", "p against", "number", "that it does not hold", detail=True),
        Column("study", "study", detail=one_study),
        Column("missing", "what would decide"),
        Column("id", "id", "code", detail=True),
        Column("estimate", "estimate", "number", "in the metric's own unit (logarithm of a ratio)", detail=True),
        Column("estimate_low", "low", "number", detail=True),
        Column("estimate_high", "high", "number", detail=True),
        Column("keys", "keys", detail=True),
    )  # fmt: skip
    order = list(TONES)
    ranked = sorted(decisions, key=lambda d: (order.index(d.verdict), d.evidence.n < 2))
    caption = (
        "Triangle up: supported; down: contradicted; open circle: not decidable; the band is the claim's margin. A "
        "pointer at the edge stands for an effect of more than six margins."
    )
    return Table(f"claims-{slug(first.short)}", first.document, columns, tuple(map(_row, ranked)), caption)


def _row(decision: Decision) -> Row:
    claim, evidence = decision.claim, decision.evidence
    tone = TONES[decision.verdict]
    hint = f"{claim.id}: the claim puts the difference {EXPECTED[claim.expect]}"
    head = (Entry(claim.says, note=hint), Entry(claim.source), Entry(decision.verdict, tone=tone))
    if evidence.n < 2:
        missing = Entry(f"{'' if claim.study else 'needs '}{evidence.missing}")
        nothing, empty = (dash("not tested"),), Entry(str(evidence.n), evidence.n)
        entries = (*nothing * 5, empty, *nothing * 2, Entry(claim.study), missing)
        return Row((*head, *entries, Entry(claim.id), *(dash("not tested"),) * 3, Entry("")))
    margin = math.log1p(claim.margin) if claim.relative else claim.margin
    low, high = (end / margin for end in (evidence.low, evidence.high))
    interval = Entry(effect(decision), evidence.estimate / margin, low, high, evidence.keys, tone=tone)
    expected = Entry(EXPECTED[claim.expect])
    words = (Entry(_unit(evidence)), expected, Entry(_least(evidence)), Entry(_margin(evidence), claim.margin))
    n = Entry(str(evidence.n), evidence.n)
    ps = (Entry(p_value(p), p) for p in (decision.p_for, decision.p_against))
    ends = (Entry(f"{x:.6g}", float(x)) for x in (evidence.estimate, evidence.low, evidence.high))
    keys = Entry(" ".join(evidence.keys))
    return Row((*head, interval, *words, n, *ps, Entry(claim.study), _needed(decision), Entry(claim.id), *ends, keys))


def _needed(decision: Decision) -> Entry:
    reasons = []
    if decision.verdict == "not decidable":
        what = "losses" if decision.claim.pair == "loss" else "seeds"
        needed = decision.seeds_needed
        reasons.append(f"more than {stats.MOST_SEEDS:,} {what}" if needed is None else f"about {needed:,} {what}")
    if diverged := decision.evidence.diverged:  # what is left may be the lucky ones
        reasons.append(f"{count(diverged, 'run')} diverged and could not be compared")
    return Entry("; ".join(reasons), tone="alarm" if diverged else "")


def summary(decisions: Sequence[Decision]) -> str:
    """Return the ledger in one sentence."""
    counts = [f"{sum(d.verdict == verdict for d in decisions)} {verdict}" for verdict in TONES]
    return f"{count(len(decisions), 'claim')}: {joined(counts)}."
