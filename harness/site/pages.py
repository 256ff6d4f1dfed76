"""The pages of the site, from facts alone."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from harness.analysis import found, gates
from harness.analysis.found import Found, Measured
from harness.catalogue import entries, tasks
from harness.catalogue import page as catalogue
from harness.catalogue.entries import LossEntry
from harness.catalogue.tasks import TaskFacts
from harness.records.store import write_text
from harness.site.claims import ClaimFacts
from harness.site.papers import Paper, papers
from harness.site.searches import SearchFacts
from harness.text import count, joined

HERE = Path(__file__).parent / "templates"
VERDICTS = ("better", "worse", "equivalent", "not decidable", "withheld")
ORDER = ("baseline", *VERDICTS)
TONES = {"not decidable": "undecided"}


def write(
    folder: Path, facts: Sequence[Found], claims: Sequence[ClaimFacts], searches: Sequence[SearchFacts] = ()
) -> Path:
    """Write every page but the reports, the ledger and the catalogue; return the first one.

    Args:
        folder: of the site.
        facts: what studies found.
        claims: what the ledger decided.
        searches: the searches for a loss whose reports the folder has.
    """
    losses = entries.entries()
    site = {
        "facts": {each.study: each for each in facts},
        "losses": {entry.id: entry for entry in losses},
        "tasks": tasks.tasks(losses, facts),
        "claims": claims,
        "measured": found.by_loss(facts),
        "papers": papers(claims, [*(each.study for each in facts), *(each.name for each in searches)]),
        "searches": searches,
    }
    environment = _environment() | site

    def render(name: str, template: str, **values: Any) -> None:
        root = "../" * name.count("/")
        write_text(folder / name, _templates().get_template(template).render(environment, root=root, **values))

    render("index.html", "index.html.j2")
    render("losses.html", "losses.html.j2")
    render("studies.html", "studies.html.j2")
    for entry in losses:
        pairs = sorted(site["measured"].get(entry.id, ()), key=lambda pair: ORDER.index(pair[1].verdict))
        own = [claim for claim in claims if entry.id in claim.losses]
        render(
            f"loss/{entry.id}.html", "loss.html.j2", entry=entry, pairs=pairs, own=own, calibrations=_calibration(pairs)
        )
    for task in site["tasks"]:
        render(f"task/{task.task}.html", "task.html.j2", task=task)
    for each in facts:
        own = [claim for claim in claims if claim.study == each.study]
        render(f"study/{each.study}.html", "study.html.j2", each=each, own=own, rows=_rows(each))
    for paper in site["papers"]:
        render(f"paper/{paper.id}.html", "paper.html.j2", paper=paper)
    write_text(folder / "site.css", catalogue.stylesheet() + (HERE / "site.css").read_text())
    index = json.dumps(
        _index(losses, site["tasks"], facts, claims, site["papers"], searches),
        ensure_ascii=False,
        separators=(",", ":"),
    )
    write_text(folder / "search.js", f"const INDEX = {index};\n{(HERE / 'search.js').read_text()}")
    write_text(folder / ".nojekyll", "")  # else a forge's pages may hide files whose names begin with _
    return folder / "index.html"


def way_back(root: str) -> str:
    """Return a line of links to the site's main pages, for pages that have a style of their own.

    Args:
        root: relative address of the site's folder.
    """
    return _templates().get_template("way_back.html.j2").render(root=root)


@functools.cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader([HERE, Path(catalogue.__file__).parent]), autoescape=True, trim_blocks=True,
        lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip


def _environment() -> dict[str, Any]:
    return {
        "count": count,
        "joined": joined,
        "verdicts": VERDICTS,
        "tone": lambda verdict: TONES.get(verdict, verdict),
        "card": catalogue.card,
        "linked": catalogue.linked,
        "counted": found.counted,
        "obstacles": found.obstacles,
        "why": _why,
    }


def _why(measured: Measured) -> str:
    """Return what a reader must know beside a verdict: why it is withheld, or what would decide; failures."""
    said = []
    if measured.because:
        said.append(gates.summary(measured.because))
    elif measured.verdict == "not decidable":
        needed = measured.seeds_needed
        said.append(f"about {needed:,} seeds would decide" if needed else "more than 10,000 seeds would be needed")
    return "; ".join([*said, *filter(None, [measured.failures])])


def _rows(each: Found) -> list[tuple[str, str, bool, Mapping[str, Measured]]]:
    """Return the losses of a study with what was found in each cell: option, label, whether it is the baseline, and
    facts by cell; the baseline first, then those better somewhere, and last those worse somewhere.
    """
    by_label: dict[str, dict[str, Measured]] = {}
    for one in each.measured:
        by_label.setdefault(one.label, {})[one.cell] = one
    rows = [(next(iter(own.values())).loss, label, label == each.baseline, own) for label, own in by_label.items()]
    return sorted(rows, key=lambda row: (not row[2], _rank(row[3])))


def _rank(own: Mapping[str, Measured]) -> int:
    found_here = {one.verdict for one in own.values()}
    order = ("better", "worse", "equivalent", "not decidable", "withheld", "baseline")
    first = min(order.index(verdict) for verdict in found_here)
    return len(order) if order[first] == "worse" else first


def _calibration(pairs: Sequence[tuple[Found, Measured]]) -> list[tuple[Found, Measured, float | None]]:
    """Return where a loss has a calibration error, each with that of the baseline in the same cell."""
    known = []
    for each, one in pairs:
        if one.calibration is not None:
            base = [other for other in each.measured if other.cell == one.cell and other.label == each.baseline]
            known.append((each, one, base[0].calibration if base and one.verdict != "baseline" else None))
    return known


def _index(
    losses: Sequence[LossEntry],
    known: Sequence[TaskFacts],
    facts: Sequence[Found],
    claims: Sequence[ClaimFacts],
    publications: Sequence[Paper],
    searches: Sequence[SearchFacts],
) -> list[tuple[str, str, str, str]]:
    """Return what can be searched for: title, kind, address in the site, and further words, in lower case."""
    found_by = [
        (
            entry.about.name,
            f"loss · {entry.id}",
            f"loss/{entry.id}.html",
            " ".join([entry.id, *entry.about.aliases, entry.about.family, entry.about.paper, *entry.tasks]).lower(),
        )
        for entry in losses
    ]
    found_by += [(task.title, "task", f"task/{task.task}.html", task.task) for task in known]
    found_by += [
        (each.question or each.study, f"study · {each.study}", f"study/{each.study}.html", each.study) for each in facts
    ]
    found_by += [
        (each.question, f"search for a loss · {each.name}", f"report/{each.name}/index.html", each.name)
        for each in searches
    ]
    found_by += [(each.document, "publication", f"paper/{each.id}.html", each.short.lower()) for each in publications]
    found_by += [
        (
            claim.says,
            f"claim · {claim.verdict}",
            f"ledger/index.html#{claim.id}",
            f"{claim.id} {claim.document}".lower(),
        )
        for claim in claims
    ]
    return found_by
