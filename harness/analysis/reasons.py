"""Why verdicts are withheld: reasons, each of a kind that says what mends it. More seeds mend none
of them, but for a negative control that is worse on average and has too few to show it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """A kind of obstacle.

    Attributes:
        what: what stands in the way.
        remedy: what mends it.
        heading: under which the ledger of claims counts it.
    """

    what: str
    remedy: str
    heading: str


class Reason(str):
    """A sentence that says why a verdict is withheld; compared and printed as its text.

    Attributes:
        kind: what kind of obstacle it names.
        whose: the loss whose runs it concerns; empty where it concerns the cell.
    """

    __slots__ = ("kind", "whose")
    kind: Kind
    whose: str

    def __new__(cls, text: str, kind: Kind, whose: str = "") -> Reason:
        """Return the sentence ``text``, which begins with ``whose`` it is if that is given."""
        made = super().__new__(cls, f"{whose}: {text}" if whose else text)
        made.kind, made.whose = kind, whose
        return made

    def of(self, loss: str) -> Reason:
        """Return the same reason as that of ``loss``; one that concerns the whole cell stays as it is."""
        return self if self.whose or self.kind is CONTROL else Reason(str(self), self.kind, loss)


_SEARCH = "a search at its edge, or tied"
_RUNS = "runs missing, or never made"
_SHORT = "training too short"
_COARSE = "a metric too coarse, or at an end of its range"
AGAIN = "run the study again"

EDGE = Kind("the search ended at the edge of the learning rates tried",
            "a search that grows further: search.most, or more factors", _SEARCH)  # fmt: skip
TIED = Kind("the search could not tell learning rates apart", "more search.seeds, more validation data", _SEARCH)
CONTENDING = Kind("the search could not rule out that another rate is better by more than the margin",
                  "more search.seeds, or rates closer to each other", _SEARCH)  # fmt: skip
ONE_SEARCH_SEED = Kind("the search had one seed, which cannot tell rates apart", "more search.seeds", _SEARCH)
NO_TRIALS = Kind("the trials of the search are not recorded", AGAIN, _SEARCH)
MISSING = Kind("runs are missing", AGAIN, _RUNS)
FAILED = Kind("runs failed", f"see Failures; {AGAIN}", _RUNS)
NONE = Kind("a loss has no runs here", AGAIN, _RUNS)
OLD = Kind("runs were made by older code", AGAIN, "runs made by older code")
NO_PLATEAU = Kind("training ended at its limit, before a plateau", "a greater limit: trainer.epochs", _SHORT)
RISING = Kind("validation still rose when training ended", "trainer.schedule=plateau, or more trainer.epochs", _SHORT)
FLOOR = Kind("the metric is at its floor in most runs of both sides", "another metric, or an easier setting", _COARSE)
CEILING = Kind("the metric is at its ceiling in most runs of both sides", "another metric, or harder data", _COARSE)
ALIKE = Kind("the metric does not tell runs apart", "another metric", _COARSE)
GRAIN = Kind("the margin is finer than one test item", "more test items, or a greater margin", _COARSE)
_POWER = "see Controls; one that is worse only on average needs more seeds in axes.seed"
CONTROL = Kind("a control failed in the cell", _POWER, "a failed control")
UNMEASURED = Kind("costs were not measured alike", "python -m scripts.bench_losses", "losses not measured alike")
