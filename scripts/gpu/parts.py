"""python -m scripts.gpu.parts PART FOLDER DEVICE: one part of `scripts.gpu_check`, in a process of its own.

A part yields findings, and records of runs, which are written to FOLDER/parts/PART.jsonl as they come, so that a part
that runs out of time keeps what it has found. DEVICE is cuda, or cpu for a rehearsal, in which sizes are tiny.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scripts.gpu import machine, runs, speed
from scripts.gpu.finding import Finding, Left, Place, Record

PARTS: Mapping[str, Callable[[Place], Iterator[Finding | Record]]] = {
    "device": machine.device,
    "tests": machine.tests,
    "resume": runs.resume,
    "segmentation": runs.segmentation,
    "detection": runs.detection,
    "tasks": runs.tasks,
    "cifar10": runs.cifar10,
    "workers": runs.workers,
    "waiting": speed.waiting,
    "harness": speed.harness,
    "losses": speed.losses,
}


def carry_out(name: str, place: Place) -> int:
    """Carry out a part and write what it finds, line by line; return the exit code."""
    from harness.records import store

    path = place.folder / "parts" / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:

        def say(kind: str, content: Any) -> None:
            print(json.dumps(store.finite({kind: content})), file=file, flush=True)

        try:
            for found in PARTS[name](place):
                if isinstance(found, Finding):
                    say("finding", asdict(found) | {"held": found.held})
                else:
                    say("record", store.flat(found))
        except Left as reason:
            say("left", str(reason))
        except Exception as error:
            say("error", f"{type(error).__name__}: {str(error)[:500]}")
            raise
    return 0


if __name__ == "__main__":
    sys.exit(carry_out(sys.argv[1], Place(sys.argv[3], Path(sys.argv[2]))))
