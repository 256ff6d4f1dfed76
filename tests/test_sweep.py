"""Sweeps that are killed, interrupted, or contain runs that fail: nothing lost, nothing repeated, nothing hidden."""

import json
import math
import os
import random
import re
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from harness import compose, hardware, plan, records
from harness.analysis import deciding, estimates, sequential
from harness.engines import local as engines
from harness.errors import UsageError
from harness.plan import Study
from harness.studies import sweep

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
        # after four kills the sweep may end, however slow the machine
        while process.poll() is None and (kills >= 4 or time.monotonic() < end):
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
    """18 trials in two rounds, then six runs at what was chosen: what was asked is asked again, and found."""
    alone = ("search.seeds=[7001]", "search.most_seeds=1", "search.most=0", "controls.negative_control=null")
    tuned = (*SWEEP, "track=tuned", "search.trials=6", *alone)
    written: dict[str, dict] = {}
    for enough in (3, 14):
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
        assert len(now) < 18
        assert {record["seed"] for record in now.values()} <= {7001, 8001}
        written = now
    planned = cli(*tuned, "plan_only=true").stdout
    assert (
        "24 runs: 12 trials, 6 trials of the baseline, repeated, 4 to compare, 2 of the baseline, repeated;" in planned
    )
    assert f"{len(written)} done, {24 - len(written)} missing.\nThe search is not finished" in planned
    found = cli(*tuned)
    assert found.returncode == 0, found.stderr
    assert f"tried: {24 - len(written)} runs in" in found.stdout
    now = recorded(cli.results)
    assert len(now) == 24
    assert {key: now[key] for key in written} == written
    straight = cli.results.parent / "straight"
    assert cli(*tuned, "engine.workers=1", LOSSBENCH_RESULTS=str(straight)).returncode == 0
    assert (straight / "tried" / "runs.csv").read_text() == (cli.results / "tried" / "runs.csv").read_text()
    undisturbed = recorded(straight)
    assert {k: (r["test"], r["valid"]) for k, r in now.items()} == {
        k: (r["test"], r["valid"]) for k, r in undisturbed.items()
    }
    assert "all 24 runs are finished" in cli(*tuned).stdout
    assert "24 done, 0 missing." in cli(*tuned, "plan_only=true").stdout


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
                died.append((event.content["why"], event.content["again"]))
            if event.kind == "finished":
                finished.append(event.job.seed)
    assert died == [("exit code -9", True), ("exit code -9", False)]
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


# ---------------------------------------------------------------------- rounds of seeds, with made-up runs


@pytest.fixture
def swept(tmp_path, monkeypatch):
    """Return a function that sweeps a study with made-up runs: it returns the keys that were run, and what was listed.

    The runs of a loss score its ``quality`` plus a share for the seed.
    """
    quality = {"cross_entropy": 0.5, "focal": 0.6, "brier": 0.51, "negative_control_worse": 0.2}
    options = compose.compose_run([]).config
    ran: list[str] = []

    def made_up(self, runs):
        for run in self.missing(runs):
            ran.append(run.key)
            score = quality[run.setting.label] + run.seed % 1000 / 10000
            record = {
                "key": run.key, "seed": run.seed, "status": "done", "metrics": [],
                "test": {"top1": score}, "valid": {"top1": score},
            }  # fmt: skip
            records.save(records.run_folder(run.key, tmp_path), record, pd.DataFrame({"epoch": [1]}))

    monkeypatch.setattr(sweep.Work, "carry_out", made_up)

    def call(study, undecided=lambda data: set()):
        ran.clear()
        sweep.sweep(study, options, results=tmp_path, undecided=undecided)
        return list(ran), pd.read_csv(tmp_path / study.name / "runs.csv")

    return call


def study(**more):
    axes = {"model": ["cnn_micro", "mlp"], "loss": ["cross_entropy", "focal", "brier"], "seed": [1, 2]}
    return Study("tried", "?", axes | more.pop("axes", {}), base={"device": "cpu"}, study="demo", **more)


