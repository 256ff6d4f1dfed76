"""The MLflow mirror: what records say, once more where people like to browse.

Records are the truth and MLflow is fed from them, so a slow, lost or deleted tracking server costs no result, and
mirroring can be repeated at any time: what is there already and unchanged is left alone.

    experiment  a study
    run         a setting (everything but the seed): mean, sd, n and 95 % t interval of every test metric
    nested run  a seed: configuration, learning curves, final metrics; found again by the tags lossbench.key and .role

``python -m harness.tracking STUDY [--uri URI]`` mirrors a study now, ``python -m harness.tracking ui`` opens the
dashboard, and a sweep mirrors itself while it runs through ``LiveMirror``.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import itertools
import json
import logging
import math
import os
import re
import select
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from harness.compose import ROOT
from harness.errors import UsageError

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowRun

    from harness.records import StudyData

RESULTS = ROOT / "results"
KIND = "custom_model_development"  # tells the dashboard to show runs and metrics, not traces and prompts
VIEW = "lossbench"  # name of the dashboard's table with means beside the runs, kept in a tag of the experiment
PORT = 5000
START_S = 120.0  # what a dashboard may take to start on a slow machine
CHUNK_METRICS, CHUNK_PARAMS = 900, 100  # MLflow takes 1,000 entries a batch, at most 100 of them params
LONGEST_PARAM, LONGEST_TAG = 500, 5000  # what older tracking servers still take
LOCK_WAIT_S = 60.0
EVERY_S = 5.0  # how often a live mirror looks for new records
SHARE = 0.1  # of the time, at most, that it works
CELL = ("dataset", "model")
NAMES = ("task", *CELL, "loss", "optimizer", "trainer", "label", "role", "seed")
ROLES = {"self": "other seeds", "planted": "planted worse loss", "search": "learning-rate search"}
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # By default MLflow tries again for minutes; a mirror that fails is simply repeated later.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    # Eight further processes of the dashboard, for features that comparing runs does not use.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Mirrored:
    """What a mirroring did: counts of seed runs, the settings (parents) written, and why runs were skipped, if any."""

    new: int = 0
    updated: int = 0
    unchanged: int = 0
    skipped: int = 0
    settings: int = 0
    reason: str = ""

    def __str__(self) -> str:
        """Return the counts as one phrase."""
        parts = f"{self.new} new, {self.updated} updated, {self.unchanged} unchanged"
        return parts + (f", {self.skipped} skipped" if self.skipped else "")


class Point(NamedTuple):
    """One value of one metric."""

    name: str
    value: float
    time_ms: int
    step: int


@dataclass(frozen=True)
class Entry:
    """One MLflow run to be: a seed of a setting, or the parent that sums a setting up."""

    identity: tuple[str, str]
    parent: tuple[str, str] | None
    name: str
    status: str
    tags: dict[str, str]
    params: dict[str, str]
    points: list[Point]
    start_ms: int | None = None
    end_ms: int | None = None
    files: dict[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """A hash of everything that is mirrored: equal means that there is nothing to do."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


# From records to entries: pure, without MLflow.


def text(value: object) -> str | None:
    """Return a cell of a table as a parameter: numbers alike whether read as int, float or from CSV; None if absent."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.12g}" if isinstance(value, int | float) else str(value)


def number(value: object) -> float | None:
    """Return a cell as a number, None if it is absent or no number."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value == value else None


def summary(values: Sequence[float]) -> dict[str, float]:
    """Return mean and n, and from two values on the standard deviation (n - 1) and the 95 % t interval of the mean."""
    n, mean = len(values), statistics.fmean(values)
    if n < 2:
        return {"mean": mean, "n": n}
    from scipy.special import stdtrit

    sd = statistics.stdev(values)
    half = float(stdtrit(n - 1, 0.975)) * sd / math.sqrt(n)
    return {"mean": mean, "sd": sd, "n": n, "low": mean - half, "high": mean + half}


