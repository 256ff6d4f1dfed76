"""What the ledger decides, as facts small enough to keep: one claim each, with the losses that it speaks of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.analysis.deciding import Decision
from harness.report.sections import claims as words


@dataclass(frozen=True)
class ClaimFacts:
    """A claim with its verdict.

    Attributes:
        id: its name, by which the ledger's page has an anchor.
        document, source: the publication, in short, and where it says so.
        says: what it says, in our words.
        verdict: supported, contradicted, depends on, not decidable, withheld, cannot be tested, or retired.
        shown: the verdict with what limits it (exploratory, reconstruction).
        effect: with its interval and unit; empty: nothing was measured.
        because: why the verdict is what it is; may be empty.
        study: whose records decide; may be empty.
        losses: options of conf/loss that are compared.
    """

    id: str
    document: str
    source: str
    says: str
    verdict: str
    shown: str
    effect: str
    because: str
    study: str
    losses: tuple[str, ...]


def facts(decisions: Sequence[Decision]) -> tuple[ClaimFacts, ...]:
    """Return the facts about every decision of the ledger."""
    return tuple(map(_facts, decisions))


def from_dict(content: Mapping[str, Any]) -> ClaimFacts:
    """Return the facts that were written as a JSON object."""
    return ClaimFacts(**{**content, "losses": tuple(content["losses"])})


def _facts(decision: Decision) -> ClaimFacts:
    claim = decision.claim
    named = [*_losses(claim.compare), *_losses(claim.against)]
    return ClaimFacts(
        id=claim.id,
        document=claim.short,
        source=claim.source,
        says=claim.says,
        verdict=decision.verdict,
        shown=words.verdict_text(decision),
        effect=words.effect(decision, unit=True) if decision.evidence.places else "",
        because=decision.because,
        study=claim.study,
        losses=tuple(dict.fromkeys(named)),
    )


def _losses(side: Mapping[str, Any]) -> list[str]:
    """Return the losses that one side of a claim names, without their settings."""
    given = side.get("loss", [])
    return [str(each).partition(" ")[0] for each in (given if isinstance(given, list) else [given])]
