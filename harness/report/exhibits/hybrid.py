"""*Hybrid nonlinear losses* (Choi, IJFIS 24(4), 2024): its 27 experiments, table 2 and figures, beside our own."""

from __future__ import annotations

import csv
import functools
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from harness.analysis import effects, gates, stats
from harness.analysis.cells import Analysis, Cell, Outcome
from harness.analysis.frames import column, numbers, rows
from harness.analysis.stats import Comparison
from harness.paths import ROOT
from harness.report.exhibits import hybrid_figures, hybrid_penalty
from harness.report.items import Column, Entry, Figure, Item, Prose, Row, Section, Table, Tone
from harness.report.sections.common import dash, interval_entry, simultaneous, verdict_entry
from harness.text import count, joined, number, slug

PRINTED = ROOT / "results" / "published" / "hybrid_table2.csv"
AVERAGED = ("ema", "hybrid2")
FILTERS = ("none", "relu", "elu", "birelu", "bielu")
A, B = 0.6, 0.5  # our defaults; the paper prints none
OTHER = (0.4, 0.5)  # a pair at which filters do something: u can be less than 0 there
RECONSTRUCTION = "(reconstruction)"


class Experiment(NamedTuple):
    """One of the 27 rows of the paper's table 1."""

    term: str
    coefficients: str = "linear"
    filter: str = "none"
    mode: str = "consistent"

    @property
    def file(self) -> str:
        """Its file in conf/loss."""
        parts = ["hybrid", self.term]
        if self.term != "none":
            parts.append(self.coefficients)
        return "_".join([*parts, self.filter] if self.term in AVERAGED else parts)

    @property
    def label(self) -> str:
        """What a study calls it."""
        return self.file if self.mode == "consistent" else f"{self.file} mode={self.mode}"


EXPERIMENTS = (
    Experiment("none"),
    *(Experiment(term, kind) for term in ("comb", "ne", "hybrid1") for kind in ("convex", "linear")),
    *(Experiment(*parts) for parts in itertools.product(AVERAGED, ("convex", "linear"), FILTERS)),
)


def same_as(experiment: Experiment, a: float = A, b: float = B) -> Experiment:
    """Return the first experiment that is the same function, for covariates a and b.

    u = a (a - s) L1 + s (1 - a) L2, with s = 1 - a (convex) or b (linear), and both errors are at least 0. Where both
    factors are, ReLU, eLU and their two-sided ReLU leave u as it is; where neither is, ReLU leaves nothing. As printed,
    u mixes 1 - a and b, equation 6 has a root where table 1 has no filter, and 9 subtracts its filter from itself.

    >>> same_as(Experiment("ema", "linear", "birelu")).label
    'hybrid_ema_linear_none'
    >>> same_as(Experiment("hybrid2", "linear", "bielu", "printed")).label
    'hybrid_ne_linear'
    """
    term, coefficients, chosen, mode = experiment
    rooted = (term, coefficients, mode) == ("hybrid2", "convex", "printed")
    if math.isclose(b, 1 - a):
        coefficients = "convex"
    if term == "none":
        return Experiment("none")
    if term not in AVERAGED or (term, chosen, mode) == ("hybrid2", "bielu", "printed"):
        return Experiment(term if term not in AVERAGED else "ne", coefficients)
    if rooted and chosen == "none":
        return experiment
    second = 1 - a if coefficients == "convex" else b
    first = last = second
    if mode == "printed":
        first, last = b if (term, coefficients) == ("hybrid2", "linear") else 1 - a, b
    if math.isclose(first, second) and math.isclose(last, second):
        mode = "consistent"
    factors = (a * (a - first), second - a * last)
    if chosen == "birelu" or (min(factors) >= 0 and chosen in ("relu", "elu")):
        chosen = "none"
    if chosen == "relu" and max(factors) <= 0:
        return Experiment("none") if term == "ema" else Experiment("ne", coefficients)
    if chosen == "none" and rooted and mode == "printed":  # "none" is the name of the root
        chosen = "relu" if min(factors) >= 0 else "birelu"
    return Experiment(term, coefficients, chosen, mode)


