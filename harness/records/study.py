"""The records of a study as tables: what was planned, what each run left, and what was published.

results/<study>/study.json       the study as it was asked
results/<study>/runs.csv         its runs: key, role, label, seed, ...
results/<study>/records.index    what their records say, only to be quicker (see harness.records.index)
results/measured/<study>.json    the same evidence as flat rows, committed (see harness.records.evidence)
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import plan
from harness.address import canonical
from harness.errors import UsageError
from harness.metrics.declared import Metric, from_dict
from harness.paths import MEASURED, RESULTS
from harness.plan import Run, Study, as_dict
from harness.records import evidence, index
from harness.records.evidence import Evidence, parsed, read_csv
from harness.records.outdated import outdated
from harness.records.store import (
    GARBLED,
    KEY,
    STATUSES,
    brief,
    damaged,
    finished,
    flat,
    read,
    run_folder,
    say,
    write_json,
    write_text,
)
from harness.text import all_visible, visible

if TYPE_CHECKING:  # importing it takes longer than planning ten thousand runs
    import numpy as np
    import pandas as pd

UNLISTED = ("choices", "schema", "digest", "behaviour")  # what tables of records leave out
LISTED = ("key", "role", "label", "seed", "pair_seed", "setting")


class NoRecords(UsageError):
    """There is neither a local nor a published study of a name."""


def _no_arrays(key: str) -> None:
    """Return that a run kept no scores of test items."""


@dataclass(frozen=True)
class StudyData:
    """Everything a report needs.

    Attributes:
        name: the study's address in results/.
        spec: the study as it was asked.
        runs: one row per planned run.
        history: one row per run and epoch.
        metrics: what the tasks of the runs declared, the one that selects epochs first; empty for older evidence.
        arrays: gives what a run, by its key, scored on every test item, named ``<test set>/<name>``; None: not kept.
    """

    name: str
    spec: dict[str, Any]
    runs: pd.DataFrame
    history: pd.DataFrame
    metrics: tuple[Metric, ...] = ()
    arrays: Callable[[str], Mapping[str, np.ndarray] | None] = _no_arrays

    def item_scores(self, key: str, metric: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Return what a run scored on every test item: ids of the items, int32 (n,), and scores, float64 (n,), whose
        mean is the run's metric (see `harness.metrics.items`); None where that was not kept or has no such scores.

        Args:
            key: of the run.
            metric: as a column of ``runs``, such as ``test.top1``.
        """
        from harness.metrics.items import scores
        from harness.records import items

        test_set, _, name = metric.rpartition(".")
        arrays = items.of_test_set(self.arrays(key) or {}, test_set)
        try:
            found = scores(name, arrays) if arrays else None
            return None if found is None else (arrays["item"], found)
        except (IndexError, *GARBLED) as error:
            say(f"what the run {key} scored on test items is damaged ({brief(error)}): the report does without.")
            return None


def write_study(study: Study, runs: Sequence[Run], results: Path = RESULTS) -> None:
    """Write what a study asked and which runs answer it.

    Where seeds were added by hand to a list whose runs were all finished, so that a report may have been read, its
    study.json keeps under ``looks`` how many seeds there were each time.

    Raises:
        UsageError: the name belongs to a sweep that asked something else.
    """
    folder = results / study.name
    _check_name(study, folder / "study.json")
    write_json(folder / "study.json", as_dict(study) | {"looks": _looks(study, runs, results)})
    rows = [
        {
            **dict(zip(LISTED, (run.key, s.role, s.label, run.seed, run.pair_seed, s.hash), strict=True)),
            **s.choices,
            "track": study.track,
            "lr": s.spec.optimizer["lr"],
            **{f"axis.{key}": value for key, value in s.axes.items()},
        }
        for run in runs
        for s in (run.setting,)
    ]
    table = io.StringIO()
    writer = csv.DictWriter(table, list(dict.fromkeys(itertools.chain(*rows))), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder / "runs.csv", table.getvalue())


def _looks(study: Study, runs: Sequence[Run], results: Path) -> list[int]:
    """Return at which numbers of seeds a report of the compared runs could be made before this list.

    Runs that were repeated since, under other settings or code, were looked at no more than new ones. A study that goes
    on until all is decided is looked at after every seed anyway.
    """
    folder = results / study.name
    try:
        before = json.loads((folder / "study.json").read_text())
        with (folder / "runs.csv").open(newline="") as file:
            listed = {row["key"]: row["role"] for row in csv.DictReader(file)}
        seeds, looks = len(before["axes"]["seed"]), list(before.get("looks", ()))
    except (OSError, ValueError, KeyError, TypeError):
        return []
    if study.until or listed.keys().isdisjoint(run.key for run in runs):
        return []
    compared = {key for key, role in listed.items() if role == "run"}  # none while a search goes on
    seen = compared and seeds < len(study.seeds) and compared <= finished(results)
    return [*looks, seeds] if seen else looks


