"""Tasks that train with several losses, each in a seat of its own: which loss sits where, and how that is called.

A detector has a seat for the scores of classes and one for boxes. A label of a study names what its axes choose
(``giou``, or ``classes=quality_focal, boxes=giou``); the records name the loss of every seat.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import pandas as pd

from harness.compose import roles

Seated = Mapping[str, str]
"""By seat, the option of conf/loss that sits there."""


def seats_of(runs: pd.DataFrame) -> dict[str, Seated]:
    """Return by label which loss sits in each seat, in the task's order of them; nothing of labels without seats."""
    names = [str(name) for name in runs if name in roles()]
    if not names:
        return {}
    first = runs[["label", *names]].groupby("label", sort=False).first()
    found = {
        str(label): {
            name.partition(".")[2]: str(value) for name, value in zip(names, values, strict=True) if not pd.isna(value)
        }
        for label, *values in first.itertuples(name=None)
    }
    return {label: seated for label, seated in found.items() if len(seated) > 1}


def changed(seated: Seated, base: Seated) -> Seated:
    """Return the seats in which another loss sits than in the baseline's, with their losses.

    >>> changed({"classes": "binary_focal", "boxes": "iou"}, {"classes": "binary_focal", "boxes": "giou"})
    {'boxes': 'iou'}
    """
    return {seat: loss for seat, loss in seated.items() if base.get(seat) != loss}


def called(seated: Seated, base: Seated, varied: Sequence[str]) -> str:
    """Return how a combination of losses is called: by what distinguishes it from the baseline's, which is called by
    all of its losses.

    Args:
        seated: its losses, by option or as people call them.
        base: the baseline's in the same words.
        varied: the seats in which losses of the study differ; of a single one the name goes without saying.

    >>> base = {"classes": "binary_focal", "boxes": "giou"}
    >>> called({"classes": "binary_focal", "boxes": "iou"}, base, ["boxes"])
    'iou'
    >>> called({"classes": "ghm_c", "boxes": "giou"}, base, ["classes", "boxes"])
    'classes: ghm_c'
    >>> called(base, base, ["classes", "boxes"])
    'binary_focal + giou'
    """
    if len(varied) == 1:
        return seated[varied[0]]
    own = changed(seated, base)
    return " and ".join(f"{seat}: {loss}" for seat, loss in own.items()) or " + ".join(seated.values())


def settings(label: str, seats: Sequence[str]) -> str:
    """Return what a label says besides the losses of seats: settings that the study crosses.

    >>> settings("classes=ghm_c, boxes=giou bins=10", ["classes", "boxes"]), settings("giou", ["classes", "boxes"])
    ('bins=10', '')
    >>> settings("inner_iou ratio=0.8", ["classes", "boxes"])
    'ratio=0.8'
    """
    if not any(label.startswith(f"{seat}=") for seat in seats):
        return label.partition(" ")[2]
    return re.sub(rf"\b(?:{'|'.join(seats)})=[^\s,]+,?\s*", "", label)


def named(name: str, seated: Seated) -> Seated:
    """Return the losses of seats as people call them: the terms of the recorded name of their sum without weights,
    which are the task's; options where the terms do not match the seats.

    >>> named("0.04 Binary focal + 0.1 GIoU", {"classes": "binary_focal", "boxes": "giou"})
    {'classes': 'Binary focal', 'boxes': 'GIoU'}
    """
    terms = [re.sub(r"^[\d.e-]+ ", "", term) for term in re.split(r" \+ |; ", name)]
    return dict(zip(seated, terms, strict=True)) if len(terms) == len(seated) else seated