def distinct(a: float = A, b: float = B, mode: str = "consistent") -> list[Experiment]:
    """Return the experiments that have to be trained, each once."""
    return list(dict.fromkeys(same_as(experiment._replace(mode=mode), a, b) for experiment in EXPERIMENTS))


def section(a: Analysis) -> Section:
    """Return the paper's table and figures beside what these records say."""
    values = _covariates(a)
    items: list[Item] = [Prose(_intro(a, *values)), _statements(a, *values)]
    items.append(Prose((*printed_table(), _averaging(a))))
    items += [_table(a, cell, *values, mode) for mode in _modes(a, *values) for cell in a.cells]
    items += [_bars(a, cell, *values) for cell in a.cells]
    items += _formulas(*values)
    items += hybrid_penalty.tables()
    return Section("exhibit-hybrid", "The paper: Hybrid nonlinear losses", tuple(items))


def _covariates(a: Analysis) -> tuple[float, float]:
    found = [numbers(a.main, f"config.loss.{name}").dropna() for name in ("a", "b")]
    return tuple(float(x.iloc[0]) if len(x) else default for x, default in zip(found, (A, B), strict=True))  # pyright: ignore[reportReturnType]


def _label(a: Analysis, experiment: Experiment) -> str:
    """Return what this study calls an experiment: with its A and B, where these are not our defaults."""
    printed = experiment.mode == "printed"
    called = (x for _, x in a.planned if x.split()[0] == experiment.file and ("mode=printed" in x) == printed)
    return next(called, experiment.label)


def _modes(a: Analysis, first: float, second: float) -> list[str]:
    """Return the readings to show: the equations as printed only where the study trains what they alone make."""
    own = set(distinct(first, second, "printed")) - set(distinct(first, second))
    trained = {label for _, label in a.planned}
    return ["consistent", "printed"] if {_label(a, each) for each in own} & trained else ["consistent"]


def _intro(a: Analysis, first: float, second: float) -> tuple[str, ...]:
    trained = distinct(first, second)
    return (
        "Choi (2024) adds to cross-entropy functions of the absolute and the squared error of the predicted "
        "probabilities: 26 variants beside plain cross-entropy. The paper defines neither the two errors nor the "
        "coefficients A and B nor the two-sided filters, so all of them are reconstructions here, at values that are "
        f"our choice, A = {first:g} and B = {second:g}. There, {len(trained)} of the 27 are different functions; each "
        f"is trained once, and the {27 - len(trained)} experiments that equal another are shown with its runs: as "
        "functions of their own they were never trained here, so nothing here tells them apart. Which are equal "
        f"depends on A and B: at A = {OTHER[0]:g}, B = {OTHER[1]:g}, say, {len(distinct(*OTHER))} differ.",
        "Averaged over C classes the absolute error is at most 2/C, so the added term is small beside cross-entropy. "
        "How small, in value and in gradient, was measured after each epoch on the same predictions (the two columns "
        "at the right of our side): where the gradient hardly changes, no difference can be expected, and none found "
        "says nothing about nonlinear terms in general.",
        "Our protocol is not the paper's: it trained a U-Net and an FCN of unstated size in Keras on VOC and on a set "
        "called ATR that is not published, and prints one seed of one model on one set.",
    )


# ---------------------------------------------------------------- table 2


@functools.cache
def _printed() -> dict[str, dict[str, float]]:
    """Return table 2 as printed: label -> column -> value."""
    with PRINTED.open(newline="") as file:
        found = list(csv.DictReader(file))
    return {row["loss"]: {name: float(row[name]) for name in ("dsc", "iou", "loss_value")} for row in found}


