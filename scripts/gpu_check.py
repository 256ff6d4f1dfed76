"""python -m scripts.gpu_check: what only a GPU can show, in eight minutes, as one folder that can be published.

Each part runs in a process of its own: one that fails or runs out of time is recorded, keeps what it has found, and the
rest goes on. It writes summary.md, summary.json, findings.csv, runs.csv (the records of its runs) and what its parts
write (default: results/gpu_check), and the same as one archive beside it. Nothing is tracked and nothing is downloaded;
docs/gpu.md says what a machine must have.

Exit code: 0 all parts were carried out, or left for a reason that is named; 1 one failed or ran out of time; 2 the
request makes no sense; 130 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import importlib.util
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness import hardware
from harness.errors import UsageError
from harness.paths import RESULTS, ROOT
from harness.text import count, joined

SHARES = {
    "device": (15, "The machine"),
    "tests": (60, "Tests that need a GPU"),
    "resume": (40, "A run that is killed, and resumed"),
    "segmentation": (25, "A run of segmentation"),
    "detection": (35, "A run of detection"),
    "tasks": (40, "Every task for an epoch"),
    "cifar10": (120, "ResNet-18 on CIFAR-10"),
    "workers": (30, "Several workers on one device"),
    "waiting": (25, "What the device waits for"),
    "harness": (40, "What the harness costs"),
    "losses": (50, "Time and memory of losses"),
}
"""The parts (`scripts.gpu.parts`), in order, with a share of the time each and a title."""
NEEDED = {
    "antlr4": "antlr4-python3-runtime",
    "hydra": "hydra-core",
    "omegaconf": "omegaconf",
    "pandas": "pandas",
    "pydantic": "pydantic",
    "pytest": "pytest",
    "rich": "rich",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "timm": "timm",
    "torch": "torch",
    "torchvision": "torchvision",
}
"""What the parts import that this Python may lack, and how it is called by those who install it."""
MARK = "summary.json"
"""A folder that holds this file is one that an earlier check has written."""


@dataclass
class Outcome:
    """How a part ended.

    Attributes:
        part: its name.
        status: done, left (it cannot be carried out here), failed, or timeout.
        seconds: that it took.
        limit: seconds that it was given.
        why: the reason, where it is not done.
        findings: what it found, as `scripts.gpu.finding.Finding` has it, with ``held``.
        records: of its runs, flat.
    """

    part: str
    status: str
    seconds: float
    limit: float
    why: str = ""
    findings: list[dict[str, Any]] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.gpu_check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=8.0, help="time for all parts together (default: 8)")
    parser.add_argument("--only", nargs="+", choices=list(SHARES), metavar="PART", help=f"of {', '.join(SHARES)}")
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu_check", help="folder of results")
    parser.add_argument("--wheels", type=Path, help="folder of wheels of packages that this Python lacks")
    parser.add_argument("--rehearse", action="store_true", help="every part on the CPU, at tiny sizes")
    given = parser.parse_args(arguments)
    try:
        return _check(given)
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2


def _check(given: argparse.Namespace) -> int:
    """Carry out the parts that are asked for, in order, and write what they find.

    Raises:
        UsageError: there is no GPU, something is missing, or the folder holds other things.
    """
    if not given.minutes > 0:
        raise UsageError(f"--minutes {given.minutes:g} leaves no time for anything: give a number above 0.")
    if not given.rehearse and hardware.device_type("auto") == "cpu":
        raise UsageError(
            "this check needs a GPU that PyTorch can use, and finds none here: give it on a machine that has one, or "
            "add --rehearse to go through its parts on the CPU."
        )
    parts = [part for part in SHARES if part in (given.only or SHARES)]
    with tempfile.TemporaryDirectory() as scratch:
        environment = _environment(Path(scratch), given.wheels)
        folder = _emptied(given.out.absolute())
        outcomes: list[Outcome] = []
        about = {
            "rehearsal": given.rehearse,
            "minutes": given.minutes,
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write(folder, about, outcomes)
        try:
            for part, limit in limits(parts, 60 * given.minutes):
                outcomes.append(carry_out(part, folder, environment, limit(), rehearse=given.rehearse))
                write(folder, about, outcomes)
                print(line_of(outcomes[-1]), flush=True)
        except KeyboardInterrupt:
            print("Interrupted: what was found until now is written.", file=sys.stderr)
            return 130
        finally:
            archive = packed(folder)
            print(f"{os.path.relpath(folder / 'summary.md')}, and all of it in {os.path.relpath(archive)}")
    return 1 if any(outcome.status in ("failed", "timeout") for outcome in outcomes) else 0


def limits(parts: Sequence[str], seconds: float) -> Iterable[tuple[str, Any]]:
    """Yield every part with a function that returns the seconds it may take, asked when it begins.

    The time is shared out by `SHARES`; what earlier parts have not used is there for the later ones.
    """
    began, total, until = time.monotonic(), sum(SHARES[part][0] for part in parts), 0.0
    for part in parts:
        until += seconds * SHARES[part][0] / total
        yield part, lambda until=until: max(0.0, began + until - time.monotonic())


def _environment(scratch: Path, wheels: Path | None) -> dict[str, str]:
    """Return the environment of the parts, with packages from wheels and one GPU.

    Raises:
        UsageError: a package is missing, or what the wheels hold cannot be imported.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "LOSSBENCH_RESULTS": str(scratch / "results")}
    known = shutil.which("nvidia-smi") or "CUDA_VISIBLE_DEVICES" in environment
    # several workers are to share one card, not to have one each
    environment["CUDA_VISIBLE_DEVICES"] = next(iter(hardware.gpus() if known else ()), "0")
    if wheels is not None:
        site = str(unpacked(wheels, scratch / "site"))
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [site, environment.get("PYTHONPATH")]))
        if problem := _imports(environment):
            raise UsageError(
                f"--wheels {wheels}: with them Python {platform.python_version()} cannot import what is needed "
                f"({problem}): are any missing, or made for another Python (docs/gpu.md)?"
            )
    elif missing := [name for module, name in NEEDED.items() if importlib.util.find_spec(module) is None]:
        raise UsageError(
            f"this Python lacks {joined(missing)}: install {'it' if len(missing) == 1 else 'them'}, or put the wheels "
            "into a folder and add --wheels FOLDER (docs/gpu.md)."
        )
    return environment


