"""Digests of code: what a definition uses, found without importing it; nothing that decides no number."""

import ast
import shutil
import sys

import pytest

from harness import address, code, compose, schema
from harness.code import Code
from harness.paths import ROOT

FILES = {
    "mine/__init__.py": "from mine.helpers import shared as public\n",
    "mine/helpers.py": '''
"""Helpers."""
import math
SCALE = 2.0
UNUSED = 1
def shared(x):
    """Twice."""
    return SCALE * x + inner(x)
def inner(x):
    return math.sin(x)
def unrelated(x):
    return x
class Base:
    def run(self):
        return 1
''',
    "mine/stars.py": "def starred(x):\n    return x\n",
    "mine/deep.py": "def late(x):\n    return x + 1\n",
    "mine/effects.py": "import torch\ntorch.set_num_threads(1)\ndef quiet(x):\n    return x\n",
    "mine/loss.py": '''
"""A loss."""
from __future__ import annotations
import mine
from mine import helpers, public
from mine.stars import *
from .effects import quiet
from losses.loss import about
FACTOR: float = 3
@about(name="mine", family="quantity", kind="values", link=None, paper="none", evidence="H")
def loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Squares."""
    from mine.deep import late
    total: float = helpers.shared(prediction)  # comment
    return FACTOR * late(total) + starred(target) + quiet(1)
class Part(helpers.Base):
    """A class."""
    def go(self):
        return mine.public(self.run())
''',
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Write a user's package on the path; return a function that edits a file of it."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)

    def edit(name, old, new):
        text = (tmp_path / name).read_text()
        assert old in text
        (tmp_path / name).write_text(text.replace(old, new))

    return edit


def digest(name="mine.loss.loss", **more):
    return Code(**more).digest([name])


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("mine/loss.py", '"""Squares."""', '"""Squares of errors."""'),
        ("mine/loss.py", "  # comment", ""),
        ("mine/loss.py", "return FACTOR * late(total)", "return (\n        FACTOR * late(total)\n    )"),
        ("mine/loss.py", "total: float =", "total ="),
        ("mine/loss.py", "(prediction: Tensor, target: Tensor) -> Tensor", "(prediction, target)"),
        ("mine/loss.py", 'name="mine"', 'name="mine, better described"'),
        ("mine/loss.py", 'paper="none"', 'paper="some"'),
        ("mine/helpers.py", "def unrelated(x):\n    return x", "def unrelated(x):\n    return 7"),
        ("mine/helpers.py", "UNUSED = 1", "UNUSED = 2"),
        ("mine/helpers.py", "class Base:\n    def run(self):\n        return 1", "class Base:\n    run = None"),
        ("mine/helpers.py", '"""Helpers."""', '"""What helps."""\n"""And more."""'),
    ],
)
def test_what_decides_no_number_is_no_part_of_the_digest(package, file, old, new):
    before = digest()
    package(file, old, new + "\n" if old.endswith("\n") else new)
    assert digest() == before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("mine/loss.py", "FACTOR: float = 3", "FACTOR: float = 4"),
        ("mine/loss.py", "late(total)", "late(total) * 0"),
        ("mine/loss.py", "link=None", 'link="softmax"'),
        ("mine/helpers.py", "SCALE = 2.0", "SCALE = 2.5"),
        ("mine/helpers.py", "math.sin", "math.cos"),
        ("mine/stars.py", "return x", "return -x"),
        ("mine/deep.py", "x + 1", "x + 2"),
        ("mine/effects.py", "set_num_threads(1)", "set_default_dtype(torch.float64)"),
        ("mine/effects.py", "return x", "return 2 * x"),
    ],
)
def test_what_is_used_is_part_of_the_digest_however_it_is_reached(package, file, old, new):
    before = digest()
    package(file, old, new)
    assert digest() != before


def test_base_classes_and_names_passed_on_by_a_package_are_followed(package):
    before = digest("mine.loss.Part")
    package("mine/helpers.py", "        return 1", "        return 2")
    changed = digest("mine.loss.Part")
    package("mine/helpers.py", "SCALE = 2.0", "SCALE = 2.5")
    assert len({before, changed, digest("mine.loss.Part")}) == 3


def test_an_edit_of_the_same_length_in_the_same_second_is_seen(package):
    """Digests are for one instance; another one looks at the files again, by time of change and size."""
    first = Code()
    before = first.digest(["mine.loss.loss"])
    package("mine/loss.py", "FACTOR: float = 3", "FACTOR: float = 5")
    assert first.digest(["mine.loss.loss"]) == before
    assert digest() != before