def _table(a: Analysis, cell: Cell, first: float, second: float, mode: str) -> Table:
    unit = f" ({a.metric.unit})" if a.metric.unit else ""
    columns = (
        Column("experiment", "no.", "number", "the paper's number"),
        Column("loss", "loss"),
        Column("same", "trained as", note="the same function at these A and B: the same runs"),
        Column("mean", f"ours: {a.metric.title}{unit}", "number"),
        Column("difference", "difference from 1", "number", f"with {simultaneous(len(a.challengers))}"),
        Column("verdict", "verdict"),
        Column("added_value", "added value", "number", "added term over cross-entropy, mean of all epochs and seeds"),
        Column("added_gradient", "added gradient", "number", "its gradient in the logits over that of cross-entropy"),
        Column("paper_iou", "paper: IoU", "number", "table 2: U-Net, ATR, seed 250"),
        Column("paper_difference", "difference from 1", "number", "in points"),
        Column("paper_dsc", "paper: DSC", "number"),
        Column(
            "paper_loss",
            "paper: loss",
            "number",
            "of different functions, so not comparable between rows; it falls with the number",
        ),
    )
    made = tuple(
        _row(a, cell, number, each._replace(mode=mode), first, second) for number, each in enumerate(EXPERIMENTS, 1)
    )
    how = "equations as printed" if mode == "printed" else "our consistent reading of the equations"
    caption = (
        f"Table 2 of the paper beside ours on {cell.title}, {how}; intervals and verdicts are the study's, "
        f"{simultaneous(len(a.challengers))}."
    )
    tail = "-printed" if mode == "printed" else ""
    title = f"Table 2, {cell.short}" + (", as printed" if mode == "printed" else "")
    return Table(f"hybrid-table2-{slug(cell.title)}{tail}", title, columns, made, caption)


def _row(a: Analysis, cell: Cell, index: int, experiment: Experiment, first: float, second: float) -> Row:
    trained = same_as(experiment, first, second)
    outcome = a.outcomes.get((cell, _label(a, trained)))
    printed = _printed()
    paper, reference = printed[experiment.file], printed["hybrid_none"]
    name = experiment.file if experiment.term == "none" else f"{experiment.file} {RECONSTRUCTION}"
    shift = 100 * (paper["iou"] - reference["iou"])
    return Row(
        (
            Entry(str(index), index),
            Entry(name),
            Entry("" if trained == experiment else trained.label),
            *_ours(a, cell, outcome, trained),
            Entry(number(paper["iou"], 3), paper["iou"]),
            Entry(number(shift, 1, sign=True), shift),
            Entry(number(paper["dsc"], 3), paper["dsc"]),
            Entry(number(paper["loss_value"], 3), paper["loss_value"]),
        ),
        reference=experiment.term == "none",
    )


def _ours(a: Analysis, cell: Cell, outcome: Outcome | None, trained: Experiment) -> list[Entry]:
    if outcome is None or not outcome.keys:
        # what the study includes besides its axes, as it does the equations as printed, is part of every such command
        losses = f"{a.baseline},{trained.file}" if trained.mode == "consistent" else a.baseline
        return [dash(f"no run: python -m harness study={a.study.name} axes.loss=[{losses}]")] * 5
    mean = Entry(a.metric.interval(outcome.values), outcome.values.mean, runs=outcome.keys)
    found = a.comparisons.get((cell, _label(a, trained)))
    compared = [Entry("baseline"), Entry("")] if found is None else [
        interval_entry(a, found, outcome.paired_keys), verdict_entry(found),
    ]  # fmt: skip
    return [mean, *compared, *(_added(a, outcome, name) for name in ("added.value", "added.gradient"))]


def _added(a: Analysis, outcome: Outcome, name: str) -> Entry:
    history = a.study.history
    if name not in history.columns:
        return dash("not measured: train with trainer=segmentation_probed")
    known = numbers(rows(history, column(history, "key").isin(list(outcome.keys))), name).dropna()
    return Entry(f"{number(100 * float(known.mean()), 1)} %", float(known.mean())) if len(known) else dash("no epoch")


# ---------------------------------------------------------------- statements


@dataclass(frozen=True)
class Statement:
    """A sentence of the paper, and two groups of experiments whose difference decides it."""

    text: str
    source: str
    left: Callable[[Experiment], bool]
    right: Callable[[Experiment], bool]
    tested: str


def _is(*terms: str) -> Callable[[Experiment], bool]:
    return lambda experiment: experiment.term in terms


def _all_of(term: Callable[[Experiment], bool], **parts: str) -> Callable[[Experiment], bool]:
    return lambda e: term(e) and all(getattr(e, name) == value for name, value in parts.items())


