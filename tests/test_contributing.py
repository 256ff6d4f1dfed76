"""CONTRIBUTING.md is carried out word for word: its files go into a copy of the checkout, its commands run there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("conf", "datasets", "harness", "losses", "scripts", "tests")


def blocks():
    """The fenced blocks of the page in order: language, text."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", (ROOT / "CONTRIBUTING.md").read_text(), flags=re.M | re.S)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the code with everything that the page adds."""
    there = tmp_path_factory.mktemp("checkout")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, there / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "results" / "published", there / "results" / "published")
    shutil.copy(ROOT / "pyproject.toml", there)
    for language, text in blocks():
        if language == "sh":
            continue
        name, _, content = text.partition("\n")
        path = there / name.removeprefix("# ")
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.read_text() if path.exists() else ""  # a function is added to its family's file
        path.write_text(f"{before}\n\n{content}" if before else content)
    return there


SHELL = [text for language, text in blocks() if language == "sh"]
COMMANDS = [line for text in SHELL for line in text.splitlines() if "make " not in line]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_page_works(copy, command):
    environment = os.environ | {"LOSSBENCH_RESULTS": str(copy / "results"), "PYTHONPATH": ""}
    arguments = [sys.executable, *command.split()[1:]]
    given = {"cwd": copy, "env": environment, "timeout": 600, "check": False}
    done = subprocess.run(arguments, capture_output=True, text=True, **given)
    assert done.returncode == 0, done.stdout + done.stderr
    if "pytest" in command:
        assert re.search(r"\d+ passed", done.stdout)


def test_the_page_adds_one_of_everything(copy):
    for group in ("loss", "search", "dataset", "model", "task", "study", "claims"):
        added = {path.name for path in (copy / "conf" / group).iterdir()}
        assert added - {path.name for path in (ROOT / "conf" / group).iterdir()}, group
