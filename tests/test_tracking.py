import contextlib
import json
import math
import os
import re
import select
import signal
import socket
import socketserver
import sqlite3
import subprocess
import sys
import threading
import time
import types
import urllib.parse
from pathlib import Path

import pandas as pd
import pytest

from harness import records, report
from harness.analysis import stats
from harness.analysis.cells import Analysis
from harness.errors import UsageError
from harness.paths import ROOT
from harness.records import store
from harness.records.study import StudyData
from harness.tracking import LiveMirror
from harness.tracking import runs as tracked
from harness.tracking.__main__ import main
from harness.tracking.dashboard import ui_command
from harness.tracking.live import RETRY_S, follow
from harness.tracking.mirroring import Mirror, Mirrored, attempt, mirror
from harness.tracking.store import Bounded, alone, cut_off, database_of, default_uri, make, runs_address, sentence
from tests import synthetic

EPOCHS = 3


def run_row(label="focal", seed=1, status="done", role="run", top1=0.9, **more):
    at = pd.Timestamp("2024-01-01T00:00:00Z") + pd.Timedelta(minutes=seed)
    recorded = {
        "config.optimizer.lr": 0.003,
        "config.trainer.epochs": EPOCHS,
        "config.loss.alpha": None,
        "env.device": "cpu",
        "env.commit": "c0ffee",
        "data.train": 100,
        "cost.step_ms": 2.0,
        "valid.top1": 0.8,
        "started": at.isoformat(),
        "finished": (at + pd.Timedelta(seconds=30)).isoformat(),
    }
    scores = {"test.top1": top1, "test.nll": math.nan, "test.per_class": "[0.5, 1.0]", "selected_epoch": 2}
    found = {} if status == "missing" else recorded | (scores if status == "done" else {})
    names = {
        "task": "classification",
        "dataset": "digits",
        "model": "cnn_micro",
        "optimizer": "adamw",
        "trainer": "short",
    }
    own = {"key": f"{label}-{seed}", "setting": f"setting-{label}", "pair_seed": seed, "track": "fixed"}
    return own | names | found | {"label": label, "loss": label, "seed": seed, "role": role, "status": status} | more


def history_rows(row, losses=(1.0, 0.5, 0.25)):
    return [
        {"key": row["key"], "epoch": epoch, "step": 10 * epoch, "train.loss": loss, "valid.top1": 0.7 + epoch / 100,
         "valid.nll": math.nan}
        for epoch, loss in enumerate(losses, 1)
    ]  # fmt: skip


def study_of(*rows, history=None, name="trial"):
    epochs = (
        [epoch for row in rows if row["status"] == "done" for epoch in history_rows(row)]
        if history is None
        else history
    )
    frame = pd.DataFrame(epochs, columns=["key", "epoch", "step", "train.loss", "valid.top1", "valid.nll"])
    return StudyData(name, {"question": "Which?"}, pd.DataFrame(rows), frame)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """A database with MLflow's tables, made once because that takes seconds."""
    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    done = mirror(study_of(name="empty"), f"sqlite:///{path}")
    assert done == Mirrored()
    return path


@pytest.fixture
def uri(empty_store, tmp_path):
    path = tmp_path / "with space" / "mlflow.db"
    path.parent.mkdir()
    path.write_bytes(empty_store.read_bytes())
    return f"sqlite:///{path}"


class Read:
    """What a store holds, read with MLflow's own client."""

    def __init__(self, uri, name="trial"):
        from mlflow import MlflowClient

        self.client = MlflowClient(uri, uri)
        self.experiment = self.client.get_experiment_by_name(name)
        runs = self.client.search_runs([self.experiment.experiment_id]) if self.experiment else []
        self.parents = {run.info.run_name: run for run in runs if "mlflow.parentRunId" not in run.data.tags}
        self.children = {run.data.tags["lossbench.key"]: run for run in runs if "mlflow.parentRunId" in run.data.tags}

    def curve(self, key, name):
        found = self.client.get_metric_history(self.children[key].info.run_id, name)
        return [(point.step, point.value) for point in found]

    def file(self, key, name):
        return self.client.download_artifacts(self.children[key].info.run_id, name)


def test_summary_is_the_interval_of_the_report():
    values = [0.91, 0.95, 0.90, 0.93]
    expected = stats.mean_interval(values)
    found = tracked.summary(values)
    assert found == pytest.approx({name: getattr(expected, name) for name in ("n", "mean", "sd", "low", "high")})


def compared(*more, seeds=(1, 2, 3, 4), **changes):
    """Return rows of a baseline and of a loss that is three points better in every seed."""
    base = [run_row("cross_entropy", seed, top1=0.90 + seed / 1000, **{"data.test": 1000}) for seed in seeds]
    own = [run_row("focal", seed, top1=0.93 + seed / 1000 + seed % 2 / 500, **changes) for seed in seeds]
    return study_of(*base, *own, *more)


