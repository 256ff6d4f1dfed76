"""python -m scripts.campaign_files [files] [sweeps]

What happens to a study whose files are damaged, and when several sweeps carry it out at once; as tables of counts:

  files    each file of a study that was trained and published is truncated, emptied, filled with noise, or has one
           letter changed; then the study is carried out again, which ends with its report
  sweeps   one, two and four sweeps of one study begin at the same time, each with one worker

lost: runs without a record at the end. repeated: runs that were trained though their record was whole, or twice.
wrong: runs whose numbers differ from those of an undisturbed sweep. Exit code: 1 if any of them, or a traceback, was
found.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.paths import ROOT

STUDY = ("study=smoke", "name=tried", "tracking.enabled=false", "engine.workers=1")
HEAD = ("", "tried", "lost", "repeated", "wrong", "tracebacks", "seconds")
Counts = dict[str, int]


def _truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _garbled(content: bytes) -> bytes:
    return random.Random(len(content)).randbytes(len(content))


def _flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0x41]) + content[middle + 1 :]


DAMAGES: Mapping[str, Callable[[bytes], bytes]] = {
    "truncated": _truncated,
    "emptied": lambda content: b"",
    "garbled": _garbled,
    "one letter changed": _flipped,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out the campaign and print its tables; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.campaign_files", description=(__doc__ or "").split("\n\n")[1]
    )
    parser.add_argument("part", nargs="*", choices=["files", "sweeps"], default=["files", "sweeps"])
    parser.add_argument("--epochs", type=int, default=8, help="epochs of a run in the part sweeps (default: 8)")
    given = parser.parse_args(arguments)
    found: dict[str, Counts] = {}
    with tempfile.TemporaryDirectory() as folder:
        if "files" in given.part:
            found |= files(Path(folder) / "files")
        if "sweeps" in given.part:
            found |= sweeps(Path(folder) / "sweeps", given.epochs)
    widths = [max(map(len, found)), *(len(name) for name in HEAD[1:])]
    for row in (HEAD, *([name, *(str(counts[column]) for column in HEAD[1:])] for name, counts in found.items())):
        print(
            "  ".join(
                text.rjust(width) if i else text.ljust(width)
                for i, (text, width) in enumerate(zip(row, widths, strict=True))
            )
        )
    return int(any(counts[name] for counts in found.values() for name in HEAD[2:6]))


def _call(results: Path, *command: str, start: bool = False) -> Any:
    """Run a command of the harness on a results folder; return its exit code and all that it printed."""
    environment = os.environ | {"LOSSBENCH_RESULTS": str(results)}
    more: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen([sys.executable, "-m", *command], cwd=ROOT, env=environment, **more)
    if start:
        return process
    said, _ = process.communicate(timeout=600)
    return process.returncode, said


def numbers(results: Path) -> dict[str, Any]:
    """Return what finished runs scored, by key."""
    found = {}
    for path in results.glob("runs/*/record.json"):
        try:
            record = json.loads(path.read_bytes())
            found[path.parent.name] = (record["test"], record["valid"], record["selected_epoch"])
        except (ValueError, KeyError, TypeError):
            continue
    return found


def stamps(results: Path) -> dict[str, tuple[int, int]]:
    """Return what tells one writing of a record from the next, by key."""
    about = {path.parent.name: path.stat() for path in results.glob("runs/*/record.json")}
    return {key: (each.st_mtime_ns, each.st_ino) for key, each in about.items()}


# ---------------------------------------------------------------------- files


def files(folder: Path) -> dict[str, Counts]:
    """Return counts of every kind of damage, over all files of a study."""
    clean = folder / "clean"
    code, said = _call(clean, "harness", *STUDY)
    if code:
        raise SystemExit(said)
    _call(clean, "harness.records", "publish", "tried")
    expected, found = numbers(clean), {}
    targets = list(_targets(clean))
    for name, damage in DAMAGES.items():
        began = time.monotonic()
        counts: dict[str, int] = dict.fromkeys(HEAD[1:], 0)
        for target in targets:
            counts["tried"] += 1
            _one_file(clean, folder / "damaged", target, damage, expected, counts)
        counts["seconds"] = round(time.monotonic() - began)
        found[f"a file {name}"] = counts
        print(f"{name}: {counts}", file=sys.stderr, flush=True)
    return found


def _targets(clean: Path) -> Iterator[Path]:
    """Yield the files of one run, of the study, of its evidence, and the journals, relative to the results folder."""
    run = min(clean.glob("runs/*"))
    for where, pattern in ((run, "*"), (clean / "tried", "*.*"), (clean / "measured", "*"), (clean, "*.jsonl")):
        for path in sorted(where.glob(pattern)):
            if path.is_file():
                yield path.relative_to(clean)


def _one_file(
    clean: Path,
    results: Path,
    target: Path,
    damage: Callable[[bytes], bytes],
    expected: Mapping[str, Any],
    counts: Counts,
) -> None:
    """Damage one file of a copy, carry out the study again, and count what went wrong."""
    shutil.rmtree(results, ignore_errors=True)
    shutil.copytree(clean, results)
    path = results / target
    path.write_bytes(damage(path.read_bytes()))
    if target.name != "records.index":
        (results / "tried" / "records.index").unlink()  # it was made from files that were whole
    before = stamps(results)
    own = {target.parent.name} if target.name == "record.json" else set()
    _, said = _call(results, "harness", *STUDY)  # which ends with the report
    after, scored = stamps(results), numbers(results)
    counts["tracebacks"] += "Traceback (most recent call last)" in said
    counts["lost"] += len(expected.keys() - scored.keys())
    counts["repeated"] += sum(after.get(key) != stamp for key, stamp in before.items() if key not in own)
    counts["wrong"] += sum(scored[key] != expected[key] for key in expected.keys() & scored.keys())


# ---------------------------------------------------------------------- sweeps


def sweeps(folder: Path, epochs: int) -> dict[str, Counts]:
    """Return counts of one, two and four sweeps of one study that begin together."""
    found: dict[str, Counts] = {}
    command = ("harness", *STUDY, f"base.trainer.epochs={epochs}")
    expected: dict[str, Any] = {}
    for number in (1, 2, 4):
        results, began = folder / str(number), time.monotonic()
        running = [_call(results, *command, start=True) for _ in range(number)]
        written: dict[str, set[tuple[int, int]]] = {}
        while any(process.poll() is None for process in running):
            for key, stamp in stamps(results).items():
                written.setdefault(key, set()).add(stamp)
            time.sleep(0.02)
        seconds = round(time.monotonic() - began)
        said = "".join(process.communicate()[0] for process in running)
        scored = numbers(results)
        expected = expected or scored
        found[f"{number} sweep{'s' * (number > 1)} at once"] = {
            "tried": number,
            "lost": len(expected.keys() - scored.keys()) + sum(process.returncode != 0 for process in running),
            "repeated": sum(len(stamps) - 1 for stamps in written.values()),
            "wrong": sum(scored[key] != expected[key] for key in expected.keys() & scored.keys()),
            "tracebacks": said.count("Traceback (most recent call last)") + said.count("failed: "),
            "seconds": seconds,
        }
        print(
            f"{number} at once: {found[f'{number} sweep' + 's' * (number > 1) + ' at once']}",
            file=sys.stderr,
            flush=True,
        )
    return found


if __name__ == "__main__":
    sys.exit(main())
