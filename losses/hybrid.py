"""The 27 hybrid nonlinear losses: cross-entropy plus a function of the absolute and the squared error of probabilities.

After Choi, IJFIS 24(4), 2024, who defines neither of the two errors, nor the coefficients, nor the two-sided filters:
all are reconstructions, and the word stands in every name. `mode="printed"` follows his equations where they differ
from the consistent reading.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from losses.adapters import OverClasses, one_hot
from losses.checks import check_choice
from losses.loss import About, about_by_settings
from losses.probability import entropy_of_classes
from losses.shared import masked_labels, safe_sqrt

TERMS = ("none", "comb", "ne", "hybrid1", "ema", "hybrid2")
COEFFICIENTS = ("convex", "linear")
FILTERS = ("none", "relu", "elu", "birelu", "bielu", "sqrt")
TITLES = {
    "none": "none",
    "comb": "L1 and L2",
    "ne": "exponential",
    "hybrid1": "exponential with L1 and L2",
    "ema": "moving average",
    "hybrid2": "moving average with exponential",
}


def number(term: str, coefficients: str, filter: str) -> int | None:
    """Return the number of the paper's experiment (table 1), or None: it has none with a square root.

    >>> number("hybrid2", "linear", "bielu")
    27
    """
    if term == "none":
        return 1
    linear = coefficients == "linear"
    if term in ("comb", "ne", "hybrid1"):
        return 2 + 2 * ("comb", "ne", "hybrid1").index(term) + linear
    if filter == "sqrt":
        return None
    return (8 if term == "ema" else 18) + 5 * linear + FILTERS.index(filter)


def _about(settings: Mapping[str, Any]) -> About:
    term, coefficients, chosen = (settings.get(key, "none") for key in ("term", "coefficients", "filter"))
    found = number(term, coefficients, chosen)
    parts = [TITLES[term], *([coefficients] if term != "none" else []), *([chosen] if chosen != "none" else [])]
    return About(
        name=f"Hybrid {found or ''}: {', '.join(parts)} (reconstruction)",
        family="probability",
        kinds=("class_logits",),
        link="softmax",
        paper="after Choi, IJFIS 24(4), 2024, eq. 1-9, table 1",
        evidence="R",
        whole_batch=True,
    )


@about_by_settings(_about)
def hybrid(
    logits: Tensor,
    target: Tensor,
    *,
    term: Literal["none", "comb", "ne", "hybrid1", "ema", "hybrid2"] = "hybrid2",
    coefficients: Literal["convex", "linear"] = "linear",
    filter: Literal["none", "relu", "elu", "birelu", "bielu", "sqrt"] = "none",
    a: float = 0.6,
    b: float = 0.5,
    over_classes: OverClasses = "mean",
    mode: Literal["consistent", "printed"] = "consistent",
    hybrid1: Literal["ne", "ema"] = "ne",
    two_sided: Literal["difference", "sum"] = "difference",
    mask: Tensor | None = None,
) -> Tensor:
    """Cross-entropy plus a function of the mean absolute and the mean squared error of the probabilities.

    L_i = CE_i + R(L1, L2), L1 = mean |y - p|, L2 = mean (y - p)^2 over the batch, p = softmax(z), over classes by mean,
    or by sum, since by mean L1 is at most 2/C. With (A, B) linear and (A, 1 - A) convex, called (a, b): comb = a L1 + b
    L2; ne = a L1 exp(b L2); ema = f(u), u = a (a L1 - b L1 - b L2) + b L2; hybrid1 = ne + comb (or ema + comb); hybrid2
    = f(u) + ne. f: none, ReLU, eLU, f(u) - f(-u) of these ("bi", or their sum), or a square root. There is no state,
    despite the name moving average. logits: (N,C,...); target: (N,...) int64; mask: bool (N,...), items that
    count; returns (N,...).

    >>> hybrid(torch.zeros(1, 2), torch.tensor([1]), term="comb")
    tensor([1.1181])
    """
    check_choice("term", term, TERMS)
    check_choice("coefficients", coefficients, COEFFICIENTS)
    check_choice("filter", filter, FILTERS)
    check_choice("mode", mode, ("consistent", "printed"))
    check_choice("over_classes", over_classes, ("sum", "mean"))
    target, mask = masked_labels(target, mask)
    entropy = entropy_of_classes(logits, target)
    if term == "none":
        return entropy
    away = logits.softmax(1) - one_hot(target, logits)
    counted = torch.ones_like(entropy) if mask is None else mask.to(entropy.dtype)
    held = counted.sum().clamp_min(1) * (logits.shape[1] if over_classes == "mean" else 1)
    l1 = (away.abs() * counted.unsqueeze(1)).sum() / held
    l2 = (away.square() * counted.unsqueeze(1)).sum() / held
    return entropy + added(
        l1, l2, term=term, coefficients=coefficients, filter=filter, a=a, b=b, mode=mode, hybrid1=hybrid1,
        two_sided=two_sided,
    )  # fmt: skip


def added(
    l1: Tensor,
    l2: Tensor,
    *,
    term: str,
    coefficients: str,
    filter: str = "none",
    a: float = 0.6,
    b: float = 0.5,
    mode: str = "consistent",
    hybrid1: str = "ne",
    two_sided: str = "difference",
) -> Tensor:
    """Return R(L1, L2), elementwise; settings as for `hybrid`.

    >>> added(torch.tensor(0.4), torch.tensor(0.2), term="ema", coefficients="convex")
    tensor(0.0800)
    """
    second = 1 - a if coefficients == "convex" else b
    comb = a * l1 + second * l2
    exponential = a * l1 * (second * l2).exp()
    if term == "none":
        return torch.zeros_like(l1)
    if term == "comb":
        return comb
    if term == "ne":
        return exponential
    u = _average(l1, l2, term, coefficients, a, b, mode)
    if term == "hybrid1":
        return comb + (exponential if hybrid1 == "ne" else u)
    if mode == "printed" and term == "hybrid2" and filter == "bielu":
        return exponential  # equation 9 subtracts the filter from itself
    if mode == "printed" and term == "hybrid2" and filter == "none" and coefficients == "convex":
        filter = "sqrt"  # equation 6 has a root that table 1 does not name
    filtered = _filtered(u, filter, two_sided)
    return filtered if term == "ema" else filtered + exponential


def _average(l1: Tensor, l2: Tensor, term: str, coefficients: str, a: float, b: float, mode: str) -> Tensor:
    """Return u, the "moving average" in closed form."""
    second = 1 - a if coefficients == "convex" else b
    if mode == "printed":
        # equations 4 to 6 mix 1 - A and B in the first step; 7 to 9 take B for both
        first = b if (term, coefficients) == ("hybrid2", "linear") else 1 - a
        return a * (a * l1 - first * l1 - b * l2) + second * l2
    return a * (a * l1 - second * l1 - second * l2) + second * l2


def _filtered(u: Tensor, filter: str, two_sided: str) -> Tensor:
    if filter == "none":
        return u
    if filter == "sqrt":
        return safe_sqrt(u.clamp_min(0))
    one_sided = functional.elu if filter.endswith("elu") and not filter.endswith("relu") else torch.relu
    if not filter.startswith("bi"):
        return one_sided(u)
    return one_sided(u) - one_sided(-u) if two_sided == "difference" else one_sided(u) + one_sided(-u)
