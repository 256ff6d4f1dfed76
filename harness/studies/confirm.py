"""Published evidence under today's code: a sample of its runs is repeated, and if all agree, evidence keeps its keys.

Losses, models and data sets have fingerprints, which carry evidence over edits that change nothing. Tasks, trainers,
optimizers, stresses and shifts have none: any edit of theirs gives the same runs new keys. If runs that use the edited
code give the published numbers again, the journal says so, and the keys are the published ones again.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import behaviour, compose, hardware, journal, plan, records
from harness.address import Addresses, RunSpec, key_of, setting_hash
from harness.behaviour import FINGERPRINTED, Part
from harness.engines.local import LocalEngine
from harness.errors import UsageError
from harness.paths import RESULTS
from harness.plan import Run, Setting, Study
from harness.records import evidence, items
from harness.records.evidence import Evidence
from harness.records.store import STATUSES
from harness.studies import search
from harness.studies.sweep import describe, job_of

if TYPE_CHECKING:
    import numpy as np

TOLERANCE = 1e-6
"""How far a repeated number may be from the published one, relative to it."""
DIGITS = 6
"""Numbers published with no more significant digits than these are compared as they were rounded."""
OF_LOCAL = ("workers", "per_device", "retries", "timeout")
"""Settings of the local engine: the folder that runs are repeated in is this machine's own."""
HARDWARE = ("device", "threads")
Row = Mapping[str, Any]
CODE = "identity.code."
Code = tuple[str, str]  # a component and the hash of its settings


@dataclass(frozen=True)
class Confirmation:
    """What `confirm` found.

    Attributes:
        study: its name.
        today: how many published runs are of today's code already.
        repeated: the runs that were repeated, by what they were called, with their published keys.
        differences: what they did not give again, a sentence each; nothing was changed unless there are none.
        confirmed: how many more are now.
        left: how many are not, by reason.
    """

    study: str
    today: int
    repeated: Mapping[str, str]
    differences: Sequence[str]
    confirmed: int
    left: Mapping[str, int]

    def __str__(self) -> str:
        lines = [f"{self.study}: {self.today} published runs are of today's code."]
        if self.repeated:
            lines.append(f"{len(self.repeated)} were repeated: {'; '.join(self.repeated.values())}.")
        if self.differences:
            lines += [*self.differences, "Nothing was changed: the code does something else, so run the study again."]
        elif self.repeated:
            lines.append(f"All agree, so that {self.confirmed} more are of today's code now.")
        return "\n".join([*lines, *(f"{count} are left: {reason}." for reason, count in self.left.items())])


@dataclass(frozen=True)
class _Known:
    """A published run of a planned setting: what its code was, and what it is today.

    ``changed`` are the published identities of components that have another one today, or settings that they did not
    have, by component and hash of its settings.
    """

    row: Row
    run: Run
    parts: Mapping[str, Part]
    changed: Mapping[Code, str]

    @property
    def used(self) -> frozenset[Code]:
        """All components of the run."""
        return frozenset((name, part.identity) for name, part in self.parts.items())


def confirm(name: str, runs: int = 6, options: Iterable[str] = (), results: Path = RESULTS) -> Confirmation:
    """Repeat a sample of the published runs of a study whose keys an edit has changed; if every one gives the published
    metrics and scores on test items, enter today's syntax trees of the components without fingerprint into the journal
    beside the evidence, with the published identity. What a fingerprint has decided is entered, too.

    Args:
        name: of the study.
        runs: at most so many are repeated, chosen to use every changed component at least once; those that none of them
            uses stay as they are.
        options: overrides of conf/run.yaml, such as ``data.root=DIR``.
        results: working output.

    Raises:
        UsageError: the study is not published, or cannot be planned.
    """
    published = evidence.find(name, records.evidence_folders(results))
    if published is None:
        raise UsageError(f"the study {name} is not published: there is nothing to confirm.")
    config = compose.compose_run(list(options)).config
    addresses = Addresses(Path(config["data"]["root"]), results)
    known, left = _known(published, addresses, hardware.device_type(config["device"]))
    candidates, reasons = _confirmable([one for one in known if one.changed], published.folder, addresses)
    today = len(known) - len(candidates) - reasons.total()
    sample = _sample(candidates, runs)
    covered = {code for one in sample for code in one.changed}
    whole = [one for one in candidates if set(one.changed) <= covered]
    left += reasons
    left["no repeated run uses their code; repeat more (--runs)"] += len(candidates) - len(whole)
    differences = _repeat(sample, published, config, addresses) if sample else []
    entries = [*([] if differences else _entries(sample, name)), *_decided(known, published.folder)]
    for entry in entries:
        journal.append(published.folder / behaviour.NAME, entry)
    told = {str(one.row["key"]): describe(job_of(one.run, config, results, addresses)) for one in sample}
    return Confirmation(name, today, told, differences, 0 if differences else len(whole), +left)