def _check_name(study: Study, file: Path) -> None:
    """Refuse to replace the list and the report of another sweep."""
    try:
        before = json.loads(file.read_text())
        asked = before["study"], sorted(before["overrides"])
    except (OSError, ValueError, KeyError, TypeError):
        return  # nothing is there, or nothing that can be lost
    if asked != (study.study, sorted(study.overrides)):
        earlier = " ".join([f"study={asked[0]}", *asked[1]])
        raise UsageError(f"the name {study.name} belongs to the sweep {earlier}: choose another one with name=NAME.")


def load_study(name: str, results: Path = RESULTS, *, mix: bool = False) -> StudyData:
    """Read a study's records, local and measured alike. Of damaged files `store.damaged` tells; the rest is read.

    Measured rows count when their setting is one of the study's (any, if the study was never run here).

    Args:
        name: its address in results/.
        results: where working output lies.
        mix: accept runs on different content of one data set.

    Raises:
        NoRecords: there is neither a local nor a published study of this name.
        UsageError: all that there is of it is damaged, or its runs cannot be compared.
    """
    listed = results / name / "runs.csv"
    local, epochs = _local(listed, results) if listed.exists() else (evidence.empty(), evidence.empty())
    published, measured = _published(name, results)
    if local.empty and measured.empty:
        raise _nothing(name, results)
    if not local.empty and not measured.empty:
        local, measured = _answers(local, measured)
    elif not measured.empty:
        measured = measured.assign(old=outdated(measured, name, results))
    declared = distinct([*_declared(local), *(published.metrics if published else ())])
    local = local.drop(columns="metrics", errors="ignore")
    runs = _together([local, measured])
    if not mix:
        check_content(name, runs)
    own = set(runs.loc[runs["source"] == "local", "key"])
    history = [epochs_of(epochs, own)]
    if published:
        history.append(epochs_of(published.history, set(runs["key"]) - own))

    def arrays(key: str) -> Mapping[str, np.ndarray] | None:
        from harness.records import items

        if key in own:
            return items.load(run_folder(key, results))
        return published.item_arrays.get(key) if published else None

    return defused(StudyData(name, _spec(name, results, published), runs, _epochs(history), declared, arrays))


def defused(study: StudyData) -> StudyData:
    """Return a study whose texts are visible (`harness.text.visible`), however they came into its records: what makes
    tables, figures, pages and tags of them need not look again.
    """
    changed = {}
    for column in study.runs:
        texts = (value for value in study.runs[column].unique() if isinstance(value, str))
        lines = column == "traceback"
        if found := {text: seen for text in texts if (seen := visible(text, lines=lines)) != text}:
            changed[column] = study.runs[column].map(lambda value, found=found: found.get(value, value))
    runs = study.runs.assign(**changed).rename(columns=lambda name: visible(str(name)))
    return replace(study, runs=runs, spec=all_visible(study.spec))


def _published(name: str, results: Path) -> tuple[Evidence | None, pd.DataFrame]:
    """Return the evidence of a study and its rows; none where it is damaged, which is then said."""
    try:
        found = evidence.find(name, evidence_folders(results))
        return found, found.rows if found else evidence.empty()
    except (UsageError, *GARBLED) as error:
        say(str(error))
        return None, evidence.empty()


def damaged_of(name: str, keys: Iterable[str]) -> list[str]:
    """Return what is said of damaged files of a study and its runs, a sentence each."""
    own = {name, *keys}
    words = r"[/.\s]|_(?:settings|unfinished|history|items)"
    return [sentence for sentence in damaged if not own.isdisjoint(re.split(words, sentence))]


def _nothing(name: str, results: Path) -> UsageError:
    if trouble := damaged_of(name, ()):
        return UsageError(trouble[-1])
    known = sorted(path.parent.name for path in results.glob("*/runs.csv"))
    known += sorted(path.stem for folder in evidence_folders(results) for path in folder.glob("*.json"))
    return NoRecords(
        f"no records of a study '{name}': run python -m harness study={name} first"
        + (f" (there are records of {', '.join(dict.fromkeys(known))})." if known else ".")
    )


def _together(frames: Iterable[pd.DataFrame]) -> pd.DataFrame:
    import pandas as pd

    filled = [frame for frame in frames if not frame.empty]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame()


