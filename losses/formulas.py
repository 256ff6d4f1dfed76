"""Formulas of losses: a text is read into a tree, and a tree is written as text or TeX. Nothing is ever carried out.

A formula says what a loss is for one class of one item, in terms of `LEAVES`, numbers, + - * / **, and `FUNCTIONS`.
Python's own parser reads it, and only the nodes that are named here are taken over; there are no other names, calls,
attributes, texts or comparisons, and length, depth and exponents are bounded.
"""

from __future__ import annotations

import ast
import math
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

LEAVES = {
    "p": "predicted probability of the class",
    "y": "1 for the true class, else 0",
    "pt": "predicted probability of the true class",
    "z": "score (logit) of the class",
    "C": "number of classes",
}
"""What a loss may see, by name."""
FUNCTIONS = {
    "exp": 1, "log": 1, "sqrt": 1, "abs": 1, "sin": 1, "cos": 1, "tanh": 1, "sigmoid": 1, "sum": 1, "mean": 1,
    "min": 2, "max": 2,
}  # fmt: skip
"""How many arguments each function has; sum and mean are over the classes of an item."""
OPERATORS: dict[type[ast.operator], str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "**",
}  # fmt: skip
ALLOWED = f"allowed are {', '.join(LEAVES)}, numbers, + - * / ** and {', '.join(FUNCTIONS)}"
MOST_CHARACTERS, MOST_DEPTH, MOST_EXPONENT = 1000, 60, 10
"""How long a formula may be, how deep its tree or its parentheses, and how large an exponent."""
BINDS = {"+": 1, "-": 1, "*": 2, "/": 2, "neg": 3, "**": 4}
ATOM = 5


@dataclass(frozen=True, slots=True)
class Node:
    """A node of a formula's tree.

    Attributes:
        op: a name in `LEAVES` or `FUNCTIONS`, one of + - * / **, ``neg`` (a sign), or ``number``.
        args: what it is applied to; the exponent of ** is a number.
        value: of a number.
    """

    op: str
    args: tuple[Node, ...] = ()
    value: float = 0.0

    def __str__(self) -> str:
        """Return the formula as text, which `parse` reads as the same tree."""
        return _text(self)


def number(value: float) -> Node:
    """Return the node of a number."""
    return Node("number", value=float(value))


def nodes(tree: Node) -> Iterator[Node]:
    """Yield every node of a tree, each before its arguments.

    >>> [node.op for node in nodes(parse("1 - p"))]
    ['-', 'number', 'p']
    """
    yield tree
    for part in tree.args:
        yield from nodes(part)


def height(tree: Node) -> int:
    """Return how many steps it is from the root of a tree to its deepest leaf.

    >>> height(parse("p")), height(parse("exp(1 - p)"))
    (0, 2)
    """
    return 1 + max(map(height, tree.args)) if tree.args else 0


# ---------------------------------------------------------------- from text


def parse(text: str) -> Node:
    """Return the tree of a formula.

    Raises:
        ValueError: it is no formula; the sentence says at which character, counted from 1, and what is allowed.

    >>> str(parse("-(y) * log( p )"))
    '-y * log(p)'
    """
    _check_text(text)
    shift = len(text) - len(text.lstrip())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Python's about what it would read otherwise
            read = ast.parse(re.sub(r"\s", " ", text.strip()), mode="eval")
    except SyntaxError as error:
        raise _wrong(shift + (error.offset or len(text.strip()) + 1), "it cannot be read on from here") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise _wrong(1, "it is nested too deeply, or a number is too long") from error
    return _node(read.body, shift, MOST_DEPTH)


def _check_text(text: str) -> None:
    """Raise ValueError if a text is empty, too long, too deep, or has a character that no formula has."""
    if not text.strip():
        raise _wrong(1, "it is empty")
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"formula: {len(text):,} characters, allowed are {MOST_CHARACTERS:,}")
    if found := re.search(r"[^\w.+\-*/(),\s]|[^\x00-\x7f]", text):
        raise _wrong(found.start() + 1, f"{found[0]!a} has no meaning here")
    depth = 0
    for place, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth > MOST_DEPTH:
            raise _wrong(place + 1, f"parentheses are nested more than {MOST_DEPTH} deep")


def _wrong(place: int, why: str) -> ValueError:
    return ValueError(f"formula, character {place}: {why}; {ALLOWED}")


