"""A search as plain data: all that its report is made of, without its runs.

It is kept as results/NAME/search.json and published as results/measured/searches/NAME.json.gz, of which the site makes
the same report.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from harness import records
from harness.analysis.stats import Comparison
from harness.compose import Composed
from harness.errors import UsageError, unknown
from harness.evolution.asked import OF_SWEEP, Asked
from harness.evolution.judged import Final, Judged
from harness.evolution.methods import Candidate, Proposal
from harness.evolution.search import Generation, Searched
from harness.metrics.declared import from_dict as metric_of
from harness.paths import MEASURED, RESULTS
from harness.plan import Run
from harness.records.store import whole, write_json

MADE = ("device_name", "torch", "commit")
FILE = "search.json"
FOLDER = "searches"


@dataclass(frozen=True)
class Kept:
    """A search that was judged, with what there is to say of it beside.

    Attributes:
        found: the search and its finals; of their runs nothing is kept, of its options only names and epochs.
        classes: how many the task has.
        given: the command line that it repeats.
        made: when its last run ended (``finished``), and on what (``device_name``, ``torch``, ``commit`` or None).
    """

    found: Judged
    classes: int
    given: tuple[str, ...]
    made: Mapping[str, Any]


def made(searched: Searched, finals: Mapping[str, list[Run]], results: Path = RESULTS) -> dict[str, Any]:
    """Return when the last run of the finals ended, and on what it was made, as `Kept.made` has it; where all of them
    failed, the last run of the references.
    """
    keys = [run.key for runs in finals.values() for run in runs]
    found = [records.read(key, results) for key in keys]
    if not any(found):  # one of cross-entropy, at least, was trained, or there is no search
        found = [records.read(key, results) for each in searched.references.values() for key in each.runs]
    last = max((each for each in found if each), key=lambda each: each["finished"])
    return {"finished": last["finished"][:10], **{name: last["env"][name] for name in MADE}}


def write(kept: Kept, results: Path = RESULTS) -> None:
    """Write a search beside its report."""
    write_json(results / kept.found.searched.asked.name / FILE, as_dict(kept))


def publish(name: str, results: Path = RESULTS) -> Path:
    """Put a search that has ended to the published evidence, and return its file.

    Raises:
        UsageError: no search of this name has ended here.
    """
    file = results / name / FILE
    if not file.is_file():
        ended = sorted(path.parent.name for path in results.glob(f"*/{FILE}"))
        if ended:
            raise unknown("search that has ended", name, ended)
        raise UsageError(f"no search has ended in {results}: python -m harness.evolution carries one out.")
    target = results / "measured" / FOLDER / f"{name}.json.gz"
    with whole(target) as out:
        out.write(gzip.compress(file.read_bytes(), mtime=0))
    return target


def published(folder: Path = MEASURED) -> list[str]:
    """Return the names of all published searches."""
    return sorted(path.name.removesuffix(".json.gz") for path in (folder / FOLDER).glob("*.json.gz"))


def read(name: str, folder: Path = MEASURED) -> Kept:
    """Return a published search."""
    return from_dict(json.loads(gzip.decompress((folder / FOLDER / f"{name}.json.gz").read_bytes())))


def as_dict(kept: Kept) -> dict[str, Any]:
    """Return a search as JSON holds it."""
    searched = kept.found.searched
    asked = {each.name: getattr(searched.asked, each.name) for each in fields(Asked)}
    base = asked.pop("base")
    asked.pop("options")  # where data lay and results went says nothing of the search
    return {
        "asked": {**asked, "choices": base.choices, "epochs": searched.asked.epochs},
        "command": [entry for entry in kept.given if not entry.startswith(OF_SWEEP)],
        "classes": kept.classes,
        "made": dict(kept.made),
        "metric": searched.metric.as_dict(),
        "trained": searched.trained,
        "failed": [list(each) for each in searched.failed],
        "references": {name: _candidate(each) for name, each in searched.references.items()},
        "generations": {
            name: [{"members": list(map(_candidate, each.members)), "refused": each.refused} for each in generations]
            for name, generations in searched.generations.items()
        },
        "finals": [{**asdict(each), "runs": ()} for each in kept.found.finals],
    }


def _candidate(each: Candidate) -> dict[str, Any]:
    return {"name": each.name, **asdict(each.proposal), "scores": each.scores}


def from_dict(content: Mapping[str, Any]) -> Kept:
    """Return a search as `as_dict` gave it."""
    asked = dict(content["asked"])
    base = Composed(asked.pop("choices"), {"trainer": {"epochs": asked.pop("epochs")}})
    searched = Searched(
        Asked(**asked, base=base, options={}),
        {name: list(map(_generation, range(len(each)), each)) for name, each in content["generations"].items()},
        {name: _candidate_of(each) for name, each in content["references"].items()},
        metric_of(content["metric"]),
        [(what, why) for what, why in content["failed"]],
        content["trained"],
    )
    finals = [_final(each) for each in content["finals"]]
    return Kept(Judged(searched, finals), content["classes"], tuple(content["command"]), content["made"])


def _generation(number: int, content: Mapping[str, Any]) -> Generation:
    return Generation(number, list(map(_candidate_of, content["members"])), Counter(content["refused"]))


def _candidate_of(content: Mapping[str, Any]) -> Candidate:
    proposal = Proposal(content["formula"], content["how"], tuple(content["parents"]))
    return Candidate(content["name"], proposal, list(content["scores"]))


def _final(content: Mapping[str, Any]) -> Final:
    numbers = {name: _number(content[name]) for name in ("searched", "chosen_by", "tested")}
    against = content["against"]
    if against is not None:
        known = {name: value if name == "seeds_needed" else _number(value) for name, value in against.items()}
        against = Comparison(**{**known, "because": ()})
    return Final(**{**content, **numbers, "against": against, "runs": ()})


def _number(value: Any) -> Any:
    """Return a value of JSON, in which a number that is not finite is null."""
    return float("nan") if value is None else value
