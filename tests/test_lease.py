"""A run is trained by one process at a time: leases, their heartbeat, and who takes them over when."""

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from harness.engines.engine import Event
from harness.errors import UsageError
from harness.records import lease, room, store
from harness.studies import sweep
from harness.training.job import ELSEWHERE, carry_out

linux = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="only /proc says when a process started")


def of_another(folder, **changes):
    """Write the lease of another process that lives: the one that started the tests."""
    pid = os.getppid()
    owner = {"token": "other", **lease._me(), "pid": pid, "started": lease._started(pid)} | changes
    folder.mkdir(parents=True, exist_ok=True)
    (folder / lease.NAME).write_text(json.dumps(owner))
    return folder


@pytest.fixture
def clock(monkeypatch):
    """The clock of whoever watches; ``clock.now`` can be set."""

    class Clock:
        now = 1000.0

    monkeypatch.setattr(lease.time, "monotonic", lambda: Clock.now)
    monkeypatch.setattr(lease, "_seen", {})
    return Clock


def test_one_has_a_run_until_it_gives_it_back(tmp_path):
    with lease.held(tmp_path / "run") as first:
        assert first
        assert not lease.free(tmp_path / "run")
        second = lease.take(tmp_path / "run")
        assert not second
        assert str(os.getpid()) in second.owner
    assert lease.free(tmp_path / "run")
    assert lease.take(tmp_path / "run")


def test_a_run_is_given_back_whatever_is_raised(tmp_path):
    with pytest.raises(KeyboardInterrupt), lease.held(tmp_path):
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


@linux
def test_a_dead_process_of_this_host_is_known_at_once(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    started = lease._started(gone.pid)
    gone.wait()
    of_another(tmp_path, pid=gone.pid, started=started)
    assert lease.take(tmp_path)


@linux
def test_a_process_that_is_dead_and_not_yet_buried_is_dead(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    started = lease._started(gone.pid)
    os.waitid(os.P_PID, gone.pid, os.WEXITED | os.WNOWAIT)
    of_another(tmp_path, pid=gone.pid, started=started)
    assert lease.free(tmp_path)
    gone.wait()


@linux
def test_an_id_that_another_process_has_now_is_no_owner(tmp_path):
    assert lease.take(of_another(tmp_path, started="1"))


@pytest.mark.parametrize("where", [{"host": "another"}, {"place": "another boot"}], ids=["host", "boot or container"])
def test_elsewhere_only_silence_tells_and_only_our_clock_counts(where, clock, tmp_path):
    of_another(tmp_path, **where, pid=1, started="1")
    os.utime(tmp_path / lease.NAME, (1, 1))  # by the owner's clock, long ago
    assert not lease.take(tmp_path)
    clock.now += lease.EXPIRY_S - 1
    assert not lease.take(tmp_path)
    os.utime(tmp_path / lease.NAME, (2, 2))  # a heartbeat
    clock.now += 2
    assert not lease.take(tmp_path)
    clock.now += lease.EXPIRY_S + 1
    assert lease.take(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 4000, b'{"pid": "x", "host": 3}'])
def test_a_lease_that_cannot_be_read_is_believed_for_a_minute(content, clock, tmp_path):
    (tmp_path / lease.NAME).write_bytes(content)
    found = lease.take(tmp_path)
    assert not found
    assert found.owner
    clock.now += lease.EXPIRY_S + 1
    assert lease.take(tmp_path)


def test_a_link_is_not_followed(clock, tmp_path):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / lease.NAME).symlink_to(tmp_path / "precious")
    assert not lease.take(tmp_path / "run")
    clock.now += lease.EXPIRY_S + 1
    assert lease.take(tmp_path / "run")
    assert (tmp_path / "precious").read_text() == "mine"


def test_what_was_taken_over_stays_its_new_owners(tmp_path):
    with lease.held(tmp_path):
        of_another(tmp_path)
    assert json.loads((tmp_path / lease.NAME).read_text())["token"] == "other"


