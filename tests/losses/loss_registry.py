"""What the laws are applied to: every yaml of conf/loss, built as a study builds it, and the data that it compares."""

import importlib
import itertools
from collections.abc import Mapping
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from losses.compound import Sum
from losses.kinds import Draw, Pair, example
from losses.loss import Loss, instantiate_with_sizes

FOLDER = Path(__file__).parents[2] / "conf" / "loss"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
CLASSES, FEATURES = 5, 6
SMALLER = {"ms_ssim": {"weights": [0.4, 0.6], "window": 5}}
"""Settings in place of those that need larger data than the laws have time for."""


def config(name, **settings):
    return {**OmegaConf.to_container(OmegaConf.load(FOLDER / f"{name}.yaml")), **settings}


def build(
    name,
    num_classes=CLASSES,
    num_features=FEATURES,
    dtype=torch.float64,
    norm="count",
    sanitize_masked=True,
    **settings,
):
    composed = config(name, **{**SMALLER.get(name, {}), **settings})
    if "terms" in composed:
        weights, given = composed["terms"], composed.get("parts", {})
        shared = (num_classes, num_features, dtype, norm, sanitize_masked)
        return Sum({term: build(term, *shared, **given.get(term, {})) for term in weights}, weights)
    torch.manual_seed(0)
    function = instantiate_with_sizes(instantiate(composed), num_classes=num_classes, num_features=num_features)
    return Loss(function, norm=norm, sanitize_masked=sanitize_masked).to(dtype)


def target_of(composed):
    """The function, class or adapter that a yaml names, and the settings that stand beside it."""
    settings = {name: value for name, value in composed.items() if name not in ("_target_", "_partial_")}
    module, _, attribute = composed["_target_"].rpartition(".")
    return getattr(importlib.import_module(module), attribute), settings


class FlatDraw(Draw):
    """Numbers that are nearly alike: those of the first part at the first level but for the noise, those of the second
    at the second, and so on, from the first again.
    """

    def __init__(self, count, classes, seed, levels, noise):
        super().__init__(count, classes, seed, spread=1.0)
        self.level, self.noise = itertools.cycle(levels), noise

    def normal(self, *shape):
        return next(self.level) + self.noise * super().normal(*shape)

    def uniform(self, *shape):
        return next(self.level) + self.noise * super().uniform(*shape)


def batch(loss, count=12, dtype=torch.float64, seed=1, spread=2.0, shape=(), flat=None):
    """Pairs of the kinds a loss compares, drawn at random, so away from kinks; the predictions require gradients.

    flat: levels and size of the noise of a `FlatDraw`.
    """
    draw = Draw(count, CLASSES, seed, spread) if flat is None else FlatDraw(count, CLASSES, seed, *flat)
    drawn = example(loss.about.kinds, draw, {"class_logits": (CLASSES, *shape)})
    return change(drawn, lambda data: data.to(dtype), lambda data: cast(data, dtype))


def pair_of(loss, **options):
    """The prediction and the target of a loss of one kind, as `batch` draws them."""
    ((prediction, target, _),) = batch(loss, **options).values()
    return prediction, target


def change(pairs, prediction=lambda data: data, target=lambda data: data, mask=None):
    """Apply a function to every prediction, and make the results leaves again, and one to every target."""
    return {
        kind: Pair(prediction(pair.prediction.detach()).requires_grad_(), target(pair.target), mask)
        for kind, pair in pairs.items()
    }


def masked(pairs, mask):
    """The same pairs, predictions not copied, with a mask."""
    return {kind: pair._replace(mask=mask) for kind, pair in pairs.items()}


def cast(target, dtype):
    """Classes stay whole numbers."""
    return target.to(dtype) if target.is_floating_point() else target


def leaves(loss, data):
    """Everything a gradient flows to: the predictions, of pairs or given by itself, and the loss's own weights."""
    predictions = [pair.prediction for pair in data.values()] if isinstance(data, Mapping) else [data]
    return [*predictions, *loss.parameters()]


def value_and_gradients(loss, data, *others):
    """The loss of pairs, or of a prediction, its target and perhaps a mask, and its gradient for all leaves."""
    value = loss(data, *others)
    return value.detach(), torch.autograd.grad(value, leaves(loss, data))
