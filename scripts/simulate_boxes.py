"""The simulation of box regression of the Distance-IoU paper (Zheng et al., AAAI 2020), for every loss of boxes.

``python -m scripts.simulate_boxes`` moves 1,715,000 boxes to their targets by gradient descent, 200 steps with each
loss, prints a table, and writes results/measured/box_simulation.csv (how far from their targets they end),
box_simulation_curves.csv.gz (after every step) and box_simulation_map.npz (for every point). docs/simulation.md
has the protocol and what was found. Three panels:

- true: the losses of this project, with their gradients;
- authors: the gradients that the authors' program works out by hand, and what becomes of them when one thing is mended;
- searched: learning rate, and the loss's own size, chosen by the mean error at 50 other points.

Every finished trial is kept in results/box_simulation/POINTS, and a second start goes on from there.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import io
import json
import shutil
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from harness.errors import UsageError
from harness.hardware import cpu_name
from harness.paths import MEASURED, RESULTS
from harness.records.store import whole, write_text
from scripts import box_regression
from scripts.authors_gradients import HAND, MENDED
from scripts.box_regression import CASES, POINTS, Outcome, Trial, points, simulate, summary

PANELS = ("true", "authors", "searched")
TRUE = (
    Trial("true", "iou", "iou"),
    Trial("true", "giou", "giou"),
    Trial("true", "diou", "diou"),
    Trial("true", "ciou", "ciou"),
    Trial("true", "eiou", "eiou"),
    Trial("true", "siou", "siou"),
    Trial("true", "mpdiou 640", "mpdiou"),
    Trial("true", "mpdiou 20", "mpdiou", {"width": 20.0, "height": 20.0}),
    Trial("true", "mpdiou 3", "mpdiou", {"width": 3.0, "height": 3.0}),
    Trial("true", "nwd 1", "nwd", {"size": 1.0}),
    Trial("true", "nwd 12.8", "nwd"),
    Trial("true", "alpha_iou", "alpha_iou"),
    Trial("true", "inner_iou", "inner_iou"),
    Trial("true", "focal_eiou", "focal_eiou"),
    Trial("true", "smooth_l1", "smooth_l1"),
    Trial("true", "mae", "absolute_error"),
    Trial("true", "mse", "squared_error"),
    Trial("true", "balanced_l1", "balanced_l1"),
    Trial("true", "ghm_r", "ghm_r"),
    Trial("true", "gwd", "gwd"),
    Trial("true", "gwd log1p", "gwd", {"distance": "log1p"}),
    Trial("true", "kld_box", "kld_box"),
    Trial("true", "iou log", "iou", {"form": "log"}),
    Trial("true", "iou squared", "iou", {"form": "squared"}),
    Trial("true", "ciou journal", "ciou", {"alpha_threshold": 0.5}),
    Trial("true", "focal_eiou attached", "focal_eiou", {"detach": False}),
    *(Trial("true", f"alpha_iou {kind}", "alpha_iou", {"kind": kind}) for kind in ("giou", "diou", "ciou")),
    *(
        Trial("true", f"inner_iou {kind}", "inner_iou", {"kind": kind})
        for kind in ("giou", "diou", "ciou", "eiou", "siou")
    ),
    Trial("true", "inner_iou 1.25", "inner_iou", {"ratio": 1.25}),
)
"""Every loss of boxes with its defaults and its other forms. PIoU is left out: it counts pixels, and these boxes have
the area of one."""
AUTHORS = tuple(
    Trial("authors", f"{name} {gradients}", name, gradients=gradients)
    for gradients in ("authors", *(f"authors {mended}" for mended in MENDED if mended), "doubled")
    for name in HAND
    if not (gradients.endswith("overlap") and name != "giou")
    and not (gradients.endswith("distance") and name in ("iou", "giou"))
)
"""The authors' gradients first, then with one thing mended where that changes them, then the true ones doubled."""
SIZES: Mapping[str, tuple[tuple[str, ...], tuple[float, ...]]] = {
    "mpdiou": (("width", "height"), (0.625, 1.25, 2.5, 5, 10, 20, 40, 80, 160, 320, 640)),
    "nwd": (("size",), (0.25, 0.5, 1, 2, 4, 8, 12.8)),
    "alpha_iou": (("alpha",), (0.25, 0.5, 1, 2, 3, 4, 6)),
    "inner_iou": (("ratio",), (0.5, 0.75, 0.9, 1.1, 1.25, 1.5, 2, 3, 5, 8)),
    "focal_eiou": (("gamma",), (0.125, 0.25, 0.5, 1, 2)),
    "siou": (("theta",), (1, 2, 3, 4, 5, 6)),
    "smooth_l1": (("beta",), (0.01, 0.03, 0.1, 0.3, 1, 3)),
    "ghm_r": (("mu",), (0.005, 0.02, 0.1, 0.5, 2)),
    "gwd": (("tau",), (1, 2, 3, 5)),
    "kld_box": (("tau",), (1, 2, 3, 5)),
}
"""Loss -> its own size, and the values that the search may take; the default is among them, or the nearest is taken."""
SEARCHED = (
    "iou", "giou", "diou", "ciou", "eiou", "siou", "mpdiou", "nwd", "alpha_iou", "inner_iou", "focal_eiou", "smooth_l1",
    "absolute_error", "squared_error", "balanced_l1", "ghm_r", "gwd", "kld_box",
)  # fmt: skip
RATES = tuple(round(10 ** (power / 4), 4) for power in range(-12, 9))
"""Learning rates of the search: four to a power of ten, from .001 to 100; .1 is among them."""
SEARCH_POINTS, SEARCH_EVERY = 50, 5
"""The search sees every fifth case of 50 points that are not those of the simulation: 3,430 cases."""


