"""One direction of data, names that lead to files, and nothing installed over other people's packages."""

import ast
from pathlib import Path

import pytest

import datasets
import harness
import losses

ROOT = Path(__file__).resolve().parent.parent


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module


@pytest.mark.parametrize("package", [datasets, harness, losses])
def test_packages_are_the_checkouts_own(package):
    assert Path(package.__file__).parent.parent == ROOT


@pytest.mark.parametrize(
    "path", sorted([*ROOT.glob("losses/*.py"), *ROOT.glob("datasets/*.py")]), ids=lambda p: f"{p.parent.name}/{p.name}"
)
def test_losses_and_data_sets_do_not_know_the_harness(path):
    assert not [name for name in imports(path) if name.split(".")[0] in ("harness", "hydra", "omegaconf", "mlflow")]


def test_losses_need_only_torch():
    allowed = {"losses", "torch", *__import__("sys").stdlib_module_names}
    for path in ROOT.glob("losses/*.py"):
        assert {name.split(".")[0] for name in imports(path)} <= allowed, path


@pytest.mark.parametrize("path", sorted(ROOT.glob("harness/report/**/*.py")), ids=lambda p: p.stem)
def test_the_report_reads_records_only(path):
    forbidden = ["torch", "timm", "mlflow", "harness.training.loop", "harness.models.images", "harness.training.build", "harness.engines.local"]
    if path.parent.name == "exhibits" and path.stem.endswith("_figures"):
        forbidden.remove("torch")  # a figure of a formula asks the loss itself, when it is drawn
    forbidden = tuple(forbidden)
    assert not [name for name in imports(path) if name.startswith(forbidden)]


def test_the_training_loop_knows_nothing_of_studies():
    for path in (ROOT / "harness/train.py", ROOT / "harness/build.py", *ROOT.glob("harness/tasks/*.py")):
        above = ("harness.plan", "harness.studies.sweep", "harness.tracking", "harness.report")
        assert not [name for name in imports(path) if name.startswith(above)]


def test_no_function_is_longer_than_a_screen():
    long = []
    for path in [p for folder in ("harness", "losses", "datasets", "scripts") for p in (ROOT / folder).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno > 60:
                long.append(f"{path.name}:{node.name}")
    assert not long


def test_the_lock_holds_names_and_versions_only():
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        name, _, version = line.partition(";")[0].partition("==")
        assert name.strip()
        assert version.strip()
        assert "/" not in line
