"""What the code of components did, so that evidence outlives edits that change nothing.

A journal lists, for every component and its settings, which syntax trees had which behaviour and identity:

    results/behaviours.jsonl             what ran here
    results/measured/behaviours.jsonl    committed evidence

1. Planning a run looks for its tree. A known one has its identity; nothing else is done.
2. An unknown tree of a component that never ran, or whose behaviour is not kept, is an identity of its own.
3. An unknown tree of a component that ran before is tried out (only now is torch imported): if its fingerprint agrees
   with an earlier one, both are one; else it is new, and its runs are repeated.
4. A run that is carried out adds trees that have no fingerprint yet, and keeps them in its record too.

Losses, models and data sets have fingerprints (`harness.fingerprints`). Trainers, tasks, optimizers and what stresses
or shifts data have none: their trees alone decide, so an edit of theirs repeats runs, unless published runs that use it
were confirmed to give what they gave before (`harness.studies.confirm`): then the journal gives the new tree the
identity of the published one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import journal
from harness.paths import MEASURED, RESULTS

NAME = "behaviours.jsonl"
FINGERPRINTED = ("loss", "model", "dataset")
TOLERANCE = 1e-6
"""How far numbers of one behaviour may differ, relative to the largest of their group."""
Fingerprint = Mapping[str, Any]
"""Groups of numbers, and texts, by name."""


@dataclass(frozen=True)
class Part:
    """The code of one component of a run.

    Attributes:
        component: such as ``loss``.
        config: its settings; those of a data set with the digest of its files as ``content``.
        spec: their hash.
        tree: digest of its syntax tree.
        identity: of the first tree that behaved like it.
    """

    component: str
    config: Mapping[str, Any]
    spec: str
    tree: str
    identity: str


class Behaviours:
    """Trees, fingerprints and identities of components.

    Args:
        results: what ran here is kept in this folder.
    """

    def __init__(self, results: Path = RESULTS) -> None:
        self.path = results / NAME
        self._known: dict[tuple[str, str], dict[str, tuple[str, Fingerprint | None]]] | None = None

    @property
    def known(self) -> dict[tuple[str, str], dict[str, tuple[str, Fingerprint | None]]]:
        """Identity and fingerprint by tree, by component and hash of its settings."""
        if self._known is None:
            self._known = {}
            for path in dict.fromkeys((MEASURED / NAME, self.path.parent / "measured" / NAME, self.path)):
                for entry in journal.entries(path):
                    trees = self._known.setdefault((str(entry.get("component")), str(entry.get("spec"))), {})
                    trees[str(entry.get("tree"))] = (str(entry.get("identity")), _mark(entry.get("fingerprint")))
        return self._known

    def identity(self, component: str, config: Mapping[str, Any], spec: str, tree: str, data: Mapping[str, Any]) -> str:
        """Return what identifies the code of a component: its tree, or that of an earlier one that does the same.

        Args:
            component: such as ``loss``.
            config: its settings.
            spec: their hash.
            tree: digest of its syntax tree.
            data: ``root`` of all data sets, and whether to ``download`` them.
        """
        trees = self.known.get((component, spec), {})
        if tree in trees:
            return trees[tree][0]
        earlier = [(identity, mark) for identity, mark in trees.values() if mark]
        if not earlier:
            return tree
        from harness import fingerprints

        found = fingerprints.of(component, config, data)
        identity = next((name for name, mark in earlier if found and agree(found, mark)), tree)
        self._add(Part(component, config, spec, tree, identity), found)
        return identity

    def observe(self, part: Part, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return the entry of a component that is about to run; what has no fingerprint yet is tried out and kept."""
        if part.component not in FINGERPRINTED:
            return _entry(part, None)
        known = self.known.get((part.component, part.spec), {}).get(part.tree)
        if known is not None and known[1]:
            return _entry(part, known[1])
        from harness import fingerprints

        found = fingerprints.of(part.component, part.config, data)
        if found:
            self._add(part, found)
        return _entry(part, found)

    def _add(self, part: Part, fingerprint: Fingerprint | None) -> None:
        self.known.setdefault((part.component, part.spec), {})[part.tree] = (part.identity, fingerprint)
        journal.append(self.path, _entry(part, fingerprint))


def _mark(fingerprint: Any) -> Fingerprint | None:
    """Return the fingerprint of an entry, None if it has none or it is damaged."""
    known = isinstance(fingerprint, dict) and all(
        isinstance(group, str)
        or (isinstance(group, list) and all(isinstance(value, int | float | None) for value in group))
        for group in fingerprint.values()
    )
    return fingerprint if known else None


def _entry(part: Part, fingerprint: Fingerprint | None) -> dict[str, Any]:
    """Return an entry of the journal, as records keep it too."""
    known = {name: value for name, value in vars(part).items() if name != "config"}
    return known if fingerprint is None else {**known, "fingerprint": fingerprint}


def agree(one: Fingerprint, other: Fingerprint) -> bool:
    """Return whether two fingerprints show one behaviour: texts are equal, and numbers of a group to `TOLERANCE` of
    the largest among them.

    >>> agree({"value": [1.0, 2.0]}, {"value": [1.0, 2.0 + 1e-9]}), agree({"value": [1.0]}, {"value": [1.1]})
    (True, False)
    """
    if one.keys() != other.keys():
        return False
    for name, values in one.items():
        others = other[name]
        if isinstance(values, str) or isinstance(others, str):
            if values != others:
                return False
            continue
        if len(values) != len(others):
            return False
        finite = [abs(value) for value in (*values, *others) if value is not None]
        scale = max(finite, default=0.0)
        for a, b in zip(values, others, strict=True):
            if (a is None) != (b is None) or (a is not None and abs(a - b) > TOLERANCE * scale):
                return False
    return True
