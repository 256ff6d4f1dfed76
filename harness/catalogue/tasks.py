"""Which losses fit each task, and what was measured of them there: the published verdicts, task by task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness import compose
from harness.analysis import found
from harness.analysis.found import Found, Standing
from harness.catalogue.entries import LossEntry
from harness.text import count, joined

GROUPS = {
    "better": "Better somewhere",
    "worse": "Worse somewhere",
    "equivalent": "Equivalent somewhere",
    "not decidable": "Not decidable",
    "withheld": "Withheld",
}
"""What a loss stands under, in this order: by its first verdict that is listed here."""


@dataclass(frozen=True)
class TaskFacts:
    """A task, the losses that can be trained in it, and what published studies found of them.

    Attributes:
        task: option of conf/task.
        fits: the losses that can be trained in it, by name.
        studies: the published studies with runs in it.
        standings: every loss that was measured in it (see `harness.analysis.found.standings`).
    """

    task: str
    fits: tuple[LossEntry, ...]
    studies: tuple[Found, ...]
    standings: tuple[Standing, ...]

    @property
    def title(self) -> str:
        """The task in words."""
        return self.task.replace("_", " ")

    @property
    def unmeasured(self) -> tuple[LossEntry, ...]:
        """The losses that fit and were measured in no published study."""
        measured = {standing.loss for standing in self.standings}
        return tuple(entry for entry in self.fits if entry.id not in measured)

    def with_verdict(self, verdict: str) -> list[Standing]:
        """Return the losses that have a verdict anywhere in this task."""
        return [standing for standing in self.standings if standing.of(verdict)]

    def groups(self) -> list[tuple[str, str, list[Standing]]]:
        """Return every loss that was compared once, by the most that was found of it: a title, the verdict that it
        stands for, and the losses; empty groups are left out.
        """
        rest = [each for each in self.standings if each.by_verdict]
        found = []
        for verdict, title in GROUPS.items():
            own = [each for each in rest if each.of(verdict)]
            rest = [each for each in rest if not each.of(verdict)]
            if own:
                found.append((title, verdict, own))
        return found

    def advice(self) -> list[str]:
        """Return what to do and why, in sentences that rest on decided verdicts alone; losses stand in backticks."""
        if not self.studies:
            return ["No study of this task is published yet."]
        decided = [each for each in self.studies if any(each.of(verdict) for verdict in found.DECIDED)]
        baselines = joined(dict.fromkeys(f"`{each.baseline}`" for each in decided or self.studies), "or")
        compared = sum(found.counted(self.studies).values())
        if not decided:
            why = joined(f"{what} ({n})" for what, n in found.obstacles(self.studies)[:2])
            return [
                f"None of {count(compared, 'comparison')} is decided, mostly because {why}. Start with {baselines}."
            ]
        better, worse = self.with_verdict("better"), self.with_verdict("worse")
        said = [f"Start with {baselines}."]
        if better:
            where = "; ".join(f"{joined(losses)} ({cell})" for cell, losses in _by_setting(better).items())
            said.append(f"Shown to be better, each in the setting named: {where}.")
        else:
            said.append("No other loss is shown to be better.")
        if avoid := [f"`{each.loss}`" for each in worse if each not in better]:
            said.append(f"Shown to be worse somewhere, and better nowhere: {joined(avoid)}.")
        return said


def _by_setting(standings: Sequence[Standing]) -> dict[str, list[str]]:
    """Return the losses that are better in each setting."""
    found: dict[str, list[str]] = {}
    for standing in standings:
        for cell in dict.fromkeys(one.cell for _, one in standing.of("better")):
            found.setdefault(cell, []).append(f"`{standing.loss}`")
    return found


def tasks(entries: Sequence[LossEntry], facts: Sequence[Found]) -> list[TaskFacts]:
    """Return every task: those with decided verdicts first, then those with studies, then by name.

    Args:
        entries: the losses of the registry.
        facts: what the published studies found.
    """
    known = found.by_task(facts)
    made = []
    for task in compose.options("task"):
        studies = known.get(task, ())
        fits = tuple(entry for entry in entries if task in entry.tasks)
        made.append(TaskFacts(task, fits, studies, tuple(found.standings(studies))))
    return sorted(made, key=lambda each: (-_decided(each), -len(each.studies), each.task))


def _decided(each: TaskFacts) -> int:
    return sum(n for verdict, n in found.counted(each.studies).items() if verdict in found.DECIDED)
