"""What it costs to search the learning rate, and settings, of a loss before it is compared: in steps and in time."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from harness.analysis.cells import Analysis, Outcome
from harness.analysis.frames import column, numbers, rows, where
from harness.report.items import Column, Entry, Prose, Row, Table
from harness.report.sections.common import cell_entry, cell_filters, dash, loss_entry, loss_filters
from harness.text import count, joined, number, plain

Trials = dict[Any, pd.DataFrame]  # the runs of searches, by cell and label


def trials_of(a: Analysis) -> Trials:
    """Return the runs of the search of every loss in every cell, on machines whose runs are compared; may be empty."""
    kept = rows(a.all, ~a.all.index.to_series().isin(list(a.set_aside.index)))
    return dict(iter(where(kept, role="search").groupby(["cell", "label"], sort=False)))


def rule(a: Analysis, trials: Trials) -> str:
    """Return the rule of the search, which is the same for all losses, and how many runs it came to; the rule lets a
    search go on where its best learning rate is the outermost, so that the numbers may differ.
    """
    search: dict[str, Any] = a.study.spec.get("search") or {}
    tuned = a.study.spec.get("track") == "tuned"
    first = search.get("trials") if tuned else len(search.get("factors", ()))
    parts = [f"{first} trials" if first else "the same trials"]
    if seeds := search.get("seeds"):
        parts[0] += f" on {'seed' if len(seeds) == 1 else 'seeds'} {joined(map(plain, seeds))}"
    if most := search.get("most"):
        parts.append(f"further ones where the best rate is the outermost, at most {count(most, 'time')} on each side")
    if (most_seeds := search.get("most_seeds", 0)) > len(search.get("seeds", ())):
        parts.append(f"further seeds, up to {most_seeds}, where trials cannot be told apart")
    found = [len(trials.get((cell.values, label), ())) for cell, label in a.outcomes]
    text = f"One rule searches for every loss: {'; '.join(parts)}."
    if not found:  # the search is still going on, and nothing is compared yet
        return text
    came = f"{min(found)}" if len(set(found)) == 1 else f"{min(found)} to {max(found)}"
    return f"{text} It came to {came} runs per loss and cell."


def entries(a: Analysis, outcome: Outcome, trials: Trials) -> tuple[Entry, Entry, Entry]:
    """Return the runs of a loss's search, their wall time in seconds, and that time and a run's over the run's."""
    found, ended = _runs(a, outcome, trials)
    keys = tuple(map(str, ended["key"]))
    seconds = numbers(ended, "cost.wall_s")
    missing = len(found) - len(ended)
    times = Entry(number(float(seconds.sum()), 1), float(seconds.sum()), runs=keys)
    if unknown := int(seconds.isna().sum()):
        times = replace(times, note=f"without {count(unknown, 'run')} that left no time")
    run = a.measured(outcome, "cost.wall_s").mean()
    if missing:
        factor = dash(f"{count(missing, 'run')} of the search missing")
    elif not run > 0:
        factor = dash("no completed run with a time")
    else:
        value = float((seconds.sum() + run) / run)
        factor = Entry(number(value, 1), value, runs=(*keys, *outcome.keys))
    done = f"{len(ended)} of {len(found)}" if missing else str(len(ended))
    return Entry(done, len(ended), runs=keys), times, factor


