"""Carry out the command lines of tests/wrong_commands.txt in this process, and print as JSON how each ended.

Nothing is trained: a run that gets so far that its training would begin has ended wrongly. The pre-flight check of a
study, which workers do, is done in this process.
"""

import contextlib
import functools
import importlib
import io
import json
import shlex
import signal
import sys
import time
import traceback
import types
from pathlib import Path


class InThisProcess:
    """Stands for an engine: it checks jobs here, and trains none."""

    size = 1

    def __init__(self, device, threads, **settings):
        from harness.engines.local import LocalEngine

        LocalEngine(device, threads, **settings)  # refuses what it cannot do; it starts no worker by itself

    def run(self, jobs):
        from harness.engines.engine import Event
        from harness.training.job import check

        for job in jobs:
            assert job.only_check, "training begins"
            yield Event("checked", job, 0, {"problem": check(job)})

    def stop(self):
        pass


def begun(*_, **__):
    raise AssertionError("training or a server begins")


def outcome(module, line):
    """Return the exit code of a command line, or the error it ended in, and what it printed."""
    main = importlib.import_module(f"{module}.__main__" if module != "harness.run" else module).main
    arguments, out, err = shlex.split(line), io.StringIO(), io.StringIO()
    sys.argv[1:] = arguments
    code = None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(arguments)
        except SystemExit as error:
            code = error.code
        except BaseException:
            err.write(traceback.format_exc())
    return {"code": code, "out": out.getvalue(), "err": err.getvalue()}


def files(results):
    """Return the files below the results, but for journals of what can be worked out again."""
    return sorted(str(path) for path in results.rglob("*") if path.is_file() and path.suffix != ".jsonl")


def compose_once():
    """Let no YAML be parsed and nothing be composed twice: with Hydra that is most of the time."""
    import yaml
    from hydra._internal.hydra import Hydra
    from omegaconf import OmegaConf
    from omegaconf._utils import get_yaml_loader

    from harness import compose

    composed = functools.cache(lambda overrides, compose=compose._composed: compose(overrides))
    compose._composed = lambda overrides: composed(tuple(overrides))
    parsed = functools.cache(lambda text: yaml.load(text, Loader=get_yaml_loader()) or {})

    def load(file):
        return OmegaConf.create(parsed(file.read() if hasattr(file, "read") else Path(file).read_text()))

    OmegaConf.load = load
    Hydra.get_mode = lambda *_, **__: None  # it would compose all to find hydra.mode, which no config of ours has


def main():
    """Carry out every line and print what came of it."""
    from harness import tracking
    from harness.engines import engine
    from harness.paths import RESULTS
    from harness.tracking import dashboard
    from harness.training import job

    engine.get_class = lambda target: InThisProcess
    job.carry_out = tracking.LiveMirror = begun
    dashboard.subprocess = types.SimpleNamespace(Popen=begun)
    sys.argv[0] = "refusals"
    compose_once()
    lines = (Path(__file__).parent / "wrong_commands.txt").read_text().splitlines()
    found, before = [], files(RESULTS)
    for line, words in (line.split("  =>  ") for line in lines if not line.startswith("#")):
        module, _, arguments = line.partition(" ")
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        began = time.monotonic()
        ended = outcome(module, arguments)
        found.append({"command": line, "words": words, **ended, "seconds": time.monotonic() - began})
        found[-1]["written"] = sorted(set(files(RESULTS)) - set(before))
        before = files(RESULTS)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
