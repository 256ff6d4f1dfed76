"""Temperature scaling: probabilities made right on average by one number, found on validation data."""

from __future__ import annotations

import math

from scipy import optimize
from torch import Tensor
from torch.nn import functional

BOUNDS = (math.log(1e-3), math.log(1e3))
"""Logarithms of the least and the greatest temperature that is looked for."""


def temperature(logits: Tensor, target: Tensor) -> float:
    """Return the temperature T > 0 by which scores are divided to be likeliest (Guo et al., ICML 2017, section 4.2).

    One further item counts, of which nobody knows the class: without it, scores that are all right would be the
    likelier the colder, down to 0, and the first error on other items would cost without bound (Platt, 1999, has such
    a prior).

    Args:
        logits: (N, C).
        target: (N,), classes.

    Raises:
        ValueError: there is no item.
    """
    if not len(target):
        raise ValueError("a temperature is found on items, and there are none.")
    scores, unknown = logits.double(), 1 / (len(target) + 1)

    def likelihood(x: float) -> float:  # convex in 1 / T, so that it has one minimum
        return float(functional.cross_entropy(scores * math.exp(-x), target, label_smoothing=unknown))

    return math.exp(optimize.minimize_scalar(likelihood, bounds=BOUNDS, method="bounded").x)