def open_until(needed):
    """Return what decides every comparison once it has as many seeds as its loss needs, and the tables it was shown."""
    shown = []

    def undecided(data):
        shown.append(data)
        runs = data.runs[data.runs["role"] == "run"]
        counts = runs.groupby(["model", "label", "setting"])["seed"].nunique()
        wanted = {(model, label): needed.get((model, label), needed.get(label, 0)) for model, label, _ in counts.index}
        return {setting for (model, label, setting), n in counts.items() if n < wanted[model, label]}

    return undecided, shown


def seeds_of(listed, role="run"):
    chosen = listed[listed["role"] == role]
    return {(model, label): sorted(rows["pair_seed"]) for (model, label), rows in chosen.groupby(["model", "label"])}


def test_seeds_are_added_to_what_is_open_and_to_its_baseline_only(swept, tmp_path):
    undecided, shown = open_until({("mlp", "focal"): 4, ("mlp", "brier"): 3})
    ran, listed = swept(study(until="decided", max_seeds=9), undecided)
    assert seeds_of(listed) == {
        ("cnn_micro", "cross_entropy"): [1, 2], ("cnn_micro", "focal"): [1, 2], ("cnn_micro", "brier"): [1, 2],
        ("mlp", "cross_entropy"): [1, 2, 3, 4], ("mlp", "focal"): [1, 2, 3, 4], ("mlp", "brier"): [1, 2, 3],
    }  # fmt: skip
    for role in ("baseline_repeat", "negative_control"):
        assert set(map(tuple, seeds_of(listed, role).values())) == {(1, 2)}, "controls keep to the given seeds"
    assert len(shown) == 3
    assert sorted(shown[0].runs["seed"].unique()) == [1, 2, 1001, 1002]
    asked = json.loads((tmp_path / "tried" / "study.json").read_text())
    assert (asked["axes"]["seed"], asked["until"], asked["max_seeds"]) == ([1, 2, 3, 4], "decided", 9)
    assert len(ran) == len(set(ran)) == len(listed)


def test_seeds_end_at_the_most(swept):
    undecided, shown = open_until({"focal": 99, "brier": 99})
    _, listed = swept(study(until="decided", max_seeds=5), undecided)
    assert set(map(tuple, seeds_of(listed).values())) == {(1, 2, 3, 4, 5)}
    assert len(shown) == 3, "after the last seed nobody asks"
    _, listed = swept(study(), undecided)
    assert set(map(tuple, seeds_of(listed).values())) == {(1, 2)}
    assert len(shown) == 3, "without until=decided nobody asks"


def test_what_is_decided_stays_so(swept):
    """A comparison that would open again with later seeds has had its answer: seeds have no gaps."""
    calls = []

    def fickle(data):
        calls.append(len(data.runs))
        runs = data.runs[(data.runs["role"] == "run") & (data.runs["label"] == ("focal", "brier")[len(calls) % 2])]
        return set(runs["setting"])

    _, listed = swept(study(until="decided", max_seeds=9), fickle)
    assert len(calls) == 2
    assert seeds_of(listed)["mlp", "focal"] == [1, 2]
    assert seeds_of(listed)["mlp", "brier"] == [1, 2, 3]


def test_the_same_command_goes_on_where_it_was(swept, tmp_path):
    undecided, _ = open_until({"focal": 6})
    asked = study(until="decided", max_seeds=9, track="lr")

    def stopped(data):
        if (data.runs["role"] == "run").sum() > 17:
            raise KeyboardInterrupt
        return undecided(data)

    with pytest.raises(KeyboardInterrupt):
        swept(asked, stopped)
    before = records.finished(tmp_path)
    ran, listed = swept(asked, undecided)
    assert ran
    assert not before & set(ran)
    again, same = swept(asked, undecided)
    assert again == []
    pd.testing.assert_frame_equal(same, listed)
    assert seeds_of(listed)["mlp", "focal"] == [1, 2, 3, 4, 5, 6]
    assert set(seeds_of(listed, "search_repeat")["mlp", "cross_entropy"]) == {7001, 7002, 7003}
    assert set(listed.loc[listed["role"] == "search_repeat", "seed"]) == {8001, 8002, 8003}