NONLINEAR = ("ne", "hybrid1", "ema", "hybrid2")
STATEMENTS = (
    Statement("Nonlinear terms help: training and test improve over plain cross-entropy.", "sections 5 and 6",
              _is(*NONLINEAR), _is("none"), "mean of experiments 4 to 27 minus 1"),
    Statement("Hybrid losses raise segmentation performance, by about 0.1 points.", "section 5, on table 2",
              _is("hybrid1", "hybrid2"), _is("none"), "mean of 6, 7, 18 to 27 minus 1"),
    Statement("A linear combination of L1 and L2 is better than no added loss.", "ranking in section 5",
              _is("comb"), _is("none"), "mean of 2 and 3 minus 1"),
    Statement("The exponential and the moving average are better than the linear combination.", "ranking in section 5",
              _is("ne", "ema"), _is("comb"), "mean of 4, 5, 8 to 17 minus mean of 2 and 3"),
    Statement("The heterogeneous losses are better than the exponential and the moving average alone.",
              "ranking in section 5", _is("hybrid1", "hybrid2"), _is("ne", "ema"),
              "mean of 6, 7, 18 to 27 minus mean of 4, 5, 8 to 17"),
    Statement("The two-sided eLU filter serves hybrid losses best.", "section 5, on table 2 and figure 9",
              _all_of(_is("hybrid2"), filter="bielu"), _all_of(_is("hybrid2"), filter="none"),
              "mean of 22 and 27 minus mean of 18 and 23"),
    Statement("Hybrid v1 (with L1 and L2) reaches the best performance.", "section 5, on figure 9",
              _is("hybrid1"), _is("hybrid2"), "mean of 6 and 7 minus mean of 18 to 27"),
)  # fmt: skip
WORDS: dict[str, tuple[str, Tone]] = {
    "better": ("supported", "better"),
    "worse": ("contradicted", "worse"),
    "equivalent": ("no difference beyond the margin", "equivalent"),
    "depends": ("depends on the cell", ""),
    "withheld": ("withheld", "withheld"),
}


def _statements(a: Analysis, first: float, second: float) -> Table:
    """Return a verdict for each statement: differences of group means, seed by seed, in every cell."""
    compared = {cell: _groups(a, cell, first, second) for cell in a.cells}
    unit = f" ({a.metric.difference_unit})" if a.metric.difference_unit else ""
    columns = (
        Column("statement", "what the paper says, in our words"),
        Column("verdict", "verdict", note="the one that all cells share"),
        *(Column(f"cell_{i + 1}", f"{cell.short}{unit}", "number", cell.title) for i, cell in enumerate(a.cells)),
        Column("n", "seeds", "number", "in the cell that has the fewest"),
        Column("tested", "what is tested"),
        Column("source", "where"),
    )
    made = []
    for statement in STATEMENTS:
        found = [compared[cell][statement.text] for cell in a.cells]
        verdict = effects.verdict_over(found, effects.heterogeneity(found).shown)
        needed = max((c.seeds_needed or 0 for c in found), default=0)
        text, tone = WORDS.get(verdict, ("not decidable", "undecided"))
        if verdict == "not decidable" and needed:
            text += f" (about {needed:,} seeds would decide)"
        note = "; ".join(dict.fromkeys(why for c in found for why in c.because))
        fewest = min((c.n for c in found), default=0)
        cells = (interval_entry(a, c) if c.n else dash("no complete seed") for c in found)
        made.append(Row((Entry(statement.text), Entry(text, tone=tone, note=note), *cells, Entry(str(fewest), fewest),
                         Entry(statement.tested), Entry(statement.source))))  # fmt: skip
    caption = (
        f"Group means of {a.metric.title}, seed by seed, in each of {count(len(a.cells), 'cell')}, with "
        f"{simultaneous(len(STATEMENTS), 'statements')} and a margin of ±{a.metric.with_unit(a.margin)}; a verdict is "
        "that of every cell. It is withheld where a loss of either group is. Experiments that are one function count "
        "once for each of their numbers, as in the paper."
    )
    return Table("hybrid-statements", "What the paper says, and what was found", columns, tuple(made), caption)