def _node(read: ast.expr, shift: int, depth: int) -> Node:
    """Return the tree of what Python has read, which begins `shift` characters into the formula."""
    place = shift + read.col_offset + 1
    if not depth:
        raise _wrong(place, f"it is nested more than {MOST_DEPTH} deep")
    match read:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return _number(value, place)
        case ast.Name(id=name):
            if name not in LEAVES:
                raise _wrong(place, f"{name} is not known")
            return Node(name)
        case ast.UnaryOp(op=ast.UAdd(), operand=inner):
            return _node(inner, shift, depth - 1)
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            found = _node(inner, shift, depth - 1)
            return number(-found.value) if found.op == "number" else Node("neg", (found,))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            parts = _node(left, shift, depth - 1), _node(right, shift, depth - 1)
            if isinstance(op, ast.Pow) and (parts[1].op != "number" or abs(parts[1].value) > MOST_EXPONENT):
                raise _wrong(shift + right.col_offset + 1, f"an exponent is a number from -{MOST_EXPONENT} to "
                             f"{MOST_EXPONENT}")  # fmt: skip
            return Node(OPERATORS[type(op)], parts)
        case ast.Call(func=ast.Name(id=name), args=given, keywords=[]):
            if name not in FUNCTIONS:
                raise _wrong(place, f"{name} is no function")
            if len(given) != FUNCTIONS[name]:
                raise _wrong(place, f"{name} has {FUNCTIONS[name]}, not {len(given)} arguments")
            return Node(name, tuple(_node(each, shift, depth - 1) for each in given))
    raise _wrong(place, "this has no meaning here")


def _number(value: float, place: int) -> Node:
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise _wrong(place, "a number is too large")
    return number(found)


# ---------------------------------------------------------------- to text


def _binds(tree: Node) -> int:
    """Return how strongly the outermost operator of a tree binds."""
    if tree.op == "number":
        return BINDS["neg"] if tree.value < 0 or str(tree.value).startswith("-") else ATOM
    return BINDS.get(tree.op, ATOM)


def _text(tree: Node) -> str:
    if tree.op == "number":
        return written(tree.value)
    if not tree.args:
        return tree.op
    if tree.op == "neg":
        return f"-{_within(tree.args[0], BINDS['neg'])}"
    if tree.op not in BINDS:
        return f"{tree.op}({', '.join(map(_text, tree.args))})"
    binds = BINDS[tree.op]
    if tree.op == "**":
        return f"{_within(tree.args[0], ATOM)} ** {written(tree.args[1].value)}"
    return f"{_within(tree.args[0], binds)} {tree.op} {_within(tree.args[1], binds + 1)}"


def _within(part: Node, least: int) -> str:
    """Return a part of a formula, in parentheses where it binds less than `least`."""
    return _text(part) if _binds(part) >= least else f"({_text(part)})"


def written(value: float) -> str:
    """Return a number as a formula has it, short and exact.

    >>> written(2.0), written(0.1), written(-2.4092)
    ('2', '0.1', '-2.4092')
    """
    short = f"{value:.6g}"
    return short if float(short) == value else repr(value)


# ---------------------------------------------------------------- to TeX

SYMBOLS = {"p": "p_c", "y": "y_c", "pt": "p_t", "z": "z_c", "C": "C"}
NAMED = {"log": r"\ln", "exp": r"\exp", "sin": r"\sin", "cos": r"\cos", "tanh": r"\tanh", "sigmoid": r"\sigma"}
OVER = {"sum": r"\sum_k", "mean": r"\frac{1}{C} \sum_k"}


def latex(tree: Node) -> str:
    r"""Return a formula in TeX, in the part of it that matplotlib sets, too.

    >>> latex(parse("-y * log(p)")), latex(parse("(1 - p) ** 2 / C"))
    ('-y_c \\, \\ln p_c', '\\frac{(1 - p_c)^{2}}{C}')
    """
    match tree:
        case Node("number", value=value):
            mantissa, _, exponent = written(value).partition("e")
            return mantissa + (rf" \cdot 10^{{{int(exponent)}}}" if exponent else "")
        case Node(op, ()):
            return SYMBOLS[op]
        case Node("neg", (inner,)):
            return f"-{_tex_within(inner, BINDS['*'])}"
        case Node("/", (top, bottom)):
            return rf"\frac{{{latex(top)}}}{{{latex(bottom)}}}"
        case Node("**", (base, exponent)):
            return f"{_tex_within(base, ATOM)}^{{{written(exponent.value)}}}"
        case Node("*", (left, right)):
            return rf"{_tex_within(left, 2)} \, {_tex_within(right, 3)}"
        case Node("+" | "-", (left, right)):
            return f"{_tex_within(left, 1)} {tree.op} {_tex_within(right, 2)}"
    return _tex_function(tree)


def _tex_function(tree: Node) -> str:
    inner = latex(tree.args[0])
    if tree.op == "sqrt":
        return rf"\sqrt{{|{inner}|}}"
    if tree.op == "abs":
        return f"|{inner}|"
    if tree.op in OVER:
        return f"{OVER[tree.op]} {_tex_within(tree.args[0], 3)}".replace("_c", "_k")
    if tree.op in ("min", "max"):
        return rf"\{tree.op}({', '.join(map(latex, tree.args))})"
    return f"{NAMED[tree.op]} {inner}" if not tree.args[0].args else f"{NAMED[tree.op]}({inner})"


def _tex_within(part: Node, least: int) -> str:
    """Return a part in TeX, in parentheses where it binds less than `least`; a fraction needs none but in a power."""
    if part.op == "number" and part.value < 0:
        return f"({latex(part)})" if least > BINDS["+"] else latex(part)
    binds = BINDS["neg"] if part.op == "/" else _binds(part)
    return latex(part) if binds >= least else f"({latex(part)})"
