"""Builds the site: works out what changed since the last time, and writes every page.

A study is worked out and reported again where its evidence or the code changed; else what the folder holds is kept.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from harness.analysis import deciding, found
from harness.analysis.cells import Analysis
from harness.analysis.found import Found
from harness.catalogue import page as catalogue
from harness.evolution import kept as searched
from harness.evolution.kept import Kept as Search
from harness.paths import CONF, ROOT
from harness.records.store import write_json, write_text
from harness.report import ledger, writing
from harness.site import claims, pages, searches
from harness.site.claims import ClaimFacts

KEPT = "facts.json"
"""In the site's folder: the facts of its pages, and of which evidence and code they are."""
CODE = (".py", ".yaml", ".j2", ".css", ".js")


def write(folder: Path, studies: Sequence[str] | None = None, say: Callable[[str], None] = print) -> Path:
    """Write the site of all published evidence and return its first page.

    Args:
        folder: gets index.html, loss/, task/, study/, paper/, report/, ledger/, catalogue.html and search.js.
        studies: names of published studies; None: all of them, and all published searches for a loss.
        say: is given a line about each study that is worked out.
    """
    with tempfile.TemporaryDirectory() as scratch:
        analyses = Analyses(Path(scratch))
        names = found.studies() if studies is None else studies
        every = list(map(searched.read, searched.published())) if studies is None else []
        return compose(folder, names, analyses, code(), say, every)


class Analyses:
    """The analyses of published studies by name, each worked out when first asked for."""

    def __init__(self, scratch: Path) -> None:
        self._scratch, self._known = scratch, dict[str, Analysis]()

    def __call__(self, study: str) -> Analysis:
        """Return the analysis of a study on its published evidence."""
        if study not in self._known:
            self._known[study] = found.analysis(study, self._scratch)
        return self._known[study]

    def digest(self, study: str) -> str:
        """Return what identifies its evidence."""
        return found.digest(study)


def compose(
    folder: Path,
    studies: Sequence[str],
    analyses: Analyses,
    made_by: str,
    say: Callable[[str], None],
    every_search: Sequence[Search] = (),
) -> Path:
    """Write the site of these studies; arguments as of :func:`write`.

    Args:
        folder: of the site.
        studies: their names.
        analyses: gives the analysis of each, and the digest of its evidence.
        made_by: identifies the code; what the folder holds is kept where neither this nor the evidence changed.
        say: is given a line about each study that is worked out.
        every_search: the searches for a loss to show.
    """
    kept = Kept(folder / KEPT, made_by)
    facts = []
    for study in studies:
        digest = analyses.digest(study)
        known = kept.found(study, digest)
        if known is None or not (folder / "report" / study / "index.html").exists():
            say(f"{study}: working out its report")
            analysis = analyses(study)
            known = found.summarise(analysis, digest)
            made = replace(
                writing.compose(analysis.study), runs_at=""
            )  # the dashboard of this machine is none of others
            _with_way_back(writing.save(made, folder / "report" / study))
            kept.keep(known)
        facts.append(known)
    decided = kept.claims(facts)
    if decided is None or not (folder / "ledger" / "index.html").exists():
        say("the ledger of claims")
        decided = _write_ledger(folder / "ledger", studies, analyses)
        kept.keep_claims(facts, decided)
    _with_way_back(catalogue.write(folder / "catalogue.html", facts), "")
    listed = []
    for each in every_search:
        of_search, page = searches.write(folder, each)
        _with_way_back(page)
        listed.append(of_search)
    return pages.write(folder, facts, decided, listed)


def _write_ledger(folder: Path, studies: Sequence[str], analyses: Analyses) -> tuple[ClaimFacts, ...]:
    """Write the ledger's page, and return its claims."""
    asked = dict[str, Analysis]()

    def recorded(name: str) -> Analysis | None:
        if name not in studies:
            return None
        asked[name] = analyses(name)
        return asked[name]

    decisions = deciding.ledger(recorded)
    _with_way_back(writing.save(ledger.compose(decisions, asked), folder), "../")
    return claims.facts(decisions)


def _with_way_back(page: Path, root: str = "../../") -> None:
    """Put a line above a page that stands by itself elsewhere, which leads back to the site."""
    text = page.read_text()
    write_text(page, text.replace("<body>", f"<body>\n{pages.way_back(root)}", 1))


class Kept:
    """What an earlier build left in the site's folder, believed where evidence and code are the same."""

    def __init__(self, file: Path, made_by: str) -> None:
        self._file = file
        content = json.loads(file.read_text()) if file.exists() else {}
        same = content.get("made_by") == made_by
        self._content = content if same else {"made_by": made_by, "studies": {}, "claims": None}

    def found(self, study: str, digest: str) -> Found | None:
        """Return the facts of a study if they are of this evidence."""
        kept = self._content["studies"].get(study)
        return found.from_dict(kept) if kept and kept["digest"] == digest else None

    def keep(self, facts: Found) -> None:
        """Keep the facts of a study."""
        self._content["studies"][facts.study] = asdict(facts)
        write_json(self._file, self._content)

    def claims(self, facts: Iterable[Found]) -> tuple[ClaimFacts, ...] | None:
        """Return the claims if they were decided on the same evidence."""
        kept = self._content["claims"]
        if kept is None or kept["of"] != _evidence(facts):
            return None
        return tuple(map(claims.from_dict, kept["claims"]))

    def keep_claims(self, facts: Iterable[Found], decided: Sequence[ClaimFacts]) -> None:
        """Keep the claims, decided on the evidence of these studies."""
        self._content["claims"] = {"of": _evidence(facts), "claims": list(map(asdict, decided))}
        write_json(self._file, self._content)


def _evidence(facts: Iterable[Found]) -> Mapping[str, str]:
    return {each.study: each.digest for each in facts}


def code() -> str:
    """Return what identifies the code and configuration of this checkout on which reports and verdicts depend: all of
    it but the rooms that write the site's own pages, which are written every time.
    """
    content, own = hashlib.sha256(), (ROOT / "harness" / "site", ROOT / "harness" / "catalogue")
    for folder in (ROOT / "harness", ROOT / "losses", ROOT / "datasets", CONF):
        for path in sorted(path for path in folder.rglob("*") if path.suffix in CODE and path.parents[0] not in own):
            content.update(path.relative_to(folder.parent).as_posix().encode() + path.read_bytes())
    return content.hexdigest()[:16]
