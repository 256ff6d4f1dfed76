"""What an engine is: it carries out jobs on workers, wherever they are, and tells what happens as events.

Every engine (`local`, `ray`, `slurm`) promises the same. A job ends in exactly one event of `ENDS` that is not tried
again. A worker that is lost loses its run's time since the last checkpoint and nothing else: its job is tried again.
What a run does is not the engine's business: `harness.engines.worker` carries out every job, so that keys and records
are the same bits under every engine, and a study that was begun with one can be finished with another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from hydra.utils import get_class

from harness.training.job import Job

LEAST_SECONDS = 300.0
"""No run is ended for less silence than this, unless `engine.timeout` says so."""
FIRST_SECONDS = 3600.0
"""How long a run may be silent while none has finished that it could be measured by, and a check of one."""
SILENCES = 20
"""A run is ended after so many times the longest silence of any run that finished."""
ENDS = ("finished", "checked", "died", "timeout")
"""Kinds of events that end a job, ``died`` unless it is tried ``again``."""
OF_EVERY_ENGINE = ("_target_", "checkpoint_seconds")
"""Settings of an engine that are not its constructor's: the second is the jobs'."""


@dataclass(frozen=True)
class Event:
    """What a worker reports, or what becomes of it: ``content`` depends on ``kind``.

    Attributes:
        kind: started; epoch (``epoch``, ``epochs`` and the history row); finished (what `carry_out` returns, and
            ``leftover``); checked (``problem`` and ``notes``); died (``why``, and whether it is tried ``again``);
            timeout (the ``seconds`` of silence after which it was ended, the ``epoch`` it had reached); waiting
            (nothing happened; the ``seconds`` that the job runs already and the ``epoch`` it has reached).
        job: the job.
        worker: number of the worker, below the engine's ``size``.
        content: see ``kind``.
    """

    kind: str
    job: Job
    worker: int
    content: Mapping[str, Any] = field(default_factory=dict)


class Engine(Protocol):
    """Workers that stay warm from one `run` to the next; a context manager that ends them.

    It is built from the type of device (``cpu`` or ``cuda``), the CPU threads of a worker, and its own settings
    (conf/engine/), and raises a UsageError where these, or what it needs, are not there.
    """

    @property
    def size(self) -> int:
        """Return how many jobs are carried out at once, at most."""
        ...

    def run(self, jobs: Sequence[Job]) -> Iterator[Event]:
        """Carry out jobs, in the order of the queue, and yield what happens until all have ended.

        A caller that leaves before the end (an error, Ctrl-C) ends the engine by `stop`.
        """
        ...

    def stop(self) -> None:
        """End all workers: idle ones at once, busy ones after they wrote a checkpoint or after a few seconds."""
        ...

    def __enter__(self) -> Engine: ...

    def __exit__(self, *_: object) -> None: ...


class Silences:
    """How long a run may be silent, from how long those that finished were.

    Args:
        timeout: seconds; None: 20 times the longest silence of a finished run, 300 at least.
    """

    def __init__(self, timeout: float | None = None) -> None:
        self.timeout = timeout
        self.longest: float | None = None

    def finished(self, seconds: float) -> None:
        """Take the longest silence of a run that finished."""
        self.longest = max(self.longest or 0.0, seconds)

    def limit(self, job: Job) -> float:
        """Return the seconds of silence after which a job is ended."""
        if self.timeout is not None:
            return self.timeout
        if job.only_check or self.longest is None:
            return FIRST_SECONDS
        return max(LEAST_SECONDS, SILENCES * self.longest)


def engine_of(options: Mapping[str, Any], device: str) -> Engine:
    """Return the engine that ``options`` name, for runs on a type of device.

    Args:
        options: ``engine`` and ``threads`` as composed from conf/run.yaml.
        device: ``cpu`` or ``cuda``.

    Raises:
        UsageError: what the engine needs is not there.
    """
    settings = {name: value for name, value in options["engine"].items() if name not in OF_EVERY_ENGINE}
    return get_class(options["engine"]["_target_"])(device, options["threads"], **settings)
