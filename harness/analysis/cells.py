"""What the records of a study show, worked out once: cells, outcomes of each loss, comparisons, controls.

A cell is a data set, a model and a value of every further axis; within a cell every loss is compared with the baseline,
seed by seed.
"""

from __future__ import annotations

import functools
import json
import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from numpy.typing import ArrayLike

from harness.analysis import stats
from harness.analysis.frames import column, distinct, numbers, rows, where
from harness.analysis.stats import Comparison, Interval
from harness.metrics.declared import KNOWN, Metric, metric_of
from harness.records.study import StudyData
from harness.text import DASH, axis_title, plain

COMPARED = ("run", "baseline_repeat", "negative_control")  # roles that answer the question; search runs never do


@dataclass(frozen=True)
class Cell:
    """A setting in which losses are compared: ``values`` of the cell columns (data set and model first), ``title`` in
    full, ``short`` without what all cells share.
    """

    values: tuple[str, ...]
    title: str
    short: str

    @property
    def model(self) -> str:
        """The model of this cell."""
        return self.values[1]


@dataclass(frozen=True)
class Outcome:
    """What became of one loss in one cell.

    ``keys`` are its completed runs, ``paired_keys`` those of the comparison (the baseline's included), ``seeds`` the
    seeds that both sides completed; ``old`` counts runs made by older code.
    """

    cell: Cell
    label: str
    planned: int
    diverged: int
    failed: int
    missing: int
    values: Interval
    keys: tuple[str, ...]
    paired_keys: tuple[str, ...]
    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    old: int


@dataclass(frozen=True)
class Across:
    """One loss over all its cells: means over the seeds that are complete in each of them."""

    label: str
    cells: int
    seeds: int
    left_out: int
    values: Interval
    comparison: Comparison | None
    keys: tuple[str, ...]


@dataclass(frozen=True)
class LossFacts:
    """What the records hold about a loss itself; ``link`` is empty where its scores are no probabilities."""

    label: str
    name: str
    family: str
    link: str
    paper: str
    evidence: str

    @property
    def reconstruction(self) -> bool:
        """Whether the loss is our reading of an incomplete source."""
        return self.evidence == "R"


