"""What a study found, as facts small enough to keep: the verdict on every loss in every cell, without its runs.

Working a study out takes seconds to minutes; pages that speak of all studies (the site, the catalogue, the README) read
these facts instead. ``python -m scripts.found`` writes those of the published evidence to results/found.json.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.analysis.cells import Analysis, Cell, Outcome
from harness.analysis.frames import column
from harness.paths import MEASURED, ROOT
from harness.records import load_study
from harness.text import plain

FILE = ROOT / "results" / "found.json"
DECIDED = ("better", "worse", "equivalent")
CALIBRATION = "test.ece"


@dataclass(frozen=True)
class Measured:
    """One loss in one cell of a study.

    Attributes:
        loss: its name in conf/loss.
        label: its name in the study, with the settings that distinguish it (``focal gamma=5``).
        name: what people call it.
        cell: title of the cell (data set, model, condition).
        where: the same without what all cells of the study share.
        verdict: better, worse, equivalent, not decidable, withheld, or ``baseline``.
        score: mean of its completed runs, with half the width of its 95 % interval, as text with its unit.
        effect: the difference from the baseline with its interval, as text in the metric's unit of differences.
        difference, low, high: the same, in the metric's own unit; None: not known.
        n: pairs of runs compared (of the baseline: runs).
        seeds_needed: how many seeds would decide; None where the verdict is decided or withheld, or no number would.
        because: what withholds the verdict, in a few words each.
        best: whether it may be the best of the cell; None: too few runs to tell.
        beaten_by: the loss that is shown to be better by most; empty: none.
        failures: how many of its runs diverged or did not learn, as text; empty: none.
        calibration: mean expected calibration error, 0 to 1; None: its scores are not probabilities, or not recorded.
        reconstruction: whether it is our reading of an incomplete source.
    """

    loss: str
    label: str
    name: str
    cell: str
    where: str
    verdict: str
    score: str
    effect: str
    difference: float | None
    low: float | None
    high: float | None
    n: int
    seeds_needed: int | None
    because: tuple[str, ...]
    best: bool | None
    beaten_by: str
    failures: str
    calibration: float | None
    reconstruction: bool


@dataclass(frozen=True)
class Found:
    """What one study found.

    Attributes:
        study: its name.
        question: what it asks.
        tasks: the tasks of its runs, options of conf/task.
        metric: title of the metric that decides, on test data.
        unit: of differences in it.
        margin: below which a difference does not matter, as text with its unit.
        baseline: the loss that the others are compared with.
        runs, seeds: how many runs were completed, on how many seeds.
        finished: day of the last run, ``2026-11-25``; empty: not known.
        alarms: how many controls failed.
        measured: every loss in every cell, in the study's order, the baseline first in each cell.
        digest: of the evidence that this was read from; empty: of no publication.
    """

    study: str
    question: str
    tasks: tuple[str, ...]
    metric: str
    unit: str
    margin: str
    baseline: str
    runs: int
    seeds: int
    finished: str
    alarms: int
    measured: tuple[Measured, ...]
    digest: str = ""

    @property
    def cells(self) -> tuple[str, ...]:
        """Titles of its cells."""
        return tuple(dict.fromkeys(each.cell for each in self.measured))

    @property
    def settings(self) -> tuple[tuple[str, str], ...]:
        """Titles of its cells, each with what distinguishes it from the others."""
        return tuple(dict.fromkeys((each.cell, each.where) for each in self.measured))

    def of(self, verdict: str) -> tuple[Measured, ...]:
        """Return the losses with a verdict, in every cell."""
        return tuple(each for each in self.measured if each.verdict == verdict)


def summarise(a: Analysis, digest: str = "") -> Found:
    """Return what a study found.

    Args:
        a: its analysis.
        digest: of the evidence, kept with the facts.
    """
    days = sorted(str(value)[:10] for value in column(a.all, "finished") if isinstance(value, str))
    return Found(
        study=a.study.name,
        question=str(a.study.spec.get("question") or ""),
        tasks=tuple(dict.fromkeys(plain(value) for value in column(a.main, "task"))),
        metric=a.metric.title.removeprefix("test "),
        unit=a.metric.difference_unit,
        margin=a.metric.with_unit(a.margin),
        baseline=a.baseline,
        runs=sum(outcome.values.n for outcome in a.outcomes.values()),
        seeds=len(a.seeds),
        finished=days[-1] if days else "",
        alarms=sum(control.status == "failed" for control in a.controls),
        measured=tuple(
            _measured(a, cell, label) for cell in a.cells for label in a.labels if (cell, label) in a.outcomes
        ),
        digest=digest,
    )


def _measured(a: Analysis, cell: Cell, label: str) -> Measured:
    outcome, facts = a.outcomes[cell, label], a.loss_facts[label]
    compared = a.comparisons.get((cell, label))
    candidate = next((each for each in a.best[cell] if each.label == label), None)
    shown = compared if compared is not None and compared.n else None
    because = dict.fromkeys(reason.kind.what for reason in compared.because) if compared else ()
    return Measured(
        loss=_option(a, outcome),
        label=label,
        name=facts.name or label,
        cell=cell.title,
        where=cell.short,
        verdict=compared.verdict if compared else "baseline",
        score=f"{a.metric.interval(outcome.values)} {a.metric.unit}".strip() if outcome.values.n else "",
        effect=f"{a.metric.difference(shown)} {a.metric.difference_unit}".strip() if shown else "",
        difference=_finite(shown.difference) if shown else None,
        low=_finite(shown.low) if shown else None,
        high=_finite(shown.high) if shown else None,
        n=compared.n if compared else outcome.values.n,
        seeds_needed=compared.seeds_needed if compared else None,
        because=tuple(because),
        best=candidate.may_be_best if candidate else None,
        beaten_by=candidate.beaten_by if candidate else "",
        failures=_failures(outcome),
        calibration=_finite(a.measured(outcome, CALIBRATION).mean()) if facts.link else None,
        reconstruction=facts.reconstruction,
    )


def _option(a: Analysis, outcome: Outcome) -> str:
    """Return the option of conf/loss that a label stands for."""
    options = [value for value in column(a.planned[outcome.cell, outcome.label], "loss") if isinstance(value, str)]
    return options[0] if options else outcome.label.partition(" ")[0]


def _failures(outcome: Outcome) -> str:
    failed = outcome.diverged + outcome.unlearnt
    return f"{failed} of {outcome.failures.runs} runs diverged or did not learn" if failed else ""


def _finite(value: Any) -> float | None:
    # to eight digits: what another CPU adds by rounding would change a committed file
    return float(f"{value:.8g}") if value == value and math.isfinite(value) else None


# ---------------------------------------------------------------- the published evidence


def studies() -> list[str]:
    """Return the names of the studies whose evidence is published with the checkout."""
    return sorted(path.stem for path in MEASURED.glob("*.json"))


def digest(study: str) -> str:
    """Return what identifies the published evidence of a study: it changes with any of its files."""
    return hashlib.sha256((MEASURED / f"{study}.json").read_bytes()).hexdigest()[:16]


def analysis(study: str, scratch: Path) -> Analysis:
    """Return the analysis of a study on its published evidence alone, whatever was run here.

    Args:
        study: its name.
        scratch: an empty folder, or one that an earlier call was given.
    """
    link = scratch / "measured"
    if not link.exists():  # a results folder in which nothing was run
        link.symlink_to(MEASURED, target_is_directory=True)
    return Analysis(load_study(study, scratch))


# ---------------------------------------------------------------- files


def as_text(found: Iterable[Found]) -> str:
    """Return facts as JSON text, one study after the other, one loss a line."""
    studies = []
    for each in found:
        head = {key: value for key, value in asdict(each).items() if key != "measured"}
        lines = ",\n  ".join(json.dumps(asdict(one), ensure_ascii=False) for one in each.measured)
        text = json.dumps(head, ensure_ascii=False, indent=1)
        studies.append(f'{text[:-2]},\n "measured": [\n  {lines}\n ]\n}}')
    return "[\n" + ",\n".join(studies) + "\n]\n"


def from_text(text: str) -> tuple[Found, ...]:
    """Return the facts that :func:`as_text` wrote."""
    return tuple(map(from_dict, json.loads(text)))


def from_dict(content: Mapping[str, Any]) -> Found:
    """Return the facts that were written as a JSON object."""
    measured = tuple(Measured(**{**each, "because": tuple(each["because"])}) for each in content["measured"])
    return Found(**{**content, "tasks": tuple(content["tasks"]), "measured": measured})


def published(file: Path = FILE) -> tuple[Found, ...]:
    """Return the facts about the published evidence, study by study; none where there is no file."""
    return from_text(file.read_text()) if file.exists() else ()


# ---------------------------------------------------------------- over studies


@dataclass(frozen=True)
class Standing:
    """What was measured of one loss in one task, over all studies.

    Attributes:
        loss: its name in conf/loss.
        name: what people call it.
        by_verdict: where it has each verdict, as pairs of study and facts, without verdicts that it has nowhere.
        baseline: whether other losses were compared with it.
    """

    loss: str
    name: str
    by_verdict: Mapping[str, tuple[tuple[Found, Measured], ...]]
    baseline: bool

    def of(self, verdict: str) -> tuple[tuple[Found, Measured], ...]:
        """Return where it has a verdict."""
        return self.by_verdict.get(verdict, ())

    @property
    def decided(self) -> bool:
        """Whether any comparison of it is decided."""
        return any(self.of(verdict) for verdict in DECIDED)


def standings(found: Sequence[Found]) -> list[Standing]:
    """Return the standing of every loss that was measured: those better somewhere first, then equivalent ones, open
    ones, and those that are worse somewhere and better nowhere; by name among equals.

    Args:
        found: the studies of one task.
    """
    standing = []
    for loss, pairs in by_loss(found).items():
        sorted_out: dict[str, list[tuple[Found, Measured]]] = {}
        for pair in pairs:
            sorted_out.setdefault(pair[1].verdict, []).append(pair)
        names = [one.name for _, one in pairs if one.label == loss] or [pairs[0][1].name]
        by_verdict = {verdict: tuple(own) for verdict, own in sorted_out.items() if verdict != "baseline"}
        standing.append(Standing(loss, names[0], by_verdict, "baseline" in sorted_out))
    return sorted(standing, key=_place)


def _place(standing: Standing) -> tuple[int, str]:
    if standing.of("better"):
        return 0, standing.loss
    if standing.of("worse"):
        return 4, standing.loss
    return 1 if standing.of("equivalent") else 2 if standing.of("not decidable") else 3, standing.loss


def counted(found: Sequence[Found]) -> dict[str, int]:
    """Return how many comparisons have each verdict, the decided ones first; those that none has are left out."""
    order = (*DECIDED, "not decidable", "withheld")
    numbers = {verdict: sum(len(each.of(verdict)) for each in found) for verdict in order}
    return {verdict: n for verdict, n in numbers.items() if n}


def obstacles(found: Sequence[Found]) -> list[tuple[str, int]]:
    """Return what withholds verdicts and how many each, the commonest first; a verdict may have several."""
    return Counter(why for each in found for one in each.of("withheld") for why in one.because).most_common()


def by_task(found: Sequence[Found]) -> dict[str, tuple[Found, ...]]:
    """Return the studies of every task, in their order."""
    tasks = dict.fromkeys(task for each in found for task in each.tasks)
    return {task: tuple(each for each in found if task in each.tasks) for task in tasks}


def by_loss(found: Sequence[Found]) -> dict[str, tuple[tuple[Found, Measured], ...]]:
    """Return where each loss of conf/loss was measured, study by study."""
    every = [(each, one) for each in found for one in each.measured]
    losses = sorted({one.loss for _, one in every})
    return {loss: tuple(pair for pair in every if pair[1].loss == loss) for loss in losses}