def _groups(a: Analysis, cell: Cell, first: float, second: float) -> dict[str, Comparison]:
    """Return the comparison of both groups of each statement in a cell; the statements are one family."""
    own = {
        label: a.learnt(cell, label).set_index("seed")["value"]
        if (cell, label) in a.planned
        else pd.Series(dtype=float)
        for label in {_label(a, each) for each in distinct(first, second)}
    }
    differences, because = {}, {}
    for statement in STATEMENTS:
        sides = [
            [_label(a, same_as(each, first, second)) for each in EXPERIMENTS if side(each)]
            for side in (statement.left, statement.right)
        ]
        left, right = (
            pd.concat([own[label] for label in side], axis=1).mean(axis=1, skipna=False).astype(float) for side in sides
        )
        differences[statement.text] = (left - right).dropna()
        because[statement.text] = _because(a, cell, {label for side in sides for label in side})
    found = stats.compare_family(differences, a.scale(cell), sequential=a.sequential)
    return {text: c.withheld(because[text] if c.n else ()) for text, c in found.items()}


def _because(a: Analysis, cell: Cell, labels: set[str]) -> tuple[str, ...]:
    """Return what withholds a verdict on groups of losses: each kind of reason, with how many losses it concerns."""
    kinds = Counter(kind for label in labels for kind in {reason.kind.what for reason in gates.of_runs(a, cell, label)})
    return tuple(f"{kind} ({n} of {count(len(labels), 'loss', 'losses')})" for kind, n in sorted(kinds.items()))


def printed_table() -> tuple[str, ...]:
    """Return what the paper's table 2 itself shows, computed from the printed values, beside what the paper says."""
    rows_by_number = {n: _printed()[each.file] for n, each in enumerate(EXPERIMENTS, 1)}
    losses = pd.Series({n: row["loss_value"] for n, row in rows_by_number.items()})
    added = losses[losses.index > 1]
    whole, part = (pd.Series(x.index, x.index).corr(x.rank()) for x in (losses, added))
    least, plain = float(losses.min()), losses[1]
    fall = (
        f"The printed loss falls with the number of the row: Spearman's rank correlation is {number(part, 3)} over the "
        f"{len(added)} experiments with an added loss, {number(whole, 3)} with plain cross-entropy, the first. The "
        "rows are different functions, whose values cannot be compared, in the order of the paper's numbering, and "
        "it gives no reason why they should fall in that order. It says that values decreased to below 1.0 in later "
        f"experiments and takes that for training progress; the least is {number(least, 3)}, plain cross-entropy has "
        f"{number(plain, 3)}, and rows are separate trainings, not epochs."
    )
    dsc, iou = (pd.Series({n: row[name] for n, row in rows_by_number.items()}) for name in ("dsc", "iou"))
    best, widest = dsc[dsc == dsc.max()].index, iou[iou == iou.max()].index
    v1 = [n for n, each in enumerate(EXPERIMENTS, 1) if each.term == "hybrid1"]
    shared = (
        f"The best DSC, {number(float(dsc.max()), 3)}, is shared by {count(len(best), 'experiment')} ({_spans(best)}), "
        f"the best IoU, {number(float(iou.max()), 3)}, by {len(widest)}"
        f"{', plain cross-entropy among them' if 1 in widest else ''}, so this table of one seed singles out no best "
        f"method. Hybrid v1 ({_spans(v1)}), which the paper calls best on figure 9, has a DSC of "
        f"{joined(number(float(dsc[n]), 3) for n in v1)} here."
    )
    return fall, shared


def _spans(numbers_: Iterable[int]) -> str:
    """Return numbers of experiments in words, neighbours together.

    >>> _spans([1, 6, 7, 18, 19, 20])
    '1, 6 and 7, 18 to 20'
    """
    runs: list[list[int]] = []
    for n in sorted(numbers_):
        if runs and n == runs[-1][-1] + 1:
            runs[-1].append(n)
        else:
            runs.append([n])
    return ", ".join(f"{x[0]} to {x[-1]}" if len(x) > 2 else joined(map(str, x)) for x in runs)


