"""python -m scripts.campaign_workers [NAME ...]: every misbehaving loss between runs of an honest one, in one worker.

Prints how each run ended, and whether the honest run that followed in the same place gave the same bits as before.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import address, compose
from harness.engines.local import LocalEngine
from harness.training.job import Job
from scripts import misbehaving

SHORT = ("dataset.train_size=256", "dataset.valid_size=64", "dataset.test_size=64", "trainer.epochs=4")
LIMIT_S = 3.0
"""After so much silence a loss that is known to hang is ended."""
PARTS = ("test", "valid", "selected_epoch", "weights")


@dataclass(frozen=True)
class Outcome:
    """What became of a misbehaving loss and of the honest run after it.

    Attributes:
        loss: its name.
        ended: done, diverged, failed, timeout or died.
        reason: why, where it is said.
        follower: the honest run's scores are the same to the last bit.
        replaced: why its worker was replaced; empty: it was put back.
    """

    loss: str
    ended: str
    reason: str
    follower: bool
    replaced: str


def outcomes(names: Sequence[str] = (), job: Callable[..., Job] | None = None) -> Iterator[Outcome]:
    """Yield what becomes of each misbehaving loss.

    Args:
        names: of the losses; by default all.
        job: makes a job from name, loss and folder; for tests.
    """
    with tempfile.TemporaryDirectory() as folder, LocalEngine("cpu", workers=1, retries=0) as pool:
        make = job or _job
        honest = _followed(pool, make("honest", "cross_entropy", Path(folder)))[1]
        for name in names or misbehaving.ALL:
            pool.silences.timeout = LIMIT_S if name in misbehaving.HANGING else None
            ended, reason, replaced = _ended(pool, make(name, name, Path(folder)))
            pool.silences.timeout = None
            status, scores = _followed(pool, make(f"after {name}", "cross_entropy", Path(folder)))
            yield Outcome(name, ended, reason, status == "done" and scores == honest, replaced)


def _job(name: str, loss: str, folder: Path) -> Job:
    target = [] if loss == "cross_entropy" else [f"loss._target_=scripts.misbehaving.{loss}"]
    spec = address.spec_of(compose.compose_run(["device=cpu", *SHORT, *target]).config)
    return Job(
        key=name, choices={}, label=name, role="run", spec=spec, seed=1, data={"root": "nowhere", "download": False},
        feed={"_target_": "harness.feeds.resident.Resident"}, folder=str(folder / name), checkpoint_seconds=1e9,
        environment={}, identity={},
    )  # fmt: skip


def _ended(pool: LocalEngine, job: Job) -> tuple[str, str, str]:
    for event in pool.run([job]):
        if event.kind == "finished":
            error = str(event.content.get("error", ""))
            return event.content["status"], error, event.content["leftover"]
        if event.kind == "died":
            return "died", event.content["why"], "dead"
        if event.kind == "timeout":
            return "timeout", f"silent for {event.content['seconds']:.0f} s", "ended"
    raise AssertionError("a run ends")


def _followed(pool: LocalEngine, job: Job) -> tuple[str, Any]:
    """Return how an honest run ended, and its scores and losses."""
    status = _ended(pool, job)[0]
    record = Path(job.folder) / "record.json"
    if not record.exists():
        return status, None
    content = json.loads(record.read_text())
    history = (Path(job.folder) / "history.csv").read_text().splitlines()
    columns = [i for i, name in enumerate(history[0].split(",")) if "loss" in name or name.startswith("valid.")]
    losses = [[line.split(",")[i] for i in columns] for line in history[1:]]
    return status, ({name: content.get(name) for name in PARTS}, losses)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; return 1 if an honest run suffered, else 0."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    found = list(outcomes(given))
    print(f"{'loss':<30} {'ended':<9} {'next run':<10} worker")
    for each in found:
        after = "same bits" if each.follower else "SUFFERED"
        worker = "replaced" if each.replaced else "kept"
        print(f"{each.loss:<30} {each.ended:<9} {after:<10} {worker:<9} {each.reason[:60]}")
    suffered = [each.loss for each in found if not each.follower]
    print(f"\n{len(found)} misbehaving losses; {len(suffered)} harmed the run after them.")
    return 1 if suffered else 0


if __name__ == "__main__":
    sys.exit(main())