def groups(runs: Iterable[Row]) -> dict[tuple[str, str], list[Row]]:
    """Return the runs by (setting, role), those not yet run included; trials of learning rates share one setting."""
    found: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in runs:
        setting = str(row["setting"])
        if row["role"] == "search":
            cell = json.dumps([row.get(name) for name in CELL] + [str(row["label"]), _axes(row)])
            setting = hashlib.sha256(cell.encode()).hexdigest()[:16]
        found[setting, str(row["role"])].append(row)
    return found


def _axes(row: Row) -> dict[str, str]:
    values = ((name.removeprefix("axis."), text(value)) for name, value in row.items() if name.startswith("axis."))
    return {name: value for name, value in values if value is not None}


def _title(row: Row) -> str:
    axes = (f"{name.rpartition('.')[2]}={value}" for name, value in _axes(row).items())
    title = " · ".join([str(row["label"]), *(str(row[name]) for name in CELL if text(row.get(name))), *axes])
    return f"{title} ({ROLES[row['role']]})" if row["role"] in ROLES else title


def _params(row: Row) -> dict[str, str]:
    named = {name: row.get(name) for name in NAMES} | _axes(row)
    config = {name.removeprefix("config."): value for name, value in row.items() if name.startswith("config.")}
    texts = ((name, text(value)) for name, value in {**config, **named}.items())
    return {name: value[:LONGEST_PARAM] for name, value in texts if value is not None}


def _milliseconds(moment: object) -> int | None:
    return int(datetime.fromisoformat(moment).timestamp() * 1000) if isinstance(moment, str) else None


def _part(row: Row, *prefixes: str) -> dict[str, Any]:
    """Return the cells that are there; a column of whole numbers became float if some run has none."""
    found = {name: value for name, value in row.items() if name.startswith(prefixes) and text(value) is not None}
    return {
        name: int(value) if isinstance(value, float) and value.is_integer() else value for name, value in found.items()
    }


def _finals(row: Row, at_ms: int) -> Iterator[Point]:
    for name, value in _part(
        row, "test.", "valid.", "cost.", "selected_epoch", "diverged_step", "last_finite_loss"
    ).items():
        if (found := number(value)) is not None:
            # The curves own the names valid.*; here it is the value at the checkpoint that the rule selected.
            yield Point(f"selected.{name}" if name.startswith("valid.") else name, found, at_ms, 0)


def _curves(history: Sequence[Row], start_ms: int, end_ms: int) -> Iterator[Point]:
    """Yield the epochs' values, their times spread evenly from the run's start to its end."""
    for position, row in enumerate(history, 1):
        at_ms = start_ms + (end_ms - start_ms) * position // len(history)
        for name, value in row.items():
            if name not in ("key", "epoch", "step") and isinstance(value, int | float):
                yield Point(str(name), float(value), at_ms, int(row["epoch"]))


def _split(points: Iterable[Point]) -> tuple[list[Point], dict[str, str]]:
    """Return the finite points, and for the others tags, because MLflow gives inf back as a huge number.

    A series without any finite value was never measured, unless it is the training loss.
    """
    finite: list[Point] = []
    others: dict[str, list[Point]] = defaultdict(list)
    for point in points:
        if math.isfinite(point.value):
            finite.append(point)
        else:
            others[point.name].append(point)
    measured = {point.name for point in finite} | {"train.loss"}
    tags = {
        f"lossbench.nonfinite.{name}": ", ".join(
            f"{point.value} in epoch {point.step}" if point.step else str(point.value) for point in found
        )
        for name, found in others.items()
        if name in measured or any(math.isinf(point.value) for point in found)
    }
    return finite, tags


def _tags(row: Row, setting: str, **more: object) -> dict[str, str]:
    named = {name: row.get(name) for name in ("role", "label", "dataset", "model", "track")}
    values = {f"lossbench.{name}": text(value) for name, value in {**named, "setting": setting, **more}.items()}
    values["mlflow.source.git.commit"] = text(row.get("env.commit"))
    return {name: value[:LONGEST_TAG] for name, value in values.items() if value}


