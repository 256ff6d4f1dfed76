"""engine=slurm: its queue, its refusals, and a study on a cluster of two nodes, one of which vanishes."""

import json
import os
import signal
import sys
from collections import Counter, defaultdict
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest

from harness import compose, hardware
from harness.engines import slurm, slurm_worker
from harness.engines.engine import Event
from harness.engines.local import LocalEngine
from harness.engines.pool import LOSSES
from harness.engines.queue import Queue
from harness.engines.worker import checkout
from harness.errors import UsageError
from harness.records import lease
from harness.studies import sweep
from tests import slurm_cluster
from tests.conftest import lacks

EPOCHS = 20
SLOW = """
import time
from losses.loss import about
from losses.probability import cross_entropy

@about(name="Slow", family="probability", kind="class_logits", link="softmax", paper="none", evidence="H")
def slow(logits, target):
    time.sleep(0.05)
    return cross_entropy(logits, target)
"""
SMALL = ("dataset.train_size=256", "dataset.valid_size=64", "dataset.test_size=64")
TIMED = ("cost", "started", "finished", "digest")


@pytest.fixture(scope="module")
def cluster():
    if why := slurm_cluster.missing():
        lacks(why)
    if find_spec("submitit") is None:
        lacks("submitit is not installed")
    with slurm_cluster.cluster(nodes=2) as running:
        yield running


@pytest.fixture
def queue(tmp_path):
    made = Queue(tmp_path / "slurm" / "queue")
    made.make()
    return made


def without_times(folder):
    """Return record, history and items of a run, less what says how long it took."""
    record = json.loads((folder / "record.json").read_text())
    history = pd.read_csv(folder / "history.csv").drop(columns=["step_ms", "peak_memory_mb"])
    with np.load(folder / "items.npz") as items:
        return (
            {name: value for name, value in record.items() if name not in TIMED},
            history.to_csv(),
            {name: items[name].tobytes() for name in items},
        )


class Disturbed:
    """Carries out jobs on a cluster; in the middle of one its node vanishes, and in that of another time is over.

    Attributes:
        hit: the keys of both.
        started, epochs: by key, how often it was started, and its epochs as they were reported.
        ended: statuses by key.
        died: keys of those whose worker was lost.
    """

    def __init__(self, cluster, engine):
        self.cluster, self.engine = cluster, engine
        self.hit, self.died, self.ended = [], [], {}
        self.started, self.epochs = Counter(), defaultdict(list)

    def carry_out(self, jobs):
        for event in self.engine.run(jobs):
            key = event.job.key
            self.started[key] += event.kind == "started"
            if event.kind == "died":
                self.died.append(key)
            elif event.kind == "finished":
                self.ended[key] = event.content["status"]
            elif event.kind == "epoch":
                self.epochs[key].append(event.content["epoch"])
                if len(self.hit) < 2 and key not in self.hit and event.content["epoch"] < EPOCHS * 3 // 4:
                    self.hits(key)

    def hits(self, key):
        worker = self.engine.queue.taken().get(int(key))
        node = worker and self.cluster.nodes().get(task := worker.partition("-")[0])
        if node is None:  # it has ended meanwhile, or is on the node that has vanished
            return
        self.hit.append(key)
        if len(self.hit) == 1:
            self.cluster.kill(node)
        else:  # as Slurm does it, near the end of the time of a worker
            self.cluster.asked("scancel", "--batch", "--signal=USR2", task)


