"""Imports point one way, names lead to files, and nothing is installed over other people's packages."""

import ast
import re
from pathlib import Path

import pytest

import datasets
import harness
import losses

ROOT = Path(__file__).resolve().parent.parent
HEAVY = {"losses", "datasets", "torch", "timm", "mlflow", "hydra", "omegaconf"}
LAW = {
    "paths": "",
    "harness": "paths",
    "text": "",
    "errors": "text",
    "hardware": "errors torch",
    "metrics.declared": "errors text",
    "selection": "metrics.declared",
    "metrics.items": "",
    "code": "paths",
    "schema": "code errors",
    "compose": "errors paths schema hydra omegaconf",
    "metrics": "datasets losses torch",
    "models": "errors text hydra timm torch",
    "feeds": "errors datasets hydra torch",
    "tasks": "errors feeds metrics models.shifts datasets losses torch",
    "journal": "",
    "content": "journal paths",
    "fingerprints": "feeds models tasks hydra losses torch",
    "behaviour": "fingerprints journal paths",
    "address": "behaviour code compose content errors hardware paths schema hydra",
    "plan": "address compose errors paths schema hydra",
    "records": "address behaviour compose errors journal metrics.declared metrics.items paths plan text",
    "command": "errors records.store",
    "training": (
        "address behaviour errors feeds hardware metrics.declared models records.lease records.store tasks text "
        "datasets.splits hydra losses torch"
    ),
    "engines": "errors hardware paths records.lease records.store text training.isolation training.job hydra",
    "studies": (
        "address behaviour compose engines errors hardware journal metrics.declared paths plan records selection "
        "text training.job hydra"
    ),
    "records.__main__": "command records studies",
    "analysis": "compose errors metrics.declared paths records selection text",
    "tracking": "analysis errors journal paths records mlflow torch",
    "report": "analysis compose errors hardware metrics.declared paths plan records selection text tracking.store",
    "catalogue": "analysis compose paths records report tasks text hydra losses omegaconf torch",
    "evolution": (
        "address analysis command compose errors metrics.declared metrics.items paths plan records report studies text "
        "training datasets hydra losses torch"
    ),
    "site": "analysis catalogue errors evolution paths records report text",
    "report.__main__": "analysis command records report site text",
    "project": "errors",
    "look": "command compose errors feeds plan tasks text datasets torch",
    "run": "address compose errors paths plan records schema studies training hydra omegaconf",
    "choose": (
        "analysis catalogue compose errors fingerprints look plan records report schema studies text tracking hydra"
    ),
    "__main__": "analysis choose command compose plan records report schema studies tracking",
}
"""What each room of the harness may import, of the harness and of `HEAVY`; a room knows none that stands below it."""
FORMULAS = ("losses", "torch")
"""Figures of formulas (report/exhibits/*_figures.py) ask the losses themselves, when they are drawn."""


def imports(path):
    """Yield the dotted names that a module imports anywhere, but for those that only annotations need."""
    tree = ast.parse(path.read_text())
    typing = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in set(ast.walk(tree)) - typing:
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports relative to itself"
            yield from (f"{node.module}.{name.name}" for name in node.names)


def room(path):
    """Return the room of a module of the harness: its folder, or itself where it lies in none."""
    parts = path.relative_to(ROOT / "harness").with_suffix("").parts
    name = ".".join(parts)
    return name if name in LAW else "harness" if parts == ("__init__",) else parts[0]


def covered(name, allowed):
    return name == allowed or name.startswith(f"{allowed}.")


def known(path):
    """Return what a module imports of the harness, without that word, and of `HEAVY`; its own room left out."""
    names = (name.removeprefix("harness.") for name in imports(path) if name.split(".")[0] in {"harness", *HEAVY})
    own = room(path)
    return {name for name in names if not covered(name, own)}


@pytest.fixture(scope="module")
def rooms():
    """Return the modules of every room."""
    found = {name: [] for name in LAW}
    for path in (ROOT / "harness").rglob("*.py"):
        found.setdefault(room(path), []).append(path)
    return found


@pytest.mark.parametrize("package", [datasets, harness, losses])
def test_packages_are_the_checkouts_own(package):
    assert Path(package.__file__).parent.parent == ROOT


@pytest.mark.parametrize("name", LAW)
def test_a_room_imports_what_the_law_allows_and_the_law_allows_no_more(name, rooms):
    allowed, used = LAW[name].split(), set()
    for path in rooms[name]:
        more = FORMULAS if path.match("report/exhibits/*_figures.py") else ()
        for found in known(path):
            covering = [each for each in (*allowed, *more) if covered(found, each)]
            assert covering, f"{path.relative_to(ROOT)} imports {found}"
            used.update(covering)
    assert set(allowed) <= used


def test_the_law_knows_every_room_and_points_one_way(rooms):
    assert set(rooms) == set(LAW)
    above = set(HEAVY)
    for name, allowed in LAW.items():
        for each in allowed.split():
            assert any(covered(each, other) for other in above), f"{name} may not import {each}, which stands below it"
        above.add(name)


@pytest.mark.parametrize("package", ["losses", "datasets"])
def test_losses_and_data_sets_do_not_know_the_harness(package):
    for path in (ROOT / package).rglob("*.py"):
        roots = {name.split(".")[0] for name in imports(path)}
        assert not roots & {"harness", "hydra", "omegaconf", "mlflow"}, path


def test_losses_need_only_torch():
    allowed = {"losses", "torch", *__import__("sys").stdlib_module_names}
    for path in (ROOT / "losses").rglob("*.py"):
        assert {name.split(".")[0] for name in imports(path)} <= allowed, path


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


def test_the_lock_for_cpus_is_the_lock_without_cuda():
    def pinned(name):
        lines = (ROOT / name).read_text().splitlines()
        return {
            line for line in lines if not line.startswith(("nvidia-", "cuda-", "triton=", "torch=", "torchvision="))
        }

    assert pinned("requirements-cpu.lock") == pinned("requirements.lock")
    lock = dict(re.findall(r"^(torch|torchvision)==(\S+)$", (ROOT / "requirements.lock").read_text(), flags=re.M))
    for name, version in lock.items():
        lines = [
            line for line in (ROOT / "requirements-cpu.lock").read_text().splitlines() if line.startswith(f"{name}==")
        ]
        assert lines == [
            f"{name}=={version}+cpu ; sys_platform != 'darwin'",
            f"{name}=={version} ; sys_platform == 'darwin'",
        ]
    assert len(lock) == 2