def seed_entry(row: Row, history: Sequence[Row], parent: tuple[str, str]) -> Entry:
    """Return the entry of one run that is done, diverged or failed; ``history`` has its epochs in order."""
    start_ms, end_ms = (_milliseconds(row.get(name)) for name in ("started", "finished"))
    points, nonfinite = _split([*_curves(history, start_ms or 0, end_ms or 0), *_finals(row, end_ms or 0)])
    more = {name: row.get(name) for name in ("key", "status", "error", "diverged_step", "last_finite_loss")}
    params = _params(row)
    name = f"seed {params['seed']}"
    if row["role"] == "search":
        name = f"lr {params.get('optimizer.lr')}, {name}"
    elif row["role"] == "self":
        name += f" against {text(row.get('pair_seed'))}"
    name += f" · {_title(row)}"
    config = {name.removeprefix("config."): value for name, value in _part(row, "config.").items()}
    files = {
        "config.json": json.dumps(config, indent=1),
        "environment.json": json.dumps(_part(row, "env.", "numerics.", "data."), indent=1),
        "result.json": json.dumps(
            _part(row, "test.", "valid.", "cost.", "selected", "diverged", "last_", "error"), indent=1
        ),
    }
    if trace := text(row.get("traceback")):
        files["traceback.txt"] = trace
    return Entry(
        (str(row["key"]), str(row["role"])), parent, name, "FINISHED" if row["status"] == "done" else "FAILED",
        _tags(row, parent[0], **more) | nonfinite, params, points, start_ms, end_ms, files,
    )  # fmt: skip


def setting_entry(identity: tuple[str, str], rows: Sequence[Row]) -> Entry:
    """Return the entry of a setting: what its finished seeds say together."""
    done = [row for row in rows if row["status"] == "done"]
    count = Counter(str(row["status"]) for row in rows)
    points = [Point(status, float(count[status]), 0, 0) for status in ("diverged", "failed")]
    words = (("diverged", "diverged"), ("failed", "failed"), ("missing", "not run yet"))
    others = (f"{count[name]} {word}" for name, word in words if count[name])
    state = ", ".join([f"{len(done)} of {len(rows)} done", *others])
    if identity[1] == "search":
        note = "Its runs differ in the learning rate, so nothing is averaged."
    elif len({row.get("env.device") for row in done}) > 1:
        note = "Its runs come from different kinds of device, so nothing is averaged."
    else:
        note = "Metrics over the seeds done: mean, standard deviation (sd), n, 95 % t interval of the mean (low, high)."
        points += [Point(name, value, 0, 0) for name, value in _averages(done).items()]
    ended = [row for row in rows if row["status"] in ("done", "diverged")]  # others may lack their configuration
    params = [_params(row) for row in ended or rows]
    vary = ("seed", "optimizer.lr") if identity[1] == "search" else ("seed",)
    shared = set.intersection(*(set(row.items()) for row in params))
    moments = [[_milliseconds(row.get(name)) for row in rows] for name in ("started", "finished")]
    return Entry(
        identity=identity,
        parent=None,
        name=_title(rows[0]),
        status="FINISHED" if done else "FAILED",
        tags=_tags(rows[0], identity[0], seeds=state) | {"mlflow.note.content": f"{state}. {note}"},
        params={name: value for name, value in sorted(shared) if name not in vary},
        points=points,
        start_ms=min(filter(None, moments[0]), default=None),
        end_ms=max(filter(None, moments[1]), default=None),
    )


def _averages(done: Sequence[Row]) -> dict[str, float]:
    """Return the summaries of the test metrics and the mean step time, to the six digits that the dashboard shows."""
    found: dict[str, float] = {}
    for name in sorted({name for row in done for name in _part(row, "test.", "cost.step_ms")}):
        values = [value for row in done if (value := number(row.get(name))) is not None and math.isfinite(value)]
        if values:
            kept = summary(values) if name.startswith("test.") else {"mean": statistics.fmean(values)}
            found |= {f"{name}.{what}": float(f"{value:.6g}") for what, value in kept.items()}
    return found


