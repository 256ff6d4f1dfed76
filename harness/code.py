"""What code a run uses, as one digest of its syntax tree: found by reading source files, never by importing them.

From a dotted name the walk follows every name that a definition uses to where it is bound: functions, classes and
constants of the project, or of a user's own modules. It ends at installed packages, whose versions a record's
environment has, and at modules that a caller names. What does not decide numbers is left out of the tree: comments,
layout, docstrings, annotations of functions, and what a loss says of itself for readers.

A class that a config chooses (``_target_``) is a component of its own, so nothing is followed through texts.
"""

from __future__ import annotations

import ast
import copy
import functools
import hashlib
import importlib.machinery
import importlib.util
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.paths import ROOT

DESCRIPTIVE = frozenset({"name", "family", "paper", "evidence", "aliases", "detached"})
"""Fields of `losses.loss.About` that are for readers; its others (kind, link, ...) decide how a loss is used."""
ABOUT = frozenset({"about", "about_adapter", "about_by_settings"})
INSTALLED = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
WHOLE = "*"  # all that a module binds
EFFECTS = ""  # what a module does when it is imported, besides binding names
Chain = tuple[str, ...]  # a dotted name, as it is used: ("functional", "softmax")
Imported = tuple[str, str | None]  # a module, and the name that is taken from it, or None: the module itself


