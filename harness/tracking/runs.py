"""From records to what MLflow shall hold: pure, without MLflow."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from harness.records import FAILED

LONGEST_PARAM, LONGEST_TAG = 500, 5000  # what older tracking servers still take
CELL = ("dataset", "model")
NAMES = ("task", *CELL, "loss", "optimizer", "trainer", "label", "role", "seed")
ROLES = {
    "baseline_repeat": "other seeds",
    "negative_control": "negative control",
    "search": "search",
    "search_repeat": "search, other seeds",
}
SYSTEM = ("step_ms", "peak_memory_mb")  # of every epoch: what the dashboard keeps apart, as metrics of the system
REPORT = "report"  # role of the run that carries the report
TRIALS = ("search", "search_repeat")  # roles of runs that differ in what is searched
Row = Mapping[str, Any]


class Point(NamedTuple):
    """One value of one metric."""

    name: str
    value: float
    time_ms: int
    step: int


@dataclass(frozen=True)
class TrackedRun:
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
    data: tuple[str, str] | None = None  # name and digest of the data set that it was trained on

    @property
    def digest(self) -> str:
        """A hash of everything that is mirrored; if it is equal, there is nothing to do."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Verdict:
    """What is said of a setting: ``tags`` and ``metrics`` of its parent run, ``marks`` as tags of each of its seeds,
    ``unlearnt`` the keys of its runs that did not learn.
    """

    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    marks: dict[str, str] = field(default_factory=dict)
    unlearnt: frozenset[str] = frozenset()

    def of(self, key: str) -> dict[str, str]:
        """Return the tags of one run."""
        return self.marks | ({"lossbench.learnt": "no"} if key in self.unlearnt else {})


def text(value: object) -> str | None:
    """Return a cell of a table as a parameter: numbers alike whether read as int, float or from CSV; None if absent."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.12g}" if isinstance(value, int | float) else str(value)


def value(text: str) -> str | float:
    """Return a parameter as other mirrors take it: as a number, if it is one.

    >>> value("0.003"), value("adamw")
    (0.003, 'adamw')
    """
    try:
        return float(text)
    except ValueError:
        return text


def grouped(name: str) -> str:
    """Return the name of a metric as TensorBoard and Weights & Biases write it, below the group of its first word.

    >>> grouped("test.top1"), grouped("system/step_ms"), grouped("lr")
    ('test/top1', 'system/step_ms', 'lr')
    """
    return name if "/" in name else name.replace(".", "/", 1)


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
    """Return the runs by (setting, role), those not yet run included; trials of one search share one setting."""
    found: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in runs:
        setting = str(row["setting"])
        if row["role"] in TRIALS:
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
        row, "test.", "shifted.", "valid.", "cost.", "selected_epoch", "diverged_step", "last_finite_loss"
    ).items():
        if (found := number(value)) is not None:
            yield Point(f"selected.{name}" if name.startswith("valid.") else name, found, at_ms, 0)


def _curve(name: str) -> str:
    """Return what a column of histories is called: step time and memory lie below "system/", which MLflow shows apart.

    They are those that the runs measured of themselves. MLflow's own sampling of a machine is not used: it would need a
    thread in every worker, whose time is part of what is compared, and says of a machine what several runs share.
    """
    return f"system/{name}" if name in SYSTEM else name


def _curves(history: Sequence[Row], start_ms: int, end_ms: int) -> Iterator[Point]:
    """Yield the epochs' values, their times spread evenly from the run's start to its end."""
    for position, row in enumerate(history, 1):
        at_ms = start_ms + (end_ms - start_ms) * position // len(history)
        for name, value in row.items():
            if name not in ("key", "epoch", "step") and isinstance(value, int | float):
                yield Point(_curve(str(name)), float(value), at_ms, int(row["epoch"]))


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
    measured = {point.name for point in finite}
    tags = {
        f"lossbench.nonfinite.{name}": ", ".join(
            f"{point.value} in epoch {point.step}" if point.step else str(point.value) for point in found
        )
        for name, found in others.items()
        if name in measured or name.startswith("train.loss") or any(math.isinf(point.value) for point in found)
    }
    return finite, tags


def _tags(row: Row, setting: str, **more: object) -> dict[str, str]:
    named = {name: row.get(name) for name in ("role", "label", "dataset", "model", "track")}
    values = {f"lossbench.{name}": text(value) for name, value in {**named, "setting": setting, **more}.items()}
    values["mlflow.source.git.commit"] = text(row.get("env.commit"))
    return {name: value[:LONGEST_TAG] for name, value in values.items() if value}


def _data(row: Row) -> tuple[str, str] | None:
    """Return name and digest of a run's data set: the checksum of its splits, else the identity of its bytes."""
    digest = text(row.get("data.checksum")) or text(row.get("identity.data"))
    return (str(row["dataset"]), digest[:36]) if digest and text(row.get("dataset")) else None


def _mean_curves(done: Sequence[Row], epochs: Mapping[str, Sequence[Row]]) -> Iterator[Point]:
    """Yield the mean over all seeds at every epoch that all of them reached, named after their number: the mean of more
    seeds is another curve.
    """
    values: dict[tuple[str, int], list[float]] = defaultdict(list)
    for row in done:
        for epoch in epochs.get(str(row["key"]), ()):
            for name, value in epoch.items():
                if name not in ("key", "epoch", "step") and isinstance(value, int | float) and math.isfinite(value):
                    values[str(name), int(epoch["epoch"])].append(float(value))
    for (name, epoch), found in values.items():
        if len(found) == len(done):
            yield Point(f"{_curve(name)}.mean_of_{len(done)}", float(f"{statistics.fmean(found):.6g}"), 0, epoch)


