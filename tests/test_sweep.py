"""Sweeps that are killed, interrupted, or contain runs that fail: nothing lost, nothing repeated, nothing hidden."""

import json
import os
import random
import signal
import time
from pathlib import Path

import pandas as pd
import pytest

from harness import hardware
from harness.engines import local as engines

SWEEP = ("harness", "study=smoke", "name=tried", "tracking.enabled=false", "engine.checkpoint_seconds=0.2")


def children(pid):
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[1]) == pid:
                found += [int(entry), *children(int(entry))]
    return found


linux = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="reads /proc to find the worker processes")


def last_change(results):
    """Return when anything below results/runs changed last: checkpoints, histories and records come and go there."""
    return max((path.stat().st_mtime_ns for path in results.glob("runs/*")), default=0)


@linux
def test_kill_9_at_random_moments_loses_and_repeats_nothing(cli, recorded):
    """Kill the sweep again and again; finished runs stay as they are, and the end equals an undisturbed sweep."""
    rng = random.Random(0)
    written: dict[str, dict] = {}
    kills = 0
    for _ in range(15):
        before = last_change(cli.results)
        process = cli(*SWEEP, "base.trainer.epochs=4", start=True)
        if rng.random() < 0.8:  # the others are killed while they start
            while process.poll() is None and last_change(cli.results) == before:
                time.sleep(0.005)
        end = time.monotonic() + rng.uniform(0, 2.0)
        # after eight kills the sweep may end, however slow the machine
        while process.poll() is None and (kills >= 8 or time.monotonic() < end):
            time.sleep(0.005)
        running = process.poll() is None
        workers = children(process.pid) if running else []
        process.send_signal(signal.SIGKILL)  # the sweep alone: its workers must notice by themselves
        error = process.communicate()[1]
        kills += running
        wait_until_gone(workers)
        now = recorded(cli.results)
        assert {key: now[key] for key in written} == written, "a finished run was lost or repeated"
        written = now
        if not running:
            assert process.returncode == 0, error
            break
    assert kills >= 3
    assert len(written) == 8
    straight = cli.results.parent / "straight"
    assert cli(*SWEEP, "base.trainer.epochs=4", LOSSBENCH_RESULTS=str(straight)).returncode == 0
    undisturbed = recorded(straight)
    assert {k: (r["test"], r["valid"]) for k, r in written.items()} == {
        k: (r["test"], r["valid"]) for k, r in undisturbed.items()
    }
    for key in written:
        curves = [pd.read_csv(folder / "runs" / key / "history.csv") for folder in (cli.results, straight)]
        columns = ["epoch", "step", "train.loss", "grad_norm", "valid.top1"]
        pd.testing.assert_frame_equal(curves[0][columns], curves[1][columns], check_exact=True)


@linux
def test_a_search_killed_in_each_round_goes_on_with_nothing_repeated(cli, recorded):
    """Twelve trials in two rounds, then six runs at what was chosen: what was asked is asked again, and found."""
    tuned = (*SWEEP, "track=tuned", "search.trials=6", "controls.negative_control=null")
    written: dict[str, dict] = {}
    for enough in (3, 9):
        process = cli(*tuned, start=True)
        while len(list(cli.results.glob("runs/*/record.json"))) < enough:
            assert process.poll() is None
            time.sleep(0.01)
        workers = children(process.pid)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        wait_until_gone(workers)
        now = recorded(cli.results)
        assert {key: now[key] for key in written} == written, "a finished trial was lost or repeated"
        assert len(now) < 12
        assert {record["seed"] for record in now.values()} == {7001}
        written = now
    planned = cli(*tuned, "plan_only=true").stdout
    assert "18 runs: 12 trials, 4 to compare, 2 of the baseline, repeated;" in planned
    assert f"{len(written)} done, {18 - len(written)} missing.\nThe search is not finished" in planned
    found = cli(*tuned)
    assert found.returncode == 0, found.stderr
    assert f"tried: {18 - len(written)} runs in" in found.stdout
    now = recorded(cli.results)
    assert len(now) == 18
    assert {key: now[key] for key in written} == written
    straight = cli.results.parent / "straight"
    assert cli(*tuned, "engine.workers=1", LOSSBENCH_RESULTS=str(straight)).returncode == 0
    assert (straight / "tried" / "runs.csv").read_text() == (cli.results / "tried" / "runs.csv").read_text()
    undisturbed = recorded(straight)
    assert {k: (r["test"], r["valid"]) for k, r in now.items()} == {
        k: (r["test"], r["valid"]) for k, r in undisturbed.items()
    }
    assert "all 18 runs are finished" in cli(*tuned).stdout
    assert "18 done, 0 missing." in cli(*tuned, "plan_only=true").stdout


