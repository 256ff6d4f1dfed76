"""What several test modules share: the repository's root, short runs, and the command line in a process of its own."""

import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRATCH = Path(tempfile.mkdtemp())  # where planning keeps what it finds out of the code
atexit.register(shutil.rmtree, SCRATCH, ignore_errors=True)
DATA = {"root": "nowhere", "download": False}
FEED = {"_target_": "harness.feeds.resident.Resident"}
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def server():
    """The server of commands that need not start from nothing."""
    from tests.warm import Server

    found = Server(ROOT, _plain())
    yield found
    found.close()


def _plain():
    return {k: v for k, v in os.environ.items() if k not in ("LOSSBENCH_DATA", "PYTHONDONTWRITEBYTECODE")}


@pytest.fixture
def cli(request, tmp_path):
    """Run ``python -m MODULE arguments`` from the root with results in a folder of its own.

    The process is forked from one that has imported the libraries; ``cold``: it starts from nothing, as does one that
    is only started, and one whose environment a library may read while it is imported.
    """
    from tests.warm import PLAIN

    environment = _plain() | {"LOSSBENCH_RESULTS": str(tmp_path / "results")}

    def call(*arguments, timeout=300, start=False, deaf=False, cold=False, **more):
        if not (cold or start or sys.platform == "win32") and all(name.startswith(PLAIN) for name in more):
            server = request.getfixturevalue("server")
            return server.run([*map(str, arguments)], environment | more, tmp_path, timeout)

        def set_ears():  # a shell makes all deaf to Ctrl-C that it starts in the background, the tests too
            signal.signal(signal.SIGINT, signal.SIG_IGN if deaf else signal.SIG_DFL)

        command = [sys.executable, "-m", *map(str, arguments)]
        settings = {
            "cwd": ROOT,
            "env": environment | more,
            "text": True,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
        }
        if start:
            return subprocess.Popen(command, preexec_fn=set_ears, **settings)
        return subprocess.run(command, timeout=timeout, check=False, **settings)

    call.results = tmp_path / "results"
    return call


@pytest.fixture
def spec():
    """Return what decides a short run on digits: ``spec("loss=focal", "trainer.epochs=2")``."""
    from harness import address, compose

    def make(*overrides):
        return address.spec_of(compose.compose_run(["device=cpu", "trainer.epochs=1", *overrides]).config)

    return make


@pytest.fixture
def job():
    """Return a job: ``job(spec("loss=focal"), seed=3)``; it writes a checkpoint only where it is stopped."""
    from harness.training.job import Job

    def make(spec, seed=1, **changes):
        known = {"key": "0" * 16, "choices": {}, "label": "x", "role": "run", "data": DATA, "feed": FEED}
        saved = {"folder": "nowhere", "checkpoint_seconds": 1e9, "environment": {}, "identity": {}}
        return Job(spec=spec, seed=seed, **known | saved | changes)

    return make


@pytest.fixture
def loop(spec, job):
    """Return a training loop on digits: ``loop("loss=focal", seed=3)``."""
    from harness.training.loop import Loop

    def make(*overrides, seed=1):
        return Loop(job(spec(*overrides), seed))

    return make


@pytest.fixture
def two_roles(tmp_path, monkeypatch):
    """A copy of conf/ in which the task ``two_roles`` has a loss for boxes and one for classes; its folder."""
    from harness import compose, paths

    conf = tmp_path / "conf"
    shutil.copytree(paths.CONF, conf)
    (conf / "task" / "two_roles.yaml").write_text(TWO_ROLES)
    for module in ("harness.compose", "harness.run"):
        monkeypatch.setattr(f"{module}.CONF", conf)
    caches = (compose.roles, compose.option)
    for cache in caches:
        cache.cache_clear()
    yield conf
    for cache in caches:
        cache.cache_clear()


TWO_ROLES = """# @package _global_
defaults:
  - /dataset: scenes
  - /model: cnn_grid
  - /loss@loss.boxes: giou
  - /loss@loss.classes: cross_entropy
  - /trainer: short
  - _self_
task:
  _target_: tests.test_seam.SizedBoxes
  weights: {boxes: 1.0, classes: 0.5}
negative_control: {boxes: negative_control_high}
"""


def carried_out(loop, folder, stop=lambda: False):
    """Train a loop to its end, or until ``stop``; return its record."""
    return loop.run(folder, stop, lambda *_: None)[0]


def read_records(results):
    """Return the records below a results folder by key."""
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(Path(results).glob("runs/*/record.json"))}


def lacks(what):
    """Skip a test for want of a program that pip does not install; fail where all are said to be there, as in CI."""
    if os.environ.get("LOSSBENCH_TEST_TOOLS") == "required":
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture
def recorded():
    return read_records


@pytest.fixture(scope="session")
def browser():
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
    if found is None:
        lacks("no Chromium on the PATH to open the page with")
    from playwright.sync_api import sync_playwright  # here, for the tests that a machine without it can carry out

    with sync_playwright() as running:
        quiet = ["no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
                 "disable-component-update", "disable-sync"]  # fmt: skip
        opened = running.chromium.launch(executable_path=found, args=[f"--{flag}" for flag in quiet])
        yield opened
        opened.close()


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Return a function that writes a module of the user's under a name of its own, as a new process would see it."""
    folder = tmp_path / "own"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)

    def write(name, text):
        file = folder / f"{name}.py"
        file.write_text(text)
        os.utime(file, ns=(time.time_ns(), time.time_ns()))
        sys.modules.pop(name, None)
        shutil.rmtree(folder / "__pycache__", ignore_errors=True)

    yield write
    for name in ("own_loss", "own_model", "my_models"):
        sys.modules.pop(name, None)