def test_a_node_that_vanishes_and_one_whose_time_is_over_lose_nothing(
    cluster, monkeypatch, tmp_path, spec, job, module
):
    """The records are those of the local engine, bit for bit, and nothing is done twice but what was lost."""
    monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
    monkeypatch.setattr(slurm, "LOOK_S", 0.1)
    monkeypatch.setattr(slurm, "ASK_S", 1.0)
    module("slow_loss", SLOW)
    what = spec("model=mlp", f"trainer.epochs={EPOCHS}", *SMALL, "loss._target_=slow_loss.slow")
    keys = [f"{seed:016}" for seed in (1, 2, 3)]

    def jobs(results):
        folders = {key: str(tmp_path / results / "runs" / key) for key in keys}
        return [job(what, int(key), key=key, folder=folders[key], checkpoint_seconds=0.0) for key in keys]

    with slurm.SlurmEngine("cpu", workers=2) as engine:
        study = Disturbed(cluster, engine)
        study.carry_out(jobs("slurm"))
    assert study.ended == dict.fromkeys(keys, "done")
    assert study.died == study.hit[:1]
    assert len(study.hit) == 2
    for key in keys:
        assert study.started[key] == 1 + (key in study.hit)
        told = study.epochs[key]
        assert told[-1] == EPOCHS
        assert told == sorted(told)
        assert len(told) <= EPOCHS + (key in study.died)  # the one of which there was no checkpoint yet
    assert not any((tmp_path / "slurm" / "slurm").iterdir())
    with LocalEngine("cpu", workers=1) as engine:
        assert [event.kind for event in engine.run(jobs("local"))].count("finished") == len(keys)
    for key in keys:
        found = [without_times(tmp_path / results / "runs" / key) for results in ("slurm", "local")]
        assert found[0] == found[1]


def test_a_job_is_taken_once_and_comes_back_when_its_worker_is_dead(queue, spec, job):
    made = [job(spec("model=mlp"), seed, folder=str(queue.folder / str(seed))) for seed in (1, 2)]
    for number, one in enumerate(made, 1):
        queue.put(number, one)
    queue.place("a").mkdir()
    with lease.held(queue.place("a")):
        assert queue.take("a") == (1, made[0])
        assert queue.take("b") == (2, made[1])
        assert queue.take("a") is None
        assert queue.taken() == {1: "a", 2: "b"}
        assert not queue.lost("a", made[0])
        assert queue.lost("b", made[1])
    assert queue.lost("a", made[0])
    with lease.held(queue.folder / "1"):  # the process that trains the run outlives the worker
        assert not queue.lost("a", made[0])
    queue.give_back(1, "a")
    queue.end(2, "b")
    assert queue.take("c") == (1, made[0])
    queue.give_back(1, "a")
    assert queue.taken() == {1: "c"}


class Engine:
    """Stands for the local engine of a worker: each run is over at once, or ``instead`` happens in its middle."""

    size, stopped, instead = 2, 0, None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        Engine.stopped += 1

    def run(self, jobs):
        for one in jobs:
            yield Event("started", one, 0)
            if Engine.instead:
                Engine.instead()
            yield Event("waiting", one, 0)
            yield Event("finished", one, 0, {"status": "done"})


@pytest.fixture
def worker(queue, monkeypatch, spec, job):
    """A worker, with three runs in its queue and no driver."""
    monkeypatch.setattr(slurm_worker, "LocalEngine", Engine)
    monkeypatch.setattr(Engine, "stopped", 0)
    before = signal.getsignal(signal.SIGTERM)
    for number in (1, 2, 3):
        queue.put(number, job(spec("model=mlp"), number, folder=str(queue.folder / str(number))))
    yield slurm_worker.Worker(str(queue.folder), {}, checkout())
    signal.signal(signal.SIGTERM, before)


def test_a_worker_whose_driver_is_gone_empties_the_queue_and_leaves(worker, queue):
    worker(0)
    assert [(said.number, said.kind) for said in queue.heard()] == [
        (number, kind) for number in (1, 2, 3) for kind in ("started", "finished")
    ]
    assert (queue.waiting(), queue.taken(), queue.workers(), Engine.stopped > 0) == (0, {}, 0, True)


def test_a_worker_gives_its_runs_back_when_slurm_takes_the_node(worker, queue, monkeypatch):
    monkeypatch.setattr(Engine, "instead", lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit):
        worker(0)
    assert (queue.waiting(), queue.taken(), Engine.stopped > 0) == (3, {}, True)


