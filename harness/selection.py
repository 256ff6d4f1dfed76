"""Which trial of a search is chosen: one rule for the search, which acts on it, and for the report, which weighs it.

Validation alone decides. A trial is as good as the mean of the study's metric over the search's seeds; one run that
diverged or failed makes it the worst. Trials that may yet be better than the chosen one by more than the margin of the
study (:func:`contending`) get further seeds; one that was given fewer seeds than others is out of the contest. Where
the metric is at its floor in every trial (a G-mean of 0), the next one that `FALLBACKS` names decides; equals are told
apart by the `TIE_BREAKERS` that every trial recorded, in their order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.metrics.declared import FALLBACKS, TIE_BREAKERS, Metric, metric_of

ERRORS = 1.5  # standard errors by which a trial may be better than it seems
DIGITS = 12  # means over seeds are compared to so many: the same shares added in another order are the same
Scores = dict[str, tuple[float, ...]]


@dataclass(frozen=True)
class Tried:
    """One run of a search: the trial that it belongs to, its learning rate, and its scores on validation by name."""

    trial: str
    rate: float
    seed: int
    status: str
    valid: Mapping[str, float | None]


@dataclass(frozen=True)
class Choice:
    """What a search chose for one contender, and how sure that is.

    Attributes:
        trial: the chosen trial.
        rate: its learning rate.
        by: the metric that set it apart from the runner-up, with the reason where it is not the study's own, such as
            ``nll (tie of gmean)``; empty where no trial finished.
        lead: how much better than the runner-up it is in that metric; 0 if nothing tells them apart, infinite if no
            other trial finished, nan if there is no other.
        tied: the learning rates of the trials that nothing tells from the chosen one.
        edge: whether its rate is the least or the greatest of several that were tried.
        contending: the learning rates of the trials that may yet be better than the chosen one by more than the margin.
        seeds: how many seeds the chosen trial was run with.
    """

    trial: str
    rate: float
    by: str
    lead: float
    tied: tuple[float, ...]
    edge: bool
    contending: tuple[float, ...] = ()
    seeds: int = 1


def tried(rows: Iterable[Mapping[str, Any]]) -> list[Tried]:
    """Return the runs of a search from rows of a study's table: ``setting``, ``lr``, ``seed``, ``status``, ``valid.*``.

    Settings name the trials, since trials of one contender differ in nothing else.
    """
    return [
        Tried(str(row["setting"]), float(row["lr"]), int(row["seed"]), str(row["status"]), _validation(row))
        for row in rows
    ]


def _validation(row: Mapping[str, Any]) -> dict[str, float | None]:
    scores = {name: value for name, value in row.items() if name.startswith("valid.")}
    return {name.removeprefix("valid."): _number(value) for name, value in scores.items()}


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def choose(runs: Iterable[Tried], metric: str, declared: Sequence[Metric] = (), margin: float = 0.0) -> Choice:
    """Return what the trials of one contender lead to, in whatever order they come.

    Of trials that nothing tells apart, the one is chosen whose rate is next to the middle of theirs.

    Args:
        runs: all its trials, one entry for each seed; at least one.
        metric: the study's, as a column of records (``test.top1``).
        declared: metrics that the records brought along.
        margin: the study's; 0: no trial contends.
    """
    found = list(runs)
    names, scores = _compared(found, metric, declared)
    rates = {run.trial: run.rate for run in found}
    best = max(scores.values())
    equal = sorted((rates[trial], trial) for trial, score in scores.items() if score == best)
    middle = sum(math.log(rate) for rate, _ in equal) / len(equal)
    rate, trial = min(equal, key=lambda each: round(abs(math.log(each[0]) - middle), DIGITS))
    by, lead = _decided(names, best, [score for other, score in scores.items() if other != trial])
    tied = tuple(other for other, name in equal if name != trial)
    ends = {min(rates.values()), max(rates.values())}
    others = contending(found, trial, metric, declared, margin)
    rates_left = tuple(sorted({rates[other] for other in others}))
    seeds = sum(run.trial == trial for run in found)
    return Choice(trial, rate, by, lead, tied, len(ends) > 1 and rate in ends, rates_left, seeds)


def contending(
    runs: Iterable[Tried], chosen: str, metric: str, declared: Sequence[Metric] = (), margin: float = 0.0
) -> list[str]:
    """Return the trials that may be better than the chosen one by more than the margin.

    Seed by seed a trial is so much better than the chosen one; the mean of that and 1.5 standard errors make up what
    it may be better by. With one seed nothing is known, so every trial that finished contends. No trial contends where
    the chosen one did not finish.

    Args:
        runs: all trials of one contender, an entry for each seed.
        chosen: the chosen trial.
        metric: the study's, as a column of records.
        declared: metrics that the records brought along.
        margin: in the metric's unit; 0: no trial contends.
    """
    trials = _by_trial(list(runs))
    asked = metric.rpartition(".")[2]
    done = {name: each for name, each in trials.items() if _finished(each, asked)}
    if not margin or chosen not in done:
        return []
    name = _above_floor(asked, [run for each in done.values() for run in each], declared)
    sign = 1 if metric_of(name, declared).higher_is_better else -1
    base = {run.seed: run.valid[name] for run in done[chosen]}
    found = []
    for trial, each in done.items():
        if trial == chosen or len(each) < len(base):
            continue
        better = [sign * ((run.valid[name] or 0.0) - (base[run.seed] or 0.0)) for run in each if run.seed in base]
        if _upper(better) > margin:
            found.append(trial)
    return found


def _upper(values: Sequence[float]) -> float:
    """Return the mean and so many standard errors; infinity for one value."""
    if len(values) < 2:
        return math.inf
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return mean + ERRORS * math.sqrt(variance / len(values))


def ranks(runs: Iterable[Tried], metric: str, declared: Sequence[Metric] = ()) -> dict[str, int]:
    """Return the rank of every trial of one contender, the worst 0 and equals alike; arguments as of :func:`choose`."""
    _, scores = _compared(list(runs), metric, declared)
    order = sorted(set(scores.values()))
    return {trial: order.index(score) for trial, score in scores.items()}


def _decided(names: Sequence[str], best: tuple[float, ...], others: Sequence[tuple[float, ...]]) -> tuple[str, float]:
    """Return which of the metrics sets the best scores apart from the next, and by how much."""
    if best[0] == -math.inf:
        return "", 0.0 if others else math.nan
    if not others:
        return names[0], math.nan
    runner_up = max(others)
    apart = (i for i, (own, other) in enumerate(zip(best, runner_up, strict=True)) if own != other)
    decisive = next(apart, None)
    return (names[0], 0.0) if decisive is None else (names[decisive], best[decisive] - runner_up[decisive])


def _compared(runs: Sequence[Tried], metric: str, declared: Sequence[Metric]) -> tuple[list[str], Scores]:
    """Return by what trials are compared, described in words, and their scores in it: higher is better."""
    trials = _by_trial(runs)
    asked = metric.rpartition(".")[2]  # of shifted test data, too, a search knows the validation data alone
    finished_ones = [each for each in trials.values() if _finished(each, asked)]
    most = max((len(each) for each in finished_ones), default=0)
    done = [each for each in finished_ones if len(each) == most]
    finished = [run for each in done for run in each]
    first = _above_floor(asked, finished, declared)
    breakers = [name for name in TIE_BREAKERS if name != first and all(_scored(run, name) for run in finished)]
    names = [first, *(breakers if finished else ())]
    scores: Scores = dict.fromkeys(trials, (-math.inf,) * len(names))
    for each in done:
        scores[each[0].trial] = tuple(_mean(each, name, declared) for name in names)
    floor = [f"{asked} at its floor"] * (first != asked)
    words = [", ".join([*([f"tie of {first}"] * (name != first)), *floor]) for name in names]
    return [f"{name} ({why})" if why else name for name, why in zip(names, words, strict=True)], scores


def _by_trial(runs: Sequence[Tried]) -> dict[str, list[Tried]]:
    trials: dict[str, list[Tried]] = {}
    for run in runs:
        trials.setdefault(run.trial, []).append(run)
    return trials


def _finished(runs: Sequence[Tried], metric: str) -> bool:
    """Return whether every run of a trial finished with a score."""
    return all(run.status == "done" and _scored(run, metric) for run in runs)


def _scored(run: Tried, name: str) -> bool:
    value = run.valid.get(name)
    return value is not None and math.isfinite(value)


def _above_floor(name: str, runs: Sequence[Tried], declared: Sequence[Metric]) -> str:
    """Return the metric, or the first of those that it falls back on in which not all runs are as bad as can be."""
    while name in FALLBACKS and runs:
        known = metric_of(name, declared)
        worst = known.low if known.higher_is_better else known.high
        following = FALLBACKS[name]
        if any(run.valid[name] != worst for run in runs) or not all(_scored(run, following) for run in runs):
            break
        name = following
    return name


def _mean(runs: Sequence[Tried], name: str, declared: Sequence[Metric]) -> float:
    mean = math.fsum(run.valid[name] or 0.0 for run in runs) / len(runs)
    return float(f"{mean if metric_of(name, declared).higher_is_better else -mean:.{DIGITS}g}")
