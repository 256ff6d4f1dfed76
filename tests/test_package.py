"""The losses as an installed package: under a name of their own, with nothing else, and the same functions."""

import ast
import importlib
import shutil
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from setuptools import build_meta

import losses.region

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """What `pip install .` puts into site-packages."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    shutil.copytree(ROOT / "losses", source / "losses", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "LICENSE", "docs/losses.md"):
        (source / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(source)
        patch.setattr(sys, "argv", ["setup.py"])
        wheel = build_meta.build_wheel(str(target))
        zipfile.ZipFile(target / wheel).extractall(target / "site")
    return target / "site"


def test_one_package_is_installed_and_it_knows_no_other_but_torch(installed):
    names = {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")}
    assert names == {"lossbench_losses"}
    files = {path.name for path in (ROOT / "losses").glob("*.py")}
    assert {path.name for path in (installed / "lossbench_losses").glob("*.py")} == files
    allowed = {"lossbench_losses", "torch", *sys.stdlib_module_names}
    for path in (installed / "lossbench_losses").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            found = [node.module] if isinstance(node, ast.ImportFrom) else []
            found += [name.name for name in node.names] if isinstance(node, ast.Import) else []
            assert {name.split(".")[0] for name in found} <= allowed, path.name


def test_what_is_installed_computes_the_same(installed, monkeypatch):
    monkeypatch.syspath_prepend(str(installed))
    region = importlib.import_module("lossbench_losses.region")
    loss = importlib.import_module("lossbench_losses.loss")
    try:
        assert region.__file__.startswith(str(installed))
        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(2, 3, 8, 8, generator=generator)
        target = torch.randint(3, (2, 8, 8), generator=generator)
        assert torch.equal(region.dice(logits, target), losses.region.dice(logits, target))
        assert repr(loss.Loss(region.dice)).startswith("Loss(dice")
    finally:
        for name in [name for name in sys.modules if name.startswith("lossbench_losses")]:
            del sys.modules[name]


def test_what_is_installed_says_so():
    text = (ROOT / "pyproject.toml").read_text()
    version = text.split('version = "')[1].split('"')[0]
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()
