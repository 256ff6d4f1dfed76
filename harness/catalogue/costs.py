"""The measured cost of losses, beside the statements of the comprehensive review about it."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import pandas as pd

from harness import paths, records
from harness.paths import RESULTS

FOLDERS = (RESULTS / "bench", paths.ROOT / "results" / "measured")
ASPECTS = {
    "time": ("copies", "time of forward and backward, in copies of the data"),
    "operations": ("operations", "tensor operations of forward and backward"),
    "gradients": ("not_finite", "share of gradients that are not finite under stress"),
}
"""Aspect of the review's section 6 -> the measured column that stands for it (more is worse), and its name."""


@functools.cache
def measured() -> pd.DataFrame:
    """Return the measurements of ``python -m scripts.bench_losses`` here, or the published ones, one row per loss.

    Columns: loss, size, eager_ms, compiled_ms, copies (time as a multiple of a copy of the data), extra_memory (bytes
    beyond the gradient, as a multiple of the data), operations, finite (share of gradients under stress), not_finite.
    """
    for folder in FOLDERS:
        if (folder / "loss_costs.csv").exists():
            found = pd.read_csv(folder / "loss_costs.csv")
            return found.assign(not_finite=1 - found["finite"])
    return pd.DataFrame(columns=["loss"])


@functools.cache
def gradient_norms() -> pd.DataFrame:
    """Return the norms of gradients over the epochs of the published study of all losses, one row per loss.

    Columns: loss, norm (median over epochs and seeds), spread (ninth decile / first decile).
    """
    published = FOLDERS[1] / "losses.csv"
    if not published.exists():
        return pd.DataFrame(columns=["loss", "norm", "spread"])
    study = records.load_published(published)
    runs = study.runs[study.runs["role"] == "run"]
    norms = study.history.merge(runs[["key", "label"]], on="key").groupby("label")["grad_norm"]
    spread = norms.quantile(0.9) / norms.quantile(0.1)
    return pd.DataFrame({"norm": norms.median(), "spread": spread}).rename_axis("loss").reset_index()


@functools.cache
def statements() -> pd.DataFrame:
    """Return the review's statements: aspect, ``said`` (low or high cost) and loss, one row each."""
    frame = pd.read_csv(paths.ROOT / "results" / "published" / "review_costs.csv")
    return frame.rename(columns={"losses": "loss"}).drop_duplicates(["aspect", "loss"])


@dataclass(frozen=True)
class Agreement:
    """How often a loss that the review calls costly measured worse than one that it calls cheap; ties count half."""

    aspect: str
    share: float
    pairs: int

    def __str__(self) -> str:
        """Return the finding as a sentence."""
        name = ASPECTS[self.aspect][1]
        verdict = "agrees with" if self.share >= 0.75 else "contradicts" if self.share <= 0.25 else "hardly follows"
        return (
            f"{name.capitalize()}: of {self.pairs} pairs of a loss called costly and one called cheap, "
            f"the costly one measured worse in {self.share:.0%}; what was measured {verdict} the text."
        )


def agreements() -> list[Agreement]:
    """Return the agreement of the review's statements with the measurements, for every aspect that was measured."""
    found = []
    for aspect, (column, _) in ASPECTS.items():
        rows = ranked(aspect)
        if rows.empty:
            continue
        low, high = (rows[rows["said"] == word][column] for word in ("low", "high"))
        wins = [1.0 if b > a else 0.5 if b == a else 0.0 for a in low for b in high]
        if wins:
            found.append(Agreement(aspect, sum(wins) / len(wins), len(wins)))
    return found


def ranked(aspect: str) -> pd.DataFrame:
    """Return the losses that the review ranks by an aspect, with what was measured, cheapest first."""
    if measured().empty:
        return measured()
    joined = statements().query("aspect == @aspect").merge(measured(), on="loss")
    return joined.sort_values(ASPECTS[aspect][0], kind="stable")


def table() -> pd.DataFrame:
    """Return all that was measured of each loss's cost, cheapest first."""
    if measured().empty:
        return measured()
    return measured().merge(gradient_norms(), on="loss", how="left").sort_values("copies", kind="stable")
