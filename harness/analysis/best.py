"""Which losses may be the best: those that no other loss is shown to beat (multiple comparisons with the best)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from harness.analysis.estimates import ALPHA, Estimate
from harness.analysis.reasons import Reason


@dataclass(frozen=True)
class Candidate:
    """A loss, and the loss that it is shown to be worse than, if there is one.

    Attributes:
        label: the loss.
        beaten_by: the loss that beats it by the widest interval; empty: none does, so that it may be the best.
        by: the least by which it is beaten, in the metric's unit.
        withheld: why its scores may be too low (a search that ended at the edge, say): it is never left out then.
    """

    label: str
    beaten_by: str = ""
    by: float = 0.0
    withheld: tuple[Reason, ...] = ()

    @property
    def may_be_best(self) -> bool:
        """Whether it belongs to the confidence set."""
        return not self.beaten_by or bool(self.withheld)


def confidence_set(
    labels: Sequence[str],
    difference: Callable[[str, str], Estimate],
    *,
    sequential: bool = False,
    withheld: Mapping[str, tuple[Reason, ...]] | None = None,
) -> list[Candidate]:
    """Return every loss with what beats it; those that nothing beats hold the best with probability 0.95 at least.

    A loss is left out if any other is better beyond a one-sided bound at level 1 - 0.05 / (k - 1) for k losses. The
    best one is left out wrongly only if one of its k - 1 comparisons fails, so no further correction is needed
    (Hsu, Annals of Statistics 1984, with the bound of Bonferroni in place of Dunnett's).

    Args:
        labels: the losses.
        difference: improvement of the first over the second loss: positive where the first is better.
        sequential: bounds hold at every number of seeds at once.
        withheld: reasons why the scores of a loss may be too low.
    """
    alpha = 2 * ALPHA / max(1, len(labels) - 1)
    found = []
    for label in labels:
        name, most = "", 0.0
        for other in labels:
            if other == label:
                continue
            known = difference(other, label)
            low, _ = known.interval(known.scope, min(alpha, 1.0), sequential=sequential)
            if math.isfinite(low) and low > most:
                name, most = other, low
        found.append(Candidate(label, name, most, (withheld or {}).get(label, ())))
    return found
