"""What all engines that give jobs to their workers share: queue, retries, losses, silence."""

import pytest

from harness import compose
from harness.engines import pool
from harness.engines.engine import engine_of
from harness.engines.local import LocalEngine
from harness.engines.pool import Pool, Worker, size_of
from harness.errors import UsageError
from scripts import bench_engines


class Script(Pool):
    """A pool whose workers say at once what the script has for each job, by seed: a list of kinds and contents."""

    def __init__(self, script, size=1, retries=1, timeout=None):
        super().__init__(size, retries, timeout)
        self.script, self.replaced, self.stopped = script, 0, False

    def _start(self, index):
        return Worker(index)

    def _send(self, worker, job):
        return True

    def _heard(self, seconds):
        for worker in [worker for worker in self.workers if worker.job]:
            if not (words := self.script[worker.job.seed]):
                continue
            kind, content = words.pop(0)
            worker.hears()
            yield self._said(worker, kind, content)

    def _replace(self, worker):
        self.replaced += 1
        self.workers[worker.index] = self._start(worker.index)

    def stop(self):
        self.stopped = True


DONE = ("finished", {"status": "done"})
DIED = ("died", {"why": "exit code -9"})
LOST = ("died", {"why": "its node is gone", "lost": True})


@pytest.fixture
def told(spec, job):
    """Return a function that gives seed, kind and whether it is tried again, of every event of a script's jobs."""
    known = spec()

    def run(script, **settings):
        with Script(script, **settings) as engine:
            jobs = [job(known, seed) for seed in script]
            found = [(event.job.seed, event.kind, event.content.get("again")) for event in engine.run(jobs)]
        assert engine.stopped
        return [each for each in found if each[1] not in ("started", "waiting")]

    return run


def test_a_job_whose_worker_died_is_tried_again_before_all_others(told):
    found = told({1: [DIED, DONE], 2: [DONE]})
    assert found == [(1, "died", True), (1, "finished", None), (2, "finished", None)]


def test_a_job_that_ends_every_worker_is_given_up(told):
    assert told({1: [DIED, DIED], 2: [DONE]}, retries=1) == [
        (1, "died", True),
        (1, "died", False),
        (2, "finished", None),
    ]
    assert told({1: [DIED]}, retries=0) == [(1, "died", False)]


def test_that_nodes_are_lost_is_no_failure_of_the_run_within_bounds(told):
    assert told({1: [LOST] * pool.LOSSES + [DIED, DONE]})[-1] == (1, "finished", None)
    assert told({1: [LOST] * (pool.LOSSES + 1)})[-1] == (1, "died", False)


def test_a_worker_that_is_silent_is_replaced_and_its_job_ended(told, monkeypatch):
    monkeypatch.setattr(pool, "LOOK_SECONDS", 0.0)
    assert told({1: [], 2: [DONE]}, timeout=0.01) == [(1, "timeout", None), (2, "finished", None)]


@pytest.mark.parametrize(("workers", "per_device"), [(0, 1), (None, 0)])
def test_no_workers_are_refused(workers, per_device):
    with pytest.raises(UsageError, match=r"engine\.workers"):
        size_of(workers, per_device, fitting=4)


def test_the_engine_is_the_one_that_the_settings_name():
    config = compose.compose_run(["device=cpu", "engine.workers=3", "engine.timeout=7"]).config
    engine = engine_of(config, "cpu")
    assert isinstance(engine, LocalEngine)
    assert (engine.size, engine.silences.timeout) == (3, 7)


def test_engines_are_measured_by_runs_that_only_wait():
    found = bench_engines.measured("local", runs=10, seconds=1, workers=5)
    assert found.ideal == 2
    assert found.ratio >= 1
    assert found.report > 0
