"""A loss that is given as a formula, such as a search finds it, and the protected operators that formulas use."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from losses.adapters import OverClasses, one_hot, reduce_classes
from losses.checks import check_choice, check_class_logits
from losses.formulas import ALLOWED, Node, nodes, parse
from losses.loss import about

EPS = 1e-6
"""Below this size a divisor, or what a logarithm or a root is taken of, is held, so that slopes stay finite."""
LARGEST = 30.0
"""Exponents of exp are held at this."""
PREDICTED, TRUE = {"p", "pt", "z"}, {"y", "pt"}
Value = Any  # a tensor, or a number where nothing in a part of the formula is one


def _divided(a: Value, b: Value) -> Value:
    return a / _away_from_zero(b)


def _away_from_zero(b: Value) -> Value:
    if not isinstance(b, Tensor):
        return b if abs(b) >= EPS else math.copysign(EPS, b)
    return torch.where(b.abs() < EPS, EPS * (1 - 2 * (b < 0).to(b.dtype)), b)


def _power(a: Tensor, exponent: float) -> Tensor:
    if exponent.is_integer():
        return a**exponent if exponent >= 0 else 1 / _away_from_zero(a**-exponent)
    return a.abs().clamp(min=EPS) ** exponent


def _least(a: Value, b: Value) -> Tensor:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.minimum(a, b)
    return a.clamp(max=b) if isinstance(a, Tensor) else b.clamp(max=a)


def _greatest(a: Value, b: Value) -> Tensor:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.maximum(a, b)
    return a.clamp(min=b) if isinstance(a, Tensor) else b.clamp(min=a)


CARRIED_OUT: Mapping[str, Callable[..., Value]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": _divided,
    "**": _power,
    "neg": lambda a: -a,
    "exp": lambda a: a.clamp(max=LARGEST).exp(),
    "log": lambda a: a.abs().clamp(min=EPS).log(),
    "sqrt": lambda a: (a.abs() + EPS).sqrt(),
    "abs": torch.abs,
    "sin": torch.sin,
    "cos": torch.cos,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "min": _least,
    "max": _greatest,
}
"""What every operator of a formula does, apart from sum and mean, which need to know the classes."""


class Step(NamedTuple):
    """A step of a program: an operator and the places of what it is applied to; a leaf; or a number."""

    op: str
    places: tuple[int, ...] = ()
    value: float = 0.0


def program(tree: Node) -> list[Step]:
    """Return the steps that compute a formula, each part of it once, arguments first, the whole last.

    Parts without tensors are numbers here already. ``log p`` and ``log pt`` are leaves, so that they are exact.

    >>> [step.op for step in program(parse("exp(p) * exp(p) + log(2)"))]
    ['p', 'exp', '*', 'number', '+']
    """
    steps: list[Step] = []
    known: dict[Node, int] = {}

    def place(node: Node) -> int:
        if node not in known:
            if not {part.op for part in nodes(node)} & {"p", "y", "pt", "z", "C"}:
                step = Step("number", value=_folded(node))
            elif node.op == "log" and node.args[0].op in ("p", "pt"):
                step = Step(f"log {node.args[0].op}")
            else:
                step = Step(node.op, tuple(place(part) for part in node.args))
            steps.append(step)
            known[node] = len(steps) - 1
        return known[node]

    place(tree)
    return steps


def _folded(node: Node) -> float:
    """Return the number that a part without leaves is, by the same operators as everything else."""
    if node.op == "number":
        return node.value
    parts = [torch.tensor(_folded(part), dtype=torch.float64) for part in node.args]
    if node.op in ("sum", "mean"):
        raise ValueError(f"formula: {node.op} of numbers alone has no classes; give it one of p, y or z")
    if node.op == "**":
        return float(_power(parts[0], float(parts[1])))
    return float(CARRIED_OUT[node.op](*parts))


@about(
    name="formula",
    family="probability",
    kind="class_logits",
    link="softmax",
    paper="operators as in Akhmedova and Koerber, ICPR 2024, arXiv 2404.12948, and 2024, arXiv 2406.05023",
    evidence="H",
)
class Symbolic(nn.Module):
    """A loss given as a formula for one class of one item, summed over the classes, or their mean.

    L = sum_c f(p_c, y_c, z_c, p_t, C): p = softmax(z), y one-hot, p_t the probability of the true class. f is made of
    these (`losses.formulas.LEAVES`), numbers, + - * / **, and the functions in `losses.formulas.FUNCTIONS`. Operators
    are protected: a divisor is held away from 0, log is that of |x|, both at 1e-6 at least; sqrt is that of |x| + 1e-6;
    exp is that of 30 at most; a power whose exponent is no whole number is that of |x|. log(p) and log(pt) are the
    logarithm of the softmax itself, at any score. What is not finite stays so.

    formula: text, see `losses.formulas.parse`; the default is cross-entropy. over_classes: sum or mean.

    >>> Symbolic(formula="-(1 - p) ** 2 * y * log(p)")(torch.zeros(1, 2), torch.tensor([1]))
    tensor([0.1733])
    """

    def __init__(self, *, formula: str = "-y * log(p)", over_classes: OverClasses = "sum") -> None:
        super().__init__()
        check_choice("over_classes", over_classes, ("sum", "mean"))
        self.formula = formula
        self.over_classes: OverClasses = over_classes
        tree = parse(formula)
        used = {node.op for node in nodes(tree)}
        if not used & PREDICTED or not used & TRUE:
            missing = "prediction (p, pt or z)" if not used & PREDICTED else "target (y or pt)"
            raise ValueError(f"formula={formula!r} has no {missing}, so that nothing can be learnt from it; {ALLOWED}")
        self.steps = program(tree)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return (N,...) from logits (N,C,...) and target (N,...) int64."""
        check_class_logits(logits, target)
        leaves = _Leaves(logits, target)
        found: list[Value] = []
        for op, places, value in self.steps:
            parts = [found[place] for place in places]
            if op == "number":
                found.append(value)
            elif not parts:
                found.append(leaves.value(op))
            elif op in ("sum", "mean"):
                found.append(reduce_classes(parts[0].expand_as(logits), "sum" if op == "sum" else "mean").unsqueeze(1))
            else:
                found.append(CARRIED_OUT[op](*parts))
        return reduce_classes(found[-1].expand_as(logits), self.over_classes)


class _Leaves:
    """What a formula may see of a batch, each computed when it is asked for."""

    def __init__(self, logits: Tensor, target: Tensor) -> None:
        self.logits, self.target = logits, target

    def value(self, name: str) -> Tensor:
        if name == "z":
            return self.logits
        if name == "p":
            return self.logits.softmax(1)
        if name == "log p":
            return functional.log_softmax(self.logits, 1)
        if name == "y":
            return one_hot(self.target, self.logits)
        if name == "C":
            return self.logits.new_full((1,) * self.logits.ndim, self.logits.shape[1])
        over = self.value("p" if name == "pt" else "log p")
        return over.gather(1, self.target.unsqueeze(1))
