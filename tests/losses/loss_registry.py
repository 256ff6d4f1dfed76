"""What the laws are applied to: every yaml of conf/loss, built as a study builds it, and the data that it compares."""

import importlib
import itertools
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from losses.compound import Sum
from losses.loss import Loss, Output, instantiate_with_sizes

FOLDER = Path(__file__).parents[2] / "conf" / "loss"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
CLASSES, FEATURES = 5, 6
SMALLER = {"ms_ssim": {"weights": [0.4, 0.6], "window": 5}}
"""Settings in place of those that need larger data than the laws have time for."""


def config(name, **settings):
    return {**OmegaConf.to_container(OmegaConf.load(FOLDER / f"{name}.yaml")), **settings}


def build(name, num_classes=CLASSES, num_features=FEATURES, dtype=torch.float64, norm="count", sanitize_masked=True, **settings):
    composed = config(name, **{**SMALLER.get(name, {}), **settings})
    if "terms" in composed:
        weights = composed["terms"]
        return Sum({term: build(term, num_classes, num_features, dtype, norm, sanitize_masked) for term in weights}, weights)
    torch.manual_seed(0)
    function = instantiate_with_sizes(instantiate(composed), num_classes=num_classes, num_features=num_features)
    return Loss(function, norm=norm, sanitize_masked=sanitize_masked).to(dtype)


def target_of(composed):
    """The function, class or adapter that a yaml names, and the settings that stand beside it."""
    settings = {name: value for name, value in composed.items() if name not in ("_target_", "_partial_")}
    module, _, attribute = composed["_target_"].rpartition(".")
    return getattr(importlib.import_module(module), attribute), settings


def takes(loss):
    return set(loss.about.takes.split("+"))


def batch(loss, count=12, dtype=torch.float64, seed=1, spread=2.0, shape=(), flat=None):
    """What the loss takes, as leaves that require gradients, and targets; drawn at random, so away from kinks.

    flat: levels and a size of noise: all numbers of the first part are at the first level but for the noise, those of
    the second at the second, and so on, from the first again.
    """
    draw = torch.Generator().manual_seed(seed)
    levels, noise = flat or ((0.0,), None)
    level = itertools.cycle(levels)

    def normal(*size):
        drawn = torch.randn(count, *size, generator=draw, dtype=torch.float64)
        return spread * drawn if noise is None else next(level) + noise * drawn

    def uniform(*size):
        drawn = torch.rand(count, *size, generator=draw, dtype=torch.float64)
        return drawn if noise is None else next(level) + noise * drawn

    def leaf(data):
        return data.to(dtype).requires_grad_()

    taken = takes(loss)
    if taken <= CLASSES_AND_FEATURES:
        features = leaf(normal(FEATURES)) if "features" in taken else None
        prediction = leaf(normal(CLASSES, *shape)) if "class_logits" in taken else None
        return Output(features, prediction), torch.randint(CLASSES, (count, *shape), generator=draw)
    latents = leaf(normal(2, FEATURES)) if "latents" in taken else None
    if taken == {"latents"}:
        return Output(latents, None), normal().to(dtype)
    (kind,) = taken - {"latents"}
    prediction, target = SAMPLERS[kind](normal, uniform)
    return Output(latents, leaf(prediction)), target.to(dtype)


def boxes(uniform):
    """Boxes of some size, x1 y1 x2 y2, near each other."""
    corner, size = 8 * uniform(2), 2 + 8 * uniform(2)
    return torch.cat([corner, corner + size], 1)


def rotated_boxes(uniform):
    return torch.cat([16 + 4 * uniform(2), 4 + 8 * uniform(2), 3 * uniform(1)], 1)


CLASSES_AND_FEATURES = {"class_logits", "features"}
SAMPLERS = {
    "values": lambda normal, uniform: (normal(), normal()),
    "counts": lambda normal, uniform: (5 * uniform(), 5 * uniform()),
    "distributions": lambda normal, uniform: (normal(2), normal()),
    "class_probabilities": lambda normal, uniform: (normal(CLASSES), normal(CLASSES).softmax(1)),
    "binary_logits": lambda normal, uniform: (normal(), uniform().round()),
    "boxes": lambda normal, uniform: (boxes(uniform), boxes(uniform)),
    "rotated_boxes": lambda normal, uniform: (rotated_boxes(uniform), rotated_boxes(uniform)),
    "images": lambda normal, uniform: (uniform(3, 16, 16), uniform(3, 16, 16)),
    "feature_maps": lambda normal, uniform: (normal(4, 3, 3), normal(4, 3, 3)),
    "flows": lambda normal, uniform: (normal(2, 3, 3), normal(2, 3, 3)),
    "attention": lambda normal, uniform: (normal(3, 4).softmax(2), (4 * uniform()).floor()),
    "embeddings": lambda normal, uniform: (normal(FEATURES), normal(FEATURES)),
    "score_pairs": lambda normal, uniform: (normal(2), uniform().round()),
    "critic_scores": lambda normal, uniform: (normal(), uniform().round()),
    "critic_slopes": lambda normal, uniform: (normal(2, 3), torch.ones_like(uniform())),
}
"""By what a loss takes: prediction and target, given functions that draw (count, ...) numbers."""


def change(output, function):
    """Apply a function to each part of an output, and make the results leaves again."""
    return Output(*(None if data is None else function(data.detach()).requires_grad_() for data in output))


def cast(target, dtype):
    """Classes stay whole numbers."""
    return target.to(dtype) if target.is_floating_point() else target


def leaves(loss, output):
    """Everything a gradient flows to: what the model returned, and the loss's own weights."""
    return [data for data in output if data is not None] + list(loss.parameters())


def value_and_gradients(loss, output, *batch):
    value = loss(output, *batch)
    return value.detach(), torch.autograd.grad(value, leaves(loss, output))
