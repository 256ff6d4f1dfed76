"""The cheap filters of candidates, in the order of their cost, before anything is trained.

1. leaves: it has a prediction and a target.
2. finite: values and gradients are finite, and some gradient is not 0, from sure of one class to sure of another.
3. learns: a few steps of Adam on free scores make nearly all of them right; else its minimum is elsewhere.
4. new: its gradients, at fixed scores, are not those of a candidate before, up to a positive factor (which is the
   learning rate's business): so formulas that differ in writing, or in a constant, are found to be one function.
"""

from __future__ import annotations

import torch
from torch import Tensor

from losses.formulas import nodes, parse
from losses.symbolic import PREDICTED, TRUE, Symbolic

STAGES = ("leaves", "finite", "learns", "new")
STEPS, RATE, ITEMS, RIGHT = 40, 0.3, 64, 0.9
"""Steps of Adam, their rate, how many items have free scores, and which share of them must end right."""
ALIKE = 1e-3
"""How far normalised gradients of one function may differ, relative to the largest of them."""


class Sieve:
    """Lets candidates through once for every function.

    Args:
        classes: how many a candidate will be trained for.
        over_classes: as of `losses.symbolic.Symbolic`.
    """

    def __init__(self, classes: int, over_classes: str) -> None:
        self.classes, self.over_classes = classes, over_classes
        draw = torch.Generator().manual_seed(0)
        self.scores = torch.randn(ITEMS, classes, generator=draw)
        self.target = torch.arange(ITEMS) % classes
        size = torch.linspace(-12, 12, 25)[:, None] * torch.eye(classes)[:1]
        self.grid = torch.cat([size, 3 * self.scores, 40 * self.scores.sign()])
        self.grid_target = torch.cat([torch.zeros(25, dtype=torch.int64), self.target, self.target])
        self.seen: dict[str, Tensor] = {}
        self.answers: dict[str, str] = {}

    def refuses(self, formula: str, name: str) -> str:
        """Return the stage at which a candidate fails, with the name of the one that it equals; empty: it is through.

        Args:
            formula: the candidate.
            name: what it is called, where later ones equal it.
        """
        if formula not in self.answers:
            why = self._refuses(formula, name)
            self.answers[formula] = why or f"new: it is {name}"
            return why
        return self.answers[formula]

    def _refuses(self, formula: str, name: str) -> str:
        used = {node.op for node in nodes(parse(formula))}
        if not used & PREDICTED or not used & TRUE:
            return "leaves"
        loss = Symbolic(formula=formula, over_classes=self.over_classes)  # pyright: ignore[reportArgumentType]
        if not self._finite(loss):
            return "finite"
        if not self._learns(loss):
            return "learns"
        if twin := self._twin(loss):
            return f"new: it is {twin}"
        self.seen[name] = self._signature(loss)
        return ""

    def _finite(self, loss: Symbolic) -> bool:
        scores = self.grid.clone().requires_grad_()
        values = loss(scores, self.grid_target)
        if not values.requires_grad or not values.isfinite().all():
            return False
        (gradient,) = torch.autograd.grad(values.sum(), scores)
        return bool(gradient.isfinite().all() and gradient.any())

    def _learns(self, loss: Symbolic) -> bool:
        scores = self.scores.clone().requires_grad_()
        optimizer = torch.optim.Adam([scores], lr=RATE)
        for _ in range(STEPS):
            optimizer.zero_grad(set_to_none=True)
            loss(scores, self.target).mean().backward()
            optimizer.step()
        right = (scores.detach().argmax(1) == self.target).float().mean()
        return bool(right >= RIGHT and scores.isfinite().all())

    def _signature(self, loss: Symbolic) -> Tensor:
        scores = (2 * self.scores).double().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(scores, self.target).sum(), scores)
        return gradient / gradient.abs().amax().clamp(min=1e-300)

    def _twin(self, loss: Symbolic) -> str:
        if not self.seen:
            return ""
        found = self._signature(loss)
        apart = (torch.stack(list(self.seen.values())) - found).abs().flatten(1).amax(1)
        nearest = int(apart.argmin())
        return list(self.seen)[nearest] if apart[nearest] < ALIKE else ""