def test_published_seeds_do_not_answer_for_those_that_were_asked(swept, tmp_path):
    """Evidence with more seeds than a round has would end it early, and the list would lose its seeds."""
    undecided, shown = open_until({"focal": 4})
    _, longer = swept(study(axes={"seed": [1, 2, 3, 4, 5, 6]}))
    records.publish("tried", tmp_path)
    _, listed = swept(study(until="decided", max_seeds=9), undecided)
    assert max(len(data.runs) for data in shown) < len(longer)
    assert seeds_of(listed)["mlp", "focal"] == [1, 2, 3, 4]


def test_a_sweep_goes_on_from_published_runs_and_repeats_none(cli):
    """Records made of them are believed, and published again they are the same evidence."""
    asked = (*SWEEP, "axes.loss=[cross_entropy,focal]", "base.trainer.epochs=1", "track=lr", "search.most=1",
             "search.seeds=[7001]", "search.most_seeds=1")  # fmt: skip
    planned = int(re.search(r"(\d+) runs in", cli(*asked).stdout)[1])
    first = records.load_published(records.publish("tried", cli.results).files[0])
    for made in ("runs", "tried"):
        shutil.rmtree(cli.results / made)
    told = re.search(r"(\d+) of the missing were published: reuse=true", cli(*asked, "plan_only=true").stdout)
    assert 0 < int(told[1]) <= planned
    said = cli(*asked, "reuse=true").stdout
    assert "published runs taken over" in said
    assert f"all {planned} runs are finished, nothing is missing" in said
    shutil.rmtree(cli.results / "measured")
    again = records.load_published(records.publish("tried", cli.results).files[0])
    for before, after in ((first.runs, again.runs), (first.history, again.history)):
        pd.testing.assert_frame_equal(before, after, check_like=True)
    scored = first.runs.loc[first.runs["role"] == "run", "key"]
    assert len(scored) == 4
    for key in scored:
        before, after = (each.item_scores(key, "test.top1") for each in (first, again))
        assert [each.tolist() for each in before] == [each.tolist() for each in after]


def test_the_plan_says_the_least_and_the_most(tmp_path):
    options = compose.compose_run([]).config

    def first(compared, seeds, unused):
        return f"First: {compared}, {seeds}, {unused[:2]}."

    said = sweep.planned_only(study(until="decided", max_seeds=5), options, tmp_path, first)
    assert "First: 2, [1, 2], [3, 4]." in said.splitlines(), "two losses beside the baseline, on two seeds"
    assert "20 runs: 12 to compare, 4 of the baseline, repeated, 4 of the negative control;" in said
    assert "Seeds are added to what is not decided, up to 5: from 20 runs at least to 38 at most." in said
    searched = sweep.planned_only(study(track="lr"), options, tmp_path)
    assert "110 runs: 72 trials, 18 trials of the baseline, repeated, 12 to compare, 4 of the baseline, rep" in searched
    assert (
        "Further trials follow where the best learning rate is the least or the greatest tried, at most 3" in searched
    )
    assert "Seeds are added" not in searched


@pytest.mark.parametrize(("compared", "seeds", "enough"), [(1, 3, 4), (10, 5, 6), (19, 5, 7), (60, 6, 8)])
def test_too_few_seeds_to_begin_with_are_told(compared, seeds, enough):
    given, others = list(range(7, 7 + seeds)), [3, 2, 1]
    said = sequential.first_look(compared, given, others)
    assert said.endswith(f"begin with axes.seed=[{','.join(map(str, [*given, *others][:enough]))}].")
    assert sequential.first_look(compared, list(range(enough)), []) == ""
    reach = estimates.critical(seeds - 1, 0.05 / compared, sequential_pairs=seeds)
    assert ("has no ends" if math.isinf(reach) else f"reaches {reach:.0f} standard errors") in said


