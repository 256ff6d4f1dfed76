"""python -m scripts.weight_penalty

What the hybrid losses would be if their L1 and L2 were penalties on the weights of the network, as these names mostly
mean, and not errors of predictions: for every experiment the added term at the start of training, and the length of its
gradient over that of cross-entropy on the first batch of scenes. Writes results/measured/hybrid_weight_penalty.csv.
"""

from __future__ import annotations

import math

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

from harness import compose
from harness.address import spec_of
from harness.paths import MEASURED
from harness.report.exhibits.hybrid import EXPERIMENTS, OTHER
from harness.tasks import Seeds
from losses.hybrid import added, number
from scripts.bench_harness import loop_of

MODELS = ("unet_micro", "fcn_micro")
OUT = MEASURED / "hybrid_weight_penalty.csv"


def length(value: Tensor, weights: list[Tensor]) -> float:
    """Return the length of the gradient of a value in all weights; 0 where it does not depend on them."""
    if not value.requires_grad:
        return 0.0
    found = torch.autograd.grad(value, weights, retain_graph=True, allow_unused=True)
    return math.sqrt(sum(float(slope.double().square().sum()) for slope in found if slope is not None))


def rows(model: str) -> list[dict[str, object]]:
    """Return a row for every experiment and both ways to sum up weights: their sum, and their mean."""
    loop = loop_of(spec_of(compose.compose_run(["task=segmentation", "dataset=scenes", f"model={model}"]).config))
    loop.model.train()
    batch = next(iter(loop.task.epoch(Seeds(1, 1))))
    pair = loop.task.pairs(loop.model(*batch.inputs), batch)["class_logits"]
    weights = [weight for weight in loop.model.parameters() if weight.requires_grad]
    entropy = length(functional.cross_entropy(pair.prediction, pair.target, ignore_index=255), weights)
    all_of_them = torch.cat([weight.flatten() for weight in weights]).double()
    found: list[dict[str, object]] = []
    for over in ("sum", "mean"):
        l1, l2 = (getattr(values, over)() for values in (all_of_them.abs(), all_of_them.square()))
        for each in EXPERIMENTS[1:]:
            settings = {"term": each.term, "coefficients": each.coefficients, "filter": each.filter}
            value = added(l1, l2, **settings, a=OTHER[0], b=OTHER[1])
            slope = length(value, weights)
            found.append(
                {
                    "model": model, "weights": len(all_of_them), "over": over, "experiment": number(*settings.values()),
                    "loss": each.file, "a": OTHER[0], "b": OTHER[1], "l1": l1.item(), "l2": l2.item(),
                    "value": value.item(), "gradient": slope, "gradient_of_cross_entropy": entropy,
                    "ratio": slope / entropy,
                }
            )  # fmt: skip
    return found


def main() -> None:
    """Write the table and say what is in it."""
    table = pd.DataFrame([row for model in MODELS for row in rows(model)])
    table.to_csv(OUT, index=False, float_format="%.6g")
    for (model, over), group in table.groupby(["model", "over"], sort=False):
        infinite = int((~group["value"].map(math.isfinite)).sum())
        finite = group.loc[group["ratio"].map(math.isfinite), "ratio"]
        print(
            f"{model}, {over}: L1 {group['l1'].iloc[0]:.4g}, L2 {group['l2'].iloc[0]:.4g}; infinite in {infinite} of "
            f"{len(group)} experiments; else gradients {finite.min():.3g} to {finite.max():.3g} times cross-entropy's"
        )


if __name__ == "__main__":
    main()
