"""Which losses may be the best, and what beats the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.analysis.best import Candidate
from harness.analysis.cells import Analysis
from harness.report.items import Column, Entry, Filters, Item, Prose, Row, Section, Table
from harness.report.sections.common import cell_filters, dash, loss_entry, loss_filters, where_words
from harness.text import count, joined

EVERYWHERE = "over all cells"
FEW = 8  # losses of a set that are named in short


def section(a: Analysis) -> Section:
    """Return the set of losses that may be the best, for each cell and over all of them."""
    places = _places(a)
    found = sentences(a)
    several = len(places) > 1 and not _open(places)
    items: list[Item] = [Prose((*found[:1],) if several else (*found,))]
    if several:
        items.append(_sets(a, places))
    if any(candidate.beaten_by for found in places.values() for candidate in found):
        items.append(_beaten(a, places))
    return Section("best", "Which losses may be the best", tuple(items))


def sentences(a: Analysis) -> list[str]:
    """Return which losses may be the best, a sentence for each cell; one alone where every loss may be."""
    places = _places(a)
    known = {where: found for where, found in places.items() if found}
    if not known:
        return ["Every loss may be the best: it takes two runs of each that learnt to tell them apart."]
    if _open(places):
        cells = [cell.title for cell in a.cells]
        where = f"in each of {len(cells)} cells" if len(cells) > 1 else f"on {joined(cells)}"
        return [
            f"Every one of {count(len(a.labels), 'loss', 'losses')} may be the best {where}: at 95 %, none is shown to "
            "be worse than another."
        ]
    unknown = [where for where, found in places.items() if not found]
    found = [_sentence(a, where, found) for where, found in known.items()]
    if unknown:
        found.append(f"Too few runs learnt to tell losses apart {joined(map(_at, unknown))}.")
    return found


def in_short(a: Analysis) -> list[str]:
    """Return the confidence set in a sentence, with few names: that of each of two cells, else over all cells."""
    places = {where: found for where, found in _places(a).items() if found}
    if not places or _open(places):
        return sentences(a)
    shown = [where for where in places if (where == EVERYWHERE) != (len(a.cells) <= 2)]
    return [_set_in_short(a, where, places[where]) for where in shown or list(places)[:1]]


def _set_in_short(a: Analysis, where: str, found: Sequence[Candidate]) -> str:
    kept = [each for each in found if each.may_be_best]
    held = [each for each in kept if each.beaten_by]
    place = next((where_words(a, [cell]) for cell in a.cells if cell.title == where), EVERYWHERE).strip()
    start = f"{place[0].upper()}{place[1:]}, " if place else ""
    size = f"{len(kept)} of {count(len(found), 'loss', 'losses')}"
    if len(kept) == len(found) > 1:
        text = f"any of {count(len(found), 'loss', 'losses')} may be the best (95 % confidence)"
    else:
        names = [a.called(label) for label in _ordered(a, where, kept)]
        more = [f"{len(names) - FEW} more"] if len(names) > FEW + 1 else []
        named = joined([*(names[:FEW] if more else names), *more])
        verb = "is the best" if len(kept) == 1 else "may be the best"
        text = f"{size} {verb} (95 % confidence): {named}"
    if held:
        why = joined(dict.fromkeys(reason.kind.what for each in held for reason in each.withheld))
        text += f"; {len(held)} of them cannot be ruled out only because {why}"
    return f"{start}{text}." if start else f"{text[0].upper()}{text[1:]}."


def _places(a: Analysis) -> dict[str, Sequence[Candidate]]:
    """Return the candidates of each place: all cells together first, where there are several."""
    together = {EVERYWHERE: a.best_over_cells} if len(a.cells) > 1 else {}
    return {**together, **{cell.title: a.best[cell] for cell in a.cells}}


def _open(places: Mapping[str, Sequence[Candidate]]) -> bool:
    """Return whether no loss is shown to be worse than another anywhere."""
    return not any(candidate.beaten_by for found in places.values() for candidate in found)


def _at(where: str) -> str:
    return where if where == EVERYWHERE else f"on {where}"


def _sentence(a: Analysis, where: str, found: Sequence[Candidate]) -> str:
    unbeaten = [each for each in found if not each.beaten_by]
    kept = [each for each in found if each.beaten_by and each.may_be_best]
    place = _at(where)
    kinds, size = count(len(found), "loss", "losses"), len(unbeaten) + len(kept)
    size = f"all {kinds}" if size == len(found) > 1 else f"{size} of {kinds}"
    text = f"{place[0].upper()}{place[1:]}, {size} may be the best: {_named(a, where, unbeaten)}"
    if not kept:
        return f"{text}."
    why = joined(dict.fromkeys(reason.kind.what for each in kept for reason in each.withheld))
    others = "the rest" if len(unbeaten) + len(kept) == len(found) else _named(a, where, kept)
    return f"{text}, which no other beats; and {others}, beaten but not to be ruled out, because {why}."


def _named(a: Analysis, where: str, found: Sequence[Candidate]) -> str:
    """Return the names of the losses of a set in words, the best mean first."""
    return joined(a.called(label) for label in _ordered(a, where, found))


def _ordered(a: Analysis, where: str, found: Sequence[Candidate]) -> list[str]:
    """Return the labels of a set, the best mean first."""
    means = {
        each.label: [o.values.mean for cell in a.cells if where in (EVERYWHERE, cell.title)
                     for o in (a.outcomes.get((cell, each.label)),) if o and o.values.n]
        for each in found
    }  # fmt: skip
    sign = -1 if a.metric.higher_is_better else 1
    return sorted(means, key=lambda label: sign * sum(means[label]) / max(1, len(means[label])))


def _filters(a: Analysis, where: str) -> Filters:
    return next((cell_filters(a, cell.values) for cell in a.cells if cell.title == where), ())


def _sets(a: Analysis, places: Mapping[str, Sequence[Candidate]]) -> Table:
    columns = (
        Column("where", "where"),
        Column("size", "may be the best"),
        Column("unbeaten", "not beaten by any other"),
        Column("withheld", "beaten, but not ruled out", note="what speaks against their scores stands below"),
    )
    rows = []
    for where, found in places.items():
        unbeaten = [each for each in found if not each.beaten_by]
        kept = [each for each in found if each.beaten_by and each.may_be_best]
        names = (
            Entry(joined(map(a.display, _ordered(a, where, each)))) if each else dash("none")
            for each in (unbeaten, kept)
        )
        size = f"{len(unbeaten) + len(kept)} of {len(found)}"
        rows.append(Row((Entry(where), Entry(size), *names), filters=_filters(a, where)))
    caption = (
        "Each set holds the best loss with a probability of 95 % at least: a loss is left out where another is better "
        "beyond a simultaneous bound over all others (multiple comparisons with the best); sets of different cells are "
        "not corrected for each other. A loss whose scores may be too low (its search ended at the edge, say) is never "
        "left out."
    )
    return Table("best", "Confidence sets of the best", columns, tuple(rows), caption)


def _beaten(a: Analysis, places: Mapping[str, Sequence[Candidate]]) -> Table:
    unit = f" ({a.metric.difference_unit})" if a.metric.difference_unit else ""
    columns = (
        Column("where", "where"),
        Column("loss", "loss"),
        Column("may_be_best", "may be the best"),
        Column("beaten_by", "beaten by"),
        Column("by", f"by at least{unit}", "number"),
        Column("because", "not ruled out, because"),
    )
    rows = []
    for where, found in places.items():
        for each in found:
            word = "no" if not each.may_be_best else "not ruled out" if each.beaten_by else "yes"
            by = (
                Entry(a.metric.number(each.by), each.by)
                if each.beaten_by
                else dash("no other loss is shown to beat it")
            )
            because = "; ".join(each.withheld) if each.beaten_by else ""
            rows.append(
                Row(
                    (Entry(where), loss_entry(a, each.label), Entry(word), Entry(each.beaten_by), by, Entry(because)),
                    filters=(*_filters(a, where), *loss_filters(a, each.label)),
                )
            )
    caption = (
        "Bounds are one-sided and simultaneous over all other losses, since a loss is left out only for being worse; a "
        "two-sided interval of the same pair may still include 0."
    )
    return Table("best-losses", "What beats each loss", columns, tuple(rows), caption, folded=True)
