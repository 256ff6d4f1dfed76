"""Carry out a study: plan it, check it, run what is missing, and say how it goes."""

from __future__ import annotations

import csv
import gzip
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hydra.utils import get_class

from harness import hardware, plan, records
from harness.address import Addresses, canonical
from harness.engines.engine import Engine, Event, engine_of
from harness.errors import UsageError
from harness.metrics.declared import BY_TASK, check_metric
from harness.paths import MEASURED, RESULTS
from harness.plan import Run, Setting, Study, Values
from harness.records import lease, room
from harness.records.reuse import Published
from harness.records.study import StudyData
from harness.studies.progress import Progress
from harness.studies.search import Search
from harness.text import count, visible
from harness.training.job import ELSEWHERE, Job

Config = Mapping[str, Any]
Names = tuple[str, ...]
Stamp = tuple[int, int] | None
LOCAL = "harness.engines.local.LocalEngine"
LOOK_S = 0.5
"""How often runs that other sweeps have are looked at, once nothing else is left to do."""
WAITING_S = 30.0
"""How often it is said that they are waited for."""
FirstLook = Callable[[int, Sequence[int], Sequence[int]], str]
"""Says if seeds are too few: of losses compared in a cell, the seeds to begin with, and those that would follow."""
Open = Callable[[StudyData], Set[str]]
"""Returns the settings (their hashes) of losses whose comparison with the baseline needs further seeds."""


@dataclass(frozen=True)
class SweepResult:
    """How a sweep ended: ``planned`` runs in all, ``done`` before it began, ``failed`` as (description, reason)."""

    planned: int
    done: int
    failed: list[tuple[str, str]]
    seconds: float


def sweep(
    study: Study,
    options: Config,
    started: Callable[[], None] = lambda: None,
    results: Path = RESULTS,
    undecided: Open = lambda data: frozenset(),
) -> SweepResult:
    """Run what is missing of ``study`` and write its list of runs.

    Args:
        study: what to run.
        options: ``data``, ``engine``, ``device`` and ``threads`` as composed from conf/run.yaml.
        started: called when all checks have passed and training begins; never, if nothing is missing.
        results: where records go.
        undecided: asked after every round of seeds where the study goes on until all is decided.

    Raises:
        UsageError: a combination cannot be built, or a data set is missing; nothing was trained.
    """
    began = time.monotonic()
    believe_in_gpus(options)
    settings = plan.settings(study)
    refuse_unknown_metric(study, settings)
    addresses = Addresses(Path(options["data"]["root"]), results, download=options["data"]["download"])
    search = Search(settings, study, addresses)
    with Work(options, started, results, addresses, study) as work:
        while trials := search.ask():
            if work.check(trials):
                records.write_study(study, search.runs, results)  # an interrupted sweep can be reported
            work.carry_out(trials)
            search.tell(results)
        rounds = _Rounds(settings, study, addresses, search.chosen())
        while runs := rounds.ask():
            work.check(runs)
            records.write_study(rounds.study, [*search.runs, *rounds.runs], results)
            work.carry_out(runs)
            if rounds.left:
                rounds.tell(undecided(_records_of(rounds.study, [*search.runs, *rounds.runs], results)))
    return SweepResult(work.planned, work.done, work.failed, time.monotonic() - began)


