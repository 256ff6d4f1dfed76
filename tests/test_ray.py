"""engine=ray on a real cluster of two nodes on one machine, one of them killed in mid-run."""

import json
import sys
import time
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from harness.engines import ray as engine
from harness.engines import worker
from harness.engines.local import LocalEngine
from harness.errors import UsageError
from harness.records import store
from harness.studies import sweep
from tests.ray_cluster import two_nodes

linux = pytest.mark.skipif(sys.platform != "linux", reason="kills by process groups of Linux")
SLOW = """
import os, time
from pathlib import Path
from losses.loss import about
from losses.probability import cross_entropy

meeting, met = Path({meeting!r}), False

@about(name="slow", family="control", kind="class_logits", link="softmax", paper="made up", evidence="H")
def slow(logits, target):
    global met
    (meeting / str(os.getpid())).touch()
    end = time.monotonic() + 240
    while not met and time.monotonic() < end:
        met = len(list(meeting.iterdir())) > 1
        time.sleep(0.02)
    time.sleep(0.02)
    return cross_entropy(logits, target)
"""
"""A run of two seconds, which goes on when another has begun."""
NUMBERS = ("status", "test", "valid", "weights", "selected_epoch")


@pytest.fixture
def cluster():
    with two_nodes() as found:
        yield found


class Watched:
    """An engine whose events are kept; ``then`` is called with each."""

    def __init__(self, pool, then):
        self.pool, self.then, self.size, self.events = pool, then, pool.size, []

    def run(self, jobs):
        for event in self.pool.run(jobs):
            self.events.append(event)
            self.then(event)
            yield event


@pytest.fixture
def meeting(tmp_path):
    (tmp_path / "meeting").mkdir()
    return tmp_path / "meeting"


@pytest.fixture
def jobs(spec, job, module, meeting):
    """Return a function that makes jobs of runs, which need a module of the user's."""
    module("slow_losses", SLOW.format(meeting=str(meeting)))
    small = ("dataset.train_size=256", "dataset.valid_size=64", "dataset.test_size=64", "trainer.epochs=12")
    asked = spec(*small, "loss._target_=slow_losses.slow")

    def make(results, count):
        keys = [f"{number:016}" for number in range(count)]
        folders = {key: str(store.run_folder(key, results)) for key in keys}
        return [
            job(
                asked,
                seed,
                key=key,
                folder=folders[key],
                checkpoint_seconds=0.1,
                choices={"model": "m", "dataset": "d"},
            )
            for seed, key in enumerate(keys)
        ]

    return make


def numbers(asked):
    """Return what decides: the scores and weights of every run, and its history but for times and memory."""
    found = {}
    for each in asked:
        folder = Path(each.folder)
        record = json.loads((folder / "record.json").read_text())
        history = pd.read_csv(folder / "history.csv")[["epoch", "step", "train.loss", "valid.top1"]]
        found[each.key] = [record.get(name) for name in NUMBERS], history.to_csv()
    return found


@linux
def test_a_node_that_is_killed_loses_nothing_and_numbers_are_the_local_engines(cluster, jobs, meeting, tmp_path):
    here, there = tmp_path / "local", tmp_path / "ray"
    (meeting / "another").touch()
    with LocalEngine("cpu", workers=1) as pool:
        assert sweep._watch(pool, jobs(here, 5), here) == []
    for path in meeting.iterdir():
        path.unlink()

    def kill(event):
        if event.kind == "epoch" and cluster.whole:  # both workers have met, so that the other is in mid-run too
            cluster.kill()

    asked = jobs(there, 5)
    with engine.RayEngine("cpu", address=cluster.address) as pool:
        assert pool.size == 2
        watched = Watched(pool, kill)
        assert sweep._watch(watched, asked, there) == []
        assert not cluster.whole
        assert numbers(asked) == numbers(jobs(here, 5))
        lost = {event.job.key for event in watched.events if event.kind == "died"}
        assert len(lost) == 1, "a node with one worker was killed"
        trained = Counter((event.job.key, event.content["epoch"]) for event in watched.events if event.kind == "epoch")
        assert {key for (key, _), times in trained.items() if times > 1} <= lost, "what was not lost is repeated"
        (more,) = jobs(tmp_path / "stopped", 1)
        for event in pool.run([more]):
            if event.kind == "epoch":
                break
        began = time.monotonic()
        pool.stop()
        assert time.monotonic() - began < 30
        assert (tmp_path / "stopped" / "runs" / more.key / "checkpoint.pt").exists()
        assert not (tmp_path / "stopped" / "runs" / more.key / "lease.json").exists()


def test_a_cluster_that_is_not_there_ends_in_one_sentence():
    with pytest.raises(UsageError, match=r"engine\.address=ray://head:10001: give HOST:PORT"):
        engine.RayEngine("cpu", address="ray://head:10001")


def test_where_ray_is_not_installed_a_sentence_says_how(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match="pip install --group ray"):
        engine.RayEngine("cpu")


def test_a_machine_that_shares_nothing_or_has_other_code_is_refused(tmp_path):
    (tmp_path / "probe").write_text("token")
    version, code = worker.checkout()
    assert worker.unfit(str(tmp_path / "probe"), "token", (version, code)) is None
    assert "does not share" in worker.unfit(str(tmp_path / "other"), "token", (version, code))
    assert "does not share" in worker.unfit(str(tmp_path / "probe"), "of another", (version, code))
    assert "PyTorch" in worker.unfit(str(tmp_path / "probe"), "token", ("0.0", code))
    assert "other code" in worker.unfit(str(tmp_path / "probe"), "token", (version, "0"))