def unpacked(wheels: Path, target: Path) -> Path:
    """Unpack the wheels of a folder into ``target``, from where they can be imported, and return it.

    Raises:
        UsageError: there are none, or one is damaged.
    """
    files = sorted(wheels.glob("*.whl"))
    if not files:
        raise UsageError(f"--wheels {wheels}: this folder has no wheels (*.whl).")
    for file in files:
        try:
            with zipfile.ZipFile(file) as archive:
                archive.extractall(target)
        except (OSError, zipfile.BadZipFile) as error:
            raise UsageError(f"--wheels {wheels}: {file.name} cannot be unpacked ({error}): fetch it again.") from error
    return target


def _imports(environment: Mapping[str, str]) -> str:
    """Return why what parts need cannot be imported, in a line; empty if it can."""
    code = f"import {', '.join(NEEDED)}"
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    return (ended.stderr.strip().splitlines() or ["no reason is given"])[-1] if ended.returncode else ""


def _emptied(folder: Path) -> Path:
    """Return a folder that is there and empty; results of an earlier check in it are removed.

    Raises:
        UsageError: it holds something else.
    """
    if folder.exists():
        if not folder.is_dir() or (any(folder.iterdir()) and not (folder / MARK).is_file()):
            raise UsageError(f"--out {folder} holds something else than results of this check: name another folder.")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder


def carry_out(
    part: str, folder: Path, environment: Mapping[str, str], limit: float, *, rehearse: bool = False
) -> Outcome:
    """Carry out a part in a process of its own, for ``limit`` seconds at most; return how it ended.

    Args:
        part: its name.
        folder: takes its files, what it prints among them.
        environment: of the process.
        limit: seconds after which it is ended, with everything that it has started.
        rehearse: whether it runs on the CPU.
    """
    log = folder / "logs" / f"{part}.txt"
    log.parent.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "scripts.gpu.parts", part, str(folder), "cpu" if rehearse else "cuda"]
    started, late = time.monotonic(), False
    with log.open("w") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            late = True
        finally:
            _end(process)
    found = read(folder / "parts" / f"{part}.jsonl")
    outcome = Outcome(part, "done", time.monotonic() - started, limit)
    outcome.findings = [entry["finding"] for entry in found if "finding" in entry]
    outcome.records = [entry["record"] for entry in found if "record" in entry]
    said = {kind: entry[kind] for entry in found for kind in ("left", "error") if kind in entry}
    if late:
        outcome.status, outcome.why = "timeout", f"its time of {limit:.0f} s was over"
    elif "left" in said:
        outcome.status, outcome.why = "left", said["left"]
    elif "error" in said or process.returncode:
        outcome.status = "failed"
        outcome.why = said.get("error", f"its process ended with exit code {process.returncode}")
    outcome.why = anonymous(outcome.why)
    for path in [log, *folder.glob("*.xml")]:
        path.write_text(anonymous(path.read_text(errors="replace")))
    shutil.rmtree(folder / "parts", ignore_errors=True)
    return outcome