def wait_until_gone(pids, seconds=30):
    deadline = time.monotonic() + seconds
    while any(os.path.exists(f"/proc/{pid}") for pid in pids):
        assert time.monotonic() < deadline, "workers outlive a killed sweep"
        time.sleep(0.05)


@linux
@pytest.mark.parametrize(("stop", "deaf"), [(signal.SIGINT, False), (signal.SIGTERM, True)], ids=["Ctrl-C", "SIGTERM"])
def test_ctrl_c_stops_within_seconds_and_leaves_checkpoints(cli, recorded, stop, deaf):
    process = cli(*SWEEP, "base.trainer.epochs=500", start=True, deaf=deaf)
    while not list(cli.results.glob("runs/*/checkpoint.pt")):
        assert process.poll() is None
        time.sleep(0.05)
    workers = children(process.pid)
    stopped_at = time.time_ns()
    began = time.monotonic()
    process.send_signal(stop)
    _, said = process.communicate(timeout=60)
    assert time.monotonic() - began < 15
    assert process.returncode == 130
    assert "Interrupted: finished runs are safe" in said
    assert "Traceback" not in said
    wait_until_gone(workers)
    assert recorded(cli.results) == {}
    # each of the interrupted runs wrote where it stood, and would go on from there
    assert any(path.stat().st_mtime_ns > stopped_at for path in cli.results.glob("runs/*/checkpoint.pt"))


@linux
def test_a_worker_that_dies_is_replaced_and_its_run_retried_once(tmp_path, spec, job):
    jobs = [job(spec("trainer.epochs=3"), seed, key=str(seed), folder=str(tmp_path / str(seed))) for seed in (1, 2)]
    events = []
    with engines.LocalEngine("cpu", workers=1) as pool:
        for event in pool.run(jobs):
            events.append((event.kind, event.job.seed, event.content.get("again")))
            if event.kind == "epoch" and event.job.seed == 1 and not any(e[0] == "died" for e in events):
                os.kill(pool.workers[0].process.pid, signal.SIGKILL)
    assert ("died", 1, True) in events
    assert [e[1] for e in events if e[0] == "finished"] == [1, 2]
    assert (tmp_path / "1" / "record.json").exists()


@linux
def test_a_run_that_kills_every_worker_is_given_up_after_one_retry(tmp_path, spec, job):
    jobs = [job(spec("trainer.epochs=3"), seed, key=str(seed), folder=str(tmp_path / str(seed))) for seed in (1, 2)]
    died = []
    finished = []
    with engines.LocalEngine("cpu", workers=1) as pool:
        for event in pool.run(jobs):
            if event.kind == "epoch" and event.job.seed == 1:
                os.kill(pool.workers[0].process.pid, signal.SIGKILL)
            if event.kind == "died":
                died.append((event.content["exitcode"], event.content["again"]))
            if event.kind == "finished":
                finished.append(event.job.seed)
    assert died == [(-9, True), (-9, False)]
    assert finished == [2]


def test_failed_and_diverged_runs_are_recorded_shown_and_counted(cli, recorded, tmp_path):
    """One run raises, others diverge; the study goes on, lists the failure and exits with 1."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(PATCH)
    arguments = (
        "harness",
        "study=smoke",
        "name=tried",
        "tracking.enabled=false",
        "include=[{loss: focal, optimizer.lr: 1.0e30}]",
    )
    found = cli(*arguments, PYTHONPATH=str(tmp_path / "site"))
    assert found.returncode == 1, found.stdout + found.stderr
    assert "failed: cross_entropy, cnn_micro, digits, seed 2: RuntimeError: cosmic ray" in found.stderr
    assert "diverged" in found.stdout
    records = recorded(cli.results)
    assert sorted(r["status"] for r in records.values()).count("diverged") == 2
    failures = [json.loads(p.read_text()) for p in cli.results.glob("runs/*/failure.json")]
    assert failures
    assert all("cosmic ray" in failure["traceback"] for failure in failures)
    page = (cli.results / "tried" / "report" / "index.html").read_text()
    assert "cosmic ray" in page
    mended = cli(*arguments)
    assert mended.returncode == 0, mended.stderr
    assert not list(cli.results.glob("runs/*/failure.json"))


PATCH = """
import importlib.abc, importlib.util, sys

class Patch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name != "harness.training.loop":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            step = module.Loop.step

            def broken(self, batch):
                if self.seed == 2 and self.state.step == 5 and "cross" in self.job.spec.loss["_target_"]:
                    raise RuntimeError("cosmic ray")
                step(self, batch)

            module.Loop.step = broken

        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Patch())
"""


def test_a_gpu_takes_as_many_workers_as_asked(monkeypatch):
    monkeypatch.setattr(hardware, "gpus", lambda: ["GPU-a", "GPU-b"])
    pool = engines.LocalEngine("cuda", per_device=3)
    assert pool.size == 6
    assert [pool.gpus[i % 2] for i in range(pool.size)].count("GPU-a") == 3