def test_inputs_mean_curves_and_the_report_are_in_the_store(uri, tmp_path):
    rows = [run_row(seed=seed, **{"data.checksum": "abc"}) for seed in (1, 2)]
    history = [*history_rows(rows[0], (4.0, 2.0)), *history_rows(rows[1], (2.0, 1.0))]
    page = tmp_path / "index.html"
    page.write_text("<h1>first</h1>")
    mirror(study_of(*rows, history=history), uri, page)
    page.write_text("<h1>second</h1>")
    assert mirror(study_of(*rows, history=history), uri, page) == Mirrored(unchanged=2)
    read = Read(uri)
    assert len(read.parents) == 2
    written = read.client.download_artifacts(read.parents.pop("report").info.run_id, "index.html", str(tmp_path / "x"))
    assert Path(written).read_text() == "<h1>second</h1>"
    (parent,) = read.parents.values()
    curve = read.client.get_metric_history(parent.info.run_id, "train.loss.mean_of_2")
    assert [(point.step, point.value) for point in curve] == [(1, 3.0), (2, 1.5)]
    for run in (parent, *read.children.values()):
        (used,) = run.inputs.dataset_inputs
        assert (used.dataset.digest, used.tags[0].value) == ("abc", "training")


def test_a_verdict_goes_to_its_setting_and_to_its_seeds(uri):
    made = compared()
    mirror(made, uri)
    (focal,) = (run for name, run in Read(uri).parents.items() if name.startswith("focal"))
    found = Analysis(made).comparisons[Analysis(made).cells[0], "focal"]
    assert focal.data.tags["lossbench.verdict"] == "better"
    assert focal.data.tags["lossbench.scope"] == "seeds"
    assert "lossbench.because" not in focal.data.tags
    assert focal.data.metrics["difference"] == pytest.approx(0.031)
    assert focal.data.metrics["difference.low"] == pytest.approx(found.low, rel=1e-5)
    assert focal.data.metrics["difference.p"] == pytest.approx(found.p, rel=1e-5)
    assert (focal.data.metrics["difference.n"], focal.data.metrics["difference.family"]) == (4, 1)
    assert {Read(uri).children[f"focal-{seed}"].data.tags["lossbench.verdict"] for seed in (1, 2, 3, 4)} == {"better"}
    assert "lossbench.verdict" not in Read(uri).children["cross_entropy-1"].data.tags


def test_what_withholds_a_verdict_reaches_runs_that_are_there_already(uri):
    mirror(compared(), uri)
    before = {key: run.info.run_id for key, run in Read(uri).children.items()}
    mirror(compared(run_row("focal", 5, status="failed")), uri)
    store = Read(uri)
    (focal,) = (run for name, run in store.parents.items() if name.startswith("focal"))
    assert focal.data.tags["lossbench.verdict"] == "withheld"
    assert focal.data.tags["lossbench.because"] == "1 of 5 runs failed"
    assert "withheld, because 1 of 5 runs failed" in focal.data.tags["mlflow.note.content"]
    assert focal.data.metrics["difference"] == pytest.approx(0.031)
    for seed in (1, 2, 3, 4):
        tags = store.children[f"focal-{seed}"].data.tags
        assert (tags["lossbench.verdict"], tags["lossbench.because"]) == ("withheld", "runs failed")
    assert {key: store.children[key].info.run_id for key in before} == before  # marked, not made anew
    mirror(compared(), uri)  # from another process: what is there is read first
    assert "lossbench.because" not in Read(uri).children["focal-1"].data.tags


def test_a_run_that_did_not_learn_is_marked(uri):
    mirror(compared(run_row("focal", 5, top1=0.3), run_row("cross_entropy", 5, top1=0.9)), uri)
    store = Read(uri)
    assert store.children["focal-5"].data.tags["lossbench.learnt"] == "no"
    assert "lossbench.learnt" not in store.children["focal-1"].data.tags
    (focal,) = (run for name, run in store.parents.items() if name.startswith("focal"))
    assert focal.data.metrics["did_not_learn"] == 1
    assert "1 did not learn" in focal.data.tags["lossbench.seeds"]


def test_one_seed_has_a_mean_but_no_interval():
    assert tracked.summary([0.5]) == {"n": 1, "mean": 0.5}


@pytest.mark.parametrize(("cell", "expected"), [(1, "1"), (1.0, "1"), (0.003, "0.003"), (True, "true"), ("a", "a"),
                                                ("[1, 2]", "[1, 2]"), (None, None), (math.nan, None)])  # fmt: skip
def test_a_parameter_does_not_depend_on_how_its_column_was_read(cell, expected):
    assert tracked.text(cell) == expected