class Analysis:
    """The records of a study with everything derived from them, each computed when first asked for.

    Args:
        study: its records.
        mix: compare runs of different device types and major versions of torch; otherwise the largest group is
            compared and the others are set aside (and listed).
    """

    def __init__(self, study: StudyData, mix: bool = False) -> None:
        self.study = study
        self.metrics = study.metrics or tuple(KNOWN.values())
        self.metric = self.metric_of(str(study.spec.get("metric", "test.top1")))
        self.baseline = str(study.spec.get("baseline", "cross_entropy"))
        self.margin = float(study.spec.get("margin") or 0.0)
        self.all = _with_cells(study.runs)
        self.cell_columns = cell_columns(self.all)
        kept = pd.Series(True, index=self.all.index) if mix else largest_group(self.all)
        self.set_aside = rows(self.all, ~kept)
        self.runs = rows(self.all, kept & column(self.all, "role").isin(COMPARED))
        self.main = where(self.runs, role="run")
        self._records: dict[tuple[Cell, str], pd.DataFrame] = {}
        self._numbers: dict[str, pd.Series] = {}

    def metric_of(self, key: str) -> Metric:
        """Return the metric that a column of the records holds, such as ``test.top1``.

        Raises:
            UsageError: neither the records nor lossbench declare it; the sentence names the nearest.
        """
        return metric_of(key, self.study.metrics)

    # ------------------------------------------------------------------ names

    @functools.cached_property
    def cells(self) -> tuple[Cell, ...]:
        """All cells, in the order of the records."""
        columns = self.cell_columns
        found: list[Any] = distinct(self.main["cell"])
        shared = {i for i in range(len(columns)) if len({values[i] for values in found}) == 1}
        return tuple(
            Cell(values, *(_cell_title(columns, values, skip) for skip in (set(), shared if len(found) > 1 else set())))
            for values in found
        )

    @functools.cached_property
    def labels(self) -> tuple[str, ...]:
        """All losses, the baseline first, then in the order of the records."""
        return tuple(str(label) for label in distinct([self.baseline, *self.main["label"]]))

    @functools.cached_property
    def challengers(self) -> tuple[str, ...]:
        """All losses but the baseline."""
        return self.labels[1:]

    @functools.cached_property
    def loss_facts(self) -> dict[str, LossFacts]:
        """What the records hold about each loss, by label."""
        fields = [f"loss_{field}" for field in ("name", "family", "link", "paper", "evidence")]
        first = self.all.reindex(columns=["label", *fields]).groupby("label", sort=False).first()
        known = {
            str(label): LossFacts(str(label), *("" if pd.isna(value) else str(value) for value in values))
            for label, *values in first.itertuples(name=None)
        }
        return {label: known.get(label, LossFacts(label, "", "", "", "", "")) for label in [*self.labels, *known]}

    def display(self, label: str) -> str:
        """Return a loss's label, marked as a reconstruction where it is one."""
        word = "reconstruction"
        return f"{label} ({word})" if self.loss_facts[label].reconstruction and word not in label else label

    @functools.cached_property
    def seeds(self) -> tuple[int, ...]:
        """The seeds on which losses are compared."""
        return tuple(sorted({int(seed) for seed in self.main["seed"]}))

    # ------------------------------------------------------------------ within cells

    @functools.cached_property
    def planned(self) -> dict[tuple[Cell, str], pd.DataFrame]:
        """The runs of every loss in every cell where it was planned, whatever became of them."""
        groups: dict[Any, pd.DataFrame] = dict(iter(self.main.groupby(["cell", "label"], sort=False)))
        order = ((cell, label) for cell in self.cells for label in self.labels)
        return {(cell, label): groups[cell.values, label] for cell, label in order if (cell.values, label) in groups}

    @functools.cached_property
    def done(self) -> dict[tuple[Cell, str], pd.DataFrame]:
        """Key, seed and value of the completed runs of every loss in every cell where it was planned."""
        return {key: self.completed(runs) for key, runs in self.planned.items()}

    @functools.cached_property
    def outcomes(self) -> dict[tuple[Cell, str], Outcome]:
        """What became of every loss in every cell where it was planned."""
        return {(cell, label): self._outcome(cell, label) for cell, label in self.planned}

    def _outcome(self, cell: Cell, label: str) -> Outcome:
        runs, done = self.planned[cell, label], self.done[cell, label]
        base = None if label == self.baseline else self.done.get((cell, self.baseline))
        others = {} if base is None else {seed: (key, value) for key, seed, value in base.itertuples(index=False)}
        own = sorted((seed, key, value) for key, seed, value in done.itertuples(index=False) if seed in others)
        paired = [(*run, *others[run[0]]) for run in own]
        seeds, keys, values, base_keys, base_values = zip(*paired, strict=True) if paired else ((),) * 5
        status = list(runs["status"])
        return Outcome(
            cell=cell,
            label=label,
            planned=len(runs),
            diverged=status.count("diverged"),
            failed=status.count("failed"),
            missing=status.count("missing"),
            values=stats.mean_interval(column(done, "value")),
            keys=tuple(done["key"]),
            paired_keys=(*keys, *base_keys),
            seeds=tuple(int(seed) for seed in seeds),
            differences=tuple(value - base for value, base in zip(values, base_values, strict=True)),
            old=int(column(runs, "old").sum()),
        )

    def records(self, outcome: Outcome) -> pd.DataFrame:
        """Return the completed runs of an outcome with all their columns."""
        planned = (outcome.cell, outcome.label)
        if planned not in self._records:
            runs = self.planned[planned]
            complete = len(outcome.keys) == len(runs)  # selecting rows of so many columns takes milliseconds
            self._records[planned] = runs if complete else rows(runs, column(runs, "key").isin(list(outcome.keys)))
        return self._records[planned]

    def measured(self, outcome: Outcome, name: str) -> pd.Series:
        """Return one column of the completed runs of an outcome as floats; what is absent or no number is nan."""
        if name not in self._numbers:  # of all runs at once: every conversion costs as much as a thousand numbers
            self._numbers[name] = numbers(self.main, name)
        return self._numbers[name].loc[self.records(outcome).index]

    def completed(self, runs: pd.DataFrame) -> pd.DataFrame:
        """Return key, seed and value (the study's metric) of the runs that finished with a value; one per seed."""
        columns = {name: column(runs, name) for name in ("key", "seed")} | {"value": numbers(runs, self.metric.key)}
        frame = pd.DataFrame(columns)
        finite = rows(frame, column(frame, "value").notna() & (column(runs, "status") == "done"))
        return rows(finite, ~column(finite, "seed").duplicated())

    @functools.cached_property
    def comparisons(self) -> dict[tuple[Cell, str], Comparison]:
        """Every loss against the baseline within each cell; the losses of one cell are one family."""
        found: dict[tuple[Cell, str], Comparison] = {}
        for cell in self.cells:
            outcomes = [self.outcomes[cell, label] for label in self.challengers if (cell, label) in self.outcomes]
            family = self.family({outcome.label: outcome.differences for outcome in outcomes})
            found |= {(cell, label): compared for label, compared in family.items()}
        return found

    def family(self, differences: Mapping[str, ArrayLike], test: stats.Test = "paired t") -> dict[str, Comparison]:
        """Compare a family of losses with the baseline, in the metric and margin of this study."""
        better = self.metric.higher_is_better
        return stats.compare_family(differences, margin=self.margin, higher_is_better=better, test=test)

    # ------------------------------------------------------------------ across cells

    @functools.cached_property
    def across(self) -> dict[str, Across]:
        """Every loss over all its cells, whole seeds flipped together; empty where there is only one cell."""
        if len(self.cells) < 2:
            return {}
        done = {label: self._by_seed_and_cell(label) for label in self.labels}
        blocks: dict[str, pd.DataFrame] = {}
        for label, own in done.items():
            compared = own if label == self.baseline else own - done[self.baseline].reindex_like(own)
            blocks[label] = compared.dropna()
        family = self.family({label: blocks[label].mean(axis=1) for label in self.challengers}, "sign flip")
        return {
            label: Across(
                label=label,
                cells=own.shape[1],
                seeds=len(blocks[label]),
                left_out=len(own) - len(blocks[label]),
                values=stats.mean_interval(own.loc[blocks[label].index].mean(axis=1)),
                comparison=family.get(label),
                keys=self._keys(label, blocks[label].index),
            )
            for label, own in done.items()
        }

    def _keys(self, label: str, seeds: Iterable[int]) -> tuple[str, ...]:
        runs = pd.DataFrame({name: column(self.main, name) for name in ("key", "seed", "label", "status")})
        runs = where(runs, label=label, status="done")
        return tuple(column(rows(runs, column(runs, "seed").isin(list(seeds))), "key"))

    def _by_seed_and_cell(self, label: str) -> pd.DataFrame:
        """Return the metric of completed runs, one row per planned seed, one column per cell where it was planned."""
        planned = {cell: runs for (cell, name), runs in self.planned.items() if name == label}
        columns = {cell.title: self.done[cell, label].set_index("seed")["value"] for cell in planned}
        seeds = sorted({int(seed) for runs in planned.values() for seed in runs["seed"]})
        return pd.DataFrame({title: values.reindex(seeds) for title, values in columns.items()}, index=pd.Index(seeds))


