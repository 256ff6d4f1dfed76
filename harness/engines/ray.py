"""The Ray engine: warm workers on the nodes of a Ray cluster.

An actor for each worker is placed by Ray where there are CPUs, or a share of a GPU. It owns one worker process of the
local engine and passes on what that says, so that a run is isolated, timed out and stopped as it is there. The actor
itself runs nobody's code: one that is gone was lost with its node, and its run goes to another worker. A worker
process whose actor is gone reads end of file and leaves, whatever has become of its node.

The nodes must share the results folder and have the same checkout and PyTorch; each worker is asked before its first
job.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import hardware
from harness.engines.engine import Event
from harness.engines.pool import LOOK_SECONDS, STOP_SECONDS, Pool, Worker, size_of
from harness.engines.worker import checkout
from harness.errors import UsageError
from harness.records.store import write_text
from harness.text import count, visible
from harness.training.job import Job

GRACE_SECONDS = 30.0
"""How much later than the local engine on its node the driver ends a silent run: together with the actor."""
LATE_SECONDS, SAY_SECONDS = 30.0, 60.0
"""After how long it is said that a worker has not started, and how often while none has."""
PASSED_ON = ("LOSSBENCH_", "TORCH_HOME", "HF_")
"""Beginnings of the names of environment variables that workers get from the driver."""
STORE_BYTES = 80_000_000
"""Memory of the object store of a cluster of this machine alone: jobs and events are small."""
LOST = "its node or its process in the Ray cluster is gone"


@dataclass
class _Actor(Worker):
    actor: Any = None
    heard_by: Any = None  # what the next word comes by: that it is ready, or the events of its job
    since: float = 0.0
    ready: bool = False


class RayEngine(Pool[_Actor]):
    """Worker processes on the nodes of a Ray cluster; use as a context manager.

    Args:
        device: ``cpu`` (a worker takes ``threads`` CPUs of a node) or ``cuda`` (a share of a GPU).
        threads: CPU threads per worker.
        workers: number of workers; None: as many as there is room for in the cluster now.
        per_device: workers that share one GPU.
        retries: how often a job is tried again whose worker died; losses of nodes do not count.
        timeout: see `LocalEngine`.
        address: of a cluster (HOST:PORT); ``auto``: that of this machine; None: a new one of this machine alone.

    Raises:
        UsageError: Ray is not installed, there is no such cluster, or it has no room for any worker.
    """

    _grace = GRACE_SECONDS

    def __init__(
        self,
        device: str,
        threads: int = 1,
        workers: int | None = None,
        per_device: int = 1,
        retries: int = 1,
        timeout: float | None = None,
        address: str | None = None,
    ) -> None:
        self.ray = _imported()
        self.own = _connect(self.ray, address)
        self.room = _room(self.ray.nodes(), device, threads, per_device)
        if not self.room:
            self._leave()
            needed = f"{threads} CPUs (threads)" if device == "cpu" else "a GPU"
            raise UsageError(f"engine=ray: no node of the cluster has {needed} for a worker.")
        super().__init__(size_of(workers, per_device, self.room), retries, timeout)
        share = {"num_cpus": threads} if device == "cpu" else {"num_cpus": 0, "num_gpus": _share(per_device)}
        self.make = _actor_class(self.ray).options(scheduling_strategy="SPREAD", **share)
        self.setup = (device, threads, os.getcwd(), list(sys.path), _environment(), checkout())
        self.probe = (Path(), "")
        self.late, self.said_at = 0, 0.0
        if self.size > self.room:
            print(f"engine.workers={self.size}: the cluster has room for {self.room}; the others wait", flush=True)

    def run(self, jobs: Sequence[Job]) -> Iterator[Event]:
        """Carry out ``jobs`` as every engine does.

        Raises:
            UsageError: a node does not share the results folder, or has another checkout or PyTorch.
        """
        if jobs and not self.probe[1]:
            token = secrets.token_hex(8)
            self.probe = Path(jobs[0].folder).parent / f".shared.{token}.part", token
            write_text(*self.probe)
        yield from super().run(jobs)

    def _start(self, index: int) -> _Actor:
        worker = _Actor(index, actor=self.make.remote(*self.setup), since=time.monotonic())
        return self._asked(worker)

    def _asked(self, worker: _Actor) -> _Actor:
        """Ask a worker whether its node can be used; it answers when it has started."""
        path, token = self.probe
        worker.heard_by = worker.actor.problem.remote(str(path), token)
        return worker

    def _send(self, worker: _Actor, job: Job) -> bool:
        worker.heard_by = worker.actor.run.options(num_returns="streaming").remote(job, self.silences.limit(job))
        return True

    def _heard(self, seconds: float) -> Iterator[Event]:
        speaking = {worker.heard_by: worker for worker in self.workers if worker.heard_by is not None}
        if not speaking:
            time.sleep(min(seconds, LOOK_SECONDS))
            return
        if self.ray.wait(list(speaking), num_returns=1, timeout=seconds, fetch_local=False)[0]:
            ready = self.ray.wait(list(speaking), num_returns=len(speaking), timeout=0, fetch_local=False)[0]
            for worker in [speaking[each] for each in ready]:
                yield from self._listen(worker) if worker.ready else self._greet(worker)
        self._say_waiting()

    def _greet(self, worker: _Actor) -> Iterator[Event]:
        """Take a worker that has started, unless something is wrong with its node."""
        errors = self.ray.exceptions
        try:
            problem = self.ray.get(worker.heard_by)
        except errors.RayActorError as error:
            if getattr(error, "actor_init_failed", False):
                raise UsageError(f"engine=ray: a worker could not start: {_last_line(error)}") from error
            self._replace(worker)
            return
        except errors.RayError as error:
            raise UsageError(f"engine=ray: a worker could not start: {_last_line(error)}") from error
        if problem and not self.probe[0].exists():  # another sweep has cleared it away, as what a killed one has left
            write_text(*self.probe)
            self._asked(worker)
            return
        if problem:
            raise UsageError(f"engine=ray: {problem}")
        worker.ready, worker.heard_by = True, None
        yield from ()

    def _listen(self, worker: _Actor) -> Iterator[Event]:
        """Yield the next event of a worker's job; one that is lost is replaced."""
        job = worker.job
        try:
            kind, content = self.ray.get(next(worker.heard_by))
        except (StopIteration, self.ray.exceptions.RayError) as error:
            self._replace(worker)
            if job is not None:
                gone = isinstance(error, StopIteration | self.ray.exceptions.RayActorError)
                yield Event("died", job, worker.index, {"why": LOST if gone else _last_line(error), "lost": gone})
            return
        worker.hears()
        event = self._said(worker, kind, content)
        if worker.job is None:
            worker.heard_by = None
        yield event

    def _replace(self, worker: _Actor) -> None:
        with contextlib.suppress(Exception):  # it may be gone
            self.ray.kill(worker.actor, no_restart=True)
        self.workers[worker.index] = self._start(worker.index)

    def _say_waiting(self) -> None:
        """Say how many workers have not started, whenever that changes, and again and again while none works."""
        now = time.monotonic()
        late = sum(not worker.ready and now - worker.since > LATE_SECONDS for worker in self.workers)
        again = late == len(self.workers) and now - self.said_at > SAY_SECONDS
        if late and (late != self.late or again):
            self.said_at = now
            print(f"{late} of {count(self.size, 'worker')} wait for a place in the Ray cluster", flush=True)
        self.late = late

    def stop(self) -> None:
        """End all workers, and the cluster if it was this sweep's own."""
        with contextlib.suppress(Exception):  # actors may be gone
            stopped = [worker.actor.stop.remote() for worker in self.workers if worker.ready]
            if stopped:
                self.ray.wait(stopped, num_returns=len(stopped), timeout=STOP_SECONDS + 2 * LOOK_SECONDS)
        for worker in self.workers:
            with contextlib.suppress(Exception):
                self.ray.kill(worker.actor, no_restart=True)
        self.workers = []
        if self.probe[1]:
            self.probe[0].unlink(missing_ok=True)
        self._leave()

    def _leave(self) -> None:
        if self.own:
            self.ray.shutdown()
            self.own = False