class _Rounds:
    """The seeds of a study: all that are given, then one after the other for what is still open.

    Nothing is stored of it: equal answers lead to equal questions. A comparison that is decided stays so, and the
    controls keep to the seeds that are given.

    Attributes:
        study: on all seeds that were asked for so far.
        runs: those asked for so far.
    """

    def __init__(
        self,
        settings: Sequence[Setting],
        study: Study,
        addresses: Addresses,
        chosen: Mapping[plan.Contender, Values],
    ) -> None:
        self.study, self.addresses, self.chosen, self.settings = study, addresses, chosen, settings
        self.open = [setting for setting in settings if setting.role == "run"]
        self.left = study.further_seeds
        self.runs: list[Run] = []

    def ask(self) -> list[Run]:
        """Return the runs of the next round; none if all is decided or no seed is left."""
        if not self.runs:
            self.runs = plan.runs(self.settings, self.study, self.addresses, self.chosen)
            return self.runs
        while self.open and self.left:
            seed, *self.left = self.left
            found = plan.runs(self.open, self.study.on([seed]), self.addresses, self.chosen)
            self.study = self.study.on([*self.study.seeds, seed])
            if found:  # else the study excludes this seed
                self.runs = [*self.runs, *found]
                return found
        return []

    def tell(self, undecided: Set[str]) -> None:
        """Take which settings are open: they, and the baselines of their cells, go on."""
        at = {run.setting.contender: run.setting.hash for run in self.runs}
        challengers = [s for s in self.open if s.label != self.study.baseline and at.get(s.contender) in undecided]
        cells = {setting.cell for setting in challengers}
        baselines = [s for s in self.open if s.label == self.study.baseline and s.cell in cells]
        self.open = [*baselines, *challengers]


def _records_of(study: Study, runs: Sequence[Run], results: Path) -> StudyData:
    """Return the records of these runs alone: published evidence may hold further seeds, which would answer another
    question.
    """
    data = records.load_study(study.name, results)
    listed = data.runs["key"].isin({run.key for run in runs})
    return replace(data, runs=data.runs[listed].reset_index(drop=True))


class Work:
    """Carries out what has no record yet; the workers start with the first such run and stay warm between rounds."""

    def __init__(
        self, options: Config, started: Callable[[], None], results: Path, addresses: Addresses, study: Study
    ) -> None:
        self.options, self.started, self.results = options, started, results
        self.addresses, self.study = addresses, study
        self.believed: set[str] | None = None
        self.published = Published(study, results) if options.get("reuse") else None
        self.written = False
        self.planned = self.done = 0
        self.failed: list[tuple[str, str]] = []
        self.pool: Engine | None = None
        self.checked: set[Names] = set()

    def __enter__(self) -> Work:
        return self

    def __exit__(self, *_: object) -> None:
        if self.pool:
            self.pool.stop()

    def missing(self, runs: Sequence[Run]) -> list[Run]:
        """Return which of ``runs`` have no record yet that is believed, one for each key; published runs become records
        first where the sweep may go on from them.
        """
        if self.believed is None:
            self.believed = records.vouched(self.study.name, self.results)
        keys = {run.key: run for run in runs}
        self._take_over([run for key, run in keys.items() if key not in self.believed])
        for key in (records.finished(self.results) & keys.keys()) - self.believed:
            record = records.read(key, self.results)  # one that is damaged is set aside
            if record and record["status"] in records.STATUSES:
                self.believed.add(key)
        return [run for key, run in keys.items() if key not in self.believed]

    def _take_over(self, runs: Sequence[Run]) -> None:
        if self.published is None or not runs:
            return
        here = records.finished(self.results)
        without = [run for run in runs if run.key not in here]
        if taken := self.published.take(without, lambda run: _planned(self._jobs([run])[0])):
            print(f"{count(taken, 'published run')} taken over", flush=True)

    def check(self, runs: Sequence[Run]) -> bool:
        """Build every combination of ``runs`` that is missing and was not built before; return whether any is missing.

        The first time that any is, see before whether results can be written, and clear leftovers away.

        Raises:
            UsageError: one cannot be built, or results cannot be written.
        """
        if missing := self.missing(runs):
            self._make_room(missing)
            pool, jobs = self._pool(missing[0]), self._jobs(missing)
            self.checked |= check(pool, jobs, self.checked)
        return bool(missing)

    def _make_room(self, missing: Sequence[Run]) -> None:
        if not self.written:
            self.written = True
            room.check(self.results, len(missing), workers_of(self.options, missing[0].setting.spec.device))
            if removed := room.tidy(self.results):
                print(f"{count(removed, 'leftover')} of processes that were killed removed", flush=True)

    def refused(self, runs: Sequence[Run]) -> dict[str, str]:
        """Build and try these runs; return why those cannot be trained that cannot, by the label of their loss.

        Raises:
            UsageError: not one of them can, or results cannot be written.
        """
        self._make_room(runs)
        jobs = {job.label: replace(job, only_check=True) for job in self._jobs(runs)}
        problems: dict[str, str] = {}
        for event in self._pool(runs[0]).run(list(jobs.values())):
            if event.kind == "checked" and event.content["problem"]:
                problems[event.job.label] = str(event.content["problem"])
            elif event.kind == "timeout" or (event.kind == "died" and not event.content["again"]):
                problems[event.job.label] = "its worker ended while it built this run"
        if len(problems) == len(jobs):
            raise UsageError(next(iter(problems.values())))
        return problems

    def carry_out(self, runs: Sequence[Run]) -> None:
        """Run what is missing of ``runs``, all checked; count what was asked, what was there, and what failed."""
        missing, distinct = self.missing(runs), len({run.key for run in runs})
        self.planned += distinct
        self.done += distinct - len(missing)
        if missing:
            self.started()
            self.failed += _watch(self._pool(missing[0]), self._jobs(missing), self.results)

    def _jobs(self, runs: Sequence[Run]) -> list[Job]:
        return [job_of(run, self.options, self.results, self.addresses, self.study.metric) for run in runs]

    def _pool(self, run: Run) -> Engine:
        if self.pool is None:
            self.pool = engine_of(self.options, run.setting.spec.device)
        return self.pool