def _end(process: subprocess.Popen) -> None:
    """End a process with its group; its workers see that it is gone, and leave."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def read(path: Path) -> list[dict[str, Any]]:
    """Return what a part has written; a line that is not whole is left out."""
    found = []
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            found.append(json.loads(line))
        except ValueError:  # it was killed while it wrote
            continue
    return found


def anonymous(text: str) -> str:
    """Return a text without the places of this machine, so that it can be published."""
    places = {
        str(ROOT): ".",
        os.environ.get("LOSSBENCH_DATA", ""): "$LOSSBENCH_DATA",
        sys.prefix: "PYTHON",
        sys.base_prefix: "PYTHON",
        tempfile.gettempdir(): "$TMPDIR",
        str(Path.home()): "~",
    }
    for place in sorted(filter(lambda place: len(place) > 1, places), key=len, reverse=True):
        text = text.replace(place, places[place])
    return text


# ---------------------------------------------------------------- what is written


def write(folder: Path, about: Mapping[str, Any], outcomes: Sequence[Outcome]) -> None:
    """Write the summary as JSON and Markdown, and tables of all findings and runs."""
    content = {**about, "parts": [asdict(outcome) for outcome in outcomes]}
    for part in content["parts"]:
        part.pop("records")
    (folder / MARK).write_text(json.dumps(content, indent=1) + "\n")
    (folder / "summary.md").write_text(page(about, outcomes))
    rows = [{"part": outcome.part, **finding} for outcome in outcomes for finding in outcome.findings]
    _table(folder / "findings.csv", rows)
    _table(folder / "runs.csv", [{"part": o.part, **record} for o in outcomes for record in o.records])


def _table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    if columns:
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, columns)
            table.writeheader()
            table.writerows({name: anonymous(str(value)) for name, value in row.items()} for row in rows)


def page(about: Mapping[str, Any], outcomes: Sequence[Outcome]) -> str:
    """Return the summary as Markdown: how each part ended, then what it found."""
    known = {finding["what"]: finding["value"] for outcome in outcomes for finding in outcome.findings}
    machine = known.get("card") or known.get("processor") or "a machine that was not looked at"
    title = "A rehearsal of the check on a GPU" if about["rehearsal"] else f"lossbench on {machine}"
    lines = [f"# {title}", ""]
    if about["rehearsal"]:
        lines += [f"On {machine}, at tiny sizes: its numbers say nothing of a GPU.", ""]
    lines += [f"Started {about['started']}, with {about['minutes']:g} minutes for all parts.", ""]
    lines += ["| part | ended | seconds | goals met |", "|---|---|---|---|"]
    for outcome in outcomes:
        asked = [finding["held"] for finding in outcome.findings if finding["held"] is not None]
        met = f"{sum(asked)} of {len(asked)}" if asked else ""
        ended = f"{outcome.status}: {outcome.why}" if outcome.why else outcome.status
        title = SHARES[outcome.part][1]
        lines.append(f"| {title} (`{outcome.part}`) | {_cell(ended)} | {outcome.seconds:.0f} | {met} |")
    for outcome in outcomes:
        if outcome.findings:
            lines += ["", f"## {SHARES[outcome.part][1]}", "", "| what | value | goal |", "|---|---|---|"]
            lines += [
                f"| {_cell(finding['what'])} | {_cell(shown(finding))} | {_cell(goal(finding))} |"
                for finding in outcome.findings
            ]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return anonymous(text).replace("|", "\\|").replace("\n", " ")


def shown(finding: Mapping[str, Any]) -> str:
    """Return the value of a finding as people read it; none where it is not a number.

    >>> shown({"value": 0.123456, "unit": "s"}), shown({"value": None, "unit": ""}), shown({"value": 9984, "unit": ""})
    ('0.1235 s', 'not a number', '9984')
    """
    value = finding["value"]
    number = f"{value:.4g}" if isinstance(value, float) else "not a number" if value is None else str(value)
    return f"{number} {finding['unit']}".strip()


def goal(finding: Mapping[str, Any]) -> str:
    """Return the goal of a finding, and whether it was met.

    >>> goal({"goal": ">= 0.94", "held": False})
    '>= 0.94: missed'
    """
    return f"{finding['goal']}: {'met' if finding['held'] else 'missed'}" if finding["goal"] else ""


def line_of(outcome: Outcome) -> str:
    """Return how a part ended in a line, with the goals that it missed."""
    missed = [finding["what"] for finding in outcome.findings if finding["held"] is False]
    text = f"{outcome.part:13} {outcome.status:8} {outcome.seconds:5.0f} s  {outcome.why}"
    return text.rstrip() + (f"  ({count(len(missed), 'goal')} missed: {'; '.join(missed[:3])})" if missed else "")


def packed(folder: Path) -> Path:
    """Return an archive of a folder, written beside it."""
    archive = folder.with_name(f"{folder.name}.tar.gz")
    with tarfile.open(archive, "w:gz") as file:
        file.add(folder, arcname=folder.name)
    return archive


if __name__ == "__main__":
    sys.exit(main())