def _imported() -> Any:
    """Return Ray, which takes SIGTERM for itself where it is imported and is given it no further than that."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # of a cluster of our own; else whatever runs beside goes first
    with _own_signals():
        try:
            import ray
        except ImportError as error:
            raise UsageError(
                "engine=ray needs Ray, which is not installed: pip install --group ray, in the checkout."
            ) from error
    return ray


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _connect(ray: Any, address: str | None) -> bool:
    """Connect to a cluster, or start one of this machine alone; return whether we did and have to leave it.

    Raises:
        UsageError: there is no such cluster.
    """
    if ray.is_initialized():
        return False
    quiet = {"logging_level": logging.ERROR, "log_to_driver": True, "configure_logging": False}
    alone = {"num_cpus": hardware.cores(), "include_dashboard": False, "object_store_memory": STORE_BYTES}
    if address and "://" in address:
        raise UsageError(f"engine.address={address}: give HOST:PORT, and start the sweep on a node of the cluster.")
    with _own_signals():
        try:
            ray.init(address=address or "local", **quiet, **({} if address else alone))
        except Exception as error:  # Ray raises that, too, where a machine is too busy to start
            raise UsageError(
                f"engine.address={address or 'null'}: no Ray cluster answers ({_last_line(error)}); start one with "
                "`ray start --head` on its first node and `ray start --address=HOST:PORT` on the others."
            ) from error
    return True


def _room(nodes: Sequence[Mapping[str, Any]], device: str, threads: int, per_device: int) -> int:
    """Return how many workers fit on the nodes of a cluster that are alive.

    >>> nodes = [{"Alive": True, "Resources": {"CPU": 7.0, "GPU": 2.0}}, {"Alive": False, "Resources": {"CPU": 64.0}}]
    >>> _room(nodes, "cpu", 2, 1), _room(nodes, "cuda", 2, 4)
    (3, 8)
    """
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    if device == "cuda":
        return sum(int(resources.get("GPU", 0)) * per_device for resources in alive)
    return sum(int(resources.get("CPU", 0)) // threads for resources in alive)


def _share(per_device: int) -> float:
    """Return a worker's share of a GPU, as finely as Ray divides one.

    >>> _share(1), _share(2), _share(3)
    (1.0, 0.5, 0.3333)
    """
    return math.floor(1e4 / per_device) / 1e4


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}


def _last_line(error: BaseException) -> str:
    """Return the last line of what an error of Ray says: the first are about actors and processes."""
    return visible((str(error).strip().splitlines() or [type(error).__name__])[-1].strip()[:300])


def _actor_class(ray: Any) -> Any:
    """Return the class of actors. It is sent as a whole, so that a node without the checkout can say what it lacks."""

    class LossbenchWorker:
        """Owns one worker process of the local engine."""

        def __init__(
            self,
            device: str,
            threads: int,
            folder: str,
            paths: list[str],
            environment: dict[str, str],
            checkout: tuple[str, str],
        ) -> None:
            import os
            import sys
            import threading

            os.environ.update(environment)
            if device == "cpu":
                os.environ["CUDA_VISIBLE_DEVICES"] = ""  # num_gpus=0 hides none
            if os.path.isdir(folder):
                os.chdir(folder)
            sys.path[:0] = [path for path in paths if path not in sys.path]
            vars(sys.modules["__main__"]).pop("__file__", None)  # else worker processes would import Ray's own
            self.checkout, self.stopping, self.busy = checkout, threading.Event(), threading.Lock()
            from harness.engines.local import LocalEngine

            self.engine = LocalEngine(device, threads, workers=1, retries=0)

        def problem(self, path: str, token: str) -> str | None:
            """Return why this node cannot be used, in a sentence, or None."""
            from harness.engines.worker import unfit

            return unfit(path, token, self.checkout)

        def run(self, job: Job, limit: float) -> Iterator[tuple[str, dict[str, Any]]]:
            """Carry out a job that may be silent for ``limit`` seconds; yield kind and content of its events."""
            with self.busy:
                self.engine.silences.timeout = limit
                for event in self.engine.run([job]):
                    if self.stopping.is_set():
                        break
                    if event.kind not in ("started", "waiting"):
                        yield event.kind, dict(event.content)

        @ray.method(concurrency_group="control")
        def stop(self) -> None:
            """End the worker process, after it has written a checkpoint."""
            self.stopping.set()
            with self.busy:
                self.engine.stop()

    return ray.remote(concurrency_groups={"control": 1})(LossbenchWorker)
