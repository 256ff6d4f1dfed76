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
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from harness import selection
from harness.analysis import controls, effects, gates, learning, race, seats, stats
from harness.analysis.best import Candidate, confidence_set
from harness.analysis.effects import Heterogeneity
from harness.analysis.estimates import Estimate, Items, estimate
from harness.analysis.frames import column, distinct, numbers, rows, where
from harness.analysis.frames import records as dicts
from harness.analysis.reasons import Reason
from harness.analysis.stats import Comparison, Interval, Rate, Scale
from harness.metrics.declared import KNOWN, Metric, metric_of
from harness.records import FAILED
from harness.records.study import StudyData
from harness.text import DASH, PATH, axis_title, axis_value, file_names, mid_sentence, plain

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
    seeds on which both sides completed and learnt, with their ``differences``; ``all_differences`` are those of every
    seed that both completed. ``unlearnt`` counts completed runs that did not learn (`harness.analysis.learning`), and
    ``old`` runs made by older code. ``values`` are those of all completed runs, ``learnt`` of those that learnt.
    """

    cell: Cell
    label: str
    planned: int
    diverged: int
    failed: int
    missing: int
    unlearnt: int
    values: Interval
    learnt: Interval
    keys: tuple[str, ...]
    paired_keys: tuple[str, ...]
    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    all_differences: tuple[float, ...]
    old: int

    @property
    def failures(self) -> Rate:
        """How many of the runs that were made diverged or did not learn."""
        return stats.rate(self.diverged + self.unlearnt, self.planned - self.missing - self.failed)


@dataclass(frozen=True)
class Across:
    """One loss over all its cells.

    Attributes:
        label: the loss.
        compared: its comparison in every cell, in their order.
        verdict: that of every cell where they agree; ``depends``, or not decidable, or withheld.
        depends_on: titles of the axes, any of which alone separates cells that contradict each other.
        heterogeneity: whether the differences of cells are one.
        difference, low, high: the mean of the cells' differences with a simultaneous interval, for reading only: an
            average has no verdict.
        values: its scores, averaged over cells, of the seeds that are complete in each of them.
        keys: the runs behind it.
    """

    label: str
    compared: Mapping[Cell, Comparison]
    verdict: str
    depends_on: tuple[str, ...]
    heterogeneity: Heterogeneity
    difference: float
    low: float
    high: float
    values: Interval
    keys: tuple[str, ...]

    @property
    def cells(self) -> int:
        """In how many cells it was compared."""
        return len(self.compared)


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
        self.sequential = study.spec.get("until") in ("decided", "chosen") or bool(study.spec.get("looks"))
        self.all = _with_cells(study.runs)
        self.cell_columns = cell_columns(self.all)
        kept = pd.Series(True, index=self.all.index) if mix else largest_group(self.all)
        self.set_aside = rows(self.all, ~kept)
        self.runs = rows(self.all, kept & column(self.all, "role").isin(COMPARED))
        self.main = where(self.runs, role="run")
        self._records: dict[tuple[Cell, str], pd.DataFrame] = {}
        self._numbers: dict[str, pd.Series] = {}
        self._reasons: dict[tuple[Cell, str], tuple[Reason, ...]] = {}

    def metric_of(self, key: str) -> Metric:
        """Return the metric that a column of the records holds, such as ``test.top1``.

        Raises:
            UsageError: neither the records nor lossbench declare it; the sentence names the nearest.
        """
        return metric_of(key, self.study.metrics)

    # ------------------------------------------------------------------ names

    @functools.cached_property
    def cells(self) -> tuple[Cell, ...]:
        """All cells, in the study's own order; what its axes do not name follows in the order of the records."""
        columns = self.cell_columns
        found: list[Any] = sorted(distinct(self.main["cell"]), key=self._place)
        shared = {i for i in range(len(columns)) if len({values[i] for values in found}) == 1}
        skips: tuple[set[int], set[int]] = (set(), shared if len(found) > 1 else set())
        return tuple(
            Cell(values, *(_cell_title(columns, shown, skip) for skip in skips))
            for values, shown in zip(found, _shown(columns, found), strict=True)
        )

    def _place(self, values: Sequence[str]) -> tuple[int, ...]:
        """Return where a cell comes among others: its place on each axis of the study, the outermost axis first."""
        own = {name.removeprefix("axis."): value for name, value in zip(self.cell_columns, values, strict=True)}
        axes = {name: [plain(value) for value in given] for name, given in self.study.spec.get("axes", {}).items()}
        return tuple(
            given.index(own[name]) if own[name] in given else len(given) for name, given in axes.items() if name in own
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

    @functools.cached_property
    def seats(self) -> dict[str, seats.Seated]:
        """Which loss sits in each seat, by label, where the task has several."""
        return seats.seats_of(self.main)

    @functools.cached_property
    def varied_seats(self) -> tuple[str, ...]:
        """The seats in which some loss of the study differs from the baseline."""
        base = self.seats.get(self.baseline, {})
        differing = {seat for label in self.seats for seat in seats.changed(self.seats[label], base)}
        return tuple(seat for seat in base if seat in differing)

    def names_in_seats(self, label: str) -> seats.Seated:
        """Return the losses of a label by seat, as people call them; nothing where the task has one."""
        return seats.named(self.loss_facts[label].name, self.seats.get(label, {}))

    def display(self, label: str) -> str:
        """Return a loss's label, or what it has in other seats than the baseline, marked as a reconstruction where it
        is one.
        """
        word, text = "reconstruction", label
        if label in self.seats and self.baseline in self.seats and self.varied_seats:
            own = seats.called(self.seats[label], self.seats[self.baseline], self.varied_seats)
            text = f"{own} {seats.settings(label, list(self.seats[label]))}".strip()
        return f"{text} ({word})" if self.loss_facts[label].reconstruction and word not in text else text

    def name(self, label: str) -> str:
        """Return what people call a loss, with the settings that its label gives, as it stands by itself; what
        `display` gives where nobody named it, or where two losses have one name.
        """
        if label not in self.labels:  # that of a control, or one of which no run is left
            own, _, settings = label.partition(" ")
            name = self.loss_facts[label].name or own.replace("_", " ")
            return f"{name[:1].upper()}{name[1:]} {settings}".strip()
        name = self._names[label]
        return name if list(self._names.values()).count(name) == 1 else self.display(label)

    def called(self, label: str) -> str:
        """Return a loss's name as it stands within a sentence."""
        return mid_sentence(self.name(label))

    @functools.cached_property
    def shared_settings(self) -> str:
        """The settings that all losses with settings have in common, which names leave out; empty where they differ, or
        where one loss alone has any.
        """
        given = [text for label in self.labels if (text := self._settings(label))]
        bare = [self._bare_name(label) for label in self.labels]
        return given[0] if len(given) > 1 and len(set(given)) == 1 and len(set(bare)) == len(bare) else ""

    @functools.cached_property
    def _names(self) -> dict[str, str]:
        return {
            label: f"{name} {'' if self.shared_settings else self._settings(label, name)}".strip()
            if (name := self._bare_name(label))
            else self.display(label)
            for label in self.labels
        }

    def _settings(self, label: str, name: str = "") -> str:
        """Return the settings of a label; one that is called as the loss is, as a formula is, is not named twice."""
        return seats.settings(label, list(self.seats.get(label, {}))).removeprefix(f"{name.lower()}=")

    def _bare_name(self, label: str) -> str:
        """Return what people call a loss without its settings, marked as a reconstruction where it is one."""
        name = self._name(label)
        mark = name and self.loss_facts[label].reconstruction and "reconstruction" not in name
        return f"{name} (reconstruction)" if mark else name

    def _name(self, label: str) -> str:
        """Return what people call a loss; where a task has seats for several, what it has in other seats than the
        baseline.
        """
        own, base = self.names_in_seats(label), self.names_in_seats(self.baseline)
        if len(self.varied_seats) > 1 and own and label != self.baseline:
            mine, theirs = ({seat: mid_sentence(name) for seat, name in names.items()} for names in (own, base))
            return seats.called(mine, theirs, self.varied_seats)
        name = seats.called(own, base, self.varied_seats) if own and self.varied_seats else self.loss_facts[label].name
        return name[:1].upper() + name[1:]

    @functools.cached_property
    def reference(self) -> str:
        """How the baseline is called within a sentence."""
        return self.called(self.baseline)

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
        runs, done, good = self.planned[cell, label], self.done[cell, label], self.learnt(cell, label)
        own = self.compared(cell, label)
        paired = [] if label == self.baseline else self._paired(own, self._base(cell, learnt=True))
        every = [] if label == self.baseline else self._paired(done, self._base(cell, learnt=False))
        status = list(runs["status"])
        return Outcome(
            cell=cell,
            label=label,
            planned=len(runs),
            diverged=status.count("diverged"),
            failed=sum(status.count(name) for name in FAILED),
            missing=status.count("missing"),
            unlearnt=len(done) - len(good),
            values=stats.metric_interval(column(done, "value"), self.metric),
            learnt=stats.metric_interval(column(good, "value"), self.metric),
            keys=tuple(done["key"]),
            paired_keys=(*(run[1] for run in paired), *(run[3] for run in paired)),
            seeds=tuple(run[0] for run in paired),
            differences=tuple(run[2] - run[4] for run in paired),
            all_differences=tuple(run[2] - run[4] for run in every),
            old=int(column(runs, "old").sum()),
        )

    def _base(self, cell: Cell, *, learnt: bool) -> pd.DataFrame | None:
        if (cell, self.baseline) not in self.planned:
            return None
        return self.compared(cell, self.baseline) if learnt else self.done[cell, self.baseline]

    def _paired(self, own: pd.DataFrame, base: pd.DataFrame | None) -> list[tuple[int, str, float, str, float]]:
        """Return seed, key and value, and the baseline's key and value, of the seeds on both sides, in their order."""
        others = {} if base is None else {seed: (key, value) for key, seed, value in base.itertuples(index=False)}
        found = sorted((int(seed), key, value) for key, seed, value in own.itertuples(index=False) if seed in others)
        return [(seed, str(key), float(value), *others[seed]) for seed, key, value in found]

    def learnt(self, cell: Cell, label: str) -> pd.DataFrame:
        """Return key, seed and value of the completed runs of a loss that learnt."""
        return self._learnt[cell, label]

    def compared(self, cell: Cell, label: str) -> pd.DataFrame:
        """Return key, seed and value of the runs of a loss that are compared: those that learnt, or all that completed
        where most did not, which is the way of the loss then, and not a mishap.
        """
        done, good = self.done[cell, label], self._learnt[cell, label]
        return good if 2 * len(good) >= len(done) else done

    @functools.cached_property
    def _learnt(self) -> dict[tuple[Cell, str], pd.DataFrame]:
        found = {}
        for (cell, label), done in self.done.items():
            base = self.done.get((cell, self.baseline), done)
            typical = float(base["value"].median()) if len(base) else math.nan
            good = learning.learnt(
                done["value"], self.chance(cell)[0], typical, higher_is_better=self.metric.higher_is_better
            )
            found[cell, label] = rows(done, pd.Series(good, index=done.index))
        return found

    def chance(self, cell: Cell) -> tuple[float, str]:
        """Return what a prediction made without the input scores in a cell (nan: not known), and what predicts so."""
        if cell not in self._chances:
            runs = self.planned.get((cell, self.baseline), self.main.iloc[:0])
            classes = [class_count(value) for value in column(runs, "data.classes")]
            self._chances[cell] = controls.chance_of(self.metric.key, runs, classes)
        return self._chances[cell]

    @functools.cached_property
    def _chances(self) -> dict[Cell, tuple[float, str]]:
        return {}

    def grain(self, cell: Cell) -> float:
        """Return the smallest step of the metric in a cell: one test item where it counts items, else 0."""
        if self.metric.grain != "item" or (cell, self.baseline) not in self.planned:
            return 0.0
        known = numbers(self.planned[cell, self.baseline], "data.test").dropna()
        return 1 / float(known.iloc[0]) if len(known) and known.iloc[0] > 0 else 0.0

    def histories(self, outcome: Outcome) -> pd.DataFrame:
        """Return the epochs of the completed runs of an outcome."""
        found = list(self.each_history(outcome).values())
        return pd.concat(found) if found else self.study.history.iloc[:0]

    def each_history(self, outcome: Outcome) -> dict[str, pd.DataFrame]:
        """Return the epochs of every completed run of an outcome, by key."""
        return {key: self._histories[key] for key in outcome.keys if key in self._histories}

    @functools.cached_property
    def _histories(self) -> dict[str, pd.DataFrame]:
        history = self.study.history
        return {str(key): epochs for key, epochs in history.groupby("key", sort=False)} if len(history) else {}

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

    def reasons(self, cell: Cell, label: str) -> tuple[Reason, ...]:
        """Return why the runs of a loss in a cell cannot be used, by themselves."""
        if (cell, label) not in self._reasons:
            self._reasons[cell, label] = gates.of_loss(self, cell, label)
        return self._reasons[cell, label]

    @functools.cached_property
    def comparisons(self) -> dict[tuple[Cell, str], Comparison]:
        """Every loss against the baseline within each cell, with its verdict withheld where a gate says why; equivalent
        only where controls show that the cell can tell losses apart.
        """
        found = {key: each.withheld(gates.gates(self, *key)) for key, each in self.estimated.items()}
        for (cell, label), each in found.items():
            if each.verdict == "equivalent" and gates.blind(self, cell):
                found[cell, label] = replace(each, verdict="not decidable", seeds_needed=controls.FEW_SEEDS)
        return found

    @functools.cached_property
    def estimated(self) -> dict[tuple[Cell, str], Comparison]:
        """The comparisons as the numbers alone decide them; the losses of one cell are one family."""
        found: dict[tuple[Cell, str], Comparison] = {}
        for cell in self.cells:
            outcomes = [self.outcomes[cell, label] for label in self.challengers if (cell, label) in self.outcomes]
            items = {outcome.label: self.item_differences(outcome) for outcome in outcomes}
            family = stats.compare_family(
                {outcome.label: outcome.differences for outcome in outcomes},
                self.scale(cell),
                items={label: known for label, known in items.items() if known},
                sequential=self.sequential,
            )
            found |= {(cell, label): compared for label, compared in family.items()}
        return found

    def item_differences(self, outcome: Outcome) -> Items | None:
        """Return the differences of an outcome on every test item, seed by seed; None where there are none."""
        half = len(outcome.paired_keys) // 2
        return self._item_pairs(outcome.paired_keys[:half], outcome.paired_keys[half:])

    def estimate_of(self, outcome: Outcome) -> Estimate:
        """Return the mean difference of an outcome from the baseline, with its standard errors."""
        return estimate(outcome.differences, self.item_differences(outcome), self.grain(outcome.cell))

    def _item_pairs(self, keys: Sequence[str], others: Sequence[str]) -> Items | None:
        found = []
        for key, other in zip(keys, others, strict=True):
            own, base = self._items(key), self._items(other)
            if own is None or base is None or not np.array_equal(own[0], base[0]):
                return None
            found.append((own[0], own[1] - base[1]))
        return found if len(found) > 1 else None

    def _items(self, key: str) -> tuple[Any, Any] | None:
        if key not in self._item_scores:
            self._item_scores[key] = self.study.item_scores(key, self.metric.key)
        return self._item_scores[key]

    @functools.cached_property
    def _item_scores(self) -> dict[str, tuple[Any, Any] | None]:
        return {}

    def scale(self, cell: Cell, margin: float | None = None) -> Scale:
        """Return what differences in a cell can be, with the study's margin or another."""
        low, high = self.metric.low, self.metric.high
        span = math.inf if low is None or high is None else high - low
        chosen = self.margin if margin is None else margin
        return Scale(self.metric.higher_is_better, chosen, -span, span, self.grain(cell))

    def family(self, differences: Mapping[Cell, ArrayLike], margin: float | None = None) -> dict[Cell, Comparison]:
        """Compare control runs with the baseline in every cell; the cells are one family."""
        m = len(differences)
        return {cell: stats.compare(d, self.scale(cell, margin), family=m) for cell, d in differences.items()}

    @functools.cached_property
    def controls(self) -> tuple[controls.Control, ...]:
        """All controls of all cells."""
        return controls.controls(self)

    @functools.cached_property
    def choices(self) -> dict[tuple[tuple[str, ...], str], selection.Choice]:
        """What the search of each loss in each cell chose, by the cell's values and the loss."""
        asked = {"cell", "label", "role", "setting", "lr", "seed", "status"}
        kept = [name for name in self.all if name in asked or str(name).startswith("valid.")]
        trials = where(self.all[kept], role="search")  # choosing among all columns takes long
        found = {}
        for (values, label), group in trials.groupby(["cell", "label"], sort=False):
            found[values, label] = selection.choose(
                selection.tried(dicts(group)), self.metric.key, self.metrics, self.margin
            )
        return found

    # ------------------------------------------------------------------ the best

    @functools.cached_property
    def best(self) -> dict[Cell, list[Candidate]]:
        """For every cell, all losses with what beats them; those that nothing beats may be the best."""
        return {cell: self._best(cell) for cell in self.cells}

    def _may_compare(self, cell: Cell, label: str) -> bool:
        return (cell, label) in self.done and len(self.compared(cell, label)) > 1

    def _improvement(self, cell: Cell, first: str, second: str) -> Estimate:
        """Return by how much the first loss is better than the second in a cell."""
        sign = 1 if self.metric.higher_is_better else -1
        paired = self._paired(self.compared(cell, first), self.compared(cell, second))
        items = self._item_pairs([run[1] for run in paired], [run[3] for run in paired])
        signed = None if items is None else [(ids, sign * d) for ids, d in items]
        return estimate([sign * (run[2] - run[4]) for run in paired], signed, self.grain(cell))

    def _best(self, cell: Cell) -> list[Candidate]:
        labels = [label for label in self.labels if self._may_compare(cell, label)]
        if self.study.spec.get("until") == "chosen":  # a race has its own bounds, and ends where it is spent
            return [Candidate(each.label, each.beaten_by, each.by) for each in race.of_cell(self, cell)]
        withheld = {label: gates.of_runs(self, cell, label) for label in labels}
        better = functools.partial(self._improvement, cell)
        return confidence_set(labels, better, sequential=self.sequential, withheld=withheld)

    @functools.cached_property
    def best_over_cells(self) -> list[Candidate]:
        """The same over all cells: the mean of the cells' differences; losses that have runs in every cell."""
        everywhere = [label for label in self.labels if all(self._may_compare(cell, label) for cell in self.cells)]

        def better(first: str, second: str) -> Estimate:
            return averaged([self._improvement(cell, first, second) for cell in self.cells])

        withheld = {
            label: tuple(dict.fromkeys(reason for cell in self.cells for reason in gates.of_runs(self, cell, label)))
            for label in everywhere
        }
        return confidence_set(everywhere, better, sequential=self.sequential, withheld=withheld)

    # ------------------------------------------------------------------ across cells

    @functools.cached_property
    def across(self) -> dict[str, Across]:
        """Every loss but the baseline over all its cells; empty where there is only one cell."""
        if len(self.cells) < 2:
            return {}
        return {label: self._across(label) for label in self.challengers}

    def _across(self, label: str) -> Across:
        compared = {cell: c for cell in self.cells if (c := self.comparisons.get((cell, label))) is not None}
        spread = effects.heterogeneity(list(compared.values()))
        found = effects.verdict_over(list(compared.values()), spread.shown)
        signs = {cell.values: effects.SIGNS[c.verdict] for cell, c in compared.items() if c.verdict in effects.SIGNS}
        axes = effects.depends_on(self.cell_columns, signs) if found == "depends" else ()
        own = self._by_seed_and_cell(label).dropna()
        mean = averaged([self.estimate_of(self.outcomes[cell, label]) for cell in compared])
        ends = mean.interval(mean.scope, stats.ALPHA / max(1, len(self.challengers)), sequential=self.sequential)
        return Across(
            label=label,
            compared=compared,
            verdict=found,
            depends_on=tuple(axis_title(name) for name in axes),
            heterogeneity=spread,
            difference=mean.mean,
            low=ends[0],
            high=ends[1],
            values=stats.mean_interval(own.mean(axis=1)),
            keys=self._keys(label, own.index),
        )

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


def averaged(found: Sequence[Estimate]) -> Estimate:
    """Return the mean of several cells' estimates.

    Cells may share test items and initial weights, so errors are taken to be fully correlated: the standard error of
    the mean is at most the mean of theirs. Degrees of freedom are the fewest.
    """
    if not found or any(each.n < 2 for each in found):
        return Estimate(0, math.nan, math.nan, math.nan)
    every = all(each.scope == "new items" for each in found)

    def mean(values: Iterable[float]) -> float:
        return sum(values) / len(found)

    return Estimate(
        min(each.n for each in found),
        mean(each.mean for each in found),
        mean(each.sd for each in found),
        mean(each.error for each in found),
        mean(each.error_new for each in found) if every else math.nan,
        min(each.freedom_new for each in found) if every else math.nan,
        mean(each.fixed_new for each in found) if every else 0.0,
    )


def cell_columns(runs: pd.DataFrame) -> list[str]:
    """Return the columns that make up a cell: data set, model, every further axis."""
    return ["dataset", "model", *sorted(column for column in runs.columns if str(column).startswith("axis."))]


def _shown(columns: Sequence[str], cells: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Return the values of cells as they are read: of paths, what distinguishes them."""
    if PATH not in columns:
        return list(cells)
    at = columns.index(PATH)
    names = file_names(values[at] for values in cells)
    return [(*values[:at], names[values[at]], *values[at + 1 :]) for values in cells]


def _cell_title(columns: Sequence[str], values: Sequence[str], skip: set[int]) -> str:
    parts = []
    for i, (name, value) in enumerate(zip(columns, values, strict=True)):
        if i not in skip and value != DASH:
            parts.append(axis_value(name, value) if name.startswith("axis.") else value)
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