def test_seeds_are_nested_in_a_parent_with_their_mean(uri):
    done = mirror(study_of(run_row(seed=1, top1=0.90), run_row(seed=2, top1=0.94)), uri)
    assert done == Mirrored(new=2, settings=1)
    store = Read(uri)
    assert store.experiment.tags["mlflow.note.content"] == "Which?"
    (parent,) = store.parents.values()
    metrics = parent.data.metrics
    assert metrics["test.top1.mean"] == pytest.approx(0.92)
    assert metrics["test.top1.n"] == 2
    assert metrics["test.top1.low"] < 0.92 < metrics["test.top1.high"]
    assert not any(name.startswith(("test.nll", "test.per_class")) for name in metrics)
    assert "seed" not in parent.data.params
    assert parent.data.params["optimizer.lr"] == "0.003"
    child = store.children["focal-2"]
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.info.run_name == "seed 2 · focal · digits · cnn_micro"
    assert child.info.status == parent.info.status == "FINISHED"
    assert child.info.end_time - child.info.start_time == 30_000
    assert child.data.params["seed"] == "2"
    assert "loss.alpha" not in child.data.params
    assert child.data.metrics["test.top1"] == 0.94
    assert child.data.metrics["selected.valid.top1"] == 0.8
    assert store.curve("focal-2", "valid.top1") == [(1, 0.71), (2, 0.72), (3, 0.73)]
    with open(store.file("focal-2", "config.json")) as file:
        assert json.load(file) == {"optimizer.lr": 0.003, "trainer.epochs": EPOCHS}
    with open(store.file("focal-2", "environment.json")) as file:
        assert json.load(file)["env.commit"] == "c0ffee"


def test_mirroring_again_changes_nothing(uri):
    study = study_of(run_row(), run_row("dice"), run_row("dice", 2, "missing"))
    mirror(study, uri)
    before = sqlite_content(uri)
    assert mirror(study, uri) == Mirrored(unchanged=2)
    assert sqlite_content(uri) == before


def sqlite_content(uri):
    import sqlite3

    with contextlib.closing(sqlite3.connect(database_of(uri))) as connection:
        return list(connection.iterdump())


def test_further_seeds_update_the_parent(uri):
    mirror(study_of(run_row(seed=1, top1=0.90), run_row(seed=2, status="missing")), uri)
    first = Read(uri)
    assert first.parents["focal · digits · cnn_micro"].data.tags["lossbench.seeds"] == "1 of 2 done, 1 not run yet"
    done = mirror(study_of(run_row(seed=1, top1=0.90), run_row(seed=2, top1=0.80)), uri)
    assert done == Mirrored(new=1, unchanged=1, settings=1)
    (before,), (after,) = first.parents.values(), Read(uri).parents.values()
    assert after.info.run_id == before.info.run_id
    assert (before.data.metrics["test.top1.mean"], before.data.metrics["test.top1.n"]) == (0.9, 1)
    assert (after.data.metrics["test.top1.mean"], after.data.metrics["test.top1.n"]) == (pytest.approx(0.85), 2)
    assert "test.top1.low" not in before.data.metrics
    assert "test.top1.low" in after.data.metrics


def test_an_interval_that_no_longer_holds_is_withdrawn(uri):
    mirror(study_of(run_row(seed=1, top1=0.90), run_row(seed=2, top1=0.80)), uri)
    mirror(study_of(run_row(seed=1, top1=0.90)), uri)
    (parent,) = Read(uri).parents.values()
    assert parent.data.metrics["test.top1.mean"] == 0.9
    assert math.isnan(parent.data.metrics["test.top1.low"])


def test_a_failed_run_is_replaced_once_it_is_done(uri):
    failed = run_row(status="failed", error="ValueError: no", traceback="Traceback: no")
    assert mirror(study_of(failed), uri).new == 1
    first = Read(uri)
    assert first.children["focal-1"].info.status == "FAILED"
    assert first.children["focal-1"].data.tags["lossbench.error"] == "ValueError: no"
    with open(first.file("focal-1", "traceback.txt")) as file:
        assert file.read() == "Traceback: no"
    assert mirror(study_of(run_row()), uri) == Mirrored(updated=1, settings=1)
    child = Read(uri).children["focal-1"]
    assert child.info.status == "FINISHED"
    assert "lossbench.error" not in child.data.tags