def _known(published: Evidence, addresses: Addresses, device: str) -> tuple[list[_Known], Counter[str]]:
    """Return the published runs whose settings are planned today, and how many others there are, by reason."""
    asked, left, found = published.spec, Counter[str](), list[_Known]()
    finished = published.rows["status"].isin(STATUSES)
    rows: list[Any] = published.rows[finished].to_dict("records")
    study = plan.read_study(asked.get("study") or published.name, asked.get("overrides") or ())
    planned = _planned(study, list({row["setting"]: row for row in rows}.values()))
    for row in rows:
        if row["setting"] not in planned:
            left["their setting is not planned today"] += 1
            continue
        if row["env.device"] != device:
            left[f"they ran on another kind of device than {device}"] += 1
            continue
        setting, identity = _as_run(planned[row["setting"]], row), _identity(row)
        spec, seed = setting.spec, int(row["seed"])
        parts = {part.component: part for part in addresses.parts(spec)}
        then = _as_published(spec, row)
        added = {name for name, value in then.content.items() if value != spec.content[name]}
        if key_of(then.content, identity, seed) != row["key"]:
            left["what is published of them does not lead to their key"] += 1
        elif identity["data"] != addresses.content(spec):
            left["the files of their data set are others here, or absent"] += 1
        elif parts.keys() != identity["code"].keys() or added - parts.keys():
            left["they use other components today"] += 1
        else:
            run = Run(addresses.keys(spec, [seed])[0], setting, seed, int(row["pair_seed"]))
            found.append(_Known(row, run, parts, _changed(parts, identity["code"], added, addresses)))
    return found, left


def _changed(
    parts: Mapping[str, Part], code: Mapping[str, str], added: Set[str], addresses: Addresses
) -> dict[Code, str]:
    """Return which components are others than published: by identity, or by a setting that nobody has confirmed yet."""
    known = addresses.behaviours.known
    return {
        (name, part.spec): code[name]
        for name, part in parts.items()
        if part.identity != code[name] or (name in added and part.tree not in known.get((name, part.spec), {}))
    }


def _planned(study: Study, rows: Sequence[Row]) -> dict[str, Setting]:
    """Return the planned settings by the hash under which they were published, at all values that a search tried or
    chose for published runs.
    """
    found: dict[str, Setting] = {}
    for setting in plan.settings(study):
        paths = {"fixed": (), "lr": (search.RATE,)}.get(study.track) or search.space_of(setting, study)
        for row in rows:
            if row["label"] == setting.label:
                at = setting.at({path: _like(setting.spec.value(path), row.get(f"config.{path}")) for path in paths})
                then = _as_published(at.spec, row)
                if then.content.keys() == at.spec.content.keys():  # a run without stress is none of one with it
                    found[setting_hash(then)] = at
    return found


def _as_published(spec: RunSpec, row: Row) -> RunSpec:
    """Return a spec without the settings that the published run does not have, because they came later."""
    return replace(
        spec,
        **{name: _known_then(v, row, f"config.{name}.") for name, v in spec.content.items() if name not in HARDWARE},
    )


