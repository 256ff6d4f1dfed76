"""Trees of formulas: drawn at random, crossed, mutated; every draw from a stream of its own.

Primitives are those that are seen in what the authors of NGL found (exp, sin, cos, + - *; sqrt, |.|, a power and a
division in their later GANetic loss), with a logarithm and tanh; leaves are the prediction p, the target y, numbers.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from losses.formulas import FUNCTIONS, Node, height, nodes, number

BINARY = ("+", "-", "*", "/")
UNARY = ("exp", "log", "sqrt", "abs", "sin", "cos", "tanh", "neg", "square")
BINARY_SHARE = 0.6
"""How often a node that is no leaf has two arguments."""
LEAVES = ("p", "y")
NUMBER_SHARE = 0.3
"""How often a leaf is a number, drawn evenly from -`SPREAD` to `SPREAD`."""
SPREAD = 3.0
DIGITS = 4
"""Significant digits of a number."""
MUTANT_HEIGHT = 2
"""Height at most of what a mutation puts in the place of a part."""
Path = tuple[int, ...]


def stream(*names: object) -> random.Random:
    """Return a stream of random numbers that depends on its names alone, whatever was drawn elsewhere."""
    return random.Random("/".join(map(str, names)))


def drawn(draw: random.Random, tall: int, *, full: bool) -> Node:
    """Return a random tree of height ``tall`` at most; with ``full`` every branch is as tall as that."""
    if not tall or (not full and draw.random() < 1 / 3):
        return _leaf(draw)
    if draw.random() < BINARY_SHARE:
        parts = drawn(draw, tall - 1, full=full), drawn(draw, tall - 1, full=full)
        return Node(draw.choice(BINARY), parts)
    return _applied(draw.choice(UNARY), drawn(draw, tall - 1, full=full))


def ramped(draw: random.Random, least: int, most: int) -> Node:
    """Return a random tree of a height from ``least`` to ``most``, half of them full (Koza's ramped half-and-half)."""
    tall, full = draw.randint(least, most), draw.random() < 0.5
    tree = drawn(draw, tall, full=full)
    while height(tree) < least:
        tree = drawn(draw, tall, full=full)
    return tree


def _leaf(draw: random.Random) -> Node:
    if draw.random() < NUMBER_SHARE:
        return number(rounded(draw.uniform(-SPREAD, SPREAD)))
    return Node(draw.choice(LEAVES))


def _applied(name: str, inner: Node) -> Node:
    if name == "square":
        return Node("**", (inner, number(2)))
    return number(-inner.value) if name == "neg" and inner.op == "number" else Node(name, (inner,))


def rounded(value: float) -> float:
    """Return a number with `DIGITS` significant digits, as a formula is to have it."""
    return float(f"{value:.{DIGITS}g}")


def paths(tree: Node, at: Path = ()) -> Iterator[Path]:
    """Yield the way to every part of a tree that may be exchanged: all but the exponents of powers."""
    yield at
    for place, part in enumerate(tree.args[: 1 if tree.op == "**" else None]):
        yield from paths(part, (*at, place))


def part(tree: Node, path: Path) -> Node:
    """Return the part of a tree to which a path leads."""
    for place in path:
        tree = tree.args[place]
    return tree


def exchanged(tree: Node, path: Path, new: Node) -> Node:
    """Return a tree with another part at a path."""
    if not path:
        return new
    args = list(tree.args)
    args[path[0]] = exchanged(args[path[0]], path[1:], new)
    if tree.op == "neg" and args[0].op == "number":
        return number(-args[0].value)
    return Node(tree.op, tuple(args), tree.value)


def crossed(draw: random.Random, one: Node, other: Node) -> Node:
    """Return the first tree with one of its parts exchanged for one of the other's."""
    there = draw.choice(list(paths(other)))
    return exchanged(one, draw.choice(list(paths(one))), part(other, there))


def mutated(draw: random.Random, tree: Node) -> Node:
    """Return a tree with one part drawn anew, one operator exchanged, or its numbers moved: a third each, if it can."""
    way = draw.randrange(3)
    inner = [path for path in paths(tree) if _likes(part(tree, path))]
    if way == 1 and inner:
        path = draw.choice(inner)
        old = part(tree, path)
        return exchanged(tree, path, Node(draw.choice(_likes(old)), old.args))
    if way == 2 and any(node.op == "number" for node in nodes(tree)):
        return moved(draw, tree, 0.3)
    return exchanged(tree, draw.choice(list(paths(tree))), drawn(draw, MUTANT_HEIGHT, full=False))


def _likes(node: Node) -> list[str]:
    """Return the operators that may take the place of a node's own."""
    if node.op in BINARY:
        return [op for op in BINARY if op != node.op]
    if node.op in FUNCTIONS and node.op in UNARY:
        return [op for op in UNARY if op in FUNCTIONS and op != node.op]
    return []


def moved(draw: random.Random, tree: Node, width: float) -> Node:
    """Return a tree with every number moved by a normal step: of ``width`` times its size, ``width`` / 10 at least."""
    for path in paths(tree):
        if (old := part(tree, path)).op == "number":
            step = draw.gauss(0.0, width) * max(abs(old.value), 0.1)
            tree = exchanged(tree, path, number(rounded(old.value + step)))
    return tree


def size(tree: Node) -> int:
    """Return how many nodes a tree has."""
    return sum(1 for _ in nodes(tree))


def shape(tree: Node) -> Node:
    """Return a tree without the values of its numbers: trees that differ in these alone have one shape."""
    return Node(tree.op, tuple(map(shape, tree.args)))


__all__ = ["crossed", "drawn", "height", "moved", "mutated", "ramped", "rounded", "shape", "size", "stream"]