def test_installed_packages_end_the_walk():
    assert Code().digest(["torch.nn.functional.cross_entropy", "json.dumps", "nowhere.to_be.found"]) is None


def test_stops_are_not_entered(package):
    found = Code()
    everything = found._reached(["mine.loss.loss"], ())
    assert ("mine.helpers", "shared") in everything
    assert ("mine.helpers", "unrelated") not in everything
    assert not any(module == "mine.helpers" for module, _ in found._reached(["mine.loss.loss"], ("mine.helpers",)))


def test_declarations_of_a_function_are_read_without_importing_it(package):
    package("mine/loss.py", "@about(", '@reads("{path}", ("a/*", "b"))\n@about(')
    assert Code().declared("mine.loss.loss", "reads") == ("{path}", ("a/*", "b"))
    assert Code().declared("mine.loss.Part", "reads") is None
    assert "mine" not in sys.modules


GROUPS = ("loss", "model", "dataset", "task", "trainer", "shift")


@pytest.mark.parametrize("group", GROUPS)
def test_all_code_of_the_project_that_a_config_names_is_found(group):
    found = Code()
    for name in compose.options(group):
        chosen = compose.compose_run([f"task={name}"]).config if group == "task" else compose.option(group, name)
        for target in set(address.targets(chosen)) - {schema.MISSING}:  # which the user names
            assert target.startswith(("torch.", "losses.compound")) or found.digest([target]), target


def test_an_edited_loss_of_the_project_has_another_digest(tmp_path):
    shutil.copytree(ROOT / "losses", tmp_path / "losses")
    file = tmp_path / "losses" / "probability.py"
    before = {name: digest(f"losses.{name}", root=tmp_path) for name in ("probability.focal", "region.dice")}
    assert before == {name: digest(f"losses.{name}") for name in before}
    text = file.read_text()
    start = text.index("def focal(")
    assert "return" in text[start:]
    file.write_text(text[:start] + text[start:].replace("return ", "return 0 * ", 1))
    after = {name: digest(f"losses.{name}", root=tmp_path) for name in before}
    assert after["probability.focal"] != before["probability.focal"]
    assert after["region.dice"] == before["region.dice"]


def test_a_digest_takes_nothing_from_what_signatures_are_read_from():
    code.parsed_source.cache_clear()
    found = Code()
    before = found.signature("losses.imbalance.ghm_c")
    assert ast.dump(before["bins"]) == ast.dump(ast.Name("int", ast.Load()))
    assert found.digest(["losses.imbalance.ghm_c"])
    after = found.signature("losses.imbalance.ghm_c")
    assert {name: ast.dump(node) for name, node in after.items()} == {n: ast.dump(node) for n, node in before.items()}


def test_a_declared_kind_or_metric_changes_no_digest_of_others(tmp_path):
    for name in ("losses", "harness", "datasets"):
        shutil.copytree(ROOT / name, tmp_path / name)

    def found():
        addresses = address.Addresses(tmp_path, tmp_path / "results", code=Code(tmp_path))
        return addresses.identity(address.spec_of(compose.compose_run(["device=cpu"]).config))["code"]

    before = found()
    for file in ("losses/kinds.py", "harness/metrics/declared.py", "harness/text.py"):
        (tmp_path / file).write_text((tmp_path / file).read_text() + "\nADDED = 1\nprint(ADDED)\n")
    code.parsed_source.cache_clear()
    assert found() == before
    (tmp_path / "harness/training/loop.py").write_text(
        (tmp_path / "harness/training/loop.py").read_text().replace("state.step += 1", "state.step += 2")
    )
    after = found()
    assert {name for name in before if after[name] != before[name]} == {"trainer"}


def test_a_tree_is_written_alike_by_every_version_of_python():
    """Versions add fields to nodes; those that are empty are left out."""
    tree = ast.parse("def f(x: int = 1) -> int:\n    return x + 1\n")
    assert code._text(code._Plain().visit(tree)) == (
        "Module(body=[FunctionDef(name='f',args=arguments(args=[arg(arg='x')],defaults=[Constant(value=1)]),"
        "body=[Return(value=BinOp(left=Name(id='x'),op=Add(),right=Constant(value=1)))])])"
    )