class Code:
    """Digests of code, by dotted name.

    What has been found is kept, so one instance sees the files as they were when it first looked.

    Args:
        root: folder of the project's packages.
    """

    def __init__(self, root: Path = ROOT) -> None:
        self.root = root
        self._paths: dict[str, Path | None] = {}
        self._digests: dict[tuple[frozenset[str], tuple[str, ...]], str | None] = {}

    def digest(self, names: Iterable[str], stops: Iterable[str] = ()) -> str | None:
        """Return 16 hexadecimal digits of all code that is reached from dotted names, None if all of it is installed.

        Args:
            names: functions, classes or constants.
            stops: modules and packages that are not entered.
        """
        asked = (frozenset(names), tuple(stops))
        if asked not in self._digests:
            found = self._reached(*asked)
            lines = sorted(f"{module} {name} {digest}" for (module, name), digest in found.items())
            self._digests[asked] = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16] if lines else None
        return self._digests[asked]

    def declared(self, name: str, decorator: str) -> tuple[Any, ...] | None:
        """Return the literals that a decorator of a function is given, None if it has no such decorator."""
        for module, bound in self._resolved(name.split(".")[0], name.split(".")[1:]):
            source = self._source(module)
            for statement in source.bound.get(bound, ()) if source else ():
                for entry in getattr(statement, "decorator_list", ()):
                    if isinstance(entry, ast.Call) and _name(entry.func) == decorator:
                        return tuple(map(ast.literal_eval, entry.args))
        return None

    def signature(self, name: str) -> dict[str, ast.expr] | None:
        """Return the annotation of every parameter that a function, or the constructor of a class, declares.

        Aliases such as ``Weights = Tensor | Sequence[float]`` are written out. None: the code is not the project's or
        the user's own, or its constructor is inherited.
        """
        for module, bound in self._resolved(name.split(".")[0], name.split(".")[1:]):
            source = self._source(module)
            for statement in source.bound.get(bound, ()) if source else ():
                inner = statement.body if isinstance(statement, ast.ClassDef) else [statement]
                for function in inner:
                    if isinstance(function, ast.FunctionDef) and function.name in ("__init__", bound):
                        given = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
                        return {
                            each.arg: self._written_out(each.annotation, module) for each in given if each.annotation
                        }
        return None

    def exists(self, name: str) -> bool:
        """Return whether a dotted name can be found; one in an installed package is believed to exist if that does."""
        if any(self._resolved(name.split(".")[0], name.split(".")[1:])):
            return True
        head = name.split(".")[0]
        return self._source(head) is None and "." in name and self._spec(head) is not None

    def _written_out(self, annotation: ast.expr, module: str) -> ast.expr:
        """Return an annotation in which every name that a module binds to a type stands for that type."""
        code = self

        class Aliases(ast.NodeTransformer):
            def visit_Name(self, node: ast.Name) -> ast.expr:
                for where, bound in code._resolved(module, [node.id]):
                    source = code._source(where)
                    for statement in source.bound.get(bound, ()) if source else ():
                        if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
                            return code._written_out(statement.value, where)
                return node

        return Aliases().visit(copy.deepcopy(annotation))

    def _reached(self, names: Iterable[str], stops: tuple[str, ...]) -> dict[tuple[str, str], str]:
        """Return the digests of every definition that is reached, by module and name."""
        found: dict[tuple[str, str], str] = {}
        waiting = [use for name in names for use in self._resolved(name.split(".")[0], name.split(".")[1:])]
        seen = set(waiting)
        while waiting:
            module, name = waiting.pop()
            if any(module == stop or module.startswith(f"{stop}.") for stop in stops):
                continue
            source = self._source(module)
            if source is None:
                continue
            if units := source.units(name):
                found[module, name] = " ".join(unit.digest for unit in units)
            uses = [(module, EFFECTS), *self._effects_of_parents(module), *self._used(module, name, source)]
            for use in uses:
                if use not in seen:
                    seen.add(use)
                    waiting.append(use)
        return found

    @staticmethod
    def _effects_of_parents(module: str) -> Iterator[tuple[str, str]]:
        while module := module.rpartition(".")[0]:
            yield module, EFFECTS

    def _used(self, module: str, name: str, source: Source) -> Iterator[tuple[str, str]]:
        """Yield module and name of what a definition uses directly."""
        if name == WHOLE:
            yield from ((module, bound) for bound in source.bound)
        for unit in source.units(name):
            for head, *rest in unit.uses:
                if head in unit.imports:
                    yield from self._imported(unit.imports[head], rest)
                else:
                    yield from self._bound(module, head, rest, source)
        if not source.units(name):
            yield from self._bound(module, name, [], source)

    def _bound(self, module: str, name: str, rest: list[str], source: Source) -> Iterator[tuple[str, str]]:
        """Yield where a name of a module comes from; nothing for a builtin."""
        if name in source.bound:
            yield module, name
        elif name in source.imports:
            yield from self._imported(source.imports[name], rest)
        else:
            for other in source.stars:
                if (behind := self._source(other)) is not None:
                    yield from self._bound(other, name, rest, behind)

    def _imported(self, imported: Imported, rest: Iterable[str]) -> Iterator[tuple[str, str]]:
        module, name = imported
        yield from self._resolved(module, [*([] if name is None else [name]), *rest])

    def _resolved(self, module: str, names: list[str]) -> Iterator[tuple[str, str]]:
        """Yield the definition that names lead to from a module, through the modules inside it."""
        source = self._source(module)
        if source is None:
            return
        for number, name in enumerate(names):
            if name in source.bound or name in source.imports:
                yield from self._bound(module, name, names[number + 1 :], source)
                return
            inner = self._source(f"{module}.{name}")
            if inner is None:
                yield from self._bound(module, name, [], source)
                return
            module, source = f"{module}.{name}", inner
        yield module, WHOLE

    def _source(self, module: str) -> Source | None:
        """Return a module of the project or of the user; None: it is installed, compiled, or does not exist."""
        path = self._path(module)
        if path is None:
            return None
        about = path.stat()
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        return parsed_source(str(path), about.st_mtime_ns, about.st_size, package)

    def _path(self, module: str) -> Path | None:
        if module not in self._paths:
            self._paths[module] = self._located(module)
        return self._paths[module]

    def _located(self, module: str) -> Path | None:
        own = self.root.joinpath(*module.split("."))
        for path in (own / "__init__.py", own.with_name(f"{own.name}.py")):
            if path.is_file():
                return path
        spec = self._spec(module)
        origin = None if spec is None else spec.origin
        if not origin or not origin.endswith(".py") or origin.startswith(INSTALLED):
            return None
        return Path(origin)

    def _spec(self, module: str) -> importlib.machinery.ModuleSpec | None:
        """Return where Python would find a module, without importing what is around it."""
        parent, _, name = module.rpartition(".")
        try:
            if not parent:
                return importlib.util.find_spec(name)
            around = self._spec(parent)
            inside = None if around is None else around.submodule_search_locations
            return None if inside is None else importlib.machinery.PathFinder.find_spec(module, list(inside))
        except (ImportError, ValueError):  # a module made by hand, such as __main__, has no spec
            return None


@dataclass
class Unit:
    """One statement of a module: its digest, which names it uses, and what it imports by itself."""

    digest: str
    uses: frozenset[Chain]
    imports: Mapping[str, Imported]


@dataclass
class Source:
    """A module as its statements.

    Attributes:
        bound: the statements that bind each name.
        effects: statements that do something else.
        imports: what each imported name stands for.
        stars: modules of which everything is imported.
    """

    bound: dict[str, list[ast.stmt]] = field(default_factory=dict)
    effects: list[ast.stmt] = field(default_factory=list)
    imports: dict[str, Imported] = field(default_factory=dict)
    stars: list[str] = field(default_factory=list)
    package: str = ""
    _units: dict[int, Unit] = field(default_factory=dict)

    def units(self, name: str) -> list[Unit]:
        """Return the statements that bind a name, or those with other effects."""
        return [self._unit(statement) for statement in (self.effects if name == EFFECTS else self.bound.get(name, ()))]

    def _unit(self, statement: ast.stmt) -> Unit:
        if id(statement) not in self._units:
            plain = _Plain().visit(copy.deepcopy(statement))  # signatures are read from the statement itself
            digest = hashlib.sha256(_text(plain).encode()).hexdigest()
            self._units[id(statement)] = Unit(digest, frozenset(_chains(plain)), dict(_imports(plain, self.package)))
        return self._units[id(statement)]


