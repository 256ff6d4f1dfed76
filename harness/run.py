"""python -m harness.run loss=focal model=vit_micro dataset=cifar10 seed=3

One run in this process. It writes the same record as the same run of a study, which then finds and reuses it.
Any setting of conf/run.yaml can be given; with -m Hydra's multirun (loss=focal,ngl) and launchers work.
Exit code: 0 finished (or finished before); 1 failed; 2 the request makes no sense; 130 interrupted.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig

from harness import schema
from harness.compose import (
    GROUPS,
    add_own_configs,
    alternatives,
    check_groups,
    check_others,
    chosen,
    compose_run,
    explain,
    for_hydra,
    paths,
    plain,
    with_model_called,
)
from harness.errors import UsageError
from harness.paths import CONF

if TYPE_CHECKING:
    from harness.training.job import Job

MULTIRUN = ("-m", "--multirun")


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out the command line; return the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if {"-h", "--help"} & set(given):
        print(__doc__)
        _print_options()
        return 0
    from hydra.errors import HydraException

    try:
        _check(given)
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come here instead of being printed with a traceback
    add_own_configs()
    sys.argv[1:] = for_hydra(given)
    statuses: list[str] = []

    @hydra.main(config_path=str(CONF), config_name="run", version_base="1.3")
    def one(config: DictConfig) -> str:
        from hydra.core.hydra_config import HydraConfig

        composed, of_hydra = {"shift": {}, **plain(config)}, HydraConfig.get()
        try:
            choices = chosen(of_hydra.runtime.choices, composed)
            check_groups(choices, composed)
            check_others(of_hydra.runtime.choices, composed)
            schema.refuse_without_effect(schema.without_effect(composed, paths(of_hydra.overrides.task)))
            if not statuses:
                _say_idle(paths(of_hydra.overrides.task))
            statuses.append(run(choices, composed))
        except UsageError as error:  # Hydra would add a message of its own
            print(error, file=sys.stderr)
            statuses.append("refused")
        except OSError as error:
            from harness.records import store

            if (problem := store.refusal(error)) is None:
                raise
            print(problem, file=sys.stderr)
            statuses.append("refused")
        return statuses[-1]

    try:
        one()
    except HydraException as error:
        print(explain(error, given), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted: the same command goes on from the last checkpoint.", file=sys.stderr)
        return 130
    return 2 if "refused" in statuses else 1 if {"failed", "timeout"} & set(statuses) else 0


def _check(given: Sequence[str]) -> None:
    """Raise a UsageError if an override cannot be read, or a value of a multirun is wrong."""
    overrides = [entry for entry in given if entry not in MULTIRUN]
    if any(entry.startswith("-") for entry in overrides):  # other flags are Hydra's own
        return
    for alternative in alternatives(overrides):
        if len(overrides) < len(given):
            schema.refuse_without_effect(schema.without_effect(compose_run(alternative).config, paths(alternative)))


def _say_idle(given: Set[str]) -> None:
    """Say which of the settings that were given only a sweep has a use for."""
    for path in sorted(given - {"engine.checkpoint_seconds"}):
        if path.startswith(("reuse", "tracking.", "engine.")):
            print(f"{path} has no effect on a single run.", file=sys.stderr)


def _print_options() -> None:
    from harness.compose import options

    for group in GROUPS:
        print(f"{group:<10}{', '.join(options(group))}")


def run(choices: dict[str, str], config: dict) -> str:
    """Carry out one composed run unless its record exists; print how it went and return its status."""
    from pathlib import Path

    from harness import address, records
    from harness.plan import Run, Setting
    from harness.studies import sweep

    data = config["data"]
    spec, addresses = address.spec_of(config), address.Addresses(Path(data["root"]), download=data["download"])
    key = addresses.keys(spec, [config["seed"]])[0]
    setting = Setting(with_model_called(choices, config), choices["loss"], {}, "run", spec, address.setting_hash(spec))
    job = sweep.job_of(Run(key, setting, config["seed"], config["seed"]), config, records.RESULTS, addresses)
    what = sweep.describe(job)
    record = records.read(key)
    for sentence in records.damaged:
        print(sentence, file=sys.stderr)
    if record is None or record["status"] in records.FAILED:
        print(f"{what}: run {key}", flush=True)
        record = _carry_out(job)
    if record["status"] in records.FAILED:
        print(f"{what}: failed: {record['error']}", file=sys.stderr)
    elif record["status"] == "diverged":
        print(f"{what}: diverged at step {record['diverged_step']} (last finite loss {record['last_finite_loss']})")
    else:
        shown = ", ".join(f"{name} {value:.4f}" for name, value in record["test"].items() if isinstance(value, float))
        print(f"{what}: test {shown}; {record['cost']['wall_s']:.1f} s; {os.path.relpath(job.folder)}")
    return record["status"]


def _carry_out(job: Job) -> dict:
    """Check and train ``job`` in this process and return its record."""
    os.environ |= {"OMP_WAIT_POLICY": "PASSIVE"}  # as the workers of a study have it
    import signal
    import time
    from pathlib import Path

    from harness import records
    from harness.records import lease, room
    from harness.training.job import ELSEWHERE, Stopped, carry_out, check

    room.check(records.RESULTS, 1)
    if problem := check(job, lambda note: print(note, flush=True)):
        raise UsageError(problem)
    interrupted: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: interrupted.append(number))

    def report(epoch: int, epochs: int, row: Mapping[str, Any]) -> None:
        scores = (name for name, value in row.items() if name.startswith("valid.") and isinstance(value, float))
        losses = (name for name in row if name.startswith("train.loss"))
        shown = [*losses, *itertools.islice(scores, 1)]  # the first metric of a task is its main one
        text = ", ".join(f"{name.replace('valid.', 'validation ')} {row[name]:.4f}" for name in shown)
        print(f"  epoch {epoch}/{epochs}: {text}", flush=True)

    try:
        ended = carry_out(job, lambda: bool(interrupted), report)
        while ended["status"] == ELSEWHERE:
            print(f"  {ended['owner']} trains this run: waiting for its record", flush=True)
            while not lease.free(Path(job.folder)):
                if interrupted:
                    raise Stopped
                time.sleep(0.2)
            ended = carry_out(job, lambda: bool(interrupted), report)
    except Stopped:
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGINT, before)
    if ended.get("no_room"):
        raise UsageError(ended["error"])
    record = records.read(job.key)
    assert record is not None
    return record


if __name__ == "__main__":
    sys.exit(main())