def test_a_worker_whose_time_is_over_gives_its_runs_back_and_can_be_started_again(worker, queue, monkeypatch):
    again = []

    def time_is_over():
        again.append(worker.checkpoint(0))
        raise SystemExit  # as submitit does when it has queued the task again

    monkeypatch.setattr(Engine, "instead", time_is_over)
    with pytest.raises(SystemExit):
        worker(0)
    assert queue.waiting() == 3
    monkeypatch.setattr(Engine, "instead", None)
    again[0].result()
    assert queue.waiting() == 0
    assert [said.number for said in queue.heard() if said.kind == "finished"] == [1, 2, 3]


def test_a_worker_of_another_checkout_trains_nothing_and_the_sweep_says_so(worker, queue, commands):
    worker.wanted = (worker.wanted[0], "other")
    worker(0)
    assert queue.waiting() == 3
    with pytest.raises(UsageError, match="has other code of lossbench"):
        list(slurm.SlurmEngine("cpu")._heard(queue, {}))


def test_a_worker_that_was_silent_is_not_heard_of_a_run_that_another_gets(queue, commands, spec, job):
    engine, left = slurm.SlurmEngine("cpu"), {1: job(spec("model=mlp"), folder=str(queue.folder / "1"))}
    queue.put(1, left[1])
    for name in ("a", "b"):
        queue.place(name).mkdir()
    queue.take("a")
    queue.say("a", 1, "started", {})
    assert [event.kind for event in engine._heard(queue, left)] == ["started"]
    assert [(event.kind, event.content["again"]) for event in engine._missed(queue, left)] == [("died", True)]
    queue.say("a", 1, "finished", {"status": "elsewhere"})
    assert list(engine._heard(queue, left)) == []
    queue.take("b")
    queue.say("b", 1, "started", {})
    queue.say("b", 1, "finished", {"status": "done"})
    assert [event.kind for event in engine._heard(queue, left)] == ["started", "finished"]
    assert (left, queue.taken(), list(engine._going_on(left))) == ({}, {}, [])


def test_a_run_that_costs_every_worker_its_life_is_given_up(queue, commands, spec, job):
    engine, left = slurm.SlurmEngine("cpu"), {1: job(spec("model=mlp"), folder=str(queue.folder / "1"))}
    queue.put(1, left[1])
    died = []
    while left:
        assert queue.take("a")
        died += [event.content["again"] for event in engine._missed(queue, left)]
    assert died == [True] * LOSSES + [False]
    assert (queue.waiting(), queue.taken()) == (0, {})