def _runs(a: Analysis, outcome: Outcome, trials: Trials) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return all runs of a search, and those that are not missing."""
    found = trials.get((outcome.cell.values, outcome.label), a.main.iloc[:0])
    return found, rows(found, column(found, "status") != "missing")


# ---------------------------------------------------------------- steps


@dataclass(frozen=True)
class Spent:
    """Optimisation steps of a loss: of its search, and of one compared run (mean over seeds); nan: not known.

    Attributes:
        trials: learning rates, and settings, that were tried.
        runs: runs of the search, one for each trial and seed.
        search: steps of all of them.
        run: steps of one compared run.
        keys: the runs that this comes from.
        unknown: why something is not known; empty if all is.
    """

    trials: int
    runs: int
    search: float
    run: float
    keys: tuple[str, ...]
    unknown: str

    @property
    def total(self) -> float:
        """Steps of the search and of one compared run."""
        return self.search + self.run


def table(a: Analysis, trials: Trials) -> Table:
    """Return the steps of every loss with its search, by cell and, of several, over all, beside the baseline's."""
    steps = _steps(a)
    spent = {(o.cell.values, o.label): _spent(a, o, trials, steps) for o in a.outcomes.values()}
    columns = (
        Column("cell", "cell"),
        Column("loss", "loss"),
        Column("trials", "trials", "number", "learning rates, and settings, that were tried"),
        Column("search_runs", "runs of the search", "number", "one for each trial and seed"),
        Column("search_steps", "steps of the search", "number"),
        Column("run_steps", "steps of a run", "number", "one compared run, mean over seeds"),
        Column("total_steps", "total steps", "number", "of the search and of one compared run"),
        Column("ratio", f"total / {a.reference}", "number", "total steps over those of the baseline with its search"),
    )
    made = [
        _row(a, (cell_entry(o.cell), loss_entry(a, o.label)), spent[o.cell.values, o.label],
             spent.get((o.cell.values, a.baseline)), o.label, cell_filters(a, o.cell.values))
        for o in a.outcomes.values()
    ]  # fmt: skip
    if len(a.cells) > 1:
        every = [cell.values for cell in a.cells]
        whole = {
            label: _sum(spent[cell, label] for cell in every)
            for label in a.labels
            if all((cell, label) in spent for cell in every)
        }
        here = Entry(f"all {len(a.cells)} cells")
        made += [
            _row(a, (here, loss_entry(a, label)), found, whole.get(a.baseline), label, cell_filters(a, *every))
            for label, found in whole.items()
        ]
    return Table("cost-steps", "What the search costs", columns, tuple(made), _caption(a))


def prose(a: Analysis) -> Prose:
    """Return what the table of steps can say about losses without settings of their own."""
    text = (
        "A loss without settings of its own has a learning rate still, and that is searched like any other: what such "
        "a loss can save is the search of its own settings."
    )
    if a.study.spec.get("track") == "tuned":
        text += (
            " On this track every loss starts with the same number of trials, whether it has settings or not, so "
            "these totals are what the rule gave each loss, not the least that it needs."
        )
    else:
        text += " On this track no loss's own settings are searched, so that saving is not in these totals."
    return Prose((text,))


def _caption(a: Analysis) -> str:
    return (
        "Optimisation steps of each loss before it can be used once: all runs of its search, whatever became of them, "
        f"and one compared run. The last column divides that by the same of {a.reference}. Steps, unlike times, do not "
        "depend on what else the machine did; how long a step of a loss takes stands in the table before."
    )


def _steps(a: Analysis) -> pd.Series:
    """Return the optimisation steps of every run that left an epoch, by key."""
    history = a.study.history
    if "step" not in history.columns or history.empty:
        return pd.Series(dtype=float)
    return numbers(history, "step").groupby(column(history, "key")).max()


def _spent(a: Analysis, outcome: Outcome, trials: Trials, steps: pd.Series) -> Spent:
    found, ended = _runs(a, outcome, trials)
    keys = tuple(map(str, ended["key"]))
    search, run = steps.reindex(list(keys)), steps.reindex(list(outcome.keys))
    lost = len(found) - int(search.notna().sum())
    why = [f"{count(lost, 'run')} of the search left no steps"] if lost else []
    if not len(found):
        why.append("no search")
    if not run.notna().any():
        why.append("no completed run with steps")
    whole = math.nan if lost or not len(found) else float(search.sum())
    return Spent(column(found, "setting").nunique(), len(found), whole, float(run.mean()), (*keys, *outcome.keys),
                 joined(why))  # fmt: skip


def _sum(parts: Iterable[Spent]) -> Spent:
    found = list(parts)
    return Spent(
        sum(x.trials for x in found), sum(x.runs for x in found), math.fsum(x.search for x in found),
        math.fsum(x.run for x in found), tuple(key for x in found for key in x.keys),
        next((x.unknown for x in found if x.unknown), ""),
    )  # fmt: skip


def _row(a: Analysis, head: tuple[Entry, Entry], found: Spent, base: Spent | None, label: str, filters: Any) -> Row:
    def steps(value: float) -> Entry:
        return dash(found.unknown) if math.isnan(value) else Entry(f"{value:,.0f}", value, runs=found.keys)

    ratio = math.nan if base is None else found.total / base.total
    why = found.unknown or (base.unknown if base else f"no run of {a.reference} here")
    shown = dash(why) if math.isnan(ratio) else Entry(number(ratio, 2), ratio, runs=found.keys)
    whole = (Entry(str(found.trials), found.trials), Entry(str(found.runs), found.runs))
    return Row(
        (*head, *whole, *map(steps, (found.search, found.run, found.total)), shown),
        reference=label == a.baseline,
        filters=(*filters, *loss_filters(a, label)),
    )
