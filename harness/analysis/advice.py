"""What the verdicts of a study advise: in which cells which loss to use, and which to avoid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from harness.analysis.cells import Analysis, Cell

Kind = Literal["better", "kept", "silent"]


@dataclass(frozen=True)
class Advice:
    """One piece of advice, the same for several cells.

    Attributes:
        kind: ``better``: ``use`` is shown to be better than the baseline; ``kept``: nothing is, so ``use`` is the
            baseline; ``silent``: every verdict is withheld or missing, and ``use`` is empty.
        use: label of the loss to use.
        cells: where.
        also: further losses that are shown to be better than the baseline in all of these cells, and may be the best.
    """

    kind: Kind
    use: str
    cells: tuple[Cell, ...]
    also: tuple[str, ...] = ()


def advice(a: Analysis) -> tuple[Advice, ...]:
    """Return what to use where: as few losses as cover the cells, then where the baseline stays, then the rest."""
    better = {cell: _better(a, cell) for cell in a.cells}
    left, found = [cell for cell in a.cells if better[cell]], []
    while left:
        use = max(
            dict.fromkeys(label for cell in left for label in better[cell]),
            key=lambda label: (sum(label in better[cell] for cell in left), gain(a, label, left)),
        )
        cells = tuple(cell for cell in left if use in better[cell])
        left = [cell for cell in left if cell not in cells]
        also = [label for label in a.challengers if label != use and all(label in better[cell] for cell in cells)]
        also.sort(key=lambda label: -gain(a, label, cells))
        found.append(Advice("better", use, cells, tuple(also)))
    rest = [cell for cell in a.cells if not better[cell]]
    kept = tuple(cell for cell in rest if any(verdict not in ("", "withheld") for verdict in _verdicts(a, cell)))
    silent = tuple(cell for cell in rest if cell not in kept)
    found += [Advice("kept", a.baseline, kept)] if kept else []
    found += [Advice("silent", "", silent)] if silent else []
    return tuple(found)


def to_avoid(a: Analysis) -> tuple[str, ...]:
    """Return the losses that are shown to be worse than the baseline somewhere and better nowhere, the worst first."""
    worse: dict[str, float] = {}
    for label in a.challengers:
        verdicts = {cell: c for cell in a.cells if (c := a.comparisons.get((cell, label)))}
        cells = [cell for cell, c in verdicts.items() if c.verdict == "worse"]
        if cells and not any(c.verdict == "better" for c in verdicts.values()):
            worse[label] = min(gain(a, label, [cell]) for cell in cells)
    return tuple(sorted(worse, key=lambda label: worse[label]))


def contenders(a: Analysis, most: int = 6) -> tuple[str, ...]:
    """Return the few losses worth considering: those advised, the baseline, then those that may be as good.

    A loss may be as good if it is worse nowhere and withheld nowhere. The others of the confidence set come by their
    mean gain; at most ``most`` in all.
    """
    pieces = advice(a)
    first = [label for piece in pieces for label in (piece.use, *piece.also) if label]
    rest = [label for label in a.challengers if _open(a, label)]
    ordered = sorted(rest, key=lambda label: -gain(a, label, a.cells))
    leading = list(dict.fromkeys(first))[: most - 1]
    known = [a.baseline] if any((cell, a.baseline) in a.outcomes for cell in a.cells) else []
    return tuple(dict.fromkeys([*leading, *known, *ordered]))[:most]


def gain(a: Analysis, label: str, cells: Sequence[Cell]) -> float:
    """Return by how much a loss is better than the baseline, its mean over ``cells``; -inf where it was not compared.

    In the metric's own unit; positive is better whatever the direction of the metric.
    """
    compared = [c for cell in cells if (c := a.comparisons.get((cell, label))) and c.n]
    sign = 1 if a.metric.higher_is_better else -1
    return sign * sum(c.difference for c in compared) / len(compared) if compared else -math.inf


def _better(a: Analysis, cell: Cell) -> set[str]:
    """Return the losses shown to be better than the baseline in a cell: those of them that may be the best, if any."""
    found = {label for label in a.challengers if _verdict(a, cell, label) == "better"}
    best = {each.label for each in a.best[cell] if each.may_be_best}
    return found & best or found


def _open(a: Analysis, label: str) -> bool:
    verdicts = [verdict for cell in a.cells if (verdict := _verdict(a, cell, label))]
    return bool(verdicts) and all(verdict in ("better", "equivalent", "not decidable") for verdict in verdicts)


def _verdicts(a: Analysis, cell: Cell) -> list[str]:
    return [_verdict(a, cell, label) for label in a.challengers]


def _verdict(a: Analysis, cell: Cell, label: str) -> str:
    found = a.comparisons.get((cell, label))
    return found.verdict if found else ""