def test_a_diverged_run_is_failed_and_keeps_its_curve(uri):
    row = run_row(status="diverged", diverged_step=25.0, last_finite_loss=80.0)
    mirror(study_of(row, run_row(seed=2), history=history_rows(row, (4.0, math.inf, math.nan))), uri)
    store = Read(uri)
    child = store.children["focal-1"]
    assert child.info.status == "FAILED"
    assert child.data.tags["lossbench.status"] == "diverged"
    assert child.data.tags["lossbench.diverged_step"] == "25"
    assert child.data.tags["lossbench.nonfinite.train.loss"] == "inf in epoch 2, nan in epoch 3"
    assert "lossbench.nonfinite.valid.nll" not in child.data.tags
    assert store.curve("focal-1", "train.loss") == [(1, 4.0)]
    (parent,) = store.parents.values()
    assert parent.data.metrics["diverged"] == 1
    assert parent.data.metrics["test.top1.n"] == 1


def test_roles_have_parents_of_their_own(uri):
    rows = [
        run_row("cross_entropy"),
        run_row("cross_entropy", 1001, role="baseline_repeat", pair_seed=1),
        run_row("worse", role="negative_control"),
    ]
    trials = [
        run_row(seed=7001, role="search", key=f"trial-{lr}", setting=f"setting-{lr}", **{"config.optimizer.lr": lr})
        for lr in (0.001, 0.003)
    ]
    assert mirror(study_of(*rows, *trials), uri) == Mirrored(new=5, settings=4)
    store = Read(uri)
    names = {f"{name} · digits · cnn_micro{role}" for name, role in (
        ("cross_entropy", ""), ("cross_entropy", " (other seeds)"), ("worse", " (negative control)"),
        ("focal", " (search)"))}  # fmt: skip
    assert set(store.parents) == names
    search = store.parents["focal · digits · cnn_micro (search)"]
    assert "test.top1.mean" not in search.data.metrics
    assert "optimizer.lr" not in search.data.params
    assert store.children["trial-0.001"].info.run_name.startswith("lr 0.001, seed 7001 · focal")
    assert store.children["cross_entropy-1001"].info.run_name.startswith("seed 1001 against 1 · ")


def test_scores_on_shifted_data_are_mirrored_and_averaged(uri):
    rows = [run_row(seed=seed, **{"shifted.blur.top1": score}) for seed, score in ((1, 0.5), (2, 0.7))]
    mirror(study_of(*rows), uri)
    store = Read(uri)
    assert store.children["focal-2"].data.metrics["shifted.blur.top1"] == 0.7
    (parent,) = store.parents.values()
    assert parent.data.metrics["shifted.blur.top1.mean"] == pytest.approx(0.6)
    assert parent.data.metrics["shifted.blur.top1.n"] == 2


def test_different_devices_are_not_averaged(uri):
    mirror(study_of(run_row(seed=1), run_row(seed=2, **{"env.device": "cuda"})), uri)
    (parent,) = Read(uri).parents.values()
    assert "test.top1.mean" not in parent.data.metrics
    assert "device" in parent.data.tags["mlflow.note.content"]


def test_long_runs_are_sent_in_batches(uri):
    row = run_row(**{f"config.trainer.extra{number}": number for number in range(150)})
    mirror(study_of(row, history=history_rows(row, [1 / epoch for epoch in range(1, 701)])), uri)
    store = Read(uri)
    assert len(store.curve("focal-1", "train.loss")) == len(store.curve("focal-1", "valid.top1")) == 700
    assert store.children["focal-1"].data.params["trainer.extra149"] == "149"


def test_a_mirror_that_was_killed_half_way_is_completed(uri, monkeypatch):
    def killed(*_, **__):
        raise KeyboardInterrupt

    study = study_of(run_row(), run_row("dice"))
    with monkeypatch.context() as patch:
        patch.setattr(Mirror, "_attach", killed)
        with pytest.raises(KeyboardInterrupt):
            mirror(study, uri)
    assert mirror(study, uri) == Mirrored(new=1, updated=1, settings=1)
    assert mirror(study, uri) == Mirrored(unchanged=2)
    assert {run.info.status for run in Read(uri).children.values()} == {"FINISHED"}


def test_what_was_deleted_in_the_dashboard_comes_back(uri):
    study = study_of(run_row(), run_row(seed=2))
    mirror(study, uri)
    store = Read(uri)
    store.client.delete_run(store.children["focal-2"].info.run_id)
    assert mirror(study, uri) == Mirrored(new=1, unchanged=1)
    (parent,) = store.parents.values()
    store.client.delete_run(parent.info.run_id)
    assert mirror(study, uri) == Mirrored(updated=2, settings=1)
    store.client.delete_experiment(store.experiment.experiment_id)
    done = mirror(study, uri)  # restoring the experiment brings back the runs deleted before it, too
    assert (done.updated + done.unchanged, done.skipped) == (2, 0)
    restored = Read(uri)
    assert len(restored.client.search_runs([store.experiment.experiment_id])) == 3
    assert mirror(study, uri) == Mirrored(unchanged=2)