def tracked_report(study: str, page: str) -> TrackedRun:
    """Return the run that carries a study's report, the text of its page, as an artifact."""
    tags = {"lossbench.setting": REPORT, "lossbench.role": REPORT}
    note = f"The report of the study {study}: the artifact index.html, one file that works offline."
    return TrackedRun(
        (REPORT, REPORT), None, "report", "FINISHED", tags | {"mlflow.note.content": note}, {}, [],
        files={"index.html": page},
    )  # fmt: skip


def tracked_seed(row: Row, history: Sequence[Row], parent: tuple[str, str]) -> TrackedRun:
    """Return what is tracked of one run that is done, diverged or failed; ``history`` has its epochs in order."""
    start_ms, end_ms = (_milliseconds(row.get(name)) for name in ("started", "finished"))
    points, nonfinite = _split([*_curves(history, start_ms or 0, end_ms or 0), *_finals(row, end_ms or 0)])
    more = {name: row.get(name) for name in ("key", "status", "error", "diverged_step", "last_finite_loss")}
    params = _params(row)
    name = f"seed {params['seed']}"
    if row["role"] in TRIALS:
        name = f"lr {params.get('optimizer.lr')}, {name}"
    elif row["role"] == "baseline_repeat":
        name += f" against {text(row.get('pair_seed'))}"
    name += f" · {_title(row)}"
    config = {name.removeprefix("config."): value for name, value in _part(row, "config.").items()}
    files = {
        "config.json": json.dumps(config, indent=1),
        "environment.json": json.dumps(_part(row, "env.", "identity.", "data."), indent=1),
        "result.json": json.dumps(
            _part(row, "test.", "shifted.", "valid.", "cost.", "selected", "diverged", "last_", "error"), indent=1
        ),
    }
    if trace := text(row.get("traceback")):
        files["traceback.txt"] = trace
    return TrackedRun(
        (str(row["key"]), str(row["role"])), parent, name, "FINISHED" if row["status"] == "done" else "FAILED",
        _tags(row, parent[0], **more) | nonfinite, params, points, start_ms, end_ms, files, _data(row),
    )  # fmt: skip


def tracked_setting(
    identity: tuple[str, str], rows: Sequence[Row], verdict: Verdict, epochs: Mapping[str, Sequence[Row]]
) -> TrackedRun:
    """Return what is tracked of a setting: its finished seeds taken together, and its comparison with the baseline.

    Args:
        identity: the setting's hash and the role of its runs.
        rows: its runs, those not yet made included.
        verdict: what is said of it.
        epochs: by key, the history of each run.
    """
    done = [row for row in rows if row["status"] == "done"]
    count = Counter(str(row["status"]) for row in rows)
    points = [Point(status, float(count[status]), 0, 0) for status in ("diverged", *FAILED)]
    words = (*((name, name) for name in ("diverged", *FAILED)), ("missing", "not run yet"))
    others = [f"{count[name]} {word}" for name, word in words if count[name]]
    if verdict.unlearnt:
        others.append(f"{len(verdict.unlearnt)} did not learn")
        points.append(Point("did_not_learn", float(len(verdict.unlearnt)), 0, 0))
    state = ", ".join([f"{len(done)} of {len(rows)} done", *others])
    if identity[1] in TRIALS:
        note = "Its runs differ in what is searched, so nothing is averaged."
    elif len({row.get("env.device") for row in done}) > 1:
        note = "Its runs come from different kinds of device, so nothing is averaged."
    else:
        note = "Metrics over the seeds done: mean, standard deviation (sd), n, 95 % t interval of the mean (low, high)."
        points += [Point(name, value, 0, 0) for name, value in (_averages(done) | verdict.metrics).items()]
        if not count["missing"]:  # as long as seeds are added, every round would add a curve
            points += _mean_curves(done, epochs)
    ended = [row for row in rows if row["status"] in ("done", "diverged")]  # others may lack their configuration
    params = [_params(row) for row in ended or rows]
    vary = ("seed", "optimizer.lr") if identity[1] in TRIALS else ("seed",)
    shared = set.intersection(*(set(row.items()) for row in params))
    moments = [[_milliseconds(row.get(name)) for row in rows] for name in ("started", "finished")]
    tags = _tags(rows[0], identity[0], seeds=state) | {name: each[:LONGEST_TAG] for name, each in verdict.tags.items()}
    return TrackedRun(
        identity=identity,
        parent=None,
        name=_title(rows[0]),
        status="FINISHED" if done else "FAILED",
        tags=tags | {"mlflow.note.content": _note(state, note, verdict)},
        params={name: value for name, value in sorted(shared) if name not in vary},
        points=points,
        start_ms=min(filter(None, moments[0]), default=None),
        end_ms=max(filter(None, moments[1]), default=None),
        data=_data(ended[0]) if ended and len({_data(row) for row in ended}) == 1 else None,
    )


def _note(state: str, note: str, verdict: Verdict) -> str:
    word, because = (verdict.tags.get(f"lossbench.{name}", "") for name in ("verdict", "because"))
    said = f" Against the baseline: {word}{f', because {because}' if because else ''}." if word else ""
    return f"{state}. {note}{said}"[:LONGEST_TAG]


def _averages(done: Sequence[Row]) -> dict[str, float]:
    """Return the summaries of the test metrics and the mean step time, to the six digits that the dashboard shows."""
    found: dict[str, float] = {}
    for name in sorted({name for row in done for name in _part(row, "test.", "shifted.", "cost.step_ms")}):
        values = [value for row in done if (value := number(row.get(name))) is not None and math.isfinite(value)]
        if values:
            kept = {"mean": statistics.fmean(values)} if name.startswith("cost.") else summary(values)
            found |= {f"{name}.{what}": float(f"{value:.6g}") for what, value in kept.items()}
    return found