@dataclass(frozen=True)
class Chosen:
    """What a search chose: the trial, how many it tried, and which of its choices lie at the end of their values."""

    trial: Trial
    tried: int
    at_edge: tuple[str, ...]


def search(loss: str) -> Chosen:
    """Return the learning rate and the size of a loss with the smallest mean error.

    All rates are tried at every second step with the default size; from the best one it climbs over neighbours in rate
    and size until none is better.
    """
    names, sizes = SIZES.get(loss, ((), (0.0,)))
    starts = points(SEARCH_POINTS, seed=1)

    def trial(rate: int, size: int) -> Trial:
        return Trial("searched", loss, loss, dict.fromkeys(names, sizes[size]), RATES[rate])

    @functools.cache
    def error(rate: int, size: int) -> float:
        return summary(simulate(trial(rate, size), starts, every=SEARCH_EVERY))["mean"] or 0.0

    first = _usual(loss, sizes)
    best = min(((rate, first) for rate in range(0, len(RATES), 2)), key=lambda at: error(*at))
    while True:
        around = [
            (rate, size)
            for rate in range(best[0] - 1, best[0] + 2)
            for size in range(best[1] - 1, best[1] + 2)
            if 0 <= rate < len(RATES) and 0 <= size < len(sizes)
        ]
        better = min([best, *around], key=lambda at: error(*at))
        if better == best:
            break
        best = better
    ends = [("rate", best[0], len(RATES)), *((name, best[1], len(sizes)) for name in names)]
    return Chosen(trial(*best), error.cache_info().currsize, tuple(name for name, at, n in ends if at in (0, n - 1)))


def _usual(loss: str, sizes: Sequence[float]) -> int:
    """Return the place of the size from which a search starts: what the targets, of side 1, suggest, or the default."""
    usual = {"mpdiou": 20, "nwd": 1, "alpha_iou": 3, "inner_iou": 0.75, "focal_eiou": 0.5, "siou": 4, "smooth_l1": 1}
    usual |= {"ghm_r": 0.02, "gwd": 2, "kld_box": 1}
    return sizes.index(usual[loss]) if loss in usual else 0


def trials(panels: Sequence[str]) -> list[Trial]:
    """Return the trials of some panels; those of ``searched`` have yet to get their rate and size."""
    known = {"true": TRUE, "authors": AUTHORS, "searched": tuple(Trial("searched", name, name) for name in SEARCHED)}
    return [each for panel in panels for each in known[panel]]


def part(folder: Path, trial: Trial) -> Path:
    """Return where a finished trial is kept."""
    return folder / f"{trial.panel}-{trial.label.replace(' ', '-')}.npz"


def carry_out(trial: Trial, folder: Path, number: int, compiled: bool) -> None:
    """Carry out a trial from so many points and keep what it found."""
    more: dict[str, Any] = {"tried": None, "at_edge": ""}
    asked = trial
    if trial.panel == "searched":
        chosen = search(trial.loss)
        trial, more = chosen.trial, {"tried": chosen.tried, "at_edge": " ".join(chosen.at_edge)}
        print(f"  chosen: learning rate {trial.rate:g} {dict(trial.settings) or ''} of {chosen.tried}", flush=True)
    outcome = simulate(trial, points(number), compiled=compiled)
    row = {**asdict(trial), "settings": json.dumps(dict(trial.settings)), **summary(outcome), **more}
    row |= {"compiled": compiled, "machine": cpu_name(), "torch": torch.__version__}
    with whole(part(folder, asked)) as file:
        np.savez_compressed(
            file,
            row=np.array(json.dumps(row)),
            asked=np.array(_asked(asked, number)),
            curves=outcome.curves,
            map=by_point(outcome),
        )


def by_point(outcome: Outcome) -> NDArray[np.float16]:
    """Return the mean final error of the 343 cases of every point (points,), as exact as a picture needs."""
    means = outcome.final.reshape(-1, CASES).astype(np.float64).mean(1)
    return np.minimum(means, 60000).astype(np.float16)