def _known_then(config: Mapping[str, Any], row: Row, path: str) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, value in config.items():
        then = row.get(f"{path}{name}")
        if isinstance(value, Mapping) and value:
            kept[name] = _known_then(value, row, f"{path}{name}.")
        elif value is None or isinstance(value, Mapping) or (then is not None and then == then):
            kept[name] = value  # what is empty stands in no table
    return kept


def _like(default: Any, published: Any) -> Any:
    """Return a published value in the type that it has in a config: tables hold whole numbers as floats."""
    return int(published) if type(default) is int and published == published else published


def _as_run(setting: Setting, row: Row) -> Setting:
    """Return a setting in the role and on the hardware of a published run."""
    device = row["env.device"]
    threads = int(row["env.threads"]) if device == "cpu" else None
    return replace(setting, role=row["role"], spec=replace(setting.spec, device=device, threads=threads))


def _identity(row: Row) -> dict[str, Any]:
    """Return what the key of a published run covers beyond its spec, as `harness.address.Addresses.identity` does."""
    given = {name: value for name, value in row.items() if value == value and value is not None}
    code = {name.removeprefix(CODE): value for name, value in given.items() if name.startswith(CODE)}
    return {"data": given.get("identity.data"), "code": code}


def _confirmable(known: Sequence[_Known], folder: Path, addresses: Addresses) -> tuple[list[_Known], Counter[str]]:
    """Return the runs whose code may get the published identity, and how many others there are, by reason.

    One tree has one identity: where evidence of one code has several, the commonest is meant, and a tree that other
    evidence goes by keeps its own. Where a fingerprint has decided, nothing else does.
    """
    seen: dict[Code, Counter[str]] = {}
    for one in known:
        for code, identity in one.changed.items():
            seen.setdefault(code, Counter())[identity] += 1
    meant = {code: min(found, key=lambda each: (-found[each], each)) for code, found in seen.items()}
    taken, found, left = _identities(folder), list[_Known](), Counter[str]()
    known_here = addresses.behaviours.known
    for one in known:
        tried = sorted(name for name, spec in one.changed if name in FINGERPRINTED and known_here.get((name, spec)))
        trees = {part.tree for name, part in one.parts.items() if meant.get((name, part.spec), part.tree) != part.tree}
        if tried:
            left[f"their {tried[0]} does something else today, or has run here since"] += 1
        elif any(meant[code] != identity for code, identity in one.changed.items()):
            left["more runs are of another, later or earlier, code"] += 1
        elif trees & taken:
            left["other evidence goes by today's code"] += 1
        else:
            found.append(one)
    return found, left


def _identities(folder: Path) -> set[str]:
    """Return every identity of code that evidence in a folder goes by."""
    found: set[str] = set()
    for path in folder.glob("*.json"):
        published = evidence.find(path.stem, [folder])
        if published is not None:
            rows = published.rows
            for column in rows:
                if str(column).startswith(CODE):
                    found.update(map(str, rows[column].dropna().unique()))
    return found


def _sample(candidates: Sequence[_Known], runs: int) -> list[_Known]:
    """Return at most so many runs that together use as much of the code as they can: what changed first, and of runs
    that use equally much the cheapest.
    """
    sample: list[_Known] = []
    changed, used = set[Code](), set[Code]()
    left = list(candidates)
    while left and len(sample) < runs:
        best = min(left, key=lambda one: (*_gain(one, changed, used), *_price(one), one.run.key))
        if _gain(best, changed, used) == (0, 0):
            break
        sample.append(best)
        left.remove(best)
        changed |= best.changed.keys()
        used |= best.used
    return sample


def _gain(one: _Known, changed: set[Code], used: set[Code]) -> tuple[int, int]:
    """Return minus how many changed components, and components at all, a run uses that are not yet in use."""
    return -len(one.changed.keys() - changed), -len(one.used - used)


def _price(one: _Known) -> tuple[bool, float]:
    """Return what a run costs: whether it is a trial, of which no scores on test items are published, and seconds."""
    cost = one.row.get("cost.wall_s")
    return "search" in one.row["role"], 0.0 if cost is None or cost != cost else cost