def _planned(job: Job) -> dict[str, Any]:
    """Return what a record says of a run before it was trained."""
    config = {name: value for name, value in asdict(job.spec).items() if value not in (None, {})}
    return {
        "choices": dict(job.choices),
        "config": {name: value for name, value in config.items() if name not in ("device", "threads")},
        "identity": dict(job.identity),
    }


def believe_in_gpus(options: Config) -> None:
    """Let runs be planned for GPUs that only other machines have, where the engine's workers are on such."""
    hardware.runs_are_elsewhere(options["engine"].get("_target_", LOCAL) != LOCAL)


def refuse_unknown_metric(study: Study, settings: Sequence[Setting], *, of_any_task: bool = False) -> None:
    """Raise a UsageError, with the nearest names, unless every run of a study records its metric.

    Args:
        study: whose metric it is.
        settings: of all its runs.
        of_any_task: look at tasks, too, that only importing them (and torch) tells the metrics of; where runs are to
            be carried out, workers import them anyway and check the same before anything is trained.
    """
    for target in dict.fromkeys(setting.spec.task["_target_"] for setting in settings):
        if metrics := BY_TASK.get(target) or (get_class(target).metrics if of_any_task else ()):
            keys = [metric.key for metric in metrics]
            for setting in (each for each in settings if each.spec.task["_target_"] == target):
                check_metric(study.metric, keys, setting.spec.shift or {})


def check(pool: Engine, jobs: Sequence[Job], known: Set[Names] = frozenset()) -> set[Names]:
    """Build every combination of task, data, model and loss that is not yet ``known``, before anything is trained.

    Trials of a search differ within ranges that are known to be right, so that one of them stands for all.

    Raises:
        UsageError: the first combination that cannot be built, with the reason.
    """
    distinct = {_combination(job): replace(job, only_check=True) for job in reversed(jobs)}
    distinct = {each: job for each, job in reversed(distinct.items()) if each not in known}
    said: set[str] = set()
    for event in pool.run(list(distinct.values())):
        for note in event.content.get("notes", ()):  # every worker reads the data
            if note not in said:
                said.add(note)
                print(note, flush=True)
        if event.kind == "checked" and event.content["problem"]:
            raise UsageError(str(event.content["problem"]))
        if event.kind == "timeout":
            raise UsageError(
                f"{describe(event.job)}: it was not built within {event.content['seconds']:.0f} s; where that is not "
                "enough, set engine.timeout to more."
            )
        if event.kind == "died" and not event.content["again"]:
            raise UsageError(
                f"{describe(event.job)}: the worker died while it built this run "
                f"({event.content['why']}); is there enough memory?"
            )
    return set(distinct)