@functools.lru_cache(maxsize=4096)
def parsed_source(path: str, changed: int, size: int, package: str) -> Source:
    """Return a module of a package, kept as long as time of change and size of its file stay as they are."""
    source = Source(package=package)
    _collect(ast.parse(Path(path).read_bytes()).body, source)
    return source


def _collect(statements: Iterable[ast.stmt], source: Source) -> None:
    """Sort the statements of a module into what it binds, imports and does."""
    for statement in statements:
        match statement:
            case ast.Import() | ast.ImportFrom():
                source.imports |= _imports(statement, source.package)
                if isinstance(statement, ast.ImportFrom) and statement.names[0].name == "*":
                    source.stars.append(_absolute(statement, source.package))
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                pass  # for annotations alone
            case ast.Expr(value=ast.Constant()):
                pass  # a docstring
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                source.bound.setdefault(statement.name, []).append(statement)
            case _:
                nodes = list(ast.walk(statement))
                names = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
                names |= {n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.ClassDef)}
                for name in names:
                    source.bound.setdefault(name, []).append(statement)
                for nested in nodes:
                    source.imports |= _imports(nested, source.package, deep=False)
                if not isinstance(statement, ast.Assign | ast.AnnAssign) or not names:
                    source.effects.append(statement)


def _absolute(statement: ast.ImportFrom, package: str) -> str:
    if not statement.level:
        return statement.module or ""
    around = package.split(".")[: len(package.split(".")) - statement.level + 1]
    return ".".join([*around, *([statement.module] if statement.module else [])])


def _imports(tree: ast.AST, package: str, deep: bool = True) -> dict[str, Imported]:
    """Return what the names that a tree imports stand for."""
    found: dict[str, Imported] = {}
    for node in ast.walk(tree) if deep else [tree]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                found[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0],
                    None,
                )
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                found[alias.asname or alias.name] = (_absolute(node, package), alias.name)
    return found


class _Plain(ast.NodeTransformer):
    """Take from a tree what decides no number."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        return None if isinstance(node.value, ast.Constant) else self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        node.decorator_list = [_without_description(entry) for entry in node.decorator_list]
        node.body = [_Local().visit(statement) for statement in node.body]
        return self.generic_visit(node)

    visit_AsyncFunctionDef = visit_FunctionDef  # pyright: ignore[reportAssignmentType]

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.decorator_list = [_without_description(entry) for entry in node.decorator_list]
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if _name(node.func) == "About":
            node.keywords = [keyword for keyword in node.keywords if keyword.arg not in DESCRIPTIVE]
        return self.generic_visit(node)


class _Local(ast.NodeTransformer):
    """Take the annotations of variables from a function."""

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value is None:
            return ast.Pass()
        return ast.Assign([node.target], node.value)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return node


def _without_description(decorator: ast.expr) -> ast.expr:
    """Return a decorator without what it says of a loss for readers alone."""
    if isinstance(decorator, ast.Call) and _name(decorator.func) in ABOUT:
        for call in ast.walk(decorator):
            if isinstance(call, ast.Call):
                call.keywords = [keyword for keyword in call.keywords if keyword.arg not in DESCRIPTIVE]
    return decorator


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _text(node: Any) -> str:
    """Return a tree as text; unlike that of ``ast.dump`` it is the same in every version of Python."""
    if isinstance(node, ast.AST):
        fields = ((name, getattr(node, name, None)) for name in node._fields if name not in ("ctx", "type_comment"))
        shown = (f"{name}={_text(value)}" for name, value in fields if value is not None and value != [])
        return f"{type(node).__name__}({','.join(shown)})"
    if isinstance(node, list):
        return f"[{','.join(map(_text, node))}]"
    return repr(node)


def _chains(node: ast.AST) -> Iterator[Chain]:
    """Yield every dotted name that a tree uses, as long as it goes."""
    names: list[str] = []
    part: ast.AST = node
    while isinstance(part, ast.Attribute):
        names.append(part.attr)
        part = part.value
    if isinstance(part, ast.Name):
        yield (part.id, *reversed(names))
        return
    for child in ast.iter_child_nodes(part):
        yield from _chains(child)