# From entries to MLflow.


def default_uri(results: Path = RESULTS) -> str:
    """Return MLFLOW_TRACKING_URI, else the project's own store, mlflow.db beside the records."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{results / 'mlflow.db'}"


def _view(metric: str) -> str:
    """Return the columns of the dashboard's run table, in the form in which its button "share" keeps them.

    Sorted by time, because any other order makes the dashboard list parents and seeds side by side.
    """
    parts = [f"{metric}.{what}" for what in ("mean", "low", "high", "n")]
    shown = [f"metrics.`{name}`" for name in (*parts, metric, "diverged", "cost.step_ms.mean")]
    shown += ["params.`optimizer.lr`", "params.`trainer.epochs`", "tags.`lossbench.seeds`"]
    name = "attributes.`Run Name`"
    view = {"orderByKey": "attributes.start_time", "orderByAsc": True, "selectedColumns": shown}
    return json.dumps(view | {"columnOrder": [name, *shown], "columnWidths": {name: 400, shown[-1]: 200}})


def _database(uri: str) -> Path | None:
    return Path(uri.removeprefix("sqlite:///").partition("?")[0]) if uri.startswith("sqlite:///") else None


def _chunks(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


class There(NamedTuple):
    """What an MLflow run holds; ``digest`` is empty if a mirror was killed while it wrote."""

    run_id: str
    parent: str
    digest: str
    metrics: frozenset[str]
    params: frozenset[str]


class Mirror:
    """A study's experiment in one store; knows after the first ``write`` what is there, so later ones only add."""

    def __init__(self, uri: str, token: str) -> None:
        _quiet()
        from mlflow.tracking import MlflowClient

        self.uri = uri
        self.token = token
        self.client = MlflowClient(uri, uri)
        self.experiment = ""
        self.there: dict[tuple[str, str], There] = {}
        self.settled: set[tuple[str, str]] = set()  # finished runs known to be there: their records never change
        self.count: Counter[str] = Counter()
        self.reason = ""

    def write(self, study: StudyData) -> None:
        """Bring the store up to the records; ``count`` says what was done, also if it raises half-way."""
        self.count.clear()
        self.reason = ""
        if not self.experiment:
            self.experiment = self._open(study)
        epochs: dict[str, list[Row]] = defaultdict(list)
        for epoch in cast(list[Row], study.history.to_dict("records")):
            epochs[str(epoch["key"])].append(epoch)
        for identity, rows in groups(cast(list[Row], study.runs.to_dict("records"))).items():
            recorded = [row for row in rows if row["status"] != "missing"]
            if recorded:
                self.count["settings"] += self._put(setting_entry(identity, rows)) != "unchanged"
            for row in recorded:
                own = (str(row["key"]), str(row["role"]))
                if own in self.settled:
                    self.count["unchanged"] += 1
                    continue
                self.count[self._put(seed_entry(row, epochs[own[0]], identity))] += 1
                if row["status"] != "failed":
                    self.settled.add(own)

    def _open(self, study: StudyData) -> str:
        """Find or create the experiment, read what it holds already, and return its id."""
        about = {"mlflow.note.content": str(study.spec.get("question", "")), "mlflow.experimentKind": KIND}
        about[f"mlflow.sharedViewState.{VIEW}"] = _view(str(study.spec.get("metric", "test.top1")))
        database = _database(self.uri)
        place = database and (database.resolve().parent / "mlartifacts" / study.name).as_uri()
        experiment = self.client.get_experiment_by_name(study.name)
        if experiment is None:
            return self.client.create_experiment(study.name, place, about)
        if place and experiment.artifact_location != place:
            raise UsageError(
                f"{database} was made in another folder and keeps its files there: delete it (the records stay)."
            )
        if experiment.lifecycle_stage == "deleted":
            self.client.restore_experiment(experiment.experiment_id)
        for name, value in about.items():
            if experiment.tags.get(name) != value:
                self.client.set_experiment_tag(experiment.experiment_id, name, value)
        for run in self._runs(experiment.experiment_id):
            tags = run.data.tags
            name = tags.get("lossbench.key") or tags.get("lossbench.setting")
            identity = (name or "", tags.get("lossbench.role", ""))
            if identity in self.there:
                self.client.delete_run(run.info.run_id)  # two machines mirrored at once, or an experiment was restored
            elif name:
                whole = run.info.status in ("FINISHED", "FAILED")
                self.there[identity] = There(
                    run.info.run_id,
                    tags.get("mlflow.parentRunId", ""),
                    tags.get("lossbench.digest", "") if whole else "",
                    frozenset(run.data.metrics),
                    frozenset(run.data.params),
                )
        return experiment.experiment_id

    def _runs(self, experiment: str) -> list[MlflowRun]:
        found, token = [], None
        while True:
            page = self.client.search_runs([experiment], max_results=250, page_token=token)
            found += page
            token = page.token
            if not token:
                return found

    def _put(self, entry: Entry) -> str:
        """Make one MLflow run equal to its entry; return what that took: new, updated or unchanged."""
        there = self.there.get(entry.identity)
        parent = self.there[entry.parent].run_id if entry.parent else ""
        if there and there.digest == entry.digest and there.parent == parent:
            return "unchanged"
        if there and not entry.parent:
            self._update(there, entry)
        else:
            if there:
                self.client.delete_run(there.run_id)  # params cannot be changed, only made anew
            self._create(entry, parent)
        return "updated" if there else "new"

    def _create(self, entry: Entry, parent: str) -> None:
        tags = entry.tags | {"lossbench.digest": entry.digest} | ({"mlflow.parentRunId": parent} if parent else {})
        run_id = self.client.create_run(self.experiment, entry.start_ms, tags, entry.name).info.run_id
        self._log(run_id, entry.points, entry.params, {})
        if entry.files:
            self._attach(run_id, entry.files)
        # Last, because a run that is still running is one that a killed mirror left half-written.
        self.client.set_terminated(run_id, entry.status, entry.end_ms)
        self._remember(run_id, parent, entry)

    def _update(self, there: There, entry: Entry) -> None:
        gone = there.metrics - {point.name for point in entry.points}
        points = [*entry.points, *(Point(name, math.nan, 0, 0) for name in sorted(gone))]
        params = {name: value for name, value in entry.params.items() if name not in there.params}
        self.client.set_terminated(there.run_id, entry.status, entry.end_ms)
        tags = entry.tags | {"mlflow.runName": entry.name, "lossbench.digest": entry.digest}
        self._log(there.run_id, points, params, tags)
        self._remember(there.run_id, "", entry)

    def _remember(self, run_id: str, parent: str, entry: Entry) -> None:
        metrics = frozenset(point.name for point in entry.points)
        self.there[entry.identity] = There(run_id, parent, entry.digest, metrics, frozenset(entry.params))

    def _log(self, run_id: str, points: Sequence[Point], params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        from mlflow.entities import Metric, Param, RunTag

        now = int(time.time() * 1000)
        metrics = _chunks([Metric(one.name, one.value, one.time_ms or now, one.step) for one in points], CHUNK_METRICS)
        pairs = _chunks([Param(name, value) for name, value in params.items()], CHUNK_PARAMS)
        marks = [RunTag(name, value) for name, value in tags.items()]
        batches = list(itertools.zip_longest(metrics, pairs, fillvalue=()))
        for batch in batches:
            last = batch is batches[-1]  # the tags say that everything is there
            self.client.log_batch(run_id, *batch, tags=marks if last else (), synchronous=True)

    def _attach(self, run_id: str, files: Mapping[str, str]) -> None:
        """Attach files to a run; a store that takes none (no credentials, say) still gets everything else."""
        if self.reason:
            return
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                (Path(folder) / name).write_text(content)
            try:
                self.client.log_artifacts(run_id, folder)
            except Exception as error:  # whatever a store's own library raises
                self.reason = f"MLflow took no files, only tags, params and metrics ({_sentence(error)})."


def mirror(study: StudyData, uri: str | None = None) -> Mirrored:
    """Bring a study's experiment in MLflow up to its records; never raises for what is wrong with the store.

    Args:
        study: the records, as ``harness.records.load_study`` returns them.
        uri: tracking URI; None means MLFLOW_TRACKING_URI, else the project's own store.
    """
    return _attempt(study, uri or default_uri(), None)[0]


def _attempt(study: StudyData, uri: str, known: Mirror | None) -> tuple[Mirrored, Mirror | None]:
    """Mirror once, knowing what an earlier attempt knew; return also what the next may know."""
    token = known.token if known else uuid.uuid4().hex
    found = None
    try:
        with _alone(uri, token) as undisturbed:
            found = known if known and undisturbed else Mirror(uri, token)
            found.write(study)
        return _mirrored(study, found.count, found.reason), found
    except Exception as error:  # SQL, HTTP, files, plugins: whatever the store's libraries raise
        again = f"no result is lost, python -m harness.tracking {study.name} tries again"
        reason = f"MLflow at {_shown(uri)} could not be written ({_sentence(error)}); {again}."
        return _mirrored(study, found.count if found else Counter(), reason), None


def _mirrored(study: StudyData, count: Mapping[str, int], reason: str) -> Mirrored:
    counts = {name: count.get(name, 0) for name in ("new", "updated", "unchanged")}
    recorded = sum(row["status"] != "missing" for row in study.runs.to_dict("records"))
    return Mirrored(**counts, skipped=recorded - sum(counts.values()), settings=count.get("settings", 0), reason=reason)


def _sentence(error: BaseException) -> str:
    """Return the essence of an error in one line, without credentials; of an absent server what the net says."""
    cause = error
    while inner := cause.__cause__ or cause.__context__:
        cause = inner
    lines = str(cause if isinstance(cause, OSError) else error).strip().splitlines() or [type(error).__name__]
    return _shown(lines[0].rstrip("."))[:300]


def _shown(uri: str) -> str:
    return re.sub(r"//[^/@\s]*@", "//", uri)


def _quiet() -> None:
    """Keep MLflow's log lines off the terminal and its telemetry off the network, unless the user asked for them."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    logging.getLogger("alembic").setLevel(logging.ERROR)


@contextlib.contextmanager
def _alone(uri: str, token: str) -> Iterator[bool]:
    """Be the only mirror of this machine to write a store: two at once would create its tables, or its runs, twice.

    Yields whether the one that wrote last went by the same ``token``, so that what it knows of the store still holds.

    Raises:
        UsageError: another mirror holds it for too long, or it is a database file that cannot be written.
    """
    database = _database(uri)
    if database is None:
        name = f"lossbench-mlflow-{os.getuid()}-{hashlib.sha256(uri.encode()).hexdigest()[:16]}.lock"
        place = Path(tempfile.gettempdir()) / name
    else:
        database.parent.mkdir(parents=True, exist_ok=True)
        place = database.with_name(f".{database.name}.lock")
    with place.open("a+") as lock:
        end = time.monotonic() + LOCK_WAIT_S
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            if time.monotonic() > end:
                raise UsageError(f"another mirror has been writing for {LOCK_WAIT_S:.0f} s")
            time.sleep(0.1)
        if database is not None:
            _check_writable(database)
        lock.seek(0)
        undisturbed = lock.read() == token
        lock.truncate(0)
        lock.write(token)
        lock.flush()
        yield undisturbed


def _check_writable(database: Path) -> None:
    """Raise what SQLite says at once; MLflow would try for two minutes to open what is no database or is locked."""
    with contextlib.closing(sqlite3.connect(database, timeout=5)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.rollback()


# While a sweep runs.


class LiveMirror:
    """Mirrors a study while its sweep runs, in a process of the lowest priority that the sweep never waits for.

    The process reads the records from disk every few seconds. It is told to finish by the end of its input, so it does
    so too if the sweep is killed. ``close`` waits a bounded time for the last round, which otherwise goes on alone::

        with LiveMirror("demo", uri) as live:
            ...  # the sweep
            live.finish()
            ...  # the report, say, while the mirror does the rest
        print(live.outcome)
    """

    def __init__(self, study: str, uri: str | None = None, *, results: Path = RESULTS, wait_s: float = 1.0) -> None:
        self.wait_s = wait_s
        self.log = results / study / "mirror.log"
        self.outcome = ""
        self.process: subprocess.Popen[bytes] | None = None
        command = [sys.executable, "-m", "harness.tracking", study, "--follow", "--results", str(results.resolve())]
        command += ["--uri", uri] if uri else []
        try:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("wb") as log:
                # A process group of its own, so that Ctrl-C stops the sweep and lets the mirror note what was finished;
                # no session of its own, because Linux would then share the processor evenly between the two.
                self.process = subprocess.Popen(
                    command, cwd=ROOT, stdin=subprocess.PIPE, stdout=log, stderr=log, process_group=0
                )
        except OSError as error:
            self.outcome = f"MLflow was not written ({error}); python -m harness.tracking {study} does it later."

    def __enter__(self) -> LiveMirror:
        """Return the mirror, already at work."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the mirror, whatever ended the sweep."""
        self.close()

    def finish(self) -> None:
        """Ask for the last round, without waiting for it."""
        if self.process and self.process.stdin and not self.process.stdin.closed:
            self.process.stdin.close()

    def close(self) -> str:
        """Ask for the last round, wait at most ``wait_s`` seconds for it, and return what came of it."""
        self.finish()
        if self.process is None or self.outcome:
            return self.outcome
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(self.wait_s)
        said = self.log.read_text(errors="replace").strip().splitlines()
        if self.process.returncode is not None:
            self.outcome = said[-1] if said else f"MLflow was not written: see {self.log}."
            return self.outcome
        threading.Thread(target=self.process.wait, daemon=True).start()  # or it would stay behind as a zombie
        earlier = f" Before that: {said[-1]}" if said else ""
        log = os.path.relpath(self.log)
        self.outcome = f"MLflow is still being written in the background; {log} will say how it went.{earlier}"
        return self.outcome


def follow(name: str, uri: str, results: Path = RESULTS) -> str:
    """Mirror a study again and again until standard input ends, then once more; return what the last round did.

    A round takes at most ``SHARE`` of the time, and is left out if no further run was finished. Failures are printed.
    """
    from harness import records

    known: Mirror | None = None
    seen: object = None
    pause_s = EVERY_S
    while True:
        ended = bool(select.select([sys.stdin], [], [], pause_s)[0])
        started = time.monotonic()
        here = records.finished(results)
        if ended or here != seen:
            try:
                done, known = _attempt(records.load_study(name, results), uri, known)
            except UsageError as error:
                done = Mirrored(reason=str(error))
            if ended:
                return done.reason or f"MLflow has the study {name}: {done}."
            if done.reason:
                print(done.reason, flush=True)
            seen = here if known else None
        pause_s = max(EVERY_S, (time.monotonic() - started) / SHARE)


# The command line.


def ui_command(uri: str | None = None, port: int = PORT) -> list[str]:
    """Return the command that serves the dashboard of a local store on loopback.

    Raises:
        UsageError: the store is a server with a dashboard of its own, is empty, or the port is taken.
    """
    store = uri or default_uri()
    if store.startswith(("http://", "https://")):
        raise UsageError(f"the tracking server has its own dashboard: open {_shown(store)}.")
    database = _database(store)
    if database is not None and not database.exists():
        raise UsageError("no study has been mirrored yet: run make demo, or python -m harness.tracking STUDY.")
    try:
        if database is not None:
            _check_writable(database)
    except sqlite3.Error as error:
        raise UsageError(
            f"{database} is not usable ({error}): end what uses it, or delete it (the records stay)."
        ) from error
    if not 0 < port < 1 << 16:
        raise UsageError(f"--port {port} is no port: choose one from 1024 to 65535.")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise UsageError(
                f"port {port} is taken ({error.strerror}), perhaps by a dashboard at http://127.0.0.1:{port}: "
                f"open that, or choose another port with --port {port + 1}."
            ) from error
    options = {"--backend-store-uri": store, "--registry-store-uri": store, "--host": "127.0.0.1", "--port": str(port)}
    options |= {"--workers": "1", "--uvicorn-opts": "--log-level warning"}
    if database is not None:
        options["--artifacts-destination"] = str(database.resolve().parent / "mlartifacts")
    return [sys.executable, "-m", "mlflow", "server", *itertools.chain.from_iterable(options.items())]


def serve(uri: str, port: int, results: Path = RESULTS) -> int:
    """Serve the dashboard until Ctrl-C, and say where each study is; return the exit code.

    Raises:
        UsageError: as ``ui_command``, or the server did not start.
    """
    command = ui_command(uri, port)
    _quiet()
    results.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print("the dashboard takes a few seconds to start ...", flush=True)
    with (results / "dashboard.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        links = _links(uri, port)
        _wait_until_up(server, port, log.name)
        print("\n".join(["dashboard, until Ctrl-C:", *links]), flush=True)
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()


def _links(uri: str, port: int) -> list[str]:
    """Return the address of each study's table in the dashboard."""
    from mlflow.tracking import MlflowClient

    base, view = f"http://127.0.0.1:{port}/#/experiments", f"workflowType=machine_learning&viewStateShareKey={VIEW}"
    try:
        found = MlflowClient(uri, uri).search_experiments(order_by=["name ASC"])
    except Exception as error:  # SQL or whatever else the store's libraries raise
        raise UsageError(f"the MLflow store {_shown(uri)} cannot be read ({_sentence(error)}).") from error
    studies = [one for one in found if f"mlflow.sharedViewState.{VIEW}" in one.tags]
    width = max((len(one.name) for one in studies), default=0)
    return [f"  {one.name:{width}}  {base}/{one.experiment_id}/runs?{view}" for one in studies] or [f"  {base}"]


def _wait_until_up(server: subprocess.Popen[bytes], port: int, log: str) -> None:
    import urllib.request

    end = time.monotonic() + START_S
    while time.monotonic() < end and server.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
            return
        time.sleep(0.2)
    raise UsageError(f"the dashboard did not start: {log} says why.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m harness.tracking", description="Mirror a study's records to MLflow, or open the dashboard."
    )
    parser.add_argument("study", help="name of a study with records, or the word ui: open the dashboard")
    parser.add_argument(
        "--uri", help="tracking URI (default: MLFLOW_TRACKING_URI, else the project's results/mlflow.db)"
    )
    parser.add_argument("--port", type=int, default=PORT, help="port of the dashboard (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the records (default: the project's)")
    parser.add_argument("--follow", action="store_true", help="mirror again and again until standard input ends")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; return the exit code: 1 if the store could not be written, 2 for a request that cannot be met."""
    given = _parser().parse_args(arguments)
    uri = given.uri or default_uri(given.results)
    try:
        if given.study == "ui":
            return serve(uri, given.port, given.results)
        if given.follow:
            os.nice(19)
            print(follow(given.study, uri, given.results), flush=True)
            return 0
        from harness import records

        done = mirror(records.load_study(given.study, given.results), uri)
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{given.study}: {done} in {_shown(uri)}")
    if done.reason:
        print(done.reason, file=sys.stderr)
    return 1 if done.skipped else 0


if __name__ == "__main__":
    sys.exit(main())
