"""How often each loss fails to learn, every run that did not finish or learn, and how to run it again."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from harness.analysis import stats
from harness.analysis.cells import Analysis, Cell, Outcome
from harness.analysis.frames import column, records, rows
from harness.analysis.stats import Rate
from harness.records import FAILED
from harness.report.items import Code, Column, Entry, Item, Prose, Row, Section, Table
from harness.report.sections.common import (
    cell_entry,
    cell_filters,
    dash,
    interval_entry,
    loss_entry,
    loss_filters,
    simultaneous,
    starts,
)
from harness.report.sections.reproduce import command
from harness.text import DASH, count, number, p_value, plain, significant

UNLEARNT = "did not learn"
STATUS = ("diverged", UNLEARNT, *FAILED, "missing")


def section(a: Analysis) -> Section:
    """Return the rates of failure, and the runs that diverged, did not learn, failed or are missing."""
    items: list[Item] = [Prose((_rule(a),))]
    if any(outcome.failures.failed for outcome in a.outcomes.values()):
        items.append(_rates(a))
    runs = _lost(a)
    if runs.empty:
        return Section("failures", "Failures", (*items, Prose(("Every planned run finished, and learnt.",))))
    items.append(_table(a, runs))
    if set(runs["status"]) & {*FAILED, "missing"}:
        items.append(Code(command(a.study), "Runs whatever failed or is missing, and nothing else"))
    return Section("failures", "Failures", (*items, *_tracebacks(runs)))


def _rule(a: Analysis) -> str:
    runs = max((outcome.failures.runs for outcome in a.outcomes.values()), default=0)
    text = (
        "A run did not learn if it gained less than a tenth of what the baseline's median run gained over chance, or "
        "fell short of the median of its own setting by more than a quarter of that gain and five robust standard "
        "deviations. A diverged run is a result and is not repeated: a loss or its gradient became infinite or not a "
        "number. Both count as failures of the loss, since another start would have learnt."
    )
    if runs:
        text += (
            f" Where none of {count(runs, 'start')} failed, up to {number(100 * stats.rate(0, runs).high, 0)} % of "
            "starts still may (95 % Wilson interval)."
        )
    return text


def _lost(a: Analysis) -> pd.DataFrame:
    """Return the runs that did not finish or learn, with what became of them as their status."""
    unlearnt = {
        str(key)
        for (cell, label), done in a.done.items()
        for key in set(done["key"]) - set(a.learnt(cell, label)["key"])
    }
    main = column(a.all, "role") == "run"
    status = column(a.all, "status").mask(main & column(a.all, "key").isin(list(unlearnt)), UNLEARNT)
    runs = a.all.assign(status=status)
    runs = rows(runs, column(runs, "status").isin(STATUS))
    return runs.assign(order=[STATUS.index(each) for each in runs["status"]]).sort_values("order", kind="stable")


def _rates(a: Analysis) -> Table:
    unit = f" ({a.metric.unit})" if a.metric.unit else ""
    apart = f" ({a.metric.difference_unit})" if a.metric.difference_unit else ""
    columns = (
        Column("cell", "cell"),
        Column("loss", "loss"),
        Column("failures", "failures"),
        Column("rate", "rate (%)", "number", "of the runs that were made, with its 95 % Wilson interval"),
        Column("more", f"more than {a.reference} (points)", "number", "difference of rates, simultaneous (Newcombe)"),
        Column("p", "p", "number", "of equal rates, Fisher's exact test, times the losses of the cell"),
        Column("diverged", "diverged", "number", detail=True),
        Column("unlearnt", UNLEARNT, "number", detail=True),
        Column("all", f"mean of all{unit}", "number", "of all completed runs, with its 95 % interval"),
        Column("learnt", f"of those that learnt{unit}", "number", "with its 95 % interval"),
        Column("all_difference", f"difference, all{apart}", "number", f"from {a.reference}, all completed pairs"),
        Column("difference", f"as compared{apart}", "number", f"difference from {a.reference}, as in Results"),
    )
    made = []
    for cell in a.cells:
        here = [a.outcomes[cell, label] for label in a.labels if (cell, label) in a.outcomes]
        if any(outcome.failures.failed for outcome in here):
            shown = [o for o in here if o.failures.failed or o.label == a.baseline]
            made += [_rate_row(a, outcome, max(1, len(here) - 1)) for outcome in shown]
    caption = (
        f"Losses of which some run failed, beside {a.reference}; rates are compared as rates. Differences with "
        f"{simultaneous(len(a.challengers))}."
    )
    return Table("failure-rates", "How often each loss fails", columns, tuple(made), caption)


def _rate_row(a: Analysis, outcome: Outcome, family: int) -> Row:
    own = outcome.failures
    reference = outcome.label == a.baseline
    value = own.failed / own.runs if own.runs else None
    ends = f" [{number(100 * own.low, 0)}, {number(100 * own.high, 0)}]"
    share = Entry(f"{number(100 * (value or 0.0), 0)}{ends}", value, own.low, own.high) if own.runs else dash("no run")
    means = (
        Entry(a.metric.interval(found), found.mean) if found.n else dash("no such run")
        for found in (outcome.values, outcome.learnt)
    )
    entries = (
        cell_entry(outcome.cell),
        loss_entry(a, outcome.label),
        Entry(f"fails in {starts(own.failed, own.runs)}", own.failed),
        share,
        *((Entry(DASH), Entry(DASH)) if reference else _more(a, outcome.cell, own, family)),
        *(Entry(str(n), n) for n in (outcome.diverged, outcome.unlearnt)),
        *means,
        *((Entry(DASH), Entry(DASH)) if reference else _both(a, outcome, family)),
    )
    filters = (*cell_filters(a, outcome.cell.values), *loss_filters(a, outcome.label))
    return Row(entries, reference=reference, filters=filters)


def _more(a: Analysis, cell: Cell, own: Rate, family: int) -> tuple[Entry, Entry]:
    base = a.outcomes.get((cell, a.baseline))
    if base is None or not (base.failures.runs and own.runs):
        return dash(f"no run of {a.reference}"), Entry(DASH)
    found = stats.rate_difference(base.failures, own, family)
    text = f"{number(100 * found.difference, 0, sign=True)} "
    text += f"[{number(100 * found.low, 0, sign=True)}, {number(100 * found.high, 0, sign=True)}]"
    return Entry(text, found.difference, found.low, found.high), Entry(p_value(found.p), found.p)


def _both(a: Analysis, outcome: Outcome, family: int) -> tuple[Entry, Entry]:
    """Return the difference from the baseline among all completed pairs, and among those that learnt."""
    every = stats.compare(outcome.all_differences, a.scale(outcome.cell), family=family, sequential=a.sequential)
    found = a.comparisons[outcome.cell, outcome.label]
    whole = Entry(a.metric.difference(every), every.difference) if every.n else dash("no completed pair")
    if math.isfinite(every.low):
        whole = Entry(whole.text, whole.value, every.low, every.high)
    return whole, interval_entry(a, found, outcome.paired_keys)


def _table(a: Analysis, runs: pd.DataFrame) -> Table:
    columns = (
        Column("status", "status"),
        Column("loss", "loss"),
        Column("cell", "cell"),
        Column("role", "role"),
        Column("seed", "seed", "number"),
        Column("what", "what happened"),
        Column("key", "run", "code"),
    )
    return Table("failures", "Runs that did not finish or learn", columns, tuple(_row(a, run) for run in records(runs)))


def _row(a: Analysis, run: dict[str, Any]) -> Row:
    if run["status"] == "diverged":
        what = f"at step {plain(run.get('diverged_step'))}"
        if (last := run.get("last_finite_loss")) is not None:
            what += f"; last finite loss {significant(float(last))}"
    elif run["status"] == UNLEARNT:
        what = f"scored {a.metric.number(float(run[a.metric.key]))}"
    elif run["status"] in FAILED:
        what = plain(run.get("error"))
    else:
        what = "never ran to its end"
    key = str(run["key"])
    return Row(
        (
            Entry(str(run["status"]), tone="undecided" if run["status"] == "missing" else "worse"),
            Entry(str(run["label"])),
            Entry(" · ".join(part for part in run["cell"] if part != plain(None))),
            Entry(str(run["role"])),
            Entry(plain(run["seed"]), float(run["seed"])),
            Entry(what),
            Entry(key, runs=(key,)),
        ),
        filters=(*cell_filters(a, run["cell"]), *loss_filters(a, str(run["label"]))),
    )


def _tracebacks(runs: pd.DataFrame) -> list[Code]:
    """Return each distinct traceback once, with the runs it ended."""
    found: dict[str, list[str]] = {}
    for key, text in zip(column(runs, "key"), column(runs, "traceback"), strict=True):
        if isinstance(text, str) and text.strip():
            found.setdefault(text.strip(), []).append(str(key))
    return [Code(text, f"Traceback of {', '.join(keys)}", folded=True) for text, keys in found.items()]