def _averaging(a: Analysis) -> str:
    """Return why the printed IoU and DSC cannot come from one averaging, and how they lie in our runs."""
    printed = _printed()
    dsc, iou = printed["hybrid_none"]["dsc"], printed["hybrid_none"]["iou"]
    text = (
        f"The paper's table prints an IoU ({iou}) above its DSC ({dsc}) in every row. For one averaging IoU = DSC / "
        f"(2 - DSC), never more than DSC: {number(dsc / (2 - dsc), 3)} here. DSC, F1, precision and recall agree to "
        "three digits in every row, as only micro-averaged scores do, which are the pixel accuracy; the IoU must be "
        "another average (over classes with background, say)."
    )
    gaps = (numbers(a.main, "test.dice") - numbers(a.main, "test.miou")).dropna()
    if len(gaps):
        below, most = number(100 * float(gaps.min()), 1), number(100 * float(gaps.max()), 1)
        text += f" In our {count(len(gaps), 'run')} mean IoU lies {below} to {most} points below mean Dice."
    return text


# ---------------------------------------------------------------- figures


def _bars(a: Analysis, cell: Cell, first: float, second: float) -> Figure:
    loss, metric = [], []
    for index, each in enumerate(EXPERIMENTS, 1):
        outcome = a.outcomes.get((cell, _label(a, same_as(each, first, second))))
        if outcome is not None and outcome.values.n:
            metric.append((index, *_spread(a.measured(outcome, a.metric.key) * a.metric.scale)))
            loss.append((index, *_spread(_last_loss(a, outcome))))
    caption = (
        f"Figure 9 of the paper on {cell.title}: mean over seeds and standard deviation for each of the 27 "
        "experiments; those that are one function have the same bar. Dashed: plain cross-entropy. Above, the training "
        "loss of the last epoch, which is the value of a different function in each bar and says nothing of quality. "
        "This is not the paper's figure: its panels show the training loss and the IoU for different training epochs, "
        "which it does not name; here there is the last epoch alone, and below it the test data, at the epoch selected "
        "on validation."
    )
    panels = {"training loss": loss, f"{a.metric.title} ({a.metric.unit})": metric}
    return Figure(
        f"hybrid-fig9-{slug(cell.title)}", f"Figure 9, {cell.short}", caption, caption,
        functools.partial(hybrid_figures.bars, panels), True,
    )  # fmt: skip


def _spread(values: pd.Series) -> tuple[float, float]:
    known = values.dropna()
    return float(known.mean()), float(known.std()) if len(known) > 1 else math.nan


def _last_loss(a: Analysis, outcome: Outcome) -> pd.Series:
    """Return the training loss of the last epoch of each completed run."""
    history = a.study.history
    if "train.loss" not in history.columns:
        return pd.Series(dtype=float)
    own = rows(history, column(history, "key").isin(list(outcome.keys))).sort_values("epoch")
    return numbers(own.groupby("key").last(), "train.loss")