def cell_columns(runs: pd.DataFrame) -> list[str]:
    """Return the columns that make up a cell: data set, model, every further axis."""
    return ["dataset", "model", *sorted(column for column in runs.columns if str(column).startswith("axis."))]


def _cell_title(columns: Sequence[str], values: Sequence[str], skip: set[int]) -> str:
    parts = []
    for i, (name, value) in enumerate(zip(columns, values, strict=True)):
        if i not in skip and value != DASH:
            parts.append(f"{axis_title(name)} {value}" if name.startswith("axis.") else value)
    return " · ".join(parts) or " · ".join(values[:2])


def _with_cells(runs: pd.DataFrame) -> pd.DataFrame:
    """Add ``cell`` (a tuple of texts) and ``old`` (made by older code) to the runs."""
    frame = runs.reset_index(drop=True).copy()
    columns = cell_columns(frame)
    texts = [[plain(value) for value in frame[column]] for column in columns]
    frame["cell"] = list(zip(*texts, strict=True))
    frame["old"] = _old(frame)
    return frame


def _old(runs: pd.DataFrame) -> pd.Series:
    """Return which runs stand in for planned ones that this checkout's code would repeat, one boolean per run."""
    return column(runs, "old").map(lambda value: value is True or value == 1).astype(bool)


def largest_group(runs: pd.DataFrame) -> pd.Series:
    """Return which runs may be compared: those of the commonest device type and major torch version, and all unrun."""
    group = group_of(runs)
    commonest = Counter(text for text in group if text).most_common(1)
    return group.isin(["", *(text for text, _ in commonest)])


def group_of(runs: pd.DataFrame) -> pd.Series:
    """Return device type and major version of torch of each run as one text, empty where it is unknown."""
    environments = zip(column(runs, "env.device"), column(runs, "env.torch"), strict=True)
    texts = ["" if pd.isna(d) or pd.isna(t) else f"{d}, torch {str(t).split('.')[0]}" for d, t in environments]
    return pd.Series(texts, index=runs.index, dtype=object)


def tally(values: Iterable[Hashable]) -> str:
    """Return the distinct values as text; if there are several, the commonest first, each with its count of runs.

    >>> tally(["cpu", "cpu", None]), tally([3.0, 3.0, 5.0])
    ('cpu', '3 (2), 5 (1)')
    """
    if isinstance(values, pd.Series) and values.dtype != object:  # a column of many runs has few distinct values
        found = values.value_counts(sort=False)
        counts: Counter[str] = Counter()
        for value, n in zip(found.index.tolist(), found.tolist(), strict=True):
            counts[plain(value)] += n
    else:
        counts = Counter(text for text in map(plain, values) if text != DASH)
    if len(counts) <= 1:
        return next(iter(counts), DASH)
    return ", ".join(f"{text} ({n})" for text, n in counts.most_common())


def class_count(value: object) -> int | None:
    """Return the number of classes of a record's ``data.classes``: a number, or a list (as JSON text) of names."""
    if isinstance(value, str) and value.startswith("["):
        return len(json.loads(value))
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return int(float(str(value)))