def _asked(trial: Trial, number: int) -> str:
    """Return what decides a trial's numbers but for the code, as text."""
    return json.dumps([asdict(trial), number, box_regression.STEPS, SIZES.get(trial.loss), RATES])


def kept(folder: Path, trial: Trial, number: int) -> dict[str, Any] | None:
    """Return what is kept of a finished trial; None if there is nothing, it is damaged, or other trials were asked."""
    try:
        with part(folder, trial).open("rb") as file, np.load(file) as found:
            if str(found["asked"]) != _asked(trial, number):
                return None
            return {"row": json.loads(str(found["row"])), "curves": found["curves"], "map": found["map"]}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def collect(folder: Path, number: int, out: Path) -> pd.DataFrame:
    """Write the table, the curves and the maps of all finished trials from so many points; return the table."""
    rows, curves, maps = [], [], {"points": points(number)}
    for trial in trials(PANELS):
        found = kept(folder, trial, number)
        if found is None:
            continue
        rows.append(found["row"])
        curve = pd.DataFrame(found["curves"], columns=["mean", "median", "p99"])
        curve.insert(0, "step", range(len(curve)))
        curve.insert(0, "label", trial.label)
        curve.insert(0, "panel", trial.panel)
        curves.append(curve)
        maps[f"{trial.panel} {trial.label}"] = found["map"]
    table = pd.DataFrame(rows)
    if rows:
        write_text(out, table.to_csv(index=False, float_format="%.6g"))
        text = pd.concat(curves).to_csv(index=False, float_format="%.4g")
        with whole(out.with_name(f"{out.stem}_curves.csv.gz")) as file:
            file.write(gzip.compress(text.encode(), mtime=0))
        memory = io.BytesIO()
        np.savez_compressed(memory, **maps)
        with whole(out.with_name(f"{out.stem}_map.npz")) as file:
            file.write(memory.getvalue())
    return table


def waiting(folder: Path, wanted: Sequence[Trial], number: int) -> Iterator[Trial]:
    """Yield the trials that are not kept, and say how far it is."""
    for place, trial in enumerate(wanted, 1):
        name = f"[{place}/{len(wanted)}] {trial.panel}: {trial.label}"
        if kept(folder, trial, number) is not None:
            print(f"{name}: kept from an earlier start", flush=True)
            continue
        yield trial
        found = kept(folder, trial, number)
        if found is not None:
            row = found["row"]
            figures = ", ".join(f"{key} {row[key]:.4g}" for key in ("mean", "median", "p99"))
            print(f"{name}: {figures} in {row['seconds']:.0f} s", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate, print and write; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="of the 5,000 points; below 1 give --out, too")
    parser.add_argument("--panel", nargs="+", choices=PANELS, default=PANELS, help="default: all")
    parser.add_argument("--loss", nargs="+", help="only trials of these losses")
    parser.add_argument("--out", type=Path, default=MEASURED / "box_simulation.csv", help="CSV to write")
    parser.add_argument("--again", action="store_true", help="carry out what is kept, too: after a change of a loss")
    parser.add_argument("--eager", action="store_true", help="without torch's compiler, five times slower")
    given = parser.parse_args(arguments)
    try:
        table = _simulate(given)
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    shown = ["panel", "label", "rate", "settings", "mean", "median", "p99", "unsolved", "half_after", "seconds"]
    print(table[shown].to_string(index=False, float_format=lambda value: f"{value:.4g}"))
    return 0


def _simulate(given: argparse.Namespace) -> pd.DataFrame:
    if not 0 < given.share <= 1:
        raise UsageError(f"--share {given.share:g} is no share: give a number above 0 and at most 1.")
    if given.share < 1 and given.out == MEASURED / "box_simulation.csv":
        raise UsageError(
            "--share below 1 would replace the figures of the whole simulation: name another file by --out."
        )
    wanted = trials(given.panel)
    if given.loss:
        known = sorted({each.loss for each in wanted})
        if unknown := [name for name in given.loss if name not in known]:
            raise UsageError(f"--loss {' '.join(unknown)}: no trial of that name; choose of {', '.join(known)}.")
        wanted = [each for each in wanted if each.loss in given.loss]
    number = max(1, round(POINTS * given.share))
    folder = RESULTS / "box_simulation" / str(number)
    # compiling takes longer than it saves for few cases, and needs a C++ compiler
    compiled = not given.eager and number >= POINTS // 10 and shutil.which("g++") is not None
    if given.again:
        for trial in wanted:
            part(folder, trial).unlink(missing_ok=True)
    for trial in waiting(folder, wanted, number):
        carry_out(trial, folder, number, compiled)
        collect(folder, number, given.out)
    return collect(folder, number, given.out)


if __name__ == "__main__":
    sys.exit(main())