def _epochs(frames: Iterable[pd.DataFrame]) -> pd.DataFrame:
    found = _together(frames)
    return found if len(found) else found.reindex(columns=["key", "epoch"])


def epochs_of(epochs: pd.DataFrame, keys: Set[str]) -> pd.DataFrame:
    """Return the epochs of the runs with these keys."""
    return epochs if epochs.empty else epochs[epochs["key"].isin(keys)]


def _answers(local: pd.DataFrame, measured: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return one row for every run of a study: its own record, else the evidence, where that is of its setting.

    Evidence under another key was made by other code, or on another kind of machine, than is planned here: it stands in
    for a run that is missing, marked as ``old``.
    """

    import pandas as pd

    def runs_of(rows: pd.DataFrame) -> pd.Series:
        named = zip(rows["setting"], rows["role"], rows["seed"], strict=True)
        return pd.Series([f"{setting} {role} {seed:.0f}" for setting, role, seed in named], index=rows.index, dtype=str)

    answered = local[local["status"] != "missing"]
    measured = measured[measured["status"].isin(STATUSES)]
    measured = measured[measured["setting"].isin(local["setting"]) & ~runs_of(measured).isin(runs_of(answered))]
    measured = measured.assign(old=~measured["key"].isin(local["key"]))
    missing = local[(local["status"] == "missing") & ~runs_of(local).isin(runs_of(measured))]
    return local.loc[sorted([*answered.index, *missing.index])], measured


def check_content(name: str, *tables: pd.DataFrame) -> None:
    """Check that runs on one data set, equally set, saw the same files.

    Args:
        name: what is compared, for the message.
        tables: rows of records; those from before content was recorded count as any.

    Raises:
        UsageError: they did not.
    """
    found: dict[str, set[str]] = {}
    for runs in tables:
        if "identity.data" not in runs or "dataset" not in runs:
            continue
        settings = sorted(str(column) for column in runs if str(column).startswith("config.dataset."))
        known = runs.loc[runs["identity.data"].notna(), ["dataset", "identity.data", *settings]]
        for row in known.drop_duplicates().to_dict("records"):
            given = {column: row[column] for column in settings if row[column] == row[column]}  # not-a-number: not set
            contents = found.setdefault(canonical([row["dataset"], given]), set())
            contents.add(row["identity.data"])
            if len(contents) > 1:
                raise UsageError(
                    f"{name} has runs on different content of the data set {row['dataset']} "
                    f"({' and '.join(sorted(contents))}), which cannot be compared: run all on the same files."
                )


def evidence_folders(results: Path) -> tuple[Path, ...]:
    """Return where published evidence is looked for: beside the runs and, wherever the user's results go, in the
    checkout; a results folder of elsewhere is taken as it is.
    """
    return (results / "measured", MEASURED) if results == RESULTS else (results / "measured",)


def _spec(name: str, results: Path, given: Evidence | None) -> dict[str, Any]:
    path = results / name / "study.json"
    try:
        found = json.loads(path.read_bytes())
        if is_study(found):
            return found
        say(f"{path} is damaged (it asks nothing): the report takes the study's file instead.")
    except FileNotFoundError:
        pass
    except (OSError, *GARBLED) as error:
        say(f"{path} is damaged ({brief(error)}): the report takes the study's file instead.")
    return given.spec if given else as_dict(plan.read_study(name))


def is_study(spec: Any) -> bool:
    """Return whether this is a study as it was asked."""
    try:
        listed = [*spec["axes"].values(), spec.get("overrides", []), spec.get("exhibits", [])]
        words = [spec["baseline"], spec["metric"], *spec.get("overrides", [])]
    except (KeyError, TypeError, AttributeError):
        return False
    return all(isinstance(each, list) for each in listed) and all(isinstance(word, str) for word in words)


def _declared(local: pd.DataFrame) -> list[Metric]:
    """Return the metrics that records brought along, in their order: the column ``metrics`` holds them as JSON."""
    texts = local["metrics"].dropna().unique() if "metrics" in local else ()
    return [from_dict(metric) for text in texts for metric in json.loads(text)]


def distinct(metrics: Iterable[Metric]) -> tuple[Metric, ...]:
    """Return the first metric of each key."""
    found: dict[str, Metric] = {}
    for metric in metrics:
        found.setdefault(metric.key, metric)
    return tuple(found.values())


def _local(listed: Path, results: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the runs on a study's list with what their records say, and their epochs."""
    planned = read_list(listed)
    keys = [str(key) for key in planned.get("key", ())]
    state = index.state_of(listed.read_bytes(), keys, str(results / "runs"))
    return index.cached(listed.with_name(index.NAME), state, lambda: _from_files(planned, results))


def read_list(file: Path) -> pd.DataFrame:
    """Return a study's list of runs, empty if there is none; lines that name no run are left out, and that is said."""
    import pandas as pd

    if not file.exists():
        return evidence.empty()
    try:
        found = read_csv(file)
        if found.empty:
            say(f"{file} is damaged (it is empty): run the study again to replace it.")
            return evidence.empty()
        named = found["key"].astype(str).str.fullmatch(KEY.pattern) & found["setting"].notna()
        named &= pd.to_numeric(found["seed"], errors="coerce").notna() & found[["role", "label"]].notna().all(axis=1)
    except (OSError, *GARBLED) as error:
        say(f"{file} is damaged ({brief(error)}): run the study again to replace it.")
        return evidence.empty()
    if not file.read_bytes().endswith(b"\n"):
        named.iloc[-1] = False  # its last line was cut short
    if not named.all():
        say(f"{file} is damaged ({(~named).sum()} of its lines name no run): run the study again to replace it.")
        return found[named].astype({"seed": "int64"}).reset_index(drop=True)
    return found


def vouched(name: str, results: Path = RESULTS) -> set[str]:
    """Return the keys of the runs on a study's list if the index of their records says that all were read as they are
    now; empty if they changed since, or were never read.
    """
    listed = results / name / "runs.csv"
    try:
        content = listed.read_bytes()
        keys = [row["key"] for row in csv.DictReader(content.decode().splitlines())]
    except (OSError, *GARBLED):
        return set()
    state = index.state_of(content, keys, str(results / "runs"))
    return {*keys} & finished(results) if index.holds(listed.with_name(index.NAME), state) else set()


def _from_files(planned: pd.DataFrame, results: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    import pandas as pd

    rows, texts = [], {}
    for row in planned.to_dict("records"):
        key = str(row["key"])
        record = read(key, results)
        found = {} if record is None else flat({k: v for k, v in record.items() if k not in UNLISTED})
        rows.append({"status": "missing", **found, **row, "source": "local"})
        history = run_folder(key, results) / "history.csv"
        try:
            texts[key] = history.read_bytes().decode()
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            say(_no_history(history, brief(error)))
    epochs = _histories(texts, results)
    return pd.DataFrame(rows), pd.concat(epochs, ignore_index=True) if epochs else pd.DataFrame()


def _no_history(file: Path, why: str) -> str:
    return f"{file} is damaged ({why}): the report does without this run's epochs."


def _histories(texts: Mapping[str, str], results: Path) -> list[pd.DataFrame]:
    """Return the epochs of many runs, those with equal columns parsed as one text: a parser for each takes a second
    for a thousand runs. What is no table of epochs is left out, which is then said.
    """
    by_head: dict[str, dict[str, str]] = {}
    for key, text in texts.items():
        head, _, body = text.partition("\n")
        if "epoch" in head.split(",") and (text.endswith("\n") or not body):
            by_head.setdefault(head, {})[key] = body
        elif text.strip() or not text:
            say(_no_history(run_folder(key, results) / "history.csv", "it was cut short" if text else "it is empty"))
    frames = []
    for head, bodies in by_head.items():
        if (frame := _epochs_in(head, bodies)) is not None:
            frames.append(frame)
            continue
        for key, body in bodies.items():  # one of them is damaged, or has a field with a line break
            if (frame := _epochs_in(head, {key: body})) is not None:
                frames.append(frame)
            else:
                say(_no_history(run_folder(key, results) / "history.csv", "it is no table of epochs"))
    return frames


def _epochs_in(head: str, bodies: Mapping[str, str]) -> pd.DataFrame | None:
    """Return the epochs of runs with one head, with a column ``key``; None if they are no tables of epochs."""
    lines = [body.count("\n") for body in bodies.values()]
    try:
        frame = parsed(io.StringIO("".join([f"{head}\n", *bodies.values()])))
    except GARBLED:
        return None
    if len(bodies) > 1 and len(frame) != sum(lines):
        return None
    texts = frame.select_dtypes(["object", "str"])
    if frame["epoch"].isna().any() or "epoch" in texts or not _all_lists(texts):
        return None
    counts = lines if len(frame) == sum(lines) else [len(frame)]
    frame.insert(0, "key", [key for key, count in zip(bodies, counts, strict=True) for _ in range(count)])
    return frame


def _all_lists(texts: pd.DataFrame) -> bool:
    """Return whether every text in a history is a list as JSON: what else is no number was garbled."""
    return all(str(value)[:1] == "[" for column in texts for value in texts[column].dropna().unique())
