"""Requests that make no sense end in one sentence and exit code 2, before anything is trained or written."""

import importlib
import shlex
from pathlib import Path

import pytest

from harness.engines import local
from harness.engines.local import Event
from harness.training import job

LINES = (Path(__file__).parent / "wrong_commands.txt").read_text().splitlines()
COMMANDS = [tuple(line.split("  =>  ")) for line in LINES if not line.startswith("#")]
IDS = [line for line, _ in COMMANDS]


class InProcess:
    """An engine that checks runs here, one after the other, and trains none."""

    def __init__(self, *_, workers=None, **__):
        pass

    def run(self, jobs):
        """Yield what the checks of ``jobs`` find."""
        for each in jobs:
            assert each.only_check, f"nobody objected, so {each.label} would have been trained"
            yield Event("checked", each, 0, {"problem": job.check(each)})

    def stop(self):
        """There is no worker to stop."""


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(local.LocalEngine, "__new__", lambda cls, *a, **k: object.__new__(cls))
    monkeypatch.setattr(local.LocalEngine, "run", InProcess.run)
    monkeypatch.setattr(job, "carry_out", lambda *_: pytest.fail("nobody objected, so a run would have been trained"))
    for name in ("harness.paths", "harness.records.store", "harness.records", "harness.studies.sweep", "harness.plan"):
        module = importlib.import_module(name)
        if hasattr(module, "RESULTS"):
            monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    return tmp_path / "results"


@pytest.mark.parametrize(("line", "words"), COMMANDS, ids=IDS)
def test_a_wrong_command_ends_in_one_sentence(line, words, results, capsys):
    module, *arguments = shlex.split(line)
    main = importlib.import_module(
        module if module.count(".") and module == "harness.run" else f"{module}.__main__"
    ).main
    try:
        code = main(arguments)
    except SystemExit as ended:
        code = ended.code
    told = capsys.readouterr().err.strip().splitlines()
    assert code == 2
    assert words in told[-1]
    assert len(told) == 1 or told[0].startswith("usage:")
    assert "Traceback" not in "".join(told)
    assert "enough memory" not in "".join(told)
    assert not [path for path in results.rglob("*") if path.is_file()] if results.exists() else True
