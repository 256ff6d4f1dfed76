"""The settings of a study as its mirrors take them, one after the other: each with its runs, and what is said of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from harness.tracking.runs import Row, TrackedRun, Verdict, groups, tracked_seed, tracked_setting

if TYPE_CHECKING:
    from harness.records.study import StudyData


@dataclass(frozen=True)
class Setting:
    """A setting with at least one run that has a record.

    Attributes:
        tracked: what sums its runs up.
        rows: its runs with a record, in the order of the plan.
        verdict: what is said of it and of its runs.
        epochs: the history of every run of the study, by key.
    """

    tracked: TrackedRun
    rows: Sequence[Row]
    verdict: Verdict
    epochs: Mapping[str, Sequence[Row]]

    def seed(self, row: Row) -> TrackedRun:
        """Return what is tracked of one of its runs."""
        return tracked_seed(row, self.epochs[str(row["key"])], self.tracked.identity)


def own_identity(row: Row) -> tuple[str, str]:
    """Return what tells a run from all others of its study: its key, and its role, because a run may have two."""
    return str(row["key"]), str(row["role"])


def settings(study: StudyData) -> Iterator[Setting]:
    """Yield the settings of a study that have a run with a record."""
    from harness.tracking.verdicts import verdicts  # here, so that the command line answers at once

    epochs: dict[str, list[Row]] = defaultdict(list)
    for epoch in cast(list[Row], study.history.to_dict("records")):
        epochs[str(epoch["key"])].append(epoch)
    said = verdicts(study) if len(study.runs) else {}
    for identity, rows in groups(cast(list[Row], study.runs.to_dict("records"))).items():
        verdict = said.get(identity[0], Verdict()) if identity[1] == "run" else Verdict()
        if recorded := [row for row in rows if row["status"] != "missing"]:
            yield Setting(tracked_setting(identity, rows, verdict, epochs), recorded, verdict, epochs)