def _formulas(first: float, second: float) -> list[Item]:
    """Return the figures that need no run, and the table of printed gradients."""
    panels = "(a) no added loss, (b) L1 and L2, (c) exponential, (d) both, (e) moving average, (f) it with exponential"
    proposal = (
        "How a loss acts on the field is not said; here the errors are L1 = |f| and L2 = f^2 and what is drawn is f + "
        f"R(L1, L2). {panels}. Convex coefficients, A = {first:g}."
    )
    contours, histograms = _not_the_papers(first, second)
    captions = {
        "hybrid-fig2": ("Figure 2: the paper's surface", hybrid_figures.surface2,
                        "z = x^2 + 4x + y^2 - 6y, with the losses applied as in figure 4, but first divided by its "
                        "greatest absolute value, because the exponential of z^2 is beyond any scale; the paper does "
                        f"not say what it did, so the contours need not be its own. {proposal}"),
        "hybrid-fig4": ("Figure 4: contour maps", hybrid_figures.contours,
                        "f = sin(x)^10 + cos(10 + xy) cos(x), 40 x 40 points, above on [0, 5] (unbalanced), below on "
                        f"[-5, 5] (balanced). {proposal} {contours}"),
        "hybrid-fig5": ("Figure 5: how often values occur", hybrid_figures.histograms,
                        "Histograms of the values of figure 4, above unbalanced, below balanced. "
                        f"{proposal} {histograms}"),
        "hybrid-fig6": ("Figure 6: noisy and noise-free probabilities", hybrid_figures.scatter,
                        "Probabilities of the group-lasso example (50 groups of features, noise of deviation 1 on the "
                        "logits), 1,500 points; each is moved by R of its own error, p + R(|p - q|, (p - q)^2), since "
                        "the paper does not say how losses enter. The paper shows outcomes of a fitted model; here "
                        f"none is fitted. {panels}."),
        "hybrid-fig7": ("Figure 7: equations 1 to 9 as surfaces", hybrid_figures.surfaces,
                        f"R over L1 and L2 in [0, 1], as printed, A = {first:g}, B = {second:g}, all our choice, since "
                        "the paper names neither; (9) subtracts its filter from itself and leaves the exponential."),
        "hybrid-fig8": ("Figure 8: equations 1 to 9 as heat maps", hybrid_figures.heat_maps,
                        f"The same values as in figure 7, one scale for all nine, A = {first:g}, B = {second:g}."),
        "hybrid-descent": ("Gradient descent", hybrid_figures.descent,
                           "Logistic regression on 40 points, 200 steps: the way of two weights (a mark every 50) "
                           "and the length of each step, for cross-entropy with each added term, by automatic "
                           f"differentiation; A = {first:g}, convex, rate 0.5. The paper has equations, no figure."),
    }  # fmt: skip
    items: list[Item] = [
        Figure(name, title, caption, caption, functools.partial(draw, first, second), True)
        for name, (title, draw, caption) in captions.items()
    ]
    return [*items, _gradients(first, second)]


def _not_the_papers(first: float, second: float) -> tuple[str, str]:
    """Return why our figures 4 and 5 are not the paper's, by the values that they show."""
    ranges = hybrid_figures.field_ranges(first, second)
    low, high = min(x.low for x in ranges.values()), max(x.high for x in ranges.values())
    own = [x for (_, panel), x in ranges.items() if panel == next(iter(hybrid_figures.PANELS))]
    plain = f"{number(min(x.low for x in own), 2)} to {number(max(x.high for x in own), 2)}"
    zero = [x.at_zero for (_, panel), x in ranges.items() if panel[1] in "cdf"]
    shares = f"{number(100 * min(zero), 0)} to {number(100 * max(zero), 0)} %"
    contours = (
        "This is not the paper's figure, whose values have another range: it tells of numerous zeros once a loss is "
        f"applied and, on figure 5, of values between 0 and 1; here values run from {number(low, 2)} to "
        f"{number(high, 2)}."
    )
    histograms = (
        "This cannot be the paper's figure. There, it says, each loss was applied to the cross-entropy loss, of what "
        "it does not say, and the values above lie between 0 and 1, nine of them dominating, those of (c), (d) "
        "and (f) largely at zero; below there are four values. But the printed formula alone, panel (a), with no loss "
        f"in it, runs from {plain} and hardly repeats a value. So what it drew are other values, by a step that it "
        f"does not print. Here {shares} of the values in (c), (d) and (f) lie within {hybrid_figures.ZERO:g} of zero."
    )
    return contours, histograms


def _gradients(first: float, second: float) -> Table:
    columns = (
        Column("equation", "equation", "number"),
        Column("of", "gradient of"),
        Column("deviation", "largest deviation", "number", "from the derivative, relative to it, on 400 points"),
        Column("verdict", "is it the derivative?"),
    )
    made = []
    for equation, of, deviation in hybrid_figures.printed_gradients(first, second):
        right = deviation < 1e-6
        shown = "0" if right else f"{number(100 * deviation, 0)} %"
        made.append(Row((Entry(f"({equation})", equation), Entry(f"({of})", of), Entry(shown, deviation),
                         Entry("yes" if right else "no", tone="good" if right else "alarm"))))  # fmt: skip
    caption = "The paper's gradients (10) to (18) beside the derivatives of its equations (1) to (9), by autograd."
    return Table("hybrid-gradients", "Printed gradients", columns, tuple(made), caption)
