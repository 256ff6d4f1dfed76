"""Carry out a study: plan it, check it, run what is missing, and say how it goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import hardware, plan, records, tune
from harness.engines import Event, LocalEngine
from harness.errors import UsageError
from harness.plan import Run, Study
from harness.progress import Progress
from harness.records import RESULTS

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """How a sweep ended: ``planned`` runs in all, ``done`` before it began, ``failed`` as (description, reason)."""

    planned: int
    done: int
    failed: list[tuple[str, str]]
    seconds: float


def sweep(
    study: Study, options: Config, started: Callable[[], None] = lambda: None, results: Path = RESULTS
) -> Outcome:
    """Run what is missing of ``study`` and write its list of runs.

    Args:
        study: what to run.
        options: ``data``, ``engine``, ``device`` and ``threads`` as composed from conf/run.yaml.
        started: called when all checks have passed and training begins; never, if nothing is missing.
        results: where records go.

    Raises:
        UsageError: a combination cannot be built, or a data set is missing; nothing was trained.
    """
    began = time.monotonic()
    settings = plan.settings(study)
    trials = plan.search_runs(settings, study) if study.track == "lr" else []
    failed, before = [], 0
    records.write_study(study, trials or plan.runs(settings, study), results)  # an interrupted sweep can be reported
    if trials:
        before, failed = _carry_out(trials, options, started, results)
    rates = tune.choose(trials, study, results) if trials else None
    runs = plan.runs(settings, study, rates)
    if trials:
        records.write_study(study, [*trials, *runs], results)
    done, more = _carry_out(runs, options, started, results)
    return Outcome(len(trials) + len(runs), before + done, failed + more, time.monotonic() - began)


def _carry_out(
    runs: Sequence[Run], options: Config, started: Callable[[], None], results: Path
) -> tuple[int, list[tuple[str, str]]]:
    """Run what has no record yet; return how many had one, and what failed."""
    here = records.finished(results)
    missing = list({run.key: run for run in runs if run.key not in here}.values())
    done = len({run.key for run in runs}) - len(missing)
    if not missing:
        return done, []
    engine = options["engine"]
    jobs = [job(run, options, results) for run in missing]
    device, threads = missing[0].setting.described["device"], options["threads"]
    with LocalEngine(device, threads, engine["workers"], engine["per_device"], engine["retries"]) as pool:
        check(pool, jobs)
        started()
        return done, _watch(pool, jobs, results)


def check(pool: LocalEngine, jobs: Sequence[Config]) -> None:
    """Build every distinct combination of data, model and loss once, before anything is trained.

    Raises:
        UsageError: the first combination that cannot be built, with the reason.
    """
    distinct = {tuple(job["names"].values()): {**job, "kind": "check"} for job in jobs}
    for event in pool.run(list(distinct.values())):
        if event.kind == "checked" and event.content["problem"]:
            raise UsageError(str(event.content["problem"]))
        if event.kind == "died" and not event.content["again"]:
            raise UsageError(
                f"{describe(event.job)}: the worker died while it built this run (exit code "
                f"{event.content['exitcode']}); is there enough memory?"
            )


def job(run: Run, options: Config, results: Path) -> dict[str, Any]:
    """Return everything that a worker must know of a run, as plain data."""
    commit, dirty = hardware.commit()
    return {
        "kind": "run",
        "key": run.key,
        "names": run.setting.names,
        "label": run.setting.label,
        "role": run.setting.role,
        "described": run.setting.described,
        "seed": run.seed,
        "data": options["data"],
        "checkpoint_seconds": options["engine"]["checkpoint_seconds"],
        "folder": str(records.run_folder(run.key, results)),
        "environment": {"commit": commit, "dirty": dirty},
    }


def describe(job: Config) -> str:
    """Return a run in a few words."""
    role = {"search": " (learning-rate trial)", "self": " (control)", "planted": " (control)"}.get(job["role"], "")
    return f"{job['label']}, {job['names']['model']}, {job['names']['dataset']}, seed {job['seed']}{role}"


def _watch(pool: LocalEngine, jobs: Sequence[Config], results: Path) -> list[tuple[str, str]]:
    failed = []
    with Progress(len(jobs), pool.size) as progress:
        for event in pool.run(jobs):
            progress.show(event, describe(event.job))
            if event.kind == "finished" and event.content["status"] == "failed":
                failed.append((describe(event.job), str(event.content["error"])))
            elif event.kind == "died" and not event.content["again"]:
                failed.append((describe(event.job), _died(event, results)))
    return failed


def _died(event: Event, results: Path) -> str:
    """Record a run whose worker died as often as it was tried."""
    job = event.job
    reason = f"its worker died (exit code {event.content['exitcode']}) at every try"
    known = {name: job[name] for name in ("key", "names", "seed")}
    records.save_failure(records.run_folder(job["key"], results), known | {"error": reason, "env": job["environment"]})
    return reason


def estimate(missing: Sequence[Run], runs: Sequence[Run], results: Path, sample: int = 200) -> float | None:
    """Return the seconds of work that ``missing`` would take on one worker, from finished records of like runs.

    A like run has the same data and model, if possible the same loss; None if there is no record to go by.
    """
    here = records.finished(results)
    times: dict[tuple[str, ...], list[float]] = {}
    for run in [run for run in runs if run.key in here][:: max(1, len(here) // sample)][:sample]:
        record = records.read(run.key, results)
        if record and record["cost"].get("wall_s"):
            names = run.setting.names
            for like in ((names["dataset"], names["model"], names["loss"]), (names["dataset"], names["model"]), ()):
                times.setdefault(like, []).append(record["cost"]["wall_s"])
    if not times:
        return None
    total = 0.0
    for run in missing:
        names = run.setting.names
        likes = ((names["dataset"], names["model"], names["loss"]), (names["dataset"], names["model"]), ())
        known = next(times[like] for like in likes if like in times)
        total += sum(known) / len(known)
    return total


def planned_only(study: Study, options: Config, results: Path = RESULTS) -> str:
    """Return what a sweep would do: how many runs, how many are done, and how long the rest may take."""
    settings = plan.settings(study)
    trials = plan.search_runs(settings, study) if study.track == "lr" else []
    here = records.finished(results)
    chosen = tune.choose(trials, study, results) if trials and all(run.key in here for run in trials) else None
    runs = [*trials, *plan.runs(settings, study, chosen)]
    missing = [run for run in runs if run.key not in here]
    cells = len({setting.cell for setting in settings})
    lines = [
        f"{study.name}: {study.question}",
        f"{len(runs)} runs: {_roles(runs)}; {len({s.label for s in settings})} losses in {cells} cells, "
        f"{len(study.seeds)} seeds, track {study.track}.",
        f"{len(runs) - len(missing)} done, {len(missing)} missing.",
    ]
    if trials and chosen is None:
        lines.append("The learning rates are not chosen yet, so runs other than trials count as missing.")
    if missing:
        seconds = estimate(missing, runs, results)
        device, threads = runs[0].setting.described["device"], options["threads"]
        workers = options["engine"]["workers"] or (1 if device == "cuda" else max(1, hardware.cores() // threads))
        lines.append(
            f"About {_duration(seconds / workers)} on {workers} workers, judged by finished records."
            if seconds is not None
            else "No finished record to judge the time by."
        )
    return "\n".join(lines)


def _roles(runs: Sequence[Run]) -> str:
    titles = {
        "search": "learning-rate trials",
        "run": "to compare",
        "self": "baseline against itself",
        "planted": "planted worse loss",
    }
    counts = {role: sum(run.setting.role == role for run in runs) for role in titles}
    return ", ".join(f"{count} {titles[role]}" for role, count in counts.items() if count)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