def _repeat(
    sample: Sequence[_Known], published: Evidence, config: Mapping[str, Any], addresses: Addresses
) -> list[str]:
    """Carry out runs anew, in a folder that is deleted afterwards; return what they do not give again."""
    engine = {name: config["engine"][name] for name in OF_LOCAL if name in config["engine"]}
    device, found = sample[0].run.setting.spec.device, list[str]()
    with tempfile.TemporaryDirectory() as folder, LocalEngine(device, config["threads"], **engine) as pool:
        jobs = [job_of(one.run, config, Path(folder), addresses) for one in sample]
        for event in pool.run(jobs):
            if event.kind == "finished":
                print(f"repeated {describe(event.job)}", flush=True)
        machines = set()
        for one, job in zip(sample, jobs, strict=True):
            again, arrays = records.read(one.run.key, Path(folder)), items.load(Path(job.folder))
            before = published.item_arrays.get(str(one.row["key"]))
            for difference in (*_other_numbers(one.row, again), *_other_items(before, arrays)):
                found.append(f"{describe(job)} ({one.row['key']}): {difference}.")
                machines.add((one.row.get("env.device_name"), again["env"].get("device_name") if again else None))
    found += [
        f"They were published on {before} and repeated on {now}, which may round otherwise."
        for before, now in sorted(machines, key=str)
        if before and now and before != now
    ]
    return found


def _other_numbers(row: Row, again: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield which metrics a repeated run does not give again, a few words each."""
    if again is None or again["status"] != row["status"]:
        yield f"it is {'lost' if again is None else again['status']}, published as {row['status']}"
        return
    now = records.flat({name: again.get(name) for name in ("test", "valid", "shifted")})
    for name, before in row.items():
        if name.startswith(("test.", "valid.", "shifted.")) and isinstance(before, int | float) and before == before:
            value = now.get(name)
            if value is None or not (
                abs(value - before) <= TOLERANCE * abs(before) or float(f"{value:.{DIGITS}g}") == before
            ):
                yield f"{name} is {value}, published as {before}"


def _other_items(before: Mapping[str, np.ndarray] | None, now: Mapping[str, np.ndarray] | None) -> Iterator[str]:
    """Yield which arrays of item scores a repeated run does not give again, as far as they were published."""
    import numpy as np

    for name, values in (before or {}).items():
        again = (now or {}).get(name)
        if again is None or again.shape != values.shape:
            yield f"{name} has another shape, or is missing"
        elif not np.allclose(again, values, rtol=TOLERANCE, atol=0, equal_nan=True):
            yield f"{name} of test items differs"


def _decided(known: Iterable[_Known], folder: Path) -> list[dict[str, Any]]:
    """Return entries for the code that a fingerprint has found to be the published one, so that nobody who plans the
    study has to try it out (and import torch) again.
    """
    there = {
        tuple(entry.get(name) for name in ("component", "spec", "tree"))
        for entry in journal.entries(folder / behaviour.NAME)
    }
    parts = {
        (name, part.spec, part.tree): part.identity
        for one in known
        for name, part in one.parts.items()
        if name in FINGERPRINTED and (name, part.spec) not in one.changed and part.tree != part.identity
    }
    return [
        {"component": name, "spec": spec, "tree": tree, "identity": identity}
        for (name, spec, tree), identity in parts.items()
        if (name, spec, tree) not in there
    ]


def _entries(sample: Sequence[_Known], study: str) -> list[dict[str, Any]]:
    """Return what the journal is to say of the code that a sample of runs has confirmed."""
    by: dict[tuple[str, str, str, str], list[str]] = {}
    for one in sample:
        for (name, spec), identity in one.changed.items():
            by.setdefault((name, spec, one.parts[name].tree, identity), []).append(str(one.row["key"]))
    names = ("component", "spec", "tree", "identity")
    return [
        {**dict(zip(names, what, strict=True)), "confirmed": {"study": study, "runs": keys}}
        for what, keys in by.items()
    ]
