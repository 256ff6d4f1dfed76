"""From tracked runs to MLflow: brings the runs of one store up to the records of a study."""

from __future__ import annotations

import itertools
import json
import math
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from harness.errors import UsageError
from harness.records import FAILED
from harness.tracking.runs import REPORT, Point, TrackedRun, tracked_report
from harness.tracking.settings import own_identity, settings
from harness.tracking.store import OPEN_S, Bounded, alone, cut_off, database_of, default_uri, printable, quiet, sentence

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowRun

    from harness.records.study import StudyData

KIND = "custom_model_development"  # tells the dashboard to show runs and metrics, not traces and prompts
VIEW = "lossbench"  # name of the dashboard's table with means beside the runs, kept in a tag of the experiment
MARKS = ("lossbench.verdict", "lossbench.because", "lossbench.learnt")  # tags of seeds that change with the verdict
CHUNK_METRICS, CHUNK_PARAMS = 900, 100  # MLflow takes 1,000 entries a batch, at most 100 of them params


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


def _view(metric: str) -> str:
    """Return the columns of the dashboard's run table, in the form in which its button "share" keeps them.

    Sorted by time, because any other order makes the dashboard list parents and seeds side by side.
    """
    parts = [f"{metric}.{what}" for what in ("mean", "low", "high", "n")]
    shown = [f"metrics.`{name}`" for name in (*parts, metric, "diverged", "cost.step_ms.mean")]
    shown += ["metrics.`difference`", "metrics.`difference.low`", "metrics.`difference.high`"]
    shown += ["metrics.`difference.p`"]
    shown += ["tags.`lossbench.verdict`", "tags.`lossbench.because`"]
    shown += ["params.`optimizer.lr`", "params.`trainer.epochs`", "tags.`lossbench.seeds`"]
    name = "attributes.`Run Name`"
    view = {"orderByKey": "attributes.start_time", "orderByAsc": True, "selectedColumns": shown}
    return json.dumps(view | {"columnOrder": [name, *shown], "columnWidths": {name: 400, shown[-1]: 200}})


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
        quiet()
        from mlflow.tracking import MlflowClient

        self.uri = uri
        self.token = token
        if database_of(uri):
            self.client = MlflowClient(uri, uri)
        else:
            with cut_off(OPEN_S):
                self.client = cast(MlflowClient, Bounded(MlflowClient(uri, uri)))
        self.experiment = ""
        self.there: dict[tuple[str, str], There] = {}
        self.marks: dict[tuple[str, str], dict[str, str]] = {}  # of seed runs: what is said of them
        self.settled: set[tuple[str, str]] = set()  # finished runs known to be there: their records never change
        self.count: Counter[str] = Counter()
        self.reason = ""

    def write(self, study: StudyData, page: Path | None = None) -> None:
        """Bring the store up to the records; ``count`` says what was done, also if it raises half-way.

        Args:
            study: the records.
            page: of its report, which becomes an artifact if there is such a file.
        """
        self.count.clear()
        self.reason = ""
        if not self.experiment:
            self.experiment = self._open(study)
        if page is not None and page.is_file():
            self._put(tracked_report(study.name, page.read_text()))
        report = self._report()
        for setting in settings(study):
            note = f"{setting.tracked.tags['mlflow.note.content']} {report}".strip()
            tracked = replace(setting.tracked, tags=setting.tracked.tags | {"mlflow.note.content": note})
            self.count["settings"] += self._put(tracked) != "unchanged"
            for row in setting.rows:
                own = own_identity(row)
                if own in self.settled:
                    self.count["unchanged"] += 1
                else:
                    self.count[self._put(setting.seed(row))] += 1
                    if row["status"] not in FAILED:
                        self.settled.add(own)
                self._mark(own, setting.verdict.of(own[0]))

    def _report(self) -> str:
        """Return a link to the report, in Markdown and relative to the dashboard; empty if the store has no report."""
        there = self.there.get((REPORT, REPORT))
        if there is None:
            return ""
        page = f"#/experiments/{self.experiment}/runs/{there.run_id}/artifacts/index.html"
        # without the part on training, the dashboard shows the page among those of language models
        return f"[Report]({page}?workflowType=machine_learning)"

    def _mark(self, identity: tuple[str, str], marks: dict[str, str]) -> None:
        """Bring the tags of a run up to what is said of it now: a verdict changes where its record does not."""
        from mlflow.entities import RunTag

        run_id, known = self.there[identity].run_id, self.marks.get(identity, {})
        if known == marks:
            return
        for name in known.keys() - marks.keys():
            self.client.delete_tag(run_id, name)
        self.client.log_batch(run_id, tags=[RunTag(name, value) for name, value in marks.items()], synchronous=True)
        self.marks[identity] = marks

    def _open(self, study: StudyData) -> str:
        """Find or create the experiment, read what it holds already, and return its id."""
        about = {"mlflow.note.content": str(study.spec.get("question", "")), "mlflow.experimentKind": KIND}
        about[f"mlflow.sharedViewState.{VIEW}"] = _view(str(study.spec.get("metric", "test.top1")))
        database = database_of(self.uri)
        artifacts = database and (database.resolve().parent / "mlartifacts" / study.name).as_uri()
        experiment = self.client.get_experiment_by_name(study.name)
        if experiment is None:
            return self.client.create_experiment(study.name, artifacts, about)
        if artifacts and experiment.artifact_location != artifacts:
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
                if "mlflow.parentRunId" in tags:
                    self.marks[identity] = {mark: tags[mark] for mark in MARKS if mark in tags}
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
        found: dict[str, MlflowRun] = {}
        token = None
        while True:
            page = self.client.search_runs([experiment], max_results=250, page_token=token)
            token, before = page.token, len(found)
            found |= {run.info.run_id: run for run in page}
            if not token:
                return list(found.values())
            if len(found) == before:
                raise OSError("its list of runs does not end")

    def _put(self, tracked: TrackedRun) -> str:
        """Make one MLflow run equal to what is tracked; return what that took: new, updated or unchanged."""
        there = self.there.get(tracked.identity)
        parent = self.there[tracked.parent].run_id if tracked.parent else ""
        if there and there.digest == tracked.digest and there.parent == parent:
            return "unchanged"
        if there and not tracked.parent:
            self._update(there, tracked)
        else:
            if there:
                self.client.delete_run(there.run_id)  # params cannot be changed, only made anew
            self._create(tracked, parent)
        return "updated" if there else "new"

    def _create(self, tracked: TrackedRun, parent: str) -> None:
        self.marks.pop(tracked.identity, None)
        tags = tracked.tags | {"lossbench.digest": tracked.digest} | ({"mlflow.parentRunId": parent} if parent else {})
        run_id = self.client.create_run(self.experiment, tracked.start_ms, tags, tracked.name).info.run_id
        self._log(run_id, tracked.points, tracked.params, {})
        self._input(run_id, tracked.data)
        if tracked.files:
            self._attach(run_id, tracked.files)
        # Last, because a run that is still running is one that a killed mirror left half-written.
        self.client.set_terminated(run_id, tracked.status, tracked.end_ms)
        self._remember(run_id, parent, tracked)

    def _update(self, there: There, tracked: TrackedRun) -> None:
        gone = there.metrics - {point.name for point in tracked.points}
        points = [*tracked.points, *(Point(name, math.nan, 0, 0) for name in sorted(gone))]
        params = {name: value for name, value in tracked.params.items() if name not in there.params}
        self.client.set_terminated(there.run_id, tracked.status, tracked.end_ms)
        if tracked.files:
            self._attach(there.run_id, tracked.files)
        tags = tracked.tags | {"mlflow.runName": tracked.name, "lossbench.digest": tracked.digest}
        self._log(there.run_id, points, params, tags)
        self._remember(there.run_id, "", tracked)

    def _remember(self, run_id: str, parent: str, tracked: TrackedRun) -> None:
        metrics = frozenset(point.name for point in tracked.points)
        self.there[tracked.identity] = There(run_id, parent, tracked.digest, metrics, frozenset(tracked.params))

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

    def _input(self, run_id: str, data: tuple[str, str] | None) -> None:
        """Say what a run was trained on, in the words of ``mlflow.data``."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        if data:
            name, digest = data
            known = Dataset(name, digest, "local", json.dumps({"name": name}))
            self.client.log_inputs(run_id, [DatasetInput(known, [InputTag("mlflow.data.context", "training")])])

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
                self.reason = f"MLflow took no files, only tags, params and metrics ({sentence(error)})."


def mirror(study: StudyData, uri: str | None = None, page: Path | None = None) -> Mirrored:
    """Bring a study's experiment in MLflow up to its records; never raises for what is wrong with the store.

    Args:
        study: the records, as ``harness.records.study.load_study`` returns them.
        uri: tracking URI; None means MLFLOW_TRACKING_URI, else the project's own store.
        page: of its report, which becomes an artifact if there is such a file.
    """
    return attempt(study, uri or default_uri(), None, page)[0]


def attempt(
    study: StudyData, uri: str, known: Mirror | None, page: Path | None = None
) -> tuple[Mirrored, Mirror | None]:
    """Mirror once, knowing what an earlier attempt knew; return also what the next may know."""
    token = known.token if known else uuid.uuid4().hex
    found = None
    try:
        with alone(uri, token) as undisturbed:
            found = known if known and undisturbed else Mirror(uri, token)
            found.write(study, page)
        return _mirrored(study, found.count, found.reason), found
    except Exception as error:  # SQL, HTTP, files, plugins: whatever the store's libraries raise
        again = f"no result is lost, python -m harness.tracking {study.name} tries again"
        reason = f"MLflow at {printable(uri)} could not be written ({sentence(error)}); {again}."
        return _mirrored(study, found.count if found else Counter(), reason), None


def _mirrored(study: StudyData, count: Mapping[str, int], reason: str) -> Mirrored:
    counts = {name: count.get(name, 0) for name in ("new", "updated", "unchanged")}
    recorded = sum(row["status"] != "missing" for row in study.runs.to_dict("records"))
    return Mirrored(**counts, skipped=recorded - sum(counts.values()), settings=count.get("settings", 0), reason=reason)