def test_a_fork_of_the_owner_owns_nothing(tmp_path, monkeypatch):
    mine = lease.take(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(lease.os, "getpid", lambda: -1)
        mine.release()
    assert (tmp_path / lease.NAME).exists()
    mine.release()
    assert lease.free(tmp_path)


def test_a_lease_that_changed_hands_meanwhile_is_put_back(tmp_path):
    stale = {"token": "stale"}
    of_another(tmp_path)
    lease._remove(tmp_path / lease.NAME, stale)
    assert [path.name for path in tmp_path.iterdir()] == [lease.NAME]
    assert json.loads((tmp_path / lease.NAME).read_text())["token"] == "other"


def test_an_owner_touches_its_lease(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "HEARTBEAT_S", 0.01)
    with lease.held(tmp_path):
        os.utime(tmp_path / lease.NAME, (1, 1))
        end = time.monotonic() + 30
        while (tmp_path / lease.NAME).stat().st_mtime == 1:
            assert time.monotonic() < end
            time.sleep(0.01)


def test_a_run_that_another_trains_is_left_alone(spec, job, tmp_path):
    folder = of_another(tmp_path / ("0" * 16))
    ended = carry_out(job(spec(), folder=str(folder)), lambda: False, lambda *_: None)
    assert ended["status"] == ELSEWHERE
    assert str(os.getppid()) in ended["owner"]
    assert [path.name for path in folder.iterdir()] == [lease.NAME]


def test_a_run_that_was_finished_since_it_was_planned_is_not_trained_again(spec, job, tmp_path):
    folder = tmp_path / ("0" * 16)
    store.write_json(folder / "record.json", store.sealed({"key": "0" * 16, "seed": 1, "status": "diverged"}))
    before = (folder / "record.json").stat().st_mtime_ns
    assert carry_out(job(spec(), folder=str(folder)), lambda: False, lambda *_: None) == {"status": "diverged"}
    assert (folder / "record.json").stat().st_mtime_ns == before
    assert [path.name for path in folder.iterdir()] == ["record.json"]


@dataclass
class Pool:
    """An engine that ends runs as it is told: by key, how each round; meanwhile another sweep records ``failures``."""

    ends: dict
    failures: tuple = ()
    size: int = 1

    def run(self, jobs):
        for each in jobs:
            yield Event("finished", each, 0, self.ends[each.key].pop(0))
            if each.key in self.failures:
                store.save_failure(Path(each.folder), {"key": each.key, "error": "boom"})


def jobs_of(job, spec, results, *keys):
    choices = {"model": "mlp", "dataset": "digits"}
    return [job(spec, key=key, choices=choices, folder=str(store.run_folder(key, results))) for key in keys]


def test_a_sweep_waits_for_runs_of_another_and_reports_how_they_ended(spec, job, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "LOOK_S", 0.0)
    own, there, failing, left = keys = ["0" * 16, "1" * 16, "2" * 16, "3" * 16]
    jobs = jobs_of(job, spec(), tmp_path, *keys)
    elsewhere, done = {"status": ELSEWHERE}, {"status": "done"}
    ends = {own: [done], there: [elsewhere, done], failing: [elsewhere], left: [elsewhere, elsewhere, done]}
    pool = Pool(ends, (failing,))
    assert [why for _, why in sweep._watch(pool, jobs, tmp_path)] == ["boom"]
    assert not any(pool.ends.values())


def test_a_failure_of_before_is_tried_again(spec, job, tmp_path):
    (one,) = jobs_of(job, spec(), tmp_path, "0" * 16)
    store.save_failure(store.run_folder(one.key, tmp_path), {"key": one.key, "error": "boom"})
    pool = Pool({one.key: [{"status": ELSEWHERE}, {"status": "done"}]})
    assert sweep._watch(pool, [one], tmp_path) == []


def test_a_sweep_ends_in_one_sentence_where_nothing_can_be_written(spec, job, tmp_path):
    jobs = jobs_of(job, spec(), tmp_path, "0" * 16, "1" * 16)
    full = {"status": "failed", "error": "no room", "no_room": True}
    with pytest.raises(UsageError, match="no room"):
        sweep._watch(Pool({jobs[0].key: [full]}), jobs, tmp_path)


# ---------------------------------------------------------------------- machines that share a results folder


def test_what_an_owner_lost_it_learns_with_its_next_heartbeat(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "HEARTBEAT_S", 0.01)
    with lease.held(tmp_path) as mine:
        mine.check(look=True)
        of_another(tmp_path, host="another")
        assert mine._lost.wait(30)
        with pytest.raises(lease.Lost):
            mine.check()
    assert json.loads((tmp_path / lease.NAME).read_text())["token"] == "other"


def test_a_lease_that_cannot_be_read_is_not_lost(tmp_path):
    mine = lease.take(tmp_path)
    (tmp_path / lease.NAME).write_bytes(b"")
    mine.check(look=True)
    (tmp_path / lease.NAME).unlink()
    with pytest.raises(lease.Lost):
        mine.check(look=True)


def test_two_copies_of_a_run_that_end_at_once_leave_one_whole_record(tmp_path):
    """Both believe that the run is theirs, and write it again and again; whoever reads meanwhile finds it whole."""
    record = {"key": "0" * 16, "seed": 1, "status": "done", "test": {"top1": 0.5}, "metrics": []}
    content = record, pd.DataFrame({"epoch": range(50)}), {"inputs": np.zeros(500)}, {"test/correct": np.zeros(500)}
    store.save(tmp_path, *content)
    both, troubles = threading.Barrier(2, timeout=60), []

    def copy():
        try:
            for _ in range(5):
                both.wait()
                store.save(tmp_path, *content)
        except Exception as trouble:
            troubles.append(trouble)

    copies = [threading.Thread(target=copy) for _ in range(2)]
    for thread in copies:
        thread.start()
    while any(thread.is_alive() for thread in copies):
        assert store.read_folder(tmp_path, "0" * 16)["test"] == {"top1": 0.5}
    assert troubles == []
    assert not any(str(tmp_path) in what for what in store.damaged)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"record.json", "history.csv", "items.npz", "examples.npz"}


def test_a_copy_that_was_overtaken_leaves_the_record_to_its_new_owner(spec, job, tmp_path, monkeypatch):
    def overtaken(job, folder, stop, report):
        of_another(folder, host="another")
        return {"status": "done"}, pd.DataFrame(), None, {}

    monkeypatch.setattr("harness.training.job._run", overtaken)
    asked = job(spec(), folder=str(tmp_path / "runs" / ("0" * 16)))
    assert carry_out(asked, lambda: False, lambda *_: None)["status"] == ELSEWHERE
    assert [path.name for path in Path(asked.folder).iterdir()] == [lease.NAME]


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_differs_by_an_hour_ends_nothing_that_another_host_does(hours, clock, tmp_path, monkeypatch):
    """Files have the file system's time; this host's clock is an hour off it, and so may that of the owner be."""
    run = of_another(tmp_path / "runs" / ("0" * 16), host="another", pid=1, started="1")
    part = run / ".record.json.abcd.part"
    part.touch()
    now = time.time()
    monkeypatch.setattr(room.time, "time", lambda: now + 3601 * hours)
    for _ in range(14):
        assert room.tidy(tmp_path) == 0
        assert not lease.take(run)
        clock.now += lease.HEARTBEAT_S
        os.utime(run / lease.NAME)  # the owner's heartbeat
    assert part.exists()
    assert not lease.take(run)
    clock.now += lease.EXPIRY_S + 1
    assert lease.take(run)