def test_runs_of_other_origin_are_left_alone(uri):
    study = study_of(run_row())
    mirror(study, uri)
    store = Read(uri)
    others = [store.client.create_run(store.experiment.experiment_id).info.run_id for _ in range(2)]
    assert mirror(study, uri) == Mirrored(unchanged=1)
    assert {store.client.get_run(run_id).info.lifecycle_stage for run_id in others} == {"active"}


def test_a_report_knows_where_its_runs_are_in_the_dashboard(uri, tmp_path, monkeypatch):
    mirror(study_of(run_row()), uri)
    number = Read(uri).experiment.experiment_id
    found = runs_address("trial", uri)
    assert found == f"http://127.0.0.1:5000/#/experiments/{number}/runs?workflowType=machine_learning&searchFilter="
    assert not runs_address("unheard", uri)
    assert not runs_address("trial", f"sqlite:///{tmp_path / 'absent.db'}")
    assert not runs_address("trial", "http://elsewhere:5000")
    (tmp_path / "damaged.db").write_bytes(b"no database" * 100)
    assert not runs_address("trial", f"sqlite:///{tmp_path / 'damaged.db'}")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    page = report.build(synthetic.study(seeds=(1, 2), mishaps=False, name="trial"), tmp_path / "page").read_text()
    link = re.search(rf'<a href="{re.escape(found).replace("&", "&amp;")}([^"]*)"><code>(\w+)</code>', page)
    assert urllib.parse.unquote(link[1]) == f"tags.`lossbench.key` = '{link[2]}'"
    assert f'id="run-{link[2]}"' in page


def test_a_store_without_room_for_files_gets_everything_else(uri, monkeypatch):
    def refuse(*_, **__):
        raise OSError("no credentials")

    from mlflow.tracking import MlflowClient

    monkeypatch.setattr(MlflowClient, "log_artifacts", refuse)
    done = mirror(study_of(run_row(), run_row(seed=2)), uri)
    assert (done.new, done.skipped) == (2, 0)
    assert "no credentials" in done.reason


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_server_that_is_not_there_costs_seconds_and_one_sentence(capfd):
    started = time.monotonic()
    done = mirror(study_of(run_row(), run_row(seed=2, status="missing")), f"http://me:secret@127.0.0.1:{free_port()}")
    assert time.monotonic() - started < 30  # MLflow alone: 246 s
    assert done.skipped == 1
    assert "secret" not in done.reason
    assert "Connection refused" in done.reason
    assert "python -m harness.tracking trial" in done.reason
    assert "\n" not in done.reason
    assert capfd.readouterr() == ("", "")


def goes(*_):
    """Close the connection without a word."""