# ---------------------------------------------------------------------- looking again, and sweeps of other questions


def looks(tmp_path):
    return json.loads((tmp_path / "tried" / "study.json").read_text())["looks"]


@pytest.mark.parametrize("track", ["fixed", "lr"])
def test_seeds_added_by_hand_are_marked(swept, tmp_path, track):
    asked = study(track=track)
    for seeds, expected in (([1, 2], []), ([1, 2], []), ([1, 2, 3], [2]), ([1, 2, 3], [2]), ([1, 2, 3, 4, 5], [2, 3])):
        swept(asked.on(seeds))
        assert looks(tmp_path) == expected
    more = replace(asked, axes={**asked.axes, "loss": ["cross_entropy", "focal"]})
    swept(more.on([1, 2, 3, 4, 5, 6]))
    assert looks(tmp_path) == [2, 3, 5], "also where a loss is left out"
    assert records.load_study("tried", tmp_path).spec["looks"] == [2, 3, 5]


def test_runs_that_are_repeated_or_were_not_finished_are_no_look(swept, tmp_path):
    asked = study(track="lr")
    swept(asked)
    swept(replace(asked, base={"device": "cpu", "trainer.epochs": 3}).on([1, 2, 3]))
    assert looks(tmp_path) == [], "none of the runs is the same"
    key = pd.read_csv(tmp_path / "tried" / "runs.csv").query("role == 'run'")["key"][10:].iloc[0]
    (tmp_path / "runs" / key / "record.json").unlink()
    swept(replace(asked, base={"device": "cpu", "trainer.epochs": 3}).on([1, 2, 3, 4]))
    assert looks(tmp_path) == [], "the earlier list was not finished"


def test_a_sweep_of_another_question_is_not_read_as_the_study(swept, tmp_path, monkeypatch):
    """A claim reads the study that its file names: what is asked otherwise has another address."""
    asked = plan.read_study("smoke")
    swept(asked)
    other = plan.read_study("smoke", ["axes.loss=[cross_entropy,focal]", "axes.seed=[1,2,3]"])
    swept(other)
    assert other.name != asked.name
    with pytest.raises(UsageError, match="name=smoke is taken"):
        plan.read_study("smoke", ["axes.seed=[1,2,3]", "name=smoke"])
    with pytest.raises(UsageError, match="belongs to the sweep study=smoke: choose another"):
        swept(replace(other, name="smoke"))
    monkeypatch.setattr(records, "load_study", lambda name, read=records.load_study: read(name, tmp_path))
    recorded = deciding.recorded("smoke")
    assert recorded is not None
    found = recorded.study
    assert sorted(found.runs.query("role == 'run'")["seed"].unique()) == [1, 2]
    assert found.spec["overrides"] == []


def test_two_sweeps_of_one_name_do_not_mix(swept, tmp_path):
    """The second that begins is refused before anything is trained: the first has written its list by then."""
    first = plan.read_study("smoke", ["axes.seed=[1]", "name=mine"])
    second = plan.read_study("smoke", ["axes.seed=[2]", "name=mine"])
    swept(first)
    before = records.finished(tmp_path)
    with pytest.raises(UsageError, match=r"the name mine belongs to the sweep study=smoke axes\.seed=\[1\]"):
        swept(second)
    assert records.finished(tmp_path) == before


def test_a_gpu_takes_as_many_workers_as_asked(monkeypatch):
    monkeypatch.setattr(hardware, "gpus", lambda: ["GPU-a", "GPU-b"])
    pool = engines.LocalEngine("cuda", per_device=3)
    assert pool.size == 6
    assert [pool.gpus[i % 2] for i in range(pool.size)].count("GPU-a") == 3