def test_events_are_heard_once_and_whole(queue):
    queue.place("a").mkdir()
    queue.say("a", 1, "epoch", {"epoch": 1, "epochs": 2, "valid.top1": np.float32(0.5)})
    assert [(said.number, said.kind, said.content["valid.top1"]) for said in queue.heard()] == [(1, "epoch", 0.5)]
    with (queue.place("a") / "events.jsonl").open("a") as file:
        file.write('{"number": 1, "kind": "fini')
        file.flush()
        assert list(queue.heard()) == []
        file.write('shed", "content": {"status": "done"}}\n')
    assert [said.kind for said in queue.heard()] == ["finished"]


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """A folder first on the PATH; ``commands(name, script)`` puts a command of Slurm there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def put(name, script):
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    for name in ("sbatch", "srun", "squeue", "scancel"):
        put(name, "exit 0")
    return put


def test_what_slurm_refuses_is_said_in_one_sentence(commands, tmp_path, spec, job):
    commands("sbatch", "echo 'sbatch: error: invalid partition specified: none' >&2; exit 1")
    given = job(spec("model=mlp"), folder=str(tmp_path / "runs" / "1"))
    with (
        pytest.raises(UsageError, match=r"Slurm takes no workers: .*invalid partition"),
        slurm.SlurmEngine("cpu", partition="none") as engine,
    ):
        list(engine.run([given]))
    assert not list((tmp_path / "slurm").iterdir())


def test_workers_that_end_before_they_begin_are_not_sent_for_ever(commands, tmp_path, spec, job, monkeypatch):
    monkeypatch.setattr(slurm, "ASK_S", 0.0)
    monkeypatch.setattr(slurm, "LOOK_S", 0.0)
    commands("sbatch", "echo Submitted batch job 7")
    given = job(spec("model=mlp"), folder=str(tmp_path / "runs" / "1"))
    with (
        pytest.raises(UsageError, match=r"end before they take a run .*its node may not see this folder"),
        slurm.SlurmEngine("cpu", workers=1) as engine,
    ):
        list(engine.run([given]))


def test_workers_are_counted_with_the_reasons_of_those_that_wait(commands, queue):
    commands("squeue", "exit 1")
    assert slurm._states(queue) is None
    commands("squeue", "printf 'RUNNING|None\\nPENDING|Priority\\nPENDING|Resources\\nCOMPLETING|None\\n'")
    assert slurm._in_words(slurm._states(queue)) == "1 worker running, 2 pending (Priority, Resources)"


def test_without_slurm_or_a_gpu_for_each_worker_it_says_so(commands, monkeypatch):
    with pytest.raises(UsageError, match=r"engine\.gpus=1 does not suit device=cpu"):
        slurm.SlurmEngine("cpu", gpus=1)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match="sbatch, squeue, scancel, srun cannot be found"):
        slurm.SlurmEngine("cpu")


@pytest.fixture
def looked_for_gpus(monkeypatch):
    monkeypatch.setattr(hardware, "_elsewhere", False)
    hardware.device_type.cache_clear()
    yield
    hardware.device_type.cache_clear()


def test_gpus_of_other_machines_are_believed_in(looked_for_gpus, monkeypatch):
    monkeypatch.setattr(hardware, "_torch_sees_cuda", lambda: False)
    for engine in ({"_target_": sweep.LOCAL}, {}):
        sweep.believe_in_gpus({"engine": engine})
        with pytest.raises(UsageError, match="no usable GPU on this machine"):
            hardware.device_type("cuda")
    sweep.believe_in_gpus({"engine": {"_target_": "harness.engines.slurm.SlurmEngine"}})
    assert hardware.device_type("cuda") == "cuda"
    assert hardware.device_type("auto") == "cpu"
    sweep.believe_in_gpus({"engine": {}})
    with pytest.raises(UsageError, match="no usable GPU on this machine"):
        hardware.device_type("cuda")


def test_any_option_of_sbatch_can_be_given():
    options = "engine.options={account: vision, mem: 8G, exclusive: true, nice: 10}"
    engine = compose.compose_run(["engine=slurm", options, "engine.per_device=2"]).config["engine"]
    assert engine["options"] == {"account": "vision", "mem": "8G", "exclusive": True, "nice": 10}


def test_without_submitit_it_says_what_to_install(commands, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UsageError, match=r"engine=slurm needs submitit: pip install"):
        slurm.SlurmEngine("cpu")


def test_what_a_dead_driver_has_left_is_let_go(commands, tmp_path, spec, job):
    commands("scancel", f'echo "$@" >> {tmp_path}/cancelled')
    old = Queue(tmp_path / "slurm" / "old")
    old.make()
    old.put(1, job(spec("model=mlp")))
    old.place("a").mkdir()
    living = Queue(tmp_path / "slurm" / "living")
    living.make()
    living.put(1, job(spec("model=mlp")))
    with lease.held(living.folder), lease.held(old.place("a")), slurm.SlurmEngine("cpu") as engine:
        engine.queue = engine._queue(tmp_path)
        assert (old.waiting(), living.waiting()) == (0, 1)  # its worker ends the run that it has, and leaves
        assert "--name=lossbench-old --state=PENDING" in (tmp_path / "cancelled").read_text()
        with slurm.SlurmEngine("cpu") as other:
            other.queue = other._queue(tmp_path)
            assert engine.queue.folder.is_dir()
    with slurm.SlurmEngine("cpu") as engine:
        engine.queue = engine._queue(tmp_path)
        assert not old.folder.exists()