def breaks_off(request, _):
    """Go away half way through an answer."""
    request.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n{")


def waits(_, over):
    """Keep the connection and never answer."""
    over.wait(60)


def dribbles(request, over):
    """Begin an answer and never end it."""
    request.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while not over.wait(0.05):
        request.sendall(b" ")


def floods(request, over):
    """Begin an answer and never end it, as fast as it is read."""
    request.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")
    while not over.is_set():
        request.sendall(bytes(1 << 20))


class Faulty(socketserver.ThreadingTCPServer):
    """Passes so many requests on to a server on loopback; what comes after them meets a fault."""

    daemon_threads = True

    def __init__(self, fault, passed=0, port=0):
        self.fault, self.passed, self.port, self.over = fault, passed, port, threading.Event()
        super().__init__(("127.0.0.1", 0), Connection)

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __exit__(self, *_):
        self.over.set()
        self.shutdown()
        self.server_close()


class Connection(socketserver.BaseRequestHandler):
    """One connection to a ``Faulty`` server."""

    def handle(self):
        here, faulty = self.request, self.server
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            there = None
            while not faulty.over.is_set():
                for source in select.select([here, there] if there else [here], [], [], 0.05)[0]:
                    if not (content := source.recv(1 << 16)):
                        return
                    if source is here and b" HTTP/1.1\r\n" in content:
                        faulty.passed -= 1
                    if faulty.passed < 0:
                        return faulty.fault(here, faulty.over)
                    there = there or stack.enter_context(socket.create_connection(("127.0.0.1", faulty.port)))
                    (there if source is here else here).sendall(content)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setattr(Bounded.__init__, "__defaults__", (0.5, 0.1))


@pytest.mark.parametrize(
    ("fault", "words"),
    [(goes, ""), (breaks_off, ""), (waits, "within 0.5 s"), (dribbles, "no whole answer within 0.5 s")],
)
def test_a_server_that_does_not_answer_as_it_should_costs_a_bounded_time(fault, words, impatient):
    with Faulty(fault) as url:
        started = time.monotonic()
        done = mirror(study_of(run_row()), url)
    assert time.monotonic() - started < 30
    assert (done.new, done.skipped) == (0, 1)
    assert words in done.reason
    assert "no result is lost" in done.reason


def test_an_answer_that_floods_is_cut_off_before_memory_is_full(impatient, monkeypatch):
    monkeypatch.setattr(Bounded.__init__, "__defaults__", (60.0, 1.0))
    monkeypatch.setattr("harness.tracking.store.ANSWER_BYTES", 1 << 24)
    with Faulty(floods) as url:
        done = mirror(study_of(run_row()), url)
    assert done.skipped == 1
    assert "does not end" in done.reason


def test_a_server_that_is_always_slow_is_given_up_however_many_calls_there_are():
    calls = []

    class Slow:
        def search_runs(self):
            calls.append(time.sleep(0.05))

    client = Bounded(Slow(), 0.3, 0.01)
    with pytest.raises(TimeoutError, match=r"more than 0\.01 s an answer"):
        list(iter(client.search_runs, "never"))
    assert len(calls) < 20


def test_an_answer_is_cut_off_also_where_a_library_swallows_the_first_alarm():
    def stubborn():
        with contextlib.suppress(OSError):
            time.sleep(60)
        time.sleep(60)

    started, before = time.monotonic(), signal.getsignal(signal.SIGALRM)
    with pytest.raises(TimeoutError, match=r"no whole answer within 0\.1 s"), cut_off(0.1):
        stubborn()
    assert time.monotonic() - started < 30
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_a_list_of_runs_that_does_not_end_is_left(uri, monkeypatch):
    mirror(study_of(run_row()), uri)

    class Page(list):
        token = "more"

    from mlflow.tracking import MlflowClient

    monkeypatch.setattr(MlflowClient, "search_runs", lambda *_, **__: Page())
    done = mirror(study_of(run_row()), uri)
    assert done.skipped == 1
    assert "does not end" in done.reason


def test_what_a_server_says_cannot_steer_a_terminal():
    assert sentence(ValueError("no \x1b[2J\u202eroom\nmore")) == "no  [2J room"


def test_a_store_is_made_whole_or_not_at_all(tmp_path, monkeypatch):
    database = tmp_path / "mlflow.db"

    def cut(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("mlflow.tracking.MlflowClient.search_experiments", cut)
        with pytest.raises(KeyboardInterrupt):
            make(database)
    assert not database.exists()
    (tmp_path / ".mlflow.db.1.part").write_text("half")
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE _alembic_tmp_metrics (x)")
    make(database)
    assert (tmp_path / "mlflow.db.damaged").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlflow.db", "mlflow.db.damaged"]
    with contextlib.closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,)
    before = database.stat().st_mtime_ns
    make(database)
    assert database.stat().st_mtime_ns == before


@pytest.mark.parametrize("held", ["", "runs", "experiments"])
def test_a_half_between_two_versions_is_set_aside_unless_it_holds_something(held, empty_store, uri):
    """As MLflow leaves it, killed when the tables of a version are there and its number is not yet."""
    database = database_of(uri)
    if held:
        mirror(study_of(*[run_row()] * (held == "runs")), uri)
    with contextlib.closing(sqlite3.connect(database)) as connection:
        if not held:
            connection.execute("DELETE FROM experiments WHERE experiment_id != 0")
        connection.execute("UPDATE alembic_version SET version_num = 'before'")
        connection.commit()
    before = database.read_bytes()
    make(database)
    aside = database.with_name("mlflow.db.damaged")
    assert aside.exists() == (not held)
    assert (database.read_bytes() == before) == bool(held)
    if not held:
        assert mirror(study_of(run_row()), uri) == Mirrored(new=1, settings=1)


def test_what_a_killed_writer_noted_does_not_undo_a_new_store(tmp_path):
    """A journal beside an empty or absent database: the first transaction of MLflow was cut."""
    database = tmp_path / "mlflow.db"
    journal = tmp_path / "mlflow.db-journal"
    script = f"""if True:
        import os, signal, sqlite3
        connection = sqlite3.connect({str(database)!r}, isolation_level=None)
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("BEGIN")
        connection.execute("CREATE TABLE half (x)")
        for _ in range(200):
            connection.execute("INSERT INTO half VALUES (zeroblob(2000))")
        os.kill(os.getpid(), signal.SIGKILL)"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -signal.SIGKILL
    assert journal.stat().st_size
    database.write_bytes(b"")
    make(database)
    with contextlib.closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,)
    assert not journal.exists()


def test_a_file_that_is_no_database_costs_seconds(tmp_path):
    path = tmp_path / "mlflow.db"
    path.write_text("not a database, but long enough to be taken for one at first sight " * 20)
    started = time.monotonic()
    done = mirror(study_of(run_row()), f"sqlite:///{path}")
    assert time.monotonic() - started < 30
    assert "not a database" in done.reason
    with pytest.raises(UsageError, match="not a database"):
        ui_command(f"sqlite:///{path}")


def test_a_store_that_was_moved_is_not_written(uri, tmp_path):
    mirror(study_of(run_row()), uri)
    (tmp_path / "with space").rename(tmp_path / "moved")
    done = mirror(study_of(run_row()), f"sqlite:///{tmp_path / 'moved' / 'mlflow.db'}")
    assert done.skipped == 1
    assert "delete it" in done.reason


def test_two_mirrors_do_not_write_at_once(uri, monkeypatch):
    monkeypatch.setattr("harness.tracking.store.LOCK_WAIT_S", 0.2)
    with alone(uri, "other"):
        done = mirror(study_of(run_row()), uri)
    assert done.skipped == 1
    assert "another mirror" in done.reason


def test_a_live_mirror_sees_what_another_wrote_meanwhile(uri):
    one, both = study_of(run_row()), study_of(run_row(), run_row(seed=2))
    _, live = attempt(one, uri, None)
    assert mirror(both, uri).new == 1
    done, _ = attempt(both, uri, live)
    assert done == Mirrored(unchanged=2)


def test_a_live_mirror_looks_only_once_if_nobody_else_writes(uri, monkeypatch):
    _, live = attempt(study_of(run_row()), uri, None)
    monkeypatch.setattr(Mirror, "_open", None)
    done, _ = attempt(study_of(run_row(), run_row(seed=2)), uri, live)
    assert done == Mirrored(new=1, unchanged=1, settings=1)


@contextlib.contextmanager
def dashboard(uri, folder):
    """The dashboard (a real tracking server on loopback) as `make ui` starts it; yields its address and its words."""
    port = free_port()
    words = folder / "words.txt"
    command = [
        sys.executable,
        "-m",
        "harness.tracking",
        "ui",
        "--uri",
        uri,
        "--port",
        str(port),
        "--results",
        str(folder),
    ]
    with words.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, cwd=ROOT, start_new_session=True)
    try:
        wait_for(lambda: "Ctrl-C" in words.read_text() or process.poll() is not None, 180)
        assert process.poll() is None, words.read_text() + (folder / "dashboard.log").read_text()
        yield f"http://127.0.0.1:{port}", words
        os.killpg(process.pid, signal.SIGINT)  # what Ctrl-C does
        assert process.wait(30) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_real_server_holds_what_was_mirrored_also_after_it_was_gone_half_way(uri, tmp_path, monkeypatch):
    mirror(study_of(run_row(), name="local"), uri)
    study = study_of(run_row(seed=1, top1=0.90), run_row(seed=2, top1=0.94))
    with dashboard(uri, tmp_path) as (url, words):
        assert f"local  {url}/#/experiments/2/runs?" in words.read_text()
        assert mirror(study, url) == Mirrored(new=2, settings=1)
        assert mirror(study, url) == Mirrored(unchanged=2)
        store = Read(url)
        (parent,) = store.parents.values()
        assert parent.data.metrics["test.top1.mean"] == pytest.approx(0.92)
        assert store.curve("focal-1", "train.loss") == [(1, 1.0), (2, 0.5), (3, 0.25)]
        with open(store.file("focal-2", "config.json")) as file:
            assert json.load(file)["trainer.epochs"] == EPOCHS
        with open(Read(url, "local").file("focal-1", "config.json")) as file:
            assert json.load(file)["trainer.epochs"] == EPOCHS
        for passed, fault in ((1, waits), (4, goes), (7, dribbles), (10, breaks_off)):
            study = study_of(run_row(seed=1), run_row(seed=2), name=f"cut {passed}")
            with monkeypatch.context() as hasty:
                hasty.setattr(Bounded.__init__, "__defaults__", (1.0, 0.5))
                with Faulty(fault, passed, int(url.rpartition(":")[2])) as behind:
                    cut = mirror(study, behind)
            assert cut.skipped
            assert "no result is lost" in cut.reason
            assert (done := mirror(study, url)).skipped == 0
            assert done.new + done.updated + done.unchanged == 2
            assert mirror(study, url) == Mirrored(unchanged=2)
            store = Read(url, study.name)
            assert {run.info.status for run in store.children.values()} == {"FINISHED"}
            assert len(store.client.search_runs([store.experiment.experiment_id])) == 3
    assert "Traceback" not in words.read_text()


def wait_for(condition, seconds=240):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.5)


def write_results(results, rows):
    """Lay out what a sweep leaves on disk; rows that are missing are planned only."""
    folder = results / "trial"
    folder.mkdir(parents=True, exist_ok=True)
    asked = {"question": "Which?", "axes": {}, "baseline": "cross_entropy", "metric": "test.top1"}
    (folder / "study.json").write_text(json.dumps(asked))
    frame = pd.DataFrame(rows)
    frame[["key", "role", "label", "seed", "pair_seed", "setting", "dataset", "model", "loss"]].to_csv(
        folder / "runs.csv", index=False)  # fmt: skip
    for row in rows:
        if row["status"] == "done":
            own = results / "runs" / row["key"]
            own.mkdir(parents=True, exist_ok=True)
            pd.DataFrame(history_rows(row)).drop(columns="key").to_csv(own / "history.csv", index=False)
            record = {
                "key": row["key"],
                "seed": row["seed"],
                "status": "done",
                "started": row["started"],
                "finished": row["finished"],
                "test": {"top1": row["test.top1"]},
            }
            record |= {"config": {"optimizer": {"lr": 0.003}}}
            (own / "record.json").write_text(json.dumps(store.sealed(record)))


def test_a_live_mirror_follows_a_sweep_and_outlives_its_death(uri, tmp_path):
    """Killed like ``kill -9`` of the sweep, right after a second run was finished."""
    results = tmp_path / "results"
    write_results(results, [run_row(), run_row(seed=2, status="missing")])
    script = f"import time, pathlib; from harness.tracking import LiveMirror; live = LiveMirror('trial', {uri!r}, "
    script += f"results=pathlib.Path({str(results)!r}), first_s=1); time.sleep(600)"
    sweep = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)
    try:
        wait_for(lambda: set(Read(uri).children) == {"focal-1"})
        write_results(results, [run_row(), run_row(seed=2)])
    finally:
        sweep.kill()
        sweep.wait()
    wait_for(lambda: "MLflow has the study trial: 1 new" in (results / "trial" / "mirror.log").read_text())
    assert set(Read(uri).children) == {"focal-1", "focal-2"}


def test_a_live_mirror_tries_a_failing_store_less_and_less_often_and_says_once_why(tmp_path, monkeypatch, capsys):
    pauses = []

    def stopped(*given):
        pauses.append(given[-1])
        return ([sys.stdin] if len(pauses) == 12 else [], [], [])

    monkeypatch.setattr("harness.tracking.live.select", types.SimpleNamespace(select=stopped))
    monkeypatch.setattr("harness.tracking.live.attempt", lambda *_: (Mirrored(reason="nobody there"), None))
    monkeypatch.setattr(records, "finished", lambda _: frozenset())
    monkeypatch.setattr(records, "load_study", lambda *_: None)
    assert follow("trial", "http://127.0.0.1:1", tmp_path, first_s=1) == "nobody there"
    assert pauses[1:4] == [10, 20, 40]
    assert pauses[-1] == RETRY_S
    assert capsys.readouterr().out == "nobody there\n"


def test_a_sweep_does_not_wait_long_for_its_mirror(tmp_path):
    live = LiveMirror("nothing", results=tmp_path, wait_s=0)
    started = time.monotonic()
    assert "background" in live.close()
    assert time.monotonic() - started < 1
    assert live.close() == live.outcome
    live.process.wait(60)
    assert "no records of a study 'nothing'" in (tmp_path / "nothing" / "mirror.log").read_text()


def test_a_mirror_that_ends_in_time_says_what_it_did(tmp_path):
    with LiveMirror("nothing", results=tmp_path, wait_s=60) as live:
        pass
    assert "no records of a study 'nothing'" in live.outcome


def test_the_command_mirrors_and_says_so(uri, tmp_path, capsys):
    write_results(tmp_path, [run_row()])
    assert main(["trial", "--uri", uri, "--results", str(tmp_path)]) == 0
    assert "1 new, 0 updated" in capsys.readouterr().out
    assert main(["unheard", "--uri", uri, "--results", str(tmp_path)]) == 2
    assert "no records of a study 'unheard'" in capsys.readouterr().err


def test_help_needs_no_mlflow():
    code = "import sys; from harness.tracking.__main__ import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "sys.exit('mlflow' in sys.modules or 'pandas' in sys.modules or 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0
    assert b"--uri" in done.stdout


def test_the_dashboard_refuses_a_taken_port_and_an_empty_store(empty_store, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"--port {port + 1}"):
            ui_command(f"sqlite:///{empty_store}", port)
    with pytest.raises(UsageError, match="no port"):
        ui_command(f"sqlite:///{empty_store}", 99999)
    with pytest.raises(UsageError, match="make demo"):
        ui_command(f"sqlite:///{tmp_path / 'none.db'}")
    with pytest.raises(UsageError, match="dashboard"):
        ui_command("http://127.0.0.1:1")


def test_the_default_store_lies_beside_the_records(monkeypatch, tmp_path):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert default_uri(tmp_path) == f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert default_uri(tmp_path) == "http://127.0.0.1:1"