def _combination(job: Job) -> Names:
    spec = job.spec
    settings = canonical([spec.task, spec.dataset, spec.model, spec.stress, spec.shift])
    return (*job.choices.values(), job.label, settings)


def job_of(run: Run, options: Config, results: Path, addresses: Addresses, metric: str = "") -> Job:
    """Return everything that a worker must know of a run, as plain data."""
    commit, dirty = hardware.commit()
    return Job(
        key=run.key,
        choices=run.setting.choices,
        label=run.setting.label,
        role=run.setting.role,
        spec=run.setting.spec,
        seed=run.seed,
        data=options["data"],
        feed=options["feed"],
        folder=str(records.run_folder(run.key, results)),
        checkpoint_seconds=options["engine"]["checkpoint_seconds"],
        environment={"commit": commit, "dirty": dirty},
        identity=addresses.identity(run.setting.spec),
        parts=addresses.parts(run.setting.spec),
        metric=metric,
    )


def describe(job: Job) -> str:
    """Return a run in a few words."""
    trials = dict.fromkeys(("search", "search_repeat"), " (trial)")
    roles = {**trials, "baseline_repeat": " (control)", "negative_control": " (control)"}
    what = f"{job.label}, {job.choices['model']}, {job.choices['dataset']}, seed {job.seed}{roles.get(job.role, '')}"
    return visible(what)


def _watch(pool: Engine, jobs: Sequence[Job], results: Path) -> list[tuple[str, str]]:
    """Carry out jobs, and wait for those that other sweeps carry out at this moment; return those that failed.

    Raises:
        UsageError: results cannot be written.
    """
    failed: list[tuple[str, str]] = []
    with Progress(len(jobs), pool.size) as progress:
        while jobs:
            away: list[tuple[Job, Stamp]] = []
            for event in pool.run(jobs):
                if event.kind == "finished" and event.content["status"] == ELSEWHERE:
                    away.append((event.job, _failure(event.job)))
                    continue
                progress.show(event, describe(event.job))
                if event.kind == "finished" and event.content.get("no_room"):
                    raise UsageError(str(event.content["error"]))
                if event.kind == "finished" and event.content["status"] not in records.STATUSES:
                    failed.append((describe(event.job), str(event.content["error"])))
                elif event.kind == "timeout" or (event.kind == "died" and not event.content["again"]):
                    failed.append((describe(event.job), _gone(event, results)))
            jobs, lost = _given_back(away)
            failed += lost
    return failed


def _given_back(away: Sequence[tuple[Job, Stamp]]) -> tuple[list[Job], list[tuple[str, str]]]:
    """Wait until another sweep has ended one of its runs, at least; return those to be looked at again, and those that
    failed there meanwhile, which are not tried a second time.

    Args:
        away: runs that others have, each with the failure that it had before.
    """
    said = time.monotonic()
    while away:
        back = [(job, before) for job, before in away if lease.free(Path(job.folder))]
        if back:
            failures = {job.key: why for job, before in back if (why := _failed_since(job, before))}
            again = [job for job, _ in away if job.key not in failures]
            return again, [(describe(job), failures[job.key]) for job, _ in back if job.key in failures]
        if time.monotonic() - said > WAITING_S:
            said = time.monotonic()
            print(f"waiting for {count(len(away), 'run')} that other sweeps train", flush=True)
        time.sleep(LOOK_S)
    return [], []


def _failure(job: Job) -> Stamp:
    """Return what tells one recorded failure of a run from the next, None if there is none."""
    try:
        about = (Path(job.folder) / "failure.json").stat()
    except OSError:
        return None
    return about.st_mtime_ns, about.st_ino


def _failed_since(job: Job, before: Stamp) -> str | None:
    """Return why a run failed, if it has another failure than ``before``."""
    if _failure(job) in (None, before):
        return None
    record = records.read_folder(Path(job.folder), job.key)
    return str(record.get("error")) if record and record["status"] not in records.STATUSES else None


def _gone(event: Event, results: Path) -> str:
    """Record a run whose worker died as often as it was tried, or was ended because nothing was heard of it."""
    job, content = event.job, event.content
    if event.kind == "timeout":
        after = f" after {content['epoch']}" if content["epoch"] else ""
        status, reason = "timeout", f"nothing was heard of it for {content['seconds']:.0f} s{after} (engine.timeout)"
    else:
        status, reason = "failed", f"its worker died ({content['why']}) at every try"
    known = {"key": job.key, "choices": dict(job.choices), "seed": job.seed, "env": job.environment}
    records.save_failure(records.run_folder(job.key, results), known | {"error": reason, "status": status})
    return reason


def checked_only(study: Study, options: Config, results: Path = RESULTS) -> str:
    """Build and try every combination of a study that has no record yet; return how many there are, in a sentence.

    Raises:
        UsageError: one cannot be built, or a data set is missing.
    """
    believe_in_gpus(options)
    addresses = Addresses(Path(options["data"]["root"]), results, download=options["data"]["download"])
    with Work(options, lambda: None, results, addresses, study) as work:
        work.check(plan.runs(plan.settings(study), study, addresses))
        return f"{study.name}: {count(len(work.checked), 'combination')} of task, data, model and loss can be built."


def estimate(missing: Sequence[Setting], runs: Sequence[Run], results: Path, sample: int = 200) -> float | None:
    """Return the seconds of work that runs of ``missing`` would take on one worker, from records of like runs.

    A like run has the same data and model, if possible the same loss; every epoch takes as long as one of its own.
    Published runs count where none was made here. None if there is nothing to go by.
    """
    here = records.finished(results)
    times: dict[tuple[str, ...], list[float]] = {}
    for run in [run for run in runs if run.key in here][:: max(1, len(here) // sample)][:sample]:
        record = records.read(run.key, results)
        if record and record["cost"].get("wall_s"):
            for like in _likes(run.setting):
                times.setdefault(like, []).append(record["cost"]["wall_s"] / run.setting.spec.trainer["epochs"])
    times = times or _published_times()
    total = 0.0
    for setting in missing:
        known = next((times[like] for like in _likes(setting) if like in times), None)
        if known is None:
            return None
        total += setting.spec.trainer["epochs"] * sum(known) / len(known)
    return total


def workers_of(options: Config, device: str) -> int:
    """Return how many runs are trained at once; where only a cluster knows, 1."""
    engine = options["engine"]
    if engine.get("workers") or engine.get("address"):
        return engine.get("workers") or 1
    if device == "cuda":
        return max(1, len(hardware.gpus()) * engine["per_device"])
    return max(1, hardware.cores() // options["threads"])


def _published_times() -> dict[tuple[str, ...], list[float]]:
    """Return the seconds of an epoch of published runs, by what makes others like them: data and model, and loss."""
    found: dict[tuple[str, ...], list[float]] = {}
    for listed in sorted(MEASURED.glob("*.json")):
        shared = json.loads(listed.read_text()).get("shared", {}).get("config.trainer.epochs")
        of_setting = {row["setting"]: row for row in _rows(next(MEASURED.glob(f"{listed.stem}_settings.csv*")))}
        for row in _rows(next(MEASURED.glob(f"{listed.stem}.csv*"))):
            epochs = of_setting.get(row["setting"], {}).get("config.trainer.epochs") or shared
            if epochs and (seconds := row.get("cost.wall_s")):
                for like in ((row["dataset"], row["model"], row["loss"]), (row["dataset"], row["model"])):
                    found.setdefault(like, []).append(float(seconds) / float(epochs))
    return found


def _rows(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        return list(csv.DictReader(file))


def _likes(setting: Setting) -> tuple[tuple[str, ...], ...]:
    """Return what runs take about as long as those of a setting, the closest first."""
    data, model, loss = (setting.choices[group] for group in ("dataset", "model", "loss"))
    return ((data, model, loss), (data, model), ())


def planned_only(study: Study, options: Config, results: Path = RESULTS, first_look: FirstLook = lambda *_: "") -> str:
    """Return what a sweep would do: how many runs at least and at most, how many are done, and how long it may take.

    ``first_look`` says if there are too few seeds to begin with.
    """
    believe_in_gpus(options)
    settings, here = plan.settings(study), records.finished(results)
    refuse_unknown_metric(study, settings, of_any_task=True)
    addresses = Addresses(Path(options["data"]["root"]), results)
    search, waits = Search(settings, study, addresses), False
    while not waits and (trials := search.ask()):
        waits = any(run.key not in here for run in trials)
        if not waits:
            search.tell(results)
    runs = [*search.runs, *plan.runs(settings, study, addresses, {} if waits else search.chosen())]
    missing = [run.setting for run in runs if run.key not in here] + search.ahead
    planned, cells = len(runs) + len(search.ahead), len({setting.cell for setting in settings})
    ahead = ("search_repeat" if setting.role == "baseline_repeat" else "search" for setting in search.ahead)
    counts = Counter(run.setting.role for run in runs) + Counter(ahead)
    labels = len({setting.label for setting in settings})
    lines = [
        f"{study.name}: {study.question}",
        f"{planned} runs: {_roles(counts)}; {count(labels, 'loss', 'losses')} in {count(cells, 'cell')}, "
        f"{count(len(study.seeds), 'seed')}, track {study.track}"
        + (f" with {search.budget} trials of every loss in every cell." if search.budget else "."),
        *_more(study, settings, addresses, planned, search, first_look),
        f"{planned - len(missing)} done, {len(missing)} missing.",
    ]
    if published := {run.key for run in runs if run.key not in here} & Published(study, results).keys():
        lines.append(f"{len(published):,} of the missing were published: reuse=true goes on from them.")
    if waits:
        lines.append("The search is not finished, so runs other than trials count as missing.")
    if missing:
        seconds = estimate(missing, runs, results)
        device = runs[0].setting.spec.device
        workers = workers_of(options, device)
        lines.append(
            f"About {_duration(seconds / workers)} on {count(workers, 'worker')}, estimated from records of like runs."
            if seconds is not None
            else "No record of like runs to estimate the time from."
        )
    return "\n".join(lines)


def _more(
    study: Study,
    settings: Sequence[Setting],
    addresses: Addresses,
    planned: int,
    search: Search,
    first_look: FirstLook,
) -> list[str]:
    """Return what may be added to the runs that are sure, a sentence each."""
    lines = []
    if search.budget and study.search["most"]:
        lines.append(
            "Further trials follow where the best learning rate is the least or the greatest tried, at most "
            f"{study.search['most']} times on each side."
        )
    if search.budget and study.margin and study.search["most_seeds"] > len(study.search["seeds"]):
        lines.append(
            "Further search seeds follow where a trial may be better than the best by more than the margin, up to "
            f"{study.search['most_seeds']}."
        )
    if study.further_seeds:
        compared = [setting for setting in settings if setting.role == "run"]
        further = len(plan.runs(compared, study.on(study.further_seeds), addresses))
        lines.append(
            f"Seeds are added to what is not decided, up to {study.max_seeds}: from {planned} runs at least to "
            f"{planned + further} at most."
        )
        beside = Counter(setting.cell for setting in compared if setting.label != study.baseline)
        if beside and (said := first_look(max(beside.values()), study.seeds, study.unused_seeds)):
            lines.append(said)
    return lines


def _roles(counts: Mapping[str, int]) -> str:
    titles = {
        "search": "trials",
        "search_repeat": "trials of the baseline, repeated",
        "run": "to compare",
        "baseline_repeat": "of the baseline, repeated",
        "negative_control": "of the negative control",
    }
    return ", ".join(f"{counts[role]} {title}" for role, title in titles.items() if counts.get(role))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
